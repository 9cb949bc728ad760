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

static void prefetch(scf::ForOp loop, IRRewriter &rewriter) {
  SmallVector<vector::LoadOp> loads;
  for (auto load : loop.getBody()->getOps<vector::LoadOp>())
    if (!load->hasAttr(kInPlaceAttr) && isPrefetchable(load, loop))
      loads.push_back(load);
  if (loads.empty())
    return;
  // Weights first: what else is loaded may have to wait for the kernel in
  // front.
  llvm::stable_sort(loads, [](vector::LoadOp a, vector::LoadOp b) {
    return isWeight(a.getBase()) > isWeight(b.getBase());
  });
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
    for (vector::LoadOp load : loads) {
      values.push_back(cloneForNext(rewriter, load.getResult(), loop, map));
      values.back().getDefiningOp()->setAttr(kPrefetchedAttr,
                                             rewriter.getUnitAttr());
    }
    return values;
  };
  SmallVector<Value> first = loadAll(loop.getLowerBound());
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
    rewriter.replaceOp(load, loop.getRegionIterArg(sums + i));
    yield->setOperand(sums + i, next[i]);
  }
}

namespace {
struct PrefetchOperandsPass final
    : mlir::gptq::impl::PrefetchOperandsPassBase<PrefetchOperandsPass> {
  using Base::Base;

  void runOnOperation() override {
    SmallVector<scf::ForOp> loops;
    getOperation()->walk([&](scf::ForOp loop) {
      auto stages = loop->getAttrOfType<IntegerAttr>(kStagesAttr);
      if (stages && stages.getInt() > 1)
        loops.push_back(loop);
    });
    IRRewriter rewriter(&getContext());
    for (scf::ForOp loop : loops) {
      loop->removeAttr(kStagesAttr);
      prefetch(loop, rewriter);
    }
  }
};
} // namespace
