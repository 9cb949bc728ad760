//===- GGUFTokenizer.cpp - Tokenizers from the metadata of GGUF files -----===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Writes what the runtime reads: a SentencePiece model for "llama", whose
// merges are ranked by the scores of what they make; a tokenizer.json for
// "gpt2", byte pairs with a list of merges. How the latter cuts a text into
// words is a name in the metadata, `tokenizer.ggml.pre`, that stands for a
// pattern.
//
//===----------------------------------------------------------------------===//

#include "lib/Import/Config.h"
#include "lib/Import/GGUF.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/ADT/bit.h"

#include <cmath>

using namespace mlir::gptq;
using abi::Json;
using abi::JsonView;
using abi::Status;
using abi::StatusCode;
using llvm::StringRef;

namespace {

/// Kinds of tokens, numbered as SentencePiece does.
enum Kind : int64_t { Normal = 1, Unknown, Control, UserDefined, Unused, Byte };

struct Vocabulary {
  std::vector<std::string> tokens;
  std::vector<int64_t> kinds;
};

/// Messages of protocol buffers.
class ProtoWriter {
public:
  void bytes(unsigned field, StringRef value) {
    tag(field, 2);
    varint(value.size());
    text += value;
  }
  void integer(unsigned field, uint64_t value) {
    tag(field, 0);
    varint(value);
  }
  void number(unsigned field, float value) {
    tag(field, 5);
    auto bits = llvm::bit_cast<uint32_t>(value);
    for (int i = 0; i < 4; ++i)
      text += char(bits >> 8 * i);
  }
  const std::string &str() const { return text; }

private:
  void tag(unsigned field, unsigned wireType) {
    varint(uint64_t(field) << 3 | wireType);
  }
  void varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7)
      text += char(value | 0x80);
    text += char(value);
  }

  std::string text;
};

/// How words are cut, where `tokenizer.ggml.pre` names it.
struct WordRule {
  StringRef name;
  /// Cuts in front of GPT-2's pattern, or instead of it; empty: none.
  const char *pattern;
  /// Whether GPT-2's pattern cuts what that leaves.
  bool usesGPT2 = false;
  /// A word that is a token is taken whole, whatever its merges are.
  bool ignoresMerges = false;
  /// Characters are composed first (NFC).
  bool composes = false;
};

} // namespace

static constexpr const char *kOneDigit = R"(\p{N})";
static constexpr const char *kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
static constexpr const char *kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
static constexpr const char *kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

static llvm::ArrayRef<WordRule> wordRules() {
  static const WordRule rules[] = {
      {"gpt-2", nullptr, /*usesGPT2=*/true},
      {"smollm", kOneDigit, /*usesGPT2=*/true},
      {"starcoder", kOneDigit, /*usesGPT2=*/true},
      {"dbrx", kLlama3},
      {"llama-bpe", kLlama3, /*usesGPT2=*/false, /*ignoresMerges=*/true},
      {"qwen2", kQwen2, /*usesGPT2=*/false, /*ignoresMerges=*/false,
       /*composes=*/true},
      {"deepseek-r1-qwen", kQwen2, /*usesGPT2=*/false,
       /*ignoresMerges=*/false, /*composes=*/true},
      {"tekken", kTekken, /*usesGPT2=*/false, /*ignoresMerges=*/true},
  };
  return rules;
}

static std::string keyOf(const char *name) {
  return std::string("tokenizer.ggml.") + name;
}

/// The array `name`, or nothing; of `count` elements where that is not 0.
static abi::Expected<std::vector<JsonView>>
readArray(const JsonView &metadata, const char *name, size_t count) {
  std::optional<JsonView> value = findValue(metadata, keyOf(name));
  if (!value)
    return std::vector<JsonView>();
  if (!value->raw().is_array())
    return value->mismatch("an array");
  if (count != 0 && value->raw().size() != count)
    return abi::makeStatus(StatusCode::InvalidFile,
                           "%s: expected an element for each of %zu tokens, "
                           "found %zu",
                           value->path().c_str(), count, value->raw().size());
  return value->elements();
}

