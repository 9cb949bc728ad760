//===- VectorizeOnWarps.cpp - Ops shared by the threads of a workgroup ----===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Vectorize.h"
#include "gptq/Codegen/Common/Plan.h"
#include "mlir/Dialect/GPU/IR/GPUDialect.h"
#include "mlir/Dialect/Math/IR/Math.h"

using namespace mlir;
using namespace mlir::gptq;

static Value less(VectorBuilder &b, Value x, Value y) {
  return arith::CmpIOp::create(b, arith::CmpIPredicate::slt, x, y);
}
static Value both(VectorBuilder &b, Value x, Value y) {
  return arith::AndIOp::create(b, x, y);
}
static Value divide(VectorBuilder &b, Value x, int64_t y) {
  return y == 1 ? x : Value(arith::DivUIOp::create(b, x, b.index(y)));
}
static Value remainder(VectorBuilder &b, Value x, int64_t y) {
  return arith::RemUIOp::create(b, x, b.index(y));
}
static Value exp(VectorBuilder &b, Value x) {
  return math::ExpOp::create(b, x);
}

//===----------------------------------------------------------------------===//
// Matmuls
//===----------------------------------------------------------------------===//

namespace {

using Fragments = ::gptq::MatrixFragments;
constexpr int64_t kTileColumns = Fragments::tileColumns;
constexpr int64_t kTileRows = Fragments::tileRows;
constexpr int64_t kRowsPerThread = Fragments::rowsPerThread;
constexpr int64_t kColumnsPerThread = Fragments::columnsPerThread;

/// The warps of a workgroup share its panels, and those of one share take parts
/// of K in turn; what they summed is added up at the end, in the order of the
/// warps.
class WarpMatmul {
public:
  WarpMatmul(const MatmulTile &op, VectorBuilder &b)
      : op(op), b(b), unit(*findUnit(op.plan.getUnit(), op.plan.getLanes())),
        // Warps that multiply together are all there, with a tile or without.
        shares(llvm::alignTo(
            llvm::divideCeil(op.plan.getTileN(), op.plan.getColumns()),
            unit.warps)),
        warps(b.threads / b.lanes / shares),
        rowTiles(op.plan.getRows() / kTileRows),
        maxPanels(op.plan.getColumns() / kTileColumns) {}

  LogicalResult run();

private:
  Value perColumn(Value buffer, Value panel, Value g);
  SmallVector<Value> step(Value chunk, int64_t depth, ValueRange sums);
  SmallVector<Value> sumOverChunks();
  void addToResult(ValueRange sums);
  void reduceInWorkgroup(ValueRange sums);
  void storeOwn(ValueRange sums);
  void store(Value value, Value row, Value column);
  Value finish(ArrayRef<Value> sums, Value panel, Value inPanel);
  Value biasOf(Value panel, int64_t panelColumn, Value inHalf);

  /// Rows of one thread in all row tiles.
  int64_t threadRows() const { return rowTiles * kRowsPerThread; }

  const MatmulTile &op;
  VectorBuilder &b;
  const ::gptq::UnitInfo &unit;
  /// Shares of panels; warps of each; tiles of rows; panels of a share.
  int64_t shares, warps, rowTiles, maxPanels;
  /// The thread inside its warp, the warp among those of its share, the share's
  /// first panel, rows and panels of this workgroup.
  Value lane, warp, firstPanel, rows, panels;
  /// Rows of a chunk, chunks of a group, blocks of a chunk.
  int64_t chunkRows, chunksPerGroup, blocksPerChunk;
};

} // namespace

/// The two scales or zero points this thread needs of a panel.
Value WarpMatmul::perColumn(Value buffer, Value panel, Value g) {
  auto type = cast<MemRefType>(buffer.getType());
  Value at = b.mul(divide(b, lane, 4), kColumnsPerThread);
  const int64_t bytes = kColumnsPerThread * type.getElementTypeBitWidth() / 8;
  Value run = vector::LoadOp::create(
      b, VectorType::get({kColumnsPerThread}, type.getElementType()), buffer,
      ValueRange{panel, g, at}, /*nontemporal=*/false, llvm::Align(bytes));
  if (type.getElementType().isIntOrIndex())
    return arith::UIToFPOp::create(b, b.vectorType(kColumnsPerThread), run);
  return b.toF32(run);
}

