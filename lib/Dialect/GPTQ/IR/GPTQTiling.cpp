//===- GPTQTiling.cpp - TilingInterface of the model ops ------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Every model op says, for each dimension of each operand, which loop moves
// over it and by how many elements per iteration; slicing is then one function
// for all of them.
//
//===----------------------------------------------------------------------===//

#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "mlir/Dialect/Affine/IR/AffineOps.h"
#include "mlir/Dialect/Arith/Utils/Utils.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/Utils/StaticValueUtils.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace mlir::gptq;

namespace {

/// How one operand dimension follows the loops: iteration i of `loop` covers
/// elements [i * step, (i + 1) * step), the last one possibly fewer. No loop:
/// every tile sees the whole dimension. With `inner` a tile of one iteration of
/// `loop` is cut further: iteration i of `inner` covers elements
/// [i * innerStep, (i + 1) * innerStep) of it. With `isFilled` the last
/// iteration is known not to cover fewer.
struct DimMap {
  int loop = -1;
  int64_t step = 1;
  int inner = -1;
  int64_t innerStep = 1;
  bool isFilled = false;
};
using OperandMap = SmallVector<DimMap>;

constexpr DimMap kWhole{};
constexpr DimMap kRows{0, 1};

/// Of ops on runs of rows: loop 0 counts runs, loop 1 may count panels. What a
/// run is, its rows and its expert, is read from memory and follows as loops 2
/// and 3; a dimension that counts experts is dropped.
constexpr int kRowsOfRunLoop = 2, kExpertLoop = 3;
constexpr DimMap kRowsOfRun{kRowsOfRunLoop, 1};
constexpr DimMap kExpert{kExpertLoop, 1};

/// The tiling of one op: the operand map of each sliced operand. Operands not
/// listed are passed on; each of `counts` is moved by the offset along its
/// loop.
struct TilingMap {
  SmallVector<std::pair<OpOperand *, OperandMap>> operands;
  SmallVector<std::pair<OpOperand *, int>> counts;
  /// Runs of rows that each belong to an expert.
  OpOperand *runs = nullptr;
  /// Operand and dimension that give the trip count of each loop, or no operand
  /// and the count itself.
  SmallVector<std::pair<Value, int64_t>> loops;
};

} // namespace

static OpFoldResult dimOf(OpBuilder &b, Location loc, Value v, int64_t dim) {
  return isa<MemRefType>(v.getType()) ? memref::getMixedSize(b, loc, v, dim)
                                      : tensor::getMixedSize(b, loc, v, dim);
}

static SmallVector<Range> domainOf(OpBuilder &b, Location loc,
                                   const TilingMap &map) {
  SmallVector<Range> domain;
  for (auto [value, dim] : map.loops)
    domain.push_back(
        {b.getIndexAttr(0),
         value ? dimOf(b, loc, value, dim) : OpFoldResult(b.getIndexAttr(dim)),
         b.getIndexAttr(1)});
  return domain;
}

