//===- NVVMLowerGroupDot.cpp - The inner loop on matrix units -------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Y^T = W^T X^T in tiles of m16n8k16: weights are the 16-row operand A,
// activations the 8-column operand B. Thread l = 4 g + t of a warp holds
//
//   A, register i = h + 2 j, half e   column g + 8 h of the tile, k(t, j, e)
//   B, register j, half e             row g of the activations, k(t, j, e)
//   sums, number 2 h + i              column g + 8 h, row 2 t + i
//
// (PTX ISA, matrix fragments for mma.m16n8k16). The unit asks only that A and B
// agree on k. With k = 32 c + 8 t + 4 s + 2 j + e a thread's activations for
// two steps s lie side by side.
//
//===----------------------------------------------------------------------===//

#include "NVVMOperands.h"
#include "gptq/Codegen/Common/Layout.h"
#include "gptq/Codegen/Common/Plan.h"
#include "gptq/Codegen/Common/VectorBuilder.h"
#include "gptq/Codegen/NVVM/Passes.h"
#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Interfaces/FunctionInterfaces.h"

namespace mlir::gptq {
#define GEN_PASS_DEF_NVVMLOWERGROUPDOTPASS
#include "gptq/Codegen/NVVM/Passes.h.inc"
} // namespace mlir::gptq

using namespace mlir;
using namespace mlir::gptq;

/// Rows of K that one load of activations covers, and one step of the unit.
static constexpr int64_t kChunkRows = 32, kStepRows = 16;
static constexpr int64_t kStepsPerChunk = kChunkRows / kStepRows;
/// Rows of activations of one tile, and how many of its sums a thread has.
static constexpr int64_t kTileRows = 8;
static constexpr int64_t kRowsPerThread = 2;
/// Activations that a thread loads at a time.
static constexpr int64_t kPerLoad = 8;

namespace {

/// The B registers of a thread: [step][row tile] -> two pairs.
using Pairs = std::array<Value, 2>;
struct Activations {
  SmallVector<SmallVector<Pairs>> steps;
  /// The sum over all steps of this thread's two rows of every tile.
  SmallVector<Value> sums;
};

/// What identifies activations that several panels share.
using ActivationKey =
    std::tuple<Block *, Value, Value, Value, int64_t, int64_t>;

class MatrixLowering {
public:
  /// `m16n8k8`: the unit takes half a step at a time.
  MatrixLowering(VectorBuilder &b, bool isHalfStep)
      : b(b), isHalfStep(isHalfStep) {}

  Activations load(Value x, Value row, Value k0, int64_t depth,
                   int64_t rowTiles);
  /// Adds a * b to four sums.
  void multiply(ArrayRef<Value> a, const Pairs &pairs,
                MutableArrayRef<Value> sums);
  LogicalResult dot(GroupDotOp op, const Activations &x);
  void sum(GroupSumOp op, const Activations &x);

private:
  Value part(Value vector, int64_t at) {
    return vector::ExtractStridedSliceOp::create(
        b, vector, ArrayRef<int64_t>{at}, ArrayRef<int64_t>{2},
        ArrayRef<int64_t>{1});
  }
  Value constantPair(FloatType type, double value) {
    return arith::ConstantOp::create(
        b, DenseElementsAttr::get(VectorType::get({2}, type),
                                  b.getFloatAttr(type, value)));
  }

  VectorBuilder &b;
  bool isHalfStep;
};

} // namespace

