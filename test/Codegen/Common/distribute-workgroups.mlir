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

// -----
func.func @counts_m_or_constants(%x: memref<?x64xf32>, %m: index, %p: index) attributes {gptq.kernel} {
  // expected-error @+1 {{expects workgroups that count constants or M}}
  scf.forall (%i) in (%p) {
  } {mapping = [#gpu.block<x>]}
  return
}
