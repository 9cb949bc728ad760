//===- CudaTest.cpp - Running compiled models on a GPU --------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The toy model once more, compiled, so to speak, for a GPU, on a driver that
// is the tests' own (FakeCuda.cpp).
//
//===----------------------------------------------------------------------===//

#include "gptq/runtime.h"

#include "runtime/test/FakeCuda.h"
#include "runtime/test/ToyModel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <elf.h>
#include <set>
#include <thread>

using namespace gptq::abi;
using namespace gptq::test;

using Kind = ManifestArgument::Kind;

namespace {

/// The text that stands for PTX: kernels and their numbers of parameters.
std::string fakePtx(const Manifest &manifest) {
  std::string text = ".version 8.0\n.target sm_90a\n";
  std::set<std::string> seen;
  for (const ManifestEntry &entry : manifest.entries)
    for (const ManifestDispatch &dispatch : entry.dispatches)
      for (const ManifestVariant &variant : dispatch.variants) {
        if (!seen.insert(variant.symbol).second)
          continue;
        text += ".visible .entry " + variant.symbol + "(";
        for (size_t i = 0; i <= dispatch.args.size(); ++i)
          text += ".param .u64 p" + std::to_string(i) + ",";
        text += ")\n{}\n";
      }
  return text;
}

/// What stands for a cubin of that: an ELF file of a header alone, the text
/// behind it.
std::string fakeCubin(const std::string &ptx, Elf64_Ehdr header = {}) {
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_type = ET_EXEC;
  return std::string(reinterpret_cast<const char *>(&header), sizeof(header)) +
         ptx;
}

struct GpuToyModel : ToyModel {
  GpuToyModel() {
    manifest.target = {"nvvm", "sm_90a", {}};
    ManifestEntry next = manifest.entries[0];
    next.name = "next";
    next.maxM = 1;
    next.arenaBytes = 2048;
    next.outputs = {{"token", "i32", {{1}}}};
    ManifestArgument logits = ManifestArgument::arena(1024, vocab * 4, 0);
    next.dispatches.back().args.back() = logits;
    next.dispatches.push_back({"choose",
                               {logits, ManifestArgument::of(Kind::Input, 0),
                                ManifestArgument::of(Kind::Output, 0)},
                               {{1, "toy_argmax", {}, 0}}});
    manifest.entries.push_back(next);
    ManifestEntry sample = next;
    sample.name = "sample";
    sample.inputs = {{"tokens", "i32", {{1}}}, {"sampling", "i32", {{6}}}};
    sample.maxTopK = 16;
    sample.dispatches.back() = {"draw",
                                {logits, ManifestArgument::of(Kind::Input, 1),
                                 ManifestArgument::of(Kind::Input, 0),
                                 ManifestArgument::of(Kind::Output, 0)},
                                {{1, "toy_sample", {}, 0}}};
    manifest.entries.insert(manifest.entries.end() - 1, sample);
    for (ManifestEntry &entry : manifest.entries)
      for (ManifestDispatch &dispatch : entry.dispatches)
        for (ManifestVariant &variant : dispatch.variants) {
          variant.threads = 64;
          variant.scratchBytes = 0;
        }
    codeName = "code.ptx";
  }

  std::string write(const std::string &name) {
    if (code.find(".version") == std::string::npos)
      code = fakePtx(manifest);
    return ToyModel::write(name);
  }

  /// The dispatch `dispatch` of the entry `generate`, for one row.
  ManifestVariant &variant(size_t dispatch) {
    return manifest.entries[0].dispatches[dispatch].variants[0];
  }
};

int32_t mostLikely(const std::vector<float> &logits) {
  return int32_t(std::max_element(logits.begin(), logits.end()) -
                 logits.begin());
}

class Cuda : public testing::Test {
protected:
  void SetUp() override {
    ASSERT_EQ(setenv("GPTQ_CUDA_DRIVER", GPTQ_FAKE_CUDA, 1), 0);
    void *library = dlopen(GPTQ_FAKE_CUDA, RTLD_NOW);
    ASSERT_TRUE(library) << dlerror();
    fake = reinterpret_cast<decltype(&gptqFakeCuda)>(
        dlsym(library, "gptqFakeCuda"))();
    reset();
  }
  void TearDown() override {
    close();
    expectNothingLeft();
  }

  void reset() {
    *fake = FakeCuda();
    fake->totalBytes = 1 << 20;
  }

