//===- Passes.td - Code generation shared by all targets ----*- tablegen -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_CODEGEN_COMMON_PASSES_TD
#define GPTQ_CODEGEN_COMMON_PASSES_TD

include "mlir/Pass/PassBase.td"

def StagePermutationsPass : Pass<"gptq-stage-permutations", "::mlir::ModuleOp"> {
  let summary = "Permutes activations before the matmul that wants them so";
  let description = [{
    Before: a `gptq.dequant_matmul` reads its activations through a permutation. After: a `gptq.stage` of its own permutes them. For targets
    whose workgroups are too many to permute the same rows each for itself.
  }];
  let dependentDialects = ["GPTQDialect", "tensor::TensorDialect"];
}

def NarrowActivationsPass : Pass<"gptq-narrow-activations", "::mlir::ModuleOp"> {
  let summary = "Keeps what matmuls read, and the caches, in a half-precision type";
  let description = [{
    Before: activations are f32. After: the left operand of every matmul has element type `type`: what produces it writes that type where nothing
    else reads it, otherwise a `gptq.stage` converts it; an input of a lone function that only matmuls read changes its type. States
    have that type, too. Sums and residuals stay f32.
  }];
  let dependentDialects = ["GPTQDialect", "tensor::TensorDialect"];
  let options = [Option<"type", "type", "std::string", "\"auto\"", "Element type: f16, bf16, or auto: bf16 where dense weights are">];
}

def ApplyPlanFilePass : Pass<"gptq-apply-plan-file", "::mlir::ModuleOp"> {
  let summary = "Replaces plans by those that a file gives";
  let description = [{
    Before: ops have the plans of their target's planner. After: those that an entry of `file` describes have the entry's plans. The file is
    text, one dictionary behind another; `op` and `plans` must be there, and whatever else an entry names must be so of an op:

    ```mlir
    {op = "dequant_matmul", target = "sm_90a", n = 4096, k = 4096, bits = 4, group_size = 128, plans = [
      #gptq.plan<mMin = 1, mMax = 8, …>,
      #gptq.plan<mMin = 9, mMax = 512, …>]}
    ```

    The first entry that matches an op counts. Entries for other targets are left alone, those that match nothing are warned of. A plan that the
    target cannot honour, or that names what nothing reads, is an error. `gptq-compile --write-plan` writes such a file.
  }];
  let options = [Option<"file", "file", "std::string", "", "The plan file">,
                 Option<"target", "target", "std::string", "\"x86-64-v3\"", "Name of the target">];
}

def AddNextPass : Pass<"gptq-add-next", "::mlir::ModuleOp"> {
  let summary = "Adds the entries that choose the next token";
  let description = [{
    Before: an entry `generate`, tokens to the last row's logits. After: beside it an entry `next`, the same for one token, all shapes static, which
    also finds the most likely token (`gptq.argmax` over `parts` parts of the vocabulary, then `gptq.choose_token`) and leaves it where
    the next call reads it. Its results are the token and the logits. And an entry `sample` that draws the token instead, as its second input says
    (`gptq.top_k`, then `gptq.sample_token`), from the `max-top-k` likeliest at most. For devices that repeat an entry by themselves.
  }];
  let dependentDialects = ["GPTQDialect", "arith::ArithDialect", "func::FuncDialect", "tensor::TensorDialect"];
  let options = [Option<"parts", "parts", "int64_t", "132", "Parts of the vocabulary, at most">,
                 Option<"maxTopK", "max-top-k", "int64_t", "128", "Tokens to sample from, at most: a power of two; 0 adds no `sample`">];
}

def SplitContextPass : Pass<"gptq-split-context", "::mlir::ModuleOp"> {
  let summary = "Splits the attention of one row over parts of the context";
  let description = [{
    Before: `gptq.attention` of one row, all of its context at once. After: attention in `parts`, as many as give each of `workgroups` a head of
    the caches and a part, but 64 at most and none for less than 64 positions of the context, and a `gptq.join_attention` of what they found. Attention over a varying number of rows is left alone.
  }];
  let dependentDialects = ["GPTQDialect", "arith::ArithDialect", "tensor::TensorDialect"];
  let options = [Option<"workgroups", "workgroups", "int64_t", "264", "Workgroups that can run at a time">];
}

def FuseRotaryPass : Pass<"gptq-fuse-rotary", "::mlir::ModuleOp"> {
  let summary = "Rotates and appends where attention reads";
  let description = [{
    Before: `gptq.rotary_append` of one row, whose queries one `gptq.attention` reads. After: that attention rotates them, and the key, by itself and
    appends to the caches. With several rows every workgroup would need keys that others rotate: these are left alone, as is
    attention with other readers of the rotated queries, and rotations of a part of each head.
  }];
  let dependentDialects = ["GPTQDialect"];
}