/// Offset and size of `operand`, which follows the loops of `tiling` as `map`
/// says, in the tile.
static void sliceOf(OpBuilder &b, Location loc, Value operand,
                    const TilingMap &tiling, const OperandMap &map,
                    ArrayRef<OpFoldResult> offsets,
                    ArrayRef<OpFoldResult> sizes,
                    SmallVectorImpl<OpFoldResult> &sliceOffsets,
                    SmallVectorImpl<OpFoldResult> &sliceSizes) {
  AffineExpr s0 = b.getAffineSymbolExpr(0), s1 = b.getAffineSymbolExpr(1),
             s2 = b.getAffineSymbolExpr(2);
  // Whether the tile takes all iterations of a loop whose number is known.
  auto isWhole = [&](size_t loop) {
    if (loop >= tiling.loops.size() || !isZeroInteger(offsets[loop]))
      return false;
    auto [value, dim] = tiling.loops[loop];
    const int64_t trips =
        value ? cast<ShapedType>(value.getType()).getDimSize(dim) : dim;
    return !ShapedType::isDynamic(trips) &&
           getConstantIntValue(sizes[loop]) == trips;
  };
  for (auto [dim, m] : llvm::enumerate(map)) {
    OpFoldResult whole = dimOf(b, loc, operand, dim);
    if (m.loop < 0 || (m.inner < 0 && isWhole(m.loop))) {
      sliceOffsets.push_back(b.getIndexAttr(0));
      sliceSizes.push_back(whole);
      continue;
    }
    std::optional<int64_t> cut =
        m.inner < 0 ? std::nullopt : getConstantIntValue(sizes[m.inner]);
    if (cut && *cut * m.innerStep < m.step) {
      sliceOffsets.push_back(affine::makeComposedFoldedAffineApply(
          b, loc, s0 * m.step + s1 * m.innerStep,
          {offsets[m.loop], offsets[m.inner]}));
      sliceSizes.push_back(b.getIndexAttr(*cut * m.innerStep));
      continue;
    }
    if (m.step == 1) {
      sliceOffsets.push_back(offsets[m.loop]);
      sliceSizes.push_back(sizes[m.loop]);
      continue;
    }
    sliceOffsets.push_back(affine::makeComposedFoldedAffineApply(
        b, loc, s0 * m.step, {offsets[m.loop]}));
    if (m.isFilled) {
      sliceSizes.push_back(affine::makeComposedFoldedAffineApply(
          b, loc, s0 * m.step, {sizes[m.loop]}));
      continue;
    }
    std::optional<int64_t> total = getConstantIntValue(whole);
    std::optional<int64_t> tile = getConstantIntValue(sizes[m.loop]);
    if (total && tile && *total % (*tile * m.step) == 0) {
      // A tile never starts in the middle of another: it fits.
      sliceSizes.push_back(b.getIndexAttr(*tile * m.step));
      continue;
    }
    sliceSizes.push_back(affine::makeComposedFoldedAffineMin(
        b, loc,
        AffineMap::get(0, 3, {s0 * m.step, s1 - s2 * m.step}, b.getContext()),
        {sizes[m.loop], whole, offsets[m.loop]}));
  }
}

/// Appends to the offsets and sizes of a tile of one run the rows and the
/// expert of that run, which are read from `runs`.
static void appendRun(OpBuilder &b, Location loc, Value runs,
                      SmallVector<OpFoldResult> &offsets,
                      SmallVector<OpFoldResult> &sizes) {
  offsets.resize(kRowsOfRunLoop, b.getIndexAttr(0));
  sizes.resize(kRowsOfRunLoop, b.getIndexAttr(1));
  Value run = getValueOrCreateConstantIndexOp(b, loc, offsets[0]);
  auto read = [&](Value row, int64_t column) -> Value {
    SmallVector<Value> at = {row,
                             arith::ConstantIndexOp::create(b, loc, column)};
    return arith::IndexCastOp::create(
        b, loc, b.getIndexType(), tensor::ExtractOp::create(b, loc, runs, at));
  };
  Value one = arith::ConstantIndexOp::create(b, loc, 1);
  Value next = arith::AddIOp::create(b, loc, run, one);
  Value expert = read(run, 0), first = read(run, 1);
  offsets.push_back(first);
  sizes.push_back(Value(arith::SubIOp::create(b, loc, read(next, 1), first)));
  offsets.push_back(expert);
  sizes.push_back(b.getIndexAttr(1));
}

