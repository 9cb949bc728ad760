//===- CudaDevice.cpp - Runs a model on an NVIDIA GPU ---------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/abi/KernelABI.h"
#include "runtime/lib/CudaKernels.h"
#include "runtime/lib/Device.h"

#include <algorithm>
#include <cstring>
#include <mutex>

using namespace gptq::abi;
using namespace gptq::runtime;

/// Bytes from the start of a call's block to its first input; the sizes of the
/// call (`dims`) come before, so that one copy brings both.
static constexpr int64_t inputStart = GPTQ_DEVICE_ALIGNMENT;

static int64_t aligned(int64_t bytes) {
  return alignedTo(bytes, GPTQ_DEVICE_ALIGNMENT);
}

/// The position that a graph is recorded for which runs at `position`: the
/// same for many, so that few graphs do. Grids never shrink as P grows, and
/// workgroups that the actual P does not need do nothing.
static int64_t recordedPosition(const ManifestEntry &entry, int64_t rows,
                                int64_t position, int64_t maxContext) {
  bool dependsOnPosition = false;
  for (const ManifestDispatch &dispatch : entry.dispatches)
    for (const GridFactor &factor : variantFor(dispatch, rows).grid)
      dependsOnPosition |= factor.b != 0;
  if (!dependsOnPosition)
    return 0;
  int64_t bound = 256;
  while (bound < position)
    bound *= 2;
  return std::min(bound, maxContext - 1);
}

namespace {

class CudaDevice final : public Device {
public:
  explicit CudaDevice(const Artifact &artifact) : artifact(artifact) {}

  Status load(int ordinal);
  Expected<std::unique_ptr<DeviceSession>> createSession() override;
  Expected<DeviceInfo> info() const override;

  const Manifest &manifest() const { return artifact.manifest; }

  std::unique_ptr<CudaContext> context;
  CudaKernels kernels;
  /// Weights, then the arena.
  CudaBuffer memory;
  cuda::Pointer arena = 0;
  std::vector<cuda::Pointer> weights;
  /// Held while a call uses the stream and the arena.
  std::mutex mutex;

private:
  Status upload();

  const Artifact &artifact;
};

class CudaSession final : public DeviceSession {
public:
  explicit CudaSession(CudaDevice &device)
      : device(device), context(*device.context), driver(context.driver()) {}
  ~CudaSession() override {
    CudaContext::Scope scope(context);
    (void)context.synchronize("");
  }

  Status allocate();
  Status clear() override;
  Expected<CallBuffers> prepare(const ManifestEntry &entry,
                                int64_t rows) override;
  Status run(const ManifestEntry &entry, int64_t rows,
             int64_t position) override;
  Expected<int32_t> next(const ManifestEntry &entry, int32_t token,
                         const SamplingWords *how, int64_t position,
                         bool goOn) override;

private:
  Status reserve(int64_t inputBytes, int64_t outputBytes);
  Status setUp(const ManifestEntry &entry, int64_t rows);
  Status sendCall(int64_t rows, int64_t position);
  Status replay(const ManifestEntry &entry, int64_t position,
                std::optional<int> slot = std::nullopt);
  Status replayForToken(const ManifestEntry &entry, int64_t position, int slot);
  Expected<int32_t> nextLocked(const ManifestEntry &entry, int32_t token,
                               const SamplingWords &how, int64_t position,
                               bool goOn);

  CudaDevice &device;
  const CudaContext &context;
  const CudaDriver &driver;

  CudaBuffer states;
  /// `dims` and inputs; outputs. Each on the device and on the host.
  CudaBuffer deviceCall, deviceOutputs;
  CudaHostBuffer hostCall, hostOutputs;
  CallLayout layout;
  CudaPointers pointers;

  struct Recorded {
    const ManifestEntry *entry;
    int64_t position;
    std::optional<int> slot;
    CudaGraph graph;
  };
  std::vector<Recorded> graphs;

  /// Tokens that the device chose, for two replays in flight, and when they are
  /// there.
  CudaHostBuffer chosen;
  CudaEvent chosenEvents[2];
  const uint8_t *slotOf(int slot) const {
    return chosen.data() + slot * GPTQ_DEVICE_ALIGNMENT;
  }
  /// A replay that was not asked for yet.
  struct Ahead {
    const ManifestEntry *entry;
    int32_t token;
    SamplingWords how;
    int64_t position;
    int slot;
  };
  std::optional<Ahead> ahead;
};

} // namespace

