//===- DecodeEntry.cpp - One token at a time on a device ------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What is done to the model for calls of one row, before it is planned.
//
//===----------------------------------------------------------------------===//

#include "gptq/Codegen/Common/Passes.h"
#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/Utils/StaticValueUtils.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/PatternMatch.h"
#include "mlir/IR/Remarks.h"
#include "llvm/Support/MathExtras.h"

namespace mlir::gptq {
#define GEN_PASS_DEF_ADDNEXTPASS
#define GEN_PASS_DEF_SPLITCONTEXTPASS
#define GEN_PASS_DEF_FUSEROTARYPASS
#include "gptq/Codegen/Common/Passes.h.inc"
} // namespace mlir::gptq

using namespace mlir;
using namespace mlir::gptq;

/// `type` for one row where its number of rows, M, was open.
static Type oneRow(Type type) {
  auto tensor = dyn_cast<RankedTensorType>(type);
  if (!tensor || tensor.getRank() == 0 || !tensor.isDynamicDim(0))
    return type;
  SmallVector<int64_t> shape(tensor.getShape());
  shape[0] = 1;
  return tensor.clone(shape);
}

/// Makes `entry` one for a single row.
static LogicalResult fixOneRow(func::FuncOp entry) {
  Block &body = entry.getBody().front();
  for (BlockArgument arg : body.getArguments())
    arg.setType(oneRow(arg.getType()));
  IRRewriter b(entry.getContext());
  SmallVector<Operation *> ops;
  entry.walk([&](Operation *op) { ops.push_back(op); });
  for (Operation *op : ops) {
    if (op == entry)
      continue;
    b.setInsertionPoint(op);
    if (auto dim = dyn_cast<tensor::DimOp>(op)) {
      b.replaceOpWithNewOp<arith::ConstantIndexOp>(dim, 1);
      continue;
    }
    if (auto empty = dyn_cast<tensor::EmptyOp>(op)) {
      auto type = cast<RankedTensorType>(oneRow(empty.getType()));
      if (!type.hasStaticShape())
        return empty.emitError(
            "expects only the first dimension to be dynamic");
      b.replaceOpWithNewOp<tensor::EmptyOp>(empty, type.getShape(),
                                            type.getElementType());
      continue;
    }
    // A slice of rows is one of the only row.
    if (auto slice = dyn_cast<tensor::ExtractSliceOp>(op)) {
      SmallVector<OpFoldResult> offsets = slice.getMixedOffsets(),
                                sizes = slice.getMixedSizes();
      offsets[0] = b.getIndexAttr(0);
      sizes[0] = b.getIndexAttr(1);
      b.replaceOpWithNewOp<tensor::ExtractSliceOp>(
          slice, cast<RankedTensorType>(oneRow(slice.getType())),
          slice.getSource(), offsets, sizes, slice.getMixedStrides());
      continue;
    }
    for (OpResult result : op->getResults())
      result.setType(oneRow(result.getType()));
  }
  entry.setType(b.getFunctionType(body.getArgumentTypes(),
                                  body.getTerminator()->getOperandTypes()));
  entry->setAttr(kMaxRowsAttr, b.getI64IntegerAttr(1));
  return success();
}

/// Parts of a context, at most: each thread that joins them holds what it needs
/// of all; and the positions that are worth one.
static constexpr int64_t kMostParts = 64, kLeastPositions = 64;
/// Logits of a part of the vocabulary, at least.
static constexpr int64_t kLeastColumns = 1024;
/// Where the k largest are searched: the logits that a workgroup sorts, one for
/// each of two threads to compare; those of sorted runs that one merges, or the
/// last one, which draws; and k at most, so that either are several runs.
static constexpr int64_t kSortedColumns = 1024, kMergedColumns = 2048,
                         kMostTopK = 512;

/// A copy of `generate` for one token.
static FailureOr<func::FuncOp>
cloneForOneToken(OpBuilder &b, func::FuncOp generate, StringRef name) {
  auto entry = cast<func::FuncOp>(b.clone(*generate));
  entry.setSymName(name);
  if (failed(fixOneRow(entry)))
    return failure();
  return entry;
}

/// Makes the type of `entry` say that the token is its first result.
static LogicalResult insertToken(func::FuncOp entry, Type type) {
  Builder b(entry.getContext());
  return entry.insertResult(
      0, type,
      b.getDictionaryAttr(b.getNamedAttr(kNameAttr, b.getStringAttr("token"))));
}

namespace {
struct AddNextPass final : mlir::gptq::impl::AddNextPassBase<AddNextPass> {
  using Base::Base;

