//===- PackWeights.cpp - Weights in the layout of their unit --------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Codegen/Common/Passes.h"
#include "gptq/Codegen/Common/Plan.h"
#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "gptq/Dialect/GPTQ/IR/WeightSymbols.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/BuiltinOps.h"

namespace mlir::gptq {
#define GEN_PASS_DEF_PACKWEIGHTSPASS
#include "gptq/Codegen/Common/Passes.h.inc"
} // namespace mlir::gptq

using namespace mlir;
using namespace mlir::gptq;

namespace {

/// Makes packed weight symbols, each once, and loads of them.
class Packer {
public:
  explicit Packer(ModuleOp module) : weights(module) {}

  /// The weight that `value` loads, or null.
  WeightOp weightOf(Value value) { return weights.of(value); }

  /// Returns `value`, a matrix loaded from a weight or a stack of them, packed
  /// by `layout` in elements of `element`, every `run` rows (0: all) from a
  /// block of their own.
  Value pack(OpBuilder &b, Value value, LayoutAttr layout, Type element,
             bool transposed = false, int64_t run = 0) {
    return weights.derive(
        b, weightOf(value),
        [&](MutableArrayRef<WeightOp> part) -> DerivedWeight {
          WeightOp source = part.front();
          ArrayRef<int64_t> shape = source.getTensorType().getShape();
          int64_t k = shape[transposed ? 1 : 0], n = shape[transposed ? 0 : 1];
          auto type = RankedTensorType::get(
              {int64_t(llvm::divideCeil(n, layout.getBlockN())),
               layout.blocksOf(k, run ? run : k),
               layout.getBlockBits() / element.getIntOrFloatBitWidth()},
              element);
          return {".packed", type,
                  PackedAttr::get(b.getContext(),
                                  FlatSymbolRefAttr::get(source), layout,
                                  transposed, run)};
        });
  }

  /// Returns a load of the two halves of `value` along `dim` in runs of `run`,
  /// taken in turn: of a concatenation of two weights, whose last runs are
  /// filled up with zeros, or of one weight whose halves are whole runs; or of
  /// a stack of such.
  Value interleave(OpBuilder &b, Value value, int64_t dim, int64_t run) {
    return weights.derive(
        b, weightOf(value),
        [&](MutableArrayRef<WeightOp> part) -> DerivedWeight {
          WeightOp source = part.front();
          RankedTensorType type = source.getTensorType();
          ConcatAttr concat = concatOfTwo(source, dim);
          if (!concat) {
            // Dealing out the first run of either half, then the second, undoes
            // dealing out the halves themselves.
            const int64_t size = type.getDimSize(dim);
            WeightOp order = weights.declare(
                b, source,
                {".turns", RankedTensorType::get({size}, b.getI32Type()),
                 DealtAttr::get(b.getContext(), /*parts=*/size / 2 / run,
                                run)});
            return {".interleaved", type,
                    GatherAttr::get(b.getContext(),
                                    FlatSymbolRefAttr::get(source),
                                    FlatSymbolRefAttr::get(order), dim)};
          }
          SmallVector<int64_t> shape(type.getShape());
          shape[dim] = 2 * llvm::alignTo(shape[dim] / 2, run);
          return {".interleaved", type.clone(shape),
                  ConcatAttr::get(b.getContext(), concat.getParts(), dim, run)};
        });
  }

  /// Whether `interleave` can be asked for `value`.
  bool isPair(Value value, int64_t dim, int64_t run) {
    WeightOp source = weightOf(value);
    return source && llvm::all_of(weights.partsOf(source), [&](WeightOp part) {
             return concatOfTwo(part, dim) ||
                    part.getTensorType().getDimSize(dim) % (2 * run) == 0;
           });
  }

private:
  /// The concatenation along `dim` of two weights that `source` is, or null.
  static ConcatAttr concatOfTwo(WeightOp source, int64_t dim) {
    auto concat = dyn_cast<ConcatAttr>(source.getInit());
    return concat && concat.getDim() == dim && concat.getInterleave() == 0 &&
                   concat.getParts().size() == 2
               ? concat
               : nullptr;
  }

