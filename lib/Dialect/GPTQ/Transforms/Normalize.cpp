//===- Normalize.cpp - True zero points, explicit order -------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "gptq/Dialect/GPTQ/IR/WeightSymbols.h"
#include "gptq/Dialect/GPTQ/Transforms/Passes.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/Remarks.h"

namespace mlir::gptq {
#define GEN_PASS_DEF_NORMALIZEZEROPOINTSPASS
#define GEN_PASS_DEF_NORMALIZEACTORDERPASS
#define GEN_PASS_DEF_FOLDPERMUTATIONSPASS
#include "gptq/Dialect/GPTQ/Transforms/Passes.h.inc"
} // namespace mlir::gptq

using namespace mlir;
using namespace mlir::gptq;

/// Whether all of `parts` show data as a `View` does.
template <typename View> static bool allShow(ArrayRef<WeightOp> parts) {
  return llvm::all_of(parts,
                      [](WeightOp part) { return isa<View>(part.getInit()); });
}

/// The view of `source` with dimension `dim` in the order `order`.
static GatherAttr gather(WeightOp source, WeightOp order, int64_t dim) {
  return GatherAttr::get(source.getContext(), FlatSymbolRefAttr::get(source),
                         FlatSymbolRefAttr::get(order), dim);
}

/// `codes` with every one greater by `value`. Published writers subtract from
/// whole words where fields fill them, and from each field where they do not.
static CodesAttr addToFields(CodesAttr codes, int64_t value) {
  const int64_t bits = codes.getBits();
  int64_t wordAdd = codes.getWordAdd(), fieldAdd = codes.getFieldAdd();
  if (32 % bits != 0 || codes.getPlanes()) {
    fieldAdd += value;
  } else {
    for (int64_t at = 0; at < 32; at += bits)
      wordAdd += (value & ((int64_t(1) << bits) - 1)) << at;
  }
  return CodesAttr::get(
      codes.getContext(), codes.getData(), bits, codes.getPacking(),
      codes.getTransposed(), codes.getCount(), codes.getRecord(),
      wordAdd & 0xFFFFFFFF, fieldAdd & ((int64_t(1) << bits) - 1),
      codes.getPlanes());
}

