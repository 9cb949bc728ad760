//===- AttentionOnWarps.cpp - Attention shared by a workgroup's threads ---===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "AttentionOnWarps.h"
#include "gptq/Codegen/Common/Plan.h"
#include "mlir/Dialect/GPU/IR/GPUDialect.h"
#include "mlir/Dialect/Math/IR/Math.h"

using namespace mlir;
using namespace mlir::gptq;
using namespace mlir::gptq::attention;

Value mlir::gptq::attention::lowestScore(VectorBuilder &b) {
  return b.f32(-std::numeric_limits<float>::infinity());
}

Value mlir::gptq::attention::finite(VectorBuilder &b, Value highest) {
  Value isNone = arith::CmpFOp::create(b, arith::CmpFPredicate::OEQ, highest,
                                       lowestScore(b));
  return select(b, isNone, b.f32(0.0), highest);
}

Value mlir::gptq::attention::weightOf(VectorBuilder &b, Value score,
                                      Value base) {
  return exp(b, arith::SubFOp::create(b, score, base));
}

Value mlir::gptq::attention::weight2Of(VectorBuilder &b, Value score,
                                       Value base) {
  return math::Exp2Op::create(b, Value(arith::SubFOp::create(b, score, base)));
}

Value mlir::gptq::attention::cappedScore(AttentionOp op, VectorBuilder &b,
                                         Value score) {
  const double cap = op.getSoftcap().convertToDouble();
  if (cap == 0)
    return score;
  return vector::ExtractOp::create(b, softcap(b, cap, b.splat(score, 1)), 0);
}

Value mlir::gptq::attention::firstPosition(AttentionOp op, VectorBuilder &b,
                                           Value end) {
  if (op.getWindow() == 0)
    return b.index(0);
  return arith::MaxSIOp::create(
      b, arith::SubIOp::create(b, end, b.index(op.getWindow())), b.index(0));
}

llvm::Align mlir::gptq::attention::alignmentOf(Value buffer, int64_t width) {
  auto type = cast<MemRefType>(buffer.getType());
  return llvm::Align(
      std::min<int64_t>(16, width * type.getElementTypeBitWidth() / 8));
}

vector::LoadOp mlir::gptq::attention::loadRun(VectorBuilder &b, Value buffer,
                                              ValueRange indices,
                                              int64_t width) {
  auto type = cast<MemRefType>(buffer.getType());
  return vector::LoadOp::create(
      b, VectorType::get({width}, type.getElementType()), buffer, indices,
      /*nontemporal=*/false, alignmentOf(buffer, width));
}

void mlir::gptq::attention::storeRun(VectorBuilder &b, Value vector,
                                     Value buffer, ValueRange indices) {
  auto type = cast<VectorType>(vector.getType());
  Type element = cast<MemRefType>(buffer.getType()).getElementType();
  if (!element.isF32())
    vector = arith::TruncFOp::create(b, type.clone(element), vector);
  vector::StoreOp::create(b, vector, buffer, indices, /*nontemporal=*/false,
                          alignmentOf(buffer, type.getDimSize(0)));
}

LogicalResult mlir::gptq::vectorizeOnWarps(JoinAttentionOp op,
                                           VectorBuilder &b) {
  const int64_t d = op.getHeadDim();
  auto type = cast<MemRefType>(op.getSums().getType());
  if (!type.hasStaticShape())
    return op.emitOpError("expects a static number of parts");
  const int64_t parts = type.getDimSize(0);
  Value zero = b.index(0);
  b.forEachElement(op.getHeads() * d, [&](Value e) {
    Value place = b.mul(b.divide(e, d), 2);
    // All loads are on their way before the first is needed.
    SmallVector<Value> sums, weights, ends;
    for (int64_t i = 0; i < parts; ++i)
      sums.push_back(b.loadScalar(op.getSums(), {b.index(i), e}));
    // A warp has elements of one head where heads are whole warps: a thread
    // computes the weights of every kLanes-th part for all of it.
    const bool shares = d % kLanes == 0;
    Value lane = b.remainder(b.thread, kLanes), most;
    for (int64_t i = 0; i < parts; i += shares ? kLanes : 1) {
      Value number = b.index(i), exists;
      if (shares) {
        number = b.add(lane, i);
        if (i + kLanes > parts) {
          exists = less(b, number, b.index(parts));
          number = arith::MinSIOp::create(b, number, b.index(parts - 1));
        }
      }
      Value pair = loadRun(b, op.getStats(), {number, place}, 2);
      Value highest = vector::ExtractOp::create(b, pair, 0);
      if (exists)
        highest = select(b, exists, highest, lowestScore(b));
      weights.push_back(highest);
      ends.push_back(vector::ExtractOp::create(b, pair, 1));
      most =
          most ? Value(arith::MaximumFOp::create(b, most, highest)) : highest;
    }
    if (shares)
      for (int64_t mask = kLanes / 2; mask > 0; mask /= 2)
        most = arith::MaximumFOp::create(b, most, b.shuffle(most, mask));
    Value total = b.f32(0.0), value = b.f32(0.0);
    for (auto [weight, part] : llvm::zip(weights, ends)) {
      weight = weightOf(b, weight, most);
      total = math::FmaOp::create(b, weight, part, total);
    }
    if (shares)
      for (int64_t mask = kLanes / 2; mask > 0; mask /= 2)
        total = arith::AddFOp::create(b, total, b.shuffle(total, mask));
    auto constant = [&](int64_t number) -> Value {
      return arith::ConstantOp::create(b, b.getI32IntegerAttr(int32_t(number)));
    };
    for (int64_t i = 0; i < parts; ++i) {
      Value weight = weights[shares ? i / kLanes : i];
      if (shares)
        weight = gpu::ShuffleOp::create(b, weight, constant(i % kLanes),
                                        constant(kLanes), gpu::ShuffleMode::IDX)
                     .getShuffleResult();
      // A part without positions has written no sums: what lies there may be
      // anything.
      Value isNone = arith::CmpFOp::create(b, arith::CmpFPredicate::OEQ, weight,
                                           b.f32(0.0));
      value = math::FmaOp::create(
          b, weight, select(b, isNone, b.f32(0.0), sums[i]), value);
    }
    value = arith::DivFOp::create(b, value, total);
    b.store(b.splat(value, 1), op.getInits()[0], {zero, e});
  });
  return success();
}

LogicalResult mlir::gptq::vectorizeOnWarps(AttentionOp op, VectorBuilder &b,
                                           PlanAttr plan) {
  if (op.getKvHeads() != 1)
    return op.emitOpError("expects one head of the caches in a workgroup, but "
                          "found ")
           << op.getKvHeads();
  if (plan.getRows() > 1)
    return vectorizeTiles(op, b);
  return vectorizeRow(op, b);
}
