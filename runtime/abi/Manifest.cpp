//===- Manifest.cpp - What a compiled model says about itself -------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/abi/Manifest.h"

#include "runtime/abi/Checksum.h"
#include "runtime/abi/Json.h"
#include "runtime/abi/KernelABI.h"
#include "runtime/abi/Sampling.h"

#include <set>

using namespace gptq::abi;

namespace {

//===----------------------------------------------------------------------===//
// Reading
//===----------------------------------------------------------------------===//

Status read(const JsonView &view, std::string &out) {
  GPTQ_ASSIGN(out, view.string());
  return {};
}

Status read(const JsonView &view, bool &out) {
  GPTQ_ASSIGN(out, view.boolean());
  return {};
}

Status read(const JsonView &view, int64_t &out) {
  GPTQ_ASSIGN(out, view.integer());
  return {};
}

Status read(const JsonView &view, ManifestSection &out);
Status read(const JsonView &view, ManifestState &out);
Status read(const JsonView &view, ManifestDim &out);
Status read(const JsonView &view, ManifestPort &out);
Status read(const JsonView &view, ManifestArgument &out);
Status read(const JsonView &view, GridFactor &out);
Status read(const JsonView &view, ManifestVariant &out);
Status read(const JsonView &view, ManifestDispatch &out);
Status read(const JsonView &view, ManifestEntry &out);

template <typename T> Status read(const JsonView &view, std::vector<T> &out) {
  GPTQ_ASSIGN(std::vector<JsonView> elements, view.elements());
  out.resize(elements.size());
  for (size_t i = 0; i < elements.size(); ++i)
    GPTQ_TRY(read(elements[i], out[i]));
  return {};
}

/// Reads the member `key`, which must be there.
template <typename T>
Status readAt(const JsonView &view, const char *key, T &out) {
  GPTQ_ASSIGN(JsonView member, view.at(key));
  return read(member, out);
}

/// Reads the member `key`; without it `out` stays as it is.
template <typename T>
Status readIfThere(const JsonView &view, const char *key, T &out) {
  if (std::optional<JsonView> member = view.find(key))
    return read(*member, out);
  return {};
}

Status read(const JsonView &view, ManifestSection &out) {
  GPTQ_TRY(readAt(view, "tensor", out.tensor));
  GPTQ_TRY(readAt(view, "bytes", out.bytes));
  std::string text;
  GPTQ_TRY(readAt(view, "checksum", text));
  std::optional<uint64_t> sum = parseChecksum(text);
  if (!sum)
    return makeStatus(StatusCode::InvalidFile,
                      "%s.checksum: expected 16 hex digits, found %s",
                      view.path().c_str(), quoteForMessage(text).c_str());
  out.checksum = *sum;
  return {};
}

Status read(const JsonView &view, ManifestState &out) {
  GPTQ_TRY(readAt(view, "name", out.name));
  return readAt(view, "bytes", out.bytes);
}

Status read(const JsonView &view, ManifestDim &out) {
  if (view.raw() == "M") {
    out = ManifestDim::rows();
    return {};
  }
  if (!view.raw().is_number_integer())
    return view.mismatch("an integer or \"M\"");
  return read(view, out.size);
}

Status read(const JsonView &view, ManifestPort &out) {
  GPTQ_TRY(readAt(view, "name", out.name));
  GPTQ_TRY(readAt(view, "dtype", out.dtype));
  return readAt(view, "shape", out.shape);
}

Status read(const JsonView &view, ManifestArgument &out) {
  GPTQ_TRY(view.expectObject());
  using Kind = ManifestArgument::Kind;
  if (std::optional<JsonView> offset = view.find("arena")) {
    out.kind = Kind::Arena;
    GPTQ_TRY(read(*offset, out.offset));
    std::vector<int64_t> size;
    GPTQ_TRY(readAt(view, "size", size));
    if (size.size() != 2)
      return makeStatus(StatusCode::InvalidFile,
                        "%s.size: expected 2 integers, found %zu",
                        view.path().c_str(), size.size());
    out.sizeBase = size[0];
    out.sizePerRow = size[1];
    return {};
  }
  for (auto [key, kind] : {std::pair("weight", Kind::Weight),
                           {"state", Kind::State},
                           {"input", Kind::Input},
                           {"output", Kind::Output}})
    if (std::optional<JsonView> index = view.find(key)) {
      out.kind = kind;
      GPTQ_TRY(read(*index, out.index));
      std::vector<int64_t> experts;
      GPTQ_TRY(readIfThere(view, "experts", experts));
      if (experts.empty())
        return {};
      if (experts.size() != 2)
        return makeStatus(StatusCode::InvalidFile,
                          "%s.experts: expected 2 integers, found %zu",
                          view.path().c_str(), experts.size());
      out.expertsUsed = experts[0];
      out.experts = experts[1];
      return {};
    }
  return makeStatus(StatusCode::InvalidFile,
                    "%s: expected one of the keys arena, weight, state, input "
                    "and output",
                    view.path().c_str());
}

Status read(const JsonView &view, GridFactor &out) {
  std::vector<int64_t> numbers;
  GPTQ_TRY(read(view, numbers));
  if (numbers.size() != 4)
    return makeStatus(StatusCode::InvalidFile,
                      "%s: expected 4 integers, found %zu", view.path().c_str(),
                      numbers.size());
  out = {numbers[0], numbers[1], numbers[2], numbers[3]};
  return {};
}

Status read(const JsonView &view, ManifestVariant &out) {
  GPTQ_TRY(readAt(view, "m_max", out.mMax));
  GPTQ_TRY(readAt(view, "symbol", out.symbol));
  GPTQ_TRY(readAt(view, "grid", out.grid));
  GPTQ_TRY(readAt(view, "scratch_bytes", out.scratchBytes));
  GPTQ_TRY(readIfThere(view, "threads", out.threads));
  GPTQ_TRY(readIfThere(view, "shared_bytes", out.sharedBytes));
  return readIfThere(view, "overlap", out.overlap);
}

Status read(const JsonView &view, ManifestDispatch &out) {
  GPTQ_TRY(readAt(view, "name", out.name));
  GPTQ_TRY(readAt(view, "args", out.args));
  return readAt(view, "variants", out.variants);
}

Status read(const JsonView &view, ManifestEntry &out) {
  GPTQ_TRY(readAt(view, "name", out.name));
  GPTQ_TRY(readAt(view, "max_m", out.maxM));
  GPTQ_TRY(readAt(view, "arena_bytes", out.arenaBytes));
  GPTQ_TRY(readAt(view, "inputs", out.inputs));
  GPTQ_TRY(readAt(view, "outputs", out.outputs));
  GPTQ_TRY(readIfThere(view, "max_top_k", out.maxTopK));
  return readAt(view, "dispatches", out.dispatches);
}

Status readModel(const JsonView &view, ManifestModel &out) {
  GPTQ_TRY(readAt(view, "family", out.family));
  GPTQ_TRY(readAt(view, "name", out.name));
  GPTQ_TRY(readAt(view, "vocab_size", out.vocabSize));
  GPTQ_TRY(readAt(view, "max_context", out.maxContext));
  GPTQ_TRY(readAt(view, "bos_ids", out.bosIds));
  GPTQ_TRY(readAt(view, "eos_ids", out.eosIds));
  GPTQ_TRY(readAt(view, "add_bos", out.addBos));
  GPTQ_TRY(readAt(view, "parameters", out.parameters));
  return readAt(view, "quantization", out.quantization);
}

//===----------------------------------------------------------------------===//
// Checking
//===----------------------------------------------------------------------===//

/// Accumulates where a check stands, for its message.
Status invalid(const std::string &where, const std::string &what) {
  return Status(StatusCode::InvalidFile, "manifest: " + where + ": " + what);
}

Status checkRange(const std::string &where, int64_t value, int64_t min,
                  int64_t max) {
  if (value >= min && value <= max)
    return {};
  return invalid(where, "expected " + std::to_string(min) + " to " +
                            std::to_string(max) + ", found " +
                            std::to_string(value));
}

Status checkName(const std::string &where, const std::string &name) {
  if (name.empty() || name.size() > limits::nameLength ||
      name.find('\0') != std::string::npos)
    return invalid(where, "expected a name of 1 to " +
                              std::to_string(limits::nameLength) +
                              " characters, found " + quoteForMessage(name));
  return {};
}

Status checkPort(const std::string &where, const ManifestPort &port,
                 int64_t maxM) {
  GPTQ_TRY(checkName(where + ".name", port.name));
  if (port.dtype != "f32" && port.dtype != "i32" && !port.isHalf())
    return invalid(where + ".dtype", "expected f32, i32, f16 or bf16, found " +
                                         quoteForMessage(port.dtype));
  // At most four bytes an element; the product is bounded step by step.
  int64_t elements = 1;
  for (ManifestDim dim : port.shape) {
    GPTQ_TRY(checkRange(where + ".shape", dim.at(maxM), 0, limits::count));
    if (__builtin_mul_overflow(elements, dim.at(maxM), &elements) ||
        elements > limits::bytes / 4)
      return invalid(where + ".shape", "is larger than " +
                                           std::to_string(limits::bytes) +
                                           " bytes");
  }
  return {};
}

Status checkArgument(const std::string &where, const ManifestArgument &arg,
                     const ManifestEntry &entry, const Manifest &manifest) {
  auto checkIndex = [&](const char *what, size_t count) -> Status {
    if (arg.index >= 0 && uint64_t(arg.index) < count)
      return {};
    return invalid(where, std::string(what) + " " + std::to_string(arg.index) +
                              " does not exist, there are " +
                              std::to_string(count));
  };
  switch (arg.kind) {
  case ManifestArgument::Kind::Arena: {
    GPTQ_TRY(checkRange(where + ".arena", arg.offset, 0, limits::bytes));
    GPTQ_TRY(checkRange(where + ".size[0]", arg.sizeBase, 0, limits::bytes));
    GPTQ_TRY(checkRange(where + ".size[1]", arg.sizePerRow, 0,
                        limits::bytes / std::max<int64_t>(entry.maxM, 1)));
    if (arg.offset % GPTQ_ALIGNMENT != 0)
      return invalid(where + ".arena", "expected a multiple of " +
                                           std::to_string(GPTQ_ALIGNMENT) +
                                           ", found " +
                                           std::to_string(arg.offset));
    int64_t end = arg.offset + arg.sizeBase + arg.sizePerRow * entry.maxM;
    if (end > entry.arenaBytes)
      return invalid(where, "reaches to byte " + std::to_string(end) +
                                " of an arena of " +
                                std::to_string(entry.arenaBytes));
    return {};
  }
  case ManifestArgument::Kind::Weight:
    GPTQ_TRY(checkRange(where + ".experts[1]", arg.experts, 0, limits::count));
    GPTQ_TRY(checkRange(where + ".experts[0]", arg.expertsUsed,
                        arg.experts ? 1 : 0, arg.experts));
    return checkRange(where + ".weight", arg.index, 0, limits::count);
  case ManifestArgument::Kind::State:
    return checkIndex("state", manifest.state.size());
  case ManifestArgument::Kind::Input:
    return checkIndex("input", entry.inputs.size());
  case ManifestArgument::Kind::Output:
    return checkIndex("output", entry.outputs.size());
  }
  return {};
}

Status checkVariant(const std::string &where, const ManifestVariant &variant,
                    int64_t maxM, int64_t maxContext, bool isGpu) {
  GPTQ_TRY(checkName(where + ".symbol", variant.symbol));
  GPTQ_TRY(checkRange(where + ".scratch_bytes", variant.scratchBytes, 0,
                      isGpu ? 0 : limits::scratchBytes));
  GPTQ_TRY(checkRange(where + ".threads", variant.threads, isGpu ? 1 : 0,
                      isGpu ? limits::gpuThreads : 0));
  GPTQ_TRY(checkRange(where + ".shared_bytes", variant.sharedBytes, 0,
                      isGpu ? limits::gpuSharedBytes : 0));
  if (variant.overlap && !isGpu)
    return invalid(where + ".overlap", "is for kernels of a GPU");
  int64_t most = isGpu ? limits::gpuWorkgroups : limits::workgroups;
  int64_t product = 1;
  for (const GridFactor &f : variant.grid) {
    std::string factor = where + ".grid";
    GPTQ_TRY(checkRange(factor, f.a, 0, limits::count));
    GPTQ_TRY(checkRange(factor, f.b, 0, limits::count));
    GPTQ_TRY(checkRange(factor, f.c, 0, limits::bytes));
    GPTQ_TRY(checkRange(factor, f.d, 1, limits::bytes));
    // The largest value: every term grows with M and P. a and b times their
    // symbol stay below 2^62.
    int64_t am = 0, bp = 0, sum = 0;
    if (__builtin_mul_overflow(f.a, maxM, &am) ||
        __builtin_mul_overflow(f.b, maxContext, &bp) ||
        __builtin_add_overflow(am, bp, &sum) ||
        __builtin_add_overflow(sum, f.c + f.d, &sum) ||
        __builtin_mul_overflow(product, f.at(maxM, maxContext), &product) ||
        product > most)
      return invalid(factor,
                     "can exceed " + std::to_string(most) + " workgroups");
    // A factor that is 0 for the largest M is 0 always; keep later factors
    // checked all the same.
    product = std::max<int64_t>(product, 1);
  }
  return {};
}

Status checkEntry(const std::string &where, const ManifestEntry &entry,
                  const Manifest &manifest) {
  int64_t maxContext = manifest.model ? manifest.model->maxContext : 0;
  bool isGpu = manifest.target.kind == "nvvm";
  GPTQ_TRY(checkName(where + ".name", entry.name));
  GPTQ_TRY(checkRange(where + ".max_m", entry.maxM, 1, limits::count));
  GPTQ_TRY(
      checkRange(where + ".arena_bytes", entry.arenaBytes, 0, limits::bytes));
  for (size_t i = 0; i < entry.inputs.size(); ++i)
    GPTQ_TRY(checkPort(where + ".inputs[" + std::to_string(i) + "]",
                       entry.inputs[i], entry.maxM));
  for (size_t i = 0; i < entry.outputs.size(); ++i)
    GPTQ_TRY(checkPort(where + ".outputs[" + std::to_string(i) + "]",
                       entry.outputs[i], entry.maxM));
  for (size_t i = 0; i < entry.dispatches.size(); ++i) {
    const ManifestDispatch &dispatch = entry.dispatches[i];
    std::string at = where + ".dispatches[" + std::to_string(i) + "]";
    for (size_t j = 0; j < dispatch.args.size(); ++j)
      GPTQ_TRY(checkArgument(at + ".args[" + std::to_string(j) + "]",
                             dispatch.args[j], entry, manifest));
    if (dispatch.variants.empty())
      return invalid(at, "has no variants");
    int64_t previous = 0;
    for (size_t j = 0; j < dispatch.variants.size(); ++j) {
      const ManifestVariant &variant = dispatch.variants[j];
      std::string v = at + ".variants[" + std::to_string(j) + "]";
      if (variant.mMax <= previous)
        return invalid(v + ".m_max", "expected more than " +
                                         std::to_string(previous) + ", found " +
                                         std::to_string(variant.mMax));
      previous = variant.mMax;
      GPTQ_TRY(checkVariant(v, variant, entry.maxM, maxContext, isGpu));
    }
    if (previous < entry.maxM)
      return invalid(at + ".variants", "cover " + std::to_string(previous) +
                                           " rows, the entry takes " +
                                           std::to_string(entry.maxM));
  }
  return {};
}

/// `generate` and `score` take the tokens of the call and give logits, `next`
/// takes one token and gives another, and perhaps the logits; `sample` also
/// takes how to draw and gives the token alone.
Status checkLanguageModelEntry(const std::string &where,
                               const ManifestEntry &entry,
                               const ManifestModel &model,
                               const ManifestTarget &target) {
  const bool isScore = entry.name == "score", isNext = entry.name == "next",
             isSample = entry.name == "sample";
  auto matches = [](const ManifestPort &port, const char *dtype,
                    std::vector<int64_t> shape) {
    if (port.dtype != dtype || port.shape.size() != shape.size())
      return false;
    for (size_t i = 0; i < shape.size(); ++i)
      if (port.shape[i].size != shape[i])
        return false;
    return true;
  };
  if (isSample) {
    if (entry.inputs.size() != 2 || !matches(entry.inputs[0], "i32", {1}) ||
        !matches(entry.inputs[1], "i32", {sampling::NumWords}))
      return invalid(where + ".inputs",
                     "expected inputs i32[1] and i32[" +
                         std::to_string(int(sampling::NumWords)) + "]");
    if (entry.outputs.size() != 1 || !matches(entry.outputs[0], "i32", {1}))
      return invalid(where + ".outputs", "expected one output i32[1]");
    if (target.kind == "cpu")
      return invalid(where, "'sample' is for targets that keep the position in "
                            "the memory of a device");
    GPTQ_TRY(
        checkRange(where + ".max_top_k", entry.maxTopK, 1, limits::count - 1));
    return checkRange(where + ".max_m", entry.maxM, 1, 1);
  }
  if (entry.inputs.size() != 1 ||
      (!matches(entry.inputs[0], "i32", {-1}) &&
       !(isNext && matches(entry.inputs[0], "i32", {1}))))
    return invalid(where + ".inputs", "expected one input i32[M]");
  if (isNext) {
    if (entry.outputs.empty() || entry.outputs.size() > 2 ||
        !matches(entry.outputs[0], "i32", {1}) ||
        (entry.outputs.size() == 2 &&
         !matches(entry.outputs[1], "f32", {1, model.vocabSize})))
      return invalid(where + ".outputs",
                     "expected an output i32[1], then perhaps f32[1, " +
                         std::to_string(model.vocabSize) + "]");
    if (target.kind == "cpu")
      return invalid(where, "'next' is for targets that keep the position in "
                            "the memory of a device");
    return checkRange(where + ".max_m", entry.maxM, 1, 1);
  }
  if (entry.outputs.size() != 1 ||
      !matches(entry.outputs[0], "f32", {isScore ? -1 : 1, model.vocabSize}))
    return invalid(where + ".outputs", std::string("expected one output f32[") +
                                           (isScore ? "M" : "1") + ", " +
                                           std::to_string(model.vocabSize) +
                                           "]");
  if (entry.maxM > model.maxContext)
    return invalid(where + ".max_m", "expected at most max_context, " +
                                         std::to_string(model.maxContext) +
                                         ", found " +
                                         std::to_string(entry.maxM));
  return {};
}

} // namespace

