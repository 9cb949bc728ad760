//===- NVVMPlan.cpp - Plans for NVIDIA GPUs -------------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Codegen/Common/Plan.h"
#include "gptq/Codegen/NVVM/Passes.h"
#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "llvm/Support/FormatVariadic.h"

namespace mlir::gptq {
#define GEN_PASS_DEF_NVVMPLANPASS
#include "gptq/Codegen/NVVM/Passes.h.inc"
} // namespace mlir::gptq

using namespace mlir;
using namespace mlir::gptq;

/// Rows of activations and columns of weights in one tile of the unit.
static constexpr int64_t kTileRows = 8, kTileColumns = 16;
/// Sums that a thread holds of one tile.
static constexpr int64_t kSumsPerTile = 4;
/// Warps of a workgroup: with 128 registers a thread they fill a
/// multiprocessor.
static constexpr int64_t kMaxWarps = 16;
static constexpr int64_t kWarpThreads = 32;
/// Rows of K that a warp multiplies at a time (see gptq-vectorize).
static constexpr int64_t kStepRows = 128;
/// The largest number of rows that one workgroup multiplies at once; more rows
/// are more workgroups.
static constexpr int64_t kMaxRows = 32;

/// Sums of one thread that leave room for the operands of two parts of K.
static constexpr int64_t kRoomySums = 32;

/// Tiles whose sums leave room for the weights of two parts of K, 8 registers
/// each.
static constexpr int64_t kMaxPrefetchedTiles = 4;

namespace {
/// A plan, and why each field that is not the plain choice is as it is.
struct ReasonedPlan {
  PlanAttr plan;
  DictionaryAttr reasons;
};

struct NVVMPlanPass final : mlir::gptq::impl::NVVMPlanPassBase<NVVMPlanPass> {
  using Base::Base;

  /// The plan of a matmul [K, N] for calls of `mMin` to `mMax` rows.
  ReasonedPlan planMatmul(const ::gptq::TargetInfo &target,
                          const ::gptq::UnitInfo &unit, int64_t n, int64_t k,
                          bool isQuantized, int64_t mMin, int64_t mMax) {
    OpBuilder b(&getContext());
    NamedAttrList why;
    auto because = [&](StringRef field, const Twine &reason) {
      why.set(field, b.getStringAttr(reason));
    };
    const int64_t rows =
        std::min<int64_t>(llvm::alignTo(mMax, kTileRows), kMaxRows);
    because("rows", llvm::formatv("{0} tiles of {1} rows share the weights a "
                                  "warp has unpacked",
                                  rows / kTileRows, kTileRows));
    const int64_t panels = llvm::divideCeil(n, kTileColumns);
    const int64_t sumsPerPanel = kSumsPerTile * (rows / kTileRows);
    // One workgroup on each multiprocessor reads activations least often. Two,
    // of half as many warps, hold twice as many panels, which loads of weights
    // must not be crowded out by, and one multiplies while the other sums.
    int64_t occupancy = 1, warpsThere = kMaxWarps;
    int64_t mostPanels = kRoomySums / sumsPerPanel;
    if (sumsPerPanel > kRoomySums / 4) {
      // Too many rows for that: fewer warps with more registers each.
      warpsThere = kMaxWarps / 2;
      mostPanels = 2 * unit.accumulators / sumsPerPanel / 2;
    } else if (llvm::divideCeil(panels, target.multiprocessors) > mostPanels) {
      occupancy = 2;
      warpsThere = kMaxWarps / 2;
      mostPanels = unit.accumulators / sumsPerPanel;
    }
    mostPanels = std::max<int64_t>(1, mostPanels);
    const int64_t places = target.multiprocessors * occupancy;
    // As few rounds over all places as registers allow, all full.
    const int64_t rounds = llvm::divideCeil(panels, places * mostPanels);
    const int64_t taken = llvm::divideCeil(panels, places * rounds);
    because("tileN",
            llvm::formatv("{0} of {1} tiles of {2} columns: {3} workgroups "
                          "for {4} places; registers hold {5}",
                          taken, panels, kTileColumns,
                          llvm::divideCeil(panels, taken), places, mostPanels));
    const int64_t warps = std::clamp<int64_t>(llvm::divideCeil(k, kStepRows), 2,
                                              warpsThere);
    // The weights of the next part wait in registers, where they fit beside
    // those in use.
    const bool fits = taken * (rows / kTileRows) <= kMaxPrefetchedTiles;
    const int64_t stages = prefetch && fits ? 2 : 1;
    because("stages", !prefetch ? "prefetching is off"
                      : fits    ? "the weights of two parts fit registers"
                                : "the weights of two parts do not fit "
                                  "registers");
    because("threads", llvm::formatv("{0} warps share {1} parts of K", warps,
                                     llvm::divideCeil(k, kStepRows)));
    because(
        "partials",
        bufferPartials
            ? "the sums of the warps meet in shared memory, and are written "
              "once"
            : "buffers for partials are off: warps add to the result");
    if (isQuantized) {
      because("scale", hoistScales
                           ? "one multiplication for a group, not for a weight"
                           : "hoisting is off");
      because("zero", foldZeros ? "z times the sum of a group's activations is "
                                  "subtracted once for a group"
                                : "folding is off");
    }
    auto where = [&](bool isHoisted) {
      return b.getStringAttr(isQuantized && isHoisted ? "accumulator"
                                                      : "weight");
    };
    return {PlanAttr::get(&getContext(), mMin, mMax, b.getStringAttr(unit.name),
                          /*tileM=*/rows, taken * kTileColumns, /*tileK=*/0,
                          rows, taken * kTileColumns, unit.lanes,
                          b.getStringAttr("direct"),
                          b.getStringAttr(bufferPartials ? "shared" : "global"),
                          where(hoistScales), where(foldZeros),
                          warps * kWarpThreads, occupancy, stages, loadBits),
            why.getDictionary(&getContext())};
  }

