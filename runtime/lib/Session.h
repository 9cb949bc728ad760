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

/// An array that a lone function reads or writes. Both element types are four
/// bytes wide.
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
  /// Null before the first eval without `allLogits`.
  const float *logits() const { return lastLogits; }

  /// Runs a lone function.
  abi::Status run(const std::string &entry,
                  const std::vector<HostArray> &inputs,
                  const std::vector<HostArray> &outputs);

private:
  explicit Session(Model &model) : model(model) {}

  Model &model;
  int64_t tokens = 0;
  std::vector<PageBuffer> states;
  std::vector<uint8_t *> statePointers;
  PageBuffer inputBuffer, outputBuffer;
  const float *lastLogits = nullptr;
};

} // namespace gptq::runtime

#endif // GPTQ_RUNTIME_LIB_SESSION_H
