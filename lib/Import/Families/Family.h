//===- Families/Family.h - What a model family does apart -------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_LIB_IMPORT_FAMILIES_FAMILY_H
#define GPTQ_LIB_IMPORT_FAMILIES_FAMILY_H

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/SmallVector.h"
#include "llvm/ADT/StringRef.h"

#include <cstdint>

namespace mlir::gptq {

/// What a family calls the modules of its checkpoints. All but the head begin
/// with `prefix`, those of a block also with `layers` and its number.
struct ModuleNames {
  llvm::StringRef prefix = "model.";
  llvm::StringRef embedding = "embed_tokens";
  llvm::StringRef layers = "layers";
  llvm::StringRef norm = "norm";
  llvm::StringRef head = "lm_head";

  llvm::StringRef inputNorm = "input_layernorm";
  llvm::StringRef query = "self_attn.q_proj";
  llvm::StringRef key = "self_attn.k_proj";
  llvm::StringRef value = "self_attn.v_proj";
  llvm::StringRef queryNorm = "self_attn.q_norm";
  llvm::StringRef keyNorm = "self_attn.k_norm";
  llvm::StringRef output = "self_attn.o_proj";
  llvm::StringRef mlpNorm = "post_attention_layernorm";
  llvm::StringRef gate = "mlp.gate_proj";
  llvm::StringRef up = "mlp.up_proj";
  llvm::StringRef down = "mlp.down_proj";
  /// Tensors of a block that older checkpoints store although they can be
  /// computed.
  llvm::SmallVector<llvm::StringRef, 1> ignored = {
      "self_attn.rotary_emb.inv_freq"};
};

/// Decoders with RMS normalization, rotary positions, grouped-query attention
/// and a gated MLP differ only in what this table says.
struct Family {
  /// `model_type` of config.json.
  llvm::StringRef name;
  ModuleNames modules;
  /// Values of config.json keys that may be left out.
  double defaultEpsilon = 1e-6;
  int64_t defaultMaxPositions = 0;
  /// 0: hidden_size / num_attention_heads.
  int64_t defaultHeadDim = 0;
  /// Q, K and V always have a bias, whatever config.json says.
  bool qkvBias = false;
  /// `attention_bias` and `mlp_bias` are keys of this family.
  bool readsAttentionBias = false;
  bool readsMlpBias = false;
  /// Each head of Q and K is normalized: q_norm, k_norm.
  bool headNorm = false;
  /// `sliding_window` applies to every layer. Otherwise only where
  /// `use_sliding_window` says so, to the layers from `max_window_layers` on.
  bool slidingWindow = false;
  /// Whether prompts start with the beginning-of-sequence token where
  /// tokenizer_config.json does not say.
  bool addBos = true;
};

extern const Family kLlamaFamily;
extern const Family kMistralFamily;
extern const Family kQwen2Family;
extern const Family kQwen3Family;

/// All families, and the one of a `model_type` or null.
llvm::ArrayRef<const Family *> allFamilies();
const Family *findFamily(llvm::StringRef modelType);

} // namespace mlir::gptq

#endif // GPTQ_LIB_IMPORT_FAMILIES_FAMILY_H
