//===- TensorFile.h - Writes safetensors files ------------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_EXPORT_TENSORFILE_H
#define GPTQ_EXPORT_TENSORFILE_H

#include "gptq/Export/WeightReader.h"
#include "runtime/abi/SafeTensors.h"

#include <functional>

namespace mlir::gptq {

/// A tensor of a file to be: what it is called, and who delivers its bytes.
struct TensorToWrite {
  std::string name;
  model::DType dtype;
  std::vector<uint64_t> shape;
  std::function<model::Status(WeightReader::Sink)> produce;
};

/// Writes `tensors` as the safetensors file `path`, which appears under its
/// name only when it is complete.
model::Status writeTensorFile(StringRef path,
                              const std::vector<TensorToWrite> &tensors);

/// How elements of `type` are stored: codes of up to 8 bits take a byte each.
model::DType storedDType(Type type);

/// All weights of `module` that are not packed, by name.
model::Status writeWeights(ModuleOp module, StringRef path);

} // namespace mlir::gptq

#endif // GPTQ_EXPORT_TENSORFILE_H
