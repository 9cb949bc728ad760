// RUN: gptq-opt %s -split-input-file -verify-diagnostics -pass-pipeline="builtin.module(func.func(gptq-cpu-lower-group-dot))" | FileCheck %s

#plan = #gptq.plan<mMin = 1, mMax = 1, unit = "fma_f32", tileM = 0, tileN = 32, tileK = 0, rows = 1, columns = 16, lanes = 8, path = "direct", partials = "global", scale = "accumulator", zero = "accumulator">
#layout = #gptq.layout<bits = 4, blockN = 32, blockK = 8, order = "b0 b1 k0 k1 k2 n0 n1 n2 n3 n4">
// One load a vector of lanes, then mask, convert and FMA for each of the 8 codes of a word; a group of 20 rows is two
// whole words and half of one. With one row, codes are multiplied where they lie (field 1 is 16 times its code, so the
// activation is divided by 16), but the last, which is shifted and needs no mask; and the panel is fetched ahead.
// CHECK-LABEL: func @codes
//       CHECK:   scf.for {{.*}} -> (vector<8xf32>, vector<8xf32>
//       CHECK:     memref.prefetch %{{.+}}, read, locality<3>, data : memref<1x8x32xi32>
//       CHECK:     memref.prefetch
//       CHECK:     vector.load %{{.+}} : memref<1x8x32xi32>, vector<8xi32>
//       CHECK:     vector.load %{{.+}} : memref<1x8x32xi32>, vector<8xi32>
//   CHECK-NOT:     vector.load
//       CHECK:     arith.andi
//       CHECK:     arith.sitofp
//       CHECK:     memref.load %{{.+}} : memref<1x64xf32>
//       CHECK:     vector.fma
//   CHECK-NOT:     arith.shrui
//       CHECK:     arith.constant dense<240> : vector<8xi32>
//       CHECK:     arith.constant 6.250000e-02 : f32
//       CHECK:     arith.mulf
//       CHECK:     vector.fma
//       CHECK:     arith.shrui
//       CHECK:     scf.yield
// The half word: four codes of two vectors.
//       CHECK:   vector.load %{{.+}} : memref<1x8x32xi32>, vector<8xi32>
// CHECK-COUNT-8: vector.fma
//   CHECK-NOT:   vector.fma
func.func @codes(%x: memref<1x64xf32>, %w: memref<1x8x32xi32>, %i: index, %acc: vector<1x16xf32>) -> vector<1x16xf32> {
  %0 = gptq.group_dot %x[%i, %i], %w[%i, %i] acc %acc {columns = array<i64: 0>, depth = 20 : i64, layout = #layout, plan = #plan} : memref<1x64xf32>, memref<1x8x32xi32>, vector<1x16xf32>
  return %0 : vector<1x16xf32>
}

// Where a field lies is asked of the layout: here field 1 of a word holds row 4.
#swapped = #gptq.layout<bits = 4, blockN = 32, blockK = 8, order = "b0 b1 k2 k0 k1 n0 n1 n2 n3 n4">
// CHECK-LABEL: func @permuted_fields
//       CHECK:   arith.sitofp
//       CHECK:   arith.sitofp
//       CHECK:   arith.addi %{{.+}}, %c4{{.*}} : index
func.func @permuted_fields(%x: memref<1x64xf32>, %w: memref<1x8x32xi32>, %i: index, %acc: vector<1x8xf32>) -> vector<1x8xf32> {
  %0 = gptq.group_dot %x[%i, %i], %w[%i, %i] acc %acc {columns = array<i64: 0>, depth = 8 : i64, layout = #swapped, plan = #plan} : memref<1x64xf32>, memref<1x8x32xi32>, vector<1x8xf32>
  return %0 : vector<1x8xf32>
}

// Scales and zero points that were not hoisted are applied to each weight.
// CHECK-LABEL: func @per_weight
//       CHECK:   arith.sitofp
//       CHECK:   arith.subf
//       CHECK:   arith.mulf
//       CHECK:   vector.fma
func.func @per_weight(%x: memref<1x64xf32>, %w: memref<1x8x32xi32>, %i: index, %acc: vector<1x8xf32>, %s: vector<8xf32>) -> vector<1x8xf32> {
  %0 = gptq.group_dot %x[%i, %i], %w[%i, %i] acc %acc scale %s zero %s {columns = array<i64: 8>, depth = 8 : i64, layout = #layout, plan = #plan} : memref<1x64xf32>, memref<1x8x32xi32>, vector<1x8xf32> scale vector<8xf32> zero vector<8xf32>
  return %0 : vector<1x8xf32>
}

// Dense weights are widened, not unpacked; activations are read through a permutation.
#dense = #gptq.layout<bits = 16, blockN = 32, blockK = 1, order = "b0 b1 b2 b3 n0 n1 n2 n3 n4">
// CHECK-LABEL: func @dense
//       CHECK:   vector.load %{{.+}} : memref<1x64x32xf16>, vector<8xf16>
//       CHECK:   arith.extf
//   CHECK-NOT:   arith.shrui
//       CHECK:   memref.load %{{.+}} : memref<64xi32>
func.func @dense(%x: memref<1x64xf32>, %w: memref<1x64x32xf16>, %p: memref<64xi32>, %i: index, %acc: vector<1x8xf32>) -> vector<1x8xf32> {
  %0 = gptq.group_dot %x[%i, %i] perm %p, %w[%i, %i] acc %acc {columns = array<i64: 0>, depth = 64 : i64, layout = #dense, plan = #plan} : memref<1x64xf32> perm memref<64xi32>, memref<1x64x32xf16>, vector<1x8xf32>
  return %0 : vector<1x8xf32>
}

// Words of three bits are put together from their planes, all eight slots at once: the third bits are shifted to their place
// and take it in the word that holds the others (0x44444444 and what is left). Slots keep a bit free, so even the uppermost
// is multiplied in place. Of the six lines of a block every word fetches its part.
#three = #gptq.layout<bits = 3, blockN = 32, blockK = 32, order = "b0 k3 k2 k0 k1 n0 n1 n2 n3 n4 k4 | k3 k4 k2 k0 k1 n0 n1 n2 n3 n4">
// CHECK-LABEL: func @planes
//       CHECK:   memref.prefetch
//   CHECK-NOT:   memref.prefetch
//       CHECK:   %[[LOW:.+]] = vector.load %{{.+}}[%{{.+}}, %{{.+}}, %c0{{.*}}] : memref<1x2x96xi32>, vector<8xi32>
//       CHECK:   %[[HIGH:.+]] = vector.load %{{.+}}[%{{.+}}, %{{.+}}, %c64{{.*}}] : memref<1x2x96xi32>, vector<8xi32>
//       CHECK:   %[[BIT:.+]] = arith.shli %[[HIGH]]
//       CHECK:   %[[THIRD:.+]] = arith.constant dense<1145324612>
//       CHECK:   %[[OF_HIGH:.+]] = arith.andi %[[BIT]], %[[THIRD]]
//       CHECK:   %[[OTHERS:.+]] = arith.constant dense<-1145324613>
//       CHECK:   %[[OF_LOW:.+]] = arith.andi %[[LOW]], %[[OTHERS]]
//       CHECK:   arith.ori %[[OF_HIGH]], %[[OF_LOW]]
//       CHECK:   arith.sitofp
//       CHECK:   memref.prefetch
func.func @planes(%x: memref<1x64xf32>, %w: memref<1x2x96xi32>, %i: index, %acc: vector<1x16xf32>) -> vector<1x16xf32> {
  %0 = gptq.group_dot %x[%i, %i], %w[%i, %i] acc %acc {columns = array<i64: 0>, depth = 64 : i64, layout = #three, plan = #plan} : memref<1x64xf32>, memref<1x2x96xi32>, vector<1x16xf32>
  return %0 : vector<1x16xf32>
}

// With bytes of activations codes stay integers: four rows of a column in one product, sums of 16 bits for two blocks (18
// products of 7 * 128 twice fit, a block has 8), then of 32.
// CHECK-LABEL: func @bytes
//   CHECK-NOT:   memref.load %{{.+}} : memref<1x64xf32>
//       CHECK:   scf.for {{.*}} -> (vector<8xi32>,
//       CHECK:     scf.for %{{.+}} = %{{.+}} to %c2{{.*}} -> (vector<16xi16>,
//       CHECK:       memref.prefetch
//       CHECK:       vector.load %{{.+}} : memref<1x288xi8>, vector<4xi8>
//       CHECK:       llvm.call_intrinsic "llvm.x86.avx2.pmadd.ub.sw"(%{{.+}}) : (vector<32xi8>, vector<32xi8>) -> vector<16xi16>
//   CHECK-NOT:       arith.sitofp
//       CHECK:     llvm.call_intrinsic "llvm.x86.avx2.pmadd.wd"
//       CHECK:   arith.sitofp
//       CHECK:   vector.fma
func.func @bytes(%x: memref<1x64xf32>, %w: memref<1x2x96xi32>, %b: memref<1x288xi8>, %u: vector<1xf32>, %i: index, %acc: vector<1x16xf32>) -> vector<1x16xf32> {
  %0 = gptq.group_dot %x[%i, %i] split %b by %u, %w[%i, %i] acc %acc {columns = array<i64: 0>, depth = 64 : i64, layout = #three, plan = #plan} : memref<1x64xf32> split memref<1x288xi8> by vector<1xf32>, memref<1x2x96xi32>, vector<1x16xf32>
  return %0 : vector<1x16xf32>
}

// With vpdpbusd four products of bytes are added to a sum of 32 bits at once: nothing to widen, whatever the width of codes.
#vnni = #gptq.plan<mMin = 1, mMax = 1, unit = "fma_f32_vnni", tileM = 0, tileN = 32, tileK = 0, rows = 1, columns = 32, lanes = 16, path = "split", partials = "global", scale = "accumulator", zero = "accumulator">
#four = #gptq.layout<bits = 4, blockN = 32, blockK = 8, order = "b0 b1 k2 k0 k1 n0 n1 n2 n3 n4">
// CHECK-LABEL: func @bytes_added_wide
//   CHECK-NOT:   memref.load %{{.+}} : memref<1x64xf32>
//   CHECK-NOT:   pmadd
//       CHECK:   scf.for %{{.+}} = %{{.+}} to %c8{{.*}} -> (vector<16xi32>,
//       CHECK:     llvm.call_intrinsic "llvm.x86.avx512.vpdpbusd.512"(%{{.+}}) : (vector<16xi32>, vector<64xi8>, vector<64xi8>) -> vector<16xi32>
//   CHECK-NOT:     arith.sitofp
//       CHECK:     scf.yield
//       CHECK:   arith.sitofp
//       CHECK:   vector.fma
func.func @bytes_added_wide(%x: memref<1x64xf32>, %w: memref<1x8x32xi32>, %b: memref<1x288xi8>, %u: vector<1xf32>, %i: index, %acc: vector<1x32xf32>) -> vector<1x32xf32> {
  %0 = gptq.group_dot %x[%i, %i] split %b by %u, %w[%i, %i] acc %acc {columns = array<i64: 0>, depth = 64 : i64, layout = #four, plan = #vnni} : memref<1x64xf32> split memref<1x288xi8> by vector<1xf32>, memref<1x8x32xi32>, vector<1x32xf32>
  return %0 : vector<1x32xf32>
}

// Scales that were not hoisted need f32.
// CHECK-LABEL: func @bytes_with_scales
//   CHECK-NOT:   llvm.call_intrinsic
//       CHECK:   arith.mulf
func.func @bytes_with_scales(%x: memref<1x64xf32>, %w: memref<1x2x96xi32>, %b: memref<1x288xi8>, %u: vector<1xf32>, %i: index, %acc: vector<1x8xf32>, %s: vector<8xf32>) -> vector<1x8xf32> {
  %0 = gptq.group_dot %x[%i, %i] split %b by %u, %w[%i, %i] acc %acc scale %s {columns = array<i64: 0>, depth = 64 : i64, layout = #three, plan = #plan} : memref<1x64xf32> split memref<1x288xi8> by vector<1xf32>, memref<1x2x96xi32>, vector<1x8xf32> scale vector<8xf32>
  return %0 : vector<1x8xf32>
}

// -----
#plan = #gptq.plan<mMin = 1, mMax = 1, unit = "fma_f32", tileM = 0, tileN = 32, tileK = 0, rows = 1, columns = 16, lanes = 8, path = "direct", partials = "global", scale = "accumulator", zero = "accumulator">
#apart = #gptq.layout<bits = 3, blockN = 32, blockK = 32, order = "b0 k3 k2 k0 k1 n0 n1 n2 n3 n4 k4 | k0 k1 k2 k3 k4 n0 n1 n2 n3 n4">
func.func @planes_go_together(%x: memref<1x64xf32>, %w: memref<1x2x96xi32>, %i: index, %acc: vector<1x16xf32>) -> vector<1x16xf32> {
  // expected-error @+1 {{expects a layout with 8 columns side by side, one word each, but found}}
  %0 = gptq.group_dot %x[%i, %i], %w[%i, %i] acc %acc {columns = array<i64: 0>, depth = 64 : i64, layout = #apart, plan = #plan} : memref<1x64xf32>, memref<1x2x96xi32>, vector<1x16xf32>
  return %0 : vector<1x16xf32>
}
