//===- NVVMOps.td - Instructions that no other dialect has --*- tablegen -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_CODEGEN_NVVM_OPS_TD
#define GPTQ_CODEGEN_NVVM_OPS_TD

include "mlir/IR/BuiltinAttributes.td"
include "mlir/IR/OpBase.td"
include "mlir/Interfaces/SideEffectInterfaces.td"

def GPTQNVVM_Dialect : Dialect {
  let name = "gptq_nvvm";
  let cppNamespace = "::mlir::gptq";
  let summary = "Instructions of NVIDIA GPUs that the nvvm dialect does not have";
  let description = "Made by passes of this room and lowered by gptq-nvvm-lower-to-llvm.";
}

class GPTQNVVM_Op<string mnemonic, list<Trait> traits = []> : Op<GPTQNVVM_Dialect, mnemonic, traits>;

def GPTQNVVM_PointerOp : GPTQNVVM_Op<"pointer", [Pure]> {
  let summary = "The address of an element, for instructions that take one";
  let description = "A pointer of the LLVM dialect in the address space of `buffer`: 3 for workgroup memory, 1 for all other.";
  let arguments = (ins AnyMemRef:$buffer, Variadic<Index>:$indices);
  let results = (outs AnyType:$pointer);
  let assemblyFormat = "$buffer `[` $indices `]` attr-dict `:` type($buffer) `->` type($pointer)";
}

def GPTQNVVM_WarpgroupMmaOp : GPTQNVVM_Op<"warpgroup_mma", [AttrSizedOperandSegments]> {
  let summary = "Starts a product of registers with a matrix in workgroup memory";
  let description = [{
    One `wgmma.mma_async` m64nNk16 whose first operand lies in registers: four warps multiply 64 x 16 elements, of which the four registers `a`
    hold a thread's share as pairs of `type`, by the 16 x N matrix that the descriptor `b` finds, and add them to `acc`, N / 2 sums of a
    thread; without `acc` sums start at zero. It runs on: sums and `a` must be left alone until `nvvm.wgmma.wait.group.sync.aligned`.
  }];
  let arguments = (ins Variadic<I32>:$a, I64:$b, Variadic<F32>:$acc, TypeAttrOf<AnyTypeOf<[F16, BF16]>>:$type);
  let results = (outs Variadic<F32>:$results);
  let assemblyFormat = "$type $b `by` $a (`acc` $acc^ `:` type($acc))? attr-dict `->` type($results)";
  let hasVerifier = 1;
}

#endif // GPTQ_CODEGEN_NVVM_OPS_TD
