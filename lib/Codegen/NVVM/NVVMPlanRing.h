//===- NVVMPlanRing.h - Plans for matmuls through a ring --------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_LIB_CODEGEN_NVVM_NVVMPLANRING_H
#define GPTQ_LIB_CODEGEN_NVVM_NVVMPLANRING_H

#include "NVVMPlan.h"
#include "gptq/Codegen/NVVM/NVVMOps.h"

namespace mlir::gptq {

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
