//===- ThreadPool.cpp - Threads that run dispatches -----------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/lib/ThreadPool.h"

#include <chrono>
#include <cstdio>
#include <sched.h>
#include <set>
#include <string>
#include <system_error>

using namespace gptq::abi;
using namespace gptq::runtime;

static void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
}

namespace {
/// Waits in a loop: first attentively, then letting others run. A pause takes
/// 40 to 140 cycles, so the first phase is some 20 to 60 microseconds, longer
/// than the serial part between two dispatches or two tokens.
class Spinner {
public:
  bool attentive() const { return count < limit; }
  void wait() {
    if (count < limit) {
      ++count;
      relax();
    } else {
      ::sched_yield();
    }
  }

private:
  static constexpr int limit = 1500;
  int count = 0;
};
} // namespace

Expected<std::unique_ptr<ThreadPool>> ThreadPool::create(int threads,
                                                         int64_t scratchBytes) {
  std::unique_ptr<ThreadPool> pool(new ThreadPool);
  for (int i = 0; i < threads; ++i) {
    GPTQ_ASSIGN(PageBuffer buffer, PageBuffer::allocate(scratchBytes));
    pool->scratch.push_back(std::move(buffer));
  }
  for (int i = 1; i < threads; ++i) {
    ThreadPool *self = pool.get();
    try {
      pool->workers.emplace_back([self, i] { self->work(i); });
    } catch (const std::system_error &e) {
      return makeStatus(StatusCode::ResourceExhausted,
                        "cannot start thread %d of %d: %s", i + 1, threads,
                        e.what());
    }
  }
  return pool;
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard<std::mutex> lock(mutex);
    isStopping = true;
    generation.fetch_add(1);
  }
  wake.notify_all();
  for (std::thread &worker : workers)
    worker.join();
}

void ThreadPool::run(const Task *list, size_t count, const int64_t *d) {
  if (progressSize < count) {
    progress = std::make_unique<Progress[]>(count);
    progressSize = count;
  }
  for (size_t i = 0; i < count; ++i) {
    progress[i].next.store(0, std::memory_order_relaxed);
    progress[i].done.store(0, std::memory_order_relaxed);
  }
  tasks = list;
  taskCount = count;
  dims = d;
  if (workers.empty()) {
    runTasks(0);
    return;
  }

  isOpen.store(true);
  generation.fetch_add(1);
  if (sleepers.load() > 0) {
    // Under the lock, a worker is either before its last look at the
    // generation or already waiting: it cannot miss this.
    std::lock_guard<std::mutex> lock(mutex);
    wake.notify_all();
  }
  runTasks(0);

  // Latecomers find nothing to do; wait for those that did come, because the
  // program they look at is about to change.
  isOpen.store(false);
  for (Spinner spinner; inside.load() > 0;)
    spinner.wait();
}

void ThreadPool::runTasks(int thread) {
  void *memory = scratch[thread].data();
  for (size_t i = 0; i < taskCount; ++i) {
    const Task &task = tasks[i];
    Progress &state = progress[i];
    int64_t finished = 0;
    while (true) {
      int64_t first =
          state.next.fetch_add(task.chunk, std::memory_order_relaxed);
      if (first >= task.workgroups)
        break;
      int64_t last = std::min(first + task.chunk, task.workgroups);
      for (int64_t workgroup = first; workgroup < last; ++workgroup)
        task.kernel(task.args, dims, workgroup, memory);
      finished += last - first;
    }
    // Releases this thread's results; the loop below acquires everybody's.
    if (finished > 0)
      state.done.fetch_add(finished, std::memory_order_release);
    for (Spinner spinner;
         state.done.load(std::memory_order_acquire) < task.workgroups;)
      spinner.wait();
  }
}

void ThreadPool::work(int thread) {
  uint64_t seen = 0;
  while (true) {
    Spinner spinner;
    while (generation.load() == seen && spinner.attentive())
      spinner.wait();
    if (generation.load() == seen) {
      std::unique_lock<std::mutex> lock(mutex);
      sleepers.fetch_add(1);
      wake.wait(lock, [&] { return generation.load() != seen; });
      sleepers.fetch_sub(1);
    }
    if (isStopping.load())
      return;
    seen = generation.load();
    // Announce first, then look: either the caller sees this worker inside
    // and waits, or this worker sees the program closed.
    inside.fetch_add(1);
    if (isOpen.load())
      runTasks(thread);
    inside.fetch_sub(1);
  }
}

int gptq::runtime::defaultThreadCount() {
  cpu_set_t set;
  if (::sched_getaffinity(0, sizeof(set), &set) != 0)
    return std::max(1u, std::thread::hardware_concurrency());
  std::set<std::string> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &set))
      continue;
    // All hardware threads of a core name the same siblings.
    std::string core = std::to_string(cpu);
    std::string path =
        "/sys/devices/system/cpu/cpu" + core + "/topology/thread_siblings_list";
    if (FILE *file = std::fopen(path.c_str(), "re")) {
      char text[256];
      if (std::fgets(text, sizeof(text), file))
        core = text;
      std::fclose(file);
    }
    cores.insert(core);
  }
  return std::max<int>(1, int(cores.size()));
}
