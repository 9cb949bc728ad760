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

#include "Bench.h"

#include "runtime/abi/MappedFile.h"
#include "runtime/abi/ModelWriter.h"
#include "runtime/lib/Artifact.h"

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <random>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace gptq::bench;
using gptq::run::infoOf;
using gptq::run::ModelPtr;
using gptq::run::SessionPtr;
using gptq::run::Stopwatch;

namespace fs = std::filesystem;

extern char **environ;

/// How much larger than the caches the weights are.
static constexpr int64_t cacheFactor = 4;
static constexpr int64_t mostBytes = int64_t(3) << 29;
static constexpr int64_t mostCopies = 256;
static constexpr size_t fewestSamples = 11;

namespace {

/// A folder nobody else can enter, gone with the object.
class TempFolder {
public:
  TempFolder() {
    std::error_code error;
    fs::path parent = fs::temp_directory_path(error);
    if (error)
      throw Error("no folder for temporary files: " + error.message());
    std::string name = (parent / "gptq-bench-XXXXXX").string();
    if (!mkdtemp(name.data()))
      throw Error("cannot make a folder in '" + parent.string() +
                  "': " + std::strerror(errno));
    path = name;
  }
  TempFolder(const TempFolder &) = delete;
  ~TempFolder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }

  fs::path path;
};

struct Shape {
  int64_t n, k;
  std::string text;
};

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

static Shape parseShape(const std::string &text) {
  Shape shape{0, 0, text};
  char end = 0;
  long long n = 0, k = 0;
  if (std::sscanf(text.c_str(), "%lldx%lld%c", &n, &k, &end) != 2 || n < 1 ||
      k < 1 || n > (1 << 20) || k > (1 << 20))
    throw Error("expected a shape like 4096x4096, found '" + text + "'");
  shape.n = n;
  shape.k = k;
  return shape;
}

