//===- GPTQOps.cpp - Verifiers of the gptq dialect ------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/OpImplementation.h"
#include "mlir/Interfaces/FunctionInterfaces.h"
#include "llvm/ADT/TypeSwitch.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace mlir::gptq;

//===----------------------------------------------------------------------===//
// Helpers
//===----------------------------------------------------------------------===//

static ShapedType shaped(Value v) { return cast<ShapedType>(v.getType()); }

/// Fails with the operand's name where dimension `dim` of `value` is known and
/// is not `expected`.
static LogicalResult checkDim(Operation *op, StringRef name, Value value,
                              int64_t dim, int64_t expected, StringRef rule) {
  if (!value || ShapedType::isDynamic(expected))
    return success();
  int64_t found = shaped(value).getDimSize(dim);
  if (ShapedType::isDynamic(found) || found == expected)
    return success();
  return op->emitOpError("expects dimension ")
         << dim << " of " << name << " to be " << expected << " (" << rule
         << "), but found " << found;
}

/// Checks the number of destinations and that results follow them: one result
/// per tensor destination of the same type, none for memrefs.
static LogicalResult checkInits(Operation *op, size_t expected) {
  auto dps = cast<DestinationStyleOpInterface>(op);
  if (size_t(dps.getNumDpsInits()) != expected)
    return op->emitOpError("expects ")
           << expected << " destinations, but found " << dps.getNumDpsInits();
  for (OpOperand &init : dps.getDpsInitsMutable())
    if (shaped(init.get()).getRank() != shaped(dps.getDpsInits()[0]).getRank())
      return op->emitOpError("expects destinations of one rank");
  return success();
}

/// The effects of a model op: reads its memref inputs, writes its memref
/// destinations.
static void modelOpEffects(
    Operation *op,
    SmallVectorImpl<SideEffects::EffectInstance<MemoryEffects::Effect>>
        &effects,
    bool readsInits) {
  auto dps = cast<DestinationStyleOpInterface>(op);
  for (OpOperand &operand : op->getOpOperands()) {
    if (!isa<MemRefType>(operand.get().getType()))
      continue;
    bool isInit = dps.isDpsInit(&operand);
    if (!isInit || readsInits)
      effects.emplace_back(MemoryEffects::Read::get(), &operand, /*stage=*/0,
                           /*effectOnFullRegion=*/true,
                           SideEffects::DefaultResource::get());
    if (isInit)
      effects.emplace_back(MemoryEffects::Write::get(), &operand, /*stage=*/0,
                           /*effectOnFullRegion=*/true,
                           SideEffects::DefaultResource::get());
  }
}

/// The shapes of the results are those of the destinations.
static LogicalResult reifyFromInits(Operation *op, OpBuilder &b,
                                    ReifiedRankedShapedTypeDims &shapes) {
  auto dps = cast<DestinationStyleOpInterface>(op);
  for (Value init : dps.getDpsInits())
    shapes.push_back(tensor::getMixedSizes(b, op->getLoc(), init));
  return success();
}

using Effects =
    SmallVectorImpl<SideEffects::EffectInstance<MemoryEffects::Effect>>;

//===----------------------------------------------------------------------===//
// Symbols
//===----------------------------------------------------------------------===//

LogicalResult WeightOp::verify() {
  RankedTensorType type = getTensorType();
  if (!type.hasStaticShape())
    return emitOpError("expects a static shape, but found ") << type;
  Attribute init = getInit();
  if (auto data = dyn_cast<DataAttr>(init)) {
    if (data.getType() != type)
      return emitOpError("expects the type of its data, ")
             << data.getType() << ", but found " << type;
    return success();
  }
  if (auto codes = dyn_cast<CodesAttr>(init)) {
    RankedTensorType dataType = codes.getData().getType();
    if (type.getRank() != 2)
      return emitOpError("expects codes to be a matrix, but found ") << type;
    Type element = type.getElementType();
    if (codes.getBits() <= 8
            ? !element.isInteger(codes.getBits())
            : !element.isIntOrFloat() ||
                  element.getIntOrFloatBitWidth() != codes.getBits())
      return emitOpError("expects elements of ")
             << codes.getBits() << " bits, but found " << element;
    auto needed = codes.getDataShape(type.getDimSize(0), type.getDimSize(1));
    if (dataType.getDimSize(0) < needed[0] ||
        dataType.getDimSize(1) < needed[1])
      return emitOpError("expects its data to have at least ")
             << needed[0] << "x" << needed[1] << " elements, but found "
             << dataType;
    return success();
  }
  if (auto argsort = dyn_cast<ArgsortAttr>(init)) {
    if (argsort.getData().getType() != type || type.getRank() != 1 ||
        !type.getElementType().isInteger(32))
      return emitOpError("expects i32 data of its own shape to sort");
    return success();
  }
  if (auto stack = dyn_cast<StackAttr>(init)) {
    if (type.getRank() < 2 ||
        type.getDimSize(0) != int64_t(stack.getParts().size()) ||
        !llvm::all_of(stack.getParts(), llvm::IsaPred<FlatSymbolRefAttr>))
      return emitOpError("expects a type whose first dimension counts the ")
             << stack.getParts().size() << " weights it stacks, but found "
             << type;
    return success();
  }
  if (isa<PlusAttr>(init) && !type.getElementType().isF32())
    return emitOpError("expects sums of f32, but found ") << type;
  if (auto dealt = dyn_cast<DealtAttr>(init)) {
    int64_t turn = dealt.getParts() * dealt.getRun();
    if (type.getRank() != 1 || !type.getElementType().isInteger(32) ||
        turn <= 0 || type.getDimSize(0) % turn != 0)
      return emitOpError("expects an order i32 [N], N a multiple of ")
             << dealt.getParts() << " runs of " << dealt.getRun()
             << ", but found " << type;
    return success();
  }
  if (auto rotary = dyn_cast<RotaryAttr>(init)) {
    DenseF64ArrayAttr factors = rotary.getFactors();
    if (factors &&
        (type.getRank() != 2 || factors.size() * 2 != type.getDimSize(1)))
      return emitOpError("expects a factor for each pair of a row, but found ")
             << factors.size() << " factors for " << type;
    return success();
  }
  if (auto order = dyn_cast<DeinterleaveAttr>(init)) {
    if (type.getRank() != 1 || !type.getElementType().isInteger(32) ||
        type.getDimSize(0) % order.getRun() != 0)
      return emitOpError("expects an order of type i32 [N], N in runs of ")
             << order.getRun() << ", but found " << type;
    return success();
  }
  if (isa<ConcatAttr, DequantizedAttr, GatherAttr, PackedAttr, PlusAttr,
          ProductAttr, QuotientAttr>(init))
    return success();
  return emitOpError("expects init to be a view of data (#gptq.data, "
                     "#gptq.codes, #gptq.product, #gptq.quotient, "
                     "#gptq.dequantized, #gptq.argsort, #gptq.deinterleave, "
                     "#gptq.concat, #gptq.plus, #gptq.dealt, #gptq.gather, "
                     "#gptq.rotary, #gptq.stack or #gptq.packed), but found ")
         << init;
}