Status gptq::abi::checkManifest(const Manifest &m) {
  if (m.target.kind.empty())
    return invalid("target.kind", "is empty");
  if (m.target.kind == "nvvm" && !ComputeCapability::parse(m.target.name))
    return invalid("target.name", "expected an architecture like sm_90a, "
                                  "found " +
                                      quoteForMessage(m.target.name));
  const std::string &kind = m.tokenizer.kind;
  if (kind != "sentencepiece" && kind != "bpe" && kind != "none")
    return invalid("tokenizer.kind",
                   "expected sentencepiece, bpe or none, found " +
                       quoteForMessage(kind));
  for (size_t i = 0; i < m.tokenizer.files.size(); ++i)
    GPTQ_TRY(checkName("tokenizer.files[" + std::to_string(i) + "]",
                       m.tokenizer.files[i]));
  if (m.model) {
    GPTQ_TRY(
        checkRange("model.vocab_size", m.model->vocabSize, 1, limits::count));
    GPTQ_TRY(
        checkRange("model.max_context", m.model->maxContext, 1, limits::count));
    for (auto *ids : {&m.model->bosIds, &m.model->eosIds})
      for (int64_t id : *ids)
        GPTQ_TRY(checkRange(ids == &m.model->bosIds ? "model.bos_ids"
                                                    : "model.eos_ids",
                            id, 0, m.model->vocabSize - 1));
  } else if (!m.state.empty()) {
    return invalid("state", "lone functions have no state");
  } else if (kind != "none") {
    return invalid("tokenizer.kind", "lone functions have no tokenizer");
  }

  std::set<std::string_view> names;
  for (size_t i = 0; i < m.sections.size(); ++i) {
    std::string where = "sections[" + std::to_string(i) + "]";
    GPTQ_TRY(checkName(where + ".tensor", m.sections[i].tensor));
    GPTQ_TRY(
        checkRange(where + ".bytes", m.sections[i].bytes, 0, limits::bytes));
    if (!names.insert(m.sections[i].tensor).second)
      return invalid(where, "names tensor " +
                                quoteForMessage(m.sections[i].tensor) +
                                " a second time");
  }
  for (size_t i = 0; i < m.state.size(); ++i)
    GPTQ_TRY(checkRange("state[" + std::to_string(i) + "].bytes",
                        m.state[i].bytes, 0, limits::bytes));

  names.clear();
  for (size_t i = 0; i < m.entries.size(); ++i) {
    const ManifestEntry &entry = m.entries[i];
    std::string where = "entries[" + std::to_string(i) + "]";
    GPTQ_TRY(checkEntry(where, entry, m));
    if (!names.insert(entry.name).second)
      return invalid(where, "is a second entry " + quoteForMessage(entry.name));
    if (m.model && isLanguageModelEntry(entry.name))
      GPTQ_TRY(checkLanguageModelEntry(where, entry, *m.model, m.target));
  }
  if (m.model && !m.findEntry("generate"))
    return invalid("entries", "a language model needs the entry 'generate'");
  if (m.entries.empty())
    return invalid("entries", "is empty");
  return {};
}

