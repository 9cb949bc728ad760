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

// Loads that follow go behind the first loads of activations, not behind those that come after a barrier.
// CHECK-LABEL: func @follows
//       CHECK:   vector.load %arg1[%{{.+}}, %{{.+}}, %c0]
//       CHECK:   nvvm.griddepcontrol wait
//  CHECK-NEXT:   vector.load %arg0
//  CHECK-NEXT:   arith.addi %arg3
//  CHECK-NEXT:   vector.load %arg0
//  CHECK-NEXT:   vector.load %arg1[%{{.+}}, %{{.+}}, %c4{{.*}}] {gptq.follows}
//  CHECK-NEXT:   arith.extf
//       CHECK:   gpu.barrier
//       CHECK:   vector.load %arg0
func.func @follows(%x: memref<1x64xf16>, %w: memref<1x1x128xi32> {gptq.weight}, %s: memref<8xf32, 3>, %m: index, %p: index, %y: memref<1x8xf16>, %z: memref<8xi32>) attributes {gptq.kernel} {
  %c0 = arith.constant 0 : index
  %c4 = arith.constant 4 : index
  %b = vector.load %x[%c0, %c0] : memref<1x64xf16>, vector<8xf16>
  %e = arith.extf %b : vector<8xf16> to vector<8xf32>
  %at = arith.addi %m, %c4 : index
  %h = vector.load %x[%c0, %at] : memref<1x64xf16>, vector<8xf16>
  %i = arith.extf %h : vector<8xf16> to vector<8xf32>
  vector.store %i, %s[%c0] : memref<8xf32, 3>, vector<8xf32>
  vector.store %e, %s[%c0] : memref<8xf32, 3>, vector<8xf32>
  gpu.barrier
  %a = vector.load %w[%c0, %c0, %c0] : memref<1x1x128xi32>, vector<4xi32>
  %f = vector.load %w[%c0, %c0, %c4] {gptq.follows} : memref<1x1x128xi32>, vector<4xi32>
  %d = vector.load %x[%c0, %c0] : memref<1x64xf16>, vector<8xf16>
  vector.store %d, %y[%c0, %c0] : memref<1x8xf16>, vector<8xf16>
  vector.store %a, %z[%c0] : memref<8xi32>, vector<4xi32>
  vector.store %f, %z[%c4] : memref<8xi32>, vector<4xi32>
  return
}

// A kernel that knows the position waits before it reads a cache, but not for what is said to be settled.
// CHECK-LABEL: func @positioned
//       CHECK:   launch_dependents
//       CHECK:   vector.load {{.*}} {gptq.settled}
//  CHECK-NEXT:   nvvm.griddepcontrol wait
//  CHECK-NEXT:   vector.load
func.func @positioned(%x: memref<1x8x64xf16>, %m: index, %p: index, %y: memref<1x8xf16>) attributes {gptq.kernel} {
  %c0 = arith.constant 0 : index
  %a = vector.load %x[%c0, %c0, %c0] {gptq.settled} : memref<1x8x64xf16>, vector<8xf16>
  %b = vector.load %x[%c0, %p, %c0] : memref<1x8x64xf16>, vector<8xf16>
  %c = arith.addf %a, %b : vector<8xf16>
  vector.store %c, %y[%c0, %c0] : memref<1x8xf16>, vector<8xf16>
  return
}

// What is nested counts as well, loads of weights not.
// CHECK-LABEL: func @nested
//       CHECK:   launch_dependents
//       CHECK:   scf.if
//       CHECK:     vector.load %arg1
//       CHECK:   nvvm.griddepcontrol wait
//  CHECK-NEXT:   scf.if
func.func @nested(%x: memref<1x8xf16>, %w: memref<1x1x128xi32> {gptq.weight}, %m: index, %p: index, %c: i1, %y: memref<1x8xf16>) attributes {gptq.kernel} {
  %c0 = arith.constant 0 : index
  %zero = arith.constant dense<0> : vector<4xi32>
  %a = scf.if %c -> vector<4xi32> {
    %l = vector.load %w[%c0, %c0, %c0] : memref<1x1x128xi32>, vector<4xi32>
    scf.yield %l : vector<4xi32>
  } else {
    scf.yield %zero : vector<4xi32>
  }
  scf.if %c {
    %b = vector.load %x[%c0, %c0] : memref<1x8xf16>, vector<8xf16>
    vector.store %b, %y[%c0, %c0] : memref<1x8xf16>, vector<8xf16>
  }
  return
}

