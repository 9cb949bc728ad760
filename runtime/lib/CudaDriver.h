//===- CudaDriver.h - The part of NVIDIA's driver that is used --*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The driver's library is opened when a model needs it, so nothing of NVIDIA's
// is there to build or to run models of other targets. Types, values and
// layouts below are the driver's binary interface.
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_RUNTIME_LIB_CUDADRIVER_H
#define GPTQ_RUNTIME_LIB_CUDADRIVER_H

#include "runtime/abi/Manifest.h"
#include "runtime/abi/Status.h"

#include <atomic>
#include <memory>
#include <string>
#include <utility>

namespace gptq::runtime {

namespace cuda {
using Device = int;
using Pointer = uint64_t;
using Context = struct ContextImpl *;
using Module = struct ModuleImpl *;
using Function = struct FunctionImpl *;
using Stream = struct StreamImpl *;
using Event = struct EventImpl *;
using Graph = struct GraphImpl *;
using GraphExec = struct GraphExecImpl *;

enum Result : int {
  Success = 0,
  OutOfMemory = 2,
  NoDevice = 100,
  InvalidImage = 200,
  NoBinaryForDevice = 209,
  InvalidPtx = 218,
  UnsupportedPtxVersion = 222,
  NotFound = 500,
};

enum DeviceAttribute : int {
  MultiprocessorCount = 16,
  L2CacheBytes = 38,
  CapabilityMajor = 75,
  CapabilityMinor = 76,
  MaxSharedBytesOptIn = 97,
};

enum FunctionAttribute : int {
  MaxThreads = 0,
  StaticSharedBytes = 1,
  LocalBytes = 3,
  Registers = 4,
  MaxDynamicSharedBytes = 8,
};

enum JitOption : int { ErrorLog = 5, ErrorLogBytes = 6 };

enum : unsigned {
  NonBlockingStream = 1,
  DefaultEvent = 0,
  EventWithoutTiming = 2,
  RelaxedCapture = 2,
};

struct LaunchAttribute {
  /// Lets the kernel start before the one before it in the stream is done.
  static constexpr unsigned overlap = 6;

