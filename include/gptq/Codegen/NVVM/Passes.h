//===- Passes.h - Passes of this room ---------------------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_CODEGEN_NVVM_PASSES_H
#define GPTQ_CODEGEN_NVVM_PASSES_H

#include "mlir/Pass/Pass.h"

namespace mlir::gptq {

#define GEN_PASS_DECL
#include "gptq/Codegen/NVVM/Passes.h.inc"

#define GEN_PASS_REGISTRATION
#include "gptq/Codegen/NVVM/Passes.h.inc"

} // namespace mlir::gptq

#endif // GPTQ_CODEGEN_NVVM_PASSES_H
