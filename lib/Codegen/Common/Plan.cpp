//===- Plan.cpp - Reading plans -------------------------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Codegen/Common/Plan.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Interfaces/ViewLikeInterface.h"
#include "llvm/ADT/StringExtras.h"

using namespace mlir;
using namespace mlir::gptq;

SmallVector<PlanAttr> mlir::gptq::getPlans(Operation *op) {
  SmallVector<PlanAttr> plans;
  if (auto array = op->getAttrOfType<ArrayAttr>(kPlansAttr))
    for (Attribute plan : array)
      if (auto attr = dyn_cast<PlanAttr>(plan))
        plans.push_back(attr);
  return plans;
}

PlanAttr mlir::gptq::getPlan(Operation *op) {
  return op->getAttrOfType<PlanAttr>(kPlanAttr);
}

bool mlir::gptq::followsWeights(Operation *op) {
  Value from;
  if (auto matmul = dyn_cast<DequantMatmulOp>(op))
    from = matmul.getSource() ? matmul.getSource() : matmul.getLhs();
  else if (auto matmul = dyn_cast<MatmulOp>(op))
    from = matmul.getSource() ? matmul.getSource() : matmul.getLhs();
  return from &&
         (isa<BlockArgument>(from) ||
          isa<DequantMatmulOp, MatmulOp, EmbeddingOp>(from.getDefiningOp()));
}

PlanAttr mlir::gptq::withRows(PlanAttr plan, int64_t mMin, int64_t mMax) {
  PlanAttr::Fields fields = plan.getFields();
  fields.mMin = mMin;
  fields.mMax = mMax;
  return PlanAttr::get(plan.getContext(), fields);
}

/// Of shared memory the driver keeps a kilobyte for itself; the barriers of a
/// ring and what alignment costs take as much.
static constexpr int64_t kReservedBytes = 2048;
/// Bits of a packed zero point.
static constexpr int64_t kZeroBits = 8;

RingBytes mlir::gptq::ringBytes(PlanAttr plan, int64_t bits, int64_t scaleBits,
                                bool hasZeros) {
  const ::gptq::UnitInfo &unit = *unitOf(plan);
  const int64_t rows = plan.getRows(), stepK = plan.getStepK();
  const int64_t panels = llvm::divideCeil(plan.getTileN(), unit.tileColumns());
  RingBytes bytes;
  bytes.place = rows * stepK * 2 +
                panels * unit.tileColumns() *
                    (stepK * bits + scaleBits + (hasZeros ? kZeroBits : 0)) / 8;
  // Several turns, or workgroups, add up what their threads hold in f32.
  const int64_t threads = llvm::alignTo(panels, unit.warps) * unit.lanes;
  const bool meet = plan.getThreads() > threads || plan.getCluster() > 1;
  bytes.sums = meet ? plan.getThreads() * rows / unit.tileRows() *
                          unit.rowsPerThread() * unit.columnsPerThread() * 4
                    : 0;
  bytes.others = kReservedBytes;
  return bytes;
}

LayoutAttr mlir::gptq::toAttr(MLIRContext *ctx,
                              const ::gptq::WeightLayout &layout,
                              int64_t bits) {
  return LayoutAttr::get(ctx, bits, layout.blockN, layout.blockK,
                         StringAttr::get(ctx, llvm::join(layout.order, " ")));
}

const ::gptq::UnitInfo *mlir::gptq::findUnit(StringRef name, int64_t lanes) {
  for (ArrayRef<::gptq::TargetInfo> targets :
       {::gptq::cpuTargets(), ::gptq::nvvmTargets()})
    for (const ::gptq::TargetInfo &target : targets)
      if (const ::gptq::UnitInfo *unit = target.findUnit(name))
        if (unit->lanes == lanes)
          return unit;
  return nullptr;
}

