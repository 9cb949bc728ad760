//===- Memory.cpp - Anonymous memory --------------------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/lib/Memory.h"

#include <cerrno>
#include <cstring>
#include <sys/mman.h>

using namespace gptq::abi;
using namespace gptq::runtime;

Expected<PageBuffer> PageBuffer::allocate(int64_t bytes) {
  PageBuffer buffer;
  if (bytes == 0)
    return buffer;
  // Reserved without backing: what a session may use at most is often more
  // than the machine has, what it does use is not.
  void *p = ::mmap(nullptr, size_t(bytes), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED)
    return makeStatus(StatusCode::ResourceExhausted,
                      "cannot reserve %lld bytes of memory: %s",
                      (long long)bytes, std::strerror(errno));
  buffer.base = static_cast<uint8_t *>(p);
  buffer.bytes = bytes;
  // Fewer page faults and address translations where the kernel has large
  // pages to give; a refusal changes nothing but speed.
  if (bytes >= int64_t(4) << 20)
    ::madvise(p, size_t(bytes), MADV_HUGEPAGE);
  return buffer;
}

void PageBuffer::clear() {
  if (base)
    ::madvise(base, size_t(bytes), MADV_DONTNEED);
}

PageBuffer::~PageBuffer() {
  if (base)
    ::munmap(base, size_t(bytes));
}
