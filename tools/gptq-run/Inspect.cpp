//===- Inspect.cpp - What is inside a model -------------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Modes.h"

#include "runtime/abi/Json.h"
#include "runtime/abi/Manifest.h"

#include <cstdio>
#include <set>

using namespace gptq::abi;
using namespace gptq::run;

static std::string joined(const std::vector<std::string> &list) {
  std::string out;
  for (const std::string &item : list)
    out += (out.empty() ? "" : ", ") + item;
  return out.empty() ? "none" : out;
}

static std::string joined(const std::vector<int64_t> &list) {
  std::vector<std::string> out;
  for (int64_t item : list)
    out.push_back(std::to_string(item));
  return joined(out);
}

static std::string portText(const ManifestPort &port) {
  std::vector<std::string> shape;
  for (ManifestDim dim : port.shape)
    shape.push_back(dim.isRows() ? "M" : std::to_string(dim.size));
  return port.name + ": " + port.dtype + "[" +
         (shape.empty() ? "" : joined(shape)) + "]";
}

/// What code there is, and how much of it.
static std::string codeText(const Manifest &m) {
  std::vector<std::string> parts;
  for (const ManifestSection &section : m.sections)
    if (section.tensor.rfind("code.", 0) == 0)
      parts.push_back(section.tensor + ", " + bytesText(section.bytes));
  return joined(parts);
}

/// The kernels an entry may call.
static std::set<std::string> kernelsOf(const ManifestEntry &entry) {
  std::set<std::string> kernels;
  for (const ManifestDispatch &dispatch : entry.dispatches)
    for (const ManifestVariant &variant : dispatch.variants)
      kernels.insert(variant.symbol);
  return kernels;
}

static void row(const char *name, const std::string &value) {
  std::printf("%-14s %s\n", name, value.c_str());
}

static void printText(const Manifest &m, const gptq_model_info &info,
                      const std::string &path) {
  row("file", path + ", " + bytesText(info.file_bytes));
  row("producer", m.producer);
  row("target",
      m.target.kind + " " + m.target.name +
          (m.target.features.empty() ? ""
                                     : " (" + joined(m.target.features) + ")"));
  if (m.model) {
    row("model", m.model->name + " (" + m.model->family + "), " +
                     std::to_string(m.model->parameters) + " parameters");
    row("quantization", m.model->quantization);
    row("context", std::to_string(m.model->maxContext) + " tokens");
    row("vocabulary", std::to_string(m.model->vocabSize) + " tokens, start " +
                          joined(m.model->bosIds) + ", end " +
                          joined(m.model->eosIds));
  } else {
    row("model", "none, lone functions");
  }
  row("tokenizer", m.tokenizer.kind);
  row("chat template", m.chatTemplate.empty() ? "none" : "yes");
  row("weights", bytesText(info.weight_bytes));
  row("code", codeText(m));
  row("state", bytesText(info.state_bytes) + " in " +
                   std::to_string(m.state.size()) + " parts, at most");
  row("arena", bytesText(info.arena_bytes));
  if (info.scratch_bytes > 0 || m.target.kind == "cpu")
    row("scratch", bytesText(info.scratch_bytes) + " a thread");
  for (const ManifestEntry &entry : m.entries) {
    std::printf("entry %s: up to %lld rows, %zu dispatches\n",
                entry.name.c_str(), (long long)entry.maxM,
                entry.dispatches.size());
    for (const ManifestPort &port : entry.inputs)
      std::printf("  in  %s\n", portText(port).c_str());
    for (const ManifestPort &port : entry.outputs)
      std::printf("  out %s\n", portText(port).c_str());
    std::printf("  kernels\n");
    for (const std::string &kernel : kernelsOf(entry))
      std::printf("    %s\n", kernel.c_str());
  }
}

static void printJson(const Manifest &m, const gptq_model_info &info,
                      const std::string &path) {
  nlohmann::ordered_json out = nlohmann::ordered_json::parse(
      serializeManifest(m), nullptr, /*allow_exceptions=*/false);
  out["file"] = path;
  out["file_bytes"] = info.file_bytes;
  out["weight_bytes"] = info.weight_bytes;
  out["code_bytes"] = info.code_bytes;
  out["state_bytes"] = info.state_bytes;
  out["arena_bytes"] = info.arena_bytes;
  out["scratch_bytes"] = info.scratch_bytes;
  std::printf("%s\n", out.dump(1).c_str());
}

void gptq::run::inspect(const gptq_model *model, const std::string &path,
                        bool asJson) {
  Expected<Manifest> manifest = parseManifest(gptq_model_manifest(model));
  if (!manifest)
    throw Error(manifest.status().message());
  gptq_model_info info = infoOf(model);
  if (asJson)
    printJson(*manifest, info, path);
  else
    printText(*manifest, info, path);
}
