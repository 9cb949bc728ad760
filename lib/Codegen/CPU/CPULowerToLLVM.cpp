//===- CPULowerToLLVM.cpp - The LLVM dialect and the kernel ABI -----------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Codegen/CPU/Passes.h"
#include "gptq/Codegen/Common/KernelEntry.h"
#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "mlir/Conversion/ArithToLLVM/ArithToLLVM.h"
#include "mlir/Conversion/ControlFlowToLLVM/ControlFlowToLLVM.h"
#include "mlir/Conversion/FuncToLLVM/ConvertFuncToLLVM.h"
#include "mlir/Conversion/LLVMCommon/ConversionTarget.h"
#include "mlir/Conversion/LLVMCommon/TypeConverter.h"
#include "mlir/Conversion/MathToLLVM/MathToLLVM.h"
#include "mlir/Conversion/MemRefToLLVM/MemRefToLLVM.h"
#include "mlir/Conversion/UBToLLVM/UBToLLVM.h"
#include "mlir/Conversion/VectorToLLVM/ConvertVectorToLLVM.h"
#include "mlir/Dialect/Arith/Transforms/Passes.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/GPU/IR/GPUDialect.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "runtime/abi/KernelABI.h"

namespace mlir::gptq {
#define GEN_PASS_DEF_CPULOWERTOLLVMPASS
#include "gptq/Codegen/CPU/Passes.h.inc"
} // namespace mlir::gptq

using namespace mlir;
using namespace mlir::gptq;

/// Makes the function the runtime calls: it unpacks the ABI's tables into the
/// arguments of `body`, which is inlined into it.
static void makeEntry(LLVM::LLVMFuncOp body, StringRef name,
                      const KernelSignature &signature) {
  ImplicitLocOpBuilder b(body.getLoc(), body);
  MLIRContext *ctx = b.getContext();
  auto ptr = LLVM::LLVMPointerType::get(ctx);
  Type i64 = b.getI64Type();
  auto entry = LLVM::LLVMFuncOp::create(
      b, name,
      LLVM::LLVMFunctionType::get(LLVM::LLVMVoidType::get(ctx),
                                  {ptr, ptr, i64, ptr}));
  b.setInsertionPointToStart(entry.addEntryBlock(b));
  Value args = entry.getArgument(0), dims = entry.getArgument(1);
  auto loadAt = [&](Type type, Value table, int64_t i) -> Value {
    Value at = LLVM::GEPOp::create(b, ptr, type, table,
                                   ArrayRef<LLVM::GEPArg>{int32_t(i)});
    auto load = LLVM::LoadOp::create(b, type, at);
    load.setInvariant(true);
    return load;
  };
  callBody(b, body, entry, signature,
           {loadAt(i64, dims, GPTQ_DIM_M), loadAt(i64, dims, GPTQ_DIM_P),
            entry.getArgument(2), entry.getArgument(3),
            [&](int64_t i) { return loadAt(ptr, args, i); }});
}

/// Loads masked vectors of bf16 as integers: LLVM takes those apart into single
/// elements, and for a choice between two bf16 it calls a library.
static void loadAsIntegers(LLVM::MaskedLoadOp load) {
  auto type = cast<VectorType>(load.getType());
  if (!type.getElementType().isBF16())
    return;
  ImplicitLocOpBuilder b(load.getLoc(), load);
  auto integers = VectorType::get(type.getShape(), b.getI16Type());
  Value passThru = load.getPassThru();
  if (passThru)
    passThru = LLVM::BitcastOp::create(b, integers, passThru);
  Value bits = LLVM::MaskedLoadOp::create(
      b, integers, load.getData(), load.getMask(), passThru,
      load.getAlignmentAttr(), load.getNontemporalAttr());
  load.replaceAllUsesWith(LLVM::BitcastOp::create(b, type, bits).getResult());
  load.erase();
}

namespace {
struct CPULowerToLLVMPass final
    : mlir::gptq::impl::CPULowerToLLVMPassBase<CPULowerToLLVMPass> {
  using Base::Base;

  void runOnOperation() override {
    ModuleOp module = getOperation();
    auto kernels = collectKernels(module);
    LowerToLLVMOptions options(&getContext());
    LLVMTypeConverter converter(&getContext(), options);
    // Workgroup memory is the thread's own, in the one address space there is.
    converter.addTypeAttributeConversion(
        [](BaseMemRefType type, gpu::AddressSpaceAttr) {
          return IntegerAttr::get(IntegerType::get(type.getContext(), 64), 0);
        });
    RewritePatternSet patterns(&getContext());
    arith::populateArithExpandOpsPatterns(patterns);
    arith::populateArithToLLVMConversionPatterns(converter, patterns);
    cf::populateControlFlowToLLVMConversionPatterns(converter, patterns);
    populateFuncToLLVMConversionPatterns(converter, patterns);
    populateMathToLLVMConversionPatterns(converter, patterns);
    populateFinalizeMemRefToLLVMConversionPatterns(converter, patterns);
    populateVectorToLLVMConversionPatterns(converter, patterns);
    ub::populateUBToLLVMConversionPatterns(converter, patterns);
    LLVMConversionTarget target(getContext());
    target.addLegalOp<ModuleOp>();
    if (failed(applyFullConversion(module, target, std::move(patterns))))
      return signalPassFailure();
    module.walk([](LLVM::MaskedLoadOp load) { loadAsIntegers(load); });

    for (auto &[name, signature] : kernels) {
      auto body = module.lookupSymbol<LLVM::LLVMFuncOp>(name);
      makeEntry(body, name.getValue(), signature);
    }
  }
};
} // namespace
