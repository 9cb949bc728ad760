//===- Families/Mixtral.cpp - Mixtral -------------------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "lib/Import/Families/Family.h"

using namespace mlir::gptq;

// Mistral with experts in every block.
const Family mlir::gptq::kMixtralFamily = [] {
  Family family;
  family.name = "mixtral";
  family.defaultEpsilon = 1e-5;
  family.defaultMaxPositions = 4096 * 32;
  family.defaultRopeTheta = 1e6;
  family.slidingWindow = true;
  family.experts.countKey = "num_local_experts";
  family.experts.widthKey = "intermediate_size";
  family.experts.alwaysNormalizes = true;
  family.experts.router = "block_sparse_moe.gate";
  family.experts.experts = "block_sparse_moe.experts";
  family.experts.gate = "w1";
  family.experts.up = "w3";
  family.experts.down = "w2";
  return family;
}();
