//===- Families/Gemma.cpp - Gemma 2 and 3 ---------------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "lib/Import/Config.h"

using namespace mlir::gptq;
using abi::JsonView;
using abi::Status;

// Models that embed texts look ahead.
static Status refuseBidirectional(const JsonView &config, ModelConfig &) {
  constexpr llvm::StringLiteral key = "use_bidirectional_attention";
  GPTQ_ASSIGN(bool isBidirectional, readBool(config, key, false));
  if (isBidirectional)
    return unsupported(config, key, "true", "false");
  return Status::success();
}

// Norms are stored as w and mean 1 + w; attention and MLP are normalized before
// and after. Every second layer of Gemma 2 and five of six of Gemma 3 have a
// window.
static Family getGemma(llvm::StringRef name) {
  Family family;
  family.name = name;
  family.modules.outputNorm = "post_attention_layernorm";
  family.modules.mlpNorm = "pre_feedforward_layernorm";
  family.modules.downNorm = "post_feedforward_layernorm";
  family.keys.activation = "hidden_activation";
  family.keys.attentionBias = "attention_bias";
  family.keys.queryScalar = "query_pre_attn_scalar";
  family.keys.attentionCap = "attn_logit_softcapping";
  family.keys.logitCap = "final_logit_softcapping";
  family.norm = NormKind::OnePlusRMS;
  family.defaultHeadDim = 256;
  family.defaultActivation = "gelu_pytorch_tanh";
  family.defaultQueryScalar = 256;
  family.defaultTied = true;
  family.scalesEmbeddings = true;
  family.slidingWindow = true;
  return family;
}

const Family mlir::gptq::kGemma2Family = [] {
  Family family = getGemma("gemma2");
  family.defaultMaxPositions = 8192;
  family.defaultAttentionCap = 50;
  family.defaultLogitCap = 30;
  family.windowPattern = 2;
  return family;
}();

const Family mlir::gptq::kGemma3Family = [] {
  Family family = getGemma("gemma3_text");
  family.imageName = "gemma3";
  family.defaultHeads = 8;
  family.defaultKvHeads = 4;
  family.defaultVocabSize = 262208;
  family.modules.queryNorm = "self_attn.q_norm";
  family.modules.keyNorm = "self_attn.k_norm";
  family.defaultMaxPositions = 131072;
  family.defaultRopeTheta = 1e6;
  family.windowPattern = 6;
  family.hasLocalRope = true;
  family.readMore = refuseBidirectional;
  return family;
}();
