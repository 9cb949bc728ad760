//===- Target.h - What each chip offers -------------------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What each chip offers, as plain data. Nothing outside this room and the
// code generator of its kind names a chip.
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_TARGET_TARGET_H
#define GPTQ_TARGET_TARGET_H

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/SmallVector.h"
#include "llvm/ADT/StringRef.h"
#include <cstdint>
#include <string>
#include <vector>

namespace gptq {

/// The layout in which an arithmetic unit reads weights: the fields of
/// `#gptq.layout`.
struct WeightLayout {
  int64_t blockN = 0, blockK = 0;
  /// Address bits from the lowest up: "b<i>", "k<i>", "n<i>"; "|" between
  /// planes.
  std::vector<std::string> order;
};

/// One way a target multiplies.
struct UnitInfo {
  std::string name;
  /// Elements of one vector, and vectors that make up one panel of weights.
  int64_t lanes = 1, vectorsPerPanel = 1;
  /// Registers for accumulators: rows times vectors of the largest tile.
  int64_t accumulators = 1;

  /// The layout this unit reads `bits`-bit elements in.
  WeightLayout weightLayout(int64_t bits) const;
};

struct TargetInfo {
  std::string name;
  /// What LLVM calls it, and the processor features a user must have.
  std::string llvmCpu;
  std::vector<std::string> features;
  std::vector<UnitInfo> units;
  /// Memory close to one workgroup, in bytes: a core's level-2 cache on a CPU.
  int64_t workgroupMemory = 0;
  /// Bytes a second that one core reads from memory in sequence, about. For the
  /// floors that people are shown only: nothing is chosen by it.
  int64_t coreBandwidth = 0;

  const UnitInfo *findUnit(llvm::StringRef unit) const;
};

/// The CPU targets, weakest first.
llvm::ArrayRef<TargetInfo> cpuTargets();

/// The target of this name, or null.
const TargetInfo *findTarget(llvm::StringRef name);

/// The strongest CPU target whose features this machine has, or null.
const TargetInfo *nativeTarget();

} // namespace gptq

#endif // GPTQ_TARGET_TARGET_H
