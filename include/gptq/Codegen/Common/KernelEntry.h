//===- KernelEntry.h - From the kernel ABI to a kernel's body ---*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A kernel's body takes memrefs; what the runtime calls takes base pointers.
// Each target writes the function in between with these.
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_CODEGEN_COMMON_KERNELENTRY_H
#define GPTQ_CODEGEN_COMMON_KERNELENTRY_H

#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "llvm/ADT/MapVector.h"

namespace mlir::gptq {

/// What the entry of a kernel has to build for the arguments of its body, and
/// the attributes it takes over: grid, threads, workgroup memory.
struct KernelSignature {
  SmallVector<Type> arguments;
  /// Whether each of the buffers is a weight.
  SmallVector<bool> weights;
  NamedAttrList attributes;

  /// Buffers of the kernel that are not workgroup memory.
  int64_t numBuffers() const;
};

/// The kernels of `module` before its functions are lowered, by name.
llvm::MapVector<StringAttr, KernelSignature> collectKernels(ModuleOp module);

/// Where an entry finds what its body wants.
struct EntryValues {
  Value m, position, workgroup, scratch;
  /// The base pointer of the i-th buffer.
  llvm::function_ref<Value(int64_t)> buffer;
};

/// Ends `entry` with a call of `body`, which gets another name and is inlined;
/// its attributes move to `entry`. A dynamic first dimension of a buffer is M.
void callBody(ImplicitLocOpBuilder &b, LLVM::LLVMFuncOp body,
              LLVM::LLVMFuncOp entry, const KernelSignature &signature,
              const EntryValues &values);

} // namespace mlir::gptq

#endif // GPTQ_CODEGEN_COMMON_KERNELENTRY_H
