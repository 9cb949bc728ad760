//===- FormDispatches.cpp - One kernel per op and range of M --------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Codegen/Common/Passes.h"
#include "gptq/Codegen/Common/Plan.h"
#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "mlir/Dialect/Affine/IR/AffineOps.h"
#include "mlir/Dialect/Bufferization/IR/Bufferization.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/Utils/StaticValueUtils.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/IRMapping.h"
#include "llvm/ADT/ScopeExit.h"
#include "llvm/ADT/SetVector.h"
#include "llvm/ADT/StringMap.h"

namespace mlir::gptq {
#define GEN_PASS_DEF_FORMDISPATCHESPASS
#include "gptq/Codegen/Common/Passes.h.inc"
} // namespace mlir::gptq

using namespace mlir;
using namespace mlir::gptq;

namespace {

/// `type` as the buffer a kernel gets: the number of rows varies between calls
/// unless the kernel is for a single row.
MemRefType bufferType(ShapedType type, bool singleRow) {
  SmallVector<int64_t> shape(type.getShape());
  if (singleRow && !shape.empty() && ShapedType::isDynamic(shape[0]))
    shape[0] = 1;
  return MemRefType::get(shape, type.getElementType());
}

/// Kernels made so far, shared by the entry functions.
struct Kernels {
  ModuleOp module;
  /// The text of a kernel without its name -> its name.
  llvm::StringMap<StringAttr> byText;

  /// Keeps `kernel` under a name made from `stem`, or drops it for one that
  /// reads the same.
  StringAttr add(func::FuncOp kernel, StringRef stem, int64_t mMax) {
    kernel.setName("kernel");
    std::string text;
    llvm::raw_string_ostream os(text);
    kernel.print(os);
    auto [it, isNew] = byText.try_emplace(text);
    if (!isNew) {
      kernel.erase();
      return it->second;
    }
    std::string name =
        (stem + "_" + Twine(byText.size() - 1) + "_m" + Twine(mMax)).str();
    kernel.setName(name);
    return it->second = kernel.getSymNameAttr();
  }
};

/// What the kernel of `op` with a certain plan reads: `op` without the operands
/// that others with other plans read.
template <typename OpTy> static void keepOperandsOf(OpTy op, PlanAttr plan) {
  if (!op.getSource())
    return;
  if (plan.getPath() == "normalize") {
    // Still says what its rows are normalized to.
    OpBuilder b(op);
    auto type = cast<RankedTensorType>(op.getLhs().getType());
    op.getLhsMutable().assign(tensor::EmptyOp::create(
        b, op.getLoc(), tensor::getMixedSizes(b, op.getLoc(), op.getSource()),
        type.getElementType()));
    return;
  }
  op.getSourceMutable().clear();
  op.getNormMutable().clear();
  op.removeEpsilonAttr();
}

/// Whether `op` adds to its destination.
static bool readsInits(Operation *op) {
  if (auto matmul = dyn_cast<DequantMatmulOp>(op))
    return matmul.getAccumulate();
  auto matmul = dyn_cast<MatmulOp>(op);
  return matmul && matmul.getAccumulate();
}

/// Moves the ops of one entry function into kernels.
class DispatchFormer {
public:
  DispatchFormer(func::FuncOp entry, Kernels &kernels)
      : entry(entry), kernels(kernels) {}

  LogicalResult run();

private:
  LogicalResult form(Operation *op);
  Value argumentOf(Value value);
  func::FuncOp outline(Operation *op, PlanAttr plan, bool singleRow,
                       ArrayRef<Value> inputs, ArrayRef<Value> inits);

  func::FuncOp entry;
  Kernels &kernels;
  Value rows, position;
  /// The entry is for one row.
  bool isForOneRow = false;
  /// What the op at hand reads and writes as rows with several slots each, and
  /// what that is a slice of: kernels see the slots of all rows as the rows of
  /// one matrix.
  llvm::SmallPtrSet<Value, 4> slotted;
};

} // namespace

