// RUN: gptq-opt %s -gptq-fuse-parallel-matmuls | FileCheck %s

gptq.weight @q : tensor<64x32xi4> = #gptq.codes<#gptq.data<"m", "q.qweight", 0, tensor<8x32xi32>>, bits = 4, packing = rows>
gptq.weight @qs : tensor<2x32xf16> = #gptq.data<"m", "q.scales", 0, tensor<2x32xf16>>
gptq.weight @k : tensor<64x16xi4> = #gptq.codes<#gptq.data<"m", "k.qweight", 0, tensor<8x16xi32>>, bits = 4, packing = rows>
gptq.weight @ks : tensor<2x16xf16> = #gptq.data<"m", "k.scales", 0, tensor<2x16xf16>>
gptq.weight @ks1 : tensor<1x16xf16> = #gptq.data<"m", "k.scales", 0, tensor<1x16xf16>>
// CHECK-DAG: gptq.weight @q.joined : tensor<64x48xi4> = #gptq.concat<[@q, @k], dim = 1>
// CHECK-DAG: gptq.weight @qs.joined : tensor<2x48xf16> = #gptq.concat<[@qs, @ks], dim = 1>

// CHECK-LABEL: func @agree
//       CHECK:   %[[Y:.+]] = gptq.dequant_matmul {{.*}}gptq.label = "layers.0.q_proj+k_proj"{{.*}} -> tensor<?x48xf32>
//   CHECK-DAG:   tensor.extract_slice %[[Y]][0, 0] [%{{.+}}, 32] [1, 1]
//   CHECK-DAG:   tensor.extract_slice %[[Y]][0, 32] [%{{.+}}, 16] [1, 1]
//   CHECK-NOT:   gptq.dequant_matmul
func.func @agree(%x: tensor<?x64xf32>, %e: tensor<?x32xf32>, %f: tensor<?x16xf32>) -> (tensor<?x32xf32>, tensor<?x16xf32>) {
  %q = gptq.load_weight @q : tensor<64x32xi4>
  %qs = gptq.load_weight @qs : tensor<2x32xf16>
  %k = gptq.load_weight @k : tensor<64x16xi4>
  %ks = gptq.load_weight @ks : tensor<2x16xf16>
  %0 = gptq.dequant_matmul ins(%x, %q, %qs : tensor<?x64xf32>, tensor<64x32xi4>, tensor<2x32xf16>) outs(%e : tensor<?x32xf32>) {bits = 4, group_size = 32, zero_point = 8, gptq.label = "layers.0.q_proj"} -> tensor<?x32xf32>
  %1 = gptq.dequant_matmul ins(%x, %k, %ks : tensor<?x64xf32>, tensor<64x16xi4>, tensor<2x16xf16>) outs(%f : tensor<?x16xf32>) {bits = 4, group_size = 32, zero_point = 8, gptq.label = "layers.0.k_proj"} -> tensor<?x16xf32>
  return %0, %1 : tensor<?x32xf32>, tensor<?x16xf32>
}

// Different group sizes stay apart.
// CHECK-LABEL: func @differ
// CHECK-COUNT-2: gptq.dequant_matmul
func.func @differ(%x: tensor<?x64xf32>, %e: tensor<?x32xf32>, %f: tensor<?x16xf32>) -> (tensor<?x32xf32>, tensor<?x16xf32>) {
  %q = gptq.load_weight @q : tensor<64x32xi4>
  %qs = gptq.load_weight @qs : tensor<2x32xf16>
  %k = gptq.load_weight @k : tensor<64x16xi4>
  %ks = gptq.load_weight @ks1 : tensor<1x16xf16>
  %0 = gptq.dequant_matmul ins(%x, %q, %qs : tensor<?x64xf32>, tensor<64x32xi4>, tensor<2x32xf16>) outs(%e : tensor<?x32xf32>) {bits = 4, group_size = 32, zero_point = 8} -> tensor<?x32xf32>
  %1 = gptq.dequant_matmul ins(%x, %k, %ks : tensor<?x64xf32>, tensor<64x16xi4>, tensor<1x16xf16>) outs(%f : tensor<?x16xf32>) {bits = 4, group_size = 64, zero_point = 8} -> tensor<?x16xf32>
  return %0, %1 : tensor<?x32xf32>, tensor<?x16xf32>
}
