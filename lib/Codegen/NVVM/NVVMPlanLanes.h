//===- NVVMPlanLanes.h - Plans for vector units of a GPU --------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_LIB_CODEGEN_NVVM_NVVMPLANLANES_H
#define GPTQ_LIB_CODEGEN_NVVM_NVVMPLANLANES_H

#include "NVVMPlan.h"

namespace mlir::gptq {

/// What plans may use.
struct LanesPlanOptions {
  bool bufferPartials, hoistScales, foldZeros, prefetch;
  int64_t loadBits;
};

/// Where the ranges of M end for which plans differ.
SmallVector<int64_t> lanesRowEnds();

/// The plan of a matmul [K, N] with weights of `bits` for calls of `mMin` to
/// `mMax` rows on a unit whose threads hold a column each.
ReasonedPlan planOnLanes(MLIRContext *ctx, const ::gptq::TargetInfo &target,
                         const ::gptq::UnitInfo &unit,
                         const LanesPlanOptions &options, int64_t n, int64_t k,
                         int64_t bits, bool isQuantized, int64_t mMin,
                         int64_t mMax);

} // namespace mlir::gptq

#endif // GPTQ_LIB_CODEGEN_NVVM_NVVMPLANLANES_H