  void expectNothingLeft() {
    EXPECT_EQ(fake->usedBytes, 0);
    EXPECT_EQ(fake->contexts, 0);
    EXPECT_TRUE(fake->alive.empty()) << fake->alive.size();
  }

  gptq_status tryOpen(const std::string &path, int device = 0) {
    gptq_model_options options = gptq_model_default_options();
    options.device = device;
    gptq_status status =
        gptq_model_open(path.c_str(), &options, &model, &error);
    if (status == GPTQ_OK)
      status = gptq_session_create(model, &session, &error);
    return status;
  }
  void open(const std::string &path) {
    ASSERT_EQ(tryOpen(path), GPTQ_OK) << error.message;
  }
  void close() {
    gptq_session_destroy(session);
    gptq_model_close(model);
    session = nullptr;
    model = nullptr;
  }

  std::vector<float> eval(const std::vector<int32_t> &tokens) {
    EXPECT_EQ(gptq_session_eval(session, tokens.data(), int64_t(tokens.size()),
                                &error),
              GPTQ_OK)
        << error.message;
    const float *logits = gptq_session_logits(session);
    return {logits, logits + ToyModel::vocab};
  }
  int32_t next(int32_t token) {
    int32_t chosen = -1;
    EXPECT_EQ(gptq_session_next(session, token, &chosen, &error), GPTQ_OK)
        << error.message;
    return chosen;
  }

  void expectRefused(const std::string &path, gptq_status expected,
                     const std::string &part, int device = 0) {
    EXPECT_EQ(tryOpen(path, device), expected) << error.message;
    EXPECT_NE(std::string(error.message).find(part), std::string::npos)
        << error.message;
    close();
  }

  FakeCuda *fake = nullptr;
  gptq_model *model = nullptr;
  gptq_session *session = nullptr;
  gptq_error error = {""};
};

} // namespace

//===----------------------------------------------------------------------===//
// Running
//===----------------------------------------------------------------------===//

TEST_F(Cuda, ComputesWhatTheReferenceDoes) {
  GpuToyModel toy;
  open(toy.write("cuda"));
  // 23 = 3 * 7 + 2 rows: full calls and a rest.
  std::vector<int32_t> tokens = someTokens(23);
  EXPECT_EQ(eval(tokens), toy.reference(tokens));
  EXPECT_EQ(gptq_session_position(session), 23);
  ASSERT_EQ(gptq_session_rewind(session, 0, &error), GPTQ_OK);
  std::vector<float> last;
  for (int32_t token : tokens)
    last = eval({token});
  EXPECT_EQ(last, toy.reference(tokens));
}

TEST_F(Cuda, ScoreGivesEveryRow) {
  GpuToyModel toy;
  open(toy.write("cuda"));
  std::vector<int32_t> tokens = someTokens(17);
  std::vector<float> logits(17 * ToyModel::vocab, -1);
  ASSERT_EQ(
      gptq_session_score(session, tokens.data(), 17, logits.data(), &error),
      GPTQ_OK)
      << error.message;
  for (size_t i = 0; i < 17; ++i)
    EXPECT_EQ(std::vector<float>(logits.begin() + i * ToyModel::vocab,
                                 logits.begin() + (i + 1) * ToyModel::vocab),
              toy.reference({tokens.begin(), tokens.begin() + i + 1}))
        << "row " << i;
}

TEST_F(Cuda, RunsLoneFunctions) {
  GpuToyModel toy;
  open(toy.write("cuda"));
  float a[12], b[4] = {10, 20, 30, 40}, sum[12] = {};
  for (int i = 0; i < 12; ++i)
    a[i] = float(i);
  gptq_tensor in[2] = {{GPTQ_F32, 2, {3, 4}, a}, {GPTQ_F32, 1, {4}, b}};
  gptq_tensor out = {GPTQ_F32, 2, {3, 4}, sum};
  ASSERT_EQ(gptq_session_run(session, "add", in, 2, &out, 1, &error), GPTQ_OK)
      << error.message;
  for (int i = 0; i < 12; ++i)
    EXPECT_EQ(sum[i], float(i) + b[i % 4]);
  ASSERT_EQ(gptq_session_run(session, "negate", in, 1, &out, 1, &error),
            GPTQ_OK)
      << error.message;
  for (int i = 0; i < 12; ++i)
    EXPECT_EQ(sum[i], -float(i));
  EXPECT_EQ(gptq_session_run(session, "next", in, 1, &out, 1, &error),
            GPTQ_INVALID_ARGUMENT);
}

