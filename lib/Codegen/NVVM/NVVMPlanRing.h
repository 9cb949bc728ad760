//===- NVVMPlanRing.h - Plans for matmuls through a ring --------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_LIB_CODEGEN_NVVM_NVVMPLANRING_H
#define GPTQ_LIB_CODEGEN_NVVM_NVVMPLANRING_H

#include "gptq/Codegen/Common/Plan.h"

namespace mlir::gptq {

inline constexpr int64_t kTileRows = ::gptq::MatrixFragments::tileRows;
inline constexpr int64_t kTileColumns = ::gptq::MatrixFragments::tileColumns;
inline constexpr int64_t kWarpThreads = 32;
/// Warps of a workgroup: with 128 registers a thread they fill a
/// multiprocessor.
inline constexpr int64_t kMaxWarps = 16;
/// Rows of K that a warp multiplies between two applications of a scale.
inline constexpr int64_t kStepRows[] = {128, 64};
/// Bits of a zero point, and of codes whose registers count for narrower ones.
inline constexpr int64_t kZeroBits = 8, kLeastBits = 4;
/// Through a ring: the largest number of rows whose scales are applied to sums
/// in sixteen warps.
inline constexpr int64_t kMaxHoistedRows = 32;

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

/// What plans of rings may use.
struct RingPlanOptions {
  /// Whether there may be rings; whether a unit was asked for, which is none of
  /// several warps.
  bool ring, hasUnit;
  bool clusters, bufferPartials, hoistScales;
  int64_t loadBits;
};

/// The plan of a matmul whose operands pass through a ring, for calls of `mMin`
/// to `mMax` rows; without a plan, the reason why they cannot.
ReasonedPlan planRing(MLIRContext *ctx, const ::gptq::TargetInfo &target,
                      const RingPlanOptions &options, const MatmulShape &shape,
                      int64_t mMin, int64_t mMax);

} // namespace mlir::gptq

#endif // GPTQ_LIB_CODEGEN_NVVM_NVVMPLANRING_H