LogicalResult
LoadWeightOp::verifySymbolUses(SymbolTableCollection &symbolTable) {
  auto weight =
      symbolTable.lookupNearestSymbolFrom<WeightOp>(*this, getWeightAttr());
  if (!weight)
    return emitOpError("expects a gptq.weight named ") << getWeightAttr();
  if (weight.getTensorType() != getType())
    return emitOpError("expects the type of the weight, ")
           << weight.getType() << ", but found " << getType();
  return success();
}

LogicalResult
LoadStateOp::verifySymbolUses(SymbolTableCollection &symbolTable) {
  auto state =
      symbolTable.lookupNearestSymbolFrom<StateOp>(*this, getStateAttr());
  if (!state)
    return emitOpError("expects a gptq.state named ") << getStateAttr();
  if (state.getType() != getType())
    return emitOpError("expects the type of the state, ")
           << state.getType() << ", but found " << getType();
  return success();
}

//===----------------------------------------------------------------------===//
// dequant_matmul, matmul
//===----------------------------------------------------------------------===//

static constexpr std::pair<Activation, std::array<Epilogue, 2>> kEpilogues[] = {
    {Activation::Silu, {Epilogue::Silu, Epilogue::SiluMul}},
    {Activation::Gelu, {Epilogue::Gelu, Epilogue::GeluMul}},
    {Activation::GeluTanh, {Epilogue::GeluTanh, Epilogue::GeluTanhMul}},
    {Activation::Relu, {Epilogue::Relu, Epilogue::ReluMul}}};

Activation mlir::gptq::getActivation(Epilogue epilogue) {
  for (auto [activation, epilogues] : kEpilogues)
    if (llvm::is_contained(epilogues, epilogue))
      return activation;
  llvm_unreachable("not an activation");
}

Epilogue mlir::gptq::getEpilogue(Activation activation, bool isGated) {
  for (auto [known, epilogues] : kEpilogues)
    if (known == activation)
      return epilogues[isGated];
  llvm_unreachable("not an activation");
}

/// Columns of the result for `n` columns of the weight.
static int64_t epilogueColumns(Epilogue epilogue, int64_t n) {
  return isGated(epilogue) ? n / 2 : n;
}

/// The last dimension: columns of activations.
static int64_t columnsOf(Value v) { return shaped(v).getShape().back(); }

int64_t DequantMatmulOp::getK() { return columnsOf(getLhs()); }

int64_t DequantMatmulOp::getN() {
  if (!getLayout())
    return columnsOf(getCodes());
  int64_t n = columnsOf(getInits()[0]);
  if (ShapedType::isDynamic(n))
    return n;
  return isGated(getEpilogue()) ? 2 * n : n;
}

int64_t MatmulOp::getK() { return columnsOf(getLhs()); }

int64_t MatmulOp::getN() {
  if (!getLayout())
    return shaped(getWeight()).getDimSize(getRuns() ? 1 : 0);
  int64_t n = columnsOf(getInits()[0]);
  if (ShapedType::isDynamic(n))
    return n;
  return isGated(getEpilogue()) ? 2 * n : n;
}

/// Checks activations of `k` columns that were split into bytes.
static LogicalResult checkSplit(Operation *op, Value bytes, Value units,
                                int64_t k, int64_t group) {
  int64_t columns = shaped(bytes).getDimSize(1);
  if (columns % 3 != 0 || columns / 3 < k)
    return op->emitOpError("expects three times at least ")
           << k << " columns of bytes, but found " << columns;
  return checkDim(op, "units", units, 1, llvm::divideCeil(k, group),
                  "ceil(K / group_size)");
}

/// Checks what the activations of `op` are the norm of.
template <typename OpTy> static LogicalResult checkNormOf(OpTy op) {
  if (bool(op.getSource()) != bool(op.getNorm()) ||
      bool(op.getSource()) != bool(op.getEpsilon()))
    return op.emitOpError("expects norm_of together with epsilon");
  if (!op.getSource())
    return success();
  for (int64_t dim = 0; dim < 2; ++dim)
    if (failed(checkDim(op, "norm_of", op.getSource(), dim,
                        shaped(op.getLhs()).getDimSize(dim), "as in lhs")))
      return failure();
  return checkDim(op, "the weight of norm_of", op.getNorm(), 0, op.getK(),
                  "K, as in lhs");
}

