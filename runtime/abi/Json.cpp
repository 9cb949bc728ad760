//===- Json.cpp - Checked JSON --------------------------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/abi/Json.h"

#include <cstdio>

using namespace gptq::abi;

namespace {

/// Builds a document value by value and stops at the first thing the limits
/// forbid. The library's parser keeps its own stack on the heap, so depth
/// costs no call frames here either.
class Builder final : public nlohmann::json_sax<Json> {
public:
  explicit Builder(JsonLimits limits) : limits(limits) {}

  bool null() override { return put(Json()); }
  bool boolean(bool v) override { return put(Json(v)); }
  bool number_integer(number_integer_t v) override { return put(Json(v)); }
  bool number_unsigned(number_unsigned_t v) override { return put(Json(v)); }
  bool number_float(number_float_t v, const string_t &) override {
    return put(Json(v));
  }
  bool string(string_t &v) override { return put(Json(std::move(v))); }
  bool binary(binary_t &) override { return false; }

  bool start_object(size_t) override { return open(Json::object()); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t &name) override {
    auto &object = stack.back()->get_ref<Json::object_t &>();
    auto [it, isNew] = object.emplace(std::move(name), nullptr);
    if (!isNew)
      return fail("names the key " + quoteForMessage(it->first) + " twice");
    slot = &it->second;
    return true;
  }

  bool parse_error(size_t position, const std::string &,
                   const nlohmann::detail::exception &) override {
    return fail("is not valid at byte " + std::to_string(position));
  }

  Json take() { return std::move(root); }
  const std::string &message() const { return error; }

private:
  bool fail(std::string why) {
    if (error.empty())
      error = "JSON " + std::move(why);
    return false;
  }

  /// Places `v` where the document expects the next value.
  Json *place(Json v) {
    if (++count > limits.maxValues) {
      fail("holds more than " + std::to_string(limits.maxValues) + " values");
      return nullptr;
    }
    if (stack.empty()) {
      root = std::move(v);
      return &root;
    }
    if (stack.back()->is_array()) {
      auto &array = stack.back()->get_ref<Json::array_t &>();
      array.push_back(std::move(v));
      return &array.back();
    }
    *slot = std::move(v);
    return slot;
  }
  bool put(Json v) { return place(std::move(v)) != nullptr; }
  bool open(Json v) {
    if (stack.size() == limits.maxDepth)
      return fail("is nested deeper than " + std::to_string(limits.maxDepth) +
                  " levels");
    // Containers on the stack stay where they are: a parent only grows after
    // its child has been closed.
    Json *placed = place(std::move(v));
    if (placed)
      stack.push_back(placed);
    return placed;
  }
  bool close() {
    stack.pop_back();
    return true;
  }

  JsonLimits limits;
  Json root;
  std::vector<Json *> stack;
  Json *slot = nullptr;
  size_t count = 0;
  std::string error;
};

} // namespace

Expected<Json> gptq::abi::parseJson(std::string_view text, JsonLimits limits) {
  Builder builder(limits);
  if (!Json::sax_parse(text.data(), text.data() + text.size(), &builder))
    return Status(StatusCode::InvalidFile, builder.message().empty()
                                               ? "JSON is not valid"
                                               : builder.message());
  return builder.take();
}

Status JsonView::mismatch(const char *what) const {
  return makeStatus(StatusCode::InvalidFile, "%s: expected %s, found %s%s",
                    where.c_str(), what, value->is_array() ? "an " : "",
                    value->is_number_float() ? "a number with a fraction"
                                             : value->type_name());
}

Status JsonView::expectObject() const {
  return value->is_object() ? Status() : mismatch("an object");
}

std::optional<JsonView> JsonView::find(std::string_view key) const {
  if (!value->is_object())
    return std::nullopt;
  auto it = value->find(key);
  if (it == value->end())
    return std::nullopt;
  std::string name(key);
  return JsonView(*it, where.empty() ? name : where + "." + name);
}

Expected<JsonView> JsonView::at(std::string_view key) const {
  GPTQ_TRY(expectObject());
  if (std::optional<JsonView> found = find(key))
    return *found;
  return makeStatus(StatusCode::InvalidFile, "%s: key '%.*s' is missing",
                    where.empty() ? "document" : where.c_str(), int(key.size()),
                    key.data());
}

Expected<std::vector<JsonView>> JsonView::elements() const {
  if (!value->is_array())
    return mismatch("an array");
  std::vector<JsonView> out;
  out.reserve(value->size());
  for (size_t i = 0; i < value->size(); ++i)
    out.emplace_back((*value)[i], where + "[" + std::to_string(i) + "]");
  return out;
}

Expected<int64_t> JsonView::integer(int64_t min, int64_t max) const {
  if (!value->is_number_integer())
    return mismatch("an integer");
  bool tooLarge =
      value->is_number_unsigned() && value->get<uint64_t>() > INT64_MAX;
  int64_t n = tooLarge ? INT64_MAX : value->get<int64_t>();
  if (tooLarge || n < min || n > max)
    return makeStatus(StatusCode::InvalidFile,
                      "%s: expected an integer from %lld to %lld, found %s",
                      where.c_str(), (long long)min, (long long)max,
                      value->dump().c_str());
  return n;
}

Expected<std::string> JsonView::string() const {
  if (!value->is_string())
    return mismatch("a string");
  return value->get_ref<const std::string &>();
}

Expected<bool> JsonView::boolean() const {
  if (!value->is_boolean())
    return mismatch("true or false");
  return value->get<bool>();
}

std::string gptq::abi::quoteForMessage(std::string_view text, size_t limit) {
  bool isCut = text.size() > limit;
  std::string out = "'";
  for (char c : text.substr(0, limit)) {
    if (static_cast<unsigned char>(c) >= 0x20 && c != 0x7f) {
      out += c;
      continue;
    }
    char escape[8];
    std::snprintf(escape, sizeof(escape), "\\x%02x", (unsigned char)c);
    out += escape;
  }
  return out + (isCut ? "...'" : "'");
}
