//===- Vectorize.h - What the files of gptq-vectorize share -----*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_LIB_CODEGEN_COMMON_VECTORIZE_H
#define GPTQ_LIB_CODEGEN_COMMON_VECTORIZE_H

#include "gptq/Codegen/Common/VectorBuilder.h"
#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "gptq/Target/Target.h"
#include "mlir/Dialect/Math/IR/Math.h"

namespace mlir::gptq {

/// A matmul on buffers, quantized or dense, as its lowering sees it.
struct MatmulTile {
  Operation *op;
  Value lhs, weight, scales, zeros, offsets, perm, bias, bytes, units, out;
  LayoutAttr layout;
  PlanAttr plan;
  int64_t k, groupSize, zeroPoint;
  Epilogue epilogue;
  bool accumulate;

  /// Columns of the result that one panel yields.
  int64_t panelColumns() const {
    return layout.getBlockN() / (isGated(epilogue) ? 2 : 1);
  }
};

/// `activation` of every lane of `v`.
Value activate(VectorBuilder &b, Activation activation, Value v);

/// cap * tanh(v / cap) of every lane of `v`.
Value softcap(VectorBuilder &b, double cap, Value v);

/// Lowers a matmul whose plan's unit multiplies with whole warps.
LogicalResult vectorizeOnWarps(const MatmulTile &op,
                               const ::gptq::UnitInfo &unit, VectorBuilder &b);

/// Lowers attention where a workgroup has several threads.
LogicalResult vectorizeOnWarps(AttentionOp op, VectorBuilder &b, PlanAttr plan);
LogicalResult vectorizeOnWarps(JoinAttentionOp op, VectorBuilder &b);

/// Lowers the choice of a token that is drawn.
LogicalResult vectorizeTopK(TopKOp op, VectorBuilder &b);
LogicalResult vectorizeSampleToken(SampleTokenOp op, VectorBuilder &b);

/// 1 / sqrt(mean square + epsilon) for a sum of squares over `size` elements.
Value inverseRms(VectorBuilder &b, Value squares, int64_t size, double epsilon);

inline int64_t columnsOf(Value buffer) {
  return cast<MemRefType>(buffer.getType()).getDimSize(1);
}

inline Value rowsOf(VectorBuilder &b, Value buffer) {
  auto type = cast<MemRefType>(buffer.getType());
  if (!type.isDynamicDim(0))
    return b.index(type.getDimSize(0));
  return memref::DimOp::create(b, buffer, 0);
}

inline Value less(VectorBuilder &b, Value x, Value y) {
  return arith::CmpIOp::create(b, arith::CmpIPredicate::slt, x, y);
}
inline Value equal(VectorBuilder &b, Value x, Value y) {
  return arith::CmpIOp::create(b, arith::CmpIPredicate::eq, x, y);
}
inline Value both(VectorBuilder &b, Value x, Value y) {
  return arith::AndIOp::create(b, x, y);
}
inline Value select(VectorBuilder &b, Value condition, Value x, Value y) {
  return arith::SelectOp::create(b, condition, x, y);
}
inline Value exp(VectorBuilder &b, Value x) {
  return math::ExpOp::create(b, x);
}

} // namespace mlir::gptq

#endif // GPTQ_LIB_CODEGEN_COMMON_VECTORIZE_H
