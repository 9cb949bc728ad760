//===- Folder.h - Where a checkpoint's files come from ----------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_IMPORT_FOLDER_H
#define GPTQ_IMPORT_FOLDER_H

#include "runtime/abi/MappedFile.h"
#include "runtime/abi/Status.h"
#include "llvm/ADT/StringMap.h"

#include <memory>
#include <string>
#include <vector>

namespace mlir::gptq {

namespace abi = ::gptq::abi;

/// A checkpoint folder as the importer sees it: names, and bytes that stay
/// valid as long as the folder does. Nothing is read but through it.
class Folder {
public:
  virtual ~Folder();

  /// Where it is, for messages and for the `gptq.folder` attribute.
  virtual const std::string &path() const = 0;
  /// What people call the model in it.
  virtual std::string name() const;
  /// Names of its regular files, sorted.
  virtual std::vector<std::string> list() = 0;
  virtual bool exists(llvm::StringRef name) = 0;
  /// The bytes of a file. `name` must be plain (see `isPlainName`).
  virtual abi::Expected<abi::ByteSpan> read(llvm::StringRef name) = 0;
  /// Whether `name` is a file only here, and not where `path` says.
  virtual bool isMade(llvm::StringRef name) { return false; }

  /// Whether `name` can only mean a file below the folder: relative, without
  /// `..`, without control characters.
  static bool isPlainName(llvm::StringRef name);
};

/// A folder of the file system. Files are mapped, not read.
class DiskFolder final : public Folder {
public:
  static abi::Expected<std::unique_ptr<DiskFolder>> open(llvm::StringRef path);

  const std::string &path() const override { return root; }
  std::vector<std::string> list() override;
  bool exists(llvm::StringRef name) override;
  abi::Expected<abi::ByteSpan> read(llvm::StringRef name) override;

private:
  std::string root;
  llvm::StringMap<abi::MappedFile> files;
};

/// Opens what `path` names: a folder as hubs publish it or, as the folder it
/// would be, a GGUF file (the first of several parts) or a folder of one.
abi::Expected<std::unique_ptr<Folder>> openCheckpoint(llvm::StringRef path);

/// The files of a GGUF model, `first` of `folder` and its other parts, and what
/// they say about the model and its tokenizer as the files in which other
/// checkpoints say it: config.json, tokenizer.json and so on.
abi::Expected<std::unique_ptr<Folder>> openGGUF(std::unique_ptr<Folder> folder,
                                                llvm::StringRef first);

/// A folder made of strings: for tests, and for modules without a checkpoint.
class MemoryFolder final : public Folder {
public:
  explicit MemoryFolder(std::string path) : root(std::move(path)) {}

  void add(llvm::StringRef name, std::string bytes) {
    files[name] = std::move(bytes);
  }

  const std::string &path() const override { return root; }
  std::vector<std::string> list() override;
  bool exists(llvm::StringRef name) override { return files.count(name); }
  abi::Expected<abi::ByteSpan> read(llvm::StringRef name) override;

private:
  std::string root;
  llvm::StringMap<std::string> files;
};

} // namespace mlir::gptq

#endif // GPTQ_IMPORT_FOLDER_H