Activations MatrixLowering::load(Value x, Value row, Value k0, int64_t depth,
                                 int64_t rowTiles) {
  auto memref = cast<MemRefType>(x.getType());
  auto type = cast<FloatType>(memref.getElementType());
  Value lane = gpu::LaneIdOp::create(b, /*upper_bound=*/IntegerAttr());
  Value g = arith::DivUIOp::create(b, lane, b.index(4));
  Value t = arith::RemUIOp::create(b, lane, b.index(4));
  Value m = memref.isDynamicDim(0) ? Value(memref::DimOp::create(b, x, 0))
                                   : b.index(memref.getDimSize(0));
  Value last = arith::SubIOp::create(b, m, b.index(1));
  SmallVector<Value> rows;
  // Rows that do not exist are the last one: their sums are not stored.
  for (int64_t tile = 0; tile < rowTiles; ++tile)
    rows.push_back(arith::MinUIOp::create(
        b, b.add(row, b.add(g, tile * kTileRows)), last));

  Activations result;
  auto vector = VectorType::get({kPerLoad}, type);
  const llvm::Align alignment = alignmentOf(x, b.add(k0, b.mul(t, kPerLoad)));
  for (int64_t at = 0; at < depth; at += kChunkRows) {
    Value column = b.add(b.add(k0, b.mul(t, kPerLoad)), at);
    SmallVector<Value> loaded;
    for (Value r : rows) {
      if (at + kChunkRows <= depth) {
        loaded.push_back(
            vector::LoadOp::create(b, vector, x, ValueRange{r, column},
                                   /*nontemporal=*/false, alignment));
        continue;
      }
      // Past the end of K there is nothing: zeros, one element at a time.
      Value left =
          arith::SubIOp::create(b, b.index(depth - at), b.mul(t, kPerLoad));
      Value whole = b.zeros(vector);
      for (int64_t i = 0; i < kPerLoad; ++i) {
        Value exists = arith::CmpIOp::create(b, arith::CmpIPredicate::sgt, left,
                                             b.index(i));
        auto read = scf::IfOp::create(b, TypeRange{type}, exists,
                                      /*withElseRegion=*/true);
        OpBuilder::InsertionGuard guard(b);
        b.setInsertionPointToStart(read.thenBlock());
        scf::YieldOp::create(b, ValueRange{memref::LoadOp::create(
                                    b, x, ValueRange{r, b.add(column, i)})});
        b.setInsertionPointToStart(read.elseBlock());
        scf::YieldOp::create(b, ValueRange{arith::ConstantOp::create(
                                    b, b.getFloatAttr(type, 0))});
        b.setInsertionPointAfter(read);
        whole = vector::InsertOp::create(b, read.getResult(0), whole, i);
      }
      loaded.push_back(whole);
    }
    for (int64_t s = 0; s < kStepsPerChunk; ++s) {
      SmallVector<Pairs> tiles;
      for (Value v : loaded)
        tiles.push_back({part(v, 4 * s), part(v, 4 * s + 2)});
      result.steps.push_back(tiles);
    }
  }
  // Ones times the activations: every sum of a row of the tile is the same.
  Value one = constantPair(type, 1.0);
  for (int64_t tile = 0; tile < rowTiles; ++tile) {
    SmallVector<Value> sums(4, b.f32(0.0));
    for (auto &step : result.steps)
      multiply({one, one, one, one}, step[tile], sums);
    result.sums.append({sums[0], sums[1]});
  }
  return result;
}

void MatrixLowering::multiply(ArrayRef<Value> a, const Pairs &pairs,
                              MutableArrayRef<Value> sums) {
  auto type = cast<VectorType>(a[0].getType());
  const bool isBF16 = type.getElementType().isBF16();
  auto operand = [&](Value v) -> Value {
    return isBF16 ? Value(LLVM::BitcastOp::create(b, b.getI32Type(), v)) : v;
  };
  auto once = [&](ArrayRef<Value> left, ArrayRef<Value> right, int64_t k) {
    SmallVector<Value> l, r;
    for (Value v : left)
      l.push_back(operand(v));
    for (Value v : right)
      r.push_back(operand(v));
    Type f32 = b.getF32Type();
    auto result =
        LLVM::LLVMStructType::getLiteral(b.getContext(), {f32, f32, f32, f32});
    auto element = isBF16 ? NVVM::MMATypes::bf16 : NVVM::MMATypes::f16;
    Value product = NVVM::MmaOp::create(
        b, result, l, r, ValueRange(sums), ArrayRef<int64_t>{16, 8, k},
        /*b1Op=*/std::nullopt, /*intOverflow=*/std::nullopt,
        std::array<NVVM::MMATypes, 2>{element, element},
        std::array<NVVM::MMALayout, 2>{NVVM::MMALayout::row,
                                       NVVM::MMALayout::col});
    for (int64_t i = 0; i < 4; ++i)
      sums[i] = LLVM::ExtractValueOp::create(b, product, i);
  };
  if (!isHalfStep)
    return once(a, pairs, kStepRows);
  once(a.take_front(2), pairs[0], kStepRows / 2);
  once(a.drop_front(2), pairs[1], kStepRows / 2);
}

