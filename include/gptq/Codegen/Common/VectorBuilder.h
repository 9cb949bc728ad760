//===- VectorBuilder.h - Loops over vectors ---------------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Small helpers to write loops over vectors, shared by the lowerings of ops.
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_CODEGEN_COMMON_VECTORBUILDER_H
#define GPTQ_CODEGEN_COMMON_VECTORBUILDER_H

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"

namespace mlir::gptq {

/// Writes code on f32 vectors of a fixed number of lanes.
class VectorBuilder : public ImplicitLocOpBuilder {
public:
  VectorBuilder(Operation *before, int64_t lanes)
      : ImplicitLocOpBuilder(before->getLoc(), before), lanes(lanes) {}

  const int64_t lanes;

  VectorType vectorType(int64_t width) {
    return VectorType::get({width}, getF32Type());
  }
  Value index(int64_t value) {
    return arith::ConstantIndexOp::create(*this, value);
  }
  Value f32(double value) {
    return arith::ConstantOp::create(*this, getF32FloatAttr(value));
  }
  Value zeros(Type type) {
    return arith::ConstantOp::create(*this, getZeroAttr(type));
  }
  Value add(Value a, Value b) { return arith::AddIOp::create(*this, a, b); }
  Value add(Value a, int64_t b) { return b ? add(a, index(b)) : a; }
  Value mul(Value a, int64_t b) {
    return b == 1 ? a : Value(arith::MulIOp::create(*this, a, index(b)));
  }
  Value splat(Value scalar, int64_t width) {
    return vector::BroadcastOp::create(*this, vectorType(width), scalar);
  }

  /// `value` (a float, or a vector of any float) as f32.
  Value toF32(Value value) {
    Type element = getElementTypeOrSelf(value.getType());
    if (element.isF32())
      return value;
    Type type = getF32Type();
    if (auto vector = dyn_cast<VectorType>(value.getType()))
      type = vector.clone(type);
    return arith::ExtFOp::create(*this, type, value);
  }

  /// `width` consecutive elements of `buffer` as f32.
  Value load(Value buffer, ValueRange indices, int64_t width) {
    auto type = cast<MemRefType>(buffer.getType());
    return toF32(vector::LoadOp::create(
        *this, VectorType::get({width}, type.getElementType()), buffer,
        indices));
  }
  Value loadScalar(Value buffer, ValueRange indices) {
    return toF32(memref::LoadOp::create(*this, buffer, indices));
  }

  /// Stores f32 `vector` in the element type of `buffer`.
  void store(Value vector, Value buffer, ValueRange indices) {
    vector::StoreOp::create(*this, toElementOf(vector, buffer), buffer,
                            indices);
  }
  /// The same for the first `count` lanes.
  void storeFirst(Value vector, Value buffer, ValueRange indices, Value count) {
    vector::MaskedStoreOp::create(
        *this, buffer, indices,
        firstLanes(cast<VectorType>(vector.getType()), count),
        toElementOf(vector, buffer));
  }
  /// The first `count` of `width` elements of `buffer` as f32, then zeros.
  Value loadFirst(Value buffer, ValueRange indices, int64_t width,
                  Value count) {
    auto type = VectorType::get(
        {width}, cast<MemRefType>(buffer.getType()).getElementType());
    return toF32(vector::MaskedLoadOp::create(
        *this, type, buffer, indices, firstLanes(type, count), zeros(type)));
  }

  /// Runs `body(offset, width)` over [0, size) in vectors, then once for the
  /// rest that fills none.
  void forChunks(int64_t size, function_ref<void(Value, int64_t)> body) {
    int64_t whole = size / lanes * lanes;
    if (whole == lanes) {
      body(index(0), lanes);
    } else if (whole > 0) {
      auto loop =
          scf::ForOp::create(*this, index(0), index(whole), index(lanes));
      OpBuilder::InsertionGuard guard(*this);
      setInsertionPointToStart(loop.getBody());
      body(loop.getInductionVar(), lanes);
    }
    if (whole != size)
      body(index(whole), size - whole);
  }

