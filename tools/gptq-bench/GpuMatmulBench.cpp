//===- GpuMatmulBench.cpp - Measures lone matmuls on a GPU ----------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A graph of many calls is replayed, each call on another copy of the weights
// until all copies are more than six times the level-2 cache, so that weights
// come from memory and no launch by the host is in the time. Beside each
// layer stands its floor: the same graph with kernels that only read.
//
//===----------------------------------------------------------------------===//

#include "GpuMatmulBench.h"

#include "Gpu.h"

#include "runtime/abi/KernelABI.h"
#include "runtime/abi/MappedFile.h"
#include "runtime/lib/CudaKernels.h"
#include "runtime/lib/Device.h"
#include "runtime/lib/Half.h"
#include "runtime/lib/ThreadPool.h"

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <set>
#include <thread>

using namespace gptq::abi;
using namespace gptq::bench;
using namespace gptq::runtime;

static constexpr int64_t cacheFactor = 6;
static constexpr int64_t mostCopies = 512;
static constexpr size_t fewestSamples = 11;

/// Calls of one graph. Long ones need fewer for the same share of its start.
static int64_t callsOf(int64_t rows, int64_t copies) {
  return std::max<int64_t>(rows <= 256 ? 24 : 6, copies);
}

namespace {

/// The calls of one number of rows.
struct Calls {
  int64_t rows = 0;
  int64_t count = 0;
  CudaGraph graph;
  std::vector<double> seconds;
  /// The same of each dispatch alone, where there are several.
  std::vector<CudaGraph> parts;
  std::vector<std::vector<double>> partSeconds;
  double error = 0;
  bool isRepeatable = false;
};

class GpuMatmul {
public:
  GpuMatmul(const Gpu &gpu, const MatmulOptions &options,
            const CompiledLayer &compiled)
      : gpu(gpu), options(options), compiled(compiled) {}

  void prepare();
  void measure();
  int report(double limit, nlohmann::ordered_json &out) const;

private:
  const ManifestEntry &entry() const { return artifact.manifest.entries[0]; }
  const ManifestPort &output() const { return entry().outputs[0]; }
  void check(Status status) const { gptq::bench::check(status); }
  void check(cuda::Result result, const char *what) const {
    check(gpu.context().driver().check(result, what));
  }

  void loadWeights();
  void loadActivations();
  template <typename Program>
  CudaGraph record(const Calls &c, const Program &program) const;
  std::vector<uint8_t> outputAfter(const Calls &c, bool byGraph);
  double errorOf(const std::vector<uint8_t> &bytes, int64_t rows) const;

  const Gpu &gpu;
  const MatmulOptions &options;
  const CompiledLayer &compiled;
  MappedFile file;
  Artifact artifact;
  CudaKernels kernels;
  /// Every copy of all weights, the arena, `dims` and the activations for
  /// each number of rows, the results.
  CudaBuffer weights, arena, inputs, outputs;
  std::vector<CudaPointers> copies;
  std::vector<cuda::Pointer> dims;
  int64_t weightBytes = 0, copyBytes = 0;
  std::vector<Calls> calls;
  CudaGraph floor;
  std::vector<double> floorSeconds;
  std::vector<double> reference;
};

} // namespace