static FailureOr<TilingResult> tile(Operation *op, OpBuilder &b,
                                    const TilingMap &map,
                                    ArrayRef<OpFoldResult> loopOffsets,
                                    ArrayRef<OpFoldResult> loopSizes) {
  Location loc = op->getLoc();
  SmallVector<OpFoldResult> offsets(loopOffsets), sizes(loopSizes);
  if (map.runs) {
    if (getConstantIntValue(sizes[0]) != 1 ||
        !isa<RankedTensorType>(map.runs->get().getType()))
      return op->emitOpError("expects tensors, tiled to one run each");
    appendRun(b, loc, map.runs->get(), offsets, sizes);
  }
  SmallVector<Value> operands = llvm::to_vector(op->getOperands());
  SmallVector<Operation *> slices;
  for (auto &[operand, dims] : map.operands) {
    SmallVector<OpFoldResult> sliceOffsets, sliceSizes;
    sliceOf(b, loc, operand->get(), map, dims, offsets, sizes, sliceOffsets,
            sliceSizes);
    SmallVector<OpFoldResult> strides(dims.size(), b.getIndexAttr(1));
    Operation *slice;
    if (isa<MemRefType>(operand->get().getType()))
      slice = memref::SubViewOp::create(b, loc, operand->get(), sliceOffsets,
                                        sliceSizes, strides);
    else if (map.runs && dims.front().loop == kExpertLoop)
      slice = tensor::ExtractSliceOp::create(
          b, loc,
          tensor::ExtractSliceOp::inferCanonicalRankReducedResultType(
              dims.size() - 1, cast<RankedTensorType>(operand->get().getType()),
              sliceSizes),
          operand->get(), sliceOffsets, sliceSizes, strides);
    else
      slice = tensor::ExtractSliceOp::create(b, loc, operand->get(),
                                             sliceOffsets, sliceSizes, strides);
    slices.push_back(slice);
    operands[operand->getOperandNumber()] = slice->getResult(0);
  }
  for (auto [count, loop] : map.counts)
    operands[count->getOperandNumber()] = getValueOrCreateConstantIndexOp(
        b, loc,
        affine::makeComposedFoldedAffineApply(
            b, loc, b.getAffineSymbolExpr(0) + b.getAffineSymbolExpr(1),
            {OpFoldResult(count->get()), offsets[loop]}));
  SmallVector<Type> resultTypes;
  for (OpOperand &init :
       cast<DestinationStyleOpInterface>(op).getDpsInitsMutable())
    if (Type type = operands[init.getOperandNumber()].getType();
        isa<RankedTensorType>(type))
      resultTypes.push_back(type);
  Operation *tiled = clone(b, op, resultTypes, operands);
  // What is left is an op on rows.
  if (map.runs)
    llvm::TypeSwitch<Operation *>(tiled)
        .Case<DequantMatmulOp, MatmulOp, StageOp>(
            [](auto onRuns) { onRuns.getRunsMutable().clear(); });
  return TilingResult{{tiled}, SmallVector<Value>(tiled->getResults()), slices};
}

static LogicalResult
resultPosition(Operation *op, OpBuilder &b, const TilingMap &map,
               unsigned result, ArrayRef<OpFoldResult> loopOffsets,
               ArrayRef<OpFoldResult> loopSizes,
               SmallVectorImpl<OpFoldResult> &resultOffsets,
               SmallVectorImpl<OpFoldResult> &resultSizes) {
  SmallVector<OpFoldResult> offsets(loopOffsets), sizes(loopSizes);
  if (map.runs)
    appendRun(b, op->getLoc(), map.runs->get(), offsets, sizes);
  OpOperand *init =
      cast<DestinationStyleOpInterface>(op).getDpsInitOperand(result);
  for (auto &[operand, dims] : map.operands)
    if (operand == init) {
      sliceOf(b, op->getLoc(), operand->get(), map, dims, offsets, sizes,
              resultOffsets, resultSizes);
      return success();
    }
  return failure();
}

//===----------------------------------------------------------------------===//
// The maps
//===----------------------------------------------------------------------===//

/// Columns of the result one panel yields.
static int64_t panelColumns(LayoutAttr layout, Epilogue epilogue) {
  return isGated(epilogue) ? layout.getBlockN() / 2 : layout.getBlockN();
}

/// Starts the map of an op on the rows of `rows` or, with `runs`, on runs of
/// them. Returns how rows follow the loops.
static DimMap startRows(TilingMap &map, MutableOperandRange runs, Value rows) {
  if (runs.empty()) {
    map.loops.push_back({rows, 0});
    return kRows;
  }
  map.runs = &runs[0];
  // Every run has a row at least, and an expert of its own.
  int64_t most = cast<ShapedType>(map.runs->get().getType()).getDimSize(0) - 1;
  if (auto type = cast<ShapedType>(rows.getType()); !type.isDynamicDim(0))
    most = std::min(most, type.getDimSize(0));
  map.loops.push_back({Value(), most});
  return kRowsOfRun;
}

/// The map of a weight, of which there is one for each expert where the op is
/// on runs.
static OperandMap ofExpert(const TilingMap &map, OperandMap dims) {
  if (map.runs)
    dims.insert(dims.begin(), kExpert);
  return dims;
}

