//===- RandomLayer.cpp - A linear layer that is made up -------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/abi/RandomLayer.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <system_error>
#include <thread>

using namespace gptq::abi;

/// What a random number is for.
enum Purpose : uint64_t { Tile, Code, Zero, Scale, Order, Dense, Activation };

/// SplitMix64 of a place instead of a sequence.
static uint64_t randomAt(Purpose purpose, uint64_t i, uint64_t j = 0,
                         uint64_t k = 0) {
  // What does not fit its bits repeats numbers of elsewhere, which is no harm.
  uint64_t z = (uint64_t(purpose) << 60 ^ i << 40 ^ j << 20 ^ k) + 1;
  z *= 0x9E3779B97F4A7C15;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

static constexpr int64_t tileEdge = 256;
static constexpr uint64_t differentTiles = 32;

int64_t RandomLayer::groupSize() const {
  return group < 0 ? k : std::min(group, k);
}

int64_t RandomLayer::groups() const {
  return (k + groupSize() - 1) / groupSize();
}

/// The random 64 bits of eight rows from `row` on, a multiple of eight.
static uint64_t codesOfRows(int64_t row, int64_t column) {
  uint64_t tile =
      randomAt(Tile, uint64_t(row / tileEdge), uint64_t(column / tileEdge)) %
      differentTiles;
  return randomAt(Code, tile, uint64_t(row % tileEdge / 8),
                  uint64_t(column % tileEdge));
}

uint32_t RandomLayer::code(int64_t row, int64_t column) const {
  return uint32_t(codesOfRows(row, column) >> (row % 8 * 8)) &
         ((1u << bits) - 1);
}

uint32_t RandomLayer::zero(int64_t groupIndex, int64_t column) const {
  if (isSymmetric)
    return 1u << (bits - 1);
  uint64_t random = randomAt(Zero, uint64_t(groupIndex), uint64_t(column));
  return 1 + uint32_t(random % ((1u << bits) - 1));
}

/// 2^-e * [1, 2) with the seven bits behind the one that every half has.
static uint16_t randomHalf(uint64_t random, int64_t e) {
  return uint16_t((15 - e) << 10 | (random & 127) << 3);
}

uint16_t RandomLayer::scale(int64_t groupIndex, int64_t column) const {
  // Makes weights up to about 1/4.
  return randomHalf(randomAt(Scale, uint64_t(groupIndex), uint64_t(column)),
                    bits + 2);
}

std::vector<uint32_t> RandomLayer::groupOfRows() const {
  std::vector<uint32_t> index(static_cast<size_t>(k));
  for (int64_t row = 0; row < k; ++row)
    index[row] = uint32_t(row / groupSize());
  if (isActOrder)
    for (int64_t row = k; row > 1; --row)
      std::swap(index[row - 1],
                index[randomAt(Order, uint64_t(row)) % uint64_t(row)]);
  return index;
}

uint16_t RandomLayer::dense(int64_t row, int64_t column) const {
  uint64_t random = randomAt(Dense, 0, uint64_t(row), uint64_t(column));
  return randomHalf(random, /*e=*/5) | uint16_t(random >> 63 << 15);
}

float RandomLayer::activation(int64_t row, int64_t column) {
  // -2 to 127/64 in steps of 1/64.
  return float(randomAt(Activation, 0, uint64_t(row), uint64_t(column)) % 256) /
             64 -
         2;
}

/// A positive or negative normal f16.
static double valueOfHalf(uint16_t bits) {
  double value =
      std::ldexp(double(1024 + (bits & 1023)), (bits >> 10 & 31) - 25);
  return bits >> 15 ? -value : value;
}

std::vector<double> RandomLayer::multiply(int64_t rows, int threads) const {
  std::vector<double> x(size_t(rows * k));
  for (int64_t m = 0; m < rows; ++m)
    for (int64_t i = 0; i < k; ++i)
      x[m * k + i] = activation(m, i);
  const std::vector<uint32_t> groupOf = groupOfRows();
  std::vector<double> y(size_t(rows * n));

  std::atomic<int64_t> nextColumn{0};
  auto work = [&] {
    std::vector<double> w(static_cast<size_t>(k)), scales, zeros;
    for (int64_t column; (column = nextColumn.fetch_add(1)) < n;) {
      if (bits == 16) {
        for (int64_t i = 0; i < k; ++i)
          w[i] = valueOfHalf(dense(i, column));
      } else {
        scales.resize(size_t(groups()));
        zeros.resize(size_t(groups()));
        for (int64_t g = 0; g < groups(); ++g) {
          scales[g] = valueOfHalf(scale(g, column));
          zeros[g] = zero(g, column);
        }
        const uint64_t mask = (uint64_t(1) << bits) - 1;
        uint64_t eight = 0;
        for (int64_t i = 0; i < k; ++i) {
          if (i % 8 == 0)
            eight = codesOfRows(i, column);
          double q = double(eight >> (i % 8 * 8) & mask);
          w[i] = scales[groupOf[i]] * (q - zeros[groupOf[i]]);
        }
      }
      for (int64_t m = 0; m < rows; ++m) {
        // Eight sums, for vectors and for the latency of an addition.
        double sums[8] = {};
        const double *row = x.data() + m * k;
        int64_t i = 0;
        for (; i + 8 <= k; i += 8)
          for (int j = 0; j < 8; ++j)
            sums[j] += row[i + j] * w[i + j];
        for (; i < k; ++i)
          sums[0] += row[i] * w[i];
        y[m * n + column] = ((sums[0] + sums[1]) + (sums[2] + sums[3])) +
                            ((sums[4] + sums[5]) + (sums[6] + sums[7]));
      }
    }
  };
  std::vector<std::thread> helpers;
  for (int i = 1; i < threads; ++i) {
    try {
      helpers.emplace_back(work);
    } catch (const std::system_error &) {
      break; // Fewer threads do the same.
    }
  }
  work();
  for (std::thread &helper : helpers)
    helper.join();
  return y;
}
