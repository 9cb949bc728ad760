//===- Passes.td - Code generation for NVIDIA GPUs ----------*- tablegen -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_CODEGEN_NVVM_PASSES_TD
#define GPTQ_CODEGEN_NVVM_PASSES_TD

include "mlir/Pass/PassBase.td"

def NVVMPlanPass : Pass<"gptq-nvvm-plan", "::mlir::ModuleOp"> {
  let summary = "Plans every op for an NVIDIA GPU";
  let description = [{
    Before: a normalized model. After: each model op carries `gptq.plans`, one `#gptq.plan` per range of M; nothing is rewritten. A workgroup
    takes as many tiles of 16 columns as give every multiprocessor of `chip` one workgroup, if its registers hold the sums, and its warps
    share K; or pairs of workgroups do, which have twice as many tiles. With `reasons` each op also carries `gptq.reasons`, as with `gptq-cpu-plan`.
  }];
  let dependentDialects = ["GPTQDialect"];
  let options = [
    Option<"chip", "chip", "std::string", "\"sm_90a\"", "Architecture: sm_75, sm_80, sm_86, sm_89, sm_90a, sm_100a, sm_120a">,
    Option<"bufferPartials", "buffer-partials", "bool", "true", "Let plans add the sums of warps up in shared memory">,
    Option<"hoistScales", "hoist-scales", "bool", "true", "Let plans apply scales once per group">,
    Option<"foldZeros", "fold-zeros", "bool", "true", "Let plans subtract zero points once per group">,
    Option<"prefetch", "prefetch", "bool", "true", "Let plans load the weights of the next part of K ahead of time">,
    Option<"ring", "ring", "bool", "true", "Let plans for many rows pass operands through a ring in shared memory">,
    Option<"clusters", "clusters", "bool", "true", "Let plans share K between workgroups that read each other's shared memory">,
    Option<"normalize", "normalize", "bool", "true", "Let plans normalize one row in every workgroup">,
    Option<"loadBits", "load-bits", "int64_t", "128", "Bits of packed weights a thread loads at once, at most">,
    Option<"unit", "unit", "std::string", "\"\"", "Arithmetic unit of `chip` that multiplies, by its name; empty: its first, the matrix unit">,
    Option<"reasons", "reasons", "bool", "false", "Also write down the reasons">,
  ];
}

def NVVMFormClustersPass : InterfacePass<"gptq-nvvm-form-clusters", "::mlir::FunctionOpInterface"> {
  let summary = "Lets the workgroups of a cluster read each other's memory";
  let description = [{
    Before: a buffer in workgroup memory says that its first dimension counts the workgroups of a cluster (`gptq.cluster`); each stores to its own
    part and loads from all. After: each has a buffer for its own part, loads go to the shared memory of the workgroup that holds what they read
    (`nvvm.mapa`), and barriers that say so are those of the cluster.
  }];
  let dependentDialects = ["GPTQNVVMDialect", "arith::ArithDialect", "memref::MemRefDialect", "NVVM::NVVMDialect", "LLVM::LLVMDialect"];
}

def NVVMFormRingsPass : InterfacePass<"gptq-nvvm-form-rings", "::mlir::FunctionOpInterface"> {
  let summary = "Passes operands through a ring in shared memory, fed by warps of its own";
  let description = [{
    Before: a kernel whose plan says `path = ring` has a loop over parts of K around `gptq.group_dot`, and loads what that multiplies where it
    lies. After: four more warps fill `stages` places of workgroup memory, one for each part on its way. One copies weights, scales and zero
    points as they lie (`cp.async`, 16 bytes a thread), one the activations, and two put these, in place, in the order of the image that the unit
    reads (`gptq.image` on the `gptq.group_dot`): there two activations of each of four threads follow each other, in memory eight of one, and
    `stmatrix` exchanges them. While eight warps or fewer multiply more than 32 rows, eight more feed them: two copy activations, four order them.
    Three barriers for each place (`mbarrier`) say that activations have landed, that all is there and in order, and that
    everyone has multiplied what was there. Registers that those who feed do not need go to those who multiply (`nvvm.setmaxregister`), but for
    sixteen warps with more than 32 rows.
    The loop is unrolled over all places, so that the address of a place is a constant; over two for each turn, where scales are applied to the
    sums of more than 16 rows; over four with more than 32 rows, and eight warps or fewer unpack the weights of all of these but the first ahead (`gptq.ahead`).
    All that follows the loop is left to the threads that multiply; what they allocate there
    may lie where the ring was (`gptq.after_others`), behind a barrier of theirs. A loop whose operands do not
    go through a ring is left alone and reported as a missed remark.
  }];
  let dependentDialects = ["GPTQDialect", "GPTQNVVMDialect", "scf::SCFDialect", "arith::ArithDialect", "memref::MemRefDialect", "gpu::GPUDialect",
                           "NVVM::NVVMDialect", "LLVM::LLVMDialect"];
}

def NVVMLowerWarpgroupDotPass : InterfacePass<"gptq-nvvm-lower-warpgroup-dot", "::mlir::FunctionOpInterface"> {
  let summary = "Lowers group_dot to unpacking and wgmma";
  let description = [{
    Before: `gptq.group_dot` on an image of activations in workgroup memory (`gptq.image`). After: weights are unpacked as by gptq-nvvm-lower-group-dot
    into registers, four steps of the unit at a time, which `gptq_nvvm.warpgroup_mma` multiplies by the image while the next are unpacked. Bits of
    two codes and their exponent are one instruction (`lop3`), and all words are loaded before the first is unpacked, for here unpacking is what
    others wait for. Where
    nothing but the next product of the block wants the sums, the unit goes on: it is waited for at the end of the last one only, and what gives a
    place of a ring back is moved behind the next product's first steps. Weights that are ahead (`gptq.ahead`) are waited for, loaded and unpacked
    before the sums of the product in front are. Other
    `gptq.group_dot`s are left alone: their fragments are those of `mma.sync`.
  }];
  let dependentDialects = ["GPTQNVVMDialect", "vector::VectorDialect", "arith::ArithDialect", "memref::MemRefDialect", "gpu::GPUDialect",
                           "NVVM::NVVMDialect", "LLVM::LLVMDialect"];
}

