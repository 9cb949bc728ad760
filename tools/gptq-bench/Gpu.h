//===- Gpu.h - A GPU and how fast it reads ----------------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_TOOLS_GPTQ_BENCH_GPU_H
#define GPTQ_TOOLS_GPTQ_BENCH_GPU_H

#include "Bench.h"

#include "runtime/lib/CudaDriver.h"

namespace gptq::bench {

class Gpu {
public:
  explicit Gpu(int ordinal);

  const runtime::CudaContext &context() const { return *device; }
  int64_t cacheBytes() const { return l2Bytes; }

  /// The seconds of one replay of `graph`.
  double replay(const runtime::CudaGraph &graph) const;

  /// Puts a kernel into the stream that reads [data, data + bytes), a multiple
  /// of 16, and does nothing else.
  abi::Status read(runtime::cuda::Pointer data, int64_t bytes) const;

  /// The best rate of reading memory too large for the cache, in GB/s.
  double measureRead() const;

  /// Adds and prints what the GPU is, and the rate.
  void describe(double readGigabytesPerSecond,
                nlohmann::ordered_json &report) const;

private:
  std::unique_ptr<runtime::CudaContext> device;
  runtime::CudaModule module;
  runtime::cuda::Function readKernel = nullptr;
  runtime::CudaBuffer sink;
  runtime::CudaEvent start, end;
  int64_t l2Bytes = 0, multiprocessors = 0;
  int driverVersion = 0;
};

} // namespace gptq::bench

#endif // GPTQ_TOOLS_GPTQ_BENCH_GPU_H
