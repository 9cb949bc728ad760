//===- CodesReader.cpp - Evaluates #gptq.codes ----------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Dialect/GPTQ/IR/CodesReader.h"
#include "llvm/Support/Endian.h"

using namespace mlir;
using namespace mlir::gptq;

CodesReader::CodesReader(CodesAttr codes, int64_t k, int64_t n,
                         const uint8_t *bytes)
    : bytes(bytes), n(n), bits(codes.getBits()),
      width(codes.getData().getType().getElementTypeBitWidth()),
      isDown(codes.getPacking() == Packing::Rows),
      transposed(codes.getTransposed()), blocks(codes.getBlocks()),
      dataColumns(codes.getData().getType().getDimSize(1)),
      wordAdd(codes.getWordAdd()), fieldAdd(codes.getFieldAdd()),
      fieldMask(uint32_t((uint64_t(1) << bits) - 1)) {
  fields.resize(blocks.k * blocks.n);
  if (ArrayAttr planes = codes.getPlanes()) {
    unsigned to = 0;
    for (auto plane : planes.getAsRange<PlaneAttr>()) {
      auto order = OrderBits::parse(plane.getOrder());
      for (int64_t row = 0; row < blocks.k; ++row)
        for (int64_t column = 0; column < blocks.n; ++column)
          fields[row * blocks.n + column].push_back(
              {unsigned(plane.getBits()), to,
               plane.getOffset() +
                   plane.getBits() * order->placeOf(row, column)});
      to += plane.getBits();
    }
    return;
  }
  for (auto [i, field] : llvm::enumerate(fields))
    field.push_back({bits, 0, int64_t(i) * bits});
}

uint32_t CodesReader::load(int64_t element) const {
  uint32_t value;
  if (width == 32)
    value = llvm::support::endian::read32le(bytes + 4 * element);
  else if (width == 16)
    value = llvm::support::endian::read16le(bytes + 2 * element);
  else
    value = bytes[element];
  return value + wordAdd;
}

/// One row of codes whose words lie below each other, a column of words for
/// each column of codes: every field has one place for the whole row.
void CodesReader::readWordRow(int64_t row, uint8_t *out) const {
  const int64_t first = row / blocks.k * blocks.record;
  bool isFirst = true;
  for (const Field &field : fields[row % blocks.k]) {
    const int64_t word = first + field.from / 32;
    const unsigned shift = field.from % 32;
    const uint32_t mask = (1u << field.bits) - 1;
    const uint8_t *low = bytes + 4 * word * dataColumns;
    if (shift + field.bits <= 32 && wordAdd == 0 && isFirst) {
      // The usual case, a loop that compilers vectorize.
      for (int64_t c = 0; c < n; ++c)
        out[c] = llvm::support::endian::read32le(low + 4 * c) >> shift & mask;
    } else {
      for (int64_t c = 0; c < n; ++c) {
        uint64_t value = load(word * dataColumns + c);
        if (shift + field.bits > 32)
          value |= uint64_t(load((word + 1) * dataColumns + c)) << 32;
        const uint8_t code = (value >> shift & mask) << field.to;
        out[c] = isFirst ? code : out[c] | code;
      }
    }
    isFirst = false;
  }
}

/// One row of anything, element by element.
template <typename T>
void CodesReader::readGathered(int64_t row, T *out) const {
  const int64_t blockRow = row / blocks.k;
  const auto *places = &fields[row % blocks.k * blocks.n];
  for (int64_t column = 0; column < n; ++column) {
    // Where the record starts, in elements along its direction and across.
    const int64_t blockColumn = column / blocks.n;
    int64_t along = isDown != transposed ? blockRow : blockColumn;
    const int64_t across = isDown != transposed ? blockColumn : blockRow;
    along *= blocks.record;
    uint32_t result = 0;
    for (const Field &field : places[column % blocks.n]) {
      uint32_t value = 0;
      int64_t element = along + field.from / width;
      unsigned shift = field.from % width;
      for (unsigned have = 0; have < field.bits; ++element) {
        const int64_t at = isDown ? element * dataColumns + across
                                  : across * dataColumns + element;
        value |= load(at) >> shift << have;
        have += width - shift;
        shift = 0;
      }
      if (field.bits < 32)
        value &= (1u << field.bits) - 1;
      result |= value << field.to;
    }
    out[column] = T((result + fieldAdd) & fieldMask);
  }
}

void CodesReader::readRow(int64_t row, uint8_t *out) const {
  if (width == 32 && isDown && !transposed && fieldAdd == 0 && bits <= 8 &&
      blocks.n == 1)
    return readWordRow(row, out);
  if (bits <= 8)
    return readGathered(row, out);
  // Rows of wider elements need not be aligned.
  if (bits == 16) {
    SmallVector<uint16_t, 0> values(n);
    readGathered(row, values.data());
    std::memcpy(out, values.data(), 2 * n);
    return;
  }
  SmallVector<uint32_t, 0> values(n);
  readGathered(row, values.data());
  std::memcpy(out, values.data(), 4 * n);
}