  /// The sum over [0, size) of `term(offset, width)`, a vector of f32.
  Value sumChunks(int64_t size, function_ref<Value(Value, int64_t)> term) {
    int64_t whole = size / lanes * lanes;
    Value sum;
    if (whole > 0) {
      // Four sums where they come out even: an addition takes 3 or 4 cycles.
      const int64_t count = whole % (4 * lanes) == 0 ? 4 : 1;
      auto loop = scf::ForOp::create(
          *this, index(0), index(whole), index(count * lanes),
          SmallVector<Value>(count, zeros(vectorType(lanes))));
      {
        OpBuilder::InsertionGuard guard(*this);
        setInsertionPointToStart(loop.getBody());
        SmallVector<Value> next;
        for (int64_t i = 0; i < count; ++i)
          next.push_back(arith::AddFOp::create(
              *this, loop.getRegionIterArg(i),
              term(add(loop.getInductionVar(), i * lanes), lanes)));
        scf::YieldOp::create(*this, next);
      }
      SmallVector<Value> parts(loop.getResults());
      for (; parts.size() > 1; parts.resize(parts.size() / 2))
        for (size_t i = 0, half = parts.size() / 2; i < half; ++i)
          parts[i] = arith::AddFOp::create(*this, parts[i], parts[i + half]);
      sum = reduce(parts.front());
    }
    if (whole != size) {
      Value rest = reduce(term(index(whole), size - whole));
      sum = sum ? Value(arith::AddFOp::create(*this, sum, rest)) : rest;
    }
    return sum;
  }

  /// The sum of all lanes.
  Value reduce(Value vector) {
    // A tree: the order is fixed by the width, and latency is logarithmic.
    auto type = cast<VectorType>(vector.getType());
    int64_t width = type.getDimSize(0);
    while (width > 1 && width % 2 == 0) {
      Value low = vector::ExtractStridedSliceOp::create(
          *this, vector, ArrayRef<int64_t>{0}, ArrayRef<int64_t>{width / 2},
          ArrayRef<int64_t>{1});
      Value high = vector::ExtractStridedSliceOp::create(
          *this, vector, ArrayRef<int64_t>{width / 2},
          ArrayRef<int64_t>{width / 2}, ArrayRef<int64_t>{1});
      vector = arith::AddFOp::create(*this, low, high);
      width /= 2;
    }
    Value sum = vector::ExtractOp::create(*this, vector, 0);
    for (int64_t i = 1; i < width; ++i)
      sum = arith::AddFOp::create(*this, sum,
                                  vector::ExtractOp::create(*this, vector, i));
    return sum;
  }

  /// Runs `body(row)` for every row in [0, count).
  void forEach(Value count, function_ref<void(Value)> body) {
    forRange(index(0), count, 1, body);
  }
  void forRange(Value from, Value to, int64_t step,
                function_ref<void(Value)> body) {
    auto loop = scf::ForOp::create(*this, from, to, index(step));
    OpBuilder::InsertionGuard guard(*this);
    setInsertionPointToStart(loop.getBody());
    body(loop.getInductionVar());
  }

private:
  Value toElementOf(Value vector, Value buffer) {
    Type element = cast<MemRefType>(buffer.getType()).getElementType();
    auto type = cast<VectorType>(vector.getType());
    if (type.getElementType() == element)
      return vector;
    return arith::TruncFOp::create(*this, type.clone(element), vector);
  }

  /// A mask of the lanes below `count`.
  Value firstLanes(VectorType type, Value count) {
    int64_t width = type.getDimSize(0);
    SmallVector<int32_t> lanes(width);
    for (int64_t i = 0; i < width; ++i)
      lanes[i] = i;
    auto i32 = VectorType::get({width}, getI32Type());
    Value step = arith::ConstantOp::create(
        *this, DenseElementsAttr::get(i32, ArrayRef<int32_t>(lanes)));
    Value limit = vector::BroadcastOp::create(
        *this, i32, arith::IndexCastOp::create(*this, getI32Type(), count));
    return arith::CmpIOp::create(*this, arith::CmpIPredicate::slt, step, limit);
  }
};

} // namespace mlir::gptq

#endif // GPTQ_CODEGEN_COMMON_VECTORBUILDER_H
