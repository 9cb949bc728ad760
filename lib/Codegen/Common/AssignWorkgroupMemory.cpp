//===- AssignWorkgroupMemory.cpp - Places in workgroup memory -------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Codegen/Common/Passes.h"
#include "gptq/Codegen/Common/Plan.h"
#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/GPU/IR/GPUDialect.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/IR/PatternMatch.h"
#include "llvm/Support/MathExtras.h"

namespace mlir::gptq {
#define GEN_PASS_DEF_ASSIGNWORKGROUPMEMORYPASS
#include "gptq/Codegen/Common/Passes.h.inc"
} // namespace mlir::gptq

using namespace mlir;
using namespace mlir::gptq;

/// A cache line, and the widest vector register.
static constexpr int64_t kAlignment = 64;

namespace {
struct AssignWorkgroupMemoryPass final
    : mlir::gptq::impl::AssignWorkgroupMemoryPassBase<
          AssignWorkgroupMemoryPass> {
  using Base::Base;

  void runOnOperation() override {
    auto kernel = dyn_cast<func::FuncOp>(getOperation().getOperation());
    if (!kernel || !kernel->hasAttr(kKernelAttr))
      return;
    IRRewriter b(&getContext());
    auto space =
        gpu::AddressSpaceAttr::get(&getContext(), gpu::AddressSpace::Workgroup);
    auto bytesType = MemRefType::get({ShapedType::kDynamic}, b.getI8Type(),
                                     MemRefLayoutAttrInterface(), space);
    if (failed(kernel.insertArgument(kernel.getNumArguments(), bytesType,
                                     DictionaryAttr(), kernel.getLoc())))
      return signalPassFailure();
    Value bytes = kernel.getBody().front().getArguments().back();

    // Those that come after the others start where these do.
    int64_t usedBefore = 0, usedAfter = 0;
    WalkResult result = kernel.walk([&](memref::AllocOp alloc) {
      MemRefType type = alloc.getType();
      if (type.getMemorySpace() != space) {
        alloc.emitError("expects kernels to allocate in workgroup memory only");
        return WalkResult::interrupt();
      }
      if (!type.hasStaticShape()) {
        alloc.emitError("expects workgroup buffers of static size, but found ")
            << type;
        return WalkResult::interrupt();
      }
      int64_t &used = alloc->hasAttr(kAfterOthersAttr) ? usedAfter : usedBefore;
      used = llvm::alignTo(
          used,
          std::max<int64_t>(kAlignment, alloc.getAlignment().value_or(1)));
      b.setInsertionPoint(alloc);
      Value offset = arith::ConstantIndexOp::create(b, alloc.getLoc(), used);
      int64_t size = type.getNumElements() * type.getElementTypeBitWidth() / 8;
      used += llvm::alignTo(size, kAlignment);
      b.replaceOpWithNewOp<memref::ViewOp>(alloc, type, bytes, offset,
                                           ValueRange());
      return WalkResult::advance();
    });
    if (result.wasInterrupted())
      return signalPassFailure();
    kernel->setAttr(kScratchAttr,
                    b.getI64IntegerAttr(std::max(usedBefore, usedAfter)));
  }
};
} // namespace
