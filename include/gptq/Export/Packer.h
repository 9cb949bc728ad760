//===- Packer.h - Packs a matrix by a layout --------------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_EXPORT_PACKER_H
#define GPTQ_EXPORT_PACKER_H

#include "gptq/Codegen/Common/Layout.h"
#include "gptq/Export/WeightReader.h"

namespace mlir::gptq {

/// Packs a matrix of K rows and N columns (as RowSource delivers it, or its
/// transpose) block by block.
///
/// A word of a plane is the disjunction of its fields, and by the linearity of
/// planes the element of field f of word w lies at `wordOffset[w] +
/// fieldOffset[f]` in the source. So packing needs two small tables, no table
/// per element; and where consecutive words hold consecutive source elements,
/// their fields are handled side by side.
class Packer {
public:
  /// `width` is the bytes of a source element. Fails where the layout does not
  /// consist of whole bytes or does not fit the elements.
  static model::Expected<Packer> create(LayoutAttr layout, int64_t k, int64_t n,
                                        unsigned width, bool transposed);

  int64_t getPanels() const { return panels; }
  int64_t getBlocksK() const { return blocksK; }
  /// Bytes of the packed matrix: panels x blocks along K x block.
  int64_t bytes() const { return panels * blocksK * blockBytes; }

  /// Steps a caller may divide among threads: rows of blocks of the source.
  int64_t numSlabs() const { return transposed ? panels : blocksK; }

  /// Packs slabs `begin` to `end` (exclusive) of `source` into `out`, the start
  /// of all packed bytes. Calls `afterSlab` with the bytes read.
  void pack(RowSource &source, int64_t begin, int64_t end, uint8_t *out,
            llvm::function_ref<void(int64_t)> afterSlab) const;

private:
  explicit Packer(Layout layout) : layout(std::move(layout)) {}

  /// How one plane of a block is packed.
  struct PlaneTables {
    using Pack = void (*)(const PlaneTables &, const uint8_t *src,
                          uint8_t *out);

    /// Where the plane starts in its block, in bytes.
    int64_t firstByte;
    /// Bits of a word, of a field; words whose fields lie side by side.
    int64_t wordBits, chunkBits, run;
    /// Source elements, and bits inside an element.
    SmallVector<int32_t> wordOffset, fieldOffset;
    SmallVector<uint8_t> wordShift, fieldShift;
    Pack pack;
  };

  template <typename Source, typename Word, int fields>
  static void packPlane(const PlaneTables &p, const uint8_t *src, uint8_t *out);
  template <typename Source, typename Word>
  static PlaneTables::Pack choose(int64_t fields);
  PlaneTables tablesOf(const Layout::Part &part) const;
  void packBlock(const uint8_t *src, uint8_t *out) const;

  Layout layout;
  int64_t k, n, panels, blocksK, blockBytes;
  /// Elements from one row of the slab to the next.
  int64_t stride;
  unsigned width;
  bool transposed;
  SmallVector<PlaneTables, 3> planes;
};

} // namespace mlir::gptq

#endif // GPTQ_EXPORT_PACKER_H
