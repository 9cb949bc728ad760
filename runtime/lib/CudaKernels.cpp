//===- CudaKernels.cpp - A model's kernels on an NVIDIA GPU ---------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/lib/CudaKernels.h"

#include "runtime/abi/Json.h"
#include "runtime/lib/Device.h"
#include "runtime/lib/Elf.h"

#include <algorithm>
#include <elf.h>

using namespace gptq::abi;
using namespace gptq::runtime;

/// The driver's log as part of a sentence.
static std::string oneLine(std::string log) {
  while (!log.empty() && (log.back() == '\n' || log.back() == ' '))
    log.pop_back();
  for (char &c : log)
    if (c == '\n')
      c = ';';
  return quoteForMessage(log, 600);
}

Status CudaKernels::loadModule(const Artifact &artifact) {
  const ManifestTarget &target = artifact.manifest.target;
  const ComputeCapability wanted = *ComputeCapability::parse(target.name);
  const ComputeCapability &found = context->capability();
  if (!wanted.ptxRunsOn(found))
    return makeStatus(StatusCode::Unsupported,
                      "the model is compiled for %s, but the device %s has the "
                      "compute capability %d.%d",
                      target.name.c_str(),
                      quoteForMessage(context->name()).c_str(), found.major,
                      found.minor);

  const CudaDriver &driver = context->driver();
  std::string log(8192, '\0');
  auto load = [&](const void *image) {
    cuda::JitOption options[] = {cuda::ErrorLog, cuda::ErrorLogBytes};
    void *values[] = {log.data(),
                      reinterpret_cast<void *>(uintptr_t(log.size()))};
    cuda::Module handle = nullptr;
    cuda::Result result = driver.moduleLoad(&handle, image, 2, options, values);
    if (result == cuda::Success)
      module = CudaModule(*context, handle);
    return result;
  };
  std::optional<ByteSpan> cubin = artifact.findCode("cubin");
  std::string refusal;
  if (cubin && wanted.cubinRunsOn(found)) {
    GPTQ_TRY(checkElf(*cubin, "code.cubin", ET_EXEC));
    // An image must not lie where its end is the end of the mapped file.
    std::string image(cubin->text());
    cuda::Result result = load(image.data());
    codeName = "code.cubin";
    if (result == cuda::Success)
      return {};
    // A cubin of a newer ptxas than the driver knows; the PTX may still do.
    if (result != cuda::InvalidImage && result != cuda::NoBinaryForDevice)
      return driver.check(result, "cannot load code.cubin");
    refusal = ", because it refuses code.cubin";
  }
  std::string text(artifact.findCode("ptx")->text());
  if (text.find('\0') != std::string::npos)
    return makeStatus(StatusCode::InvalidFile,
                      "code.ptx is not text: byte %zu is zero",
                      text.find('\0'));
  codeName = "code.ptx, compiled by the driver" + refusal;
  cuda::Result result = load(text.c_str());
  Status status = driver.check(result, "cannot load code.ptx");
  StatusCode code = result == cuda::InvalidPtx ? StatusCode::InvalidFile
                    : result == cuda::UnsupportedPtxVersion
                        ? StatusCode::Unsupported
                        : status.code();
  std::string said = log.c_str();
  return Status(code, status.message() +
                          (said.empty() ? "" : " and says " + oneLine(said)));
}

/// Checks that a kernel takes `count` pointers. The driver copies as many
/// bytes as the kernel has parameters, whatever it is given.
static Status checkParameters(const CudaDriver &driver, cuda::Function function,
                              size_t count) {
  if (!driver.functionGetParameter)
    return {};
  size_t found = 0, offset = 0, bytes = 0;
  for (; found <= count; ++found)
    if (driver.functionGetParameter(function, found, &offset, &bytes) !=
            cuda::Success ||
        offset != found * sizeof(cuda::Pointer) ||
        bytes != sizeof(cuda::Pointer))
      break;
  if (found == count)
    return {};
  return makeStatus(StatusCode::InvalidFile,
                    "expected %zu parameters of 8 bytes, one for each argument "
                    "and one for the sizes, found %s%zu",
                    count, found > count ? "at least " : "",
                    found > count ? count + 1 : found);
}

