//===- NVVMPlan.h - What planners for NVIDIA GPUs share ---------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_LIB_CODEGEN_NVVM_NVVMPLAN_H
#define GPTQ_LIB_CODEGEN_NVVM_NVVMPLAN_H

#include "gptq/Codegen/Common/Plan.h"

namespace mlir::gptq {

inline constexpr int64_t kTileRows = ::gptq::MatrixFragments::tileRows;
inline constexpr int64_t kTileColumns = ::gptq::MatrixFragments::tileColumns;
inline constexpr int64_t kWarpThreads = 32;
/// How many warps fill a multiprocessor, and the registers each of their
/// threads then has.
inline constexpr std::pair<int64_t, int64_t> kWarps[] = {
    {16, 128}, {12, 168}, {8, 255}};
/// Of these the first, and those for what takes more registers.
inline constexpr int64_t kMaxWarps = kWarps[0].first,
                         kFewWarps = kWarps[1].first,
                         kLeastWarps = kWarps[2].first;
/// Rows of K that a warp multiplies between two applications of a scale, on a
/// matrix unit.
inline constexpr int64_t kStepRows[] = {128, 64};
/// Bits of a zero point, and of codes whose registers count for narrower ones.
inline constexpr int64_t kZeroBits = 8, kLeastBits = 4;

/// The matmul that a plan is for.
struct MatmulShape {
  int64_t n, k, groupSize;
  /// Of codes and scales (0: there are none).
  int64_t bits, scaleBits;
  bool hasZeros, isQuantized, isF16;
  /// Its activations are the norm of something; groups have an offset; rows of
  /// activations come in runs for several weights.
  bool isNormalized, hasOffsets, hasRuns;
  /// They are made by a kernel that reads weights up to its end.
  bool followsWeights = false;
};

/// Of the registers `each` thread then has, those that sums and operands may
/// take: what `unit` leaves of the fewest, and all that there are more.
inline int64_t operandRegisters(const ::gptq::UnitInfo &unit, int64_t each) {
  return unit.operandRegisters + each - kWarps[0].second;
}

} // namespace mlir::gptq

#endif // GPTQ_LIB_CODEGEN_NVVM_NVVMPLAN_H
