// RUN: gptq-opt %s -split-input-file -verify-diagnostics -pass-pipeline="builtin.module(func.func(gptq-vectorize))" | FileCheck %s
// Where a workgroup has several threads they share its work.

#shared = #gptq.plan<mMin = 2, mMax = 8, unit = "mma_m16n8k16", tileM = 8, tileN = 32, tileK = 0, rows = 8, columns = 16, lanes = 32, path = "direct", partials = "shared", scale = "accumulator", zero = "accumulator", threads = 128, stepK = 128, stages = 2>
#global = #gptq.plan<mMin = 2, mMax = 8, unit = "mma_m16n8k16", tileM = 8, tileN = 32, tileK = 0, rows = 8, columns = 32, lanes = 32, path = "direct", partials = "global", scale = "accumulator", zero = "accumulator", threads = 128, stepK = 128>
#rows = #gptq.plan<mMin = 1, mMax = 8, unit = "mma_m16n8k16", tileM = 1, tileN = 0, tileK = 0, rows = 1, columns = 1, lanes = 4, path = "direct", partials = "global", scale = "weight", zero = "weight", threads = 128>
#layout = #gptq.layout<bits = 4, blockN = 16, blockK = 64, order = "b0 b1 n3 k1 k0 k2 k5 k3 k4 n0 n1 n2">

