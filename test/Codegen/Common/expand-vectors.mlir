// RUN: gptq-opt %s -pass-pipeline="builtin.module(func.func(gptq-expand-vectors))" | FileCheck %s
// What has no instruction becomes shuffles, shifts and polynomials.

// CHECK-LABEL: func @exp
//   CHECK-NOT:   math.exp
//       CHECK:   math.fma
func.func @exp(%x: vector<8xf32>) -> vector<8xf32> {
  %0 = math.exp %x : vector<8xf32>
  return %0 : vector<8xf32>
}

// CHECK-LABEL: func @bf16
//       CHECK:   arith.shli
//   CHECK-NOT:   arith.extf
func.func @bf16(%x: vector<8xbf16>) -> vector<8xf32> {
  %0 = arith.extf %x : vector<8xbf16> to vector<8xf32>
  return %0 : vector<8xf32>
}

// CHECK-LABEL: func @two_dimensions
//   CHECK-NOT:   vector.transpose
//   CHECK-NOT:   vector.fma {{.*}} vector<2x8xf32>
//       CHECK:   vector.fma {{.*}} vector<8xf32>
func.func @two_dimensions(%x: vector<2xf32>, %acc: vector<2x8xf32>) -> vector<2x8xf32> {
  %0 = vector.broadcast %x : vector<2xf32> to vector<8x2xf32>
  %1 = vector.transpose %0, [1, 0] : vector<8x2xf32> to vector<2x8xf32>
  %2 = vector.fma %1, %1, %acc : vector<2x8xf32>
  return %2 : vector<2x8xf32>
}
