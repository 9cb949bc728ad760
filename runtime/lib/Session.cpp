//===- Session.cpp - A model's state while it runs ------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/lib/Session.h"

#include "runtime/abi/Json.h"
#include "runtime/lib/Half.h"

#include <algorithm>
#include <cstring>

using namespace gptq::abi;
using namespace gptq::runtime;

Expected<std::unique_ptr<Session>> Session::create(Model &model) {
  if (!model.canRun())
    return Status(StatusCode::InvalidArgument,
                  "the model was opened for inspection only");
  std::unique_ptr<Session> session(new Session(model));
  GPTQ_ASSIGN(session->memory, model.device().createSession());
  return session;
}

Status Session::rewind(int64_t count) {
  if (count < 0 || count > tokens)
    return makeStatus(StatusCode::InvalidArgument,
                      "expected a position of 0 to %lld to go back to, found "
                      "%lld",
                      (long long)tokens, (long long)count);
  if (count == 0)
    GPTQ_TRY(memory->clear());
  tokens = count;
  return {};
}

Expected<const ManifestEntry *>
Session::entryFor(const char *name, const int32_t *ids, int64_t count) const {
  const Manifest &manifest = model.manifest();
  if (!manifest.model)
    return Status(StatusCode::InvalidArgument,
                  "the model holds lone functions, not a language model");
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
  return entry;
}

Status Session::eval(const int32_t *ids, int64_t count, float *allLogits) {
  GPTQ_ASSIGN(const ManifestEntry *entry,
              entryFor(allLogits ? "score" : "generate", ids, count));
  // What decodes has an entry of its own; the token it chooses is not looked
  // at.
  const ManifestEntry *next = model.manifest().findEntry("next");
  if (!allLogits && count == 1 && next && next->outputs.size() == 2)
    entry = next;
  int64_t vocab = model.manifest().model->vocabSize;
  lastLogits = nullptr;
  const float *logits = nullptr;
  for (int64_t done = 0; done < count;) {
    int64_t rows = std::min(count - done, entry->maxM);
    GPTQ_ASSIGN(CallBuffers buffers, memory->prepare(*entry, rows));
    std::memcpy(buffers.inputs[0], ids + done, rows * sizeof(int32_t));
    GPTQ_TRY(memory->run(*entry, rows, tokens + done));
    logits = reinterpret_cast<const float *>(buffers.outputs.back());
    if (allLogits)
      std::memcpy(allLogits + done * vocab, logits,
                  rows * vocab * sizeof(float));
    done += rows;
  }
  tokens += count;
  if (!allLogits)
    lastLogits = logits;
  return {};
}

Expected<int32_t> Session::next(int32_t token) {
  return chooseWith("next", token, nullptr);
}

Expected<int32_t> Session::sample(const Sampler &sampler, int32_t token) {
  if (sampler.isGreedy())
    return next(token);
  GPTQ_ASSIGN(const ManifestEntry *entry, entryFor("sample", &token, 1));
  if (!model.chooses(sampler))
    return makeStatus(StatusCode::Unsupported,
                      "expected a top-k of 1 to %lld, which the model's device "
                      "samples with, found %d",
                      (long long)entry->maxTopK, sampler.settings().topK);
  const SamplingWords how = sampler.words();
  return chooseWith("sample", token, &how);
}

Expected<int32_t> Session::chooseWith(const char *name, int32_t token,
                                      const SamplingWords *how) {
  GPTQ_ASSIGN(const ManifestEntry *entry, entryFor(name, &token, 1));
  const ManifestModel &m = *model.manifest().model;
  lastLogits = nullptr;
  GPTQ_ASSIGN(int32_t chosen, memory->next(*entry, token, how, tokens,
                                           tokens + 1 < m.maxContext));
  if (chosen < 0 || chosen >= m.vocabSize)
    return makeStatus(StatusCode::InvalidFile,
                      "the entry '%s' chose the token %d, expected an id of "
                      "0 to %lld",
                      name, chosen, (long long)m.vocabSize - 1);
  ++tokens;
  return chosen;
}

/// `f32[2, M]`
static std::string typeText(const std::string &dtype,
                            const std::vector<int64_t> &shape) {
  std::string text = dtype + "[";
  for (size_t i = 0; i < shape.size(); ++i)
    text += (i ? ", " : "") + (shape[i] < 0 ? "M" : std::to_string(shape[i]));
  return text + "]";
}

/// What a host hands over for `port`.
static std::string hostDtype(const ManifestPort &port) {
  return port.isHalf() ? "f32" : port.dtype;
}

static std::string typeText(const ManifestPort &port) {
  std::vector<int64_t> shape;
  for (ManifestDim dim : port.shape)
    shape.push_back(dim.size);
  return typeText(hostDtype(port), shape);
}

