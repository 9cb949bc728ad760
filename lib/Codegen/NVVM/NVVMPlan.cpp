//===- NVVMPlan.cpp - Plans for NVIDIA GPUs -------------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "NVVMPlanLanes.h"
#include "NVVMPlanRing.h"
#include "gptq/Codegen/Common/Plan.h"
#include "gptq/Codegen/NVVM/NVVMOps.h"
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

static constexpr int64_t kSumsPerTile = ::gptq::MatrixFragments::sumsPerTile;
/// The largest number of rows that one workgroup multiplies at once; more rows
/// are more workgroups.
static constexpr int64_t kMaxRows = 32;

/// Of a thread's registers those that sums and operands of several tiles of
/// rows may take, which have addresses of their own (else
/// `UnitInfo::operandRegisters`).
static constexpr int64_t kManyRowsRegisters = 104;
/// The part of shared memory that normalized rows may take, 1 / this; the other
/// is for sums and for the cache.
static constexpr int64_t kNormalizedShare = 2;
/// Sums of one thread, at most, where several rows share unpacked weights.
static constexpr int64_t kSharedSums = 32;
/// Tiles of columns of one warp, at most, where warps share activations: more
/// leave too few registers for what is being unpacked.
static constexpr int64_t kSharedPanels = 2;

