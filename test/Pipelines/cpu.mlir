// RUN: gptq-opt %s -pass-pipeline="builtin.module(gptq-cpu{target=x86-64-v3})" | FileCheck %s
// RUN: gptq-opt %s -pass-pipeline="builtin.module(gptq-cpu{vectorize=false})" | FileCheck %s --check-prefix=SCALAR
// The whole way: kernels in the LLVM dialect behind the kernel ABI, the program beside them.

gptq.weight @q : tensor<172x40xi4> = #gptq.codes<#gptq.data<"m.safetensors", "q.qweight", 0, tensor<22x40xi32>>, bits = 4, packing = rows>
gptq.weight @s : tensor<6x40xbf16> = #gptq.data<"m.safetensors", "q.scales", 5632, tensor<6x40xbf16>>
gptq.weight @g : tensor<172xi32> = #gptq.data<"m.safetensors", "q.g_idx", 7000, tensor<172xi32>>

// CHECK-LABEL: func.func @layer
//       CHECK:   gptq.dispatch "layer" [@kernels::@dequant_matmul_0_m1, @kernels::@dequant_matmul_1_m512]
//       CHECK: module @kernels
//   CHECK-DAG:   llvm.func internal @dequant_matmul_0_m1.body{{.*}}always_inline
//   CHECK-DAG:   llvm.func @dequant_matmul_0_m1(%{{.+}}: !llvm.ptr, %{{.+}}: !llvm.ptr, %{{.+}}: i64, %{{.+}}: !llvm.ptr) attributes {gptq.grid = [array<i64: 0, 0, 2, 1>], gptq.kernel, gptq.scratch_bytes = 704 : i64}
//   CHECK-DAG:   llvm.func @dequant_matmul_1_m512({{.*}} attributes {gptq.grid = [array<i64: 1, 0, 0, {{[0-9]+}}>, array<i64: 0, 0, 2, 1>]
//   CHECK-DAG:   llvm.intr.fmuladd({{.*}}) : (vector<8xf32>, vector<8xf32>, vector<8xf32>) -> vector<8xf32>
//   CHECK-NOT:   builtin.unrealized_conversion_cast
//   CHECK-NOT:   llvm.fpext {{.*}}bf16
// SCALAR-LABEL: module @kernels
//   SCALAR-NOT:   vector<8xf32>
func.func @layer(%x: tensor<?x172xf32> {gptq.name = "x"}) -> (tensor<?x40xf32> {gptq.name = "y"}) attributes {gptq.max_m = 512 : i64} {
  %c0 = arith.constant 0 : index
  %m = tensor.dim %x, %c0 : tensor<?x172xf32>
  %e = tensor.empty(%m) : tensor<?x40xf32>
  %q = gptq.load_weight @q : tensor<172x40xi4>
  %s = gptq.load_weight @s : tensor<6x40xbf16>
  %g = gptq.load_weight @g : tensor<172xi32>
  %y = gptq.dequant_matmul ins(%x, %q, %s g_idx %g : tensor<?x172xf32>, tensor<172x40xi4>, tensor<6x40xbf16> g_idx tensor<172xi32>)
      outs(%e : tensor<?x40xf32>) {bits = 4, group_size = 32, zero_point = 8, gptq.label = "layer"} -> tensor<?x40xf32>
  return %y : tensor<?x40xf32>
}
