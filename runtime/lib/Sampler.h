//===- Sampler.h - Chooses the next token -----------------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_RUNTIME_LIB_SAMPLER_H
#define GPTQ_RUNTIME_LIB_SAMPLER_H

#include "runtime/abi/Sampling.h"
#include "runtime/abi/Status.h"

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

/// Draws as runtime/abi/Sampling.h says; a device that does comes to the same
/// tokens.
class Sampler {
public:
  static abi::Expected<Sampler> create(Sampling sampling);

  /// The token at `position` by the logits of the one in front; `count` >= 1.
  /// The same every time for the same seed.
  int32_t pick(const float *logits, int64_t count, int64_t position);

  const Sampling &settings() const { return sampling; }
  bool isGreedy() const { return sampling.temperature == 0; }

  /// What a device reads about how to draw.
  abi::sampling::Words words() const;

private:
  explicit Sampler(Sampling sampling) : sampling(sampling) {}

  struct Candidate {
    float logit;
    int32_t token;
    uint64_t weight;
  };

  Sampling sampling;
  std::vector<Candidate> candidates;
};

} // namespace gptq::runtime

#endif // GPTQ_RUNTIME_LIB_SAMPLER_H
