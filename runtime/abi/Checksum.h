//===- Checksum.h - XXH3 of a tensor's bytes --------------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_RUNTIME_ABI_CHECKSUM_H
#define GPTQ_RUNTIME_ABI_CHECKSUM_H

#include "runtime/abi/Status.h"

#include <string>

namespace gptq::abi {

/// XXH3-64 with seed 0.
uint64_t checksum(ByteSpan bytes);

/// The same of bytes that come in pieces.
class ChecksumStream {
public:
  ChecksumStream();
  ~ChecksumStream();
  ChecksumStream(const ChecksumStream &) = delete;
  ChecksumStream &operator=(const ChecksumStream &) = delete;

  void update(ByteSpan bytes);
  /// The checksum of all bytes since the last call.
  uint64_t finish();

private:
  void *state;
};

/// 16 lower-case hex digits, and back; nothing if `text` is not that.
std::string checksumText(uint64_t sum);
std::optional<uint64_t> parseChecksum(std::string_view text);

} // namespace gptq::abi

#endif // GPTQ_RUNTIME_ABI_CHECKSUM_H
