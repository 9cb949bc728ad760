//===- Families/Family.h - What one model family does differently *- C++
//-*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_LIB_IMPORT_FAMILIES_FAMILY_H
#define GPTQ_LIB_IMPORT_FAMILIES_FAMILY_H

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringRef.h"

#include <cstdint>

namespace mlir::gptq {

/// Decoders with RMS normalization, rotary positions, grouped-query attention
/// and a gated MLP differ only in what this table says.
struct Family {
  /// `model_type` of config.json.
  llvm::StringRef name;
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