  void runOnOperation() override {
    ModuleOp module = getOperation();
    auto generate = module.lookupSymbol<func::FuncOp>("generate");
    if (!generate || !generate->hasAttr(kMaxRowsAttr))
      return;
    Operation *end = generate.getBody().front().getTerminator();
    auto logits = end->getNumOperands() == 1
                      ? dyn_cast<RankedTensorType>(end->getOperand(0).getType())
                      : RankedTensorType();
    auto tokens =
        generate.getNumArguments() > 0
            ? dyn_cast<RankedTensorType>(generate.getArgumentTypes().front())
            : RankedTensorType();
    auto isIndex = [](Type type) { return type.isIndex(); };
    if (!logits || logits.getRank() != 2 || logits.getDimSize(0) != 1 ||
        !logits.getElementType().isF32() || !tokens || tokens.getRank() != 1 ||
        !tokens.getElementType().isInteger(32) ||
        llvm::count_if(generate.getArgumentTypes(), isIndex) != 1) {
      generate.emitError("expects the entry generate to take tokens and their "
                         "position and to return one row of logits, but found ")
          << generate.getFunctionType();
      return signalPassFailure();
    }
    if (maxTopK != 0 &&
        (maxTopK < 2 || !llvm::isPowerOf2_64(maxTopK) || maxTopK > kMostTopK)) {
      generate.emitError(
          "expects max-top-k to be 0 or a power of two from 2 to ")
          << kMostTopK << ", but found " << maxTopK.getValue();
      return signalPassFailure();
    }
    OpBuilder b(generate);
    b.setInsertionPointAfter(generate);
    if (failed(addNext(b, generate)) ||
        (maxTopK != 0 && failed(addSample(b, generate))))
      return signalPassFailure();
  }

private:
  /// An entry that goes on with the likeliest token.
  LogicalResult addNext(OpBuilder &b, func::FuncOp generate) {
    FailureOr<func::FuncOp> next = cloneForOneToken(b, generate, "next");
    if (failed(next))
      return failure();
    OpBuilder::InsertionGuard guard(b);
    Operation *ret = next->getBody().front().getTerminator();
    Value row = ret->getOperand(0);
    b.setInsertionPoint(ret);
    Location loc = NameLoc::get(b.getStringAttr("next_token"));
    const int64_t vocabulary = vocabularyOf(row);
    const int64_t columns = std::max(
        kLeastColumns, int64_t(llvm::divideCeil(vocabulary, parts.getValue())));
    const int64_t count = llvm::divideCeil(vocabulary, columns);
    Value zero = arith::ConstantIndexOp::create(b, loc, 0);
    SmallVector<Value> rooms = {room(b, loc, {count, 1}, b.getF32Type()),
                                room(b, loc, {count, 1}, b.getI32Type())};
    auto largest = ArgmaxOp::create(b, loc, TypeRange(ValueRange(rooms)), row,
                                    zero, rooms, b.getI64IntegerAttr(columns));
    largest->setAttr(kLabelAttr, b.getStringAttr("argmax"));
    rooms = {room(b, loc, {1}, b.getI32Type()), next->getArgument(0)};
    auto choose = ChooseTokenOp::create(b, loc, TypeRange(ValueRange(rooms)),
                                        largest->getResult(0),
                                        largest->getResult(1), rooms);
    choose->setAttr(kLabelAttr, b.getStringAttr("choose_token"));
    ret->setOperands({choose->getResult(0), row});
    return insertToken(*next, choose->getResult(0).getType());
  }

  /// An entry that goes on with a token drawn from the likeliest.
  LogicalResult addSample(OpBuilder &b, func::FuncOp generate) {
    FailureOr<func::FuncOp> sample = cloneForOneToken(b, generate, "sample");
    if (failed(sample))
      return failure();
    (*sample)->setAttr(kMaxTopKAttr, b.getI64IntegerAttr(maxTopK));
    auto words = RankedTensorType::get({kSamplingWords}, b.getI32Type());
    Location loc = NameLoc::get(b.getStringAttr("next_token"));
    const unsigned number = sample->getNumArguments();
    if (failed(
            sample->insertArgument(number, words,
                                   b.getDictionaryAttr(b.getNamedAttr(
                                       kNameAttr, b.getStringAttr("sampling"))),
                                   loc)))
      return failure();
    OpBuilder::InsertionGuard guard(b);
    Operation *ret = sample->getBody().front().getTerminator();
    Value row = ret->getOperand(0);
    b.setInsertionPoint(ret);
    Value zero = arith::ConstantIndexOp::create(b, loc, 0);
    SmallVector<Value> rooms;
    auto keepLargest = [&](Value input, Value indices, int64_t elements,
                           int64_t columns, StringRef label) {
      const int64_t count = llvm::divideCeil(elements, columns);
      rooms = {room(b, loc, {count, maxTopK}, b.getF32Type()),
               room(b, loc, {count, maxTopK}, b.getI32Type())};
      auto op = TopKOp::create(b, loc, TypeRange(ValueRange(rooms)), input,
                               indices, zero, rooms, columns);
      op->setAttr(kLabelAttr, b.getStringAttr(label));
      return op;
    };
    auto elementsOf = [](TopKOp op) {
      return cast<RankedTensorType>(op.getResult(0).getType()).getNumElements();
    };
    TopKOp largest =
        keepLargest(row, Value(), vocabularyOf(row), kSortedColumns, "top_k");
    while (elementsOf(largest) > kMergedColumns)
      largest = keepLargest(largest.getResult(0), largest.getResult(1),
                            elementsOf(largest), kMergedColumns, "top_k.merge");
    Value position = *llvm::find_if(sample->getArguments(), [](Value argument) {
      return argument.getType().isIndex();
    });
    rooms = {room(b, loc, {1}, b.getI32Type()), sample->getArgument(0)};
    auto draw = SampleTokenOp::create(
        b, loc, TypeRange(ValueRange(rooms)), largest->getResult(0),
        largest->getResult(1), sample->getArgument(number), position, rooms);
    draw->setAttr(kLabelAttr, b.getStringAttr("sample_token"));
    // Nobody asks for the logits.
    ret->setOperands(draw->getResult(0));
    if (failed(sample->eraseResult(0)))
      return failure();
    return insertToken(*sample, draw->getResult(0).getType());
  }

