//===- QuantConfig.h - What a checkpoint says about its codes ---*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_LIB_IMPORT_QUANTCONFIG_H
#define GPTQ_LIB_IMPORT_QUANTCONFIG_H

#include "lib/Import/Checkpoint.h"
#include "runtime/abi/Regex.h"

#include <memory>
#include <optional>

namespace mlir::gptq {

/// How the codes of one layer were chosen.
struct QuantSettings {
  int64_t bits = 4;
  /// -1: one group.
  int64_t groupSize = 128;
  bool isSymmetric = true;
  bool isActOrder = false;
};

/// Settings for the modules whose names match.
struct ModuleRule {
  /// As the checkpoint spells it.
  std::string text;
  /// Null: the module named `text`, or with `isForAll` every one.
  std::shared_ptr<const abi::Regex> pattern;
  bool isForAll = false;
  /// Nothing: such a module is not quantized.
  std::optional<QuantSettings> settings;

  /// A rule of a pattern that must match where a name starts.
  static abi::Expected<ModuleRule> fromPattern(const abi::JsonView &where,
                                               llvm::StringRef pattern);
  abi::Expected<bool> matches(llvm::StringRef module) const;
};

/// How the quantized layers of a checkpoint are stored.
struct QuantConfig : QuantSettings {
  /// "gptq", "awq", "compressed-tensors", "gguf" or "marlin".
  std::string method = "gptq";
  /// How the method's tensors are packed; its own name for it.
  std::string format = "gptq";
  /// Who wrote the file, where it says.
  std::string quantizer;
  /// Settings of some modules; the first rule that matches counts.
  std::vector<ModuleRule> rules;
  /// Rows of a head of queries or keys whose halves are stored interleaved; 0:
  /// they are not.
  int64_t interleavedRows = 0;

  /// The settings of `module`, or nothing where it is not to be quantized.
  abi::Expected<std::optional<QuantSettings>>
  settingsOf(llvm::StringRef module) const;
};

/// Reads `quantization_config` of config.json, or quantize_config.json or
/// quant_config.json; a disagreement becomes a warning of `checkpoint`.
/// Nothing where none of them exists: the checkpoint is dense.
abi::Expected<std::optional<QuantConfig>>
readQuantConfig(Checkpoint &checkpoint);

/// Each format's own part of it: `config` is the settings' object, `text` the
/// whole file it is in.
abi::Status readGPTQConfig(const abi::JsonView &config, llvm::StringRef text,
                           QuantConfig &quant);
abi::Status readAWQConfig(const abi::JsonView &config, QuantConfig &quant);
abi::Status readCompressedTensorsConfig(const abi::JsonView &config,
                                        QuantConfig &quant);
abi::Status readGGUFConfig(const abi::JsonView &config, QuantConfig &quant);
abi::Status readMarlinConfig(const abi::JsonView &config, QuantConfig &quant);

/// The first of `keys` that is there, else the first.
llvm::StringRef firstKey(const abi::JsonView &object,
                         std::initializer_list<llvm::StringRef> keys);
/// The number of bits under one of its names, which must be in `allowed`.
abi::Expected<int64_t> readBits(const abi::JsonView &config,
                                llvm::ArrayRef<int64_t> allowed);
/// The group size under one of its names: -1 or positive.
abi::Expected<int64_t> readGroupSize(const abi::JsonView &config);

} // namespace mlir::gptq

#endif // GPTQ_LIB_IMPORT_QUANTCONFIG_H