static abi::Expected<Vocabulary> readVocabulary(const JsonView &metadata) {
  Vocabulary result;
  GPTQ_ASSIGN(std::vector<JsonView> tokens, readArray(metadata, "tokens", 0));
  if (tokens.empty())
    return abi::makeStatus(StatusCode::InvalidFile,
                           "%s: expected tokens in '%s', found none",
                           metadata.path().c_str(), keyOf("tokens").c_str());
  for (const JsonView &token : tokens) {
    GPTQ_ASSIGN(std::string text, token.string());
    result.tokens.push_back(std::move(text));
  }
  GPTQ_ASSIGN(std::vector<JsonView> kinds,
              readArray(metadata, "token_type", tokens.size()));
  result.kinds.assign(tokens.size(), Normal);
  for (auto [i, kind] : llvm::enumerate(kinds)) {
    GPTQ_ASSIGN(result.kinds[i], kind.integer(0, Byte));
    // Old writers knew no kinds.
    if (result.kinds[i] == 0)
      result.kinds[i] = Normal;
  }
  return result;
}

/// tokenizer.model: pieces, and how texts are prepared for them.
static abi::Expected<std::string> makePieces(const JsonView &metadata,
                                             Vocabulary vocabulary) {
  const size_t count = vocabulary.tokens.size();
  GPTQ_ASSIGN(std::vector<JsonView> scores,
              readArray(metadata, "scores", count));
  if (scores.empty())
    return abi::makeStatus(StatusCode::InvalidFile, "%s: key '%s' is missing",
                           metadata.path().c_str(), keyOf("scores").c_str());
  GPTQ_ASSIGN(int64_t unknown, readInteger(metadata, keyOf("unknown_token_id"),
                                           0, int64_t(count) - 1, 0));
  if (!llvm::is_contained(vocabulary.kinds, Unknown))
    vocabulary.kinds[unknown] = Unknown;
  ProtoWriter model;
  for (size_t i = 0; i < count; ++i) {
    const Json &score = scores[i].raw();
    if (!score.is_number() || !std::isfinite(score.get<double>()))
      return scores[i].mismatch("a finite number");
    ProtoWriter piece;
    piece.bytes(1, vocabulary.tokens[i]);
    piece.number(2, score.get<float>());
    piece.integer(3, vocabulary.kinds[i]);
    model.bytes(1, piece.str());
  }
  ProtoWriter trainer;
  constexpr uint64_t bytePairs = 2;
  trainer.integer(3, bytePairs);
  trainer.integer(35, llvm::is_contained(vocabulary.kinds, Byte));
  model.bytes(2, trainer.str());
  GPTQ_ASSIGN(bool addsSpace,
              readBool(metadata, keyOf("add_space_prefix"), true));
  GPTQ_ASSIGN(bool dropsSpaces,
              readBool(metadata, keyOf("remove_extra_whitespaces"), false));
  ProtoWriter normalizer;
  normalizer.bytes(1, "identity");
  normalizer.integer(3, addsSpace);
  normalizer.integer(4, dropsSpaces);
  normalizer.integer(5, 1);
  model.bytes(3, normalizer.str());
  return model.str();
}

