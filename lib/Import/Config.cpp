//===- Config.cpp - What config.json says about a model -------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "lib/Import/Config.h"
#include "llvm/ADT/STLExtras.h"

#include <cmath>

using namespace mlir::gptq;
using abi::JsonView;
using abi::Status;
using abi::StatusCode;
using llvm::StringRef;

//===----------------------------------------------------------------------===//
// Limits
//===----------------------------------------------------------------------===//

// Far above any published model; their products, such as
// kvHeads * context * headDim * 4 bytes < 2^47, stay far from overflow.
static constexpr int64_t kMaxVocab = int64_t(1) << 24;
static constexpr int64_t kMaxLayers = 1024;
static constexpr int64_t kMaxHeads = 4096;
static constexpr int64_t kMaxHeadDim = 4096;
static constexpr int64_t kMaxPositions = int64_t(1) << 30;
/// What `max_window_layers` is where it is left out.
static constexpr int64_t kUsualFirstWindow = 28;
/// Tokens in bos_token_id and eos_token_id.
static constexpr size_t kMaxIds = 64;

//===----------------------------------------------------------------------===//
// Keys with a type, a range and perhaps a default
//===----------------------------------------------------------------------===//

std::optional<JsonView> mlir::gptq::findValue(const JsonView &object,
                                              StringRef key) {
  std::optional<JsonView> value = object.find(key);
  if (value && value->raw().is_null())
    return std::nullopt;
  return value;
}

abi::Expected<int64_t>
mlir::gptq::readInteger(const JsonView &object, StringRef key, int64_t min,
                        int64_t max, std::optional<int64_t> fallback) {
  std::optional<JsonView> value = findValue(object, key);
  if (value)
    return value->integer(min, max);
  if (fallback)
    return *fallback;
  return abi::makeStatus(StatusCode::InvalidFile, "%s: key '%s' is missing",
                         object.path().c_str(), key.str().c_str());
}

static abi::Expected<double> readNumber(const JsonView &object, StringRef key,
                                        double min, double max,
                                        std::optional<double> fallback = {}) {
  std::optional<JsonView> value = findValue(object, key);
  if (!value && fallback)
    return *fallback;
  if (!value)
    return abi::makeStatus(StatusCode::InvalidFile, "%s: key '%s' is missing",
                           object.path().c_str(), key.str().c_str());
  if (!value->raw().is_number())
    return value->mismatch("a number");
  double number = value->raw().get<double>();
  if (!(number >= min && number <= max))
    return abi::makeStatus(StatusCode::InvalidFile,
                           "%s: expected a number from %g to %g, found %g",
                           value->path().c_str(), min, max, number);
  return number;
}

abi::Expected<bool> mlir::gptq::readBool(const JsonView &object, StringRef key,
                                         bool fallback) {
  std::optional<JsonView> value = findValue(object, key);
  if (!value)
    return fallback;
  return value->boolean();
}

abi::Expected<std::string> mlir::gptq::readString(const JsonView &object,
                                                  StringRef key,
                                                  StringRef fallback) {
  std::optional<JsonView> value = findValue(object, key);
  if (!value)
    return fallback.str();
  return value->string();
}

Status mlir::gptq::unsupported(const JsonView &object, StringRef key,
                               StringRef found, StringRef expected) {
  return abi::makeStatus(
      StatusCode::Unsupported, "%s.%s: %s is not supported, expected %s",
      object.path().c_str(), key.str().c_str(),
      abi::quoteForMessage(found).c_str(), expected.str().c_str());
}

//===----------------------------------------------------------------------===//
// config.json
//===----------------------------------------------------------------------===//

/// Token ids: an integer or a list of them.
static abi::Expected<std::vector<int64_t>>
readTokenIds(const JsonView &object, StringRef key, int64_t vocabSize) {
  std::vector<int64_t> ids;
  std::optional<JsonView> value = findValue(object, key);
  if (!value)
    return ids;
  if (!value->raw().is_array()) {
    GPTQ_ASSIGN(int64_t id, value->integer(0, vocabSize - 1));
    ids.push_back(id);
    return ids;
  }
  if (value->raw().size() > kMaxIds)
    return abi::makeStatus(StatusCode::InvalidFile,
                           "%s: expected at most %zu token ids, found %zu",
                           value->path().c_str(), kMaxIds, value->raw().size());
  GPTQ_ASSIGN(std::vector<JsonView> elements, value->elements());
  for (const JsonView &element : elements) {
    GPTQ_ASSIGN(int64_t id, element.integer(0, vocabSize - 1));
    ids.push_back(id);
  }
  return ids;
}