// Where threads have different work, those that only copy weights do not wait; others do where they have to, not at barriers or
// for registers.
// CHECK-LABEL: func @branches
//       CHECK:   nvvm.mbarrier.init
//       CHECK:   scf.if
//   CHECK-NOT:     griddepcontrol
//       CHECK:     nvvm.cp.async.shared.global
//   CHECK-NOT:     griddepcontrol
//       CHECK:   } else {
//       CHECK:     vector.load %arg1
//       CHECK:     nvvm.griddepcontrol wait
//       CHECK:     scf.for
//       CHECK:       vector.load %arg0
//       CHECK:   }
//       CHECK:   nvvm.griddepcontrol wait
//       CHECK:   vector.store
func.func @branches(%x: memref<1x64xf16>, %w: memref<1x1x128xi32> {gptq.weight}, %m: index, %p: index, %y: memref<1x4xi32>, %copies: i1, %room: memref<1xi64, #gpu.address_space<workgroup>>) attributes {gptq.kernel} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c8 = arith.constant 8 : index
  %count = arith.constant 512 : i32
  %zero = arith.constant dense<0> : vector<4xi32>
  %barrier = gptq_nvvm.pointer %room[%c0] : memref<1xi64, #gpu.address_space<workgroup>> -> !llvm.ptr<3>
  nvvm.mbarrier.init %barrier, %count : !llvm.ptr<3>, i32
  %v = scf.if %copies -> (vector<4xi32>) {
    nvvm.setmaxregister decrease 40
    %from = gptq_nvvm.pointer %w[%c0, %c0, %c0] : memref<1x1x128xi32> -> !llvm.ptr<1>
    nvvm.cp.async.shared.global %barrier, %from, 16, cache = cg : !llvm.ptr<3>, !llvm.ptr<1>
    scf.yield %zero : vector<4xi32>
  } else {
    %a = vector.load %w[%c0, %c0, %c0] : memref<1x1x128xi32>, vector<4xi32>
    scf.for %i = %c0 to %c8 step %c1 {
      %b = vector.load %x[%c0, %i] : memref<1x64xf16>, vector<8xf16>
      vector.print %b : vector<8xf16>
    }
    scf.yield %a : vector<4xi32>
  } {gptq.roles}
  vector.store %v, %y[%c0, %c0] : memref<1x4xi32>, vector<4xi32>
  return
}

// Where all that is left is one thing or another, each waits for itself, if both have to. What may end without having waited
// would let the next kernel go before the one in front has ended.
// CHECK-LABEL: func @choice
//       CHECK:   scf.if
//       CHECK:     vector.load %arg0{{.*}} {gptq.settled}
//  CHECK-NEXT:     nvvm.griddepcontrol wait
//       CHECK:   } else {
//  CHECK-NEXT:     nvvm.griddepcontrol wait
//  CHECK-NEXT:     vector.store
// CHECK-LABEL: func @no_choice
//       CHECK:   nvvm.griddepcontrol wait
//  CHECK-NEXT:   scf.if
func.func @choice(%x: memref<1x64xf16>, %m: index, %p: index, %c: i1, %y: memref<1x8xf16>) attributes {gptq.kernel} {
  %c0 = arith.constant 0 : index
  %zero = arith.constant dense<0.0> : vector<8xf16>
  scf.if %c {
    %a = vector.load %x[%c0, %c0] {gptq.settled} : memref<1x64xf16>, vector<8xf16>
    vector.store %a, %y[%c0, %c0] : memref<1x8xf16>, vector<8xf16>
  } else {
    vector.store %zero, %y[%c0, %c0] : memref<1x8xf16>, vector<8xf16>
  }
  return
}
func.func @no_choice(%x: memref<1x64xf16>, %m: index, %p: index, %c: i1, %y: memref<1x8xf16>) attributes {gptq.kernel} {
  %c0 = arith.constant 0 : index
  scf.if %c {
    %a = vector.load %x[%c0, %c0] {gptq.settled} : memref<1x64xf16>, vector<8xf16>
    vector.store %a, %y[%c0, %c0] : memref<1x8xf16>, vector<8xf16>
  } else {
    %n = arith.addi %m, %p : index
  }
  return
}

// CHECK-LABEL: func @not_a_kernel
//   CHECK-NOT:   griddepcontrol
func.func @not_a_kernel() {
  return
}
