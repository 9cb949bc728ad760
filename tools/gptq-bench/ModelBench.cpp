//===- ModelBench.cpp - Measures compiled models --------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Gpu.h"

#include "runtime/abi/Manifest.h"

#include <cstdio>
#include <map>
#include <random>

using namespace gptq::abi;
using namespace gptq::bench;
using gptq::run::infoOf;
using gptq::run::ModelPtr;
using gptq::run::SamplerPtr;
using gptq::run::SessionPtr;
using gptq::run::Stopwatch;

namespace {

/// What one token reads of weights.
struct TokenReads {
  int64_t bytes = 0;
  /// Of a mixture of experts: how many a token uses, and of how many.
  int64_t expertsUsed = 0, experts = 0;
};

} // namespace

/// The weights that a call of `generate` with one row reads from end to end. Of
/// the tables for embeddings and rotations it reads one row; of the experts of
/// a layer those that are chosen.
static TokenReads readsPerToken(const Manifest &manifest) {
  std::map<std::string, const ManifestArgument *> read;
  for (const ManifestEntry &entry : manifest.entries) {
    if (entry.name != "generate")
      continue;
    for (const ManifestDispatch &dispatch : entry.dispatches) {
      const std::string &symbol = dispatch.variants.front().symbol;
      if (symbol.rfind("embedding", 0) == 0 || symbol.rfind("rotary", 0) == 0)
        continue;
      for (const ManifestArgument &argument : dispatch.args)
        if (argument.kind == ManifestArgument::Kind::Weight)
          read.emplace("w." + std::to_string(argument.index), &argument);
    }
  }
  TokenReads reads;
  for (const ManifestSection &section : manifest.sections) {
    auto it = read.find(section.tensor);
    if (it == read.end())
      continue;
    const ManifestArgument &weight = *it->second;
    if (weight.experts == 0) {
      reads.bytes += section.bytes;
      continue;
    }
    // Experts are of one size.
    reads.bytes += section.bytes / weight.experts * weight.expertsUsed;
    reads.expertsUsed = weight.expertsUsed;
    reads.experts = weight.experts;
  }
  return reads;
}

/// What is said of the weights that a token reads.
static std::string readsText(const nlohmann::ordered_json &report) {
  std::string text = gptq::run::bytesText(report["weight_bytes_per_token"]) +
                     " read for each token";
  if (report.contains("experts"))
    text += ", " + report["experts_used"].dump() + " of " +
            report["experts"].dump() + " experts of a layer among them";
  return text;
}

namespace {

struct ModelMeasurement {
  int threads;
  double loadSeconds;
  std::vector<double> prefillSeconds, decodeSeconds;
  int64_t residentBytes;
  /// Of a GPU's memory.
  int64_t deviceBytes;
  /// The device chose the tokens by itself.
  bool deviceChooses;
  std::string code;
};

} // namespace