/// Whether a call of many rows is the same as calls of some of them each: each
/// row of a result comes from rows of the same number alone, because nothing
/// is kept between calls and rows are the first dimension of all that has them.
static bool isRowwise(const ManifestEntry &entry) {
  for (const ManifestDispatch &dispatch : entry.dispatches)
    for (const ManifestArgument &arg : dispatch.args)
      if (arg.kind == ManifestArgument::Kind::State)
        return false;
  auto isSplit = [](const ManifestPort &port) {
    return !port.shape.empty() && port.shape.front().isRows();
  };
  auto hasLaterRows = [](const ManifestPort &port) {
    return port.shape.size() > 1 &&
           std::any_of(port.shape.begin() + 1, port.shape.end(),
                       [](ManifestDim dim) { return dim.isRows(); });
  };
  return std::all_of(entry.outputs.begin(), entry.outputs.end(), isSplit) &&
         std::none_of(entry.inputs.begin(), entry.inputs.end(), hasLaterRows) &&
         std::none_of(entry.outputs.begin(), entry.outputs.end(), hasLaterRows);
}

/// The bytes of a host's array in front of a row.
static int64_t bytesBefore(const ManifestPort &port, int64_t row) {
  if (port.shape.empty() || !port.shape.front().isRows())
    return 0;
  // A host's array is never of half precision.
  return port.elements(row) * 4;
}

/// Checks an array against its port; learns the number of rows where `rows`
/// is still 0.
static Status checkArray(const char *what, const ManifestPort &port,
                         const HostArray &array, int64_t maxRows,
                         int64_t &rows) {
  bool matches =
      hostDtype(port) == array.dtype && port.shape.size() == array.shape.size();
  for (size_t i = 0; matches && i < port.shape.size(); ++i) {
    int64_t found = array.shape[i];
    if (port.shape[i].isRows() && rows == 0 && found >= 1 && found <= maxRows)
      rows = found;
    matches = found == port.shape[i].at(rows) && found > 0;
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

/// Writes the array of a host as `port` holds it.
static void toDevice(const ManifestPort &port, int64_t rows, const void *from,
                     uint8_t *to) {
  int64_t count = port.elements(rows);
  if (!port.isHalf()) {
    if (count > 0)
      std::memcpy(to, from, count * port.elementBytes());
    return;
  }
  auto narrow = port.dtype == "f16" ? narrowToF16 : narrowToBF16;
  for (int64_t i = 0; i < count; ++i) {
    float value;
    std::memcpy(&value, static_cast<const char *>(from) + i * 4, 4);
    uint16_t half = narrow(value);
    std::memcpy(to + i * 2, &half, 2);
  }
}

/// The inverse of toDevice, but for rounding.
static void toHost(const ManifestPort &port, int64_t rows, const uint8_t *from,
                   void *to) {
  int64_t count = port.elements(rows);
  if (!port.isHalf()) {
    if (count > 0)
      std::memcpy(to, from, count * port.elementBytes());
    return;
  }
  auto widen = port.dtype == "f16" ? widenF16 : widenBF16;
  for (int64_t i = 0; i < count; ++i) {
    uint16_t half;
    std::memcpy(&half, from + i * 2, 2);
    float value = widen(half);
    std::memcpy(static_cast<char *>(to) + i * 4, &value, 4);
  }
}

Status Session::run(const std::string &name,
                    const std::vector<HostArray> &inputs,
                    const std::vector<HostArray> &outputs) {
  const ManifestEntry *entry = model.manifest().findEntry(name);
  if (!entry)
    return Status(StatusCode::NotFound,
                  "the model has no function " + quoteForMessage(name));
  if (model.manifest().model && isLanguageModelEntry(name))
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
  const int64_t maxRows = isRowwise(*entry) ? limits::count : entry->maxM;
  for (size_t i = 0; i < inputs.size(); ++i)
    GPTQ_TRY(checkArray("input", entry->inputs[i], inputs[i], maxRows, rows));
  rows = std::max<int64_t>(rows, 1);
  for (size_t i = 0; i < outputs.size(); ++i)
    GPTQ_TRY(
        checkArray("output", entry->outputs[i], outputs[i], maxRows, rows));

  lastLogits = nullptr;
  for (int64_t done = 0; done < rows; done += entry->maxM) {
    const int64_t m = std::min(rows - done, entry->maxM);
    GPTQ_ASSIGN(CallBuffers buffers, memory->prepare(*entry, m));
    for (size_t i = 0; i < inputs.size(); ++i) {
      const ManifestPort &port = entry->inputs[i];
      toDevice(port, m,
               static_cast<const uint8_t *>(inputs[i].data) +
                   bytesBefore(port, done),
               buffers.inputs[i]);
    }
    GPTQ_TRY(memory->run(*entry, m, /*position=*/0));
    for (size_t i = 0; i < outputs.size(); ++i) {
      const ManifestPort &port = entry->outputs[i];
      toHost(port, m, buffers.outputs[i],
             static_cast<uint8_t *>(outputs[i].data) + bytesBefore(port, done));
    }
  }
  return {};
}