/// Adds the products of chunk number `chunk`, `depth` rows of K, to the sums of
/// all panels.
SmallVector<Value> WarpMatmul::step(Value chunk, int64_t depth,
                                    ValueRange sums) {
  Value g = divide(b, chunk, chunksPerGroup);
  Value k0 = b.mul(chunk, chunkRows);
  Value block = b.mul(chunk, blocksPerChunk);
  SmallVector<Value> result;
  for (int64_t p = 0; p < maxPanels; ++p) {
    // Past the last panel the last is read again, and nothing is stored.
    Value panel = arith::MinSIOp::create(
        b, b.add(firstPanel, p), arith::SubIOp::create(b, panels, b.index(1)));
    Value scale, zero;
    if (op.scales)
      scale = perColumn(op.scales, panel, g);
    if (op.zeros)
      zero = perColumn(op.zeros, panel, g);
    else if (op.scales)
      zero = b.splat(b.f32(op.zeroPoint), kColumnsPerThread);
    result.push_back(GroupDotOp::create(
        b, sums[p].getType(), op.lhs, b.index(0), k0, op.weight, panel, block,
        b.getDenseI64ArrayAttr({0}), sums[p], /*perm=*/Value(),
        /*bytes=*/Value(), /*unit=*/Value(), scale, zero,
        b.getI64IntegerAttr(depth), op.layout, op.plan));
  }
  return result;
}

SmallVector<Value> WarpMatmul::sumOverChunks() {
  auto type =
      VectorType::get({threadRows(), kColumnsPerThread}, b.getF32Type());
  const int64_t whole = op.k / chunkRows, rest = op.k % chunkRows;
  SmallVector<Value> sums(maxPanels, b.zeros(type));
  if (whole) {
    auto loop =
        scf::ForOp::create(b, warp, b.index(whole), b.index(warps), sums);
    if (op.plan.getStages() > 1)
      loop->setAttr(kStagesAttr, b.getI64IntegerAttr(op.plan.getStages()));
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(loop.getBody());
    scf::YieldOp::create(
        b, step(loop.getInductionVar(), chunkRows, loop.getRegionIterArgs()));
    sums.assign(loop.getResults().begin(), loop.getResults().end());
  }
  if (rest) {
    // The warp whose turn it would be.
    Value mine = arith::CmpIOp::create(b, arith::CmpIPredicate::eq, warp,
                                       b.index(whole % warps));
    auto last = scf::IfOp::create(b, TypeRange(ValueRange(sums)), mine,
                                  /*withElseRegion=*/true);
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(last.thenBlock());
    scf::YieldOp::create(b, step(b.index(whole), rest, sums));
    b.setInsertionPointToStart(last.elseBlock());
    scf::YieldOp::create(b, sums);
    sums.assign(last.getResults().begin(), last.getResults().end());
  }
  return sums;
}

/// The bias of column `inHalf` (+ `panelColumn`) of a panel, which the weight
/// is as wide as.
Value WarpMatmul::biasOf(Value panel, int64_t panelColumn, Value inHalf) {
  Value at =
      b.add(b.mul(panel, op.layout.getBlockN()), b.add(inHalf, panelColumn));
  // Padding of the last panel has no bias; what is read instead is not stored.
  Value last = arith::SubIOp::create(b, memref::DimOp::create(b, op.bias, 0),
                                     b.index(1));
  return b.loadScalar(op.bias, ValueRange{arith::MinSIOp::create(b, at, last)});
}

/// Writes one element of the result, if it exists.
void WarpMatmul::store(Value value, Value row, Value column) {
  Value width = columnsOf(op.out) == ShapedType::kDynamic
                    ? Value(memref::DimOp::create(b, op.out, 1))
                    : b.index(columnsOf(op.out));
  Value exists = both(b, less(b, row, rows), less(b, column, width));
  auto only = scf::IfOp::create(b, exists);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(only.thenBlock());
  if (op.accumulate)
    value =
        arith::AddFOp::create(b, value, b.loadScalar(op.out, {row, column}));
  b.store(b.splat(value, 1), op.out, {row, column});
}

