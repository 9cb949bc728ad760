//===- FakeCuda.cpp - A driver for a GPU that is not there ----------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Exports the driver's functions that the runtime uses. Memory of the device is
// memory of the host. What stands for PTX names kernels, `.entry name(.param
// …)`: functions of TestKernels.c, or of the shared object that a line
// `// elf <path>` names, which may be one that was compiled for a processor.
// Nothing runs before somebody waits for it, as
// late as a real device might, so that whoever reads or writes too early is
// found out.
//
//===----------------------------------------------------------------------===//

#include "runtime/test/FakeCuda.h"

#include "runtime/abi/KernelABI.h"
#include "runtime/abi/Sampling.h"
#include "runtime/lib/CudaDriver.h"
#include "runtime/lib/Memory.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <dlfcn.h>
#include <elf.h>
#include <functional>
#include <mutex>
#include <numeric>
#include <vector>

using namespace gptq::runtime;
using gptq::test::FakeCuda;
namespace sampling = gptq::abi::sampling;

#define EXPORT extern "C" __attribute__((visibility("default")))

extern "C" {
#define GPTQ_KERNEL(name)                                                      \
  void name(void *const *, const int64_t *, int64_t, void *);
#define GPTQ_KERNELS(X)                                                        \
  X(toy_embed)                                                                 \
  X(toy_store)                                                                 \
  X(toy_mean) X(toy_last_logits) X(toy_all_logits) X(toy_add) X(toy_negate)
GPTQ_KERNELS(GPTQ_KERNEL)
#undef GPTQ_KERNEL
}

/// args: logits, the token's input, the token's output. Goes on with the most
/// likely token.
static void toy_argmax(void *const *args, const int64_t *dims, int64_t,
                       void *) {
  const float *logits = static_cast<const float *>(args[0]);
  int32_t best = 0;
  for (int32_t i = 1; i < 33; ++i)
    if (logits[i] > logits[best])
      best = i;
  *static_cast<int32_t *>(args[1]) = best;
  *static_cast<int32_t *>(args[2]) = best;
  ++const_cast<int64_t *>(dims)[GPTQ_DIM_P];
}

/// args: logits, how to draw, the token's input, the token's output. Draws the
/// next token in floating point and goes on with it.
static void toy_sample(void *const *args, const int64_t *dims, int64_t,
                       void *) {
  const float *logits = static_cast<const float *>(args[0]);
  const uint32_t *words = static_cast<const uint32_t *>(args[1]);
  auto wide = [&](int low) {
    return uint64_t(words[low + 1]) << 32 | words[low];
  };
  double scale;
  const uint64_t scaleBits = wide(sampling::ScaleLow);
  std::memcpy(&scale, &scaleBits, sizeof(scale));
  float topP;
  std::memcpy(&topP, &words[sampling::TopP], sizeof(topP));
  std::vector<int32_t> order(33);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  order.resize(std::min<size_t>(33, words[sampling::TopK]));
  std::vector<double> sums;
  double sum = 0;
  for (int32_t token : order)
    sums.push_back(
        sum += std::exp2((double(logits[token]) - logits[order[0]]) * scale));
  const double kept =
      *std::find_if(sums.begin(), sums.end() - 1,
                    [&](double s) { return s >= sum * double(topP); });
  const uint64_t random = sampling::randomBits(wide(sampling::SeedLow),
                                               uint64_t(dims[GPTQ_DIM_P]) + 1);
  const double target = double(random) * 0x1p-64 * kept;
  size_t drawn = 0;
  while (sums[drawn] <= target)
    ++drawn;
  *static_cast<int32_t *>(args[2]) = order[drawn];
  *static_cast<int32_t *>(args[3]) = order[drawn];
  ++const_cast<int64_t *>(dims)[GPTQ_DIM_P];
}

/// args: state. Does nothing, in as many workgroups as P asks for.
static void toy_nothing(void *const *, const int64_t *, int64_t, void *) {}

/// The kernel of gptq-bench that reads, likewise.
static void gptq_read(void *const *, const int64_t *, int64_t, void *) {}

