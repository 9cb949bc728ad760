//===- PrefetchOperands.cpp - Operands on their way -----------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Codegen/Common/Passes.h"
#include "gptq/Codegen/Common/Plan.h"
#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Utils/StaticValueUtils.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/IR/IRMapping.h"
#include "mlir/IR/PatternMatch.h"

namespace mlir::gptq {
#define GEN_PASS_DEF_PREFETCHOPERANDSPASS
#include "gptq/Codegen/Common/Passes.h.inc"
} // namespace mlir::gptq

using namespace mlir;
using namespace mlir::gptq;

/// Clones `op` of the loop's body, and what it is computed from there.
static Value cloneForNext(OpBuilder &b, Value value, scf::ForOp loop,
                          IRMapping &map) {
  if (Value known = map.lookupOrNull(value))
    return known;
  Operation *def = value.getDefiningOp();
  if (!def || def->getBlock() != loop.getBody())
    return value;
  for (Value operand : def->getOperands())
    cloneForNext(b, operand, loop, map);
  return b.clone(*def, map)->getResult(cast<OpResult>(value).getResultNumber());
}

/// Whether the place `load` reads depends on nothing but the loop's counter.
/// What such loops read, nobody writes meanwhile. Workgroup memory is near.
static bool isPrefetchable(vector::LoadOp load, scf::ForOp loop) {
  if (load.getMemRefType().getMemorySpace())
    return false;
  SmallVector<Value> open(load->getOperands());
  while (!open.empty()) {
    Value value = open.pop_back_val();
    if (auto arg = dyn_cast<BlockArgument>(value)) {
      if (arg.getOwner() == loop.getBody() && arg != loop.getInductionVar())
        return false;
      continue;
    }
    Operation *def = value.getDefiningOp();
    if (def->getBlock() != loop.getBody())
      continue;
    if (!isPure(def))
      return false;
    llvm::append_range(open, def->getOperands());
  }
  return true;
}

/// The loads of `loop` that may go ahead. Weights first: what else is loaded
/// may have to wait for the kernel in front.
static SmallVector<vector::LoadOp> prefetchableLoads(scf::ForOp loop) {
  SmallVector<vector::LoadOp> loads;
  for (auto load : loop.getBody()->getOps<vector::LoadOp>())
    if (!load->hasAttr(kInPlaceAttr) && isPrefetchable(load, loop))
      loads.push_back(load);
  llvm::stable_sort(loads, [](vector::LoadOp a, vector::LoadOp b) {
    return isWeight(a.getBase()) > isWeight(b.getBase());
  });
  return loads;
}

static int64_t bytesOf(vector::LoadOp load) {
  VectorType type = load.getVectorType();
  return type.getNumElements() * type.getElementTypeBitWidth() / 8;
}

namespace {
/// Marks loads that were moved in front of a loop, in their order: of weights
/// only the first `aheadBytes` go ahead of everything.
class LoadMarker {
public:
  explicit LoadMarker(int64_t aheadBytes) : left(aheadBytes) {}

  void mark(Value loaded) {
    auto load = loaded.getDefiningOp<vector::LoadOp>();
    auto unit = UnitAttr::get(load.getContext());
    load->setAttr(kPrefetchedAttr, unit);
    if (!isWeight(load.getBase()))
      return;
    // Those behind one that follows do so, too.
    left = bytesOf(load) <= left ? left - bytesOf(load) : -1;
    if (left < 0)
      load->setAttr(kFollowsAttr, unit);
  }

private:
  int64_t left;
};
} // namespace

static void prefetch(scf::ForOp loop, LoadMarker &marker,
                     IRRewriter &rewriter) {
  SmallVector<vector::LoadOp> loads = prefetchableLoads(loop);
  if (loads.empty())
    return;
  Location loc = loop.getLoc();
  rewriter.setInsertionPoint(loop);
  Value one = arith::ConstantIndexOp::create(rewriter, loc, 1);
  Value last = arith::SubIOp::create(rewriter, loc, loop.getUpperBound(), one);
  auto loadAll = [&](Value iteration) {
    // There is no part beyond the last.
    Value valid = arith::MinSIOp::create(rewriter, loc, iteration, last);
    IRMapping map;
    map.map(loop.getInductionVar(), valid);
    SmallVector<Value> values;
    for (vector::LoadOp load : loads)
      values.push_back(cloneForNext(rewriter, load.getResult(), loop, map));
    return values;
  };
  SmallVector<Value> first = loadAll(loop.getLowerBound());
  for (Value load : first)
    marker.mark(load);
  const unsigned sums = loop.getNumRegionIterArgs();
  auto wider = cast<scf::ForOp>(*loop.replaceWithAdditionalYields(
      rewriter, first, /*replaceInitOperandUsesInLoop=*/false,
      [&](OpBuilder &b, Location, ArrayRef<BlockArgument>) {
        return first; // Replaced below, where the new loop's counter is known.
      }));
  // The loads are now those of the new loop's body.
  loop = wider;
  rewriter.setInsertionPointToStart(loop.getBody());
  SmallVector<Value> next = loadAll(arith::AddIOp::create(
      rewriter, loc, loop.getInductionVar(), loop.getStep()));
  auto yield = cast<scf::YieldOp>(loop.getBody()->getTerminator());
  for (auto [i, load] : llvm::enumerate(loads)) {
    next[i].getDefiningOp()->setAttr(kPrefetchedAttr, rewriter.getUnitAttr());
    rewriter.replaceOp(load, loop.getRegionIterArg(sums + i));
    yield->setOperand(sums + i, next[i]);
  }
}

