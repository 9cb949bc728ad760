//===- Families/Qwen2Moe.cpp - Qwen 2 with experts ------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "lib/Import/Families/Family.h"

using namespace mlir::gptq;

const Family mlir::gptq::kQwen2MoeFamily = [] {
  Family family;
  family.name = "qwen2_moe";
  family.defaultMaxPositions = 32768;
  family.qkvBias = true;
  family.addBos = false;
  family.experts.countKey = "num_experts";
  family.experts.widthKey = "moe_intermediate_size";
  family.experts.router = "mlp.gate";
  family.experts.experts = "mlp.experts";
  family.experts.gate = "gate_proj";
  family.experts.up = "up_proj";
  family.experts.down = "down_proj";
  family.experts.sharedWidthKey = "shared_expert_intermediate_size";
  family.experts.shared = "mlp.shared_expert";
  family.experts.sharedGate = "mlp.shared_expert_gate";
  return family;
}();
