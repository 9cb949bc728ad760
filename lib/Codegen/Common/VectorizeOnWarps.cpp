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

//===----------------------------------------------------------------------===//
// Matmuls
//===----------------------------------------------------------------------===//

namespace {

/// The warps of a workgroup share its panels, and those of one share take parts
/// of K in turn; what they summed is added up at the end, in the order of the
/// warps.
///
/// Of a tile with C columns, c and r of its columns and rows for a thread and T
/// threads for a column, thread T g + t holds columns g + C / c * h and rows
/// r * t + i, for h < c and i < r.
class WarpMatmul {
public:
  WarpMatmul(const MatmulTile &op, const ::gptq::UnitInfo &unit,
             VectorBuilder &b)
      : op(op), unit(unit), b(b),
        // Warps that multiply together are all there, with a tile or without.
        shares(llvm::alignTo(
            llvm::divideCeil(op.plan.getTileN(), op.plan.getColumns()),
            unit.warps)),
        warps(b.threads / b.lanes / shares), cluster(op.plan.getCluster()),
        rowTiles(op.plan.getRows() / unit.tileRows()),
        maxRows(std::min(rowTiles * unit.tileRows(), knownRows(op.lhs))),
        maxPanels(op.plan.getColumns() / unit.tileColumns()) {}

  LogicalResult run();

private:
  Value perColumn(Value buffer, Value panel, Value g);
  SmallVector<Value> step(Value chunk, int64_t depth, ValueRange sums);
  SmallVector<Value> sumOverChunks();
  void addToResult(ValueRange sums);
  void reduceInWorkgroup(ValueRange sums);
  void storeOwn(ValueRange sums);
  void store(Value value, Value row, Value column);
  Value loadEarlier();
  Value finish(ArrayRef<Value> sums, Value panel, Value inPanel);
  Value biasOf(Value panel, int64_t panelColumn, Value inHalf);

  static int64_t knownRows(Value lhs) {
    auto type = cast<MemRefType>(lhs.getType());
    return type.isDynamicDim(0) ? std::numeric_limits<int64_t>::max()
                                : type.getDimSize(0);
  }
  /// The first of the rows that threads have as their row `i`.
  int64_t leastRow(int64_t i) const {
    return i / unit.rowsPerThread() * unit.tileRows() +
           i % unit.rowsPerThread();
  }

  /// Rows of one thread in all row tiles.
  int64_t threadRows() const { return rowTiles * unit.rowsPerThread(); }
  /// Columns that lie between two of one thread.
  int64_t columnStride() const {
    return unit.tileColumns() / unit.columnsPerThread();
  }

  const MatmulTile &op;
  const ::gptq::UnitInfo &unit;
  VectorBuilder &b;
  /// Shares of panels; warps of each; workgroups that share K; tiles of rows,
  /// and how many of their rows there may be; panels of a share.
  int64_t shares, warps, cluster, rowTiles, maxRows, maxPanels;
  /// The thread inside its warp, the warp among those of its share, the
  /// workgroup among those of its cluster, the share's first panel, rows and
  /// panels of this workgroup.
  Value lane, warp, member, firstPanel, rows, panels;
  /// What the thread adds its element of the result to, if it was loaded before
  /// it is needed.
  Value earlier;
  /// Rows of a chunk, chunks of a group, blocks of a chunk.
  int64_t chunkRows, chunksPerGroup, blocksPerChunk;
};

} // namespace

/// The scales, zero points or offsets this thread needs of a panel.
Value WarpMatmul::perColumn(Value buffer, Value panel, Value g) {
  auto type = cast<MemRefType>(buffer.getType());
  const int64_t columns = unit.columnsPerThread();
  Value at = b.mul(b.divide(lane, unit.threadsPerColumn()), columns);
  const int64_t bytes = columns * type.getElementTypeBitWidth() / 8;
  Value run = vector::LoadOp::create(
      b, VectorType::get({columns}, type.getElementType()), buffer,
      ValueRange{panel, g, at}, /*nontemporal=*/false, llvm::Align(bytes));
  if (type.getElementType().isIntOrIndex())
    return arith::UIToFPOp::create(b, b.vectorType(columns), run);
  return b.toF32(run);
}

