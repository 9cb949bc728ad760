//===- TokenizerTest.cpp - Text to tokens and back ------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/lib/Tokenizer.h"
#include "runtime/abi/Json.h"
#include "runtime/test/ToyModel.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

using namespace gptq::abi;
using namespace gptq::runtime;
using gptq::test::readFile;

namespace {

std::string dataFile(const std::string &name) {
  return readFile(std::string(GPTQ_TEST_DATA) + "/" + name);
}

/// The folder of models that are not part of the project, if it is there.
std::string sharedData() {
  const char *variable = std::getenv("GPTQ_SHARED_DATA");
  std::string folder = variable ? variable : GPTQ_SHARED_DATA_DEFAULT;
  return std::filesystem::exists(folder) ? folder : "";
}

std::unique_ptr<Tokenizer> read(const std::string &json) {
  Expected<std::unique_ptr<Tokenizer>> t =
      readTokenizerJson(ByteSpan::of(json));
  EXPECT_TRUE(t) << t.status().message();
  return t ? t.take() : nullptr;
}

std::vector<int32_t> encode(const Tokenizer &t, std::string_view text,
                            bool parseSpecial = true) {
  std::vector<int32_t> ids;
  Status status = t.encode(text, parseSpecial, ids);
  EXPECT_TRUE(status.ok()) << status.message();
  return ids;
}

std::string decode(const Tokenizer &t, const std::vector<int32_t> &ids) {
  StreamDecoder decoder(t);
  std::string text;
  for (int32_t id : ids)
    text += decoder.push(id);
  return text + decoder.finish();
}

/// A small description to change pieces of.
Json smallTokenizer() {
  return *parseJson(R"({
    "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
    "post_processor": null, "decoder": {"type": "Fuse"},
    "model": {"type": "BPE", "unk_token": "?",
              "vocab": {"?": 0, "a": 1, "b": 2, "c": 3, "ab": 4, "bc": 5,
                        "abc": 6, "aa": 7},
              "merges": ["b c", "a b", "a bc", "a a"]}})");
}

template <typename F> void expectRefused(F change, const std::string &part) {
  Json document = smallTokenizer();
  change(document);
  std::string json = document.dump();
  Expected<std::unique_ptr<Tokenizer>> t =
      readTokenizerJson(ByteSpan::of(json));
  ASSERT_FALSE(t) << "accepted; expected: " << part;
  EXPECT_NE(t.status().message().find(part), std::string::npos)
      << t.status().message();
}

} // namespace

// The golden file holds what the format's reference implementation makes of
// the texts; the tokenizers beside it were trained on this project's own
// documentation.
TEST(BpeTokenizer, AgreesWithTheReference) {
  Json golden = *parseJson(dataFile("tokenizer-golden.json"));
  size_t checked = 0;
  for (auto &[name, results] : golden["golden"].items()) {
    std::unique_ptr<Tokenizer> t =
        read(dataFile("tokenizer-" + name + ".json"));
    ASSERT_TRUE(t);
    ASSERT_EQ(results.size(), golden["texts"].size());
    for (size_t i = 0; i < results.size(); ++i) {
      std::string text = golden["texts"][i];
      EXPECT_EQ(encode(*t, text), results[i]["ids"].get<std::vector<int32_t>>())
          << name << ": " << text;
      EXPECT_EQ(decode(*t, results[i]["ids"]), results[i]["text"])
          << name << ": " << text;
      ++checked;
    }
  }
  EXPECT_EQ(checked, 7u * 19u);
}

