//===- Session.h - A model's state while it runs ----------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_RUNTIME_LIB_SESSION_H
#define GPTQ_RUNTIME_LIB_SESSION_H

#include "runtime/lib/Model.h"

namespace gptq::runtime {

/// An array that a lone function reads or writes, f32 or i32. Ports of half
/// precision take and give f32.
struct HostArray {
  std::string dtype;
  std::vector<int64_t> shape;
  void *data = nullptr;
};

/// The caches of one conversation and the buffers of its calls.
class Session {
public:
  static abi::Expected<std::unique_ptr<Session>> create(Model &model);

  int64_t position() const { return tokens; }
  /// Forgets all tokens but the first `count`.
  abi::Status rewind(int64_t count);

  /// Appends tokens and computes the last one's logits, or with `allLogits`,
  /// [count, vocab], everyone's.
  abi::Status eval(const int32_t *ids, int64_t count, float *allLogits);
  /// Null before the first eval without `allLogits`, and behind `next` and
  /// `sample`.
  const float *logits() const { return lastLogits; }

  /// Appends a token and gives the most likely next one, on models with the
  /// entry `next`.
  abi::Expected<int32_t> next(int32_t token);
  /// Appends a token and gives what `sampler` would pick by its logits, where
  /// the device can (Model::chooses).
  abi::Expected<int32_t> sample(const Sampler &sampler, int32_t token);

  /// Runs a lone function.
  abi::Status run(const std::string &entry,
                  const std::vector<HostArray> &inputs,
                  const std::vector<HostArray> &outputs);

private:
  explicit Session(Model &model) : model(model) {}

  /// The entry `name` of a language model, for `count` more of the tokens
  /// `ids`, after checking that they are and fit.
  abi::Expected<const abi::ManifestEntry *>
  entryFor(const char *name, const int32_t *ids, int64_t count) const;

  abi::Expected<int32_t> chooseWith(const char *name, int32_t token,
                                    const SamplingWords *how);

  Model &model;
  int64_t tokens = 0;
  std::unique_ptr<DeviceSession> memory;
  const float *lastLogits = nullptr;
};

} // namespace gptq::runtime

#endif // GPTQ_RUNTIME_LIB_SESSION_H
