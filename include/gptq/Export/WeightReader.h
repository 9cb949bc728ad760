//===- WeightReader.h - Evaluates weight views ------------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Turns a `gptq.weight` into bytes. Views are evaluated row by row from mapped
// checkpoint files, so that nothing but the packed bytes of one weight and a
// few rows of its sources is ever in memory.
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_EXPORT_WEIGHTREADER_H
#define GPTQ_EXPORT_WEIGHTREADER_H

#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "mlir/IR/BuiltinOps.h"
#include "runtime/abi/MappedFile.h"
#include "llvm/ADT/FunctionExtras.h"
#include "llvm/ADT/StringMap.h"

#include <memory>
#include <vector>

namespace mlir::gptq {

/// The room that compiler and runtime share. (Not `abi`: the C++ library has
/// that name.)
namespace model = ::gptq::abi;

/// The files that views read, each mapped once.
class CheckpointFiles {
public:
  explicit CheckpointFiles(StringRef folder) : folder(folder) {}

  /// The bytes of `file`, relative to the folder or absolute.
  model::Expected<model::ByteSpan> bytes(StringRef file);

  /// Gives the memory of all pages read so far back; they are read again where
  /// they are needed again.
  void dropPages() const;

private:
  std::string folder;
  llvm::StringMap<model::MappedFile> files;
};

/// Delivers the rows of one view, seen as a matrix: a vector is one row, and
/// dimensions beyond the second are part of the row. Elements are
/// little-endian, elements of less than 8 bits one byte each. Not to be shared
/// by threads.
class RowSource {
public:
  RowSource(int64_t rows, int64_t columns, unsigned width)
      : rows(rows), columns(columns), width(width) {}
  virtual ~RowSource() = default;

  virtual void readRow(int64_t row, uint8_t *out) = 0;
  int64_t rowBytes() const { return columns * width; }

  const int64_t rows;
  const int64_t columns;
  /// Bytes of one element.
  const unsigned width;
};

/// Bytes the weight takes in a compiled model. Never reads a file.
model::Expected<int64_t> storedBytes(WeightOp weight);

class WeightReader {
public:
  /// Reads the weights of `module` from the folder its attribute names.
  explicit WeightReader(ModuleOp module);

  /// Opens the view of `weight`, neither packed nor a stack, after checking
  /// that every byte it will read exists.
  model::Expected<std::unique_ptr<RowSource>> open(WeightOp weight);

  using Sink = llvm::function_ref<model::Status(model::ByteSpan)>;

  /// Hands the stored bytes of `weight` to `sink`, in order, in pieces that are
  /// valid during the call.
  model::Status read(WeightOp weight, Sink sink);

  CheckpointFiles &getFiles() { return files; }

private:
  model::Status readStack(WeightOp weight, StackAttr stack, Sink sink);
  model::Status readPacked(WeightOp weight, PackedAttr packed, Sink sink);
  model::Expected<std::unique_ptr<RowSource>> open(WeightOp weight,
                                                   unsigned depth);
  model::Expected<std::unique_ptr<RowSource>> openSymbol(FlatSymbolRefAttr name,
                                                         unsigned depth);
  /// The elements of an i32 vector weight that are indices below `limit`.
  model::Expected<std::shared_ptr<const std::vector<int32_t>>>
  readOrder(FlatSymbolRefAttr name, int64_t limit, unsigned depth);

  ModuleOp module;
  CheckpointFiles files;
  llvm::StringMap<WeightOp> weights;
  /// Orders read so far: many weights share one.
  llvm::StringMap<std::shared_ptr<const std::vector<int32_t>>> orders;
  /// The packed bytes of the weight being read; kept from one to the next, for
  /// the pages of a fresh buffer cost as much as the packing.
  std::unique_ptr<uint8_t[]> buffer;
  int64_t bufferBytes = 0;
};

} // namespace mlir::gptq

#endif // GPTQ_EXPORT_WEIGHTREADER_H
