//===- Checksum.cpp - XXH3 of a tensor's bytes ----------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/abi/Checksum.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cstdio>

using namespace gptq::abi;

uint64_t gptq::abi::checksum(ByteSpan bytes) {
  return XXH3_64bits(bytes.data, bytes.size);
}

ChecksumStream::ChecksumStream() : state(XXH3_createState()) {
  XXH3_64bits_reset(static_cast<XXH3_state_t *>(state));
}

ChecksumStream::~ChecksumStream() {
  XXH3_freeState(static_cast<XXH3_state_t *>(state));
}

void ChecksumStream::update(ByteSpan bytes) {
  XXH3_64bits_update(static_cast<XXH3_state_t *>(state), bytes.data,
                     bytes.size);
}

uint64_t ChecksumStream::finish() {
  auto *s = static_cast<XXH3_state_t *>(state);
  uint64_t sum = XXH3_64bits_digest(s);
  XXH3_64bits_reset(s);
  return sum;
}

std::string gptq::abi::checksumText(uint64_t sum) {
  char text[17];
  std::snprintf(text, sizeof(text), "%016llx", (unsigned long long)sum);
  return text;
}

std::optional<uint64_t> gptq::abi::parseChecksum(std::string_view text) {
  if (text.size() != 16)
    return std::nullopt;
  uint64_t sum = 0;
  for (char c : text) {
    int digit = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                       : -1;
    if (digit < 0)
      return std::nullopt;
    sum = sum << 4 | uint64_t(digit);
  }
  return sum;
}
