//===- TileToWorkgroups.cpp - Tiles of one workgroup ----------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Codegen/Common/Passes.h"
#include "gptq/Codegen/Common/Plan.h"
#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "mlir/Dialect/GPU/IR/GPUDialect.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/SCF/Transforms/TileUsingInterface.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/PatternMatch.h"
#include "llvm/ADT/TypeSwitch.h"

namespace mlir::gptq {
#define GEN_PASS_DEF_TILETOWORKGROUPSPASS
#include "gptq/Codegen/Common/Passes.h.inc"
} // namespace mlir::gptq

using namespace mlir;
using namespace mlir::gptq;

/// The runs of rows that `op` is on, or null.
static Value runsOf(Operation *op) {
  return llvm::TypeSwitch<Operation *, Value>(op)
      .Case<DequantMatmulOp, MatmulOp, StageOp>(
          [](auto onRuns) -> Value { return onRuns.getRuns(); })
      .Default([](Operation *) { return Value(); });
}

/// The tile of one workgroup in iterations of the op's loops; 0 leaves a loop
/// alone.
static SmallVector<int64_t> workgroupTile(Operation *op, PlanAttr plan) {
  auto panels = [&](LayoutAttr layout) {
    return layout ? llvm::divideCeil(plan.getTileN(), layout.getBlockN())
                  : plan.getTileN();
  };
  // One run of rows, whose tiles come later.
  const int64_t rows = runsOf(op) ? 1 : plan.getTileM();
  if (auto matmul = dyn_cast<DequantMatmulOp>(op)) {
    if (matmul.getEpilogue() != Epilogue::None && !matmul.getLayout())
      return {rows};
    return {rows, int64_t(panels(matmul.getLayoutAttr()))};
  }
  if (auto matmul = dyn_cast<MatmulOp>(op)) {
    if (matmul.getEpilogue() != Epilogue::None && !matmul.getLayout())
      return {rows};
    return {rows, int64_t(panels(matmul.getLayoutAttr()))};
  }
  if (auto attention = dyn_cast<AttentionOp>(op)) {
    SmallVector<int64_t> tile{plan.getTileM(), 1, plan.getTileN()};
    if (attention.getPart())
      tile.push_back(1);
    return tile;
  }
  if (isa<StageOp>(op))
    return {rows};
  // Every row decides on the places of the others.
  if (isa<GroupRowsOp>(op))
    return {};
  return {plan.getTileM()};
}

namespace {
struct TileToWorkgroupsPass final
    : mlir::gptq::impl::TileToWorkgroupsPassBase<TileToWorkgroupsPass> {
  using Base::Base;

  void runOnOperation() override {
    SmallVector<TilingInterface> ops;
    getOperation()->walk([&](TilingInterface op) {
      if (getPlan(op))
        ops.push_back(op);
    });
    IRRewriter rewriter(&getContext());
    for (TilingInterface op : ops) {
      rewriter.setInsertionPoint(op);
      SmallVector<int64_t> tile = workgroupTile(op, getPlan(op));
      // A loop no longer than its tile needs none.
      SmallVector<Range> domain = op.getIterationDomain(rewriter);
      const bool isOnRuns = bool(runsOf(op));
      for (auto [loop, size, range] : llvm::enumerate(tile, domain))
        // Tiling to a run is what turns it into rows.
        if (isOnRuns && loop == 0)
          continue;
        else if (std::optional<int64_t> trips = getConstantIntValue(range.size);
                 trips && *trips <= size)
          size = 0;
      if (llvm::all_of(tile, [](int64_t size) { return size == 0; }))
        continue;
      SmallVector<Attribute> mapping;
      int64_t dims =
          llvm::count_if(tile, [](int64_t size) { return size != 0; });
      for (int64_t dim = dims - 1; dim >= 0; --dim)
        mapping.push_back(gpu::GPUBlockMappingAttr::get(
            &getContext(), static_cast<gpu::MappingId>(dim)));
      scf::SCFTilingOptions options;
      options.setLoopType(scf::SCFTilingOptions::LoopType::ForallOp)
          .setTileSizes(getAsIndexOpFoldResult(&getContext(), tile))
          .setMapping(mapping);
      FailureOr<scf::SCFTilingResult> result =
          scf::tileUsingSCF(rewriter, op, options);
      if (failed(result)) {
        op->emitError("cannot be tiled to workgroups");
        return signalPassFailure();
      }
      rewriter.replaceOp(op, result->replacements);
      // A run has any number of rows up to M: a workgroup takes them a tile at
      // a time, none where the run is empty. One row is one tile.
      PlanAttr plan = getPlan(result->tiledOps.front());
      if (!isOnRuns || plan.getTileM() == 0 || plan.getMMax() == 1)
        continue;
      auto onRows = cast<TilingInterface>(result->tiledOps.front());
      rewriter.setInsertionPoint(onRows);
      scf::SCFTilingOptions rows;
      rows.setTileSizes(
          {getAsIndexOpFoldResult(&getContext(), plan.getTileM())});
      FailureOr<scf::SCFTilingResult> tiles =
          scf::tileUsingSCF(rewriter, onRows, rows);
      if (failed(tiles)) {
        onRows->emitError("cannot be tiled to rows");
        return signalPassFailure();
      }
      rewriter.replaceOp(onRows, tiles->replacements);
    }
  }
};
} // namespace
