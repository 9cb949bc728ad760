//===- Dialects.cpp - C API of the gptq dialect ---------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq-c/Dialects.h"
#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "gptq/Pipelines/Pipelines.h"
#include "mlir/CAPI/IR.h"
#include "mlir/CAPI/Registration.h"

MLIR_DEFINE_CAPI_DIALECT_REGISTRATION(GPTQ, gptq, mlir::gptq::GPTQDialect)

void gptqRegisterAllDialects(MlirDialectRegistry registry) {
  mlir::gptq::registerAllDialects(*unwrap(registry));
}

void gptqRegisterAllPasses() {
  mlir::gptq::registerAllPasses();
  mlir::gptq::registerPipelines();
}