namespace {

using Operation = std::function<int()>;

struct FakeEvent {
  bool isDone = true;
};
struct FakeGraph {
  std::vector<Operation> operations;
};
struct FakeFunction {
  std::string name;
  gptq_cpu_kernel kernel;
  unsigned parameters;
  int dynamicShared = 48 << 10;
};
struct FakeModule {
  std::map<std::string, FakeFunction> functions;
  void *library = nullptr;
};

struct Driver {
  FakeCuda shown;
  std::deque<Operation> queue;
  std::vector<Operation> *recording = nullptr;
  /// Start and size of device memory.
  std::map<uint64_t, size_t> memory;
  /// Of the host, which the device can use.
  std::map<uint64_t, size_t> hostMemory;
  /// A device that failed stays so.
  int broken = 0;
  std::recursive_mutex mutex;
};

Driver driver;

/// The result of a function that is to fail now, and its count.
int enter(const char *name) {
  int call = driver.shown.calls[name]++;
  if (driver.shown.failing == name && driver.shown.failingCall == call)
    return driver.shown.failure;
  return 0;
}

#define ENTER(name)                                                            \
  std::lock_guard<std::recursive_mutex> lock(driver.mutex);                    \
  if (int result = enter(name))                                                \
  return result

int runUntil(const std::function<bool()> &isDone) {
  while (!isDone() && !driver.queue.empty()) {
    Operation operation = std::move(driver.queue.front());
    driver.queue.pop_front();
    if (int result = operation())
      driver.broken = result;
  }
  return driver.broken;
}

int enqueue(Operation operation) {
  if (driver.recording)
    driver.recording->push_back(std::move(operation));
  else
    driver.queue.push_back(std::move(operation));
  return driver.broken;
}

/// Whether [at, at + bytes) lies in one of `ranges`.
bool liesIn(const std::map<uint64_t, size_t> &ranges, uint64_t at,
            size_t bytes) {
  auto it = ranges.upper_bound(at);
  if (it == ranges.begin())
    return false;
  --it;
  return at + bytes <= it->first + it->second;
}

/// Whether [at, at + bytes) is memory of the device.
bool isDeviceMemory(uint64_t at, size_t bytes) {
  return liesIn(driver.memory, at, bytes);
}

template <typename T> T *made(T *object) {
  driver.shown.alive.insert(object);
  return object;
}

template <typename T> int destroyed(T *object) {
  if (!driver.shown.alive.erase(object))
    return 400;
  delete object;
  return 0;
}

constexpr int illegalAddress = 700;

} // namespace

EXPORT FakeCuda *gptqFakeCuda() { return &driver.shown; }

EXPORT int cuInit(unsigned) {
  ENTER("cuInit");
  driver.broken = 0;
  return driver.shown.deviceCount ? 0 : cuda::NoDevice;
}
EXPORT int cuGetErrorName(int error, const char **text) {
  *text = error == cuda::InvalidPtx    ? "CUDA_ERROR_INVALID_PTX"
          : error == illegalAddress    ? "CUDA_ERROR_ILLEGAL_ADDRESS"
          : error == cuda::OutOfMemory ? "CUDA_ERROR_OUT_OF_MEMORY"
                                       : nullptr;
  return 0;
}
EXPORT int cuGetErrorString(int, const char **text) {
  *text = "made up";
  return 0;
}
EXPORT int cuDriverGetVersion(int *version) {
  *version = 12040;
  return 0;
}
EXPORT int cuDeviceGetCount(int *count) {
  ENTER("cuDeviceGetCount");
  *count = driver.shown.deviceCount;
  return 0;
}
EXPORT int cuDeviceGet(int *device, int ordinal) {
  ENTER("cuDeviceGet");
  *device = ordinal;
  return 0;
}
EXPORT int cuDeviceGetName(char *name, int bytes, int) {
  ENTER("cuDeviceGetName");
  std::strncpy(name, "Fake GPU", size_t(bytes));
  return 0;
}
EXPORT int cuDeviceGetAttribute(int *value, int attribute, int) {
  ENTER("cuDeviceGetAttribute");
  *value = attribute == cuda::CapabilityMajor       ? driver.shown.major
           : attribute == cuda::CapabilityMinor     ? driver.shown.minor
           : attribute == cuda::MaxSharedBytesOptIn ? 227 << 10
           : attribute == cuda::L2CacheBytes        ? 64 << 10
                                                    : 1;
  return 0;
}
EXPORT int cuDevicePrimaryCtxRetain(void **context, int) {
  ENTER("cuDevicePrimaryCtxRetain");
  ++driver.shown.contexts;
  *context = &driver;
  return 0;
}
EXPORT int cuDevicePrimaryCtxRelease_v2(int) {
  std::lock_guard<std::recursive_mutex> lock(driver.mutex);
  --driver.shown.contexts;
  driver.queue.clear();
  return 0;
}
EXPORT int cuCtxPushCurrent_v2(void *) { return 0; }
EXPORT int cuCtxPopCurrent_v2(void **) { return 0; }

