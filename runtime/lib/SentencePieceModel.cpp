//===- SentencePieceModel.cpp - Checks a tokenizer.model ------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A tokenizer.model is a protocol buffer, ModelProto:
//
// | field | content                                                           |
// | ----- | ----------------------------------------------------------------- |
// | 1     | a piece: 1 text, 2 score (float), 3 type; once for each id        |
// | 2     | trainer: 3 model type, 35 byte fallback; the rest is history      |
// | 3     | normalizer: 2 character map; the rest are names and flags         |
// | 4     | self test: 1 sample: 1 input, 2 expected                          |
// | 5     | denormalizer: as 3                                                |
//
// The library follows the character map's offsets without looking where they
// lead, collects nested matches in arrays of fixed size, and throws or aborts
// on some texts. Those are checked here, together with what it would report
// itself, so that the report is one clean sentence.
//
//===----------------------------------------------------------------------===//

#include "runtime/lib/SentencePieceModel.h"

#include "runtime/lib/Tokenizer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <unordered_set>
#include <vector>

using namespace gptq::abi;
using namespace gptq::runtime;

namespace {

/// Real files hold at most a few MB and a quarter of a million pieces.
constexpr size_t maxFileBytes = size_t(64) << 20;
constexpr size_t maxPieces = size_t(1) << 21;
/// Trained pieces have 16 characters, hand-made ones some hundred. It also
/// keeps the matches at one place below the 1024 the library has room for.
constexpr size_t maxPieceBytes = 512;
/// The largest map in use, for NFKC with case folding, has 250 kB.
constexpr size_t maxCharacterMapBytes = size_t(1) << 20;
/// The longest text that NFKC makes of one character has 33 bytes.
constexpr size_t maxReplacementBytes = 1024;
/// Room the library has for matches of the character map, and for matches of
/// user-defined pieces, that start at one place.
constexpr int maxNestedCharacters = 32;
constexpr int maxNestedPieces = 64;
/// The library encodes every sample while it loads.
constexpr size_t maxSelfTestBytes = size_t(1) << 20;

enum WireType : uint32_t { Varint = 0, Fixed64 = 1, Bytes = 2, Fixed32 = 5 };

enum ModelType : uint64_t { Unigram = 1, Bpe = 2 };

enum PieceType : uint64_t {
  Normal = 1,
  Unknown = 2,
  Control = 3,
  UserDefined = 4,
  Unused = 5,
  Byte = 6,
};

Status broken(const char *what) {
  return makeStatus(StatusCode::InvalidFile, "tokenizer.model: %s", what);
}

struct Field {
  uint32_t number;
  uint32_t type;
  /// Of a varint or a fixed number.
  uint64_t value = 0;
  std::string_view bytes;
};

/// Reads the fields of one message.
class Message {
public:
  explicit Message(std::string_view bytes) : rest(bytes) {}

  bool atEnd() const { return rest.empty(); }

  Expected<Field> next() {
    Field field;
    GPTQ_ASSIGN(uint64_t tag, varint());
    field.number = uint32_t(tag >> 3);
    field.type = uint32_t(tag & 7);
    if (tag >> 32 || field.number == 0)
      return broken("a field has no valid number");
    switch (field.type) {
    case Varint: {
      GPTQ_ASSIGN(field.value, varint());
      break;
    }
    case Fixed64:
    case Fixed32: {
      size_t size = field.type == Fixed64 ? 8 : 4;
      GPTQ_ASSIGN(std::string_view number, take(size));
      std::memcpy(&field.value, number.data(), size);
      break;
    }
    case Bytes: {
      GPTQ_ASSIGN(uint64_t size, varint());
      GPTQ_ASSIGN(field.bytes, take(size));
      break;
    }
    default:
      return broken("a field is of no known wire type");
    }
    return field;
  }

private:
  Expected<std::string_view> take(uint64_t size) {
    if (size > rest.size())
      return makeStatus(StatusCode::InvalidFile,
                        "tokenizer.model: a field of %llu bytes has %zu left",
                        (unsigned long long)size, rest.size());
    std::string_view taken = rest.substr(0, size_t(size));
    rest.remove_prefix(size_t(size));
    return taken;
  }

  Expected<uint64_t> varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      if (rest.empty())
        return broken("ends inside a number");
      uint8_t byte = uint8_t(rest.front());
      rest.remove_prefix(1);
      if (shift == 63 && byte > 1)
        break;
      value |= uint64_t(byte & 0x7f) << shift;
      if (!(byte & 0x80))
        return value;
    }
    return broken("a number has more than 64 bits");
  }

  std::string_view rest;
};

/// A known field must come as the type it has, or the library would take it
/// for one it does not know.
Status expectType(const Field &field, WireType type) {
  if (field.type == type)
    return {};
  return makeStatus(
      StatusCode::InvalidFile,
      "tokenizer.model: expected field %u to have wire type %u, found %u",
      field.number, unsigned(type), field.type);
}

