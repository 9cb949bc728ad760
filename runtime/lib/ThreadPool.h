//===- ThreadPool.h - Threads that run dispatches ---------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_RUNTIME_LIB_THREADPOOL_H
#define GPTQ_RUNTIME_LIB_THREADPOOL_H

#include "runtime/abi/KernelABI.h"
#include "runtime/abi/Status.h"
#include "runtime/lib/Memory.h"

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace gptq::runtime {

/// One dispatch of a program, ready to run.
struct Task {
  gptq_cpu_kernel kernel = nullptr;
  void *const *args = nullptr;
  int64_t workgroups = 0;
  /// Workgroups a thread takes at a time.
  int64_t chunk = 1;
};

/// Runs lists of tasks on persistent threads, the caller's among them.
///
/// Threads draw workgroups of the current task from a shared counter and move
/// on when all of that task's workgroups are finished, whoever ran them. No
/// thread waits for another to arrive, so one the system has put aside holds
/// up nobody unless it is in the middle of a workgroup; the caller alone could
/// finish a whole program.
class ThreadPool {
public:
  /// `threads` >= 1, the caller's included.
  static abi::Expected<std::unique_ptr<ThreadPool>>
  create(int threads, int64_t scratchBytes);
  ~ThreadPool();

  /// Runs `tasks` one after the other. Not for several callers at once.
  void run(const Task *tasks, size_t count, const int64_t *dims);

  int threads() const { return int(scratch.size()); }

private:
  /// Progress of one task. Both counters are written by all threads; apart,
  /// drawing work does not disturb those that wait for the end.
  struct Progress {
    alignas(64) std::atomic<int64_t> next{0};
    alignas(64) std::atomic<int64_t> done{0};
  };

  ThreadPool() = default;
  void work(int thread);
  void runTasks(int thread);

  std::vector<PageBuffer> scratch;
  std::vector<std::thread> workers;

  // The program being run; written only while no worker is inside.
  const Task *tasks = nullptr;
  size_t taskCount = 0;
  const int64_t *dims = nullptr;
  std::unique_ptr<Progress[]> progress;
  size_t progressSize = 0;

  /// Counts programs; workers wait for it to change.
  alignas(64) std::atomic<uint64_t> generation{0};
  /// Workers that may be looking at the program.
  alignas(64) std::atomic<int> inside{0};
  /// True while a program is open to workers.
  std::atomic<bool> isOpen{false};
  std::atomic<bool> isStopping{false};
  std::atomic<int> sleepers{0};
  std::mutex mutex;
  std::condition_variable wake;
};

/// One for each core this process may run on; two hardware threads of a core
/// count once.
int defaultThreadCount();

} // namespace gptq::runtime

#endif // GPTQ_RUNTIME_LIB_THREADPOOL_H