  /// The plan of an op that works row by row: one workgroup a row, 16 bytes of
  /// f32 for a thread at a time.
  PlanAttr planRows(const ::gptq::UnitInfo &unit, int64_t mMin, int64_t mMax,
                    int64_t threads) {
    OpBuilder b(&getContext());
    return PlanAttr::get(&getContext(), mMin, mMax, b.getStringAttr(unit.name),
                         /*tileM=*/1, /*tileN=*/0, /*tileK=*/0, /*rows=*/1,
                         /*columns=*/1, /*lanes=*/4, b.getStringAttr("direct"),
                         b.getStringAttr("global"), b.getStringAttr("weight"),
                         b.getStringAttr("weight"), threads, /*occupancy=*/1,
                         /*stages=*/1, loadBits);
  }

  void runOnOperation() override {
    const ::gptq::TargetInfo *target = ::gptq::findTarget(chip);
    if (!target || target->kind != ::gptq::TargetInfo::Kind::NVVM) {
      getOperation().emitError("expects a known NVIDIA architecture, but found "
                               "'")
          << chip << "'";
      return signalPassFailure();
    }
    const ::gptq::UnitInfo &unit = target->units.front();
    MLIRContext *ctx = &getContext();
    getOperation().walk([&](DestinationStyleOpInterface op) {
      auto entry = op->getParentOfType<func::FuncOp>();
      if (!isa<GPTQDialect>(op->getDialect()) || !entry ||
          !entry->hasAttrOfType<IntegerAttr>(kMaxRowsAttr) ||
          op->hasAttr(kPlansAttr))
        return;
      int64_t maxRows =
          entry->getAttrOfType<IntegerAttr>(kMaxRowsAttr).getInt();
      auto out = cast<ShapedType>(op.getDpsInits()[0].getType());
      const bool isMatmul = isa<DequantMatmulOp, MatmulOp>(op.getOperation());
      // An op on a fixed number of rows is planned for these only.
      SmallVector<std::pair<int64_t, int64_t>> buckets;
      if (!out.isDynamicDim(0)) {
        buckets = {{1, out.getDimSize(0)}};
      } else {
        int64_t from = 1;
        for (int64_t to : {int64_t(1), kTileRows, 2 * kTileRows, maxRows}) {
          to = std::min(to, maxRows);
          if (to < from || (!isMatmul && to > 1 && to < maxRows))
            continue;
          buckets.push_back({from, to});
          from = to + 1;
        }
      }
      SmallVector<Attribute> plans, whys;
      for (auto [mMin, mMax] : buckets) {
        ReasonedPlan choice;
        if (auto matmul = dyn_cast<DequantMatmulOp>(op.getOperation()))
          choice = planMatmul(*target, unit, matmul.getN(), matmul.getK(),
                              /*isQuantized=*/true, mMin, mMax);
        else if (auto matmul = dyn_cast<MatmulOp>(op.getOperation()))
          choice = planMatmul(*target, unit, matmul.getN(), matmul.getK(),
                              /*isQuantized=*/false, mMin, mMax);
        else
          choice = {planRows(unit, mMin, mMax, 512), DictionaryAttr::get(ctx)};
        plans.push_back(choice.plan);
        whys.push_back(choice.reasons);
      }
      op->setAttr(kPlansAttr, ArrayAttr::get(ctx, plans));
      if (reasons)
        op->setAttr(kReasonsAttr, ArrayAttr::get(ctx, whys));
    });
  }
};
} // namespace