/// Reads rope_theta and rope_scaling, or `rope_parameters`, which newer
/// writers use for both.
static Status readRope(const JsonView &config, ModelConfig &model) {
  std::optional<JsonView> parameters = findValue(config, "rope_parameters");
  std::optional<JsonView> scaling = parameters;
  if (!scaling)
    scaling = findValue(config, "rope_scaling");
  if (scaling)
    GPTQ_TRY(scaling->expectObject());

  const JsonView &thetaHolder =
      parameters && findValue(*parameters, "rope_theta") ? *parameters : config;
  GPTQ_ASSIGN(model.ropeTheta,
              readNumber(thetaHolder, "rope_theta", 1, 1e12, 10000.0));
  for (const JsonView *holder : {&config, scaling ? &*scaling : &config}) {
    GPTQ_ASSIGN(double part,
                readNumber(*holder, "partial_rotary_factor", 0, 1, 1.0));
    if (part != 1)
      return abi::makeStatus(
          StatusCode::Unsupported,
          "%s.partial_rotary_factor: %g is not supported, expected 1",
          holder->path().c_str(), part);
  }
  if (!scaling)
    return Status::success();

  // "type" is the older spelling; a few files carry both.
  GPTQ_ASSIGN(std::string oldType, readString(*scaling, "type", "default"));
  GPTQ_ASSIGN(std::string type, readString(*scaling, "rope_type", oldType));
  RopeScaling &out = model.ropeScaling;
  if (type == "default" || type == "none")
    return Status::success();
  if (type != "linear" && type != "llama3")
    return unsupported(*scaling, "rope_type", type,
                       "'default', 'linear' or 'llama3'");
  out.kind = type;
  GPTQ_ASSIGN(out.factor, readNumber(*scaling, "factor", 1, 1e6));
  if (type == "linear")
    return Status::success();
  GPTQ_ASSIGN(out.lowFreqFactor,
              readNumber(*scaling, "low_freq_factor", 1e-3, 1e6));
  GPTQ_ASSIGN(out.highFreqFactor,
              readNumber(*scaling, "high_freq_factor", 1e-3, 1e6));
  GPTQ_ASSIGN(out.originalContext,
              readInteger(*scaling, "original_max_position_embeddings", 1,
                          kMaxPositions));
  if (out.highFreqFactor <= out.lowFreqFactor)
    return abi::makeStatus(
        StatusCode::InvalidFile,
        "%s: expected high_freq_factor above low_freq_factor, found %g and %g",
        scaling->path().c_str(), out.highFreqFactor, out.lowFreqFactor);
  return Status::success();
}

/// Reads how many tokens a row attends to in each layer: `layer_types` says
/// which layers have the window, else all from `max_window_layers` on.
static Status readWindows(const JsonView &config, ModelConfig &model) {
  model.windows.assign(model.numLayers, 0);
  GPTQ_ASSIGN(bool isUsed, readBool(config, "use_sliding_window",
                                    model.family->slidingWindow));
  GPTQ_ASSIGN(int64_t window,
              readInteger(config, "sliding_window", 0, kMaxPositions, 0));
  if (!isUsed)
    window = 0;

  std::optional<JsonView> types = findValue(config, "layer_types");
  if (!types) {
    int64_t first = 0;
    if (!model.family->slidingWindow) {
      GPTQ_ASSIGN(first, readInteger(config, "max_window_layers", 0,
                                     kMaxPositions, kUsualFirstWindow));
    }
    for (int64_t layer = first; layer < model.numLayers; ++layer)
      model.windows[layer] = window;
    return Status::success();
  }
  GPTQ_ASSIGN(std::vector<JsonView> elements, types->elements());
  if (int64_t(elements.size()) != model.numLayers)
    return abi::makeStatus(StatusCode::InvalidFile,
                           "%s: expected an entry for each of %lld layers, "
                           "found %zu",
                           types->path().c_str(), (long long)model.numLayers,
                           elements.size());
  for (auto [layer, element] : llvm::enumerate(elements)) {
    GPTQ_ASSIGN(std::string type, element.string());
    if (type == "full_attention")
      continue;
    if (type != "sliding_attention" || window == 0)
      return abi::makeStatus(
          StatusCode::Unsupported, "%s: %s is not supported, expected %s",
          element.path().c_str(), abi::quoteForMessage(type).c_str(),
          window == 0 ? "'full_attention' without a sliding_window"
                      : "'full_attention' or 'sliding_attention'");
    model.windows[layer] = window;
  }
  return Status::success();
}

static Status readFamily(const JsonView &config, ModelConfig &model) {
  GPTQ_ASSIGN(std::string type, readString(config, "model_type", ""));
  model.family = findFamily(type);
  if (model.family)
    return Status::success();
  std::string known;
  for (const Family *family : allFamilies())
    known += (known.empty() ? "'" : ", '") + family->name.str() + "'";
  return unsupported(config, "model_type", type, "one of " + known);
}

