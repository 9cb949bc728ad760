//===- KernelEntry.cpp - From the kernel ABI to a kernel's body -----------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Codegen/Common/KernelEntry.h"
#include "gptq/Codegen/Common/Plan.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/GPU/IR/GPUDialect.h"

using namespace mlir;
using namespace mlir::gptq;

static constexpr StringRef kKeptAttrs[] = {
    kKernelAttr,    kGridAttr,    kScratchAttr,  kThreadsAttr,
    kOccupancyAttr, kOverlapAttr, kAdvancesAttr, kClusterAttr};

static bool isScratch(Type type) {
  auto memref = dyn_cast<MemRefType>(type);
  return memref &&
         isa_and_nonnull<gpu::AddressSpaceAttr>(memref.getMemorySpace());
}

int64_t KernelSignature::numBuffers() const {
  return llvm::count_if(arguments, [](Type type) {
    return isa<MemRefType>(type) && !isScratch(type);
  });
}

llvm::MapVector<StringAttr, KernelSignature>
mlir::gptq::collectKernels(ModuleOp module) {
  llvm::MapVector<StringAttr, KernelSignature> kernels;
  for (auto kernel : module.getOps<func::FuncOp>()) {
    if (!kernel->hasAttr(kKernelAttr))
      continue;
    KernelSignature &signature = kernels[kernel.getSymNameAttr()];
    signature.arguments = llvm::to_vector(kernel.getArgumentTypes());
    for (auto [i, type] : llvm::enumerate(signature.arguments))
      if (isa<MemRefType>(type) && !isScratch(type))
        signature.weights.push_back(bool(kernel.getArgAttr(i, kWeightAttr)));
    for (StringRef name : kKeptAttrs)
      if (Attribute attr = kernel->getAttr(name))
        signature.attributes.set(name, attr);
  }
  return kernels;
}

void mlir::gptq::callBody(ImplicitLocOpBuilder &b, LLVM::LLVMFuncOp body,
                          LLVM::LLVMFuncOp entry,
                          const KernelSignature &signature,
                          const EntryValues &values) {
  auto constant = [&](int64_t v) -> Value {
    return LLVM::ConstantOp::create(b, b.getI64Type(), b.getI64IntegerAttr(v));
  };
  SmallVector<Value> operands;
  int64_t buffers = 0, indices = 0;
  for (Type type : signature.arguments) {
    if (type.isIndex()) {
      // In the order the passes add them: M, position, workgroup.
      operands.push_back(indices == 0   ? values.m
                         : indices == 1 ? values.position
                                        : values.workgroup);
      ++indices;
      continue;
    }
    auto memref = cast<MemRefType>(type);
    Value base = isScratch(type) ? values.scratch : values.buffer(buffers++);
    operands.append({base, base, constant(0)});
    // A dynamic first dimension is M; the scratch's size is not looked at.
    for (int64_t size : memref.getShape())
      operands.push_back(!ShapedType::isDynamic(size) ? constant(size)
                         : isScratch(type)            ? constant(0)
                                                      : values.m);
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
  body.setSymName((entry.getSymName() + ".body").str());
  for (StringRef attr : kKeptAttrs)
    body->removeAttr(attr);
  for (NamedAttribute attr : signature.attributes)
    entry->setAttr(attr.getName(), attr.getValue());
  LLVM::CallOp::create(b, body, operands);
  LLVM::ReturnOp::create(b, ValueRange());
  body.setLinkage(LLVM::Linkage::Internal);
  body.setAlwaysInline(true);
}
