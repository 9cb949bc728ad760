//===- Import.h - Reads checkpoint folders into model IR --------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_IMPORT_IMPORT_H
#define GPTQ_IMPORT_IMPORT_H

#include "gptq/Import/Folder.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/OwningOpRef.h"

namespace mlir::gptq {

struct ImportOptions {
  /// Tokens a session can hold; 0: as many as the model was trained for, at
  /// most 4096.
  int64_t maxContext = 0;
  /// Largest M of one call of `@generate`.
  int64_t maxRows = 256;
  /// Largest M of one call of `@score`, whose result has a row of logits per
  /// token.
  int64_t maxScoreRows = 64;
  /// Imports only this linear layer, e.g. "model.layers.0.mlp.down_proj".
  std::string layer;
};

/// Reads a checkpoint folder as published: config.json, one or several
/// safetensors files, quantized or not; or a GGUF file. The result is the
/// imported form: the entries `@generate` and `@score`, or one function for
/// `options.layer`. Weights stay in their files; the IR names their bytes.
///
/// On failure the result is null and `error` one sentence that names what was
/// expected and what was found. Doubts that do not stop the import are
/// warnings of `context`.
OwningOpRef<ModuleOp> importCheckpoint(llvm::StringRef folder,
                                       const ImportOptions &options,
                                       MLIRContext *context,
                                       std::string &error);
OwningOpRef<ModuleOp> importCheckpoint(Folder &folder,
                                       const ImportOptions &options,
                                       MLIRContext *context,
                                       std::string &error);

/// A lone linear layer to play with.
struct KernelShape {
  int64_t n = 0;
  int64_t k = 0;
  /// 2 to 8: quantized codes; 16: a dense f16 weight.
  int64_t bits = 4;
  /// Input rows that share a scale; -1: all.
  int64_t group = 128;
  bool isSymmetric = true;
  /// Whether the groups of the input rows are in random order.
  bool isActOrder = false;

  /// Reads "N,K,bits,group" and any of ",asym" and ",act-order" after it.
  static abi::Expected<KernelShape> parse(llvm::StringRef text);
};

/// Returns a module with the one function `@layer`, and in `weights` the
/// safetensors file its weights refer to as `file`: always the same random
/// codes for the same shape.
OwningOpRef<ModuleOp>
emitKernelModule(const KernelShape &shape, llvm::StringRef folder,
                 llvm::StringRef file, MLIRContext *context,
                 std::string &weights, std::string &error);

} // namespace mlir::gptq

#endif // GPTQ_IMPORT_IMPORT_H
