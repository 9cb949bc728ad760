//===- Limits.cpp - What the machine can do -------------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Limits.h"

#include "Bench.h"

#include <atomic>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <sched.h>
#include <set>
#include <sys/mman.h>
#include <thread>
#include <unistd.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

using namespace gptq::bench;

//===----------------------------------------------------------------------===//
// The machine
//===----------------------------------------------------------------------===//

static std::string firstLine(const std::string &path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

static std::string processorName() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.rfind("model name", 0) == 0)
      if (size_t colon = line.find(": "); colon != std::string::npos)
        return line.substr(colon + 2);
  return "unknown";
}

/// The bytes of all last-level caches that `cpus` share, each counted once.
static int64_t cachesOf(const cpu_set_t &cpus) {
  std::set<std::string> seen;
  int64_t total = 0;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &cpus))
      continue;
    const std::string folder =
        "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/cache/index";
    int level = 0;
    int64_t bytes = 0;
    std::string shared;
    for (int index = 0; index < 8; ++index) {
      const std::string cache = folder + std::to_string(index);
      int found = std::atoi(firstLine(cache + "/level").c_str());
      if (found <= level)
        continue;
      std::string size = firstLine(cache + "/size");
      level = found;
      bytes = std::atoll(size.c_str());
      if (!size.empty() && size.back() == 'K')
        bytes <<= 10;
      else if (!size.empty() && size.back() == 'M')
        bytes <<= 20;
      shared = firstLine(cache + "/shared_cpu_list");
    }
    if (seen.insert(shared).second)
      total += bytes;
  }
  return total;
}

Machine gptq::bench::describeMachine() {
  Machine machine;
  machine.processor = processorName();
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0)
    machine.processors = std::max(1, CPU_COUNT(&cpus));
  machine.cacheBytes = cachesOf(cpus);
  machine.cacheSource = "sysfs";
#ifdef _SC_LEVEL3_CACHE_SIZE
  if (machine.cacheBytes <= 0) {
    machine.cacheBytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
    machine.cacheSource = "sysconf";
  }
#endif
  if (machine.cacheBytes <= 0) {
    machine.cacheBytes = int64_t(32) << 20;
    machine.cacheSource = "assumed";
  }
  return machine;
}

//===----------------------------------------------------------------------===//
// Kernels
//===----------------------------------------------------------------------===//

/// Keeps the compiler from dropping what made `value`.
template <typename T> static void keep(const T &value) {
  asm volatile("" ::"m"(value) : "memory");
}

/// Reads all of `bytes`, a multiple of 256.
using ReadFn = void (*)(const char *data, size_t bytes);
/// Does `count` rounds of 12 independent multiply-adds.
using MultiplyFn = void (*)(int64_t count);

static void readWords(const char *data, size_t bytes) {
  const uint64_t *words = reinterpret_cast<const uint64_t *>(data);
  uint64_t a = 0, b = 0, c = 0, d = 0;
  for (size_t i = 0; i < bytes / 8; i += 4) {
    a |= words[i];
    b |= words[i + 1];
    c |= words[i + 2];
    d |= words[i + 3];
  }
  keep(a | b | c | d);
}

