//===- KernelABI.h - How the runtime calls a compiled kernel ----*- C -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The one contract between generated code and the runtime; docs/ModelFormat.md
// describes it in full.
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_RUNTIME_ABI_KERNELABI_H
#define GPTQ_RUNTIME_ABI_KERNELABI_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// Version of the compiled model this header belongs to. A reader refuses any
/// other.
#define GPTQ_MODEL_VERSION 1

/// Every base pointer handed to a kernel, and every tensor of the model file,
/// is aligned to this many bytes: a cache line, and the widest vector register.
#define GPTQ_ALIGNMENT 64

/// The same for a device with memory of its own: the widest transaction.
/// Offsets into the arena keep GPTQ_ALIGNMENT.
#define GPTQ_DEVICE_ALIGNMENT 256

/// Indices into `dims`.
enum { GPTQ_DIM_M = 0, GPTQ_DIM_P = 1, GPTQ_NUM_DIMS = 2 };

/// Runs one workgroup of a dispatch. `args` holds one base pointer per
/// argument, `dims` the values of M and P, `scratch` memory of the calling
/// thread alone.
typedef void (*gptq_cpu_kernel)(void *const *args, const int64_t *dims,
                                int64_t workgroup, void *scratch);

// A kernel for the target `nvvm` is a PTX entry instead. Its parameters are one
// 64-bit global pointer per argument, then one to `dims` in device memory; its
// grid has one dimension, the workgroups. M is a constant of a recorded graph,
// P is not: a workgroup that the actual P does not need does nothing.

#ifdef __cplusplus
}
#endif

#endif // GPTQ_RUNTIME_ABI_KERNELABI_H