LogicalResult MatrixLowering::dot(GroupDotOp op, const Activations &x) {
  const Layout whole(op.getLayout());
  const Plane &layout = whole.getParts().front().plane;
  auto memref = cast<MemRefType>(op.getW().getType());
  Type element = memref.getElementType();
  auto type =
      cast<FloatType>(cast<MemRefType>(op.getX().getType()).getElementType());
  const bool isDense = isa<FloatType>(element);
  const int64_t bits = layout.bits(), unit = element.getIntOrFloatBitWidth();
  auto refuse = [&](const Twine &why) {
    return op.emitOpError("expects ")
           << why << ", but found " << op.getLayout();
  };
  if (isDense && element != type)
    return op.emitOpError(
               "expects weights of the activations' type, but found ")
           << element << " and " << type;

  if (whole.getParts().size() != 1)
    return refuse("a layout of one plane");

  // A thread's share of a block lies together, once or several times; threads
  // follow each other as k3 k4 n0 n1 n2.
  const unsigned lanePlace = layout.positionOf(LayoutDim::K, 3);
  const LayoutBit laneBits[] = {{LayoutDim::K, 3},
                                {LayoutDim::K, 4},
                                {LayoutDim::N, 0},
                                {LayoutDim::N, 1},
                                {LayoutDim::N, 2}};
  for (auto [i, bit] : llvm::enumerate(laneBits))
    if (lanePlace + i >= layout.numAddressBits() ||
        !(layout.at(lanePlace + i) == bit))
      return refuse("threads side by side in the order k3 k4 n0 n1 n2");
  if (layout.blockN() != 16 || layout.blockK() < kChunkRows)
    return refuse("blocks of 16 columns and at least 32 rows");
  const int64_t shareBits = int64_t(1) << lanePlace;
  const int64_t shares = layout.blockBits() / (shareBits * 32);
  const int64_t perShare = shareBits / unit;
  const int64_t perLoad = std::max<int64_t>(
      1, std::min(perShare, op.getPlan().getLoadBits() / unit));

  // The place of register i's first half at the step's row `k` of a block.
  auto addressOf = [&](int64_t k, int64_t i, int64_t e) {
    return layout.address(0, k + 2 * (i / 2) + e, 8 * (i % 2));
  };
  // Codes of column half h are unpacked from one place in a half word, so that
  // what unpacking adds to them is one number.
  int64_t places[2] = {0, 0};
  double added[2] = {0, 0};
  const bool converts = bits > fractionBits(type);
  if (!isDense) {
    if (shareBits % 32 != 0)
      return refuse("whole words for each thread");
    for (int64_t h = 0; h < 2; ++h) {
      places[h] = addressOf(0, h, 0) % 32;
      if (places[h] >= 16 || places[h] + bits > fractionBits(type))
        places[h] = 0;
      added[h] = converts ? 0 : std::ldexp(1.0, fractionBits(type) - places[h]);
    }
  }

  // Zero points that were not folded are subtracted from each pair of codes,
  // together with what unpacking added: small integers, so this is exact.
  // Scales that were not hoisted then multiply it, which rounds.
  Value minus[2], times[2];
  auto pairOf = [&](Value perColumn, int64_t h, double add) -> Value {
    Value one = perColumn ? Value(vector::ExtractOp::create(b, perColumn, h))
                          : b.f32(0);
    one = arith::AddFOp::create(b, one, b.f32(add));
    return vector::BroadcastOp::create(b, VectorType::get({2}, type),
                                       arith::TruncFOp::create(b, type, one));
  };
  for (int64_t h = 0; h < 2; ++h) {
    if (op.getZero() || (op.getScale() && added[h] != 0)) {
      minus[h] = pairOf(op.getZero(), h, added[h]);
      added[h] = 0;
    }
    if (op.getScale())
      times[h] = pairOf(op.getScale(), h, 0);
  }

  auto tileType = cast<VectorType>(op.getAcc().getType());
  const int64_t rowTiles = tileType.getDimSize(0) / kRowsPerThread;
  // Sums of a tile: [2 h + i].
  SmallVector<SmallVector<Value>> sums(rowTiles, SmallVector<Value>(4));
  for (int64_t tile = 0; tile < rowTiles; ++tile)
    for (int64_t h = 0; h < 2; ++h)
      for (int64_t i = 0; i < kRowsPerThread; ++i) {
        Value start = vector::ExtractOp::create(
            b, op.getAcc(), ArrayRef<int64_t>{tile * kRowsPerThread + i, h});
        if (added[h] != 0)
          start = math::FmaOp::create(b, b.f32(-added[h]),
                                      x.sums[tile * kRowsPerThread + i], start);
        sums[tile][2 * h + i] = start;
      }

  Value lane = gpu::LaneIdOp::create(b, /*upper_bound=*/IntegerAttr());
  const int64_t depth = op.getDepth();
  for (int64_t at = 0; at < depth; at += layout.blockK()) {
    Value block = b.add(op.getBlock(), at / layout.blockK());
    // All of the block's loads first: they wait for memory together.
    SmallVector<Value> words(shares * perShare);
    const int64_t needed = std::min<int64_t>(depth - at, layout.blockK());
    for (int64_t share = 0; share < shares; ++share)
      for (int64_t first = 0; first < perShare; first += perLoad) {
        Value place =
            b.add(b.mul(lane, perShare), share * 32 * perShare + first);
        Value run = vector::LoadOp::create(
            b, VectorType::get({perLoad}, element), op.getW(),
            ValueRange{op.getPanel(), block, place}, /*nontemporal=*/true,
            llvm::Align(std::max<int64_t>(1, perLoad * unit / 8)));
        for (int64_t i = 0; i < perLoad; ++i)
          words[share * perShare + first + i] =
              vector::ExtractOp::create(b, run, i);
      }
    auto wordAt = [&](int64_t address) {
      int64_t share = address >> (lanePlace + 5);
      return share * perShare + (address & (shareBits - 1)) / unit;
    };
    for (int64_t k = 0; k < layout.blockK() && k < llvm::alignTo(needed, 8);
         ++k) {
      // Steps start where the thread's own bits of k are zero.
      if (k % kChunkRows != 0 && k % kChunkRows != 4)
        continue;
      const int64_t step =
          (at + k / kChunkRows * kChunkRows) / kStepRows + (k % kChunkRows) / 4;
      if (step >= int64_t(x.steps.size()))
        continue;
      SmallVector<Value> a;
      for (int64_t i = 0; i < 4; ++i) {
        const int64_t low = addressOf(k, i, 0), high = addressOf(k, i, 1);
        if (isDense) {
          Value pair = b.zeros(VectorType::get({2}, type));
          pair = vector::InsertOp::create(b, words[wordAt(low)], pair, 0);
          a.push_back(
              vector::InsertOp::create(b, words[wordAt(high)], pair, 1));
          continue;
        }
        if (high != low + 16)
          return refuse("pairs of codes in the halves of a word");
        Value word = words[wordAt(low)];
        if (!converts) {
          a.push_back(unpackPair(b, word, low % 32 - places[i % 2],
                                 places[i % 2], bits, type));
          continue;
        }
        // More bits than the fraction has: each by itself.
        Value pair = b.zeros(VectorType::get({2}, type));
        for (int64_t e = 0; e < 2; ++e) {
          Value code = arith::ShRUIOp::create(
              b, word,
              arith::ConstantOp::create(
                  b, b.getI32IntegerAttr(low % 32 + 16 * e)));
          code = arith::AndIOp::create(
              b, code,
              arith::ConstantOp::create(b,
                                        b.getI32IntegerAttr((1 << bits) - 1)));
          Value wide = arith::SIToFPOp::create(b, b.getF32Type(), code);
          pair = vector::InsertOp::create(
              b, arith::TruncFOp::create(b, type, wide), pair, e);
        }
        a.push_back(pair);
      }
      for (int64_t i = 0; i < 4; ++i)
        if (minus[i % 2])
          a[i] = arith::SubFOp::create(b, a[i], minus[i % 2]);
      for (int64_t i = 0; i < 4; ++i)
        if (times[i % 2])
          a[i] = arith::MulFOp::create(b, a[i], times[i % 2]);
      for (int64_t tile = 0; tile < rowTiles; ++tile)
        multiply(a, x.steps[step][tile], sums[tile]);
    }
  }
  Value result = b.zeros(tileType);
  for (int64_t tile = 0; tile < rowTiles; ++tile)
    for (int64_t h = 0; h < 2; ++h)
      for (int64_t i = 0; i < kRowsPerThread; ++i)
        result = vector::InsertOp::create(
            b, sums[tile][2 * h + i], result,
            ArrayRef<int64_t>{tile * kRowsPerThread + i, h});
  op.getResult().replaceAllUsesWith(result);
  op.erase();
  return success();
}

