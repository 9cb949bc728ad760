//===- Checkpoint.cpp - The tensors of a checkpoint folder ----------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "lib/Import/Checkpoint.h"
#include "llvm/ADT/STLExtras.h"

using namespace mlir::gptq;
using abi::Status;
using abi::StatusCode;
using llvm::ArrayRef;
using llvm::StringRef;

static constexpr StringRef kIndexSuffix = ".safetensors.index.json";

/// What a tensor is called in a model of text alone, for which checkpoints of
/// models that see images as well have names of their own; empty for tensors of
/// what sees.
static std::string getTextName(StringRef stored) {
  StringRef name = stored;
  const bool isOfModel = name.consume_front("model.");
  for (StringRef part : {"vision_tower.", "multi_modal_projector."})
    if (name.starts_with(part))
      return "";
  if (!name.consume_front("language_model."))
    return stored.str();
  // Newer writers have the prefixes in the other order.
  return (isOfModel ? "model." : "") + name.str();
}

/// The safetensors files an index names, each once, in the order of names.
static abi::Expected<std::vector<std::string>>
readIndex(Folder &folder, StringRef indexName,
          std::vector<std::pair<std::string, std::string>> &weightMap) {
  GPTQ_ASSIGN(abi::Json index, readJsonObject(folder, indexName));
  abi::JsonView view(index, indexName.str());
  GPTQ_ASSIGN(abi::JsonView map, view.at("weight_map"));
  GPTQ_TRY(map.expectObject());
  std::vector<std::string> files;
  for (auto it = map.raw().begin(); it != map.raw().end(); ++it) {
    abi::JsonView value(*it, map.path() + "." + abi::quoteForMessage(it.key()));
    GPTQ_ASSIGN(std::string file, value.string());
    if (!Folder::isPlainName(file) ||
        !StringRef(file).ends_with(".safetensors"))
      return abi::makeStatus(
          StatusCode::InvalidFile,
          "%s: expected a safetensors file inside the folder, found %s",
          value.path().c_str(), abi::quoteForMessage(file).c_str());
    files.push_back(file);
    weightMap.emplace_back(it.key(), std::move(file));
  }
  llvm::sort(files);
  files.erase(std::unique(files.begin(), files.end()), files.end());
  return files;
}

abi::Expected<std::unique_ptr<Checkpoint>> Checkpoint::open(Folder &folder) {
  std::unique_ptr<Checkpoint> checkpoint(new Checkpoint(folder));
  std::vector<std::string> files, indexes, ggufFiles;
  for (std::string &name : folder.list()) {
    if (StringRef(name).ends_with(".safetensors"))
      files.push_back(name);
    else if (StringRef(name).ends_with(".gguf"))
      ggufFiles.push_back(name);
    else if (StringRef(name).ends_with(kIndexSuffix))
      indexes.push_back(name);
  }

  if (files.empty() && !ggufFiles.empty()) {
    for (const std::string &name : ggufFiles)
      GPTQ_TRY(checkpoint->addGGUFFile(name));
    return checkpoint;
  }

  std::vector<std::pair<std::string, std::string>> weightMap;
  if (llvm::is_contained(files, "model.safetensors")) {
    files = {"model.safetensors"};
  } else if (!indexes.empty()) {
    StringRef index = indexes.front();
    if (llvm::is_contained(indexes, "model.safetensors.index.json"))
      index = "model.safetensors.index.json";
    else if (indexes.size() > 1)
      return abi::makeStatus(
          StatusCode::InvalidFile,
          "'%s' holds %zu safetensors indexes and no "
          "model.safetensors.index.json that would say which to read",
          folder.path().c_str(), indexes.size());
    GPTQ_ASSIGN(files, readIndex(folder, index, weightMap));
  } else if (files.size() > 1) {
    return abi::makeStatus(StatusCode::InvalidFile,
                           "'%s' holds %zu safetensors files and no "
                           "model.safetensors.index.json that would name them",
                           folder.path().c_str(), files.size());
  }
  if (files.empty())
    return abi::makeStatus(
        StatusCode::NotFound,
        "'%s' holds no safetensors and no GGUF file (pickled .bin and .pt "
        "checkpoints are not read)",
        folder.path().c_str());

  for (const std::string &name : files)
    GPTQ_TRY(checkpoint->addFile(name));
  for (const auto &[name, file] : weightMap) {
    const std::string textName = getTextName(name);
    if (textName.empty())
      continue;
    auto it = checkpoint->tensors.find(textName);
    if (it == checkpoint->tensors.end() || it->second.file != file)
      return abi::makeStatus(
          StatusCode::InvalidFile, "tensor %s: expected in '%s', found %s",
          abi::quoteForMessage(name).c_str(), file.c_str(),
          it == checkpoint->tensors.end()
              ? "nowhere"
              : ("in '" + it->second.file.str() + "'").c_str());
  }
  return checkpoint;
}

Status Checkpoint::addFile(StringRef name) {
  GPTQ_ASSIGN(abi::ByteSpan bytes, folder.read(name));
  abi::Expected<abi::SafeTensors> opened = abi::SafeTensors::open(bytes);
  if (!opened)
    return opened.status().withContext("'" + name.str() + "'");
  auto file = files.try_emplace(name, opened.take()).first;
  const abi::SafeTensors &content = file->second;
  for (const abi::TensorInfo &info : content.tensors()) {
    std::string textName = getTextName(info.name);
    if (textName.empty())
      continue;
    StringRef known = info.name;
    if (textName != info.name)
      known = textNames.emplace_back(std::move(textName));
    GPTQ_TRY(add({known, info.name, file->first(), &info,
                  content.dataOffset() + info.begin, content.bytes(info)}));
  }
  return Status::success();
}

