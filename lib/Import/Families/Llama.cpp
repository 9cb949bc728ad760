//===- Families/Llama.cpp - Llama 2, 3, 3.1 and their kin -----------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "lib/Import/Families/Family.h"

using namespace mlir::gptq;

// Llama 3.1 and later stretch their rotary frequencies: rope_type "llama3".
const Family mlir::gptq::kLlamaFamily = [] {
  Family family;
  family.name = "llama";
  family.defaultMaxPositions = 2048;
  family.keys.attentionBias = "attention_bias";
  family.keys.mlpBias = "mlp_bias";
  return family;
}();
