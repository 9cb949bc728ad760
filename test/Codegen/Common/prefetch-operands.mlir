// RUN: gptq-opt %s -pass-pipeline="builtin.module(func.func(gptq-prefetch-operands))" | FileCheck %s
// RUN: sed 's/first_bytes = 20/first_bytes = 19/' %s | gptq-opt -pass-pipeline="builtin.module(func.func(gptq-prefetch-operands))" | FileCheck %s --check-prefix=LESS
// A marked loop multiplies what the iteration before has loaded; weights are asked for before activations. Past the last
// part there is none: the last is loaded again.

// CHECK-LABEL: func @marked
//       CHECK:   %[[LAST:.+]] = arith.subi %[[END:.+]], %{{.+}}
//       CHECK:   %[[FIRST:.+]] = arith.minsi %[[FROM:.+]], %[[LAST]]
//       CHECK:   %[[W0:.+]] = vector.load %arg1[%[[FIRST]], {{.*}} {gptq.prefetched}
//       CHECK:   %[[X0:.+]] = vector.load %arg0[{{.*}}] {gptq.prefetched}
//       CHECK:   scf.for %[[I:.+]] = %[[FROM]] to %[[END]] step %[[STEP:.+]] iter_args(%[[SUM:.+]] = %{{.+}}, %[[W:.+]] = %[[W0]], %[[X:.+]] = %[[X0]])
//       CHECK:     %[[NEXT:.+]] = arith.addi %[[I]], %[[STEP]]
//       CHECK:     %[[AT:.+]] = arith.minsi %[[NEXT]], %[[LAST]]
//       CHECK:     %[[W1:.+]] = vector.load %arg1[%[[AT]],
//       CHECK:     %[[X1:.+]] = vector.load %arg0
//       CHECK:     arith.uitofp %[[W]]
//       CHECK:     %[[NEW:.+]] = vector.fma %{{.+}}, %[[X]], %[[SUM]]
//       CHECK:     scf.yield %[[NEW]], %[[W1]], %[[X1]]
// CHECK-LABEL: func @unmarked
//   CHECK-NOT:   gptq.prefetched
func.func @marked(%x: memref<1x64xf32>, %w: memref<16x1x4xi8> {gptq.weight}, %from: index) -> vector<4xf32> {
  %c0 = arith.constant 0 : index
  %c2 = arith.constant 2 : index
  %c16 = arith.constant 16 : index
  %zero = arith.constant dense<0.0> : vector<4xf32>
  %sum = scf.for %i = %from to %c16 step %c2 iter_args(%acc = %zero) -> (vector<4xf32>) {
    %k = arith.muli %i, %c2 : index
    %a = vector.load %x[%c0, %k] : memref<1x64xf32>, vector<4xf32>
    %b = vector.load %w[%i, %c0, %c0] : memref<16x1x4xi8>, vector<4xi8>
    %c = arith.uitofp %b : vector<4xi8> to vector<4xf32>
    %d = vector.fma %c, %a, %acc : vector<4xf32>
    scf.yield %d : vector<4xf32>
  } {gptq.stages = 2 : i64}
  return %sum : vector<4xf32>
}
func.func @unmarked(%x: memref<1x64xf32>, %from: index) -> vector<4xf32> {
  %c0 = arith.constant 0 : index
  %c2 = arith.constant 2 : index
  %c16 = arith.constant 16 : index
  %zero = arith.constant dense<0.0> : vector<4xf32>
  %sum = scf.for %i = %from to %c16 step %c2 iter_args(%acc = %zero) -> (vector<4xf32>) {
    %a = vector.load %x[%c0, %i] : memref<1x64xf32>, vector<4xf32>
    %d = arith.addf %a, %acc : vector<4xf32>
    scf.yield %d : vector<4xf32>
  }
  return %sum : vector<4xf32>
}

// Of the first loads of weights 4 of 8 bytes go ahead: the first part's. Those of the second follow.
// CHECK-LABEL: func @ahead
//       CHECK:   vector.load %arg0{{.*}} {gptq.prefetched}
//       CHECK:   vector.load %arg0{{.*}} {gptq.follows, gptq.prefetched}
//   CHECK-NOT:   gptq.ahead_bytes
func.func @ahead(%w: memref<16x1x4xi8> {gptq.weight}, %from: index) -> vector<4xi8> {
  %c0 = arith.constant 0 : index
  %c2 = arith.constant 2 : index
  %c4 = arith.constant 4 : index
  %zero = arith.constant dense<0> : vector<4xi8>
  %sum = scf.for %i = %from to %c4 step %c2 iter_args(%acc = %zero) -> (vector<4xi8>) {
    %b = vector.load %w[%i, %c0, %c0] : memref<16x1x4xi8>, vector<4xi8>
    %d = arith.addi %b, %acc : vector<4xi8>
    scf.yield %d : vector<4xi8>
  } {gptq.stages = 2 : i64, gptq.first_bytes = 20 : i64, gptq.ahead_bytes = 4 : i64}
  return %sum : vector<4xi8>
}