def PackWeightsPass : Pass<"gptq-pack-weights", "::mlir::ModuleOp"> {
  let summary = "Gives every weight the layout its plan's unit reads";
  let description = [{
    Before: planned ops read weights as published. After: they read weights packed by a `#gptq.layout` (`gptq.weight` symbols with
    `#gptq.packed` views: nothing is moved until the compiled model is written), scales and zero points in the same panels, and say which
    layout on themselves. The two halves of a `silu_mul` epilogue are interleaved so that one panel holds both. All plans of an op must
    ask for one layout, since there is one copy of the weight.
  }];
  let dependentDialects = ["GPTQDialect"];
}

def FormDispatchesPass : Pass<"gptq-form-dispatches", "::mlir::ModuleOp"> {
  let summary = "Moves every model op into kernels of its own, one per range of M";
  let description = [{
    Before: entry functions of planned ops. After: each op is a `gptq.dispatch` of kernel functions in the nested module `@kernels`, one per
    plan; a kernel takes buffers, M and the position, and holds the one op on tensors, with the slices it reads. A kernel for M = 1 has that
    as a constant. Activations with several slots a row are one matrix to a kernel. Ops that differ only in their weights share kernels.
  }];
  let dependentDialects = ["GPTQDialect", "affine::AffineDialect", "bufferization::BufferizationDialect", "func::FuncDialect",
                           "memref::MemRefDialect"];
}

def TileToWorkgroupsPass : InterfacePass<"gptq-tile-to-workgroups", "::mlir::FunctionOpInterface"> {
  let summary = "Splits a kernel's op over workgroups";
  let description = [{
    Before: the kernel's op works on everything. After: an `scf.forall`, mapped to workgroups, over tiles of `tileM` rows and
    `tileN` columns (one cache head at a time for attention); a size of 0 leaves that dimension whole. An op on runs of rows, each of one
    expert, becomes an op on the rows of one run, with the weight of its expert, in a loop over tiles of `tileM` of them.
  }];
  let dependentDialects = ["scf::SCFDialect", "affine::AffineDialect", "tensor::TensorDialect", "gpu::GPUDialect"];
}

def SplitReductionPass : InterfacePass<"gptq-split-reduction", "::mlir::FunctionOpInterface"> {
  let summary = "Splits the sum over K into partial sums";
  let description = [{
    Before: a matmul sums over all of K at once. After: one matmul per `tileK` input rows, each but the first adding to the destination. Tiles are
    rounded to whole groups; a plan with `tileK` 0 is left alone, and one with `partials = cluster`: there each workgroup has a part.
  }];
  let dependentDialects = ["GPTQDialect", "tensor::TensorDialect", "memref::MemRefDialect"];
}

def BufferPartialsPass : InterfacePass<"gptq-buffer-partials", "::mlir::FunctionOpInterface"> {
  let summary = "Keeps partial sums in workgroup memory, with one write at the end";
  let description = [{
    Before: the partial sums of a split reduction are added up in the kernel's destination. After, where the plan says `partials = shared`: they
    are added up in workgroup memory, and one copy writes the destination.
  }];
  let dependentDialects = ["GPTQDialect", "bufferization::BufferizationDialect", "gpu::GPUDialect"];
}

def PromoteActivationsPass : InterfacePass<"gptq-promote-activations", "::mlir::FunctionOpInterface"> {
  let summary = "Moves activation tiles into workgroup memory";
  let description = [{
    Before: a tiled matmul whose plan says `path = promote` reads its activations where they lie, through its permutation if it has one. After:
    a `gptq.stage` copies them once, in the order they are read, into workgroup memory, and `perm` is gone. Packed weights are read once and
    stay put. With `path = split` a `gptq.stage_split` also writes them there as bytes and units, which the matmul is given beside them;
    only permuted ones are copied as well. A tile larger than `max-bytes` is left alone and reported as a missed remark. With
    `path = normalize` a `gptq.rms_norm` of what the activations are the norm of (`norm_of`) writes them there.
  }];
  let dependentDialects = ["GPTQDialect", "bufferization::BufferizationDialect", "gpu::GPUDialect"];
  let options = [Option<"maxBytes", "max-bytes", "int64_t", "1048576", "Workgroup memory the copy may use, in bytes">];
}

def DistributeWorkgroupsPass : InterfacePass<"gptq-distribute-workgroups", "::mlir::FunctionOpInterface"> {
  let summary = "Gives each workgroup its tile";
  let description = [{
    Before: a bufferized kernel with one `scf.forall` over workgroups, or none. After: the body alone, at the tile that the kernel's new last
    argument, the workgroup's number, stands for; the attribute `gptq.grid` says how many workgroups there are. Where the plan says
    `partials = cluster`, the workgroups that have a part of K each (`tileK`) follow each other, and `gptq.cluster` says how many they are.
  }];
  let dependentDialects = ["arith::ArithDialect", "affine::AffineDialect"];
}

