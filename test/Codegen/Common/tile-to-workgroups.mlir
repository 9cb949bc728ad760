// RUN: gptq-opt %s -pass-pipeline="builtin.module(func.func(gptq-tile-to-workgroups))" | FileCheck %s
// Tiles of tileM rows and tileN columns, panels along N; heads of the cache for attention.

#plan = #gptq.plan<mMin = 2, mMax = 64, unit = "fma_f32", tileM = 24, tileN = 32, tileK = 0, rows = 6, columns = 16, lanes = 8, path = "promote", partials = "shared", scale = "accumulator", zero = "accumulator">
#layout = #gptq.layout<bits = 4, blockN = 32, blockK = 8, order = "b0 b1 k0 k1 k2 n0 n1 n2 n3 n4">
// CHECK-LABEL: func @matmul
//       CHECK:   scf.forall (%[[M:.+]], %[[P:.+]]) = (0, 0) to (%{{.+}}, 4) step (24, 1) shared_outs
//       CHECK:     %[[SIZE:.+]] = affine.min
//   CHECK-DAG:     tensor.extract_slice %{{.+}}[%[[M]], 0] [%[[SIZE]], 64]
//   CHECK-DAG:     tensor.extract_slice %{{.+}}[%[[P]], 0, 0] [1, 8, 32]
//   CHECK-DAG:     tensor.extract_slice %{{.+}}[%[[P]], 0, 0] [1, 2, 32]
//       CHECK:     gptq.dequant_matmul {{.*}} outs(%{{.+}} : tensor<?x32xf32>)
//       CHECK:   } {mapping = [#gpu.block<y>, #gpu.block<x>]}
func.func @matmul(%x: tensor<?x64xf32>, %q: tensor<4x8x32xi32>, %s: tensor<4x2x32xf16>, %e: tensor<?x128xf32>) -> tensor<?x128xf32> {
  %0 = gptq.dequant_matmul ins(%x, %q, %s : tensor<?x64xf32>, tensor<4x8x32xi32>, tensor<4x2x32xf16>) outs(%e : tensor<?x128xf32>) {bits = 4, group_size = 32, zero_point = 8, layout = #layout, gptq.plan = #plan} -> tensor<?x128xf32>
  return %0 : tensor<?x128xf32>
}

// The position moves with the rows.
// CHECK-LABEL: func @attention
//  CHECK-SAME:   %[[AT:[a-z0-9]+]]: index
//       CHECK:   scf.forall (%[[M:.+]], %[[H:.+]]) = (0, 0) to (%{{.+}}, 2) step (24, 1)
//   CHECK-DAG:     memref.subview %{{.+}}[%[[H]], 0, 0] [1, 16, 8]
//   CHECK-DAG:     affine.apply #{{.+}}()[%[[AT]], %[[M]]]
//       CHECK:     gptq.attention {{.*}} heads = 2 : i64, kv_heads = 1 : i64
func.func @attention(%q: tensor<?x32xf32>, %p: index, %c: memref<2x16x8xf32>, %e: tensor<?x32xf32>) -> tensor<?x32xf32> {
  %0 = gptq.attention ins(%q at %p : tensor<?x32xf32>) state(%c, %c : memref<2x16x8xf32>, memref<2x16x8xf32>) outs(%e : tensor<?x32xf32>) {heads = 4, kv_heads = 2, head_dim = 8, scale = 1.0, gptq.plan = #plan} -> tensor<?x32xf32>
  return %0 : tensor<?x32xf32>
}
