//===- RuntimeTest.cpp - Loading and running compiled models --------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/runtime.h"

#include "runtime/lib/Artifact.h"
#include "runtime/test/ToyModel.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <thread>

using namespace gptq::abi;
using namespace gptq::test;

namespace {

/// A toy model opened through the C API.
class Opened {
public:
  explicit Opened(const std::string &path, int threads = 2) {
    gptq_model_options options = gptq_model_default_options();
    options.threads = threads;
    gptq_error error;
    EXPECT_EQ(gptq_model_open(path.c_str(), &options, &model, &error), GPTQ_OK)
        << error.message;
    if (model) {
      EXPECT_EQ(gptq_session_create(model, &session, &error), GPTQ_OK)
          << error.message;
    }
  }
  ~Opened() {
    gptq_session_destroy(session);
    gptq_model_close(model);
  }

  std::vector<float> eval(const std::vector<int32_t> &tokens) {
    gptq_error error;
    EXPECT_EQ(gptq_session_eval(session, tokens.data(), int64_t(tokens.size()),
                                &error),
              GPTQ_OK)
        << error.message;
    const float *logits = gptq_session_logits(session);
    return {logits, logits + ToyModel::vocab};
  }

  gptq_model *model = nullptr;
  gptq_session *session = nullptr;
};

/// Opens a model that must be refused and returns why.
std::string
openError(const std::string &path, gptq_status expected,
          gptq_model_options options = gptq_model_default_options()) {
  gptq_model *model = nullptr;
  gptq_error error = {"no error"};
  EXPECT_EQ(gptq_model_open(path.c_str(), &options, &model, &error), expected)
      << error.message;
  EXPECT_EQ(model, nullptr);
  gptq_model_close(model);
  return error.message;
}

void expectContains(const std::string &text, const std::string &part) {
  EXPECT_NE(text.find(part), std::string::npos) << text;
}

std::vector<int32_t> firstOf(const std::vector<int32_t> &tokens, size_t count) {
  return {tokens.begin(), tokens.begin() + count};
}

} // namespace

TEST(Runtime, ComputesWhatTheReferenceDoes) {
  ToyModel toy;
  Opened m(toy.write("reference"));
  std::vector<int32_t> tokens = someTokens(5);
  EXPECT_EQ(m.eval(tokens), toy.reference(tokens));
  EXPECT_EQ(gptq_session_position(m.session), 5);
}

TEST(Runtime, ChunksAreInvisible) {
  ToyModel toy;
  std::string path = toy.write("chunks");
  // 23 = 3 * 7 + 2 rows: full calls and a rest.
  std::vector<int32_t> tokens = someTokens(23);
  Opened whole(path), single(path);
  std::vector<float> atOnce = whole.eval(tokens), oneByOne;
  for (int32_t token : tokens)
    oneByOne = single.eval({token});
  EXPECT_EQ(atOnce, oneByOne);
  EXPECT_EQ(atOnce, toy.reference(tokens));
}

TEST(Runtime, ScoreGivesEveryRow) {
  ToyModel toy;
  Opened m(toy.write("score"));
  std::vector<int32_t> tokens = someTokens(17);
  std::vector<float> logits(17 * ToyModel::vocab, -1);
  gptq_error error;
  ASSERT_EQ(
      gptq_session_score(m.session, tokens.data(), 17, logits.data(), &error),
      GPTQ_OK)
      << error.message;
  for (size_t i = 0; i < 17; ++i) {
    std::vector<float> row(logits.begin() + i * ToyModel::vocab,
                           logits.begin() + (i + 1) * ToyModel::vocab);
    EXPECT_EQ(row, toy.reference(firstOf(tokens, i + 1))) << "row " << i;
  }
}

