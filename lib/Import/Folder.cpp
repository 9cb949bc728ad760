//===- Folder.cpp - Where a checkpoint's files come from ------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Import/Folder.h"
#include "runtime/abi/Json.h"
#include "llvm/ADT/SmallString.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"

#include <algorithm>

using namespace mlir::gptq;
using abi::StatusCode;
using llvm::StringRef;

Folder::~Folder() = default;

std::string Folder::name() const {
  return llvm::sys::path::filename(path()).str();
}

abi::Expected<std::unique_ptr<Folder>>
mlir::gptq::openCheckpoint(StringRef path) {
  if (path.ends_with(".gguf") && !llvm::sys::fs::is_directory(path)) {
    StringRef parent = llvm::sys::path::parent_path(path);
    GPTQ_ASSIGN(std::unique_ptr<DiskFolder> folder,
                DiskFolder::open(parent.empty() ? "." : parent));
    return openGGUF(std::move(folder), llvm::sys::path::filename(path));
  }
  GPTQ_ASSIGN(std::unique_ptr<DiskFolder> folder, DiskFolder::open(path));
  std::vector<std::string> files;
  for (const std::string &name : folder->list()) {
    if (StringRef(name).ends_with(".safetensors"))
      return std::unique_ptr<Folder>(std::move(folder));
    // Of a model in parts the first stands for all.
    if (StringRef(name).ends_with(".gguf") &&
        (!StringRef(name).contains("-of-") ||
         StringRef(name).contains("-00001-of-")))
      files.push_back(name);
  }
  if (files.empty())
    return std::unique_ptr<Folder>(std::move(folder));
  if (files.size() > 1)
    return abi::makeStatus(StatusCode::InvalidFile,
                           "'%s' holds %zu GGUF models, expected one: name the "
                           "file to read",
                           folder->path().c_str(), files.size());
  return openGGUF(std::move(folder), files.front());
}

bool Folder::isPlainName(StringRef name) {
  if (name.empty() || name.size() > 1024 || name.front() == '/' ||
      name.contains('\\'))
    return false;
  for (unsigned char c : name)
    if (c < 0x20 || c == 0x7f)
      return false;
  llvm::SmallVector<StringRef> parts;
  name.split(parts, '/');
  return llvm::none_of(parts, [](StringRef part) {
    return part.empty() || part == "." || part == "..";
  });
}

abi::Expected<std::unique_ptr<DiskFolder>> DiskFolder::open(StringRef path) {
  llvm::SmallString<256> absolute(path);
  if (path.empty() || path.contains('\0') ||
      llvm::sys::fs::make_absolute(absolute) ||
      !llvm::sys::fs::is_directory(absolute))
    return abi::makeStatus(StatusCode::NotFound,
                           "cannot import %s: not a folder",
                           abi::quoteForMessage(path, 400).c_str());
  llvm::sys::path::remove_dots(absolute, /*remove_dot_dot=*/false);
  while (absolute.size() > 1 && absolute.back() == '/')
    absolute.pop_back();
  auto folder = std::make_unique<DiskFolder>();
  folder->root = absolute.str().str();
  return folder;
}

std::vector<std::string> DiskFolder::list() {
  std::vector<std::string> names;
  std::error_code error;
  for (llvm::sys::fs::directory_iterator it(root, error), end;
       it != end && !error; it.increment(error))
    // Hubs keep their files behind symbolic links: follow them.
    if (llvm::sys::fs::is_regular_file(it->path()))
      names.push_back(llvm::sys::path::filename(it->path()).str());
  std::sort(names.begin(), names.end());
  return names;
}

bool DiskFolder::exists(StringRef name) {
  return isPlainName(name) &&
         llvm::sys::fs::is_regular_file(root + "/" + name.str());
}

abi::Expected<abi::ByteSpan> DiskFolder::read(StringRef name) {
  if (!isPlainName(name))
    return abi::makeStatus(StatusCode::InvalidFile,
                           "file name %s does not lie inside the folder",
                           abi::quoteForMessage(name).c_str());
  auto it = files.find(name);
  if (it == files.end()) {
    GPTQ_ASSIGN(abi::MappedFile file,
                abi::MappedFile::open(root + "/" + name.str()));
    it = files.try_emplace(name, std::move(file)).first;
  }
  return it->second.bytes();
}

std::vector<std::string> MemoryFolder::list() {
  std::vector<std::string> names;
  for (const auto &entry : files)
    names.push_back(entry.first().str());
  std::sort(names.begin(), names.end());
  return names;
}

abi::Expected<abi::ByteSpan> MemoryFolder::read(StringRef name) {
  auto it = files.find(name);
  if (it == files.end())
    return abi::makeStatus(StatusCode::NotFound, "cannot open %s",
                           abi::quoteForMessage(name).c_str());
  return abi::ByteSpan::of(it->second);
}
