//===- Families/GPTNeoX.cpp - GPT-NeoX and Pythia -------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "lib/Import/Config.h"

using namespace mlir::gptq;

using abi::JsonView;
using abi::Status;

// Attention and MLP may both read the rows that come into a block, each through
// a norm of its own.
static Status readParallel(const JsonView &config, ModelConfig &model) {
  GPTQ_ASSIGN(model.isParallel,
              readBool(config, "use_parallel_residual", true));
  return Status::success();
}

const Family mlir::gptq::kGPTNeoXFamily = [] {
  Family family;
  family.name = "gpt_neox";
  family.modules.prefix = "gpt_neox.";
  family.modules.embedding = "embed_in";
  family.modules.norm = "final_layer_norm";
  family.modules.head = "embed_out";
  family.modules.queryKeyValue = "attention.query_key_value";
  family.modules.output = "attention.dense";
  family.modules.gate = "";
  family.modules.up = "mlp.dense_h_to_4h";
  family.modules.down = "mlp.dense_4h_to_h";
  family.modules.ignored = {"attention.bias", "attention.masked_bias",
                            "attention.rotary_emb.inv_freq"};
  family.keys.epsilon = "layer_norm_eps";
  family.keys.ropeTheta = "rotary_emb_base";
  family.keys.rotaryPart = "rotary_pct";
  family.keys.attentionBias = "attention_bias";
  family.norm = NormKind::Layer;
  family.defaultEpsilon = 1e-5;
  family.defaultMaxPositions = 2048;
  family.defaultActivation = "gelu";
  family.defaultRotaryPart = 0.25;
  family.qkvBias = true;
  family.outputBias = true;
  family.mlpBias = true;
  family.dealsHeads = true;
  family.addBos = false;
  family.readMore = readParallel;
  return family;
}();