Expected<Manifest> gptq::abi::parseManifest(std::string_view json) {
  Expected<Json> document = parseJson(json, {16, size_t(1) << 23});
  if (!document)
    return document.status().withContext("manifest");
  JsonView root(*document, "");
  auto parse = [&]() -> Expected<Manifest> {
    Manifest m;
    GPTQ_ASSIGN(JsonView versionView, root.at("version"));
    GPTQ_ASSIGN(int64_t version, versionView.integer());
    if (version != GPTQ_MODEL_VERSION)
      return makeStatus(StatusCode::Unsupported,
                        "version: expected %d, found %lld", GPTQ_MODEL_VERSION,
                        (long long)version);
    GPTQ_TRY(readAt(root, "producer", m.producer));

    GPTQ_ASSIGN(JsonView target, root.at("target"));
    GPTQ_TRY(readAt(target, "kind", m.target.kind));
    GPTQ_TRY(readAt(target, "name", m.target.name));
    GPTQ_TRY(readAt(target, "features", m.target.features));

    GPTQ_ASSIGN(JsonView model, root.at("model"));
    if (!model.raw().is_null()) {
      m.model.emplace();
      GPTQ_TRY(readModel(model, *m.model));
    }
    GPTQ_ASSIGN(JsonView tokenizer, root.at("tokenizer"));
    GPTQ_TRY(readAt(tokenizer, "kind", m.tokenizer.kind));
    GPTQ_TRY(readIfThere(tokenizer, "files", m.tokenizer.files));
    GPTQ_TRY(readAt(root, "chat_template", m.chatTemplate));

    std::string algorithm;
    GPTQ_TRY(readAt(root, "checksum", algorithm));
    if (algorithm != "xxh3_64")
      return makeStatus(StatusCode::Unsupported,
                        "checksum: expected 'xxh3_64', found %s",
                        quoteForMessage(algorithm).c_str());
    GPTQ_TRY(readAt(root, "sections", m.sections));
    GPTQ_TRY(readAt(root, "state", m.state));
    GPTQ_TRY(readAt(root, "entries", m.entries));
    return m;
  };
  Expected<Manifest> m = parse();
  if (!m)
    return m.status().withContext("manifest");
  GPTQ_TRY(checkManifest(*m));
  return m;
}

