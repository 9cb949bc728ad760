//===- Layout.h - Layouts as bit permutations -------------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The algebra behind `#gptq.layout`. A block is one plane, or several one
// behind the other; a plane holds 2^a bits of every element of the block. A
// coordinate (bit, k, n) of a plane is written as one number, its *index*: the
// bits of `bit` lowest, then those of k, then those of n. A plane permutes the
// bits of that index into the bits of an address. Everything else follows from
// the permutation being linear:
//
//     address(bit, k, n) = address(bit, 0, 0) + address(0, k, 0) + address(0,
//     0, n)
//
// without carries, and the same for the inverse. So a table per dimension
// replaces a table per element, and a change of layout is one permutation:
// the target's after the inverse of the source's.
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_CODEGEN_COMMON_LAYOUT_H
#define GPTQ_CODEGEN_COMMON_LAYOUT_H

#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "llvm/ADT/SmallVector.h"
#include "llvm/Support/LogicalResult.h"

namespace mlir::gptq {

/// A permutation of the low bits of an integer: bit i of the argument becomes
/// bit `p[i]` of the result.
class BitPermutation {
public:
  BitPermutation() = default;
  explicit BitPermutation(ArrayRef<unsigned> to) : to(to.begin(), to.end()) {}
  static BitPermutation identity(unsigned numBits);

  unsigned size() const { return to.size(); }
  unsigned operator[](unsigned bit) const { return to[bit]; }
  int64_t operator()(int64_t value) const;

  BitPermutation inverse() const;
  /// First `first`, then this permutation.
  BitPermutation after(const BitPermutation &first) const;

  bool operator==(const BitPermutation &other) const { return to == other.to; }

private:
  SmallVector<unsigned, 16> to;
};

/// A dimension of a block's elements.
enum class LayoutDim : uint8_t { Bit, K, N };

/// One bit of a coordinate: bit `bit` of the position along `dim`.
struct LayoutBit {
  LayoutDim dim;
  unsigned bit;
  bool operator==(LayoutBit other) const {
    return dim == other.dim && bit == other.bit;
  }
};

/// A position inside a block.
struct LayoutCoordinate {
  int64_t bit = 0;
  int64_t k = 0;
  int64_t n = 0;
  bool operator==(LayoutCoordinate other) const {
    return bit == other.bit && k == other.k && n == other.n;
  }
  bool operator!=(LayoutCoordinate other) const { return !(*this == other); }
};

/// The bits that one plane holds of every element of a block, as a permutation.
/// Addresses count bits from the start of the plane; a word is 32 bits of them
/// unless said otherwise.
class Plane {
public:
  /// `order` as in `#gptq.layout`, of this plane alone.
  Plane(int64_t bits, int64_t blockK, int64_t blockN, StringRef order);

  int64_t bits() const { return int64_t(1) << numBits[0]; }
  int64_t blockK() const { return int64_t(1) << numBits[1]; }
  int64_t blockN() const { return int64_t(1) << numBits[2]; }
  /// Bits of a block.
  int64_t blockBits() const { return int64_t(1) << order.size(); }

  /// The address of bit `bit` of element (k, n).
  int64_t address(int64_t bit, int64_t k, int64_t n) const;
  /// What lies at `address`: the inverse of `address`.
  LayoutCoordinate coordinate(int64_t address) const;

  /// Index to address, as a permutation.
  BitPermutation permutation() const;
  /// The permutation of addresses that turns data in this plane into data in
  /// `target`, which must have blocks of the same shape.
  BitPermutation repackTo(const Plane &target) const;

  /// The coordinate bit at address bit `position`.
  LayoutBit at(unsigned position) const { return order[position]; }
  unsigned numAddressBits() const { return order.size(); }
  /// The address bit that holds `bit` of `dim`.
  unsigned positionOf(LayoutDim dim, unsigned bit) const;

  /// The number of low bits of an element that lie side by side, as a count of
  /// bits: `bits()` where elements are whole, 1 or 2 … where they are apart.
  int64_t chunkBits() const;
  bool hasWholeElements() const { return chunkBits() == bits(); }

