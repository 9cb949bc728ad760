//===- Families/Family.h - What a model family does apart -------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_LIB_IMPORT_FAMILIES_FAMILY_H
#define GPTQ_LIB_IMPORT_FAMILIES_FAMILY_H

#include "runtime/abi/Json.h"
#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/SmallVector.h"
#include "llvm/ADT/StringRef.h"

#include <cstdint>

namespace mlir::gptq {

struct ModelConfig;

/// What a family calls the modules of its checkpoints. All but the head begin
/// with `prefix`, those of a block also with `layers` and its number. What has
/// no name is not there.
struct ModuleNames {
  llvm::StringRef prefix = "model.";
  llvm::StringRef embedding = "embed_tokens";
  /// A table that is added to the embeddings, by position.
  llvm::StringRef positions;
  llvm::StringRef layers = "layers";
  llvm::StringRef norm = "norm";
  llvm::StringRef head = "lm_head";

  llvm::StringRef inputNorm = "input_layernorm";
  llvm::StringRef query = "self_attn.q_proj";
  llvm::StringRef key = "self_attn.k_proj";
  llvm::StringRef value = "self_attn.v_proj";
  /// The three in one, where a checkpoint has it.
  llvm::StringRef queryKeyValue;
  llvm::StringRef queryNorm;
  llvm::StringRef keyNorm;
  llvm::StringRef output = "self_attn.o_proj";
  /// Normalizes what attention adds to the rows.
  llvm::StringRef outputNorm;
  llvm::StringRef mlpNorm = "post_attention_layernorm";
  /// No gate: the MLP has one matmul before its activation.
  llvm::StringRef gate = "mlp.gate_proj";
  llvm::StringRef up = "mlp.up_proj";
  /// Both in one, gate first, where a checkpoint has it.
  llvm::StringRef gateUp;
  llvm::StringRef down = "mlp.down_proj";
  /// Normalizes what the MLP adds to the rows.
  llvm::StringRef downNorm;
  /// Tensors of a block that older checkpoints store although they can be
  /// computed.
  llvm::SmallVector<llvm::StringRef, 3> ignored = {
      "self_attn.rotary_emb.inv_freq"};
};

/// Where config.json says what; what has no key is always the default.
struct ConfigKeys {
  llvm::StringRef intermediateSize = "intermediate_size";
  llvm::StringRef epsilon = "rms_norm_eps";
  llvm::StringRef activation = "hidden_act";
  llvm::StringRef ropeTheta = "rope_theta";
  /// How much of a head is rotated: all of it without a key.
  llvm::StringRef rotaryPart;
  /// Biases of attention, and of the MLP.
  llvm::StringRef attentionBias;
  llvm::StringRef mlpBias;
  /// What attention scores are divided by the root of: head_dim without a key.
  llvm::StringRef queryScalar;
  /// Soft limits of attention scores and of logits.
  llvm::StringRef attentionCap;
  llvm::StringRef logitCap;
};

enum class NormKind {
  /// `gptq.rms_norm`.
  RMS,
  /// The same by 1 + weight.
  OnePlusRMS,
  /// `gptq.layer_norm`, with a bias.
  Layer,
};

/// MLPs that are mixtures of experts: keys of config.json, and what modules of
/// a block are called. Number and name of a part follow `experts`.
struct ExpertNames {
  /// Number of experts, and the width of each. Empty: there are none.
  llvm::StringRef countKey, widthKey;
  /// The weights of a row's experts add up to one, whatever `norm_topk_prob`
  /// says.
  bool alwaysNormalizes = false;
  llvm::StringRef router, experts, gate, up, down;
  /// An expert of all rows, its width and what it is multiplied by.
  llvm::StringRef sharedWidthKey, shared, sharedGate;
};

/// Decoders of attention and an MLP differ only in what this table says.
struct Family {
  /// `model_type` of config.json.
  llvm::StringRef name;
  /// `model_type` of models that see images as well: what they are as a model
  /// of text is in `text_config`.
  llvm::StringRef imageName;
  ModuleNames modules;
  ConfigKeys keys;
  NormKind norm = NormKind::RMS;
  ExpertNames experts;

  /// Values of config.json keys that may be left out.
  double defaultEpsilon = 1e-6;
  int64_t defaultMaxPositions = 0;
  /// 0: must not be left out.
  int64_t defaultHeads = 0;
  int64_t defaultKvHeads = 0;
  int64_t defaultVocabSize = 0;
  /// 0: hidden_size / num_attention_heads.
  int64_t defaultHeadDim = 0;
  llvm::StringRef defaultActivation = "silu";
  bool defaultTied = false;
  double defaultQueryScalar = 0;
  /// 0: none.
  double defaultAttentionCap = 0;
  double defaultLogitCap = 0;
  double defaultRopeTheta = 10000;
  double defaultRotaryPart = 1;

  /// Biases of Q, K and V, of the layer after attention, and of the MLP, where
  /// there is no key for them or it is left out.
  bool qkvBias = false;
  bool outputBias = false;
  bool mlpBias = false;
  /// The rows of a fused Q, K and V are those of each head in turn.
  bool dealsHeads = false;
  /// Rotary positions; otherwise the table `positions` alone, whose first
  /// `unusedPositions` rows stand for no position.
  bool isRotary = true;
  int64_t unusedPositions = 0;
  /// Embeddings are multiplied by the root of hidden_size.
  bool scalesEmbeddings = false;
  /// `sliding_window` applies to every layer. Otherwise only where
  /// `use_sliding_window` says so, to the layers from `max_window_layers` on.
  bool slidingWindow = false;
  /// With `slidingWindow` and n > 0 it does not apply to every n-th layer;
  /// `sliding_window_pattern` is n.
  int64_t windowPattern = 0;
  /// Layers with a window rotate by `rope_local_base_freq`, without scaling.
  bool hasLocalRope = false;
  /// Whether prompts start with the beginning-of-sequence token where
  /// tokenizer_config.json does not say.
  bool addBos = true;
  /// Reads what no other family has, and refuses what is not supported.
  ::gptq::abi::Status (*readMore)(const ::gptq::abi::JsonView &config,
                                  ModelConfig &model) = nullptr;
};

extern const Family kGemma2Family;
extern const Family kGemma3Family;
extern const Family kGPTNeoXFamily;
extern const Family kLlamaFamily;
extern const Family kMistralFamily;
extern const Family kMixtralFamily;
extern const Family kOPTFamily;
extern const Family kPhi3Family;
extern const Family kQwen2Family;
extern const Family kQwen2MoeFamily;
extern const Family kQwen3Family;
extern const Family kQwen3MoeFamily;

/// All families, and the one of a `model_type` or null.
llvm::ArrayRef<const Family *> allFamilies();
const Family *findFamily(llvm::StringRef modelType);

} // namespace mlir::gptq

#endif // GPTQ_LIB_IMPORT_FAMILIES_FAMILY_H
