//===- Pipelines.h - The order of passes ------------------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The only order of passes. Each stage takes the form of the IR that the one
// before it leaves; gptq-opt can start and stop at any of them.
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_PIPELINES_PIPELINES_H
#define GPTQ_PIPELINES_PIPELINES_H

#include "mlir/Pass/PassManager.h"
#include "llvm/ADT/ArrayRef.h"
#include <string>

namespace mlir {
class DialectRegistry;

namespace gptq {

/// What the pipeline compiles for, and which of its optimizations are on.
/// Without any of them the results are the same up to the order of rounding.
struct PipelineOptions {
  /// Name of a target in Target: "x86-64-v3".
  std::string target = "x86-64-v3";
  bool fuse = true;
  bool promote = true;
  bool bufferPartials = true;
  bool vectorize = true;
  bool hoistScales = true;
  bool foldZeros = true;
  /// GPUs: element type of what matmuls read, "f16", "bf16" or "auto" (as
  /// dense weights have it); and the bits of
  /// packed weights that a thread loads at once, at most.
  std::string activations = "auto";
  bool prefetch = true;
  /// Many rows: operands pass through a ring in shared memory.
  bool ring = true;
  bool clusters = true;
  /// Kernels start before the one in front has ended, where the GPU can.
  bool overlap = true;
  /// Every workgroup of a matmul of one row normalizes the row itself.
  bool normalize = true;
  /// The device chooses tokens: the model gets the entries `next` and, with a
  /// power of two of tokens that can be sampled from, `sample`. In them, and
  /// wherever there is one row, attention rotates and appends by itself, and is
  /// split over parts of the context.
  bool next = true;
  int64_t maxTopK = 128;
  bool fuseRotary = true;
  bool splitContext = true;
  int64_t loadBits = 128;
  /// A file of plans that replace the planner's, or empty.
  std::string planFile;
  /// GPUs: the arithmetic unit that multiplies, by its name in Target (empty:
  /// the target's first), and whether it may multiply packed halves.
  std::string unit;
  bool halfMath = true;
  /// Plans come with their reasons, `gptq.reasons`.
  bool reasons = false;
};

/// The forms of the IR after import, in order: "normalized", "planned",
/// "packed", "dispatched", "tiled", "vector", "target".
ArrayRef<StringRef> stageNames();

/// Appends the passes that lead to the form `stage`, on a builtin.module.
void buildStage(OpPassManager &pm, StringRef stage,
                const PipelineOptions &options);

/// Everything that the passes and tools need registered.
void registerAllDialects(DialectRegistry &registry);
void registerAllPasses();

/// Registers `gptq-to-<stage>` and `gptq-cpu`, the whole way, by name.
void registerPipelines();

} // namespace gptq
} // namespace mlir

#endif // GPTQ_PIPELINES_PIPELINES_H