  /// The longest power of two r such that along `dim` aligned runs of r
  /// positions lie side by side, each position being a unit of `unitBits` bits
  /// (a power of two); 1 where there is no run.
  int64_t contiguousRun(LayoutDim dim, int64_t unitBits) const;

  /// What field `field` (of `chunkBits()` bits) of word `word` holds.
  LayoutCoordinate field(int64_t word, int64_t field,
                         int64_t wordBits = 32) const {
    return coordinate(word * wordBits + field * chunkBits());
  }
  /// The word that holds the lowest bit of element (k, n), and the place of
  /// that bit inside the word.
  int64_t wordOf(int64_t k, int64_t n, int64_t wordBits = 32) const {
    return address(0, k, n) / wordBits;
  }
  int64_t shiftOf(int64_t k, int64_t n, int64_t wordBits = 32) const {
    return address(0, k, n) % wordBits;
  }

  /// The address of word `word` of those that hold column `n`, in order.
  int64_t wordAddress(int64_t word, int64_t n, int64_t wordBits = 32) const;

  /// Whether every word holds one column only. Then its fields are rows.
  bool wordsAreColumns(int64_t wordBits = 32) const;

private:
  SmallVector<LayoutBit, 16> order;
  /// Bits of each dimension's positions, in the order of LayoutDim.
  unsigned numBits[3];
};

/// A `#gptq.layout` to compute with. Addresses count bits from the start of the
/// block.
class Layout {
public:
  /// A plane, the lowest bit of an element that it holds, and its first
  /// address.
  struct Part {
    Plane plane;
    int64_t firstBit, firstAddress;
  };

  explicit Layout(LayoutAttr attr);

  /// The attribute whose order is `order`, lowest address bit first.
  static LayoutAttr get(MLIRContext *context, int64_t bits, int64_t blockN,
                        int64_t blockK, ArrayRef<StringRef> order);
  /// The attribute of a layout of one plane, given by the coordinate bit at
  /// each address bit.
  static LayoutAttr get(MLIRContext *context, ArrayRef<LayoutBit> order);

  int64_t bits() const { return attr.getBits(); }
  int64_t blockK() const { return attr.getBlockK(); }
  int64_t blockN() const { return attr.getBlockN(); }
  int64_t blockBits() const { return attr.getBlockBits(); }
  ArrayRef<Part> getParts() const { return parts; }

  /// The address of bit `bit` of element (k, n).
  int64_t address(int64_t bit, int64_t k, int64_t n) const;
  /// What lies at `address`: the inverse of `address`.
  LayoutCoordinate coordinate(int64_t address) const;

private:
  LayoutAttr attr;
  SmallVector<Part, 3> parts;
};

/// How words of elements come from the words of planes, one column each. Words
/// are cut into slots of a power of two of bits that hold an element each, and
/// slot i of *joined* word c holds the same element in all planes: one shift
/// and one mask for a plane fill all slots at once.
class JoinedWords {
public:
  /// One plane's share of a joined word: of the word at `address`, the `bits`
  /// bits of each slot from `field` on, which become those from `firstBit` on.
  struct Source {
    int64_t address, field, firstBit, bits;
  };

  /// Fails where the planes of `layout` do not go together like that.
  static FailureOr<JoinedWords> create(const Layout &layout);

  int64_t slotBits() const { return slot; }
  int64_t slots() const { return 32 / slot; }
  /// Joined words of a column of a block.
  int64_t words() const { return layout.blockK() / slots(); }
  /// The row in slot `i` of word `c`.
  int64_t row(int64_t c, int64_t i) const;
  /// What makes up word `c` of column `n`.
  SmallVector<Source, 3> sources(int64_t c, int64_t n) const;
  /// The bits from `first` on, `bits` of them, in every slot.
  uint32_t maskOfSlots(int64_t first, int64_t bits) const;

private:
  explicit JoinedWords(const Layout &layout);

  Layout layout;
  int64_t slot;
};

} // namespace mlir::gptq

#endif // GPTQ_CODEGEN_COMMON_LAYOUT_H
