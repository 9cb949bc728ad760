//===- Model.cpp - A loaded model -----------------------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/lib/Model.h"

#include "runtime/abi/Json.h"
#include "runtime/lib/CpuFeatures.h"

#include <algorithm>

using namespace gptq::abi;
using namespace gptq::runtime;

/// Most threads worth asking for; more is a slip of the keyboard.
static constexpr int maxThreads = 1024;

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
    for (const ManifestEntry &entry : manifest.entries) {
      model->arenaSize = std::max(model->arenaSize, entry.arenaBytes);
      for (const ManifestDispatch &dispatch : entry.dispatches)
        for (const ManifestVariant &variant : dispatch.variants)
          model->scratchSize =
              std::max(model->scratchSize, variant.scratchBytes);
    }
    if (options.verify)
      GPTQ_TRY(verifyArtifact(model->contents, threads));
    if (options.inspectOnly)
      return {};
    if (manifest.target.kind != "cpu")
      return makeStatus(StatusCode::Unsupported,
                        "the model is compiled for the target %s, this "
                        "runtime runs 'cpu'",
                        quoteForMessage(manifest.target.kind).c_str());
    GPTQ_TRY(checkCpuFeatures(manifest.target.features));
    GPTQ_TRY(model->loadTokenizer());
    GPTQ_TRY(model->loadCode());
    GPTQ_ASSIGN(model->arena, PageBuffer::allocate(model->arenaSize));
    GPTQ_ASSIGN(model->pool, ThreadPool::create(threads, model->scratchSize));
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

Status Model::loadCode() {
  GPTQ_ASSIGN(code, CodeObject::load(contents.code));
  for (const ManifestEntry &entry : manifest().entries) {
    Program program;
    for (const ManifestDispatch &dispatch : entry.dispatches) {
      Step step;
      step.dispatch = &dispatch;
      step.firstArg = program.argCount;
      program.argCount += dispatch.args.size();
      for (const ManifestVariant &variant : dispatch.variants) {
        GPTQ_ASSIGN(gptq_cpu_kernel function, code.find(variant.symbol));
        step.kernels.push_back({function, &variant});
      }
      program.steps.push_back(std::move(step));
    }
    programs.push_back(std::move(program));
  }
  return {};
}

void Model::run(const ManifestEntry &entry, int64_t rows, int64_t position,
                const CallMemory &memory) {
  std::lock_guard<std::mutex> lock(mutex);
  const Program &program = programs[&entry - manifest().entries.data()];
  args.resize(program.argCount);
  tasks.resize(program.steps.size());
  for (size_t i = 0; i < program.steps.size(); ++i) {
    const Step &step = program.steps[i];
    void **arg = args.data() + step.firstArg;
    for (size_t j = 0; j < step.dispatch->args.size(); ++j) {
      const ManifestArgument &a = step.dispatch->args[j];
      switch (a.kind) {
      case ManifestArgument::Kind::Arena:
        arg[j] = arena.data() + a.offset;
        break;
      case ManifestArgument::Kind::Weight:
        arg[j] = const_cast<uint8_t *>(contents.weights[a.index].data);
        break;
      case ManifestArgument::Kind::State:
        arg[j] = memory.states[a.index];
        break;
      case ManifestArgument::Kind::Input:
        arg[j] = const_cast<void *>(memory.inputs[a.index]);
        break;
      case ManifestArgument::Kind::Output:
        arg[j] = memory.outputs[a.index];
        break;
      }
    }
    const Kernel *kernel = step.kernels.data();
    while (kernel->variant->mMax < rows)
      ++kernel;
    int64_t workgroups = kernel->variant->workgroups(rows, position);
    // Eight draws a thread even out uneven speed at little cost in draws.
    int64_t chunk = workgroups / (int64_t(pool->threads()) * 8);
    tasks[i] = {kernel->function, arg, workgroups, std::max<int64_t>(chunk, 1)};
  }
  int64_t dims[GPTQ_NUM_DIMS];
  dims[GPTQ_DIM_M] = rows;
  dims[GPTQ_DIM_P] = position;
  pool->run(tasks.data(), tasks.size(), dims);
}