TEST_F(Cuda, LaunchesAsTheManifestSays) {
  GpuToyModel toy;
  for (ManifestVariant &variant :
       toy.manifest.entries[0].dispatches[2].variants) {
    variant.threads = 96;
    variant.sharedBytes = 100000;
    variant.overlap = true;
  }
  open(toy.write("cuda"));
  eval(someTokens(5));
  ASSERT_EQ(fake->launches.size(), 4u);
  const FakeCuda::Launch &embed = fake->launches[0];
  EXPECT_EQ(embed.kernel, "toy_embed");
  EXPECT_EQ(embed.grid, 2u);
  EXPECT_EQ(embed.threads, 64u);
  EXPECT_EQ(embed.sharedBytes, 0u);
  EXPECT_FALSE(embed.overlaps);
  const FakeCuda::Launch &mean = fake->launches[2];
  EXPECT_EQ(mean.kernel, "toy_mean");
  EXPECT_EQ(mean.grid, 5u);
  EXPECT_EQ(mean.threads, 96u);
  EXPECT_EQ(mean.sharedBytes, 100000u);
  EXPECT_TRUE(mean.overlaps);
  EXPECT_FALSE(mean.inGraph);
}

TEST_F(Cuda, ReplaysOneGraphPerToken) {
  GpuToyModel toy;
  open(toy.write("cuda"));
  std::vector<int32_t> tokens = someTokens(20);
  eval({tokens.begin(), tokens.begin() + 10});
  EXPECT_EQ(fake->calls["cuGraphLaunch"], 0);
  fake->calls.clear();
  fake->launches.clear();
  for (int i = 10; i < 20; ++i)
    eval({tokens[i]});
  EXPECT_EQ(fake->calls["cuStreamBeginCapture_v2"], 1);
  EXPECT_EQ(fake->calls["cuLaunchKernelEx"], 4);
  EXPECT_EQ(fake->calls["cuGraphLaunch"], 10);
  EXPECT_EQ(fake->calls["cuMemcpyHtoDAsync_v2"], 10);
  EXPECT_EQ(fake->calls["cuMemcpyDtoHAsync_v2"], 10);
  EXPECT_EQ(fake->launches.size(), 40u);
  for (const FakeCuda::Launch &launch : fake->launches)
    EXPECT_TRUE(launch.inGraph);
}

TEST_F(Cuda, RecordsGridsThatDependOnThePositionForMore) {
  GpuToyModel toy;
  toy.manifest.model->maxContext = 1000;
  toy.manifest.state[0].bytes = 1000 * ToyModel::dim * 4;
  // ceil((P + 1) / 16) workgroups.
  ManifestVariant one = {1, "toy_nothing", {{0, 1, 1, 16}}, 0};
  ManifestVariant many = {ToyModel::maxRows, "toy_nothing", {{0, 1, 1, 16}}, 0};
  one.threads = many.threads = 32;
  for (size_t entry : {size_t(0), toy.manifest.entries.size() - 1})
    toy.manifest.entries[entry].dispatches.push_back(
        {"look", {ManifestArgument::of(Kind::State, 0)}, {one, many}});
  open(toy.write("cuda"));
  std::vector<int32_t> tokens = someTokens(900);
  eval({tokens.begin(), tokens.begin() + 250});
  EXPECT_EQ(fake->launches.back().grid, (245 + 1 + 15) / 16u);
  fake->launches.clear();
  fake->calls.clear();
  for (int i = 250; i < 600; ++i)
    eval({tokens[i]});
  EXPECT_EQ(fake->calls["cuStreamBeginCapture_v2"], 3);
  std::vector<unsigned> grids;
  for (const FakeCuda::Launch &launch : fake->launches)
    if (launch.kernel == "toy_nothing")
      grids.push_back(launch.grid);
  ASSERT_EQ(grids.size(), 350u);
  for (int i = 0; i < 350; ++i)
    EXPECT_EQ(grids[i], i + 250 <= 256   ? 257u / 16 + 1
                        : i + 250 <= 512 ? 513u / 16 + 1
                                         : 1000u / 16 + 1)
        << i;
}