/// Every warp sets its sums down in workgroup memory, then each element of the
/// result is added up and written by one thread.
void WarpMatmul::reduceInWorkgroup(ValueRange sums) {
  const int64_t perPanel = threadRows() * kColumnsPerThread;
  Value room =
      b.workgroupBuffer({warps, shares * maxPanels * perPanel, b.lanes});
  Value ownRoom = b.mul(firstPanel, perPanel);
  for (int64_t p = 0; p < maxPanels; ++p)
    for (int64_t i = 0; i < threadRows(); ++i)
      for (int64_t h = 0; h < kColumnsPerThread; ++h)
        memref::StoreOp::create(
            b, vector::ExtractOp::create(b, sums[p], ArrayRef<int64_t>{i, h}),
            room,
            ValueRange{warp,
                       b.add(ownRoom, p * perPanel + i * kColumnsPerThread + h),
                       lane});
  gpu::BarrierOp::create(b);

  // Neighbouring threads take neighbouring columns.
  const int64_t width = op.panelColumns();
  const int64_t columns = shares * maxPanels * width;
  const int64_t rowsHere = rowTiles * kTileRows;
  b.forEachElement(columns * rowsHere, [&](Value e) {
    Value column = remainder(b, e, columns), row = divide(b, e, columns);
    Value panel = divide(b, column, width),
          inPanel = remainder(b, column, width);
    Value g = remainder(b, inPanel, 8);
    Value holder = b.add(
        b.mul(g, 4), divide(b, remainder(b, row, kTileRows), kRowsPerThread));
    // Row of the thread: two of every tile.
    Value i = b.add(b.mul(divide(b, row, kTileRows), kRowsPerThread),
                    remainder(b, row, kRowsPerThread));
    Value first = b.add(b.mul(panel, perPanel), b.mul(i, kColumnsPerThread));
    auto sumOf = [&](Value at) {
      Value sum;
      for (int64_t w = 0; w < warps; ++w) {
        Value part =
            memref::LoadOp::create(b, room, ValueRange{b.index(w), at, holder});
        sum = sum ? Value(arith::AddFOp::create(b, sum, part)) : part;
      }
      return sum;
    };
    SmallVector<Value> whole;
    if (isGated(op.epilogue))
      whole = {sumOf(first), sumOf(b.add(first, 1))};
    else
      whole = {sumOf(b.add(first, divide(b, inPanel, 8)))};
    store(finish(whole, panel, inPanel), row, column);
  });
}

/// Every thread writes the sums it holds: no other warp has a part of them.
void WarpMatmul::storeOwn(ValueRange sums) {
  const int64_t width = op.panelColumns();
  const bool gated = isGated(op.epilogue);
  for (int64_t p = 0; p < maxPanels; ++p)
    for (int64_t i = 0; i < threadRows(); ++i) {
      Value panel = b.add(firstPanel, p);
      Value row = b.add(b.mul(remainder(b, lane, 4), kRowsPerThread),
                        i / kRowsPerThread * kTileRows + i % kRowsPerThread);
      SmallVector<Value> own;
      for (int64_t h = 0; h < kColumnsPerThread; ++h)
        own.push_back(
            vector::ExtractOp::create(b, sums[p], ArrayRef<int64_t>{i, h}));
      for (int64_t h = 0; h < (gated ? 1 : kColumnsPerThread); ++h) {
        Value inPanel = b.add(divide(b, lane, 4), 8 * h);
        ArrayRef<Value> whole = own;
        store(finish(gated ? whole : whole.slice(h, 1), panel, inPanel), row,
              b.add(b.mul(panel, width), inPanel));
      }
    }
}

/// What is written for column `inPanel` of a panel: its sum with the bias,
/// activated, or of two sums, a gate and what goes through it, their product.
Value WarpMatmul::finish(ArrayRef<Value> sums, Value panel, Value inPanel) {
  SmallVector<Value> values(sums);
  if (op.bias)
    for (auto [i, value] : llvm::enumerate(values))
      value = arith::AddFOp::create(
          b, value, biasOf(panel, i * (op.layout.getBlockN() / 2), inPanel));
  Value value = values[0];
  if (op.epilogue != Epilogue::None)
    value = vector::ExtractOp::create(
        b, activate(b, getActivation(op.epilogue), b.splat(value, 1)), 0);
  return values.size() == 1 ? value
                            : Value(arith::MulFOp::create(b, value, values[1]));
}

