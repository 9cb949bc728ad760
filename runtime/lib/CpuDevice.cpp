//===- CpuDevice.cpp - Runs a model on the host's processor ---------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/lib/CodeObject.h"
#include "runtime/lib/CpuFeatures.h"
#include "runtime/lib/Device.h"
#include "runtime/lib/Memory.h"
#include "runtime/lib/ThreadPool.h"

#include <algorithm>
#include <mutex>

using namespace gptq::abi;
using namespace gptq::runtime;

/// Makes `buffer` at least `bytes` large; its content is lost if it grows.
static Status reserve(PageBuffer &buffer, int64_t bytes) {
  if (buffer.size() >= bytes)
    return {};
  GPTQ_ASSIGN(buffer, PageBuffer::allocate(bytes));
  return {};
}

namespace {

/// Pointers of one call, all 64-byte aligned.
struct CallMemory {
  const std::vector<PageBuffer> &states;
  const CallBuffers &buffers;
};

class CpuDevice final : public Device {
public:
  explicit CpuDevice(const Artifact &artifact) : artifact(artifact) {}

  Status load(int threads) {
    const Manifest &manifest = artifact.manifest;
    GPTQ_TRY(checkCpuFeatures(manifest.target.features));
    GPTQ_ASSIGN(code, CodeObject::load(*artifact.findCode("elf")));
    for (const ManifestEntry &entry : manifest.entries) {
      Program program;
      for (const ManifestDispatch &dispatch : entry.dispatches) {
        Step step;
        step.dispatch = &dispatch;
        step.firstArg = program.argCount;
        program.argCount += dispatch.args.size();
        for (const ManifestVariant &variant : dispatch.variants) {
          GPTQ_ASSIGN(gptq_cpu_kernel function, code.find(variant.symbol));
          step.kernels.push_back(function);
        }
        program.steps.push_back(std::move(step));
      }
      programs.push_back(std::move(program));
    }
    GPTQ_ASSIGN(arena, PageBuffer::allocate(arenaBytesOf(manifest)));
    GPTQ_ASSIGN(pool, ThreadPool::create(threads, scratchBytesOf(manifest)));
    return {};
  }

  Expected<std::unique_ptr<DeviceSession>> createSession() override;

  Expected<DeviceInfo> info() const override {
    DeviceInfo info;
    info.name = "cpu";
    info.code = "code.elf";
    info.threads = pool->threads();
    return info;
  }

  const Manifest &manifest() const { return artifact.manifest; }

  void run(const ManifestEntry &entry, int64_t rows, int64_t position,
           const CallMemory &memory);

private:
  struct Step {
    const ManifestDispatch *dispatch = nullptr;
    /// By variant.
    std::vector<gptq_cpu_kernel> kernels;
    /// Where the arguments start in the program's table.
    size_t firstArg = 0;
  };
  struct Program {
    std::vector<Step> steps;
    size_t argCount = 0;
  };

  const Artifact &artifact;
  CodeObject code;
  std::vector<Program> programs;

  // Used by one call at a time.
  std::mutex mutex;
  std::unique_ptr<ThreadPool> pool;
  PageBuffer arena;
  std::vector<void *> args;
  std::vector<Task> tasks;
};

class CpuSession final : public DeviceSession {
public:
  explicit CpuSession(CpuDevice &device) : device(device) {}

  Status allocate() {
    for (const ManifestState &state : device.manifest().state) {
      GPTQ_ASSIGN(PageBuffer buffer, PageBuffer::allocate(state.bytes));
      states.push_back(std::move(buffer));
    }
    return {};
  }

  Status clear() override {
    for (PageBuffer &state : states)
      state.clear();
    return {};
  }

  Expected<CallBuffers> prepare(const ManifestEntry &entry,
                                int64_t rows) override {
    CallLayout layout = CallLayout::of(entry, rows, GPTQ_ALIGNMENT);
    GPTQ_TRY(reserve(inputs, layout.inputBytes));
    GPTQ_TRY(reserve(outputs, layout.outputBytes));
    buffers = layout.at(inputs.data(), outputs.data());
    return buffers;
  }

  Status run(const ManifestEntry &entry, int64_t rows,
             int64_t position) override {
    device.run(entry, rows, position, {states, buffers});
    return {};
  }

private:
  CpuDevice &device;
  std::vector<PageBuffer> states;
  PageBuffer inputs, outputs;
  CallBuffers buffers;
};

} // namespace

Expected<std::unique_ptr<DeviceSession>> CpuDevice::createSession() {
  auto session = std::make_unique<CpuSession>(*this);
  GPTQ_TRY(session->allocate());
  return std::unique_ptr<DeviceSession>(std::move(session));
}

void CpuDevice::run(const ManifestEntry &entry, int64_t rows, int64_t position,
                    const CallMemory &memory) {
  std::lock_guard<std::mutex> lock(mutex);
  const Program &program = programs[&entry - manifest().entries.data()];
  args.resize(program.argCount);
  tasks.resize(program.steps.size());
  for (size_t i = 0; i < program.steps.size(); ++i) {
    const Step &step = program.steps[i];
    void **arg = args.data() + step.firstArg;
    for (size_t j = 0; j < step.dispatch->args.size(); ++j) {
      const ManifestArgument &a = step.dispatch->args[j];
      switch (a.kind) {
      case ManifestArgument::Kind::Arena:
        arg[j] = arena.data() + a.offset;
        break;
      case ManifestArgument::Kind::Weight:
        arg[j] = const_cast<uint8_t *>(artifact.weights[a.index].data);
        break;
      case ManifestArgument::Kind::State:
        arg[j] = memory.states[a.index].data();
        break;
      case ManifestArgument::Kind::Input:
        arg[j] = memory.buffers.inputs[a.index];
        break;
      case ManifestArgument::Kind::Output:
        arg[j] = memory.buffers.outputs[a.index];
        break;
      }
    }
    const ManifestVariant &variant = variantFor(*step.dispatch, rows);
    int64_t workgroups = variant.workgroups(rows, position);
    // Eight draws a thread even out uneven speed at little cost in draws.
    int64_t chunk = workgroups / (int64_t(pool->threads()) * 8);
    tasks[i] = {step.kernels[&variant - step.dispatch->variants.data()], arg,
                workgroups, std::max<int64_t>(chunk, 1)};
  }
  int64_t dims[GPTQ_NUM_DIMS];
  dims[GPTQ_DIM_M] = rows;
  dims[GPTQ_DIM_P] = position;
  pool->run(tasks.data(), tasks.size(), dims);
}

Expected<std::unique_ptr<Device>>
gptq::runtime::createCpuDevice(const Artifact &artifact, int threads) {
  auto device = std::make_unique<CpuDevice>(artifact);
  GPTQ_TRY(device->load(threads));
  return std::unique_ptr<Device>(std::move(device));
}
