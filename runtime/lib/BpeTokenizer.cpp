//===- BpeTokenizer.cpp - tokenizer.json ----------------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Reads the published description of a byte-pair-encoding tokenizer. Encoding
// goes through these stages, each of which may be absent:
//
//   added tokens    cut out names that stand for one token
//   normalizer      rewrites a part's text
//   pre-tokenizer   cuts a part into words
//   model           merges a word's characters or bytes into tokens
//
// What is not understood is refused when the file is read, by name: a
// tokenizer that is nearly right makes a model quietly worse.
//
//===----------------------------------------------------------------------===//

#include "runtime/abi/Json.h"
#include "runtime/abi/Regex.h"
#include "runtime/lib/SpecialTokens.h"
#include "runtime/lib/Tokenizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <functional>
#include <queue>
#include <unordered_map>

using namespace gptq::abi;
using namespace gptq::runtime;

namespace {

/// Bytes of the character that starts at text[i]; the text is valid UTF-8.
size_t characterLength(std::string_view text, size_t i) {
  unsigned char c = text[i];
  size_t n = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
  return std::min(n, text.size() - i);
}

Status unsupported(const JsonView &view, const std::string &what) {
  return Status(StatusCode::Unsupported,
                view.path() + ": " + what + " is not supported");
}

/// The string member `type` of an object.
Expected<std::string> typeOf(const JsonView &view) {
  GPTQ_ASSIGN(JsonView type, view.at("type"));
  return type.string();
}

/// An optional boolean member.
Expected<bool> flag(const JsonView &view, const char *key, bool otherwise) {
  std::optional<JsonView> member = view.find(key);
  if (!member || member->raw().is_null())
    return otherwise;
  return member->boolean();
}

bool isAbsent(const std::optional<JsonView> &view) {
  return !view || view->raw().is_null();
}

//===----------------------------------------------------------------------===//
// Byte-level alphabet
//===----------------------------------------------------------------------===//

/// The characters that byte-level vocabularies write for bytes: printable
/// bytes of Latin-1 stand for themselves, all others for the characters from
/// U+0100 on.
class ByteAlphabet {
public:
  ByteAlphabet() {
    unsigned next = 0x100;
    for (unsigned b = 0; b < 256; ++b) {
      bool isPrintable =
          (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
      unsigned c = isPrintable ? b : next++;
      std::string &text = byteText[b];
      if (c < 0x80) {
        text = char(c);
      } else {
        text = char(0xc0 | c >> 6);
        text += char(0x80 | (c & 0x3f));
      }
      bytes[text] = char(b);
    }
  }

  const std::string &text(unsigned char byte) const { return byteText[byte]; }

  /// The bytes a piece stands for; nothing if it uses other characters.
  std::optional<std::string> decode(std::string_view piece) const {
    std::string out;
    for (size_t i = 0; i < piece.size();) {
      size_t n = characterLength(piece, i);
      auto it = bytes.find(std::string(piece.substr(i, n)));
      if (it == bytes.end())
        return std::nullopt;
      out += it->second;
      i += n;
    }
    return out;
  }

private:
  std::array<std::string, 256> byteText;
  std::unordered_map<std::string, char> bytes;
};

//===----------------------------------------------------------------------===//
// Stages
//===----------------------------------------------------------------------===//

using Normalizer = std::function<Status(std::string &)>;

/// Cuts words further. Words are views into a text that lives as long as the
/// encoding of one part; a stage that changes text stores it in `storage`.
struct Words {
  std::vector<std::string> list;
};
using PreTokenizer = std::function<Status(Words &)>;

void replaceAll(std::string &text, std::string_view from, std::string_view to) {
  std::string out;
  size_t at = 0;
  for (size_t hit; (hit = text.find(from, at)) != std::string::npos;
       at = hit + from.size()) {
    out.append(text, at, hit - at);
    out += to;
  }
  if (at == 0)
    return;
  out.append(text, at, std::string::npos);
  text = std::move(out);
}

/// What happens to the matches of a Split.
enum class SplitBehavior {
  Removed,
  Isolated,
  MergedWithPrevious,
  MergedWithNext,
  Contiguous
};

Expected<SplitBehavior> parseBehavior(const JsonView &view) {
  GPTQ_ASSIGN(std::string text, view.string());
  for (auto [name, behavior] :
       {std::pair("Removed", SplitBehavior::Removed),
        {"Isolated", SplitBehavior::Isolated},
        {"MergedWithPrevious", SplitBehavior::MergedWithPrevious},
        {"MergedWithNext", SplitBehavior::MergedWithNext},
        {"Contiguous", SplitBehavior::Contiguous}})
    if (text == name)
      return behavior;
  return unsupported(view, "the behavior " + quoteForMessage(text));
}

/// Cuts `text` at the ranges of `matches`, appending the pieces to `out`.
void splitAt(const std::string &text,
             const std::vector<std::pair<size_t, size_t>> &matches,
             SplitBehavior behavior, bool invert,
             std::vector<std::string> &out) {
  // All of the text as alternating ranges, each a match or not.
  struct Range {
    size_t begin, end;
    bool isMatch;
  };
  std::vector<Range> ranges;
  size_t at = 0;
  for (auto [begin, end] : matches) {
    if (begin > at)
      ranges.push_back({at, begin, invert});
    ranges.push_back({begin, end, !invert});
    at = end;
  }
  if (at < text.size())
    ranges.push_back({at, text.size(), invert});

  std::vector<Range> joined;
  for (size_t i = 0; i < ranges.size(); ++i) {
    const Range &r = ranges[i];
    switch (behavior) {
    case SplitBehavior::Removed:
      if (!r.isMatch)
        joined.push_back(r);
      break;
    case SplitBehavior::Isolated:
      joined.push_back(r);
      break;
    case SplitBehavior::Contiguous:
      if (!joined.empty() && joined.back().isMatch == r.isMatch)
        joined.back().end = r.end;
      else
        joined.push_back(r);
      break;
    case SplitBehavior::MergedWithPrevious:
      if (r.isMatch && i > 0 && !ranges[i - 1].isMatch)
        joined.back().end = r.end;
      else
        joined.push_back(r);
      break;
    case SplitBehavior::MergedWithNext:
      if (!r.isMatch && i > 0 && ranges[i - 1].isMatch)
        joined.back().end = r.end;
      else
        joined.push_back(r);
      break;
    }
  }
  for (const Range &r : joined)
    out.push_back(text.substr(r.begin, r.end - r.begin));
}

PreTokenizer splitStage(std::shared_ptr<Regex> regex, SplitBehavior behavior,
                        bool invert) {
  return [=](Words &words) -> Status {
    std::vector<std::string> out;
    std::vector<std::pair<size_t, size_t>> matches;
    for (const std::string &word : words.list) {
      matches.clear();
      GPTQ_TRY(regex->findAll(word, matches));
      splitAt(word, matches, behavior, invert, out);
    }
    words.list = std::move(out);
    return {};
  };
}

/// GPT-2's pattern, which ByteLevel uses unless told otherwise.
constexpr const char *gpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

constexpr std::string_view defaultSpaceMark = "\xe2\x96\x81";

/// A pattern that matches `text` alone.
std::string literalPattern(std::string_view text) {
  std::string out;
  for (char c : text) {
    // A backslash in front of a letter or digit would mean something.
    if ((unsigned char)c < 0x80 && !std::isalnum((unsigned char)c))
      out += '\\';
    out += c;
  }
  return out;
}

/// `{"String": "a"}` or `{"Regex": "a+"}` as a pattern.
Expected<std::string> readPattern(const JsonView &view) {
  if (std::optional<JsonView> literal = view.find("String")) {
    GPTQ_ASSIGN(std::string text, literal->string());
    return literalPattern(text);
  }
  GPTQ_ASSIGN(JsonView pattern, view.at("Regex"));
  return pattern.string();
}

Expected<std::shared_ptr<Regex>> compilePattern(const JsonView &view,
                                                const std::string &pattern) {
  Expected<Regex> regex = Regex::compile(pattern);
  if (!regex)
    return regex.status().withContext(view.path());
  return std::make_shared<Regex>(regex.take());
}

//===----------------------------------------------------------------------===//
// The tokenizer
//===----------------------------------------------------------------------===//

class BpeTokenizer final : public Tokenizer {
public:
  static Expected<std::unique_ptr<Tokenizer>> read(ByteSpan json);

