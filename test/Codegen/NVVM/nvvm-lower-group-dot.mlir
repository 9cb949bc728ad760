// RUN: gptq-opt %s -split-input-file -verify-diagnostics -pass-pipeline="builtin.module(func.func(gptq-nvvm-lower-group-dot))" | FileCheck %s

#plan = #gptq.plan<mMin = 1, mMax = 8, unit = "mma_m16n8k16", tileM = 8, tileN = 16, tileK = 0, rows = 8, columns = 16, lanes = 32, path = "direct", partials = "shared", scale = "accumulator", zero = "accumulator", threads = 64, stepK = 128, firstBytes = 288>
#narrow = #gptq.plan<mMin = 1, mMax = 8, unit = "mma_m16n8k16", tileM = 8, tileN = 16, tileK = 0, rows = 8, columns = 16, lanes = 32, path = "direct", partials = "shared", scale = "accumulator", zero = "accumulator", threads = 64, stepK = 128, loadBits = 32>
#one = #gptq.plan<mMin = 1, mMax = 1, unit = "mma_m16n8k16", tileM = 8, tileN = 16, tileK = 0, rows = 8, columns = 16, lanes = 32, path = "direct", partials = "shared", scale = "accumulator", zero = "accumulator", threads = 64, stepK = 128>
#half = #gptq.plan<mMin = 1, mMax = 8, unit = "mma_m16n8k8", tileM = 8, tileN = 16, tileK = 0, rows = 8, columns = 16, lanes = 32, path = "direct", partials = "shared", scale = "accumulator", zero = "accumulator", threads = 64, stepK = 128>
#layout = #gptq.layout<bits = 4, blockN = 16, blockK = 64, order = "b0 b1 n3 k1 k0 k2 k5 k3 k4 n0 n1 n2">

#many = #gptq.plan<mMin = 1, mMax = 8, unit = "mma_m16n8k16", tileM = 8, tileN = 96, tileK = 0, rows = 8, columns = 96, lanes = 32, path = "direct", partials = "shared", scale = "accumulator", zero = "accumulator", threads = 64, stepK = 128>

