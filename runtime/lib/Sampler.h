//===- Sampler.h - Chooses the next token -----------------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_RUNTIME_LIB_SAMPLER_H
#define GPTQ_RUNTIME_LIB_SAMPLER_H

#include "runtime/abi/Status.h"

#include <random>
#include <vector>

namespace gptq::runtime {

struct Sampling {
  /// 0: greedy.
  float temperature = 0;
  /// 0: all.
  int topK = 0;
  float topP = 1;
  uint64_t seed = 0;
};

class Sampler {
public:
  static abi::Expected<Sampler> create(Sampling sampling);

  /// `count` >= 1.
  int32_t pick(const float *logits, int64_t count);

private:
  explicit Sampler(Sampling sampling)
      : sampling(sampling), random(sampling.seed) {}

  struct Candidate {
    float logit;
    int32_t token;
  };

  Sampling sampling;
  /// The standard fixes this generator's sequence; its distributions it does
  /// not, so numbers are scaled here.
  std::mt19937_64 random;
  std::vector<Candidate> candidates;
  std::vector<double> weights;
};

} // namespace gptq::runtime

#endif // GPTQ_RUNTIME_LIB_SAMPLER_H
