//===- GGUFFolder.cpp - A GGUF model as a folder --------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What a GGUF file says about a model in its metadata, other checkpoints say in
// files beside their tensors. Here those files are made from the metadata, so
// that everything behind reads one kind of checkpoint.
//
//===----------------------------------------------------------------------===//

#include "lib/Import/Config.h"
#include "lib/Import/GGUF.h"
#include "llvm/ADT/DenseMap.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/StringMap.h"

#include <cmath>

using namespace mlir::gptq;
using abi::Json;
using abi::JsonView;
using abi::Status;
using abi::StatusCode;
using llvm::StringRef;

/// Parts of a model at most.
static constexpr int64_t kMaxParts = 1024;

namespace {

class GGUFFolder final : public Folder {
public:
  explicit GGUFFolder(std::unique_ptr<Folder> base) : base(std::move(base)) {}

  /// Reads everything but the tensors' bytes.
  Status load(StringRef first);

  const std::string &path() const override { return base->path(); }
  std::string name() const override { return title; }
  std::vector<std::string> list() override {
    std::vector<std::string> names = parts;
    for (const auto &entry : made)
      names.push_back(entry.first().str());
    llvm::sort(names);
    return names;
  }
  bool exists(StringRef name) override {
    return isMade(name) || llvm::is_contained(parts, name);
  }
  abi::Expected<abi::ByteSpan> read(StringRef name) override {
    auto it = made.find(name);
    if (it != made.end())
      return abi::ByteSpan::of(it->second);
    if (llvm::is_contained(parts, name))
      return base->read(name);
    return abi::makeStatus(StatusCode::NotFound, "cannot open %s",
                           abi::quoteForMessage(name).c_str());
  }
  bool isMade(StringRef name) override { return made.count(name); }

private:
  abi::Expected<GGUFFile> openPart(StringRef name);
  Status addParts(StringRef first, const JsonView &metadata);
  Status makeConfig(const JsonView &metadata);

  std::unique_ptr<Folder> base;
  std::string title;
  std::vector<std::string> parts;
  /// Of all parts.
  std::vector<GGUFTensor> tensors;
  llvm::StringMap<std::string> made;
};

} // namespace

abi::Expected<GGUFFile> GGUFFolder::openPart(StringRef name) {
  GPTQ_ASSIGN(abi::ByteSpan bytes, base->read(name));
  abi::Expected<GGUFFile> file = GGUFFile::open(bytes);
  if (!file)
    return file.status().withContext("'" + name.str() + "'");
  parts.push_back(name.str());
  llvm::append_range(tensors, file->tensors());
  return file;
}

/// Opens the parts behind the first: of 3, "m-00001-of-00003.gguf" and on.
Status GGUFFolder::addParts(StringRef first, const JsonView &metadata) {
  GPTQ_ASSIGN(int64_t count,
              readInteger(metadata, "split.count", 0, kMaxParts, 0));
  if (count < 2)
    return Status::success();
  auto numbered = [](int64_t number) {
    std::string digits = std::to_string(number);
    return std::string(5 - std::min<size_t>(5, digits.size()), '0') + digits;
  };
  const std::string end = "-of-" + numbered(count) + ".gguf";
  StringRef stem = first;
  if (!stem.consume_back("-" + numbered(1) + end))
    return abi::makeStatus(StatusCode::InvalidFile,
                           "'%s': expected the first of %lld parts, whose name "
                           "ends in '-00001%s'",
                           first.str().c_str(), (long long)count, end.c_str());
  title = stem.str();
  for (int64_t part = 2; part <= count; ++part) {
    const std::string name = stem.str() + "-" + numbered(part) + end;
    GPTQ_ASSIGN(GGUFFile file, openPart(name));
    GPTQ_ASSIGN(Json document, file.readMetadata());
    JsonView view(document, "'" + name + "'");
    GPTQ_ASSIGN(int64_t number, readInteger(view, "split.no", 0, kMaxParts));
    if (number != part - 1)
      return abi::makeStatus(StatusCode::InvalidFile,
                             "'%s': expected part number %lld in split.no, "
                             "found %lld",
                             name.c_str(), (long long)part - 1,
                             (long long)number);
  }
  GPTQ_ASSIGN(int64_t total, readInteger(metadata, "split.tensors.count", 0,
                                         INT64_MAX, int64_t(tensors.size())));
  if (total != int64_t(tensors.size()))
    return abi::makeStatus(StatusCode::InvalidFile,
                           "%s.split.tensors.count: expected the %zu tensors "
                           "of all parts, found %lld",
                           metadata.path().c_str(), tensors.size(),
                           (long long)total);
  return Status::success();
}

