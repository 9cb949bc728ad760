//===- Gpu.cpp - A GPU and how fast it reads ------------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Gpu.h"

#include <cstdio>

using namespace gptq::bench;
using namespace gptq::runtime;
using gptq::abi::Status;

/// Reads `count` vectors of 16 bytes, eight a thread at a time, which keeps
/// enough bytes in flight. The sum of all bits is written only if it has a
/// value that nobody expects: so no read can be left out.
static const char readPtx[] = R"(
.version 7.0
.target sm_70
.address_size 64

.visible .entry gptq_read(
  .param .u64 data, .param .u64 count, .param .u64 sink)
.maxntid 256
{
  .reg .pred %p;
  .reg .b32 %sum, %a<32>, %thread, %threads, %group, %groups;
  .reg .b64 %i, %step, %bytes, %last, %seven, %end, %at, %t, %out;

  ld.param.u64 %at, [data];
  ld.param.u64 %end, [count];
  ld.param.u64 %out, [sink];
  mov.u32 %thread, %tid.x;
  mov.u32 %threads, %ntid.x;
  mov.u32 %group, %ctaid.x;
  mov.u32 %groups, %nctaid.x;
  mul.wide.u32 %i, %group, %threads;
  cvt.u64.u32 %t, %thread;
  add.u64 %i, %i, %t;
  mul.wide.u32 %step, %groups, %threads;
  shl.b64 %bytes, %step, 4;
  mul.lo.u64 %seven, %step, 7;
  shl.b64 %t, %i, 4;
  add.u64 %at, %at, %t;
  mov.b32 %sum, 0;

eight:
  add.u64 %last, %i, %seven;
  setp.ge.u64 %p, %last, %end;
  @%p bra one;
  mov.b64 %t, %at;
  ld.global.nc.v4.b32 {%a0, %a1, %a2, %a3}, [%t];
  add.u64 %t, %t, %bytes;
  ld.global.nc.v4.b32 {%a4, %a5, %a6, %a7}, [%t];
  add.u64 %t, %t, %bytes;
  ld.global.nc.v4.b32 {%a8, %a9, %a10, %a11}, [%t];
  add.u64 %t, %t, %bytes;
  ld.global.nc.v4.b32 {%a12, %a13, %a14, %a15}, [%t];
  add.u64 %t, %t, %bytes;
  ld.global.nc.v4.b32 {%a16, %a17, %a18, %a19}, [%t];
  add.u64 %t, %t, %bytes;
  ld.global.nc.v4.b32 {%a20, %a21, %a22, %a23}, [%t];
  add.u64 %t, %t, %bytes;
  ld.global.nc.v4.b32 {%a24, %a25, %a26, %a27}, [%t];
  add.u64 %t, %t, %bytes;
  ld.global.nc.v4.b32 {%a28, %a29, %a30, %a31}, [%t];
  add.u64 %at, %t, %bytes;
  xor.b32 %sum, %sum, %a0;
  xor.b32 %sum, %sum, %a1;
  xor.b32 %sum, %sum, %a2;
  xor.b32 %sum, %sum, %a3;
  xor.b32 %sum, %sum, %a4;
  xor.b32 %sum, %sum, %a5;
  xor.b32 %sum, %sum, %a6;
  xor.b32 %sum, %sum, %a7;
  xor.b32 %sum, %sum, %a8;
  xor.b32 %sum, %sum, %a9;
  xor.b32 %sum, %sum, %a10;
  xor.b32 %sum, %sum, %a11;
  xor.b32 %sum, %sum, %a12;
  xor.b32 %sum, %sum, %a13;
  xor.b32 %sum, %sum, %a14;
  xor.b32 %sum, %sum, %a15;
  xor.b32 %sum, %sum, %a16;
  xor.b32 %sum, %sum, %a17;
  xor.b32 %sum, %sum, %a18;
  xor.b32 %sum, %sum, %a19;
  xor.b32 %sum, %sum, %a20;
  xor.b32 %sum, %sum, %a21;
  xor.b32 %sum, %sum, %a22;
  xor.b32 %sum, %sum, %a23;
  xor.b32 %sum, %sum, %a24;
  xor.b32 %sum, %sum, %a25;
  xor.b32 %sum, %sum, %a26;
  xor.b32 %sum, %sum, %a27;
  xor.b32 %sum, %sum, %a28;
  xor.b32 %sum, %sum, %a29;
  xor.b32 %sum, %sum, %a30;
  xor.b32 %sum, %sum, %a31;
  shl.b64 %t, %step, 3;
  add.u64 %i, %i, %t;
  bra eight;

one:
  setp.ge.u64 %p, %i, %end;
  @%p bra done;
  ld.global.nc.v4.b32 {%a0, %a1, %a2, %a3}, [%at];
  xor.b32 %sum, %sum, %a0;
  xor.b32 %sum, %sum, %a1;
  xor.b32 %sum, %sum, %a2;
  xor.b32 %sum, %sum, %a3;
  add.u64 %at, %at, %bytes;
  add.u64 %i, %i, %step;
  bra one;

done:
  setp.ne.b32 %p, %sum, 0x9e3779b9;
  @%p bra out;
  st.global.b32 [%out], %sum;
out:
  ret;
}
)";

