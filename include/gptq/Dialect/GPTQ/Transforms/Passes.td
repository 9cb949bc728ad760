//===- Passes.td - Target-free rewrites of the model --------*- tablegen -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_TRANSFORMS_PASSES_TD
#define GPTQ_TRANSFORMS_PASSES_TD

include "mlir/Pass/PassBase.td"

def NormalizeZeroPointsPass : Pass<"gptq-normalize-zero-points", "::mlir::ModuleOp"> {
  let summary = "Makes stored zero points the true ones";
  let description = [{
    Before: a `gptq.dequant_matmul` may say with `zero_offset` that its zero points are stored less than they are (GPTQ v1 stores z - 1).
    After: `zero_offset` is 0 everywhere. A constant `zero_point` takes the offset up; packed zeros are viewed with the offset added to
    every field by one word addition, the inverse of how the published writers subtract it.
  }];
}

def NormalizeActOrderPass : Pass<"gptq-normalize-act-order", "::mlir::ModuleOp"> {
  let summary = "Makes act-order an explicit permutation";
  let description = [{
    Before: `g_idx` gives the group of each input row. After: the rows of the codes are gathered in the stable order that sorts `g_idx`,
    so that groups are contiguous, and the op reads its activations through that order, its `perm`.
  }];
  let dependentDialects = ["GPTQDialect"];
}

def FoldPermutationsPass : Pass<"gptq-fold-permutations", "::mlir::ModuleOp"> {
  let summary = "Folds input permutations into the layers that produce the input";
  let description = [{
    Before: a matmul with `perm` reads a `gptq.activation` of a matmul, or of two, that nobody else reads. After: the columns
    of these matmuls' weights are gathered by the permutation, so that the activations come in the wanted order and `perm` is gone.
    A permutation of any other input stays.
  }];
  let dependentDialects = ["GPTQDialect"];
}

def FuseResidualNormPass : Pass<"gptq-fuse-residual-norm", "::mlir::ModuleOp"> {
  let summary = "Fuses residual additions with the normalization that follows";
  let description = [{
    Before: `gptq.add`, then `gptq.rms_norm` of the sum (or of a slice of its rows that is its only use). After: one
    `gptq.add_rms_norm`, which reads and writes the row once.
  }];
  let dependentDialects = ["GPTQDialect"];
}

def FuseParallelMatmulsPass : Pass<"gptq-fuse-parallel-matmuls", "::mlir::ModuleOp"> {
  let summary = "Joins matmuls of one input into one wider matmul";
  let description = [{
    Before: several matmuls read the same activations (query, key, value; gate and up). After: one matmul of the weights beside each other,
    and a slice of its result for each. Joined are only layers whose bits, group size, kind of zero points, permutation and presence of a
    bias agree, and whose element types do; the others stay as they are and are reported as a missed remark.
  }];
  let dependentDialects = ["GPTQDialect", "tensor::TensorDialect"];
}

def FuseActivationPass : Pass<"gptq-fuse-activation", "::mlir::ModuleOp"> {
  let summary = "Makes the activation of an MLP the epilogue of its matmul";
  let description = [{
    Before: `gptq.activation` of the two halves of one joined matmul, or of a matmul's only use. After: the matmul has the activation
    as its epilogue, and with a gate half as many columns.
  }];
  let dependentDialects = ["GPTQDialect"];
}

def FuseResidualAddPass : Pass<"gptq-fuse-residual-add", "::mlir::ModuleOp"> {
  let summary = "Lets matmuls add their result to the residual";
  let description = [{
    Before: `gptq.add` or `gptq.add_rms_norm` of a residual and the result of a matmul that nobody else reads (or of the same rows of
    both). After: the matmul's destination is the residual, to which it adds (`accumulate`); a norm is one by itself. Left alone where the residual is read later, is not the result of an op, or is not f32, in which sums are kept.
    For targets where a kernel of its own costs more than the addition.
  }];
  let dependentDialects = ["GPTQDialect"];
}

def FuseNormMatmulPass : Pass<"gptq-fuse-norm-matmul", "::mlir::ModuleOp"> {
  let summary = "Tells matmuls what their activations are the norm of";
  let description = [{
    Before: a matmul reads the result of `gptq.rms_norm`. After: it also has the input and the weight of the norm (`norm_of`), so that a kernel
    may normalize its rows itself. Which kernels do, the planner decides for each range of M; for the others the norm stays.
    Activations that are read through a permutation are left alone.
  }];
  let dependentDialects = ["GPTQDialect"];
}

#endif // GPTQ_TRANSFORMS_PASSES_TD