//===----------------------------------------------------------------------===//
// The device
//===----------------------------------------------------------------------===//

Status CudaDevice::load(int ordinal) {
  GPTQ_ASSIGN(context, CudaContext::open(ordinal));
  GPTQ_ASSIGN(kernels, CudaKernels::load(*context, artifact));
  int64_t bytes = 0;
  std::vector<int64_t> offsets;
  for (ByteSpan weight : artifact.weights) {
    offsets.push_back(bytes);
    bytes += aligned(int64_t(weight.size));
  }
  int64_t arenaStart = bytes;
  bytes += aligned(arenaBytesOf(manifest()));
  GPTQ_ASSIGN(memory, CudaBuffer::allocate(*context, bytes,
                                           "the weights and the arena need"));
  for (int64_t offset : offsets)
    weights.push_back(memory.get() + cuda::Pointer(offset));
  arena = memory.get() + cuda::Pointer(arenaStart);
  return upload();
}

/// Copies the weights by way of memory the device reads by itself: while it
/// reads one part, the next is brought there.
Status CudaDevice::upload() {
  constexpr int64_t partBytes = int64_t(16) << 20;
  int64_t largest = 0;
  for (ByteSpan weight : artifact.weights)
    largest = std::max(largest, int64_t(weight.size));
  const CudaDriver &driver = context->driver();
  CudaContext::Scope scope(*context);
  CudaHostBuffer parts[2];
  CudaEvent done[2];
  for (int i = 0; i < 2; ++i) {
    GPTQ_ASSIGN(parts[i], CudaHostBuffer::allocate(
                              *context, std::min(largest, partBytes)));
    GPTQ_ASSIGN(done[i], CudaEvent::create(*context, cuda::EventWithoutTiming));
  }
  const char *what = "cannot copy the weights";
  // Nothing may be on its way when the parts go.
  auto copy = [&]() -> Status {
    int turn = 0;
    for (size_t i = 0; i < weights.size(); ++i) {
      const ByteSpan weight = artifact.weights[i];
      for (int64_t at = 0; at < int64_t(weight.size); at += partBytes) {
        int64_t bytes = std::min(partBytes, int64_t(weight.size) - at);
        GPTQ_TRY(driver.check(driver.eventSynchronize(done[turn].get()), what));
        std::memcpy(parts[turn].data(), weight.data + at, size_t(bytes));
        GPTQ_TRY(
            driver.check(driver.copyToDevice(weights[i] + cuda::Pointer(at),
                                             parts[turn].data(), size_t(bytes),
                                             context->stream()),
                         what));
        GPTQ_TRY(driver.check(
            driver.eventRecord(done[turn].get(), context->stream()), what));
        turn = 1 - turn;
      }
    }
    return {};
  };
  Status status = copy();
  Status end = context->synchronize(what);
  return status.ok() ? end : status;
}

Expected<DeviceInfo> CudaDevice::info() const {
  GPTQ_ASSIGN(CudaContext::Memory now, context->memory());
  DeviceInfo info;
  info.name = context->name();
  info.code = kernels.code();
  info.modelBytes = context->allocatedBytes;
  info.freeBytes = now.free;
  info.totalBytes = now.total;
  return info;
}

Expected<std::unique_ptr<DeviceSession>> CudaDevice::createSession() {
  auto session = std::make_unique<CudaSession>(*this);
  GPTQ_TRY(session->allocate());
  return std::unique_ptr<DeviceSession>(std::move(session));
}

//===----------------------------------------------------------------------===//
// Sessions
//===----------------------------------------------------------------------===//

