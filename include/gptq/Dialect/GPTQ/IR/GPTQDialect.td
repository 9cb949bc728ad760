//===- GPTQDialect.td - The gptq dialect --------------------*- tablegen -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_DIALECT_TD
#define GPTQ_DIALECT_TD

include "mlir/IR/OpBase.td"

def GPTQ_Dialect : Dialect {
  let name = "gptq";
  let cppNamespace = "::mlir::gptq";
  let summary = "Inference of transformers whose weights are group-quantized";
  let description = [{
    A model is a module of weights (symbols that name byte ranges of checkpoint files, never constants) and entry
    functions made of a few model ops on tensors. Every matmul keeps its weight quantized: `gptq.dequant_matmul` is
    one op until the code of its kernel is generated, so no floating-point copy of a weight ever exists.

    The forms of the IR, in order: *imported* (model ops on tensors, weights as published), *normalized* (true zero
    points, act-order as an explicit permutation, fusions done), *planned* (each op carries its `#gptq.plan`s),
    *packed* (weights in the layout of their plan), *dispatched* (one kernel function per op and bucket of M),
    *tiled* (`scf.forall` over workgroups), *vector* (`gptq.group_dot` on register tiles), *target*.
  }];
  let dependentDialects = ["arith::ArithDialect", "tensor::TensorDialect", "affine::AffineDialect"];
  let useDefaultAttributePrinterParser = 1;
}

#endif // GPTQ_DIALECT_TD
