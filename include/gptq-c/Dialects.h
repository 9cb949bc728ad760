//===- Dialects.h - C API of the gptq dialect ---------------------*- C -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// For users of MLIR's C API, and of bindings built on it: the handle with which
// a context loads the dialect, and the registration of its passes.
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_C_DIALECTS_H
#define GPTQ_C_DIALECTS_H

#include "mlir-c/IR.h"

#ifdef __cplusplus
extern "C" {
#endif

/// mlirGetDialectHandle__gptq__().
MLIR_DECLARE_CAPI_DIALECT_REGISTRATION(GPTQ, gptq);

/// Adds the gptq dialect and every dialect its passes need to `registry`.
MLIR_CAPI_EXPORTED void gptqRegisterAllDialects(MlirDialectRegistry registry);

/// Registers the passes and the pipelines by name, for
/// mlirParsePassPipeline: "builtin.module(gptq-cpu{target=x86-64-v3})". Call it
/// once per process.
MLIR_CAPI_EXPORTED void gptqRegisterAllPasses(void);

#ifdef __cplusplus
}
#endif

#endif // GPTQ_C_DIALECTS_H
