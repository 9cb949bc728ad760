//===- RandomLayer.h - A linear layer that is made up -----------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Weights for measuring and checking lone matmuls. They are the same
// everywhere, so that whoever measures a compiled layer can say what it should
// compute without having been given its weights.
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_RUNTIME_ABI_RANDOMLAYER_H
#define GPTQ_RUNTIME_ABI_RANDOMLAYER_H

#include <cstdint>
#include <vector>

namespace gptq::abi {

/// A layer of K inputs and N outputs in groups along K, as GPTQ quantizes.
/// Codes repeat in tiles that are drawn from a few, so that a file of them,
/// packed in whatever order, is small once compressed; but no tile says which
/// its neighbours are. Scales and activations are exact in half precision of
/// either kind.
struct RandomLayer {
  int64_t n = 0, k = 0;
  /// 16: dense.
  int64_t bits = 4;
  /// -1: one group.
  int64_t group = -1;
  bool isSymmetric = true;
  bool isActOrder = false;

  int64_t groupSize() const;
  int64_t groups() const;

  // All below also stand behind the last row and column: the fill of words.

  uint32_t code(int64_t row, int64_t column) const;
  /// The true zero point, from 1 up.
  uint32_t zero(int64_t groupIndex, int64_t column) const;
  /// Positive, as bits of f16.
  uint16_t scale(int64_t groupIndex, int64_t column) const;
  /// The group of each row.
  std::vector<uint32_t> groupOfRows() const;
  /// Of a dense layer, as bits of f16.
  uint16_t dense(int64_t row, int64_t column) const;

  /// An activation.
  static float activation(int64_t row, int64_t column);

  /// The products of `rows` rows of activations, [rows, n], in float64 on
  /// `threads` threads.
  std::vector<double> multiply(int64_t rows, int threads) const;
};

} // namespace gptq::abi

#endif // GPTQ_RUNTIME_ABI_RANDOMLAYER_H