EXPORT int cuMemGetInfo_v2(size_t *free, size_t *total) {
  ENTER("cuMemGetInfo_v2");
  *total = size_t(driver.shown.totalBytes);
  *free = size_t(driver.shown.totalBytes - driver.shown.usedBytes);
  return 0;
}
EXPORT int cuMemAlloc_v2(uint64_t *pointer, size_t bytes) {
  ENTER("cuMemAlloc_v2");
  if (driver.shown.usedBytes + int64_t(bytes) > driver.shown.totalBytes)
    return cuda::OutOfMemory;
  void *memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  std::memset(memory, 0xa5, bytes);
  *pointer = reinterpret_cast<uint64_t>(memory);
  driver.memory[*pointer] = bytes;
  driver.shown.usedBytes += int64_t(bytes);
  return 0;
}
EXPORT int cuMemFree_v2(uint64_t pointer) {
  std::lock_guard<std::recursive_mutex> lock(driver.mutex);
  auto it = driver.memory.find(pointer);
  if (it == driver.memory.end())
    return 1;
  driver.shown.usedBytes -= int64_t(it->second);
  driver.memory.erase(it);
  std::free(reinterpret_cast<void *>(pointer));
  return 0;
}
EXPORT int cuMemHostAlloc(void **pointer, size_t bytes, unsigned) {
  ENTER("cuMemHostAlloc");
  *pointer = std::malloc(bytes);
  driver.shown.alive.insert(*pointer);
  driver.hostMemory[reinterpret_cast<uint64_t>(*pointer)] = bytes;
  return 0;
}
EXPORT int cuMemFreeHost(void *pointer) {
  std::lock_guard<std::recursive_mutex> lock(driver.mutex);
  if (!driver.shown.alive.erase(pointer))
    return 1;
  driver.hostMemory.erase(reinterpret_cast<uint64_t>(pointer));
  std::free(pointer);
  return 0;
}

/// Copies once it is its turn.
static int copyLater(void *to, const void *from, size_t bytes,
                     uint64_t onDevice) {
  return enqueue([=] {
    if (!isDeviceMemory(onDevice, bytes))
      return illegalAddress;
    std::memcpy(to, from, bytes);
    return 0;
  });
}
EXPORT int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes,
                                void *) {
  ENTER("cuMemcpyHtoDAsync_v2");
  return copyLater(reinterpret_cast<void *>(to), from, bytes, to);
}
EXPORT int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *) {
  ENTER("cuMemcpyDtoHAsync_v2");
  return copyLater(to, reinterpret_cast<void *>(from), bytes, from);
}
EXPORT int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes,
                                void *) {
  ENTER("cuMemcpyDtoDAsync_v2");
  return copyLater(reinterpret_cast<void *>(to), reinterpret_cast<void *>(from),
                   bytes, to);
}
EXPORT int cuMemsetD8Async(uint64_t at, unsigned char value, size_t bytes,
                           void *) {
  ENTER("cuMemsetD8Async");
  return enqueue([=] {
    if (bytes && !isDeviceMemory(at, bytes))
      return illegalAddress;
    std::memset(reinterpret_cast<void *>(at), value, bytes);
    return 0;
  });
}

