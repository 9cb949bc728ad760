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

abi::Expected<double> mlir::gptq::readNumber(const JsonView &object,
                                             StringRef key, double min,
                                             double max,
                                             std::optional<double> fallback) {
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

/// One of the two lists of factors of "longrope", a number for each pair.
static abi::Expected<std::vector<double>>
readFactors(const JsonView &scaling, StringRef key, int64_t pairs) {
  GPTQ_ASSIGN(JsonView list, scaling.at(key.str()));
  GPTQ_ASSIGN(std::vector<JsonView> elements, list.elements());
  if (int64_t(elements.size()) != pairs)
    return abi::makeStatus(StatusCode::InvalidFile,
                           "%s: expected a factor for each of %lld pairs, "
                           "found %zu",
                           list.path().c_str(), (long long)pairs,
                           elements.size());
  std::vector<double> factors;
  for (const JsonView &element : elements) {
    if (!element.raw().is_number())
      return element.mismatch("a number");
    factors.push_back(element.raw().get<double>());
    if (!(factors.back() >= 1e-6 && factors.back() <= 1e6))
      return abi::makeStatus(StatusCode::InvalidFile,
                             "%s: expected a number from 1e-06 to 1e+06, "
                             "found %g",
                             element.path().c_str(), factors.back());
  }
  return factors;
}

/// Reads "longrope", which older files call "su".
static Status readLongRope(const JsonView &config, const JsonView &scaling,
                           const ModelConfig &model, Rope &rope) {
  rope.kind = "longrope";
  const int64_t pairs = model.rotaryDim / 2;
  GPTQ_ASSIGN(rope.shortFactors, readFactors(scaling, "short_factor", pairs));
  GPTQ_ASSIGN(rope.longFactors, readFactors(scaling, "long_factor", pairs));
  const JsonView &holder =
      findValue(scaling, "original_max_position_embeddings") ? scaling : config;
  GPTQ_ASSIGN(rope.originalContext,
              readInteger(holder, "original_max_position_embeddings", 1,
                          kMaxPositions, model.maxPositions));
  // Longer contexts have more to tell apart: scores grow with their logarithm.
  const double ratio = double(model.maxPositions) / rope.originalContext;
  double magnitude = 1;
  if (ratio > 1 && rope.originalContext > 1)
    magnitude =
        std::sqrt(1 + std::log(ratio) / std::log(double(rope.originalContext)));
  GPTQ_ASSIGN(rope.magnitude,
              readNumber(scaling, "attention_factor", 1e-3, 1e3, magnitude));
  return Status::success();
}

/// Reads `rope` from `scaling`, if there is one; `theta` is where it does not
/// say, as newer writers do.
static Status readScaling(const JsonView &config,
                          const std::optional<JsonView> &scaling, double theta,
                          const ModelConfig &model, Rope &rope) {
  rope.theta = theta;
  if (!scaling)
    return Status::success();
  GPTQ_ASSIGN(rope.theta, readNumber(*scaling, "rope_theta", 1, 1e12, theta));

  // "type" is the older spelling; a few files carry both.
  GPTQ_ASSIGN(std::string oldType, readString(*scaling, "type", "default"));
  GPTQ_ASSIGN(std::string type, readString(*scaling, "rope_type", oldType));
  if (type == "default" || type == "none")
    return Status::success();
  if (type == "longrope" || type == "su")
    return readLongRope(config, *scaling, model, rope);
  if (type != "linear" && type != "llama3")
    return unsupported(*scaling, "rope_type", type,
                       "'default', 'linear', 'llama3' or 'longrope'");
  rope.kind = type;
  GPTQ_ASSIGN(rope.factor, readNumber(*scaling, "factor", 1, 1e6));
  if (type == "linear")
    return Status::success();
  GPTQ_ASSIGN(rope.lowFreqFactor,
              readNumber(*scaling, "low_freq_factor", 1e-3, 1e6));
  GPTQ_ASSIGN(rope.highFreqFactor,
              readNumber(*scaling, "high_freq_factor", 1e-3, 1e6));
  GPTQ_ASSIGN(rope.originalContext,
              readInteger(*scaling, "original_max_position_embeddings", 1,
                          kMaxPositions));
  if (rope.highFreqFactor <= rope.lowFreqFactor)
    return abi::makeStatus(
        StatusCode::InvalidFile,
        "%s: expected high_freq_factor above low_freq_factor, found %g and %g",
        scaling->path().c_str(), rope.highFreqFactor, rope.lowFreqFactor);
  return Status::success();
}

/// Reads rotary positions: rope_theta and rope_scaling, or `rope_parameters`,
/// which newer writers use for both, perhaps by type of layer.
static Status readRope(const JsonView &config, ModelConfig &model) {
  const Family &family = *model.family;
  if (!family.isRotary)
    return Status::success();
  std::optional<JsonView> scaling = findValue(config, "rope_parameters");
  std::optional<JsonView> local;
  if (scaling && family.hasLocalRope) {
    GPTQ_TRY(scaling->expectObject());
    local = findValue(*scaling, "sliding_attention");
    if (std::optional<JsonView> full = findValue(*scaling, "full_attention"))
      scaling = full;
  }
  if (!scaling)
    scaling = findValue(config, "rope_scaling");
  for (const std::optional<JsonView> &view : {scaling, local})
    if (view)
      GPTQ_TRY(view->expectObject());

  // Beside the scaling it goes by one name, whatever the family calls it.
  constexpr llvm::StringLiteral usualKey = "partial_rotary_factor";
  const bool isBeside = scaling && findValue(*scaling, usualKey);
  const JsonView &partHolder = isBeside ? *scaling : config;
  const bool isPartly = !family.keys.rotaryPart.empty();
  StringRef partKey =
      isPartly && !isBeside ? family.keys.rotaryPart : StringRef(usualKey);
  GPTQ_ASSIGN(double part,
              readNumber(partHolder, partKey, 0, 1, family.defaultRotaryPart));
  if (part != 1 && !isPartly)
    return abi::makeStatus(
        StatusCode::Unsupported, "%s.%s: %g is not supported, expected 1",
        partHolder.path().c_str(), partKey.str().c_str(), part);
  model.rotaryDim = int64_t(double(model.headDim) * part);
  if (model.rotaryDim < 2 || model.rotaryDim % 2 != 0)
    return abi::makeStatus(
        StatusCode::Unsupported,
        "%s.%s: expected a part of head_dim, %lld, that is an even number of "
        "elements, found %g",
        partHolder.path().c_str(), partKey.str().c_str(),
        (long long)model.headDim, part);
  GPTQ_ASSIGN(double theta, readNumber(config, family.keys.ropeTheta, 1, 1e12,
                                       family.defaultRopeTheta));
  GPTQ_TRY(readScaling(config, scaling, theta, model, model.rope));
  if (!family.hasLocalRope)
    return Status::success();
  GPTQ_ASSIGN(double localTheta,
              readNumber(config, "rope_local_base_freq", 1, 1e12, 10000.0));
  return readScaling(config, local, localTheta, model,
                     model.localRope.emplace());
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
    int64_t pattern = model.family->windowPattern;
    if (pattern) {
      GPTQ_ASSIGN(pattern, readInteger(config, "sliding_window_pattern", 1,
                                       kMaxLayers, pattern));
    }
    for (int64_t layer = first; layer < model.numLayers; ++layer)
      if (!pattern || (layer + 1) % pattern != 0)
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

/// Reads the activation of the MLP. Several names stand for one function.
static Status readActivation(const JsonView &config, ModelConfig &model) {
  const Family &family = *model.family;
  static constexpr std::pair<StringRef, Activation> names[] = {
      {"silu", Activation::Silu},
      {"swish", Activation::Silu},
      {"gelu", Activation::Gelu},
      {"gelu_pytorch_tanh", Activation::GeluTanh},
      {"gelu_new", Activation::GeluTanh},
      {"gelu_fast", Activation::GeluTanh},
      {"relu", Activation::Relu}};
  StringRef key = family.keys.activation;
  GPTQ_ASSIGN(std::string found,
              readString(config, key, family.defaultActivation));
  for (auto [name, activation] : names)
    if (name == found) {
      model.activation = activation;
      return Status::success();
    }
  return unsupported(config, key, found,
                     "'silu', 'gelu', 'gelu_pytorch_tanh' or 'relu'");
}

/// A soft limit; null means that there is none.
static abi::Expected<double> readCap(const JsonView &config, StringRef key,
                                     double fallback) {
  if (key.empty())
    return 0.0;
  std::optional<JsonView> value = config.find(key);
  if (value && value->raw().is_null())
    return 0.0;
  return readNumber(config, key, 0, 1e6, fallback);
}

/// Finds the family, and of a model that sees images as well the part of
/// `config` that says what it is as a model of text.
static Status readFamily(JsonView &config, ModelConfig &model) {
  GPTQ_ASSIGN(std::string type, readString(config, "model_type", ""));
  for (const Family *family : allFamilies())
    if (!type.empty() && family->imageName == type) {
      GPTQ_ASSIGN(config, config.at("text_config"));
      GPTQ_TRY(config.expectObject());
      GPTQ_ASSIGN(type, readString(config, "model_type", family->name));
      break;
    }
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
  const JsonView whole(document, "config.json");
  JsonView config = whole;
  GPTQ_TRY(readFamily(config, model));
  const Family &family = *model.family;
  auto unless0 = [](int64_t value) {
    return value ? std::optional(value) : std::nullopt;
  };

  GPTQ_ASSIGN(model.hiddenSize,
              readInteger(config, "hidden_size", 1, kMaxWidth));
  GPTQ_ASSIGN(model.intermediateSize,
              readInteger(config, family.keys.intermediateSize, 1, kMaxWidth));
  GPTQ_ASSIGN(model.numLayers,
              readInteger(config, "num_hidden_layers", 1, kMaxLayers));
  GPTQ_ASSIGN(model.heads,
              readInteger(config, "num_attention_heads", 1, kMaxHeads,
                          unless0(family.defaultHeads)));
  GPTQ_ASSIGN(
      model.kvHeads,
      readInteger(config, "num_key_value_heads", 1, kMaxHeads,
                  family.defaultKvHeads ? family.defaultKvHeads : model.heads));
  GPTQ_ASSIGN(model.vocabSize, readInteger(config, "vocab_size", 1, kMaxVocab,
                                           unless0(family.defaultVocabSize)));
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

  model.epsilon = family.defaultEpsilon;
  if (!family.keys.epsilon.empty()) {
    GPTQ_ASSIGN(model.epsilon, readNumber(config, family.keys.epsilon, 1e-12,
                                          0.1, family.defaultEpsilon));
  }
  GPTQ_ASSIGN(model.maxPositions,
              readInteger(config, "max_position_embeddings", 1, kMaxPositions,
                          family.defaultMaxPositions));
  GPTQ_TRY(readRope(config, model));
  GPTQ_TRY(readWindows(config, model));
  GPTQ_TRY(readExpertConfig(config, model));

  GPTQ_TRY(readActivation(config, model));
  double scalar = double(model.headDim);
  if (!family.keys.queryScalar.empty()) {
    GPTQ_ASSIGN(scalar, readNumber(config, family.keys.queryScalar, 1e-6, 1e6,
                                   family.defaultQueryScalar));
  }
  model.attentionScale = 1 / std::sqrt(scalar);
  GPTQ_ASSIGN(model.attentionCap, readCap(config, family.keys.attentionCap,
                                          family.defaultAttentionCap));
  GPTQ_ASSIGN(model.logitCap,
              readCap(config, family.keys.logitCap, family.defaultLogitCap));
  GPTQ_ASSIGN(model.tiedEmbeddings,
              readBool(config, "tie_word_embeddings", family.defaultTied));
  model.qkvBias = family.qkvBias;
  model.outputBias = family.outputBias;
  model.mlpBias = family.mlpBias;
  if (StringRef key = family.keys.attentionBias; !key.empty()) {
    GPTQ_ASSIGN(model.qkvBias, readBool(config, key, family.qkvBias));
    GPTQ_ASSIGN(model.outputBias, readBool(config, key, family.outputBias));
  }
  if (StringRef key = family.keys.mlpBias; !key.empty()) {
    GPTQ_ASSIGN(model.mlpBias, readBool(config, key, family.mlpBias));
  }
  if (family.readMore)
    GPTQ_TRY(family.readMore(config, model));

  auto readIds = [&](StringRef key) {
    return readTokenIds(findValue(whole, key) ? whole : config, key,
                        model.vocabSize);
  };
  GPTQ_ASSIGN(model.bosIds, readIds("bos_token_id"));
  GPTQ_ASSIGN(model.eosIds, readIds("eos_token_id"));
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