/// Query heads that share what is loaded of a cache, at most: a thread keeps
/// its elements of each, and of their sums.
static constexpr int64_t kMaxQueries = 8;
/// Registers of a thread of attention: so many for each query head whose
/// elements a warp has 128 of, and what is the same for all.
static constexpr int64_t kQueryRegisters = 16, kAttentionRegisters = 48;
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

  /// Bytes of a thread's share of one tile of columns and a part of K.
  static int64_t tileBytes(const MatmulShape &shape, int64_t stepK) {
    return kTileColumns * stepK * shape.bits / (8 * kWarpThreads);
  }

  MatmulTiles chooseTiles(const ::gptq::TargetInfo &target,
                          const ::gptq::UnitInfo &unit, int64_t rows,
                          int64_t panels, const MatmulShape &shape) {
    const int64_t k = shape.k;
    const int64_t rowTiles = rows / kTileRows;
    const int64_t sumsPerPanel = kSumsPerTile * rowTiles;
    MatmulTiles t;
    t.occupancy = 1;
    t.stepK = kStepRows[0];
    int64_t warpsThere = kMaxWarps;
    const int64_t each = llvm::divideCeil(panels, target.multiprocessors);
    // Registers of sums and of the operands of `stages` parts of K. Narrower
    // codes take as many as those of kLeastBits: unpacking needs the others.
    const int64_t weightBits = std::max(shape.bits, kLeastBits);
    auto registers = [&](int64_t panelsPerWarp, int64_t stepK, int64_t stages) {
      return panelsPerWarp * sumsPerPanel +
             stages * (rowTiles * stepK / 8 +
                       panelsPerWarp * stepK * weightBits / 64);
    };
    if (rowTiles == 1) {
      // Activations are few: a warp takes all panels of its workgroup, and
      // warps share K. Where those are many, two workgroups of half as many
      // warps, so that one multiplies while the other sums.
      int64_t most = std::min(kSharedSums, unit.accumulators) / sumsPerPanel;
      if (each > most) {
        t.occupancy = 2;
        warpsThere = kMaxWarps / 2;
        most = unit.accumulators / sumsPerPanel;
      }
      // More than a thread may load first would not be on their way together.
      if (const int64_t bytes = tileBytes(shape, t.stepK);
          target.firstBytes > 0)
        most = std::clamp<int64_t>(target.firstBytes / bytes, 1, most);
      const int64_t places = target.multiprocessors * t.occupancy;
      const int64_t rounds = llvm::divideCeil(panels, places * most);
      t.panels = t.panelsPerWarp = llvm::divideCeil(panels, places * rounds);
      t.warps = warpsThere;
    } else {
      // Warps share panels, too, and with them the activations that the cache
      // has just read: the largest share that leaves no panel over.
      const int64_t most =
          std::clamp<int64_t>(kSharedSums / sumsPerPanel, 1, kSharedPanels);
      // Four tiles of rows want more registers.
      const int64_t mostWarps = rowTiles > 2 ? kFewWarps : kMaxWarps;
      const int64_t rounds = llvm::divideCeil(each, most * mostWarps);
      t.panels = llvm::divideCeil(panels, target.multiprocessors *
                                              std::max<int64_t>(1, rounds));
      t.panelsPerWarp = 1;
      for (int64_t share = std::min(most, t.panels); share > 1; --share)
        if (t.panels % share == 0 && t.panels / share <= mostWarps) {
          t.panelsPerWarp = share;
          break;
        }
      while (t.panelsPerWarp * mostWarps < t.panels)
        ++t.panelsPerWarp;
      const int64_t across = llvm::divideCeil(t.panels, t.panelsPerWarp);
      t.warps = mostWarps / across * across;
      warpsThere = t.warps;
    }
    t.stages = 1;
    for (int64_t step : kStepRows)
      // Halves of parts pay where rows share what is unpacked only.
      if (prefetch && t.stages == 1 && (rowTiles > 1 || step == kStepRows[0]) &&
          registers(t.panelsPerWarp, step, 2) <=
              (rowTiles > 1 ? kManyRowsRegisters : unit.operandRegisters)) {
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

  /// Sets what a thread loads first, of `firstBytes`, and what of that it asks
  /// for before the kernel in front has ended (measured on sm_90a). Behind one
  /// that does not read weights: all, memory has nothing else to do. Otherwise
  /// one part of K, or a third of `firstBytes` if that is less; where registers
  /// would hold all parts, the others stay behind the activations of the first.
  /// What a workgroup normalizes itself comes later than activations: most of
  /// the weights if registers hold all that there is, and one tile if more
  /// comes later anyway.
  static void setFirstBytes(PlanAttr::Fields &f, const MatmulShape &shape,
                            const MatmulTiles &tiles, int64_t firstBytes) {
    f.firstBytes = f.aheadBytes = firstBytes;
    const bool normalizes = f.path.getValue() == "normalize";
    if (!shape.followsWeights || f.rows > kTileRows ||
        (shape.isNormalized && !normalizes))
      return;
    const int64_t one =
        tileBytes(shape, tiles.stepK) +
        (shape.scaleBits + (shape.hasZeros ? kZeroBits : 0)) * 2 / 8;
    const int64_t parts =
        llvm::divideCeil(llvm::divideCeil(shape.k, tiles.stepK), tiles.warps);
    const int64_t part = tiles.panels * one;
    const bool fits = parts * part <= firstBytes;
    f.aheadBytes = normalizes
                       ? std::min(firstBytes, fits ? parts * part * 2 / 3 : one)
                       : std::min(firstBytes / 3, part);
    if (fits && !normalizes)
      f.firstBytes = f.aheadBytes;
  }

  /// The plan of a matmul for calls of `mMin` to `mMax` rows.
  ReasonedPlan planMatmul(const ::gptq::TargetInfo &target,
                          const ::gptq::UnitInfo &unit,
                          const MatmulShape &shape, int64_t mMin,
                          int64_t mMax) {
    ReasonedPlan throughRing = planRing(&getContext(), target,
                                        {ring, !this->unit.empty(), clusters,
                                         bufferPartials, hoistScales, loadBits},
                                        shape, mMin, mMax);
    if (throughRing.plan)
      return throughRing;
    const int64_t n = shape.n, k = shape.k;
    const bool isQuantized = shape.isQuantized;
    const bool isNormalized = shape.isNormalized;
    OpBuilder b(&getContext());
    NamedAttrList why(throughRing.reasons);
    auto because = [&](StringRef field, const Twine &reason) {
      why.set(field, b.getStringAttr(reason));
    };
    const int64_t rows =
        std::min<int64_t>(llvm::alignTo(mMax, kTileRows), kMaxRows);
    because("rows", llvm::formatv("{0} tiles of {1} rows share the weights a "
                                  "warp has unpacked",
                                  rows / kTileRows, kTileRows));
    const int64_t panels = llvm::divideCeil(n, kTileColumns);
    const MatmulTiles tiles = chooseTiles(target, unit, rows, panels, shape);
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
    if (normalizes)
      because("path", "every workgroup normalizes the row itself");
    else if (isNormalized)
      because("path", Twine(!normalize ? "normalizing in matmuls is off"
                            : !fits    ? "a row is too long for shared memory"
                                       : "rows are normalized once for all "
                                         "workgroups") +
                          "; " + cast<StringAttr>(why.get("path")).getValue());
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
    PlanAttr::Fields f;
    f.mMin = mMin;
    f.mMax = mMax;
    f.unit = b.getStringAttr(unit.name);
    f.tileM = f.rows = rows;
    f.tileN = tiles.panels * kTileColumns;
    f.columns = tiles.panelsPerWarp * kTileColumns;
    f.lanes = unit.lanes;
    f.path = b.getStringAttr(normalizes ? "normalize" : "direct");
    f.partials = b.getStringAttr(bufferPartials ? "shared" : "global");
    f.scale = where(hoistScales);
    f.zero = where(folds);
    f.threads = tiles.warps * kWarpThreads;
    f.stepK = tiles.stepK;
    f.occupancy = tiles.occupancy;
    f.stages = tiles.stages;
    f.loadBits = loadBits;
    const int64_t firstBytes = prefetch ? target.firstBytes : 0;
    setFirstBytes(f, shape, tiles, firstBytes);
    if (f.aheadBytes < firstBytes)
      because(
          "aheadBytes",
          llvm::formatv("the kernel in front may read weights up to its end: "
                        "more than {0} bytes a thread would hold up what it "
                        "writes, and what this kernel waits for",
                        f.aheadBytes));
    return {PlanAttr::get(&getContext(), f), why.getDictionary(&getContext())};
  }

  /// The same on any unit.
  ReasonedPlan planOn(const ::gptq::TargetInfo &target,
                      const ::gptq::UnitInfo &unit, const MatmulShape &shape,
                      int64_t mMin, int64_t mMax) {
    if (unit.kind != ::gptq::UnitInfo::Kind::Lanes)
      return planMatmul(target, unit, shape, mMin, mMax);
    return planOnLanes(
        &getContext(), target, unit,
        {bufferPartials, hoistScales, foldZeros, prefetch, loadBits}, shape.n,
        shape.k, shape.bits, shape.isQuantized, mMin, mMax);
  }

  /// The plan of an op that works row by row: one workgroup a row, 16 bytes of
  /// f32 for a thread at a time.
  PlanAttr planRows(const ::gptq::UnitInfo &unit, int64_t mMin, int64_t mMax,
                    int64_t threads, int64_t tileN, int64_t occupancy = 1) {
    PlanAttr::Fields f;
    f.mMin = mMin;
    f.mMax = mMax;
    f.unit = StringAttr::get(&getContext(), unit.name);
    f.tileM = 1;
    f.tileN = tileN;
    f.lanes = 4;
    f.threads = threads;
    f.occupancy = occupancy;
    f.loadBits = loadBits;
    return PlanAttr::get(&getContext(), f);
  }

  /// Whether several rows of attention are products of tiles. Results of larger
  /// heads do not fit a thread's registers.
  static bool fitsMatrixUnit(const ::gptq::UnitInfo &unit, AttentionOp op) {
    Type cache = cast<MemRefType>(op.getKeys().getType()).getElementType();
    return unit.name == "mma_m16n8k16" && (cache.isF16() || cache.isBF16()) &&
           op.getHeadDim() % kTileRows == 0 &&
           int64_t(op.getHeadDim()) <= kMostHeadDim;
  }

  ReasonedPlan planAttention(const ::gptq::TargetInfo &target,
                             const ::gptq::UnitInfo &unit, AttentionOp op,
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
      PlanAttr::Fields f;
      f.mMin = mMin;
      f.mMax = mMax;
      f.unit = b.getStringAttr(unit.name);
      f.tileM = tiles * kTileColumns;
      f.tileN = queries;
      f.rows = kTileColumns;
      f.lanes = 4;
      f.threads = tiles * queries * kWarpThreads;
      f.loadBits = loadBits;
      return {PlanAttr::get(&getContext(), f),
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
    // As many warps as leave each the registers for its query heads.
    const int64_t registers =
        kAttentionRegisters +
        llvm::divideCeil(queries * op.getHeadDim() * kQueryRegisters,
                         kMostHeadDim);
    int64_t warps = kWarps[0].first;
    for (auto [number, each] : kWarps) {
      warps = number;
      if (registers <= operandRegisters(target.units.front(), each))
        break;
    }
    if (warps < kWarps[0].first)
      why.set("threads",
              b.getStringAttr(llvm::formatv(
                  "{0} warps fill a multiprocessor: sums of {1} query heads "
                  "take more registers than {2} would leave",
                  warps, queries, kWarps[0].first)));
    return {planRows(unit, mMin, mMax, warps / 2 * kWarpThreads, queries,
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
    // Plans choose a unit of several warps by themselves.
    if (!chosen || chosen->warps > 1) {
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
          SmallVector<int64_t> ends = {1, kTileRows, 2 * kTileRows};
          if (isa<DequantMatmulOp>(op) && target->warpgroupUnit() && ring &&
              this->unit.empty())
            ends.push_back(kMaxHoistedRows);
          return ends;
        },
        [&](Operation *op, int64_t mMin, int64_t mMax) -> ReasonedPlan {
          auto bitsOf = [](Value value) -> int64_t {
            return getElementTypeOrSelf(value).getIntOrFloatBitWidth();
          };
          if (auto matmul = dyn_cast<DequantMatmulOp>(op))
            return planOn(
                *target, unit,
                {matmul.getN(), matmul.getK(), int64_t(matmul.getGroupSize()),
                 int64_t(matmul.getBits()), bitsOf(matmul.getScales()),
                 bool(matmul.getZeros()), /*isQuantized=*/true,
                 getElementTypeOrSelf(matmul.getLhs()).isF16(),
                 bool(matmul.getSource()), bool(matmul.getOffsets()),
                 bool(matmul.getRuns()), followsWeights(op)},
                mMin, mMax);
          if (auto matmul = dyn_cast<MatmulOp>(op))
            return planOn(*target, unit,
                          {matmul.getN(), matmul.getK(), matmul.getK(),
                           bitsOf(matmul.getWeight()), /*scaleBits=*/0,
                           /*hasZeros=*/false, /*isQuantized=*/false,
                           /*isF16=*/false, bool(matmul.getSource()),
                           /*hasOffsets=*/false, bool(matmul.getRuns()),
                           followsWeights(op)},
                          mMin, mMax);
          if (auto attention = dyn_cast<AttentionOp>(op))
            return planAttention(*target, unit, attention, mMin, mMax);
          // TopKOp and SampleTokenOp sort with all warps.
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