/// Runs a tool of the compiler. Its own error becomes ours.
static void runTool(const fs::path &binDir, const fs::path &folder,
                    std::vector<std::string> arguments) {
  stopIfInterrupted();
  const std::string name = arguments[0];
  const std::string program = (binDir / name).string();
  const std::string log = (folder / "log").string();
  std::vector<char *> argv;
  arguments[0] = program;
  for (std::string &argument : arguments)
    argv.push_back(argument.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  for (int stream : {STDOUT_FILENO, STDERR_FILENO})
    posix_spawn_file_actions_addopen(&actions, stream, log.c_str(),
                                     O_WRONLY | O_CREAT | O_APPEND, 0600);
  pid_t child = 0;
  int error = posix_spawn(&child, program.c_str(), &actions, nullptr,
                          argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0)
    throw Error("cannot start '" + program + "': " + std::strerror(error) +
                "; --bin-dir says where the compiler is");
  int status = 0;
  while (waitpid(child, &status, 0) < 0)
    if (errno != EINTR)
      throw Error("lost '" + program + "': " + std::strerror(errno));
  stopIfInterrupted();
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
    return;
  std::string text = gptq::run::readFile(log);
  const std::string mark = name + ": error: ";
  size_t start = text.find(mark);
  start = start == std::string::npos ? 0 : start + mark.size();
  text = text.substr(start, text.find('\n', start) - start);
  throw Error(name + " failed: " + (text.empty() ? "no reason given" : text));
}

/// Compiles one matmul to `out`.
static void compileMatmul(const MatmulOptions &options, const Shape &shape,
                          int bits, const fs::path &binDir,
                          const fs::path &folder, const fs::path &out) {
  std::string kernel = std::to_string(shape.n) + "," + std::to_string(shape.k) +
                       "," + std::to_string(bits) + "," +
                       std::to_string(options.group);
  if (options.asym)
    kernel += ",asym";
  if (options.actOrder)
    kernel += ",act-order";
  const std::string source = (folder / "matmul.mlir").string();
  runTool(binDir, folder,
          {"gptq-translate", "--emit-kernel", kernel, "-o", source});
  runTool(binDir, folder,
          {"gptq-compile", source, "--quiet", "--target=" + options.target,
           "-o", out.string()});
}

template <typename T> static T take(gptq::abi::Expected<T> value) {
  if (!value)
    throw Error(value.status().message());
  return value.take();
}

/// Writes a model to `out` that holds the only entry of `artifact` and its
/// weights `count` times.
static void repeatEntry(const gptq::runtime::Artifact &artifact, int64_t count,
                        const std::string &out) {
  using gptq::abi::ManifestArgument;
  gptq::abi::Manifest manifest = artifact.manifest;
  std::vector<gptq::abi::ModelSection> sections = {{"code.elf", artifact.code}};
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

/// One shape and width: its copies, and what was measured on them.
class MatmulBench {
public:
  MatmulBench(const MatmulOptions &options, const Machine &machine, Shape shape,
              int bits)
      : options(options), machine(machine), shape(std::move(shape)),
        bits(bits) {}

  void prepare(const fs::path &binDir) {
    TempFolder folder;
    const std::string one = (folder.path / "one.gptqm").string();
    const std::string all = (folder.path / "all.gptqm").string();
    compileMatmul(options, shape, bits, binDir, folder.path, one);
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
    x.resize(size_t(mostRows * shape.k));
    y.resize(size_t(mostRows * shape.n));
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

  /// One shape's copies at a time are enough memory.
  void close() { teams.clear(); }

  void report(const std::vector<Limits> &limits,
              nlohmann::ordered_json &out) const {
    int64_t rotation = weightBytes * int64_t(copies);
    double times = double(rotation) / double(machine.cacheBytes);
    const char *source = times >= cacheFactor - 1e-9 ? "memory"
                         : times > 1                 ? "memory in part"
                                                     : "cache";
    std::printf("\n%s, %d-bit, group %lld%s%s, for %s: %s packed, weights from "
                "%s (%zu copies, %.1f times the cache)\n",
                shape.text.c_str(), bits, (long long)options.group,
                options.asym ? ", asymmetric" : "",
                options.actOrder ? ", act-order" : "", target.c_str(),
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
      double flops = 2.0 * double(m.rows) * double(shape.n) * double(shape.k);
      double gigaflops = flops / seconds / 1e9;
      double readShare = rate / limit.gigabytesPerSecond;
      double flopShare = gigaflops / limit.gigaflops;
      std::printf("%6lld %8d %11.1f %11.1f %8.2f %5.1f%% %9.2f %5.1f%% %8zu\n",
                  (long long)m.rows, m.threads, seconds * 1e6, best * 1e6, rate,
                  readShare * 100, gigaflops, flopShare * 100,
                  m.seconds.size());
      nlohmann::ordered_json row = {{"shape", shape.text},
                                    {"n", shape.n},
                                    {"k", shape.k},
                                    {"m", m.rows},
                                    {"bits", bits},
                                    {"group", options.group},
                                    {"asym", options.asym},
                                    {"act_order", options.actOrder},
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
                                    {"rotation_bytes", rotation}};
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
    gptq_tensor in{GPTQ_F32, 2, {rows, shape.k}, x.data()};
    gptq_tensor out{GPTQ_F32, 2, {rows, shape.n}, y.data()};
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
  Shape shape;
  int bits;
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

void gptq::bench::benchMatmul(const MatmulOptions &options,
                              nlohmann::ordered_json &report) {
  fs::path binDir = options.binDir;
  if (binDir.empty()) {
    std::error_code error;
    fs::path self = fs::read_symlink("/proc/self/exe", error);
    if (error)
      throw Error("cannot tell where this program is; use --bin-dir");
    binDir = self.parent_path();
  }
  std::vector<Shape> shapes;
  for (const std::string &text : options.shapes)
    shapes.push_back(parseShape(text));

  Machine machine = describeMachine();
  std::vector<Limits> limits = measureLimits(machine, options.threads);
  std::vector<MatmulBench> benches;
  benches.reserve(shapes.size() * options.bits.size());
  for (const Shape &shape : shapes) {
    const size_t first = benches.size();
    for (int bits : options.bits) {
      MatmulBench &bench = benches.emplace_back(options, machine, shape, bits);
      bench.prepare(binDir);
      bench.warmUp();
    }
    // Taking turns, so that what disturbs the machine disturbs all alike.
    Stopwatch watch;
    size_t wanted = std::max(fewestSamples, size_t(options.samples));
    for (size_t round = 0; round < wanted; ++round) {
      if (round >= fewestSamples && watch.seconds() > options.seconds)
        break;
      for (size_t which = 0; which < benches[first].numMeasurements(); ++which)
        for (size_t i = first; i < benches.size(); ++i)
          benches[i].measure(which);
    }
    for (size_t i = first; i < benches.size(); ++i)
      benches[i].close();
    // The machine may have been busy before.
    improve(limits, measureLimits(machine, options.threads));
  }
  describeMachine(machine, limits, report);
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const MatmulBench &bench : benches)
    bench.report(limits, rows);
  report["results"] = std::move(rows);
}
