//===- GpuMatmulBench.h - Measures lone matmuls on a GPU --------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_TOOLS_GPTQ_BENCH_GPUMATMULBENCH_H
#define GPTQ_TOOLS_GPTQ_BENCH_GPUMATMULBENCH_H

#include "MatmulLayers.h"

namespace gptq::bench {

/// Measures layers compiled for a GPU and compares what they compute with
/// float64. Returns how many results are wrong.
int benchGpuMatmul(const MatmulOptions &options,
                   const std::vector<CompiledLayer> &layers,
                   nlohmann::ordered_json &report);

} // namespace gptq::bench

#endif // GPTQ_TOOLS_GPTQ_BENCH_GPUMATMULBENCH_H
