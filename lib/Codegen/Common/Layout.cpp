//===- Layout.cpp - Layouts as bit permutations ---------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Codegen/Common/Layout.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace mlir::gptq;

//===----------------------------------------------------------------------===//
// BitPermutation
//===----------------------------------------------------------------------===//

BitPermutation BitPermutation::identity(unsigned numBits) {
  BitPermutation result;
  for (unsigned i = 0; i < numBits; ++i)
    result.to.push_back(i);
  return result;
}

int64_t BitPermutation::operator()(int64_t value) const {
  int64_t result = 0;
  for (unsigned i = 0; i < size(); ++i)
    result |= (value >> i & 1) << to[i];
  return result;
}

BitPermutation BitPermutation::inverse() const {
  BitPermutation result;
  result.to.resize(size());
  for (unsigned i = 0; i < size(); ++i)
    result.to[to[i]] = i;
  return result;
}

BitPermutation BitPermutation::after(const BitPermutation &first) const {
  assert(size() == first.size() && "permutations of different sizes");
  BitPermutation result;
  for (unsigned i = 0; i < size(); ++i)
    result.to.push_back(to[first[i]]);
  return result;
}

//===----------------------------------------------------------------------===//
// Layout
//===----------------------------------------------------------------------===//

static constexpr StringRef kDimLetters = "bkn";

Layout::Layout(LayoutAttr attr)
    : numBits{llvm::Log2_64(attr.getBits()), llvm::Log2_64(attr.getBlockK()),
              llvm::Log2_64(attr.getBlockN())} {
  // The attribute's verifier checked the names.
  SmallVector<StringRef> names;
  attr.getOrder().getValue().split(names, ' ', -1, /*KeepEmpty=*/false);
  for (StringRef name : names) {
    unsigned bit = 0;
    name.drop_front().getAsInteger(10, bit);
    order.push_back({LayoutDim(kDimLetters.find(name[0])), bit});
  }
}

LayoutAttr Layout::get(MLIRContext *context, int64_t bits, int64_t blockN,
                       int64_t blockK, ArrayRef<StringRef> order) {
  return LayoutAttr::get(context, bits, blockN, blockK,
                         StringAttr::get(context, llvm::join(order, " ")));
}

LayoutAttr Layout::get(MLIRContext *context, ArrayRef<LayoutBit> order) {
  int64_t sizes[3] = {1, 1, 1};
  SmallVector<std::string> names;
  for (LayoutBit bit : order) {
    sizes[size_t(bit.dim)] *= 2;
    names.push_back(kDimLetters[size_t(bit.dim)] + std::to_string(bit.bit));
  }
  return LayoutAttr::get(context, sizes[0], sizes[2], sizes[1],
                         StringAttr::get(context, llvm::join(names, " ")));
}

int64_t Layout::address(int64_t bit, int64_t k, int64_t n) const {
  const int64_t coordinate[3] = {bit, k, n};
  int64_t result = 0;
  for (auto [position, source] : llvm::enumerate(order))
    result |= (coordinate[size_t(source.dim)] >> source.bit & 1) << position;
  return result;
}

LayoutCoordinate Layout::coordinate(int64_t address) const {
  int64_t result[3] = {0, 0, 0};
  for (auto [position, source] : llvm::enumerate(order))
    result[size_t(source.dim)] |= (address >> position & 1) << source.bit;
  return {result[0], result[1], result[2]};
}

BitPermutation Layout::permutation() const {
  SmallVector<unsigned, 16> to(order.size());
  const unsigned base[3] = {0, numBits[0], numBits[0] + numBits[1]};
  for (auto [position, source] : llvm::enumerate(order))
    to[base[size_t(source.dim)] + source.bit] = position;
  return BitPermutation(to);
}

BitPermutation Layout::repackTo(const Layout &target) const {
  assert(llvm::equal(numBits, target.numBits) && "blocks of different shapes");
  return target.permutation().after(permutation().inverse());
}

unsigned Layout::positionOf(LayoutDim dim, unsigned bit) const {
  return llvm::find(order, LayoutBit{dim, bit}) - order.begin();
}

int64_t Layout::chunkBits() const {
  unsigned whole = 0;
  while (whole < numBits[0] && order[whole] == LayoutBit{LayoutDim::Bit, whole})
    ++whole;
  return int64_t(1) << whole;
}

int64_t Layout::contiguousRun(LayoutDim dim, int64_t unitBits) const {
  unsigned first = llvm::Log2_64(unitBits), run = 0;
  while (first + run < order.size() &&
         order[first + run] == LayoutBit{dim, run})
    ++run;
  return int64_t(1) << run;
}

bool Layout::wordsAreColumns(int64_t wordBits) const {
  return llvm::none_of(ArrayRef(order).take_front(llvm::Log2_64(wordBits)),
                       [](LayoutBit bit) { return bit.dim == LayoutDim::N; });
}