bool mlir::gptq::isRows(OpOperand &operand) {
  Operation *op = operand.getOwner();
  auto dps = dyn_cast<DestinationStyleOpInterface>(op);
  const bool isInit = dps && dps.isDpsInit(&operand);
  return llvm::TypeSwitch<Operation *, bool>(op)
      .Case<DequantMatmulOp, MatmulOp>([&](auto matmul) {
        return isInit || &operand == &matmul.getLhsMutable();
      })
      .Case([&](ActivationOp activation) {
        return isInit || operand.get() == activation.getInput() ||
               operand.get() == activation.getUp();
      })
      .Case([&](StageOp stage) {
        return isInit || &operand == &stage.getInputMutable();
      })
      .Case([&](GatherRowsOp) { return isInit; })
      .Case([&](CombineRowsOp combine) {
        return &operand == &combine.getInputMutable();
      })
      .Default([](Operation *) { return false; });
}

/// Checks that all dimensions but the last of `init` are those of `lhs`, and
/// that each of `weights`, with its rank, has with `runs` one more dimension in
/// front that counts the same experts.
static LogicalResult
checkExperts(Operation *op, Value lhs, Value init, Value runs,
             ArrayRef<std::tuple<StringRef, Value, int64_t>> weights) {
  const int64_t rowRank = shaped(lhs).getRank();
  if (rowRank != shaped(init).getRank())
    return op->emitOpError("expects lhs and init of one rank, but found ")
           << lhs.getType() << " and " << init.getType();
  if (!runs && rowRank != 2 && !isa<StageOp>(op))
    return op->emitOpError("expects runs with several slots a row, but found "
                           "none with lhs of type ")
           << lhs.getType();
  for (int64_t dim = 0; dim < rowRank - 1; ++dim)
    if (failed(checkDim(op, "init", init, dim, shaped(lhs).getDimSize(dim),
                        dim == 0 ? "M, as in lhs" : "S, as in lhs")))
      return failure();
  const int64_t front = runs ? 1 : 0;
  int64_t experts = ShapedType::kDynamic;
  if (Value first = std::get<1>(weights.front()); runs && first)
    experts = shaped(first).getDimSize(0);
  for (auto [name, value, plain] : weights) {
    if (!value)
      continue;
    if (shaped(value).getRank() != plain + front)
      return op->emitOpError("expects ") << name << " of rank " << plain + front
                                         << ", but found " << value.getType();
    if (runs &&
        failed(checkDim(op, name, value, 0, experts, "one of each expert")))
      return failure();
  }
  if (!runs)
    return success();
  if (failed(checkDim(op, "runs", runs, 0,
                      ShapedType::isDynamic(experts) ? experts : experts + 1,
                      "experts + 1")) ||
      failed(checkDim(op, "runs", runs, 1, 2, "expert and first row")))
    return failure();
  return success();
}

LogicalResult DequantMatmulOp::verify() {
  if (failed(checkInits(*this, 1)) || failed(checkNormOf(*this)))
    return failure();
  int64_t k = getK();
  Operation *op = *this;
  if (ShapedType::isDynamic(k))
    return emitOpError("expects lhs to have a static number of columns (K)");
  int64_t groups = getNumGroups();
  if (getZeros() && getZeroPoint())
    return emitOpError("expects either zeros or zero_point, not both");
  if (!getZeros() && !getZeroPoint())
    return emitOpError("expects zeros or zero_point");
  if (getGIdx() && getPerm())
    return emitOpError("expects g_idx or perm, not both");
  const int64_t rank = getLayout() ? 3 : 2, front = getRuns() ? 1 : 0;
  if (failed(checkExperts(op, getLhs(), getInits()[0], getRuns(),
                          {{"codes", getCodes(), rank},
                           {"scales", getScales(), rank},
                           {"zeros", getZeros(), rank},
                           {"offsets", getOffsets(), rank},
                           {"g_idx", getGIdx(), 1},
                           {"perm", getPerm(), 1},
                           {"bias", getBias(), 1}})))
    return failure();
  if (LayoutAttr layout = getLayoutAttr()) {
    if (layout.getBits() != int64_t(getBits()))
      return emitOpError("expects a layout of ")
             << getBits() << "-bit elements, but found " << layout.getBits();
    if (failed(checkDim(op, "codes", getCodes(), front + 1,
                        layout.blocksOf(k, getGroupSize()),
                        "blocks along K")) ||
        failed(checkDim(op, "codes", getCodes(), front + 2,
                        layout.getBlockBits() / 32, "words of a block")))
      return failure();
    for (auto [name, value] :
         {std::pair<StringRef, Value>("scales", getScales()),
          {"zeros", getZeros()},
          {"offsets", getOffsets()}})
      if (failed(checkDim(op, name, value, front + 1, groups, "groups")) ||
          failed(checkDim(op, name, value, front + 2, layout.getBlockN(),
                          "blockN")))
        return failure();
  } else {
    int64_t n = getN();
    if (!shaped(getCodes()).getElementType().isInteger(getBits()))
      return emitOpError("expects codes of ")
             << getBits() << " bits, but found "
             << shaped(getCodes()).getElementType();
    if (failed(checkDim(op, "codes", getCodes(), front, k, "K, as in lhs")))
      return failure();
    for (auto [name, value] :
         {std::pair<StringRef, Value>("scales", getScales()),
          {"zeros", getZeros()},
          {"offsets", getOffsets()}}) {
      if (failed(checkDim(op, name, value, front, groups,
                          "ceil(K / group_size)")) ||
          failed(checkDim(op, name, value, front + 1, n, "N, as in codes")))
        return failure();
    }
    if (failed(checkDim(
            op, "init", getInits()[0], shaped(getInits()[0]).getRank() - 1,
            epilogueColumns(getEpilogue(), n), "N after the epilogue")))
      return failure();
    if (failed(checkDim(op, "bias", getBias(), front, n, "N")))
      return failure();
  }
  if (failed(checkDim(op, "g_idx", getGIdx(), front, k, "K, as in lhs")) ||
      failed(checkDim(op, "perm", getPerm(), front, k, "K, as in lhs")))
    return failure();
  if (getBytes() &&
      failed(checkSplit(op, getBytes(), getUnits(), k, getGroupSize())))
    return failure();
  return success();
}

