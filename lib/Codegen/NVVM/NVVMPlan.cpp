//===- NVVMPlan.cpp - Plans for NVIDIA GPUs -------------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "NVVMPlanLanes.h"
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
/// Rows of K that a warp multiplies between two applications of a scale.
static constexpr int64_t kStepRows[] = {128, 64};
/// The largest number of rows that one workgroup multiplies at once; more rows
/// are more workgroups.
static constexpr int64_t kMaxRows = 32;

/// Registers that sums and operands on their way may take of a thread's 128;
/// the others hold what is being unpacked, scales, addresses.
static constexpr int64_t kOperandRegisters = 112;
/// The part of shared memory that normalized rows may take, 1 / this; the other
/// is for sums and for the cache.
static constexpr int64_t kNormalizedShare = 2;
/// Sums of one thread, at most, where several rows share unpacked weights.
static constexpr int64_t kSharedSums = 32;

/// Query heads that share what is loaded of a cache, at most: a thread keeps
/// its elements of each, and of their sums.
static constexpr int64_t kMaxQueries = 8;
/// Tiles of rows that share what is loaded of a cache, at least; and the most
/// elements of a head that a warp's result can have.
static constexpr int64_t kLeastTiles = 4, kMostHeadDim = 128;

namespace {
/// How the work on a matmul is divided.
struct MatmulTiles {
  /// Tiles of 16 columns of a workgroup, and of one of its warps.
  int64_t panels, panelsPerWarp;
  /// Warps of a workgroup, and workgroups of a multiprocessor.
  int64_t warps, occupancy;
  int64_t stepK, stages;
};

struct NVVMPlanPass final : mlir::gptq::impl::NVVMPlanPassBase<NVVMPlanPass> {
  using Base::Base;

  MatmulTiles chooseTiles(const ::gptq::TargetInfo &target,
                          const ::gptq::UnitInfo &unit, int64_t rows,
                          int64_t panels, int64_t k) {
    const int64_t rowTiles = rows / kTileRows;
    const int64_t sumsPerPanel = kSumsPerTile * rowTiles;
    MatmulTiles t;
    t.occupancy = 1;
    t.stepK = kStepRows[0];
    int64_t warpsThere = kMaxWarps;
    const int64_t each = llvm::divideCeil(panels, target.multiprocessors);
    // Registers of sums and of the operands of `stages` parts of K.
    auto registers = [&](int64_t panelsPerWarp, int64_t stepK, int64_t stages) {
      return panelsPerWarp * sumsPerPanel +
             stages * (rowTiles * stepK / 8 + panelsPerWarp * stepK / 16);
    };
    if (rowTiles == 1) {
      // Activations are few: a warp takes all panels of its workgroup, and
      // warps share K. Where those are many, two workgroups of half as many
      // warps, so that one multiplies while the other sums.
      int64_t most = kSharedSums / sumsPerPanel;
      if (each > most) {
        t.occupancy = 2;
        warpsThere = kMaxWarps / 2;
        most = unit.accumulators / sumsPerPanel;
      }
      const int64_t places = target.multiprocessors * t.occupancy;
      const int64_t rounds = llvm::divideCeil(panels, places * most);
      t.panels = t.panelsPerWarp = llvm::divideCeil(panels, places * rounds);
      t.warps = warpsThere;
    } else {
      // Warps share panels, too, and with them the activations that the cache
      // has just read: the largest share that leaves no panel over.
      const int64_t most = std::max<int64_t>(1, kSharedSums / sumsPerPanel);
      const int64_t rounds = llvm::divideCeil(each, most * kMaxWarps);
      t.panels = llvm::divideCeil(panels, target.multiprocessors *
                                              std::max<int64_t>(1, rounds));
      t.panelsPerWarp = 1;
      for (int64_t share = std::min(most, t.panels); share > 1; --share)
        if (t.panels % share == 0 && t.panels / share <= kMaxWarps) {
          t.panelsPerWarp = share;
          break;
        }
      while (llvm::divideCeil(t.panels, t.panelsPerWarp) > kMaxWarps)
        ++t.panelsPerWarp;
      const int64_t across = llvm::divideCeil(t.panels, t.panelsPerWarp);
      t.warps = kMaxWarps / across * across;
      warpsThere = t.warps;
    }
    t.stages = 1;
    for (int64_t step : kStepRows)
      // Halves of parts pay where rows share what is unpacked only.
      if (prefetch && t.stages == 1 && (rowTiles > 1 || step == kStepRows[0]) &&
          registers(t.panelsPerWarp, step, 2) <= kOperandRegisters) {
        t.stepK = step;
        t.stages = 2;
      }
    if (t.stages == 1 && rowTiles > 2)
      t.stepK = kStepRows[1];
    // Not more warps along K than it has parts, but two to share them.
    const int64_t across = llvm::divideCeil(t.panels, t.panelsPerWarp);
    t.warps = std::clamp<int64_t>(llvm::divideCeil(k, t.stepK) * across,
                                  2 * across, warpsThere);
    t.warps = std::max(t.warps / across, int64_t(1)) * across;
    return t;
  }