void GpuMatmul::prepare() {
  file = take(MappedFile::open(compiled.model));
  artifact = take(readArtifact(file.bytes()));
  check(verifyArtifact(artifact, defaultThreadCount()));
  const Manifest &manifest = artifact.manifest;
  if (manifest.target.kind != "nvvm")
    throw Error(compiled.model +
                ": expected a model for a GPU, as the first "
                "of its folder is, found one for '" +
                manifest.target.kind + "'");
  auto matches = [&](const std::vector<ManifestPort> &ports, int64_t columns) {
    return ports.size() == 1 && ports[0].dtype != "i32" &&
           ports[0].shape.size() == 2 && ports[0].shape[0].isRows() &&
           ports[0].shape[1].size == columns;
  };
  if (manifest.entries.size() != 1 ||
      !matches(entry().inputs, compiled.layer.k) ||
      !matches(entry().outputs, compiled.layer.n) || artifact.weights.empty())
    throw Error(compiled.model + ": expected one function of [M, " +
                std::to_string(compiled.layer.k) + "] to [M, " +
                std::to_string(compiled.layer.n) + "] with weights");
  int64_t mostRows = 1;
  for (int64_t rows : options.rows) {
    if (rows > entry().maxM)
      throw Error("expected --m of 1 to " + std::to_string(entry().maxM) +
                  ", found " + std::to_string(rows));
    mostRows = std::max(mostRows, rows);
  }
  const CudaContext &context = gpu.context();
  CudaContext::Scope scope(context);
  kernels = take(CudaKernels::load(context, artifact));
  arena = take(
      CudaBuffer::allocate(context, entry().arenaBytes, "the arena needs"));
  outputs = take(CudaBuffer::allocate(
      context, output().elements(mostRows) * output().elementBytes(),
      "the results need"));
  loadActivations();
  loadWeights();

  reference = compiled.layer.multiply(mostRows, defaultThreadCount());
  for (size_t i = 0; i < options.rows.size(); ++i) {
    Calls &c = calls.emplace_back();
    c.rows = options.rows[i];
    c.count = callsOf(c.rows, int64_t(copies.size()));
    for (CudaPointers &copy : copies)
      copy.dims = dims[i];
    c.graph = record(c, entry());
    // What one dispatch reads, the one before it has left in the arena.
    if (entry().dispatches.size() > 1)
      for (const ManifestDispatch &dispatch : entry().dispatches)
        c.parts.push_back(record(c, dispatch));
    c.partSeconds.resize(c.parts.size());
    const std::vector<uint8_t> replayed = outputAfter(c, true);
    c.error = errorOf(replayed, c.rows);
    c.isRepeatable = outputAfter(c, false) == replayed;
  }
  floor = take(recordGraph(context, [&]() -> Status {
    for (int64_t i = 0; i < callsOf(1, int64_t(copies.size())); ++i)
      GPTQ_TRY(
          gpu.read(copies[size_t(i) % copies.size()].weights[0], copyBytes));
    return {};
  }));
}

/// Brings one copy of the weights to the device and makes the others there.
void GpuMatmul::loadWeights() {
  const CudaContext &context = gpu.context();
  const CudaDriver &driver = context.driver();
  std::vector<int64_t> offsets;
  for (ByteSpan weight : artifact.weights) {
    offsets.push_back(copyBytes);
    copyBytes += alignedTo(int64_t(weight.size), GPTQ_DEVICE_ALIGNMENT);
    weightBytes += int64_t(weight.size);
  }
  int64_t wanted = gpu.cacheBytes() * cacheFactor / copyBytes + 1;
  int64_t room = take(context.memory()).free * 9 / 10 / copyBytes;
  int64_t count = std::max<int64_t>(1, std::min({wanted, room, mostCopies}));
  weights = take(
      CudaBuffer::allocate(context, copyBytes * count, "the weights need"));
  const char *what = "cannot copy the weights";
  for (size_t i = 0; i < offsets.size(); ++i) {
    ByteSpan weight = artifact.weights[i];
    CudaHostBuffer host =
        take(CudaHostBuffer::allocate(context, int64_t(weight.size)));
    std::memcpy(host.data(), weight.data, weight.size);
    check(driver.copyToDevice(weights.get() + cuda::Pointer(offsets[i]),
                              host.data(), weight.size, context.stream()),
          what);
    check(context.synchronize(what));
  }
  for (int64_t i = 0; i < count; ++i) {
    cuda::Pointer base = weights.get() + cuda::Pointer(i * copyBytes);
    if (i > 0)
      check(driver.copyOnDevice(base, weights.get(), size_t(copyBytes),
                                context.stream()),
            what);
    CudaPointers &copy = copies.emplace_back();
    copy.arena = arena.get();
    copy.outputs = {outputs.get()};
    copy.inputs = {inputs.get()};
    for (int64_t offset : offsets)
      copy.weights.push_back(base + cuda::Pointer(offset));
  }
  check(context.synchronize(what));
}

/// One matrix of activations serves all numbers of rows; each has its `dims`
/// behind it.
void GpuMatmul::loadActivations() {
  const CudaContext &context = gpu.context();
  const ManifestPort &port = entry().inputs[0];
  int64_t mostRows =
      *std::max_element(options.rows.begin(), options.rows.end());
  int64_t matrixBytes = alignedTo(port.elements(mostRows) * port.elementBytes(),
                                  GPTQ_DEVICE_ALIGNMENT);
  int64_t bytes =
      matrixBytes + int64_t(options.rows.size()) * GPTQ_DEVICE_ALIGNMENT;
  inputs = take(CudaBuffer::allocate(context, bytes, "the activations need"));
  CudaHostBuffer host = take(CudaHostBuffer::allocate(context, bytes));
  int64_t k = compiled.layer.k;
  for (int64_t row = 0; row < mostRows; ++row)
    for (int64_t column = 0; column < k; ++column) {
      float value = RandomLayer::activation(row, column);
      uint8_t *to = host.data() + (row * k + column) * port.elementBytes();
      if (port.isHalf()) {
        uint16_t half =
            port.dtype == "f16" ? narrowToF16(value) : narrowToBF16(value);
        std::memcpy(to, &half, sizeof(half));
      } else {
        std::memcpy(to, &value, sizeof(value));
      }
    }
  for (size_t i = 0; i < options.rows.size(); ++i) {
    int64_t at = matrixBytes + int64_t(i) * GPTQ_DEVICE_ALIGNMENT;
    int64_t values[GPTQ_NUM_DIMS] = {};
    values[GPTQ_DIM_M] = options.rows[i];
    std::memcpy(host.data() + at, values, sizeof(values));
    dims.push_back(inputs.get() + cuda::Pointer(at));
  }
  const char *what = "cannot copy the activations";
  check(context.driver().copyToDevice(inputs.get(), host.data(), size_t(bytes),
                                      context.stream()),
        what);
  check(context.synchronize(what));
}