LogicalResult
DequantMatmulOp::reifyResultShapes(OpBuilder &b,
                                   ReifiedRankedShapedTypeDims &shapes) {
  return reifyFromInits(*this, b, shapes);
}
void DequantMatmulOp::getEffects(Effects &effects) {
  modelOpEffects(*this, effects, getAccumulate());
}

LogicalResult DequantizeOp::verify() {
  Operation *op = *this;
  auto codes = cast<RankedTensorType>(getCodes().getType());
  int64_t groups = llvm::divideCeil(codes.getDimSize(0), getGroupSize());
  if (bool(getZeros()) == bool(getZeroPoint()))
    return emitOpError("expects zeros or zero_point, and not both");
  if (failed(checkDim(op, "scales", getScales(), 0, groups,
                      "ceil(K / group_size)")) ||
      failed(
          checkDim(op, "scales", getScales(), 1, codes.getDimSize(1), "N")) ||
      failed(checkDim(op, "zeros", getZeros(), 0, groups,
                      "ceil(K / group_size)")) ||
      failed(checkDim(op, "zeros", getZeros(), 1, codes.getDimSize(1), "N")) ||
      failed(
          checkDim(op, "result", getResult(), 0, codes.getDimSize(0), "K")) ||
      failed(checkDim(op, "result", getResult(), 1, codes.getDimSize(1), "N")))
    return failure();
  return success();
}

LogicalResult MatmulOp::verify() {
  if (failed(checkInits(*this, 1)) || failed(checkNormOf(*this)))
    return failure();
  Operation *op = *this;
  const int64_t front = getRuns() ? 1 : 0;
  LayoutAttr layout = getLayoutAttr();
  if (failed(checkExperts(
          op, getLhs(), getInits()[0], getRuns(),
          {{"weight", getWeight(), layout ? 3 : 2}, {"bias", getBias(), 1}})) ||
      failed(checkDim(op, "weight", getWeight(), front + 1,
                      layout ? layout.blocksOf(getK(), getK()) : getK(),
                      layout ? "blocks along K" : "K, as in lhs")))
    return failure();
  if (!layout &&
      (failed(checkDim(
           op, "init", getInits()[0], shaped(getInits()[0]).getRank() - 1,
           epilogueColumns(getEpilogue(), getN()), "N after the epilogue")) ||
       failed(checkDim(op, "bias", getBias(), front, getN(), "N"))))
    return failure();
  return success();
}
LogicalResult MatmulOp::reifyResultShapes(OpBuilder &b,
                                          ReifiedRankedShapedTypeDims &shapes) {
  return reifyFromInits(*this, b, shapes);
}
void MatmulOp::getEffects(Effects &effects) {
  modelOpEffects(*this, effects, getAccumulate());
}

//===----------------------------------------------------------------------===//
// Row-wise ops
//===----------------------------------------------------------------------===//

LogicalResult EmbeddingOp::verify() {
  if (failed(checkInits(*this, 1)))
    return failure();
  Operation *op = *this;
  int64_t rank = shaped(getTable()).getRank();
  if (rank != (getLayout() ? 3 : 2))
    return emitOpError("expects a table of rank ")
           << (getLayout() ? 3 : 2) << ", but found " << rank;
  if (bool(getPositions()) != bool(getPosition()))
    return emitOpError("expects positions and the position of the first row, "
                       "or neither");
  int64_t columns = shaped(getInits()[0]).getDimSize(1);
  return success(succeeded(checkDim(op, "table", getTable(), 1, columns,
                                    "H, as in init")) &&
                 succeeded(checkDim(op, "positions", getPositions(), 1, columns,
                                    "H, as in init")) &&
                 succeeded(checkDim(op, "init", getInits()[0], 0,
                                    shaped(getTokens()).getDimSize(0),
                                    "M, as in tokens")));
}

/// Checks that `values` agree with `like` in all dimensions.
static LogicalResult sameShape(Operation *op, Value like,
                               ArrayRef<std::pair<StringRef, Value>> values) {
  for (auto [name, value] : values)
    if (shaped(value).getRank() != shaped(like).getRank())
      return op->emitOpError("expects ")
             << name << " of rank " << shaped(like).getRank()
             << " (as in the first input), but found " << value.getType();
  for (auto [name, value] : values)
    for (int64_t dim = 0; dim < shaped(like).getRank(); ++dim)
      if (failed(checkDim(op, name, value, dim, shaped(like).getDimSize(dim),
                          "as in the first input")))
        return failure();
  return success();
}

LogicalResult RMSNormOp::verify() {
  if (failed(checkInits(*this, 1)) ||
      failed(sameShape(*this, getInput(), {{"init", getInits()[0]}})))
    return failure();
  return checkDim(*this, "weight", getWeight(), 0,
                  shaped(getInput()).getDimSize(1), "H, as in input");
}

LogicalResult LayerNormOp::verify() {
  int64_t columns = shaped(getInput()).getDimSize(1);
  if (failed(checkInits(*this, 1)) ||
      failed(sameShape(*this, getInput(), {{"init", getInits()[0]}})) ||
      failed(
          checkDim(*this, "weight", getWeight(), 0, columns, "H, as in input")))
    return failure();
  return checkDim(*this, "bias", getBias(), 0, columns, "H, as in input");
}