// Two panels for two pairs of warps, each of which takes parts of 128 rows in turn; a last one of 88 rows is taken by the warp
// whose turn it is. The sums meet in workgroup memory.
// CHECK-LABEL: func @partials_in_workgroup_memory
//  CHECK-SAME:   gptq.threads = 128
//       CHECK:   gpu.thread_id
//       CHECK:   scf.for %[[C:.+]] = %{{.+}} to %c2{{.*}} step %c2{{.*}} -> (vector<2x2xf32>)
//       CHECK:     vector.load %arg2{{.*}} {alignment = 4 : i64} : memref<2x3x16xf16>, vector<2xf16>
//       CHECK:     gptq.group_dot {{.*}} depth = 128
//       CHECK:   } {gptq.stages = 2 : i64}
//       CHECK:   scf.if
//       CHECK:     gptq.group_dot {{.*}} depth = 88
//       CHECK:   memref.alloc() : memref<2x8x32xf32, #gpu.address_space<workgroup>>
//       CHECK:   gpu.barrier
//       CHECK:   scf.for
//       CHECK:     memref.load {{.*}} #gpu.address_space<workgroup>
//       CHECK:     vector.store {{.*}} : memref<?x32xf32>, vector<1xf32>
//   CHECK-NOT:   atomic_rmw
func.func @partials_in_workgroup_memory(%x: memref<?x344xf16>, %q: memref<2x6x128xi32>, %s: memref<2x3x16xf16>, %e: memref<?x32xf32>) {
  gptq.dequant_matmul ins(%x, %q, %s : memref<?x344xf16>, memref<2x6x128xi32>, memref<2x3x16xf16>) outs(%e : memref<?x32xf32>) {bits = 4, group_size = 128, zero_point = 8, layout = #layout, gptq.plan = #shared}
  return
}

// A block of 2-bit codes has 128 rows: a part cannot have fewer.
#twobit = #gptq.layout<bits = 2, blockN = 16, blockK = 128, order = "b0 n3 k1 k2 k0 k5 k6 k3 k4 n0 n1 n2">
#parts = #gptq.plan<mMin = 2, mMax = 8, unit = "mma_m16n8k16", tileM = 8, tileN = 16, tileK = 0, rows = 8, columns = 16, lanes = 32, path = "direct", partials = "shared", scale = "accumulator", zero = "accumulator", threads = 64, stepK = 64>
// CHECK-LABEL: func @parts_are_whole_blocks
//       CHECK:   scf.for %{{.+}} = %{{.+}} to %c4{{.*}} step %c2
//       CHECK:     gptq.group_dot {{.*}} depth = 128
func.func @parts_are_whole_blocks(%x: memref<?x512xf16>, %q: memref<1x4x128xi32>, %s: memref<1x4x16xf16>, %e: memref<?x16xf32>) {
  gptq.dequant_matmul ins(%x, %q, %s : memref<?x512xf16>, memref<1x4x128xi32>, memref<1x4x16xf16>) outs(%e : memref<?x16xf32>) {bits = 2, group_size = 128, zero_point = 2, layout = #twobit, gptq.plan = #parts}
  return
}

// Without, the first warp starts the result and the others add to it.
// CHECK-LABEL: func @partials_in_the_result
//   CHECK-NOT:   memref.alloc
//       CHECK:   vector.store
//       CHECK:   gpu.barrier
//       CHECK:   memref.atomic_rmw addf
func.func @partials_in_the_result(%x: memref<?x256xf16>, %q: memref<2x4x128xi32>, %s: memref<2x2x16xf16>, %e: memref<?x32xf32>) {
  gptq.dequant_matmul ins(%x, %q, %s : memref<?x256xf16>, memref<2x4x128xi32>, memref<2x2x16xf16>) outs(%e : memref<?x32xf32>) {bits = 4, group_size = 128, zero_point = 8, layout = #layout, gptq.plan = #global}
  return
}

// A sum over a row: every thread its chunks, then the threads of a warp, then the warps.
// CHECK-LABEL: func @norm
//       CHECK:   scf.for %{{.+}} = %{{.+}} to %c64{{.*}} step %c512
//       CHECK:     vector.load {{.*}} vector<4xf32>
// CHECK-COUNT-5: gpu.shuffle xor
//       CHECK:   memref.store {{.*}} memref<4xf32, #gpu.address_space<workgroup>>
//       CHECK:   gpu.barrier
//       CHECK:   math.sqrt
func.func @norm(%x: memref<1x64xf32>, %w: memref<64xf16>, %e: memref<1x64xf16>) {
  gptq.rms_norm ins(%x, %w : memref<1x64xf32>, memref<64xf16>) outs(%e : memref<1x64xf16>) {epsilon = 1.0e-5, gptq.plan = #rows}
  return
}

// Heads are shared by warps.
// CHECK-LABEL: func @rotary
//       CHECK:   %[[WARP:.+]] = arith.divui
//       CHECK:   scf.for %{{.+}} = %[[WARP]] to %c4{{.*}} step %c4
func.func @rotary(%q: memref<1x64xf32>, %k: memref<1x32xf32>, %t: memref<16x16xf32>, %p: index, %c: memref<2x16x16xf16>, %e: memref<1x64xf32>) {
  gptq.rotary_append ins(%q, %k, %k, %t at %p : memref<1x64xf32>, memref<1x32xf32>, memref<1x32xf32>, memref<16x16xf32>) state(%c, %c : memref<2x16x16xf16>, memref<2x16x16xf16>) outs(%e : memref<1x64xf32>) {heads = 4, kv_heads = 2, head_dim = 16, gptq.plan = #rows}
  return
}

// Warps take positions, four at a time; what they found is joined at the end.
// CHECK-LABEL: func @attention
//       CHECK:   scf.for {{.*}} step %c16
// CHECK-COUNT-8: vector.load {{.*}} memref<1x64x32xf16>, vector<1xf16>
//       CHECK:     gpu.shuffle xor
//       CHECK:     math.exp
//       CHECK:     scf.yield
//       CHECK:   gpu.barrier
//       CHECK:   arith.divf
func.func @attention(%q: memref<1x32xf32>, %p: index, %c: memref<1x64x32xf16>, %e: memref<1x32xf16>) {
  gptq.attention ins(%q at %p : memref<1x32xf32>) state(%c, %c : memref<1x64x32xf16>, memref<1x64x32xf16>) outs(%e : memref<1x32xf16>) {heads = 1, kv_heads = 1, head_dim = 32, scale = 1.0, gptq.plan = #rows}
  return
}

// -----
#plan = #gptq.plan<mMin = 2, mMax = 8, unit = "mma_m16n8k16", tileM = 8, tileN = 16, tileK = 0, rows = 8, columns = 16, lanes = 32, path = "direct", partials = "shared", scale = "accumulator", zero = "accumulator", threads = 64, stepK = 128>
#layout = #gptq.layout<bits = 4, blockN = 16, blockK = 64, order = "b0 b1 n3 k1 k0 k2 k5 k3 k4 n0 n1 n2">
func.func @half_precision(%x: memref<?x128xf32>, %q: memref<1x2x128xi32>, %s: memref<1x1x16xf16>, %e: memref<?x16xf32>) {
  // expected-error @+1 {{expects activations of f16 or bf16 for unit "mma_m16n8k16", but found 'f32'}}
  gptq.dequant_matmul ins(%x, %q, %s : memref<?x128xf32>, memref<1x2x128xi32>, memref<1x1x16xf16>) outs(%e : memref<?x16xf32>) {bits = 4, group_size = 128, zero_point = 8, layout = #layout, gptq.plan = #plan}
  return
}