TEST(Runtime, ThreadsDoNotChangeResults) {
  ToyModel toy;
  std::string path = toy.write("threads");
  std::vector<int32_t> tokens = someTokens(50);
  std::vector<float> expected = toy.reference(tokens);
  for (int threads : {1, 2, 3, 9}) {
    Opened m(path, threads);
    for (int repeat = 0; repeat < 200; ++repeat) {
      ASSERT_EQ(gptq_session_rewind(m.session, 0, nullptr), GPTQ_OK);
      ASSERT_EQ(m.eval(tokens), expected)
          << threads << " threads, repeat " << repeat;
    }
  }
}

TEST(Runtime, SessionsOnSeveralThreadsTakeTurns) {
  ToyModel toy;
  Opened m(toy.write("sessions"), 3);
  std::vector<std::thread> callers;
  std::vector<int> wrong(4);
  for (int c = 0; c < 4; ++c)
    callers.emplace_back([&, c] {
      gptq_session *session = nullptr;
      gptq_session_create(m.model, &session, nullptr);
      std::vector<int32_t> tokens = someTokens(10 + c);
      std::vector<float> expected = toy.reference(tokens);
      for (int repeat = 0; repeat < 50; ++repeat) {
        gptq_session_rewind(session, 0, nullptr);
        gptq_session_eval(session, tokens.data(), int64_t(tokens.size()),
                          nullptr);
        wrong[c] += std::memcmp(gptq_session_logits(session), expected.data(),
                                expected.size() * 4) != 0;
      }
      gptq_session_destroy(session);
    });
  for (std::thread &caller : callers)
    caller.join();
  EXPECT_EQ(wrong, std::vector<int>(4));
}

TEST(Runtime, RewindForgetsTheRest) {
  ToyModel toy;
  Opened m(toy.write("rewind"));
  std::vector<int32_t> tokens = someTokens(12);
  m.eval(tokens);
  ASSERT_EQ(gptq_session_rewind(m.session, 4, nullptr), GPTQ_OK);
  std::vector<int32_t> other = firstOf(tokens, 4);
  other.push_back(30);
  EXPECT_EQ(m.eval({30}), toy.reference(other));
  EXPECT_EQ(gptq_session_rewind(m.session, 6, nullptr), GPTQ_INVALID_ARGUMENT);
}

TEST(Runtime, RefusesWhatDoesNotFit) {
  ToyModel toy;
  Opened m(toy.write("fit"));
  gptq_error error;
  std::vector<int32_t> tokens = someTokens(51);
  EXPECT_EQ(gptq_session_eval(m.session, tokens.data(), 51, &error),
            GPTQ_OUT_OF_RANGE);
  EXPECT_STREQ(error.message,
               "51 tokens do not fit the context: 0 of 50 are taken");
  int32_t bad = 33;
  EXPECT_EQ(gptq_session_eval(m.session, &bad, 1, &error),
            GPTQ_INVALID_ARGUMENT);
  expectContains(error.message, "expected an id of 0 to 32, found 33");
  bad = -1;
  EXPECT_EQ(gptq_session_eval(m.session, &bad, 1, &error),
            GPTQ_INVALID_ARGUMENT);
  EXPECT_EQ(gptq_session_eval(m.session, &bad, 0, &error),
            GPTQ_INVALID_ARGUMENT);
  EXPECT_EQ(gptq_session_eval(m.session, nullptr, 1, &error),
            GPTQ_INVALID_ARGUMENT);
  EXPECT_EQ(gptq_session_position(m.session), 0);
  m.eval(firstOf(tokens, 50));
  EXPECT_EQ(gptq_session_eval(m.session, tokens.data(), 1, &error),
            GPTQ_OUT_OF_RANGE);
}

