//===- Session.cpp - A model's state while it runs ------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/lib/Session.h"

#include "runtime/abi/Json.h"

#include <algorithm>
#include <cstring>

using namespace gptq::abi;
using namespace gptq::runtime;

static constexpr int64_t elementBytes = 4;

static int64_t aligned(int64_t bytes) {
  return (bytes + GPTQ_ALIGNMENT - 1) / GPTQ_ALIGNMENT * GPTQ_ALIGNMENT;
}

/// Makes `buffer` at least `bytes` large; its content is lost if it grows.
static Status reserve(PageBuffer &buffer, int64_t bytes) {
  if (buffer.size() >= bytes)
    return {};
  GPTQ_ASSIGN(buffer, PageBuffer::allocate(bytes));
  return {};
}

Expected<std::unique_ptr<Session>> Session::create(Model &model) {
  if (!model.canRun())
    return Status(StatusCode::InvalidArgument,
                  "the model was opened for inspection only");
  std::unique_ptr<Session> session(new Session(model));
  for (const ManifestState &state : model.manifest().state) {
    GPTQ_ASSIGN(PageBuffer buffer, PageBuffer::allocate(state.bytes));
    session->statePointers.push_back(buffer.data());
    session->states.push_back(std::move(buffer));
  }
  return session;
}

Status Session::rewind(int64_t count) {
  if (count < 0 || count > tokens)
    return makeStatus(StatusCode::InvalidArgument,
                      "expected a position of 0 to %lld to go back to, found "
                      "%lld",
                      (long long)tokens, (long long)count);
  tokens = count;
  if (count == 0)
    for (PageBuffer &state : states)
      state.clear();
  return {};
}

Status Session::eval(const int32_t *ids, int64_t count, float *allLogits) {
  const Manifest &manifest = model.manifest();
  if (!manifest.model)
    return Status(StatusCode::InvalidArgument,
                  "the model holds lone functions, not a language model");
  const char *name = allLogits ? "score" : "generate";
  const ManifestEntry *entry = manifest.findEntry(name);
  if (!entry)
    return makeStatus(StatusCode::Unsupported,
                      "the model was compiled without the entry '%s'", name);
  if (count < 1)
    return makeStatus(StatusCode::InvalidArgument,
                      "expected at least 1 token, found %lld",
                      (long long)count);
  int64_t vocab = manifest.model->vocabSize;
  int64_t room = manifest.model->maxContext - tokens;
  if (count > room)
    return makeStatus(StatusCode::OutOfRange,
                      "%lld tokens do not fit the context: %lld of %lld are "
                      "taken",
                      (long long)count, (long long)tokens,
                      (long long)manifest.model->maxContext);
  for (int64_t i = 0; i < count; ++i)
    if (ids[i] < 0 || ids[i] >= vocab)
      return makeStatus(StatusCode::InvalidArgument,
                        "token %lld of the call: expected an id of 0 to %lld, "
                        "found %d",
                        (long long)i, (long long)vocab - 1, ids[i]);

  int64_t rowsOut = allLogits ? std::min(count, entry->maxM) : 1;
  GPTQ_TRY(reserve(inputBuffer, std::min(count, entry->maxM) * elementBytes));
  lastLogits = nullptr;
  GPTQ_TRY(reserve(outputBuffer, rowsOut * vocab * elementBytes));
  const void *input = inputBuffer.data();
  void *output = outputBuffer.data();
  for (int64_t done = 0; done < count;) {
    int64_t rows = std::min(count - done, entry->maxM);
    std::memcpy(inputBuffer.data(), ids + done, rows * elementBytes);
    model.run(*entry, rows, tokens + done,
              {statePointers.data(), &input, &output});
    if (allLogits)
      std::memcpy(allLogits + done * vocab, output,
                  rows * vocab * elementBytes);
    done += rows;
  }
  tokens += count;
  if (!allLogits)
    lastLogits = reinterpret_cast<const float *>(output);
  return {};
}

/// `f32[2, M]`
static std::string typeText(const std::string &dtype,
                            const std::vector<int64_t> &shape) {
  std::string text = dtype + "[";
  for (size_t i = 0; i < shape.size(); ++i)
    text += (i ? ", " : "") + (shape[i] < 0 ? "M" : std::to_string(shape[i]));
  return text + "]";
}