LogicalResult SoftcapOp::verify() {
  if (failed(checkInits(*this, 1)))
    return failure();
  if (!(getCap().convertToDouble() > 0))
    return emitOpError("expects a cap above 0, but found ") << getCapAttr();
  return sameShape(*this, getInput(), {{"init", getInits()[0]}});
}

LogicalResult AddOp::verify() {
  if (failed(checkInits(*this, 1)))
    return failure();
  return sameShape(*this, getLhs(),
                   {{"rhs", getRhs()}, {"init", getInits()[0]}});
}

LogicalResult AddRMSNormOp::verify() {
  if (failed(checkInits(*this, 2)) ||
      failed(sameShape(*this, getLhs(),
                       {{"rhs", getRhs()},
                        {"init", getInits()[0]},
                        {"init", getInits()[1]}})))
    return failure();
  return checkDim(*this, "weight", getWeight(), 0,
                  shaped(getLhs()).getDimSize(1), "H, as in lhs");
}

LogicalResult ActivationOp::verify() {
  if (failed(checkInits(*this, 1)))
    return failure();
  if (getUp() && failed(sameShape(*this, getInput(), {{"up", getUp()}})))
    return failure();
  return sameShape(*this, getInput(), {{"init", getInits()[0]}});
}

LogicalResult StageOp::verify() {
  if (failed(checkInits(*this, 1)) ||
      failed(sameShape(*this, getInput(), {{"init", getInits()[0]}})) ||
      failed(checkExperts(*this, getInput(), getInits()[0], getRuns(),
                          {{"perm", getPerm(), 1}})))
    return failure();
  return checkDim(*this, "perm", getPerm(), getRuns() ? 1 : 0,
                  columnsOf(getInput()), "K, as in input");
}

//===----------------------------------------------------------------------===//
// Experts
//===----------------------------------------------------------------------===//

/// Checks the element type of a destination, and that its rows are those of
/// `like`.
static LogicalResult checkNumbered(Operation *op, StringRef name, Value init,
                                   bool isNumbers, Value like) {
  if (shaped(init).getElementType().isInteger(32) != isNumbers)
    return op->emitOpError("expects ")
           << name << " to be of " << (isNumbers ? "i32" : "floats")
           << ", but found " << init.getType();
  return checkDim(op, name, init, 0, shaped(like).getDimSize(0),
                  "M, as in the first input");
}

LogicalResult RouteOp::verify() {
  if (failed(checkInits(*this, 2)))
    return failure();
  Value experts = getInits()[0], weights = getInits()[1];
  const int64_t slots = columnsOf(experts), all = columnsOf(getLogits());
  if (ShapedType::isDynamic(slots) || ShapedType::isDynamic(all))
    return emitOpError("expects static numbers of experts and slots");
  if (slots > all)
    return emitOpError("expects at most as many slots as experts, ")
           << all << ", but found " << slots;
  if (!shaped(getLogits()).getElementType().isF32() ||
      !(shaped(weights).getElementType().isF32()))
    return emitOpError("expects logits and weights of f32, but found ")
           << getLogits().getType() << " and " << weights.getType();
  if (failed(checkNumbered(*this, "experts", experts, true, getLogits())) ||
      failed(checkNumbered(*this, "weights", weights, false, getLogits())))
    return failure();
  return checkDim(*this, "weights", weights, 1, slots, "slots, as in experts");
}

LogicalResult GroupRowsOp::verify() {
  if (failed(checkInits(*this, 3)))
    return failure();
  const int64_t slots = columnsOf(getExperts());
  if (ShapedType::isDynamic(slots) ||
      !cast<ShapedType>(getInits()[2].getType()).hasStaticShape())
    return emitOpError("expects static numbers of experts and slots");
  if (failed(
          sameShape(*this, getExperts(),
                    {{"positions", getInits()[0]}, {"order", getInits()[1]}})))
    return failure();
  if (shaped(getInits()[2]).getDimSize(0) < 2)
    return emitOpError("expects runs of at least one expert");
  return checkDim(*this, "runs", getInits()[2], 1, 2, "expert and first row");
}

LogicalResult GatherRowsOp::verify() {
  if (failed(checkInits(*this, 1)))
    return failure();
  Value init = getInits()[0];
  if (ShapedType::isDynamic(columnsOf(getOrder())))
    return emitOpError("expects a static number of slots");
  if (shaped(init).getRank() == 3 &&
      (failed(checkDim(*this, "init", init, 0, shaped(getOrder()).getDimSize(0),
                       "M, as in order")) ||
       failed(checkDim(*this, "init", init, 1, columnsOf(getOrder()),
                       "S, as in order"))))
    return failure();
  return checkDim(*this, "init", init, shaped(init).getRank() - 1,
                  columnsOf(getInput()), "H, as in input");
}

LogicalResult CombineRowsOp::verify() {
  Operation *op = *this;
  if (failed(checkInits(op, 1)))
    return failure();
  Value init = getInits()[0];
  const int64_t slots = columnsOf(getPositions());
  if (ShapedType::isDynamic(slots))
    return emitOpError("expects a static number of slots");
  if (!shaped(getWeights()).getElementType().isF32())
    return emitOpError("expects weights of f32, but found ")
           << getWeights().getType();
  if (failed(checkDim(op, "weights", getWeights(), 0,
                      shaped(getPositions()).getDimSize(0),
                      "M, as in positions")) ||
      failed(checkDim(op, "weights", getWeights(), 1, slots,
                      "S, as in positions")) ||
      failed(checkDim(op, "init", init, 0, shaped(getPositions()).getDimSize(0),
                      "M, as in positions")) ||
      failed(checkDim(op, "init", init, 1, columnsOf(getInput()),
                      "H, as in input")))
    return failure();
  if (shaped(getInput()).getRank() == 3 &&
      failed(checkDim(op, "input", getInput(), 1, slots, "S, as in positions")))
    return failure();
  if (!getShared())
    return success();
  if (failed(checkDim(op, "gate", getGate(), 0, shaped(init).getDimSize(0),
                      "M, as in init")) ||
      failed(checkDim(op, "gate", getGate(), 1, 1, "one number a row")))
    return failure();
  return sameShape(op, getShared(), {{"init", init}});
}

