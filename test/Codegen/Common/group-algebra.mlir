// RUN: gptq-opt %s -pass-pipeline="builtin.module(func.func(gptq-hoist-scales))" | FileCheck %s --check-prefixes=CHECK,HOIST
// RUN: gptq-opt %s -pass-pipeline="builtin.module(func.func(gptq-fold-zero-points))" | FileCheck %s --check-prefixes=CHECK,FOLD
// RUN: gptq-opt %s -pass-pipeline="builtin.module(func.func(gptq-hoist-scales,gptq-fold-zero-points))" | FileCheck %s --check-prefixes=CHECK,BOTH
// RUN: gptq-opt %s -pass-pipeline="builtin.module(func.func(gptq-fold-offsets))" | FileCheck %s --check-prefixes=CHECK,OFFSET
// RUN: gptq-opt %s -pass-pipeline="builtin.module(func.func(gptq-fold-offsets,gptq-hoist-scales))" | FileCheck %s --check-prefixes=CHECK,AROUND

#both = #gptq.plan<mMin = 2, mMax = 64, unit = "fma_f32", tileM = 24, tileN = 32, tileK = 0, rows = 6, columns = 16, lanes = 8, path = "direct", partials = "global", scale = "accumulator", zero = "accumulator">
#none = #gptq.plan<mMin = 2, mMax = 64, unit = "fma_f32", tileM = 24, tileN = 32, tileK = 0, rows = 6, columns = 16, lanes = 8, path = "direct", partials = "global", scale = "weight", zero = "weight">
#layout = #gptq.layout<bits = 4, blockN = 32, blockK = 8, order = "b0 b1 k0 k1 k2 n0 n1 n2 n3 n4">

// CHECK-LABEL: func @dot(
//  CHECK-SAME:   %[[ACC:[a-z0-9]+]]: vector<2x16xf32>, %[[S:[a-z0-9]+]]: vector<16xf32>, %[[Z:[a-z0-9]+]]: vector<16xf32>
//
// The group is summed from zero, then scaled and added once.
//       HOIST:   %[[ZERO:.+]] = arith.constant dense<0.0
//       HOIST:   %[[P:.+]] = gptq.group_dot {{.*}} acc %[[ZERO]] zero %[[Z]]
//       HOIST:   %[[SW:.+]] = vector.broadcast %[[S]]
//       HOIST:   vector.fma %[[P]], %[[SW]], %[[ACC]]
//
// The sum starts at minus the zero point times the sum of the activations; the scale is still per weight, so here too.
//        FOLD:   %[[SUM:.+]] = gptq.group_sum {{.*}} {depth = 32
//        FOLD:   %[[ZS:.+]] = arith.mulf %[[Z]], %[[S]]
//        FOLD:   %[[NEG:.+]] = arith.negf %[[ZS]]
//        FOLD:   %[[START:.+]] = vector.fma %{{.+}}, %{{.+}}, %[[ACC]]
//        FOLD:   gptq.group_dot {{.*}} acc %[[START]] scale %[[S]] {columns
//
//        BOTH:   %[[NEG:.+]] = arith.negf %[[Z]]
//        BOTH:   %[[START:.+]] = vector.fma
//        BOTH:   %[[P:.+]] = gptq.group_dot {{.*}} acc %[[START]] {columns
//        BOTH:   vector.fma %[[P]], %{{.+}}, %[[ACC]]
func.func @dot(%x: memref<?x64xf32>, %w: memref<1x8x32xi32>, %i: index, %acc: vector<2x16xf32>, %s: vector<16xf32>, %z: vector<16xf32>) -> vector<2x16xf32> {
  %0 = gptq.group_dot %x[%i, %i], %w[%i, %i] acc %acc scale %s zero %z {columns = array<i64: 0>, depth = 32 : i64, layout = #layout, plan = #both} : memref<?x64xf32>, memref<1x8x32xi32>, vector<2x16xf32> scale vector<16xf32> zero vector<16xf32>
  return %0 : vector<2x16xf32>
}

// A plan that asks for neither is left alone.
// CHECK-LABEL: func @per_weight
//       CHECK:   gptq.group_dot {{.*}} acc %{{.+}} scale %{{.+}} zero %
//   CHECK-NOT:   vector.fma
func.func @per_weight(%x: memref<?x64xf32>, %w: memref<1x8x32xi32>, %i: index, %acc: vector<2x16xf32>, %s: vector<16xf32>, %z: vector<16xf32>) -> vector<2x16xf32> {
  %0 = gptq.group_dot %x[%i, %i], %w[%i, %i] acc %acc scale %s zero %z {columns = array<i64: 0>, depth = 32 : i64, layout = #layout, plan = #none} : memref<?x64xf32>, memref<1x8x32xi32>, vector<2x16xf32> scale vector<16xf32> zero vector<16xf32>
  return %0 : vector<2x16xf32>
}

// An offset times the sum of the activations is where the sum starts, whatever the plan says; the scale multiplies what is added to it. Until then the
// scale stays where it is.
// CHECK-LABEL: func @offset(
//  CHECK-SAME:   %[[ACC:[a-z0-9]+]]: vector<2x16xf32>, %[[S:[a-z0-9]+]]: vector<16xf32>, %[[O:[a-z0-9]+]]: vector<16xf32>
//       HOIST:   gptq.group_dot {{.*}} acc %[[ACC]] scale %[[S]] offset %[[O]]
//      OFFSET:   %[[SUM:.+]] = gptq.group_sum {{.*}} {depth = 32
//      OFFSET:   %[[WIDE:.+]] = vector.broadcast %[[O]]
//      OFFSET:   %[[START:.+]] = vector.fma %{{.+}}, %[[WIDE]], %[[ACC]]
//      OFFSET:   gptq.group_dot {{.*}} acc %[[START]] scale %[[S]] {columns
//      AROUND:   %[[START:.+]] = vector.fma %{{.+}}, %{{.+}}, %[[ACC]]
//      AROUND:   %[[ZERO:.+]] = arith.constant dense<0.0
//      AROUND:   %[[P:.+]] = gptq.group_dot {{.*}} acc %[[ZERO]] {columns
//      AROUND:   vector.fma %[[P]], %{{.+}}, %[[START]]
func.func @offset(%x: memref<?x64xf32>, %w: memref<1x8x32xi32>, %i: index, %acc: vector<2x16xf32>, %s: vector<16xf32>, %o: vector<16xf32>) -> vector<2x16xf32> {
  %0 = gptq.group_dot %x[%i, %i], %w[%i, %i] acc %acc scale %s offset %o {columns = array<i64: 0>, depth = 32 : i64, layout = #layout, plan = #both} : memref<?x64xf32>, memref<1x8x32xi32>, vector<2x16xf32> scale vector<16xf32> offset vector<16xf32>
  return %0 : vector<2x16xf32>
}
