//===- GroupAlgebra.cpp - Scales and zero points per group ----------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The algebra of group-quantized sums, on register tiles:
//
//   sum over k of (s*(q - z) + o)*x  =  s * (sum of q*x  -  z * sum of x)
//                                       + o * sum of x
//
// All steps are exact in real arithmetic; in f32 they change only where
// rounding happens.
//
//===----------------------------------------------------------------------===//

#include "gptq/Codegen/Common/Passes.h"
#include "gptq/Codegen/Common/Plan.h"
#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/IR/PatternMatch.h"

namespace mlir::gptq {
#define GEN_PASS_DEF_FOLDOFFSETSPASS
#define GEN_PASS_DEF_HOISTSCALESPASS
#define GEN_PASS_DEF_FOLDZEROPOINTSPASS
#include "gptq/Codegen/Common/Passes.h.inc"
} // namespace mlir::gptq

using namespace mlir;
using namespace mlir::gptq;

/// `perColumn` [N], once for each row of `type` [R, N].
static Value toRows(OpBuilder &b, Location loc, Value perColumn,
                    VectorType type) {
  return vector::BroadcastOp::create(b, loc, type, perColumn);
}

/// `perRow` [R], once for each column of `type` [R, N].
static Value toColumns(OpBuilder &b, Location loc, Value perRow,
                       VectorType type) {
  auto transposed = VectorType::get({type.getDimSize(1), type.getDimSize(0)},
                                    type.getElementType());
  Value wide = vector::BroadcastOp::create(b, loc, transposed, perRow);
  return vector::TransposeOp::create(b, loc, wide, ArrayRef<int64_t>{1, 0});
}

/// The sums of the activations that `op` multiplies, one for each row.
static Value sumOfGroup(OpBuilder &b, GroupDotOp op) {
  auto type = cast<VectorType>(op.getAcc().getType());
  auto rows = VectorType::get({type.getDimSize(0)}, type.getElementType());
  return GroupSumOp::create(b, op.getLoc(), rows, op.getX(), op.getRow(),
                            op.getK0(), op.getPerm(), op.getDepth(),
                            op.getPlan());
}

namespace {
struct FoldOffsetsPass final
    : mlir::gptq::impl::FoldOffsetsPassBase<FoldOffsetsPass> {
  using Base::Base;

  void runOnOperation() override {
    getOperation()->walk([&](GroupDotOp op) {
      if (!op.getOffset())
        return;
      OpBuilder b(op);
      Location loc = op.getLoc();
      auto type = cast<VectorType>(op.getAcc().getType());
      op.getAccMutable().assign(vector::FMAOp::create(
          b, loc, toColumns(b, loc, sumOfGroup(b, op), type),
          toRows(b, loc, op.getOffset(), type), op.getAcc()));
      op.getOffsetMutable().clear();
    });
  }
};

struct HoistScalesPass final
    : mlir::gptq::impl::HoistScalesPassBase<HoistScalesPass> {
  using Base::Base;

  void runOnOperation() override {
    getOperation()->walk([&](GroupDotOp op) {
      // What a scale is not multiplied with stays with it.
      if (!op.getScale() || op.getOffset() ||
          op.getPlan().getScale() != "accumulator")
        return;
      OpBuilder b(op);
      Location loc = op.getLoc();
      auto type = cast<VectorType>(op.getAcc().getType());
      Value scale = op.getScale(), acc = op.getAcc();
      op.getAccMutable().assign(
          arith::ConstantOp::create(b, loc, b.getZeroAttr(type)));
      op.getScaleMutable().clear();
      b.setInsertionPointAfter(op);
      Value wide = toRows(b, loc, scale, type);
      auto sum = vector::FMAOp::create(b, loc, op.getResult(), wide, acc);
      op.getResult().replaceAllUsesExcept(sum, sum);
    });
  }
};

struct FoldZeroPointsPass final
    : mlir::gptq::impl::FoldZeroPointsPassBase<FoldZeroPointsPass> {
  using Base::Base;

  void runOnOperation() override {
    getOperation()->walk([&](GroupDotOp op) {
      if (!op.getZero() || op.getPlan().getZero() != "accumulator")
        return;
      OpBuilder b(op);
      Location loc = op.getLoc();
      auto type = cast<VectorType>(op.getAcc().getType());
      // The accumulator starts at minus the correction, so the loop over the
      // group has nothing left to do afterwards.
      Value sum = sumOfGroup(b, op);
      Value zero = op.getZero();
      if (op.getScale())
        zero = arith::MulFOp::create(b, loc, zero, op.getScale());
      Value minus = arith::NegFOp::create(b, loc, zero);
      op.getAccMutable().assign(
          vector::FMAOp::create(b, loc, toColumns(b, loc, sum, type),
                                toRows(b, loc, minus, type), op.getAcc()));
      op.getZeroMutable().clear();
    });
  }
};
} // namespace