/// Adds the products of chunk number `chunk`, `depth` rows of K, to the sums of
/// all panels.
SmallVector<Value> WarpMatmul::step(Value chunk, int64_t depth,
                                    ValueRange sums) {
  Value g = b.divide(chunk, chunksPerGroup);
  Value k0 = b.mul(chunk, chunkRows);
  Value block = b.mul(chunk, blocksPerChunk);
  SmallVector<Value> result;
  for (int64_t p = 0; p < maxPanels; ++p) {
    // Past the last panel the last is read again, and nothing is stored.
    Value panel = arith::MinSIOp::create(
        b, b.add(firstPanel, p), arith::SubIOp::create(b, panels, b.index(1)));
    Value scale, zero, offset;
    if (op.scales)
      scale = perColumn(op.scales, panel, g);
    if (op.zeros)
      zero = perColumn(op.zeros, panel, g);
    else if (op.zeroPoint != 0)
      zero = b.splat(b.f32(op.zeroPoint), unit.columnsPerThread());
    if (op.offsets)
      offset = perColumn(op.offsets, panel, g);
    result.push_back(GroupDotOp::create(
        b, sums[p].getType(), op.lhs, b.index(0), k0, op.weight, panel, block,
        b.getDenseI64ArrayAttr({0}), sums[p], /*perm=*/Value(),
        /*bytes=*/Value(), /*unit=*/Value(), scale, zero, offset,
        b.getI64IntegerAttr(depth), op.layout, op.plan));
  }
  return result;
}

