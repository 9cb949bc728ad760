//===- ToyModel.cpp - A hand-made compiled model --------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/test/ToyModel.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

using namespace gptq::abi;
using namespace gptq::test;

using Kind = ManifestArgument::Kind;

static ManifestDispatch dispatch(const char *symbol,
                                 std::vector<ManifestArgument> args,
                                 std::vector<GridFactor> grid,
                                 int64_t scratchBytes = 0) {
  // Two variants of one kernel: rows of one call and of several.
  return {symbol,
          std::move(args),
          {{1, symbol, grid, scratchBytes},
           {ToyModel::maxRows, symbol, grid, scratchBytes}}};
}

ToyModel::ToyModel() {
  for (int64_t i = 0; i < vocab * dim; ++i) {
    embedding.push_back(float(i * 37 % 101) / 16 - 3);
    head.push_back(float(i * 53 % 97) / 32 - 1);
  }
  code = readFile(GPTQ_TEST_KERNELS);

  manifest.producer = "test";
  manifest.target = {"cpu", "x86-64", {"sse3"}};
  manifest.model.emplace();
  manifest.model->family = "toy";
  manifest.model->name = "toy";
  manifest.model->vocabSize = vocab;
  manifest.model->maxContext = maxContext;
  manifest.model->bosIds = {1};
  manifest.model->eosIds = {2};
  manifest.state = {{"x", maxContext * dim * 4}};

  for (bool isScore : {false, true}) {
    ManifestEntry entry;
    entry.name = isScore ? "score" : "generate";
    entry.maxM = maxRows;
    entry.arenaBytes = 1024;
    entry.inputs = {{"tokens", "i32", {ManifestDim::rows()}}};
    entry.outputs = {
        {"logits",
         "f32",
         {isScore ? ManifestDim::rows() : ManifestDim{1}, {vocab}}}};
    ManifestArgument x = ManifestArgument::arena(0, 0, dim * 4);
    ManifestArgument y = ManifestArgument::arena(512, 0, dim * 4);
    ManifestArgument state = ManifestArgument::of(Kind::State, 0);
    ManifestArgument output = ManifestArgument::of(Kind::Output, 0);
    entry.dispatches = {
        dispatch("toy_embed",
                 {ManifestArgument::of(Kind::Input, 0),
                  ManifestArgument::of(Kind::Weight, 0), x},
                 {{1, 0, 0, 3}}),
        dispatch("toy_store", {x, state}, {{1, 0, 0, 1}}),
        dispatch("toy_mean", {state, y}, {{1, 0, 0, 1}}, dim * 4),
        dispatch(isScore ? "toy_all_logits" : "toy_last_logits",
                 {y, ManifestArgument::of(Kind::Weight, 1), output},
                 isScore
                     ? std::vector<GridFactor>{{1, 0, 0, 1}, {0, 0, vocab, 4}}
                     : std::vector<GridFactor>{{0, 0, vocab, 4}}),
    };
    manifest.entries.push_back(std::move(entry));
  }

  ManifestEntry add;
  add.name = "add";
  add.maxM = maxRows;
  add.inputs = {{"a", "f32", {ManifestDim::rows(), {4}}}, {"b", "f32", {{4}}}};
  add.outputs = {{"sum", "f32", {ManifestDim::rows(), {4}}}};
  add.dispatches = {dispatch("toy_add",
                             {ManifestArgument::of(Kind::Input, 0),
                              ManifestArgument::of(Kind::Input, 1),
                              ManifestArgument::of(Kind::Output, 0)},
                             {{1, 0, 0, 1}})};
  manifest.entries.push_back(std::move(add));

  ManifestEntry negate;
  negate.name = "negate";
  negate.maxM = maxRows;
  negate.inputs = {{"a", "f16", {ManifestDim::rows(), {4}}}};
  negate.outputs = {{"b", "f16", {ManifestDim::rows(), {4}}}};
  negate.dispatches = {dispatch("toy_negate",
                                {ManifestArgument::of(Kind::Input, 0),
                                 ManifestArgument::of(Kind::Output, 0)},
                                {{1, 0, 0, 1}})};
  manifest.entries.push_back(std::move(negate));
}

static ByteSpan bytesOf(const std::vector<float> &v) {
  return {reinterpret_cast<const uint8_t *>(v.data()), v.size() * 4};
}

const std::string &gptq::test::temporaryFolder() {
  struct Folder {
    Folder() {
      if (const char *given = std::getenv("TEST_TMPDIR")) {
        path = std::string(given) + "/";
        return;
      }
      char name[] = "/tmp/gptq-test-XXXXXX";
      EXPECT_NE(::mkdtemp(name), nullptr);
      path = std::string(name) + "/";
      isOwn = true;
    }
    ~Folder() {
      std::error_code ignored;
      if (isOwn)
        std::filesystem::remove_all(path, ignored);
    }
    std::string path;
    bool isOwn = false;
  };
  static Folder folder;
  return folder.path;
}

std::string ToyModel::write(const std::string &name) const {
  std::string path = temporaryFolder() + name + ".gptqm";
  std::vector<ModelSection> sections = {{codeName, ByteSpan::of(code)},
                                        {"w.0", bytesOf(embedding)},
                                        {"w.1", bytesOf(head)}};
  if (!cubin.empty())
    sections.push_back({"code.cubin", ByteSpan::of(cubin)});
  Status status = writeModel(path, manifest, sections);
  EXPECT_TRUE(status.ok()) << status.message();
  return path;
}

std::vector<float>
ToyModel::reference(const std::vector<int32_t> &tokens) const {
  float sum[dim] = {};
  for (int32_t token : tokens)
    for (int64_t d = 0; d < dim; ++d)
      sum[d] += embedding[token * dim + d];
  std::vector<float> logits(vocab);
  for (int64_t v = 0; v < vocab; ++v)
    for (int64_t d = 0; d < dim; ++d)
      logits[v] += head[v * dim + d] * (sum[d] / float(tokens.size()));
  return logits;
}

std::vector<int32_t> gptq::test::someTokens(int64_t count) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i)
    tokens.push_back(int32_t((i * 19 + 5) % ToyModel::vocab));
  return tokens;
}

std::string gptq::test::readFile(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  std::ostringstream content;
  content << file.rdbuf();
  return content.str();
}

void gptq::test::writeFile(const std::string &path,
                           const std::string &content) {
  std::ofstream(path, std::ios::binary) << content;
}
