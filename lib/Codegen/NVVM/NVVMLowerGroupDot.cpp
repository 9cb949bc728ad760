//===- NVVMLowerGroupDot.cpp - The inner loop on matrix units -------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Fragments are those of WeightFragments.h.
//
//===----------------------------------------------------------------------===//

#include "NVVMOperands.h"
#include "WeightFragments.h"
#include "gptq/Codegen/Common/Plan.h"
#include "gptq/Codegen/Common/VectorBuilder.h"
#include "gptq/Codegen/NVVM/Passes.h"
#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Interfaces/FunctionInterfaces.h"

namespace mlir::gptq {
#define GEN_PASS_DEF_NVVMLOWERGROUPDOTPASS
#include "gptq/Codegen/NVVM/Passes.h.inc"
} // namespace mlir::gptq

using namespace mlir;
using namespace mlir::gptq;

using Fragments = ::gptq::MatrixFragments;
static constexpr int64_t kChunkRows = Fragments::chunkRows;
static constexpr int64_t kStepRows = Fragments::stepRows;
static constexpr int64_t kTileRows = Fragments::tileRows;
static constexpr int64_t kRowsPerThread = Fragments::rowsPerThread;
static constexpr int64_t kPerLoad = Fragments::rowsPerLoad;

/// Columns of a warp beside which sums that wait have registers.
static constexpr int64_t kFewColumns = 2 * Fragments::tileColumns;

namespace {

/// The B registers of a thread: [step][row tile] -> two pairs.
using Pairs = std::array<Value, 2>;
struct Activations {
  SmallVector<SmallVector<Pairs>> steps;
  /// The sum over all steps of this thread's two rows of every tile.
  SmallVector<Value> sums;
};

/// What identifies activations that several panels share.
using ActivationKey =
    std::tuple<Block *, Value, Value, Value, int64_t, int64_t>;

class MatrixLowering {
public:
  /// `m16n8k8`: the unit takes half a step at a time.
  MatrixLowering(VectorBuilder &b, bool isHalfStep)
      : b(b), isHalfStep(isHalfStep) {}

  Activations load(Value x, Value row, Value k0, int64_t depth,
                   int64_t rowTiles);
  /// Adds a * b to four sums.
  void multiply(ArrayRef<Value> a, const Pairs &pairs,
                MutableArrayRef<Value> sums);
  LogicalResult dot(GroupDotOp op, const Activations &x);
  void sum(GroupSumOp op, const Activations &x);

private:
  Value part(Value vector, int64_t at) {
    return vector::ExtractStridedSliceOp::create(
        b, vector, ArrayRef<int64_t>{at}, ArrayRef<int64_t>{2},
        ArrayRef<int64_t>{1});
  }
  Value constantPair(FloatType type, double value) {
    return arith::ConstantOp::create(
        b, DenseElementsAttr::get(VectorType::get({2}, type),
                                  b.getFloatAttr(type, value)));
  }

  VectorBuilder &b;
  bool isHalfStep;
};

} // namespace

Activations MatrixLowering::load(Value x, Value row, Value k0, int64_t depth,
                                 int64_t rowTiles) {
  auto memref = cast<MemRefType>(x.getType());
  auto type = cast<FloatType>(memref.getElementType());
  Value lane = gpu::LaneIdOp::create(b, /*upper_bound=*/IntegerAttr());
  Value g = arith::DivUIOp::create(b, lane, b.index(4));
  Value t = arith::RemUIOp::create(b, lane, b.index(4));
  Value m = memref.isDynamicDim(0) ? Value(memref::DimOp::create(b, x, 0))
                                   : b.index(memref.getDimSize(0));
  Value last = arith::SubIOp::create(b, m, b.index(1));
  SmallVector<Value> rows;
  // Rows that do not exist are the last one: their sums are not stored.
  for (int64_t tile = 0; tile < rowTiles; ++tile)
    rows.push_back(arith::MinUIOp::create(
        b, b.add(row, b.add(g, tile * kTileRows)), last));

  Activations result;
  auto vector = VectorType::get({kPerLoad}, type);
  const llvm::Align alignment = alignmentOf(x, b.add(k0, b.mul(t, kPerLoad)));
  for (int64_t at = 0; at < depth; at += kChunkRows) {
    Value column = b.add(b.add(k0, b.mul(t, kPerLoad)), at);
    SmallVector<Value> loaded;
    for (Value r : rows) {
      if (at + kChunkRows <= depth) {
        loaded.push_back(
            vector::LoadOp::create(b, vector, x, ValueRange{r, column},
                                   /*nontemporal=*/false, alignment));
        continue;
      }
      // Past the end of K there is nothing: zeros, one element at a time.
      Value left =
          arith::SubIOp::create(b, b.index(depth - at), b.mul(t, kPerLoad));
      Value whole = b.zeros(vector);
      for (int64_t i = 0; i < kPerLoad; ++i) {
        Value exists = arith::CmpIOp::create(b, arith::CmpIPredicate::sgt, left,
                                             b.index(i));
        auto read = scf::IfOp::create(b, TypeRange{type}, exists,
                                      /*withElseRegion=*/true);
        OpBuilder::InsertionGuard guard(b);
        b.setInsertionPointToStart(read.thenBlock());
        scf::YieldOp::create(b, ValueRange{memref::LoadOp::create(
                                    b, x, ValueRange{r, b.add(column, i)})});
        b.setInsertionPointToStart(read.elseBlock());
        scf::YieldOp::create(b, ValueRange{arith::ConstantOp::create(
                                    b, b.getFloatAttr(type, 0))});
        b.setInsertionPointAfter(read);
        whole = vector::InsertOp::create(b, read.getResult(0), whole, i);
      }
      loaded.push_back(whole);
    }
    for (int64_t s = 0; s < Fragments::stepsPerChunk; ++s) {
      SmallVector<Pairs> tiles;
      for (Value v : loaded)
        tiles.push_back({part(v, 4 * s), part(v, 4 * s + 2)});
      result.steps.push_back(tiles);
    }
  }
  // Ones times the activations: every sum of a row of the tile is the same.
  Value one = constantPair(type, 1.0);
  for (int64_t tile = 0; tile < rowTiles; ++tile) {
    SmallVector<Value> sums(4, b.f32(0.0));
    for (auto &step : result.steps)
      multiply({one, one, one, one}, step[tile], sums);
    result.sums.append({sums[0], sums[1]});
  }
  return result;
}