/// The number type that most bytes of matrices have.
static const BlockType *usualType(llvm::ArrayRef<GGUFTensor> tensors) {
  llvm::DenseMap<const BlockType *, uint64_t> bytes;
  const BlockType *usual = nullptr;
  for (const GGUFTensor &tensor : tensors)
    if (tensor.shape.size() == 2 && tensor.name != "token_embd.weight") {
      bytes[tensor.type] += tensor.bytes.size;
      if (!usual || bytes[tensor.type] > bytes[usual])
        usual = tensor.type;
    }
  return usual;
}

/// Copies the value of `key`, where there is one, as `to`.
static Status copyValue(const JsonView &metadata, const std::string &key,
                        Json &config, const char *to) {
  std::optional<JsonView> value = findValue(metadata, key);
  if (!value)
    return Status::success();
  // JSON has no way to write these.
  if (value->raw().is_number_float() &&
      !std::isfinite(value->raw().get<double>()))
    return value->mismatch("a finite number");
  config[to] = value->raw();
  return Status::success();
}

Status GGUFFolder::makeConfig(const JsonView &metadata) {
  GPTQ_ASSIGN(std::string architecture,
              readString(metadata, "general.architecture", ""));
  static constexpr StringRef known[] = {"llama", "qwen2", "qwen3"};
  if (!llvm::is_contained(known, architecture))
    return unsupported(metadata, "general.architecture", architecture,
                       "'llama', 'qwen2' or 'qwen3'");
  auto key = [&](const char *name) { return architecture + "." + name; };
  GPTQ_ASSIGN(int64_t experts,
              readInteger(metadata, key("expert_count"), 0, INT64_MAX, 0));
  if (experts > 0)
    return unsupported(metadata, key("expert_count"), std::to_string(experts),
                       "no mixture of experts");

  Json config = {{"model_type", architecture}};
  for (auto [from, to] : {std::pair("embedding_length", "hidden_size"),
                          {"feed_forward_length", "intermediate_size"},
                          {"block_count", "num_hidden_layers"},
                          {"attention.head_count", "num_attention_heads"},
                          {"attention.head_count_kv", "num_key_value_heads"},
                          {"attention.key_length", "head_dim"},
                          {"attention.layer_norm_rms_epsilon", "rms_norm_eps"},
                          {"context_length", "max_position_embeddings"},
                          {"rope.freq_base", "rope_theta"}})
    GPTQ_TRY(copyValue(metadata, key(from), config, to));
  // The keys that say what nothing else does, under the name a file has them.
  for (const char *needed :
       {"embedding_length", "feed_forward_length", "block_count",
        "attention.head_count", "attention.layer_norm_rms_epsilon",
        "context_length"})
    if (!findValue(metadata, key(needed)))
      return abi::makeStatus(StatusCode::InvalidFile, "%s: key '%s' is missing",
                             metadata.path().c_str(), key(needed).c_str());
  // Only Mistral has a window among the models of this architecture.
  if (findValue(metadata, key("attention.sliding_window"))) {
    if (architecture == "llama")
      config["model_type"] = "mistral";
    GPTQ_TRY(copyValue(metadata, key("attention.sliding_window"), config,
                       "sliding_window"));
  }
  GPTQ_ASSIGN(int64_t hidden,
              readInteger(metadata, key("embedding_length"), 1, kMaxWidth));
  GPTQ_ASSIGN(int64_t heads,
              readInteger(metadata, key("attention.head_count"), 1, kMaxWidth));
  GPTQ_ASSIGN(int64_t width,
              readInteger(metadata, key("attention.key_length"), 1, kMaxWidth,
                          std::max<int64_t>(1, hidden / heads)));
  for (const char *same : {"attention.value_length", "rope.dimension_count"}) {
    GPTQ_ASSIGN(int64_t found,
                readInteger(metadata, key(same), 1, kMaxWidth, width));
    if (found != width)
      return unsupported(metadata, key(same), std::to_string(found),
                         std::to_string(width) + ", the width of a head");
  }

  GPTQ_ASSIGN(std::string scaling,
              readString(metadata, key("rope.scaling.type"), "none"));
  const bool hasFactor =
      findValue(metadata, key("rope.scaling.factor")).has_value();
  if (scaling == "linear" && hasFactor) {
    config["rope_scaling"] = {{"rope_type", "linear"}};
    GPTQ_TRY(copyValue(metadata, key("rope.scaling.factor"),
                       config["rope_scaling"], "factor"));
  } else if (scaling != "none") {
    return unsupported(metadata, key("rope.scaling.type"), scaling,
                       "'none', or 'linear' with a factor");
  }

  auto find = [&](StringRef name) -> const GGUFTensor * {
    for (const GGUFTensor &tensor : tensors)
      if (tensor.name == name)
        return &tensor;
    return nullptr;
  };
  const GGUFTensor *table = find("token_embd.weight");
  if (!table || table->shape.size() != 2)
    return abi::makeStatus(StatusCode::InvalidFile,
                           "%s: expected a matrix 'token_embd.weight', found "
                           "%s",
                           metadata.path().c_str(),
                           table ? "one of another rank" : "none");
  config["vocab_size"] = table->shape[0];
  config["tie_word_embeddings"] = !find("output.weight");

  // Where a text ends: the end of a text, or of a turn.
  Json ends = Json::array();
  for (const char *name : {"eos", "eot", "eom"}) {
    std::string from = std::string("tokenizer.ggml.") + name + "_token_id";
    std::optional<JsonView> id = findValue(metadata, from);
    if (id && !llvm::is_contained(ends, id->raw()))
      ends.push_back(id->raw());
  }
  if (!ends.empty())
    config["eos_token_id"] = ends;
  GPTQ_TRY(copyValue(metadata, "tokenizer.ggml.bos_token_id", config,
                     "bos_token_id"));

  // The writers of this architecture put the rows that rotary positions turn
  // as pairs beside each other; those of the others do not.
  const BlockType *type = usualType(tensors);
  config["quantization_config"] = {
      {"quant_method", "gguf"},
      {"format", type ? type->name.str() : ""},
      {"interleaved_rows", architecture == "llama" ? width : 0}};
  made["config.json"] = config.dump(1);
  return Status::success();
}

Status GGUFFolder::load(StringRef first) {
  title = first.str();
  if (StringRef(title).ends_with(".gguf"))
    title.resize(title.size() - 5);
  GPTQ_ASSIGN(GGUFFile file, openPart(first));
  abi::Expected<Json> document = file.readMetadata();
  if (!document)
    return document.status().withContext("'" + first.str() + "'");
  JsonView metadata(*document, "'" + first.str() + "'");
  GPTQ_TRY(addParts(first, metadata));
  GPTQ_TRY(makeConfig(metadata));
  GPTQ_ASSIGN(TokenizerFiles tokenizer, makeTokenizer(metadata));
  if (!tokenizer.name.empty())
    made[tokenizer.name] = std::move(tokenizer.content);
  made["tokenizer_config.json"] = tokenizer.config.dump(1);
  return Status::success();
}

abi::Expected<std::unique_ptr<Folder>>
mlir::gptq::openGGUF(std::unique_ptr<Folder> folder, StringRef first) {
  auto result = std::make_unique<GGUFFolder>(std::move(folder));
  GPTQ_TRY(result->load(first));
  return std::unique_ptr<Folder>(std::move(result));
}
