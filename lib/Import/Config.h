//===- Config.h - What config.json says about a model -----------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_LIB_IMPORT_CONFIG_H
#define GPTQ_LIB_IMPORT_CONFIG_H

#include "lib/Import/Checkpoint.h"
#include "lib/Import/Families/Family.h"

#include <optional>

namespace mlir::gptq {

/// `rope_scaling`; the fields that `kind` does not use keep their defaults.
struct RopeScaling {
  std::string kind = "none";
  double factor = 1;
  double lowFreqFactor = 1;
  double highFreqFactor = 1;
  int64_t originalContext = 0;
};

/// Everything about a model's shape, checked: positive sizes, small enough
/// that their products stay far from 2^63.
struct ModelConfig {
  const Family *family = nullptr;
  int64_t hiddenSize = 0;
  int64_t intermediateSize = 0;
  int64_t numLayers = 0;
  int64_t heads = 0;
  int64_t kvHeads = 0;
  int64_t headDim = 0;
  int64_t vocabSize = 0;
  int64_t maxPositions = 0;
  /// Tokens a row attends to, its own included, in each layer; 0: all.
  std::vector<int64_t> windows;
  double epsilon = 0;
  double ropeTheta = 0;
  RopeScaling ropeScaling;
  bool tiedEmbeddings = false;
  /// Which linear layers have a bias.
  bool qkvBias = false;
  bool outputBias = false;
  bool mlpBias = false;
  std::vector<int64_t> bosIds;
  std::vector<int64_t> eosIds;
};

/// How the quantized layers of a checkpoint are stored.
struct QuantConfig {
  int64_t bits = 4;
  /// -1: one group.
  int64_t groupSize = 128;
  bool isSymmetric = true;
  bool isActOrder = false;
  /// Whether zero points are stored as they are ("gptq_v2"), not less one.
  bool storesTrueZeros = false;
};

/// Reads config.json and, where it has any, generation_config.json.
abi::Expected<ModelConfig> readModelConfig(Folder &folder);

/// Reads `quantization_config` of config.json, or quantize_config.json or
/// quant_config.json; a disagreement becomes a warning of `checkpoint`.
/// Nothing where none of them exists: the checkpoint is dense.
abi::Expected<std::optional<QuantConfig>>
readQuantConfig(Checkpoint &checkpoint);

} // namespace mlir::gptq

#endif // GPTQ_LIB_IMPORT_CONFIG_H
