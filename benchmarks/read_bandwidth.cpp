//===- read_bandwidth.cpp - How fast memory can be read -------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Reads 1 GiB of memory from end to end, again and again, and prints how fast:
//
//     read_bandwidth [threads] [passes]
//
// The memory is touched first, so no page fault is timed, and larger than any
// cache. Threads read neighbouring parts of one buffer. Prints the median pass
// and the fastest one, in GB/s (10^9 bytes).
//
//===----------------------------------------------------------------------===//

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>
#include <thread>
#include <vector>

static constexpr size_t kBytes = size_t(1) << 30;

/// The exclusive or of all words: one load and one operation for each vector,
/// so that the loop waits for memory and not for arithmetic.
__attribute__((target("avx2"))) static uint64_t readAll(const uint64_t *words,
                                                        size_t count) {
  typedef uint64_t Vector __attribute__((vector_size(32), aligned(32)));
  const Vector *from = reinterpret_cast<const Vector *>(words);
  // Eight sums, that no load waits for another's operation.
  Vector sums[8] = {};
  for (size_t i = 0; i < count / 4; i += 8)
    for (int j = 0; j < 8; ++j)
      sums[j] ^= from[i + j];
  for (int j = 1; j < 8; ++j)
    sums[0] ^= sums[j];
  return sums[0][0] ^ sums[0][1] ^ sums[0][2] ^ sums[0][3];
}

int main(int argc, char **argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  const int passes = argc > 2 ? std::atoi(argv[2]) : 9;
  if (threads < 1 || passes < 1) {
    std::fprintf(stderr, "usage: read_bandwidth [threads] [passes]\n");
    return 1;
  }
  void *memory = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    std::perror("read_bandwidth: cannot get 1 GiB");
    return 1;
  }
  auto *words = static_cast<uint64_t *>(memory);
  const size_t count = kBytes / sizeof(uint64_t);
  for (size_t i = 0; i < count; ++i)
    words[i] = i;

  const size_t part = count / threads / 32 * 32;
  std::vector<double> rates;
  std::atomic<uint64_t> sink{0};
  for (int pass = 0; pass < passes; ++pass) {
    // Threads are there before the clock starts.
    std::atomic<int> ready{0};
    std::atomic<bool> go{false};
    std::vector<std::thread> workers;
    auto work = [&](int t) { sink += readAll(words + t * part, part); };
    for (int t = 1; t < threads; ++t)
      workers.emplace_back([&, t] {
        ++ready;
        while (!go)
          ;
        work(t);
      });
    while (ready < threads - 1)
      ;
    auto start = std::chrono::steady_clock::now();
    go = true;
    work(0);
    for (std::thread &worker : workers)
      worker.join();
    std::chrono::duration<double> taken =
        std::chrono::steady_clock::now() - start;
    rates.push_back(part * threads * sizeof(uint64_t) / taken.count() / 1e9);
  }
  std::sort(rates.begin(), rates.end());
  std::printf("%d threads: %.2f GB/s median, %.2f best of %d\n", threads,
              rates[rates.size() / 2], rates.back(), passes);
  return sink == 42 ? 2 : 0;
}