TEST(Runtime, RunsLoneFunctions) {
  ToyModel toy;
  Opened m(toy.write("function"));
  float a[12], b[4] = {10, 20, 30, 40}, sum[12] = {};
  for (int i = 0; i < 12; ++i)
    a[i] = float(i);
  gptq_tensor in[2] = {{GPTQ_F32, 2, {3, 4}, a}, {GPTQ_F32, 1, {4}, b}};
  gptq_tensor out[1] = {{GPTQ_F32, 2, {3, 4}, sum}};
  gptq_error error;
  ASSERT_EQ(gptq_session_run(m.session, "add", in, 2, out, 1, &error), GPTQ_OK)
      << error.message;
  for (int i = 0; i < 12; ++i)
    EXPECT_EQ(sum[i], float(i) + b[i % 4]);

  out[0].shape[0] = 2;
  EXPECT_EQ(gptq_session_run(m.session, "add", in, 2, out, 1, &error),
            GPTQ_INVALID_ARGUMENT);
  EXPECT_STREQ(error.message, "output 'sum': expected f32[M, 4] with M = 3, "
                              "found f32[2, 4]");
  out[0].shape[0] = 3;
  in[0].shape[0] = 0;
  EXPECT_EQ(gptq_session_run(m.session, "add", in, 2, out, 1, &error),
            GPTQ_INVALID_ARGUMENT);
  expectContains(error.message, "expected f32[M, 4] with M of 1 to ");
  expectContains(error.message, ", found f32[0, 4]");
  in[0].shape[0] = 3;
  in[1].dtype = GPTQ_I32;
  EXPECT_EQ(gptq_session_run(m.session, "add", in, 2, out, 1, &error),
            GPTQ_INVALID_ARGUMENT);
  EXPECT_EQ(gptq_session_run(m.session, "add", in, 1, out, 1, &error),
            GPTQ_INVALID_ARGUMENT);
  EXPECT_EQ(gptq_session_run(m.session, "sub", in, 2, out, 1, &error),
            GPTQ_NOT_FOUND);
  EXPECT_EQ(gptq_session_run(m.session, "score", in, 2, out, 1, &error),
            GPTQ_INVALID_ARGUMENT);
}

TEST(Runtime, RunsLoneFunctionsOnMoreRowsThanOneCallTakes) {
  ToyModel toy;
  Opened m(toy.write("rows"));
  // Two calls of 7 rows and one of 3.
  std::vector<float> a(17 * 4), b = {10, 20, 30, 40}, sum(17 * 4 + 1, -1);
  for (size_t i = 0; i < a.size(); ++i)
    a[i] = float(i);
  gptq_tensor in[2] = {{GPTQ_F32, 2, {17, 4}, a.data()},
                       {GPTQ_F32, 1, {4}, b.data()}};
  gptq_tensor out[1] = {{GPTQ_F32, 2, {17, 4}, sum.data()}};
  gptq_error error;
  ASSERT_EQ(gptq_session_run(m.session, "add", in, 2, out, 1, &error), GPTQ_OK)
      << error.message;
  for (size_t i = 0; i < a.size(); ++i)
    EXPECT_EQ(sum[i], a[i] + b[i % 4]) << i;
  EXPECT_EQ(sum.back(), -1);
}

TEST(Runtime, TakesNoMoreRowsThanFitWhereRowsAreNotTheFirstDimension) {
  ToyModel toy;
  ManifestEntry &entry = toy.manifest.entries.back();
  std::swap(entry.inputs[0].shape[0], entry.inputs[0].shape[1]);
  Opened m(toy.write("columns"));
  std::vector<float> a(4 * 8), b(8 * 4);
  gptq_tensor in = {GPTQ_F32, 2, {4, 8}, a.data()};
  gptq_tensor out = {GPTQ_F32, 2, {8, 4}, b.data()};
  gptq_error error;
  EXPECT_EQ(gptq_session_run(m.session, "negate", &in, 1, &out, 1, &error),
            GPTQ_INVALID_ARGUMENT);
  expectContains(error.message, "with M of 1 to 7, found f32[4, 8]");
}

