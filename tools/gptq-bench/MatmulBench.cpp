//===- MatmulBench.cpp - Measures lone matmuls ----------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// In a real model the weights of a layer come from memory, because those of
// all other layers were read since. To measure that, a matmul is compiled once
// and a model made that holds its weights again and again, each copy behind an
// entry of its own, until all are four times as large as the last-level cache;
// each call runs the next entry. As in a real model, the threads stay the same.
//
//===----------------------------------------------------------------------===//

#include "GpuMatmulBench.h"
#include "MatmulLayers.h"

#include "runtime/abi/MappedFile.h"
#include "runtime/abi/ModelWriter.h"
#include "runtime/lib/Artifact.h"

#include <cstdio>
#include <filesystem>
#include <random>

using namespace gptq::bench;
using gptq::run::infoOf;
using gptq::run::ModelPtr;
using gptq::run::SessionPtr;
using gptq::run::Stopwatch;

namespace fs = std::filesystem;

/// How much larger than the caches the weights are.
static constexpr int64_t cacheFactor = 4;
static constexpr int64_t mostBytes = int64_t(3) << 29;
static constexpr int64_t mostCopies = 256;
static constexpr size_t fewestSamples = 11;

namespace {

/// The model that is measured, opened for a number of threads.
struct Team {
  ModelPtr model;
  SessionPtr session;
};

struct Measurement {
  int64_t rows;
  int threads;
  std::vector<double> seconds;
};

} // namespace

/// Writes a model to `out` that holds the only entry of `artifact` and its
/// weights `count` times.
static void repeatEntry(const gptq::runtime::Artifact &artifact, int64_t count,
                        const std::string &out) {
  using gptq::abi::ManifestArgument;
  gptq::abi::Manifest manifest = artifact.manifest;
  std::vector<gptq::abi::ModelSection> sections;
  for (const auto &[name, code] : artifact.codes)
    sections.push_back({"code." + name, code});
  const gptq::abi::ManifestEntry entry = manifest.entries.at(0);
  manifest.entries.clear();
  int64_t weights = int64_t(artifact.weights.size());
  for (int64_t i = 0; i < count; ++i) {
    manifest.entries.push_back(entry);
    manifest.entries.back().name = "copy." + std::to_string(i);
    for (gptq::abi::ManifestDispatch &d : manifest.entries.back().dispatches)
      for (ManifestArgument &argument : d.args)
        if (argument.kind == ManifestArgument::Kind::Weight)
          argument.index += i * weights;
    for (int64_t w = 0; w < weights; ++w)
      sections.push_back({"w." + std::to_string(i * weights + w),
                          artifact.weights[size_t(w)]});
  }
  gptq::abi::Status status =
      gptq::abi::writeModel(out, std::move(manifest), sections);
  if (!status.ok())
    throw Error(status.message());
}

namespace {

/// One shape: its copies, and what was measured on them.
class MatmulBench {
public:
  MatmulBench(const MatmulOptions &options, const Machine &machine,
              const CompiledLayer &compiled)
      : options(options), machine(machine), compiled(compiled) {}

  void prepare() {
    TempFolder folder;
    const std::string &one = compiled.model;
    const std::string all = (folder.path / "all.gptqm").string();
    {
      auto file = take(gptq::abi::MappedFile::open(one));
      auto artifact = take(gptq::runtime::readArtifact(file.bytes()));
      target = artifact.manifest.target.name;
      for (gptq::abi::ByteSpan weight : artifact.weights)
        weightBytes += int64_t(weight.size);
      if (weightBytes == 0 || artifact.manifest.entries.size() != 1)
        throw Error("expected one function with weights in '" + one + "'");
      int64_t wanted =
          (machine.cacheBytes * cacheFactor + weightBytes - 1) / weightBytes;
      int64_t room = std::max<int64_t>(1, mostBytes / weightBytes);
      copies = size_t(std::min({wanted, room, mostCopies}));
      int64_t mostRows = artifact.manifest.entries[0].maxM;
      for (int64_t rows : options.rows)
        if (rows > mostRows)
          throw Error("expected --m of 1 to " + std::to_string(mostRows) +
                      ", found " + std::to_string(rows));
      stopIfInterrupted();
      repeatEntry(artifact, int64_t(copies), all);
    }
    for (int threads : options.threads) {
      stopIfInterrupted();
      gptq_model_options modelOptions = gptq_model_default_options();
      modelOptions.threads = threads;
      Team team;
      team.model = gptq::run::openModel(all, modelOptions);
      team.session = gptq::run::createSession(team.model.get());
      teams.push_back(std::move(team));
    }
  }

