//===- Inspect.h - Describes a checkpoint for people -------------*- C++
//-*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_TOOLS_GPTQ_TRANSLATE_INSPECT_H
#define GPTQ_TOOLS_GPTQ_TRANSLATE_INSPECT_H

#include "mlir/IR/MLIRContext.h"

namespace mlir::gptq {

struct InspectOptions {
  /// Reads every weight, too.
  bool verify = false;
  bool asJson = false;
};

/// Prints what `folder` holds, and what becomes of it. Returns the number of
/// problems that keep it from being compiled; -1 and `error` where there is no
/// such folder.
int64_t inspect(llvm::StringRef folder, const InspectOptions &options,
                MLIRContext *context, llvm::raw_ostream &os,
                std::string &error);

} // namespace mlir::gptq

#endif // GPTQ_TOOLS_GPTQ_TRANSLATE_INSPECT_H