  unsigned id = 0;
  char pad[4] = {};
  union {
    char bytes[64];
    int flag;
  } value = {};
};

struct LaunchConfig {
  unsigned gridX = 1, gridY = 1, gridZ = 1;
  unsigned blockX = 1, blockY = 1, blockZ = 1;
  unsigned sharedBytes = 0;
  Stream stream = nullptr;
  LaunchAttribute *attributes = nullptr;
  unsigned attributeCount = 0;
};
} // namespace cuda

/// Name here, name of the symbol, parameters.
#define GPTQ_CUDA_FUNCTIONS(X)                                                 \
  X(init, "cuInit", (unsigned flags))                                          \
  X(getErrorName, "cuGetErrorName", (cuda::Result, const char **text))         \
  X(getErrorString, "cuGetErrorString", (cuda::Result, const char **text))     \
  X(driverGetVersion, "cuDriverGetVersion", (int *version))                    \
  X(deviceGetCount, "cuDeviceGetCount", (int *count))                          \
  X(deviceGet, "cuDeviceGet", (cuda::Device *, int ordinal))                   \
  X(deviceGetName, "cuDeviceGetName", (char *name, int bytes, cuda::Device))   \
  X(deviceGetAttribute, "cuDeviceGetAttribute",                                \
    (int *value, cuda::DeviceAttribute, cuda::Device))                         \
  X(primaryContextRetain, "cuDevicePrimaryCtxRetain",                          \
    (cuda::Context *, cuda::Device))                                           \
  X(primaryContextRelease, "cuDevicePrimaryCtxRelease_v2", (cuda::Device))     \
  X(contextPush, "cuCtxPushCurrent_v2", (cuda::Context))                       \
  X(contextPop, "cuCtxPopCurrent_v2", (cuda::Context *))                       \
  X(memGetInfo, "cuMemGetInfo_v2", (size_t *free, size_t *total))              \
  X(memAlloc, "cuMemAlloc_v2", (cuda::Pointer *, size_t bytes))                \
  X(memFree, "cuMemFree_v2", (cuda::Pointer))                                  \
  X(memHostAlloc, "cuMemHostAlloc", (void **, size_t bytes, unsigned flags))   \
  X(memFreeHost, "cuMemFreeHost", (void *))                                    \
  X(copyToDevice, "cuMemcpyHtoDAsync_v2",                                      \
    (cuda::Pointer, const void *, size_t bytes, cuda::Stream))                 \
  X(copyToHost, "cuMemcpyDtoHAsync_v2",                                        \
    (void *, cuda::Pointer, size_t bytes, cuda::Stream))                       \
  X(copyOnDevice, "cuMemcpyDtoDAsync_v2",                                      \
    (cuda::Pointer to, cuda::Pointer from, size_t bytes, cuda::Stream))        \
  X(fill, "cuMemsetD8Async",                                                   \
    (cuda::Pointer, unsigned char value, size_t bytes, cuda::Stream))          \
  X(moduleLoad, "cuModuleLoadDataEx",                                          \
    (cuda::Module *, const void *image, unsigned optionCount,                  \
     cuda::JitOption *, void **values))                                        \
  X(moduleUnload, "cuModuleUnload", (cuda::Module))                            \
  X(moduleGetFunction, "cuModuleGetFunction",                                  \
    (cuda::Function *, cuda::Module, const char *name))                        \
  X(functionGetAttribute, "cuFuncGetAttribute",                                \
    (int *value, cuda::FunctionAttribute, cuda::Function))                     \
  X(functionSetAttribute, "cuFuncSetAttribute",                                \
    (cuda::Function, cuda::FunctionAttribute, int value))                      \
  X(launchKernel, "cuLaunchKernelEx",                                          \
    (const cuda::LaunchConfig *, cuda::Function, void **parameters,            \
     void **extra))                                                            \
  X(streamCreate, "cuStreamCreate", (cuda::Stream *, unsigned flags))          \
  X(streamDestroy, "cuStreamDestroy_v2", (cuda::Stream))                       \
  X(streamSynchronize, "cuStreamSynchronize", (cuda::Stream))                  \
  X(streamBeginCapture, "cuStreamBeginCapture_v2",                             \
    (cuda::Stream, unsigned mode))                                             \
  X(streamEndCapture, "cuStreamEndCapture", (cuda::Stream, cuda::Graph *))     \
  X(graphInstantiate, "cuGraphInstantiateWithFlags",                           \
    (cuda::GraphExec *, cuda::Graph, unsigned long long flags))                \
  X(graphLaunch, "cuGraphLaunch", (cuda::GraphExec, cuda::Stream))             \
  X(graphExecDestroy, "cuGraphExecDestroy", (cuda::GraphExec))                 \
  X(graphDestroy, "cuGraphDestroy", (cuda::Graph))                             \
  X(eventCreate, "cuEventCreate", (cuda::Event *, unsigned flags))             \
  X(eventDestroy, "cuEventDestroy_v2", (cuda::Event))                          \
  X(eventRecord, "cuEventRecord", (cuda::Event, cuda::Stream))                 \
  X(eventSynchronize, "cuEventSynchronize", (cuda::Event))                     \
  X(eventElapsedTime, "cuEventElapsedTime",                                    \
    (float *milliseconds, cuda::Event start, cuda::Event end))

/// The same of functions that older drivers lack; null there.
#define GPTQ_CUDA_OPTIONAL_FUNCTIONS(X)                                        \
  X(functionGetParameter, "cuFuncGetParamInfo",                                \
    (cuda::Function, size_t index, size_t *offset, size_t *bytes))

/// The driver's functions.
struct CudaDriver {
  /// Opens the driver's library: `libcuda.so.1`, or what the environment
  /// variable GPTQ_CUDA_DRIVER names.
  static abi::Expected<CudaDriver> open();

  /// The error of a call that did `what`, e.g. `cannot copy the weights`.
  abi::Status check(cuda::Result result, const char *what) const;

#define GPTQ_CUDA_MEMBER(name, symbol, parameters)                             \
  cuda::Result(*name) parameters = nullptr;
  GPTQ_CUDA_FUNCTIONS(GPTQ_CUDA_MEMBER)
  GPTQ_CUDA_OPTIONAL_FUNCTIONS(GPTQ_CUDA_MEMBER)
#undef GPTQ_CUDA_MEMBER
};

/// One device, its primary context, and a stream that all work goes through.
class CudaContext {
public:
  static abi::Expected<std::unique_ptr<CudaContext>> open(int ordinal);
  ~CudaContext();
  CudaContext(const CudaContext &) = delete;

  const CudaDriver &driver() const { return functions; }
  cuda::Stream stream() const { return mainStream; }
  const std::string &name() const { return deviceName; }
  const abi::ComputeCapability &capability() const { return deviceCapability; }
  abi::Expected<int64_t> attribute(cuda::DeviceAttribute attribute) const;
  abi::Status synchronize(const char *what) const;

  struct Memory {
    int64_t free = 0, total = 0;
  };
  abi::Expected<Memory> memory() const;