/// A graph of the calls of the entry, or of one of its dispatches.
template <typename Program>
CudaGraph GpuMatmul::record(const Calls &c, const Program &program) const {
  return take(recordGraph(gpu.context(), [&]() -> Status {
    for (int64_t i = 0; i < c.count; ++i)
      GPTQ_TRY(kernels.launch(program, c.rows, /*position=*/0,
                              copies[size_t(i) % copies.size()]));
    return {};
  }));
}

/// What is in the results after a replay, or after one call, if before there
/// were only not-a-numbers.
std::vector<uint8_t> GpuMatmul::outputAfter(const Calls &c, bool byGraph) {
  const CudaContext &context = gpu.context();
  const CudaDriver &driver = context.driver();
  const char *what = "the device failed";
  check(driver.fill(outputs.get(), 0xff, size_t(outputs.size()),
                    context.stream()),
        what);
  check(driver.fill(arena.get(), 0xff, size_t(arena.size()), context.stream()),
        what);
  if (byGraph)
    check(driver.graphLaunch(c.graph.get(), context.stream()), what);
  else
    check(kernels.launch(entry(), c.rows, /*position=*/0, copies[0]));
  int64_t bytes = output().elements(c.rows) * output().elementBytes();
  CudaHostBuffer host = take(CudaHostBuffer::allocate(context, bytes));
  check(driver.copyToHost(host.data(), outputs.get(), size_t(bytes),
                          context.stream()),
        what);
  check(context.synchronize(what));
  return {host.data(), host.data() + bytes};
}

/// The largest error, relative to the largest result.
double GpuMatmul::errorOf(const std::vector<uint8_t> &bytes,
                          int64_t rows) const {
  double worst = 0, largest = 0;
  int64_t width = output().elementBytes();
  for (int64_t i = 0; i < rows * compiled.layer.n; ++i) {
    float value;
    if (output().isHalf()) {
      uint16_t half;
      std::memcpy(&half, bytes.data() + i * width, sizeof(half));
      value = output().dtype == "f16" ? widenF16(half) : widenBF16(half);
    } else {
      std::memcpy(&value, bytes.data() + i * width, sizeof(value));
    }
    double error = std::fabs(double(value) - reference[size_t(i)]);
    if (!(error <= worst))
      worst = std::isnan(error) ? INFINITY : error;
    largest = std::max(largest, std::fabs(reference[size_t(i)]));
  }
  return worst / largest;
}

void GpuMatmul::measure() {
  auto replay = [&](const CudaGraph &graph) {
    std::this_thread::sleep_for(
        std::chrono::duration<double, std::milli>(options.rest));
    return gpu.replay(graph);
  };
  gptq::run::Stopwatch watch;
  size_t wanted = std::max(fewestSamples, size_t(options.samples));
  // Taking turns, so that a clock that falls falls for all.
  for (size_t round = 0; round < wanted; ++round) {
    stopIfInterrupted();
    if (round >= fewestSamples && watch.seconds() > options.seconds)
      break;
    for (Calls &c : calls) {
      c.seconds.push_back(replay(c.graph) / double(c.count));
      for (size_t i = 0; i < c.parts.size(); ++i)
        c.partSeconds[i].push_back(replay(c.parts[i]) / double(c.count));
    }
    floorSeconds.push_back(replay(floor) /
                           double(callsOf(1, int64_t(copies.size()))));
  }
}

