//===- NVVMPlanRing.cpp - Plans for matmuls through a ring ----------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "NVVMPlanRing.h"
#include "llvm/Support/FormatVariadic.h"

using namespace mlir;
using namespace mlir::gptq;

/// The largest number of rows of one workgroup. More than kMaxHoistedRows have
/// as many sums as codes, and no registers for a second set of them.
static constexpr int64_t kMaxRingRows = 64;
/// Warps of a workgroup that have two sets of sums of kMaxRingRows; four more
/// fill the ring.
static constexpr int64_t kHoistedWarps = kLeastWarps;
/// Up to so many rows, the least number of tiles of one multiprocessor that
/// pass through a ring, and of weights: of up to kLeastBits, and of more.
static constexpr struct {
  int64_t rows, tiles, narrow, wide;
} kLeastOfRing[] = {{16, 4, 3 << 17, 1 << 20}, {32, 1, 1 << 17, 1 << 18}};
/// Places of a ring for each turn, at most: the loop over them may be unrolled.
static constexpr int64_t kMaxPlaces = 8;
/// Parts of K that each turn has at least: fewer end before any of them hides
/// another.
static constexpr int64_t kLeastRounds = 2;
/// Workgroups of a cluster. Four would read less, but the multiprocessors that
/// a cluster may take come in groups that four do not fill.
static constexpr int64_t kCluster = 2;

/// Why a matmul does not go through a ring whatever the plan; empty if it may.
static std::string refusal(const ::gptq::TargetInfo &target,
                           const RingPlanOptions &options,
                           const MatmulShape &shape, int64_t mMax) {
  if (!target.warpgroupUnit())
    return "warps of this architecture do not multiply together";
  if (!options.ring)
    return "rings are off";
  if (options.hasUnit)
    return "a unit was asked for";
  if (!shape.isQuantized)
    return "weights are dense";
  if (shape.hasRuns)
    return "rows come in runs for several weights";
  if (shape.hasOffsets)
    return "groups have offsets";
  if (mMax <= kTileRows)
    return llvm::formatv("up to {0} rows are multiplied where they lie",
                         kTileRows);
  // Measured: a ring has to be filled before anything is multiplied, and the
  // fewer the rows the less it saves.
  const int64_t each = llvm::divideCeil(llvm::divideCeil(shape.n, kTileColumns),
                                        target.multiprocessors);
  for (auto [few, tiles, narrow, wide] : kLeastOfRing)
    if (const int64_t enough = shape.bits > kLeastBits ? wide : narrow;
        mMax <= few && (each < tiles || each * kTileColumns * shape.k < enough))
      return llvm::formatv("up to {0} rows of fewer than {1} tiles or {2} "
                           "weights of a multiprocessor are multiplied faster "
                           "where they lie",
                           few, tiles, enough);
  return "";
}

/// How many places a ring has for `parts` parts of K, of those that `fit`
/// shared memory.
static int64_t chooseStages(int64_t fit, int64_t parts, int64_t turns,
                            int64_t rows, bool hoists) {
  // The loop over the places of a turn is unrolled: beside two sets of sums
  // there are few registers for that, and without turns half of the places are
  // enough for them and for many rows.
  const bool unrollsSets = hoists && rows <= kMaxHoistedRows / 2;
  const bool unrollsMany = !hoists && rows > kMaxHoistedRows;
  const int64_t most = turns == 1 && (unrollsSets || unrollsMany)
                           ? kMaxPlaces / 2
                       : unrollsSets ? kMaxPlaces * 3 / 4
                                     : kMaxPlaces;
  int64_t stages = std::min<int64_t>(
      {fit, most * turns, int64_t(llvm::alignTo(parts, turns))});
  stages = stages / turns * turns;
  if (const int64_t each = stages / turns, few = fewPlaces(rows, hoists);
      few && each > few)
    return each / few * few * turns;
  // A round is all places. Parts behind the last are code of their own, which
  // is fetched for one time: rather a few places less than many of those.
  for (int64_t fewer = stages - turns; fewer >= stages * 3 / 4 && fewer > 1;
       fewer -= turns)
    if (parts % fewer < parts % stages)
      return fewer;
  return stages;
}

