//===- Target.cpp - What each chip offers ---------------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Target/Target.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/Support/MathExtras.h"
#include "llvm/TargetParser/Host.h"
#include <cstdlib>

using namespace gptq;

/// Appends bits `from` to `to` of positions along `dim`.
static void appendBits(WeightLayout &layout, char dim, int64_t from,
                       int64_t to) {
  for (int64_t i = from; i < to; ++i)
    layout.order.push_back(dim + std::to_string(i));
}

/// Appends the bits of `count` positions along `dim`.
static void append(WeightLayout &layout, char dim, int64_t count) {
  appendBits(layout, dim, 0, llvm::Log2_64(count));
}

/// The fragments of the 16 x 16 operand of m16n8k16, a tile of weights: thread
/// l = 4 g + t holds, for h, j, e < 2, element (n = g + 8 h, k(t, j, e)), two
/// of each register being those of e = 0 and 1. K may be permuted as long as
/// activations are permuted alike: with k = 8 t + 4 s + 2 j + e for two steps s
/// a thread finds its 8 activations side by side.
///
/// Codes lie so that few instructions turn a word into registers: e is the
/// half of the word (one mask for both), h the lowest place in a half, so that
/// what the unpacking adds to a code depends on h alone, which is one
/// correction for a row of sums.
static WeightLayout matrixLayout(int64_t bits, int64_t span) {
  WeightLayout layout;
  layout.blockN = 16;
  append(layout, 'b', bits);
  auto add = [&](std::initializer_list<const char *> names) {
    layout.order.insert(layout.order.end(), names.begin(), names.end());
  };
  // Above the two steps that one load of activations feeds, up to 16 bytes of
  // codes for a thread.
  auto steps = [&](int64_t most) {
    layout.blockK = 32;
    while (layout.blockK < most && span % (2 * layout.blockK) == 0)
      layout.blockK *= 2;
    for (int64_t i = 5; (int64_t(1) << i) < layout.blockK; ++i)
      layout.order.push_back("k" + std::to_string(i));
  };
  switch (bits) {
  case 2:
    add({"n3", "k1", "k2", "k0"});
    steps(128);
    add({"k3", "k4"});
    break;
  case 4:
    add({"n3", "k1", "k0", "k2"});
    steps(64);
    add({"k3", "k4"});
    break;
  case 8:
    add({"k1", "k0", "n3", "k2"});
    steps(32);
    add({"k3", "k4"});
    break;
  default:
    // Nothing to unpack: 16 bytes are one step.
    add({"k0", "n3", "k1"});
    steps(32);
    add({"k3", "k4"});
    break;
  }
  add({"n0", "n1", "n2"});
  if (bits > 8)
    add({"k2"});
  return layout;
}

/// The layout for threads that hold a column each: every thread finds up to 16
/// bytes of its column side by side. Pairs of rows are the halves of a word:
/// one mask for both, and one multiplication where the unit has pairs.
static WeightLayout lanesLayout(int64_t bits, int64_t lanes, int64_t span) {
  WeightLayout layout;
  layout.blockN = lanes;
  // As many rows as one load of activations feeds four times, more where that
  // fills 16 bytes.
  layout.blockK = 32;
  while (layout.blockK * bits < 128 && span % (2 * layout.blockK) == 0)
    layout.blockK *= 2;
  append(layout, 'b', bits);
  const int64_t inHalf = bits < 16 ? 1 + llvm::Log2_64(16 / bits) : 1;
  const int64_t rows = llvm::Log2_64(layout.blockK);
  const int64_t inLoad = std::min<int64_t>(rows, llvm::Log2_64(128 / bits));
  appendBits(layout, 'k', 1, inHalf);
  appendBits(layout, 'k', 0, 1);
  appendBits(layout, 'k', inHalf, inLoad);
  append(layout, 'n', lanes);
  appendBits(layout, 'k', inLoad, rows);
  return layout;
}

WeightLayout UnitInfo::rowLayout(int64_t bits) const {
  WeightLayout layout;
  layout.blockN = panelColumns();
  layout.blockK = 1;
  append(layout, 'b', bits);
  if (kind == Kind::Matrix)
    // The two columns of one thread lie side by side.
    layout.order.insert(layout.order.end(), {"n3", "n0", "n1", "n2"});
  else
    append(layout, 'n', layout.blockN);
  return layout;
}

