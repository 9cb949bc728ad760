//===- RandomLayerTest.cpp - A linear layer that is made up ---------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/abi/RandomLayer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

using namespace gptq::abi;

/// A positive or negative f16 that is neither tiny nor huge.
static double valueOf(uint16_t half) {
  double value = std::ldexp(1 + (half & 1023) / 1024.0, (half >> 10 & 31) - 15);
  return half >> 15 ? -value : value;
}

TEST(RandomLayer, MultipliesAsItsParts) {
  for (RandomLayer layer : {RandomLayer{19, 300, 4, 64, true, false},
                            RandomLayer{7, 133, 8, 32, false, true},
                            RandomLayer{5, 40, 3, -1, false, false},
                            RandomLayer{6, 21, 16, 1, true, false}}) {
    std::vector<uint32_t> groupOf = layer.groupOfRows();
    std::vector<double> y = layer.multiply(3, 1);
    ASSERT_EQ(y.size(), size_t(3 * layer.n));
    for (int64_t m = 0; m < 3; ++m)
      for (int64_t n = 0; n < layer.n; ++n) {
        double sum = 0;
        for (int64_t k = 0; k < layer.k; ++k) {
          uint32_t g = groupOf[k];
          double w =
              layer.bits == 16
                  ? valueOf(layer.dense(k, n))
                  : valueOf(layer.scale(g, n)) *
                        (double(layer.code(k, n)) - double(layer.zero(g, n)));
          sum += w * RandomLayer::activation(m, k);
        }
        EXPECT_NEAR(y[m * layer.n + n], sum, 1e-11 * layer.k);
      }
    // Rows of a small call are the first of a large one, on any threads.
    std::vector<double> more = layer.multiply(5, 3);
    EXPECT_TRUE(std::equal(y.begin(), y.end(), more.begin()));
  }
}

TEST(RandomLayer, UsesWhatItsKindHas) {
  RandomLayer layer = {300, 520, 4, 128, false, true};
  EXPECT_EQ(layer.groups(), 5);
  std::set<uint32_t> codes, zeros;
  for (int64_t k = 0; k < layer.k; ++k)
    codes.insert(layer.code(k, k % layer.n));
  for (int64_t n = 0; n < layer.n; ++n)
    zeros.insert(layer.zero(n % 5, n));
  EXPECT_EQ(codes.size(), 16u);
  EXPECT_EQ(zeros.size(), 15u);
  EXPECT_EQ(zeros.count(0), 0u);
  // A permutation of the groups in order.
  std::vector<uint32_t> index = layer.groupOfRows(), sorted = index;
  std::sort(sorted.begin(), sorted.end());
  EXPECT_NE(index, sorted);
  for (int64_t k = 0; k < layer.k; ++k)
    EXPECT_EQ(sorted[k], k / 128);
  EXPECT_EQ((RandomLayer{1, 520, 4, -1}).groups(), 1);
  EXPECT_EQ((RandomLayer{1, 520, 8, 64}).zero(3, 3), 128u);
}

TEST(RandomLayer, NumbersAreExactInBothHalves) {
  RandomLayer layer = {64, 64, 4, 32};
  for (int64_t i = 0; i < 64; ++i) {
    // Seven bits behind the leading one are what bf16 has.
    EXPECT_EQ(layer.scale(i % 2, i) & 7, 0);
    EXPECT_EQ(layer.dense(i, i) & 7, 0);
    double x = 64.0 * RandomLayer::activation(i, i);
    EXPECT_EQ(x, std::round(x));
    EXPECT_LE(std::fabs(x), 128);
  }
}

TEST(RandomLayer, TilesRepeatInNoOrder) {
  RandomLayer layer = {256 * 40, 8, 4, 8};
  auto tile = [&](int64_t i) {
    std::vector<uint32_t> codes;
    for (int64_t k = 0; k < 8; ++k)
      for (int64_t n = 0; n < 4; ++n)
        codes.push_back(layer.code(k, i * 256 + n));
    return codes;
  };
  std::set<std::vector<uint32_t>> different;
  int neighboursAlike = 0;
  for (int64_t i = 0; i < 40; ++i) {
    different.insert(tile(i));
    neighboursAlike += i > 0 && tile(i) == tile(i - 1);
  }
  EXPECT_LE(different.size(), 32u);
  EXPECT_GE(different.size(), 16u);
  EXPECT_LE(neighboursAlike, 5);
}
