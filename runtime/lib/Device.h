//===- Device.h - Where a model's programs run ------------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_RUNTIME_LIB_DEVICE_H
#define GPTQ_RUNTIME_LIB_DEVICE_H

#include "runtime/abi/Sampling.h"
#include "runtime/lib/Artifact.h"

#include <memory>
#include <string>
#include <vector>

namespace gptq::runtime {

/// What a device reads about how to draw a token.
using SamplingWords = abi::sampling::Words;

/// Host memory of the inputs and outputs of one call, in the ports' order.
struct CallBuffers {
  std::vector<uint8_t *> inputs, outputs;
};

/// Where the inputs and outputs of a call lie, each in one block.
struct CallLayout {
  /// Bytes of each input (output), and from the start of the block to it.
  std::vector<int64_t> inputOffsets, outputOffsets;
  int64_t inputBytes = 0, outputBytes = 0;

  /// Every port starts at a multiple of `alignment`.
  static CallLayout of(const abi::ManifestEntry &entry, int64_t rows,
                       int64_t alignment);
  CallBuffers at(uint8_t *inputs, uint8_t *outputs) const;
};

/// The memory of one session: states, which start zeroed, and the inputs and
/// outputs of its calls. For one thread at a time.
class DeviceSession {
public:
  virtual ~DeviceSession() = default;

  /// Zeroes all states.
  virtual abi::Status clear() = 0;

  /// Makes ready a call of `entry` for `rows` rows. The inputs are to be
  /// filled in before `run`, the outputs are there after it, both until the
  /// next call of any function.
  virtual abi::Expected<CallBuffers> prepare(const abi::ManifestEntry &entry,
                                             int64_t rows) = 0;

  /// Runs the call made ready last, at a position the caller has checked.
  virtual abi::Status run(const abi::ManifestEntry &entry, int64_t rows,
                          int64_t position) = 0;

  /// Runs an entry `next` or `sample`, of which `how` is the second input, for
  /// `token` at `position` and gives the token it chose. With `goOn`, the
  /// device may take that token and go on before it is asked to.
  virtual abi::Expected<int32_t> next(const abi::ManifestEntry &entry,
                                      int32_t token, const SamplingWords *how,
                                      int64_t position, bool goOn);
};

struct DeviceInfo {
  /// `cpu`, or the name the driver knows.
  std::string name;
  /// Which of the model's code runs, e.g. `code.elf`.
  std::string code;
  /// Threads of the host that compute.
  int threads = 0;
  /// Memory on a device of its own: what the model takes, with the states of
  /// its sessions, and what the device has. All 0 where the host's is used.
  int64_t modelBytes = 0;
  int64_t freeBytes = 0;
  int64_t totalBytes = 0;
};

/// One model made ready to run in one place. Sessions must be gone before it;
/// their calls take turns.
class Device {
public:
  virtual ~Device() = default;

  virtual abi::Expected<std::unique_ptr<DeviceSession>> createSession() = 0;
  virtual abi::Expected<DeviceInfo> info() const = 0;
};

/// The host's processor, on `threads` threads. `artifact` outlives the device.
abi::Expected<std::unique_ptr<Device>> createCpuDevice(const Artifact &artifact,
                                                       int threads);

/// The NVIDIA GPU number `ordinal`, through its driver.
abi::Expected<std::unique_ptr<Device>>
createCudaDevice(const Artifact &artifact, int ordinal);

/// Bytes of the largest arena of any entry; they share one.
int64_t arenaBytesOf(const abi::Manifest &manifest);
/// Bytes of the largest scratch memory any kernel asks for.
int64_t scratchBytesOf(const abi::Manifest &manifest);

/// `bytes` rounded up to a multiple of `alignment`.
inline int64_t alignedTo(int64_t bytes, int64_t alignment) {
  return (bytes + alignment - 1) / alignment * alignment;
}

/// The variant of `dispatch` that a call of `rows` rows runs.
const abi::ManifestVariant &variantFor(const abi::ManifestDispatch &dispatch,
                                       int64_t rows);

} // namespace gptq::runtime

#endif // GPTQ_RUNTIME_LIB_DEVICE_H