/// The tensor or buffer that `value` is a slice of: what the kernel is handed.
Value DispatchFormer::argumentOf(Value value) {
  while (auto slice = value.getDefiningOp<tensor::ExtractSliceOp>())
    value = slice.getSource();
  return value;
}

/// Whether `value` is a tensor of no contents: a kernel makes it itself.
static bool isEmpty(Value value) {
  return value.getDefiningOp<tensor::EmptyOp>() != nullptr;
}

/// Clones what the index `value` is computed from. Row counts are M.
static Value cloneIndex(OpBuilder &b, Value value, IRMapping &map, Value m) {
  if (Value known = map.lookupOrNull(value))
    return known;
  Operation *def = value.getDefiningOp();
  if (!def)
    return nullptr;
  if (isa<tensor::DimOp>(def)) {
    map.map(value, m);
    return m;
  }
  for (Value operand : def->getOperands())
    if (!cloneIndex(b, operand, map, m))
      return nullptr;
  Operation *copy = b.clone(*def, map);
  return copy->getResult(0);
}

/// Makes the kernel function of `op` for `plan`; null after an error.
func::FuncOp DispatchFormer::outline(Operation *op, PlanAttr plan,
                                     bool singleRow, ArrayRef<Value> inputs,
                                     ArrayRef<Value> inits) {
  Location loc = UnknownLoc::get(op->getContext());
  OpBuilder b = OpBuilder::atBlockEnd(kernels.module.getBody());
  SmallVector<Type> types;
  for (ArrayRef<Value> group : {inputs, inits})
    for (Value value : group)
      types.push_back(bufferType(cast<ShapedType>(value.getType()), singleRow));
  types.append(2, b.getIndexType());
  auto kernel = func::FuncOp::create(b, loc, "kernel",
                                     b.getFunctionType(types, TypeRange()));
  kernel->setAttr(kKernelAttr, b.getUnitAttr());
  for (auto [i, value] : llvm::enumerate(inputs))
    if (value.getDefiningOp<LoadWeightOp>())
      kernel.setArgAttr(i, kWeightAttr, b.getUnitAttr());
  Block *body = kernel.addEntryBlock();
  b.setInsertionPointToStart(body);

  IRMapping map;
  Value m = body->getArgument(types.size() - 2);
  if (singleRow)
    m = arith::ConstantIndexOp::create(b, loc, 1);
  map.map(rows, m);
  map.map(position, body->getArgument(types.size() - 1));

  auto tensorOf = [&](Value buffer, bool isWritable) -> Value {
    auto type = cast<MemRefType>(buffer.getType());
    return bufferization::ToTensorOp::create(
        b, loc, RankedTensorType::get(type.getShape(), type.getElementType()),
        buffer, /*restrict=*/true, isWritable);
  };
  // The buffer that argument `i` is to the kernel's op.
  auto bufferOf = [&](int64_t i, Value value) -> Value {
    Value arg = body->getArgument(i);
    if (!slotted.contains(value))
      return arg;
    SmallVector<ReassociationIndices> slots = {{0, 1}, {2}};
    return memref::CollapseShapeOp::create(b, loc, arg, slots);
  };
  for (auto [i, value] : llvm::enumerate(inputs)) {
    Value arg = bufferOf(i, value);
    if (isa<RankedTensorType>(value.getType()))
      arg = tensorOf(arg, /*isWritable=*/false);
    map.map(value, arg);
  }
  SmallVector<Value> destinations;
  for (auto [i, value] : llvm::enumerate(inits)) {
    destinations.push_back(bufferOf(inputs.size() + i, value));
    if (readsInits(op)) {
      map.map(value, tensorOf(destinations.back(), /*isWritable=*/true));
      continue;
    }
    auto type = cast<MemRefType>(destinations.back().getType());
    const int64_t slots = slotted.contains(value)
                              ? cast<ShapedType>(value.getType()).getDimSize(1)
                              : 1;
    SmallVector<OpFoldResult> sizes;
    for (int64_t size : type.getShape())
      sizes.push_back(
          ShapedType::isDynamic(size)
              ? affine::makeComposedFoldedAffineApply(
                    b, loc, b.getAffineSymbolExpr(0) * slots, {OpFoldResult(m)})
              : b.getIndexAttr(size));
    map.map(value,
            tensor::EmptyOp::create(b, loc, sizes, type.getElementType()));
  }

  // The slices the op reads, from the outermost in.
  SmallVector<Value> operands;
  for (Value operand : op->getOperands()) {
    if (isEmpty(operand) && !map.contains(operand)) {
      auto type = cast<RankedTensorType>(operand.getType());
      SmallVector<OpFoldResult> sizes(1, b.getIndexAttr(type.getDimSize(0)));
      if (type.isDynamicDim(0))
        sizes[0] = singleRow ? OpFoldResult(b.getIndexAttr(1)) : m;
      for (int64_t size : type.getShape().drop_front())
        sizes.push_back(b.getIndexAttr(size));
      map.map(operand,
              tensor::EmptyOp::create(b, loc, sizes, type.getElementType()));
    }
    SmallVector<tensor::ExtractSliceOp> slices;
    for (Value v = operand;
         auto slice = v.getDefiningOp<tensor::ExtractSliceOp>();
         v = slice.getSource())
      slices.push_back(slice);
    for (tensor::ExtractSliceOp slice : llvm::reverse(slices)) {
      if (map.contains(slice.getResult()))
        continue;
      auto translate = [&](ArrayRef<OpFoldResult> values)
          -> FailureOr<SmallVector<OpFoldResult>> {
        SmallVector<OpFoldResult> result;
        for (OpFoldResult value : values) {
          if (auto v = dyn_cast<Value>(value)) {
            Value copy = cloneIndex(b, v, map, m);
            if (!copy)
              return failure();
            value = getAsOpFoldResult(copy);
          }
          result.push_back(value);
        }
        return result;
      };
      auto offsets = translate(slice.getMixedOffsets());
      auto sizes = translate(slice.getMixedSizes());
      auto strides = translate(slice.getMixedStrides());
      if (succeeded(sizes) && succeeded(offsets) && succeeded(strides) &&
          slotted.contains(slice.getSource())) {
        // Columns of all slots of all rows.
        if (!isZeroInteger((*offsets)[0]) || !isZeroInteger((*offsets)[1]) ||
            slice.getType().getRank() != 3 ||
            slice.getType().getDimSize(1) !=
                slice.getSourceType().getDimSize(1)) {
          slice.emitError("expects a slice of all slots of all rows");
          return nullptr;
        }
        offsets->erase(offsets->begin());
        strides->erase(strides->begin());
        sizes->erase(sizes->begin());
        sizes->front() =
            tensor::getMixedSize(b, loc, map.lookup(slice.getSource()), 0);
      }
      if (failed(offsets) || failed(sizes) || failed(strides)) {
        slice.emitError("expects a slice at an offset that is computed from M "
                        "and the position");
        return nullptr;
      }
      map.map(slice.getResult(), tensor::ExtractSliceOp::create(
                                     b, loc, map.lookup(slice.getSource()),
                                     *offsets, *sizes, *strides));
    }
    if (operand.getType().isIndex() && !cloneIndex(b, operand, map, m)) {
      op->emitError("expects an index operand that is computed from M and the "
                    "position");
      return nullptr;
    }
    operands.push_back(map.lookup(operand));
  }
  SmallVector<Type> resultTypes;
  auto dps = cast<DestinationStyleOpInterface>(op);
  for (OpOperand &init : dps.getDpsInitsMutable())
    resultTypes.push_back(operands[init.getOperandNumber()].getType());
  Operation *copy = clone(b, op, resultTypes, operands);
  // Of the layers that share the kernel, what is said about it names the first.
  copy->setLoc(op->getLoc());
  copy->removeAttr(kPlansAttr);
  copy->removeAttr(kReasonsAttr);
  copy->removeAttr(kLabelAttr);
  copy->setAttr(kPlanAttr, plan);
  for (auto [i, result] : llvm::enumerate(copy->getResults()))
    bufferization::MaterializeInDestinationOp::create(
        b, loc, /*result=*/Type(), result, destinations[i],
        /*restrict=*/true, /*writable=*/true);
  func::ReturnOp::create(b, loc);
  return kernel;
}

