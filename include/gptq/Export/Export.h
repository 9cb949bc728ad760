//===- Export.h - Writes compiled models ------------------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_EXPORT_EXPORT_H
#define GPTQ_EXPORT_EXPORT_H

#include "gptq/Export/ObjectCode.h"
#include "gptq/Export/WeightReader.h"

#include <functional>

namespace mlir::gptq {

struct ExportOptions {
  /// Called now and then with the bytes written so far and in all.
  std::function<void(int64_t done, int64_t total)> progress;
  ObjectCodeOptions code;
  /// NVIDIA's assembler; without one the model of a GPU carries PTX alone.
  std::string assembler;
};

struct ExportSummary {
  int64_t fileBytes = 0;
  int64_t weightBytes = 0;
  int64_t codeBytes = 0;
  int64_t kernels = 0;
};

/// Writes `module`, in its final form, as the compiled model `path`. The file
/// appears under its name only when it is complete and on disk; on failure
/// nothing is left behind.
model::Expected<ExportSummary> exportModel(ModuleOp module, StringRef path,
                                           const ExportOptions &options = {});

} // namespace mlir::gptq

#endif // GPTQ_EXPORT_EXPORT_H
