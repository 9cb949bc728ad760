//===- SamplerTest.cpp - Choosing the next token --------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/lib/Sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

using namespace gptq::runtime;

static Sampler make(Sampling sampling) {
  gptq::abi::Expected<Sampler> s = Sampler::create(sampling);
  EXPECT_TRUE(s) << s.status().message();
  return s.take();
}

/// How often each token is chosen.
static std::vector<int> counts(Sampling sampling,
                               const std::vector<float> &logits, int draws) {
  Sampler s = make(sampling);
  std::vector<int> n(logits.size());
  for (int i = 0; i < draws; ++i)
    ++n[s.pick(logits.data(), int64_t(logits.size()))];
  return n;
}

TEST(Sampler, GreedyTakesTheFirstOfTheLargest) {
  Sampler s = make({});
  float nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> logits = {nan, 1, 3, 3, -1};
  EXPECT_EQ(s.pick(logits.data(), 5), 2);
  EXPECT_EQ(s.pick(logits.data(), 2), 1);
  EXPECT_EQ(s.pick(logits.data(), 1), 0);
  float minus = -std::numeric_limits<float>::infinity();
  EXPECT_EQ(s.pick(&minus, 1), 0);
}

TEST(Sampler, FollowsTheProbabilities) {
  // Probabilities 1/2, 1/4, 1/4 at temperature 1.
  std::vector<float> logits = {std::log(2.0f), 0, 0};
  std::vector<int> n = counts({1, 0, 1, 7}, logits, 10000);
  // Five standard deviations of a binomial: 5 * sqrt(10000 / 4) = 250.
  EXPECT_NEAR(n[0], 5000, 250);
  EXPECT_NEAR(n[1], 2500, 250);
  // At temperature 1/2 probabilities square: 2/3, 1/6, 1/6.
  n = counts({0.5f, 0, 1, 7}, logits, 10000);
  EXPECT_NEAR(n[0], 6667, 250);
}

TEST(Sampler, KeepsTopKAndTopP) {
  std::vector<float> logits = {0, 3, 1, 2};
  std::vector<int> n = counts({10, 2, 1, 1}, logits, 1000);
  EXPECT_EQ(n[0] + n[2], 0);
  EXPECT_GT(n[1], 0);
  EXPECT_GT(n[3], 0);
  // Probabilities 0.032, 0.644, 0.087, 0.237: the likeliest two reach 0.8.
  n = counts({1, 0, 0.8f, 1}, logits, 1000);
  EXPECT_EQ(n[0] + n[2], 0);
  EXPECT_GT(n[3], 0);
  n = counts({1, 0, 0.6f, 1}, logits, 1000);
  EXPECT_EQ(n[1], 1000);
}

TEST(Sampler, EqualSeedsGiveEqualChoices) {
  std::vector<float> logits(100);
  for (int i = 0; i < 100; ++i)
    logits[i] = float(i % 7);
  auto draw = [&](uint64_t seed) {
    Sampler s = make({1, 0, 1, seed});
    std::vector<int32_t> out;
    for (int i = 0; i < 50; ++i)
      out.push_back(s.pick(logits.data(), 100));
    return out;
  };
  EXPECT_EQ(draw(3), draw(3));
  EXPECT_NE(draw(3), draw(4));
}

TEST(Sampler, RefusesWhatMeansNothing) {
  EXPECT_FALSE(Sampler::create({-1, 0, 1, 0}));
  EXPECT_FALSE(Sampler::create({std::nanf(""), 0, 1, 0}));
  EXPECT_FALSE(Sampler::create({1, -1, 1, 0}));
  EXPECT_FALSE(Sampler::create({1, 0, 0, 0}));
  EXPECT_FALSE(Sampler::create({1, 0, 1.5f, 0}));
}