  WeightSymbols weights;
};

/// The unit of the first plan of `op`, whose layout of `bits`-bit weights in
/// groups of `span` all others read as well; null and an error if they do not.
const ::gptq::UnitInfo *commonUnit(Operation *op, int64_t bits, int64_t span) {
  const ::gptq::UnitInfo *first = nullptr;
  for (PlanAttr plan : getPlans(op)) {
    const ::gptq::UnitInfo *unit = unitOf(plan);
    if (!unit) {
      op->emitError("expects a known unit in its plan, but found ")
          << plan.getUnit() << " with " << plan.getLanes() << " lanes";
      return nullptr;
    }
    if (!unit->reads(bits)) {
      op->emitOpError("expects codes of 2, 4 or 8 bits for unit ")
          << unit->name << ", but found " << bits;
      return nullptr;
    }
    if (!first)
      first = unit;
    MLIRContext *ctx = op->getContext();
    if (toAttr(ctx, unit->weightLayout(bits, span), bits) !=
        toAttr(ctx, first->weightLayout(bits, span), bits)) {
      op->emitError("expects plans that read one layout, but found units ")
          << first->name << " and " << unit->name;
      return nullptr;
    }
  }
  return first;
}

LogicalResult packDequantMatmul(DequantMatmulOp op, Packer &packer) {
  const int64_t group = op.getGroupSize(), span = group < op.getK() ? group : 0;
  const ::gptq::UnitInfo *unit = commonUnit(op, op.getBits(), span);
  if (!unit)
    return failure();
  OpBuilder b(op);
  MLIRContext *ctx = op.getContext();
  if (op.getGIdx())
    return op.emitOpError("expects normalized act-order (perm, not g_idx)");
  for (Value weight : {Value(op.getCodes()), Value(op.getScales()),
                       Value(op.getZeros()), Value(op.getOffsets())})
    if (weight && !packer.weightOf(weight))
      return op.emitOpError("expects its weights to be loaded from symbols");

  LayoutAttr layout =
      toAttr(ctx, unit->weightLayout(op.getBits(), span), op.getBits());
  Value codes = op.getCodes(), scales = op.getScales(), zeros = op.getZeros(),
        offsets = op.getOffsets(), bias = op.getBias();
  if (isGated(op.getEpilogue())) {
    int64_t run = layout.getBlockN() / 2;
    for (Value value : {codes, scales, zeros, offsets})
      if (value && !packer.isPair(value, 1, run))
        return op.emitOpError("expects the weights of a gated epilogue to "
                              "be gate and up beside each other");
    codes = packer.interleave(b, codes, 1, run);
    scales = packer.interleave(b, scales, 1, run);
    if (zeros)
      zeros = packer.interleave(b, zeros, 1, run);
    if (offsets)
      offsets = packer.interleave(b, offsets, 1, run);
    if (bias)
      bias = packer.interleave(b, bias, 0, run);
  }
  // Scales, zero points and offsets: one row of a panel per group.
  auto perGroup = [&](int64_t bits) {
    return toAttr(ctx, unit->rowLayout(bits), bits);
  };
  auto packNumbers = [&](Value value) {
    Type type = cast<ShapedType>(value.getType()).getElementType();
    return packer.pack(b, value, perGroup(type.getIntOrFloatBitWidth()), type);
  };
  // Groups that fill whole blocks lie as they would without runs.
  int64_t run =
      group < op.getK() && group % layout.getBlockK() != 0 ? group : 0;
  op.getCodesMutable().assign(packer.pack(b, codes, layout, b.getI32Type(),
                                          /*transposed=*/false, run));
  op.getScalesMutable().assign(packNumbers(scales));
  if (zeros)
    op.getZerosMutable().assign(
        packer.pack(b, zeros, perGroup(8), b.getI8Type()));
  if (offsets)
    op.getOffsetsMutable().assign(packNumbers(offsets));
  if (bias)
    op.getBiasMutable().assign(bias);
  op.setLayoutAttr(layout);
  return success();
}

LogicalResult packMatmul(MatmulOp op, Packer &packer) {
  Type element = cast<ShapedType>(op.getWeight().getType()).getElementType();
  int64_t bits = element.getIntOrFloatBitWidth();
  const ::gptq::UnitInfo *unit = commonUnit(op, bits, /*span=*/0);
  if (!unit)
    return failure();
  if (!packer.weightOf(op.getWeight()))
    return op.emitOpError("expects its weight to be loaded from a symbol");
  OpBuilder b(op);
  LayoutAttr layout =
      toAttr(op.getContext(), unit->weightLayout(bits, /*span=*/0), bits);
  Value weight = op.getWeight(), bias = op.getBias();
  if (isGated(op.getEpilogue())) {
    int64_t run = layout.getBlockN() / 2;
    if (!packer.isPair(weight, 0, run))
      return op.emitOpError("expects the weight of a gated epilogue to be "
                            "gate and up beside each other");
    weight = packer.interleave(b, weight, 0, run);
    if (bias)
      bias = packer.interleave(b, bias, 0, run);
  }
  op.getWeightMutable().assign(
      packer.pack(b, weight, layout, element, /*transposed=*/true));
  if (bias)
    op.getBiasMutable().assign(bias);
  op.setLayoutAttr(layout);
  return success();
}

struct PackWeightsPass final
    : mlir::gptq::impl::PackWeightsPassBase<PackWeightsPass> {
  using Base::Base;

  void runOnOperation() override {
    Packer packer(getOperation());
    // Weights that matmuls read packed; a table tied to one is read packed too.
    DenseMap<StringAttr, std::pair<StringAttr, LayoutAttr>> tied;
    WalkResult result = getOperation().walk([&](Operation *op) {
      if (getPlans(op).empty())
        return WalkResult::advance();
      LogicalResult packed = success();
      if (auto matmul = dyn_cast<DequantMatmulOp>(op)) {
        if (!matmul.getLayout())
          packed = packDequantMatmul(matmul, packer);
      } else if (auto matmul = dyn_cast<MatmulOp>(op)) {
        WeightOp source = packer.weightOf(matmul.getWeight());
        if (!matmul.getLayout()) {
          packed = packMatmul(matmul, packer);
          // A row of a table is one column of the weight: it can be read where
          // its elements lie one a block.
          if (succeeded(packed) && matmul.getLayoutAttr().getBlockK() == 1)
            tied[source.getSymNameAttr()] = {
                packer.weightOf(matmul.getWeight()).getSymNameAttr(),
                matmul.getLayoutAttr()};
        }
      }
      return failed(packed) ? WalkResult::interrupt() : WalkResult::advance();
    });
    if (result.wasInterrupted())
      return signalPassFailure();

    SymbolTable symbols(getOperation());
    getOperation().walk([&](EmbeddingOp op) {
      WeightOp table = packer.weightOf(op.getTable());
      if (!table || op.getLayout())
        return;
      auto it = tied.find(table.getSymNameAttr());
      if (it == tied.end())
        return;
      OpBuilder b(op);
      auto packed = symbols.lookup<WeightOp>(it->second.first);
      op.getTableMutable().assign(
          LoadWeightOp::create(b, op.getLoc(), packed.getTensorType(),
                               FlatSymbolRefAttr::get(packed)));
      op.setLayoutAttr(it->second.second);
    });
    // Loads that nothing reads any more would keep the unpacked weight alive.
    getOperation().walk([](LoadWeightOp load) {
      if (load->use_empty())
        load.erase();
    });
  }
};

} // namespace
