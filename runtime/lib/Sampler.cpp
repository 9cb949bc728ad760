//===- Sampler.cpp - Chooses the next token -------------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/lib/Sampler.h"

#include <algorithm>
#include <cmath>
#include <cstring>

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

/// log2(e) / temperature.
static double scaleOf(float temperature) {
  return 1.4426950408889634 / double(temperature);
}

sampling::Words Sampler::words() const {
  uint32_t topP;
  std::memcpy(&topP, &sampling.topP, sizeof(topP));
  const double scale = scaleOf(sampling.temperature);
  uint64_t scaleBits;
  std::memcpy(&scaleBits, &scale, sizeof(scaleBits));
  sampling::Words words{};
  words[sampling::TopK] = uint32_t(sampling.topK);
  words[sampling::TopP] = topP;
  words[sampling::ScaleLow] = uint32_t(scaleBits);
  words[sampling::ScaleHigh] = uint32_t(scaleBits >> 32);
  words[sampling::SeedLow] = uint32_t(sampling.seed);
  words[sampling::SeedHigh] = uint32_t(sampling.seed >> 32);
  return words;
}

/// Step 2 of runtime/abi/Sampling.h.
static uint64_t weightOf(float logit, float top, double scale) {
  double y = (double(logit) - double(top)) * scale;
  // Also where y is no number.
  if (!(y > sampling::lowestExponent))
    y = sampling::lowestExponent;
  const int64_t n = int64_t(y);
  const double f = y - double(n);
  double power = sampling::exp2Terms.back();
  for (size_t i = sampling::exp2Terms.size() - 1; i-- > 0;)
    power = power * f + sampling::exp2Terms[i];
  return uint64_t(std::ldexp(power, int(n) + sampling::weightBits) + 0.5);
}

/// floor(x * y / 2^64)
static uint64_t multiplyHigh(uint64_t x, uint64_t y) {
  const uint64_t low = uint32_t(x), high = x >> 32;
  const uint64_t middle = high * uint32_t(y) + ((low * uint32_t(y)) >> 32);
  const uint64_t other = low * (y >> 32) + uint32_t(middle);
  return high * (y >> 32) + (middle >> 32) + (other >> 32);
}

int32_t Sampler::pick(const float *logits, int64_t count, int64_t position) {
  if (isGreedy())
    return argmax(logits, count);

  // Equal logits rank by id, so that equal seeds give equal choices whatever
  // the sort does.
  auto isBefore = [](const Candidate &a, const Candidate &b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
  };
  candidates.clear();
  for (int64_t i = 0; i < count; ++i)
    if (!std::isnan(logits[i]))
      candidates.push_back({logits[i], int32_t(i), 0});
  if (candidates.empty())
    return 0;
  if (sampling.topK > 0 && size_t(sampling.topK) < candidates.size()) {
    std::nth_element(candidates.begin(), candidates.begin() + sampling.topK,
                     candidates.end(), isBefore);
    candidates.resize(size_t(sampling.topK));
  }
  const auto first =
      std::min_element(candidates.begin(), candidates.end(), isBefore);
  const float top = first->logit;
  const double scale = scaleOf(sampling.temperature);
  uint64_t total = 0;
  for (Candidate &c : candidates)
    total += c.weight = weightOf(c.logit, top, scale);
  total += (uint64_t(1) << sampling::weightBits) - first->weight;
  first->weight = uint64_t(1) << sampling::weightBits;

  // Sums are of integers, so only what is looked at has to be in order: the
  // likeliest candidates mostly, of which more are sorted as they are needed.
  size_t sorted = 0, next = 0;
  uint64_t sum = 0;
  auto advance = [&]() -> const Candidate & {
    if (next == sorted) {
      sorted = std::min(candidates.size(), std::max<size_t>(64, 8 * sorted));
      if (sorted < candidates.size())
        std::nth_element(candidates.begin() + next, candidates.begin() + sorted,
                         candidates.end(), isBefore);
      std::sort(candidates.begin() + next, candidates.begin() + sorted,
                isBefore);
    }
    sum += candidates[next].weight;
    return candidates[next++];
  };
  // The sum of what is kept: all with a top-p of 1, as sums below 2^53 are
  // doubles.
  const double limit = double(total) * double(sampling.topP);
  uint64_t kept = total;
  if (sampling.topP < 1 || total >> 53 != 0) {
    while (next < candidates.size() && double(sum) < limit)
      advance();
    kept = sum;
  }
  const uint64_t target = multiplyHigh(
      sampling::randomBits(sampling.seed, uint64_t(position)), kept);
  // From the front again; what is in order stays so.
  next = 0;
  sum = 0;
  while (true)
    if (const Candidate &c = advance(); sum > target)
      return c.token;
}
