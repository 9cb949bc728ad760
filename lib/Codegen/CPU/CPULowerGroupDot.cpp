//===- CPULowerGroupDot.cpp - The inner loop on CPUs ----------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Codegen/CPU/Passes.h"
#include "gptq/Codegen/Common/Layout.h"
#include "gptq/Codegen/Common/VectorBuilder.h"
#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "mlir/Interfaces/FunctionInterfaces.h"
#include <cmath>

namespace mlir::gptq {
#define GEN_PASS_DEF_CPULOWERGROUPDOTPASS
#include "gptq/Codegen/CPU/Passes.h.inc"
} // namespace mlir::gptq

using namespace mlir;
using namespace mlir::gptq;

namespace {

/// Lowers one group_dot: a register tile of R rows by V vectors of lanes.
class DotLowering {
public:
  DotLowering(GroupDotOp op, VectorBuilder &b)
      : op(op), b(b), layout(op.getLayout()),
        type(cast<VectorType>(op.getAcc().getType())),
        rows(type.getDimSize(0)) {
    int64_t runs = op.getColumns().size(), width = type.getDimSize(1) / runs;
    for (int64_t column : op.getColumns())
      for (int64_t at = 0; at < width; at += b.lanes)
        columns.push_back(column + at);
  }

  LogicalResult run();

private:
  int64_t vectors() const { return columns.size(); }
  SmallVector<Value> split(Value tile);
  Value splitColumns(Value perColumn, int64_t vector);
  Value join(ArrayRef<Value> parts);
  void step(Value block, Value k0, int64_t limit, MutableArrayRef<Value> sums);

  GroupDotOp op;
  VectorBuilder &b;
  Layout layout;
  VectorType type;
  int64_t rows;
  /// The first column of each vector of the tile.
  SmallVector<int64_t> columns;
  SmallVector<Value> scales, zeros;
  /// Whether codes are multiplied where they lie in their word, as q * 2^shift,
  /// by activations that are as much smaller. Both are exact, and a shift for
  /// every vector of weights becomes a multiplication for every activation:
  /// worth it where fewer rows than vectors share a step.
  bool multipliesInPlace() const {
    return rows < vectors() && scales.empty() && zeros.empty();
  }

  /// Independent sums per accumulator.
  int64_t sets = 1;
};

} // namespace

Value DotLowering::splitColumns(Value perColumn, int64_t vector) {
  if (vectors() == 1)
    return perColumn;
  return vector::ExtractStridedSliceOp::create(
      b, perColumn, ArrayRef<int64_t>{vector * b.lanes},
      ArrayRef<int64_t>{b.lanes}, ArrayRef<int64_t>{1});
}

SmallVector<Value> DotLowering::split(Value tile) {
  SmallVector<Value> parts;
  for (int64_t r = 0; r < rows; ++r) {
    Value row = vector::ExtractOp::create(b, tile, r);
    for (int64_t v = 0; v < vectors(); ++v)
      parts.push_back(splitColumns(row, v));
  }
  return parts;
}

Value DotLowering::join(ArrayRef<Value> parts) {
  Value tile = b.zeros(type);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t v = 0; v < vectors(); ++v)
      tile = vector::InsertStridedSliceOp::create(
          b, parts[r * vectors() + v], tile, ArrayRef<int64_t>{r, v * b.lanes},
          ArrayRef<int64_t>{1});
  return tile;
}

/// Blocks of a panel between the one that is multiplied and the one that is
/// fetched: 4 KiB for 32 columns, some 100 ns ahead of time.
static constexpr int64_t kPrefetchBlocks = 32;