Status Checkpoint::add(const CheckpointTensor &tensor) {
  auto [it, isNew] = tensors.try_emplace(tensor.name, tensor);
  if (isNew)
    return Status::success();
  return abi::makeStatus(
      StatusCode::InvalidFile,
      "tensor %s: expected in one file, found in '%s' and '%s'",
      abi::quoteForMessage(tensor.stored).c_str(),
      it->second.file.str().c_str(), tensor.file.str().c_str());
}

Status Checkpoint::addGGUFFile(StringRef name) {
  GPTQ_ASSIGN(abi::ByteSpan bytes, folder.read(name));
  abi::Expected<GGUFFile> opened = GGUFFile::open(bytes);
  if (!opened)
    return opened.status().withContext("'" + name.str() + "'");
  const GGUFFile &file = ggufFiles.emplace_back(opened.take());
  StringRef fileName = files.try_emplace(name).first->first();
  for (const GGUFTensor &tensor : file.tensors()) {
    abi::TensorInfo &info = ggufTensors.emplace_back();
    info.name = importedName(tensor);
    info.dtype = tensor.type->dtype;
    info.shape = tensor.shape;
    if (tensor.type->block > 1)
      info.shape.back() =
          info.shape.back() / tensor.type->block * tensor.type->bytes;
    info.end = tensor.bytes.size;
    GPTQ_TRY(add({info.name, tensor.name, fileName, &info, tensor.offset,
                  tensor.bytes}));
  }
  return Status::success();
}

/// "F16 or BF16 [8, *]".
static std::string describe(ArrayRef<abi::DType> dtypes,
                            ArrayRef<int64_t> shape) {
  std::string text;
  for (auto [i, dtype] : llvm::enumerate(dtypes))
    text += (i ? " or " : "") + std::string(abi::dtypeName(dtype));
  text += " [";
  for (auto [i, size] : llvm::enumerate(shape))
    text += (i ? ", " : "") + (size < 0 ? "*" : std::to_string(size));
  return text + "]";
}

abi::Expected<CheckpointTensor> Checkpoint::get(StringRef name,
                                                ArrayRef<abi::DType> dtypes,
                                                ArrayRef<int64_t> shape) {
  auto it = tensors.find(name);
  if (it == tensors.end())
    return abi::makeStatus(
        StatusCode::InvalidFile, "tensor %s is missing, expected %s",
        abi::quoteForMessage(name).c_str(), describe(dtypes, shape).c_str());
  const CheckpointTensor &tensor = it->second;
  const std::vector<uint64_t> &found = tensor.info->shape;
  bool fits = llvm::is_contained(dtypes, tensor.info->dtype) &&
              found.size() == shape.size();
  for (size_t i = 0; fits && i < found.size(); ++i)
    fits = shape[i] < 0 ? found[i] >= 1 : found[i] == uint64_t(shape[i]);
  if (!fits) {
    std::vector<int64_t> dims(found.begin(), found.end());
    return abi::makeStatus(
        StatusCode::InvalidFile, "tensor %s in '%s': expected %s, found %s",
        abi::quoteForMessage(tensor.stored).c_str(), tensor.file.str().c_str(),
        describe(dtypes, shape).c_str(),
        describe(tensor.info->dtype, dims).substr(0, 200).c_str());
  }
  used.insert(name);
  return tensor;
}

std::vector<CheckpointTensor> Checkpoint::all() const {
  std::vector<CheckpointTensor> result;
  for (const auto &entry : tensors)
    result.push_back(entry.second);
  llvm::sort(result, [](const CheckpointTensor &a, const CheckpointTensor &b) {
    return a.name < b.name;
  });
  return result;
}

std::vector<std::string> Checkpoint::unused() const {
  std::vector<std::string> names;
  for (const auto &entry : tensors)
    if (!used.contains(entry.first()))
      names.push_back(entry.second.stored.str());
  llvm::sort(names);
  return names;
}

void Checkpoint::warn(const std::string &message) {
  if (!llvm::is_contained(warningList, message))
    warningList.push_back(message);
}

abi::Expected<abi::Json> mlir::gptq::readJsonObject(Folder &folder,
                                                    StringRef name) {
  GPTQ_ASSIGN(abi::ByteSpan bytes, folder.read(name));
  // The largest honest file here is the index of a sharded checkpoint: one
  // short line per tensor.
  constexpr size_t maxBytes = size_t(64) << 20;
  if (bytes.size > maxBytes)
    return abi::makeStatus(StatusCode::InvalidFile,
                           "'%s' has %zu bytes, expected at most %zu",
                           name.str().c_str(), bytes.size, maxBytes);
  abi::Expected<abi::Json> document =
      abi::parseJson(bytes.text(), {32, size_t(1) << 22});
  if (!document)
    return document.status().withContext("'" + name.str() + "'");
  if (!document->is_object())
    return abi::makeStatus(StatusCode::InvalidFile,
                           "'%s': expected a JSON object, found %s",
                           name.str().c_str(), document->type_name());
  return document;
}
