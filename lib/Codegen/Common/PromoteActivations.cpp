//===- PromoteActivations.cpp - Activations in workgroup memory -----------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Codegen/Common/Passes.h"
#include "gptq/Codegen/Common/Plan.h"
#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "mlir/Dialect/Bufferization/IR/Bufferization.h"
#include "mlir/Dialect/GPU/IR/GPUDialect.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/Remarks.h"

namespace mlir::gptq {
#define GEN_PASS_DEF_PROMOTEACTIVATIONSPASS
#include "gptq/Codegen/Common/Passes.h.inc"
} // namespace mlir::gptq

using namespace mlir;
using namespace mlir::gptq;

/// The most rows the tile of `plan` has.
static int64_t maxTileRows(PlanAttr plan, RankedTensorType lhs) {
  if (!lhs.isDynamicDim(0))
    return lhs.getDimSize(0);
  return plan.getTileM() ? std::min(plan.getTileM(), plan.getMMax())
                         : plan.getMMax();
}

/// Returns workgroup memory for `rows` rows of `columns` elements, its size
/// known, restricted to as many rows as `tile` has.
static Value makeRoom(OpBuilder &b, Location loc, Value tile, int64_t rows,
                      int64_t columns, Type element) {
  auto room = bufferization::AllocTensorOp::create(
      b, loc, RankedTensorType::get({rows, columns}, element), ValueRange());
  room.setMemorySpaceAttr(
      gpu::AddressSpaceAttr::get(b.getContext(), gpu::AddressSpace::Workgroup));
  if (!cast<RankedTensorType>(tile.getType()).isDynamicDim(0))
    return room;
  SmallVector<OpFoldResult> sizes = {tensor::getMixedSize(b, loc, tile, 0),
                                     b.getIndexAttr(columns)};
  return tensor::ExtractSliceOp::create(
      b, loc, room, SmallVector<OpFoldResult>(2, b.getIndexAttr(0)), sizes,
      SmallVector<OpFoldResult>(2, b.getIndexAttr(1)));
}

/// The plan of what the threads of `plan` do row by row: 16 bytes of f32 for a
/// thread at a time.
static PlanAttr rowPlan(PlanAttr plan) {
  PlanAttr::Fields row;
  row.mMin = plan.getMMin();
  row.mMax = plan.getMMax();
  row.unit = plan.getUnit();
  row.tileM = plan.getTileM();
  row.lanes = 4;
  row.partials = plan.getPartials();
  row.scale = plan.getScale();
  row.zero = plan.getZero();
  row.threads = plan.getThreads();
  row.occupancy = plan.getOccupancy();
  row.loadBits = plan.getLoadBits();
  return PlanAttr::get(plan.getContext(), row);
}

