//===- CpuFeatures.h - What this processor offers ---------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_RUNTIME_LIB_CPUFEATURES_H
#define GPTQ_RUNTIME_LIB_CPUFEATURES_H

#include "runtime/abi/Status.h"

#include <string>
#include <vector>

namespace gptq::runtime {

/// Refuses, by name, the first instruction set this processor or its system
/// lacks, and any name it does not know.
abi::Status checkCpuFeatures(const std::vector<std::string> &features);

} // namespace gptq::runtime

#endif // GPTQ_RUNTIME_LIB_CPUFEATURES_H