  Status encode(std::string_view text, bool parseSpecial,
                std::vector<int32_t> &out) const override;
  void appendBytes(int32_t token, std::string &out) const override {
    if (token >= 0 && size_t(token) < decoded.size())
      out += decoded[token];
  }
  int leadingSpaces() const override { return spacesToStrip; }
  std::string name(int32_t token) const override {
    return token >= 0 && size_t(token) < names.size() ? names[token] : "";
  }
  int64_t size() const override { return int64_t(names.size()); }

private:
  struct Merge {
    int32_t rank;
    int32_t token;
  };
  struct Added {
    std::string name;
    int32_t id;
    bool isSpecial;
  };

  Status readModel(const JsonView &model);
  Status readMerges(const JsonView &merges);
  Status readAddedTokens(const JsonView &list);
  Status readNormalizer(const JsonView &view);
  Status readPreTokenizer(const JsonView &view);
  Status checkPostProcessor(const JsonView &view);
  Status readDecoder(const JsonView &view);
  void addMetaspace(const std::string &mark, const std::string &scheme,
                    bool split);
  Status setName(const JsonView &view, std::string name, int64_t id);
  Status decodeAll();

  Status encodePart(std::string_view text, bool isFirst,
                    std::vector<int32_t> &out) const;
  void encodeWord(const std::string &word, std::vector<int32_t> &out) const;
  void appendCharacter(std::string_view character,
                       std::vector<int32_t> &out) const;

