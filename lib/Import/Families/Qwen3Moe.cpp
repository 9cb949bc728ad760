//===- Families/Qwen3Moe.cpp - Qwen 3 with experts ------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "lib/Import/Families/Family.h"

using namespace mlir::gptq;

const Family mlir::gptq::kQwen3MoeFamily = [] {
  Family family;
  family.name = "qwen3_moe";
  family.defaultMaxPositions = 32768;
  family.keys.attentionBias = "attention_bias";
  family.modules.queryNorm = "self_attn.q_norm";
  family.modules.keyNorm = "self_attn.k_norm";
  family.addBos = false;
  family.experts.countKey = "num_experts";
  family.experts.widthKey = "moe_intermediate_size";
  family.experts.router = "mlp.gate";
  family.experts.experts = "mlp.experts";
  family.experts.gate = "gate_proj";
  family.experts.up = "up_proj";
  family.experts.down = "down_proj";
  return family;
}();
