// RUN: gptq-opt %s -gptq-normalize-act-order | FileCheck %s
// The rows of the codes come sorted by group, and the op reads its input through the same order.

gptq.weight @q : tensor<64x32xi4> = #gptq.codes<#gptq.data<"m", "q.qweight", 0, tensor<8x32xi32>>, bits = 4, packing = rows>
gptq.weight @g : tensor<64xi32> = #gptq.data<"m", "q.g_idx", 1024, tensor<64xi32>>
// CHECK-DAG: gptq.weight @q.sorted : tensor<64x32xi4> = #gptq.gather<@q, order = @g.order, dim = 0>
// CHECK-DAG: gptq.weight @g.order : tensor<64xi32> = #gptq.argsort<{{.*}}, groups = 2>

// CHECK-LABEL: func @act_order
//   CHECK-DAG:   %[[Q:.+]] = gptq.load_weight @q.sorted
//   CHECK-DAG:   %[[P:.+]] = gptq.load_weight @g.order
//       CHECK:   gptq.dequant_matmul ins(%{{.+}}, %[[Q]], %{{.+}} perm %[[P]] :
//   CHECK-NOT:   g_idx %
func.func @act_order(%x: tensor<?x64xf32>, %s: tensor<2x32xf16>, %e: tensor<?x32xf32>) -> tensor<?x32xf32> {
  %q = gptq.load_weight @q : tensor<64x32xi4>
  %g = gptq.load_weight @g : tensor<64xi32>
  %0 = gptq.dequant_matmul ins(%x, %q, %s g_idx %g : tensor<?x64xf32>, tensor<64x32xi4>, tensor<2x32xf16> g_idx tensor<64xi32>) outs(%e : tensor<?x32xf32>) {bits = 4, group_size = 32, zero_point = 8} -> tensor<?x32xf32>
  return %0 : tensor<?x32xf32>
}
