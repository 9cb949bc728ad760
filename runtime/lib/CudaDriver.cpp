//===- CudaDriver.cpp - The part of NVIDIA's driver that is used ----------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/lib/CudaDriver.h"

#include "runtime/abi/Json.h"
#include "runtime/abi/KernelABI.h"

#include <algorithm>
#include <cstdlib>
#include <dlfcn.h>

using namespace gptq::abi;
using namespace gptq::runtime;

//===----------------------------------------------------------------------===//
// The library
//===----------------------------------------------------------------------===//

Expected<CudaDriver> CudaDriver::open() {
  const char *given = std::getenv("GPTQ_CUDA_DRIVER");
  const char *path = given ? given : "libcuda.so.1";
  // The driver starts threads of its own and is never unloaded.
  void *library = ::dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (!library) {
    const char *reason = ::dlerror();
    return makeStatus(StatusCode::Unsupported,
                      "the model needs an NVIDIA GPU, but its driver cannot be "
                      "opened (%s)",
                      reason ? reason : path);
  }
  CudaDriver driver;
  const char *missing = nullptr;
#define GPTQ_CUDA_FIND(name, symbol, parameters)                               \
  driver.name =                                                                \
      reinterpret_cast<decltype(driver.name)>(::dlsym(library, symbol));
#define GPTQ_CUDA_REQUIRE(name, symbol, parameters)                            \
  GPTQ_CUDA_FIND(name, symbol, parameters)                                     \
  if (!driver.name)                                                            \
    missing = symbol;
  GPTQ_CUDA_FUNCTIONS(GPTQ_CUDA_REQUIRE)
  GPTQ_CUDA_OPTIONAL_FUNCTIONS(GPTQ_CUDA_FIND)
#undef GPTQ_CUDA_REQUIRE
#undef GPTQ_CUDA_FIND
  ::dlclose(library);
  if (missing)
    return makeStatus(StatusCode::Unsupported,
                      "the NVIDIA driver %s has no function '%s', expected one "
                      "of CUDA 12 or later",
                      path, missing);
  return driver;
}

Status CudaDriver::check(cuda::Result result, const char *what) const {
  if (result == cuda::Success)
    return {};
  const char *name = nullptr, *text = nullptr;
  getErrorName(result, &name);
  getErrorString(result, &text);
  return makeStatus(result == cuda::OutOfMemory ? StatusCode::ResourceExhausted
                                                : StatusCode::DeviceFailed,
                    "%s: the NVIDIA driver reports %s (%s)", what,
                    name ? name : std::to_string(int(result)).c_str(),
                    text ? text : "an unknown error");
}

//===----------------------------------------------------------------------===//
// Devices
//===----------------------------------------------------------------------===//

Expected<std::unique_ptr<CudaContext>> CudaContext::open(int ordinal) {
  std::unique_ptr<CudaContext> context(new CudaContext);
  GPTQ_ASSIGN(context->functions, CudaDriver::open());
  const CudaDriver &driver = context->functions;
  int count = 0;
  cuda::Result started = driver.init(0);
  if (started != cuda::NoDevice) {
    GPTQ_TRY(driver.check(started, "cannot start"));
    GPTQ_TRY(driver.check(driver.deviceGetCount(&count),
                          "cannot count the devices"));
  }
  if (count == 0)
    return Status(StatusCode::Unsupported,
                  "the model needs an NVIDIA GPU, but the driver finds none");
  if (ordinal < 0 || ordinal >= count)
    return makeStatus(StatusCode::InvalidArgument,
                      "expected a device of 0 to %d, found %d", count - 1,
                      ordinal);
  GPTQ_TRY(driver.check(driver.deviceGet(&context->device, ordinal),
                        "cannot find the device"));
  char name[256] = "";
  GPTQ_TRY(
      driver.check(driver.deviceGetName(name, sizeof(name), context->device),
                   "cannot tell the device's name"));
  context->deviceName = name;
  GPTQ_ASSIGN(int64_t major, context->attribute(cuda::CapabilityMajor));
  GPTQ_ASSIGN(int64_t minor, context->attribute(cuda::CapabilityMinor));
  context->deviceCapability = {int(major), int(minor), 0};
  GPTQ_TRY(driver.check(
      driver.primaryContextRetain(&context->handle, context->device),
      "cannot use the device"));
  Scope scope(*context);
  GPTQ_TRY(driver.check(
      driver.streamCreate(&context->mainStream, cuda::NonBlockingStream),
      "cannot use the device"));
  return context;
}

