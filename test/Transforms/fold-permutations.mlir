// RUN: gptq-opt %s -gptq-fold-permutations | FileCheck %s
// The columns of gate and up take the order that the next layer reads; any other input keeps its permutation.

gptq.weight @gate : tensor<64x32xi4> = #gptq.codes<#gptq.data<"m", "g.qweight", 0, tensor<8x32xi32>>, bits = 4, packing = rows>
gptq.weight @gates : tensor<2x32xf16> = #gptq.data<"m", "g.scales", 0, tensor<2x32xf16>>
gptq.weight @up : tensor<32x64xf16> = #gptq.data<"m", "up.weight", 0, tensor<32x64xf16>>
gptq.weight @down : tensor<32x64xi4> = #gptq.codes<#gptq.data<"m", "d.qweight", 0, tensor<4x64xi32>>, bits = 4, packing = rows>
gptq.weight @order : tensor<32xi32> = #gptq.argsort<#gptq.data<"m", "d.g_idx", 0, tensor<32xi32>>, groups = 1>
// CHECK-DAG: gptq.weight @gate.for_down : tensor<64x32xi4> = #gptq.gather<@gate, order = @order, dim = 1>
// CHECK-DAG: gptq.weight @gates.for_down : tensor<2x32xf16> = #gptq.gather<@gates, order = @order, dim = 1>
// CHECK-DAG: gptq.weight @up.for_down : tensor<32x64xf16> = #gptq.gather<@up, order = @order, dim = 0>

// CHECK-LABEL: func @mlp
//   CHECK-DAG:   gptq.load_weight @gate.for_down
//   CHECK-DAG:   gptq.load_weight @up.for_down
//   CHECK-NOT:   perm
func.func @mlp(%x: tensor<?x64xf32>, %s: tensor<1x64xf16>, %i: tensor<?x32xf32>, %e: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %q = gptq.load_weight @gate : tensor<64x32xi4>
  %qs = gptq.load_weight @gates : tensor<2x32xf16>
  %w = gptq.load_weight @up : tensor<32x64xf16>
  %d = gptq.load_weight @down : tensor<32x64xi4>
  %p = gptq.load_weight @order : tensor<32xi32>
  %0 = gptq.dequant_matmul ins(%x, %q, %qs : tensor<?x64xf32>, tensor<64x32xi4>, tensor<2x32xf16>) outs(%i : tensor<?x32xf32>) {bits = 4, group_size = 32, zero_point = 8} -> tensor<?x32xf32>
  %1 = gptq.matmul ins(%x, %w : tensor<?x64xf32>, tensor<32x64xf16>) outs(%i : tensor<?x32xf32>) -> tensor<?x32xf32>
  %2 = gptq.activation ins(%0 times %1 : tensor<?x32xf32> times tensor<?x32xf32>) outs(%i : tensor<?x32xf32>) {function = #gptq.function<silu>} -> tensor<?x32xf32>
  %3 = gptq.dequant_matmul ins(%2, %d, %s perm %p : tensor<?x32xf32>, tensor<32x64xi4>, tensor<1x64xf16> perm tensor<32xi32>) outs(%e : tensor<?x64xf32>) {bits = 4, group_size = 32, zero_point = 8} -> tensor<?x64xf32>
  return %3 : tensor<?x64xf32>
}

// CHECK-LABEL: func @other_input
//       CHECK:   perm
func.func @other_input(%x: tensor<?x32xf32>, %s: tensor<1x64xf16>, %e: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %d = gptq.load_weight @down : tensor<32x64xi4>
  %p = gptq.load_weight @order : tensor<32xi32>
  %3 = gptq.dequant_matmul ins(%x, %d, %s perm %p : tensor<?x32xf32>, tensor<32x64xi4>, tensor<1x64xf16> perm tensor<32xi32>) outs(%e : tensor<?x64xf32>) {bits = 4, group_size = 32, zero_point = 8} -> tensor<?x64xf32>
  return %3 : tensor<?x64xf32>
}
