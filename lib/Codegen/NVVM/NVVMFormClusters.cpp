//===- NVVMFormClusters.cpp - Workgroup memory of several workgroups ------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Codegen/Common/Plan.h"
#include "gptq/Codegen/NVVM/NVVMOps.h"
#include "gptq/Codegen/NVVM/Passes.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/GPU/IR/GPUDialect.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "mlir/Interfaces/FunctionInterfaces.h"

namespace mlir::gptq {
#define GEN_PASS_DEF_NVVMFORMCLUSTERSPASS
#include "gptq/Codegen/NVVM/Passes.h.inc"
} // namespace mlir::gptq

using namespace mlir;
using namespace mlir::gptq;

static constexpr auto kSharedSpace =
    static_cast<unsigned>(NVVM::NVVMMemorySpace::Shared);
static constexpr auto kClusterSpace =
    static_cast<unsigned>(NVVM::NVVMMemorySpace::SharedCluster);

/// Replaces `whole` by a buffer for this workgroup's part of it.
static LogicalResult distribute(memref::AllocOp whole) {
  ImplicitLocOpBuilder b(whole.getLoc(), whole);
  MemRefType type = whole.getType();
  Value own = memref::AllocOp::create(
      b,
      MemRefType::get(type.getShape().drop_front(), type.getElementType(),
                      MemRefLayoutAttrInterface(), type.getMemorySpace()),
      whole.getAlignmentAttr());
  auto shared = LLVM::LLVMPointerType::get(b.getContext(), kSharedSpace);
  auto cluster = LLVM::LLVMPointerType::get(b.getContext(), kClusterSpace);
  for (Operation *user : llvm::make_early_inc_range(whole->getUsers())) {
    b.setLoc(user->getLoc());
    b.setInsertionPoint(user);
    if (auto store = dyn_cast<memref::StoreOp>(user);
        store && store.getMemRef() == whole.getResult() &&
        store.getIndices()[0].getDefiningOp<gpu::ClusterBlockIdOp>()) {
      memref::StoreOp::create(b, store.getValue(), own,
                              store.getIndices().drop_front());
      store.erase();
      continue;
    }
    auto load = dyn_cast<memref::LoadOp>(user);
    if (!load)
      return user->emitOpError("expects stores to the workgroup's own part of "
                               "a cluster's buffer, and loads");
    Value there =
        arith::IndexCastUIOp::create(b, b.getI32Type(), load.getIndices()[0]);
    Value pointer =
        PointerOp::create(b, shared, own, load.getIndices().drop_front());
    pointer = NVVM::MapaOp::create(b, cluster, pointer, there);
    load.replaceAllUsesWith(
        LLVM::LoadOp::create(b, type.getElementType(), pointer).getResult());
    load.erase();
  }
  whole.erase();
  return success();
}

namespace {
struct NVVMFormClustersPass final
    : mlir::gptq::impl::NVVMFormClustersPassBase<NVVMFormClustersPass> {
  using Base::Base;

  void runOnOperation() override {
    SmallVector<memref::AllocOp> buffers;
    SmallVector<gpu::BarrierOp> barriers;
    getOperation()->walk([&](Operation *op) {
      if (!op->hasAttr(kClusterAttr))
        return;
      if (auto buffer = dyn_cast<memref::AllocOp>(op))
        buffers.push_back(buffer);
      else if (auto barrier = dyn_cast<gpu::BarrierOp>(op))
        barriers.push_back(barrier);
    });
    for (memref::AllocOp buffer : buffers)
      if (failed(distribute(buffer)))
        return signalPassFailure();
    for (gpu::BarrierOp barrier : barriers) {
      OpBuilder b(barrier);
      NVVM::ClusterArriveOp::create(b, barrier.getLoc(), b.getUnitAttr());
      NVVM::ClusterWaitOp::create(b, barrier.getLoc(), b.getUnitAttr());
      barrier.erase();
    }
  }
};
} // namespace
