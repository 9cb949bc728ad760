//===- Limits.h - What the machine can do -----------------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_TOOLS_GPTQ_BENCH_LIMITS_H
#define GPTQ_TOOLS_GPTQ_BENCH_LIMITS_H

#include <cstdint>
#include <string>
#include <vector>

namespace gptq::bench {

struct Machine {
  std::string processor;
  /// Processors this process may run on.
  int processors = 1;
  /// Last-level caches of those processors, together.
  int64_t cacheBytes = 0;
  /// Where `cacheBytes` comes from: `sysfs`, `sysconf` or `assumed`.
  std::string cacheSource;
};

Machine describeMachine();

/// The best of some short measurements: what disturbs them only slows them.
struct Limits {
  int threads = 0;
  /// Reads of memory too large for the caches.
  double gigabytesPerSecond = 0;
  int64_t bytesRead = 0;
  /// f32 multiply-adds in registers, two operations each.
  double gigaflops = 0;
  /// Instructions of the latter: `avx512`, `avx2` or `scalar`.
  std::string instructions;
};

/// Measures the limits of each number of threads.
std::vector<Limits> measureLimits(const Machine &machine,
                                  const std::vector<int> &threads);

/// Keeps the better of two measurements of the same threads.
void improve(std::vector<Limits> &limits, const std::vector<Limits> &again);

/// The limits of `threads`, which must be among them.
const Limits &limitsOf(const std::vector<Limits> &limits, int threads);

} // namespace gptq::bench

#endif // GPTQ_TOOLS_GPTQ_BENCH_LIMITS_H
