//===- PlanFile.h - Plans that a user gives ---------------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A plan file is text: one MLIR dictionary behind another, each saying for
// which ops it is and how they are planned.
//
//   {op = "dequant_matmul", target = "sm_90a", n = 4096, k = 4096, bits = 4,
//    group_size = 128, plans = [#gptq.plan<…>, #gptq.plan<…>]}
//
// `op` and `plans` must be there. Whatever else is named must be so of an op
// for the entry to match it; the first entry that matches is taken. The plans
// are all of the op's, from one row up; ranges of M that the op does not reach
// are cut off.
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_CODEGEN_COMMON_PLANFILE_H
#define GPTQ_CODEGEN_COMMON_PLANFILE_H

#include "gptq/Target/Target.h"
#include "mlir/IR/BuiltinOps.h"
#include "llvm/Support/raw_ostream.h"

namespace mlir::gptq {

struct PlanFileEntry {
  DictionaryAttr description;
  /// Where it starts.
  Location loc;
};

/// Reads the plan file `path`. Errors go to the context's diagnostics.
FailureOr<SmallVector<PlanFileEntry>> readPlanFile(StringRef path,
                                                   MLIRContext *context);

/// Writes the plans of `module`, in the form "planned" for `target`: one entry
/// for all ops of one description.
LogicalResult writePlanFile(ModuleOp module, const ::gptq::TargetInfo &target,
                            raw_ostream &os);

} // namespace mlir::gptq

#endif // GPTQ_CODEGEN_COMMON_PLANFILE_H