// The operands of the first part, 20 bytes here, are loaded ahead of everything, weights in front, and multiplied before the loop.
// CHECK-LABEL: func @one_stage
//       CHECK:   %[[W:.+]] = vector.load %arg1[%[[FROM:[a-z0-9]+]], {{.*}} {gptq.prefetched}
//       CHECK:   %[[X:.+]] = vector.load %arg0{{.*}} {gptq.prefetched}
//       CHECK:   %[[C:.+]] = arith.uitofp %[[W]]
//       CHECK:   %[[SUM:.+]] = vector.fma %[[C]], %[[X]],
//       CHECK:   scf.for %{{.+}} = %[[NEXT:.+]] to %{{.+}} step %{{.+}} iter_args(%{{.+}} = %[[SUM]])
//   CHECK-NOT:   gptq.{{stages|first_bytes}}
// LESS-LABEL: func @one_stage
//   LESS-NOT:   vector.load
//       LESS:   scf.for
// A loop whose parts all fit is no more: two of 4 bytes, both loaded before anything is multiplied.
// CHECK-LABEL: func @all_parts
// CHECK-COUNT-2: vector.load %arg0{{.*}} {gptq.prefetched}
// CHECK-COUNT-2: arith.addi {{.*}} : vector<4xi8>
//   CHECK-NOT:   scf.for
// A loop of fewer parts than warps may have no first part for some.
// CHECK-LABEL: func @few_parts
//   CHECK-NOT:   vector.load
//       CHECK:   scf.for
func.func @one_stage(%x: memref<1x64xf32>, %w: memref<16x1x4xi8> {gptq.weight}, %from: index) -> vector<4xf32> {
  %c0 = arith.constant 0 : index
  %c2 = arith.constant 2 : index
  %c16 = arith.constant 16 : index
  %zero = arith.constant dense<0.0> : vector<4xf32>
  %sum = scf.for %i = %from to %c16 step %c2 iter_args(%acc = %zero) -> (vector<4xf32>) {
    %k = arith.muli %i, %c2 : index
    %a = vector.load %x[%c0, %k] : memref<1x64xf32>, vector<4xf32>
    %b = vector.load %w[%i, %c0, %c0] : memref<16x1x4xi8>, vector<4xi8>
    %c = arith.uitofp %b : vector<4xi8> to vector<4xf32>
    %d = vector.fma %c, %a, %acc : vector<4xf32>
    scf.yield %d : vector<4xf32>
  } {gptq.stages = 1 : i64, gptq.first_bytes = 20 : i64}
  return %sum : vector<4xf32>
}
func.func @all_parts(%w: memref<16x1x4xi8> {gptq.weight}, %from: index) -> vector<4xi8> {
  %c0 = arith.constant 0 : index
  %c2 = arith.constant 2 : index
  %c4 = arith.constant 4 : index
  %zero = arith.constant dense<0> : vector<4xi8>
  %sum = scf.for %i = %from to %c4 step %c2 iter_args(%acc = %zero) -> (vector<4xi8>) {
    %b = vector.load %w[%i, %c0, %c0] : memref<16x1x4xi8>, vector<4xi8>
    %d = arith.addi %b, %acc : vector<4xi8>
    scf.yield %d : vector<4xi8>
  } {gptq.stages = 2 : i64, gptq.first_bytes = 20 : i64}
  return %sum : vector<4xi8>
}
func.func @few_parts(%w: memref<16x1x4xi8> {gptq.weight}, %from: index) {
  %c0 = arith.constant 0 : index
  %c16 = arith.constant 16 : index
  %c32 = arith.constant 32 : index
  scf.for %i = %from to %c16 step %c32 {
    %b = vector.load %w[%i, %c0, %c0] : memref<16x1x4xi8>, vector<4xi8>
    vector.print %b : vector<4xi8>
  } {gptq.stages = 1 : i64, gptq.first_bytes = 20 : i64}
  return
}
