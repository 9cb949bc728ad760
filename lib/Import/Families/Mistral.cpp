//===- Families/Mistral.cpp - Mistral 7B and its kin ----------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "lib/Import/Families/Family.h"

using namespace mlir::gptq;

// Version 0.1 attends to the last sliding_window tokens; later ones set it to
// null.
const Family mlir::gptq::kMistralFamily = [] {
  Family family;
  family.name = "mistral";
  family.defaultMaxPositions = 32768;
  family.slidingWindow = true;
  return family;
}();
