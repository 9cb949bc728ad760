//===- Families/Phi3.cpp - Phi-3, 3.5 and 4 -------------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "lib/Import/Families/Family.h"

using namespace mlir::gptq;

// Q, K and V are one layer, and so are gate and up. Long contexts change the
// rotary frequencies: rope_type "longrope".
const Family mlir::gptq::kPhi3Family = [] {
  Family family;
  family.name = "phi3";
  family.modules.queryKeyValue = "self_attn.qkv_proj";
  family.modules.gateUp = "mlp.gate_up_proj";
  family.keys.rotaryPart = "partial_rotary_factor";
  family.keys.attentionBias = "attention_bias";
  family.defaultEpsilon = 1e-5;
  family.defaultMaxPositions = 4096;
  family.slidingWindow = true;
  return family;
}();