def AssignWorkgroupMemoryPass : InterfacePass<"gptq-assign-workgroup-memory", "::mlir::FunctionOpInterface"> {
  let summary = "Places workgroup buffers in one block of memory";
  let description = [{
    Before: `memref.alloc`s of static size, or of a size bounded by constants, in the workgroup address space. After: views into a
    byte buffer, the kernel's new last argument; `gptq.scratch_bytes` says how large it must be. Buffers that are first used when no thread
    uses the others any more (`gptq.after_others`) lie where these are.
  }];
  let dependentDialects = ["memref::MemRefDialect", "gpu::GPUDialect"];
}

def ExpandVectorsPass : InterfacePass<"gptq-expand-vectors", "::mlir::FunctionOpInterface"> {
  let summary = "Expands vector operations that have no instruction";
  let description = [{
    Before: transposes, broadcasts and slices of two-dimensional vectors, and exp. After: shuffles and inserts of one-dimensional vectors, and
    exp as a polynomial, or with `base2` as a power of two, so that kernels need no library.
  }];
  let dependentDialects = ["vector::VectorDialect", "arith::ArithDialect", "math::MathDialect"];
  let options = [Option<"base2", "base2", "bool", "false", "Write exp(x) as exp2(x * log2(e))">];
}

def VectorizePass : InterfacePass<"gptq-vectorize", "::mlir::FunctionOpInterface"> {
  let summary = "Lowers model ops on tiles to vectors";
  let description = [{
    Before: model ops on buffers. After: loops over vectors of the plan's `lanes`; a matmul is a loop over groups around
    `gptq.group_dot` on register tiles of `rows` by `columns`, with scales, zero points and offsets applied to each weight. Of a matmul whose plan says
    `partials = cluster`, each workgroup sums over its `tileK` rows; sums meet in a buffer that counts the workgroups in its first dimension
    (`gptq.cluster`), and each adds up and writes its share of the result. With `scalar` vectors have one element: the same arithmetic, one
    weight at a time.
  }];
  let dependentDialects = ["GPTQDialect", "scf::SCFDialect", "vector::VectorDialect", "math::MathDialect", "memref::MemRefDialect", "gpu::GPUDialect"];
  let options = [Option<"scalar", "scalar", "bool", "false", "Use vectors of one element">];
}

def FoldOffsetsPass : InterfacePass<"gptq-fold-offsets", "::mlir::FunctionOpInterface"> {
  let summary = "Adds offsets once per group instead of once per weight";
  let description = [{
    Before: `gptq.group_dot` with an `offset`. After: the sum of the group's activations times the offset is added to the accumulator it starts
    from: sum of (w + o)*x = sum of w*x + o * sum of x. Run it before gptq-hoist-scales, which leaves an op with an offset alone: the scale does
    not multiply it.
  }];
  let dependentDialects = ["GPTQDialect", "vector::VectorDialect", "arith::ArithDialect"];
}

def HoistScalesPass : InterfacePass<"gptq-hoist-scales", "::mlir::FunctionOpInterface"> {
  let summary = "Applies scales once per group instead of once per weight";
  let description = [{
    Before: `gptq.group_dot` with a `scale`, in a kernel whose plan says `scale = accumulator`. After: the group is summed unscaled from
    zero, then multiplied and added to the accumulator in one step: sum of s*w*x = s * sum of w*x.
  }];
  let dependentDialects = ["GPTQDialect", "vector::VectorDialect", "arith::ArithDialect"];
}

def PrefetchOperandsPass : InterfacePass<"gptq-prefetch-operands", "::mlir::FunctionOpInterface"> {
  let summary = "Loads the operands of the next part of K while one is multiplied";
  let description = [{
    Before: a loop over parts of K, marked `gptq.stages = 2`, loads weights, scales and activations and multiplies them at once. After: it
    multiplies what the iteration before has loaded, and loads for the one after. The last iteration loads again what the last part of K is,
    so no load needs a condition.

    The first parts of a loop marked `gptq.first_bytes` (which starts below its step) are multiplied before it, and what they need is loaded
    first of all, weights in front: as many parts as a thread has that many bytes of registers for, beside what the loop itself loads ahead.
    Whatever the kernel does or waits for until then, memory is busy meanwhile. If those are all parts the loop is no more. With
    `gptq.ahead_bytes` on the loop only so many bytes of a thread's weights go ahead of all else; the loads of the others are marked
    `gptq.follows`, which gptq-nvvm-overlap-launches reads.
  }];
  let dependentDialects = ["scf::SCFDialect", "arith::ArithDialect"];
}

def FoldZeroPointsPass : InterfacePass<"gptq-fold-zero-points", "::mlir::FunctionOpInterface"> {
  let summary = "Subtracts zero points once per group instead of once per weight";
  let description = [{
    Before: `gptq.group_dot` with a `zero`, in a kernel whose plan says `zero = accumulator`. After: the codes are multiplied as they are, and the sum
    of the group's activations times the zero point is subtracted afterwards: sum of (q - z)*x = sum of q*x - z * sum of x. Run it after
    gptq-hoist-scales to keep the correction outside the scale.
  }];
  let dependentDialects = ["GPTQDialect", "vector::VectorDialect", "arith::ArithDialect"];
}

#endif // GPTQ_CODEGEN_COMMON_PASSES_TD
