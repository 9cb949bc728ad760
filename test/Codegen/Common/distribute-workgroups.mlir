// RUN: gptq-opt %s -split-input-file -verify-diagnostics -pass-pipeline="builtin.module(func.func(gptq-distribute-workgroups))" | FileCheck %s
// The body runs at the tile its workgroup's number stands for; the last loop runs fastest.

// CHECK-LABEL: func @grid(
//  CHECK-SAME:   %[[X:[a-z0-9]+]]: memref<?x64xf32>, %{{.+}}: index, %{{.+}}: index, %[[WG:[a-z0-9]+]]: index)
//  CHECK-SAME:   gptq.grid = [array<i64: 1, 0, 0, 24>, array<i64: 0, 0, 64, 16>]
//       CHECK:   %[[J:.+]] = arith.remui %[[WG]], %c4
//       CHECK:   %[[I:.+]] = arith.divui %[[WG]], %c4
//   CHECK-DAG:   affine.apply #{{.+}}()[%[[I]]]
//   CHECK-DAG:   affine.apply #{{.+}}()[%[[J]]]
//   CHECK-NOT:   scf.forall
func.func @grid(%x: memref<?x64xf32>, %m: index, %p: index) attributes {gptq.kernel} {
  %c0 = arith.constant 0 : index
  %v = arith.constant 0.0 : f32
  %rows = memref.dim %x, %c0 : memref<?x64xf32>
  scf.forall (%i, %j) = (0, 0) to (%rows, 64) step (24, 16) {
    memref.store %v, %x[%i, %j] : memref<?x64xf32>
  } {mapping = [#gpu.block<y>, #gpu.block<x>]}
  return
}

// CHECK-LABEL: func @single
//  CHECK-SAME:   gptq.grid = [array<i64: 0, 0, 1, 1>]
func.func @single(%x: memref<1x64xf32>, %m: index, %p: index) attributes {gptq.kernel} {
  return
}

// Workgroups that share K follow each other, and have the same tile.
// CHECK-LABEL: func @cluster(
//  CHECK-SAME:   %[[WG:[a-z0-9]+]]: index) attributes {gptq.cluster = 2 : i64, gptq.grid = [array<i64: 0, 0, 8, 4>, array<i64: 0, 0, 2, 1>]
//       CHECK:   %[[TILE:.+]] = arith.divui %[[WG]], %c2
//       CHECK:   affine.apply #{{.+}}()[%[[TILE]]]
#halves = #gptq.plan<mMin = 1, mMax = 1, unit = "wgmma_m64k16", tileM = 16, tileN = 64, tileK = 0, rows = 16, columns = 16, lanes = 32, path = "ring", partials = "shared", scale = "weight", zero = "weight", threads = 128, stepK = 64, stages = 2, cluster = 2>
#layout = #gptq.layout<bits = 4, blockN = 16, blockK = 64, order = "b0 b1 n3 k1 k0 k2 k5 k3 k4 n0 n1 n2">
func.func @cluster(%x: memref<1x256xf16>, %q: memref<8x4x128xi32>, %s: memref<8x2x16xf16>, %e: memref<1x128xf32>, %m: index, %p: index) attributes {gptq.kernel} {
  scf.forall (%i) = (0) to (8) step (4) {
    %w = memref.subview %q[%i, 0, 0] [4, 4, 128] [1, 1, 1] : memref<8x4x128xi32> to memref<4x4x128xi32, strided<[512, 128, 1], offset: ?>>
    %t = memref.subview %s[%i, 0, 0] [4, 2, 16] [1, 1, 1] : memref<8x2x16xf16> to memref<4x2x16xf16, strided<[32, 16, 1], offset: ?>>
    %c = affine.apply affine_map<(d0) -> (d0 * 16)>(%i)
    %y = memref.subview %e[0, %c] [1, 64] [1, 1] : memref<1x128xf32> to memref<1x64xf32, strided<[128, 1], offset: ?>>
    gptq.dequant_matmul ins(%x, %w, %t : memref<1x256xf16>, memref<4x4x128xi32, strided<[512, 128, 1], offset: ?>>, memref<4x2x16xf16, strided<[32, 16, 1], offset: ?>>) outs(%y : memref<1x64xf32, strided<[128, 1], offset: ?>>) {bits = 4, group_size = 128, zero_point = 8, layout = #layout, gptq.plan = #halves}
  } {mapping = [#gpu.block<x>]}
  return
}

// -----
func.func @counts_m_or_constants(%x: memref<?x64xf32>, %m: index, %p: index) attributes {gptq.kernel} {
  // expected-error @+1 {{expects workgroups that count constants or M}}
  scf.forall (%i) in (%p) {
  } {mapping = [#gpu.block<x>]}
  return
}
