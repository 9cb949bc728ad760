//===- DialectsTest.cpp - The C API of the dialect ------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq-c/Dialects.h"
#include "mlir-c/Pass.h"
#include "gtest/gtest.h"

namespace {

const char kModule[] =
    "gptq.weight @w : tensor<4x8xf16> = #gptq.data<\"m\", \"w\", 0, "
    "tensor<4x8xf16>>\n"
    "func.func @f(%x: tensor<?x8xf32>) -> tensor<?x4xf32> attributes "
    "{gptq.max_m = 4 : i64} {\n"
    "  %c0 = arith.constant 0 : index\n"
    "  %m = tensor.dim %x, %c0 : tensor<?x8xf32>\n"
    "  %e = tensor.empty(%m) : tensor<?x4xf32>\n"
    "  %w = gptq.load_weight @w : tensor<4x8xf16>\n"
    "  %y = gptq.matmul ins(%x, %w : tensor<?x8xf32>, tensor<4x8xf16>) "
    "outs(%e : tensor<?x4xf32>) -> tensor<?x4xf32>\n"
    "  return %y : tensor<?x4xf32>\n"
    "}\n";

void append(MlirStringRef text, void *out) {
  static_cast<std::string *>(out)->append(text.data, text.length);
}

TEST(DialectsCAPI, LoadsTheDialectAndRunsAPipeline) {
  MlirDialectRegistry registry = mlirDialectRegistryCreate();
  gptqRegisterAllDialects(registry);
  MlirContext context =
      mlirContextCreateWithRegistry(registry, /*threadingEnabled=*/false);
  MlirDialect dialect =
      mlirDialectHandleLoadDialect(mlirGetDialectHandle__gptq__(), context);
  MlirStringRef name = mlirDialectGetNamespace(dialect);
  EXPECT_EQ(std::string(name.data, name.length), "gptq");

  MlirModule module = mlirModuleCreateParse(
      context, mlirStringRefCreateFromCString(kModule));
  ASSERT_FALSE(mlirModuleIsNull(module));
  gptqRegisterAllPasses();
  MlirPassManager passes = mlirPassManagerCreate(context);
  std::string error;
  ASSERT_TRUE(mlirLogicalResultIsSuccess(mlirParsePassPipeline(
      mlirPassManagerGetAsOpPassManager(passes),
      mlirStringRefCreateFromCString("builtin.module(gptq-cpu)"), append,
      &error)))
      << error;
  EXPECT_TRUE(mlirLogicalResultIsSuccess(
      mlirPassManagerRunOnOp(passes, mlirModuleGetOperation(module))));
  std::string text;
  mlirOperationPrint(mlirModuleGetOperation(module), append, &text);
  EXPECT_NE(text.find("llvm.func @matmul_0_m1"), std::string::npos) << text;

  mlirPassManagerDestroy(passes);
  mlirModuleDestroy(module);
  mlirContextDestroy(context);
  mlirDialectRegistryDestroy(registry);
}

} // namespace