Status CudaSession::allocate() {
  std::lock_guard<std::mutex> lock(device.mutex);
  CudaContext::Scope scope(context);
  std::vector<int64_t> offsets;
  int64_t bytes = 0;
  for (const ManifestState &state : device.manifest().state) {
    offsets.push_back(bytes);
    bytes += aligned(state.bytes);
  }
  GPTQ_ASSIGN(states,
              CudaBuffer::allocate(context, bytes, "a session's caches need"));
  for (int64_t offset : offsets)
    pointers.states.push_back(states.get() + cuda::Pointer(offset));
  pointers.weights = device.weights;
  pointers.arena = device.arena;
  GPTQ_ASSIGN(chosen,
              CudaHostBuffer::allocate(context, 2 * GPTQ_DEVICE_ALIGNMENT));
  for (CudaEvent &event : chosenEvents) {
    GPTQ_ASSIGN(event, CudaEvent::create(context, cuda::EventWithoutTiming));
  }
  return driver.check(
      driver.fill(states.get(), 0, size_t(bytes), context.stream()),
      "cannot clear a session's caches");
}

Status CudaSession::clear() {
  std::lock_guard<std::mutex> lock(device.mutex);
  CudaContext::Scope scope(context);
  ahead.reset();
  return driver.check(
      driver.fill(states.get(), 0, size_t(states.size()), context.stream()),
      "cannot clear a session's caches");
}

/// Makes room for a call. Graphs know where the old memory was.
Status CudaSession::reserve(int64_t inputBytes, int64_t outputBytes) {
  if (inputBytes > deviceCall.size() || !hostCall.data()) {
    graphs.clear();
    GPTQ_TRY(context.synchronize("the device failed"));
    GPTQ_ASSIGN(deviceCall, CudaBuffer::allocate(context, inputBytes,
                                                 "the inputs of a call need"));
    GPTQ_ASSIGN(hostCall, CudaHostBuffer::allocate(context, inputBytes));
  }
  if (outputBytes > deviceOutputs.size() || !hostOutputs.data()) {
    graphs.clear();
    GPTQ_TRY(context.synchronize("the device failed"));
    GPTQ_ASSIGN(deviceOutputs,
                CudaBuffer::allocate(context, outputBytes,
                                     "the outputs of a call need"));
    GPTQ_ASSIGN(hostOutputs, CudaHostBuffer::allocate(context, outputBytes));
  }
  return {};
}

Status CudaSession::setUp(const ManifestEntry &entry, int64_t rows) {
  layout = CallLayout::of(entry, rows, GPTQ_DEVICE_ALIGNMENT);
  GPTQ_TRY(reserve(inputStart + layout.inputBytes, layout.outputBytes));
  pointers.dims = deviceCall.get();
  pointers.inputs.clear();
  for (int64_t offset : layout.inputOffsets)
    pointers.inputs.push_back(deviceCall.get() +
                              cuda::Pointer(inputStart + offset));
  pointers.outputs.clear();
  for (int64_t offset : layout.outputOffsets)
    pointers.outputs.push_back(deviceOutputs.get() + cuda::Pointer(offset));
  return {};
}

Expected<CallBuffers> CudaSession::prepare(const ManifestEntry &entry,
                                           int64_t rows) {
  std::lock_guard<std::mutex> lock(device.mutex);
  CudaContext::Scope scope(context);
  ahead.reset();
  GPTQ_TRY(setUp(entry, rows));
  return layout.at(hostCall.data() + inputStart, hostOutputs.data());
}

/// Brings `dims` and the inputs to the device.
Status CudaSession::sendCall(int64_t rows, int64_t position) {
  int64_t dims[GPTQ_NUM_DIMS];
  dims[GPTQ_DIM_M] = rows;
  dims[GPTQ_DIM_P] = position;
  std::memcpy(hostCall.data(), dims, sizeof(dims));
  return driver.check(
      driver.copyToDevice(deviceCall.get(), hostCall.data(),
                          size_t(inputStart + layout.inputBytes),
                          context.stream()),
      "cannot copy the inputs of a call");
}

/// Runs `entry` for one row by its graph. With a slot the token that it chooses
/// is written there, in memory of the host: a copy between two graphs would
/// keep the device from its next token for microseconds.
Status CudaSession::replay(const ManifestEntry &entry, int64_t position,
                           std::optional<int> slot) {
  position =
      recordedPosition(entry, 1, position, device.manifest().model->maxContext);
  auto it = std::find_if(graphs.begin(), graphs.end(), [&](const Recorded &r) {
    return r.entry == &entry && r.position == position && r.slot == slot;
  });
  if (it == graphs.end()) {
    GPTQ_ASSIGN(CudaGraph graph, recordGraph(context, [&] {
                  CudaPointers where = pointers;
                  if (slot)
                    where.outputs[0] = cuda::Pointer(uintptr_t(slotOf(*slot)));
                  return device.kernels.launch(entry, 1, position, where);
                }));
    it =
        graphs.insert(graphs.end(), {&entry, position, slot, std::move(graph)});
  }
  return driver.check(driver.graphLaunch(it->graph.get(), context.stream()),
                      "cannot launch a graph");
}

