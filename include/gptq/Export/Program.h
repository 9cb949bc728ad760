//===- Program.h - Entry functions as a compiled model's program *- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_EXPORT_PROGRAM_H
#define GPTQ_EXPORT_PROGRAM_H

#include "gptq/Export/WeightReader.h"
#include "runtime/abi/Manifest.h"

namespace mlir::gptq {

/// What a module in its final form says, apart from the bytes of code and
/// weights.
struct Program {
  /// Complete but for `sections`.
  model::Manifest manifest;
  /// The weight that becomes tensor `w.<i>`; only those a dispatch reads.
  SmallVector<WeightOp> weights;
  /// The nested module of kernels, and the names of those that are used.
  ModuleOp kernelModule;
  SmallVector<std::string> kernels;
};

/// Reads the program out of `module`: entry functions of dispatches, the nested
/// module of kernels in the LLVM dialect, and the attributes about the model.
model::Expected<Program> buildProgram(ModuleOp module);

/// A buffer of an entry: its size for the largest call, and the first and last
/// dispatch that need it.
struct ArenaBuffer {
  int64_t bytes = 0;
  int64_t first = 0;
  int64_t last = 0;
  /// Set by `planArena`.
  int64_t offset = 0;
};

/// Places buffers so that two that are needed at the same time do not overlap,
/// each at a multiple of the model's alignment. Returns the bytes of the arena.
int64_t planArena(MutableArrayRef<ArenaBuffer> buffers);

} // namespace mlir::gptq

#endif // GPTQ_EXPORT_PROGRAM_H