/// Rows or runs, then panels (packed) or columns (not packed).
static FailureOr<TilingMap> mapOf(DequantMatmulOp op) {
  TilingMap map;
  const DimMap rows = startRows(map, op.getRunsMutable(), op.getLhs());
  const int64_t front = map.runs ? 1 : 0;
  map.operands.push_back({&op.getLhsMutable(), {rows, kWhole}});
  OpOperand *init = &op.getInitsMutable()[0];
  auto optional = [](MutableOperandRange range) -> OpOperand * {
    return range.empty() ? nullptr : &range[0];
  };
  OpOperand *zeros = optional(op.getZerosMutable());
  OpOperand *offsets = optional(op.getOffsetsMutable());
  OpOperand *bias = optional(op.getBiasMutable());
  for (MutableOperandRange more :
       {op.getBytesMutable(), op.getUnitsMutable(), op.getSourceMutable()})
    if (OpOperand *operand = optional(more))
      map.operands.push_back({operand, {rows, kWhole}});
  // Whole where the op is on rows: then it is passed on.
  if (OpOperand *perm = optional(op.getPermMutable()); perm && map.runs)
    map.operands.push_back({perm, ofExpert(map, {kWhole})});
  if (LayoutAttr layout = op.getLayoutAttr()) {
    map.loops.push_back({op.getCodes(), front});
    OperandMap panels = ofExpert(map, {{1, 1}, kWhole, kWhole});
    map.operands.push_back({&op.getCodesMutable(), panels});
    map.operands.push_back({&op.getScalesMutable(), panels});
    if (zeros)
      map.operands.push_back({zeros, panels});
    if (offsets)
      map.operands.push_back({offsets, panels});
    if (bias)
      map.operands.push_back({bias, ofExpert(map, {{1, layout.getBlockN()}})});
    map.operands.push_back(
        {init, {rows, {1, panelColumns(layout, op.getEpilogue())}}});
    return map;
  }
  // The columns of gate and up lie apart: only rows can be tiled.
  if (isGated(op.getEpilogue())) {
    map.operands.push_back({init, {rows, kWhole}});
    return map;
  }
  map.loops.push_back({op.getCodes(), front + 1});
  OperandMap columns = ofExpert(map, {kWhole, {1, 1}});
  map.operands.push_back({&op.getCodesMutable(), columns});
  map.operands.push_back({&op.getScalesMutable(), columns});
  if (zeros)
    map.operands.push_back({zeros, columns});
  if (offsets)
    map.operands.push_back({offsets, columns});
  if (bias)
    map.operands.push_back({bias, ofExpert(map, {{1, 1}})});
  map.operands.push_back({init, {rows, {1, 1}}});
  return map;
}

static FailureOr<TilingMap> mapOf(MatmulOp op) {
  TilingMap map;
  const DimMap rows = startRows(map, op.getRunsMutable(), op.getLhs());
  const int64_t front = map.runs ? 1 : 0;
  map.operands.push_back({&op.getLhsMutable(), {rows, kWhole}});
  OpOperand *init = &op.getInitsMutable()[0];
  OpOperand *bias = op.getBias() ? &op.getBiasMutable()[0] : nullptr;
  if (op.getSource())
    map.operands.push_back({&op.getSourceMutable()[0], {kRows, kWhole}});
  if (LayoutAttr layout = op.getLayoutAttr()) {
    map.loops.push_back({op.getWeight(), front});
    map.operands.push_back(
        {&op.getWeightMutable(), ofExpert(map, {{1, 1}, kWhole, kWhole})});
    if (bias)
      map.operands.push_back({bias, ofExpert(map, {{1, layout.getBlockN()}})});
    map.operands.push_back(
        {init, {rows, {1, panelColumns(layout, op.getEpilogue())}}});
    return map;
  }
  if (isGated(op.getEpilogue())) {
    map.operands.push_back({init, {rows, kWhole}});
    return map;
  }
  map.loops.push_back({op.getWeight(), front});
  map.operands.push_back(
      {&op.getWeightMutable(), ofExpert(map, {{1, 1}, kWhole})});
  if (bias)
    map.operands.push_back({bias, ofExpert(map, {{1, 1}})});
  map.operands.push_back({init, {rows, {1, 1}}});
  return map;
}

/// Ops of which every row is on its own.
static TilingMap rowMap(Operation *op, ArrayRef<OpOperand *> rows) {
  TilingMap map;
  for (OpOperand *operand : rows) {
    OperandMap dims(cast<ShapedType>(operand->get().getType()).getRank(),
                    kWhole);
    dims[0] = kRows;
    map.operands.push_back({operand, dims});
  }
  for (OpOperand &init :
       cast<DestinationStyleOpInterface>(op).getDpsInitsMutable())
    map.operands.push_back({&init, {kRows, kWhole}});
  map.loops.push_back({rows[0]->get(), 0});
  return map;
}

