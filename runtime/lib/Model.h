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
#include "runtime/lib/CodeObject.h"
#include "runtime/lib/Memory.h"
#include "runtime/lib/ThreadPool.h"
#include "runtime/lib/Tokenizer.h"

#include <memory>
#include <mutex>
#include <string>

namespace gptq::runtime {

struct ModelOptions {
  /// 0: one for each core.
  int threads = 0;
  bool verify = true;
  bool inspectOnly = false;
};

/// Pointers of one call, all 64-byte aligned.
struct CallMemory {
  uint8_t *const *states = nullptr;
  const void *const *inputs = nullptr;
  void *const *outputs = nullptr;
};

/// A compiled model, mapped, checked and ready to run.
class Model {
public:
  static abi::Expected<std::unique_ptr<Model>> open(const std::string &path,
                                                    ModelOptions options);

  const Artifact &artifact() const { return contents; }
  const abi::Manifest &manifest() const { return contents.manifest; }
  bool canRun() const { return pool != nullptr; }
  int threads() const { return pool ? pool->threads() : 0; }
  int64_t fileBytes() const { return int64_t(file.bytes().size); }
  int64_t arenaBytes() const { return arenaSize; }
  int64_t scratchBytes() const { return scratchSize; }
  const std::vector<int32_t> &bosIds() const { return bos; }
  const std::vector<int32_t> &eosIds() const { return eos; }

  /// Null if the model has none.
  const Tokenizer *tokenizer() const { return textTokenizer.get(); }

  /// The model's chat template, or why there is none to use.
  const abi::Expected<ChatTemplate> &chatTemplate() const { return *chat; }

  /// Runs an entry of this model for `rows` rows at `position`, which the
  /// caller has checked. Callers on several threads take turns.
  void run(const abi::ManifestEntry &entry, int64_t rows, int64_t position,
           const CallMemory &memory);

private:
  /// The kernel and how to cut its work, for one variant of a dispatch.
  struct Kernel {
    gptq_cpu_kernel function = nullptr;
    const abi::ManifestVariant *variant = nullptr;
  };
  struct Step {
    const abi::ManifestDispatch *dispatch = nullptr;
    std::vector<Kernel> kernels;
    /// Where the arguments start in the program's table.
    size_t firstArg = 0;
  };
  struct Program {
    std::vector<Step> steps;
    size_t argCount = 0;
  };

  Model() = default;
  abi::Status loadCode();
  abi::Status loadTokenizer();

  abi::MappedFile file;
  Artifact contents;
  CodeObject code;
  std::vector<Program> programs;
  std::unique_ptr<Tokenizer> textTokenizer;
  std::optional<abi::Expected<ChatTemplate>> chat;
  std::vector<int32_t> bos, eos;
  int64_t arenaSize = 0;
  int64_t scratchSize = 0;

  // Used by one call at a time.
  std::mutex mutex;
  std::unique_ptr<ThreadPool> pool;
  PageBuffer arena;
  std::vector<void *> args;
  std::vector<Task> tasks;
};

} // namespace gptq::runtime

#endif // GPTQ_RUNTIME_LIB_MODEL_H