/// Every warp adds its sums to the result where that lies.
void WarpMatmul::addToResult(ValueRange sums) {
  const int64_t width = op.panelColumns();
  auto type = cast<MemRefType>(op.out.getType());
  auto forOwn = [&](function_ref<void(Value, Value, Value)> body) {
    for (int64_t p = 0; p < maxPanels; ++p)
      for (int64_t i = 0; i < threadRows(); ++i)
        for (int64_t h = 0; h < kColumnsPerThread; ++h) {
          Value inPanel = b.add(divide(b, lane, 4), 8 * h);
          Value column = b.add(b.mul(b.add(firstPanel, p), width), inPanel);
          Value row =
              b.add(b.mul(remainder(b, lane, 4), kRowsPerThread),
                    i / kRowsPerThread * kTileRows + i % kRowsPerThread);
          Value size = columnsOf(op.out) == ShapedType::kDynamic
                           ? Value(memref::DimOp::create(b, op.out, 1))
                           : b.index(columnsOf(op.out));
          auto only = scf::IfOp::create(
              b, both(b, less(b, row, rows), less(b, column, size)));
          OpBuilder::InsertionGuard guard(b);
          b.setInsertionPointToStart(only.thenBlock());
          Value sum =
              vector::ExtractOp::create(b, sums[p], ArrayRef<int64_t>{i, h});
          body(sum, row, column);
        }
  };
  // The first warp starts the result, the others add to it.
  Value isFirst =
      arith::CmpIOp::create(b, arith::CmpIPredicate::eq, warp, b.index(0));
  {
    auto only = scf::IfOp::create(b, isFirst);
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(only.thenBlock());
    forOwn([&](Value sum, Value row, Value column) {
      if (op.bias)
        sum = arith::AddFOp::create(
            b, sum,
            biasOf(divide(b, column, width), 0, remainder(b, column, width)));
      if (op.accumulate)
        sum =
            arith::AddFOp::create(b, sum, b.loadScalar(op.out, {row, column}));
      b.store(b.splat(sum, 1), op.out, {row, column});
    });
  }
  gpu::BarrierOp::create(b);
  Value isOther =
      arith::CmpIOp::create(b, arith::CmpIPredicate::ne, warp, b.index(0));
  auto only = scf::IfOp::create(b, isOther);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(only.thenBlock());
  forOwn([&](Value sum, Value row, Value column) {
    if (!type.getElementType().isF32())
      sum = arith::TruncFOp::create(b, type.getElementType(), sum);
    memref::AtomicRMWOp::create(b, arith::AtomicRMWKind::addf, sum, op.out,
                                ValueRange{row, column});
  });
}

LogicalResult WarpMatmul::run() {
  if (op.perm)
    return op.op->emitOpError("expects activations in the order of K: stage "
                              "permuted ones before");
  Type element = cast<MemRefType>(op.lhs.getType()).getElementType();
  if (!element.isF16() && !element.isBF16())
    return op.op->emitOpError("expects activations of f16 or bf16 for unit ")
           << op.plan.getUnit() << ", but found " << element;
  const int64_t blockK = op.layout.getBlockK();
  const bool isWhole = op.groupSize >= op.k;
  // A group that does not fill blocks is padded to whole ones, so it has to be
  // one chunk.
  // Parts are whole blocks.
  const int64_t stepK = llvm::alignTo(op.plan.getStepK(), blockK);
  chunkRows = stepK && (isWhole || op.groupSize % stepK == 0)
                  ? stepK
                  : std::min(op.groupSize, op.k);
  chunksPerGroup =
      isWhole ? llvm::divideCeil(op.k, chunkRows) : op.groupSize / chunkRows;
  blocksPerChunk = llvm::divideCeil(chunkRows, blockK);

  lane = remainder(b, b.thread, b.lanes);
  // Neighbouring warps read the same activations.
  Value anyWarp = divide(b, b.thread, b.lanes);
  // Where warps multiply together, what they share is the same number in all of
  // a warp's threads, and the compiler has to know: the first one's.
  Value part = anyWarp;
  if (unit.warps > 1)
    part = arith::IndexCastUIOp::create(
        b, b.getIndexType(),
        gpu::ShuffleOp::create(
            b, arith::IndexCastUIOp::create(b, b.getI32Type(), anyWarp), 0,
            int32_t(b.lanes), gpu::ShuffleMode::IDX)
            .getShuffleResult());
  warp = warps == 1 ? b.index(0) : divide(b, part, shares);
  firstPanel = shares == 1 ? b.index(0)
                           : b.mul(remainder(b, anyWarp, shares), maxPanels);
  rows = rowsOf(b, op.lhs);
  panels = rowsOf(b, op.weight);
  SmallVector<Value> sums = sumOverChunks();
  if (warps == 1)
    storeOwn(sums);
  else if (op.plan.getPartials() == "shared" || op.epilogue != Epilogue::None)
    reduceInWorkgroup(sums);
  else
    addToResult(sums);
  return success();
}