static FailureOr<TilingMap> mapOf(EmbeddingOp op) {
  TilingMap map = rowMap(op, {&op.getTokensMutable()});
  if (op.getPosition())
    map.counts.push_back({&op.getPositionMutable()[0], 0});
  return map;
}
static FailureOr<TilingMap> mapOf(RMSNormOp op) {
  return rowMap(op, {&op.getInputMutable()});
}
static FailureOr<TilingMap> mapOf(LayerNormOp op) {
  return rowMap(op, {&op.getInputMutable()});
}
static FailureOr<TilingMap> mapOf(SoftcapOp op) {
  return rowMap(op, {&op.getInputMutable()});
}
static FailureOr<TilingMap> mapOf(StageOp op) {
  if (!op.getRuns())
    return rowMap(op, {&op.getInputMutable()});
  TilingMap map;
  const DimMap rows = startRows(map, op.getRunsMutable(), op.getInput());
  map.operands.push_back({&op.getInputMutable(), {rows, kWhole}});
  map.operands.push_back({&op.getInitsMutable()[0], {rows, kWhole}});
  if (op.getPerm())
    map.operands.push_back({&op.getPermMutable()[0], ofExpert(map, {kWhole})});
  return map;
}
static FailureOr<TilingMap> mapOf(RouteOp op) {
  return rowMap(op, {&op.getLogitsMutable()});
}
/// Every row decides on the places of the others: there is one tile.
static FailureOr<TilingMap> mapOf(GroupRowsOp op) { return TilingMap(); }
/// Rows of the order; each is several of the destination.
static FailureOr<TilingMap> mapOf(GatherRowsOp op) {
  TilingMap map;
  auto order = cast<ShapedType>(op.getOrder().getType());
  map.loops.push_back({op.getOrder(), 0});
  map.operands.push_back({&op.getOrderMutable(), {kRows, kWhole}});
  map.operands.push_back(
      {&op.getInitsMutable()[0],
       {{0, order.getDimSize(1), -1, 1, /*isFilled=*/true}, kWhole}});
  return map;
}
static FailureOr<TilingMap> mapOf(CombineRowsOp op) {
  SmallVector<OpOperand *> rows = {&op.getPositionsMutable(),
                                   &op.getWeightsMutable()};
  if (op.getShared())
    rows.append({&op.getSharedMutable()[0], &op.getGateMutable()[0]});
  return rowMap(op, rows);
}
static FailureOr<TilingMap> mapOf(StageSplitOp op) {
  return rowMap(op, {&op.getInputMutable()});
}
static FailureOr<TilingMap> mapOf(AddOp op) {
  return rowMap(op, {&op.getLhsMutable(), &op.getRhsMutable()});
}
static FailureOr<TilingMap> mapOf(AddRMSNormOp op) {
  return rowMap(op, {&op.getLhsMutable(), &op.getRhsMutable()});
}
static FailureOr<TilingMap> mapOf(ActivationOp op) {
  SmallVector<OpOperand *> rows = {&op.getInputMutable()};
  for (OpOperand &up : op.getUpMutable())
    rows.push_back(&up);
  return rowMap(op, rows);
}
static FailureOr<TilingMap> mapOf(RotaryAppendOp op) {
  TilingMap map =
      rowMap(op, {&op.getQMutable(), &op.getKMutable(), &op.getVMutable()});
  map.counts.push_back({&op.getPositionMutable(), 0});
  return map;
}

/// Rows, then heads of the caches, then the queries that share one, then parts
/// of the context.
static FailureOr<TilingMap> mapOf(AttentionOp op) {
  TilingMap map;
  const int64_t queries = op.getQueries(), d = op.getHeadDim();
  DimMap columns{1, queries * d, 2, d};
  map.loops = {{op.getQ(), 0}, {op.getKeys(), 0}, {Value(), queries}};
  map.operands.push_back({&op.getQMutable(), {kRows, columns}});
  for (MutableOperandRange range : {op.getKMutable(), op.getVMutable()})
    if (!range.empty())
      map.operands.push_back({&range[0], {kRows, {1, d}}});
  map.operands.push_back({&op.getKeysMutable(), {{1, 1}, kWhole, kWhole}});
  map.operands.push_back({&op.getValuesMutable(), {{1, 1}, kWhole, kWhole}});
  map.counts.push_back({&op.getPositionMutable(), 0});
  if (!op.getPart()) {
    map.operands.push_back({&op.getInitsMutable()[0], {kRows, columns}});
    return map;
  }
  map.loops.push_back({op.getInits()[0], 0});
  map.operands.push_back({&op.getInitsMutable()[0], {{3, 1}, columns}});
  map.operands.push_back(
      {&op.getInitsMutable()[1], {{3, 1}, {1, queries * 2, 2, 2}}});
  map.counts.push_back({&op.getPartMutable()[0], 3});
  return map;
}