  /// The plan of a matmul [K, N] for calls of `mMin` to `mMax` rows.
  ReasonedPlan planMatmul(const ::gptq::TargetInfo &target,
                          const ::gptq::UnitInfo &unit, int64_t n, int64_t k,
                          bool isQuantized, bool isNormalized, int64_t mMin,
                          int64_t mMax) {
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
    const MatmulTiles tiles = chooseTiles(target, unit, rows, panels, k);
    because("tileN",
            llvm::formatv("{0} of {1} tiles of {2} columns: {3} workgroups "
                          "for {4} places",
                          tiles.panels, panels, kTileColumns,
                          llvm::divideCeil(panels, tiles.panels),
                          target.multiprocessors * tiles.occupancy));
    because(
        "columns",
        llvm::formatv("{0} tiles for a warp, {1} sums for a thread",
                      tiles.panelsPerWarp,
                      tiles.panelsPerWarp * kSumsPerTile * rows / kTileRows));
    because("threads", llvm::formatv("{0} warps share {1} tiles and {2} parts "
                                     "of K",
                                     tiles.warps, tiles.panels,
                                     llvm::divideCeil(k, tiles.stepK)));
    because("stages", tiles.stages == 2
                          ? "the operands of two parts fit registers"
                      : prefetch ? "the operands of two parts do not fit "
                                   "registers"
                                 : "prefetching is off");
    because(
        "partials",
        bufferPartials
            ? "the sums of the warps meet in shared memory, and are written "
              "once"
            : "buffers for partials are off: warps add to the result");
    // One row is normalized sooner by every workgroup than by a kernel that all
    // of them have to wait for.
    const bool fits =
        2 * k * tiles.occupancy <= target.workgroupMemory / kNormalizedShare;
    const bool normalizes = isNormalized && normalize && fits && mMax == 1;
    if (isNormalized)
      because("path", !normalize   ? "normalizing in matmuls is off"
                      : !fits      ? "a row is too long for shared memory"
                      : normalizes ? "every workgroup normalizes the row itself"
                                   : "rows are normalized once for all "
                                     "workgroups");
    const bool folds = foldZeros && rows <= kTileRows;
    if (isQuantized) {
      because("scale", hoistScales
                           ? "one multiplication for a group, not for a weight"
                           : "hoisting is off");
      because("zero", !foldZeros ? "folding is off"
                      : folds
                          ? "z times the sum of a group's activations is "
                            "subtracted once for a group"
                          : "several rows share a subtraction from a pair of "
                            "codes, but each has a sum of its own");
    }
    auto where = [&](bool isHoisted) {
      return b.getStringAttr(isQuantized && isHoisted ? "accumulator"
                                                      : "weight");
    };
    return {PlanAttr::get(&getContext(), mMin, mMax, b.getStringAttr(unit.name),
                          /*tileM=*/rows, tiles.panels * kTileColumns,
                          /*tileK=*/0, rows, tiles.panelsPerWarp * kTileColumns,
                          unit.lanes,
                          b.getStringAttr(normalizes ? "normalize" : "direct"),
                          b.getStringAttr(bufferPartials ? "shared" : "global"),
                          where(hoistScales), where(folds),
                          tiles.warps * kWarpThreads, tiles.stepK,
                          tiles.occupancy, tiles.stages, loadBits),
            why.getDictionary(&getContext())};
  }

