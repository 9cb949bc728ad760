//===- Sampling.h - How a token is drawn ------------------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What the runtime, which draws tokens on the host, and the kernels that draw
// them on a device have in common. Both come to the same token for the same
// logits: all there is of floating point are additions, multiplications and
// conversions of IEEE doubles, each rounded on its own (no contraction to
// fused operations), and what is added up are integers, whose sums are the same
// in any order.
//
// 1. Candidates are the k largest logits l_0 >= l_1 >= ..., the lower id first
//    among equals, NaNs left out.
// 2. A candidate weighs w_i = floor(2^y * 2^32 + 1/2), where
//    y = max((l_i - l_0) * scale, -64), scale = log2(e) / temperature. With n
//    the integer part of y, towards 0, 2^y = 2^n * 2^(y - n), the second factor
//    by Horner's rule from `exp2Terms`. l_0 weighs 2^32, also if it is
//    infinite, next to which everything else weighs 0.
// 3. With c_i = w_0 + ... + w_i, candidates are kept up to the first whose
//    c_i >= top_p * (c of the last candidate), compared as doubles. W is its
//    c_i. Vocabularies have at most 2^31 tokens, so sums fit 64 bits.
// 4. The token is the first whose c_i > floor(u * W / 2^64), u being 64 random
//    bits that depend on the seed and on the token's position alone.
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_RUNTIME_ABI_SAMPLING_H
#define GPTQ_RUNTIME_ABI_SAMPLING_H

#include <array>
#include <cstdint>

namespace gptq::abi::sampling {

/// The words of what a device reads about how to draw.
enum Word {
  /// k
  TopK,
  /// The bits of top_p, a float.
  TopP,
  /// The halves of `scale`, a double.
  ScaleLow,
  ScaleHigh,
  SeedLow,
  SeedHigh,
  NumWords
};
using Words = std::array<uint32_t, NumWords>;

/// The likeliest candidate weighs 2^32.
inline constexpr int weightBits = 32;
/// Below this exponent every weight rounds to 0.
inline constexpr double lowestExponent = -64;

/// ln(2)^i / i!, the terms of 2^f for -1 < f <= 0. The first one left out is
/// below 7e-14; a weight's own rounding is 2^-33 = 1.2e-10.
inline constexpr std::array<double, 14> exp2Terms = [] {
  std::array<double, 14> terms{};
  double term = 1;
  for (int i = 0; i < 14; ++i) {
    terms[i] = term;
    term = term * 0.6931471805599453 / (i + 1);
  }
  return terms;
}();

/// Philox4x32-10 of J. K. Salmon, M. A. Moraes, R. O. Dror and D. E. Shaw,
/// "Parallel random numbers: as easy as 1, 2, 3" (SC 2011): a bijection of a
/// counter of four words under a key of two, so that any number of the sequence
/// can be had alone. The key is the seed, the counter the position (two words)
/// and zeros; the first two words of the result are u.
namespace philox {
inline constexpr int rounds = 10;
inline constexpr uint32_t multipliers[2] = {0xD2511F53, 0xCD9E8D57};
/// Added to the key between rounds.
inline constexpr uint32_t steps[2] = {0x9E3779B9, 0xBB67AE85};

constexpr std::array<uint32_t, 4> generate(std::array<uint32_t, 4> counter,
                                           std::array<uint32_t, 2> key) {
  for (int round = 0; round < rounds; ++round) {
    const uint64_t a = uint64_t(multipliers[0]) * counter[0],
                   b = uint64_t(multipliers[1]) * counter[2];
    counter = {uint32_t(b >> 32) ^ counter[1] ^ key[0], uint32_t(b),
               uint32_t(a >> 32) ^ counter[3] ^ key[1], uint32_t(a)};
    key = {key[0] + steps[0], key[1] + steps[1]};
  }
  return counter;
}
} // namespace philox

/// The random bits of the token at `position`.
constexpr uint64_t randomBits(uint64_t seed, uint64_t position) {
  const std::array<uint32_t, 4> words =
      philox::generate({uint32_t(position), uint32_t(position >> 32), 0, 0},
                       {uint32_t(seed), uint32_t(seed >> 32)});
  return uint64_t(words[1]) << 32 | words[0];
}

} // namespace gptq::abi::sampling

#endif // GPTQ_RUNTIME_ABI_SAMPLING_H
