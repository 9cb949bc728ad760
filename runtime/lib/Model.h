//===- Model.h - A loaded model ---------------------------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_RUNTIME_LIB_MODEL_H
#define GPTQ_RUNTIME_LIB_MODEL_H

#include "runtime/abi/MappedFile.h"
#include "runtime/lib/Artifact.h"
#include "runtime/lib/ChatTemplate.h"
#include "runtime/lib/Device.h"
#include "runtime/lib/Sampler.h"
#include "runtime/lib/Tokenizer.h"

#include <memory>
#include <string>

namespace gptq::runtime {

struct ModelOptions {
  /// 0: one for each core.
  int threads = 0;
  /// Which of several GPUs.
  int device = 0;
  bool verify = true;
  bool inspectOnly = false;
};

/// A compiled model, mapped, checked and ready to run.
class Model {
public:
  static abi::Expected<std::unique_ptr<Model>> open(const std::string &path,
                                                    ModelOptions options);

  const Artifact &artifact() const { return contents; }
  const abi::Manifest &manifest() const { return contents.manifest; }
  bool canRun() const { return place != nullptr; }
  int64_t fileBytes() const { return int64_t(file.bytes().size); }
  const std::vector<int32_t> &bosIds() const { return bos; }
  const std::vector<int32_t> &eosIds() const { return eos; }

  /// Null if the model has none.
  const Tokenizer *tokenizer() const { return textTokenizer.get(); }

  /// The model's chat template, or why there is none to use.
  const abi::Expected<ChatTemplate> &chatTemplate() const { return *chat; }

  /// Where it runs; only if it can.
  Device &device() const { return *place; }

  /// Whether the device comes by itself to the tokens that `sampler` picks.
  bool chooses(const Sampler &sampler) const;

private:
  Model() = default;
  abi::Status loadTokenizer();

  abi::MappedFile file;
  Artifact contents;
  std::unique_ptr<Tokenizer> textTokenizer;
  std::optional<abi::Expected<ChatTemplate>> chat;
  std::vector<int32_t> bos, eos;
  std::unique_ptr<Device> place;
};

} // namespace gptq::runtime

#endif // GPTQ_RUNTIME_LIB_MODEL_H
