//===- Plan.h - Reading plans -----------------------------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_CODEGEN_COMMON_PLAN_H
#define GPTQ_CODEGEN_COMMON_PLAN_H

#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "gptq/Target/Target.h"
#include "mlir/IR/BuiltinOps.h"

namespace mlir::gptq {

/// The plans of an op in the model (one per range of M), or of the op in a
/// kernel. Empty, or null, where the planner has not been.
SmallVector<PlanAttr> getPlans(Operation *op);
PlanAttr getPlan(Operation *op);

/// Whether a matmul's activations are made by an op that reads weights. What
/// makes those of a lone matmul is not known: as likely another of them.
bool followsWeights(Operation *op);

/// `plan` for another range of M.
PlanAttr withRows(PlanAttr plan, int64_t mMin, int64_t mMax);

/// A plan, and why each field that is not the plain choice is as it is.
struct ReasonedPlan {
  PlanAttr plan;
  DictionaryAttr reasons;
};

/// Plans every op of the entries of `module` that has no plans yet: one for
/// each range of M, which ends where `ends` says (ascending; the largest M of
/// the entry follows by itself), chosen by `choose(op, mMin, mMax)`. An op on a
/// fixed number of rows is planned for these only.
void planOps(ModuleOp module, bool withReasons,
             function_ref<SmallVector<int64_t>(Operation *)> ends,
             function_ref<ReasonedPlan(Operation *, int64_t, int64_t)> choose);

/// Takes from norms the plans for ranges of M in which every kernel that wants
/// the norm computes it itself (`path = normalize`).
void dropUnreadPlans(ModuleOp module);

/// A layout of `bits`-bit elements as an attribute.
LayoutAttr toAttr(MLIRContext *ctx, const ::gptq::WeightLayout &layout,
                  int64_t bits);

/// Whether `buffer` is a weight of the kernel it is used in, or a part of one.
bool isWeight(Value buffer);

/// On a load that stays where its value is used: the cache has it, and
/// registers for it are few.
inline constexpr llvm::StringLiteral kInPlaceAttr = "gptq.in_place";

/// On a kernel: workgroups that are on neighbouring cores at the same time, and
/// see each other's workgroup memory. On a buffer in that memory: its first
/// dimension counts these workgroups, and each holds its own part; on a
/// barrier: it is for the threads of all of them.
inline constexpr llvm::StringLiteral kClusterAttr = "gptq.cluster";

/// On a buffer in workgroup memory that is first used when no thread uses those
/// without this attribute any more: it may lie where they are.
inline constexpr llvm::StringLiteral kAfterOthersAttr = "gptq.after_others";

/// The workgroup memory that a ring takes, in bytes: one of its places, which
/// holds a part of activations and of weights with their scales and zero
/// points; sums of warps and workgroups that meet, which lie where places were;
/// and beside them barriers, what alignment costs, and what the driver keeps.
struct RingBytes {
  int64_t place, sums, others;

  /// Places that fit `memory`; none if the sums do not.
  int64_t places(int64_t memory) const {
    return memory - others < sums ? 0 : (memory - others) / place;
  }
};
RingBytes ringBytes(PlanAttr plan, int64_t bits, int64_t scaleBits,
                    bool hasZeros);

/// The unit that `plan` multiplies with; null if there is none.
const ::gptq::UnitInfo *unitOf(PlanAttr plan);
/// Whether that is a matrix unit, and whether it is one that the threads of a
/// warp with a column each are.
bool usesMatrixUnit(PlanAttr plan);
bool usesLanes(PlanAttr plan);

/// Finds the unit of this name among all targets' units with `lanes` lanes;
/// null if there is none.
const ::gptq::UnitInfo *findUnit(StringRef name, int64_t lanes);

} // namespace mlir::gptq

#endif // GPTQ_CODEGEN_COMMON_PLAN_H