/// Heads.
static FailureOr<TilingMap> mapOf(JoinAttentionOp op) {
  TilingMap map;
  map.loops = {{Value(), op.getHeads()}};
  const DimMap columns{0, int64_t(op.getHeadDim())};
  map.operands.push_back({&op.getSumsMutable(), {kWhole, columns}});
  map.operands.push_back({&op.getStatsMutable(), {kWhole, {0, 2}}});
  map.operands.push_back({&op.getInitsMutable()[0], {kWhole, columns}});
  return map;
}

/// Parts.
template <typename OpTy> static TilingMap partMap(OpTy op) {
  TilingMap map;
  map.loops = {{op.getInits()[0], 0}};
  for (OpOperand &init : op.getInitsMutable())
    map.operands.push_back({&init, {kRows, kWhole}});
  map.counts.push_back({&op.getPartMutable(), 0});
  return map;
}
static FailureOr<TilingMap> mapOf(ArgmaxOp op) { return partMap(op); }
static FailureOr<TilingMap> mapOf(TopKOp op) { return partMap(op); }

/// There is nothing to share.
template <typename OpTy> static TilingMap tokenMap(OpTy op) {
  TilingMap map;
  map.loops = {{Value(), 1}};
  for (OpOperand &init : op.getInitsMutable())
    map.operands.push_back({&init, {kRows}});
  return map;
}
static FailureOr<TilingMap> mapOf(ChooseTokenOp op) { return tokenMap(op); }
static FailureOr<TilingMap> mapOf(SampleTokenOp op) { return tokenMap(op); }

//===----------------------------------------------------------------------===//
// The interface
//===----------------------------------------------------------------------===//

template <typename OpTy>
static SmallVector<utils::IteratorType> loopTypes(OpTy op) {
  FailureOr<TilingMap> map = mapOf(op);
  return SmallVector<utils::IteratorType>(
      succeeded(map) ? map->loops.size() : 0, utils::IteratorType::parallel);
}

#define GPTQ_TILING_METHODS(OP)                                                \
  SmallVector<utils::IteratorType> OP::getLoopIteratorTypes() {                \
    return loopTypes(*this);                                                   \
  }                                                                            \
  SmallVector<Range> OP::getIterationDomain(OpBuilder &b) {                    \
    return domainOf(b, getLoc(), *mapOf(*this));                               \
  }                                                                            \
  LogicalResult OP::getResultTilePosition(                                     \
      OpBuilder &b, unsigned result, ArrayRef<OpFoldResult> offsets,           \
      ArrayRef<OpFoldResult> sizes, SmallVector<OpFoldResult> &resultOffsets,  \
      SmallVector<OpFoldResult> &resultSizes) {                                \
    return resultPosition(*this, b, *mapOf(*this), result, offsets, sizes,     \
                          resultOffsets, resultSizes);                         \
  }

#define GPTQ_PLAIN_TILED_IMPLEMENTATION(OP)                                    \
  FailureOr<TilingResult> OP::getTiledImplementation(                          \
      OpBuilder &b, ArrayRef<OpFoldResult> offsets,                            \
      ArrayRef<OpFoldResult> sizes) {                                          \
    return tile(*this, b, *mapOf(*this), offsets, sizes);                      \
  }