LogicalResult mlir::gptq::vectorizeOnWarps(const MatmulTile &op,
                                           VectorBuilder &b) {
  return WarpMatmul(op, b).run();
}

//===----------------------------------------------------------------------===//
// Attention
//===----------------------------------------------------------------------===//

/// Positions of the cache that a warp looks at together.
static constexpr int64_t kPositions = 4;

/// Warps take positions in turn; each keeps, for every query head of its cache
/// head, the largest score so far, the sum of exponentials relative to it, and
/// the weighted sum of values, a few elements of the head in each thread. At
/// the end the warps' shares are joined.
LogicalResult mlir::gptq::vectorizeOnWarps(AttentionOp op, VectorBuilder &b) {
  const int64_t d = op.getHeadDim(), kvHeads = op.getKvHeads();
  const int64_t queries = op.getHeads() / kvHeads;
  constexpr int64_t lanes = VectorBuilder::kWarpThreads;
  const int64_t warps = b.threads / lanes;
  int64_t width = 1;
  while (width * lanes < d)
    width *= 2;
  if (d % width != 0)
    return op.emitOpError("expects heads of a multiple of ")
           << width << " elements, but found " << d;
  Value lane = remainder(b, b.thread, lanes), warp = divide(b, b.thread, lanes);
  Value at = b.mul(lane, width);
  Value holds = less(b, at, b.index(d));
  auto vectorOf = b.vectorType(width);
  const bool isFull = d == width * lanes;
  // What this thread holds of a head; nothing past its end.
  auto load = [&](Value buffer, SmallVector<Value> place) -> Value {
    if (isFull)
      return b.load(buffer, place, width);
    auto own = scf::IfOp::create(b, TypeRange{vectorOf}, holds,
                                 /*withElseRegion=*/true);
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(own.thenBlock());
    scf::YieldOp::create(b, ValueRange{b.load(buffer, place, width)});
    b.setInsertionPointToStart(own.elseBlock());
    scf::YieldOp::create(b, ValueRange{b.zeros(vectorOf)});
    return own.getResult(0);
  };
  Value scale = b.f32(op.getScale().convertToDouble());
  Value lowest = b.f32(-std::numeric_limits<float>::infinity());
  Value zero = b.f32(0.0);

  b.forEach(rowsOf(b, op.getQ()), [&](Value row) {
    Value end = b.add(b.add(op.getPosition(), row), 1);
    Value start = b.index(0);
    if (op.getWindow() > 0)
      start = arith::MaxSIOp::create(
          b, arith::SubIOp::create(b, end, b.index(op.getWindow())), start);
    b.forEach(b.index(kvHeads), [&](Value kv) {
      Value firstHead = b.mul(kv, queries);
      SmallVector<Value> q, state;
      for (int64_t h = 0; h < queries; ++h) {
        Value v =
            load(op.getQ(), {row, b.add(b.mul(b.add(firstHead, h), d), at)});
        q.push_back(arith::MulFOp::create(b, v, b.splat(scale, width)));
        state.append({lowest, zero, b.zeros(vectorOf)});
      }
      auto loop = scf::ForOp::create(b, b.add(start, warp), end,
                                     b.index(warps * kPositions), state);
      {
        OpBuilder::InsertionGuard guard(b);
        b.setInsertionPointToStart(loop.getBody());
        // Several positions at a time: their loads and sums do not wait for
        // each other. Past the end the last is read again, and counts nothing.
        SmallVector<Value> k, v, counts;
        Value last = arith::SubIOp::create(b, end, b.index(1));
        for (int64_t i = 0; i < kPositions; ++i) {
          Value t = b.add(loop.getInductionVar(), i * warps);
          counts.push_back(i ? less(b, t, end) : Value());
          t = arith::MinSIOp::create(b, t, last);
          k.push_back(load(op.getKeys(), {kv, t, at}));
          v.push_back(load(op.getValues(), {kv, t, at}));
        }
        SmallVector<Value> next;
        for (int64_t h = 0; h < queries; ++h) {
          Value most = loop.getRegionIterArg(3 * h);
          Value sum = loop.getRegionIterArg(3 * h + 1);
          Value acc = loop.getRegionIterArg(3 * h + 2);
          SmallVector<Value> scores;
          for (int64_t i = 0; i < kPositions; ++i)
            scores.push_back(b.reduce(arith::MulFOp::create(b, q[h], k[i])));
          for (int64_t mask = lanes / 2; mask > 0; mask /= 2)
            for (Value &score : scores)
              score = arith::AddFOp::create(b, score, b.shuffle(score, mask));
          if (const double cap = op.getSoftcap().convertToDouble(); cap > 0)
            for (Value &score : scores)
              score = vector::ExtractOp::create(
                  b, softcap(b, cap, b.splat(score, 1)), 0);
          Value higher = most;
          for (auto [score, counted] : llvm::zip(scores, counts)) {
            if (counted)
              score = arith::SelectOp::create(b, counted, score, lowest);
            higher = arith::MaximumFOp::create(b, higher, score);
          }
          Value keep = exp(b, arith::SubFOp::create(b, most, higher));
          sum = arith::MulFOp::create(b, sum, keep);
          acc = arith::MulFOp::create(b, acc, b.splat(keep, width));
          for (int64_t i = 0; i < kPositions; ++i) {
            Value p = exp(b, arith::SubFOp::create(b, scores[i], higher));
            sum = arith::AddFOp::create(b, sum, p);
            acc = vector::FMAOp::create(b, b.splat(p, width), v[i], acc);
          }
          next.append({higher, sum, acc});
        }
        scf::YieldOp::create(b, next);
      }
      Value most = b.workgroupBuffer({warps, queries});
      Value sums = b.workgroupBuffer({warps, queries});
      Value parts = b.workgroupBuffer({warps, queries, d});
      for (int64_t h = 0; h < queries; ++h) {
        Value head = b.index(h);
        memref::StoreOp::create(b, loop.getResult(3 * h), most,
                                ValueRange{warp, head});
        memref::StoreOp::create(b, loop.getResult(3 * h + 1), sums,
                                ValueRange{warp, head});
        auto own = scf::IfOp::create(b, holds);
        OpBuilder::InsertionGuard guard(b);
        b.setInsertionPointToStart(own.thenBlock());
        b.store(loop.getResult(3 * h + 2), parts, {warp, head, at});
      }
      gpu::BarrierOp::create(b);
      b.forEachElement(queries * d, [&](Value e) {
        Value head = divide(b, e, d), i = remainder(b, e, d);
        Value highest = lowest;
        for (int64_t w = 0; w < warps; ++w)
          highest = arith::MaximumFOp::create(
              b, highest,
              memref::LoadOp::create(b, most, ValueRange{b.index(w), head}));
        Value total = zero, value = zero;
        for (int64_t w = 0; w < warps; ++w) {
          Value own =
              memref::LoadOp::create(b, most, ValueRange{b.index(w), head});
          Value weight = exp(b, arith::SubFOp::create(b, own, highest));
          total = math::FmaOp::create(
              b, weight,
              memref::LoadOp::create(b, sums, ValueRange{b.index(w), head}),
              total);
          value = math::FmaOp::create(
              b, weight,
              memref::LoadOp::create(b, parts, ValueRange{b.index(w), head, i}),
              value);
        }
        value = arith::DivFOp::create(b, value, total);
        b.store(b.splat(value, 1), op.getInits()[0],
                {row, b.add(b.mul(firstHead, d), e)});
      });
      // The buffers may be written again.
      gpu::BarrierOp::create(b);
    });
  });
  return success();
}
