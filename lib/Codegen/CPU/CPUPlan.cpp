//===- CPUPlan.cpp - Plans for CPUs ---------------------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Codegen/CPU/Passes.h"
#include "gptq/Codegen/Common/Plan.h"
#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "gptq/Target/Target.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/BuiltinOps.h"

namespace mlir::gptq {
#define GEN_PASS_DEF_CPUPLANPASS
#include "gptq/Codegen/CPU/Passes.h.inc"
} // namespace mlir::gptq

using namespace mlir;
using namespace mlir::gptq;

/// Workgroups a matmul should have at least, so that threads of different
/// speed finish together; and the most panels one workgroup takes.
static constexpr int64_t kMinWorkgroups = 16;
static constexpr int64_t kMaxPanels = 8;

/// The largest divisor of `panels` that is at most `limit`: workgroups are then
/// all alike.
static int64_t panelsPerWorkgroup(int64_t panels) {
  int64_t limit = std::clamp<int64_t>(panels / kMinWorkgroups, 1, kMaxPanels);
  while (panels % limit != 0)
    --limit;
  return limit;
}

namespace {
struct CPUPlanPass final : mlir::gptq::impl::CPUPlanPassBase<CPUPlanPass> {
  using Base::Base;

  /// The plan of a matmul with `n` columns and `k` rows of weight for calls of
  /// `mMin` to `mMax` rows.
  PlanAttr planMatmul(const ::gptq::TargetInfo &target,
                      const ::gptq::UnitInfo &unit, int64_t n, int64_t k,
                      int64_t mMin, int64_t mMax, bool permuted, bool quantized,
                      bool canSplit) {
    OpBuilder b(&getContext());
    int64_t blockN = unit.lanes * unit.vectorsPerPanel;
    int64_t rows = 1, columns = blockN, tileM = 0, tileK = 0;
    if (mMax > 1) {
      // The register tile that reuses an unpacked vector most while all sums
      // stay in registers.
      columns = std::min(blockN, 2 * unit.lanes);
      rows = unit.accumulators / (columns / unit.lanes);
      // A tile of activations fills half of the memory near a core.
      int64_t bytesPerRow = k * 4;
      tileM = target.workgroupMemory / 2 / bytesPerRow / rows * rows;
      tileM = std::clamp<int64_t>(tileM, 8 * rows, 16 * rows);
      if (canSplit && tileM * bytesPerRow > target.workgroupMemory / 2)
        tileK = target.workgroupMemory / 2 / (tileM * 4);
    }
    int64_t tileN = panelsPerWorkgroup(llvm::divideCeil(n, blockN)) * blockN;
    return PlanAttr::get(
        &getContext(), mMin, mMax, b.getStringAttr(unit.name), tileM, tileN,
        tileK, rows, columns, unit.lanes,
        b.getStringAttr(permuted && promote ? "promote" : "direct"),
        b.getStringAttr(tileK && bufferPartials ? "shared" : "global"),
        b.getStringAttr(quantized && hoistScales ? "accumulator" : "weight"),
        b.getStringAttr(quantized && foldZeros ? "accumulator" : "weight"));
  }

  /// The plan of an op that works row by row.
  PlanAttr planRows(const ::gptq::UnitInfo &unit, int64_t mMin, int64_t mMax) {
    OpBuilder b(&getContext());
    return PlanAttr::get(&getContext(), mMin, mMax, b.getStringAttr(unit.name),
                         /*tileM=*/mMax > 1 ? 8 : 0, /*tileN=*/0, /*tileK=*/0,
                         /*rows=*/1, /*columns=*/unit.lanes, unit.lanes,
                         b.getStringAttr("direct"), b.getStringAttr("global"),
                         b.getStringAttr("weight"), b.getStringAttr("weight"));
  }

  void runOnOperation() override {
    const ::gptq::TargetInfo *target = ::gptq::findTarget(cpu);
    if (!target) {
      getOperation().emitError("expects a known CPU target, but found '")
          << cpu << "'";
      return signalPassFailure();
    }
    const ::gptq::UnitInfo &unit = target->units.front();
    getOperation().walk([&](DestinationStyleOpInterface op) {
      auto entry = op->getParentOfType<func::FuncOp>();
      if (!isa<GPTQDialect>(op->getDialect()) || !entry ||
          !entry->hasAttrOfType<IntegerAttr>(kMaxRowsAttr) ||
          op->hasAttr(kPlansAttr))
        return;
      int64_t maxRows =
          entry->getAttrOfType<IntegerAttr>(kMaxRowsAttr).getInt();
      auto out = cast<ShapedType>(op.getDpsInits()[0].getType());
      // An op on a fixed number of rows is planned for these only.
      SmallVector<std::pair<int64_t, int64_t>> buckets;
      if (!out.isDynamicDim(0))
        buckets = {{1, out.getDimSize(0)}};
      else if (maxRows == 1)
        buckets = {{1, 1}};
      else
        buckets = {{1, 1}, {2, maxRows}};
      SmallVector<Attribute> plans;
      for (auto [mMin, mMax] : buckets) {
        if (auto matmul = dyn_cast<DequantMatmulOp>(op.getOperation()))
          plans.push_back(planMatmul(*target, unit, matmul.getN(),
                                     matmul.getK(), mMin, mMax,
                                     bool(matmul.getPerm()), true,
                                     matmul.getEpilogue() == Epilogue::None));
        else if (auto matmul = dyn_cast<MatmulOp>(op.getOperation()))
          plans.push_back(planMatmul(*target, unit, matmul.getN(),
                                     matmul.getK(), mMin, mMax, false, false,
                                     false));
        else
          plans.push_back(planRows(unit, mMin, mMax));
      }
      op->setAttr(kPlansAttr, ArrayAttr::get(&getContext(), plans));
    });
  }
};
} // namespace