EXPORT int cuModuleLoadDataEx(void **module, const void *image, unsigned count,
                              int *options, void **values) {
  ENTER("cuModuleLoadDataEx");
  const char *start = static_cast<const char *>(image);
  const bool isCubin = std::memcmp(start, ELFMAG, SELFMAG) == 0;
  std::string text = isCubin ? start + sizeof(Elf64_Ehdr) : start;
  if (int result =
          isCubin ? driver.shown.cubinResult : driver.shown.ptxResult) {
    for (unsigned i = 0; i < count; ++i)
      if (options[i] == cuda::ErrorLog)
        std::strcpy(static_cast<char *>(values[i]),
                    "ptxas fatal: line 3\nand that is all\n");
    return result;
  }
  static const std::map<std::string, gptq_cpu_kernel> known = {
#define GPTQ_KERNEL(name) {#name, name},
      GPTQ_KERNELS(GPTQ_KERNEL)
#undef GPTQ_KERNEL
          {"toy_argmax", toy_argmax},
      {"toy_sample", toy_sample},
      {"toy_nothing", toy_nothing},
      {"gptq_read", gptq_read}};
  auto *loaded = made(new FakeModule);
  const std::string elfMark = "// elf ", mark = ".entry ";
  if (size_t at = text.find(elfMark); at != std::string::npos) {
    at += elfMark.size();
    std::string path = text.substr(at, text.find('\n', at) - at);
    loaded->library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  }
  for (size_t at = 0; (at = text.find(mark, at)) != std::string::npos;) {
    at += mark.size();
    FakeFunction function;
    function.name = text.substr(at, text.find('(', at) - at);
    size_t end = text.find(')', at);
    function.parameters = 0;
    for (size_t p = at; (p = text.find(".param", p)) < end; ++p)
      ++function.parameters;
    auto it = known.find(function.name);
    function.kernel = it != known.end()
                          ? it->second
                          : reinterpret_cast<gptq_cpu_kernel>(
                                dlsym(loaded->library, function.name.c_str()));
    if (!function.kernel)
      std::abort();
    loaded->functions[function.name] = function;
  }
  *module = loaded;
  return 0;
}
EXPORT int cuModuleUnload(void *module) {
  std::lock_guard<std::recursive_mutex> lock(driver.mutex);
  if (void *library = static_cast<FakeModule *>(module)->library)
    dlclose(library);
  return destroyed(static_cast<FakeModule *>(module));
}
EXPORT int cuModuleGetFunction(void **function, void *module,
                               const char *name) {
  ENTER("cuModuleGetFunction");
  auto &functions = static_cast<FakeModule *>(module)->functions;
  auto it = functions.find(name);
  if (it == functions.end())
    return cuda::NotFound;
  *function = &it->second;
  return 0;
}
EXPORT int cuFuncGetAttribute(int *value, int attribute, void *function) {
  ENTER("cuFuncGetAttribute");
  *value = attribute == cuda::MaxThreads          ? driver.shown.maxThreads
           : attribute == cuda::StaticSharedBytes ? 1024
           : attribute == cuda::MaxDynamicSharedBytes
               ? static_cast<FakeFunction *>(function)->dynamicShared
               : 0;
  return 0;
}
EXPORT int cuFuncSetAttribute(void *function, int, int value) {
  ENTER("cuFuncSetAttribute");
  static_cast<FakeFunction *>(function)->dynamicShared = value;
  return 0;
}
EXPORT int cuFuncGetParamInfo(void *function, size_t index, size_t *offset,
                              size_t *bytes) {
  if (index >= static_cast<FakeFunction *>(function)->parameters)
    return 1;
  *offset = 8 * index;
  *bytes = 8;
  return 0;
}