  /// Runs everything once: page tables and threads' memory come into being.
  void warmUp() {
    int64_t mostRows =
        *std::max_element(options.rows.begin(), options.rows.end());
    x.resize(size_t(mostRows * compiled.layer.k));
    y.resize(size_t(mostRows * compiled.layer.n));
    std::mt19937 random(1);
    std::uniform_real_distribution<float> uniform(-1, 1);
    for (float &value : x)
      value = uniform(random);
    for (int64_t rows : options.rows)
      for (int threads : options.threads)
        measurements.push_back({rows, threads, {}});

    for (size_t i = 0; i < copies; ++i)
      for (int threads : options.threads)
        call(threads, 1);
    for (const Measurement &m : measurements)
      call(m.threads, m.rows);
  }

  size_t numMeasurements() const { return measurements.size(); }
  void measure(size_t which) {
    Measurement &m = measurements[which];
    m.seconds.push_back(call(m.threads, m.rows));
  }

  bool hasShapeOf(const MatmulBench &other) const {
    return compiled.layer.n == other.compiled.layer.n &&
           compiled.layer.k == other.compiled.layer.k;
  }
  void close() { teams.clear(); }

  void report(const std::vector<Limits> &limits,
              nlohmann::ordered_json &out) const {
    int64_t rotation = weightBytes * int64_t(copies);
    double times = double(rotation) / double(machine.cacheBytes);
    const char *source = times >= cacheFactor - 1e-9 ? "memory"
                         : times > 1                 ? "memory in part"
                                                     : "cache";
    std::printf("\n%s, for %s: %s packed, weights from %s (%zu copies, %.1f "
                "times the cache)\n",
                compiled.text().c_str(), target.c_str(),
                gptq::run::bytesText(weightBytes).c_str(), source, copies,
                times);
    std::printf("%6s %8s %12s %12s %8s %6s %9s %6s %8s\n", "M", "threads",
                "median µs", "best µs", "GB/s", "share", "GFLOP/s", "share",
                "samples");
    for (const Measurement &m : measurements) {
      const Limits &limit = limitsOf(limits, m.threads);
      double seconds = median(m.seconds);
      double best = *std::min_element(m.seconds.begin(), m.seconds.end());
      double rate = double(weightBytes) / seconds / 1e9;
      double flops = 2.0 * double(m.rows) * double(compiled.layer.n) *
                     double(compiled.layer.k);
      double gigaflops = flops / seconds / 1e9;
      double readShare = rate / limit.gigabytesPerSecond;
      double flopShare = gigaflops / limit.gigaflops;
      std::printf("%6lld %8d %11.1f %11.1f %8.2f %5.1f%% %9.2f %5.1f%% %8zu\n",
                  (long long)m.rows, m.threads, seconds * 1e6, best * 1e6, rate,
                  readShare * 100, gigaflops, flopShare * 100,
                  m.seconds.size());
      nlohmann::ordered_json row = compiled.describe();
      row.update({{"m", m.rows},
                  {"target", target},
                  {"threads", m.threads},
                  {"median_us", seconds * 1e6},
                  {"best_us", best * 1e6},
                  {"weight_bytes", weightBytes},
                  {"gb_per_s", rate},
                  {"read_share", readShare},
                  {"flops", flops},
                  {"gflops", gigaflops},
                  {"flop_share", flopShare},
                  {"weights_from", source},
                  {"copies", copies},
                  {"rotation_bytes", rotation}});
      for (double s : m.seconds)
        row["samples_us"].push_back(s * 1e6);
      out.push_back(std::move(row));
    }
  }

private:
  /// The seconds of one call, on the copy that was not used for longest.
  double call(int threads, int64_t rows) {
    stopIfInterrupted();
    const Team &team = teams[size_t(
        std::find(options.threads.begin(), options.threads.end(), threads) -
        options.threads.begin())];
    turn = (turn + 1) % copies;
    const std::string entry = "copy." + std::to_string(turn);
    gptq_tensor in{GPTQ_F32, 2, {rows, compiled.layer.k}, x.data()};
    gptq_tensor out{GPTQ_F32, 2, {rows, compiled.layer.n}, y.data()};
    double seconds = 0;
    check([&](gptq_error *e) {
      Stopwatch watch;
      gptq_status status = gptq_session_run(team.session.get(), entry.c_str(),
                                            &in, 1, &out, 1, e);
      seconds = watch.seconds();
      return status;
    });
    return seconds;
  }

