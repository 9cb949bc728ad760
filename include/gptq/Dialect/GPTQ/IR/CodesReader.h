//===- CodesReader.h - Evaluates #gptq.codes ---------------------*- C++
//-*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_DIALECT_GPTQ_IR_CODESREADER_H
#define GPTQ_DIALECT_GPTQ_IR_CODESREADER_H

#include "gptq/Dialect/GPTQ/IR/GPTQ.h"

#include <optional>

namespace mlir::gptq {

/// The order of a `#gptq.plane`, taken apart.
struct OrderBits {
  enum Dim { Row, Column, Gap };
  /// Bits of a place at most: records are far smaller than 2^20 bits.
  static constexpr unsigned kMaxBits = 20;

  /// Nothing where a bit is never named, but one above it is.
  static std::optional<OrderBits> parse(StringAttr text);

  /// Where row `k` and column `n` of a block lie, counted in fields.
  int64_t placeOf(int64_t k, int64_t n) const;

  /// Bits of the place from the lowest up: bit of the row, or of the column.
  SmallVector<std::pair<Dim, unsigned>> places;
  /// How many bits of rows and of columns there are.
  unsigned k = 0, n = 0;
};

/// Delivers the rows of a `#gptq.codes` view of a weight [K, N]. Elements of up
/// to 8 bits take a byte each.
class CodesReader {
public:
  /// `bytes` are those of `codes.getData()`, all of them, for which
  /// `codes.getDataShape(k, n)` fits its shape.
  CodesReader(CodesAttr codes, int64_t k, int64_t n, const uint8_t *bytes);

  void readRow(int64_t row, uint8_t *out) const;

  int64_t getColumns() const { return n; }
  /// Bytes of an element.
  unsigned getWidth() const { return bits <= 8 ? 1 : bits / 8; }

private:
  struct Field {
    /// Bits of the element, their place in it, and in the record.
    unsigned bits, to;
    int64_t from;
  };

  /// Element `element` of `data`, with what is added to it.
  uint32_t load(int64_t element) const;
  template <typename T> void readGathered(int64_t row, T *out) const;
  void readWordRow(int64_t row, uint8_t *out) const;

  const uint8_t *bytes;
  int64_t n;
  unsigned bits, width;
  bool isDown, transposed;
  CodesAttr::Blocks blocks;
  /// Size of a row of `data`.
  int64_t dataColumns;
  uint32_t wordAdd, fieldAdd, fieldMask;
  /// The fields of the element at each place of a block, row by row.
  std::vector<SmallVector<Field, 1>> fields;
};

} // namespace mlir::gptq

#endif // GPTQ_DIALECT_GPTQ_IR_CODESREADER_H