void MatrixLowering::sum(GroupSumOp op, const Activations &x) {
  auto type = cast<VectorType>(op.getResult().getType());
  Value result = b.zeros(type);
  for (int64_t i = 0; i < type.getDimSize(0); ++i)
    result = vector::InsertOp::create(b, x.sums[i], result, i);
  op.getResult().replaceAllUsesWith(result);
  op.erase();
}

/// One instruction.
static void lower(FragmentDotOp op) {
  VectorBuilder b(op, /*lanes=*/1);
  auto pairsOf = [&](Value fragment) {
    SmallVector<Value> pairs;
    for (int64_t i = 0; i < cast<VectorType>(fragment.getType()).getDimSize(0);
         ++i)
      pairs.push_back(vector::ExtractOp::create(b, fragment, i));
    return pairs;
  };
  SmallVector<Value> sums;
  for (int64_t i = 0; i < 4; ++i)
    sums.push_back(vector::ExtractOp::create(b, op.getAcc(),
                                             ArrayRef<int64_t>{i / 2, i % 2}));
  SmallVector<Value> right = pairsOf(op.getB());
  MatrixLowering(b, /*isHalfStep=*/false)
      .multiply(pairsOf(op.getA()), {right[0], right[1]}, sums);
  Value result = b.zeros(op.getResult().getType());
  for (int64_t i = 0; i < 4; ++i)
    result = vector::InsertOp::create(b, sums[i], result,
                                      ArrayRef<int64_t>{i / 2, i % 2});
  op.getResult().replaceAllUsesWith(result);
  op.erase();
}