LogicalResult DispatchFormer::form(Operation *op) {
  auto dps = dyn_cast<DestinationStyleOpInterface>(op);
  if (!dps)
    return op->emitError("expects planned ops in destination style");
  SmallVector<PlanAttr> plans = getPlans(op);
  if (plans.empty()) {
    // No kernel reads its results.
    op->replaceAllUsesWith(ValueRange(dps.getDpsInits()));
    op->erase();
    return success();
  }
  int64_t maxRows = entry->getAttrOfType<IntegerAttr>(kMaxRowsAttr).getInt();
  slotted.clear();
  for (OpOperand &operand : op->getOpOperands())
    if (isRows(operand) &&
        cast<ShapedType>(operand.get().getType()).getRank() == 3)
      for (Value v = operand.get(); v;) {
        slotted.insert(v);
        auto slice = v.getDefiningOp<tensor::ExtractSliceOp>();
        v = slice ? slice.getSource() : Value();
      }

  // The op as each kernel has it; the dispatch hands over what any of them
  // reads.
  OpBuilder b(op);
  SmallVector<Operation *> planned;
  llvm::SetVector<Value> inputs;
  for (PlanAttr plan : plans) {
    Operation *copy = planned.emplace_back(b.clone(*op));
    if (auto matmul = dyn_cast<DequantMatmulOp>(copy))
      keepOperandsOf(matmul, plan);
    else if (auto matmul = dyn_cast<MatmulOp>(copy))
      keepOperandsOf(matmul, plan);
    auto copyInits = cast<DestinationStyleOpInterface>(copy).getDpsInits();
    for (Value operand : copy->getOperands())
      if (!operand.getType().isIndex() && !isEmpty(operand) &&
          !llvm::is_contained(copyInits, operand))
        inputs.insert(argumentOf(operand));
  }
  llvm::scope_exit forget([&] {
    for (Operation *copy : planned)
      copy->erase();
  });
  SmallVector<Value> inits(dps.getDpsInits());
  // What an entry is called with may be left for its next call.
  for (Value init : inits)
    if (!isEmpty(init) && !isa<BlockArgument>(init) &&
        !(readsInits(op) && init.getDefiningOp<DispatchOp>()))
      return op->emitError("expects destinations that are tensor.empty, "
                           "arguments of the entry, or results of dispatches "
                           "to add to");

  // An op on a fixed number of rows has one kernel, whatever M is.
  auto outType = cast<RankedTensorType>(inits.front().getType());
  bool fixedRows = !outType.isDynamicDim(0);
  SmallVector<Attribute> names;
  SmallVector<int64_t> bounds;
  for (auto [plan, copy] : llvm::zip(plans, planned)) {
    if (fixedRows && (outType.getDimSize(0) < plan.getMMin() ||
                      outType.getDimSize(0) > plan.getMMax()))
      continue;
    int64_t bound = fixedRows ? maxRows : std::min(plan.getMMax(), maxRows);
    if (!bounds.empty() && bound <= bounds.back())
      continue;
    func::FuncOp kernel =
        outline(copy, plan, isForOneRow || (!fixedRows && bound == 1),
                inputs.getArrayRef(), inits);
    if (!kernel)
      return failure();
    StringAttr name = kernels.add(kernel, op->getName().stripDialect(), bound);
    names.push_back(SymbolRefAttr::get(
        op->getContext(), kKernelsModule,
        {FlatSymbolRefAttr::get(op->getContext(), name.getValue())}));
    bounds.push_back(bound);
  }
  if (bounds.empty() || bounds.back() < maxRows)
    return op->emitError("expects plans for every M up to ")
           << maxRows << ", but they end at "
           << (bounds.empty() ? 0 : bounds.back());

  auto label = op->getAttrOfType<StringAttr>(kLabelAttr);
  auto dispatch = DispatchOp::create(
      b, op->getLoc(), op->getResultTypes(), inputs.getArrayRef(), inits, rows,
      position, b.getArrayAttr(names), b.getDenseI64ArrayAttr(bounds),
      label ? label : b.getStringAttr(op->getName().stripDialect()),
      b.getI64IntegerAttr(fixedRows ? 1 : plans.front().getMMin()));
  auto slotsOf = [&](auto matmul) {
    if (!matmul || !matmul.getRuns())
      return;
    auto rows = cast<ShapedType>(matmul.getLhs().getType());
    dispatch->setAttr(kSlotsAttr, b.getI64IntegerAttr(rows.getDimSize(1)));
  };
  slotsOf(dyn_cast<DequantMatmulOp>(op));
  slotsOf(dyn_cast<MatmulOp>(op));
  op->replaceAllUsesWith(dispatch.getResults());
  op->erase();
  return success();
}

