//===- DistributeWorkgroups.cpp - The grid --------------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Codegen/Common/Passes.h"
#include "gptq/Codegen/Common/Plan.h"
#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "mlir/Dialect/Affine/IR/AffineOps.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Arith/Utils/Utils.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/IR/PatternMatch.h"

namespace mlir::gptq {
#define GEN_PASS_DEF_DISTRIBUTEWORKGROUPSPASS
#include "gptq/Codegen/Common/Passes.h.inc"
} // namespace mlir::gptq

using namespace mlir;
using namespace mlir::gptq;

/// How many times M `value` is inside `kernel`: once its own argument or the
/// number of rows of one of its buffers, S times that of one with S slots a
/// row; 0 where it is something else.
static int64_t rowCountFactor(Value value, func::FuncOp kernel) {
  unsigned indices = 0;
  for (BlockArgument arg : kernel.getArguments())
    if (arg.getType().isIndex() && indices++ == 0 && arg == value)
      return 1;
  if (auto apply = value.getDefiningOp<affine::AffineApplyOp>()) {
    // The rows of a matrix of slots: s0 * S.
    auto product = dyn_cast<AffineBinaryOpExpr>(apply.getMap().getResult(0));
    if (apply.getMap().getNumInputs() != 1 || !product ||
        product.getKind() != AffineExprKind::Mul)
      return 0;
    auto factor = dyn_cast<AffineConstantExpr>(product.getRHS());
    return factor && isa<AffineSymbolExpr, AffineDimExpr>(product.getLHS())
               ? factor.getValue() *
                     rowCountFactor(apply.getMapOperands().front(), kernel)
               : 0;
  }
  auto dim = value.getDefiningOp<memref::DimOp>();
  if (!dim || dim.getConstantIndex() != 0)
    return 0;
  Value source = dim.getSource();
  int64_t factor = 1;
  if (auto slots = source.getDefiningOp<memref::CollapseShapeOp>()) {
    source = slots.getSrc();
    auto type = cast<MemRefType>(source.getType());
    if (type.getRank() != 3 || type.isDynamicDim(1))
      return 0;
    factor = type.getDimSize(1);
  }
  return isa<BlockArgument>(source) &&
                 cast<MemRefType>(source.getType()).isDynamicDim(0)
             ? factor
             : 0;
}

namespace {
struct DistributeWorkgroupsPass final
    : mlir::gptq::impl::DistributeWorkgroupsPassBase<DistributeWorkgroupsPass> {
  using Base::Base;

  void runOnOperation() override {
    auto kernel = dyn_cast<func::FuncOp>(getOperation().getOperation());
    if (!kernel || !kernel->hasAttr(kKernelAttr))
      return;
    SmallVector<scf::ForallOp> loops;
    for (auto loop : kernel.getBody().front().getOps<scf::ForallOp>())
      loops.push_back(loop);
    if (loops.size() > 1) {
      kernel.emitError("expects at most one loop over workgroups, but found ")
          << loops.size();
      return signalPassFailure();
    }

    IRRewriter b(&getContext());
    Location loc = kernel.getLoc();
    Block &body = kernel.getBody().front();
    if (failed(kernel.insertArgument(kernel.getNumArguments(), b.getIndexType(),
                                     DictionaryAttr(), loc)))
      return signalPassFailure();
    Value workgroup = body.getArguments().back();
    SmallVector<Attribute> grid;
    // The workgroups of a cluster have the same tile, and follow each other.
    int64_t cluster = 1;
    kernel.walk([&](DequantMatmulOp op) {
      if (PlanAttr plan = getPlan(op))
        cluster = std::max(cluster, plan.getCluster());
    });
    if (cluster > 1)
      kernel->setAttr(kClusterAttr, b.getI64IntegerAttr(cluster));
    if (loops.empty()) {
      kernel->setAttr(kGridAttr, b.getArrayAttr(b.getDenseI64ArrayAttr(
                                     {0, 0, cluster, 1})));
      return;
    }

    scf::ForallOp loop = loops.front();
    if (loop.getNumResults() != 0) {
      loop.emitError("expects a bufferized loop over workgroups");
      return signalPassFailure();
    }
    b.setInsertionPoint(loop);
    SmallVector<OpFoldResult> trips;
    for (auto [lower, upper, step] :
         llvm::zip(loop.getMixedLowerBound(), loop.getMixedUpperBound(),
                   loop.getMixedStep())) {
      std::optional<int64_t> lb = getConstantIntValue(lower);
      std::optional<int64_t> ub = getConstantIntValue(upper);
      std::optional<int64_t> by = getConstantIntValue(step);
      const int64_t perRow =
          ub ? 0 : rowCountFactor(cast<Value>(upper), kernel);
      if (!lb || *lb != 0 || !by || (!ub && !perRow)) {
        loop.emitError("expects workgroups that count constants or M");
        return signalPassFailure();
      }
      grid.push_back(
          b.getDenseI64ArrayAttr(ub ? ArrayRef<int64_t>{0, 0, *ub, *by}
                                    : ArrayRef<int64_t>{perRow, 0, 0, *by}));
      trips.push_back(affine::makeComposedFoldedAffineApply(
          b, loc, b.getAffineSymbolExpr(0).ceilDiv(*by), {upper}));
    }
    if (cluster > 1)
      grid.push_back(b.getDenseI64ArrayAttr({0, 0, cluster, 1}));
    kernel->setAttr(kGridAttr, b.getArrayAttr(grid));

    // The last loop runs fastest.
    SmallVector<Value> ivs(trips.size());
    Value rest = workgroup;
    if (cluster > 1)
      rest = arith::DivUIOp::create(
          b, loc, rest, arith::ConstantIndexOp::create(b, loc, cluster));
    for (int64_t i = trips.size() - 1; i >= 0; --i) {
      Value index = rest;
      if (i > 0) {
        Value count = getValueOrCreateConstantIndexOp(b, loc, trips[i]);
        index = arith::RemUIOp::create(b, loc, rest, count);
        rest = arith::DivUIOp::create(b, loc, rest, count);
      }
      int64_t by = *getConstantIntValue(loop.getMixedStep()[i]);
      ivs[i] = affine::makeComposedAffineApply(
          b, loc, b.getAffineSymbolExpr(0) * by, {OpFoldResult(index)});
    }
    Block *inner = loop.getBody();
    b.eraseOp(inner->getTerminator());
    b.inlineBlockBefore(inner, loop, ivs);
    b.eraseOp(loop);
  }
};
} // namespace
