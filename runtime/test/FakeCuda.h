//===- FakeCuda.h - A driver for a GPU that is not there --------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_RUNTIME_TEST_FAKECUDA_H
#define GPTQ_RUNTIME_TEST_FAKECUDA_H

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace gptq::test {

/// What the fake device is, what its driver was asked for, and what it is to
/// refuse. The tests set and read it; the library holds the only one.
struct FakeCuda {
  int deviceCount = 1;
  int major = 9, minor = 0;
  int64_t totalBytes = int64_t(1) << 30;
  /// Results of code.cubin and code.ptx.
  int cubinResult = 0, ptxResult = 0;
  /// What the kernels do.
  int kernelResult = 0;
  int maxThreads = 1024;
  /// The function that fails, at which of its calls, and how.
  std::string failing;
  int failingCall = 0;
  int failure = 999;

  /// Calls of each function.
  std::map<std::string, int> calls;
  struct Launch {
    std::string kernel;
    unsigned grid, threads, sharedBytes;
    bool overlaps, inGraph;
  };
  /// Kernels that ran.
  std::vector<Launch> launches;
  int64_t usedBytes = 0;
  int contexts = 0;
  /// Whatever else the driver made and has not destroyed.
  std::set<const void *> alive;
};

} // namespace gptq::test

/// The library's.
extern "C" gptq::test::FakeCuda *gptqFakeCuda();

#endif // GPTQ_RUNTIME_TEST_FAKECUDA_H
