//===- Regex.cpp - Regular expressions that come with a file --------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/abi/Regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <string>

using namespace gptq::abi;

/// Bounds for patterns that come with a file. The tokenizers in use have some
/// 300 characters and look back a few steps for each character.
static constexpr size_t maxPatternBytes = 4096;
static constexpr uint32_t maxMatchSteps = 1'000'000;
static constexpr uint32_t maxHeapKiB = 16 * 1024;

struct Regex::Impl {
  pcre2_code *code = nullptr;
  ~Impl() { pcre2_code_free(code); }
};

Regex::Regex(std::unique_ptr<Impl> impl) : impl(std::move(impl)) {}
Regex::Regex(Regex &&) noexcept = default;
Regex &Regex::operator=(Regex &&) noexcept = default;
Regex::~Regex() = default;

static std::string errorText(int code) {
  PCRE2_UCHAR text[256];
  if (pcre2_get_error_message(code, text, sizeof(text)) < 0)
    return "error " + std::to_string(code);
  return reinterpret_cast<const char *>(text);
}

Expected<Regex> Regex::compile(std::string_view pattern) {
  if (pattern.size() > maxPatternBytes)
    return makeStatus(StatusCode::Unsupported,
                      "the pattern has %zu bytes, at most %zu are read",
                      pattern.size(), maxPatternBytes);
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto impl = std::make_unique<Impl>();
  impl->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()),
                             pattern.size(),
                             PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C,
                             &error, &offset, nullptr);
  if (!impl->code)
    return makeStatus(StatusCode::Unsupported,
                      "the pattern cannot be read: %s at byte %zu",
                      errorText(error).c_str(), size_t(offset));
  // Without the compiled form matching is slower, not different.
  (void)pcre2_jit_compile(impl->code, PCRE2_JIT_COMPLETE);
  return Regex(std::move(impl));
}

namespace {
/// What one search needs, with its bounds.
struct Search {
  explicit Search(const pcre2_code *code)
      : data(pcre2_match_data_create_from_pattern(code, nullptr)),
        context(pcre2_match_context_create(nullptr)) {
    if (!isValid())
      return;
    pcre2_set_match_limit(context, maxMatchSteps);
    pcre2_set_heap_limit(context, maxHeapKiB);
  }
  ~Search() {
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
  }
  bool isValid() const { return data && context; }
  int match(const pcre2_code *code, std::string_view text, size_t at,
            uint32_t options) const {
    // Validity is the caller's promise; checking it here would read all of
    // the text once for every match.
    return pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()),
                       text.size(), at, options | PCRE2_NO_UTF_CHECK, data,
                       context);
  }
  pcre2_match_data *data;
  pcre2_match_context *context;
};
} // namespace

Status Regex::findAll(std::string_view text,
                      std::vector<std::pair<size_t, size_t>> &out) const {
  Search search(impl->code);
  if (!search.isValid())
    return Status(StatusCode::ResourceExhausted,
                  "no memory to match a pattern");
  for (size_t at = 0; at < text.size();) {
    int count = search.match(impl->code, text, at, 0);
    if (count == PCRE2_ERROR_NOMATCH)
      break;
    if (count < 0)
      return makeStatus(StatusCode::Unsupported,
                        "the tokenizer's pattern failed on the text: %s",
                        errorText(count).c_str());
    PCRE2_SIZE *range = pcre2_get_ovector_pointer(search.data);
    // \K in a lookahead could turn a match around.
    if (range[0] < at || range[1] < range[0])
      return Status(StatusCode::Unsupported,
                    "the tokenizer's pattern matches backwards");
    if (range[1] > range[0]) {
      out.emplace_back(range[0], range[1]);
      at = range[1];
      continue;
    }
    // An empty match: go on behind the next character.
    at = range[1] + 1;
    while (at < text.size() && (text[at] & 0xc0) == 0x80)
      ++at;
  }
  return Status::success();
}

Expected<bool> Regex::matchesStart(std::string_view text) const {
  Search search(impl->code);
  if (!search.isValid())
    return Status(StatusCode::ResourceExhausted,
                  "no memory to match a pattern");
  int count = search.match(impl->code, text, 0, PCRE2_ANCHORED);
  if (count < 0 && count != PCRE2_ERROR_NOMATCH)
    return makeStatus(StatusCode::Unsupported, "matching failed: %s",
                      errorText(count).c_str());
  return count >= 0;
}
