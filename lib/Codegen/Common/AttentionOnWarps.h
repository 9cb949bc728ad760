//===- AttentionOnWarps.h - What lowerings of attention share ---*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_LIB_CODEGEN_COMMON_ATTENTIONONWARPS_H
#define GPTQ_LIB_CODEGEN_COMMON_ATTENTIONONWARPS_H

#include "Vectorize.h"

namespace mlir::gptq::attention {

inline constexpr int64_t kLanes = VectorBuilder::kWarpThreads;

/// Lowers attention of one row over the context or a part of it.
LogicalResult vectorizeRow(AttentionOp op, VectorBuilder &b);

/// Lowers attention of several rows, on a matrix unit.
LogicalResult vectorizeTiles(AttentionOp op, VectorBuilder &b);

/// What a position that does not count scores.
Value lowestScore(VectorBuilder &b);

/// `highest`, or where there was no position yet anything that exponentials may
/// be relative to: those of no position are then 0.
Value finite(VectorBuilder &b, Value highest);

/// exp(score - base).
Value weightOf(VectorBuilder &b, Value score, Value base);

/// 2^(score - base).
Value weight2Of(VectorBuilder &b, Value score, Value base);

/// `score`, bent where the op has a cap.
Value cappedScore(AttentionOp op, VectorBuilder &b, Value score);

/// The first position row p attends to, if `end` = p + 1.
Value firstPosition(AttentionOp op, VectorBuilder &b, Value end);

/// Bytes a run of `width` elements of `buffer` is aligned to where it starts at
/// a multiple of its length, as rows and heads do.
llvm::Align alignmentOf(Value buffer, int64_t width);

/// Such a run.
vector::LoadOp loadRun(VectorBuilder &b, Value buffer, ValueRange indices,
                       int64_t width);

/// Stores f32 `vector` as such a run of any type.
void storeRun(VectorBuilder &b, Value vector, Value buffer, ValueRange indices);

} // namespace mlir::gptq::attention

#endif // GPTQ_LIB_CODEGEN_COMMON_ATTENTIONONWARPS_H