LogicalResult DispatchFormer::run() {
  OpBuilder b = OpBuilder::atBlockBegin(&entry.getBody().front());
  for (BlockArgument arg : entry.getArguments()) {
    auto type = dyn_cast<RankedTensorType>(arg.getType());
    if (!rows && type && type.getRank() > 0 && type.isDynamicDim(0))
      rows = tensor::DimOp::create(b, entry.getLoc(), arg, 0);
    else if (!rows && type && type.getRank() > 0 && type.getDimSize(0) == 1)
      isForOneRow = true;
    else if (arg.getType().isIndex())
      position = arg;
  }
  if (rows)
    isForOneRow = false;
  else if (isForOneRow)
    rows = arith::ConstantIndexOp::create(b, entry.getLoc(), 1);
  else
    return entry.emitError(
        "expects an argument with a first dimension that is dynamic, M, or 1");
  if (!position)
    position = arith::ConstantIndexOp::create(b, entry.getLoc(), 0);

  SmallVector<Operation *> ops;
  entry.walk([&](Operation *op) {
    if (op->hasAttr(kPlansAttr))
      ops.push_back(op);
  });
  for (Operation *op : ops)
    if (failed(form(op)))
      return failure();

  // What the kernels compute themselves now is dead here.
  SmallVector<Operation *> all;
  entry.walk([&](Operation *op) { all.push_back(op); });
  for (Operation *op : llvm::reverse(all))
    if (op != entry && isOpTriviallyDead(op))
      op->erase();
  return success();
}

namespace {
struct FormDispatchesPass final
    : mlir::gptq::impl::FormDispatchesPassBase<FormDispatchesPass> {
  using Base::Base;

  void runOnOperation() override {
    ModuleOp module = getOperation();
    SmallVector<func::FuncOp> entries;
    for (auto entry : module.getOps<func::FuncOp>())
      if (entry->hasAttrOfType<IntegerAttr>(kMaxRowsAttr))
        entries.push_back(entry);
    if (entries.empty())
      return;
    OpBuilder b = OpBuilder::atBlockEnd(module.getBody());
    Kernels kernels;
    kernels.module = ModuleOp::create(b, module.getLoc(), kKernelsModule);
    for (func::FuncOp entry : entries)
      if (failed(DispatchFormer(entry, kernels).run()))
        return signalPassFailure();
  }
};
} // namespace