  static Value room(OpBuilder &b, Location loc, ArrayRef<int64_t> shape,
                    Type type) {
    return tensor::EmptyOp::create(b, loc, shape, type);
  }
  static int64_t vocabularyOf(Value row) {
    return cast<RankedTensorType>(row.getType()).getDimSize(1);
  }
};

struct SplitContextPass final
    : mlir::gptq::impl::SplitContextPassBase<SplitContextPass> {
  using Base::Base;

  void runOnOperation() override {
    SmallVector<AttentionOp> ops;
    getOperation().walk([&](AttentionOp op) {
      auto type = dyn_cast<RankedTensorType>(op.getInits()[0].getType());
      if (type && type.getDimSize(0) == 1 && op.getParts() == 1)
        ops.push_back(op);
    });
    for (AttentionOp op : ops) {
      const int64_t context =
          cast<MemRefType>(op.getKeys().getType()).getDimSize(1);
      const int64_t parts = std::min<int64_t>(
          {int64_t(llvm::divideCeil(workgroups, op.getKvHeads())), kMostParts,
           int64_t(llvm::divideCeil(context, kLeastPositions))});
      if (parts < 2)
        continue;
      OpBuilder b(op);
      Location loc = op.getLoc();
      const int64_t heads = op.getHeads(), d = op.getHeadDim();
      auto room = [&](int64_t columns) -> Value {
        return tensor::EmptyOp::create(
            b, loc, ArrayRef<int64_t>{parts, columns}, b.getF32Type());
      };
      Value zero = arith::ConstantIndexOp::create(b, loc, 0);
      SmallVector<Value> rooms = {room(heads * d), room(2 * heads)};
      auto split = AttentionOp::create(
          b, loc, TypeRange(ValueRange(rooms)), op.getQ(), op.getK(), op.getV(),
          op.getTable(), op.getQNorm(), op.getKNorm(), op.getPosition(), zero,
          op.getKeys(), op.getValues(), rooms, op.getHeadsAttr(),
          op.getKvHeadsAttr(), op.getHeadDimAttr(), op.getScaleAttr(),
          op.getWindowAttr(), op.getSoftcapAttr(), op.getEpsilonAttr(),
          b.getI64IntegerAttr(parts));
      auto join = JoinAttentionOp::create(
          b, loc, op->getResultTypes(), split->getResult(0),
          split->getResult(1), op.getInits(), op.getHeadsAttr(),
          op.getHeadDimAttr());
      if (auto label = op->getAttrOfType<StringAttr>(kLabelAttr)) {
        split->setAttr(kLabelAttr, label);
        join->setAttr(kLabelAttr, b.getStringAttr(label.getValue() + ".join"));
      }
      op->replaceAllUsesWith(join);
      op.erase();
    }
  }
};

struct FuseRotaryPass final
    : mlir::gptq::impl::FuseRotaryPassBase<FuseRotaryPass> {
  using Base::Base;

  void runOnOperation() override {
    SmallVector<AttentionOp> ops;
    getOperation().walk([&](AttentionOp op) { ops.push_back(op); });
    for (AttentionOp op : ops) {
      auto rotary = op.getQ().getDefiningOp<RotaryAppendOp>();
      auto type = dyn_cast<RankedTensorType>(op.getQ().getType());
      // Rotations of a part of a head, or of none, are left alone as well.
      const bool isWhole =
          rotary && rotary.getTable() &&
          cast<ShapedType>(rotary.getTable().getType()).getDimSize(1) ==
              int64_t(op.getHeadDim());
      if (!isWhole || op.getK() || !type || type.getDimSize(0) != 1 ||
          !op.getQ().hasOneUse() || rotary.getKeys() != op.getKeys() ||
          rotary.getValues() != op.getValues() ||
          rotary.getPosition() != op.getPosition())
        continue;
      op.getQMutable().assign(rotary.getQ());
      op.getKMutable().assign(rotary.getK());
      op.getVMutable().assign(rotary.getV());
      op.getTableMutable().assign(rotary.getTable());
      if (rotary.getQNorm())
        op.getQNormMutable().assign(rotary.getQNorm());
      if (rotary.getKNorm())
        op.getKNormMutable().assign(rotary.getKNorm());
      op.setEpsilonAttr(rotary.getEpsilonAttr());
      remark::passed(op.getLoc(),
                     remark::RemarkOpts::name("FuseRotary").category("gptq"))
          << remark::reason("rotates, appends and attends in one kernel");
      rotary.erase();
    }
  }
};
} // namespace
