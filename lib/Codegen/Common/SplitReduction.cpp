//===- SplitReduction.cpp - Partial sums over K ---------------------------===//
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
#define GEN_PASS_DEF_SPLITREDUCTIONPASS
#define GEN_PASS_DEF_BUFFERPARTIALSPASS
#include "gptq/Codegen/Common/Passes.h.inc"
} // namespace mlir::gptq

using namespace mlir;
using namespace mlir::gptq;

/// `tensor` restricted to [offset, offset + size) of dimension `dim`.
static Value slice(OpBuilder &b, Location loc, Value tensor, int64_t dim,
                   int64_t offset, int64_t size) {
  SmallVector<OpFoldResult> sizes = tensor::getMixedSizes(b, loc, tensor);
  SmallVector<OpFoldResult> offsets(sizes.size(), b.getIndexAttr(0));
  SmallVector<OpFoldResult> strides(sizes.size(), b.getIndexAttr(1));
  offsets[dim] = b.getIndexAttr(offset);
  sizes[dim] = b.getIndexAttr(size);
  return tensor::ExtractSliceOp::create(b, loc, tensor, offsets, sizes,
                                        strides);
}

/// `op` on input rows [k0, k0 + depth), writing (first) or adding to `init`.
static DequantMatmulOp restrictTo(OpBuilder &b, DequantMatmulOp op, int64_t k0,
                                  int64_t depth, Value init, bool first,
                                  bool last) {
  Location loc = op.getLoc();
  LayoutAttr layout = op.getLayoutAttr();
  int64_t group = op.getGroupSize();
  int64_t g0 = k0 / group, groups = llvm::divideCeil(k0 + depth, group) - g0;
  auto part = cast<DequantMatmulOp>(b.clone(*op));
  part.getLhsMutable().assign(slice(b, loc, op.getLhs(), 1, k0, depth));
  int64_t block = layout.blocksOf(k0, group);
  part.getCodesMutable().assign(
      slice(b, loc, op.getCodes(), 1, block,
            layout.blocksOf(k0 + depth, group) - block));
  part.getScalesMutable().assign(slice(b, loc, op.getScales(), 1, g0, groups));
  if (op.getZeros())
    part.getZerosMutable().assign(slice(b, loc, op.getZeros(), 1, g0, groups));
  if (op.getOffsets())
    part.getOffsetsMutable().assign(
        slice(b, loc, op.getOffsets(), 1, g0, groups));
  if (!last)
    part.getBiasMutable().clear();
  part.getInitsMutable().assign(init);
  part.setAccumulate(!first);
  part->moveBefore(b.getInsertionBlock(), b.getInsertionPoint());
  return part;
}

namespace {
struct SplitReductionPass final
    : mlir::gptq::impl::SplitReductionPassBase<SplitReductionPass> {
  using Base::Base;

  void runOnOperation() override {
    getOperation()->walk([&](DequantMatmulOp op) {
      PlanAttr plan = getPlan(op);
      if (!plan || plan.getTileK() == 0 || !op.getLayout() ||
          op.getAccumulate())
        return;
      auto missed = [&](StringRef why) {
        remark::missed(
            op.getLoc(),
            remark::RemarkOpts::name("SplitReduction").category("gptq"))
            << remark::reason("{0}", why);
      };
      if (op.getEpilogue() != Epilogue::None)
        return missed("the epilogue needs the whole sum");
      if (op.getPerm())
        return missed("the activations are read through a permutation");
      if (op.getBytes())
        return missed("the activations are split into bytes");
      // Parts start at whole groups, so each has its own rows of scales.
      int64_t k = op.getK(), group = op.getGroupSize();
      int64_t step = group >= k ? op.getLayout()->getBlockK() : group;
      int64_t depth = llvm::alignTo(plan.getTileK(), step);
      if (depth >= k)
        return;

      OpBuilder b(op);
      Value sum = op.getInits()[0];
      for (int64_t k0 = 0; k0 < k; k0 += depth)
        sum = restrictTo(b, op, k0, std::min(depth, k - k0), sum, k0 == 0,
                         k0 + depth >= k)
                  ->getResult(0);
      op->getResult(0).replaceAllUsesWith(sum);
      op.erase();
    });
  }
};

struct BufferPartialsPass final
    : mlir::gptq::impl::BufferPartialsPassBase<BufferPartialsPass> {
  using Base::Base;

  void runOnOperation() override {
    SmallVector<DequantMatmulOp> firsts;
    getOperation()->walk([&](DequantMatmulOp op) {
      PlanAttr plan = getPlan(op);
      if (plan && plan.getPartials() == "shared" && !op.getAccumulate() &&
          op->getNumResults() == 1 && nextPartial(op))
        firsts.push_back(op);
    });
    for (DequantMatmulOp first : firsts) {
      DequantMatmulOp last = first;
      while (DequantMatmulOp next = nextPartial(last))
        last = next;
      Value target = first.getInits()[0];
      auto type = cast<RankedTensorType>(target.getType());
      PlanAttr plan = getPlan(first);
      // The buffer's size must be known: as many rows and columns as the
      // largest tile has.
      int64_t rows =
          type.isDynamicDim(0)
              ? std::min(plan.getTileM() ? plan.getTileM() : plan.getMMax(),
                         plan.getMMax())
              : type.getDimSize(0);
      int64_t columns =
          cast<ShapedType>(first.getCodes().getType()).getDimSize(0);
      if (ShapedType::isDynamic(columns))
        continue;
      columns *= first.getLayout()->getBlockN();

      OpBuilder b(first);
      Location loc = first.getLoc();
      auto room = bufferization::AllocTensorOp::create(
          b, loc, RankedTensorType::get({rows, columns}, b.getF32Type()),
          ValueRange());
      room.setMemorySpaceAttr(gpu::AddressSpaceAttr::get(
          b.getContext(), gpu::AddressSpace::Workgroup));
      Value buffer = tensor::ExtractSliceOp::create(
          b, loc, room, SmallVector<OpFoldResult>(2, b.getIndexAttr(0)),
          tensor::getMixedSizes(b, loc, target),
          SmallVector<OpFoldResult>(2, b.getIndexAttr(1)));
      first.getInitsMutable().assign(buffer);
      for (DequantMatmulOp op = first; op; op = nextPartial(op))
        op->getResult(0).setType(cast<RankedTensorType>(buffer.getType()));
      b.setInsertionPointAfter(last);
      auto copy = StageOp::create(b, loc, TypeRange{type}, last->getResult(0),
                                  /*perm=*/Value(), /*runs=*/Value(),
                                  ValueRange{target});
      copy->setAttr(kPlanAttr, plan);
      last->getResult(0).replaceAllUsesExcept(copy->getResult(0), copy);
    }
  }

private:
  /// The op that adds the next partial sum to the result of `op`, or null.
  static DequantMatmulOp nextPartial(DequantMatmulOp op) {
    Value result = op->getResult(0);
    if (!result.hasOneUse())
      return nullptr;
    auto next = dyn_cast<DequantMatmulOp>(*result.user_begin());
    return next && next.getAccumulate() && next.getInits()[0] == result
               ? next
               : nullptr;
  }
};
} // namespace