static ModelMeasurement measure(const ModelOptions &options, int threads,
                                int64_t prompt, int64_t fresh) {
  ModelMeasurement out{};
  out.threads = threads;
  gptq_model_options modelOptions = gptq_model_default_options();
  modelOptions.threads = threads;
  modelOptions.device = options.device;
  Stopwatch load;
  ModelPtr model = gptq::run::openModel(options.path, modelOptions);
  out.loadSeconds = load.seconds();
  gptq_model_info info = infoOf(model.get());
  gptq_sampling sampling = {options.temperature, options.topK, /*top_p=*/1,
                            /*seed=*/0};
  gptq_sampler *created = nullptr;
  check([&](gptq_error *e) {
    return gptq_sampler_create(&sampling, &created, e);
  });
  SamplerPtr sampler(created);
  out.deviceChooses =
      !options.chooseOnHost && gptq_model_chooses(model.get(), sampler.get());
  int64_t vocab = info.vocab_size;
  SessionPtr session = gptq::run::createSession(model.get());
  // What the tokens say changes nothing about the work.
  std::mt19937 random(1);
  std::vector<int32_t> tokens(size_t(std::max(prompt, fresh)));
  for (int32_t &token : tokens)
    token = int32_t(random() % uint64_t(vocab));
  auto eval = [&](int64_t at, int64_t count) {
    stopIfInterrupted();
    check([&](gptq_error *e) {
      return gptq_session_eval(session.get(), tokens.data() + at, count, e);
    });
  };
  // The first round warms up.
  for (int round = 0; round <= options.samples; ++round) {
    check([&](gptq_error *e) {
      return gptq_session_rewind(session.get(), 0, e);
    });
    Stopwatch prefill;
    eval(0, prompt);
    double prefillSeconds = prefill.seconds();
    Stopwatch decode;
    int32_t token = tokens[0];
    for (int64_t i = 0; i < fresh; ++i) {
      stopIfInterrupted();
      if (!out.deviceChooses) {
        check([&](gptq_error *e) {
          return gptq_session_eval(session.get(), &token, 1, e);
        });
        token =
            gptq_sampler_pick(sampler.get(), gptq_session_logits(session.get()),
                              vocab, gptq_session_position(session.get()));
        continue;
      }
      check([&](gptq_error *e) {
        return gptq_session_sample(session.get(), sampler.get(), token, &token,
                                   e);
      });
    }
    double decodeSeconds = decode.seconds();
    if (round == 0)
      continue;
    out.prefillSeconds.push_back(prefillSeconds);
    out.decodeSeconds.push_back(decodeSeconds);
  }
  gptq_memory memory;
  check([&](gptq_error *e) { return gptq_memory_usage(&memory, e); });
  out.residentBytes = memory.resident_bytes;
  gptq_device_info device = gptq::run::deviceOf(model.get());
  out.deviceBytes = device.model_bytes;
  out.code = device.code;
  return out;
}

/// Every time that was measured.
static void addSamples(const ModelMeasurement &m, nlohmann::ordered_json &row) {
  for (double s : m.prefillSeconds)
    row["prefill_samples_ms"].push_back(s * 1e3);
  for (double s : m.decodeSeconds)
    row["decode_samples_ms"].push_back(s * 1e3);
}

/// Measures on a processor, with each number of threads.
static void benchOnCpu(const ModelOptions &options, int64_t prompt,
                       int64_t fresh, nlohmann::ordered_json &report) {
  int64_t weightBytes = report["weight_bytes_per_token"];
  Machine machine = describeMachine();
  std::vector<Limits> limits = measureLimits(machine, options.threads);
  std::vector<ModelMeasurement> measurements;
  for (int threads : options.threads)
    measurements.push_back(measure(options, threads, prompt, fresh));
  // The machine may have been busy the first time.
  improve(limits, measureLimits(machine, options.threads));
  describeMachine(machine, limits, report);

  bool inCache = weightBytes <= machine.cacheBytes;
  report["weights_from"] = inCache ? "cache" : "memory";
  std::printf("weights    %s, from %s\n", readsText(report).c_str(),
              inCache ? "the cache: the share of the read limit says little"
                      : "memory");
  std::printf("\n%8s %10s %16s %16s %8s %6s %12s\n", "threads", "load ms",
              "prefill tok/s", "decode tok/s", "GB/s", "share", "resident");
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const ModelMeasurement &m : measurements) {
    double prefill = double(prompt) / median(m.prefillSeconds);
    double decode = double(fresh) / median(m.decodeSeconds);
    double rate = double(weightBytes) * decode / 1e9;
    double share = rate / limitsOf(limits, m.threads).gigabytesPerSecond;
    std::printf("%8d %10.1f %16.2f %16.2f %8.2f %5.1f%% %12s\n", m.threads,
                m.loadSeconds * 1e3, prefill, decode, rate, share * 100,
                gptq::run::bytesText(m.residentBytes).c_str());
    nlohmann::ordered_json row = {{"threads", m.threads},
                                  {"load_ms", m.loadSeconds * 1e3},
                                  {"prefill_tokens_per_s", prefill},
                                  {"decode_tokens_per_s", decode},
                                  {"decode_gb_per_s", rate},
                                  {"read_share", share},
                                  {"resident_bytes", m.residentBytes}};
    addSamples(m, row);
    rows.push_back(std::move(row));
  }
  report["results"] = std::move(rows);
}

