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
#include "llvm/Support/FormatVariadic.h"

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

/// What gptq-promote-activations copies at most, its option's default.
static constexpr int64_t kMaxStagedBytes = 1 << 20;

/// Codes of so many bits at most are multiplied by bytes of activations: all
/// that a byte holds where their products are added to 32-bit sums at once.
/// Sums of 16 bits must be widened the more often the larger codes are, which
/// for four bits leaves a gain of less than 15 %.
static int64_t maxSplitBits(const ::gptq::UnitInfo &unit) {
  return unit.addsBytesWide ? 8 : 3;
}

/// The largest divisor of `panels` that is at most `limit`: workgroups are then
/// all alike.
static int64_t panelsPerWorkgroup(int64_t panels) {
  int64_t limit = std::clamp<int64_t>(panels / kMinWorkgroups, 1, kMaxPanels);
  while (panels % limit != 0)
    --limit;
  return limit;
}

namespace {
/// What the planner knows of a matmul.
struct MatmulFacts {
  int64_t n, k;
  /// Of a code; 0: a dense weight.
  int64_t bits = 0;
  bool isPermuted = false;
  Epilogue epilogue = Epilogue::None;
};

struct CPUPlanPass final : mlir::gptq::impl::CPUPlanPassBase<CPUPlanPass> {
  using Base::Base;

  /// The plan of a matmul for calls of `mMin` to `mMax` rows.
  ReasonedPlan planMatmul(const ::gptq::TargetInfo &target,
                          const ::gptq::UnitInfo &unit,
                          const MatmulFacts &facts, int64_t mMin,
                          int64_t mMax) {
    OpBuilder b(&getContext());
    NamedAttrList why;
    auto because = [&](StringRef field, const Twine &reason) {
      why.set(field, b.getStringAttr(reason));
    };
    const bool isQuantized = facts.bits > 0;
    const int64_t k = facts.k, blockN = unit.lanes * unit.vectorsPerPanel;
    const int64_t cache = target.workgroupMemory / 2;
    int64_t rows = 1, columns = blockN, tileM = 0, tileK = 0;
    if (mMax > 1) {
      // The register tile that reuses an unpacked vector most while all sums
      // stay in registers.
      columns = std::min(blockN, 2 * unit.lanes);
      const int64_t vectors = columns / unit.lanes;
      rows = unit.accumulators / vectors;
      because("registers",
              llvm::formatv("{0} rows x {1} vectors of sums fill the {2} "
                            "registers that activations and codes leave",
                            rows, vectors, unit.accumulators));
      // A tile of activations fills half of the memory near a core.
      int64_t bytesPerRow = k * 4, fitting = cache / bytesPerRow / rows;
      tileM = std::clamp<int64_t>(fitting * rows, 8 * rows, 16 * rows);
      const int64_t tiles = tileM / rows;
      StringRef bound = tiles > fitting ? " the fewest that pay for unpacking;"
                        : tiles < fitting ? " no more pay off;"
                                          : "";
      because("tileM", llvm::formatv("{0} register tiles of {1} rows,{2} {3} "
                                     "fill half of a core's cache",
                                     tiles, rows, bound, fitting));
      // A larger tile would not be copied, and then be read out of order.
      const int64_t staged = kMaxStagedBytes / bytesPerRow / rows * rows;
      if (facts.isPermuted && promote && staged > 0 && staged < tileM) {
        tileM = staged;
        because("tileM", llvm::formatv("{0} rows of {1} are all that may be "
                                       "copied to workgroup memory",
                                       tileM, k));
      }
      if (tileM * bytesPerRow <= cache) {
        because("tileK", llvm::formatv("all: {0} rows of {1} fit half of a "
                                       "core's cache",
                                       tileM, k));
      } else if (!isQuantized) {
        because("tileK", "all: sums over dense weights are not split");
      } else if (facts.epilogue != Epilogue::None) {
        because("tileK", "all: the epilogue needs the whole sum");
      } else {
        tileK = cache / (tileM * 4);
        because("tileK", llvm::formatv("{0} rows of {1} do not fit half of a "
                                       "core's cache ({2} KB)",
                                       tileM, k, cache >> 10));
      }
    } else {
      because("registers",
              llvm::formatv("one row: a whole panel of {0} vectors, so that "
                            "sums do not wait for each other",
                            unit.vectorsPerPanel));
    }
    const int64_t panels = llvm::divideCeil(facts.n, blockN);
    const int64_t taken = panelsPerWorkgroup(panels);
    because("tileN", llvm::formatv("{0} of {1} panels of {2} columns: {3} "
                                   "workgroups, all alike",
                                   taken, panels, blockN, panels / taken));
    // Sums of bytes cost half of what conversions to f32 do; with more rows
    // these are shared.
    const bool splits = mMax == 1 && isQuantized &&
                        facts.bits <= maxSplitBits(unit) && promote &&
                        hoistScales && foldZeros;
    const bool promotes = facts.isPermuted && promote && !splits;
    if (splits)
      because("path", llvm::formatv("codes of {0} bits and activations split "
                                    "into bytes are multiplied faster than "
                                    "codes are converted",
                                    facts.bits));
    else if (promotes)
      because("path", "columns are permuted");
    else if (facts.isPermuted)
      because("path", "columns are permuted, but promotion is off");
    const bool shares = tileK && bufferPartials;
    if (shares)
      because("partials", "sums over parts of K meet near the core, and are "
                          "written once");
    else if (tileK)
      because("partials", "K is split, but buffers for partials are off");
    const bool hoists = isQuantized && hoistScales;
    if (hoists)
      because("scale", "one multiplication for a group, not for a weight");
    else if (isQuantized)
      because("scale", "hoisting is off");
    const bool folds = isQuantized && foldZeros;
    if (folds)
      because("zero", "z times the sum of a group's activations is subtracted "
                      "once for a group");
    else if (isQuantized)
      because("zero", "folding is off");
    PlanAttr::Fields f;
    f.mMin = mMin;
    f.mMax = mMax;
    f.unit = b.getStringAttr(unit.name);
    f.tileM = tileM;
    f.tileN = taken * blockN;
    f.tileK = tileK;
    f.rows = rows;
    f.columns = columns;
    f.lanes = unit.lanes;
    f.path = b.getStringAttr(splits     ? "split"
                             : promotes ? "promote"
                                        : "direct");
    f.partials = b.getStringAttr(shares ? "shared" : "global");
    f.scale = b.getStringAttr(hoists ? "accumulator" : "weight");
    f.zero = b.getStringAttr(folds ? "accumulator" : "weight");
    return {PlanAttr::get(&getContext(), f), why.getDictionary(&getContext())};
  }

