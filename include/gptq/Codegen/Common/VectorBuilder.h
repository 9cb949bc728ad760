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
#include "mlir/Dialect/GPU/IR/GPUDialect.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"

namespace mlir::gptq {

/// Writes code on f32 vectors of a fixed number of lanes. Where a workgroup has
/// several threads they take turns at chunks, and a sum over chunks is one over
/// all threads; everything else they all do.
class VectorBuilder : public ImplicitLocOpBuilder {
public:
  VectorBuilder(Operation *before, int64_t lanes, int64_t threads = 1)
      : ImplicitLocOpBuilder(before->getLoc(), before), lanes(lanes),
        threads(threads) {
    if (threads > 1)
      thread = gpu::ThreadIdOp::create(*this, gpu::Dimension::x);
  }

  const int64_t lanes;

  /// The threads that share the work here, and which one this is: those of the
  /// workgroup, or inside `forEachPart` those of a warp.
  int64_t threads;
  Value thread;

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
  Value divide(Value a, int64_t b) {
    return b == 1 ? a : Value(arith::DivUIOp::create(*this, a, index(b)));
  }
  Value remainder(Value a, int64_t b) {
    return arith::RemUIOp::create(*this, a, index(b));
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
    if (threads > 1) {
      forThreads(whole, [&](Value at) { body(at, lanes); });
      if (whole != size)
        onFirstThread([&] { body(index(whole), size - whole); });
      return;
    }
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
    if (threads > 1)
      return sumOverThreads(size, whole, term);
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

  /// Runs `body(i)` for every i below `count`, each on one thread.
  void forEachElement(int64_t count, function_ref<void(Value)> body) {
    if (threads == 1)
      return forEach(index(count), body);
    auto loop = scf::ForOp::create(*this, thread, index(count), index(threads));
    OpBuilder::InsertionGuard guard(*this);
    setInsertionPointToStart(loop.getBody());
    body(loop.getInductionVar());
  }

  /// Runs `body(i)` for every i below `count`. The iterations do not depend on
  /// each other: warps share them, and the threads of a warp share the body.
  void forEachPart(int64_t count, function_ref<void(Value)> body) {
    if (threads == 1)
      return forEach(index(count), body);
    Value outer = thread;
    const int64_t all = threads;
    Value warp = arith::DivUIOp::create(*this, thread, index(kWarpThreads));
    auto loop = scf::ForOp::create(*this, warp, index(count),
                                   index(all / kWarpThreads));
    OpBuilder::InsertionGuard guard(*this);
    setInsertionPointToStart(loop.getBody());
    thread = arith::RemUIOp::create(*this, outer, index(kWarpThreads));
    threads = kWarpThreads;
    body(loop.getInductionVar());
    thread = outer;
    threads = all;
  }

  /// The sum of `value` over the threads that share the work, on each of them,
  /// always added in the same order.
  Value allReduce(Value value) {
    for (int64_t offset = kWarpThreads / 2; offset > 0; offset /= 2)
      value = arith::AddFOp::create(*this, value, shuffle(value, offset));
    const int64_t warps = threads / kWarpThreads;
    if (warps == 1)
      return value;
    Value room = workgroupBuffer({warps});
    Value lane = arith::RemUIOp::create(*this, thread, index(kWarpThreads));
    Value warp = arith::DivUIOp::create(*this, thread, index(kWarpThreads));
    Value isFirst =
        arith::CmpIOp::create(*this, arith::CmpIPredicate::eq, lane, index(0));
    auto store = scf::IfOp::create(*this, isFirst);
    {
      OpBuilder::InsertionGuard guard(*this);
      setInsertionPointToStart(store.thenBlock());
      memref::StoreOp::create(*this, value, room, ValueRange{warp});
    }
    gpu::BarrierOp::create(*this);
    Value sum = memref::LoadOp::create(*this, room, ValueRange{index(0)});
    for (int64_t i = 1; i < warps; ++i)
      sum = arith::AddFOp::create(
          *this, sum,
          memref::LoadOp::create(*this, room, ValueRange{index(i)}));
    // The room may be written again.
    gpu::BarrierOp::create(*this);
    return sum;
  }

  /// `value` of the thread whose number differs in the bits of `mask`.
  Value shuffle(Value value, int64_t mask) {
    return gpu::ShuffleOp::create(*this, value, int32_t(mask),
                                  int32_t(kWarpThreads), gpu::ShuffleMode::XOR)
        .getShuffleResult();
  }

  /// A buffer in workgroup memory, of f32 where nothing else is said.
  Value workgroupBuffer(ArrayRef<int64_t> shape, Type element = Type()) {
    auto space =
        gpu::AddressSpaceAttr::get(getContext(), gpu::AddressSpace::Workgroup);
    return memref::AllocOp::create(
        *this, MemRefType::get(shape, element ? element : getF32Type(),
                               MemRefLayoutAttrInterface(), space));
  }

  /// Waits until all threads of the workgroup have written what they had to.
  void barrier() {
    if (threads > 1)
      gpu::BarrierOp::create(*this);
  }

  /// Runs `body` on the first of the threads that share the work.
  void onFirstThread(function_ref<void()> body) {
    if (threads == 1)
      return body();
    Value isFirst = arith::CmpIOp::create(*this, arith::CmpIPredicate::eq,
                                          thread, index(0));
    auto only = scf::IfOp::create(*this, isFirst);
    OpBuilder::InsertionGuard guard(*this);
    setInsertionPointToStart(only.thenBlock());
    body();
  }

  /// Threads that run in step and can exchange registers.
  static constexpr int64_t kWarpThreads = 32;

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
  /// Runs `body(at)` at every multiple of `lanes` below `size`, threads in
  /// turn.
  void forThreads(int64_t size, function_ref<void(Value)> body) {
    if (size == 0)
      return;
    auto loop = scf::ForOp::create(*this, mul(thread, lanes), index(size),
                                   index(threads * lanes));
    OpBuilder::InsertionGuard guard(*this);
    setInsertionPointToStart(loop.getBody());
    body(loop.getInductionVar());
  }

  Value sumOverThreads(int64_t size, int64_t whole,
                       function_ref<Value(Value, int64_t)> term) {
    auto loop = scf::ForOp::create(*this, mul(thread, lanes), index(whole),
                                   index(threads * lanes),
                                   ValueRange{zeros(vectorType(lanes))});
    {
      OpBuilder::InsertionGuard guard(*this);
      setInsertionPointToStart(loop.getBody());
      Value sum = arith::AddFOp::create(*this, loop.getRegionIterArg(0),
                                        term(loop.getInductionVar(), lanes));
      scf::YieldOp::create(*this, ValueRange{sum});
    }
    Value sum = reduce(loop.getResult(0));
    if (whole != size) {
      Value isFirst = arith::CmpIOp::create(*this, arith::CmpIPredicate::eq,
                                            thread, index(0));
      auto rest = scf::IfOp::create(*this, TypeRange{getF32Type()}, isFirst,
                                    /*withElseRegion=*/true);
      OpBuilder::InsertionGuard guard(*this);
      setInsertionPointToStart(rest.thenBlock());
      Value more = arith::AddFOp::create(
          *this, sum, reduce(term(index(whole), size - whole)));
      scf::YieldOp::create(*this, ValueRange{more});
      setInsertionPointToStart(rest.elseBlock());
      scf::YieldOp::create(*this, ValueRange{sum});
      sum = rest.getResult(0);
    }
    return allReduce(sum);
  }

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
