//===- StreamDecoder.cpp - Tokens to text, as they come -------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/lib/Tokenizer.h"

using namespace gptq::runtime;

/// Length of the UTF-8 sequence `lead` starts, and the range its second byte
/// must be in; 0 for a byte that starts none. The ranges exclude overlong
/// forms, surrogates and values beyond U+10FFFF.
static int sequenceLength(unsigned char lead, unsigned char &low,
                          unsigned char &high) {
  low = 0x80;
  high = 0xbf;
  if (lead < 0x80)
    return 1;
  if (lead < 0xc2)
    return 0;
  if (lead < 0xe0)
    return 2;
  if (lead < 0xf0) {
    if (lead == 0xe0)
      low = 0xa0;
    if (lead == 0xed)
      high = 0x9f;
    return 3;
  }
  if (lead < 0xf5) {
    if (lead == 0xf0)
      low = 0x90;
    if (lead == 0xf4)
      high = 0x8f;
    return 4;
  }
  return 0;
}

size_t gptq::runtime::appendValidUtf8(std::string_view text, bool isFinal,
                                      std::string &out) {
  static const char replacement[] = "\xef\xbf\xbd";
  size_t i = 0;
  while (i < text.size()) {
    unsigned char low, high;
    int length = sequenceLength(text[i], low, high);
    size_t good = length > 0;
    while (good > 0 && good < size_t(length) && i + good < text.size()) {
      unsigned char c = text[i + good];
      if (c < low || c > high)
        break;
      low = 0x80;
      high = 0xbf;
      ++good;
    }
    if (length > 0 && good == size_t(length)) {
      out.append(text.substr(i, good));
      i += good;
    } else if (!isFinal && good > 0 && i + good == text.size()) {
      break; // The rest may still come.
    } else {
      out += replacement;
      i += good > 0 ? good : 1;
    }
  }
  return i;
}

StreamDecoder::StreamDecoder(const Tokenizer &tokenizer)
    : tokenizer(tokenizer), spacesToDrop(tokenizer.leadingSpaces()) {}

std::string StreamDecoder::push(int32_t token) {
  size_t before = held.size();
  tokenizer.appendBytes(token, held);
  while (spacesToDrop > 0 && held.size() > before) {
    if (held[before] == ' ') {
      held.erase(before, 1);
      --spacesToDrop;
    } else {
      spacesToDrop = 0;
    }
  }
  std::string out;
  held.erase(0, appendValidUtf8(held, /*isFinal=*/false, out));
  return out;
}

std::string StreamDecoder::finish() {
  std::string out;
  appendValidUtf8(held, /*isFinal=*/true, out);
  held.clear();
  spacesToDrop = tokenizer.leadingSpaces();
  return out;
}
