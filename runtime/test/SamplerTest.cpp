//===- SamplerTest.cpp - Choosing the next token --------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/lib/Sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
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
    ++n[s.pick(logits.data(), int64_t(logits.size()), i)];
  return n;
}

TEST(Sampler, GreedyTakesTheFirstOfTheLargest) {
  Sampler s = make({});
  float nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> logits = {nan, 1, 3, 3, -1};
  EXPECT_EQ(s.pick(logits.data(), 5, 0), 2);
  EXPECT_EQ(s.pick(logits.data(), 2, 0), 1);
  EXPECT_EQ(s.pick(logits.data(), 1, 0), 0);
  float minus = -std::numeric_limits<float>::infinity();
  EXPECT_EQ(s.pick(&minus, 1, 0), 0);
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
      out.push_back(s.pick(logits.data(), 100, i));
    return out;
  };
  EXPECT_EQ(draw(3), draw(3));
  EXPECT_NE(draw(3), draw(4));
}

TEST(Sampler, RandomNumbersAreThoseOfPhilox) {
  // The known answers that the generator's authors publish with it, for
  // philox4x32 of 10 rounds.
  using Words = std::array<uint32_t, 4>;
  namespace philox = gptq::abi::sampling::philox;
  EXPECT_EQ(philox::generate({0, 0, 0, 0}, {0, 0}),
            (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox::generate({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
                             {0xffffffff, 0xffffffff}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox::generate({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                             {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
  EXPECT_EQ(gptq::abi::sampling::randomBits(0, 0), 0xe169c58d6627e8d5);
}

TEST(Sampler, DependsOnTheSeedAndThePositionAlone) {
  std::vector<float> logits(50);
  for (int i = 0; i < 50; ++i)
    logits[i] = float(i % 5);
  Sampler one = make({1, 0, 1, 9}), other = make({1, 0, 1, 9});
  std::vector<int32_t> up, down;
  for (int64_t i = 0; i < 40; ++i)
    up.push_back(one.pick(logits.data(), 50, i));
  for (int64_t i = 40; i-- > 0;)
    down.insert(down.begin(), other.pick(logits.data(), 50, i));
  EXPECT_EQ(up, down);
}

TEST(Sampler, WeightsArePowersWithinTheirRounding) {
  // Of two tokens the second one is drawn where the random number is in its
  // share of the weights.
  for (float difference : {-0.001f, -0.3f, -1.f, -2.5f, -7.f, -15.f})
    for (float temperature : {0.5f, 1.f, 3.f}) {
      std::vector<float> logits = {0, difference};
      Sampler s = make({temperature, 0, 1, 5});
      const double share =
          1 / (1 + std::exp(-double(difference) / double(temperature)));
      int wrong = 0;
      for (int64_t i = 0; i < 2000; ++i) {
        const bool isSecond = s.pick(logits.data(), 2, i) == 1;
        const double u =
            double(gptq::abi::sampling::randomBits(5, uint64_t(i))) * 0x1p-64;
        // A weight is off by 2^-33 of the first one's at most.
        if (std::abs(u - (1 - share)) > 0x1p-32)
          wrong += isSecond != (u > 1 - share);
      }
      EXPECT_EQ(wrong, 0) << difference << " at " << temperature;
    }
}

TEST(Sampler, PassesAChiSquareTest) {
  // 20 tokens of very different probabilities, top-k 12, top-p 0.95.
  std::vector<float> logits;
  for (int i = 0; i < 20; ++i)
    logits.push_back(float((i * 7) % 20) / 4);
  for (bool isCut : {false, true}) {
    const Sampling sampling = {1.3f, isCut ? 12 : 0, isCut ? 0.95f : 1.f, 11};
    std::vector<std::pair<double, int>> expected;
    for (int i = 0; i < 20; ++i)
      expected.push_back({std::exp(double(logits[i]) / 1.3), i});
    std::sort(expected.rbegin(), expected.rend());
    if (isCut) {
      expected.resize(12);
      double all = 0, sum = 0;
      for (auto [p, token] : expected)
        all += p;
      size_t keep = 0;
      while (sum < 0.95 * all)
        sum += expected[keep++].first;
      ASSERT_LT(keep, 12u);
      expected.resize(keep);
    }
    double total = 0;
    for (auto [p, token] : expected)
      total += p;
    constexpr int draws = 100000;
    std::vector<int> n = counts(sampling, logits, draws);
    double square = 0;
    int counted = 0;
    for (auto [p, token] : expected) {
      const double mean = p / total * draws;
      square += (n[token] - mean) * (n[token] - mean) / mean;
      counted += n[token];
    }
    EXPECT_EQ(counted, draws);
    // A sum of v squares has mean v and variance 2 v: five deviations.
    const double v = double(expected.size()) - 1;
    EXPECT_LT(square, v + 5 * std::sqrt(2 * v));
  }
}

TEST(Sampler, InfinitiesAndNumbersThatAreNone) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (int64_t i = 0; i < 20; ++i) {
    Sampler s = make({1, 3, 1, 2});
    std::vector<float> logits = {1, infinity, nan, infinity, 5};
    EXPECT_EQ(s.pick(logits.data(), 5, i), 1);
    logits = {-infinity, -infinity, nan};
    EXPECT_EQ(s.pick(logits.data(), 3, i), 0);
    logits = {nan, nan, -infinity};
    EXPECT_EQ(s.pick(logits.data(), 3, i), 2);
    logits = {nan, nan};
    EXPECT_EQ(s.pick(logits.data(), 2, i), 0);
    // 0 and -0 are equal: the first three of four.
    logits = {-0.f, 0, -0.f, 0};
    EXPECT_LT(s.pick(logits.data(), 4, i), 3);
  }
}

TEST(Sampler, RefusesWhatMeansNothing) {
  EXPECT_FALSE(Sampler::create({-1, 0, 1, 0}));
  EXPECT_FALSE(Sampler::create({std::nanf(""), 0, 1, 0}));
  EXPECT_FALSE(Sampler::create({1, -1, 1, 0}));
  EXPECT_FALSE(Sampler::create({1, 0, 0, 0}));
  EXPECT_FALSE(Sampler::create({1, 0, 1.5f, 0}));
}
