//===- StageActivations.cpp - Activations as matmuls want them ------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Codegen/Common/Passes.h"
#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/BuiltinOps.h"

namespace mlir::gptq {
#define GEN_PASS_DEF_STAGEPERMUTATIONSPASS
#define GEN_PASS_DEF_NARROWACTIVATIONSPASS
#include "gptq/Codegen/Common/Passes.h.inc"
} // namespace mlir::gptq

using namespace mlir;
using namespace mlir::gptq;

/// A copy of `value` with element type `type`, columns in the order `perm`; of
/// rows in `runs` each run in the order of its expert.
static Value stage(OpBuilder &b, Location loc, Value value, Value perm,
                   Value runs, Type type) {
  auto shaped = cast<RankedTensorType>(value.getType()).clone(type);
  Value room = tensor::EmptyOp::create(
      b, loc, tensor::getMixedSizes(b, loc, value), type);
  return StageOp::create(b, loc, TypeRange{shaped}, value, perm, runs,
                         ValueRange{room})
      ->getResult(0);
}

/// The left operand of `op`, if it is a matmul.
static OpOperand *activationsOf(Operation *op) {
  if (auto matmul = dyn_cast<DequantMatmulOp>(op))
    return &matmul.getLhsMutable();
  if (auto matmul = dyn_cast<MatmulOp>(op))
    return &matmul.getLhsMutable();
  return nullptr;
}

/// Whether matmuls, and slices and gathered rows that only matmuls read, are
/// all that reads `value`.
static bool onlyMatmulsRead(Value value) {
  return llvm::all_of(value.getUses(), [](OpOperand &use) {
    if (auto slice = dyn_cast<tensor::ExtractSliceOp>(use.getOwner()))
      return use.get() == slice.getSource() &&
             onlyMatmulsRead(slice.getResult());
    if (auto gather = dyn_cast<GatherRowsOp>(use.getOwner()))
      return use.get() == gather.getInput() &&
             onlyMatmulsRead(gather->getResult(0));
    return isa<tensor::DimOp>(use.getOwner()) ||
           activationsOf(use.getOwner()) == &use;
  });
}

/// Makes the op that computes `value` write elements of `type`, if nothing
/// minds.
static bool narrowProducer(Value value, Type type) {
  if (auto arg = dyn_cast<BlockArgument>(value)) {
    // An input of a lone function: whoever calls it rounds.
    auto entry = dyn_cast<func::FuncOp>(arg.getOwner()->getParentOp());
    if (!entry || !entry->hasAttr(kMaxRowsAttr) || !onlyMatmulsRead(value))
      return false;
    value.setType(cast<RankedTensorType>(value.getType()).clone(type));
    entry.setType(FunctionType::get(entry.getContext(),
                                    arg.getOwner()->getArgumentTypes(),
                                    entry.getResultTypes()));
    return true;
  }
  if (auto slice = value.getDefiningOp<tensor::ExtractSliceOp>()) {
    if (!narrowProducer(slice.getSource(), type))
      return false;
    slice.getResult().setType(slice.getType().clone(type));
    return true;
  }
  auto result = dyn_cast<OpResult>(value);
  auto producer = result
                      ? dyn_cast<DestinationStyleOpInterface>(result.getOwner())
                      : nullptr;
  if (!producer || !isa<GPTQDialect>(producer->getDialect()) ||
      !onlyMatmulsRead(value))
    return false;
  OpOperand *init = producer.getDpsInitOperand(result.getResultNumber());
  auto room = init->get().getDefiningOp<tensor::EmptyOp>();
  if (!room)
    return false;
  OpBuilder b(producer);
  init->set(
      tensor::EmptyOp::create(b, room.getLoc(), room.getMixedSizes(), type));
  value.setType(cast<RankedTensorType>(value.getType()).clone(type));
  return true;
}

namespace {
struct StagePermutationsPass final
    : mlir::gptq::impl::StagePermutationsPassBase<StagePermutationsPass> {
  using Base::Base;

  void runOnOperation() override {
    getOperation().walk([](DequantMatmulOp op) {
      if (!op.getPerm() || !isa<RankedTensorType>(op.getLhs().getType()))
        return;
      OpBuilder b(op);
      auto type = cast<RankedTensorType>(op.getLhs().getType());
      op.getLhsMutable().assign(stage(b, op.getLoc(), op.getLhs(), op.getPerm(),
                                      op.getRuns(), type.getElementType()));
      op.getPermMutable().clear();
    });
  }
};

struct NarrowActivationsPass final
    : mlir::gptq::impl::NarrowActivationsPassBase<NarrowActivationsPass> {
  using Base::Base;

  void runOnOperation() override {
    Builder types(&getContext());
    // The unit multiplies operands of one type, and dense weights have theirs.
    bool isBF16 = type == "bf16";
    if (type == "auto")
      getOperation().walk([&](MatmulOp op) {
        isBF16 |= getElementTypeOrSelf(op.getWeight()).isBF16();
      });
    Type narrow = isBF16                            ? Type(types.getBF16Type())
                  : type == "auto" || type == "f16" ? Type(types.getF16Type())
                                                    : Type();
    if (!narrow) {
      getOperation().emitError("expects type auto, f16 or bf16, but found '")
          << type << "'";
      return signalPassFailure();
    }
    // Said here, in words a user knows: a unit that multiplies cannot widen.
    auto other = getOperation().walk([&](MatmulOp op) -> WalkResult {
      Type weight = getElementTypeOrSelf(op.getWeight());
      if (weight == narrow)
        return WalkResult::advance();
      op.emitError("expects dense weights of ")
          << narrow << ", the type of the activations, but found " << weight;
      return WalkResult::interrupt();
    });
    if (other.wasInterrupted())
      return signalPassFailure();
    // Keys and values are activations that stay.
    auto narrowed = [&](Type buffer) {
      return MemRefType::get(cast<MemRefType>(buffer).getShape(), narrow);
    };
    getOperation().walk([&](Operation *op) {
      if (auto state = dyn_cast<StateOp>(op))
        state.setType(narrowed(state.getType()));
      else if (auto load = dyn_cast<LoadStateOp>(op))
        load.getResult().setType(
            cast<MemRefType>(narrowed(load.getResult().getType())));
    });
    DenseMap<Value, Value> converted;
    getOperation().walk([&](Operation *op) {
      OpOperand *lhs = activationsOf(op);
      if (!lhs || !isa<RankedTensorType>(lhs->get().getType()) ||
          getElementTypeOrSelf(lhs->get()) == narrow ||
          narrowProducer(lhs->get(), narrow))
        return;
      Value &copy = converted[lhs->get()];
      if (!copy) {
        OpBuilder b(op);
        b.setInsertionPointAfterValue(lhs->get());
        copy = stage(b, op->getLoc(), lhs->get(), /*perm=*/Value(),
                     /*runs=*/Value(), narrow);
      }
      lhs->set(copy);
    });
  }
};
} // namespace