static constexpr unsigned readThreads = 256;
static constexpr unsigned readGroupsPerMultiprocessor = 8;

Gpu::Gpu(int ordinal) {
  device = take(CudaContext::open(ordinal));
  CudaContext::Scope scope(*device);
  const CudaDriver &driver = device->driver();
  l2Bytes = take(device->attribute(cuda::L2CacheBytes));
  multiprocessors = take(device->attribute(cuda::MultiprocessorCount));
  check(driver.check(driver.driverGetVersion(&driverVersion),
                     "cannot tell the driver's version"));
  cuda::Module handle = nullptr;
  check(driver.check(driver.moduleLoad(&handle, readPtx, 0, nullptr, nullptr),
                     "cannot load the kernel that reads"));
  module = CudaModule(*device, handle);
  check(driver.check(driver.moduleGetFunction(&readKernel, handle, "gptq_read"),
                     "cannot find the kernel that reads"));
  sink = take(CudaBuffer::allocate(*device, 4, "a word needs"));
  start = take(CudaEvent::create(*device, cuda::DefaultEvent));
  end = take(CudaEvent::create(*device, cuda::DefaultEvent));
}

double Gpu::replay(const CudaGraph &graph) const {
  CudaContext::Scope scope(*device);
  const CudaDriver &driver = device->driver();
  cuda::Stream stream = device->stream();
  const char *what = "the device failed";
  check(driver.check(driver.eventRecord(start.get(), stream), what));
  check(driver.check(driver.graphLaunch(graph.get(), stream), what));
  check(driver.check(driver.eventRecord(end.get(), stream), what));
  check(driver.check(driver.eventSynchronize(end.get()), what));
  float milliseconds = 0;
  check(driver.check(
      driver.eventElapsedTime(&milliseconds, start.get(), end.get()), what));
  return double(milliseconds) * 1e-3;
}

Status Gpu::read(cuda::Pointer data, int64_t bytes) const {
  cuda::Pointer values[] = {data, cuda::Pointer(bytes / 16), sink.get()};
  void *parameters[] = {&values[0], &values[1], &values[2]};
  cuda::LaunchConfig config;
  config.gridX = unsigned(multiprocessors) * readGroupsPerMultiprocessor;
  config.blockX = readThreads;
  config.stream = device->stream();
  const CudaDriver &driver = device->driver();
  return driver.check(
      driver.launchKernel(&config, readKernel, parameters, nullptr),
      "cannot launch the kernel that reads");
}

double Gpu::measureRead() const {
  CudaContext::Memory memory = take(device->memory());
  int64_t bytes = std::min(int64_t(4) << 30, memory.free / 2) / 4096 * 4096;
  CudaBuffer buffer =
      take(CudaBuffer::allocate(*device, bytes, "the bandwidth test needs"));
  CudaContext::Scope scope(*device);
  const CudaDriver &driver = device->driver();
  check(driver.check(
      driver.fill(buffer.get(), 1, size_t(bytes), device->stream()),
      "cannot fill memory"));
  CudaGraph graph =
      take(recordGraph(*device, [&] { return read(buffer.get(), bytes); }));
  double best = 1e30;
  for (int i = 0; i < 11; ++i)
    best = std::min(best, replay(graph));
  return double(bytes) / best / 1e9;
}

void Gpu::describe(double readGigabytesPerSecond,
                   nlohmann::ordered_json &report) const {
  const gptq::abi::ComputeCapability &capability = device->capability();
  report["device"] = {
      {"name", device->name()},
      {"compute_capability", std::to_string(capability.major) + "." +
                                 std::to_string(capability.minor)},
      {"driver_cuda_version", driverVersion},
      {"multiprocessors", multiprocessors},
      {"cache_bytes", l2Bytes},
      {"memory_bytes", take(device->memory()).total},
      {"read_gb_per_s", readGigabytesPerSecond}};
  std::printf("device     %s, compute capability %d.%d, driver for CUDA "
              "%d.%d\n",
              device->name().c_str(), capability.major, capability.minor,
              driverVersion / 1000, driverVersion % 1000 / 10);
  std::printf("           %lld multiprocessors, level-2 cache %s, memory %s\n",
              (long long)multiprocessors, run::bytesText(l2Bytes).c_str(),
              run::bytesText(take(device->memory()).total).c_str());
  std::printf("limits     %.1f GB/s read\n", readGigabytesPerSecond);
}
