//===- Explain.h - What was decided, for people -----------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Tells what the passes decided for each layer and why. It only reads: the
// planner wrote its reasons beside its plans (`gptq.reasons`), the other passes
// emit remarks.
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_PIPELINES_EXPLAIN_H
#define GPTQ_PIPELINES_EXPLAIN_H

#include "gptq/Target/Target.h"
#include "mlir/IR/BuiltinOps.h"
#include "llvm/Support/raw_ostream.h"
#include <memory>

namespace mlir::gptq {

/// Collects, from its making on, what is decided in `context`. One at a time
/// for a context, which has one receiver of remarks.
class Explanation {
public:
  /// `bytesPerSecond`: what one core reads from memory, for floors; 0 takes the
  /// target's own figure.
  Explanation(MLIRContext &context, const ::gptq::TargetInfo &target,
              double bytesPerSecond = 0);
  ~Explanation();

  /// Takes down the plans of `module`, in the form "packed": then weights have
  /// the size that is read.
  void addPlans(ModuleOp module);

  /// Takes down which kernels which layers run, in the form "dispatched".
  void addKernels(ModuleOp module);

  /// Prints a block for each kind of layer, then what was fused and what was
  /// not, and what kernels take where an assembler has said so. Layers that
  /// differ only in the number of their block share one.
  void print(raw_ostream &os) const;

private:
  struct Storage;
  std::unique_ptr<Storage> storage;
};

} // namespace mlir::gptq

#endif // GPTQ_PIPELINES_EXPLAIN_H