//===----------------------------------------------------------------------===//
// Writing
//===----------------------------------------------------------------------===//

using OrderedJson = nlohmann::ordered_json;

static OrderedJson toJson(const ManifestDispatch &dispatch);
static OrderedJson toJson(const ManifestEntry &entry);

static OrderedJson toJson(const ManifestPort &port) {
  OrderedJson shape = OrderedJson::array();
  for (ManifestDim dim : port.shape)
    if (dim.isRows())
      shape.push_back("M");
    else
      shape.push_back(dim.size);
  return {{"name", port.name}, {"dtype", port.dtype}, {"shape", shape}};
}

static OrderedJson toJson(const ManifestArgument &arg) {
  switch (arg.kind) {
  case ManifestArgument::Kind::Arena:
    return {{"arena", arg.offset},
            {"size", OrderedJson::array({arg.sizeBase, arg.sizePerRow})}};
  case ManifestArgument::Kind::Weight:
    if (arg.experts)
      return {{"weight", arg.index},
              {"experts", OrderedJson::array({arg.expertsUsed, arg.experts})}};
    return {{"weight", arg.index}};
  case ManifestArgument::Kind::State:
    return {{"state", arg.index}};
  case ManifestArgument::Kind::Input:
    return {{"input", arg.index}};
  case ManifestArgument::Kind::Output:
    return {{"output", arg.index}};
  }
  return nullptr;
}

