//===- SentencePieceModelTest.cpp - Hostile tokenizer.model ---------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/lib/Tokenizer.h"

#include <cmath>
#include <cstring>
#include <gtest/gtest.h>

using namespace gptq::abi;
using namespace gptq::runtime;

namespace {

std::string varint(uint64_t value) {
  std::string out;
  for (; value >= 128; value >>= 7)
    out += char(value | 128);
  return out + char(value);
}

std::string number(uint32_t field, uint64_t value) {
  return varint(field << 3) + varint(value);
}

std::string bytes(uint32_t field, std::string_view content) {
  return varint(field << 3 | 2) + varint(content.size()) + std::string(content);
}

enum Type { Normal = 1, Unknown, Control, UserDefined, Unused, Byte };

std::string piece(std::string_view text, int type = Normal, float score = 0) {
  std::string value(4, 0);
  std::memcpy(value.data(), &score, 4);
  return bytes(1, bytes(1, text) + varint(2 << 3 | 5) + value +
                      number(3, uint64_t(type)));
}

/// A model that needs nothing but what a test adds to it.
std::string model(const std::string &more, int type = 2) {
  return piece("<unk>", Unknown) + piece("a", Normal, -1) +
         piece("b", Normal, -2) + more + bytes(2, number(3, uint64_t(type)));
}

std::string errorOf(const std::string &file) {
  return readSentencePiece(ByteSpan::of(file)).status().message();
}

std::vector<int32_t> encode(const std::string &file, std::string_view text) {
  Expected<std::unique_ptr<Tokenizer>> tokenizer =
      readSentencePiece(ByteSpan::of(file));
  EXPECT_TRUE(tokenizer) << tokenizer.status().message();
  std::vector<int32_t> ids;
  if (tokenizer)
    EXPECT_TRUE((*tokenizer)->encode(text, false, ids).ok());
  return ids;
}

std::string mapOf(const std::vector<uint32_t> &units, std::string_view texts) {
  uint32_t size = uint32_t(units.size() * 4);
  std::string out(reinterpret_cast<const char *>(&size), 4);
  out.append(reinterpret_cast<const char *>(units.data()), size);
  return out.append(texts);
}

std::string normalizer(const std::string &map) {
  return bytes(3, bytes(2, map) + number(3, 0));
}

/// A -> "b": the root's children are the second 256 units; those of 'A' would
/// be the third, which start with its value.
std::vector<uint32_t> trie() {
  std::vector<uint32_t> units(768);
  units[0] = 256 << 10;
  units[256 + 'A'] = ((256 + 'A') ^ 512) << 10 | 1 << 8 | 'A';
  units[512] = 1u << 31 | 0;
  return units;
}

TEST(SentencePieceModel, AcceptsSmallModels) {
  std::string plain = bytes(3, number(3, 0));
  EXPECT_EQ(encode(model(plain), "ab"), (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(encode(model(plain, 1), "ab"), (std::vector<int32_t>{1, 2}));
  // A field from the future.
  EXPECT_EQ(encode(model(plain + number(300, 7)), "ab"),
            (std::vector<int32_t>{1, 2}));
}

TEST(SentencePieceModel, FollowsItsCharacterMap) {
  std::string file = model(normalizer(mapOf(trie(), std::string_view("b", 2))));
  EXPECT_EQ(encode(file, "Aa"), (std::vector<int32_t>{2, 1}));
}

TEST(SentencePieceModel, RefusesBrokenWire) {
  std::string whole = model("");
  for (size_t cut = 0; cut < whole.size(); ++cut) {
    Expected<std::unique_ptr<Tokenizer>> tokenizer =
        readSentencePiece(ByteSpan::of(whole.substr(0, cut)));
    // Between two fields the rest may be a model already.
    if (!tokenizer)
      EXPECT_EQ(tokenizer.status().message().find("tokenizer.model"), 0u);
  }
  EXPECT_EQ(errorOf(whole + varint(0)),
            "tokenizer.model: a field has no valid number");
  EXPECT_EQ(errorOf(whole + varint(300 << 3 | 3)),
            "tokenizer.model: a field is of no known wire type");
  EXPECT_EQ(errorOf(whole + std::string(11, '\xff')),
            "tokenizer.model: a number has more than 64 bits");
  EXPECT_EQ(errorOf(whole + varint(300 << 3 | 2) + varint(~0ull)),
            "tokenizer.model: a field of 18446744073709551615 bytes has 0 "
            "left");
  EXPECT_EQ(errorOf(whole + number(1, 1)),
            "tokenizer.model: expected field 1 to have wire type 2, found 0");
  EXPECT_EQ(errorOf(whole + bytes(2, "")),
            "tokenizer.model: field 2 is there twice");
}

TEST(SentencePieceModel, RefusesBadPieces) {
  EXPECT_EQ(errorOf(piece("a")), "tokenizer.model: has no unknown piece");
  EXPECT_EQ(errorOf(model(piece("<un>", Unknown))),
            "tokenizer.model: piece 3 is a second unknown piece");
  EXPECT_EQ(errorOf(model(piece("a"))),
            "tokenizer.model: piece 3 is there twice");
  EXPECT_EQ(errorOf(model(piece("c", 7))),
            "tokenizer.model: piece 3 is of no known type");
  EXPECT_EQ(errorOf(model(piece("c", Normal, NAN))),
            "tokenizer.model: piece 3 has a score that is no finite number");
  const std::string text = "tokenizer.model: piece 3 is empty, too long, or "
                           "not UTF-8";
  EXPECT_EQ(errorOf(model(piece(""))), text);
  EXPECT_EQ(errorOf(model(piece("\xff"))), text);
  EXPECT_EQ(errorOf(model(piece(std::string_view("c\0d", 3)))), text);
  EXPECT_EQ(errorOf(model(piece(std::string(513, 'c')))), text);
  EXPECT_EQ(errorOf(model(piece("<0x4g>", Byte))),
            "tokenizer.model: piece 3 is no byte");
  EXPECT_EQ(errorOf(model(piece("<0x4A>", Byte))),
            "tokenizer.model: has byte pieces and does not use them");
  EXPECT_EQ(
      errorOf(piece("<unk>", Unknown) + bytes(2, number(3, 2) + number(35, 1))),
      "tokenizer.model: expected 256 byte pieces, found 0");
  EXPECT_EQ(errorOf(model("", 4)), "tokenizer.model: expected a unigram or "
                                   "BPE model, found type 4");
}

TEST(SentencePieceModel, BoundsNestedPieces) {
  std::string most;
  for (size_t n = 1; n <= 64; ++n)
    most += piece(std::string(n, 'c'), UserDefined);
  EXPECT_EQ(encode(model(most + bytes(3, number(3, 0))), std::string(64, 'c')),
            (std::vector<int32_t>{66}));
  EXPECT_EQ(errorOf(model(most + piece(std::string(65, 'c'), UserDefined))),
            "tokenizer.model: more than 64 user-defined pieces begin one "
            "another");
}

TEST(SentencePieceModel, RefusesBadCharacterMaps) {
  const std::string_view texts("b", 2);
  auto error = [&](std::vector<uint32_t> units, std::string_view t) {
    return errorOf(model(normalizer(mapOf(units, t))));
  };
  EXPECT_EQ(errorOf(model(normalizer("abc"))),
            "tokenizer.model: the character map has no trie");
  EXPECT_EQ(errorOf(model(normalizer("\xff\xff\xff\xff"
                                     "ab"))),
            "tokenizer.model: the character map's trie has 4294967295 of 2 "
            "bytes");
  EXPECT_EQ(error(trie(), "b"),
            "tokenizer.model: the character map's last text has no end");
  EXPECT_EQ(error(trie(), std::string_view("\xff", 2)),
            "tokenizer.model: a text of the character map is too long or not "
            "UTF-8");
  std::vector<uint32_t> far = trie();
  far[0] = 768 << 10;
  EXPECT_EQ(error(far, texts),
            "tokenizer.model: the character map's trie leads outside");
  std::vector<uint32_t> scaled = trie();
  scaled[256 + 'A'] |= 1 << 9;
  EXPECT_EQ(error(scaled, texts),
            "tokenizer.model: the character map's trie leads outside");
  for (uint32_t value : {1u, 2u, 0x7fffffffu}) {
    std::vector<uint32_t> wrong = trie();
    wrong[512] = 1u << 31 | value;
    EXPECT_EQ(error(wrong, texts),
              "tokenizer.model: the character map leads to no text");
  }
  // 'A' leads to itself for ever.
  std::vector<uint32_t> loop = trie();
  loop[256 + 'A'] = 'A' << 10 | 1 << 8 | 'A';
  loop[256] = 1u << 31;
  EXPECT_EQ(error(loop, texts),
            "tokenizer.model: the character map has too many keys in a key");
  // "A", "AA", "AAA", …: each child of 'A' in a block of its own.
  for (uint32_t depth : {32u, 33u}) {
    std::vector<uint32_t> deep((depth + 2) * 256);
    deep[0] = 256 << 10;
    for (uint32_t i = 1; i <= depth; ++i) {
      uint32_t at = i * 256 + 'A', block = (i + 1) * 256;
      deep[at] = (at ^ block) << 10 | 1 << 8 | 'A';
      deep[block] = 1u << 31;
    }
    EXPECT_EQ(error(deep, texts), depth == 32 ? ""
                                              : "tokenizer.model: the "
                                                "character map has too many "
                                                "keys in a key");
  }
}

} // namespace
