//===- ExportGPTQ.cpp - Writes a checkpoint in format GPTQ ----------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ExportGPTQ.h"
#include "gptq/Export/GPTQTensors.h"
#include "gptq/Import/Import.h"
#include "gptq/Import/Inspect.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/Process.h"

using namespace mlir;
using namespace mlir::gptq;
using abi::Json;
using abi::Status;
using abi::StatusCode;

namespace {
struct NamedLayer {
  std::string name;
  std::unique_ptr<QuantizedLayer> layer;
};
} // namespace

/// A pattern that matches `name` alone.
static std::string patternFor(StringRef name) {
  std::string pattern = "+:^";
  for (char c : name) {
    if (!llvm::isAlnum(c) && c != '_')
      pattern += '\\';
    pattern += c;
  }
  return pattern + "$";
}

/// The settings that describe `layers`: those of the first, and what differs
/// from them by module.
static Json makeSettings(const std::vector<NamedLayer> &layers,
                         StringRef format) {
  auto settingsOf = [](QuantizedLayer &layer) {
    return Json{{"bits", layer.bits()},
                {"group_size", layer.groupSize()},
                {"sym", layer.isSymmetric()},
                {"desc_act", layer.isActOrder()}};
  };
  Json settings = settingsOf(*layers.front().layer);
  Json dynamic = Json::object();
  for (const NamedLayer &layer : layers) {
    Json changes = Json::object();
    const Json own = settingsOf(*layer.layer);
    for (const auto &[key, value] : own.items())
      if (value != settings[key])
        changes[key] = value;
    if (!changes.empty())
      dynamic[patternFor(layer.name)] = changes;
  }
  if (!dynamic.empty())
    settings["dynamic"] = dynamic;
  settings["quant_method"] = "gptq";
  settings["checkpoint_format"] = format.str();
  settings["meta"] = {{"quantizer", {"gptq-mlir"}}};
  return settings;
}

static Status writeBytes(StringRef path, StringRef bytes) {
  llvm::Error error = llvm::writeToOutput(path, [&](raw_ostream &os) {
    os << bytes;
    return llvm::Error::success();
  });
  if (!error)
    return Status();
  return Status(StatusCode::ResourceExhausted,
                "cannot write '" + path.str() +
                    "': " + llvm::toString(std::move(error)));
}

/// Adds what no quantized layer holds, as the imported form reads it: tables,
/// norms, biases, dense layers. For files whose tensors others cannot read.
static Status addOthers(ModuleOp module, WeightReader &reader,
                        std::vector<TensorToWrite> &tensors) {
  llvm::StringSet<> seen;
  Status status;
  module.walk([&](LoadWeightOp load) {
    auto weight = module.lookupSymbol<WeightOp>(load.getWeight());
    StringRef name = weight.getSymName();
    auto [owner, part] = name.rsplit('.');
    if (llvm::is_contained({"codes", "scales", "zeros", "offsets"}, part) ||
        !seen.insert(name).second)
      return;
    if (auto rotary = dyn_cast<RotaryAttr>(weight.getInit())) {
      if (rotary.getFactors())
        status = Status(StatusCode::Unsupported,
                        "the factors that divide rotary frequencies have no "
                        "place in a folder of format GPTQ");
      return;
    }
    RankedTensorType type = weight.getTensorType();
    tensors.push_back(
        {(owner == "lm_head" ? "" : "model.") + name.str(),
         storedDType(type.getElementType()),
         std::vector<uint64_t>(type.getShape().begin(), type.getShape().end()),
         [&reader, weight](WeightReader::Sink sink) {
           return reader.read(weight, sink);
         }});
  });
  return status;
}

