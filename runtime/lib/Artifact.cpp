//===- Artifact.cpp - A compiled model's file, checked --------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/lib/Artifact.h"

#include "runtime/abi/Checksum.h"
#include "runtime/abi/Json.h"
#include "runtime/abi/KernelABI.h"
#include "runtime/abi/SafeTensors.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <system_error>
#include <thread>

using namespace gptq::abi;
using namespace gptq::runtime;

static Status invalid(std::string message) {
  return Status(StatusCode::InvalidFile, std::move(message));
}

static bool startsWith(std::string_view text, std::string_view prefix) {
  return text.substr(0, prefix.size()) == prefix;
}

/// The i of `w.<i>`, or -1.
static int64_t weightIndex(std::string_view name) {
  if (!startsWith(name, "w.") || name.size() < 3 || name.size() > 12)
    return -1;
  int64_t index = 0;
  for (char c : name.substr(2)) {
    if (c < '0' || c > '9')
      return -1;
    index = index * 10 + (c - '0');
  }
  return name == "w." + std::to_string(index) ? index : -1;
}

/// Finds the manifest and checks it against its checksum.
static Expected<std::string> readManifestText(const SafeTensors &st) {
  auto find = [&](const char *key) {
    auto it = st.metadata().find(key);
    return it == st.metadata().end() ? std::string() : it->second;
  };
  if (find("format") != "gptqm")
    return invalid("not a compiled model: the safetensors metadata's format "
                   "is " +
                   quoteForMessage(find("format")) + ", expected 'gptqm'");
  if (find("version") != std::to_string(GPTQ_MODEL_VERSION))
    return Status(StatusCode::Unsupported,
                  "the compiled model's version is " +
                      quoteForMessage(find("version")) + ", expected '" +
                      std::to_string(GPTQ_MODEL_VERSION) + "'");
  const TensorInfo *info = st.find("manifest.json");
  if (!info)
    return invalid("the tensor 'manifest.json' is missing");
  std::string sum = checksumText(checksum(st.bytes(*info)));
  if (sum != find("manifest_checksum"))
    return invalid("manifest.json is damaged: expected the checksum " +
                   quoteForMessage(find("manifest_checksum")) + ", found '" +
                   sum + "'");
  return std::string(st.bytes(*info).text());
}