LogicalResult StageSplitOp::verify() {
  if (failed(checkInits(*this, 2)))
    return failure();
  Value bytes = getInits()[0], units = getInits()[1];
  int64_t k = shaped(getInput()).getDimSize(1);
  if (!shaped(bytes).getElementType().isInteger(8) ||
      !shaped(units).getElementType().isF32())
    return emitOpError("expects to write bytes, then units, but found ")
           << bytes.getType() << " and " << units.getType();
  if (ShapedType::isDynamic(k))
    return emitOpError("expects a static number of columns");
  for (Value init : getInits())
    if (failed(checkDim(*this, "init", init, 0,
                        shaped(getInput()).getDimSize(0), "M, as in input")))
      return failure();
  if (failed(checkDim(*this, "perm", getPerm(), 0, k, "K, as in input")))
    return failure();
  return checkSplit(*this, bytes, units, k, getGroupSize());
}

/// Checks the caches of rotary_append and attention.
static LogicalResult checkCaches(Operation *op, Value keys, Value values,
                                 int64_t heads, int64_t kvHeads,
                                 int64_t headDim) {
  if (keys.getType() != values.getType() &&
      shaped(keys).getShape() != shaped(values).getShape())
    return op->emitOpError("expects caches of one shape, but found ")
           << keys.getType() << " and " << values.getType();
  if (heads % kvHeads != 0)
    return op->emitOpError(
               "expects heads to be a multiple of kv_heads, but found ")
           << heads << " and " << kvHeads;
  if (failed(checkDim(op, "keys", keys, 0, kvHeads, "kv_heads")) ||
      failed(checkDim(op, "keys", keys, 2, headDim, "head_dim")))
    return failure();
  return success();
}

LogicalResult RotaryAppendOp::verify() {
  Operation *op = *this;
  int64_t heads = getHeads(), kvHeads = getKvHeads(), d = getHeadDim();
  if (failed(checkInits(op, 1)) ||
      failed(checkCaches(op, getKeys(), getValues(), heads, kvHeads, d)))
    return failure();
  if (failed(checkDim(op, "q", getQ(), 1, heads * d, "heads * head_dim")) ||
      failed(checkDim(op, "init", getInits()[0], 1, heads * d,
                      "heads * head_dim")) ||
      failed(
          checkDim(op, "k", getK(), 1, kvHeads * d, "kv_heads * head_dim")) ||
      failed(
          checkDim(op, "v", getV(), 1, kvHeads * d, "kv_heads * head_dim")) ||
      failed(checkDim(op, "q_norm", getQNorm(), 0, d, "head_dim")) ||
      failed(checkDim(op, "k_norm", getKNorm(), 0, d, "head_dim")))
    return failure();
  if (!getTable())
    return success();
  int64_t rotated = shaped(getTable()).getDimSize(1);
  if (ShapedType::isDynamic(rotated) || rotated % 2 != 0 || rotated > d)
    return emitOpError("expects a table for an even number of at most ")
           << d << " elements of a head, but found " << getTable().getType();
  return success();
}

LogicalResult AttentionOp::verify() {
  Operation *op = *this;
  const int64_t heads = getHeads(), kvHeads = getKvHeads(), d = getHeadDim();
  const int64_t width = heads * d, parts = getParts();
  if (failed(checkInits(op, parts > 1 ? 2 : 1)) ||
      failed(checkCaches(op, getKeys(), getValues(), heads, kvHeads, d)) ||
      failed(checkDim(op, "q", getQ(), 1, width, "heads * head_dim")) ||
      failed(checkDim(op, "init", getInits()[0], 1, width, "heads * head_dim")))
    return failure();
  if (int64_t(getWindow()) < 0)
    return emitOpError("expects window to be at least 0, but found ")
           << getWindow();
  if (!(getSoftcap().convertToDouble() >= 0))
    return emitOpError("expects softcap to be at least 0, but found ")
           << getSoftcapAttr();
  if (bool(getPart()) != (parts > 1))
    return emitOpError("expects the number of its first part where there are "
                       "several, but found ")
           << parts << (parts > 1 ? " parts without it" : " part with it");
  if (parts > 1 && failed(checkDim(op, "init", getInits()[1], 1, 2 * heads,
                                   "a pair for each head")))
    return failure();
  if ((parts > 1 || getK()) &&
      failed(
          checkDim(op, "q", getQ(), 0, 1, "M where it is in parts or rotates")))
    return failure();
  if (bool(getK()) != bool(getV()) || bool(getK()) != bool(getTable()) ||
      (!getK() && (getQNorm() || getKNorm())))
    return emitOpError("expects k, v and table where it rotates, and norms "
                       "only there");
  if (!getK())
    return success();
  if (d % 2 != 0)
    return emitOpError("expects an even head_dim, but found ") << d;
  if (failed(
          checkDim(op, "k", getK(), 1, kvHeads * d, "kv_heads * head_dim")) ||
      failed(
          checkDim(op, "v", getV(), 1, kvHeads * d, "kv_heads * head_dim")) ||
      failed(checkDim(op, "table", getTable(), 1, d, "head_dim")) ||
      failed(checkDim(op, "q_norm", getQNorm(), 0, d, "head_dim")) ||
      failed(checkDim(op, "k_norm", getKNorm(), 0, d, "head_dim")))
    return failure();
  return success();
}