/// Writes everything into the folder `to`, which exists.
static Status fill(Folder &folder, StringRef to, StringRef format,
                   MLIRContext *context) {
  const Json report = inspectCheckpoint(folder, /*verify=*/false, context);
  if (!report["problems"].empty())
    return Status(StatusCode::InvalidFile,
                  report["problems"][0].get<std::string>());
  std::vector<NamedLayer> layers;
  for (const Json &module : report["modules"]) {
    if (module["kind"] != "quantized")
      continue;
    ImportOptions options;
    options.layer = module["name"];
    // A table that is the head, too, becomes one of the head's own.
    const bool isTable = options.layer == "model.embed_tokens";
    if (isTable && !report["model"]["tied_embeddings"].get<bool>())
      continue;
    std::string error;
    OwningOpRef<ModuleOp> imported =
        importCheckpoint(folder, options, context, error);
    if (!imported)
      return Status(StatusCode::InvalidFile, error);
    GPTQ_ASSIGN(std::unique_ptr<QuantizedLayer> layer,
                QuantizedLayer::open(std::move(imported)));
    layers.push_back({isTable ? "lm_head" : options.layer, std::move(layer)});
  }
  if (layers.empty())
    return Status(StatusCode::InvalidFile,
                  "'" + folder.path() + "' holds no quantized layer");

  // Every tensor that belongs to no quantized layer stays as it is.
  llvm::StringSet<> names;
  std::vector<TensorToWrite> tensors;
  for (const NamedLayer &layer : layers) {
    names.insert(layer.name);
    GPTQ_TRY(layer.layer->addTensors(layer.name, format == "gptq", tensors));
  }
  OwningOpRef<ModuleOp> whole;
  std::unique_ptr<WeightReader> reader;
  if (folder.isMade("config.json")) {
    std::string error;
    whole = importCheckpoint(folder, {}, context, error);
    if (!whole)
      return Status(StatusCode::InvalidFile, error);
    reader = std::make_unique<WeightReader>(*whole);
    GPTQ_TRY(addOthers(*whole, *reader, tensors));
  } else {
    GPTQ_TRY(forEachTensor(
        folder, [&](const abi::TensorInfo &info, abi::ByteSpan bytes) {
          auto [module, part] = StringRef(info.name).rsplit('.');
          if (part == "bias" || !names.contains(module))
            tensors.push_back(
                {info.name, info.dtype, info.shape,
                 [bytes](WeightReader::Sink sink) { return sink(bytes); }});
        }));
  }
  auto inside = [&](StringRef name) {
    SmallString<256> path(to);
    llvm::sys::path::append(path, name);
    return path.str().str();
  };
  GPTQ_TRY(writeTensorFile(inside("model.safetensors"), tensors));

  const Json settings = makeSettings(layers, format);
  for (const std::string &name : folder.list()) {
    StringRef file = name;
    if (file.ends_with(".safetensors") || file.ends_with(".gguf") ||
        file.ends_with(".safetensors.index.json") ||
        file == "quantize_config.json" || file == "quant_config.json")
      continue;
    GPTQ_ASSIGN(abi::ByteSpan bytes, folder.read(name));
    std::string text(bytes.text());
    if (file == "config.json") {
      GPTQ_ASSIGN(Json config, abi::parseJson(text));
      config["quantization_config"] = settings;
      text = config.dump(1);
    }
    GPTQ_TRY(writeBytes(inside(name), text));
  }
  return writeBytes(inside("quantize_config.json"), settings.dump(1));
}

Status mlir::gptq::exportGPTQ(StringRef from, StringRef to, StringRef format,
                              MLIRContext *context) {
  GPTQ_ASSIGN(std::unique_ptr<Folder> folder, openCheckpoint(from));
  SmallString<256> target(to);
  llvm::sys::fs::make_absolute(target);
  if (llvm::sys::fs::exists(target))
    return Status(StatusCode::InvalidArgument,
                  "cannot write '" + to.str() + "': it exists");
  SmallString<256> temporary = llvm::sys::path::parent_path(target);
  llvm::sys::path::append(temporary,
                          "." + llvm::sys::path::filename(target) + ".tmp-" +
                              Twine(llvm::sys::Process::getProcessId()));
  if (std::error_code error = llvm::sys::fs::create_directory(temporary))
    return Status(StatusCode::ResourceExhausted,
                  "cannot create '" + to.str() + "': " + error.message());
  Status status = fill(*folder, temporary, format, context);
  if (status.ok())
    if (std::error_code error = llvm::sys::fs::rename(temporary, target))
      status = Status(StatusCode::ResourceExhausted,
                      "cannot create '" + to.str() + "': " + error.message());
  if (!status.ok())
    llvm::sys::fs::remove_directories(temporary);
  return status;
}
