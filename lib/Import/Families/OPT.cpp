//===- Families/OPT.cpp - OPT and Galactica -------------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "lib/Import/Config.h"

using namespace mlir::gptq;

using abi::JsonView;
using abi::Status;
using abi::StatusCode;

static Status refuseOthers(const JsonView &config, ModelConfig &model) {
  // Where a value is what most checkpoints of the family have.
  struct Usual {
    const char *key;
    bool value;
  };
  for (auto [key, value] : {Usual{"do_layer_norm_before", true},
                            Usual{"layer_norm_elementwise_affine", true},
                            Usual{"_remove_final_layer_norm", false}}) {
    GPTQ_ASSIGN(bool found, readBool(config, key, value));
    if (found != value)
      return unsupported(config, key, found ? "true" : "false",
                         value ? "true" : "false");
  }
  GPTQ_ASSIGN(int64_t width, readInteger(config, "word_embed_proj_dim", 1,
                                         kMaxWidth, model.hiddenSize));
  if (width != model.hiddenSize)
    return unsupported(config, "word_embed_proj_dim", std::to_string(width),
                       "hidden_size, " + std::to_string(model.hiddenSize));
  return Status::success();
}

// Position p is row p + 2 of the table of positions.
const Family mlir::gptq::kOPTFamily = [] {
  Family family;
  family.name = "opt";
  family.modules.prefix = "model.decoder.";
  family.modules.positions = "embed_positions";
  family.modules.norm = "final_layer_norm";
  family.modules.inputNorm = "self_attn_layer_norm";
  family.modules.output = "self_attn.out_proj";
  family.modules.mlpNorm = "final_layer_norm";
  family.modules.gate = "";
  family.modules.up = "fc1";
  family.modules.down = "fc2";
  family.keys.intermediateSize = "ffn_dim";
  family.keys.epsilon = "";
  family.keys.activation = "activation_function";
  family.keys.attentionBias = "enable_bias";
  family.keys.mlpBias = "enable_bias";
  family.norm = NormKind::Layer;
  family.defaultEpsilon = 1e-5;
  family.defaultMaxPositions = 2048;
  family.defaultActivation = "relu";
  family.defaultTied = true;
  family.qkvBias = true;
  family.outputBias = true;
  family.mlpBias = true;
  family.isRotary = false;
  family.unusedPositions = 2;
  family.readMore = refuseOthers;
  return family;
}();