LogicalResult JoinAttentionOp::verify() {
  Operation *op = *this;
  const int64_t heads = getHeads(), width = heads * getHeadDim();
  if (failed(checkInits(op, 1)) ||
      failed(checkDim(op, "init", getInits()[0], 0, 1, "M")) ||
      failed(
          checkDim(op, "init", getInits()[0], 1, width, "heads * head_dim")) ||
      failed(checkDim(op, "sums", getSums(), 1, width, "heads * head_dim")) ||
      failed(
          checkDim(op, "stats", getStats(), 1, 2 * heads, "a pair a head")) ||
      failed(checkDim(op, "stats", getStats(), 0,
                      shaped(getSums()).getDimSize(0), "parts, as in sums")))
    return failure();
  return success();
}

/// Checks that `values` are f32 and `indices` i32, both [parts, each].
static LogicalResult checkLargest(Operation *op, Value values, Value indices,
                                  int64_t each, StringRef rule) {
  if (!shaped(values).getElementType().isF32() ||
      !shaped(indices).getElementType().isInteger(32))
    return op->emitOpError("expects values of f32, then indices of i32, but "
                           "found ")
           << values.getType() << " and " << indices.getType();
  for (auto [name, value] :
       {std::pair<StringRef, Value>("values", values), {"indices", indices}})
    if (failed(checkDim(op, name, value, 1, each, rule)))
      return failure();
  return checkDim(op, "indices", indices, 0, shaped(values).getDimSize(0),
                  "parts, as in values");
}

LogicalResult ArgmaxOp::verify() {
  if (failed(checkInits(*this, 2)) ||
      failed(checkDim(*this, "input", getInput(), 0, 1, "M")))
    return failure();
  return checkLargest(*this, getInits()[0], getInits()[1], 1,
                      "one for each part");
}

/// Checks `values` and `indices` that are the largest k of each part.
static LogicalResult checkTopK(Operation *op, Value values, Value indices) {
  const int64_t k = shaped(values).getDimSize(1);
  if (k < 2 || !llvm::isPowerOf2_64(k))
    return op->emitOpError("expects a power of two of values for each part, "
                           "but found ")
           << values.getType();
  return checkLargest(op, values, indices, k, "as in values");
}

LogicalResult TopKOp::verify() {
  if (failed(checkInits(*this, 2)) ||
      failed(checkTopK(*this, getInits()[0], getInits()[1])))
    return failure();
  if (!getIndices())
    return checkDim(*this, "input", getInput(), 0, 1, "M");
  const int64_t k = shaped(getInits()[0]).getDimSize(1);
  if (failed(checkTopK(*this, getInput(), getIndices())) ||
      failed(checkDim(*this, "input", getInput(), 1, k, "k, as in the result")))
    return failure();
  if (getColumns() % k != 0)
    return emitOpError("expects parts of a multiple of ")
           << k << " columns, but found " << getColumns();
  return success();
}

LogicalResult SampleTokenOp::verify() {
  if (failed(checkInits(*this, 2)) ||
      failed(checkTopK(*this, getValues(), getIndices())) ||
      failed(checkDim(*this, "sampling", getSampling(), 0, kSamplingWords,
                      "how tokens are drawn")))
    return failure();
  for (Value init : getInits())
    if (failed(checkDim(*this, "init", init, 0, 1, "one token")))
      return failure();
  return success();
}

LogicalResult ChooseTokenOp::verify() {
  if (failed(checkInits(*this, 2)) ||
      failed(checkLargest(*this, getValues(), getIndices(), 1,
                          "one for each part")))
    return failure();
  for (Value init : getInits())
    if (failed(checkDim(*this, "init", init, 0, 1, "one token")))
      return failure();
  return success();
}

LogicalResult FragmentDotOp::verify() {
  auto expects = [&](StringRef name, Value value,
                     ArrayRef<int64_t> shape) -> LogicalResult {
    if (cast<VectorType>(value.getType()).getShape() == shape)
      return success();
    return emitOpError("expects ")
           << name << " of " << shape[0] << "x" << shape[1]
           << " elements, but found " << value.getType();
  };
  if (failed(expects("a", getA(), {4, 2})) ||
      failed(expects("b", getB(), {2, 2})) ||
      failed(expects("acc", getAcc(), {2, 2})))
    return failure();
  if (getElementTypeOrSelf(getA()) != getElementTypeOrSelf(getB()))
    return emitOpError("expects a and b of one element type, but found ")
           << getA().getType() << " and " << getB().getType();
  return success();
}

#define GPTQ_ROW_OP_METHODS(OP)                                                \
  LogicalResult OP::reifyResultShapes(OpBuilder &b,                            \
                                      ReifiedRankedShapedTypeDims &shapes) {   \
    return reifyFromInits(*this, b, shapes);                                   \
  }
GPTQ_ROW_OP_METHODS(EmbeddingOp)
GPTQ_ROW_OP_METHODS(RMSNormOp)
GPTQ_ROW_OP_METHODS(LayerNormOp)
GPTQ_ROW_OP_METHODS(SoftcapOp)
GPTQ_ROW_OP_METHODS(AddOp)
GPTQ_ROW_OP_METHODS(AddRMSNormOp)
GPTQ_ROW_OP_METHODS(ActivationOp)
GPTQ_ROW_OP_METHODS(RotaryAppendOp)
GPTQ_ROW_OP_METHODS(AttentionOp)
GPTQ_ROW_OP_METHODS(JoinAttentionOp)
GPTQ_ROW_OP_METHODS(ArgmaxOp)
GPTQ_ROW_OP_METHODS(ChooseTokenOp)
GPTQ_ROW_OP_METHODS(TopKOp)
GPTQ_ROW_OP_METHODS(SampleTokenOp)
GPTQ_ROW_OP_METHODS(StageOp)
GPTQ_ROW_OP_METHODS(StageSplitOp)
GPTQ_ROW_OP_METHODS(RouteOp)
GPTQ_ROW_OP_METHODS(GroupRowsOp)
GPTQ_ROW_OP_METHODS(GatherRowsOp)
GPTQ_ROW_OP_METHODS(CombineRowsOp)
#undef GPTQ_ROW_OP_METHODS

