//===- Inspect.h - What a checkpoint folder holds ----------------*- C++
//-*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_IMPORT_INSPECT_H
#define GPTQ_IMPORT_INSPECT_H

#include "gptq/Import/Folder.h"
#include "runtime/abi/Json.h"
#include "runtime/abi/SafeTensors.h"
#include "llvm/ADT/STLFunctionalExtras.h"

namespace mlir {
class MLIRContext;
}

namespace mlir::gptq {

/// Describes a folder: what it says about itself, what its tensors are, which
/// of both was believed and why, and everything that keeps it from being
/// imported. Damaged folders are described as far as they can be read. With
/// `verify` every weight is read: its checksum, scales of zero, codes at the
/// ends of their range.
///
///   | key | |
///   | --- | --- |
///   | files | name, bytes; with `verify` xxh3 |
///   | declared | the quantization settings, or null |
///   | model | family and sizes, or null |
///   | tokenizer | kind and files, or null |
///   | modules | every linear layer: sizes, bits, groups, zero points, bytes |
///   | bytes | of all files, of what one token reads |
///   | warnings, problems | sentences |
abi::Json inspectCheckpoint(Folder &folder, bool verify, MLIRContext *context);

/// Calls `fn` for every tensor of a folder, in the order of their names.
abi::Status forEachTensor(
    Folder &folder,
    llvm::function_ref<void(const abi::TensorInfo &, abi::ByteSpan)> fn);

} // namespace mlir::gptq

#endif // GPTQ_IMPORT_INSPECT_H