namespace {
struct PromoteActivationsPass final
    : mlir::gptq::impl::PromoteActivationsPassBase<PromoteActivationsPass> {
  using Base::Base;

  /// Whether `rows` rows of `columns` elements may be copied; a remark where
  /// they may not.
  bool fits(Operation *op, int64_t rows, int64_t columns, int64_t width) {
    if (rows * columns * width <= maxBytes)
      return true;
    remark::missed(
        op->getLoc(),
        remark::RemarkOpts::name("PromoteActivations").category("gptq"))
        << remark::reason("activation tile of {0} x {1} does not fit {2} bytes",
                          rows, columns, maxBytes.getValue());
    return false;
  }

  /// Copies the activations of `op` to workgroup memory, their columns in the
  /// order `perm`. Whether it did.
  template <typename OpTy> bool promote(OpTy op, PlanAttr plan, Value perm) {
    Value lhs = op.getLhs();
    auto type = cast<RankedTensorType>(lhs.getType());
    int64_t rows = maxTileRows(plan, type), columns = type.getDimSize(1);
    if (!fits(op, rows, columns, type.getElementTypeBitWidth() / 8))
      return false;
    OpBuilder b(op);
    Value room =
        makeRoom(b, op.getLoc(), lhs, rows, columns, type.getElementType());
    auto stage = StageOp::create(b, op.getLoc(), TypeRange{room.getType()}, lhs,
                                 perm, /*runs=*/Value(), ValueRange{room});
    stage->setAttr(kPlanAttr, plan);
    op.getLhsMutable().assign(stage->getResult(0));
    return true;
  }

  /// Copies the activations of `op` to workgroup memory once more, as integers
  /// of three bytes.
  void split(DequantMatmulOp op, PlanAttr plan) {
    Value lhs = op.getLhs();
    auto type = cast<RankedTensorType>(lhs.getType());
    int64_t rows = maxTileRows(plan, type), k = op.getK();
    int64_t group = std::min<int64_t>(op.getGroupSize(), k);
    // The last block is read whole. A multiple of a cache line, so that each
    // of the three starts with one.
    int64_t columns = llvm::alignTo(
        k + (op.getLayout() ? op.getLayout()->getBlockK() : 0), 64);
    if (!fits(op, rows, columns, 3))
      return;
    OpBuilder b(op);
    Location loc = op.getLoc();
    Value bytes = makeRoom(b, loc, lhs, rows, 3 * columns, b.getI8Type());
    Value units =
        makeRoom(b, loc, lhs, rows, llvm::divideCeil(k, group), b.getF32Type());
    auto stage = StageSplitOp::create(
        b, loc, TypeRange{bytes.getType(), units.getType()}, lhs, op.getPerm(),
        ValueRange{bytes, units}, b.getI64IntegerAttr(group));
    stage->setAttr(kPlanAttr, plan);
    op.getBytesMutable().assign(stage->getResult(0));
    op.getUnitsMutable().assign(stage->getResult(1));
  }

  /// Normalizes the rows of `op` in workgroup memory. Nothing else has them:
  /// failure if they do not fit.
  template <typename OpTy> LogicalResult normalize(OpTy op, PlanAttr plan) {
    if (!op.getSource())
      return op.emitOpError("expects norm_of where the plan says normalize");
    auto type = cast<RankedTensorType>(op.getLhs().getType());
    int64_t rows = maxTileRows(plan, type), columns = type.getDimSize(1);
    if (rows * columns * type.getElementTypeBitWidth() / 8 > maxBytes)
      return op.emitOpError("expects normalized rows to fit ")
             << maxBytes << " bytes, but found " << rows << " x " << columns;
    OpBuilder b(op);
    Location loc = op.getLoc();
    Value room =
        makeRoom(b, loc, op.getSource(), rows, columns, type.getElementType());
    auto norm =
        RMSNormOp::create(b, loc, TypeRange{room.getType()}, op.getSource(),
                          op.getNorm(), ValueRange{room}, op.getEpsilonAttr());
    norm->setAttr(kPlanAttr, rowPlan(plan));
    op.getLhsMutable().assign(norm->getResult(0));
    op.getSourceMutable().clear();
    op.getNormMutable().clear();
    op.removeEpsilonAttr();
    return success();
  }

  void runOnOperation() override {
    auto result = getOperation()->walk([&](Operation *op) -> WalkResult {
      PlanAttr plan = getPlan(op);
      if (!plan || plan.getPath() != "normalize")
        return WalkResult::advance();
      if (auto matmul = dyn_cast<DequantMatmulOp>(op))
        return normalize(matmul, plan);
      if (auto matmul = dyn_cast<MatmulOp>(op))
        return normalize(matmul, plan);
      return WalkResult::advance();
    });
    if (result.wasInterrupted())
      return signalPassFailure();
    getOperation()->walk([&](Operation *op) {
      PlanAttr plan = getPlan(op);
      if (!plan || plan.getPath() == "direct" || plan.getPath() == "normalize")
        return;
      if (auto matmul = dyn_cast<DequantMatmulOp>(op)) {
        if (!isa<RankedTensorType>(matmul.getLhs().getType()))
          return;
        // What is read out of order is copied in order first.
        if ((plan.getPath() == "promote" || matmul.getPerm()) &&
            promote(matmul, plan, matmul.getPerm()))
          matmul.getPermMutable().clear();
        if (plan.getPath() == "split")
          split(matmul, plan);
      } else if (auto matmul = dyn_cast<MatmulOp>(op)) {
        if (plan.getPath() == "promote" &&
            isa<RankedTensorType>(matmul.getLhs().getType()))
          promote(matmul, plan, Value());
      }
    });
  }
};
} // namespace