void MatrixLowering::multiply(ArrayRef<Value> a, const Pairs &pairs,
                              MutableArrayRef<Value> sums) {
  auto type = cast<VectorType>(a[0].getType());
  const bool isBF16 = type.getElementType().isBF16();
  auto operand = [&](Value v) -> Value {
    return isBF16 ? Value(LLVM::BitcastOp::create(b, b.getI32Type(), v)) : v;
  };
  auto once = [&](ArrayRef<Value> left, ArrayRef<Value> right, int64_t k) {
    SmallVector<Value> l, r;
    for (Value v : left)
      l.push_back(operand(v));
    for (Value v : right)
      r.push_back(operand(v));
    Type f32 = b.getF32Type();
    auto result =
        LLVM::LLVMStructType::getLiteral(b.getContext(), {f32, f32, f32, f32});
    auto element = isBF16 ? NVVM::MMATypes::bf16 : NVVM::MMATypes::f16;
    Value product = NVVM::MmaOp::create(
        b, result, l, r, ValueRange(sums), ArrayRef<int64_t>{16, 8, k},
        /*b1Op=*/std::nullopt, /*intOverflow=*/std::nullopt,
        std::array<NVVM::MMATypes, 2>{element, element},
        std::array<NVVM::MMALayout, 2>{NVVM::MMALayout::row,
                                       NVVM::MMALayout::col});
    for (int64_t i = 0; i < 4; ++i)
      sums[i] = LLVM::ExtractValueOp::create(b, product, i);
  };
  if (!isHalfStep)
    return once(a, pairs, kStepRows);
  once(a.take_front(2), pairs[0], kStepRows / 2);
  once(a.drop_front(2), pairs[1], kStepRows / 2);
}

LogicalResult MatrixLowering::dot(GroupDotOp op, const Activations &x) {
  FailureOr<WeightFragments> weights = WeightFragments::create(op, b);
  if (failed(weights))
    return failure();
  auto tileType = cast<VectorType>(op.getAcc().getType());
  const int64_t rowTiles = tileType.getDimSize(0) / kRowsPerThread;
  // Sums of a tile: [2 h + i]. What depends on the sum of the activations is
  // added at the end, so that the products need not wait for it: with one tile
  // of rows, where nothing else hides that. With several rows and many tiles of
  // columns registers are short.
  const PlanAttr plan = op.getPlan();
  const bool isApart =
      plan.getMMax() == 1 || (plan.getFirstBytes() > 0 && rowTiles == 1 &&
                              plan.getColumns() <= kFewColumns);
  SmallVector<SmallVector<Value>> sums(rowTiles, SmallVector<Value>(4));
  SmallVector<SmallVector<Value>> others(rowTiles, SmallVector<Value>(4));
  for (int64_t tile = 0; tile < rowTiles; ++tile)
    for (int64_t h = 0; h < 2; ++h)
      for (int64_t i = 0; i < kRowsPerThread; ++i) {
        Value &sum = sums[tile][2 * h + i];
        sum = vector::ExtractOp::create(
            b, op.getAcc(), ArrayRef<int64_t>{tile * kRowsPerThread + i, h});
        if (weights->added(h) == 0)
          continue;
        Value added =
            math::FmaOp::create(b, b.f32(-weights->added(h)),
                                x.sums[tile * kRowsPerThread + i], sum);
        if (isApart)
          others[tile][2 * h + i] = added;
        sum = isApart ? Value(b.f32(0.0)) : added;
      }

  for (int64_t block = 0; block < weights->numBlocks(); ++block) {
    auto steps = weights->unpack(block, weights->load(block));
    if (failed(steps))
      return failure();
    for (const WeightFragments::Step &step : *steps) {
      // Blocks may be longer than what is left of a group.
      if (step.number >= int64_t(x.steps.size()))
        continue;
      for (int64_t tile = 0; tile < rowTiles; ++tile)
        multiply(step.a, x.steps[step.number][tile], sums[tile]);
    }
  }
  Value result = b.zeros(tileType);
  for (int64_t tile = 0; tile < rowTiles; ++tile)
    for (int64_t h = 0; h < 2; ++h)
      for (int64_t i = 0; i < kRowsPerThread; ++i) {
        Value sum = sums[tile][2 * h + i];
        if (Value other = others[tile][2 * h + i])
          sum = arith::AddFOp::create(b, sum, other);
        result = vector::InsertOp::create(
            b, sum, result, ArrayRef<int64_t>{tile * kRowsPerThread + i, h});
      }
  op.getResult().replaceAllUsesWith(result);
  op.erase();
  return success();
}

