//===- Fuse.cpp - Fusions of model ops ------------------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "gptq/Dialect/GPTQ/IR/WeightSymbols.h"
#include "gptq/Dialect/GPTQ/Transforms/Passes.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/Utils/StaticValueUtils.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/PatternMatch.h"
#include "mlir/IR/Remarks.h"
#include "llvm/ADT/MapVector.h"

namespace mlir::gptq {
#define GEN_PASS_DEF_FUSERESIDUALNORMPASS
#define GEN_PASS_DEF_FUSEPARALLELMATMULSPASS
#define GEN_PASS_DEF_FUSEACTIVATIONPASS
#define GEN_PASS_DEF_FUSERESIDUALADDPASS
#define GEN_PASS_DEF_FUSENORMMATMULPASS
#include "gptq/Dialect/GPTQ/Transforms/Passes.h.inc"
} // namespace mlir::gptq

using namespace mlir;
using namespace mlir::gptq;

/// An uninitialized tensor like `value`.
static Value emptyLike(OpBuilder &b, Location loc, Value value) {
  return tensor::EmptyOp::create(
      b, loc, tensor::getMixedSizes(b, loc, value),
      cast<RankedTensorType>(value.getType()).getElementType());
}

/// The last dimension of activations.
static int64_t columnsOf(Value value) {
  return cast<ShapedType>(value.getType()).getShape().back();
}

