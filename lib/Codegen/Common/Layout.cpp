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
// Plane
//===----------------------------------------------------------------------===//

static constexpr StringRef kDimLetters = "bkn";

Plane::Plane(int64_t bits, int64_t blockK, int64_t blockN, StringRef text)
    : numBits{llvm::Log2_64(bits), llvm::Log2_64(blockK),
              llvm::Log2_64(blockN)} {
  // The attribute's verifier checked the names.
  SmallVector<StringRef> names;
  text.split(names, ' ', -1, /*KeepEmpty=*/false);
  for (StringRef name : names) {
    unsigned bit = 0;
    name.drop_front().getAsInteger(10, bit);
    order.push_back({LayoutDim(kDimLetters.find(name[0])), bit});
  }
}

int64_t Plane::address(int64_t bit, int64_t k, int64_t n) const {
  const int64_t coordinate[3] = {bit, k, n};
  int64_t result = 0;
  for (auto [position, source] : llvm::enumerate(order))
    result |= (coordinate[size_t(source.dim)] >> source.bit & 1) << position;
  return result;
}

LayoutCoordinate Plane::coordinate(int64_t address) const {
  int64_t result[3] = {0, 0, 0};
  for (auto [position, source] : llvm::enumerate(order))
    result[size_t(source.dim)] |= (address >> position & 1) << source.bit;
  return {result[0], result[1], result[2]};
}

BitPermutation Plane::permutation() const {
  SmallVector<unsigned, 16> to(order.size());
  const unsigned base[3] = {0, numBits[0], numBits[0] + numBits[1]};
  for (auto [position, source] : llvm::enumerate(order))
    to[base[size_t(source.dim)] + source.bit] = position;
  return BitPermutation(to);
}

BitPermutation Plane::repackTo(const Plane &target) const {
  assert(llvm::equal(numBits, target.numBits) && "blocks of different shapes");
  return target.permutation().after(permutation().inverse());
}

unsigned Plane::positionOf(LayoutDim dim, unsigned bit) const {
  return llvm::find(order, LayoutBit{dim, bit}) - order.begin();
}

int64_t Plane::chunkBits() const {
  unsigned whole = 0;
  while (whole < numBits[0] && order[whole] == LayoutBit{LayoutDim::Bit, whole})
    ++whole;
  return int64_t(1) << whole;
}

int64_t Plane::contiguousRun(LayoutDim dim, int64_t unitBits) const {
  unsigned first = llvm::Log2_64(unitBits), run = 0;
  while (first + run < order.size() &&
         order[first + run] == LayoutBit{dim, run})
    ++run;
  return int64_t(1) << run;
}

int64_t Plane::wordAddress(int64_t word, int64_t n, int64_t wordBits) const {
  int64_t result = address(0, 0, n);
  for (unsigned at = llvm::Log2_64(wordBits); at < order.size(); ++at)
    if (order[at].dim != LayoutDim::N) {
      result |= (word & 1) << at;
      word >>= 1;
    }
  return result;
}

bool Plane::wordsAreColumns(int64_t wordBits) const {
  return llvm::none_of(ArrayRef(order).take_front(llvm::Log2_64(wordBits)),
                       [](LayoutBit bit) { return bit.dim == LayoutDim::N; });
}

//===----------------------------------------------------------------------===//
// Layout
//===----------------------------------------------------------------------===//

Layout::Layout(LayoutAttr attr) : attr(attr) {
  SmallVector<StringRef> planes;
  attr.getOrder().getValue().split(planes, '|');
  int64_t firstBit = 0, firstAddress = 0;
  for (StringRef text : planes) {
    // As many bits as it has names for: b0 and b1 are four.
    int64_t width = int64_t(1) << text.count(kDimLetters[0]);
    Plane plane(width, attr.getBlockK(), attr.getBlockN(), text);
    parts.push_back({plane, firstBit, firstAddress});
    firstBit += width;
    firstAddress += plane.blockBits();
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
  for (const Part &part : parts)
    if (bit < part.firstBit + part.plane.bits())
      return part.firstAddress + part.plane.address(bit - part.firstBit, k, n);
  llvm_unreachable("a bit beyond the element");
}

LayoutCoordinate Layout::coordinate(int64_t address) const {
  for (const Part &part : parts)
    if (address < part.firstAddress + part.plane.blockBits()) {
      LayoutCoordinate at = part.plane.coordinate(address - part.firstAddress);
      at.bit += part.firstBit;
      return at;
    }
  llvm_unreachable("an address beyond the block");
}

//===----------------------------------------------------------------------===//
// JoinedWords
//===----------------------------------------------------------------------===//

FailureOr<JoinedWords> JoinedWords::create(const Layout &layout) {
  JoinedWords joined(layout);
  if (joined.slot > 32 || layout.blockK() % joined.slots() != 0)
    return failure();
  for (const auto &[plane, firstBit, firstAddress] : layout.getParts())
    if (!plane.hasWholeElements() || !plane.wordsAreColumns() ||
        plane.blockK() * plane.bits() < 32)
      return failure();
  for (int64_t c = 0; c < joined.words(); ++c)
    for (int64_t i = 0; i < joined.slots(); ++i)
      for (const Source &source : joined.sources(c, 0))
        if (layout.coordinate(source.address + source.field +
                              i * joined.slot) !=
            LayoutCoordinate{source.firstBit, joined.row(c, i), 0})
          return failure();
  return joined;
}

JoinedWords::JoinedWords(const Layout &layout)
    : layout(layout), slot(llvm::PowerOf2Ceil(layout.bits())) {}

SmallVector<JoinedWords::Source, 3> JoinedWords::sources(int64_t c,
                                                         int64_t n) const {
  SmallVector<Source, 3> result;
  for (const auto &[plane, firstBit, firstAddress] : layout.getParts()) {
    const int64_t fields = slot / plane.bits();
    result.push_back({firstAddress + plane.wordAddress(c / fields, n),
                      c % fields * plane.bits(), firstBit, plane.bits()});
  }
  return result;
}

int64_t JoinedWords::row(int64_t c, int64_t i) const {
  Source source = sources(c, 0).front();
  return layout.coordinate(source.address + source.field + i * slot).k;
}

uint32_t JoinedWords::maskOfSlots(int64_t first, int64_t bits) const {
  uint32_t mask = 0;
  for (int64_t at = first; at < 32; at += slot)
    mask |= uint32_t((uint64_t(1) << bits) - 1) << at;
  return mask;
}
