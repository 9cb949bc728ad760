// RUN: gptq-opt %s -gptq-cpu=target=x86-64-v3 | FileCheck %s --check-prefix=CPU
// RUN: gptq-opt %s -gptq-nvvm=target=sm_90a | FileCheck %s --check-prefix=NVVM
// The weights of experts go the way of any weight, down to the instructions: nothing is copied, and the grid counts runs.

gptq.weight @q0 : tensor<64x80xi4> = #gptq.codes<#gptq.data<"m", "q0", 0, tensor<8x80xi32>>, bits = 4, packing = rows>
gptq.weight @q1 : tensor<64x80xi4> = #gptq.codes<#gptq.data<"m", "q1", 0, tensor<8x80xi32>>, bits = 4, packing = rows>
gptq.weight @q2 : tensor<64x80xi4> = #gptq.codes<#gptq.data<"m", "q2", 0, tensor<8x80xi32>>, bits = 4, packing = rows>
gptq.weight @q : tensor<3x64x80xi4> = #gptq.stack<[@q0, @q1, @q2]>
gptq.weight @s0 : tensor<2x80xf16> = #gptq.data<"m", "s0", 0, tensor<2x80xf16>>
gptq.weight @s : tensor<3x2x80xf16> = #gptq.stack<[@s0, @s0, @s0]>
gptq.weight @p0 : tensor<64xi32> = #gptq.data<"m", "p0", 0, tensor<64xi32>>
gptq.weight @p : tensor<3x64xi32> = #gptq.stack<[@p0, @p0, @p0]>

// CPU-DAG: llvm.func @dequant_matmul_{{.*}}_m1({{.*}}gptq.grid = [array<i64: 0, 0, 2, 1>, array<i64: 0, 0, 3, 1>]
// CPU-DAG: llvm.func @dequant_matmul_{{.*}}_m64({{.*}}gptq.grid = [array<i64: 0, 0, 3, 1>, array<i64: 0, 0, 3, 1>]

// A workgroup takes a run and permutes its rows; then one takes a run and a tile of 16 columns.
// NVVM-DAG: llvm.func @stage_{{.*}}_m1({{.*}}gptq.grid = [array<i64: 0, 0, 2, 1>]
// NVVM-DAG: llvm.func @dequant_matmul_{{.*}}_m1({{.*}}gptq.grid = [array<i64: 0, 0, 2, 1>, array<i64: 0, 0, 5, 1>]
// NVVM-DAG: llvm.func @dequant_matmul_{{.*}}_m8({{.*}}gptq.grid = [array<i64: 0, 0, 3, 1>, array<i64: 0, 0, 5, 1>]
// NVVM-DAG: nvvm.mma.sync
func.func @experts(%x: tensor<?x2x64xf32>, %runs: tensor<4x2xi32>) -> tensor<?x2x80xf32> attributes {gptq.max_m = 64 : i64} {
  %c0 = arith.constant 0 : index
  %m = tensor.dim %x, %c0 : tensor<?x2x64xf32>
  %q = gptq.load_weight @q : tensor<3x64x80xi4>
  %s = gptq.load_weight @s : tensor<3x2x80xf16>
  %p = gptq.load_weight @p : tensor<3x64xi32>
  %e = tensor.empty(%m) : tensor<?x2x80xf32>
  %0 = gptq.dequant_matmul ins(%x, %q, %s g_idx %p runs %runs : tensor<?x2x64xf32>, tensor<3x64x80xi4>, tensor<3x2x80xf16> g_idx tensor<3x64xi32> runs tensor<4x2xi32>) outs(%e : tensor<?x2x80xf32>) {bits = 4, group_size = 32, zero_point = 8} -> tensor<?x2x80xf32>
  return %0 : tensor<?x2x80xf32>
}