/// Adds the products of one block of `layout.blockK()` input rows, number
/// `block` of the panel, which meet the activations from `k0` on. Only the
/// first `limit` belong to the group.
void DotLowering::step(Value block, Value k0, int64_t limit,
                       MutableArrayRef<Value> sums) {
  auto weightType = cast<MemRefType>(op.getW().getType());
  bool isFloat = isa<FloatType>(weightType.getElementType());
  int64_t unit = weightType.getElementTypeBitWidth();

  SmallVector<Value> words;
  for (int64_t column : columns) {
    auto word = VectorType::get({b.lanes}, weightType.getElementType());
    words.push_back(vector::LoadOp::create(
        b, word, op.getW(),
        ValueRange{op.getPanel(), block,
                   b.index(layout.address(0, 0, column) / unit)}));
  }
  // One row waits for its weights, which no loop before it has touched.
  if (rows == 1 && !isFloat) {
    const int64_t wordsPerLine = 64 * 8 / unit;
    for (int64_t n = 0; n < layout.blockN(); n += wordsPerLine)
      memref::PrefetchOp::create(
          b, op.getLoc(), op.getW(),
          ValueRange{op.getPanel(), b.add(block, kPrefetchBlocks),
                     b.index(layout.address(0, 0, n) / unit)},
          /*isWrite=*/false, /*localityHint=*/3, /*isDataCache=*/true);
  }
  int64_t fields = isFloat ? 1 : 32 / layout.bits();
  for (int64_t field = 0; field < fields; ++field) {
    int64_t k = isFloat ? 0 : layout.field(0, field).k;
    if (k >= limit)
      continue;
    const int64_t shift = isFloat ? 0 : field * layout.bits();
    // The last field would be a negative number.
    const bool inPlace = multipliesInPlace() && shift > 0 && field + 1 < fields;
    SmallVector<Value> weights;
    for (int64_t v = 0; v < vectors(); ++v) {
      Value w = words[v];
      if (isFloat) {
        weights.push_back(b.toF32(w));
        continue;
      }
      auto wordType = cast<VectorType>(w.getType());
      auto constant = [&](int64_t value) -> Value {
        return arith::ConstantOp::create(
            b, DenseElementsAttr::get(wordType, b.getI32IntegerAttr(value)));
      };
      if (shift && !inPlace)
        w = arith::ShRUIOp::create(b, w, constant(shift));
      if (field + 1 < fields)
        w = arith::AndIOp::create(b, w,
                                  constant(((int64_t(1) << layout.bits()) - 1)
                                           << (inPlace ? shift : 0)));
      // Codes have at most 8 bits: signed conversion is exact, and one
      // instruction.
      w = arith::SIToFPOp::create(b, b.vectorType(b.lanes), w);
      if (!zeros.empty())
        w = arith::SubFOp::create(b, w, zeros[v]);
      if (!scales.empty())
        w = arith::MulFOp::create(b, w, scales[v]);
      weights.push_back(w);
    }
    Value column = b.add(k0, k);
    if (op.getPerm())
      column = arith::IndexCastOp::create(
          b, b.getIndexType(),
          memref::LoadOp::create(b, op.getPerm(), ValueRange{column}));
    int64_t set = field % sets;
    for (int64_t r = 0; r < rows; ++r) {
      Value x = b.splat(
          b.loadScalar(op.getX(), {b.add(op.getRow(), r), column}), b.lanes);
      if (inPlace)
        x = arith::MulFOp::create(
            b, x, b.splat(b.f32(std::ldexp(1.0, -shift)), b.lanes));
      for (int64_t v = 0; v < vectors(); ++v) {
        Value &sum = sums[(set * rows + r) * vectors() + v];
        sum = vector::FMAOp::create(b, x, weights[v], sum);
      }
    }
  }
}

/// FMAs in flight that hide the latency of one: 4 cycles, and unpacking lets no
/// more than one start in a cycle. More sums would spill words of weights.
static constexpr int64_t kIndependentSums = 4;