static std::string typeText(const ManifestPort &port) {
  std::vector<int64_t> shape;
  for (ManifestDim dim : port.shape)
    shape.push_back(dim.size);
  return typeText(port.dtype, shape);
}

/// Checks an array against its port; learns the number of rows where `rows`
/// is still 0.
static Status checkArray(const char *what, const ManifestPort &port,
                         const HostArray &array, int64_t maxRows,
                         int64_t &rows) {
  bool matches =
      port.dtype == array.dtype && port.shape.size() == array.shape.size();
  for (size_t i = 0; matches && i < port.shape.size(); ++i) {
    int64_t found = array.shape[i];
    if (port.shape[i].isRows() && rows == 0 && found >= 1 && found <= maxRows)
      rows = found;
    matches = found == port.shape[i].at(rows);
  }
  if (matches)
    return {};
  std::string note;
  if (rows > 0)
    note = " with M = " + std::to_string(rows);
  else
    note = " with M of 1 to " + std::to_string(maxRows);
  return Status(StatusCode::InvalidArgument,
                std::string(what) + " " + quoteForMessage(port.name) +
                    ": expected " + typeText(port) + note + ", found " +
                    typeText(array.dtype, array.shape));
}

Status Session::run(const std::string &name,
                    const std::vector<HostArray> &inputs,
                    const std::vector<HostArray> &outputs) {
  const ManifestEntry *entry = model.manifest().findEntry(name);
  if (!entry)
    return Status(StatusCode::NotFound,
                  "the model has no function " + quoteForMessage(name));
  if (model.manifest().model && (name == "generate" || name == "score"))
    return Status(StatusCode::InvalidArgument,
                  "the entry " + quoteForMessage(name) +
                      " runs on tokens, not as a lone function");
  if (inputs.size() != entry->inputs.size() ||
      outputs.size() != entry->outputs.size())
    return makeStatus(StatusCode::InvalidArgument,
                      "function %s: expected %zu inputs and %zu outputs, found "
                      "%zu and %zu",
                      quoteForMessage(name).c_str(), entry->inputs.size(),
                      entry->outputs.size(), inputs.size(), outputs.size());
  int64_t rows = 0;
  int64_t inputBytes = 0, outputBytes = 0;
  for (size_t i = 0; i < inputs.size(); ++i) {
    GPTQ_TRY(
        checkArray("input", entry->inputs[i], inputs[i], entry->maxM, rows));
    inputBytes += aligned(entry->inputs[i].elements(rows) * elementBytes);
  }
  rows = std::max<int64_t>(rows, 1);
  for (size_t i = 0; i < outputs.size(); ++i) {
    GPTQ_TRY(
        checkArray("output", entry->outputs[i], outputs[i], entry->maxM, rows));
    outputBytes += aligned(entry->outputs[i].elements(rows) * elementBytes);
  }

  lastLogits = nullptr;
  GPTQ_TRY(reserve(inputBuffer, inputBytes));
  GPTQ_TRY(reserve(outputBuffer, outputBytes));
  std::vector<const void *> inputPointers;
  std::vector<void *> outputPointers;
  uint8_t *at = inputBuffer.data();
  for (size_t i = 0; i < inputs.size(); ++i) {
    int64_t bytes = entry->inputs[i].elements(rows) * elementBytes;
    if (bytes > 0)
      std::memcpy(at, inputs[i].data, bytes);
    inputPointers.push_back(at);
    at += aligned(bytes);
  }
  at = outputBuffer.data();
  for (size_t i = 0; i < outputs.size(); ++i) {
    outputPointers.push_back(at);
    at += aligned(entry->outputs[i].elements(rows) * elementBytes);
  }
  model.run(
      *entry, rows, /*position=*/0,
      {statePointers.data(), inputPointers.data(), outputPointers.data()});
  for (size_t i = 0; i < outputs.size(); ++i) {
    int64_t bytes = entry->outputs[i].elements(rows) * elementBytes;
    if (bytes > 0)
      std::memcpy(outputs[i].data, outputPointers[i], bytes);
  }
  return {};
}
