//===- Sampler.cpp - Chooses the next token -------------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/lib/Sampler.h"

#include <algorithm>
#include <cmath>

using namespace gptq::abi;
using namespace gptq::runtime;

Expected<Sampler> Sampler::create(Sampling s) {
  if (!(s.temperature >= 0) || !std::isfinite(s.temperature))
    return makeStatus(StatusCode::InvalidArgument,
                      "expected a temperature of at least 0, found %g",
                      double(s.temperature));
  if (s.topK < 0)
    return makeStatus(StatusCode::InvalidArgument,
                      "expected a top-k of at least 0, found %d", s.topK);
  if (!(s.topP > 0 && s.topP <= 1))
    return makeStatus(StatusCode::InvalidArgument,
                      "expected a top-p above 0 and up to 1, found %g",
                      double(s.topP));
  return Sampler(s);
}

/// The lowest index of the largest value; 0 if all are not-a-number.
static int32_t argmax(const float *logits, int64_t count) {
  int64_t best = -1;
  for (int64_t i = 0; i < count; ++i)
    if (!std::isnan(logits[i]) && (best < 0 || logits[i] > logits[best]))
      best = i;
  return int32_t(std::max<int64_t>(best, 0));
}

int32_t Sampler::pick(const float *logits, int64_t count) {
  if (sampling.temperature == 0)
    return argmax(logits, count);

  candidates.clear();
  for (int64_t i = 0; i < count; ++i)
    if (!std::isnan(logits[i]))
      candidates.push_back({logits[i], int32_t(i)});
  if (candidates.empty())
    return 0;
  // Equal logits rank by id, so that equal seeds give equal choices whatever
  // the sort does.
  auto isBefore = [](const Candidate &a, const Candidate &b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
  };
  size_t keep = candidates.size();
  if (sampling.topK > 0)
    keep = std::min(keep, size_t(sampling.topK));
  if (keep < candidates.size())
    std::nth_element(candidates.begin(), candidates.begin() + keep,
                     candidates.end(), isBefore);
  candidates.resize(keep);
  std::sort(candidates.begin(), candidates.end(), isBefore);

  float top = candidates[0].logit;
  if (std::isinf(top))
    return candidates[0].token;
  weights.clear();
  double total = 0;
  for (const Candidate &c : candidates) {
    weights.push_back(
        std::exp((double(c.logit) - double(top)) / sampling.temperature));
    total += weights.back();
  }
  if (sampling.topP < 1) {
    double limit = total * double(sampling.topP), sum = 0;
    size_t n = 0;
    while (n < weights.size() && sum < limit)
      sum += weights[n++];
    weights.resize(std::max<size_t>(n, 1));
    total = sum;
  }
  // 53 random bits: as many as a double between 0 and 1 holds evenly.
  double at = double(random() >> 11) * 0x1p-53 * total;
  for (size_t i = 0; i < weights.size(); ++i) {
    at -= weights[i];
    if (at < 0)
      return candidates[i].token;
  }
  return candidates[weights.size() - 1].token;
}