// Two loads of activations, 16 bytes a thread; their sum is a product with ones. A word of codes becomes the four
// registers of one step: nibbles 0 (1024 + q) and 1 (64 + q), then the same after one shift by 8; what was added is
// taken from the sums of columns g and g + 8 at the start. That is how it is with many tiles of columns, which leave no registers.
// CHECK-LABEL: func @codes
//   CHECK-DAG:   %[[LANE:.+]] = gpu.lane_id
//       CHECK:   vector.load %arg0{{.*}} {alignment = 16 : i64} : memref<1x64xf16>, vector<8xf16>
//       CHECK:   vector.load %arg0{{.*}} {alignment = 16 : i64} : memref<1x64xf16>, vector<8xf16>
//       CHECK:   arith.constant dense<1.000000e+00> : vector<2xf16>
// CHECK-COUNT-4: nvvm.mma.sync
//       CHECK:   arith.constant -1.024000e+03 : f32
//       CHECK:   math.fma
//       CHECK:   arith.constant -6.400000e+01 : f32
//       CHECK:   math.fma
//       CHECK:   vector.load %arg1{{.*}} {alignment = 16 : i64, nontemporal = true} : memref<1x1x128xi32>, vector<4xi32>
//   CHECK-NOT:   arith.shrui
//       CHECK:   arith.constant 983055 : i32
//       CHECK:   arith.andi
//       CHECK:   arith.constant 1677747200 : i32
//       CHECK:   arith.ori
//       CHECK:   llvm.bitcast %{{.+}} : i32 to vector<2xf16>
//       CHECK:   arith.constant 15728880 : i32
//       CHECK:   arith.constant 1409307648 : i32
//       CHECK:   arith.constant 8 : i32
//       CHECK:   arith.shrui
// CHECK-COUNT-4: nvvm.mma.sync A{{.*}}#nvvm.shape<m = 16, n = 8, k = 16>{{.*}} : (vector<2xf16>, vector<2xf16>, f32)
//   CHECK-NOT:   nvvm.mma.sync
//   CHECK-NOT:   arith.addf
//       CHECK:   return
func.func @codes(%x: memref<1x64xf16>, %w: memref<1x1x128xi32>, %acc: vector<2x2xf32>) -> vector<2x2xf32> {
  %i = arith.constant 0 : index
  %0 = gptq.group_dot %x[%i, %i], %w[%i, %i] acc %acc {columns = array<i64: 0>, depth = 64 : i64, layout = #layout, plan = #many} : memref<1x64xf16>, memref<1x1x128xi32>, vector<2x2xf32>
  return %0 : vector<2x2xf32>
}

// With few tiles a pair of codes is unpacked by one instruction, whose exponent stays in a register, and products start at zero.
// CHECK-LABEL: func @few_tiles
//       CHECK:   vector.load %arg1
//   CHECK-NOT:   arith.andi
//       CHECK:   llvm.inline_asm "lop3.b32 $0, $1, 0xf000f, 0x64006400, 0xEA;"
//       CHECK:   llvm.inline_asm "lop3.b32 $0, $1, 0xf000f0, 0x54005400, 0xEA;"
// CHECK-COUNT-4: nvvm.mma.sync
// CHECK-COUNT-4: arith.addf
func.func @few_tiles(%x: memref<1x64xf16>, %w: memref<1x1x128xi32>, %acc: vector<2x2xf32>) -> vector<2x2xf32> {
  %i = arith.constant 0 : index
  %0 = gptq.group_dot %x[%i, %i], %w[%i, %i] acc %acc {columns = array<i64: 0>, depth = 64 : i64, layout = #layout, plan = #plan} : memref<1x64xf16>, memref<1x1x128xi32>, vector<2x2xf32>
  return %0 : vector<2x2xf32>
}

// Of one row only, the products start at zero, and what was added is taken from their sums at the end.
// CHECK-LABEL: func @one_row
// CHECK-COUNT-4: nvvm.mma.sync
//       CHECK:   math.fma
//       CHECK:   vector.load %arg1
// CHECK-COUNT-4: nvvm.mma.sync
// CHECK-COUNT-4: arith.addf
//   CHECK-NOT:   arith.addf
//       CHECK:   return
func.func @one_row(%x: memref<1x64xf16>, %w: memref<1x1x128xi32>, %acc: vector<2x2xf32>) -> vector<2x2xf32> {
  %i = arith.constant 0 : index
  %0 = gptq.group_dot %x[%i, %i], %w[%i, %i] acc %acc {columns = array<i64: 0>, depth = 64 : i64, layout = #layout, plan = #one} : memref<1x64xf16>, memref<1x1x128xi32>, vector<2x2xf32>
  return %0 : vector<2x2xf32>
}

// Loads of 32 bits at most.
// CHECK-LABEL: func @narrow_loads
//       CHECK:   vector.load %arg1{{.*}} {alignment = 4 : i64, nontemporal = true} : memref<1x1x128xi32>, vector<1xi32>
func.func @narrow_loads(%x: memref<1x64xf16>, %w: memref<1x1x128xi32>, %acc: vector<2x2xf32>) -> vector<2x2xf32> {
  %i = arith.constant 0 : index
  %0 = gptq.group_dot %x[%i, %i], %w[%i, %i] acc %acc {columns = array<i64: 0>, depth = 64 : i64, layout = #layout, plan = #narrow} : memref<1x64xf16>, memref<1x1x128xi32>, vector<2x2xf32>
  return %0 : vector<2x2xf32>
}

// Zero points that were not folded are subtracted from pairs, with what unpacking added.
// CHECK-LABEL: func @zeros
//       CHECK:   arith.constant 1.024000e+03 : f32
//       CHECK:   arith.addf
//       CHECK:   arith.truncf %{{.+}} : f32 to f16
//       CHECK:   llvm.bitcast
//       CHECK:   arith.subf %{{.+}}, %{{.+}} : vector<2xf16>
func.func @zeros(%x: memref<1x64xf16>, %w: memref<1x1x128xi32>, %acc: vector<2x2xf32>, %z: vector<2xf32>) -> vector<2x2xf32> {
  %i = arith.constant 0 : index
  %0 = gptq.group_dot %x[%i, %i], %w[%i, %i] acc %acc zero %z {columns = array<i64: 0>, depth = 64 : i64, layout = #layout, plan = #plan} : memref<1x64xf16>, memref<1x1x128xi32>, vector<2x2xf32> zero vector<2xf32>
  return %0 : vector<2x2xf32>
}

// Scales that were not hoisted multiply pairs, too.
// CHECK-LABEL: func @scales
//       CHECK:   arith.subf %{{.+}}, %{{.+}} : vector<2xf16>
//       CHECK:   arith.mulf %{{.+}}, %{{.+}} : vector<2xf16>
func.func @scales(%x: memref<1x64xf16>, %w: memref<1x1x128xi32>, %acc: vector<2x2xf32>, %s: vector<2xf32>) -> vector<2x2xf32> {
  %i = arith.constant 0 : index
  %0 = gptq.group_dot %x[%i, %i], %w[%i, %i] acc %acc scale %s {columns = array<i64: 0>, depth = 64 : i64, layout = #layout, plan = #plan} : memref<1x64xf16>, memref<1x1x128xi32>, vector<2x2xf32> scale vector<2xf32>
  return %0 : vector<2x2xf32>
}

// K that ends inside a load: what is past it is zero, not read.
// CHECK-LABEL: func @ragged
//       CHECK:   scf.if %{{.+}} -> (f16)
//       CHECK:     memref.load %arg0
//       CHECK:   nvvm.mma.sync
func.func @ragged(%x: memref<?x50xf16>, %w: memref<1x1x128xi32>, %acc: vector<2x2xf32>) -> vector<2x2xf32> {
  %i = arith.constant 0 : index
  %0 = gptq.group_dot %x[%i, %i], %w[%i, %i] acc %acc {columns = array<i64: 0>, depth = 50 : i64, layout = #layout, plan = #plan} : memref<?x50xf16>, memref<1x1x128xi32>, vector<2x2xf32>
  return %0 : vector<2x2xf32>
}

// bf16 has 7 bits of fraction: both halves are unpacked at place 0, as 128 + q.
// CHECK-LABEL: func @bf16
//   CHECK-NOT:   0xf000f0
//       CHECK:   lop3.b32 $0, $1, 0xf000f, 0x43004300, 0xEA;
//       CHECK:   llvm.bitcast %{{.+}} : i32 to vector<2xbf16>
//       CHECK:   nvvm.mma.sync A{{.*}}multiplicandAPtxType = #nvvm.mma_type<bf16>
func.func @bf16(%x: memref<1x64xbf16>, %w: memref<1x1x128xi32>, %acc: vector<2x2xf32>) -> vector<2x2xf32> {
  %i = arith.constant 0 : index
  %0 = gptq.group_dot %x[%i, %i], %w[%i, %i] acc %acc {columns = array<i64: 0>, depth = 64 : i64, layout = #layout, plan = #plan} : memref<1x64xbf16>, memref<1x1x128xi32>, vector<2x2xf32>
  return %0 : vector<2x2xf32>
}

// Units of 8 steps of K take a step in two halves.
// CHECK-LABEL: func @half_steps
//       CHECK:   nvvm.mma.sync A[%{{[a-z0-9_]+}}, %{{[a-z0-9_]+}}] B[%{{[a-z0-9_]+}}] {{.*}}#nvvm.shape<m = 16, n = 8, k = 8>
func.func @half_steps(%x: memref<1x64xf16>, %w: memref<1x1x128xi32>, %acc: vector<2x2xf32>) -> vector<2x2xf32> {
  %i = arith.constant 0 : index
  %0 = gptq.group_dot %x[%i, %i], %w[%i, %i] acc %acc {columns = array<i64: 0>, depth = 64 : i64, layout = #layout, plan = #half} : memref<1x64xf16>, memref<1x1x128xi32>, vector<2x2xf32>
  return %0 : vector<2x2xf32>
}

// The sum that zero-point folding asks for is the one that unpacking needs: made once.
// CHECK-LABEL: func @sum
// CHECK-COUNT-4: nvvm.mma.sync
//   CHECK-NOT:   nvvm.mma.sync
//       CHECK:   return
func.func @sum(%x: memref<1x64xf16>) -> vector<2xf32> {
  %i = arith.constant 0 : index
  %0 = gptq.group_sum %x[%i, %i] {depth = 64 : i64, plan = #plan} : memref<1x64xf16> -> vector<2xf32>
  return %0 : vector<2xf32>
}

// Dense weights are what the unit takes.
#dense = #gptq.layout<bits = 16, blockN = 16, blockK = 32, order = "b0 b1 b2 b3 k0 n3 k1 k3 k4 n0 n1 n2 k2">
// CHECK-LABEL: func @dense
//       CHECK:   vector.load %arg1{{.*}} : memref<1x1x512xf16>, vector<8xf16>
//   CHECK-NOT:   arith.andi
func.func @dense(%x: memref<1x32xf16>, %w: memref<1x1x512xf16>, %acc: vector<2x2xf32>) -> vector<2x2xf32> {
  %i = arith.constant 0 : index
  %0 = gptq.group_dot %x[%i, %i], %w[%i, %i] acc %acc {columns = array<i64: 0>, depth = 32 : i64, layout = #dense, plan = #plan} : memref<1x32xf16>, memref<1x1x512xf16>, vector<2x2xf32>
  return %0 : vector<2x2xf32>
}

// A product of fragments is one instruction; pairs are its operands as they come.
// CHECK-LABEL: func @fragments
//  CHECK-SAME:   %[[A:.+]]: vector<4x2xbf16>, %[[B:.+]]: vector<2x2xbf16>, %[[C:.+]]: vector<2x2xf32>
//   CHECK-DAG:   %[[C1:.+]] = vector.extract %[[C]][0, 1]
//   CHECK-DAG:   %[[A2:.+]] = vector.extract %[[A]][2]
//   CHECK-DAG:   %[[W2:.+]] = llvm.bitcast %[[A2]] : vector<2xbf16> to i32
//       CHECK:   nvvm.mma.sync A[%{{.+}}, %{{.+}}, %[[W2]], %{{.+}}] B[%{{.+}}, %{{.+}}] C[%{{.+}}, %[[C1]], %{{.+}}, %{{.+}}]
func.func @fragments(%a: vector<4x2xbf16>, %b: vector<2x2xbf16>, %c: vector<2x2xf32>) -> vector<2x2xf32> {
  %0 = gptq.fragment_dot %a, %b, %c : vector<4x2xbf16>, vector<2x2xbf16>, vector<2x2xf32>
  return %0 : vector<2x2xf32>
}

// -----
#plan = #gptq.plan<mMin = 1, mMax = 8, unit = "mma_m16n8k16", tileM = 8, tileN = 16, tileK = 0, rows = 8, columns = 16, lanes = 32, path = "direct", partials = "shared", scale = "accumulator", zero = "accumulator", threads = 64>
#vectors = #gptq.layout<bits = 4, blockN = 16, blockK = 64, order = "b0 b1 k0 k1 k2 n0 n1 n2 n3 k3 k4 k5">
func.func @threads_side_by_side(%x: memref<1x64xf16>, %w: memref<1x1x128xi32>, %acc: vector<2x2xf32>) -> vector<2x2xf32> {
  %i = arith.constant 0 : index
  // expected-error @+1 {{expects threads side by side in the order k3 k4 n0 n1 n2}}
  %0 = gptq.group_dot %x[%i, %i], %w[%i, %i] acc %acc {columns = array<i64: 0>, depth = 64 : i64, layout = #vectors, plan = #plan} : memref<1x64xf16>, memref<1x1x128xi32>, vector<2x2xf32>
  return %0 : vector<2x2xf32>
}

// -----
#plan = #gptq.plan<mMin = 1, mMax = 8, unit = "mma_m16n8k16", tileM = 8, tileN = 16, tileK = 0, rows = 8, columns = 16, lanes = 32, path = "direct", partials = "shared", scale = "accumulator", zero = "accumulator", threads = 64>
func.func @half_precision(%x: memref<1x64xf32>) -> vector<2xf32> {
  %i = arith.constant 0 : index
  // expected-error @+1 {{expects a matrix unit, activations of f16 or bf16 and no permutation}}
  %0 = gptq.group_sum %x[%i, %i] {depth = 64 : i64, plan = #plan} : memref<1x64xf32> -> vector<2xf32>
  return %0 : vector<2xf32>
}