TEST_F(Cuda, NextChoosesTheMostLikelyToken) {
  GpuToyModel toy;
  open(toy.write("cuda"));
  gptq_model_info info;
  gptq_model_get_info(model, &info);
  EXPECT_TRUE(info.has_next);
  std::vector<int32_t> tokens = someTokens(5);
  tokens.push_back(mostLikely(eval(tokens)));
  fake->calls.clear();
  fake->launches.clear();
  // To the last token the context holds, and not one further.
  while (tokens.size() <= ToyModel::maxContext) {
    int32_t chosen = next(tokens.back());
    ASSERT_EQ(chosen, mostLikely(toy.reference(tokens)));
    ASSERT_EQ(gptq_session_position(session), int64_t(tokens.size()));
    tokens.push_back(chosen);
  }
  EXPECT_EQ(gptq_session_logits(session), nullptr);
  int32_t chosen = -7;
  EXPECT_EQ(gptq_session_next(session, 1, &chosen, &error), GPTQ_OUT_OF_RANGE);
  EXPECT_EQ(chosen, -7);
  // One copy to the device for all 45 tokens, and none back: the device writes
  // where the host reads. Nobody waited for all its work.
  EXPECT_EQ(fake->calls["cuMemcpyHtoDAsync_v2"], 1);
  EXPECT_EQ(fake->calls["cuMemcpyDtoHAsync_v2"], 0);
  EXPECT_EQ(fake->calls["cuGraphLaunch"], 45);
  EXPECT_EQ(fake->calls["cuStreamSynchronize"], 1);
  EXPECT_EQ(fake->launches.size(), 45u * 5);
}

TEST_F(Cuda, SingleTokensGoThroughNextWhereItGivesLogits) {
  GpuToyModel toy;
  ManifestEntry &entry = toy.manifest.entries.back();
  ASSERT_EQ(entry.name, "next");
  entry.inputs[0].shape = {{1}};
  entry.outputs.push_back({"logits", "f32", {{1}, {ToyModel::vocab}}});
  ManifestArgument logits = ManifestArgument::of(Kind::Output, 1);
  entry.dispatches[entry.dispatches.size() - 2].args.back() = logits;
  entry.dispatches.back().args.front() = logits;
  open(toy.write("cuda"));
  std::vector<int32_t> tokens = someTokens(5);
  EXPECT_EQ(eval(tokens), toy.reference(tokens));
  for (int i = 0; i < 3; ++i) {
    fake->launches.clear();
    tokens.push_back(i + 3);
    EXPECT_EQ(eval({i + 3}), toy.reference(tokens));
    EXPECT_EQ(fake->launches.back().kernel, "toy_argmax");
    // What it chose is not taken for the next token, but may be.
    tokens.push_back(mostLikely(toy.reference(tokens)));
    EXPECT_EQ(next(tokens.back()), mostLikely(toy.reference(tokens)));
  }
}

namespace {
/// A sampler, and what it picks behind `tokens` by the reference's logits.
struct HostSampler {
  explicit HostSampler(gptq_sampling sampling) {
    EXPECT_EQ(gptq_sampler_create(&sampling, &sampler, nullptr), GPTQ_OK);
  }
  ~HostSampler() { gptq_sampler_destroy(sampler); }

  int32_t pick(const GpuToyModel &toy, const std::vector<int32_t> &tokens) {
    std::vector<float> logits = toy.reference(tokens);
    return gptq_sampler_pick(sampler, logits.data(), int64_t(logits.size()),
                             int64_t(tokens.size()));
  }

  gptq_sampler *sampler = nullptr;
};
} // namespace

TEST_F(Cuda, SamplesOnTheDeviceWhatTheHostPicks) {
  GpuToyModel toy;
  open(toy.write("cuda"));
  gptq_model_info info;
  gptq_model_get_info(model, &info);
  EXPECT_EQ(info.max_top_k, 16);
  std::set<int32_t> seen;
  bool isFirst = true;
  for (gptq_sampling sampling :
       {gptq_sampling{0.8f, 16, 1, 0}, gptq_sampling{2, 16, 1, 1},
        gptq_sampling{2, 5, 0.7f, uint64_t(1) << 40},
        gptq_sampling{1, 1, 1, 3}}) {
    HostSampler host(sampling);
    EXPECT_TRUE(gptq_model_chooses(model, host.sampler));
    ASSERT_EQ(gptq_session_rewind(session, 0, &error), GPTQ_OK);
    std::vector<int32_t> tokens = someTokens(5);
    eval(tokens);
    tokens.push_back(host.pick(toy, tokens));
    fake->calls.clear();
    // To the last token the context holds, and not one further.
    while (tokens.size() <= ToyModel::maxContext) {
      int32_t chosen = -1;
      ASSERT_EQ(gptq_session_sample(session, host.sampler, tokens.back(),
                                    &chosen, &error),
                GPTQ_OK)
          << error.message;
      ASSERT_EQ(chosen, host.pick(toy, tokens)) << tokens.size();
      tokens.push_back(chosen);
      seen.insert(chosen);
    }
    EXPECT_EQ(gptq_session_logits(session), nullptr);
    // As the likeliest tokens are chosen: one copy to the device for all. Only
    // the first time there has to be room for the second input, and a graph
    // for each of two tokens in flight, which then serve all ways to draw.
    EXPECT_EQ(fake->calls["cuMemcpyHtoDAsync_v2"], 1);
    EXPECT_EQ(fake->calls["cuGraphLaunch"], 45);
    EXPECT_EQ(fake->calls["cuStreamSynchronize"], isFirst ? 2 : 1);
    EXPECT_EQ(fake->calls["cuStreamBeginCapture_v2"], isFirst ? 2 : 0);
    isFirst = false;
  }
  EXPECT_GT(seen.size(), 10u);
}