SmallVector<Value> WarpMatmul::sumOverChunks() {
  auto type =
      VectorType::get({threadRows(), unit.columnsPerThread()}, b.getF32Type());
  const int64_t whole = op.k / chunkRows / cluster, rest = op.k % chunkRows;
  SmallVector<Value> sums(maxPanels, b.zeros(type));
  if (whole) {
    auto loop =
        scf::ForOp::create(b, warp, b.index(whole), b.index(warps), sums);
    loop->setAttr(kStagesAttr, b.getI64IntegerAttr(op.plan.getStages()));
    if (const int64_t bytes = op.plan.getFirstBytes()) {
      loop->setAttr(kFirstBytesAttr, b.getI64IntegerAttr(bytes));
      if (op.plan.getAheadBytes() < bytes)
        loop->setAttr(kAheadBytesAttr,
                      b.getI64IntegerAttr(op.plan.getAheadBytes()));
    }
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(loop.getBody());
    Value chunk = loop.getInductionVar();
    if (cluster > 1)
      chunk = b.add(b.mul(member, whole), chunk);
    scf::YieldOp::create(b, step(chunk, chunkRows, loop.getRegionIterArgs()));
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
    value = arith::AddFOp::create(
        b, value, earlier ? earlier : b.loadScalar(op.out, {row, column}));
  b.store(b.splat(value, 1), op.out, {row, column});
}

/// Loads what the results are added to before anything is multiplied, where
/// every thread writes one element at most: at the end nothing else would be
/// left to do meanwhile. Null elsewhere.
Value WarpMatmul::loadEarlier() {
  const int64_t columns = shares * maxPanels * op.panelColumns();
  if (!op.accumulate || warps == 1 || cluster > 1 || maxRows != 1 ||
      columns > b.threads || !getElementTypeOrSelf(op.out).isF32() ||
      columnsOf(op.out) == ShapedType::kDynamic)
    return {};
  // Threads without an element read the last.
  Value column =
      arith::MinSIOp::create(b, b.thread, b.index(columnsOf(op.out) - 1));
  auto load = vector::LoadOp::create(b, b.vectorType(1), op.out,
                                     ValueRange{b.index(0), column},
                                     /*nontemporal=*/false, llvm::Align(4));
  load->setAttr(kPrefetchedAttr, b.getUnitAttr());
  return vector::ExtractOp::create(b, load, 0);
}

/// Every warp sets its sums down in workgroup memory, then each element of the
/// result is added up and written by one thread.
void WarpMatmul::reduceInWorkgroup(ValueRange sums) {
  const int64_t perThread = unit.columnsPerThread();
  // Where all rows are those of every column's first thread, only its sums
  // count.
  const bool firstOnly = cluster == 1 && maxRows <= unit.rowsPerThread();
  const int64_t threadsOfColumn = firstOnly ? 1 : unit.threadsPerColumn();
  const int64_t holders = b.lanes / unit.threadsPerColumn() * threadsOfColumn;
  const int64_t perPanel = (firstOnly ? maxRows : threadRows()) * perThread;
  Value room = b.workgroupBuffer(
      {cluster, shares * maxPanels * perPanel, warps, holders});
  auto ofCluster = [&](Operation *op) {
    if (cluster > 1)
      op->setAttr(kClusterAttr, b.getI64IntegerAttr(cluster));
  };
  ofCluster(room.getDefiningOp());
  Value ownRoom = b.mul(firstPanel, perPanel);
  auto setDown = [&](Value holder) {
    for (int64_t p = 0; p < maxPanels; ++p)
      for (int64_t i = 0; i < threadRows() && leastRow(i) < maxRows; ++i)
        for (int64_t h = 0; h < perThread; ++h) {
          Value at = b.add(ownRoom, p * perPanel + i * perThread + h);
          memref::StoreOp::create(
              b, vector::ExtractOp::create(b, sums[p], ArrayRef<int64_t>{i, h}),
              room, ValueRange{member, at, warp, holder});
        }
  };
  if (firstOnly && unit.threadsPerColumn() > 1) {
    Value isFirst = arith::CmpIOp::create(
        b, arith::CmpIPredicate::eq, b.remainder(lane, unit.threadsPerColumn()),
        b.index(0));
    auto only = scf::IfOp::create(b, isFirst);
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(only.thenBlock());
    setDown(b.divide(lane, unit.threadsPerColumn()));
  } else {
    setDown(lane);
  }
  ofCluster(gpu::BarrierOp::create(b));

  // Neighbouring threads take neighbouring columns; workgroups of a cluster
  // take turns.
  const int64_t ownThreads = b.threads;
  Value ownThread = b.thread;
  if (cluster > 1) {
    b.thread = b.add(b.mul(member, ownThreads), ownThread);
    b.threads = cluster * ownThreads;
  }
  const int64_t width = op.panelColumns();
  const int64_t columns = shares * maxPanels * width;
  b.forEachElement(columns * maxRows, [&](Value e) {
    Value column = b.remainder(e, columns), row = b.divide(e, columns);
    Value panel = b.divide(column, width), inPanel = b.remainder(column, width);
    const int64_t tileRows = unit.tileRows(), own = unit.rowsPerThread();
    Value t = b.divide(b.remainder(row, tileRows), own);
    // Row of the thread, which has as many of every tile.
    Value i = b.add(b.mul(b.divide(row, tileRows), own), b.remainder(row, own));
    Value first = b.add(b.mul(panel, perPanel), b.mul(i, perThread));
    auto sumOf = [&](Value inPanel) {
      Value holder = b.add(
          b.mul(b.remainder(inPanel, columnStride()), threadsOfColumn), t);
      Value at = b.add(first, b.divide(inPanel, columnStride()));
      Value sum;
      for (int64_t w = 0; w < cluster * warps; ++w) {
        Value part = memref::LoadOp::create(
            b, room,
            ValueRange{b.index(w / warps), at, b.index(w % warps), holder});
        sum = sum ? Value(arith::AddFOp::create(b, sum, part)) : part;
      }
      return sum;
    };
    SmallVector<Value> whole = {sumOf(inPanel)};
    if (isGated(op.epilogue))
      whole.push_back(sumOf(b.add(inPanel, op.layout.getBlockN() / 2)));
    store(finish(whole, panel, inPanel), row, column);
  });
  b.thread = ownThread;
  b.threads = ownThreads;
  // Where a workgroup has several tiles of rows, the room is written again; and
  // no workgroup ends before others have read its part.
  if (cluster > 1 || isa<scf::ForOp>(op.op->getParentOp()))
    ofCluster(gpu::BarrierOp::create(b));
}

/// Every thread writes the sums it holds: no other warp has a part of them.
void WarpMatmul::storeOwn(ValueRange sums) {
  const int64_t width = op.panelColumns();
  const bool gated = isGated(op.epilogue);
  const int64_t threads = unit.threadsPerColumn();
  for (int64_t p = 0; p < maxPanels; ++p)
    for (int64_t i = 0; i < threadRows() && leastRow(i) < maxRows; ++i) {
      Value panel = b.add(firstPanel, p);
      Value row = b.add(b.mul(b.remainder(lane, threads), unit.rowsPerThread()),
                        leastRow(i));
      SmallVector<Value> own;
      for (int64_t h = 0; h < unit.columnsPerThread(); ++h)
        own.push_back(
            vector::ExtractOp::create(b, sums[p], ArrayRef<int64_t>{i, h}));
      for (int64_t h = 0; h < (gated ? 1 : unit.columnsPerThread()); ++h) {
        Value inPanel = b.add(b.divide(lane, threads), columnStride() * h);
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
        for (int64_t h = 0; h < unit.columnsPerThread(); ++h) {
          const int64_t threads = unit.threadsPerColumn(),
                        own = unit.rowsPerThread();
          Value inPanel = b.add(b.divide(lane, threads), columnStride() * h);
          Value column = b.add(b.mul(b.add(firstPanel, p), width), inPanel);
          Value row = b.add(b.mul(b.remainder(lane, threads), own),
                            i / own * unit.tileRows() + i % own);
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
            biasOf(b.divide(column, width), 0, b.remainder(column, width)));
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

  lane = b.remainder(b.thread, b.lanes);
  // Neighbouring warps read the same activations.
  Value anyWarp = b.divide(b.thread, b.lanes);
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
  member = b.index(0);
  if (cluster > 1) {
    if (op.k % (cluster * chunkRows) != 0)
      return op.op->emitOpError("expects parts of ")
             << chunkRows << " rows that " << cluster
             << " workgroups share evenly, but found " << op.k << " rows";
    member = gpu::ClusterBlockIdOp::create(b, gpu::Dimension::x);
  }
  warp = warps == 1 ? b.index(0) : b.divide(part, shares);
  firstPanel =
      shares == 1 ? b.index(0) : b.mul(b.remainder(anyWarp, shares), maxPanels);
  rows = rowsOf(b, op.lhs);
  panels = rowsOf(b, op.weight);
  const bool meetInWorkgroup =
      op.plan.getPartials() == "shared" || op.epilogue != Epilogue::None;
  if (meetInWorkgroup)
    earlier = loadEarlier();
  SmallVector<Value> sums = sumOverChunks();
  // A gate and what goes through it have to be columns of one thread.
  if (cluster > 1)
    reduceInWorkgroup(sums);
  else if (warps == 1 && (!isGated(op.epilogue) || unit.columnsPerThread() > 1))
    storeOwn(sums);
  else if (meetInWorkgroup)
    reduceInWorkgroup(sums);
  else
    addToResult(sums);
  return success();
}

LogicalResult mlir::gptq::vectorizeOnWarps(const MatmulTile &op,
                                           const ::gptq::UnitInfo &unit,
                                           VectorBuilder &b) {
  return WarpMatmul(op, unit, b).run();
}