/// tokenizer.json: byte pairs.
static abi::Expected<std::string> makePairs(const JsonView &metadata,
                                            const Vocabulary &vocabulary) {
  GPTQ_ASSIGN(std::string pre, readString(metadata, keyOf("pre"), "gpt-2"));
  const WordRule *rule = nullptr;
  std::string known;
  for (const WordRule &candidate : wordRules()) {
    if (candidate.name == pre)
      rule = &candidate;
    known += (known.empty() ? "'" : ", '") + candidate.name.str() + "'";
  }
  if (!rule)
    return unsupported(metadata, keyOf("pre"), pre, "one of " + known);

  Json words = Json::object(), added = Json::array();
  for (auto [id, token] : llvm::enumerate(vocabulary.tokens)) {
    const int64_t kind = vocabulary.kinds[id];
    if (kind == Control || kind == UserDefined) {
      added.push_back({{"id", id},
                       {"content", token},
                       {"special", kind == Control},
                       {"normalized", false}});
      continue;
    }
    // Fillers of the embedding, which no text becomes.
    if (kind == Unused)
      continue;
    if (words.contains(token))
      return abi::makeStatus(StatusCode::InvalidFile,
                             "%s.%s: token %s is there twice",
                             metadata.path().c_str(), keyOf("tokens").c_str(),
                             abi::quoteForMessage(token).c_str());
    words[token] = id;
  }
  GPTQ_ASSIGN(std::vector<JsonView> mergeViews,
              readArray(metadata, "merges", 0));
  Json merges = Json::array();
  for (const JsonView &merge : mergeViews) {
    GPTQ_ASSIGN(std::string text, merge.string());
    merges.push_back(std::move(text));
  }

  Json stages = Json::array();
  if (rule->pattern)
    stages.push_back({{"type", "Split"},
                      {"pattern", {{"Regex", rule->pattern}}},
                      {"behavior", "Isolated"},
                      {"invert", false}});
  GPTQ_ASSIGN(bool addsSpace,
              readBool(metadata, keyOf("add_space_prefix"), false));
  stages.push_back({{"type", "ByteLevel"},
                    {"add_prefix_space", addsSpace},
                    {"use_regex", rule->usesGPT2}});
  Json document = {
      {"version", "1.0"},
      {"added_tokens", added},
      {"normalizer", rule->composes ? Json{{"type", "NFC"}} : Json()},
      {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", stages}}},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model",
       {{"type", "BPE"},
        {"ignore_merges", rule->ignoresMerges},
        {"vocab", words},
        {"merges", merges}}}};
  return document.dump();
}

abi::Expected<TokenizerFiles>
mlir::gptq::makeTokenizer(const JsonView &metadata) {
  TokenizerFiles files;
  files.config = Json::object();
  GPTQ_ASSIGN(std::string kind, readString(metadata, keyOf("model"), "none"));
  GPTQ_ASSIGN(std::string chat,
              readString(metadata, "tokenizer.chat_template", ""));
  if (!chat.empty())
    files.config["chat_template"] = chat;
  if (kind == "none" || kind == "no_vocab")
    return files;
  if (kind != "llama" && kind != "gpt2")
    return unsupported(metadata, keyOf("model"), kind, "'llama' or 'gpt2'");
  GPTQ_ASSIGN(Vocabulary vocabulary, readVocabulary(metadata));
  const size_t count = vocabulary.tokens.size();

  // What a file leaves out, its readers know by the kind.
  GPTQ_ASSIGN(std::string pre, readString(metadata, keyOf("pre"), ""));
  GPTQ_ASSIGN(bool addsStart, readBool(metadata, keyOf("add_bos_token"),
                                       kind == "llama" || pre == "llama-bpe" ||
                                           pre == "tekken"));
  files.config["add_bos_token"] = addsStart;
  for (const char *name : {"bos", "eos", "unknown", "padding"}) {
    std::string key = keyOf(name) + "_token_id";
    if (!findValue(metadata, key))
      continue;
    GPTQ_ASSIGN(int64_t id, readInteger(metadata, key, 0, int64_t(count) - 1));
    StringRef text = StringRef(name) == "unknown"   ? "unk"
                     : StringRef(name) == "padding" ? "pad"
                                                    : name;
    files.config[text.str() + "_token"] = vocabulary.tokens[id];
  }
  if (kind == "llama") {
    files.name = "tokenizer.model";
    GPTQ_ASSIGN(files.content, makePieces(metadata, std::move(vocabulary)));
  } else {
    files.name = "tokenizer.json";
    GPTQ_ASSIGN(files.content, makePairs(metadata, vocabulary));
  }
  return files;
}