void EmbeddingOp::getEffects(Effects &e) { modelOpEffects(*this, e, false); }
void RMSNormOp::getEffects(Effects &e) { modelOpEffects(*this, e, false); }
void LayerNormOp::getEffects(Effects &e) { modelOpEffects(*this, e, false); }
void SoftcapOp::getEffects(Effects &e) { modelOpEffects(*this, e, false); }
void AddOp::getEffects(Effects &e) { modelOpEffects(*this, e, false); }
void AddRMSNormOp::getEffects(Effects &e) { modelOpEffects(*this, e, false); }
void ActivationOp::getEffects(Effects &e) { modelOpEffects(*this, e, false); }
void StageOp::getEffects(Effects &e) { modelOpEffects(*this, e, false); }
void StageSplitOp::getEffects(Effects &e) { modelOpEffects(*this, e, false); }
void RouteOp::getEffects(Effects &e) { modelOpEffects(*this, e, false); }
void GroupRowsOp::getEffects(Effects &e) { modelOpEffects(*this, e, false); }
void GatherRowsOp::getEffects(Effects &e) { modelOpEffects(*this, e, false); }
void CombineRowsOp::getEffects(Effects &e) { modelOpEffects(*this, e, false); }
void JoinAttentionOp::getEffects(Effects &e) {
  modelOpEffects(*this, e, false);
}
void ArgmaxOp::getEffects(Effects &e) { modelOpEffects(*this, e, false); }
void ChooseTokenOp::getEffects(Effects &e) { modelOpEffects(*this, e, false); }
void TopKOp::getEffects(Effects &e) { modelOpEffects(*this, e, false); }
void SampleTokenOp::getEffects(Effects &e) { modelOpEffects(*this, e, false); }
/// The caches are written, too.
template <typename OpTy> static void appendEffects(OpTy op, Effects &e) {
  for (OpOperand *cache : {&op.getKeysMutable(), &op.getValuesMutable()})
    e.emplace_back(MemoryEffects::Write::get(), cache, /*stage=*/0,
                   /*effectOnFullRegion=*/true,
                   SideEffects::DefaultResource::get());
}
void AttentionOp::getEffects(Effects &e) {
  modelOpEffects(*this, e, false);
  if (getK())
    appendEffects(*this, e);
}
void RotaryAppendOp::getEffects(Effects &e) {
  modelOpEffects(*this, e, false);
  appendEffects(*this, e);
}

//===----------------------------------------------------------------------===//
// Program and kernels
//===----------------------------------------------------------------------===//

LogicalResult DispatchOp::verifySymbolUses(SymbolTableCollection &symbolTable) {
  if (getKernels().empty() || getKernels().size() != getMMax().size())
    return emitOpError("expects one m_max per kernel, but found ")
           << getKernels().size() << " kernels and " << getMMax().size()
           << " bounds";
  for (size_t i = 1; i < getMMax().size(); ++i)
    if (getMMax()[i] <= getMMax()[i - 1])
      return emitOpError("expects m_max to increase");
  if (int64_t(getMMin()) < 1 || int64_t(getMMin()) > getMMax().front())
    return emitOpError("expects m_min to be 1 to the first m_max, ")
           << getMMax().front() << ", but found " << getMMin();
  for (Attribute kernel : getKernels()) {
    auto fn = symbolTable.lookupNearestSymbolFrom<FunctionOpInterface>(
        *this, cast<SymbolRefAttr>(kernel));
    if (!fn)
      return emitOpError("expects a kernel named ") << kernel;
  }
  return success();
}

void DispatchOp::getEffects(Effects &effects) {
  // A kernel may write the states among its inputs.
  for (OpOperand &operand : getInputsMutable())
    if (isa<MemRefType>(operand.get().getType())) {
      effects.emplace_back(MemoryEffects::Read::get(), &operand, /*stage=*/0,
                           /*effectOnFullRegion=*/true,
                           SideEffects::DefaultResource::get());
      effects.emplace_back(MemoryEffects::Write::get(), &operand, /*stage=*/0,
                           /*effectOnFullRegion=*/true,
                           SideEffects::DefaultResource::get());
    }
}

LogicalResult GroupDotOp::verify() {
  auto acc = cast<VectorType>(getAcc().getType());
  for (auto [name, value] : {std::pair<StringRef, Value>("scale", getScale()),
                             {"zero", getZero()},
                             {"offset", getOffset()}})
    if (value &&
        cast<VectorType>(value.getType()).getDimSize(0) != acc.getDimSize(1))
      return emitOpError("expects ")
             << name << " to have " << acc.getDimSize(1)
             << " elements, one per column of acc, but found "
             << value.getType();
  if (getUnit() &&
      cast<VectorType>(getUnit().getType()).getDimSize(0) != acc.getDimSize(0))
    return emitOpError("expects unit to have ")
           << acc.getDimSize(0) << " elements, one per row of acc, but found "
           << getUnit().getType();
  int64_t n = acc.getDimSize(1), runs = getColumns().size();
  if (runs == 0 || n % runs != 0)
    return emitOpError("expects runs of equal length to make up ")
           << n << " columns, but found " << runs << " runs";
  for (int64_t column : getColumns())
    if (column < 0 || column + n / runs > getLayout().getBlockN())
      return emitOpError("expects columns ")
             << column << " to " << column + n / runs
             << " to lie inside a panel of " << getLayout().getBlockN();
  return success();
}

#define GET_OP_CLASSES
#include "gptq/Dialect/GPTQ/IR/GPTQOps.cpp.inc"