  /// Makes the context the calling thread's own until the end of the scope.
  class Scope {
  public:
    explicit Scope(const CudaContext &context) : context(context) {
      context.functions.contextPush(context.handle);
    }
    ~Scope() {
      cuda::Context ignored;
      context.functions.contextPop(&ignored);
    }
    Scope(const Scope &) = delete;

  private:
    const CudaContext &context;
  };

  /// Bytes of all buffers that live.
  mutable std::atomic<int64_t> allocatedBytes{0};

private:
  CudaContext() = default;

  CudaDriver functions;
  cuda::Device device = 0;
  cuda::Context handle = nullptr;
  cuda::Stream mainStream = nullptr;
  std::string deviceName;
  abi::ComputeCapability deviceCapability;
};

/// Something of the driver that `destroy` ends.
template <typename Handle, cuda::Result (*CudaDriver::*destroy)(Handle)>
class CudaOwned {
public:
  CudaOwned() = default;
  CudaOwned(const CudaContext &context, Handle handle)
      : context(&context), handle(handle) {}
  CudaOwned(CudaOwned &&other) noexcept { swap(other); }
  CudaOwned &operator=(CudaOwned &&other) noexcept {
    swap(other);
    return *this;
  }
  ~CudaOwned() {
    if (!context)
      return;
    CudaContext::Scope scope(*context);
    (context->driver().*destroy)(handle);
  }

  Handle get() const { return handle; }
  explicit operator bool() const { return context != nullptr; }

private:
  void swap(CudaOwned &other) {
    std::swap(context, other.context);
    std::swap(handle, other.handle);
  }

  const CudaContext *context = nullptr;
  Handle handle{};
};

using CudaModule = CudaOwned<cuda::Module, &CudaDriver::moduleUnload>;
using CudaGraph = CudaOwned<cuda::GraphExec, &CudaDriver::graphExecDestroy>;

class CudaEvent : public CudaOwned<cuda::Event, &CudaDriver::eventDestroy> {
public:
  using CudaOwned::CudaOwned;
  static abi::Expected<CudaEvent> create(const CudaContext &context,
                                         unsigned flags);
};

/// Memory of the device, at a multiple of GPTQ_DEVICE_ALIGNMENT.
class CudaBuffer {
public:
  /// `purpose` says in an error what the memory was for: `the weights need`.
  static abi::Expected<CudaBuffer> allocate(const CudaContext &context,
                                            int64_t bytes, const char *purpose);

  CudaBuffer() = default;
  CudaBuffer(CudaBuffer &&other) noexcept { swap(other); }
  CudaBuffer &operator=(CudaBuffer &&other) noexcept {
    swap(other);
    return *this;
  }
  ~CudaBuffer();

  cuda::Pointer get() const { return owned.get(); }
  int64_t size() const { return bytes; }

private:
  void swap(CudaBuffer &other) {
    std::swap(context, other.context);
    std::swap(owned, other.owned);
    std::swap(bytes, other.bytes);
  }

  const CudaContext *context = nullptr;
  CudaOwned<cuda::Pointer, &CudaDriver::memFree> owned;
  int64_t bytes = 0;
};

/// Memory of the host that the device copies from and to by itself.
class CudaHostBuffer {
public:
  static abi::Expected<CudaHostBuffer> allocate(const CudaContext &context,
                                                int64_t bytes);

  uint8_t *data() const { return static_cast<uint8_t *>(owned.get()); }
  int64_t size() const { return bytes; }

private:
  CudaOwned<void *, &CudaDriver::memFreeHost> owned;
  int64_t bytes = 0;
};

/// Records what `enqueue` puts into the context's stream as a graph.
template <typename F>
abi::Expected<CudaGraph> recordGraph(const CudaContext &context, F enqueue) {
  const CudaDriver &driver = context.driver();
  GPTQ_TRY(driver.check(
      driver.streamBeginCapture(context.stream(), cuda::RelaxedCapture),
      "cannot record a graph"));
  abi::Status status = enqueue();
  cuda::Graph graph = nullptr;
  abi::Status end =
      driver.check(driver.streamEndCapture(context.stream(), &graph),
                   "cannot record a graph");
  cuda::GraphExec exec = nullptr;
  if (status.ok() && end.ok())
    end = driver.check(driver.graphInstantiate(&exec, graph, 0),
                       "cannot make a graph");
  if (graph)
    driver.graphDestroy(graph);
  GPTQ_TRY(status);
  GPTQ_TRY(end);
  return CudaGraph(context, exec);
}

} // namespace gptq::runtime

#endif // GPTQ_RUNTIME_LIB_CUDADRIVER_H