/// Text the library takes as zero-terminated UTF-8.
bool isCleanText(std::string_view text) {
  std::string valid;
  return text.find('\0') == std::string_view::npos &&
         appendValidUtf8(text, /*isFinal=*/true, valid) == text.size() &&
         valid == text;
}

/// The character map: a 32-bit size, that many bytes of a double-array trie in
/// units of 32 bits, and zero-terminated texts. The trie leads from UTF-8 to an
/// offset in the texts. A unit holds, from the lowest bit:
///
/// | bits    | content                                                      |
/// | ------- | ------------------------------------------------------------ |
/// | 0 to 7  | label, the byte that leads here                              |
/// | 8       | a key ends here: its value is in the first unit of the block |
/// | 9       | the offset counts 256 units                                  |
/// | 10 to 30| offset: this index XOR offset is the block of the children   |
/// | 31      | the unit is a value, of 31 bits                              |
class CharacterMap {
public:
  static Status check(std::string_view blob) {
    if (blob.empty())
      return {};
    if (blob.size() > maxCharacterMapBytes)
      return makeStatus(StatusCode::InvalidFile,
                        "tokenizer.model: the character map has %zu bytes, at "
                        "most %zu are read",
                        blob.size(), maxCharacterMapBytes);
    uint32_t trieBytes = 0;
    if (blob.size() <= sizeof(trieBytes))
      return broken("the character map has no trie");
    std::memcpy(&trieBytes, blob.data(), sizeof(trieBytes));
    blob.remove_prefix(sizeof(trieBytes));
    if (trieBytes == 0 || trieBytes % 4 != 0 || trieBytes >= blob.size())
      return makeStatus(StatusCode::InvalidFile,
                        "tokenizer.model: the character map's trie has %u of "
                        "%zu bytes",
                        trieBytes, blob.size());
    CharacterMap map;
    map.units.resize(trieBytes / 4);
    std::memcpy(map.units.data(), blob.data(), trieBytes);
    map.texts = blob.substr(trieBytes);
    GPTQ_TRY(map.checkTexts());
    return map.checkTrie();
  }

private:
  Status checkTexts() const {
    if (texts.back() != '\0')
      return broken("the character map's last text has no end");
    for (size_t at = 0; at < texts.size();) {
      size_t end = texts.find('\0', at);
      std::string_view text = texts.substr(at, end - at);
      if (text.size() > maxReplacementBytes || !isCleanText(text))
        return broken("a text of the character map is too long or not UTF-8");
      at = end + 1;
    }
    return {};
  }

  /// Goes everywhere a text can lead. Tries have one way to each unit but for
  /// unused ones, which zeros in a text may reach; those end no key.
  Status checkTrie() const {
    struct Node {
      uint32_t index;
      int ends;
    };
    // The most keys that end on a way to this unit; -1 where no way leads.
    std::vector<int8_t> most(units.size(), -1);
    std::vector<Node> open = {{0, 0}};
    size_t visits = 0;
    while (!open.empty()) {
      Node node = open.back();
      open.pop_back();
      if (++visits > 8 * units.size())
        return broken("the character map's trie is no tree");
      uint32_t unit = units[node.index];
      uint32_t block = node.index ^ ((unit >> 10) << ((unit & (1u << 9)) >> 6));
      // A text may go on with any byte.
      if ((block | 0xff) >= units.size())
        return broken("the character map's trie leads outside");
      if (unit >> 8 & 1) {
        uint32_t value = units[block] & 0x7fffffff;
        if (value >= texts.size() || (value > 0 && texts[value - 1] != '\0'))
          return broken("the character map leads to no text");
        if (++node.ends > maxNestedCharacters)
          return broken("the character map has too many keys in a key");
      }
      for (uint32_t c = 0; c < 256; ++c) {
        uint32_t child = block ^ c;
        if ((units[child] & ((1u << 31) | 0xff)) == c &&
            most[child] < node.ends) {
          most[child] = int8_t(node.ends);
          open.push_back({child, node.ends});
        }
      }
    }
    return {};
  }

  std::vector<uint32_t> units;
  std::string_view texts;
};

class Checker {
public:
  Status check(ByteSpan model) {
    if (model.size > maxFileBytes)
      return makeStatus(StatusCode::InvalidFile,
                        "tokenizer.model has %zu bytes, at most %zu are read",
                        model.size, maxFileBytes);
    bool seen[6] = {};
    Message message(model.text());
    while (!message.atEnd()) {
      GPTQ_ASSIGN(Field field, message.next());
      if (field.number > 5)
        continue;
      GPTQ_TRY(expectType(field, Bytes));
      // Two of a kind would be merged.
      if (field.number > 1 && std::exchange(seen[field.number], true))
        return makeStatus(StatusCode::InvalidFile,
                          "tokenizer.model: field %u is there twice",
                          field.number);
      switch (field.number) {
      case 1:
        GPTQ_TRY(piece(field.bytes));
        break;
      case 2:
        GPTQ_TRY(trainer(field.bytes));
        break;
      case 4:
        GPTQ_TRY(selfTest(field.bytes));
        break;
      default:
        GPTQ_TRY(normalizer(field.bytes));
      }
    }
    return whole();
  }

private:
  Status badPiece(const char *what) const {
    return makeStatus(StatusCode::InvalidFile, "tokenizer.model: piece %zu %s",
                      count, what);
  }