TEST_F(Cuda, AnotherSamplerForgetsWhatRanAhead) {
  GpuToyModel toy;
  open(toy.write("cuda"));
  HostSampler samplers[] = {HostSampler({1, 16, 1, 1}),
                            HostSampler({1, 16, 1, 2}),
                            HostSampler({0, 0, 1, 0})};
  std::vector<int32_t> tokens = {4};
  for (int i = 0; i < 30; ++i) {
    HostSampler &host = samplers[i / 2 % 3];
    int32_t chosen = -1;
    ASSERT_EQ(gptq_session_sample(session, host.sampler, tokens.back(), &chosen,
                                  &error),
              GPTQ_OK)
        << error.message;
    ASSERT_EQ(chosen, host.pick(toy, tokens)) << i;
    tokens.push_back(chosen);
  }
}

TEST_F(Cuda, RefusesToSampleFromMoreThanTheModelCan) {
  GpuToyModel toy;
  open(toy.write("cuda"));
  for (int32_t topK : {0, 17}) {
    HostSampler host({1, topK, 1, 0});
    EXPECT_FALSE(gptq_model_chooses(model, host.sampler));
    int32_t chosen = -7;
    EXPECT_EQ(gptq_session_sample(session, host.sampler, 1, &chosen, &error),
              GPTQ_UNSUPPORTED);
    EXPECT_EQ(std::string(error.message),
              "expected a top-k of 1 to 16, which the model's device samples "
              "with, found " +
                  std::to_string(topK));
    EXPECT_EQ(chosen, -7);
  }
  close();
  toy.manifest.entries.erase(toy.manifest.entries.end() - 2);
  toy.code.clear();
  open(toy.write("cuda"));
  HostSampler host({1, 4, 1, 0}), greedy({0, 0, 1, 0});
  EXPECT_FALSE(gptq_model_chooses(model, host.sampler));
  EXPECT_TRUE(gptq_model_chooses(model, greedy.sampler));
  int32_t chosen = -7;
  EXPECT_EQ(gptq_session_sample(session, host.sampler, 1, &chosen, &error),
            GPTQ_UNSUPPORTED);
  EXPECT_EQ(gptq_session_position(session), 0);
}

TEST_F(Cuda, NextTakesAnotherTokenThanItsOwn) {
  GpuToyModel toy;
  open(toy.write("cuda"));
  std::vector<int32_t> tokens;
  auto append = [&](int32_t token) {
    tokens.push_back(token);
    ASSERT_EQ(next(token), mostLikely(toy.reference(tokens)));
  };
  append(5);
  append(mostLikely(toy.reference(tokens)));
  append((mostLikely(toy.reference(tokens)) + 1) % ToyModel::vocab);
  append(mostLikely(toy.reference(tokens)));
  // What ran ahead is forgotten by all that comes between.
  tokens.push_back(11);
  EXPECT_EQ(eval({11}), toy.reference(tokens));
  append(mostLikely(toy.reference(tokens)));
  ASSERT_EQ(gptq_session_rewind(session, 2, &error), GPTQ_OK);
  tokens.resize(2);
  append(7);
  append(mostLikely(toy.reference(tokens)));
  ASSERT_EQ(gptq_session_rewind(session, 0, &error), GPTQ_OK);
  tokens.clear();
  append(9);
  // A longer call moves the memory that graphs know.
  std::vector<int32_t> more = someTokens(7);
  tokens.insert(tokens.end(), more.begin(), more.end());
  EXPECT_EQ(eval(more), toy.reference(tokens));
  append(mostLikely(toy.reference(tokens)));
}

