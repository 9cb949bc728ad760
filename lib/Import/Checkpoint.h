//===- Checkpoint.h - The tensors of a checkpoint folder --------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_LIB_IMPORT_CHECKPOINT_H
#define GPTQ_LIB_IMPORT_CHECKPOINT_H

#include "gptq/Import/Folder.h"
#include "lib/Import/GGUF.h"
#include "runtime/abi/Json.h"
#include "runtime/abi/SafeTensors.h"
#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringSet.h"

#include <deque>
#include <memory>

namespace mlir::gptq {

/// One tensor of one of the files.
struct CheckpointTensor {
  llvm::StringRef name;
  /// Its name in the file, for messages.
  llvm::StringRef stored;
  /// The file, relative to the folder.
  llvm::StringRef file;
  const abi::TensorInfo *info;
  /// Where its bytes start in the file.
  uint64_t offset;
  abi::ByteSpan bytes;

  int64_t dim(size_t i) const { return int64_t(info->shape[i]); }
};

/// All tensors of a folder by name, and which of them were asked for.
class Checkpoint {
public:
  /// Opens the folder's safetensors files: `model.safetensors`, or those its
  /// index names, or the only one there is; where there is none, its GGUF
  /// files.
  static abi::Expected<std::unique_ptr<Checkpoint>> open(Folder &folder);

  bool has(llvm::StringRef name) const { return tensors.count(name); }

  /// The tensor `name`, which must have one of `dtypes` and the given shape;
  /// -1 stands for any size of at least 1.
  abi::Expected<CheckpointTensor> get(llvm::StringRef name,
                                      llvm::ArrayRef<abi::DType> dtypes,
                                      llvm::ArrayRef<int64_t> shape);

  /// Every tensor, sorted by name.
  std::vector<CheckpointTensor> all() const;

  /// Marks a tensor as known without reading it.
  void ignore(llvm::StringRef name) { used.insert(name); }
  /// Names, in their files, of the tensors nobody asked for, sorted.
  std::vector<std::string> unused() const;

  /// Notes a doubt, once however many layers raise it.
  void warn(const std::string &message);
  const std::vector<std::string> &warnings() const { return warningList; }

  Folder &getFolder() { return folder; }

private:
  explicit Checkpoint(Folder &folder) : folder(folder) {}
  abi::Status addFile(llvm::StringRef name);
  /// Adds the tensors of a GGUF file under the names that others use, those of
  /// linear layers as `<module>.<type>`.
  abi::Status addGGUFFile(llvm::StringRef name);
  abi::Status add(const CheckpointTensor &tensor);

  Folder &folder;
  /// Owns the descriptions and names that `tensors` refers to.
  llvm::StringMap<abi::SafeTensors> files;
  std::deque<GGUFFile> ggufFiles;
  std::deque<abi::TensorInfo> ggufTensors;
  std::deque<std::string> textNames;
  llvm::StringMap<CheckpointTensor> tensors;
  llvm::StringSet<> used;
  std::vector<std::string> warningList;
};

/// A vector that rotary frequencies are divided by, where a checkpoint has one.
inline constexpr llvm::StringLiteral kRotaryDivisors = "model.rotary.divisors";

/// The dtypes of scales, biases and dense weights.
inline constexpr abi::DType kFloatDTypes[] = {abi::DType::F16, abi::DType::BF16,
                                              abi::DType::F32};

/// Parses the JSON file `name` of a folder into an object.
abi::Expected<abi::Json> readJsonObject(Folder &folder, llvm::StringRef name);

} // namespace mlir::gptq

#endif // GPTQ_LIB_IMPORT_CHECKPOINT_H