namespace {
struct NormalizeZeroPointsPass final
    : mlir::gptq::impl::NormalizeZeroPointsPassBase<NormalizeZeroPointsPass> {
  using Base::Base;

  void runOnOperation() override {
    WeightSymbols weights(getOperation());
    WalkResult result = getOperation().walk([&](DequantMatmulOp op) {
      int64_t offset = op.getZeroOffset();
      if (offset == 0)
        return WalkResult::advance();
      if (std::optional<int64_t> point = op.getZeroPoint()) {
        op.setZeroPoint(*point + offset);
        op.setZeroOffset(0);
        return WalkResult::advance();
      }
      WeightOp zeros = weights.of(op.getZeros());
      if (!zeros || !allShow<CodesAttr>(weights.partsOf(zeros))) {
        op.emitOpError("expects zero points with an offset to be loaded from "
                       "packed words");
        return WalkResult::interrupt();
      }
      OpBuilder b(op);
      op.getZerosMutable().assign(
          weights.derive(b, zeros, [&](MutableArrayRef<WeightOp> part) {
            auto codes = cast<CodesAttr>(part[0].getInit());
            return DerivedWeight{".true", part[0].getTensorType(),
                                 addToFields(codes, offset)};
          }));
      op.setZeroOffset(0);
      return WalkResult::advance();
    });
    if (result.wasInterrupted())
      signalPassFailure();
  }
};

struct NormalizeActOrderPass final
    : mlir::gptq::impl::NormalizeActOrderPassBase<NormalizeActOrderPass> {
  using Base::Base;

  void runOnOperation() override {
    WeightSymbols weights(getOperation());
    WalkResult result = getOperation().walk([&](DequantMatmulOp op) {
      if (!op.getGIdx())
        return WalkResult::advance();
      WeightOp index = weights.of(op.getGIdx());
      WeightOp codes = weights.of(op.getCodes());
      if (!codes || !index || !allShow<DataAttr>(weights.partsOf(index))) {
        op.emitOpError(
            "expects codes and g_idx to be loaded from the checkpoint");
        return WalkResult::interrupt();
      }
      OpBuilder b(op);
      Value order =
          weights.derive(b, index, [&](MutableArrayRef<WeightOp> part) {
            auto data = cast<DataAttr>(part[0].getInit());
            return DerivedWeight{
                ".order", part[0].getTensorType(),
                ArgsortAttr::get(&getContext(), data, op.getNumGroups())};
          });
      Value sorted = weights.derive(
          b, {codes, weights.of(order)}, [](MutableArrayRef<WeightOp> part) {
            return DerivedWeight{".sorted", part[0].getTensorType(),
                                 gather(part[0], part[1], /*dim=*/0)};
          });
      op.getCodesMutable().assign(sorted);
      op.getGIdxMutable().clear();
      op.getPermMutable().assign(order);
      return WalkResult::advance();
    });
    if (result.wasInterrupted())
      signalPassFailure();
  }
};

struct FoldPermutationsPass final
    : mlir::gptq::impl::FoldPermutationsPassBase<FoldPermutationsPass> {
  using Base::Base;

  /// The weights of `producer`'s output columns, as operands with the dimension
  /// that runs along them; empty where it is no matmul of loaded weights.
  SmallVector<std::pair<OpOperand *, int64_t>>
  outputWeights(Value value, WeightSymbols &weights) {
    SmallVector<std::pair<OpOperand *, int64_t>> result;
    Operation *producer = value.getDefiningOp();
    if (!producer || !value.hasOneUse())
      return result;
    auto add = [&](MutableOperandRange range, int64_t dim) {
      for (OpOperand &operand : range)
        result.push_back({&operand, dim});
    };
    if (auto matmul = dyn_cast<DequantMatmulOp>(producer)) {
      result.push_back({&matmul.getCodesMutable(), 1});
      result.push_back({&matmul.getScalesMutable(), 1});
      add(matmul.getZerosMutable(), 1);
      add(matmul.getOffsetsMutable(), 1);
      add(matmul.getBiasMutable(), 0);
    } else if (auto matmul = dyn_cast<MatmulOp>(producer)) {
      result.push_back({&matmul.getWeightMutable(), 0});
      add(matmul.getBiasMutable(), 0);
    }
    for (auto [operand, dim] : result)
      if (!weights.of(operand->get()))
        return {};
    return result;
  }

  void runOnOperation() override {
    WeightSymbols weights(getOperation());
    getOperation().walk([&](DequantMatmulOp op) {
      if (!op.getPerm())
        return;
      auto missed = [&](StringRef why) {
        remark::missed(
            op.getLoc(),
            remark::RemarkOpts::name("FoldPermutations").category("gptq"))
            << remark::reason("keeps its permutation: {0}", why);
      };
      auto mlp = op.getLhs().getDefiningOp<ActivationOp>();
      if (!mlp)
        return missed("its input is not the activation of an MLP");
      if (!op.getLhs().hasOneUse())
        return missed("others read its input too");
      WeightOp order = weights.of(op.getPerm());
      SmallVector<Value> producers = {mlp.getInput()};
      if (mlp.getUp())
        producers.push_back(mlp.getUp());
      SmallVector<SmallVector<std::pair<OpOperand *, int64_t>>> groups;
      for (Value producer : producers)
        groups.push_back(outputWeights(producer, weights));
      if (!order || llvm::any_of(groups, [](auto &g) { return g.empty(); }))
        return missed("the layers before it cannot be reordered");
      StringRef reader =
          op.getCodes().getDefiningOp<LoadWeightOp>().getWeight();
      for (auto &group : groups)
        for (auto [operand, dim] : group) {
          OpBuilder b(operand->getOwner());
          WeightOp source = weights.of(operand->get());
          operand->set(weights.derive(
              b, {source, order}, [&](MutableArrayRef<WeightOp> part) {
                return DerivedWeight{".for_" + reader.str(),
                                     part[0].getTensorType(),
                                     gather(part[0], part[1], dim)};
              }));
        }
      remark::passed(
          op.getLoc(),
          remark::RemarkOpts::name("FoldPermutations").category("gptq"))
          << remark::reason("permutation folded into the {0} weights",
                            mlp.getUp() ? "gate and up" : "preceding");
      op.getPermMutable().clear();
    });
  }
};
} // namespace
