//===- Families/Qwen2.cpp - Qwen 1.5 and 2.5 ------------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "lib/Import/Families/Family.h"

using namespace mlir::gptq;

// Published configurations keep a sliding_window, but switch it off with
// use_sliding_window.
const Family mlir::gptq::kQwen2Family = [] {
  Family family;
  family.name = "qwen2";
  family.defaultMaxPositions = 32768;
  family.qkvBias = true;
  family.addBos = false;
  return family;
}();
