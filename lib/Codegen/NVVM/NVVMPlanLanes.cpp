//===- NVVMPlanLanes.cpp - Plans for vector units of a GPU ----------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "NVVMPlanLanes.h"
#include "mlir/IR/Builders.h"
#include "llvm/Support/FormatVariadic.h"

using namespace mlir;
using namespace mlir::gptq;

/// Tiles of columns of a warp, at most.
static constexpr int64_t kMaxTiles = 8;
/// The largest number of rows that one workgroup multiplies at once; more rows
/// are more workgroups. Unpacking is then a sixteenth of the multiplications.
static constexpr int64_t kMaxRows = 16;
/// Rows of K that a warp multiplies between two applications of a scale: the
/// usual group, or less where it would be more instructions than the cache for
/// them holds.
static constexpr int64_t kLanesStepRows[] = {128, 64, 32};
static constexpr int64_t kStepProducts = 256;

namespace {
/// Registers of a thread, about.
struct Registers {
  /// Rows of activations, bits of a code.
  int64_t rows, bits;
  bool multipliesPairs;

  /// For every column a row has a sum in f32 and what is being added to it; a
  /// row has its place, and the activations of two slices of 8 rows of K, which
  /// pairs keep for longer: their products are added up first.
  int64_t sums(int64_t tiles) const {
    return (2 * tiles + (multipliesPairs ? 17 : 11)) * rows;
  }
  int64_t codes(int64_t tiles, int64_t stepK) const {
    return llvm::divideCeil(tiles * stepK * bits, 32);
  }
};
} // namespace

SmallVector<int64_t> mlir::gptq::lanesRowEnds() {
  return {1, 2, 4, 8, kMaxRows};
}

ReasonedPlan mlir::gptq::planOnLanes(MLIRContext *ctx,
                                     const ::gptq::TargetInfo &target,
                                     const ::gptq::UnitInfo &unit,
                                     const LanesPlanOptions &options, int64_t n,
                                     int64_t k, int64_t bits, bool isQuantized,
                                     int64_t mMin, int64_t mMax) {
  OpBuilder b(ctx);
  NamedAttrList why;
  auto because = [&](StringRef field, const Twine &reason) {
    why.set(field, b.getStringAttr(reason));
  };
  // As many rows, then as many warps, as leave each thread the registers for a
  // tile.
  Registers registers = {std::min<int64_t>(llvm::PowerOf2Ceil(mMax), kMaxRows),
                         bits, unit.multipliesPairs};
  int64_t maxWarps = 0, room = 0, most = 0;
  auto fill = [&](int64_t warps, int64_t each) {
    maxWarps = warps;
    room = operandRegisters(unit, each);
    const int64_t cap =
        std::clamp<int64_t>(unit.accumulators / registers.rows, 1, kMaxTiles);
    while (most < cap &&
           registers.sums(most + 1) +
                   registers.codes(most + 1, std::rbegin(kLanesStepRows)[0]) <=
               room)
      ++most;
    return most > 0;
  };
  while (!llvm::any_of(
      kWarps, [&](auto pair) { return fill(pair.first, pair.second); }))
    registers.rows /= 2;
  const int64_t rows = registers.rows;
  because("rows", llvm::formatv("{0} rows share the weights a thread has "
                                "unpacked",
                                rows));
  // A warp takes all panels of its workgroup, and warps share K. Where panels
  // are many, two workgroups of half as many warps, so that one multiplies
  // while the other sums.
  const int64_t columns = unit.tileColumns();
  const int64_t panels = llvm::divideCeil(n, columns);
  const int64_t each = llvm::divideCeil(panels, target.multiprocessors);
  const int64_t occupancy = each > std::max<int64_t>(1, most / 2) ? 2 : 1;
  const int64_t places = target.multiprocessors * occupancy;
  const int64_t rounds = llvm::divideCeil(panels, places * most);
  const int64_t here = llvm::divideCeil(panels, places * rounds);
  because("tileN", llvm::formatv("{0} of {1} tiles of {2} columns: {3} "
                                 "workgroups for {4} places",
                                 here, panels, columns,
                                 llvm::divideCeil(panels, here), places));
  because("columns", llvm::formatv("{0} tiles for a warp, {1} sums for a "
                                   "thread",
                                   here, here * rows));
  const int64_t left = room - registers.sums(here);
  auto fits = [&](int64_t stepK, int64_t stages) {
    return stages * registers.codes(here, stepK) <= left;
  };
  int64_t stepK = kLanesStepRows[0], stages = 1;
  for (int64_t step : kLanesStepRows) {
    stepK = step;
    if (rows * here * step > kStepProducts || !fits(step, 1))
      continue;
    if (!options.prefetch || fits(step, 2))
      break;
  }
  if (options.prefetch && fits(stepK, 2))
    stages = 2;
  because("stages", stages == 2        ? "the codes of two parts fit registers"
                    : options.prefetch ? "the codes of two parts do not fit "
                                         "registers"
                                       : "prefetching is off");
  const int64_t firstBytes =
      options.prefetch
          ? std::clamp<int64_t>(
                std::min(4 * left, kStepProducts * bits / 8 / rows), 0,
                target.firstBytes)
          : 0;
  if (options.prefetch && firstBytes < target.firstBytes)
    because("firstBytes",
            llvm::formatv("sums and activations leave {0} registers; the first "
                          "parts are as many products as others at most",
                          std::max<int64_t>(left, 0)));
  const int64_t parts = llvm::divideCeil(k, stepK);
  const int64_t warps = std::clamp<int64_t>(parts, 2, maxWarps / occupancy);
  because("threads", llvm::formatv("{0} warps share {1} parts of K; {2} fill a "
                                   "multiprocessor",
                                   warps, parts, maxWarps));
  because("partials",
          options.bufferPartials
              ? "the sums of the warps meet in shared memory, and are written "
                "once"
              : "buffers for partials are off: warps add to the result");
  const bool folds = options.foldZeros && !unit.multipliesPairs;
  if (isQuantized) {
    because("scale", options.hoistScales
                         ? "one multiplication for a group, not for a weight"
                         : "hoisting is off");
    because("zero",
            unit.multipliesPairs
                ? "subtracted from a pair of codes together with what "
                  "unpacking added, so that sums in half precision are small"
            : folds ? "z times the sum of a group's activations is subtracted "
                      "once for a group"
                    : "folding is off");
  }
  auto where = [&](bool isHoisted) {
    return b.getStringAttr(isQuantized && isHoisted ? "accumulator" : "weight");
  };
  PlanAttr::Fields f;
  f.mMin = mMin;
  f.mMax = mMax;
  f.unit = b.getStringAttr(unit.name);
  f.tileM = f.rows = rows;
  f.tileN = f.columns = here * columns;
  f.lanes = unit.lanes;
  f.partials = b.getStringAttr(options.bufferPartials ? "shared" : "global");
  f.scale = where(options.hoistScales);
  f.zero = where(folds);
  f.threads = warps * unit.lanes;
  f.stepK = stepK;
  f.occupancy = occupancy;
  f.stages = stages;
  f.loadBits = options.loadBits;
  f.firstBytes = f.aheadBytes = firstBytes;
  return {PlanAttr::get(ctx, f), why.getDictionary(ctx)};
}
