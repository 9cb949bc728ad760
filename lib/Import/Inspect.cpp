//===- Inspect.cpp - What a checkpoint folder holds -----------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Import/Inspect.h"
#include "gptq/Dialect/GPTQ/IR/CodesReader.h"
#include "lib/Import/Config.h"
#include "lib/Import/Formats/Format.h"
#include "lib/Import/Tokenizer.h"
#include "runtime/abi/Checksum.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/Support/Endian.h"

using namespace mlir;
using namespace mlir::gptq;
using abi::Json;

namespace {

class Inspector {
public:
  Inspector(Folder &folder, bool verify, MLIRContext *context)
      : folder(folder), verify(verify), context(context) {}

  Json run();

private:
  void addProblem(const abi::Status &status) {
    // Several parts read the same file.
    if (!llvm::is_contained(problems, status.message()))
      problems.push_back(status.message());
  }
  void describeFiles();
  void describeModel();
  void describeTokenizer();
  void describeSettings();
  void describeModules();
  Json describeModule(const std::string &name);
  void verifyModule(const LinearViews &linear, Json &out);
  Folder &folder;
  bool verify;
  MLIRContext *context;
  std::unique_ptr<Checkpoint> checkpoint;
  std::unique_ptr<Format> format;
  /// Bytes of the tensors of each module.
  llvm::StringMap<int64_t> moduleBytes;
  ModuleNames names;
  bool isTied = false;
  ExpertConfig experts;
  bool addBos = true;
  std::vector<std::string> problems;
  Json result;
};

} // namespace

void Inspector::describeFiles() {
  int64_t total = 0;
  result["files"] = Json::array();
  for (const std::string &name : folder.list()) {
    if (folder.isMade(name))
      continue;
    abi::Expected<abi::ByteSpan> bytes = folder.read(name);
    if (!bytes) {
      addProblem(bytes.status());
      continue;
    }
    Json file = {{"name", name}, {"bytes", bytes->size}};
    if (verify)
      file["xxh3"] = abi::checksumText(abi::checksum(*bytes));
    result["files"].push_back(std::move(file));
    total += bytes->size;
  }
  result["bytes"]["files"] = total;
}

void Inspector::describeModel() {
  result["model"] = nullptr;
  abi::Expected<ModelConfig> config = readModelConfig(folder);
  if (!config)
    return addProblem(config.status());
  names = config->family->modules;
  isTied = config->tiedEmbeddings;
  addBos = config->family->addBos && !config->bosIds.empty();
  result["model"] = {{"family", config->family->name.str()},
                     {"layers", config->numLayers},
                     {"hidden_size", config->hiddenSize},
                     {"intermediate_size", config->intermediateSize},
                     {"heads", config->heads},
                     {"kv_heads", config->kvHeads},
                     {"head_dim", config->headDim},
                     {"vocab_size", config->vocabSize},
                     {"max_positions", config->maxPositions},
                     {"tied_embeddings", isTied}};
  experts = config->experts;
  if (experts.count == 0)
    return;
  result["model"]["experts"] = experts.count;
  result["model"]["experts_per_token"] = experts.perRow;
  result["model"]["expert_width"] = experts.width;
  result["model"]["expert_layers"] = int64_t(llvm::count(experts.layers, true));
}

void Inspector::describeTokenizer() {
  result["tokenizer"] = nullptr;
  abi::Expected<TokenizerInfo> tokenizer = readTokenizer(folder, addBos);
  if (!tokenizer)
    return addProblem(tokenizer.status());
  result["tokenizer"] = {{"kind", tokenizer->kind},
                         {"files", tokenizer->files},
                         {"add_bos", tokenizer->addBos},
                         {"chat_template", !tokenizer->chatTemplate.empty()}};
}

