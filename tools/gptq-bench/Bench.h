//===- Bench.h - What gptq-bench measures -----------------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_TOOLS_GPTQ_BENCH_BENCH_H
#define GPTQ_TOOLS_GPTQ_BENCH_BENCH_H

#include "runtime/abi/Status.h"
#include "tools/gptq-bench/Limits.h"
#include "tools/gptq-run/Support.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <vector>

namespace gptq::bench {

using run::check;
using run::Error;

struct MatmulOptions {
  std::string target = "cpu:native";
  /// NxK each.
  std::vector<std::string> shapes = {"4096x4096"};
  std::vector<int64_t> rows = {1, 8, 64, 512};
  std::vector<int> bits = {4};
  int64_t group = 128;
  bool asym = false;
  bool actOrder = false;
  std::vector<int> threads;
  int samples = 21;
  double seconds = 60;
  /// Where gptq-translate and gptq-compile are.
  std::string binDir;
  /// More arguments for gptq-compile.
  std::vector<std::string> compileArguments;
  /// Folder to compile into, without measuring; folder to measure, without
  /// compiling. Empty: both, in passing.
  std::string writeTo, readFrom;
  /// On a GPU: which, the largest error relative to the largest result, and
  /// milliseconds of rest before each measurement.
  int device = 0;
  double tolerance = 4e-4;
  double rest = 0;
};

struct ModelOptions {
  std::string path;
  /// 0: as fits the context, at most 512 and 128.
  int64_t promptTokens = 0;
  int64_t newTokens = 0;
  std::vector<int> threads;
  int samples = 5;
  int device = 0;
  /// How tokens are chosen; 0: the likeliest.
  float temperature = 0;
  int topK = 0;
  /// The host chooses, whatever the device can.
  bool chooseOnHost = false;
};

/// Measures lone matmuls: prints a table and adds what it shows to `report`.
/// Returns how many results are wrong, where it checks them: on a GPU.
int benchMatmul(const MatmulOptions &options, nlohmann::ordered_json &report);

/// Measures prefill and decode of a compiled model, likewise.
void benchModel(const ModelOptions &options, nlohmann::ordered_json &report);

/// Ctrl-C ended the program.
struct Interrupted : Error {
  Interrupted() : Error("interrupted") {}
};

inline void stopIfInterrupted() {
  if (run::isInterrupted())
    throw Interrupted();
}

/// The middle of `values`, which are not empty.
inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  size_t n = values.size();
  return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

/// The value, or an end with the reason there is none.
template <typename T> T take(abi::Expected<T> value) {
  if (!value)
    throw Error(value.status().message());
  return value.take();
}

inline void check(const abi::Status &status) {
  if (!status.ok())
    throw Error(status.message());
}

/// Adds and prints the limits and the machine they were measured on.
void describeMachine(const Machine &machine, const std::vector<Limits> &limits,
                     nlohmann::ordered_json &report);

} // namespace gptq::bench

#endif // GPTQ_TOOLS_GPTQ_BENCH_BENCH_H
