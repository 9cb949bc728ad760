//===- MappedFile.h - A file mapped for reading -----------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_RUNTIME_ABI_MAPPEDFILE_H
#define GPTQ_RUNTIME_ABI_MAPPEDFILE_H

#include "runtime/abi/Status.h"

#include <string>

namespace gptq::abi {

/// A regular file's bytes, mapped read-only and private. The file must not be
/// shortened while it is mapped.
class MappedFile {
public:
  static Expected<MappedFile> open(const std::string &path);

  MappedFile() = default;
  MappedFile(MappedFile &&other) noexcept { swap(other); }
  MappedFile &operator=(MappedFile &&other) noexcept {
    swap(other);
    return *this;
  }
  ~MappedFile();

  ByteSpan bytes() const { return span; }

private:
  void swap(MappedFile &other) { std::swap(span, other.span); }

  ByteSpan span;
};

} // namespace gptq::abi

#endif // GPTQ_RUNTIME_ABI_MAPPEDFILE_H