void Inspector::describeSettings() {
  result["declared"] = nullptr;
  abi::Expected<std::optional<QuantConfig>> read = readQuantConfig(*checkpoint);
  if (!read)
    return addProblem(read.status());
  if (!*read)
    return;
  const QuantConfig &config = **read;
  format = createFormat(config);
  result["declared"] = {
      {"method", config.method},      {"format", config.format},
      {"bits", config.bits},          {"group_size", config.groupSize},
      {"sym", config.isSymmetric},    {"desc_act", config.isActOrder},
      {"rules", config.rules.size()}, {"quantizer", config.quantizer}};
}

/// How many codes lie at either end of their range, and how many scales are 0.
void Inspector::verifyModule(const LinearViews &linear, Json &out) {
  auto bytesOf = [&](const DataAttr &data) -> const uint8_t * {
    auto file = folder.read(data.getFile().getValue());
    return file ? file->data + data.getOffset() : nullptr;
  };
  // Reordering changes no count.
  auto original = [](const View &view) -> const View & {
    return isa_and_nonnull<GatherAttr>(view.init) ? view.parts.front() : view;
  };
  if (auto codes = dyn_cast_or_null<CodesAttr>(original(linear.codes).init)) {
    const uint8_t *bytes = bytesOf(codes.getData());
    if (!bytes)
      return;
    CodesReader reader(codes, linear.k, linear.n, bytes);
    std::vector<uint8_t> row(linear.n);
    const uint8_t last = uint8_t((1 << linear.bits) - 1);
    int64_t saturated = 0;
    for (int64_t k = 0; k < linear.k; ++k) {
      reader.readRow(k, row.data());
      saturated += llvm::count_if(
          row, [&](uint8_t code) { return code == 0 || code == last; });
    }
    out["saturated_codes"] =
        double(saturated) / double(linear.k) / double(linear.n);
  }
  // A scale is 0 where all bits but its sign are.
  int64_t zeroScales = 0, infinite = 0;
  auto count = [&](const uint8_t *bytes, int64_t elements, unsigned width) {
    for (int64_t i = 0; i < elements; ++i) {
      zeroScales +=
          width == 4
              ? (llvm::support::endian::read32le(bytes + 4 * i) << 1) == 0
              : uint16_t(llvm::support::endian::read16le(bytes + 2 * i) << 1) ==
                    0;
      infinite +=
          width == 2 &&
          (llvm::support::endian::read16le(bytes + 2 * i) & 0x7C00) == 0x7C00;
    }
  };
  // Of scales that are products the first factors are looked at.
  const View *scales = &original(linear.scales);
  if (isa<ProductAttr>(scales->init))
    scales = &scales->parts.front();
  unsigned width = scales->type.getElementTypeBitWidth() / 8;
  const int64_t groups = scales->type.getDimSize(0);
  if (auto data = dyn_cast<DataAttr>(scales->init)) {
    if (const uint8_t *bytes = bytesOf(data))
      count(bytes, groups * linear.n, width);
  } else if (auto codes = dyn_cast<CodesAttr>(scales->init)) {
    if (const uint8_t *bytes = bytesOf(codes.getData())) {
      CodesReader reader(codes, groups, linear.n, bytes);
      std::vector<uint8_t> row(linear.n * width);
      for (int64_t g = 0; g < groups; ++g) {
        reader.readRow(g, row.data());
        count(row.data(), linear.n, width);
      }
    }
  }
  out["zero_scales"] = zeroScales;
  if (infinite > 0 && scales->type.getElementType().isF16())
    addProblem(abi::makeStatus(abi::StatusCode::InvalidFile,
                               "module %s: expected finite scales, but %lld "
                               "are infinite or not a number",
                               out["name"].get<std::string>().c_str(),
                               (long long)infinite));
}

