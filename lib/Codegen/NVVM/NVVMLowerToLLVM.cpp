//===- NVVMLowerToLLVM.cpp - The NVVM dialect and the kernel ABI ----------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Codegen/Common/KernelEntry.h"
#include "gptq/Codegen/NVVM/Passes.h"
#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "mlir/Conversion/ArithToLLVM/ArithToLLVM.h"
#include "mlir/Conversion/ControlFlowToLLVM/ControlFlowToLLVM.h"
#include "mlir/Conversion/FuncToLLVM/ConvertFuncToLLVM.h"
#include "mlir/Conversion/GPUToNVVM/GPUToNVVMPass.h"
#include "mlir/Conversion/LLVMCommon/ConversionTarget.h"
#include "mlir/Conversion/LLVMCommon/TypeConverter.h"
#include "mlir/Conversion/MathToLLVM/MathToLLVM.h"
#include "mlir/Conversion/MemRefToLLVM/MemRefToLLVM.h"
#include "mlir/Conversion/UBToLLVM/UBToLLVM.h"
#include "mlir/Conversion/VectorToLLVM/ConvertVectorToLLVM.h"
#include "mlir/Dialect/Arith/Transforms/Passes.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/GPU/IR/GPUDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/IR/BuiltinOps.h"
#include "runtime/abi/KernelABI.h"

namespace mlir::gptq {
#define GEN_PASS_DEF_NVVMLOWERTOLLVMPASS
#include "gptq/Codegen/NVVM/Passes.h.inc"
} // namespace mlir::gptq

using namespace mlir;
using namespace mlir::gptq;

/// Shared memory whose size the launch decides.
static constexpr StringRef kSharedMemory = "workgroup_memory";
static constexpr unsigned kGlobalSpace = 1, kSharedSpace = 3;

/// Makes the grid function: one pointer per buffer, then one to the values of
/// M and P in device memory.
static void makeEntry(LLVM::LLVMFuncOp body, LLVM::GlobalOp shared,
                      const KernelSignature &signature) {
  ImplicitLocOpBuilder b(body.getLoc(), body);
  MLIRContext *ctx = b.getContext();
  auto global = LLVM::LLVMPointerType::get(ctx, kGlobalSpace);
  auto generic = LLVM::LLVMPointerType::get(ctx);
  const int64_t buffers = signature.numBuffers();
  auto entry = LLVM::LLVMFuncOp::create(
      b, body.getSymName(),
      LLVM::LLVMFunctionType::get(LLVM::LLVMVoidType::get(ctx),
                                  SmallVector<Type>(buffers + 1, global)));
  entry->setAttr(NVVM::NVVMDialect::getKernelFuncAttrName(), b.getUnitAttr());
  int64_t threads = 1;
  if (auto attr = signature.attributes.get(kThreadsAttr))
    threads = cast<IntegerAttr>(attr).getInt();
  entry->setAttr(NVVM::NVVMDialect::getMaxntidAttrName(),
                 b.getDenseI32ArrayAttr({int32_t(threads), 1, 1}));
  entry->setAttr(NVVM::NVVMDialect::getMinctasmAttrName(),
                 b.getI32IntegerAttr(1));
  b.setInsertionPointToStart(entry.addEntryBlock(b));
  for (int64_t i = 0; i <= buffers; ++i) {
    entry.setArgAttr(i, LLVM::LLVMDialect::getAlignAttrName(),
                     b.getI64IntegerAttr(GPTQ_ALIGNMENT));
    entry.setArgAttr(i, LLVM::LLVMDialect::getNoAliasAttrName(),
                     b.getUnitAttr());
  }
  auto loadDim = [&](int64_t i) -> Value {
    Value at = LLVM::GEPOp::create(b, global, b.getI64Type(),
                                   entry.getArgument(buffers),
                                   ArrayRef<LLVM::GEPArg>{int32_t(i)});
    return LLVM::LoadOp::create(b, b.getI64Type(), at);
  };
  Value workgroup = LLVM::ZExtOp::create(
      b, b.getI64Type(), NVVM::BlockIdXOp::create(b, b.getI32Type()));
  callBody(b, body, entry, signature,
           {loadDim(GPTQ_DIM_M), loadDim(GPTQ_DIM_P), workgroup,
            LLVM::AddressOfOp::create(b, shared), [&](int64_t i) -> Value {
              return LLVM::AddrSpaceCastOp::create(b, generic,
                                                   entry.getArgument(i));
            }});
}

namespace {
struct NVVMLowerToLLVMPass final
    : mlir::gptq::impl::NVVMLowerToLLVMPassBase<NVVMLowerToLLVMPass> {
  using Base::Base;

  void runOnOperation() override {
    ModuleOp module = getOperation();
    auto kernels = collectKernels(module);

    LowerToLLVMOptions options(&getContext());
    LLVMTypeConverter converter(&getContext(), options);
    configureGpuToNVVMTypeConverter(converter);
    RewritePatternSet patterns(&getContext());
    arith::populateArithExpandOpsPatterns(patterns);
    arith::populateArithToLLVMConversionPatterns(converter, patterns);
    cf::populateControlFlowToLLVMConversionPatterns(converter, patterns);
    populateFuncToLLVMConversionPatterns(converter, patterns);
    populateMathToLLVMConversionPatterns(converter, patterns);
    populateFinalizeMemRefToLLVMConversionPatterns(converter, patterns);
    populateVectorToLLVMConversionPatterns(converter, patterns);
    populateGpuToNVVMConversionPatterns(converter, patterns);
    ub::populateUBToLLVMConversionPatterns(converter, patterns);
    LLVMConversionTarget target(getContext());
    target.addLegalOp<ModuleOp>();
    target.addLegalDialect<NVVM::NVVMDialect>();
    if (failed(applyFullConversion(module, target, std::move(patterns))))
      return signalPassFailure();

    OpBuilder b = OpBuilder::atBlockBegin(module.getBody());
    auto shared = LLVM::GlobalOp::create(
        b, module.getLoc(), LLVM::LLVMArrayType::get(b.getI8Type(), 0),
        /*isConstant=*/false, LLVM::Linkage::External, kSharedMemory,
        Attribute(), /*alignment=*/16, kSharedSpace);
    for (auto &[name, signature] : kernels)
      makeEntry(module.lookupSymbol<LLVM::LLVMFuncOp>(name), shared, signature);
  }
};
} // namespace
