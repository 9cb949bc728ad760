//===- ExportGPTQ.h - Writes a checkpoint in format GPTQ ---------*- C++
//-*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_TOOLS_GPTQ_TRANSLATE_EXPORTGPTQ_H
#define GPTQ_TOOLS_GPTQ_TRANSLATE_EXPORTGPTQ_H

#include "mlir/IR/MLIRContext.h"
#include "runtime/abi/Status.h"

namespace mlir::gptq {

/// Writes the checkpoint `from`, of any format, as the new folder `to` in
/// format "gptq" or "gptq_v2": the same codes, zero points, scales and groups,
/// everything else unchanged. The folder appears when it is complete.
::gptq::abi::Status exportGPTQ(llvm::StringRef from, llvm::StringRef to,
                               llvm::StringRef format, MLIRContext *context);

} // namespace mlir::gptq

#endif // GPTQ_TOOLS_GPTQ_TRANSLATE_EXPORTGPTQ_H
