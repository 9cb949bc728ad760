//===- Passes.td - Code generation for CPUs -----------------*- tablegen -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_CODEGEN_CPU_PASSES_TD
#define GPTQ_CODEGEN_CPU_PASSES_TD

include "mlir/Pass/PassBase.td"

def CPUPlanPass : Pass<"gptq-cpu-plan", "::mlir::ModuleOp"> {
  let summary = "Plans every op for a CPU";
  let description = [{
    Before: a normalized model. After: each model op carries `gptq.plans`, one `#gptq.plan` per range of M; nothing is rewritten. Sizes follow from
    the vector width and registers of `cpu` and from the shape. With `reasons` each op also carries `gptq.reasons`, for readers only: one
    dictionary per plan that says, by field, why the field is as it is.
  }];
  let dependentDialects = ["GPTQDialect"];
  let options = [
    Option<"cpu", "cpu", "std::string", "\"x86-64-v3\"", "Instruction set level: x86-64-v3, x86-64-v4, x86-64-v4-vnni">,
    Option<"promote", "promote", "bool", "true", "Let plans copy permuted activations to workgroup memory">,
    Option<"bufferPartials", "buffer-partials", "bool", "true", "Let plans keep partial sums in workgroup memory">,
    Option<"hoistScales", "hoist-scales", "bool", "true", "Let plans apply scales once per group">,
    Option<"foldZeros", "fold-zeros", "bool", "true", "Let plans subtract zero points once per group">,
    Option<"reasons", "reasons", "bool", "false", "Also write down the reasons">,
  ];
}

def CPULowerGroupDotPass : InterfacePass<"gptq-cpu-lower-group-dot", "::mlir::FunctionOpInterface"> {
  let summary = "Lowers group_dot to unpacking and f32 FMA, or to products of bytes";
  let description = [{
    Before: `gptq.group_dot` and `gptq.group_sum` on register tiles. After: loops over packed words: one load per vector of lanes, a shift, mask
    and conversion per code, an FMA per row, in vectors of the plan's lanes. Words of a layout of several planes are put together first, a
    shift and a mask for each plane. Which row a field of a word holds is asked of the layout. With activations split into bytes, one row,
    and scales and zero points hoisted, codes stay integers: four of a column at a time are multiplied by bytes (`vpmaddubsw`), sums are
    kept in 16 bits as long as they fit, then in 32, and converted once for a group; where the plan's unit has `vpdpbusd`, they are of 32
    bits from the start.
  }];
  let dependentDialects = ["scf::SCFDialect", "vector::VectorDialect", "arith::ArithDialect", "memref::MemRefDialect", "LLVM::LLVMDialect"];
}

def CPULowerToLLVMPass : Pass<"gptq-cpu-lower-to-llvm", "::mlir::ModuleOp"> {
  let summary = "Lowers the module of kernels to the LLVM dialect and the CPU kernel ABI";
  let description = [{
    Before: kernels of cf, arith, math, vector and memref ops. After: LLVM dialect only; each kernel is a function
    `(args, dims, workgroup, scratch)` as `runtime/abi/KernelABI.h` has it.
  }];
  let dependentDialects = ["LLVM::LLVMDialect"];
}

#endif // GPTQ_CODEGEN_CPU_PASSES_TD
