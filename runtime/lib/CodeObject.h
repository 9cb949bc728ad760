//===- CodeObject.h - A model's machine code --------------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_RUNTIME_LIB_CODEOBJECT_H
#define GPTQ_RUNTIME_LIB_CODEOBJECT_H

#include "runtime/abi/KernelABI.h"
#include "runtime/abi/Status.h"

#include <string>

namespace gptq::runtime {

/// A loaded shared object that was never a file with a name.
class CodeObject {
public:
  static abi::Expected<CodeObject> load(abi::ByteSpan elf);

  CodeObject() = default;
  CodeObject(CodeObject &&other) noexcept { swap(other); }
  CodeObject &operator=(CodeObject &&other) noexcept {
    swap(other);
    return *this;
  }
  ~CodeObject();

  abi::Expected<gptq_cpu_kernel> find(const std::string &symbol) const;

private:
  void swap(CodeObject &other) {
    std::swap(handle, other.handle);
    std::swap(fd, other.fd);
  }

  void *handle = nullptr;
  /// Stays open as long as the object is loaded: the dynamic linker knows
  /// objects by their path, and the path is this descriptor's number.
  int fd = -1;
};

} // namespace gptq::runtime

#endif // GPTQ_RUNTIME_LIB_CODEOBJECT_H
