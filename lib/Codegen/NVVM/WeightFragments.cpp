//===- WeightFragments.cpp - Codes as operands of matrix units ------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "WeightFragments.h"
#include "NVVMOperands.h"
#include "gptq/Codegen/NVVM/NVVMOps.h"

using namespace mlir;
using namespace mlir::gptq;
using Fragments = ::gptq::MatrixFragments;

/// Tiles of columns of one warp that take all registers.
static constexpr int64_t kManyTiles = 6;

static Value constant(VectorBuilder &b, uint32_t value) {
  return arith::ConstantOp::create(b, b.getI32IntegerAttr(int32_t(value)));
}

FailureOr<WeightFragments> WeightFragments::create(GroupDotOp op,
                                                   VectorBuilder &b) {
  WeightFragments f(op, b);
  Type element = cast<MemRefType>(op.getW().getType()).getElementType();
  f.type =
      cast<FloatType>(cast<MemRefType>(op.getX().getType()).getElementType());
  f.isDense = isa<FloatType>(element);
  f.unit = element.getIntOrFloatBitWidth();
  if (f.isDense && element != f.type) {
    op.emitOpError("expects weights of the activations' type, but found ")
        << element << " and " << f.type;
    return failure();
  }
  if (f.whole.getParts().size() != 1)
    return f.refuse("a layout of one plane"), failure();

  // A thread's share of a block lies together, once or several times; threads
  // follow each other as k3 k4 n0 n1 n2.
  const Plane &layout = f.layout();
  f.lanePlace = layout.positionOf(LayoutDim::K, 3);
  const LayoutBit laneBits[] = {{LayoutDim::K, 3},
                                {LayoutDim::K, 4},
                                {LayoutDim::N, 0},
                                {LayoutDim::N, 1},
                                {LayoutDim::N, 2}};
  for (auto [i, bit] : llvm::enumerate(laneBits))
    if (f.lanePlace + i >= layout.numAddressBits() ||
        !(layout.at(f.lanePlace + i) == bit))
      return f.refuse("threads side by side in the order k3 k4 n0 n1 n2"),
             failure();
  if (layout.blockN() != Fragments::tileColumns ||
      layout.blockK() < Fragments::chunkRows)
    return f.refuse("blocks of 16 columns and at least 32 rows"), failure();

  // Codes of column half h are unpacked from one place in a half word, so that
  // what unpacking adds to them is one number.
  f.converts = layout.bits() > fractionBits(f.type);
  if (!f.isDense) {
    if ((int64_t(1) << f.lanePlace) % 32 != 0)
      return f.refuse("whole words for each thread"), failure();
    for (int64_t h = 0; h < 2; ++h) {
      f.places[h] = f.addressOf(0, h, 0) % 32;
      if (f.places[h] >= 16 ||
          f.places[h] + layout.bits() > fractionBits(f.type))
        f.places[h] = 0;
      f.addedTo[h] =
          f.converts ? 0 : std::ldexp(1.0, fractionBits(f.type) - f.places[h]);
    }
  }

  // Zero points that were not folded are subtracted from each pair of codes,
  // together with what unpacking added: small integers, so this is exact.
  // Scales that were not hoisted then multiply it, which rounds. Of an image
  // nobody has the sum of activations that would subtract it later.
  auto pairOf = [&](Value perColumn, int64_t h, double add) -> Value {
    Value one = perColumn ? Value(vector::ExtractOp::create(b, perColumn, h))
                          : b.f32(0);
    if (add != 0)
      one = arith::AddFOp::create(b, one, b.f32(add));
    return vector::BroadcastOp::create(b, VectorType::get({2}, f.type),
                                       arith::TruncFOp::create(b, f.type, one));
  };
  for (int64_t h = 0; h < 2; ++h) {
    if (op.getZero() ||
        ((op.getScale() || op->hasAttr(kImageAttr)) && f.addedTo[h] != 0)) {
      f.minus[h] = pairOf(op.getZero(), h, f.addedTo[h]);
      f.addedTo[h] = 0;
    }
    if (op.getScale())
      f.times[h] = pairOf(op.getScale(), h, 0);
  }
  return f;
}

