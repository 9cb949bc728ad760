//===- ToyModel.h - A hand-made compiled model ------------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_RUNTIME_TEST_TOYMODEL_H
#define GPTQ_RUNTIME_TEST_TOYMODEL_H

#include "runtime/abi/Manifest.h"
#include "runtime/abi/ModelWriter.h"

#include <string>
#include <vector>

namespace gptq::test {

/// The model of TestKernels.c, with what its reference needs to compute the
/// same.
struct ToyModel {
  static constexpr int64_t dim = 8, vocab = 33, maxContext = 50, maxRows = 7;

  ToyModel();

  abi::Manifest manifest;
  std::vector<float> embedding, head;
  /// The tensor of the code, and the code; `code.cubin` where not empty.
  std::string codeName = "code.elf";
  std::string code, cubin;

  /// Writes the model into the tests' folder and returns its path.
  std::string write(const std::string &name) const;

  /// Logits behind the last of `tokens`.
  std::vector<float> reference(const std::vector<int32_t> &tokens) const;
};

/// A folder of this process alone, with a slash behind it: TEST_TMPDIR where
/// that is set, else one that goes away with the process.
const std::string &temporaryFolder();

/// `count` tokens that differ.
std::vector<int32_t> someTokens(int64_t count);

std::string readFile(const std::string &path);
void writeFile(const std::string &path, const std::string &content);

} // namespace gptq::test

#endif // GPTQ_RUNTIME_TEST_TOYMODEL_H
