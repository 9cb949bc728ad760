//===- SpecialTokens.cpp - Tokens written out in text ---------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/lib/SpecialTokens.h"

#include <algorithm>
#include <cctype>

using namespace gptq::abi;
using namespace gptq::runtime;

void SpecialTokens::add(std::string name, int32_t id, Flags flags) {
  if (name.empty())
    return;
  std::vector<size_t> &list = byFirstByte[(unsigned char)name[0]];
  tokens.push_back({std::move(name), id, flags});
  list.push_back(tokens.size() - 1);
  // Of two tokens with one name the first stays in front.
  std::sort(list.begin(), list.end(), [&](size_t a, size_t b) {
    size_t m = tokens[a].name.size(), n = tokens[b].name.size();
    return m != n ? m > n : a < b;
  });
}

static bool isSpace(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/// Letters of other scripts are several bytes, all above 0x7f.
static bool isWordByte(char c) {
  return (unsigned char)c >= 0x80 || std::isalnum((unsigned char)c) || c == '_';
}

Status
SpecialTokens::split(std::string_view text,
                     const std::function<Status(std::string_view)> &onText,
                     const std::function<void(int32_t)> &onToken) const {
  size_t plain = 0;
  for (size_t i = 0; i < text.size();) {
    const Token *match = nullptr;
    for (size_t index : byFirstByte[(unsigned char)text[i]]) {
      const Token &t = tokens[index];
      if (text.compare(i, t.name.size(), t.name) != 0)
        continue;
      size_t after = i + t.name.size();
      if (t.flags.singleWord &&
          ((i > 0 && isWordByte(text[i - 1])) ||
           (after < text.size() && isWordByte(text[after]))))
        continue;
      match = &t;
      break;
    }
    if (!match) {
      ++i;
      continue;
    }
    size_t begin = i, end = i + match->name.size();
    if (match->flags.stripLeft)
      while (begin > plain && isSpace(text[begin - 1]))
        --begin;
    if (match->flags.stripRight)
      while (end < text.size() && isSpace(text[end]))
        ++end;
    if (begin > plain)
      GPTQ_TRY(onText(text.substr(plain, begin - plain)));
    onToken(match->id);
    plain = i = end;
  }
  if (plain < text.size())
    GPTQ_TRY(onText(text.substr(plain)));
  return {};
}
