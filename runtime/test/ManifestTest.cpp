//===- ManifestTest.cpp - What a compiled model says about itself ---------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/abi/Manifest.h"

#include "runtime/abi/Json.h"

#include <gtest/gtest.h>

using namespace gptq::abi;

static const char *const good = R"({
  "version": 1, "producer": "gptq-mlir 0.1.0",
  "target": {"kind": "cpu", "name": "x86-64-v3", "features": ["avx2", "fma"]},
  "model": {"family": "llama", "name": "toy", "vocab_size": 512,
            "max_context": 512, "bos_ids": [1], "eos_ids": [2, 3],
            "add_bos": true, "parameters": 260032, "quantization": "gptq"},
  "tokenizer": {"kind": "sentencepiece", "files": ["tokenizer.model"]},
  "chat_template": "", "checksum": "xxh3_64",
  "sections": [{"tensor": "code.elf", "bytes": 48128,
                "checksum": "8c5c8580a1b2c3d4"}],
  "state": [{"name": "layers.0.k", "bytes": 65536}],
  "entries": [{
    "name": "generate", "max_m": 256, "arena_bytes": 1048576,
    "inputs": [{"name": "tokens", "dtype": "i32", "shape": ["M"]}],
    "outputs": [{"name": "logits", "dtype": "f32", "shape": [1, 512]}],
    "dispatches": [{
      "name": "qkv",
      "args": [{"arena": 0, "size": [262144, 0]}, {"weight": 3},
               {"arena": 262144, "size": [0, 1024]}, {"state": 0},
               {"input": 0}, {"output": 0}],
      "variants": [
        {"m_max": 1, "symbol": "k_m1", "grid": [[0, 0, 8, 1]],
         "scratch_bytes": 0},
        {"m_max": 256, "symbol": "k_m8", "grid": [[1, 1, 0, 32], [0, 0, 8, 3]],
         "scratch_bytes": 65536}]}]}],
  "future": {"ignored": true}
})";

