// RUN: gptq-opt %s -split-input-file -verify-diagnostics -pass-pipeline="builtin.module(func.func(gptq-nvvm-select-half-math))" | FileCheck %s
// RUN: gptq-opt %s -split-input-file -verify-diagnostics -pass-pipeline="builtin.module(func.func(gptq-nvvm-select-half-math{bf16=false f16-rows=8}))" | FileCheck %s --check-prefix=SHORT

#plan = #gptq.plan<mMin = 1, mMax = 1, unit = "fma_f16x2", tileM = 1, tileN = 32, tileK = 0, rows = 1, columns = 32, lanes = 32, path = "direct", partials = "shared", scale = "accumulator", zero = "weight", threads = 64, stepK = 32>
#scalar = #gptq.plan<mMin = 1, mMax = 1, unit = "fma_f32", tileM = 1, tileN = 32, tileK = 0, rows = 1, columns = 32, lanes = 32, path = "direct", partials = "shared", scale = "accumulator", zero = "accumulator", threads = 64, stepK = 32>
#layout = #gptq.layout<bits = 4, blockN = 32, blockK = 32, order = "b0 b1 k1 k2 k0 k3 k4 n0 n1 n2 n3 n4">

// A load of 16 bytes of codes, four of activations. A word of codes becomes four pairs: (1024 + q) / 16 and (64 + q) / 16 less
// as much of the zero point, then the same after one shift by 8. Four pairs are a product and three fused steps, four such sums
// are added, and what they come to is widened and multiplied by 16 once.
// CHECK-LABEL: func @codes
//       CHECK:   vector.load %arg1{{.*}} {alignment = 16 : i64, nontemporal = true} : memref<1x1x128xi32>, vector<4xi32>
//       CHECK:   vector.load %arg0{{.*}} {alignment = 16 : i64, gptq.in_place} : memref<1x32xf16>, vector<8xf16>
//   CHECK-NOT:   arith.shrui
//       CHECK:   arith.constant 983055 : i32
//       CHECK:   arith.andi
//       CHECK:   arith.constant 1677747200 : i32
//       CHECK:   arith.ori
//       CHECK:   llvm.bitcast %{{.+}} : i32 to vector<2xf16>
//       CHECK:   arith.constant dense<6.250000e-02> : vector<2xf16>
//       CHECK:   arith.addf %{{.+}} : f32
//       CHECK:   arith.truncf %{{.+}} : f32 to f16
//       CHECK:   math.fma {{.*}} : vector<2xf16>
//       CHECK:   arith.constant 15728880 : i32
//       CHECK:   arith.constant 1409307648 : i32
//       CHECK:   arith.constant 8 : i32
//       CHECK:   arith.shrui
//       CHECK:   arith.mulf {{.*}} : vector<2xf16>
// CHECK-COUNT-3: math.fma {{.*}} : vector<2xf16>
//   CHECK-NOT:   arith.extf
// CHECK-COUNT-3: arith.addf {{.*}} : vector<2xf16>
// CHECK-COUNT-2: arith.extf {{.*}} : f16 to f32
//       CHECK:   arith.addf {{.*}} : f32
//       CHECK:   arith.constant 1.600000e+01 : f32
//       CHECK:   math.fma {{.*}} : f32
//   CHECK-NOT:   math.fma
// Widened after each 8 rows.
// SHORT-LABEL: func @codes
//   SHORT-NOT:   arith.addf {{.*}} : vector<2xf16>
// SHORT-COUNT-8: arith.extf {{.*}} : f16 to f32
//   SHORT-NOT:   arith.extf
//       SHORT:   return
func.func @codes(%x: memref<1x32xf16>, %w: memref<1x1x128xi32>, %acc: vector<1x1xf32>, %z: vector<1xf32>) -> vector<1x1xf32> {
  %i = arith.constant 0 : index
  %0 = gptq.group_dot %x[%i, %i], %w[%i, %i] acc %acc zero %z {columns = array<i64: 0>, depth = 32 : i64, layout = #layout, plan = #plan} : memref<1x32xf16>, memref<1x1x128xi32>, vector<1x1xf32> zero vector<1xf32>
  return %0 : vector<1x1xf32>
}

// bf16 has seven bits of fraction: a shift for each pair, and sums of 8 rows at most.
// CHECK-LABEL: func @bf16
//       CHECK:   arith.constant 1124090624 : i32
//       CHECK:   arith.constant 4 : i32
//       CHECK:   arith.shrui
//       CHECK:   math.fma {{.*}} : vector<2xbf16>
//   CHECK-NOT:   arith.addf {{.*}} : vector<2xbf16>
// Without an instruction for it they are left to f32.
// SHORT-LABEL: func @bf16
//       SHORT:   gptq.group_dot
func.func @bf16(%x: memref<1x32xbf16>, %w: memref<1x1x128xi32>, %acc: vector<1x1xf32>) -> vector<1x1xf32> {
  %i = arith.constant 0 : index
  %0 = gptq.group_dot %x[%i, %i], %w[%i, %i] acc %acc {columns = array<i64: 0>, depth = 32 : i64, layout = #layout, plan = #plan} : memref<1x32xbf16>, memref<1x1x128xi32>, vector<1x1xf32>
  return %0 : vector<1x1xf32>
}

// Scales that were not hoisted multiply pairs, whose sums are then in range as they are.
// CHECK-LABEL: func @scales
//       CHECK:   arith.constant dense<1.000000e+00> : vector<2xf16>
//       CHECK:   math.fma {{.*}} : vector<2xf16>
//       CHECK:   arith.mulf {{.*}} : vector<2xf16>
//       CHECK:   arith.extf
//   CHECK-NOT:   1.600000e+01
func.func @scales(%x: memref<1x32xf16>, %w: memref<1x1x128xi32>, %acc: vector<1x1xf32>, %s: vector<1xf32>) -> vector<1x1xf32> {
  %i = arith.constant 0 : index
  %0 = gptq.group_dot %x[%i, %i], %w[%i, %i] acc %acc scale %s {columns = array<i64: 0>, depth = 32 : i64, layout = #layout, plan = #plan} : memref<1x32xf16>, memref<1x1x128xi32>, vector<1x1xf32> scale vector<1xf32>
  return %0 : vector<1x1xf32>
}

// Panels that read the same activations read them once. Rows past depth are not read: the last pair is half.
// CHECK-LABEL: func @panels
// CHECK-COUNT-2: vector.load %arg1
// CHECK-COUNT-1: vector.load %arg0
// CHECK-COUNT-3: memref.load %arg0
//   CHECK-NOT:   load
//       CHECK:   return
func.func @panels(%x: memref<?x11xf16>, %w: memref<2x1x128xi32>, %acc: vector<1x1xf32>) -> (vector<1x1xf32>, vector<1x1xf32>) {
  %i = arith.constant 0 : index
  %j = arith.constant 1 : index
  %0 = gptq.group_dot %x[%i, %i], %w[%i, %i] acc %acc {columns = array<i64: 0>, depth = 11 : i64, layout = #layout, plan = #plan} : memref<?x11xf16>, memref<2x1x128xi32>, vector<1x1xf32>
  %1 = gptq.group_dot %x[%i, %i], %w[%j, %i] acc %acc {columns = array<i64: 0>, depth = 11 : i64, layout = #layout, plan = #plan} : memref<?x11xf16>, memref<2x1x128xi32>, vector<1x1xf32>
  return %0, %1 : vector<1x1xf32>, vector<1x1xf32>
}

// A sum that goes from one product into the next keeps their order.
// CHECK-LABEL: func @chained
// CHECK-COUNT-4: vector.load %arg0
//       CHECK:   math.fma {{.*}} : f32
// CHECK-COUNT-4: vector.load %arg0
//       CHECK:   math.fma {{.*}} : f32
func.func @chained(%x: memref<1x32xf16>, %w: memref<2x1x128xi32>, %acc: vector<1x1xf32>) -> vector<1x1xf32> {
  %i = arith.constant 0 : index
  %j = arith.constant 1 : index
  %0 = gptq.group_dot %x[%i, %i], %w[%i, %i] acc %acc {columns = array<i64: 0>, depth = 32 : i64, layout = #layout, plan = #plan} : memref<1x32xf16>, memref<2x1x128xi32>, vector<1x1xf32>
  %1 = gptq.group_dot %x[%i, %i], %w[%j, %i] acc %0 {columns = array<i64: 0>, depth = 32 : i64, layout = #layout, plan = #plan} : memref<1x32xf16>, memref<2x1x128xi32>, vector<1x1xf32>
  return %1 : vector<1x1xf32>
}

// What another unit multiplies is left alone.
// CHECK-LABEL: func @another_unit
//       CHECK:   gptq.group_dot
func.func @another_unit(%x: memref<1x32xf16>, %w: memref<1x1x128xi32>, %acc: vector<1x1xf32>) -> vector<1x1xf32> {
  %i = arith.constant 0 : index
  %0 = gptq.group_dot %x[%i, %i], %w[%i, %i] acc %acc {columns = array<i64: 0>, depth = 32 : i64, layout = #layout, plan = #scalar} : memref<1x32xf16>, memref<1x1x128xi32>, vector<1x1xf32>
  return %0 : vector<1x1xf32>
}

// -----

#plan = #gptq.plan<mMin = 1, mMax = 1, unit = "fma_f16x2", tileM = 1, tileN = 32, tileK = 0, rows = 1, columns = 32, lanes = 32, path = "direct", partials = "shared", scale = "accumulator", zero = "weight", threads = 64, stepK = 32>
#apart = #gptq.layout<bits = 4, blockN = 32, blockK = 32, order = "b0 b1 k0 k1 k2 k3 k4 n0 n1 n2 n3 n4">

func.func @rows_of_a_pair_are_halves_of_a_word(%x: memref<1x32xf16>, %w: memref<1x1x128xi32>, %acc: vector<1x1xf32>) -> vector<1x1xf32> {
  %i = arith.constant 0 : index
  // expected-error @below {{expects pairs of rows in the halves of a word}}
  %0 = gptq.group_dot %x[%i, %i], %w[%i, %i] acc %acc {columns = array<i64: 0>, depth = 32 : i64, layout = #apart, plan = #plan} : memref<1x32xf16>, memref<1x1x128xi32>, vector<1x1xf32>
  return %0 : vector<1x1xf32>
}

// -----

#plan = #gptq.plan<mMin = 1, mMax = 1, unit = "fma_f16x2", tileM = 1, tileN = 32, tileK = 0, rows = 1, columns = 32, lanes = 32, path = "direct", partials = "shared", scale = "accumulator", zero = "weight", threads = 64, stepK = 32>
#mixed = #gptq.layout<bits = 4, blockN = 32, blockK = 32, order = "b0 b1 k1 k2 k0 n0 k3 k4 n1 n2 n3 n4">

func.func @columns_follow_each_other(%x: memref<1x32xf16>, %w: memref<1x1x128xi32>, %acc: vector<1x1xf32>) -> vector<1x1xf32> {
  %i = arith.constant 0 : index
  // expected-error @below {{expects columns side by side}}
  %0 = gptq.group_dot %x[%i, %i], %w[%i, %i] acc %acc {columns = array<i64: 0>, depth = 32 : i64, layout = #mixed, plan = #plan} : memref<1x32xf16>, memref<1x1x128xi32>, vector<1x1xf32>
  return %0 : vector<1x1xf32>
}