void MatrixLowering::sum(GroupSumOp op, const Activations &x) {
  auto type = cast<VectorType>(op.getResult().getType());
  Value result = b.zeros(type);
  for (int64_t i = 0; i < type.getDimSize(0); ++i)
    result = vector::InsertOp::create(b, x.sums[i], result, i);
  op.getResult().replaceAllUsesWith(result);
  op.erase();
}

/// One instruction.
static void lower(FragmentDotOp op) {
  VectorBuilder b(op, /*lanes=*/1);
  auto pairsOf = [&](Value fragment) {
    SmallVector<Value> pairs;
    for (int64_t i = 0; i < cast<VectorType>(fragment.getType()).getDimSize(0);
         ++i)
      pairs.push_back(vector::ExtractOp::create(b, fragment, i));
    return pairs;
  };
  SmallVector<Value> sums;
  for (int64_t i = 0; i < 4; ++i)
    sums.push_back(vector::ExtractOp::create(b, op.getAcc(),
                                             ArrayRef<int64_t>{i / 2, i % 2}));
  SmallVector<Value> right = pairsOf(op.getB());
  MatrixLowering(b, /*isHalfStep=*/false)
      .multiply(pairsOf(op.getA()), {right[0], right[1]}, sums);
  Value result = b.zeros(op.getResult().getType());
  for (int64_t i = 0; i < 4; ++i)
    result = vector::InsertOp::create(b, sums[i], result,
                                      ArrayRef<int64_t>{i / 2, i % 2});
  op.getResult().replaceAllUsesWith(result);
  op.erase();
}

namespace {
struct NVVMLowerGroupDotPass final
    : mlir::gptq::impl::NVVMLowerGroupDotPassBase<NVVMLowerGroupDotPass> {
  using Base::Base;

  void runOnOperation() override {
    getOperation()->walk([](FragmentDotOp op) { lower(op); });
    SmallVector<Operation *> ops;
    getOperation()->walk([&](Operation *op) {
      if (isa<GroupDotOp, GroupSumOp>(op))
        ops.push_back(op);
    });
    // Panels that are multiplied by the same activations share their loads:
    // those of the first op in a block are in front of all others.
    llvm::MapVector<ActivationKey, Activations> loaded;
    for (Operation *op : ops) {
      auto dot = dyn_cast<GroupDotOp>(op);
      auto sum = dyn_cast<GroupSumOp>(op);
      PlanAttr plan = dot ? dot.getPlan() : sum.getPlan();
      Value x = dot ? dot.getX() : sum.getX();
      Type type = cast<MemRefType>(x.getType()).getElementType();
      if (!usesMatrixUnit(plan) || (!type.isF16() && !type.isBF16()) ||
          (dot ? dot.getPerm() : sum.getPerm())) {
        op->emitOpError("expects a matrix unit, activations of f16 or bf16 and "
                        "no permutation");
        return signalPassFailure();
      }
      if (dot && dot.getOffset()) {
        op->emitOpError("expects offsets to be folded into the sums, as "
                        "gptq-fold-offsets does");
        return signalPassFailure();
      }
      VectorBuilder b(op, plan.getLanes());
      MatrixLowering lowering(b, plan.getUnit() == "mma_m16n8k8");
      Value row = dot ? dot.getRow() : sum.getRow();
      Value k0 = dot ? dot.getK0() : sum.getK0();
      const int64_t depth = dot ? dot.getDepth() : sum.getDepth();
      const int64_t rowTiles = plan.getRows() / kTileRows;
      ActivationKey key{op->getBlock(), x, row, k0, depth, rowTiles};
      auto it = loaded.find(key);
      if (it == loaded.end())
        it = loaded.insert({key, lowering.load(x, row, k0, depth, rowTiles)})
                 .first;
      const Activations activations = it->second;
      if (sum)
        lowering.sum(sum, activations);
      else if (failed(lowering.dot(dot, activations)))
        return signalPassFailure();
    }
  }
};
} // namespace