def NVVMLowerGroupDotPass : InterfacePass<"gptq-nvvm-lower-group-dot", "::mlir::FunctionOpInterface"> {
  let summary = "Lowers group_dot to unpacking and mma.sync";
  let description = [{
    Before: `gptq.group_dot` and `gptq.group_sum` on shares of a tile. After: a warp's loads of packed words and activations, two bit operations
    for a pair of codes, and `nvvm.mma.sync`. A pair is unpacked by setting an exponent over its bits, which yields the code plus a power of
    two, exactly; that power times the sum of the activations, which one more `mma.sync` with ones yields, is subtracted from the sums.
    Which bits of which word a fragment takes is asked of the layout.
  }];
  let dependentDialects = ["scf::SCFDialect", "vector::VectorDialect", "arith::ArithDialect", "memref::MemRefDialect",
                           "gpu::GPUDialect", "math::MathDialect", "NVVM::NVVMDialect", "LLVM::LLVMDialect"];
}

def NVVMSelectHalfMathPass : InterfacePass<"gptq-nvvm-select-half-math", "::mlir::FunctionOpInterface"> {
  let summary = "Multiplies pairs of weights in packed halves";
  let description = [{
    Before: `gptq.group_dot` of a unit that multiplies pairs (`fma_f16x2`), a column for each thread. After: loads of packed words and of
    activations, an exponent set over two codes at a time, and `math.fma` and `arith.addf` on `vector<2xf16>` or `vector<2xbf16>`, whose sums
    are widened and added in f32 every `f16-rows` or `bf16-rows` rows of K: so often that they stay within 0.35 % (1.6 % for bf16) of the sum of
    magnitudes. All products of a block that read the same activations are lowered together. What is left is `gptq-nvvm-lower-vector-dot`'s,
    which multiplies one weight at a time.
  }];
  let dependentDialects = ["vector::VectorDialect", "arith::ArithDialect", "memref::MemRefDialect", "gpu::GPUDialect", "math::MathDialect",
                           "LLVM::LLVMDialect"];
  let options = [
    Option<"bf16", "bf16", "bool", "true", "Whether the chip multiplies pairs of bf16 (sm_80 and later)">,
    Option<"f16Rows", "f16-rows", "int64_t", "32", "Rows of K that are summed in f16, a multiple of 8">,
    Option<"bf16Rows", "bf16-rows", "int64_t", "8", "Rows of K that are summed in bf16, a multiple of 8">,
  ];
}

def NVVMLowerVectorDotPass : InterfacePass<"gptq-nvvm-lower-vector-dot", "::mlir::FunctionOpInterface"> {
  let summary = "Lowers group_dot to f32 arithmetic, a column for each thread";
  let description = [{
    Before: `gptq.group_dot` and `gptq.group_sum` of units whose threads hold a column each (`fma_f32`, and `fma_f16x2` where
    `gptq-nvvm-select-half-math` left them). After: loads of packed words and of activations; each code is shifted, masked, converted to f32 and
    multiplied. A sum of activations is shared by the threads of the warp.
  }];
  let dependentDialects = ["vector::VectorDialect", "arith::ArithDialect", "memref::MemRefDialect", "gpu::GPUDialect", "math::MathDialect"];
}

def NVVMOverlapLaunchesPass : InterfacePass<"gptq-nvvm-overlap-launches", "::mlir::FunctionOpInterface"> {
  let summary = "Lets a kernel start before the one in front of it has ended";
  let description = [{
    Before: a kernel on vectors and buffers. After: it allows the next kernel to start (`griddepcontrol.launch_dependents`), and
    waits for the one in front (`griddepcontrol.wait`) before the first access to memory other than weights (`gptq.weight`). Loads of weights
    outside of loops (gptq-prefetch-operands puts some there) go ahead; those marked `gptq.follows` come right behind the first loads of
    activations instead, which would otherwise be served after them. Where threads have different work (gptq-nvvm-form-rings), those that
    only copy weights do not wait. `gptq.overlap` says so on the kernel;
    sm_90 and later.
  }];
  let dependentDialects = ["NVVM::NVVMDialect"];
}

def NVVMLowerToLLVMPass : Pass<"gptq-nvvm-lower-to-llvm", "::mlir::ModuleOp"> {
  let summary = "Lowers the module of kernels to the LLVM and NVVM dialects and the GPU kernel ABI";
  let description = [{
    Before: kernels of cf, arith, math, vector, memref and gpu ops. After: LLVM and NVVM dialects only; each kernel is a grid function that takes
    one pointer per buffer and one to the values of M and P, as `runtime/abi/KernelABI.h` has it.
  }];
  let dependentDialects = ["LLVM::LLVMDialect", "NVVM::NVVMDialect"];
  let options = [Option<"streamBytes", "stream-bytes", "int64_t", "256", "What a load of weights asks the level-2 cache for: 64, 128, 256">];
}

#endif // GPTQ_CODEGEN_NVVM_PASSES_TD