TEST(Manifest, Parses) {
  Expected<Manifest> m = parseManifest(good);
  ASSERT_TRUE(m) << m.status().message();
  EXPECT_EQ(m->target.features, (std::vector<std::string>{"avx2", "fma"}));
  ASSERT_TRUE(m->model);
  EXPECT_EQ(m->model->eosIds, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(m->sections[0].checksum, 0x8c5c8580a1b2c3d4u);
  const ManifestEntry *entry = m->findEntry("generate");
  ASSERT_TRUE(entry);
  EXPECT_TRUE(entry->inputs[0].shape[0].isRows());
  EXPECT_EQ(entry->inputs[0].elements(7), 7);
  EXPECT_EQ(entry->outputs[0].elements(7), 512);
  const ManifestDispatch &d = entry->dispatches[0];
  EXPECT_EQ(d.args[2].offset, 262144);
  EXPECT_EQ(d.args[2].sizePerRow, 1024);
  // ceil((33 + 2) / 32) * ceil(8 / 3)
  EXPECT_EQ(d.variants[1].workgroups(33, 2), 2 * 3);
  EXPECT_EQ(d.variants[1].workgroups(30, 2), 1 * 3);
}

TEST(Manifest, RoundTrips) {
  Expected<Manifest> m = parseManifest(good);
  ASSERT_TRUE(m) << m.status().message();
  std::string text = serializeManifest(*m);
  Expected<Manifest> again = parseManifest(text);
  ASSERT_TRUE(again) << again.status().message();
  EXPECT_EQ(serializeManifest(*again), text);
  // Nothing that was read is lost: the two documents agree but for the key
  // readers ignore.
  Json original = *parseJson(good);
  original.erase("future");
  EXPECT_EQ(*parseJson(text), original);
}

/// Applies `change` to the good manifest and expects the refusal to hold
/// `part`.
template <typename F> static void expectRefused(F change, const char *part) {
  Json document = *parseJson(good);
  change(document);
  Expected<Manifest> m = parseManifest(document.dump());
  ASSERT_FALSE(m) << "accepted; expected: " << part;
  EXPECT_NE(m.status().message().find(part), std::string::npos)
      << m.status().message();
}

TEST(Manifest, RefusesOtherVersionsAndMissingKeys) {
  expectRefused([](Json &j) { j["version"] = 2; },
                "version: expected 1, found 2");
  expectRefused([](Json &j) { j["checksum"] = "md5"; }, "xxh3_64");
  for (const char *key :
       {"version", "producer", "target", "model", "tokenizer", "chat_template",
        "checksum", "sections", "state", "entries"})
    expectRefused([&](Json &j) { j.erase(key); },
                  (std::string("'") + key + "' is missing").c_str());
  for (const char *key :
       {"name", "max_m", "arena_bytes", "inputs", "outputs", "dispatches"})
    expectRefused([&](Json &j) { j["entries"][0].erase(key); },
                  (std::string("'") + key + "' is missing").c_str());
}

TEST(Manifest, RefusesWrongTypes) {
  expectRefused([](Json &j) { j["entries"][0]["max_m"] = "256"; },
                "entries[0].max_m: expected an integer");
  expectRefused([](Json &j) { j["entries"][0]["max_m"] = -1; }, "found -1");
  expectRefused([](Json &j) { j["entries"] = 3; }, "expected an array");
  expectRefused([](Json &j) { j["model"]["add_bos"] = 1; },
                "expected true or false");
  expectRefused([](Json &j) { j["sections"][0]["checksum"] = "8c"; },
                "16 hex digits");
  expectRefused([](Json &j) { j["entries"][0]["inputs"][0]["shape"] = {"N"}; },
                "an integer or \"M\"");
}

static Json &dispatch(Json &j) { return j["entries"][0]["dispatches"][0]; }

TEST(Manifest, RefusesArgumentsOutOfBounds) {
  expectRefused([](Json &j) { dispatch(j)["args"][0]["arena"] = 32; },
                "multiple of 64");
  // 786496 + 256 * 1024 is 64 bytes too far.
  expectRefused([](Json &j) { dispatch(j)["args"][2]["arena"] = 786496; },
                "reaches to byte 1048640 of an arena of 1048576");
  expectRefused(
      [](Json &j) { dispatch(j)["args"][2]["size"] = {0, int64_t(1) << 62}; },
      "size[1]");
  expectRefused([](Json &j) { dispatch(j)["args"][3]["state"] = 1; },
                "state 1 does not exist");
  expectRefused([](Json &j) { dispatch(j)["args"][4]["input"] = 1; },
                "input 1 does not exist");
  expectRefused([](Json &j) { dispatch(j)["args"][5]["output"] = 9; },
                "output 9 does not exist");
  expectRefused([](Json &j) { dispatch(j)["args"][5] = Json::object(); },
                "expected one of the keys");
}

TEST(Manifest, RefusesBadVariants) {
  expectRefused([](Json &j) { dispatch(j)["variants"] = Json::array(); },
                "no variants");
  expectRefused([](Json &j) { dispatch(j)["variants"][1]["m_max"] = 255; },
                "cover 255 rows");
  expectRefused([](Json &j) { dispatch(j)["variants"][0]["m_max"] = 256; },
                "expected more than 256");
  expectRefused(
      [](Json &j) { dispatch(j)["variants"][0]["grid"][0] = {0, 0, 1, 0}; },
      "expected 1 to");
  expectRefused(
      [](Json &j) { dispatch(j)["variants"][0]["grid"][0] = {1, 2, 3}; },
      "expected 4 integers");
  expectRefused(
      [](Json &j) {
        dispatch(j)["variants"][0]["grid"] = {{0, 0, int64_t(1) << 30, 1},
                                              {0, 0, int64_t(1) << 30, 1},
                                              {0, 0, int64_t(1) << 30, 1}};
      },
      "workgroups");
  expectRefused(
      [](Json &j) {
        dispatch(j)["variants"][0]["scratch_bytes"] = int64_t(1) << 40;
      },
      "scratch_bytes");
}

TEST(Manifest, RefusesModelsThatDoNotFitTheContract) {
  expectRefused([](Json &j) { j["model"]["eos_ids"] = {512}; },
                "model.eos_ids");
  expectRefused([](Json &j) { j["entries"][0]["name"] = "gen"; },
                "needs the entry 'generate'");
  expectRefused(
      [](Json &j) { j["entries"][0]["outputs"][0]["shape"] = {"M", 512}; },
      "expected one output f32[1, 512]");
  expectRefused([](Json &j) { j["entries"][0]["inputs"][0]["dtype"] = "f32"; },
                "expected one input i32[M]");
  expectRefused([](Json &j) { j["model"] = nullptr; },
                "lone functions have no state");
  expectRefused([](Json &j) { j["tokenizer"]["kind"] = "wordpiece"; },
                "tokenizer.kind");
  expectRefused([](Json &j) { j["sections"].push_back(j["sections"][0]); },
                "a second time");
  expectRefused([](Json &j) { j["entries"].push_back(j["entries"][0]); },
                "second entry");
}

/// The good manifest as a GPU's.
static void makeNvvm(Json &j) {
  j["target"] = {
      {"kind", "nvvm"}, {"name", "sm_90a"}, {"features", Json::array()}};
  for (Json &variant : dispatch(j)["variants"]) {
    variant["threads"] = 256;
    variant["scratch_bytes"] = 0;
  }
}

/// A `next` entry that fits the good manifest.
static Json nextEntry() {
  return {
      {"name", "next"},
      {"max_m", 1},
      {"arena_bytes", 0},
      {"inputs", {{{"name", "tokens"}, {"dtype", "i32"}, {"shape", {"M"}}}}},
      {"outputs", {{{"name", "token"}, {"dtype", "i32"}, {"shape", {1}}}}},
      {"dispatches", Json::array()}};
}

/// A `sample` entry that fits the good manifest.
static Json sampleEntry() {
  Json entry = nextEntry();
  entry["name"] = "sample";
  entry["max_top_k"] = 128;
  entry["inputs"] = {{{"name", "tokens"}, {"dtype", "i32"}, {"shape", {1}}},
                     {{"name", "sampling"}, {"dtype", "i32"}, {"shape", {6}}}};
  return entry;
}

TEST(Manifest, ReadsAndWritesLaunches) {
  Json document = *parseJson(good);
  makeNvvm(document);
  dispatch(document)["variants"][0]["shared_bytes"] = 98304;
  dispatch(document)["variants"][0]["overlap"] = true;
  document["entries"].push_back(nextEntry());
  document["entries"].push_back(sampleEntry());
  document.erase("future");
  Expected<Manifest> m = parseManifest(document.dump());
  ASSERT_TRUE(m) << m.status().message();
  const auto &variants = m->entries[0].dispatches[0].variants;
  EXPECT_EQ(variants[0].threads, 256);
  EXPECT_EQ(variants[0].sharedBytes, 98304);
  EXPECT_TRUE(variants[0].overlap);
  EXPECT_EQ(variants[1].sharedBytes, 0);
  EXPECT_FALSE(variants[1].overlap);
  EXPECT_EQ(m->entries[1].maxTopK, 0);
  EXPECT_EQ(m->entries[2].maxTopK, 128);
  EXPECT_EQ(*parseJson(serializeManifest(*m)), document);
}

TEST(Manifest, RefusesBadLaunches) {
  auto refused = [](auto change, const char *part) {
    expectRefused(
        [&](Json &j) {
          makeNvvm(j);
          change(j, dispatch(j)["variants"][0]);
        },
        part);
  };
  refused([](Json &, Json &v) { v.erase("threads"); },
          "threads: expected 1 to 1024, found 0");
  refused([](Json &, Json &v) { v["threads"] = 1025; }, "found 1025");
  refused([](Json &, Json &v) { v["shared_bytes"] = 1 << 21; },
          "shared_bytes: expected 0 to 1048576");
  refused([](Json &, Json &v) { v["scratch_bytes"] = 64; },
          "scratch_bytes: expected 0 to 0");
  refused([](Json &, Json &v) { v["overlap"] = 1; }, "expected true or false");
  refused([](Json &, Json &v) { v["grid"] = {{0, 0, int64_t(1) << 31, 1}}; },
          "can exceed 2147483647 workgroups");
  refused([](Json &j, Json &) { j["target"]["name"] = "sm90"; },
          "target.name: expected an architecture like sm_90a");
  // On a CPU a launch has no threads.
  expectRefused([](Json &j) { dispatch(j)["variants"][0]["threads"] = 1; },
                "threads: expected 0 to 0, found 1");
  expectRefused([](Json &j) { dispatch(j)["variants"][0]["overlap"] = true; },
                "is for kernels of a GPU");
}

TEST(Manifest, RefusesBadNextEntries) {
  auto refused = [](auto change, const char *part) {
    expectRefused(
        [&](Json &j) {
          makeNvvm(j);
          j["entries"].push_back(nextEntry());
          change(j["entries"][1]);
        },
        part);
  };
  refused([](Json &e) { e["max_m"] = 2; }, "max_m: expected 1 to 1");
  refused([](Json &e) { e["outputs"][0]["dtype"] = "f32"; },
          "expected an output i32[1], then perhaps f32[1, ");
  refused([](Json &e) { e["inputs"] = Json::array(); },
          "expected one input i32[M]");
  expectRefused([](Json &j) { j["entries"].push_back(nextEntry()); },
                "'next' is for targets");
}

TEST(Manifest, RefusesBadSampleEntries) {
  auto refused = [](auto change, const char *part) {
    expectRefused(
        [&](Json &j) {
          makeNvvm(j);
          j["entries"].push_back(sampleEntry());
          change(j["entries"][1]);
        },
        part);
  };
  refused([](Json &e) { e["max_m"] = 2; }, "max_m: expected 1 to 1");
  refused([](Json &e) { e["inputs"].erase(1); },
          "expected inputs i32[1] and i32[6]");
  refused([](Json &e) { e["inputs"][1]["shape"] = {5}; },
          "expected inputs i32[1] and i32[6]");
  refused([](Json &e) { e["inputs"][1]["shape"] = {"M"}; },
          "expected inputs i32[1] and i32[6]");
  refused([](Json &e) { e["outputs"][0]["shape"] = {2}; },
          "expected one output i32[1]");
  refused([](Json &e) { e.erase("max_top_k"); },
          "max_top_k: expected 1 to 2147483647, found 0");
  refused([](Json &e) { e["max_top_k"] = -1; }, "max_top_k: expected an");
  refused([](Json &e) { e["max_top_k"] = int64_t(1) << 40; },
          "max_top_k: expected 1 to");
  refused([](Json &e) { e["max_top_k"] = "many"; }, "max_top_k");
  expectRefused([](Json &j) { j["entries"].push_back(sampleEntry()); },
                "'sample' is for targets");
}

TEST(Manifest, KnowsWhereCodeRuns) {
  auto capability = [](const char *name) {
    return ComputeCapability::parse(name).value();
  };
  auto h200 = capability("sm_90");
  EXPECT_EQ(h200.major, 9);
  EXPECT_EQ(h200.minor, 0);
  EXPECT_TRUE(capability("sm_90a").ptxRunsOn(h200));
  EXPECT_TRUE(capability("sm_90a").cubinRunsOn(h200));
  EXPECT_FALSE(capability("sm_90a").ptxRunsOn(capability("sm_100")));
  EXPECT_TRUE(capability("sm_80").ptxRunsOn(h200));
  EXPECT_FALSE(capability("sm_80").cubinRunsOn(h200));
  EXPECT_TRUE(capability("sm_80").cubinRunsOn(capability("sm_86")));
  EXPECT_FALSE(capability("sm_86").ptxRunsOn(capability("sm_80")));
  EXPECT_FALSE(capability("sm_100a").ptxRunsOn(h200));
  EXPECT_TRUE(capability("sm_100f").ptxRunsOn(capability("sm_103")));
  EXPECT_FALSE(capability("sm_100f").ptxRunsOn(capability("sm_120")));
  for (const char *name : {"", "sm_", "sm_9", "sm_090", "sm_90b", "sm_9a",
                           "sm_12000", "compute_90", "sm_-90", "sm_aa"})
    EXPECT_FALSE(ComputeCapability::parse(name)) << name;
}

TEST(Json, BoundsWhatADocumentMayHold) {
  EXPECT_TRUE(parseJson("[[[]]]", {3, 10}));
  EXPECT_FALSE(parseJson("[[[[]]]]", {3, 10}));
  EXPECT_TRUE(parseJson("[1,2,3]", {3, 4}));
  EXPECT_FALSE(parseJson("[1,2,3,4]", {3, 4}));
  EXPECT_FALSE(parseJson("", {}));
}
