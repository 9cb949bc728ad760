//===- Modes.h - The modes of gptq-run --------------------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_TOOLS_GPTQ_RUN_MODES_H
#define GPTQ_TOOLS_GPTQ_RUN_MODES_H

#include "Support.h"

#include <string>
#include <vector>

namespace gptq::run {

struct GenerateOptions {
  int64_t maxTokens = 128;
  gptq_sampling sampling{0, 0, 1, 0};
  std::vector<std::string> stop;
  bool echo = true;
  bool printTokens = false;
  bool ignoreEos = false;
};

/// Continues `prompt` on stdout. Returns the program's exit status.
int generate(gptq_model *model, const std::vector<int32_t> &prompt,
             const GenerateOptions &options, Stats &stats);

/// Talks with the user over stdin and stdout.
int chat(gptq_model *model, const std::string &system,
         const GenerateOptions &options, Stats &stats);

/// Writes the logits of every token of `prompt`, f32 [tokens, vocab].
void writeLogits(gptq_model *model, const std::vector<int32_t> &prompt,
                 const std::string &path, Stats &stats);

struct PerplexityOptions {
  /// Tokens of a window, the start token included; 0: min(max_context, 512).
  int64_t window = 0;
  /// Tokens from one window's start to the next's; 0: what a window holds.
  int64_t stride = 0;
  int64_t maxWindows = 0;
  /// Where in the text to start: a share of its characters.
  double from = 0;
  /// Where the start token goes: `window`, `text` or `none`; empty: `window`
  /// if the model wants one.
  std::string bos;
};

/// Prints the loss of the text at `path` and how it was measured.
int perplexity(gptq_model *model, const std::string &path,
               const PerplexityOptions &options, Stats &stats);

/// Prints what is inside a model, without running it.
void inspect(const gptq_model *model, const std::string &path, bool asJson);

/// Runs a lone function on arrays from files.
void runFunction(gptq_model *model, const std::string &name,
                 const std::vector<std::string> &inputs,
                 const std::vector<std::string> &outputs);

} // namespace gptq::run

#endif // GPTQ_TOOLS_GPTQ_RUN_MODES_H
