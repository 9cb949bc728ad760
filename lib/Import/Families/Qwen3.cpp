//===- Families/Qwen3.cpp - Qwen 3, dense ---------------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "lib/Import/Families/Family.h"

using namespace mlir::gptq;

// head_dim is its own number here: heads * head_dim need not be hidden_size.
const Family mlir::gptq::kQwen3Family = [] {
  Family family;
  family.name = "qwen3";
  family.defaultMaxPositions = 32768;
  family.defaultHeadDim = 128;
  family.keys.attentionBias = "attention_bias";
  family.modules.queryNorm = "self_attn.q_norm";
  family.modules.keyNorm = "self_attn.k_norm";
  family.addBos = false;
  return family;
}();
