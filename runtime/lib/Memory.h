//===- Memory.h - Anonymous memory ------------------------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_RUNTIME_LIB_MEMORY_H
#define GPTQ_RUNTIME_LIB_MEMORY_H

#include "runtime/abi/Status.h"

#include <cstdint>

namespace gptq::runtime {

/// Zeroed, page-aligned memory straight from the kernel: pages nobody touched
/// cost nothing, which is what makes a long context affordable until it is
/// used.
class PageBuffer {
public:
  /// `bytes` may be 0.
  static abi::Expected<PageBuffer> allocate(int64_t bytes);

  PageBuffer() = default;
  PageBuffer(PageBuffer &&other) noexcept { swap(other); }
  PageBuffer &operator=(PageBuffer &&other) noexcept {
    swap(other);
    return *this;
  }
  ~PageBuffer();

  uint8_t *data() const { return base; }
  int64_t size() const { return bytes; }
  /// Zeroes everything and gives the pages back.
  void clear();

private:
  void swap(PageBuffer &other) {
    std::swap(base, other.base);
    std::swap(bytes, other.bytes);
  }

  uint8_t *base = nullptr;
  int64_t bytes = 0;
};

} // namespace gptq::runtime

#endif // GPTQ_RUNTIME_LIB_MEMORY_H