bool mlir::gptq::isWeight(Value buffer) {
  while (Operation *def = buffer.getDefiningOp()) {
    if (auto view = dyn_cast<ViewLikeOpInterface>(def))
      buffer = view.getViewSource();
    else if (auto metadata = dyn_cast<memref::ExtractStridedMetadataOp>(def))
      buffer = metadata.getSource();
    else
      return false;
  }
  auto arg = cast<BlockArgument>(buffer);
  auto kernel = dyn_cast<func::FuncOp>(arg.getOwner()->getParentOp());
  return kernel && arg.getOwner()->isEntryBlock() &&
         kernel.getArgAttr(arg.getArgNumber(), kWeightAttr);
}

const ::gptq::UnitInfo *mlir::gptq::unitOf(PlanAttr plan) {
  return findUnit(plan.getUnit(), plan.getLanes());
}

bool mlir::gptq::usesMatrixUnit(PlanAttr plan) {
  const ::gptq::UnitInfo *unit = unitOf(plan);
  return unit && unit->kind == ::gptq::UnitInfo::Kind::Matrix;
}

bool mlir::gptq::usesLanes(PlanAttr plan) {
  const ::gptq::UnitInfo *unit = unitOf(plan);
  return unit && unit->kind == ::gptq::UnitInfo::Kind::Lanes;
}

void mlir::gptq::planOps(
    ModuleOp module, bool withReasons,
    function_ref<SmallVector<int64_t>(Operation *)> ends,
    function_ref<ReasonedPlan(Operation *, int64_t, int64_t)> choose) {
  module.walk([&](DestinationStyleOpInterface op) {
    auto entry = op->getParentOfType<func::FuncOp>();
    if (!isa<GPTQDialect>(op->getDialect()) || !entry ||
        !entry->hasAttrOfType<IntegerAttr>(kMaxRowsAttr) ||
        op->hasAttr(kPlansAttr))
      return;
    const int64_t maxRows =
        entry->getAttrOfType<IntegerAttr>(kMaxRowsAttr).getInt();
    auto out = cast<ShapedType>(op.getDpsInits()[0].getType());
    SmallVector<int64_t> last;
    if (out.isDynamicDim(0))
      last = ends(op);
    last.push_back(out.isDynamicDim(0) ? maxRows : out.getDimSize(0));
    SmallVector<Attribute> plans, whys;
    int64_t from = 1;
    for (int64_t to : last) {
      to = std::min(to, last.back());
      if (to < from)
        continue;
      ReasonedPlan choice = choose(op, from, to);
      plans.push_back(choice.plan);
      whys.push_back(choice.reasons);
      from = to + 1;
    }
    op->setAttr(kPlansAttr, ArrayAttr::get(op.getContext(), plans));
    if (withReasons)
      op->setAttr(kReasonsAttr, ArrayAttr::get(op.getContext(), whys));
  });
}

void mlir::gptq::dropUnreadPlans(ModuleOp module) {
  // Whether a kernel of `op` for some M of `plan` reads its left operand.
  auto isRead = [](Operation *op, PlanAttr plan) {
    return llvm::any_of(getPlans(op), [&](PlanAttr other) {
      return other.getMMin() <= plan.getMMax() &&
             plan.getMMin() <= other.getMMax() &&
             other.getPath() != "normalize";
    });
  };
  module.walk([&](RMSNormOp norm) {
    SmallVector<PlanAttr> plans = getPlans(norm);
    if (plans.empty())
      return;
    size_t unread = 0;
    for (; unread < plans.size(); ++unread)
      if (llvm::any_of(norm->getUses(), [&](OpOperand &use) {
            Operation *user = use.getOwner();
            if (isa<tensor::DimOp>(user))
              return false;
            auto quantized = dyn_cast<DequantMatmulOp>(user);
            auto dense = dyn_cast<MatmulOp>(user);
            const bool isLhs =
                (quantized && &quantized.getLhsMutable() == &use) ||
                (dense && &dense.getLhsMutable() == &use);
            return !isLhs || isRead(user, plans[unread]);
          }))
        break;
    if (unread == 0)
      return;
    auto keep = [&](StringRef name) {
      if (auto all = norm->getAttrOfType<ArrayAttr>(name))
        norm->setAttr(name, ArrayAttr::get(norm.getContext(),
                                           all.getValue().drop_front(unread)));
    };
    keep(kPlansAttr);
    keep(kReasonsAttr);
  });
}