SmallVector<Value> WeightFragments::load(int64_t index) {
  const Plane &layout = this->layout();
  auto memref = cast<MemRefType>(op.getW().getType());
  const int64_t shares = layout.blockBits() / (shareBits() * b.kWarpThreads);
  const int64_t perShare = shareBits() / unit;
  const int64_t perLoad = std::max<int64_t>(
      1, std::min(perShare, op.getPlan().getLoadBits() / unit));

  Value lane = gpu::LaneIdOp::create(b, /*upper_bound=*/IntegerAttr());
  Value block = b.add(op.getBlock(), index);
  SmallVector<Value> words(shares * perShare);
  for (int64_t share = 0; share < shares; ++share)
    for (int64_t first = 0; first < perShare; first += perLoad) {
      Value place = b.add(b.mul(lane, perShare),
                          share * b.kWarpThreads * perShare + first);
      Value run = vector::LoadOp::create(
          b, VectorType::get({perLoad}, memref.getElementType()), op.getW(),
          ValueRange{op.getPanel(), block, place},
          /*nontemporal=*/!memref.getMemorySpace(),
          llvm::Align(std::max<int64_t>(1, perLoad * unit / 8)));
      for (int64_t i = 0; i < perLoad; ++i)
        words[share * perShare + first + i] =
            vector::ExtractOp::create(b, run, i);
    }
  return words;
}

SmallVector<SmallVector<Value>> WeightFragments::loadAll() {
  SmallVector<SmallVector<Value>> words;
  for (int64_t block = 0; block < numBlocks(); ++block)
    words.push_back(load(block));
  return words;
}

FailureOr<SmallVector<WeightFragments::Step>>
WeightFragments::unpack(int64_t index, ArrayRef<Value> words) {
  const Plane &layout = this->layout();
  const int64_t perShare = shareBits() / unit;
  const int64_t at = index * layout.blockK(), depth = op.getDepth();
  const int64_t needed = std::min<int64_t>(depth - at, layout.blockK());
  auto wordAt = [&](int64_t address) {
    int64_t share = address >> (lanePlace + 5);
    return words[share * perShare + (address & (shareBits() - 1)) / unit];
  };

  // One instruction instead of two keeps a constant in a register, which the
  // sums and operands of several rows do not leave beside many tiles.
  const PlanAttr plan = op.getPlan();
  // Without loads ahead of all else registers are planned more tightly.
  const bool hasRoom =
      op->hasAttr(kImageAttr) ||
      (plan.getFirstBytes() > 0 &&
       (plan.getMMax() == 1 ||
        plan.getColumns() < kManyTiles * Fragments::tileColumns));
  SmallVector<Step> steps;
  const int64_t end =
      std::min<int64_t>(layout.blockK(), llvm::alignTo(needed, 8));
  for (int64_t k = 0; k < end; ++k) {
    // Steps start where the thread's own bits of k are zero.
    if (k % Fragments::chunkRows != 0 && k % Fragments::chunkRows != 4)
      continue;
    Step step;
    step.number = (at + k / Fragments::chunkRows * Fragments::chunkRows) /
                      Fragments::stepRows +
                  (k % Fragments::chunkRows) / 4;
    for (int64_t i = 0; i < 4; ++i) {
      const int64_t low = addressOf(k, i, 0), high = addressOf(k, i, 1);
      Value pair = b.zeros(VectorType::get({2}, type));
      if (isDense) {
        pair = vector::InsertOp::create(b, wordAt(low), pair, 0);
        step.a[i] = vector::InsertOp::create(b, wordAt(high), pair, 1);
        continue;
      }
      if (high != low + 16)
        return refuse("pairs of codes in the halves of a word"), failure();
      Value word = wordAt(low);
      if (!converts) {
        step.a[i] = unpackPair(b, word, low % 32 - places[i % 2], places[i % 2],
                               layout.bits(), type, hasRoom);
        continue;
      }
      // More bits than the fraction has: each by itself.
      for (int64_t e = 0; e < 2; ++e) {
        Value code =
            arith::ShRUIOp::create(b, word, constant(b, low % 32 + 16 * e));
        code = arith::AndIOp::create(b, code,
                                     constant(b, (1u << layout.bits()) - 1));
        Value wide = arith::SIToFPOp::create(b, b.getF32Type(), code);
        pair = vector::InsertOp::create(
            b, arith::TruncFOp::create(b, type, wide), pair, e);
      }
      step.a[i] = pair;
    }
    for (int64_t i = 0; i < 4; ++i)
      if (minus[i % 2])
        step.a[i] = arith::SubFOp::create(b, step.a[i], minus[i % 2]);
    for (int64_t i = 0; i < 4; ++i)
      if (times[i % 2])
        step.a[i] = arith::MulFOp::create(b, step.a[i], times[i % 2]);
    steps.push_back(step);
  }
  return steps;
}
