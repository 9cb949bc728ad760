//===- FormDispatches.cpp - One kernel per op and range of M --------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Codegen/Common/Passes.h"
#include "gptq/Codegen/Common/Plan.h"
#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "mlir/Dialect/Bufferization/IR/Bufferization.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/Utils/StaticValueUtils.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/IRMapping.h"
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
};

} // namespace

/// The tensor or buffer that `value` is a slice of: what the kernel is handed.
Value DispatchFormer::argumentOf(Value value) {
  while (auto slice = value.getDefiningOp<tensor::ExtractSliceOp>())
    value = slice.getSource();
  return value;
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

  for (auto [i, value] : llvm::enumerate(inputs)) {
    Value arg = body->getArgument(i);
    if (isa<RankedTensorType>(value.getType()))
      arg = bufferization::ToTensorOp::create(
          b, loc,
          RankedTensorType::get(
              cast<MemRefType>(arg.getType()).getShape(),
              cast<MemRefType>(arg.getType()).getElementType()),
          arg, /*restrict=*/true);
    map.map(value, arg);
  }
  for (auto [i, value] : llvm::enumerate(inits)) {
    auto type =
        cast<MemRefType>(body->getArgument(inputs.size() + i).getType());
    SmallVector<OpFoldResult> sizes;
    for (int64_t size : type.getShape())
      sizes.push_back(ShapedType::isDynamic(size) ? OpFoldResult(m)
                                                  : b.getIndexAttr(size));
    map.map(value,
            tensor::EmptyOp::create(b, loc, sizes, type.getElementType()));
  }

  // The slices the op reads, from the outermost in.
  SmallVector<Value> operands;
  for (Value operand : op->getOperands()) {
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
        b, loc, /*result=*/Type(), result, body->getArgument(inputs.size() + i),
        /*restrict=*/true, /*writable=*/true);
  func::ReturnOp::create(b, loc);
  return kernel;
}

LogicalResult DispatchFormer::form(Operation *op) {
  auto dps = dyn_cast<DestinationStyleOpInterface>(op);
  if (!dps)
    return op->emitError("expects planned ops in destination style");
  SmallVector<PlanAttr> plans = getPlans(op);
  if (plans.empty())
    return op->emitError("expects at least one plan");
  int64_t maxRows = entry->getAttrOfType<IntegerAttr>(kMaxRowsAttr).getInt();

  llvm::SetVector<Value> inputs;
  SmallVector<Value> inits;
  for (OpOperand &operand : op->getOpOperands()) {
    if (operand.get().getType().isIndex())
      continue;
    if (dps.isDpsInit(&operand))
      inits.push_back(operand.get());
    else
      inputs.insert(argumentOf(operand.get()));
  }
  for (Value init : inits)
    if (!init.getDefiningOp<tensor::EmptyOp>())
      return op->emitError("expects destinations that are tensor.empty");

  // An op on a fixed number of rows has one kernel, whatever M is.
  auto outType = cast<RankedTensorType>(inits.front().getType());
  bool fixedRows = !outType.isDynamicDim(0);
  SmallVector<Attribute> names;
  SmallVector<int64_t> bounds;
  for (PlanAttr plan : plans) {
    if (fixedRows && (outType.getDimSize(0) < plan.getMMin() ||
                      outType.getDimSize(0) > plan.getMMax()))
      continue;
    int64_t bound = fixedRows ? maxRows : std::min(plan.getMMax(), maxRows);
    if (!bounds.empty() && bound <= bounds.back())
      continue;
    func::FuncOp kernel = outline(op, plan, !fixedRows && bound == 1,
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

  OpBuilder b(op);
  auto label = op->getAttrOfType<StringAttr>(kLabelAttr);
  auto dispatch = DispatchOp::create(
      b, op->getLoc(), op->getResultTypes(), inputs.getArrayRef(), inits, rows,
      position, b.getArrayAttr(names), b.getDenseI64ArrayAttr(bounds),
      label ? label : b.getStringAttr(op->getName().stripDialect()));
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
    else if (arg.getType().isIndex())
      position = arg;
  }
  if (!rows)
    return entry.emitError(
        "expects an argument with a dynamic first dimension, M");
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
