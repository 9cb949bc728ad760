//===- BufferizableOpInterfaceImpl.cpp - Model ops on buffers -------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Dialect/GPTQ/IR/BufferizableOpInterfaceImpl.h"
#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "mlir/Dialect/Bufferization/IR/BufferizableOpInterface.h"
#include "mlir/Dialect/Bufferization/IR/DstBufferizableOpInterfaceImpl.h"

using namespace mlir;
using namespace mlir::gptq;
using namespace mlir::bufferization;

namespace {

/// True where the op adds to its destination instead of overwriting it.
bool accumulates(Operation *op) {
  if (auto matmul = dyn_cast<DequantMatmulOp>(op))
    return matmul.getAccumulate();
  if (auto matmul = dyn_cast<MatmulOp>(op))
    return matmul.getAccumulate();
  return false;
}

/// Every model op bufferizes to itself on memrefs, without results.
template <typename OpTy>
struct ModelOpBufferization
    : DstBufferizableOpInterfaceExternalModel<ModelOpBufferization<OpTy>,
                                              OpTy> {
  bool bufferizesToMemoryRead(Operation *op, OpOperand &operand,
                              const AnalysisState &) const {
    return !cast<DestinationStyleOpInterface>(op).isDpsInit(&operand) ||
           accumulates(op);
  }

  LogicalResult bufferize(Operation *op, RewriterBase &rewriter,
                          const BufferizationOptions &options,
                          BufferizationState &state) const {
    rewriter.setInsertionPoint(op);
    SmallVector<Value> operands, results;
    auto dps = cast<DestinationStyleOpInterface>(op);
    for (OpOperand &operand : op->getOpOperands()) {
      Value value = operand.get();
      if (isa<TensorType>(value.getType())) {
        FailureOr<Value> buffer = getBuffer(rewriter, value, options, state);
        if (failed(buffer))
          return failure();
        value = *buffer;
        if (dps.isDpsInit(&operand))
          results.push_back(value);
      }
      operands.push_back(value);
    }
    clone(rewriter, op, /*newResultTypes=*/TypeRange(), operands);
    replaceOpWithBufferizedValues(rewriter, op, results);
    return success();
  }
};

} // namespace

void mlir::gptq::registerBufferizableOpInterfaceExternalModels(
    DialectRegistry &registry) {
  registry.addExtension(+[](MLIRContext *ctx, GPTQDialect *) {
    DequantMatmulOp::attachInterface<ModelOpBufferization<DequantMatmulOp>>(
        *ctx);
    MatmulOp::attachInterface<ModelOpBufferization<MatmulOp>>(*ctx);
    EmbeddingOp::attachInterface<ModelOpBufferization<EmbeddingOp>>(*ctx);
    RMSNormOp::attachInterface<ModelOpBufferization<RMSNormOp>>(*ctx);
    LayerNormOp::attachInterface<ModelOpBufferization<LayerNormOp>>(*ctx);
    AddOp::attachInterface<ModelOpBufferization<AddOp>>(*ctx);
    AddRMSNormOp::attachInterface<ModelOpBufferization<AddRMSNormOp>>(*ctx);
    ActivationOp::attachInterface<ModelOpBufferization<ActivationOp>>(*ctx);
    SoftcapOp::attachInterface<ModelOpBufferization<SoftcapOp>>(*ctx);
    StageOp::attachInterface<ModelOpBufferization<StageOp>>(*ctx);
    StageSplitOp::attachInterface<ModelOpBufferization<StageSplitOp>>(*ctx);
    RotaryAppendOp::attachInterface<ModelOpBufferization<RotaryAppendOp>>(*ctx);
    AttentionOp::attachInterface<ModelOpBufferization<AttentionOp>>(*ctx);
    JoinAttentionOp::attachInterface<ModelOpBufferization<JoinAttentionOp>>(
        *ctx);
    ArgmaxOp::attachInterface<ModelOpBufferization<ArgmaxOp>>(*ctx);
    ChooseTokenOp::attachInterface<ModelOpBufferization<ChooseTokenOp>>(*ctx);
    TopKOp::attachInterface<ModelOpBufferization<TopKOp>>(*ctx);
    SampleTokenOp::attachInterface<ModelOpBufferization<SampleTokenOp>>(*ctx);
    RouteOp::attachInterface<ModelOpBufferization<RouteOp>>(*ctx);
    GroupRowsOp::attachInterface<ModelOpBufferization<GroupRowsOp>>(*ctx);
    GatherRowsOp::attachInterface<ModelOpBufferization<GatherRowsOp>>(*ctx);
    CombineRowsOp::attachInterface<ModelOpBufferization<CombineRowsOp>>(*ctx);
  });
}