static OrderedJson toJson(const ManifestVariant &variant) {
  OrderedJson grid = OrderedJson::array();
  for (const GridFactor &f : variant.grid)
    grid.push_back(OrderedJson::array({f.a, f.b, f.c, f.d}));
  OrderedJson out = {{"m_max", variant.mMax},
                     {"symbol", variant.symbol},
                     {"grid", grid},
                     {"scratch_bytes", variant.scratchBytes}};
  if (variant.threads)
    out["threads"] = variant.threads;
  if (variant.sharedBytes)
    out["shared_bytes"] = variant.sharedBytes;
  if (variant.overlap)
    out["overlap"] = true;
  return out;
}

template <typename T> static OrderedJson toJson(const std::vector<T> &list) {
  OrderedJson out = OrderedJson::array();
  for (const T &element : list)
    out.push_back(toJson(element));
  return out;
}

static OrderedJson toJson(const ManifestDispatch &dispatch) {
  return {{"name", dispatch.name},
          {"args", toJson(dispatch.args)},
          {"variants", toJson(dispatch.variants)}};
}

static OrderedJson toJson(const ManifestEntry &entry) {
  OrderedJson out = {{"name", entry.name},
                     {"max_m", entry.maxM},
                     {"arena_bytes", entry.arenaBytes},
                     {"inputs", toJson(entry.inputs)},
                     {"outputs", toJson(entry.outputs)},
                     {"dispatches", toJson(entry.dispatches)}};
  if (entry.maxTopK)
    out["max_top_k"] = entry.maxTopK;
  return out;
}

