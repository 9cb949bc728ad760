//===- Json.h - Checked JSON ------------------------------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Reading JSON from files nobody vouches for: depth and size are bounded,
// an object may not name a key twice, and every field is asked for with the
// type it must have.
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_RUNTIME_ABI_JSON_H
#define GPTQ_RUNTIME_ABI_JSON_H

#include "runtime/abi/Status.h"

#include <nlohmann/json.hpp>

#include <string>
#include <string_view>
#include <vector>

namespace gptq::abi {

using Json = nlohmann::json;

/// What a document may hold at most; one that holds more is refused.
struct JsonLimits {
  /// Nested objects and arrays.
  size_t maxDepth = 64;
  /// Values of any kind. One takes up to 100 bytes of memory once parsed.
  size_t maxValues = size_t(1) << 24;
};

/// Parses all of `text`. Fails on bad UTF-8, on duplicate keys and beyond
/// `limits`; never throws and never recurses by the document's depth.
Expected<Json> parseJson(std::string_view text, JsonLimits limits = {});

/// A value inside a document that knows where it is, so that errors can say
/// `entries[0].max_m: expected an integer, found a string`. Refers to the
/// document; does not own it.
class JsonView {
public:
  JsonView(const Json &value, std::string path)
      : value(&value), where(std::move(path)) {}

  const Json &raw() const { return *value; }
  const std::string &path() const { return where; }

  /// The member `key` of an object; an error if it is missing.
  Expected<JsonView> at(std::string_view key) const;
  /// The member `key`, or nothing if it is missing.
  std::optional<JsonView> find(std::string_view key) const;
  /// The elements of an array.
  Expected<std::vector<JsonView>> elements() const;

  /// An integer in [min, max].
  Expected<int64_t> integer(int64_t min = 0, int64_t max = INT64_MAX) const;
  Expected<std::string> string() const;
  Expected<bool> boolean() const;
  Status expectObject() const;

  /// The error that this value is not `what`.
  Status mismatch(const char *what) const;

private:
  const Json *value;
  std::string where;
};

/// `text` cut to `limit` bytes and with control characters escaped, so that
/// a file's content can be shown in a message.
std::string quoteForMessage(std::string_view text, size_t limit = 80);

} // namespace gptq::abi

#endif // GPTQ_RUNTIME_ABI_JSON_H