GPTQ_TILING_METHODS(DequantMatmulOp)
GPTQ_TILING_METHODS(MatmulOp)
GPTQ_TILING_METHODS(EmbeddingOp)
GPTQ_TILING_METHODS(RMSNormOp)
GPTQ_TILING_METHODS(StageOp)
GPTQ_TILING_METHODS(StageSplitOp)
GPTQ_TILING_METHODS(LayerNormOp)
GPTQ_TILING_METHODS(SoftcapOp)
GPTQ_TILING_METHODS(AddOp)
GPTQ_TILING_METHODS(AddRMSNormOp)
GPTQ_TILING_METHODS(ActivationOp)
GPTQ_TILING_METHODS(RotaryAppendOp)
GPTQ_TILING_METHODS(AttentionOp)
GPTQ_TILING_METHODS(JoinAttentionOp)
GPTQ_TILING_METHODS(ArgmaxOp)
GPTQ_TILING_METHODS(ChooseTokenOp)
GPTQ_TILING_METHODS(TopKOp)
GPTQ_TILING_METHODS(SampleTokenOp)
GPTQ_TILING_METHODS(RouteOp)
GPTQ_TILING_METHODS(GroupRowsOp)
GPTQ_TILING_METHODS(GatherRowsOp)
GPTQ_TILING_METHODS(CombineRowsOp)
GPTQ_PLAIN_TILED_IMPLEMENTATION(DequantMatmulOp)
GPTQ_PLAIN_TILED_IMPLEMENTATION(MatmulOp)
GPTQ_PLAIN_TILED_IMPLEMENTATION(EmbeddingOp)
GPTQ_PLAIN_TILED_IMPLEMENTATION(RMSNormOp)
GPTQ_PLAIN_TILED_IMPLEMENTATION(StageOp)
GPTQ_PLAIN_TILED_IMPLEMENTATION(StageSplitOp)
GPTQ_PLAIN_TILED_IMPLEMENTATION(LayerNormOp)
GPTQ_PLAIN_TILED_IMPLEMENTATION(SoftcapOp)
GPTQ_PLAIN_TILED_IMPLEMENTATION(AddOp)
GPTQ_PLAIN_TILED_IMPLEMENTATION(AddRMSNormOp)
GPTQ_PLAIN_TILED_IMPLEMENTATION(ActivationOp)
GPTQ_PLAIN_TILED_IMPLEMENTATION(RotaryAppendOp)
GPTQ_PLAIN_TILED_IMPLEMENTATION(ArgmaxOp)
GPTQ_PLAIN_TILED_IMPLEMENTATION(ChooseTokenOp)
GPTQ_PLAIN_TILED_IMPLEMENTATION(TopKOp)
GPTQ_PLAIN_TILED_IMPLEMENTATION(SampleTokenOp)
GPTQ_PLAIN_TILED_IMPLEMENTATION(RouteOp)
GPTQ_PLAIN_TILED_IMPLEMENTATION(GroupRowsOp)
GPTQ_PLAIN_TILED_IMPLEMENTATION(GatherRowsOp)
GPTQ_PLAIN_TILED_IMPLEMENTATION(CombineRowsOp)

FailureOr<TilingResult>
AttentionOp::getTiledImplementation(OpBuilder &b,
                                    ArrayRef<OpFoldResult> offsets,
                                    ArrayRef<OpFoldResult> sizes) {
  // The number of heads is an attribute, so a tile has to have a known one.
  std::optional<int64_t> kvHeads = getConstantIntValue(sizes[1]);
  std::optional<int64_t> queries = getConstantIntValue(sizes[2]);
  if (!kvHeads || !queries)
    return emitOpError("cannot be tiled to a varying number of heads");
  if (*queries != getQueries() && *kvHeads != 1)
    return emitOpError("expects tiles of some queries to have one cache head");
  FailureOr<TilingResult> result =
      tile(*this, b, *mapOf(*this), offsets, sizes);
  if (succeeded(result)) {
    auto tiled = cast<AttentionOp>(result->tiledOps.front());
    tiled.setHeads(*queries * *kvHeads);
    tiled.setKvHeads(*kvHeads);
  }
  return result;
}

FailureOr<TilingResult>
JoinAttentionOp::getTiledImplementation(OpBuilder &b,
                                        ArrayRef<OpFoldResult> offsets,
                                        ArrayRef<OpFoldResult> sizes) {
  std::optional<int64_t> heads = getConstantIntValue(sizes[0]);
  if (!heads)
    return emitOpError("cannot be tiled to a varying number of heads");
  FailureOr<TilingResult> result =
      tile(*this, b, *mapOf(*this), offsets, sizes);
  if (succeeded(result))
    cast<JoinAttentionOp>(result->tiledOps.front()).setHeads(*heads);
  return result;
}