  static uint64_t pairKey(int32_t a, int32_t b) {
    return uint64_t(uint32_t(a)) << 32 | uint32_t(b);
  }

  std::unordered_map<std::string, int32_t> vocab;
  std::unordered_map<uint64_t, Merge> merges;
  std::vector<std::string> names;
  std::vector<std::string> decoded;
  std::vector<Added> added;
  SpecialTokens rawTokens, specialTokens, normalizedTokens;
  std::vector<Normalizer> normalizers;
  std::vector<PreTokenizer> preTokenizers;
  /// Space marks that only the first part of a text gets.
  bool prependFirstOnly = false;
  std::string prependMark;

  bool isByteLevel = false;
  bool byteFallback = false;
  bool fuseUnknown = false;
  bool ignoreMerges = false;
  std::optional<int32_t> unknown;
  /// Tokens of single bytes, -1 where there is none: of the byte alphabet, or
  /// the `<0xAB>` of byte fallback.
  std::array<int32_t, 256> byteTokens;

  ByteAlphabet alphabet;

  // Decoding.
  bool decodesByteLevel = false;
  bool decodesByteTokens = false;
  std::vector<std::pair<std::string, std::string>> replacements;
  int spacesToStrip = 0;
};

/// Ids beyond this are not believed; the largest vocabularies have some 2^18.
constexpr int64_t maxTokens = 1 << 24;

Status BpeTokenizer::setName(const JsonView &view, std::string name,
                             int64_t id) {
  if (size_t(id) >= names.size())
    names.resize(id + 1);
  if (!names[id].empty() && names[id] != name)
    return Status(StatusCode::InvalidFile,
                  view.path() + ": the id " + std::to_string(id) +
                      " belongs to " + quoteForMessage(names[id]) + " and to " +
                      quoteForMessage(name));
  names[id] = std::move(name);
  return {};
}

Status BpeTokenizer::readModel(const JsonView &model) {
  // Old files leave the type out.
  if (std::optional<JsonView> type = model.find("type")) {
    GPTQ_ASSIGN(std::string name, type->string());
    if (name != "BPE")
      return unsupported(*type, "the model type " + quoteForMessage(name));
  }
  if (std::optional<JsonView> dropout = model.find("dropout"))
    if (!dropout->raw().is_null() && dropout->raw() != 0)
      return unsupported(*dropout, "a dropout");
  for (const char *key : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (std::optional<JsonView> affix = model.find(key))
      if (!affix->raw().is_null() && affix->raw() != "")
        return unsupported(*affix, "an affix");
  GPTQ_ASSIGN(byteFallback, flag(model, "byte_fallback", false));
  GPTQ_ASSIGN(fuseUnknown, flag(model, "fuse_unk", false));
  GPTQ_ASSIGN(ignoreMerges, flag(model, "ignore_merges", false));

  GPTQ_ASSIGN(JsonView words, model.at("vocab"));
  GPTQ_TRY(words.expectObject());
  vocab.reserve(words.raw().size());
  // An id larger than the count would leave gaps; a few are seen where added
  // tokens fill them, so the bound is generous.
  int64_t maxId =
      std::min<int64_t>(maxTokens, 4 * int64_t(words.raw().size()) + 65536);
  for (auto it = words.raw().begin(); it != words.raw().end(); ++it) {
    if (!it->is_number_unsigned() || it->get<uint64_t>() >= uint64_t(maxId))
      return Status(StatusCode::InvalidFile,
                    words.path() + ": the id of " + quoteForMessage(it.key()) +
                        " is not an integer below " + std::to_string(maxId));
    int32_t id = it->get<int32_t>();
    vocab.emplace(it.key(), id);
    GPTQ_TRY(setName(words, it.key(), id));
  }
  std::optional<JsonView> unk = model.find("unk_token");
  if (!isAbsent(unk)) {
    GPTQ_ASSIGN(std::string name, unk->string());
    auto it = vocab.find(name);
    if (it == vocab.end())
      return Status(StatusCode::InvalidFile, unk->path() + ": " +
                                                 quoteForMessage(name) +
                                                 " is not in the vocabulary");
    unknown = it->second;
  }
  GPTQ_ASSIGN(JsonView mergeList, model.at("merges"));
  return readMerges(mergeList);
}

Status BpeTokenizer::readMerges(const JsonView &view) {
  if (!view.raw().is_array())
    return view.mismatch("an array");
  merges.reserve(view.raw().size());
  int32_t rank = 0;
  for (const Json &merge : view.raw()) {
    auto invalid = [&](const std::string &what) {
      return Status(StatusCode::InvalidFile,
                    view.path() + "[" + std::to_string(rank) + "]: " + what);
    };
    std::string left, right;
    if (merge.is_string()) {
      const std::string &text = merge.get_ref<const std::string &>();
      size_t space = text.find(' ');
      if (space == std::string::npos ||
          text.find(' ', space + 1) != std::string::npos)
        return invalid("expected two pieces with one space between, found " +
                       quoteForMessage(text));
      left = text.substr(0, space);
      right = text.substr(space + 1);
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      left = merge[0].get_ref<const std::string &>();
      right = merge[1].get_ref<const std::string &>();
    } else {
      return invalid("expected a string or two strings");
    }
    int32_t ids[3];
    const std::string pieces[3] = {left, right, left + right};
    for (int i = 0; i < 3; ++i) {
      auto it = vocab.find(pieces[i]);
      if (it == vocab.end())
        return invalid(quoteForMessage(pieces[i]) +
                       " is not in the vocabulary");
      ids[i] = it->second;
    }
    // Later duplicates win, as in the reference reader.
    merges[pairKey(ids[0], ids[1])] = {rank, ids[2]};
    ++rank;
  }
  return {};
}

Status BpeTokenizer::readAddedTokens(const JsonView &view) {
  GPTQ_ASSIGN(std::vector<JsonView> list, view.elements());
  for (const JsonView &token : list) {
    GPTQ_ASSIGN(JsonView idView, token.at("id"));
    GPTQ_ASSIGN(int64_t id, idView.integer(0, maxTokens - 1));
    GPTQ_ASSIGN(JsonView contentView, token.at("content"));
    GPTQ_ASSIGN(std::string content, contentView.string());
    SpecialTokens::Flags flags;
    GPTQ_ASSIGN(bool isSpecial, flag(token, "special", false));
    GPTQ_ASSIGN(bool isNormalized, flag(token, "normalized", !isSpecial));
    GPTQ_ASSIGN(flags.stripLeft, flag(token, "lstrip", false));
    GPTQ_ASSIGN(flags.stripRight, flag(token, "rstrip", false));
    GPTQ_ASSIGN(flags.singleWord, flag(token, "single_word", false));
    if (id > int64_t(names.size()) + 65536)
      return Status(StatusCode::InvalidFile,
                    token.path() + ": the id " + std::to_string(id) +
                        " is far beyond the vocabulary of " +
                        std::to_string(names.size()));
    GPTQ_TRY(setName(token, content, id));
    added.push_back({content, int32_t(id), isSpecial});
    // Ordinary added tokens are part of the vocabulary and always recognized;
    // special ones only where the caller lets the text name them.
    if (isNormalized) {
      std::string text = content;
      for (const Normalizer &normalize : normalizers)
        GPTQ_TRY(normalize(text));
      normalizedTokens.add(isSpecial ? std::string() : text, int32_t(id),
                           flags);
      if (isSpecial)
        specialTokens.add(content, int32_t(id), flags);
    } else {
      specialTokens.add(content, int32_t(id), flags);
      if (!isSpecial)
        rawTokens.add(content, int32_t(id), flags);
    }
  }
  return {};
}

Status BpeTokenizer::readNormalizer(const JsonView &view) {
  GPTQ_ASSIGN(std::string type, typeOf(view));
  if (type == "Sequence") {
    GPTQ_ASSIGN(JsonView list, view.at("normalizers"));
    GPTQ_ASSIGN(std::vector<JsonView> elements, list.elements());
    for (const JsonView &element : elements)
      GPTQ_TRY(readNormalizer(element));
    return {};
  }
  if (type == "Prepend") {
    GPTQ_ASSIGN(JsonView text, view.at("prepend"));
    GPTQ_ASSIGN(std::string prefix, text.string());
    normalizers.push_back([prefix](std::string &text) -> Status {
      if (!text.empty())
        text.insert(0, prefix);
      return {};
    });
    return {};
  }
  if (type == "Replace") {
    GPTQ_ASSIGN(JsonView pattern, view.at("pattern"));
    GPTQ_ASSIGN(JsonView content, view.at("content"));
    GPTQ_ASSIGN(std::string to, content.string());
    if (std::optional<JsonView> literal = pattern.find("String")) {
      GPTQ_ASSIGN(std::string from, literal->string());
      if (from.empty())
        return unsupported(*literal, "an empty pattern");
      normalizers.push_back([from, to](std::string &text) -> Status {
        replaceAll(text, from, to);
        return {};
      });
      return {};
    }
    GPTQ_ASSIGN(std::string text, readPattern(pattern));
    GPTQ_ASSIGN(std::shared_ptr<Regex> regex, compilePattern(pattern, text));
    normalizers.push_back([regex, to](std::string &text) -> Status {
      std::vector<std::pair<size_t, size_t>> matches;
      GPTQ_TRY(regex->findAll(text, matches));
      std::string out;
      size_t at = 0;
      for (auto [begin, end] : matches) {
        out.append(text, at, begin - at);
        out += to;
        at = end;
      }
      out.append(text, at, std::string::npos);
      text = std::move(out);
      return {};
    });
    return {};
  }
  for (auto [name, options] :
       {std::pair("NFC", UTF8PROC_COMPOSE), {"NFD", UTF8PROC_DECOMPOSE}}) {
    if (type != name)
      continue;
    utf8proc_option_t option = options;
    normalizers.push_back([option](std::string &text) -> Status {
      utf8proc_uint8_t *out = nullptr;
      utf8proc_ssize_t n =
          utf8proc_map(reinterpret_cast<const utf8proc_uint8_t *>(text.data()),
                       utf8proc_ssize_t(text.size()), &out,
                       utf8proc_option_t(UTF8PROC_STABLE | option));
      if (n < 0)
        return makeStatus(StatusCode::InvalidArgument,
                          "the text cannot be normalized: %s",
                          utf8proc_errmsg(n));
      text.assign(reinterpret_cast<char *>(out), size_t(n));
      std::free(out);
      return {};
    });
    return {};
  }
  return unsupported(view, "the normalizer " + quoteForMessage(type));
}

/// Puts a mark in place of spaces and, as `scheme` says, in front.
void BpeTokenizer::addMetaspace(const std::string &mark,
                                const std::string &scheme, bool split) {
  prependMark = scheme == "never" ? "" : mark;
  prependFirstOnly = scheme == "first";
  preTokenizers.push_back([mark, split](Words &words) -> Status {
    std::vector<std::string> out;
    for (std::string &word : words.list) {
      replaceAll(word, " ", mark);
      if (!split) {
        out.push_back(std::move(word));
        continue;
      }
      // Each mark starts a word.
      size_t begin = 0;
      for (size_t at = word.find(mark, mark.size()); at != std::string::npos;
           at = word.find(mark, at + mark.size())) {
        out.push_back(word.substr(begin, at - begin));
        begin = at;
      }
      if (begin < word.size())
        out.push_back(word.substr(begin));
    }
    words.list = std::move(out);
    return {};
  });
}

Status BpeTokenizer::readPreTokenizer(const JsonView &view) {
  GPTQ_ASSIGN(std::string type, typeOf(view));
  if (type == "Sequence") {
    GPTQ_ASSIGN(JsonView list, view.at("pretokenizers"));
    GPTQ_ASSIGN(std::vector<JsonView> elements, list.elements());
    for (const JsonView &element : elements)
      GPTQ_TRY(readPreTokenizer(element));
    return {};
  }
  if (isByteLevel)
    return unsupported(view, "a stage behind ByteLevel");
  if (type == "Split") {
    GPTQ_ASSIGN(JsonView patternView, view.at("pattern"));
    GPTQ_ASSIGN(std::string pattern, readPattern(patternView));
    GPTQ_ASSIGN(std::shared_ptr<Regex> regex,
                compilePattern(patternView, pattern));
    GPTQ_ASSIGN(JsonView behaviorView, view.at("behavior"));
    GPTQ_ASSIGN(SplitBehavior behavior, parseBehavior(behaviorView));
    GPTQ_ASSIGN(bool invert, flag(view, "invert", false));
    preTokenizers.push_back(splitStage(regex, behavior, invert));
    return {};
  }
  if (type == "Digits") {
    GPTQ_ASSIGN(bool individual, flag(view, "individual_digits", false));
    GPTQ_ASSIGN(std::shared_ptr<Regex> regex,
                compilePattern(view, individual ? "\\p{N}" : "\\p{N}+"));
    preTokenizers.push_back(splitStage(regex, SplitBehavior::Isolated, false));
    return {};
  }
  if (type == "ByteLevel") {
    GPTQ_ASSIGN(bool addSpace, flag(view, "add_prefix_space", true));
    GPTQ_ASSIGN(bool useRegex, flag(view, "use_regex", true));
    if (addSpace)
      preTokenizers.push_back([](Words &words) -> Status {
        for (std::string &word : words.list)
          if (!word.empty() && word[0] != ' ')
            word.insert(0, 1, ' ');
        return {};
      });
    if (useRegex) {
      GPTQ_ASSIGN(std::shared_ptr<Regex> regex,
                  compilePattern(view, gpt2Pattern));
      preTokenizers.push_back(
          splitStage(regex, SplitBehavior::Isolated, false));
    }
    isByteLevel = true;
    return {};
  }
  if (type == "Metaspace") {
    std::string mark(defaultSpaceMark), scheme = "always";
    if (std::optional<JsonView> m = view.find("replacement")) {
      GPTQ_ASSIGN(mark, m->string());
    }
    if (std::optional<JsonView> s = view.find("prepend_scheme"); !isAbsent(s)) {
      GPTQ_ASSIGN(scheme, s->string());
      if (scheme != "always" && scheme != "first" && scheme != "never")
        return unsupported(*s, "the scheme " + quoteForMessage(scheme));
    } else {
      GPTQ_ASSIGN(bool addSpace, flag(view, "add_prefix_space", true));
      scheme = addSpace ? "always" : "never";
    }
    if (mark.empty())
      return unsupported(view, "an empty replacement");
    if (!preTokenizers.empty())
      return unsupported(view, "Metaspace behind another stage");
    GPTQ_ASSIGN(bool split, flag(view, "split", true));
    addMetaspace(mark, scheme, split);
    return {};
  }
  return unsupported(view, "the pre-tokenizer " + quoteForMessage(type));
}

/// Start tokens are the manifest's business; anything that would add others
/// in the middle or change the text is refused.
Status BpeTokenizer::checkPostProcessor(const JsonView &view) {
  GPTQ_ASSIGN(std::string type, typeOf(view));
  if (type == "Sequence") {
    GPTQ_ASSIGN(JsonView list, view.at("processors"));
    GPTQ_ASSIGN(std::vector<JsonView> elements, list.elements());
    for (const JsonView &element : elements)
      GPTQ_TRY(checkPostProcessor(element));
    return {};
  }
  if (type == "TemplateProcessing" || type == "ByteLevel")
    return {};
  return unsupported(view, "the post-processor " + quoteForMessage(type));
}

Status BpeTokenizer::readDecoder(const JsonView &view) {
  GPTQ_ASSIGN(std::string type, typeOf(view));
  if (type == "Sequence") {
    GPTQ_ASSIGN(JsonView list, view.at("decoders"));
    GPTQ_ASSIGN(std::vector<JsonView> elements, list.elements());
    for (const JsonView &element : elements)
      GPTQ_TRY(readDecoder(element));
    return {};
  }
  if (type == "ByteLevel") {
    decodesByteLevel = true;
    return {};
  }
  if (type == "ByteFallback") {
    decodesByteTokens = true;
    return {};
  }
  if (type == "Fuse")
    return {};
  if (type == "Replace") {
    GPTQ_ASSIGN(JsonView pattern, view.at("pattern"));
    GPTQ_ASSIGN(JsonView literal, pattern.at("String"));
    GPTQ_ASSIGN(std::string from, literal.string());
    GPTQ_ASSIGN(JsonView content, view.at("content"));
    GPTQ_ASSIGN(std::string to, content.string());
    if (from.empty())
      return unsupported(literal, "an empty pattern");
    replacements.emplace_back(from, to);
    return {};
  }
  if (type == "Strip") {
    GPTQ_ASSIGN(JsonView content, view.at("content"));
    GPTQ_ASSIGN(std::string text, content.string());
    GPTQ_ASSIGN(JsonView startView, view.at("start"));
    GPTQ_ASSIGN(int64_t start, startView.integer(0, 64));
    GPTQ_ASSIGN(JsonView stopView, view.at("stop"));
    GPTQ_ASSIGN(int64_t stop, stopView.integer());
    if (text != " " || stop != 0)
      return unsupported(view, "stripping anything but leading spaces");
    spacesToStrip = int(start);
    return {};
  }
  if (type == "Metaspace") {
    std::string mark(defaultSpaceMark), scheme = "always";
    if (std::optional<JsonView> m = view.find("replacement")) {
      GPTQ_ASSIGN(mark, m->string());
    }
    if (std::optional<JsonView> s = view.find("prepend_scheme"); !isAbsent(s)) {
      GPTQ_ASSIGN(scheme, s->string());
    } else {
      GPTQ_ASSIGN(bool addSpace, flag(view, "add_prefix_space", true));
      scheme = addSpace ? "always" : "never";
    }
    if (mark.empty())
      return unsupported(view, "an empty replacement");
    replacements.emplace_back(mark, " ");
    spacesToStrip = scheme == "never" ? 0 : 1;
    return {};
  }
  return unsupported(view, "the decoder " + quoteForMessage(type));
}

/// The byte of `<0xAB>`, or -1.
int byteOfName(std::string_view name) {
  if (name.size() != 6 || name.substr(0, 3) != "<0x" || name[5] != '>')
    return -1;
  int value = 0;
  for (char c : name.substr(3, 2)) {
    int digit = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
    if (digit < 0)
      return -1;
    value = value * 16 + digit;
  }
  return value;
}

/// Works out each token's bytes once, so that decoding is a look-up.
Status BpeTokenizer::decodeAll() {
  decoded.resize(names.size());
  for (size_t id = 0; id < names.size(); ++id) {
    const std::string &name = names[id];
    int byte = decodesByteTokens ? byteOfName(name) : -1;
    if (byte >= 0) {
      decoded[id] = char(byte);
      continue;
    }
    std::string text = name;
    for (const auto &[from, to] : replacements)
      replaceAll(text, from, to);
    if (decodesByteLevel)
      if (std::optional<std::string> bytes = alphabet.decode(text))
        text = *bytes;
    decoded[id] = std::move(text);
  }
  for (const Added &token : added)
    if (token.isSpecial)
      decoded[token.id].clear();
  return {};
}

Expected<std::unique_ptr<Tokenizer>> BpeTokenizer::read(ByteSpan json) {
  GPTQ_ASSIGN(Json document, parseJson(json.text(), {32, size_t(1) << 24}));
  JsonView root(document, "");
  auto tokenizer = std::make_unique<BpeTokenizer>();
  BpeTokenizer &t = *tokenizer;
  GPTQ_ASSIGN(JsonView model, root.at("model"));
  GPTQ_TRY(t.readModel(model));
  if (auto view = root.find("normalizer"); !isAbsent(view))
    GPTQ_TRY(t.readNormalizer(*view));
  if (auto view = root.find("pre_tokenizer"); !isAbsent(view))
    GPTQ_TRY(t.readPreTokenizer(*view));
  if (auto view = root.find("post_processor"); !isAbsent(view))
    GPTQ_TRY(t.checkPostProcessor(*view));
  if (auto view = root.find("decoder"); !isAbsent(view))
    GPTQ_TRY(t.readDecoder(*view));
  if (auto view = root.find("added_tokens"); !isAbsent(view))
    GPTQ_TRY(t.readAddedTokens(*view));

  t.byteTokens.fill(-1);
  for (int byte = 0; byte < 256; ++byte) {
    std::string name = t.alphabet.text(byte);
    if (!t.isByteLevel) {
      char text[8];
      std::snprintf(text, sizeof(text), "<0x%02X>", byte);
      name = text;
    }
    if (auto it = t.vocab.find(name); it != t.vocab.end())
      t.byteTokens[byte] = it->second;
  }
  GPTQ_TRY(t.decodeAll());
  return std::unique_ptr<Tokenizer>(std::move(tokenizer));
}

Status BpeTokenizer::encode(std::string_view text, bool parseSpecial,
                            std::vector<int32_t> &out) const {
  // Everything behind works on valid UTF-8.
  std::string valid;
  appendValidUtf8(text, /*isFinal=*/true, valid);
  bool isFirst = true;
  return (parseSpecial ? specialTokens : rawTokens)
      .split(
          valid,
          [&](std::string_view part) -> Status {
            GPTQ_TRY(encodePart(part, isFirst, out));
            isFirst = false;
            return {};
          },
          [&](int32_t id) {
            out.push_back(id);
            isFirst = false;
          });
}

Status BpeTokenizer::encodePart(std::string_view part, bool isFirst,
                                std::vector<int32_t> &out) const {
  std::string text(part);
  for (const Normalizer &normalize : normalizers)
    GPTQ_TRY(normalize(text));
  return normalizedTokens.split(
      text,
      [&](std::string_view piece) -> Status {
        Words words;
        words.list.emplace_back(piece);
        if (!prependMark.empty() && (isFirst || !prependFirstOnly)) {
          std::string &word = words.list[0];
          if (word[0] != ' ' &&
              word.compare(0, prependMark.size(), prependMark) != 0)
            word.insert(0, prependMark);
        }
        isFirst = false;
        for (const PreTokenizer &stage : preTokenizers)
          GPTQ_TRY(stage(words));
        for (const std::string &word : words.list)
          encodeWord(word, out);
        return {};
      },
      [&](int32_t id) {
        out.push_back(id);
        isFirst = false;
      });
}

/// Appends the tokens of a character that merging starts from.
void BpeTokenizer::appendCharacter(std::string_view character,
                                   std::vector<int32_t> &out) const {
  if (auto it = vocab.find(std::string(character)); it != vocab.end()) {
    out.push_back(it->second);
    return;
  }
  if (byteFallback) {
    bool hasAll = true;
    for (char c : character)
      hasAll &= byteTokens[(unsigned char)c] >= 0;
    if (hasAll) {
      for (char c : character)
        out.push_back(byteTokens[(unsigned char)c]);
      return;
    }
  }
  // Characters without any token vanish if there is no token for the unknown.
  if (unknown && !(fuseUnknown && !out.empty() && out.back() == *unknown))
    out.push_back(*unknown);
}

void BpeTokenizer::encodeWord(const std::string &word,
                              std::vector<int32_t> &out) const {
  if (word.empty())
    return;
  if (ignoreMerges) {
    std::string name = word;
    if (isByteLevel) {
      name.clear();
      for (char c : word)
        name += alphabet.text(c);
    }
    if (auto it = vocab.find(name); it != vocab.end()) {
      out.push_back(it->second);
      return;
    }
  }

  std::vector<int32_t> tokens;
  if (isByteLevel) {
    for (char c : word) {
      int32_t token = byteTokens[(unsigned char)c];
      if (token >= 0)
        tokens.push_back(token);
      else if (unknown &&
               !(fuseUnknown && !tokens.empty() && tokens.back() == *unknown))
        tokens.push_back(*unknown);
    }
  } else {
    for (size_t i = 0; i < word.size();) {
      size_t n = characterLength(word, i);
      appendCharacter(std::string_view(word).substr(i, n), tokens);
      i += n;
    }
  }

  // A list of symbols linked both ways, and a queue of the pairs that may
  // merge: lowest rank first, then leftmost. A pair whose symbols changed
  // since it was queued no longer merges to the token it was queued for.
  struct Symbol {
    int32_t token;
    int32_t previous, next;
  };
  struct Candidate {
    int32_t rank, position, token;
    bool operator>(const Candidate &other) const {
      return rank != other.rank ? rank > other.rank : position > other.position;
    }
  };
  int32_t count = int32_t(tokens.size());
  std::vector<Symbol> symbols(count);
  for (int32_t i = 0; i < count; ++i)
    symbols[i] = {tokens[i], i - 1, i + 1 < count ? i + 1 : -1};
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  auto find = [&](int32_t left) -> const Merge * {
    int32_t right = left < 0 ? -1 : symbols[left].next;
    if (right < 0)
      return nullptr;
    auto it = merges.find(pairKey(symbols[left].token, symbols[right].token));
    return it == merges.end() ? nullptr : &it->second;
  };
  auto enqueue = [&](int32_t left) {
    if (const Merge *merge = find(left))
      queue.push({merge->rank, left, merge->token});
  };
  for (int32_t i = 0; i < count; ++i)
    enqueue(i);
  while (!queue.empty()) {
    Candidate top = queue.top();
    queue.pop();
    Symbol &left = symbols[top.position];
    if (left.token < 0)
      continue;
    const Merge *merge = find(top.position);
    if (!merge || merge->token != top.token)
      continue;
    Symbol &right = symbols[left.next];
    left.token = top.token;
    left.next = right.next;
    right.token = -1;
    if (left.next >= 0)
      symbols[left.next].previous = top.position;
    enqueue(left.previous);
    enqueue(top.position);
  }
  for (int32_t i = count > 0 ? 0 : -1; i >= 0; i = symbols[i].next)
    out.push_back(symbols[i].token);
}

} // namespace

Expected<std::unique_ptr<Tokenizer>>
gptq::runtime::readTokenizerJson(ByteSpan json) {
  Expected<std::unique_ptr<Tokenizer>> tokenizer = BpeTokenizer::read(json);
  if (!tokenizer)
    return tokenizer.status().withContext("tokenizer.json");
  return tokenizer;
}