EXPORT int cuLaunchKernelEx(const cuda::LaunchConfig *config, void *handle,
                            void **parameters, void **) {
  ENTER("cuLaunchKernelEx");
  const FakeFunction function = *static_cast<FakeFunction *>(handle);
  if (config->gridX == 0 || config->blockX == 0 ||
      int(config->sharedBytes) > function.dynamicShared)
    return 1;
  std::vector<uint64_t> values;
  for (unsigned i = 0; i < function.parameters; ++i) {
    uint64_t value;
    std::memcpy(&value, parameters[i], sizeof(value));
    values.push_back(value);
  }
  FakeCuda::Launch launch = {function.name,
                             config->gridX,
                             config->blockX,
                             config->sharedBytes,
                             config->attributeCount == 1 &&
                                 config->attributes->id ==
                                     cuda::LaunchAttribute::overlap &&
                                 config->attributes->value.flag == 1,
                             driver.recording != nullptr};
  return enqueue([=] {
    if (driver.shown.kernelResult)
      return driver.shown.kernelResult;
    std::vector<void *> args;
    for (uint64_t value : values) {
      // The kernel that reads takes a number among its pointers. Memory of the
      // host that the driver gave is as good as the device's own.
      if (function.kernel != gptq_read && !isDeviceMemory(value, 0) &&
          !liesIn(driver.hostMemory, value, 0))
        return illegalAddress;
      args.push_back(reinterpret_cast<void *>(value));
    }
    // More than any kernel of a test asks for.
    static PageBuffer scratch = PageBuffer::allocate(64 << 20).take();
    for (unsigned i = 0; i < launch.grid; ++i)
      function.kernel(args.data(), static_cast<const int64_t *>(args.back()), i,
                      scratch.data());
    driver.shown.launches.push_back(launch);
    return 0;
  });
}

EXPORT int cuStreamCreate(void **stream, unsigned) {
  ENTER("cuStreamCreate");
  *stream = made(new FakeEvent);
  return 0;
}
EXPORT int cuStreamDestroy_v2(void *stream) {
  std::lock_guard<std::recursive_mutex> lock(driver.mutex);
  return destroyed(static_cast<FakeEvent *>(stream));
}
EXPORT int cuStreamSynchronize(void *) {
  ENTER("cuStreamSynchronize");
  return runUntil([] { return false; });
}
EXPORT int cuStreamBeginCapture_v2(void *, unsigned) {
  ENTER("cuStreamBeginCapture_v2");
  driver.recording = new std::vector<Operation>;
  return 0;
}
EXPORT int cuStreamEndCapture(void *, void **graph) {
  std::unique_ptr<std::vector<Operation>> recorded(driver.recording);
  driver.recording = nullptr;
  ENTER("cuStreamEndCapture");
  *graph = made(new FakeGraph{std::move(*recorded)});
  return 0;
}
EXPORT int cuGraphInstantiateWithFlags(void **exec, void *graph,
                                       unsigned long long) {
  ENTER("cuGraphInstantiateWithFlags");
  *exec = made(new FakeGraph(*static_cast<FakeGraph *>(graph)));
  return 0;
}
EXPORT int cuGraphLaunch(void *exec, void *) {
  ENTER("cuGraphLaunch");
  for (const Operation &operation : static_cast<FakeGraph *>(exec)->operations)
    driver.queue.push_back(operation);
  return driver.broken;
}
EXPORT int cuGraphExecDestroy(void *exec) {
  std::lock_guard<std::recursive_mutex> lock(driver.mutex);
  return destroyed(static_cast<FakeGraph *>(exec));
}
EXPORT int cuGraphDestroy(void *graph) {
  std::lock_guard<std::recursive_mutex> lock(driver.mutex);
  return destroyed(static_cast<FakeGraph *>(graph));
}
EXPORT int cuEventCreate(void **event, unsigned) {
  ENTER("cuEventCreate");
  *event = made(new FakeEvent);
  return 0;
}
EXPORT int cuEventDestroy_v2(void *event) {
  std::lock_guard<std::recursive_mutex> lock(driver.mutex);
  return destroyed(static_cast<FakeEvent *>(event));
}
EXPORT int cuEventRecord(void *event, void *) {
  ENTER("cuEventRecord");
  auto *e = static_cast<FakeEvent *>(event);
  e->isDone = false;
  return enqueue([=] {
    e->isDone = true;
    return 0;
  });
}
EXPORT int cuEventSynchronize(void *event) {
  ENTER("cuEventSynchronize");
  auto *e = static_cast<FakeEvent *>(event);
  return runUntil([=] { return e->isDone; });
}
EXPORT int cuEventElapsedTime(float *milliseconds, void *, void *) {
  ENTER("cuEventElapsedTime");
  *milliseconds = 0.5f;
  return 0;
}
