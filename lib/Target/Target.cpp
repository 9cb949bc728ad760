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
  // A vector holds one word of each of its lanes' columns; codes that are
  // narrower than a word are consecutive rows of that column. So one load
  // feeds `32 / bits` steps along K without a shuffle.
  WeightLayout layout;
  layout.blockN = lanes * vectorsPerPanel;
  layout.blockK = bits < 16 ? 32 / bits : 1;
  auto append = [&](char dim, int64_t count) {
    for (int64_t i = 0, e = llvm::Log2_64(count); i < e; ++i)
      layout.order.push_back(dim + std::to_string(i));
  };
  append('b', bits);
  append('k', layout.blockK);
  append('n', layout.blockN);
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