TEST(BpeTokenizer, MergesByRankThenFromTheLeft) {
  std::unique_ptr<Tokenizer> t = read(smallTokenizer().dump());
  using Ids = std::vector<int32_t>;
  EXPECT_EQ(encode(*t, "abc"), (Ids{6})); // b c first, then a bc
  EXPECT_EQ(encode(*t, "ab"), (Ids{4}));
  EXPECT_EQ(encode(*t, "aaa"), (Ids{7, 1}));
  EXPECT_EQ(encode(*t, "aab"), (Ids{1, 4})); // a b ranks before a a
  EXPECT_EQ(encode(*t, "axyb"), (Ids{1, 0, 0, 2}));
  EXPECT_EQ(encode(*t, ""), Ids{});

  Json fused = smallTokenizer();
  fused["model"]["fuse_unk"] = true;
  EXPECT_EQ(encode(*read(fused.dump()), "axyb"), (Ids{1, 0, 2}));

  // Both ways to write merges mean the same.
  Json pairs = smallTokenizer();
  pairs["model"]["merges"] =
      *parseJson(R"([["b", "c"], ["a", "b"], ["a", "bc"], ["a", "a"]])");
  EXPECT_EQ(encode(*read(pairs.dump()), "aabc"), encode(*t, "aabc"));

  Json whole = smallTokenizer();
  whole["model"]["merges"] = Json::array();
  EXPECT_EQ(encode(*read(whole.dump()), "abc"), (Ids{1, 2, 3}));
  whole["model"]["ignore_merges"] = true;
  EXPECT_EQ(encode(*read(whole.dump()), "abc"), (Ids{6}));
}

TEST(BpeTokenizer, FindsAddedTokens) {
  Json document = smallTokenizer();
  document["added_tokens"] = {
      {{"id", 8}, {"content", "<s>"}, {"special", true}},
      {{"id", 9}, {"content", "<s>x"}, {"special", true}},
      {{"id", 10}, {"content", "bb"}, {"special", false}},
      {{"id", 11}, {"content", "<r>"}, {"special", true}, {"rstrip", true}},
      {{"id", 12}, {"content", "<l>"}, {"special", true}, {"lstrip", true}},
      {{"id", 13},
       {"content", "ca"},
       {"special", false},
       {"single_word", true}},
  };
  std::unique_ptr<Tokenizer> t = read(document.dump());
  using Ids = std::vector<int32_t>;
  EXPECT_EQ(encode(*t, "a<s>b"), (Ids{1, 8, 2}));
  EXPECT_EQ(encode(*t, "a<s>xb"), (Ids{1, 9, 2}));
  EXPECT_EQ(encode(*t, "<r>  a"), (Ids{11, 1}));
  EXPECT_EQ(encode(*t, "a  <l>"), (Ids{1, 12}));
  EXPECT_EQ(encode(*t, "ca"), (Ids{13}));
  EXPECT_EQ(encode(*t, "cab"), (Ids{3, 4}));
  EXPECT_EQ(encode(*t, "abba"), (Ids{1, 10, 1}));
  // Text that must not name special tokens keeps the ordinary ones.
  EXPECT_EQ(encode(*t, "<s>bb", false), (Ids{0, 0, 0, 10}));
  EXPECT_EQ(decode(*t, {1, 8, 10, 2}), "abbb");
  EXPECT_EQ(t->name(8), "<s>");
}

TEST(BpeTokenizer, RefusesByName) {
  expectRefused([](Json &j) { j["model"]["type"] = "Unigram"; }, "'Unigram'");
  expectRefused([](Json &j) { j["model"]["dropout"] = 0.5; }, "dropout");
  expectRefused([](Json &j) { j["model"]["end_of_word_suffix"] = "</w>"; },
                "affix");
  expectRefused([](Json &j) { j["normalizer"] = {{"type", "Lowercase"}}; },
                "normalizer: the normalizer 'Lowercase' is not supported");
  expectRefused([](Json &j) { j["pre_tokenizer"] = {{"type", "Bert"}}; },
                "pre-tokenizer 'Bert'");
  expectRefused([](Json &j) { j["post_processor"] = {{"type", "Bert"}}; },
                "post-processor 'Bert'");
  expectRefused([](Json &j) { j["decoder"] = {{"type", "CTC"}}; },
                "decoder 'CTC'");
  expectRefused([](Json &j) { j.erase("model"); }, "'model' is missing");
  expectRefused([](Json &j) { j["model"]["vocab"]["d"] = -1; }, "id of 'd'");
  expectRefused([](Json &j) { j["model"]["vocab"]["d"] = 1 << 30; },
                "id of 'd'");
  expectRefused([](Json &j) { j["model"]["vocab"]["d"] = 1; }, "belongs to");
  expectRefused([](Json &j) { j["model"]["merges"] = {"a d"}; },
                "'d' is not in the vocabulary");
  expectRefused([](Json &j) { j["model"]["merges"] = {"ab"}; }, "one space");
  expectRefused([](Json &j) { j["model"]["unk_token"] = "!"; },
                "'!' is not in the vocabulary");
  expectRefused(
      [](Json &j) {
        j["pre_tokenizer"] = {{"type", "Split"},
                              {"pattern", {{"Regex", "(a"}}},
                              {"behavior", "Isolated"}};
      },
      "pre_tokenizer.pattern: the pattern cannot be read");
}