CudaContext::~CudaContext() {
  if (!handle)
    return;
  if (mainStream) {
    Scope scope(*this);
    functions.streamDestroy(mainStream);
  }
  functions.primaryContextRelease(device);
}

Expected<int64_t>
CudaContext::attribute(cuda::DeviceAttribute attribute) const {
  int value = 0;
  GPTQ_TRY(
      functions.check(functions.deviceGetAttribute(&value, attribute, device),
                      "cannot tell what the device offers"));
  return int64_t(value);
}

Status CudaContext::synchronize(const char *what) const {
  return functions.check(functions.streamSynchronize(mainStream), what);
}

Expected<CudaContext::Memory> CudaContext::memory() const {
  Scope scope(*this);
  size_t free = 0, total = 0;
  GPTQ_TRY(functions.check(functions.memGetInfo(&free, &total),
                           "cannot tell the free memory"));
  return Memory{int64_t(free), int64_t(total)};
}

//===----------------------------------------------------------------------===//
// What lives there
//===----------------------------------------------------------------------===//

Expected<CudaEvent> CudaEvent::create(const CudaContext &context,
                                      unsigned flags) {
  const CudaDriver &driver = context.driver();
  cuda::Event event = nullptr;
  GPTQ_TRY(
      driver.check(driver.eventCreate(&event, flags), "cannot make an event"));
  return CudaEvent(context, event);
}

static double mebibytes(int64_t bytes) {
  return double(bytes) / double(1 << 20);
}

Expected<CudaBuffer> CudaBuffer::allocate(const CudaContext &context,
                                          int64_t bytes, const char *purpose) {
  CudaContext::Scope scope(context);
  const CudaDriver &driver = context.driver();
  // A pointer is there even where nothing is behind it.
  size_t size = size_t(std::max<int64_t>(bytes, GPTQ_DEVICE_ALIGNMENT));
  cuda::Pointer pointer = 0;
  cuda::Result result = driver.memAlloc(&pointer, size);
  if (result == cuda::OutOfMemory) {
    GPTQ_ASSIGN(CudaContext::Memory memory, context.memory());
    return makeStatus(StatusCode::ResourceExhausted,
                      "out of memory on the device %s: %s %.1f MiB, %.1f of "
                      "%.1f MiB are free",
                      quoteForMessage(context.name()).c_str(), purpose,
                      mebibytes(bytes), mebibytes(memory.free),
                      mebibytes(memory.total));
  }
  GPTQ_TRY(driver.check(result, "cannot get memory of the device"));
  CudaBuffer buffer;
  buffer.context = &context;
  buffer.owned = {context, pointer};
  buffer.bytes = bytes;
  context.allocatedBytes += bytes;
  return buffer;
}

CudaBuffer::~CudaBuffer() {
  if (context)
    context->allocatedBytes -= bytes;
}

Expected<CudaHostBuffer> CudaHostBuffer::allocate(const CudaContext &context,
                                                  int64_t bytes) {
  CudaContext::Scope scope(context);
  const CudaDriver &driver = context.driver();
  void *pointer = nullptr;
  GPTQ_TRY(driver.check(
      driver.memHostAlloc(&pointer, size_t(std::max<int64_t>(bytes, 1)), 0),
      "cannot get memory of the host that the device may copy"));
  CudaHostBuffer buffer;
  buffer.owned = {context, pointer};
  buffer.bytes = bytes;
  return buffer;
}