namespace {
struct NVVMLowerGroupDotPass final
    : mlir::gptq::impl::NVVMLowerGroupDotPassBase<NVVMLowerGroupDotPass> {
  using Base::Base;

  void runOnOperation() override {
    getOperation()->walk([](FragmentDotOp op) { lower(op); });
    SmallVector<Operation *> ops;
    getOperation()->walk([&](Operation *op) {
      if (isa<GroupDotOp, GroupSumOp>(op))
        ops.push_back(op);
    });
    // Panels that are multiplied by the same activations share their loads:
    // those of the first op in a block are in front of all others.
    llvm::MapVector<ActivationKey, Activations> loaded;
    for (Operation *op : ops) {
      auto dot = dyn_cast<GroupDotOp>(op);
      auto sum = dyn_cast<GroupSumOp>(op);
      PlanAttr plan = dot ? dot.getPlan() : sum.getPlan();
      Value x = dot ? dot.getX() : sum.getX();
      Type type = cast<MemRefType>(x.getType()).getElementType();
      if (!usesMatrixUnit(plan) || (!type.isF16() && !type.isBF16()) ||
          (dot ? dot.getPerm() : sum.getPerm())) {
        op->emitOpError("expects a matrix unit, activations of f16 or bf16 and "
                        "no permutation");
        return signalPassFailure();
      }
      if (dot && dot.getOffset()) {
        op->emitOpError("expects offsets to be folded into the sums, as "
                        "gptq-fold-offsets does");
        return signalPassFailure();
      }
      VectorBuilder b(op, plan.getLanes());
      MatrixLowering lowering(b, plan.getUnit() == "mma_m16n8k8");
      Value row = dot ? dot.getRow() : sum.getRow();
      Value k0 = dot ? dot.getK0() : sum.getK0();
      const int64_t depth = dot ? dot.getDepth() : sum.getDepth();
      const int64_t rowTiles = plan.getRows() / kTileRows;
      ActivationKey key{op->getBlock(), x, row, k0, depth, rowTiles};
      auto it = loaded.find(key);
      if (it == loaded.end())
        it = loaded.insert({key, lowering.load(x, row, k0, depth, rowTiles)})
                 .first;
      const Activations activations = it->second;
      if (sum)
        lowering.sum(sum, activations);
      else if (failed(lowering.dot(dot, activations)))
        return signalPassFailure();
    }
  }
};
} // namespace