WeightLayout UnitInfo::activationLayout() const {
  // A line of 128 bytes is 64 rows of K of one row of activations; inside a
  // step of 16 the unit counts them as e, t, j of `matrixLayout`, which are
  // bits 0, 3 and 4, and 1 of k.
  WeightLayout layout;
  layout.blockK = 64;
  layout.blockN = MatrixFragments::tileRows;
  append(layout, 'b', 16);
  layout.order.insert(layout.order.end(), {"k0", "k3", "k4", "k1", "k2", "k5"});
  append(layout, 'n', layout.blockN);
  return layout;
}

WeightLayout UnitInfo::weightLayout(int64_t bits, int64_t span) const {
  if (kind == Kind::Matrix)
    return matrixLayout(bits, span);
  if (kind == Kind::Lanes)
    return lanesLayout(bits, lanes, span);
  WeightLayout layout;
  layout.blockN = lanes * vectorsPerPanel;
  if (bits > 8) {
    layout.blockK = 1;
    append(layout, 'b', bits);
    append(layout, 'n', layout.blockN);
    return layout;
  }
  // A vector holds one word of each of its lanes' columns, so that one load
  // feeds many steps along K without a shuffle. Widths that are no power of two
  // are planes, widest first: 3 = 2 + 1, 7 = 4 + 2 + 1; a block has as many
  // rows as fill a word of the narrowest. Words are cut into slots that hold an
  // element each, and a plane of narrower fields has several fields in each
  // slot: one shift and one mask put a field of all slots of a word in place.
  // Four consecutive rows lie in the four bytes of a word.
  const int64_t slot = llvm::PowerOf2Ceil(bits), narrowest = bits & -bits;
  layout.blockK = 32 / narrowest;
  const int64_t firstField = 2 + llvm::Log2_64(8 / slot);
  for (int64_t width = slot; width > 0; width /= 2) {
    if (!(bits & width))
      continue;
    const int64_t firstWord = firstField + llvm::Log2_64(slot / width);
    if (!layout.order.empty())
      layout.order.push_back("|");
    append(layout, 'b', width);
    appendBits(layout, 'k', firstField, firstWord);
    appendBits(layout, 'k', 2, firstField);
    appendBits(layout, 'k', 0, 2);
    append(layout, 'n', layout.blockN);
    appendBits(layout, 'k', firstWord, llvm::Log2_64(layout.blockK));
  }
  return layout;
}

const UnitInfo *TargetInfo::findUnit(llvm::StringRef unit) const {
  for (const UnitInfo &info : units)
    if (unit == info.name)
      return &info;
  return nullptr;
}

const UnitInfo *TargetInfo::warpgroupUnit() const {
  for (const UnitInfo &info : units)
    if (info.warps > 1)
      return &info;
  return nullptr;
}

