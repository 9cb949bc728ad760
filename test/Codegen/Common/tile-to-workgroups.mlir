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

// Parts of the context count on from the first.
#parts = #gptq.plan<mMin = 1, mMax = 5, unit = "mma_m16n8k16", tileM = 1, tileN = 2, tileK = 0, rows = 1, columns = 1, lanes = 4, path = "direct", partials = "global", scale = "weight", zero = "weight", threads = 256>
// CHECK-LABEL: func @parts
//  CHECK-SAME:   %[[T:[a-z0-9]+]]: tensor<5x16xf32>
//       CHECK:   scf.forall (%[[H:.+]], %[[Q:.+]], %[[I:.+]]) = (0, 0, 0) to (2, 4, 5) step (1, 2, 1)
//   CHECK-DAG:     tensor.extract_slice %{{.+}}[0, %{{.+}}] [1, 16] [1, 1] : tensor<1x64xf32> to tensor<1x16xf32>
//   CHECK-DAG:     tensor.extract_slice %{{.+}}[0, %{{.+}}] [1, 8] [1, 1] : tensor<1x16xf32> to tensor<1x8xf32>
//   CHECK-DAG:     tensor.extract_slice %{{.+}}[%[[I]], %{{.+}}] [1, 16] [1, 1] : tensor<5x64xf32> to tensor<1x16xf32>
//   CHECK-DAG:     tensor.extract_slice %{{.+}}[%[[I]], %{{.+}}] [1, 4] [1, 1] : tensor<5x16xf32> to tensor<1x4xf32>
//       CHECK:     gptq.attention {{.*}} part %[[I]] : {{.*}} heads = 2 : i64, kv_heads = 1 : i64, parts = 5 : i64
//       CHECK:   scf.forall (%[[H:.+]]) in (8)
//       CHECK:     gptq.join_attention {{.*}} heads = 1 : i64
func.func @parts(%q: tensor<1x64xf32>, %k: tensor<1x16xf32>, %r: tensor<16x8xf32>, %p: index, %c: memref<2x16x8xf16>, %s: tensor<5x64xf32>, %t: tensor<5x16xf32>, %e: tensor<1x64xf32>) -> tensor<1x64xf32> {
  %c0 = arith.constant 0 : index
  %0:2 = gptq.attention ins(%q rotary %k, %k, %r at %p part %c0 : tensor<1x64xf32> rotary tensor<1x16xf32>, tensor<1x16xf32>, tensor<16x8xf32>) state(%c, %c : memref<2x16x8xf16>, memref<2x16x8xf16>) outs(%s, %t : tensor<5x64xf32>, tensor<5x16xf32>) {heads = 8, kv_heads = 2, head_dim = 8, scale = 1.0, parts = 5, gptq.plan = #parts} -> tensor<5x64xf32>, tensor<5x16xf32>
  %1 = gptq.join_attention ins(%0#0, %0#1 : tensor<5x64xf32>, tensor<5x16xf32>) outs(%e : tensor<1x64xf32>) {heads = 8, head_dim = 8, gptq.plan = #parts} -> tensor<1x64xf32>
  return %1 : tensor<1x64xf32>
}