  /// The same on any unit.
  ReasonedPlan planOn(const ::gptq::TargetInfo &target,
                      const ::gptq::UnitInfo &unit, int64_t n, int64_t k,
                      bool isQuantized, bool isNormalized, int64_t mMin,
                      int64_t mMax) {
    if (unit.kind != ::gptq::UnitInfo::Kind::Lanes)
      return planMatmul(target, unit, n, k, isQuantized, isNormalized, mMin,
                        mMax);
    return planOnLanes(
        &getContext(), target, unit,
        {bufferPartials, hoistScales, foldZeros, prefetch, loadBits}, n, k,
        isQuantized, mMin, mMax);
  }

  /// The plan of an op that works row by row: one workgroup a row, 16 bytes of
  /// f32 for a thread at a time.
  PlanAttr planRows(const ::gptq::UnitInfo &unit, int64_t mMin, int64_t mMax,
                    int64_t threads, int64_t tileN, int64_t occupancy = 1) {
    OpBuilder b(&getContext());
    return PlanAttr::get(&getContext(), mMin, mMax, b.getStringAttr(unit.name),
                         /*tileM=*/1, tileN, /*tileK=*/0, /*rows=*/1,
                         /*columns=*/1, /*lanes=*/4, b.getStringAttr("direct"),
                         b.getStringAttr("global"), b.getStringAttr("weight"),
                         b.getStringAttr("weight"), threads, /*stepK=*/0,
                         occupancy,
                         /*stages=*/1, loadBits);
  }

  /// Whether several rows of attention are products of tiles. Results of larger
  /// heads do not fit a thread's registers.
  static bool fitsMatrixUnit(const ::gptq::UnitInfo &unit, AttentionOp op) {
    Type cache = cast<MemRefType>(op.getKeys().getType()).getElementType();
    return unit.name == "mma_m16n8k16" && (cache.isF16() || cache.isBF16()) &&
           op.getHeadDim() % kTileRows == 0 &&
           int64_t(op.getHeadDim()) <= kMostHeadDim;
  }

  ReasonedPlan planAttention(const ::gptq::UnitInfo &unit, AttentionOp op,
                             int64_t mMin, int64_t mMax) {
    int64_t queries = std::min(op.getQueries(), kMaxQueries);
    while (op.getQueries() % queries != 0)
      --queries;
    OpBuilder b(&getContext());
    NamedAttrList why;
    if (!op.getPart() && mMax > 1 && fitsMatrixUnit(unit, op)) {
      const int64_t tiles = llvm::divideCeil(kLeastTiles, queries);
      why.set("rows", b.getStringAttr("queries and keys are multiplied by the "
                                      "matrix unit, then exponentials and "
                                      "values"));
      why.set("tileM",
              b.getStringAttr(llvm::formatv(
                  "{0} tiles of {1} rows for {2} query heads, one a warp",
                  tiles, kTileColumns, queries)));
      return {PlanAttr::get(
                  &getContext(), mMin, mMax, b.getStringAttr(unit.name),
                  /*tileM=*/tiles * kTileColumns, /*tileN=*/queries,
                  /*tileK=*/0, /*rows=*/kTileColumns, /*columns=*/1,
                  /*lanes=*/4, b.getStringAttr("direct"),
                  b.getStringAttr("global"), b.getStringAttr("weight"),
                  b.getStringAttr("weight"), tiles * queries * kWarpThreads,
                  /*stepK=*/0, /*occupancy=*/1, /*stages=*/1, loadBits),
              why.getDictionary(&getContext())};
    }
    if (!op.getPart())
      // Each cache is read once for every query head: the second time from the
      // level-2 cache, and on other multiprocessors.
      return {planRows(unit, mMin, mMax, kMaxWarps * kWarpThreads, 1),
              DictionaryAttr::get(&getContext())};
    why.set("tileN", b.getStringAttr(llvm::formatv(
                         "{0} of the {1} query heads that read one head of the "
                         "caches share what is loaded",
                         queries, op.getQueries())));
    why.set("occupancy", b.getStringAttr("one workgroup loads while the other "
                                         "sums"));
    return {planRows(unit, mMin, mMax, kMaxWarps / 2 * kWarpThreads, queries,
                     /*occupancy=*/2),
            why.getDictionary(&getContext())};
  }

