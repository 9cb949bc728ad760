//===- ObjectCode.h - Kernels as a shared object ----------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_EXPORT_OBJECTCODE_H
#define GPTQ_EXPORT_OBJECTCODE_H

#include "gptq/Export/WeightReader.h"
#include "gptq/Target/Target.h"

namespace mlir {
class DialectRegistry;

namespace gptq {

/// What `compileKernels` needs of a context.
void registerObjectCodeTranslations(DialectRegistry &registry);

struct ObjectCodeOptions {
  /// Where not null: receive the optimized LLVM IR and the assembly.
  std::string *llvmIR = nullptr;
  std::string *assembly = nullptr;
};

/// Compiles `kernels`, functions of the LLVM dialect in `module`, for `target`
/// into an x86-64 shared object that exports them and needs nothing from
/// outside.
model::Expected<std::string> compileKernels(ModuleOp module,
                                            ArrayRef<std::string> kernels,
                                            const ::gptq::TargetInfo &target,
                                            ObjectCodeOptions options = {});

} // namespace gptq
} // namespace mlir

#endif // GPTQ_EXPORT_OBJECTCODE_H
