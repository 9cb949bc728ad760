//===- Assembler.h - Machine code of NVIDIA GPUs ----------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// PTX is all a driver needs. Where NVIDIA's assembler is there when a model is
// compiled, the model carries machine code for its target as well, and what
// the assembler says of each kernel can be read before there is a GPU.
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_EXPORT_ASSEMBLER_H
#define GPTQ_EXPORT_ASSEMBLER_H

#include "gptq/Export/WeightReader.h"
#include "gptq/Target/Target.h"

namespace mlir::gptq {

/// What a kernel takes of a multiprocessor, as the assembler counts it.
struct KernelUse {
  std::string kernel;
  int64_t registers = 0;
  /// Of a thread's local memory, and what of it is moved for want of registers.
  int64_t stackBytes = 0, spillBytes = 0;
};

struct AssembledCode {
  std::string cubin;
  std::vector<KernelUse> kernels;
  /// Kernels, and what the assembler warns of or left undone in them.
  std::vector<std::pair<std::string, std::string>> notes;
};

/// The path of the assembler that `choice` names: a path, `none`, or nothing,
/// which means $CUDA_HOME/bin/ptxas or the first of PATH. Empty where there is
/// none.
model::Expected<std::string> findAssembler(StringRef choice);

/// Assembles `ptx` with the program `assembler`.
model::Expected<AssembledCode>
assemble(StringRef ptx, const ::gptq::TargetInfo &target, StringRef assembler);

/// What an assembler that was asked for statistics has printed.
AssembledCode parseAssemblerOutput(StringRef text);

/// Says all of `code` in remarks: an analysis for each kernel, what was missed
/// for each note.
void emitRemarks(MLIRContext *context, const AssembledCode &code);

} // namespace mlir::gptq

#endif // GPTQ_EXPORT_ASSEMBLER_H
