//===- CudaKernels.h - A model's kernels on an NVIDIA GPU -------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_RUNTIME_LIB_CUDAKERNELS_H
#define GPTQ_RUNTIME_LIB_CUDAKERNELS_H

#include "runtime/lib/Artifact.h"
#include "runtime/lib/CudaDriver.h"

#include <map>
#include <vector>

namespace gptq::runtime {

/// Where the memory of a call lies on the device.
struct CudaPointers {
  cuda::Pointer dims = 0;
  cuda::Pointer arena = 0;
  std::vector<cuda::Pointer> weights, states, inputs, outputs;
};

/// The loaded code of a model.
class CudaKernels {
public:
  /// Loads the cubin if there is one for this device, else the PTX, and finds
  /// all kernels. Refuses code that the device cannot run.
  static abi::Expected<CudaKernels> load(const CudaContext &context,
                                         const Artifact &artifact);

  /// Puts the dispatches of a call into the context's stream. `position` is
  /// what grids are computed for.
  abi::Status launch(const abi::ManifestEntry &entry, int64_t rows,
                     int64_t position, const CudaPointers &pointers) const;
  /// The same of one dispatch.
  abi::Status launch(const abi::ManifestDispatch &dispatch, int64_t rows,
                     int64_t position, const CudaPointers &pointers) const;

  /// `code.cubin`, or `code.ptx` and who compiled it.
  const std::string &code() const { return codeName; }
  /// An attribute of the kernel `symbol`, which exists.
  abi::Expected<int64_t> attribute(const std::string &symbol,
                                   cuda::FunctionAttribute attribute) const;

private:
  abi::Status loadModule(const Artifact &artifact);
  abi::Status findKernel(const abi::ManifestVariant &variant,
                         size_t argumentCount);

  const CudaContext *context = nullptr;
  CudaModule module;
  std::string codeName;
  std::map<std::string, cuda::Function, std::less<>> functions;
};

} // namespace gptq::runtime

#endif // GPTQ_RUNTIME_LIB_CUDAKERNELS_H