TEST_F(Cuda, SessionsTakeTurns) {
  GpuToyModel toy;
  open(toy.write("cuda"));
  std::vector<std::thread> callers;
  std::vector<int> wrong(4);
  for (int c = 0; c < 4; ++c)
    callers.emplace_back([&, c] {
      gptq_session *mine = nullptr;
      gptq_session_create(model, &mine, nullptr);
      for (int repeat = 0; repeat < 5; ++repeat) {
        std::vector<int32_t> tokens = someTokens(3 + c);
        gptq_session_rewind(mine, 0, nullptr);
        gptq_session_eval(mine, tokens.data(), 3 + c, nullptr);
        int32_t token = mostLikely(toy.reference(tokens));
        while (tokens.size() < 30) {
          tokens.push_back(token);
          gptq_session_next(mine, token, &token, nullptr);
          wrong[c] += token != mostLikely(toy.reference(tokens));
        }
      }
      gptq_session_destroy(mine);
    });
  for (std::thread &caller : callers)
    caller.join();
  EXPECT_EQ(wrong, std::vector<int>(4));
}

TEST_F(Cuda, ReportsItsMemory) {
  GpuToyModel toy;
  open(toy.write("cuda"));
  gptq_device_info info;
  ASSERT_EQ(gptq_model_get_device(model, &info, &error), GPTQ_OK)
      << error.message;
  EXPECT_STREQ(info.name, "Fake GPU");
  EXPECT_STREQ(info.code, "code.ptx, compiled by the driver");
  // Two weights of 33 x 8 numbers, the arena, and the state, each rounded up.
  EXPECT_EQ(info.model_bytes, 2 * 1280 + 2048 + 1792);
  EXPECT_EQ(info.total_bytes, 1 << 20);
  EXPECT_EQ(info.free_bytes, (1 << 20) - info.model_bytes);
}

//===----------------------------------------------------------------------===//
// Code
//===----------------------------------------------------------------------===//

TEST_F(Cuda, TakesTheCubinWhereItFits) {
  GpuToyModel toy;
  toy.code = fakePtx(toy.manifest);
  toy.cubin = fakeCubin(toy.code);
  auto code = [&] {
    gptq_device_info info;
    gptq_model_get_device(model, &info, nullptr);
    return std::string(info.code);
  };
  open(toy.write("cubin"));
  EXPECT_EQ(code(), "code.cubin");
  EXPECT_EQ(eval({3}), toy.reference({3}));
  close();

  // A driver older than the cubin.
  fake->cubinResult = 209;
  open(toy.write("cubin"));
  EXPECT_EQ(code(), "code.ptx, compiled by the driver, because it refuses "
                    "code.cubin");
  EXPECT_EQ(eval({3}), toy.reference({3}));
  close();
  fake->cubinResult = 999;
  expectRefused(toy.write("cubin"), GPTQ_DEVICE_FAILED,
                "cannot load code.cubin");

  // A later device runs the PTX.
  fake->cubinResult = 0;
  toy.manifest.target.name = "sm_80";
  fake->calls.clear();
  open(toy.write("cubin"));
  EXPECT_EQ(code(), "code.ptx, compiled by the driver");
  EXPECT_EQ(fake->calls["cuModuleLoadDataEx"], 1);
}

// The driver is not told where a cubin ends.
TEST_F(Cuda, RefusesCubinsThatEndTooEarly) {
  GpuToyModel toy;
  toy.code = fakePtx(toy.manifest);
  auto expectDamage = [&](const Elf64_Ehdr &header, const char *message) {
    toy.cubin = fakeCubin(toy.code, header);
    fake->calls.clear();
    expectRefused(toy.write("cubin"), GPTQ_INVALID_FILE, message);
    EXPECT_EQ(fake->calls["cuModuleLoadDataEx"], 0);
  };
  Elf64_Ehdr header = {};
  header.e_phnum = 1;
  expectDamage(header, "code.cubin has segments of 0 and sections of 0 bytes "
                       "in its tables, expected 56 and 64");
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phoff = ~uint64_t(0) - 8;
  expectDamage(header, "but its table of segments ends behind them");
  header = {};
  header.e_shentsize = sizeof(Elf64_Shdr);
  header.e_shoff = 1 << 20;
  header.e_shnum = 2;
  expectDamage(header, "but its table of sections ends behind them");
  // Too many for the header, it says: their number is somewhere in the text.
  header.e_shoff = sizeof(header);
  header.e_shnum = 0;
  expectDamage(header, "but its table of sections ends behind them");
  // The text as a section: it lies nowhere.
  header.e_shnum = 1;
  expectDamage(header, "but its section 0 ends behind them");

  toy.cubin = "not code at all";
  expectRefused(toy.write("cubin"), GPTQ_INVALID_FILE,
                "code.cubin is not an ELF file (15 bytes)");
}

