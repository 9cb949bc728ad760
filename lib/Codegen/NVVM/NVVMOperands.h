//===- NVVMOperands.h - What the inner loops of all units share -*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_LIB_CODEGEN_NVVM_NVVMOPERANDS_H
#define GPTQ_LIB_CODEGEN_NVVM_NVVMOPERANDS_H

#include "gptq/Codegen/Common/VectorBuilder.h"

namespace mlir::gptq {

/// Bytes that a run of elements of `buffer` at column `column` is aligned to:
/// rows of the buffer start at multiples of their length.
llvm::Align alignmentOf(Value buffer, Value column);

/// Bits of the fraction of f16 or bf16.
inline int64_t fractionBits(FloatType type) { return type.isBF16() ? 7 : 10; }

/// Two codes of a word, which lie `place` + `shift` bits up in each half of it,
/// as floating-point numbers 2^(fraction bits - place) larger than the codes;
/// `inOne`: by one instruction besides the shift, and a constant in a register.
Value unpackPair(VectorBuilder &b, Value word, int64_t shift, int64_t place,
                 int64_t bits, FloatType type, bool inOne = false);

} // namespace mlir::gptq

#endif // GPTQ_LIB_CODEGEN_NVVM_NVVMOPERANDS_H