Status CudaKernels::findKernel(const ManifestVariant &variant,
                               size_t argumentCount) {
  const CudaDriver &driver = context->driver();
  auto [it, isNew] = functions.try_emplace(variant.symbol);
  if (isNew) {
    cuda::Result result = driver.moduleGetFunction(&it->second, module.get(),
                                                   variant.symbol.c_str());
    if (result == cuda::NotFound)
      return makeStatus(StatusCode::InvalidFile,
                        "the model's code does not export the kernel %s",
                        quoteForMessage(variant.symbol).c_str());
    GPTQ_TRY(driver.check(result, "cannot find a kernel"));
  }
  Status parameters = checkParameters(driver, it->second, argumentCount + 1);
  if (!parameters.ok())
    return parameters.withContext("kernel " + quoteForMessage(variant.symbol));
  GPTQ_ASSIGN(int64_t mostThreads, attribute(variant.symbol, cuda::MaxThreads));
  if (variant.threads > mostThreads)
    return makeStatus(StatusCode::InvalidFile,
                      "kernel %s: expected at most %lld threads, found %lld",
                      quoteForMessage(variant.symbol).c_str(),
                      (long long)mostThreads, (long long)variant.threads);
  GPTQ_ASSIGN(int64_t fixed,
              attribute(variant.symbol, cuda::StaticSharedBytes));
  GPTQ_ASSIGN(int64_t room, context->attribute(cuda::MaxSharedBytesOptIn));
  if (fixed + variant.sharedBytes > room)
    return makeStatus(StatusCode::Unsupported,
                      "kernel %s needs %lld bytes of shared memory, the device "
                      "has %lld",
                      quoteForMessage(variant.symbol).c_str(),
                      (long long)(fixed + variant.sharedBytes),
                      (long long)room);
  // More than what any device gives unasked must be asked for; two variants
  // may share a kernel.
  GPTQ_ASSIGN(int64_t granted,
              attribute(variant.symbol, cuda::MaxDynamicSharedBytes));
  if (variant.sharedBytes > granted)
    return driver.check(driver.functionSetAttribute(it->second,
                                                    cuda::MaxDynamicSharedBytes,
                                                    int(variant.sharedBytes)),
                        "cannot raise a kernel's shared memory");
  return {};
}

Expected<CudaKernels> CudaKernels::load(const CudaContext &context,
                                        const Artifact &artifact) {
  CudaContext::Scope scope(context);
  CudaKernels kernels;
  kernels.context = &context;
  GPTQ_TRY(kernels.loadModule(artifact));
  for (const ManifestEntry &entry : artifact.manifest.entries)
    for (const ManifestDispatch &dispatch : entry.dispatches)
      for (const ManifestVariant &variant : dispatch.variants)
        GPTQ_TRY(kernels.findKernel(variant, dispatch.args.size()));
  return kernels;
}

Expected<int64_t>
CudaKernels::attribute(const std::string &symbol,
                       cuda::FunctionAttribute attribute) const {
  const CudaDriver &driver = context->driver();
  int value = 0;
  GPTQ_TRY(driver.check(driver.functionGetAttribute(
                            &value, attribute, functions.find(symbol)->second),
                        "cannot tell what a kernel needs"));
  return int64_t(value);
}

Status CudaKernels::launch(const ManifestEntry &entry, int64_t rows,
                           int64_t position,
                           const CudaPointers &pointers) const {
  for (const ManifestDispatch &dispatch : entry.dispatches) {
    Status status = launch(dispatch, rows, position, pointers);
    if (!status.ok())
      return status.withContext("dispatch " + quoteForMessage(dispatch.name));
  }
  return {};
}

Status CudaKernels::launch(const ManifestDispatch &dispatch, int64_t rows,
                           int64_t position,
                           const CudaPointers &pointers) const {
  const ManifestVariant &variant = variantFor(dispatch, rows);
  int64_t workgroups = variant.workgroups(rows, position);
  if (workgroups == 0)
    return {};
  std::vector<cuda::Pointer> values;
  for (const ManifestArgument &arg : dispatch.args)
    switch (arg.kind) {
    case ManifestArgument::Kind::Arena:
      values.push_back(pointers.arena + cuda::Pointer(arg.offset));
      break;
    case ManifestArgument::Kind::Weight:
      values.push_back(pointers.weights[arg.index]);
      break;
    case ManifestArgument::Kind::State:
      values.push_back(pointers.states[arg.index]);
      break;
    case ManifestArgument::Kind::Input:
      values.push_back(pointers.inputs[arg.index]);
      break;
    case ManifestArgument::Kind::Output:
      values.push_back(pointers.outputs[arg.index]);
      break;
    }
  values.push_back(pointers.dims);
  std::vector<void *> parameters;
  for (cuda::Pointer &value : values)
    parameters.push_back(&value);

  cuda::LaunchAttribute overlap;
  overlap.id = cuda::LaunchAttribute::overlap;
  overlap.value.flag = 1;
  cuda::LaunchConfig config;
  config.gridX = unsigned(workgroups);
  config.blockX = unsigned(variant.threads);
  config.sharedBytes = unsigned(variant.sharedBytes);
  config.stream = context->stream();
  config.attributes = &overlap;
  config.attributeCount = variant.overlap ? 1 : 0;
  const CudaDriver &driver = context->driver();
  return driver.check(
      driver.launchKernel(&config, functions.find(variant.symbol)->second,
                          parameters.data(), nullptr),
      "cannot launch");
}
