//===- CpuFeatures.cpp - What this processor offers -----------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/lib/CpuFeatures.h"

#include "runtime/abi/Json.h"

using namespace gptq::abi;
using namespace gptq::runtime;

#if defined(__x86_64__)
namespace {
struct Feature {
  const char *name;
  bool (*isThere)();
};
} // namespace

// The compiler's builtin takes literals only. It also asks whether the system
// saves the wide registers, which a bare CPUID bit does not tell. The names
// are LLVM's, which differ from the builtin's in part.
#define FEATURE(name, builtin)                                                 \
  {name, [] { return bool(__builtin_cpu_supports(builtin)); }}
static constexpr Feature knownFeatures[] = {
    FEATURE("sse3", "sse3"),
    FEATURE("ssse3", "ssse3"),
    FEATURE("sse4.1", "sse4.1"),
    FEATURE("sse4.2", "sse4.2"),
    FEATURE("popcnt", "popcnt"),
    FEATURE("avx", "avx"),
    FEATURE("avx2", "avx2"),
    FEATURE("fma", "fma"),
    FEATURE("f16c", "f16c"),
    FEATURE("bmi", "bmi"),
    FEATURE("bmi2", "bmi2"),
    FEATURE("lzcnt", "lzcnt"),
    FEATURE("movbe", "movbe"),
    FEATURE("avx512f", "avx512f"),
    FEATURE("avx512bw", "avx512bw"),
    FEATURE("avx512cd", "avx512cd"),
    FEATURE("avx512dq", "avx512dq"),
    FEATURE("avx512vl", "avx512vl"),
    FEATURE("avx512vnni", "avx512vnni"),
    FEATURE("avx512bf16", "avx512bf16"),
    FEATURE("avx512fp16", "avx512fp16"),
    FEATURE("avx512_fp16", "avx512fp16"),
    FEATURE("avx512vbmi", "avx512vbmi"),
    FEATURE("avx512vbmi2", "avx512vbmi2"),
    FEATURE("avx512ifma", "avx512ifma"),
    FEATURE("avx512bitalg", "avx512bitalg"),
    FEATURE("avx512vpopcntdq", "avx512vpopcntdq"),
    FEATURE("avxvnni", "avxvnni"),
    FEATURE("gfni", "gfni"),
    FEATURE("amx-tile", "amx-tile"),
    FEATURE("amx-int8", "amx-int8"),
    FEATURE("amx-bf16", "amx-bf16"),
};
#undef FEATURE
#endif

Status
gptq::runtime::checkCpuFeatures(const std::vector<std::string> &features) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  for (const std::string &name : features) {
    const Feature *known = nullptr;
    for (const Feature &feature : knownFeatures)
      if (name == feature.name)
        known = &feature;
    if (!known)
      return makeStatus(StatusCode::Unsupported,
                        "the model needs the instruction set %s, which this "
                        "runtime does not know",
                        quoteForMessage(name).c_str());
    if (!known->isThere())
      return makeStatus(StatusCode::Unsupported,
                        "the model needs the instruction set %s, which this "
                        "processor lacks",
                        quoteForMessage(name).c_str());
  }
  return {};
#else
  if (features.empty())
    return {};
  return makeStatus(StatusCode::Unsupported,
                    "the model needs the x86-64 instruction set %s",
                    quoteForMessage(features[0]).c_str());
#endif
}