/// Multiplies the first parts of `loop` before it, and loads what they need
/// first of all, weights in front: they are on their way while the kernel waits
/// or prepares activations. As many as a thread has `mostBytes` of registers
/// for, beside what the loop itself loads ahead, and as there surely are.
/// Whether that is all of the loop, which then is no more.
static bool loadFirst(scf::ForOp loop, int64_t stages, int64_t mostBytes,
                      LoadMarker &marker, IRRewriter &rewriter) {
  std::optional<int64_t> end = getConstantIntValue(loop.getUpperBound());
  std::optional<int64_t> step = getConstantIntValue(loop.getStep());
  if (!end || !step)
    return false;
  SmallVector<vector::LoadOp> loads = prefetchableLoads(loop);
  int64_t bytes = 0;
  for (vector::LoadOp load : loads)
    bytes += bytesOf(load);
  if (loads.empty() || !isWeight(loads.front().getBase()))
    return false;
  // A warp starts at its number, and there are as many as a step.
  const int64_t sure = *end / *step;
  const bool isAll = *end % *step == 0 && sure * bytes <= mostBytes;
  const int64_t count =
      isAll ? sure
            : std::min(sure,
                       mostBytes / bytes - std::max(stages - 1, int64_t(0)));
  if (count < 1)
    return false;
  Location loc = loop.getLoc();
  rewriter.setInsertionPoint(loop);
  SmallVector<IRMapping> maps(count);
  Value part = loop.getLowerBound();
  for (IRMapping &map : maps) {
    map.map(loop.getInductionVar(), part);
    part = arith::AddIOp::create(rewriter, loc, part, loop.getStep());
  }
  for (bool weights : {true, false})
    for (IRMapping &map : maps)
      for (vector::LoadOp load : loads)
        if (isWeight(load.getBase()) == weights)
          marker.mark(cloneForNext(rewriter, load.getResult(), loop, map));
  SmallVector<Value> sums(loop.getInitArgs());
  for (IRMapping &map : maps) {
    map.map(loop.getRegionIterArgs(), sums);
    for (Operation &op : loop.getBody()->without_terminator())
      if (op.getNumResults() == 0 || !map.contains(op.getResult(0)))
        rewriter.clone(op, map);
    for (auto [sum, value] :
         llvm::zip(sums, loop.getBody()->getTerminator()->getOperands()))
      sum = map.lookupOrDefault(value);
  }
  if (isAll) {
    rewriter.replaceOp(loop, sums);
    return true;
  }
  rewriter.modifyOpInPlace(loop, [&] {
    loop.getLowerBoundMutable().assign(part);
    loop.getInitArgsMutable().assign(sums);
  });
  return false;
}

namespace {
struct PrefetchOperandsPass final
    : mlir::gptq::impl::PrefetchOperandsPassBase<PrefetchOperandsPass> {
  using Base::Base;

  void runOnOperation() override {
    SmallVector<scf::ForOp> loops;
    getOperation()->walk([&](scf::ForOp loop) {
      if (loop->hasAttr(kStagesAttr))
        loops.push_back(loop);
    });
    IRRewriter rewriter(&getContext());
    for (scf::ForOp loop : loops) {
      const int64_t stages =
          loop->getAttrOfType<IntegerAttr>(kStagesAttr).getInt();
      loop->removeAttr(kStagesAttr);
      auto first =
          dyn_cast_or_null<IntegerAttr>(loop->removeAttr(kFirstBytesAttr));
      auto ahead =
          dyn_cast_or_null<IntegerAttr>(loop->removeAttr(kAheadBytesAttr));
      LoadMarker marker(ahead ? ahead.getInt()
                              : std::numeric_limits<int64_t>::max());
      if (first && loadFirst(loop, stages, first.getInt(), marker, rewriter))
        continue;
      if (stages > 1)
        prefetch(loop, marker, rewriter);
    }
  }
};
} // namespace