  void runOnOperation() override {
    const ::gptq::TargetInfo *target = ::gptq::findTarget(chip);
    if (!target || target->kind != ::gptq::TargetInfo::Kind::NVVM) {
      getOperation().emitError("expects a known NVIDIA architecture, but found "
                               "'")
          << chip << "'";
      return signalPassFailure();
    }
    const ::gptq::UnitInfo *chosen = this->unit.empty()
                                         ? &target->units.front()
                                         : target->findUnit(this->unit);
    if (!chosen) {
      getOperation().emitError("expects a unit of ")
          << chip << ", but found '" << this->unit << "'";
      return signalPassFailure();
    }
    const ::gptq::UnitInfo &unit = *chosen;
    // A matrix unit multiplies what the activations are; others can widen.
    bool isRefused = false;
    getOperation().walk([&](Operation *op) {
      Value lhs;
      if (auto matmul = dyn_cast<DequantMatmulOp>(op))
        lhs = matmul.getLhs();
      else if (auto matmul = dyn_cast<MatmulOp>(op))
        lhs = matmul.getLhs();
      if (!lhs || !getElementTypeOrSelf(lhs).isBF16() || target->hasBF16 ||
          unit.kind != ::gptq::UnitInfo::Kind::Matrix || isRefused)
        return;
      op->emitError("expects activations of f16 on ")
          << chip << ", whose matrix units have no bf16";
      isRefused = true;
    });
    if (isRefused)
      return signalPassFailure();
    planOps(
        getOperation(), reasons,
        [&](Operation *op) -> SmallVector<int64_t> {
          if (!isa<DequantMatmulOp, MatmulOp>(op))
            return {1};
          if (unit.kind == ::gptq::UnitInfo::Kind::Lanes)
            return lanesRowEnds();
          return {1, kTileRows, 2 * kTileRows};
        },
        [&](Operation *op, int64_t mMin, int64_t mMax) -> ReasonedPlan {
          if (auto matmul = dyn_cast<DequantMatmulOp>(op))
            return planOn(*target, unit, matmul.getN(), matmul.getK(),
                          /*isQuantized=*/true, bool(matmul.getSource()), mMin,
                          mMax);
          if (auto matmul = dyn_cast<MatmulOp>(op))
            return planOn(*target, unit, matmul.getN(), matmul.getK(),
                          /*isQuantized=*/false, bool(matmul.getSource()), mMin,
                          mMax);
          if (auto attention = dyn_cast<AttentionOp>(op))
            return planAttention(unit, attention, mMin, mMax);
          const int64_t threads = isa<JoinAttentionOp, ChooseTokenOp>(op)
                                      ? kMaxWarps / 4
                                  : isa<ArgmaxOp>(op) ? kMaxWarps / 2
                                                      : kMaxWarps;
          return {planRows(unit, mMin, mMax, threads * kWarpThreads, 0),
                  DictionaryAttr::get(&getContext())};
        });
    dropUnreadPlans(getOperation());
  }
};
} // namespace