abi::Expected<ModelConfig> mlir::gptq::readModelConfig(Folder &folder) {
  ModelConfig model;
  if (!folder.exists("config.json"))
    return abi::makeStatus(StatusCode::NotFound, "'%s' holds no config.json",
                           folder.path().c_str());
  GPTQ_ASSIGN(abi::Json document, readJsonObject(folder, "config.json"));
  JsonView config(document, "config.json");
  GPTQ_TRY(readFamily(config, model));
  const Family &family = *model.family;

  GPTQ_ASSIGN(model.hiddenSize,
              readInteger(config, "hidden_size", 1, kMaxWidth));
  GPTQ_ASSIGN(model.intermediateSize,
              readInteger(config, "intermediate_size", 1, kMaxWidth));
  GPTQ_ASSIGN(model.numLayers,
              readInteger(config, "num_hidden_layers", 1, kMaxLayers));
  GPTQ_ASSIGN(model.heads,
              readInteger(config, "num_attention_heads", 1, kMaxHeads));
  GPTQ_ASSIGN(model.kvHeads, readInteger(config, "num_key_value_heads", 1,
                                         kMaxHeads, model.heads));
  GPTQ_ASSIGN(model.vocabSize, readInteger(config, "vocab_size", 1, kMaxVocab));
  if (model.heads % model.kvHeads != 0)
    return abi::makeStatus(
        StatusCode::InvalidFile,
        "config.json: expected num_attention_heads to be a multiple of "
        "num_key_value_heads, found %lld and %lld",
        (long long)model.heads, (long long)model.kvHeads);

  std::optional<int64_t> headDim;
  if (family.defaultHeadDim)
    headDim = family.defaultHeadDim;
  else if (model.hiddenSize % model.heads == 0)
    headDim = model.hiddenSize / model.heads;
  GPTQ_ASSIGN(model.headDim,
              readInteger(config, "head_dim", 2, kMaxHeadDim, headDim));
  if (model.headDim < 2 || model.headDim > kMaxHeadDim || model.headDim % 2)
    return abi::makeStatus(StatusCode::Unsupported,
                           "config.json: expected an even head_dim of 2 to "
                           "%lld, found %lld",
                           (long long)kMaxHeadDim, (long long)model.headDim);
  if (model.heads * model.headDim > kMaxWidth)
    return abi::makeStatus(
        StatusCode::InvalidFile,
        "config.json: expected num_attention_heads * head_dim of at most "
        "%lld, found %lld",
        (long long)kMaxWidth, (long long)(model.heads * model.headDim));

  GPTQ_ASSIGN(model.epsilon, readNumber(config, "rms_norm_eps", 1e-12, 0.1,
                                        family.defaultEpsilon));
  GPTQ_ASSIGN(model.maxPositions,
              readInteger(config, "max_position_embeddings", 1, kMaxPositions,
                          family.defaultMaxPositions));
  GPTQ_TRY(readRope(config, model));
  GPTQ_TRY(readWindows(config, model));

  GPTQ_ASSIGN(std::string activation, readString(config, "hidden_act", "silu"));
  if (activation != "silu" && activation != "swish")
    return unsupported(config, "hidden_act", activation, "'silu'");
  GPTQ_ASSIGN(model.tiedEmbeddings,
              readBool(config, "tie_word_embeddings", false));
  GPTQ_ASSIGN(bool attentionBias, readBool(config, "attention_bias", false));
  GPTQ_ASSIGN(bool mlpBias, readBool(config, "mlp_bias", false));
  model.outputBias = family.readsAttentionBias && attentionBias;
  model.qkvBias = family.qkvBias || model.outputBias;
  model.mlpBias = family.readsMlpBias && mlpBias;

  GPTQ_ASSIGN(model.bosIds,
              readTokenIds(config, "bos_token_id", model.vocabSize));
  GPTQ_ASSIGN(model.eosIds,
              readTokenIds(config, "eos_token_id", model.vocabSize));
  // What generation uses is in generation_config.json: chat models end a turn
  // with a token of their own.
  if (folder.exists("generation_config.json")) {
    GPTQ_ASSIGN(abi::Json generation,
                readJsonObject(folder, "generation_config.json"));
    JsonView view(generation, "generation_config.json");
    GPTQ_ASSIGN(std::vector<int64_t> bosIds,
                readTokenIds(view, "bos_token_id", model.vocabSize));
    GPTQ_ASSIGN(std::vector<int64_t> eosIds,
                readTokenIds(view, "eos_token_id", model.vocabSize));
    if (!bosIds.empty())
      model.bosIds = std::move(bosIds);
    if (!eosIds.empty())
      model.eosIds = std::move(eosIds);
  }
  return model;
}
