//===- CPULowerToLLVM.cpp - The LLVM dialect and the kernel ABI -----------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Codegen/CPU/Passes.h"
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
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Math/Transforms/Passes.h"
#include "mlir/Dialect/Vector/Transforms/LoweringPatterns.h"
#include "mlir/Dialect/Vector/Transforms/VectorRewritePatterns.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "mlir/Transforms/GreedyPatternRewriteDriver.h"
#include "runtime/abi/KernelABI.h"

namespace mlir::gptq {
#define GEN_PASS_DEF_CPUEXPANDVECTORSPASS
#define GEN_PASS_DEF_CPULOWERTOLLVMPASS
#include "gptq/Codegen/CPU/Passes.h.inc"
} // namespace mlir::gptq

using namespace mlir;
using namespace mlir::gptq;

/// What the entry of a kernel has to build for each argument of its body.
struct KernelSignature {
  SmallVector<Type> arguments;
  NamedAttrList attributes;
};

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
  for (NamedAttribute attr : signature.attributes)
    entry->setAttr(attr.getName(), attr.getValue());
  b.setInsertionPointToStart(entry.addEntryBlock(b));
  Value args = entry.getArgument(0), dims = entry.getArgument(1);
  auto constant = [&](int64_t v) -> Value {
    return LLVM::ConstantOp::create(b, i64, b.getI64IntegerAttr(v));
  };
  auto loadAt = [&](Type type, Value table, int64_t i) -> Value {
    Value at = LLVM::GEPOp::create(b, ptr, type, table,
                                   ArrayRef<LLVM::GEPArg>{int32_t(i)});
    auto load = LLVM::LoadOp::create(b, type, at);
    load.setInvariant(true);
    return load;
  };
  Value m = loadAt(i64, dims, GPTQ_DIM_M);

  SmallVector<Value> operands;
  int64_t buffers = 0, indices = 0;
  for (Type type : signature.arguments) {
    if (type.isIndex()) {
      // In the order the passes add them: M, position, workgroup.
      operands.push_back(indices == 0   ? m
                         : indices == 1 ? loadAt(i64, dims, GPTQ_DIM_P)
                                        : entry.getArgument(2));
      ++indices;
      continue;
    }
    auto memref = cast<MemRefType>(type);
    bool isScratch =
        isa_and_nonnull<gpu::AddressSpaceAttr>(memref.getMemorySpace());
    Value base =
        isScratch ? entry.getArgument(3) : loadAt(ptr, args, buffers++);
    operands.append({base, base, constant(0)});
    // A dynamic first dimension is M; the scratch's size is not looked at.
    for (int64_t size : memref.getShape())
      operands.push_back(!ShapedType::isDynamic(size) ? constant(size)
                         : isScratch                  ? constant(0)
                                                      : m);
    int64_t stride = 1;
    SmallVector<Value> strides(memref.getRank());
    for (int64_t i = memref.getRank() - 1; i >= 0; --i) {
      strides[i] = constant(stride);
      stride *= ShapedType::isDynamic(memref.getDimSize(i))
                    ? 1
                    : memref.getDimSize(i);
    }
    llvm::append_range(operands, strides);
  }
  LLVM::CallOp::create(b, body, operands);
  LLVM::ReturnOp::create(b, ValueRange());
  body.setLinkage(LLVM::Linkage::Internal);
  body.setAlwaysInline(true);
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
struct CPUExpandVectorsPass final
    : mlir::gptq::impl::CPUExpandVectorsPassBase<CPUExpandVectorsPass> {
  using Base::Base;

  void runOnOperation() override {
    RewritePatternSet patterns(&getContext());
    // exp as a polynomial, on vectors: no call leaves a kernel.
    populateMathPolynomialApproximationPatterns(
        patterns, [](StringRef name) { return name == "math.exp"; });
    // A bf16 is the upper half of an f32: a shift. LLVM would call a library
    // for some vectors of it.
    arith::populateExpandBFloat16Patterns(patterns);
    vector::populateVectorTransposeLoweringPatterns(
        patterns, vector::VectorTransposeLowering::EltWise);
    vector::populateVectorInsertExtractStridedSliceTransforms(patterns);
    vector::populateVectorBroadcastLoweringPatterns(patterns);
    vector::populateVectorRankReducingFMAPattern(patterns);
    if (failed(applyPatternsGreedily(getOperation(), std::move(patterns))))
      signalPassFailure();
  }
};

struct CPULowerToLLVMPass final
    : mlir::gptq::impl::CPULowerToLLVMPassBase<CPULowerToLLVMPass> {
  using Base::Base;

  void runOnOperation() override {
    ModuleOp module = getOperation();
    llvm::MapVector<StringAttr, KernelSignature> kernels;
    for (auto kernel : module.getOps<func::FuncOp>()) {
      if (!kernel->hasAttr(kKernelAttr))
        continue;
      KernelSignature &signature = kernels[kernel.getSymNameAttr()];
      signature.arguments = llvm::to_vector(kernel.getArgumentTypes());
      for (StringRef name : {StringRef(kKernelAttr), StringRef(kGridAttr),
                             StringRef(kScratchAttr)})
        if (Attribute attr = kernel->getAttr(name))
          signature.attributes.set(name, attr);
    }

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
      std::string bodyName = (name.getValue() + ".body").str();
      body.setSymName(bodyName);
      for (StringRef attr : {StringRef(kKernelAttr), StringRef(kGridAttr),
                             StringRef(kScratchAttr)})
        body->removeAttr(attr);
      makeEntry(body, name.getValue(), signature);
    }
  }
};
} // namespace
