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

/// Returns a copy of `tile` in workgroup memory, its columns in the order
/// `perm`. The buffer has room for `rows` rows, so its size is known.
static Value stageInWorkgroup(OpBuilder &b, Location loc, Value tile,
                              Value perm, int64_t rows) {
  auto type = cast<RankedTensorType>(tile.getType());
  auto roomType =
      RankedTensorType::get({rows, type.getDimSize(1)}, type.getElementType());
  auto room =
      bufferization::AllocTensorOp::create(b, loc, roomType, ValueRange());
  room.setMemorySpaceAttr(
      gpu::AddressSpaceAttr::get(b.getContext(), gpu::AddressSpace::Workgroup));
  Value target = room;
  if (type.isDynamicDim(0))
    target = tensor::ExtractSliceOp::create(
        b, loc, room, SmallVector<OpFoldResult>(2, b.getIndexAttr(0)),
        tensor::getMixedSizes(b, loc, tile),
        SmallVector<OpFoldResult>(2, b.getIndexAttr(1)));
  return StageOp::create(b, loc, TypeRange{target.getType()}, tile, perm,
                         ValueRange{target})
      ->getResult(0);
}

namespace {
struct PromoteActivationsPass final
    : mlir::gptq::impl::PromoteActivationsPassBase<PromoteActivationsPass> {
  using Base::Base;

  template <typename OpTy> void promote(OpTy op, Value perm) {
    PlanAttr plan = getPlan(op);
    auto type = dyn_cast<RankedTensorType>(op.getLhs().getType());
    if (!plan || !type || plan.getPath() != "promote")
      return;
    int64_t rows = maxTileRows(plan, type);
    if (rows * type.getDimSize(1) * type.getElementTypeBitWidth() / 8 >
        maxBytes) {
      remark::missed(
          op.getLoc(),
          remark::RemarkOpts::name("PromoteActivations").category("gptq"))
          << remark::reason(
                 "activation tile of {0} x {1} does not fit {2} bytes", rows,
                 type.getDimSize(1), maxBytes.getValue());
      return;
    }
    OpBuilder b(op);
    Value staged = stageInWorkgroup(b, op.getLoc(), op.getLhs(), perm, rows);
    staged.getDefiningOp()->setAttr(kPlanAttr, plan);
    op.getLhsMutable().assign(staged);
  }

  void runOnOperation() override {
    getOperation()->walk([&](Operation *op) {
      if (auto matmul = dyn_cast<DequantMatmulOp>(op)) {
        Value before = matmul.getLhs();
        promote(matmul, matmul.getPerm());
        if (matmul.getLhs() != before)
          matmul.getPermMutable().clear();
      } else if (auto matmul = dyn_cast<MatmulOp>(op)) {
        promote(matmul, Value());
      }
    });
  }
};
} // namespace