ReasonedPlan mlir::gptq::planRing(MLIRContext *ctx,
                                  const ::gptq::TargetInfo &target,
                                  const RingPlanOptions &options,
                                  const MatmulShape &shape, int64_t mMin,
                                  int64_t mMax) {
  OpBuilder b(ctx);
  NamedAttrList why;
  auto because = [&](StringRef field, const Twine &reason) {
    why.set(field, b.getStringAttr(reason));
  };
  auto refuse = [&](const Twine &reason) {
    because("path", "no ring: " + reason);
    return ReasonedPlan{PlanAttr(), why.getDictionary(ctx)};
  };
  if (std::string reason = refusal(target, options, shape, mMax);
      !reason.empty())
    return refuse(reason);
  const ::gptq::UnitInfo *unit = target.warpgroupUnit();
  const int64_t all = llvm::divideCeil(shape.n, kTileColumns);

  // Parts of K are whole lines of an image, whole blocks, and have one scale.
  const bool isWhole = shape.groupSize >= shape.k;
  const int64_t span = isWhole ? shape.k : shape.groupSize;
  const int64_t line = unit->activationLayout().blockK;
  int64_t stepK = 0;
  for (int64_t step : kStepRows)
    if (!stepK && step % line == 0 && span % step == 0 && shape.k % step == 0 &&
        step % unit->weightLayout(shape.bits, isWhole ? 0 : span).blockK == 0)
      stepK = step;
  if (!stepK)
    return refuse(llvm::formatv(
        "groups of {0} of {1} rows of K are no whole parts of {2}", span,
        shape.k, line));

  // Every workgroup reads all rows of its parts of K: two that share K read
  // half as much each, and have twice as many tiles.
  const int64_t allParts = shape.k / stepK;
  auto sharesFor = [&](int64_t mostWarps) {
    return options.clusters && options.bufferPartials &&
                   allParts % kCluster == 0 &&
                   all <= target.multiprocessors * mostWarps / kCluster
               ? kCluster
               : 1;
  };
  auto roundsFor = [&](int64_t mostWarps) {
    const int64_t places = target.multiprocessors / sharesFor(mostWarps);
    return llvm::divideCeil(all, places * mostWarps);
  };
  // Many rows have two sets of sums, and scales are applied to one of them,
  // where fewer warps with more registers are enough for the tiles. Elsewhere
  // codes are multiplied by scales, for which those of bf16 are too coarse.
  const bool isMany = mMax > kMaxHoistedRows && options.hoistScales;
  const bool hasFewWarps =
      isMany && roundsFor(kHoistedWarps) == roundsFor(kMaxWarps) &&
      (!shape.isF16 || sharesFor(kHoistedWarps) == sharesFor(kMaxWarps));
  const int64_t rows =
      mMax <= kMaxHoistedRows ? llvm::alignTo(mMax, 2 * kTileRows)
      : isMany && (shape.isF16 || hasFewWarps) ? kMaxRingRows
                                               : kMaxHoistedRows;
  const int64_t mostWarps = hasFewWarps ? kHoistedWarps : kMaxWarps;
  const int64_t cluster = sharesFor(mostWarps);
  const int64_t parts = allParts / cluster;
  const int64_t places = target.multiprocessors / cluster;
  const int64_t rounds = roundsFor(mostWarps);
  const int64_t panels = llvm::divideCeil(all, places * rounds);
  const int64_t warps = llvm::alignTo(panels, unit->warps);
  // More rows leave no registers for a second set of sums.
  const bool hoists =
      options.hoistScales && (hasFewWarps || rows <= kMaxHoistedRows);
  // Wide codes of a part, and two sets of sums, take the registers of half as
  // many warps.
  const bool isWide =
      shape.bits > kLeastBits && hoists && rows <= kMaxHoistedRows / 2;
  const int64_t turns = isWide ? 1 : mostWarps / warps;
  if (parts < kLeastRounds * turns)
    return refuse(llvm::formatv("{0} parts of {1} rows of K are not {2} for "
                                "each of {3} turns of {4} workgroups",
                                allParts, stepK, kLeastRounds, turns, cluster));
  const int64_t threads = turns * warps * kWarpThreads;
  auto planOf = [&](int64_t stages) {
    PlanAttr::Fields f;
    f.mMin = mMin;
    f.mMax = mMax;
    f.unit = b.getStringAttr(unit->name);
    f.tileM = f.rows = rows;
    f.tileN = panels * kTileColumns;
    f.columns = kTileColumns;
    f.lanes = unit->lanes;
    f.path = b.getStringAttr("ring");
    f.partials = b.getStringAttr(options.bufferPartials ? "shared" : "global");
    f.scale = b.getStringAttr(hoists ? "accumulator" : "weight");
    f.threads = threads;
    f.stepK = stepK;
    f.stages = stages;
    f.loadBits = options.loadBits;
    f.cluster = cluster;
    return PlanAttr::get(ctx, f);
  };
  const RingBytes bytes =
      ringBytes(planOf(1), shape.bits, shape.scaleBits, shape.hasZeros);
  const int64_t stages = chooseStages(bytes.places(target.workgroupMemory),
                                      parts, turns, rows, hoists);
  if (stages < std::min<int64_t>(parts, 2))
    return refuse(llvm::formatv(
        "{0} bytes a place leave no room for two in shared memory",
        bytes.place));

  because("rows", llvm::formatv("{0} rows of activations pass through shared "
                                "memory once for all warps",
                                rows));
  because("tileN", llvm::formatv("{0} of {1} tiles of {2} columns: {3} "
                                 "workgroups for {4} multiprocessors",
                                 panels, all, kTileColumns,
                                 llvm::divideCeil(all, panels) * cluster,
                                 target.multiprocessors));
  if (cluster > 1) {
    because("cluster",
            llvm::formatv("{0} workgroups share K, and with it the "
                          "activations that each reads; they read each "
                          "other's sums",
                          cluster));
  }
  because("threads",
          llvm::formatv("{0} warps, four together, for {1} tiles, {2} times "
                        "along K{3}",
                        warps, panels, turns,
                        hasFewWarps ? "; more have no registers for a second "
                                      "set of sums"
                                    : ""));
  because("path", llvm::formatv("{0} parts of {1} rows of K on their way",
                                stages, stepK));
  because("scale", hoists ? "one multiplication for a group, not for a weight"
                   : options.hoistScales
                       ? "there are no registers for a second set of sums"
                       : "hoisting is off");
  because("zero", "several rows share a subtraction from a pair of codes, "
                  "but each has a sum of its own");
  return {planOf(stages), why.getDictionary(ctx)};
}
