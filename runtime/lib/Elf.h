//===- Elf.h - Checks files of machine code ---------------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_RUNTIME_LIB_ELF_H
#define GPTQ_RUNTIME_LIB_ELF_H

#include "runtime/abi/Status.h"

#include <cstdint>

namespace gptq::runtime {

/// Checks that `file`, called `name` in messages, is a 64-bit ELF file of the
/// kind `type` whose segments and sections all lie inside it: who loads it
/// takes them as it finds them, and is not told where the file ends.
abi::Status checkElf(abi::ByteSpan file, const char *name, uint16_t type);

} // namespace gptq::runtime

#endif // GPTQ_RUNTIME_LIB_ELF_H