/// Measures on a GPU.
static void benchOnGpu(const ModelOptions &options, int64_t prompt,
                       int64_t fresh, nlohmann::ordered_json &report) {
  int64_t weightBytes = report["weight_bytes_per_token"];
  double limit;
  {
    Gpu gpu(options.device);
    limit = gpu.measureRead();
    gpu.describe(limit, report);
  }
  ModelMeasurement m = measure(options, /*threads=*/0, prompt, fresh);
  double prefill = double(prompt) / median(m.prefillSeconds);
  double decode = double(fresh) / median(m.decodeSeconds);
  double rate = double(weightBytes) * decode / 1e9;
  std::printf("code       %s\n", m.code.c_str());
  std::printf("weights    %s; tokens are chosen by the %s\n",
              readsText(report).c_str(), m.deviceChooses ? "device" : "host");
  std::printf("\n%10s %16s %16s %8s %6s %12s %12s\n", "load ms",
              "prefill tok/s", "decode tok/s", "GB/s", "share", "on device",
              "resident");
  std::printf("%10.1f %16.2f %16.2f %8.2f %5.1f%% %12s %12s\n",
              m.loadSeconds * 1e3, prefill, decode, rate, rate / limit * 100,
              gptq::run::bytesText(m.deviceBytes).c_str(),
              gptq::run::bytesText(m.residentBytes).c_str());
  nlohmann::ordered_json row = {{"code", m.code},
                                {"device_chooses", m.deviceChooses},
                                {"load_ms", m.loadSeconds * 1e3},
                                {"prefill_tokens_per_s", prefill},
                                {"decode_tokens_per_s", decode},
                                {"decode_gb_per_s", rate},
                                {"read_share", rate / limit},
                                {"device_bytes", m.deviceBytes},
                                {"resident_bytes", m.residentBytes}};
  addSamples(m, row);
  report["results"] = nlohmann::ordered_json::array({std::move(row)});
}

void gptq::bench::benchModel(const ModelOptions &options,
                             nlohmann::ordered_json &report) {
  int64_t prompt = options.promptTokens, fresh = options.newTokens;
  bool isGpu = false;
  {
    gptq_model_options inspect = gptq_model_default_options();
    inspect.inspect_only = true;
    inspect.verify = false;
    ModelPtr model = gptq::run::openModel(options.path, inspect);
    gptq_model_info info = infoOf(model.get());
    if (!info.is_language_model)
      throw Error(options.path + ": holds no language model");
    if (fresh == 0)
      fresh =
          std::min<int64_t>(128, std::max<int64_t>(info.max_context / 4, 1));
    if (prompt == 0)
      prompt = std::min<int64_t>(512, info.max_context - fresh);
    if (prompt < 1 || prompt + fresh > info.max_context)
      throw Error("expected at most " + std::to_string(info.max_context) +
                  " tokens, the model's context, found " +
                  std::to_string(prompt) + " + " + std::to_string(fresh));
    report["model"] = options.path;
    report["name"] = info.name;
    report["quantization"] = info.quantization;
    report["target"] = info.target;
    report["file_bytes"] = info.file_bytes;
    Manifest manifest = take(parseManifest(gptq_model_manifest(model.get())));
    isGpu = manifest.target.kind == "nvvm";
    const TokenReads reads = readsPerToken(manifest);
    report["weight_bytes_per_token"] = reads.bytes;
    if (reads.experts) {
      report["experts_used"] = reads.expertsUsed;
      report["experts"] = reads.experts;
    }
    report["prompt_tokens"] = prompt;
    report["new_tokens"] = fresh;
    report["temperature"] = options.temperature;
    report["top_k"] = options.topK;
    std::printf("model      %s (%s), %s\n", info.name, info.quantization,
                info.target);
  }
  if (isGpu)
    benchOnGpu(options, prompt, fresh, report);
  else
    benchOnCpu(options, prompt, fresh, report);
}