Status CudaSession::run(const ManifestEntry &entry, int64_t rows,
                        int64_t position) {
  std::lock_guard<std::mutex> lock(device.mutex);
  CudaContext::Scope scope(context);
  auto work = [&]() -> Status {
    GPTQ_TRY(sendCall(rows, position));
    // Decoding repeats one row again and again; a lone function or a prompt
    // would not come to use what was recorded.
    if (rows == 1 && isLanguageModelEntry(entry.name) &&
        device.manifest().model)
      GPTQ_TRY(replay(entry, position));
    else
      GPTQ_TRY(device.kernels.launch(entry, rows, position, pointers));
    return driver.check(
        driver.copyToHost(hostOutputs.data(), deviceOutputs.get(),
                          size_t(layout.outputBytes), context.stream()),
        "cannot copy the outputs of a call");
  };
  Status status = work();
  Status end = context.synchronize("the device failed");
  return (status.ok() ? end : status).withContext("entry '" + entry.name + "'");
}

/// Runs `entry` for the token the device holds; its choice arrives in `slot`.
Status CudaSession::replayForToken(const ManifestEntry &entry, int64_t position,
                                   int slot) {
  GPTQ_TRY(replay(entry, position, slot));
  return driver.check(
      driver.eventRecord(chosenEvents[slot].get(), context.stream()),
      "cannot record an event");
}

Expected<int32_t> CudaSession::nextLocked(const ManifestEntry &entry,
                                          int32_t token,
                                          const SamplingWords &how,
                                          int64_t position, bool goOn) {
  bool isAhead = ahead && ahead->entry == &entry && ahead->token == token &&
                 ahead->how == how && ahead->position == position;
  int slot = isAhead ? ahead->slot : 0;
  ahead.reset();
  if (!isAhead) {
    // What is on its way for another token writes no token that counts, and
    // the state behind `position` is written again.
    GPTQ_TRY(context.synchronize("the device failed"));
    GPTQ_TRY(setUp(entry, 1));
    std::memcpy(hostCall.data() + inputStart, &token, sizeof(token));
    // Stays there for the replays to come.
    if (entry.inputs.size() == 2)
      std::memcpy(hostCall.data() + inputStart + layout.inputOffsets[1],
                  how.data(), sizeof(how));
    GPTQ_TRY(sendCall(1, position));
    GPTQ_TRY(replayForToken(entry, position, slot));
  }
  // The device has the token and the position already: it goes on while the
  // host looks at this one.
  if (goOn)
    GPTQ_TRY(replayForToken(entry, position + 1, 1 - slot));
  GPTQ_TRY(driver.check(driver.eventSynchronize(chosenEvents[slot].get()),
                        "the device failed"));
  int32_t result;
  std::memcpy(&result, slotOf(slot), sizeof(result));
  if (goOn)
    ahead = {&entry, result, how, position + 1, 1 - slot};
  return result;
}

Expected<int32_t> CudaSession::next(const ManifestEntry &entry, int32_t token,
                                    const SamplingWords *how, int64_t position,
                                    bool goOn) {
  std::lock_guard<std::mutex> lock(device.mutex);
  CudaContext::Scope scope(context);
  Expected<int32_t> result =
      nextLocked(entry, token, how ? *how : SamplingWords(), position, goOn);
  if (!result)
    return result.status().withContext("entry '" + entry.name + "'");
  return result;
}

Expected<std::unique_ptr<Device>>
gptq::runtime::createCudaDevice(const Artifact &artifact, int ordinal) {
  auto device = std::make_unique<CudaDevice>(artifact);
  GPTQ_TRY(device->load(ordinal));
  return std::unique_ptr<Device>(std::move(device));
}