  Status piece(std::string_view bytes) {
    if (count == maxPieces)
      return makeStatus(StatusCode::InvalidFile,
                        "tokenizer.model: expected at most %zu pieces",
                        maxPieces);
    std::string_view text;
    uint64_t type = Normal;
    Message message(bytes);
    while (!message.atEnd()) {
      GPTQ_ASSIGN(Field field, message.next());
      if (field.number == 1) {
        GPTQ_TRY(expectType(field, Bytes));
        text = field.bytes;
      } else if (field.number == 2) {
        GPTQ_TRY(expectType(field, Fixed32));
        float score;
        std::memcpy(&score, &field.value, sizeof(score));
        if (!std::isfinite(score))
          return badPiece("has a score that is no finite number");
      } else if (field.number == 3) {
        GPTQ_TRY(expectType(field, Varint));
        type = field.value;
        if (type < Normal || type > Byte)
          return badPiece("is of no known type");
      }
    }
    if (text.empty() || text.size() > maxPieceBytes || !isCleanText(text))
      return badPiece("is empty, too long, or not UTF-8");
    if (!texts.insert(text).second)
      return badPiece("is there twice");
    switch (type) {
    case Unknown:
      if (std::exchange(hasUnknown, true))
        return badPiece("is a second unknown piece");
      break;
    case UserDefined:
      userDefined.push_back(text);
      break;
    case Byte: {
      // <0xAB>
      auto isDigit = [](char c) {
        return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F');
      };
      if (text.size() != 6 || text.substr(0, 3) != "<0x" || !isDigit(text[3]) ||
          !isDigit(text[4]) || text[5] != '>')
        return badPiece("is no byte");
      ++bytePieces;
      break;
    }
    default:
      break;
    }
    ++count;
    return {};
  }

  Status trainer(std::string_view bytes) {
    Message message(bytes);
    while (!message.atEnd()) {
      GPTQ_ASSIGN(Field field, message.next());
      if (field.number == 3) {
        GPTQ_TRY(expectType(field, Varint));
        if (field.value != Unigram && field.value != Bpe)
          return makeStatus(StatusCode::Unsupported,
                            "tokenizer.model: expected a unigram or BPE model, "
                            "found type %llu",
                            (unsigned long long)field.value);
      } else if (field.number == 35) {
        GPTQ_TRY(expectType(field, Varint));
        byteFallback = field.value != 0;
      }
    }
    return {};
  }

  Status normalizer(std::string_view bytes) {
    Message message(bytes);
    while (!message.atEnd()) {
      GPTQ_ASSIGN(Field field, message.next());
      if (field.number != 2)
        continue;
      GPTQ_TRY(expectType(field, Bytes));
      GPTQ_TRY(CharacterMap::check(field.bytes));
    }
    return {};
  }

  Status selfTest(std::string_view bytes) {
    if (bytes.size() > maxSelfTestBytes)
      return broken("the self test is too large");
    Message message(bytes);
    while (!message.atEnd()) {
      GPTQ_ASSIGN(Field field, message.next());
      if (field.number != 1)
        continue;
      GPTQ_TRY(expectType(field, Bytes));
      Message sample(field.bytes);
      while (!sample.atEnd()) {
        GPTQ_ASSIGN(Field text, sample.next());
        if (text.number > 2)
          continue;
        GPTQ_TRY(expectType(text, Bytes));
        if (!isCleanText(text.bytes))
          return broken("a text of the self test is not UTF-8");
      }
    }
    return {};
  }

  Status whole() {
    if (!hasUnknown)
      return broken("has no unknown piece");
    if (byteFallback && bytePieces != 256)
      return makeStatus(StatusCode::InvalidFile,
                        "tokenizer.model: expected 256 byte pieces, found %zu",
                        bytePieces);
    if (!byteFallback && bytePieces != 0)
      return broken("has byte pieces and does not use them");
    // In order, a text's beginnings come before it: keep those of the last.
    std::sort(userDefined.begin(), userDefined.end());
    std::vector<std::string_view> beginnings;
    for (std::string_view text : userDefined) {
      while (!beginnings.empty() &&
             text.substr(0, beginnings.back().size()) != beginnings.back())
        beginnings.pop_back();
      beginnings.push_back(text);
      if (beginnings.size() > size_t(maxNestedPieces))
        return makeStatus(StatusCode::InvalidFile,
                          "tokenizer.model: more than %d user-defined pieces "
                          "begin one another",
                          maxNestedPieces);
    }
    return {};
  }

  size_t count = 0;
  size_t bytePieces = 0;
  bool hasUnknown = false;
  bool byteFallback = false;
  std::unordered_set<std::string_view> texts;
  std::vector<std::string_view> userDefined;
};

} // namespace

Status gptq::runtime::checkSentencePieceModel(ByteSpan model) {
  return Checker().check(model);
}
