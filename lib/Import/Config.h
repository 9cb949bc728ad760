//===- Config.h - What config.json says about a model -----------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_LIB_IMPORT_CONFIG_H
#define GPTQ_LIB_IMPORT_CONFIG_H

#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "lib/Import/Checkpoint.h"
#include "lib/Import/Families/Family.h"

#include <optional>

namespace mlir::gptq {

/// Rotary positions: `rope_theta` and `rope_scaling`; the fields that `kind`
/// does not use keep their defaults.
struct Rope {
  double theta = 0;
  std::string kind = "none";
  double factor = 1;
  double lowFreqFactor = 1;
  double highFreqFactor = 1;
  int64_t originalContext = 0;
  /// Of "longrope": what the frequency of each pair is divided by, for
  /// contexts of up to `originalContext` and beyond; and a factor of every
  /// cosine and sine.
  std::vector<double> shortFactors;
  std::vector<double> longFactors;
  double magnitude = 1;
};

/// The mixtures of experts of a model.
struct ExpertConfig {
  /// Experts, those that a row goes through, and their width. No experts: the
  /// other fields mean nothing.
  int64_t count = 0;
  int64_t perRow = 0;
  int64_t width = 0;
  /// Whether the weights of a row's experts add up to one.
  bool normalizes = false;
  /// Of the expert of all rows; 0: there is none.
  int64_t sharedWidth = 0;
  /// Which layers have experts.
  std::vector<bool> layers;
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
  /// How many elements of a head are rotated; 0: none.
  int64_t rotaryDim = 0;
  Rope rope;
  /// Of the layers with a window, where it is another.
  std::optional<Rope> localRope;
  Activation activation = Activation::Silu;
  /// What attention scores are multiplied by.
  double attentionScale = 0;
  /// Soft limits of attention scores and of logits; 0: none.
  double attentionCap = 0;
  double logitCap = 0;
  /// The MLP reads the rows that come into a block, as attention does.
  bool isParallel = false;
  ExpertConfig experts;
  bool tiedEmbeddings = false;
  /// Which linear layers have a bias.
  bool qkvBias = false;
  bool outputBias = false;
  bool mlpBias = false;
  std::vector<int64_t> bosIds;
  std::vector<int64_t> eosIds;
};

/// Reads config.json and, where it has any, generation_config.json.
abi::Expected<ModelConfig> readModelConfig(Folder &folder);

/// Reads what `config` says of experts, for a model of known family and layers.
abi::Status readExpertConfig(const abi::JsonView &config, ModelConfig &model);

//===----------------------------------------------------------------------===//
// Keys with a type, a range and perhaps a default
//===----------------------------------------------------------------------===//

/// Rows and columns of a weight at most: far above any published model.
inline constexpr int64_t kMaxWidth = int64_t(1) << 20;

/// The member `key`, if it is there and not null: writers use both for "the
/// usual".
std::optional<abi::JsonView> findValue(const abi::JsonView &object,
                                       llvm::StringRef key);
/// An integer in [min, max]; `fallback` where it is left out, an error if
/// there is none.
abi::Expected<int64_t> readInteger(const abi::JsonView &object,
                                   llvm::StringRef key, int64_t min,
                                   int64_t max,
                                   std::optional<int64_t> fallback = {});
abi::Expected<double> readNumber(const abi::JsonView &object,
                                 llvm::StringRef key, double min, double max,
                                 std::optional<double> fallback = {});
abi::Expected<bool> readBool(const abi::JsonView &object, llvm::StringRef key,
                             bool fallback);
abi::Expected<std::string> readString(const abi::JsonView &object,
                                      llvm::StringRef key,
                                      llvm::StringRef fallback);
/// The error that `key` holds a value nobody reads.
abi::Status unsupported(const abi::JsonView &object, llvm::StringRef key,
                        llvm::StringRef found, llvm::StringRef expected);

} // namespace mlir::gptq

#endif // GPTQ_LIB_IMPORT_CONFIG_H
