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

/// Warps of a workgroup: with 128 registers a thread they fill a
/// multiprocessor.
static constexpr int64_t kMaxWarps = 16;
/// The largest number of rows that one workgroup multiplies at once; more rows
/// are more workgroups. Unpacking is then a sixteenth of the multiplications.
static constexpr int64_t kMaxRows = 16;
/// Rows of K that a warp multiplies between two applications of a scale: the
/// usual group, or less where it would be more instructions than the cache for
/// them holds.
static constexpr int64_t kStepRows[] = {128, 64, 32};
static constexpr int64_t kStepProducts = 1024;
/// Registers for codes of a thread's 128: the others hold sums, activations,
/// what is being unpacked, scales, addresses.
static constexpr int64_t kCodeRegisters = 48;

SmallVector<int64_t> mlir::gptq::lanesRowEnds() {
  return {1, 2, 4, 8, kMaxRows};
}

ReasonedPlan mlir::gptq::planOnLanes(MLIRContext *ctx,
                                     const ::gptq::TargetInfo &target,
                                     const ::gptq::UnitInfo &unit,
                                     const LanesPlanOptions &options, int64_t n,
                                     int64_t k, bool isQuantized, int64_t mMin,
                                     int64_t mMax) {
  OpBuilder b(ctx);
  NamedAttrList why;
  auto because = [&](StringRef field, const Twine &reason) {
    why.set(field, b.getStringAttr(reason));
  };
  const int64_t rows = std::min<int64_t>(llvm::PowerOf2Ceil(mMax), kMaxRows);
  because("rows", llvm::formatv("{0} rows share the weights a thread has "
                                "unpacked",
                                rows));
  // A warp takes all panels of its workgroup, and warps share K. Where panels
  // are many, two workgroups of half as many warps, so that one multiplies
  // while the other sums.
  const int64_t columns = unit.tileColumns();
  const int64_t panels = llvm::divideCeil(n, columns);
  const int64_t most = std::clamp<int64_t>(unit.accumulators / rows, 1, 8);
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
  // Codes of `stepK` rows of 4 bits.
  auto registers = [&](int64_t stepK, int64_t stages) {
    return stages * here * stepK / 8;
  };
  int64_t stepK = kStepRows[0], stages = 1;
  for (int64_t step : kStepRows) {
    stepK = step;
    if (rows * here * step > kStepProducts ||
        registers(step, 1) > kCodeRegisters)
      continue;
    if (!options.prefetch || registers(step, 2) <= kCodeRegisters)
      break;
  }
  if (options.prefetch && registers(stepK, 2) <= kCodeRegisters)
    stages = 2;
  because("stages", stages == 2        ? "the codes of two parts fit registers"
                    : options.prefetch ? "the codes of two parts do not fit "
                                         "registers"
                                       : "prefetching is off");
  const int64_t parts = llvm::divideCeil(k, stepK);
  const int64_t warps = std::clamp<int64_t>(parts, 2, kMaxWarps / occupancy);
  because("threads",
          llvm::formatv("{0} warps share {1} parts of K", warps, parts));
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
  return {PlanAttr::get(
              ctx, mMin, mMax, b.getStringAttr(unit.name),
              /*tileM=*/rows, here * columns, /*tileK=*/0, rows, here * columns,
              unit.lanes, b.getStringAttr("direct"),
              b.getStringAttr(options.bufferPartials ? "shared" : "global"),
              where(options.hoistScales), where(folds), warps * unit.lanes,
              stepK, occupancy, stages, options.loadBits),
          why.getDictionary(ctx)};
}