  const MatmulOptions &options;
  const Machine &machine;
  const CompiledLayer &compiled;
  std::string target;
  int64_t weightBytes = 0;
  size_t copies = 0;
  /// By number of threads.
  std::vector<Team> teams;
  size_t turn = 0;
  std::vector<float> x, y;
  std::vector<Measurement> measurements;
};

} // namespace

/// Measures layers compiled for the processor.
static void benchCpuMatmul(const MatmulOptions &options,
                           const std::vector<CompiledLayer> &layers,
                           nlohmann::ordered_json &report) {
  Machine machine = describeMachine();
  std::vector<Limits> limits = measureLimits(machine, options.threads);
  std::vector<MatmulBench> benches;
  benches.reserve(layers.size());
  for (const CompiledLayer &layer : layers)
    benches.emplace_back(options, machine, layer);
  // All layers of a shape take turns, so that what disturbs the machine
  // disturbs all alike; one shape's copies at a time are enough memory.
  for (auto first = benches.begin(); first != benches.end();) {
    auto last = std::find_if(first, benches.end(), [&](MatmulBench &bench) {
      return !bench.hasShapeOf(*first);
    });
    for (auto bench = first; bench != last; ++bench) {
      bench->prepare();
      bench->warmUp();
    }
    Stopwatch watch;
    size_t wanted = std::max(fewestSamples, size_t(options.samples));
    for (size_t round = 0; round < wanted; ++round) {
      if (round >= fewestSamples && watch.seconds() > options.seconds)
        break;
      for (size_t which = 0; which < first->numMeasurements(); ++which)
        for (auto bench = first; bench != last; ++bench)
          bench->measure(which);
    }
    for (; first != last; ++first)
      first->close();
    // The machine may have been busy before.
    improve(limits, measureLimits(machine, options.threads));
  }
  describeMachine(machine, limits, report);
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const MatmulBench &bench : benches)
    bench.report(limits, rows);
  report["results"] = std::move(rows);
}

int gptq::bench::benchMatmul(const MatmulOptions &options,
                             nlohmann::ordered_json &report) {
  if (!options.writeTo.empty()) {
    std::error_code error;
    fs::create_directories(options.writeTo, error);
    if (error)
      throw Error("cannot make the folder '" + options.writeTo +
                  "': " + error.message());
    writeLayers(compileLayers(options, options.writeTo), options.writeTo);
    return 0;
  }
  std::optional<TempFolder> folder;
  std::vector<CompiledLayer> layers;
  if (options.readFrom.empty()) {
    folder.emplace();
    layers = compileLayers(options, folder->path);
  } else {
    layers = readLayers(options.readFrom);
  }
  // A folder holds what was compiled for one target.
  auto file = take(gptq::abi::MappedFile::open(layers[0].model));
  auto artifact = take(gptq::runtime::readArtifact(file.bytes()));
  if (artifact.manifest.target.kind == "nvvm")
    return benchGpuMatmul(options, layers, report);
  benchCpuMatmul(options, layers, report);
  return 0;
}