  /// The plan of an op that works row by row.
  PlanAttr planRows(const ::gptq::UnitInfo &unit, int64_t mMin, int64_t mMax) {
    PlanAttr::Fields f;
    f.mMin = mMin;
    f.mMax = mMax;
    f.unit = StringAttr::get(&getContext(), unit.name);
    f.tileM = mMax > 1 ? 8 : 0;
    f.columns = f.lanes = unit.lanes;
    return PlanAttr::get(&getContext(), f);
  }

  void runOnOperation() override {
    const ::gptq::TargetInfo *target = ::gptq::findTarget(cpu);
    if (!target || target->kind != ::gptq::TargetInfo::Kind::CPU) {
      getOperation().emitError("expects a known CPU target, but found '")
          << cpu << "'";
      return signalPassFailure();
    }
    const ::gptq::UnitInfo &unit = target->units.front();
    planOps(
        getOperation(), reasons,
        [](Operation *) { return SmallVector<int64_t>{1}; },
        [&](Operation *op, int64_t mMin, int64_t mMax) -> ReasonedPlan {
          if (auto matmul = dyn_cast<DequantMatmulOp>(op))
            return planMatmul(*target, unit,
                              {matmul.getN(), matmul.getK(),
                               int64_t(matmul.getBits()),
                               bool(matmul.getPerm()), matmul.getEpilogue()},
                              mMin, mMax);
          if (auto matmul = dyn_cast<MatmulOp>(op))
            return planMatmul(*target, unit, {matmul.getN(), matmul.getK()},
                              mMin, mMax);
          return {planRows(unit, mMin, mMax),
                  DictionaryAttr::get(&getContext())};
        });
  }
};
} // namespace
