//===- QuantConfig.cpp - What a checkpoint says about its codes -----------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "lib/Import/QuantConfig.h"
#include "lib/Import/Config.h"
#include "llvm/ADT/STLExtras.h"

using namespace mlir::gptq;
using abi::JsonView;
using abi::Status;
using abi::StatusCode;
using llvm::StringRef;

//===----------------------------------------------------------------------===//
// Rules per module
//===----------------------------------------------------------------------===//

abi::Expected<ModuleRule> ModuleRule::fromPattern(const JsonView &where,
                                                  StringRef pattern) {
  ModuleRule rule;
  rule.text = pattern.str();
  abi::Expected<abi::Regex> regex = abi::Regex::compile(pattern.str());
  if (!regex)
    return regex.status().withContext(where.path() + ": " +
                                      abi::quoteForMessage(pattern));
  rule.pattern = std::make_shared<abi::Regex>(regex.take());
  return rule;
}

abi::Expected<bool> ModuleRule::matches(StringRef module) const {
  if (isForAll)
    return true;
  if (!pattern)
    return StringRef(text) == module;
  abi::Expected<bool> isMatch = pattern->matchesStart(module.str());
  if (!isMatch)
    return isMatch.status().withContext("pattern " +
                                        abi::quoteForMessage(text));
  return *isMatch;
}

abi::Expected<std::optional<QuantSettings>>
QuantConfig::settingsOf(StringRef module) const {
  for (const ModuleRule &rule : rules) {
    GPTQ_ASSIGN(bool isMatch, rule.matches(module));
    if (isMatch)
      return rule.settings;
  }
  return std::optional<QuantSettings>(*this);
}

//===----------------------------------------------------------------------===//
// Keys of several formats
//===----------------------------------------------------------------------===//

StringRef mlir::gptq::firstKey(const JsonView &object,
                               std::initializer_list<StringRef> keys) {
  for (StringRef key : keys)
    if (findValue(object, key))
      return key;
  return *keys.begin();
}

abi::Expected<int64_t> mlir::gptq::readBits(const JsonView &config,
                                            llvm::ArrayRef<int64_t> allowed) {
  StringRef key = firstKey(config, {"bits", "w_bit", "wbits"});
  GPTQ_ASSIGN(int64_t bits, readInteger(config, key, 1, 16));
  if (llvm::is_contained(allowed, bits))
    return bits;
  std::string expected;
  for (auto [i, width] : llvm::enumerate(allowed))
    expected += (i == 0                    ? ""
                 : i + 1 == allowed.size() ? " or "
                                           : ", ") +
                std::to_string(width);
  return unsupported(config, key, std::to_string(bits), expected);
}

abi::Expected<int64_t> mlir::gptq::readGroupSize(const JsonView &config) {
  StringRef key = firstKey(config, {"group_size", "q_group_size"});
  GPTQ_ASSIGN(int64_t size, readInteger(config, key, -1, kMaxWidth));
  if (size == 0)
    return abi::makeStatus(StatusCode::InvalidFile,
                           "%s.%s: expected -1 or a positive number, found 0",
                           config.path().c_str(), key.str().c_str());
  return size;
}

//===----------------------------------------------------------------------===//
// quantization_config
//===----------------------------------------------------------------------===//

static abi::Expected<QuantConfig> parseQuantConfig(const JsonView &config,
                                                   StringRef text) {
  GPTQ_TRY(config.expectObject());
  QuantConfig quant;
  // Writers before quant_method existed wrote nothing but GPTQ.
  StringRef methodKey = firstKey(config, {"quant_method", "method"});
  GPTQ_ASSIGN(quant.method, readString(config, methodKey, "gptq"));
  GPTQ_ASSIGN(std::string format,
              readString(config,
                         firstKey(config, {"checkpoint_format", "format"}),
                         ""));
  GPTQ_ASSIGN(bool isMarlin, readBool(config, "is_marlin_format", false));
  if (quant.method == "marlin" ||
      (quant.method == "gptq" && (isMarlin || format == "marlin"))) {
    quant.method = "marlin";
    GPTQ_TRY(readMarlinConfig(config, quant));
  } else if (quant.method == "gptq") {
    GPTQ_TRY(readGPTQConfig(config, text, quant));
  } else if (quant.method == "awq") {
    GPTQ_TRY(readAWQConfig(config, quant));
  } else if (quant.method == "gguf") {
    GPTQ_TRY(readGGUFConfig(config, quant));
  } else if (quant.method == "compressed-tensors") {
    GPTQ_TRY(readCompressedTensorsConfig(config, quant));
  } else {
    return unsupported(config, methodKey, quant.method,
                       "'gptq', 'awq', 'compressed-tensors' or 'marlin'");
  }
  return quant;
}

/// Warns where the file `name` says something else than `chosen`.
static void reportDisagreement(Checkpoint &checkpoint,
                               const QuantConfig &chosen,
                               const QuantConfig &other,
                               const std::string &chosenName,
                               const std::string &name) {
  auto compare = [&](const char *key, const std::string &expected,
                     const std::string &found) {
    if (expected != found)
      checkpoint.warn(name + " says " + key + " " + found + ", but " +
                      chosenName + " says " + expected + ", which is used");
  };
  auto number = [](int64_t value) { return std::to_string(value); };
  compare("quant_method", chosen.method, other.method);
  compare("bits", number(chosen.bits), number(other.bits));
  compare("group_size", number(chosen.groupSize), number(other.groupSize));
  compare("sym", number(chosen.isSymmetric), number(other.isSymmetric));
  compare("desc_act", number(chosen.isActOrder), number(other.isActOrder));
  compare("checkpoint_format", chosen.format, other.format);
}

abi::Expected<std::optional<QuantConfig>>
mlir::gptq::readQuantConfig(Checkpoint &checkpoint) {
  Folder &folder = checkpoint.getFolder();
  std::optional<QuantConfig> chosen;
  std::string chosenName;
  for (const char *name :
       {"config.json", "quantize_config.json", "quant_config.json"}) {
    if (!folder.exists(name))
      continue;
    GPTQ_ASSIGN(abi::Json document, readJsonObject(folder, name));
    JsonView view(document, name);
    if (StringRef(name) == "config.json") {
      std::optional<JsonView> inner = findValue(view, "quantization_config");
      if (!inner)
        continue;
      view = *inner;
    }
    GPTQ_ASSIGN(abi::ByteSpan bytes, folder.read(name));
    GPTQ_ASSIGN(QuantConfig quant, parseQuantConfig(view, bytes.text()));
    if (!chosen) {
      chosen = quant;
      chosenName = view.path();
    } else {
      reportDisagreement(checkpoint, *chosen, quant, chosenName, view.path());
    }
  }
  return chosen;
}
