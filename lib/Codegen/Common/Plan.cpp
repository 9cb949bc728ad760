//===- Plan.cpp - Reading plans -------------------------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Codegen/Common/Plan.h"
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

bool mlir::gptq::usesMatrixUnit(PlanAttr plan) {
  const ::gptq::UnitInfo *unit = findUnit(plan.getUnit(), plan.getLanes());
  return unit && unit->kind == ::gptq::UnitInfo::Kind::Matrix;
}