TEST(Runtime, ConvertsHalfPrecision) {
  ToyModel toy;
  // 1 + 2^-11 lies between two numbers of 11 bits, 1 + 3 * 2^-11 above one.
  float a[4] = {1.5f, 1 + 1 / 2048.f, 1 + 3 / 2048.f, 70000}, b[4] = {};
  const float ofF16[4] = {-1.5f, -1, -1 - 4 / 2048.f, -INFINITY};
  const float ofBF16[4] = {-1.5f, -1, -1, -70144};
  for (const char *dtype : {"f16", "bf16"}) {
    ManifestEntry &entry = toy.manifest.entries.back();
    entry.inputs[0].dtype = entry.outputs[0].dtype = dtype;
    Opened m(toy.write("half"));
    gptq_tensor in = {GPTQ_F32, 2, {1, 4}, a}, out = {GPTQ_F32, 2, {1, 4}, b};
    gptq_error error;
    ASSERT_EQ(gptq_session_run(m.session, "negate", &in, 1, &out, 1, &error),
              GPTQ_OK)
        << error.message;
    for (int i = 0; i < 4; ++i)
      EXPECT_EQ(b[i], (dtype[0] == 'f' ? ofF16 : ofBF16)[i]) << dtype << i;
  }
}

TEST(Runtime, KeepsModelsApart) {
  // Two models whose code has the same symbols and whose weights differ; one
  // is opened, closed and replaced while the other lives.
  ToyModel first, second;
  for (float &w : second.head)
    w = -w;
  std::string path1 = first.write("apart1"), path2 = second.write("apart2");
  std::vector<int32_t> tokens = someTokens(9);
  Opened m1(path1);
  for (int i = 0; i < 3; ++i) {
    Opened m2(path2);
    EXPECT_EQ(m2.eval(tokens), second.reference(tokens));
  }
  EXPECT_EQ(m1.eval(tokens), first.reference(tokens));
}

TEST(Runtime, DescribesTheModel) {
  ToyModel toy;
  Opened m(toy.write("describe"), 3);
  gptq_model_info info;
  gptq_model_get_info(m.model, &info);
  EXPECT_TRUE(info.is_language_model);
  EXPECT_TRUE(info.has_score);
  EXPECT_FALSE(info.has_tokenizer);
  EXPECT_STREQ(info.name, "toy");
  EXPECT_EQ(info.vocab_size, 33);
  EXPECT_EQ(info.threads, 3);
  EXPECT_EQ(info.weight_bytes, 2 * 33 * 8 * 4);
  EXPECT_EQ(info.state_bytes, 50 * 8 * 4);
  EXPECT_EQ(info.entry_count, 4u);
  gptq_port_info port;
  ASSERT_EQ(gptq_model_get_port(m.model, "score", true, 0, &port, nullptr),
            GPTQ_OK);
  EXPECT_EQ(port.shape[0], -1);
  EXPECT_EQ(port.shape[1], 33);
  EXPECT_EQ(gptq_model_get_port(m.model, "score", true, 1, &port, nullptr),
            GPTQ_NOT_FOUND);
  size_t count = 0;
  EXPECT_EQ(gptq_model_eos_ids(m.model, &count)[0], 2);
  EXPECT_EQ(count, 1u);
  gptq_error error;
  EXPECT_EQ(
      gptq_encode(m.model, "a", 1, true, true, nullptr, 0, &count, &error),
      GPTQ_UNSUPPORTED);
  EXPECT_STREQ(error.message, "the model has no tokenizer");
}

//===----------------------------------------------------------------------===//
// Files that must be refused
//===----------------------------------------------------------------------===//

TEST(Loader, NamesTheDamagedTensor) {
  ToyModel toy;
  std::string path = toy.write("damaged");
  std::string bytes = readFile(path);
  std::string weight(reinterpret_cast<const char *>(toy.head.data()), 64);
  size_t at = bytes.find(weight);
  ASSERT_NE(at, std::string::npos);
  bytes[at + 40] ^= 4;
  writeFile(path, bytes);
  expectContains(openError(path, GPTQ_INVALID_FILE), "'w.1' is damaged");

  gptq_model_options options = gptq_model_default_options();
  options.verify = false;
  gptq_model *model = nullptr;
  EXPECT_EQ(gptq_model_open(path.c_str(), &options, &model, nullptr), GPTQ_OK);
  gptq_model_close(model);

  bytes = readFile(toy.write("damaged"));
  bytes[bytes.find("\"producer\"")] ^= 1;
  writeFile(path, bytes);
  expectContains(openError(path, GPTQ_INVALID_FILE),
                 "manifest.json is damaged");
}

