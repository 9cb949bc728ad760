//===- Packer.cpp - Packs a matrix by a layout ----------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Export/Packer.h"
#include "llvm/Support/MathExtras.h"

#include <cstring>

using namespace mlir;
using namespace mlir::gptq;

/// Words handled side by side: two vector registers of the baseline processor,
/// the least that lets loads of one-byte elements fill a register.
static constexpr int kWordsAtOnce = 8;

template <typename Source, typename Word, int fields>
void Packer::packPlane(const PlaneTables &p, const uint8_t *bytes,
                       uint8_t *out) {
  const Source *src = reinterpret_cast<const Source *>(bytes);
  const int64_t words = p.wordOffset.size();
  const int64_t chunk = p.chunkBits;
  const Word mask =
      chunk == 8 * sizeof(Word) ? ~Word(0) : (Word(1) << chunk) - 1;
  if (p.run >= kWordsAtOnce) {
    for (int64_t w = 0; w < words; w += kWordsAtOnce) {
      Word sum[kWordsAtOnce] = {};
      for (int f = 0; f < fields; ++f) {
        const Source *from = src + p.wordOffset[w] + p.fieldOffset[f];
        const int fromBit = p.wordShift[w] + p.fieldShift[f];
        const int toBit = f * chunk;
        for (int i = 0; i < kWordsAtOnce; ++i)
          sum[i] |= Word(Word(Word(from[i]) >> fromBit & mask) << toBit);
      }
      std::memcpy(out + w * sizeof(Word), sum, sizeof(sum));
    }
    return;
  }
  for (int64_t w = 0; w < words; ++w) {
    Word sum = 0;
    for (int f = 0; f < fields; ++f) {
      Word element = src[p.wordOffset[w] + p.fieldOffset[f]];
      sum |= Word(Word(element >> (p.wordShift[w] + p.fieldShift[f]) & mask)
                  << (f * chunk));
    }
    std::memcpy(out + w * sizeof(Word), &sum, sizeof(Word));
  }
}

template <typename Source, typename Word>
Packer::PlaneTables::Pack Packer::choose(int64_t fields) {
  switch (fields) {
  case 1:
    return packPlane<Source, Word, 1>;
  case 2:
    return packPlane<Source, Word, 2>;
  case 4:
    return packPlane<Source, Word, 4>;
  case 8:
    return packPlane<Source, Word, 8>;
  case 16:
    return packPlane<Source, Word, 16>;
  default:
    return packPlane<Source, Word, 32>;
  }
}

Packer::PlaneTables Packer::tablesOf(const Layout::Part &part) const {
  const Plane &plane = part.plane;
  PlaneTables p;
  p.firstByte = part.firstAddress / 8;
  p.chunkBits = plane.chunkBits();
  // Whole elements that need no conversion are words themselves: their copies
  // have the longest runs.
  bool copies = plane.hasWholeElements() && plane.bits() == 8 * width;
  p.wordBits = copies ? plane.bits() : std::min<int64_t>(32, plane.blockBits());
  p.run =
      plane.contiguousRun(transposed ? LayoutDim::K : LayoutDim::N, p.wordBits);

  const int64_t strideK = transposed ? 1 : stride;
  const int64_t strideN = transposed ? stride : 1;
  auto append = [&](int64_t address, int64_t firstBit,
                    SmallVector<int32_t> &offsets,
                    SmallVector<uint8_t> &shifts) {
    LayoutCoordinate at = plane.coordinate(address);
    offsets.push_back(at.k * strideK + at.n * strideN);
    shifts.push_back(firstBit + at.bit);
  };
  for (int64_t a = 0; a < plane.blockBits(); a += p.wordBits)
    append(a, part.firstBit, p.wordOffset, p.wordShift);
  for (int64_t a = 0; a < p.wordBits; a += p.chunkBits)
    append(a, 0, p.fieldOffset, p.fieldShift);

  int64_t fields = p.fieldOffset.size();
  if (width == 1)
    p.pack = p.wordBits == 8    ? choose<uint8_t, uint8_t>(fields)
             : p.wordBits == 16 ? choose<uint8_t, uint16_t>(fields)
                                : choose<uint8_t, uint32_t>(fields);
  else if (width == 2)
    p.pack = p.wordBits == 16 ? choose<uint16_t, uint16_t>(fields)
                              : choose<uint16_t, uint32_t>(fields);
  else
    p.pack = choose<uint32_t, uint32_t>(fields);
  return p;
}

model::Expected<Packer> Packer::create(LayoutAttr attr, int64_t k, int64_t n,
                                       unsigned width, bool transposed) {
  Packer p{Layout(attr)};
  const Layout &layout = p.layout;
  for (const Layout::Part &part : layout.getParts())
    if (part.plane.blockBits() % 8 != 0)
      return model::makeStatus(
          model::StatusCode::Unsupported,
          "a block of %lld bits is not made of whole bytes",
          (long long)part.plane.blockBits());
  if (layout.bits() > 32 || (width != 1 && width != 2 && width != 4) ||
      (width > 1 && layout.bits() != 8 * width))
    return model::makeStatus(
        model::StatusCode::Unsupported,
        "a layout of %lld-bit elements cannot hold elements "
        "of %u bytes",
        (long long)layout.bits(), width);
  p.k = k;
  p.n = n;
  p.width = width;
  p.transposed = transposed;
  p.panels = llvm::divideCeil(n, layout.blockN());
  p.blocksK = llvm::divideCeil(k, layout.blockK());
  p.blockBytes = layout.blockBits() / 8;

  // Rows of a power of two bytes would share one set of the cache.
  p.stride =
      transposed ? p.blocksK * layout.blockK() : p.panels * layout.blockN();
  p.stride += 64 / width;
  for (const Layout::Part &part : layout.getParts())
    p.planes.push_back(p.tablesOf(part));
  return p;
}

void Packer::packBlock(const uint8_t *src, uint8_t *out) const {
  for (const PlaneTables &plane : planes)
    plane.pack(plane, src, out + plane.firstByte);
}

void Packer::pack(RowSource &source, int64_t begin, int64_t end, uint8_t *out,
                  llvm::function_ref<void(int64_t)> afterSlab) const {
  const int64_t slabRows = transposed ? layout.blockN() : layout.blockK();
  const int64_t sourceRows = transposed ? n : k;
  const int64_t strideBytes = stride * width;
  // Zeroed once: rows are overwritten up to their length only, so the padding
  // at their ends stays zero.
  std::vector<uint8_t> slab(slabRows * strideBytes);
  for (int64_t s = begin; s < end; ++s) {
    const int64_t rows = std::min(slabRows, sourceRows - s * slabRows);
    for (int64_t r = 0; r < rows; ++r)
      source.readRow(s * slabRows + r, slab.data() + r * strideBytes);
    std::fill(slab.begin() + rows * strideBytes, slab.end(), 0);
    if (transposed) {
      uint8_t *panel = out + s * blocksK * blockBytes;
      for (int64_t b = 0; b < blocksK; ++b)
        packBlock(slab.data() + b * layout.blockK() * width,
                  panel + b * blockBytes);
    } else {
      for (int64_t p = 0; p < panels; ++p)
        packBlock(slab.data() + p * layout.blockN() * width,
                  out + (p * blocksK + s) * blockBytes);
    }
    afterSlab(rows * source.rowBytes());
  }
}