Expected<Artifact> gptq::runtime::readArtifact(ByteSpan file) {
  GPTQ_ASSIGN(SafeTensors st, SafeTensors::open(file));
  Artifact artifact;
  GPTQ_ASSIGN(artifact.manifestText, readManifestText(st));
  GPTQ_ASSIGN(artifact.manifest, parseManifest(artifact.manifestText));
  const Manifest &manifest = artifact.manifest;

  // Sections and tensors must agree: a section without a tensor is missing
  // data, a tensor without a section is not covered by any checksum.
  for (const ManifestSection &section : manifest.sections) {
    if (section.tensor == "manifest.json" || startsWith(section.tensor, "pad."))
      return invalid("the manifest's sections list the tensor " +
                     quoteForMessage(section.tensor) + ", which is not one");
    const TensorInfo *info = st.find(section.tensor);
    if (!info)
      return invalid("the tensor " + quoteForMessage(section.tensor) +
                     " is missing");
    if (int64_t(info->byteSize()) != section.bytes)
      return invalid("tensor " + quoteForMessage(section.tensor) +
                     ": the manifest expects " + std::to_string(section.bytes) +
                     " bytes, found " + std::to_string(info->byteSize()));
  }
  std::vector<std::string_view> listed;
  for (const ManifestSection &section : manifest.sections)
    listed.push_back(section.tensor);
  std::sort(listed.begin(), listed.end());

  for (const TensorInfo &info : st.tensors()) {
    const std::string &name = info.name;
    if (startsWith(name, "pad.") || name == "manifest.json")
      continue;
    if (info.dtype != DType::U8 || info.shape.size() != 1)
      return invalid("tensor " + quoteForMessage(name) +
                     ": expected a vector of U8");
    if ((st.dataOffset() + info.begin) % GPTQ_ALIGNMENT != 0)
      return invalid("tensor " + quoteForMessage(name) + " starts at byte " +
                     std::to_string(st.dataOffset() + info.begin) +
                     ", expected a multiple of " +
                     std::to_string(GPTQ_ALIGNMENT));
    if (!std::binary_search(listed.begin(), listed.end(), name))
      return invalid("tensor " + quoteForMessage(name) +
                     " is not listed in the manifest's sections");
    ByteSpan bytes = st.bytes(info);
    int64_t index = weightIndex(name);
    if (startsWith(name, "code.")) {
      artifact.codes.emplace_back(name.substr(5), bytes);
    } else if (startsWith(name, "file.")) {
      artifact.files.emplace_back(name.substr(5), bytes);
    } else if (index >= 0) {
      // No file holds more weights than tensors, so this stays small.
      if (uint64_t(index) >= st.tensors().size())
        return invalid("weights are not numbered without gaps: found " +
                       quoteForMessage(name) + " among " +
                       std::to_string(st.tensors().size()) + " tensors");
      if (artifact.weights.size() <= size_t(index))
        artifact.weights.resize(index + 1);
      artifact.weights[index] = bytes;
    } else {
      return invalid("tensor " + quoteForMessage(name) +
                     " is none of manifest.json, code.<kind>, w.<i>, "
                     "file.<name> and pad.<i>");
    }
  }
  for (size_t i = 0; i < artifact.weights.size(); ++i)
    if (!artifact.weights[i].data)
      return invalid("weights are not numbered without gaps: 'w." +
                     std::to_string(i) + "' is missing");
  for (auto [kind, code] : {std::pair("cpu", "elf"), {"nvvm", "ptx"}})
    if (manifest.target.kind == kind && !artifact.findCode(code))
      return invalid(std::string("the tensor 'code.") + code + "' is missing");

  for (const ManifestEntry &entry : manifest.entries)
    for (const ManifestDispatch &dispatch : entry.dispatches)
      for (const ManifestArgument &arg : dispatch.args)
        if (arg.kind == ManifestArgument::Kind::Weight &&
            uint64_t(arg.index) >= artifact.weights.size())
          return invalid("entry " + quoteForMessage(entry.name) +
                         ", dispatch " + quoteForMessage(dispatch.name) +
                         ": weight " + std::to_string(arg.index) +
                         " does not exist, there are " +
                         std::to_string(artifact.weights.size()));
  for (const std::string &name : manifest.tokenizer.files)
    if (!artifact.findFile(name))
      return invalid("the tokenizer's tensor " +
                     quoteForMessage("file." + name) + " is missing");
  return artifact;
}

static std::optional<ByteSpan>
find(const std::vector<std::pair<std::string, ByteSpan>> &list,
     std::string_view name) {
  for (const auto &[itsName, bytes] : list)
    if (itsName == name)
      return bytes;
  return std::nullopt;
}

std::optional<ByteSpan> Artifact::findFile(std::string_view name) const {
  return find(files, name);
}

std::optional<ByteSpan> Artifact::findCode(std::string_view name) const {
  return find(codes, name);
}

Status gptq::runtime::verifyArtifact(const Artifact &artifact, int threads) {
  const std::vector<ManifestSection> &sections = artifact.manifest.sections;
  auto bytesOf = [&](const std::string &tensor) {
    if (startsWith(tensor, "code."))
      return *artifact.findCode(std::string_view(tensor).substr(5));
    if (startsWith(tensor, "file."))
      return *artifact.findFile(std::string_view(tensor).substr(5));
    return artifact.weights[weightIndex(tensor)];
  };

  std::atomic<size_t> next{0};
  std::mutex mutex;
  Status status;
  auto work = [&] {
    for (size_t i; (i = next.fetch_add(1)) < sections.size();) {
      uint64_t sum = checksum(bytesOf(sections[i].tensor));
      if (sum == sections[i].checksum)
        continue;
      std::lock_guard<std::mutex> lock(mutex);
      if (status.ok())
        status = invalid("tensor " + quoteForMessage(sections[i].tensor) +
                         " is damaged: expected the checksum " +
                         checksumText(sections[i].checksum) + ", found " +
                         checksumText(sum));
    }
  };
  std::vector<std::thread> helpers;
  for (int i = 1; i < threads && size_t(i) < sections.size(); ++i) {
    try {
      helpers.emplace_back(work);
    } catch (const std::system_error &) {
      break; // Fewer threads do the same.
    }
  }
  work();
  for (std::thread &helper : helpers)
    helper.join();
  return status;
}