llvm::ArrayRef<TargetInfo> gptq::cpuTargets() {
  // Accumulators: of 16 (32) vector registers one holds the activations, one
  // or two the weights being unpacked and one the mask.
  // Bandwidth: what benchmarks/read_bandwidth shows with one thread on server
  // processors of these levels (10 to 20 GB/s; desktops reach twice that).
  static const std::vector<TargetInfo> targets = {
      {TargetInfo::Kind::CPU,
       "x86-64-v3",
       "x86-64-v3",
       {"avx2", "fma", "f16c"},
       {{"fma_f32", UnitInfo::Kind::Vector, /*lanes=*/8, /*vectorsPerPanel=*/4,
         /*accumulators=*/12}},
       /*workgroupMemory=*/512 << 10,
       /*coreBandwidth=*/15'000'000'000},
      {TargetInfo::Kind::CPU,
       "x86-64-v4",
       "x86-64-v4",
       {"avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512dq"},
       {{"fma_f32", UnitInfo::Kind::Vector, /*lanes=*/16, /*vectorsPerPanel=*/4,
         /*accumulators=*/24}},
       /*workgroupMemory=*/1 << 20,
       /*coreBandwidth=*/15'000'000'000},
      // The same and vpdpbusd: Cascade Lake, Ice Lake, Zen 4 and later.
      {TargetInfo::Kind::CPU,
       "x86-64-v4-vnni",
       "x86-64-v4",
       {"avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512dq",
        "avx512vnni"},
       {{"fma_f32_vnni", UnitInfo::Kind::Vector, /*lanes=*/16,
         /*vectorsPerPanel=*/4, /*accumulators=*/24, /*operandRegisters=*/0,
         /*addsBytesWide=*/true}},
       /*workgroupMemory=*/1 << 20,
       /*coreBandwidth=*/15'000'000'000},
  };
  return targets;
}

llvm::ArrayRef<TargetInfo> gptq::nvvmTargets() {
  // Sums of one thread: 128 registers (16 warps fill a multiprocessor) less
  // activations, codes on their way, scales and addresses.
  static const std::vector<TargetInfo> targets = [] {
    struct Chip {
      const char *name, *ptx;
      int64_t multiprocessors, sharedKilobytes, gigabytesPerSecond;
    };
    // The largest chip of each: T4, A100, A10, L40, H200, B200, RTX PRO 6000.
    static const Chip chips[] = {
        {"sm_75", "ptx75", 40, 64, 320},
        {"sm_80", "ptx75", 108, 163, 1555},
        {"sm_86", "ptx75", 84, 99, 600},
        {"sm_89", "ptx78", 142, 99, 864},
        {"sm_90a", "ptx80", 132, 227, 4800},
        {"sm_100a", "ptx86", 148, 227, 8000},
        {"sm_120a", "ptx87", 188, 99, 1792},
    };
    std::vector<TargetInfo> result;
    for (const Chip &chip : chips) {
      const int sm = std::atoi(chip.name + 3);
      TargetInfo target;
      target.kind = TargetInfo::Kind::NVVM;
      target.name = target.llvmCpu = chip.name;
      target.features = {chip.ptx};
      // What is left beside addresses and what is being unpacked depends on the
      // instructions there are. These are the most with which nothing spills.
      const bool isOld = sm < 90;
      const int64_t operandRegisters = isOld ? 96 : sm < 100 ? 112 : 104;
      const int64_t laneRegisters = isOld ? 84 : 100;
      // Before sm_80 the unit takes 8 steps of K at a time: the same fragments
      // in two halves.
      target.units = {
          {sm < 80 ? "mma_m16n8k8" : "mma_m16n8k16", UnitInfo::Kind::Matrix,
           /*lanes=*/32,
           /*vectorsPerPanel=*/1,
           /*accumulators=*/isOld ? 24 : 56, operandRegisters},
          {"fma_f16x2", UnitInfo::Kind::Lanes, /*lanes=*/32,
           /*vectorsPerPanel=*/1, /*accumulators=*/32, laneRegisters,
           /*addsBytesWide=*/false, /*multipliesPairs=*/true},
          {"fma_f32", UnitInfo::Kind::Lanes, /*lanes=*/32,
           /*vectorsPerPanel=*/1, /*accumulators=*/32, laneRegisters}};
      // Four warps of m64nNk16 hold their weights in the same fragments.
      if (llvm::StringRef(chip.name) == "sm_90a")
        target.units.push_back({"wgmma_m64k16", UnitInfo::Kind::Matrix,
                                /*lanes=*/32, /*vectorsPerPanel=*/1,
                                /*accumulators=*/32, /*operandRegisters=*/0,
                                /*addsBytesWide=*/false,
                                /*multipliesPairs=*/false, /*warps=*/4});
      target.workgroupMemory = chip.sharedKilobytes << 10;
      target.coreBandwidth = chip.gigabytesPerSecond * 1'000'000'000;
      target.multiprocessors = chip.multiprocessors;
      target.hasBF16 = sm >= 80;
      target.streamBytes = sm >= 80 ? 256 : 128;
      target.launchesOverlap = sm >= 90;
      // Of 512: measured on sm_90a.
      target.firstBytes = target.launchesOverlap ? 288 : 0;
      target.avoidsSmallKernels = true;
      result.push_back(target);
    }
    return result;
  }();
  return targets;
}

const TargetInfo *gptq::findTarget(llvm::StringRef name) {
  for (llvm::ArrayRef<TargetInfo> targets : {cpuTargets(), nvvmTargets()})
    for (const TargetInfo &target : targets)
      if (name == target.name)
        return &target;
  return nullptr;
}

const TargetInfo *gptq::nativeTarget() {
  llvm::StringMap<bool> host = llvm::sys::getHostCPUFeatures();
  for (const TargetInfo &target : llvm::reverse(cpuTargets()))
    if (llvm::all_of(target.features,
                     [&](const std::string &f) { return host.lookup(f); }))
      return &target;
  return nullptr;
}
