//===- Support.h - What all of gptq-run's modes share -----------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_TOOLS_GPTQ_RUN_SUPPORT_H
#define GPTQ_TOOLS_GPTQ_RUN_SUPPORT_H

#include "gptq/runtime.h"

#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace gptq::run {

/// What ends the program: one sentence, shown to the user.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A call of the C API: throws its sentence if it fails.
template <typename F> void check(F call) {
  gptq_error error;
  if (call(&error) != GPTQ_OK)
    throw Error(error.message);
}

struct Deleter {
  void operator()(gptq_model *p) const { gptq_model_close(p); }
  void operator()(gptq_session *p) const { gptq_session_destroy(p); }
  void operator()(gptq_decoder *p) const { gptq_decoder_destroy(p); }
  void operator()(gptq_sampler *p) const { gptq_sampler_destroy(p); }
};
using ModelPtr = std::unique_ptr<gptq_model, Deleter>;
using SessionPtr = std::unique_ptr<gptq_session, Deleter>;
using DecoderPtr = std::unique_ptr<gptq_decoder, Deleter>;
using SamplerPtr = std::unique_ptr<gptq_sampler, Deleter>;

ModelPtr openModel(const std::string &path, gptq_model_options options);
SessionPtr createSession(gptq_model *model);
gptq_model_info infoOf(const gptq_model *model);
gptq_device_info deviceOf(const gptq_model *model);

std::vector<int32_t> encode(const gptq_model *model, std::string_view text,
                            bool addBos, bool parseSpecial = true);

/// Writes the text of tokens to stdout as it becomes certain.
class Printer {
public:
  explicit Printer(const gptq_model *model);
  /// Returns the text that was added.
  std::string_view push(int32_t token);
  std::string_view finish();

private:
  DecoderPtr decoder;
};

std::string readFile(const std::string &path);

class Stopwatch {
public:
  double seconds() const {
    return std::chrono::duration<double>(Clock::now() - start).count();
  }

private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start = Clock::now();
};

/// What --stats prints.
struct Stats {
  double loadSeconds = 0;
  double prefillSeconds = 0;
  int64_t prefillTokens = 0;
  double decodeSeconds = 0;
  int64_t decodeTokens = 0;
  /// What chooses tokens, for models of a device; empty where none are made.
  std::string chosenBy;

  void print(const gptq_model *model) const;
};

/// From here on Ctrl-C only sets a flag; a second one ends the program.
void catchInterrupt();
bool isInterrupted();
void clearInterrupt();

/// Exit status of a program that Ctrl-C ended.
inline constexpr int interruptedStatus = 130;

/// `size` bytes in the unit that suits, e.g. `1.5 MiB`.
std::string bytesText(int64_t size);

} // namespace gptq::run

#endif // GPTQ_TOOLS_GPTQ_RUN_SUPPORT_H
