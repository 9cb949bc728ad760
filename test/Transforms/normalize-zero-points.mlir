// RUN: gptq-opt %s -gptq-normalize-zero-points | FileCheck %s
// An offset moves into the constant, or into the view of the packed words: one in every 4-bit field.

gptq.weight @z : tensor<2x32xi4> = #gptq.codes<#gptq.data<"m", "q.qzeros", 0, tensor<2x4xi32>>, bits = 4, packing = columns>
// CHECK: gptq.weight @z.true : {{.*}} packing = columns, wordAdd = 286331153>

// CHECK-LABEL: func @constant
//       CHECK:   gptq.dequant_matmul {{.*}} zero_point = 8
//   CHECK-NOT:   zero_offset = 1
func.func @constant(%x: tensor<?x64xf32>, %q: tensor<64x32xi4>, %s: tensor<2x32xf16>, %e: tensor<?x32xf32>) -> tensor<?x32xf32> {
  %0 = gptq.dequant_matmul ins(%x, %q, %s : tensor<?x64xf32>, tensor<64x32xi4>, tensor<2x32xf16>) outs(%e : tensor<?x32xf32>) {bits = 4, group_size = 32, zero_point = 7, zero_offset = 1} -> tensor<?x32xf32>
  return %0 : tensor<?x32xf32>
}

// CHECK-LABEL: func @packed
//       CHECK:   %[[Z:.+]] = gptq.load_weight @z.true
//       CHECK:   gptq.dequant_matmul {{.*}} zeros %[[Z]]
//   CHECK-NOT:   zero_offset = 1
func.func @packed(%x: tensor<?x64xf32>, %q: tensor<64x32xi4>, %s: tensor<2x32xf16>, %e: tensor<?x32xf32>) -> tensor<?x32xf32> {
  %z = gptq.load_weight @z : tensor<2x32xi4>
  %0 = gptq.dequant_matmul ins(%x, %q, %s zeros %z : tensor<?x64xf32>, tensor<64x32xi4>, tensor<2x32xf16> zeros tensor<2x32xi4>) outs(%e : tensor<?x32xf32>) {bits = 4, group_size = 32, zero_offset = 1} -> tensor<?x32xf32>
  return %0 : tensor<?x32xf32>
}