TEST_F(Cuda, RefusesOtherDevices) {
  GpuToyModel toy;
  std::string path = toy.write("device");
  fake->major = 10;
  expectRefused(path, GPTQ_UNSUPPORTED,
                "the model is compiled for sm_90a, but the device 'Fake GPU' "
                "has the compute capability 10.0");
  fake->major = 9;
  expectRefused(path, GPTQ_INVALID_ARGUMENT,
                "expected a device of 0 to 0, found 1", 1);
  expectRefused(path, GPTQ_INVALID_ARGUMENT, "found -1", -1);
  fake->deviceCount = 0;
  expectRefused(path, GPTQ_UNSUPPORTED,
                "the model needs an NVIDIA GPU, but the driver finds none");
}

TEST_F(Cuda, SaysThatThereIsNoDriver) {
  GpuToyModel toy;
  std::string path = toy.write("driver");
  setenv("GPTQ_CUDA_DRIVER", "/no/such/libcuda.so.1", 1);
  expectRefused(path, GPTQ_UNSUPPORTED,
                "the model needs an NVIDIA GPU, but its driver cannot be "
                "opened (/no/such/libcuda.so.1");
  setenv("GPTQ_CUDA_DRIVER", GPTQ_TEST_KERNELS, 1);
  expectRefused(path, GPTQ_UNSUPPORTED, "has no function 'cu");
  // What runs elsewhere needs none.
  open(ToyModel().write("driver"));
  EXPECT_EQ(eval({3}), toy.reference({3}));
  // And looking inside needs none.
  close();
  gptq_model_options options = gptq_model_default_options();
  options.inspect_only = true;
  ASSERT_EQ(gptq_model_open(path.c_str(), &options, &model, &error), GPTQ_OK)
      << error.message;
  gptq_device_info info;
  EXPECT_EQ(gptq_model_get_device(model, &info, &error), GPTQ_INVALID_ARGUMENT);
}

TEST_F(Cuda, RefusesCodeThatDoesNotFit) {
  GpuToyModel toy;
  toy.code = ".version 8.0\n";
  expectRefused(toy.write("code"), GPTQ_INVALID_FILE,
                "does not export the kernel 'toy_embed'");

  toy.code = fakePtx(toy.manifest);
  std::string whole = toy.code;
  toy.code += '\0';
  expectRefused(toy.write("code"), GPTQ_INVALID_FILE, "is zero");

  toy.code = whole;
  size_t at = toy.code.find(".param");
  toy.code.replace(at, 6, "gone");
  expectRefused(toy.write("code"), GPTQ_INVALID_FILE,
                "kernel 'toy_embed': expected 4 parameters of 8 bytes, one for "
                "each argument and one for the sizes, found 3");
  toy.code.replace(at, 4, ".param .param");
  expectRefused(toy.write("code"), GPTQ_INVALID_FILE, "found at least 5");

  toy.code = whole;
  fake->ptxResult = 218;
  expectRefused(toy.write("code"), GPTQ_INVALID_FILE,
                "cannot load code.ptx: the NVIDIA driver reports "
                "CUDA_ERROR_INVALID_PTX (made up) and says 'ptxas fatal: line "
                "3;and that is all'");
  fake->ptxResult = 222;
  expectRefused(toy.write("code"), GPTQ_UNSUPPORTED, "reports 222");
  fake->ptxResult = 0;

  fake->maxThreads = 63;
  expectRefused(toy.write("code"), GPTQ_INVALID_FILE,
                "kernel 'toy_embed': expected at most 63 threads, found 64");
  fake->maxThreads = 1024;
  toy.variant(1).sharedBytes = 227 << 10;
  expectRefused(toy.write("code"), GPTQ_UNSUPPORTED,
                "kernel 'toy_store' needs 233472 bytes of shared memory, the "
                "device has 232448");

  toy.codeName = "code.elf";
  expectRefused(toy.write("code"), GPTQ_INVALID_FILE,
                "the tensor 'code.ptx' is missing");
}

