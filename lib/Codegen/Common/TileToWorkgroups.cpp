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

namespace mlir::gptq {
#define GEN_PASS_DEF_TILETOWORKGROUPSPASS
#include "gptq/Codegen/Common/Passes.h.inc"
} // namespace mlir::gptq

using namespace mlir;
using namespace mlir::gptq;

/// The tile of one workgroup in iterations of the op's loops; 0 leaves a loop
/// alone.
static SmallVector<int64_t> workgroupTile(Operation *op, PlanAttr plan) {
  auto panels = [&](LayoutAttr layout) {
    return layout ? llvm::divideCeil(plan.getTileN(), layout.getBlockN())
                  : plan.getTileN();
  };
  if (auto matmul = dyn_cast<DequantMatmulOp>(op)) {
    if (matmul.getEpilogue() != Epilogue::None && !matmul.getLayout())
      return {plan.getTileM()};
    return {plan.getTileM(), int64_t(panels(matmul.getLayoutAttr()))};
  }
  if (auto matmul = dyn_cast<MatmulOp>(op)) {
    if (matmul.getEpilogue() != Epilogue::None && !matmul.getLayout())
      return {plan.getTileM()};
    return {plan.getTileM(), int64_t(panels(matmul.getLayoutAttr()))};
  }
  if (auto attention = dyn_cast<AttentionOp>(op)) {
    SmallVector<int64_t> tile{plan.getTileM(), 1, plan.getTileN()};
    if (attention.getPart())
      tile.push_back(1);
    return tile;
  }
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
      for (auto [size, range] : llvm::zip(tile, domain))
        if (std::optional<int64_t> trips = getConstantIntValue(range.size);
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
    }
  }
};
} // namespace