std::string gptq::abi::serializeManifest(const Manifest &m) {
  OrderedJson out;
  out["version"] = GPTQ_MODEL_VERSION;
  out["producer"] = m.producer;
  out["target"] = {{"kind", m.target.kind},
                   {"name", m.target.name},
                   {"features", m.target.features}};
  out["model"] = nullptr;
  if (m.model)
    out["model"] = {{"family", m.model->family},
                    {"name", m.model->name},
                    {"vocab_size", m.model->vocabSize},
                    {"max_context", m.model->maxContext},
                    {"bos_ids", m.model->bosIds},
                    {"eos_ids", m.model->eosIds},
                    {"add_bos", m.model->addBos},
                    {"parameters", m.model->parameters},
                    {"quantization", m.model->quantization}};
  out["tokenizer"] = {{"kind", m.tokenizer.kind}, {"files", m.tokenizer.files}};
  out["chat_template"] = m.chatTemplate;
  out["checksum"] = "xxh3_64";
  out["sections"] = OrderedJson::array();
  for (const ManifestSection &s : m.sections)
    out["sections"].push_back({{"tensor", s.tensor},
                               {"bytes", s.bytes},
                               {"checksum", checksumText(s.checksum)}});
  out["state"] = OrderedJson::array();
  for (const ManifestState &s : m.state)
    out["state"].push_back({{"name", s.name}, {"bytes", s.bytes}});
  out["entries"] = toJson(m.entries);
  // Names and templates come from files of others; what is not UTF-8 there
  // must not stop the writer.
  return out.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

//===----------------------------------------------------------------------===//
// Queries
//===----------------------------------------------------------------------===//

std::optional<ComputeCapability>
ComputeCapability::parse(std::string_view name) {
  if (name.substr(0, 3) != "sm_")
    return std::nullopt;
  name.remove_prefix(3);
  ComputeCapability out;
  if (!name.empty() && (name.back() == 'a' || name.back() == 'f')) {
    out.suffix = name.back();
    name.remove_suffix(1);
  }
  // The last digit is the minor version: sm_90, sm_120.
  if (name.size() < 2 || name.size() > 4 || name[0] == '0')
    return std::nullopt;
  int number = 0;
  for (char c : name) {
    if (c < '0' || c > '9')
      return std::nullopt;
    number = number * 10 + (c - '0');
  }
  out.major = number / 10;
  out.minor = number % 10;
  return out;
}

bool ComputeCapability::ptxRunsOn(const ComputeCapability &other) const {
  if (suffix == 'a')
    return major == other.major && minor == other.minor;
  if (suffix == 'f')
    return major == other.major && minor <= other.minor;
  return major < other.major || (major == other.major && minor <= other.minor);
}

bool ComputeCapability::cubinRunsOn(const ComputeCapability &other) const {
  return major == other.major && ptxRunsOn(other);
}

bool gptq::abi::isLanguageModelEntry(std::string_view name) {
  return name == "generate" || name == "score" || name == "next" ||
         name == "sample";
}

int64_t ManifestPort::elements(int64_t m) const {
  int64_t n = 1;
  for (ManifestDim dim : shape)
    n *= dim.at(m);
  return n;
}

int64_t ManifestVariant::workgroups(int64_t m, int64_t p) const {
  int64_t n = 1;
  for (const GridFactor &f : grid)
    n *= f.at(m, p);
  return n;
}

const ManifestEntry *Manifest::findEntry(std::string_view name) const {
  for (const ManifestEntry &entry : entries)
    if (entry.name == name)
      return &entry;
  return nullptr;
}
