// RUN: gptq-opt %s -pass-pipeline="builtin.module(func.func(gptq-nvvm-overlap-launches))" | FileCheck %s
// The next kernel may start at once; this one waits before it reads what the one in front writes, after its first loads of weights.

// CHECK-LABEL: func @kernel
//  CHECK-SAME:   gptq.overlap
//       CHECK:   nvvm.griddepcontrol launch_dependents
//       CHECK:   vector.load %arg1
//       CHECK:   nvvm.griddepcontrol wait
//       CHECK:   vector.load %arg0
func.func @kernel(%x: memref<1x64xf16>, %w: memref<1x1x128xi32> {gptq.weight}, %m: index, %p: index, %y: memref<1x8xf16>) attributes {gptq.kernel} {
  %c0 = arith.constant 0 : index
  %a = vector.load %w[%c0, %c0, %c0] : memref<1x1x128xi32>, vector<4xi32>
  %b = vector.load %x[%c0, %c0] : memref<1x64xf16>, vector<8xf16>
  vector.store %b, %y[%c0, %c0] : memref<1x8xf16>, vector<8xf16>
  return
}

// What a kernel does before it multiplies waits; weights that come after it do not. A cache is no weight.
// CHECK-LABEL: func @prologue
//       CHECK:   nvvm.griddepcontrol launch_dependents
//       CHECK:   %[[AT:.+]] = arith.addi
//       CHECK:   vector.load %arg1[%{{.+}}, %{{.+}}, %[[AT]]]
//       CHECK:   nvvm.griddepcontrol wait
//       CHECK:   vector.load %arg0
//       CHECK:   gpu.barrier
//       CHECK:   vector.load %arg2
func.func @prologue(%x: memref<1x64xf16>, %w: memref<1x1x128xi32> {gptq.weight}, %c: memref<1x1x64xf16>, %m: index, %p: index, %y: memref<1x8xf16>, %z: memref<4xi32>) attributes {gptq.kernel} {
  %c0 = arith.constant 0 : index
  %c4 = arith.constant 4 : index
  %b = vector.load %x[%c0, %c0] : memref<1x64xf16>, vector<8xf16>
  gpu.barrier
  %at = arith.addi %m, %c4 : index
  %a = vector.load %w[%c0, %c0, %at] : memref<1x1x128xi32>, vector<4xi32>
  %d = vector.load %c[%c0, %c0, %at] : memref<1x1x64xf16>, vector<8xf16>
  vector.store %d, %y[%c0, %c0] : memref<1x8xf16>, vector<8xf16>
  vector.store %b, %y[%c0, %c0] : memref<1x8xf16>, vector<8xf16>
  vector.store %a, %z[%c0] : memref<4xi32>, vector<4xi32>
  return
}

// The position is read from memory that the kernel in front may write: the entry waits before, so the body need not.
// CHECK-LABEL: func @positioned
//   CHECK-NOT:   griddepcontrol wait
func.func @positioned(%x: memref<8x64xf16>, %m: index, %p: index, %y: memref<1x8xf16>) attributes {gptq.kernel} {
  %c0 = arith.constant 0 : index
  %b = vector.load %x[%p, %c0] : memref<8x64xf16>, vector<8xf16>
  vector.store %b, %y[%c0, %c0] : memref<1x8xf16>, vector<8xf16>
  return
}

// CHECK-LABEL: func @not_a_kernel
//   CHECK-NOT:   griddepcontrol
func.func @not_a_kernel() {
  return
}