Json Inspector::describeModule(const std::string &name) {
  Json out = {{"name", name}, {"bytes", moduleBytes.lookup(name)}};
  abi::Expected<LinearViews> read =
      readLinear(*checkpoint, format.get(), name, std::nullopt,
                 BiasRule::AsFound, context);
  if (!read) {
    out["problem"] = read.status().message();
    addProblem(read.status());
    return out;
  }
  const LinearViews &linear = *read;
  auto typeText = [](const View &view) {
    std::string text;
    llvm::raw_string_ostream(text) << view.type.getElementType();
    return text;
  };
  out["n"] = linear.n;
  out["k"] = linear.k;
  out["bias"] = bool(linear.bias);
  if (linear.weight) {
    out["kind"] = "dense";
    out["type"] = typeText(linear.weight);
    if (verify) {
      auto tensor =
          checkpoint->get(name + ".weight", kFloatDTypes, {linear.n, linear.k});
      if (tensor)
        if (abi::Status status = checkFinite(*tensor); !status.ok()) {
          out["problem"] = status.message();
          addProblem(status);
        }
    }
    return out;
  }
  out["kind"] = "quantized";
  out["bits"] = linear.bits;
  out["group_size"] = linear.groupSize;
  out["act_order"] = bool(linear.groupIndex);
  out["scales"] = typeText(linear.scales);
  if (linear.zeroPoint)
    out["zero_point"] = *linear.zeroPoint;
  else
    out["zero_point"] = "per group";
  if (linear.offsets)
    out["offsets"] = true;
  if (!linear.zeroEvidence.empty())
    out["evidence"] = linear.zeroEvidence;
  if (verify)
    verifyModule(linear, out);
  return out;
}

void Inspector::describeModules() {
  llvm::StringSet<> seen;
  std::vector<std::string> modules;
  for (const CheckpointTensor &tensor : checkpoint->all()) {
    auto [module, part] = tensor.name.rsplit('.');
    moduleBytes[module] += tensor.bytes.size;
    const bool isDense = part == "weight" && tensor.info->shape.size() == 2;
    if ((isDense || isWeightPart(part)) && seen.insert(module).second)
      modules.push_back(module.str());
  }
  llvm::sort(modules, [](const std::string &a, const std::string &b) {
    return StringRef(a).compare_numeric(b) < 0;
  });
  result["modules"] = Json::array();
  int64_t perToken = 0, ofExperts = 0;
  for (const std::string &name : modules) {
    Json module = describeModule(name);
    // A token reads one row of a table, unless it is the head, too.
    auto is = [&](StringRef table) {
      return !table.empty() && name == (names.prefix + table).str();
    };
    if (!is(names.positions) &&
        (!is(names.embedding) || (isTied && !seen.contains(names.head))))
      (experts.count && StringRef(name).contains(".experts.") ? ofExperts
                                                              : perToken) +=
          module["bytes"].get<int64_t>();
    result["modules"].push_back(std::move(module));
  }
  // Of the experts of a layer a token reads some.
  if (experts.count)
    perToken += ofExperts / experts.count * experts.perRow;
  result["bytes"]["per_token"] = perToken;
}

Json Inspector::run() {
  result["folder"] = folder.path();
  describeFiles();
  describeModel();
  describeTokenizer();
  abi::Expected<std::unique_ptr<Checkpoint>> opened = Checkpoint::open(folder);
  if (opened) {
    checkpoint = opened.take();
    describeSettings();
    describeModules();
    result["warnings"] = checkpoint->warnings();
  } else {
    addProblem(opened.status());
  }
  result["problems"] = problems;
  return std::move(result);
}

Json mlir::gptq::inspectCheckpoint(Folder &folder, bool verify,
                                   MLIRContext *context) {
  context->loadDialect<GPTQDialect>();
  return Inspector(folder, verify, context).run();
}

abi::Status mlir::gptq::forEachTensor(
    Folder &folder,
    llvm::function_ref<void(const abi::TensorInfo &, abi::ByteSpan)> fn) {
  GPTQ_ASSIGN(std::unique_ptr<Checkpoint> checkpoint, Checkpoint::open(folder));
  for (const CheckpointTensor &tensor : checkpoint->all())
    fn(*tensor.info, tensor.bytes);
  return abi::Status::success();
}