TEST(StreamDecoder, HoldsBackIncompleteCharacters) {
  std::unique_ptr<Tokenizer> t = read(dataFile("tokenizer-qwen2.json"));
  ASSERT_TRUE(t);
  std::string text = "é日😀";
  std::vector<int32_t> ids = encode(*t, text);
  ASSERT_GT(ids.size(), 3u) << "expected characters of several tokens";
  StreamDecoder decoder(*t);
  std::string all;
  for (int32_t id : ids) {
    std::string part = decoder.push(id), valid;
    EXPECT_EQ(appendValidUtf8(part, true, valid), part.size());
    EXPECT_EQ(part, valid) << "a piece is not valid by itself";
    all += part;
  }
  EXPECT_EQ(all, text);
  EXPECT_EQ(decoder.finish(), "");
  // Cut inside the last character.
  ids.pop_back();
  EXPECT_EQ(decode(*t, ids), "é日\xef\xbf\xbd");
}

TEST(StreamDecoder, ReplacesWhatIsNoCharacter) {
  auto valid = [](std::string_view bytes, bool isFinal) {
    std::string out;
    size_t used = appendValidUtf8(bytes, isFinal, out);
    return std::pair(used, out);
  };
  const std::string r = "\xef\xbf\xbd";
  EXPECT_EQ(valid("a\x80z", false), std::pair(size_t(3), "a" + r + "z"));
  EXPECT_EQ(valid("\xc0\xaf", false), std::pair(size_t(2), r + r));
  EXPECT_EQ(valid("\xed\xa0\x80", false), std::pair(size_t(3), r + r + r));
  EXPECT_EQ(valid("\xf0\x9f\x98", false), std::pair(size_t(0), std::string()));
  EXPECT_EQ(valid("\xf0\x9f\x98", true), std::pair(size_t(3), r));
  EXPECT_EQ(valid("\xf0\x9f", false), std::pair(size_t(0), std::string()));
  EXPECT_EQ(valid("\xf4\x90\x80\x80", true),
            std::pair(size_t(4), r + r + r + r));
}

TEST(SentencePiece, RefusesWhatIsNoModel) {
  EXPECT_FALSE(readSentencePiece(ByteSpan::of("")));
  EXPECT_FALSE(readSentencePiece(ByteSpan::of("not a model")));
}

TEST(SentencePiece, AgreesWithTokenizerJson) {
  std::string folder = sharedData();
  if (folder.empty())
    GTEST_SKIP() << "the shared models are not here";
  std::string model = readFile(folder + "/stories260K-hf/tokenizer.model");
  Expected<std::unique_ptr<Tokenizer>> sp =
      readSentencePiece(ByteSpan::of(model));
  ASSERT_TRUE(sp) << sp.status().message();
  std::unique_ptr<Tokenizer> bpe =
      read(readFile(folder + "/stories260K-hf/tokenizer.json"));
  ASSERT_TRUE(bpe);
  EXPECT_EQ(encode(**sp, "Once upon a time"),
            (std::vector<int32_t>{403, 407, 261, 378}));
  std::vector<std::string> texts = {"",        " two  spaces", "café — 日本😀",
                                    "\n\ttab", "12345",        "a</s>b <s>"};
  std::string story = readFile(folder + "/tinystories_sample.txt");
  for (size_t at = 0; at + 700 < 200000; at += 700)
    texts.push_back(story.substr(at, 700));
  for (const std::string &text : texts) {
    std::vector<int32_t> ids = encode(**sp, text, false);
    ASSERT_EQ(encode(*bpe, text, false), ids) << text;
    ASSERT_EQ(decode(**sp, ids), decode(*bpe, ids)) << text;
    std::string valid;
    appendValidUtf8(text, true, valid);
    ASSERT_EQ(decode(**sp, ids), valid);
  }
}