namespace {

struct FuseResidualNormPass final
    : mlir::gptq::impl::FuseResidualNormPassBase<FuseResidualNormPass> {
  using Base::Base;

  void runOnOperation() override {
    SmallVector<RMSNormOp> norms;
    getOperation().walk([&](RMSNormOp op) { norms.push_back(op); });
    for (RMSNormOp norm : norms) {
      Value input = norm.getInput();
      auto slice = input.getDefiningOp<tensor::ExtractSliceOp>();
      auto add = (slice ? slice.getSource() : input).getDefiningOp<AddOp>();
      // A sum of which only some rows are normalized is moved behind the slice,
      // if nobody else needs the other rows.
      if (!add || (slice && !add->getResult(0).hasOneUse()))
        continue;
      OpBuilder b(slice ? slice.getOperation() : add.getOperation());
      Location loc = norm.getLoc();
      Value lhs = add.getLhs(), rhs = add.getRhs();
      if (slice) {
        auto cut = [&](Value value) -> Value {
          return tensor::ExtractSliceOp::create(
              b, loc, slice.getType(), value, slice.getMixedOffsets(),
              slice.getMixedSizes(), slice.getMixedStrides());
        };
        lhs = cut(lhs);
        rhs = cut(rhs);
      }
      b.setInsertionPoint(norm);
      Value weight = norm.getWeight();
      if (!slice) {
        // The sum has users before the norm perhaps: it stays where it was.
        b.setInsertionPoint(add);
        if (auto load = weight.getDefiningOp<LoadWeightOp>())
          weight = LoadWeightOp::create(b, load.getLoc(), load.getType(),
                                        load.getWeightAttr());
        else
          continue;
      }
      SmallVector<Value> inits = {emptyLike(b, loc, lhs),
                                  emptyLike(b, loc, lhs)};
      auto fused =
          AddRMSNormOp::create(b, loc, TypeRange{lhs.getType(), lhs.getType()},
                               lhs, rhs, weight, inits, norm.getEpsilonAttr());
      if (Attribute label = norm->getAttr(kLabelAttr))
        fused->setAttr(kLabelAttr, label);
      remark::passed(
          loc, remark::RemarkOpts::name("FuseResidualNorm").category("gptq"))
          << remark::reason("adds the residual and normalizes in one pass");
      norm->getResult(0).replaceAllUsesWith(fused->getResult(1));
      norm.erase();
      if (slice) {
        slice.replaceAllUsesWith(fused->getResult(0));
        slice.erase();
      } else {
        add->getResult(0).replaceAllUsesWith(fused->getResult(0));
      }
      add.erase();
    }
  }
};

/// What matmuls of one input must agree on to become one.
struct JoinKey {
  /// What they read, and where it is sorted by expert its runs.
  Value lhs, runs;
  SmallVector<Attribute> rules;
  bool operator==(const JoinKey &other) const {
    return lhs == other.lhs && runs == other.runs && rules == other.rules;
  }
};

struct FuseParallelMatmulsPass final
    : mlir::gptq::impl::FuseParallelMatmulsPassBase<FuseParallelMatmulsPass> {
  using Base::Base;

  /// What the first rule on which two keys of one input differ is about.
  static StringRef difference(const JoinKey &a, const JoinKey &b) {
    static constexpr StringRef quantized[] = {"bits",
                                              "group sizes",
                                              "permutations",
                                              "zero points",
                                              "types of the scales",
                                              "types of the zero points",
                                              "types of offsets",
                                              "types of biases"};
    static constexpr StringRef dense[] = {"types of weights",
                                          "types of biases"};
    if (a.rules.size() != b.rules.size())
      return "kinds of weights";
    ArrayRef<StringRef> names = dense;
    if (a.rules.size() == std::size(quantized))
      names = quantized;
    for (auto [x, y, name] : llvm::zip(a.rules, b.rules, names))
      if (x != y)
        return name;
    return "nothing";
  }

  static Attribute elementOf(MLIRContext *ctx, Value value) {
    return value
               ? Attribute(TypeAttr::get(getElementTypeOrSelf(value.getType())))
               : Attribute(UnitAttr::get(ctx));
  }

  /// The key of a matmul, or none for ops that are not joined.
  std::optional<JoinKey> keyOf(Operation *op) {
    MLIRContext *ctx = op->getContext();
    if (auto matmul = dyn_cast<DequantMatmulOp>(op)) {
      if (matmul.getLayout() || matmul.getEpilogue() != Epilogue::None ||
          matmul.getAccumulate() || matmul.getGIdx())
        return std::nullopt;
      Attribute perm = UnitAttr::get(ctx);
      if (matmul.getPerm()) {
        auto load = matmul.getPerm().getDefiningOp<LoadWeightOp>();
        if (!load)
          return std::nullopt;
        perm = load.getWeightAttr();
      }
      Attribute point = matmul.getZeroPointAttr();
      return JoinKey{matmul.getLhs(),
                     matmul.getRuns(),
                     {matmul.getBitsAttr(), matmul.getGroupSizeAttr(), perm,
                      point ? point : UnitAttr::get(ctx),
                      elementOf(ctx, matmul.getScales()),
                      elementOf(ctx, matmul.getZeros()),
                      elementOf(ctx, matmul.getOffsets()),
                      elementOf(ctx, matmul.getBias())}};
    }
    if (auto matmul = dyn_cast<MatmulOp>(op)) {
      if (matmul.getLayout() || matmul.getEpilogue() != Epilogue::None ||
          matmul.getAccumulate())
        return std::nullopt;
      return JoinKey{matmul.getLhs(),
                     matmul.getRuns(),
                     {elementOf(ctx, matmul.getWeight()),
                      elementOf(ctx, matmul.getBias())}};
    }
    return std::nullopt;
  }

  /// One load of the weights that `parts` load, beside each other along `dim`;
  /// null if they are not all loaded.
  Value concat(OpBuilder &b, WeightSymbols &weights, ArrayRef<Value> parts,
               int64_t dim) {
    SmallVector<WeightOp> sources;
    for (Value part : parts) {
      sources.push_back(weights.of(part));
      if (!sources.back())
        return nullptr;
    }
    return weights.derive(b, sources, [&](MutableArrayRef<WeightOp> beside) {
      RankedTensorType type = beside.front().getTensorType();
      SmallVector<int64_t> shape(type.getShape());
      shape[dim] = 0;
      SmallVector<Attribute> symbols;
      for (WeightOp weight : beside) {
        shape[dim] += weight.getTensorType().getDimSize(dim);
        symbols.push_back(FlatSymbolRefAttr::get(weight));
      }
      return DerivedWeight{
          ".joined", type.clone(shape),
          ConcatAttr::get(b.getContext(), b.getArrayAttr(symbols), dim, 0)};
    });
  }

  bool join(ArrayRef<Operation *> ops, WeightSymbols &weights) {
    // All read one value, so the first can stand for all; its operands are
    // loads, made anew here.
    OpBuilder b(ops.front());
    Location loc = ops.front()->getLoc();
    auto gather = [&](function_ref<Value(Operation *)> get) {
      SmallVector<Value> values;
      for (Operation *op : ops)
        values.push_back(get(op));
      return values;
    };
    int64_t columns = 0;
    for (Operation *op : ops)
      columns += columnsOf(op->getResult(0));
    Operation *joined;
    auto resultOf = [&](Value lhs) {
      SmallVector<OpFoldResult> sizes = tensor::getMixedSizes(b, loc, lhs);
      sizes.back() = b.getIndexAttr(columns);
      Type element = getElementTypeOrSelf(ops.front()->getResult(0).getType());
      return Value(tensor::EmptyOp::create(b, loc, sizes, element));
    };
    if (auto first = dyn_cast<DequantMatmulOp>(ops.front())) {
      Value codes = concat(b, weights, gather([](Operation *op) -> Value {
                             return cast<DequantMatmulOp>(op).getCodes();
                           }),
                           1);
      Value scales = concat(b, weights, gather([](Operation *op) -> Value {
                              return cast<DequantMatmulOp>(op).getScales();
                            }),
                            1);
      Value zeros, offsets, bias;
      if (first.getZeros())
        zeros = concat(b, weights, gather([](Operation *op) -> Value {
                         return cast<DequantMatmulOp>(op).getZeros();
                       }),
                       1);
      if (first.getOffsets())
        offsets = concat(b, weights, gather([](Operation *op) -> Value {
                           return cast<DequantMatmulOp>(op).getOffsets();
                         }),
                         1);
      if (first.getBias())
        bias = concat(b, weights, gather([](Operation *op) -> Value {
                        return cast<DequantMatmulOp>(op).getBias();
                      }),
                      0);
      if (!codes || !scales || bool(zeros) != bool(first.getZeros()) ||
          bool(offsets) != bool(first.getOffsets()) ||
          bool(bias) != bool(first.getBias()))
        return false;
      Value init = resultOf(first.getLhs());
      auto copy = cast<DequantMatmulOp>(mlir::clone(
          b, first, TypeRange{init.getType()}, first->getOperands()));
      copy.getCodesMutable().assign(codes);
      copy.getScalesMutable().assign(scales);
      if (zeros)
        copy.getZerosMutable().assign(zeros);
      if (offsets)
        copy.getOffsetsMutable().assign(offsets);
      if (bias)
        copy.getBiasMutable().assign(bias);
      copy.getInitsMutable().assign(init);
      joined = copy;
    } else {
      auto dense = cast<MatmulOp>(ops.front());
      Value weight = concat(b, weights, gather([](Operation *op) -> Value {
                              return cast<MatmulOp>(op).getWeight();
                            }),
                            0);
      Value bias;
      if (dense.getBias())
        bias = concat(b, weights, gather([](Operation *op) -> Value {
                        return cast<MatmulOp>(op).getBias();
                      }),
                      0);
      if (!weight || bool(bias) != bool(dense.getBias()))
        return false;
      Value init = resultOf(dense.getLhs());
      auto copy = cast<MatmulOp>(mlir::clone(
          b, dense, TypeRange{init.getType()}, dense->getOperands()));
      copy.getWeightMutable().assign(weight);
      if (bias)
        copy.getBiasMutable().assign(bias);
      copy.getInitsMutable().assign(init);
      joined = copy;
    }
    std::string label;
    for (Operation *op : ops)
      if (auto part = op->getAttrOfType<StringAttr>(kLabelAttr))
        label += (label.empty() ? "" : "+") +
                 (label.empty() ? part.getValue()
                                : part.getValue().rsplit('.').second)
                     .str();
    if (!label.empty())
      joined->setAttr(kLabelAttr, b.getStringAttr(label));

    for (Operation *op : ArrayRef(ops).drop_front())
      remark::passed(
          op->getLoc(),
          remark::RemarkOpts::name("FuseParallelMatmuls").category("gptq"))
          << remark::reason("joined to the first matmul of its input");
    int64_t at = 0;
    for (Operation *op : ops) {
      auto type = cast<RankedTensorType>(op->getResult(0).getType());
      // The rows of the input: asking the joined result for its size would be
      // another use of it.
      SmallVector<OpFoldResult> sizes =
          tensor::getMixedSizes(b, loc, joined->getOperand(0));
      const int64_t width = columnsOf(op->getResult(0));
      sizes.back() = b.getIndexAttr(width);
      SmallVector<OpFoldResult> offsets(sizes.size(), b.getIndexAttr(0));
      offsets.back() = b.getIndexAttr(at);
      SmallVector<OpFoldResult> strides(sizes.size(), b.getIndexAttr(1));
      at += width;
      op->getResult(0).replaceAllUsesWith(tensor::ExtractSliceOp::create(
          b, loc, type, joined->getResult(0), offsets, sizes, strides));
    }
    for (Operation *op : ops)
      op->erase();
    return true;
  }

  void runOnOperation() override {
    WeightSymbols weights(getOperation());
    // Matmuls by the value they read, then by what must agree.
    llvm::MapVector<Value,
                    SmallVector<std::pair<JoinKey, SmallVector<Operation *>>>>
        byInput;
    getOperation().walk([&](Operation *op) {
      std::optional<JoinKey> key = keyOf(op);
      if (!key)
        return;
      auto &groups = byInput[key->lhs];
      for (auto &[known, ops] : groups)
        if (known == *key) {
          ops.push_back(op);
          return;
        }
      groups.push_back({*key, {op}});
    });
    for (auto &[lhs, groups] : byInput) {
      // One remark for each layer that did not join the first one's.
      for (auto &[key, ops] : ArrayRef(groups).drop_front())
        remark::missed(
            ops.front()->getLoc(),
            remark::RemarkOpts::name("FuseParallelMatmuls").category("gptq"))
            << remark::reason("is not joined to the other matmuls of its "
                              "input: their {0} differ",
                              difference(groups.front().first, key));
      for (auto &[key, ops] : groups)
        if (ops.size() > 1)
          join(ops, weights);
    }
  }
};

struct FuseActivationPass final
    : mlir::gptq::impl::FuseActivationPassBase<FuseActivationPass> {
  using Base::Base;

  /// The matmul whose columns from `at` on, half of them, are `value`; null if
  /// it is no such slice.
  Operation *halfOf(Value value, bool second) {
    auto slice = value.getDefiningOp<tensor::ExtractSliceOp>();
    if (!slice || !slice->hasOneUse())
      return nullptr;
    const int64_t half = columnsOf(slice.getResult());
    SmallVector<OpFoldResult> offsets = slice.getMixedOffsets();
    if (half * 2 != columnsOf(slice.getSource()) ||
        getConstantIntValue(offsets.back()) != (second ? half : 0))
      return nullptr;
    offsets.pop_back();
    if (!llvm::all_of(offsets, isZeroInteger))
      return nullptr;
    return slice.getSource().getDefiningOp();
  }

  /// Columns of gate that lie beside those of up in a packed weight, at most.
  static constexpr int64_t kLongestRun = 32;

  /// Whether the weight of `matmul` is several beside each other.
  static bool isJoined(Operation *matmul) {
    Value weight;
    if (auto quantized = dyn_cast<DequantMatmulOp>(matmul))
      weight = quantized.getCodes();
    else if (auto dense = dyn_cast<MatmulOp>(matmul))
      weight = dense.getWeight();
    auto load = weight ? weight.getDefiningOp<LoadWeightOp>() : nullptr;
    auto symbol = load ? SymbolTable::lookupNearestSymbolFrom<WeightOp>(
                             matmul, load.getWeightAttr())
                       : nullptr;
    // What is true of one part of a stack is true of all.
    if (auto stack = symbol ? dyn_cast<StackAttr>(symbol.getInit()) : nullptr)
      symbol = SymbolTable::lookupNearestSymbolFrom<WeightOp>(
          matmul, cast<FlatSymbolRefAttr>(stack.getParts()[0]));
    return symbol && isa<ConcatAttr>(symbol.getInit());
  }

  /// The matmul that `op` may become the epilogue of, or null.
  Operation *matmulOf(ActivationOp op) {
    Value input = op.getInput();
    Operation *matmul =
        op.getUp() ? halfOf(input, false) : input.getDefiningOp();
    if (!matmul || (op.getUp() && matmul != halfOf(op.getUp(), true)) ||
        !llvm::hasNItems(matmul->getResult(0).getUses(), op.getUp() ? 2 : 1))
      return nullptr;
    // Packing takes gate and up in turn, a few columns each: of what is stored
    // as one weight whole runs alone, of joined weights any number.
    const int64_t width = columnsOf(op->getResult(0));
    if (op.getUp() && width % kLongestRun != 0 && !isJoined(matmul))
      return nullptr;
    auto isPlain = [](auto matmul) {
      return matmul.getEpilogue() == Epilogue::None && !matmul.getAccumulate();
    };
    if (auto quantized = dyn_cast<DequantMatmulOp>(matmul))
      return isPlain(quantized) ? matmul : nullptr;
    auto dense = dyn_cast<MatmulOp>(matmul);
    return dense && isPlain(dense) ? matmul : nullptr;
  }

  void runOnOperation() override {
    SmallVector<ActivationOp> ops;
    getOperation().walk([&](ActivationOp op) { ops.push_back(op); });
    for (ActivationOp op : ops) {
      const bool isGated = bool(op.getUp());
      Operation *matmul = matmulOf(op);
      if (!matmul) {
        remark::missed(
            op.getLoc(),
            remark::RemarkOpts::name("FuseActivation").category("gptq"))
            << remark::reason(
                   "is no epilogue: {0}",
                   isGated ? "gate and up are not the halves of one joined "
                             "matmul"
                           : "its input is no matmul that it alone reads");
        continue;
      }
      remark::passed(
          op.getLoc(),
          remark::RemarkOpts::name("FuseActivation").category("gptq"))
          << remark::reason("became the epilogue of {0}",
                            isGated ? "the gate and up matmul"
                                    : "the matmul before it");
      OpBuilder b(matmul);
      Value init = tensor::EmptyOp::create(
          b, op.getLoc(),
          [&] {
            auto sizes = tensor::getMixedSizes(
                b, op.getLoc(),
                cast<DestinationStyleOpInterface>(matmul).getDpsInits()[0]);
            sizes.back() = b.getIndexAttr(columnsOf(op->getResult(0)));
            return sizes;
          }(),
          getElementTypeOrSelf(op->getResult(0).getType()));
      Operation *fused =
          mlir::clone(b, matmul, TypeRange{op->getResult(0).getType()},
                      matmul->getOperands());
      cast<DestinationStyleOpInterface>(fused).setDpsInitOperand(0, init);
      auto epilogue = EpilogueAttr::get(&getContext(),
                                        getEpilogue(op.getFunction(), isGated));
      if (auto dequant = dyn_cast<DequantMatmulOp>(fused))
        dequant.setEpilogueAttr(epilogue);
      else
        cast<MatmulOp>(fused).setEpilogueAttr(epilogue);
      SmallVector<Operation *> replaced = {matmul};
      if (isGated)
        replaced.append(
            {op.getInput().getDefiningOp(), op.getUp().getDefiningOp()});
      op->getResult(0).replaceAllUsesWith(fused->getResult(0));
      op.erase();
      for (Operation *old : llvm::reverse(replaced))
        old->erase();
    }
  }
};

/// Whether all that reads `value`, but `except`, comes before `op`; what reads
/// a slice of it reads it.
static bool isReadBefore(Value value, Operation *op, Operation *except) {
  return llvm::all_of(value.getUsers(), [&](Operation *user) {
    if (user == except || isa<tensor::DimOp>(user))
      return true;
    if (auto slice = dyn_cast<tensor::ExtractSliceOp>(user))
      return isReadBefore(slice.getResult(), op, except);
    return user->getBlock() == op->getBlock() && user->isBeforeInBlock(op);
  });
}

struct FuseResidualAddPass final
    : mlir::gptq::impl::FuseResidualAddPassBase<FuseResidualAddPass> {
  using Base::Base;

  /// What `value` is, or is a slice of.
  static Value whole(Value value) {
    auto slice = value.getDefiningOp<tensor::ExtractSliceOp>();
    return slice ? slice.getSource() : value;
  }

  /// Makes `matmul`, which computes one summand of `add`, add to the other,
  /// `residual`; says why not where it may not.
  template <typename OpTy>
  static StringRef addTo(OpTy matmul, Value residual, Operation *add) {
    Value product = matmul->getResult(0);
    auto type = cast<RankedTensorType>(residual.getType());
    bool isReadElsewhere = llvm::any_of(product.getUses(), [&](OpOperand &use) {
      auto slice = dyn_cast<tensor::ExtractSliceOp>(use.getOwner());
      return use.getOwner() != add && !isa<tensor::DimOp>(use.getOwner()) &&
             !(slice && slice->hasOneUse() && *slice->user_begin() == add);
    });
    if (isReadElsewhere || matmul.getAccumulate() ||
        matmul.getEpilogue() != Epilogue::None)
      return "its result is read by itself";
    if (!type.getElementType().isF32() || type != product.getType())
      return "the residual is not what sums are kept in";
    auto producer = residual.getDefiningOp<DestinationStyleOpInterface>();
    if (!producer || !isa<GPTQDialect>(producer->getDialect()) ||
        producer->getBlock() != matmul->getBlock() ||
        !producer->isBeforeInBlock(matmul))
      return "the residual is not computed before it";
    if (!isReadBefore(residual, matmul, add))
      return "the residual is read later";
    matmul.getInitsMutable().assign(residual);
    matmul.setAccumulate(true);
    return "";
  }

  /// Replaces `add`, the sum of `lhs` and `rhs`, if a matmul computes one.
  /// Returns the sum, or null.
  static Value fuse(Operation *add, Value lhs, Value rhs) {
    auto options = remark::RemarkOpts::name("FuseResidualAdd").category("gptq");
    for (auto [summand, other] : {std::pair(rhs, lhs), {lhs, rhs}}) {
      Value product = whole(summand), residual = whole(other);
      auto slice = summand.getDefiningOp<tensor::ExtractSliceOp>();
      auto otherSlice = other.getDefiningOp<tensor::ExtractSliceOp>();
      // The same rows of both.
      if (bool(slice) != bool(otherSlice) ||
          (slice && (slice.getMixedOffsets() != otherSlice.getMixedOffsets() ||
                     slice.getMixedSizes() != otherSlice.getMixedSizes() ||
                     slice.getMixedStrides() != otherSlice.getMixedStrides())))
        continue;
      StringRef why;
      if (auto matmul = product.getDefiningOp<DequantMatmulOp>())
        why = addTo(matmul, residual, add);
      else if (auto matmul = product.getDefiningOp<MatmulOp>())
        why = addTo(matmul, residual, add);
      else
        continue;
      if (why.empty()) {
        remark::passed(add->getLoc(), options)
            << remark::reason("the matmul adds its result to the residual");
        return summand;
      }
      remark::missed(add->getLoc(), options) << remark::reason(
          "the matmul does not add its result to the residual: {0}", why);
    }
    return nullptr;
  }

  void runOnOperation() override {
    SmallVector<Operation *> adds;
    getOperation().walk([&](Operation *op) {
      if (isa<AddOp, AddRMSNormOp>(op))
        adds.push_back(op);
    });
    for (Operation *op : adds) {
      if (auto add = dyn_cast<AddOp>(op)) {
        if (Value sum = fuse(add, add.getLhs(), add.getRhs())) {
          add->getResult(0).replaceAllUsesWith(sum);
          add.erase();
        }
        continue;
      }
      auto add = cast<AddRMSNormOp>(op);
      Value sum = fuse(add, add.getLhs(), add.getRhs());
      if (!sum)
        continue;
      OpBuilder b(add);
      Value init = add.getInits()[1];
      auto norm = RMSNormOp::create(b, add.getLoc(), TypeRange{init.getType()},
                                    sum, add.getWeight(), ValueRange{init},
                                    add.getEpsilonAttr());
      if (Attribute label = add->getAttr(kLabelAttr))
        norm->setAttr(kLabelAttr, label);
      add->getResult(0).replaceAllUsesWith(sum);
      add->getResult(1).replaceAllUsesWith(norm->getResult(0));
      add.erase();
    }
  }
};

struct FuseNormMatmulPass final
    : mlir::gptq::impl::FuseNormMatmulPassBase<FuseNormMatmulPass> {
  using Base::Base;

  template <typename OpTy> static void fuse(OpTy matmul) {
    auto norm = matmul.getLhs().template getDefiningOp<RMSNormOp>();
    if (!norm || matmul.getSource())
      return;
    auto options = remark::RemarkOpts::name("FuseNormMatmul").category("gptq");
    if constexpr (std::is_same_v<OpTy, DequantMatmulOp>)
      if (matmul.getPerm() || matmul.getGIdx()) {
        remark::missed(matmul.getLoc(), options) << remark::reason(
            "does not normalize its rows: they are read through a permutation");
        return;
      }
    matmul.getSourceMutable().assign(norm.getInput());
    matmul.getNormMutable().assign(norm.getWeight());
    matmul.setEpsilonAttr(norm.getEpsilonAttr());
    remark::passed(matmul.getLoc(), options)
        << remark::reason("may normalize its rows itself");
  }

  void runOnOperation() override {
    getOperation().walk([](DequantMatmulOp op) { fuse(op); });
    getOperation().walk([](MatmulOp op) { fuse(op); });
  }
};
} // namespace