//===----------------------------------------------------------------------===//
// Failures
//===----------------------------------------------------------------------===//

TEST_F(Cuda, SaysHowMuchMemoryIsMissing) {
  GpuToyModel toy;
  std::string path = toy.write("memory");
  fake->totalBytes = 4096;
  expectRefused(path, GPTQ_RESOURCE_EXHAUSTED,
                "out of memory on the device 'Fake GPU': the weights and the "
                "arena need 0.0 MiB, 0.0 of 0.0 MiB are free");
  fake->totalBytes = 5000;
  expectRefused(path, GPTQ_RESOURCE_EXHAUSTED, "a session's caches need");
  fake->totalBytes = 6500;
  open(path);
  int32_t token = 3;
  EXPECT_EQ(gptq_session_eval(session, &token, 1, &error),
            GPTQ_RESOURCE_EXHAUSTED);
  EXPECT_NE(std::string(error.message).find("of a call need"),
            std::string::npos)
      << error.message;
  EXPECT_EQ(gptq_session_position(session), 0);
}

TEST_F(Cuda, NamesWhatFailed) {
  GpuToyModel toy;
  open(toy.write("failure"));
  std::vector<int32_t> tokens = someTokens(3);
  fake->failing = "cuLaunchKernelEx";
  fake->failingCall = 1;
  EXPECT_EQ(gptq_session_eval(session, tokens.data(), 3, &error),
            GPTQ_DEVICE_FAILED);
  EXPECT_STREQ(error.message,
               "entry 'generate': dispatch 'toy_store': cannot launch: the "
               "NVIDIA driver reports 999 (made up)");
  EXPECT_EQ(gptq_session_position(session), 0);
  // It was nothing that lasts.
  EXPECT_EQ(eval(tokens), toy.reference(tokens));

  fake->kernelResult = 700;
  EXPECT_EQ(gptq_session_eval(session, tokens.data(), 3, &error),
            GPTQ_DEVICE_FAILED);
  EXPECT_STREQ(error.message,
               "entry 'generate': the device failed: the NVIDIA driver reports "
               "CUDA_ERROR_ILLEGAL_ADDRESS (made up)");
  int32_t chosen = 0;
  EXPECT_EQ(gptq_session_next(session, 1, &chosen, &error), GPTQ_DEVICE_FAILED);
  EXPECT_EQ(gptq_session_position(session), 3);
}

/// Opens, runs and closes; returns the first status that is not OK.
static gptq_status wholeLife(const std::string &path) {
  gptq_model *model = nullptr;
  gptq_session *session = nullptr;
  std::vector<int32_t> tokens = someTokens(9);
  gptq_status status = gptq_model_open(path.c_str(), nullptr, &model, nullptr);
  if (status == GPTQ_OK)
    status = gptq_session_create(model, &session, nullptr);
  if (status == GPTQ_OK)
    status = gptq_session_eval(session, tokens.data(), 9, nullptr);
  if (status == GPTQ_OK)
    status = gptq_session_eval(session, tokens.data(), 1, nullptr);
  int32_t token = 4;
  for (int i = 0; i < 3 && status == GPTQ_OK; ++i)
    status = gptq_session_next(session, token, &token, nullptr);
  if (status == GPTQ_OK)
    status = gptq_session_rewind(session, 0, nullptr);
  gptq_session_destroy(session);
  gptq_model_close(model);
  return status;
}

TEST_F(Cuda, SurvivesEveryFailureOfTheDriver) {
  GpuToyModel toy;
  std::string path = toy.write("failures");
  ASSERT_EQ(wholeLife(path), GPTQ_OK);
  expectNothingLeft();
  std::map<std::string, int> calls = fake->calls;
  EXPECT_GT(calls.size(), 20u);
  for (const auto &[name, count] : calls)
    for (int call = 0; call < count; ++call) {
      reset();
      fake->failing = name;
      fake->failingCall = call;
      gptq_status status = wholeLife(path);
      // Only the waiting before memory goes away may be in vain.
      bool isLastWait = name == "cuStreamSynchronize" && call == count - 1;
      EXPECT_TRUE(status == GPTQ_DEVICE_FAILED ||
                  (isLastWait && status == GPTQ_OK))
          << name << " call " << call << " gave " << status;
      expectNothingLeft();
    }
}
