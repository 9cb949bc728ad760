// RUN: gptq-opt %s -split-input-file -verify-diagnostics -pass-pipeline="builtin.module(func.func(gptq-nvvm-lower-vector-dot))" | FileCheck %s

#plan = #gptq.plan<mMin = 1, mMax = 1, unit = "fma_f32", tileM = 1, tileN = 32, tileK = 0, rows = 1, columns = 32, lanes = 32, path = "direct", partials = "shared", scale = "accumulator", zero = "accumulator", threads = 64, stepK = 32>
#half = #gptq.plan<mMin = 1, mMax = 1, unit = "fma_f16x2", tileM = 1, tileN = 32, tileK = 0, rows = 1, columns = 32, lanes = 32, path = "direct", partials = "shared", scale = "accumulator", zero = "weight", threads = 64, stepK = 32, loadBits = 32>
#layout = #gptq.layout<bits = 4, blockN = 32, blockK = 32, order = "b0 b1 k1 k2 k0 k3 k4 n0 n1 n2 n3 n4">
#dense = #gptq.layout<bits = 16, blockN = 32, blockK = 32, order = "b0 b1 b2 b3 k0 k1 k2 n0 n1 n2 n3 n4 k3 k4">

// Each code is masked, converted and multiplied; the one of row 1 is in the upper half of the word.
// CHECK-LABEL: func @codes
//       CHECK:   vector.load %arg1{{.*}} {alignment = 16 : i64, nontemporal = true} : memref<1x1x128xi32>, vector<4xi32>
//       CHECK:   vector.load %arg0{{.*}} vector<8xf16>
//       CHECK:   arith.extf %{{.+}} : f16 to f32
//       CHECK:   arith.constant 15 : i32
//       CHECK:   arith.andi
//       CHECK:   arith.uitofp %{{.+}} : i32 to f32
//       CHECK:   math.fma %{{.+}} : f32
//       CHECK:   arith.constant 16 : i32
//       CHECK:   arith.shrui
// CHECK-COUNT-31: math.fma %{{.+}} : f32
//   CHECK-NOT:   vector<2xf16>, vector<2xf16>
func.func @codes(%x: memref<1x32xf16>, %w: memref<1x1x128xi32>, %acc: vector<1x1xf32>) -> vector<1x1xf32> {
  %i = arith.constant 0 : index
  %0 = gptq.group_dot %x[%i, %i], %w[%i, %i] acc %acc {columns = array<i64: 0>, depth = 32 : i64, layout = #layout, plan = #plan} : memref<1x32xf16>, memref<1x1x128xi32>, vector<1x1xf32>
  return %0 : vector<1x1xf32>
}

// Products of pairs that were not selected are multiplied one by one, too. Loads are as narrow as the plan says, and then
// read what others of the warp have brought to the cache.
// CHECK-LABEL: func @not_selected
//       CHECK:   vector.load %arg1{{.*}} {alignment = 4 : i64, gptq.prefetched} : memref<1x1x128xi32>, vector<1xi32>
//       CHECK:   vector.load %arg0{{.*}} {alignment = 4 : i64, gptq.in_place} : memref<1x32xf16>, vector<2xf16>
//       CHECK:   arith.uitofp
//       CHECK:   arith.subf %{{.+}} : f32
//       CHECK:   arith.mulf %{{.+}} : f32
//       CHECK:   math.fma %{{.+}} : f32
func.func @not_selected(%x: memref<1x32xf16>, %w: memref<1x1x128xi32>, %acc: vector<1x1xf32>, %z: vector<1xf32>, %s: vector<1xf32>) -> vector<1x1xf32> {
  %i = arith.constant 0 : index
  %0 = gptq.group_dot %x[%i, %i], %w[%i, %i] acc %acc scale %s zero %z {columns = array<i64: 0>, depth = 32 : i64, layout = #layout, plan = #half} : memref<1x32xf16>, memref<1x1x128xi32>, vector<1x1xf32> scale vector<1xf32> zero vector<1xf32>
  return %0 : vector<1x1xf32>
}

// Dense weights: four times 16 bytes of a column in a block.
// CHECK-LABEL: func @dense
// CHECK-COUNT-4: vector.load %arg1{{.*}} : memref<1x1x1024xbf16>, vector<8xbf16>
//       CHECK:   arith.extf %{{.+}} : bf16 to f32
//       CHECK:   math.fma %{{.+}} : f32
func.func @dense(%x: memref<1x32xbf16>, %w: memref<1x1x1024xbf16>, %acc: vector<1x1xf32>) -> vector<1x1xf32> {
  %i = arith.constant 0 : index
  %0 = gptq.group_dot %x[%i, %i], %w[%i, %i] acc %acc {columns = array<i64: 0>, depth = 32 : i64, layout = #dense, plan = #plan} : memref<1x32xbf16>, memref<1x1x1024xbf16>, vector<1x1xf32>
  return %0 : vector<1x1xf32>
}

// The threads of a warp share a sum of activations; what is past its end counts nothing.
// CHECK-LABEL: func @sum
//       CHECK:   gpu.lane_id
//       CHECK:   memref.load %arg0
//       CHECK:   arith.select
//       CHECK:   memref.load %arg0
//       CHECK:   arith.select
// CHECK-COUNT-5: gpu.shuffle  xor
func.func @sum(%x: memref<1x40xf16>) -> vector<1xf32> {
  %i = arith.constant 0 : index
  %0 = gptq.group_sum %x[%i, %i] {depth = 40 : i64, plan = #plan} : memref<1x40xf16> -> vector<1xf32>
  return %0 : vector<1xf32>
}

// -----

#plan = #gptq.plan<mMin = 1, mMax = 1, unit = "fma_f32", tileM = 1, tileN = 32, tileK = 0, rows = 1, columns = 32, lanes = 32, path = "direct", partials = "shared", scale = "accumulator", zero = "accumulator", threads = 64, stepK = 32>
#layout = #gptq.layout<bits = 4, blockN = 32, blockK = 32, order = "b0 b1 k1 k2 k0 k3 k4 n0 n1 n2 n3 n4">

func.func @permuted_activations_are_staged_before(%x: memref<1x32xf16>, %p: memref<32xi32>, %w: memref<1x1x128xi32>, %acc: vector<1x1xf32>) -> vector<1x1xf32> {
  %i = arith.constant 0 : index
  // expected-error @below {{expects activations of f16 or bf16 and no permutation}}
  %0 = gptq.group_dot %x[%i, %i] perm %p, %w[%i, %i] acc %acc {columns = array<i64: 0>, depth = 32 : i64, layout = #layout, plan = #plan} : memref<1x32xf16> perm memref<32xi32>, memref<1x1x128xi32>, vector<1x1xf32>
  return %0 : vector<1x1xf32>
}
