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

/// How the threads of a warp share the operands of a matrix unit: the fragments
/// of mma.sync m16n8k16, thread being 4 g + t.
struct MatrixFragments {
  /// Columns of weights and rows of activations in one tile.
  static constexpr int64_t tileColumns = 16, tileRows = 8;
  /// Rows of K of one step, and of what K is permuted inside.
  static constexpr int64_t stepRows = 16, chunkRows = 32;
  static constexpr int64_t stepsPerChunk = chunkRows / stepRows;
  /// What a thread has of a tile: rows 2 t + i and columns g + 8 h, i, h < 2.
  static constexpr int64_t rowsPerThread = 2, columnsPerThread = 2;
  static constexpr int64_t sumsPerTile = rowsPerThread * columnsPerThread;
  /// Rows of K that a thread has side by side in a chunk.
  static constexpr int64_t rowsPerLoad = 8;
};

/// One way a target multiplies.
struct UnitInfo {
  enum class Kind {
    /// A thread multiplies vectors of columns by one activation.
    Vector,
    /// The threads of a warp multiply tiles of 16 columns by 8 rows of
    /// activations, 16 steps of K at a time, each holding a share of every
    /// operand: the fragments of mma.sync m16n8k16.
    Matrix,
    /// The threads of a warp hold a column each of a tile of 32, and multiply
    /// it by activations that all of them read.
    Lanes,
  };

  std::string name;
  Kind kind = Kind::Vector;
  /// Vector: elements of one vector. Matrix, Lanes: threads of a warp.
  int64_t lanes = 1;
  /// Vectors (Matrix, Lanes: tiles) that make up one panel of weights.
  int64_t vectorsPerPanel = 1;
  /// Registers for accumulators: rows times vectors (Matrix, Lanes: sums of
  /// one thread) of the largest tile.
  int64_t accumulators = 1;
  /// Matrix, Lanes: of a thread's 128 registers, those that sums and operands
  /// on their way may take; the others hold what is being unpacked, scales,
  /// addresses.
  int64_t operandRegisters = 0;
  /// Vector: whether four products of bytes at a time are added to 32-bit sums
  /// in one instruction.
  bool addsBytesWide = false;
  /// Lanes: whether it multiplies pairs of 16-bit floating-point numbers in one
  /// instruction; numbers that it does not are widened.
  bool multipliesPairs = false;
  /// Matrix: warps that multiply together, each a tile of columns of its own
  /// by the same activations, which lie in workgroup memory as
  /// `activationLayout` says, the 16-byte pieces of a line exchanged by the
  /// lowest bits of the row.
  int64_t warps = 1;

  /// Whether the threads of a warp hold a tile together.
  bool isWarps() const { return kind != Kind::Vector; }
  /// Columns of one tile. Of these and of its rows a thread holds as many sums
  /// as follow; threads that share columns follow each other.
  int64_t tileColumns() const {
    return kind == Kind::Matrix ? MatrixFragments::tileColumns : lanes;
  }
  int64_t columnsPerThread() const {
    return kind == Kind::Matrix ? MatrixFragments::columnsPerThread : 1;
  }
  int64_t rowsPerThread() const {
    return kind == Kind::Matrix ? MatrixFragments::rowsPerThread : 1;
  }
  int64_t threadsPerColumn() const {
    return lanes * columnsPerThread() / tileColumns();
  }
  /// Rows of activations of one tile.
  int64_t tileRows() const { return threadsPerColumn() * rowsPerThread(); }
  /// Columns of one panel.
  int64_t panelColumns() const { return tileColumns() * vectorsPerPanel; }
  /// Whether there is a layout of `bits`-bit elements.
  bool reads(int64_t bits) const {
    return kind == Kind::Vector || (bits & (bits - 1)) == 0;
  }
  /// The layout this unit reads `bits`-bit elements in, where groups of `span`
  /// rows share a scale; 0: all rows.
  WeightLayout weightLayout(int64_t bits, int64_t span) const;
  /// The layout of one row of `bits`-bit elements per group.
  WeightLayout rowLayout(int64_t bits) const;
  /// Matrix: the layout of blocks of 8 rows ("n") of 16-bit activations that a
  /// unit of several warps reads.
  WeightLayout activationLayout() const;
};

struct TargetInfo {
  enum class Kind { CPU, NVVM };

  Kind kind = Kind::CPU;
  std::string name;
  /// What LLVM calls it, and the processor features a user must have.
  std::string llvmCpu;
  std::vector<std::string> features;
  std::vector<UnitInfo> units;
  /// Memory close to one workgroup, in bytes: a core's level-2 cache on a CPU,
  /// shared memory on a GPU.
  int64_t workgroupMemory = 0;
  /// Bytes a second that one core reads from memory in sequence, about; on a
  /// GPU all multiprocessors together. For the floors that people are shown
  /// only: nothing is chosen by it.
  int64_t coreBandwidth = 0;
  /// Multiprocessors of the largest chip of this kind; 0 on CPUs.
  int64_t multiprocessors = 0;
  /// GPUs: whether units multiply bf16; and the bytes that a load of what is
  /// read once may ask the level-2 cache for, at most.
  bool hasBF16 = false;
  int64_t streamBytes = 0;
  /// Whether a kernel may start before the one in front of it has ended.
  bool launchesOverlap = false;
  /// Where it does: bytes of a thread's registers that may hold operands loaded
  /// before the kernel in front has ended, while nothing is multiplied yet.
  int64_t firstBytes = 0;
  /// Whether a kernel of its own costs more than adding or normalizing a few
  /// rows, so that matmuls do it where they can.
  bool avoidsSmallKernels = false;

  const UnitInfo *findUnit(llvm::StringRef unit) const;
  /// The unit whose warps multiply together, or null.
  const UnitInfo *warpgroupUnit() const;
};

/// The CPU targets, weakest first.
llvm::ArrayRef<TargetInfo> cpuTargets();

/// The NVIDIA targets, oldest first.
llvm::ArrayRef<TargetInfo> nvvmTargets();

/// The target of this name, of any kind, or null.
const TargetInfo *findTarget(llvm::StringRef name);

/// The strongest CPU target whose features this machine has, or null.
const TargetInfo *nativeTarget();

} // namespace gptq

#endif // GPTQ_TARGET_TARGET_H
