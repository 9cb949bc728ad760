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
void Packer::packBlock(const Packer &p, const uint8_t *bytes, uint8_t *out) {
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
Packer::PackBlock Packer::choose(int64_t fields) {
  switch (fields) {
  case 1:
    return packBlock<Source, Word, 1>;
  case 2:
    return packBlock<Source, Word, 2>;
  case 4:
    return packBlock<Source, Word, 4>;
  case 8:
    return packBlock<Source, Word, 8>;
  case 16:
    return packBlock<Source, Word, 16>;
  default:
    return packBlock<Source, Word, 32>;
  }
}

model::Expected<Packer> Packer::create(LayoutAttr attr, int64_t k, int64_t n,
                                       unsigned width, bool transposed) {
  Packer p{Layout(attr)};
  const Layout &layout = p.layout;
  if (layout.blockBits() % 8 != 0)
    return model::makeStatus(model::StatusCode::Unsupported,
                             "a block of %lld bits is not made of whole bytes",
                             (long long)layout.blockBits());
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
  p.chunkBits = layout.chunkBits();

  // Whole elements that need no conversion are words themselves: their copies
  // have the longest runs.
  bool copies = layout.hasWholeElements() && layout.bits() == 8 * width;
  p.wordBits =
      copies ? layout.bits() : std::min<int64_t>(32, layout.blockBits());
  p.run = layout.contiguousRun(transposed ? LayoutDim::K : LayoutDim::N,
                               p.wordBits);

  // Rows of a power of two bytes would share one set of the cache.
  p.stride =
      transposed ? p.blocksK * layout.blockK() : p.panels * layout.blockN();
  p.stride += 64 / width;
  const int64_t strideK = transposed ? 1 : p.stride;
  const int64_t strideN = transposed ? p.stride : 1;
  auto append = [&](int64_t address, SmallVector<int32_t> &offsets,
                    SmallVector<uint8_t> &shifts) {
    LayoutCoordinate at = layout.coordinate(address);
    offsets.push_back(at.k * strideK + at.n * strideN);
    shifts.push_back(at.bit);
  };
  for (int64_t a = 0; a < layout.blockBits(); a += p.wordBits)
    append(a, p.wordOffset, p.wordShift);
  for (int64_t a = 0; a < p.wordBits; a += p.chunkBits)
    append(a, p.fieldOffset, p.fieldShift);

  int64_t fields = p.fieldOffset.size();
  if (width == 1)
    p.packOne = p.wordBits == 8    ? choose<uint8_t, uint8_t>(fields)
                : p.wordBits == 16 ? choose<uint8_t, uint16_t>(fields)
                                   : choose<uint8_t, uint32_t>(fields);
  else if (width == 2)
    p.packOne = p.wordBits == 16 ? choose<uint16_t, uint16_t>(fields)
                                 : choose<uint16_t, uint32_t>(fields);
  else
    p.packOne = choose<uint32_t, uint32_t>(fields);
  return p;
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
        packOne(*this, slab.data() + b * layout.blockK() * width,
                panel + b * blockBytes);
    } else {
      for (int64_t p = 0; p < panels; ++p)
        packOne(*this, slab.data() + p * layout.blockN() * width,
                out + (p * blocksK + s) * blockBytes);
    }
    afterSlab(rows * source.rowBytes());
  }
}
