// RUN: gptq-opt %s -gptq-normalize-zero-points -gptq-normalize-act-order | FileCheck %s --check-prefix=NORMAL
// RUN: gptq-opt %s -gptq-to-normalized | FileCheck %s
// What is done to a weight is done to each weight of a stack, and the results are stacked.

gptq.weight @gate0 : tensor<64x32xi4> = #gptq.codes<#gptq.data<"m", "g0.qweight", 0, tensor<8x32xi32>>, bits = 4, packing = rows>
gptq.weight @gate1 : tensor<64x32xi4> = #gptq.codes<#gptq.data<"m", "g1.qweight", 0, tensor<8x32xi32>>, bits = 4, packing = rows>
gptq.weight @gate : tensor<2x64x32xi4> = #gptq.stack<[@gate0, @gate1]>
gptq.weight @up0 : tensor<64x32xi4> = #gptq.codes<#gptq.data<"m", "u0.qweight", 0, tensor<8x32xi32>>, bits = 4, packing = rows>
gptq.weight @up1 : tensor<64x32xi4> = #gptq.codes<#gptq.data<"m", "u1.qweight", 0, tensor<8x32xi32>>, bits = 4, packing = rows>
gptq.weight @up : tensor<2x64x32xi4> = #gptq.stack<[@up0, @up1]>
gptq.weight @down0 : tensor<32x64xi4> = #gptq.codes<#gptq.data<"m", "d0.qweight", 0, tensor<4x64xi32>>, bits = 4, packing = rows>
gptq.weight @down1 : tensor<32x64xi4> = #gptq.codes<#gptq.data<"m", "d1.qweight", 0, tensor<4x64xi32>>, bits = 4, packing = rows>
gptq.weight @down : tensor<2x32x64xi4> = #gptq.stack<[@down0, @down1]>
gptq.weight @scales0 : tensor<2x32xf16> = #gptq.data<"m", "s0", 0, tensor<2x32xf16>>
gptq.weight @scales1 : tensor<2x32xf16> = #gptq.data<"m", "s1", 0, tensor<2x32xf16>>
gptq.weight @scales : tensor<2x2x32xf16> = #gptq.stack<[@scales0, @scales1]>
gptq.weight @zeros0 : tensor<1x64xi4> = #gptq.codes<#gptq.data<"m", "z0", 0, tensor<1x8xi32>>, bits = 4, packing = columns>
gptq.weight @zeros1 : tensor<1x64xi4> = #gptq.codes<#gptq.data<"m", "z1", 0, tensor<1x8xi32>>, bits = 4, packing = columns>
gptq.weight @zeros : tensor<2x1x64xi4> = #gptq.stack<[@zeros0, @zeros1]>
gptq.weight @index0 : tensor<32xi32> = #gptq.data<"m", "i0", 0, tensor<32xi32>>
gptq.weight @index1 : tensor<32xi32> = #gptq.data<"m", "i1", 0, tensor<32xi32>>
gptq.weight @index : tensor<2x32xi32> = #gptq.stack<[@index0, @index1]>

// NORMAL-DAG: gptq.weight @zeros1.true : tensor<1x64xi4> = #gptq.codes<{{.*}}"z1"{{.*}} wordAdd = 286331153>
// NORMAL-DAG: gptq.weight @zeros.true : tensor<2x1x64xi4> = #gptq.stack<[@zeros0.true, @zeros1.true]>
// NORMAL-DAG: gptq.weight @index0.order : tensor<32xi32> = #gptq.argsort<{{.*}}"i0"
// NORMAL-DAG: gptq.weight @index.order : tensor<2x32xi32> = #gptq.stack<[@index0.order, @index1.order]>
// NORMAL-DAG: gptq.weight @down1.sorted : tensor<32x64xi4> = #gptq.gather<@down1, order = @index1.order, dim = 0>
// NORMAL-DAG: gptq.weight @down.sorted : tensor<2x32x64xi4> = #gptq.stack<[@down0.sorted, @down1.sorted]>
//     NORMAL: gptq.dequant_matmul {{.*}} zeros {{.*}} perm {{.*}} runs

// The order that expert 1 reads is that of its own gate and up columns. Gate and up are beside each other in each expert.
// CHECK-DAG: gptq.weight @gate1.for_down.sorted : tensor<64x32xi4> = #gptq.gather<@gate1, order = @index1.order, dim = 1>
// CHECK-DAG: gptq.weight @gate1.for_down.sorted.joined : tensor<64x64xi4> = #gptq.concat<[@gate1.for_down.sorted, @up1.for_down.sorted], dim = 1>
// CHECK-DAG: gptq.weight @[[PAIR:.+]] : tensor<2x64x64xi4> = #gptq.stack<[@gate0.for_down.sorted.joined, @gate1.for_down.sorted.joined]>
// CHECK-LABEL: func @experts
//       CHECK:   %[[Q:.+]] = gptq.load_weight @[[PAIR]]
//       CHECK:   %[[H:.+]] = gptq.dequant_matmul ins(%{{.+}}, %[[Q]], %{{.+}} runs {{.*}} epilogue = #gptq.epilogue<silu_mul>, {{.*}} -> tensor<?x2x32xf32>
//   CHECK-NOT:   perm
//       CHECK:   gptq.dequant_matmul ins(%[[H]]
func.func @experts(%x: tensor<?x2x64xf32>, %runs: tensor<3x2xi32>, %ds: tensor<2x1x64xf16>, %i: tensor<?x2x32xf32>, %e: tensor<?x2x64xf32>) -> tensor<?x2x64xf32> {
  %g = gptq.load_weight @gate : tensor<2x64x32xi4>
  %u = gptq.load_weight @up : tensor<2x64x32xi4>
  %d = gptq.load_weight @down : tensor<2x32x64xi4>
  %s = gptq.load_weight @scales : tensor<2x2x32xf16>
  %z = gptq.load_weight @zeros : tensor<2x1x64xi4>
  %p = gptq.load_weight @index : tensor<2x32xi32>
  %0 = gptq.dequant_matmul ins(%x, %g, %s runs %runs : tensor<?x2x64xf32>, tensor<2x64x32xi4>, tensor<2x2x32xf16> runs tensor<3x2xi32>) outs(%i : tensor<?x2x32xf32>) {bits = 4, group_size = 32, zero_point = 8} -> tensor<?x2x32xf32>
  %1 = gptq.dequant_matmul ins(%x, %u, %s runs %runs : tensor<?x2x64xf32>, tensor<2x64x32xi4>, tensor<2x2x32xf16> runs tensor<3x2xi32>) outs(%i : tensor<?x2x32xf32>) {bits = 4, group_size = 32, zero_point = 8} -> tensor<?x2x32xf32>
  %2 = gptq.activation ins(%0 times %1 : tensor<?x2x32xf32> times tensor<?x2x32xf32>) outs(%i : tensor<?x2x32xf32>) {function = #gptq.function<silu>} -> tensor<?x2x32xf32>
  %3 = gptq.dequant_matmul ins(%2, %d, %ds zeros %z g_idx %p runs %runs : tensor<?x2x32xf32>, tensor<2x32x64xi4>, tensor<2x1x64xf16> zeros tensor<2x1x64xi4> g_idx tensor<2x32xi32> runs tensor<3x2xi32>) outs(%e : tensor<?x2x64xf32>) {bits = 4, group_size = 32, zero_offset = 1} -> tensor<?x2x64xf32>
  return %3 : tensor<?x2x64xf32>
}