int GpuMatmul::report(double limit, nlohmann::ordered_json &out) const {
  const Manifest &manifest = artifact.manifest;
  int64_t rotation = copyBytes * int64_t(copies.size());
  double times = double(rotation) / double(gpu.cacheBytes());
  double floorMedian = median(floorSeconds);
  std::printf("\n%s, for %s (%s): %s packed, %zu copies, %.1f times the cache; "
              "floor %.2f µs\n",
              compiled.text().c_str(), manifest.target.name.c_str(),
              kernels.code().c_str(), gptq::run::bytesText(weightBytes).c_str(),
              copies.size(), times, floorMedian * 1e6);
  std::printf("%6s %10s %10s %7s %8s %6s %8s %10s %9s %8s  %s\n", "M",
              "median µs", "best µs", "floors", "GB/s", "share", "TFLOP/s",
              "error", "repeats", "samples", "kernels, µs alone");
  int wrong = 0;
  for (const Calls &c : calls) {
    double seconds = median(c.seconds);
    double best = *std::min_element(c.seconds.begin(), c.seconds.end());
    double rate = double(weightBytes) / seconds / 1e9;
    double flops = 2.0 * double(c.rows) * double(compiled.layer.n) *
                   double(compiled.layer.k);
    bool isRight = c.error <= options.tolerance && c.isRepeatable;
    wrong += !isRight;

    nlohmann::ordered_json kernelRows = nlohmann::ordered_json::array();
    std::string names;
    for (size_t i = 0; i < entry().dispatches.size(); ++i) {
      const ManifestDispatch &dispatch = entry().dispatches[i];
      const ManifestVariant &v = variantFor(dispatch, c.rows);
      double alone = median(c.parts.empty() ? c.seconds : c.partSeconds[i]);
      auto attribute = [&](cuda::FunctionAttribute a) {
        return take(kernels.attribute(v.symbol, a));
      };
      kernelRows.push_back({{"symbol", v.symbol},
                            {"workgroups", v.workgroups(c.rows, 0)},
                            {"threads", v.threads},
                            {"shared_bytes", v.sharedBytes},
                            {"overlap", v.overlap},
                            {"median_us", alone * 1e6},
                            {"registers", attribute(cuda::Registers)},
                            {"local_bytes", attribute(cuda::LocalBytes)}});
      char time[32] = "";
      if (!c.parts.empty())
        std::snprintf(time, sizeof(time), " %.2f", alone * 1e6);
      names += (names.empty() ? "" : ", ") + v.symbol + time;
    }
    std::printf("%6lld %9.2f %9.2f %7.2f %8.1f %5.1f%% %8.2f %10.2e %9s %8zu  "
                "%s%s\n",
                (long long)c.rows, seconds * 1e6, best * 1e6,
                seconds / floorMedian, rate, rate / limit * 100,
                flops / seconds / 1e12, c.error, c.isRepeatable ? "yes" : "NO",
                c.seconds.size(), names.c_str(), isRight ? "" : "  WRONG");
    nlohmann::ordered_json row = compiled.describe();
    row.update(
        {{"m", c.rows},
         {"target", manifest.target.name},
         {"code", kernels.code()},
         {"input_dtype", entry().inputs[0].dtype},
         {"output_dtype", output().dtype},
         {"median_us", seconds * 1e6},
         {"best_us", best * 1e6},
         {"floor_us", floorMedian * 1e6},
         {"weight_bytes", weightBytes},
         {"gb_per_s", rate},
         {"read_share", rate / limit},
         {"flops", flops},
         {"tflops", flops / seconds / 1e12},
         {"error", std::isfinite(c.error) ? nlohmann::ordered_json(c.error)
                                          : nlohmann::ordered_json()},
         {"tolerance", options.tolerance},
         {"repeatable", c.isRepeatable},
         {"right", isRight},
         {"copies", copies.size()},
         {"rotation_bytes", rotation},
         {"calls_per_replay", c.count},
         {"kernels", std::move(kernelRows)}});
    for (double s : c.seconds)
      row["samples_us"].push_back(s * 1e6);
    out.push_back(std::move(row));
  }
  return wrong;
}

int gptq::bench::benchGpuMatmul(const MatmulOptions &options,
                                const std::vector<CompiledLayer> &layers,
                                nlohmann::ordered_json &report) {
  Gpu gpu(options.device);
  double limit = gpu.measureRead();
  gpu.describe(limit, report);
  report["results"] = nlohmann::ordered_json::array();
  int wrong = 0;
  for (const CompiledLayer &layer : layers) {
    stopIfInterrupted();
    // One layer's copies at a time are enough memory.
    GpuMatmul matmul(gpu, options, layer);
    matmul.prepare();
    matmul.measure();
    wrong += matmul.report(limit, report["results"]);
    std::fflush(stdout);
  }
  return wrong;
}
