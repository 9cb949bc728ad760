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

using namespace gptq;

WeightLayout UnitInfo::weightLayout(int64_t bits) const {
  WeightLayout layout;
  layout.blockN = lanes * vectorsPerPanel;
  auto append = [&](char dim, int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i)
      layout.order.push_back(dim + std::to_string(i));
  };
  const int64_t bitsN = llvm::Log2_64(layout.blockN);
  if (bits > 8) {
    layout.blockK = 1;
    append('b', 0, llvm::Log2_64(bits));
    append('n', 0, bitsN);
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
    append('b', 0, llvm::Log2_64(width));
    append('k', firstField, firstWord);
    append('k', 2, firstField);
    append('k', 0, 2);
    append('n', 0, bitsN);
    append('k', firstWord, llvm::Log2_64(layout.blockK));
  }
  return layout;
}

const UnitInfo *TargetInfo::findUnit(llvm::StringRef unit) const {
  for (const UnitInfo &info : units)
    if (unit == info.name)
      return &info;
  return nullptr;
}

llvm::ArrayRef<TargetInfo> gptq::cpuTargets() {
  // Accumulators: of 16 (32) vector registers one holds the activations, one
  // or two the weights being unpacked and one the mask.
  // Bandwidth: what benchmarks/read_bandwidth shows with one thread on server
  // processors of these levels (10 to 20 GB/s; desktops reach twice that).
  static const std::vector<TargetInfo> targets = {
      {"x86-64-v3",
       "x86-64-v3",
       {"avx2", "fma", "f16c"},
       {{"fma_f32", /*lanes=*/8, /*vectorsPerPanel=*/4, /*accumulators=*/12}},
       /*workgroupMemory=*/512 << 10,
       /*coreBandwidth=*/15'000'000'000},
      {"x86-64-v4",
       "x86-64-v4",
       {"avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512dq"},
       {{"fma_f32", /*lanes=*/16, /*vectorsPerPanel=*/4, /*accumulators=*/24}},
       /*workgroupMemory=*/1 << 20,
       /*coreBandwidth=*/15'000'000'000},
  };
  return targets;
}

const TargetInfo *gptq::findTarget(llvm::StringRef name) {
  for (const TargetInfo &target : cpuTargets())
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