static void multiplyScalar(int64_t count) {
  float x = 1.0f, y = 0.5f, sums[12] = {};
  for (int64_t i = 0; i < count; ++i) {
    asm volatile("" : "+m"(x), "+m"(y));
    for (float &sum : sums)
      sum += x * y;
  }
  keep(sums);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void readAvx2(const char *data,
                                                     size_t bytes) {
  __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
  for (size_t i = 0; i < bytes; i += 128) {
    auto load = [&](size_t at) __attribute__((target("avx2"))) {
      return _mm256_load_si256(
          reinterpret_cast<const __m256i *>(data + i + at));
    };
    a = _mm256_or_si256(a, load(0));
    b = _mm256_or_si256(b, load(32));
    c = _mm256_or_si256(c, load(64));
    d = _mm256_or_si256(d, load(96));
  }
  a = _mm256_or_si256(_mm256_or_si256(a, b), _mm256_or_si256(c, d));
  keep(a);
}

/// Twelve sums: latency of 4 to 5 cycles times two units is at most 10.
#define GPTQ_MULTIPLY(NAME, TARGET, VECTOR, SET, FMA)                          \
  __attribute__((target(TARGET))) static void NAME(int64_t count) {            \
    VECTOR x = SET(1.0f), y = SET(0.5f), sums[12];                             \
    for (VECTOR &sum : sums)                                                   \
      sum = SET(0.0f);                                                         \
    for (int64_t i = 0; i < count; ++i) {                                      \
      _Pragma("clang loop unroll(full)") for (VECTOR &sum : sums) {            \
        sum = FMA(x, y, sum);                                                  \
        asm volatile("" : "+v"(sum));                                          \
      }                                                                        \
    }                                                                          \
    for (VECTOR &sum : sums)                                                   \
      keep(sum);                                                               \
  }
GPTQ_MULTIPLY(multiplyAvx2, "avx2,fma", __m256, _mm256_set1_ps, _mm256_fmadd_ps)
GPTQ_MULTIPLY(multiplyAvx512, "avx512f", __m512, _mm512_set1_ps,
              _mm512_fmadd_ps)
#undef GPTQ_MULTIPLY
#endif

namespace {

struct Kernels {
  ReadFn read = readWords;
  MultiplyFn multiply = multiplyScalar;
  int lanes = 1;
  const char *instructions = "scalar";

  static Kernels best() {
    Kernels kernels;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
      kernels = {readAvx2, multiplyAvx2, 8, "avx2"};
    if (__builtin_cpu_supports("avx512f"))
      kernels = {readAvx2, multiplyAvx512, 16, "avx512"};
#endif
    return kernels;
  }
};

/// Pages that were touched, and are large if the system has such.
class Buffer {
public:
  explicit Buffer(size_t bytes) : bytes(bytes) {
    void *p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
      throw Error("out of memory: the bandwidth test needs " +
                  gptq::run::bytesText(int64_t(bytes)));
    data = static_cast<char *>(p);
    madvise(data, bytes, MADV_HUGEPAGE);
    std::memset(data, 1, bytes);
  }
  Buffer(const Buffer &) = delete;
  ~Buffer() { munmap(data, bytes); }

  char *data;
  size_t bytes;
};

} // namespace

static double now() {
  return std::chrono::duration<double>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

/// Runs `work(thread, round)` on all threads at once; returns the seconds of
/// the fastest round, from the first start to the last end.
static double fastest(int threads, int rounds,
                      const std::function<void(int, int)> &work) {
  std::vector<double> starts(threads), ends(threads);
  std::atomic<int> arrived{0};
  auto meet = [&](int target) {
    arrived.fetch_add(1);
    while (arrived.load() < target)
      std::this_thread::yield();
  };
  double best = 1e30;
  std::vector<std::thread> team;
  auto body = [&](int t) {
    for (int round = 0; round < rounds; ++round) {
      meet(threads * (2 * round + 1));
      starts[t] = now();
      work(t, round);
      ends[t] = now();
      meet(threads * (2 * round + 2));
      if (t == 0)
        best =
            std::min(best, *std::max_element(ends.begin(), ends.end()) -
                               *std::min_element(starts.begin(), starts.end()));
    }
  };
  for (int t = 1; t < threads; ++t)
    team.emplace_back(body, t);
  body(0);
  for (std::thread &thread : team)
    thread.join();
  return best;
}

std::vector<Limits>
gptq::bench::measureLimits(const Machine &machine,
                           const std::vector<int> &threads) {
  const Kernels kernels = Kernels::best();
  // Parts of some milliseconds fit between two interruptions of a busy
  // machine; successive parts walk through a buffer too large for the caches.
  constexpr size_t part = size_t(16) << 20;
  constexpr size_t mostBytes = size_t(1) << 30;
  size_t most = size_t(*std::max_element(threads.begin(), threads.end()));
  size_t parts =
      std::min(std::max(size_t(machine.cacheBytes) * 4 / part + 1, most * 2),
               std::max(mostBytes / part, most));
  Buffer buffer(parts * part);
  std::vector<Limits> out;
  for (int count : threads) {
    stopIfInterrupted();
    Limits limits;
    limits.threads = count;
    limits.bytesRead = int64_t(buffer.bytes);
    limits.instructions = kernels.instructions;
    int rounds = std::max(33, int(2 * parts) / count);
    double seconds = fastest(count, rounds, [&](int t, int round) {
      size_t at = (size_t(round) * size_t(count) + size_t(t)) % parts;
      kernels.read(buffer.data + at * part, part);
    });
    limits.gigabytesPerSecond = double(part) * count / seconds / 1e9;
    constexpr int64_t multiplies = 500000;
    seconds =
        fastest(count, 50, [&](int, int) { kernels.multiply(multiplies); });
    limits.gigaflops =
        2.0 * 12 * kernels.lanes * multiplies * count / seconds / 1e9;
    out.push_back(limits);
  }
  return out;
}

void gptq::bench::improve(std::vector<Limits> &limits,
                          const std::vector<Limits> &again) {
  for (size_t i = 0; i < limits.size(); ++i) {
    limits[i].gigabytesPerSecond =
        std::max(limits[i].gigabytesPerSecond, again[i].gigabytesPerSecond);
    limits[i].gigaflops = std::max(limits[i].gigaflops, again[i].gigaflops);
  }
}

const Limits &gptq::bench::limitsOf(const std::vector<Limits> &limits,
                                    int threads) {
  return *std::find_if(limits.begin(), limits.end(),
                       [&](const Limits &l) { return l.threads == threads; });
}

void gptq::bench::describeMachine(const Machine &machine,
                                  const std::vector<Limits> &limits,
                                  nlohmann::ordered_json &report) {
  report["processor"] = machine.processor;
  report["processors"] = machine.processors;
  report["cache_bytes"] = machine.cacheBytes;
  report["cache_source"] = machine.cacheSource;
  std::printf("processor  %s, %d usable, last-level cache %s (%s)\n",
              machine.processor.c_str(), machine.processors,
              run::bytesText(machine.cacheBytes).c_str(),
              machine.cacheSource.c_str());
  report["limits"] = nlohmann::ordered_json::array();
  for (const Limits &l : limits) {
    report["limits"].push_back({{"threads", l.threads},
                                {"read_gb_per_s", l.gigabytesPerSecond},
                                {"read_bytes", l.bytesRead},
                                {"f32_gflops", l.gigaflops},
                                {"instructions", l.instructions}});
    std::printf("limits     %d thread%s: %.1f GB/s read over %s, %.1f GFLOP/s "
                "f32 (%s)\n",
                l.threads, l.threads == 1 ? "" : "s", l.gigabytesPerSecond,
                run::bytesText(l.bytesRead).c_str(), l.gigaflops,
                l.instructions.c_str());
  }
}