TEST(Loader, NamesTheMissingInstructionSet) {
  ToyModel toy;
  toy.manifest.target.features = {"sse3", "avx9"};
  std::string path = toy.write("features");
  expectContains(openError(path, GPTQ_UNSUPPORTED), "'avx9'");
  // Looking inside needs no processor.
  gptq_model_options options = gptq_model_default_options();
  options.inspect_only = true;
  gptq_model *model = nullptr;
  ASSERT_EQ(gptq_model_open(path.c_str(), &options, &model, nullptr), GPTQ_OK);
  gptq_session *session = nullptr;
  EXPECT_EQ(gptq_session_create(model, &session, nullptr),
            GPTQ_INVALID_ARGUMENT);
  gptq_model_close(model);
}

TEST(Loader, NamesTheMissingKernel) {
  ToyModel toy;
  toy.manifest.entries[0].dispatches[0].variants[1].symbol = "toy_nothing";
  expectContains(openError(toy.write("kernel"), GPTQ_INVALID_FILE),
                 "does not export the kernel 'toy_nothing'");
}

TEST(Loader, RefusesCodeThatIsNone) {
  ToyModel toy;
  toy.code = "not code";
  expectContains(openError(toy.write("code"), GPTQ_INVALID_FILE),
                 "not an ELF file");
}

TEST(Loader, RefusesWeightsThatAreNotThere) {
  ToyModel toy;
  toy.manifest.entries[0].dispatches[0].args[1].index = 2;
  expectContains(openError(toy.write("weight"), GPTQ_INVALID_FILE),
                 "weight 2 does not exist, there are 2");
}

TEST(Loader, RefusesOtherTargets) {
  ToyModel toy;
  toy.manifest.target.kind = "gpu";
  expectContains(openError(toy.write("target"), GPTQ_UNSUPPORTED), "'gpu'");
  // A processor is not one of several devices.
  gptq_model_options options = gptq_model_default_options();
  options.device = 1;
  expectContains(
      openError(ToyModel().write("target"), GPTQ_INVALID_ARGUMENT, options),
      "cannot run on device 1");
}

TEST(Loader, RefusesBadArguments) {
  openError("/no/such/file.gptqm", GPTQ_NOT_FOUND);
  expectContains(openError(temporaryFolder(), GPTQ_NOT_FOUND),
                 "not a regular file");
  gptq_model_options options = gptq_model_default_options();
  options.threads = -1;
  ToyModel toy;
  openError(toy.write("arguments"), GPTQ_INVALID_ARGUMENT, options);
  EXPECT_EQ(gptq_model_open(nullptr, nullptr, nullptr, nullptr),
            GPTQ_INVALID_ARGUMENT);
}

TEST(Loader, RefusesEveryTruncation) {
  ToyModel toy;
  std::string path = toy.write("truncated");
  std::string bytes = readFile(path);
  for (size_t size = 0; size < bytes.size(); size += 61) {
    // The span starts where the loader promises 64-byte alignment.
    Expected<gptq::runtime::Artifact> artifact = gptq::runtime::readArtifact(
        ByteSpan::of(std::string_view(bytes).substr(0, size)));
    EXPECT_FALSE(artifact) << size;
  }
  std::string longer = bytes + "x";
  EXPECT_FALSE(gptq::runtime::readArtifact(ByteSpan::of(longer)));
  EXPECT_TRUE(gptq::runtime::readArtifact(ByteSpan::of(bytes)));
}
