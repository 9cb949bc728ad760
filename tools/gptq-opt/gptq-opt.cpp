//===- gptq-opt.cpp - Runs passes on IR -----------------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Pipelines/Pipelines.h"
#include "mlir/Tools/mlir-opt/MlirOptMain.h"

int main(int argc, char **argv) {
  mlir::gptq::registerAllPasses();
  mlir::gptq::registerPipelines();
  mlir::DialectRegistry registry;
  mlir::gptq::registerAllDialects(registry);
  return mlir::asMainReturnCode(mlir::MlirOptMain(
      argc, argv, "gptq-mlir: runs passes on models of quantized weights\n",
      registry));
}