LogicalResult DotLowering::run() {
  auto weightType = cast<MemRefType>(op.getW().getType());
  int64_t unit = weightType.getElementTypeBitWidth();
  bool isFloat = isa<FloatType>(weightType.getElementType());
  if (!layout.hasWholeElements() || (!isFloat && !layout.wordsAreColumns()) ||
      layout.contiguousRun(LayoutDim::N, unit) < b.lanes ||
      (type.getDimSize(1) / int64_t(op.getColumns().size())) % b.lanes != 0)
    return op.emitOpError("expects a layout with ")
           << b.lanes << " columns side by side, one word each, but found "
           << op.getLayout();
  // The first field of every lane's word must be the block's first row.
  for (int64_t v = 0; v < vectors(); ++v) {
    if (op.getScale())
      scales.push_back(splitColumns(op.getScale(), v));
    if (op.getZero())
      zeros.push_back(splitColumns(op.getZero(), v));
  }

  int64_t depth = op.getDepth(), blockK = layout.blockK();
  int64_t whole = depth / blockK, rest = depth % blockK;
  int64_t tileVectors = rows * vectors();
  sets = std::clamp<int64_t>(kIndependentSums / tileVectors, 1, blockK);

  SmallVector<Value> sums = split(op.getAcc());
  for (int64_t set = 1; set < sets; ++set)
    sums.append(tileVectors, b.zeros(b.vectorType(b.lanes)));
  // Where the activations of a block lie, relative to blocks of blockK rows:
  // nothing unless groups leave blocks unfilled.
  Value first = op.getBlock();
  Value lag = arith::SubIOp::create(b, op.getK0(), b.mul(first, blockK));
  auto rowsOf = [&](Value block) { return b.add(b.mul(block, blockK), lag); };
  if (whole) {
    auto loop =
        scf::ForOp::create(b, first, b.add(first, whole), b.index(1), sums);
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(loop.getBody());
    SmallVector<Value> next(loop.getRegionIterArgs());
    Value block = loop.getInductionVar();
    step(block, rowsOf(block), blockK, next);
    scf::YieldOp::create(b, next);
    sums.assign(loop.getResults().begin(), loop.getResults().end());
  }
  if (rest) {
    Value block = b.add(first, whole);
    step(block, rowsOf(block), rest, sums);
  }
  for (int64_t i = tileVectors, e = sums.size(); i < e; ++i) {
    Value &sum = sums[i % tileVectors];
    sum = arith::AddFOp::create(b, sum, sums[i]);
  }
  op.getResult().replaceAllUsesWith(
      join(ArrayRef(sums).take_front(tileVectors)));
  op.erase();
  return success();
}

/// Lowers a group_sum: whole vectors along K, then a sum over lanes.
static void lowerGroupSum(GroupSumOp op, VectorBuilder &b) {
  auto type = cast<VectorType>(op.getResult().getType());
  Value result = b.zeros(type);
  for (int64_t r = 0; r < type.getDimSize(0); ++r) {
    Value row = b.add(op.getRow(), r), sum;
    if (op.getPerm()) {
      auto loop = scf::ForOp::create(b, b.index(0), b.index(op.getDepth()),
                                     b.index(1), ValueRange{b.f32(0.0)});
      OpBuilder::InsertionGuard guard(b);
      b.setInsertionPointToStart(loop.getBody());
      Value at = arith::IndexCastOp::create(
          b, b.getIndexType(),
          memref::LoadOp::create(
              b, op.getPerm(),
              ValueRange{b.add(op.getK0(), loop.getInductionVar())}));
      Value next = arith::AddFOp::create(b, loop.getRegionIterArg(0),
                                         b.loadScalar(op.getX(), {row, at}));
      scf::YieldOp::create(b, ValueRange{next});
      sum = loop.getResult(0);
    } else {
      sum = b.sumChunks(op.getDepth(), [&](Value at, int64_t n) {
        return b.load(op.getX(), {row, b.add(op.getK0(), at)}, n);
      });
    }
    result = vector::InsertOp::create(b, sum, result, r);
  }
  op.getResult().replaceAllUsesWith(result);
  op.erase();
}

namespace {
struct CPULowerGroupDotPass final
    : mlir::gptq::impl::CPULowerGroupDotPassBase<CPULowerGroupDotPass> {
  using Base::Base;

  void runOnOperation() override {
    SmallVector<Operation *> ops;
    getOperation()->walk([&](Operation *op) {
      if (isa<GroupDotOp, GroupSumOp>(op))
        ops.push_back(op);
    });
    for (Operation *op : ops) {
      if (auto sum = dyn_cast<GroupSumOp>(op)) {
        VectorBuilder b(op, sum.getPlan().getLanes());
        lowerGroupSum(sum, b);
        continue;
      }
      auto dot = cast<GroupDotOp>(op);
      VectorBuilder b(op, dot.getPlan().getLanes());
      if (failed(DotLowering(dot, b).run()))
        return signalPassFailure();
    }
  }
};
} // namespace
