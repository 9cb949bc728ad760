//===- Model.cpp - A loaded model -----------------------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/lib/Model.h"

#include "runtime/abi/Json.h"
#include "runtime/lib/ThreadPool.h"

using namespace gptq::abi;
using namespace gptq::runtime;

/// Most threads worth asking for; more is a slip of the keyboard.
static constexpr int maxThreads = 1024;

/// Makes the place that the model is compiled for.
static Expected<std::unique_ptr<Device>>
createDevice(const Artifact &artifact, int threads, int ordinal) {
  const std::string &kind = artifact.manifest.target.kind;
  if (kind == "nvvm")
    return createCudaDevice(artifact, ordinal);
  if (kind != "cpu")
    return makeStatus(StatusCode::Unsupported,
                      "the model is compiled for the target %s, this runtime "
                      "runs 'cpu' and 'nvvm'",
                      quoteForMessage(kind).c_str());
  if (ordinal != 0)
    return makeStatus(StatusCode::InvalidArgument,
                      "the model is compiled for a processor, so it cannot "
                      "run on device %d",
                      ordinal);
  return createCpuDevice(artifact, threads);
}

Expected<std::unique_ptr<Model>> Model::open(const std::string &path,
                                             ModelOptions options) {
  if (options.threads < 0 || options.threads > maxThreads)
    return makeStatus(StatusCode::InvalidArgument,
                      "expected 0 to %d threads, found %d", maxThreads,
                      options.threads);
  int threads = options.threads ? options.threads : defaultThreadCount();

  std::unique_ptr<Model> model(new Model);
  GPTQ_ASSIGN(model->file, MappedFile::open(path));
  auto load = [&]() -> Status {
    GPTQ_ASSIGN(model->contents, readArtifact(model->file.bytes()));
    const Manifest &manifest = model->manifest();
    if (manifest.model) {
      for (int64_t id : manifest.model->bosIds)
        model->bos.push_back(int32_t(id));
      for (int64_t id : manifest.model->eosIds)
        model->eos.push_back(int32_t(id));
    }
    if (options.verify)
      GPTQ_TRY(verifyArtifact(model->contents, threads));
    if (options.inspectOnly)
      return {};
    GPTQ_TRY(model->loadTokenizer());
    GPTQ_ASSIGN(model->place,
                createDevice(model->contents, threads, options.device));
    return {};
  };
  Status status = load();
  if (!status.ok())
    return status.withContext(path);
  return model;
}

Status Model::loadTokenizer() {
  const Manifest &m = manifest();
  auto fileOf = [&](const char *name) -> Expected<ByteSpan> {
    if (std::optional<ByteSpan> bytes = contents.findFile(name))
      return *bytes;
    return makeStatus(StatusCode::InvalidFile,
                      "the tokenizer of kind %s needs the tensor 'file.%s'",
                      quoteForMessage(m.tokenizer.kind).c_str(), name);
  };
  if (m.tokenizer.kind == "sentencepiece") {
    GPTQ_ASSIGN(ByteSpan bytes, fileOf("tokenizer.model"));
    GPTQ_ASSIGN(textTokenizer, readSentencePiece(bytes));
  } else if (m.tokenizer.kind == "bpe") {
    GPTQ_ASSIGN(ByteSpan bytes, fileOf("tokenizer.json"));
    GPTQ_ASSIGN(textTokenizer, readTokenizerJson(bytes));
  }
  // A template this runtime cannot read is no reason not to run the model;
  // whoever asks for it learns why.
  if (m.chatTemplate.empty())
    chat.emplace(
        Status(StatusCode::NotFound, "the model has no chat template"));
  else
    chat.emplace(ChatTemplate::parse(m.chatTemplate));
  return {};
}

bool Model::chooses(const Sampler &sampler) const {
  if (sampler.isGreedy())
    return manifest().findEntry("next") != nullptr;
  const ManifestEntry *entry = manifest().findEntry("sample");
  const int topK = sampler.settings().topK;
  return entry && topK >= 1 && topK <= entry->maxTopK;
}
