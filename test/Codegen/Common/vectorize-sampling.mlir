// RUN: gptq-opt %s -split-input-file -verify-diagnostics -pass-pipeline="builtin.module(func.func(gptq-vectorize))" | FileCheck %s
// The largest of a row are sorted, and one of them is drawn.

#warps = #gptq.plan<mMin = 1, mMax = 8, unit = "mma_m16n8k16", tileM = 1, tileN = 0, tileK = 0, rows = 1, columns = 1, lanes = 4, path = "direct", partials = "global", scale = "weight", zero = "weight", threads = 128>
#one = #gptq.plan<mMin = 1, mMax = 8, unit = "fma_f32", tileM = 8, tileN = 0, tileK = 0, rows = 1, columns = 8, lanes = 8, path = "direct", partials = "global", scale = "weight", zero = "weight">

// 1500 logits are fewer than 2048 keys, which are read once: value and index in one number, NaNs out of the way. Runs of 16
// are sorted, then the larger ones of two runs are kept and sorted again.
// CHECK-LABEL: func @top_k
//       CHECK:   memref.alloc() : memref<2048xi64, #gpu.address_space<workgroup>>
//       CHECK:   %[[LOGIT:.+]] = memref.load {{.*}} : memref<1x5003xf32>
//       CHECK:   arith.cmpf uno, %[[LOGIT]], %[[LOGIT]]
//       CHECK:   arith.bitcast {{.*}} : f32 to i32
//       CHECK:   memref.store {{.*}} : memref<2048xi64
//       CHECK:   gpu.barrier
//       CHECK:   scf.for
//       CHECK:     arith.cmpi ugt
// CHECK-COUNT-2:   memref.store {{.*}} : memref<2048xi64
//       CHECK:     gpu.barrier
//       CHECK:   memref.store {{.*}} : memref<1x16xf32>
//       CHECK:   memref.store {{.*}} : memref<1x16xi32>
func.func @top_k(%x: memref<1x5003xf32>, %i: index, %v: memref<1x16xf32>, %n: memref<1x16xi32>) {
  gptq.top_k ins(%x part %i : memref<1x5003xf32>) outs(%v, %n : memref<1x16xf32>, memref<1x16xi32>) {columns = 1500, gptq.plan = #warps}
  return
}

// One thread takes several parts, each of more logits than are sorted at a time: three times 4096, of which 64 are kept.
// CHECK-LABEL: func @parts
//       CHECK:   memref.alloc() : memref<4096xi64
//       CHECK:   scf.for {{.*}} to %c2
//       CHECK:     scf.for {{.*}} to %c3
//   CHECK-NOT: gpu.barrier
//       CHECK: return
func.func @parts(%x: memref<1x20000xf16>, %i: index, %v: memref<2x64xf32>, %n: memref<2x64xi32>) {
  gptq.top_k ins(%x part %i : memref<1x20000xf16>) outs(%v, %n : memref<2x64xf32>, memref<2x64xi32>) {columns = 10000, gptq.plan = #one}
  return
}

// Of sorted runs nothing is sorted: each level is one loop, over the larger ones and then their merges.
// CHECK-LABEL: func @merge
//       CHECK:   memref.alloc() : memref<2048xi64
//       CHECK:   memref.load {{.*}} : memref<40x128xf32>
//       CHECK:   memref.load {{.*}} : memref<40x128xi32>
//       CHECK:   scf.for {{.*}} to %c4
//       CHECK:     gpu.barrier
//       CHECK:     scf.for {{.*}} to %c7
//       CHECK:       gpu.barrier
//       CHECK:   scf.for {{.*}} to %c128
//       CHECK:     memref.store {{.*}} : memref<1x128xf32>
func.func @merge(%x: memref<40x128xf32>, %j: memref<40x128xi32>, %i: index, %v: memref<1x128xf32>, %n: memref<1x128xi32>) {
  gptq.top_k ins(%x indices %j part %i : memref<40x128xf32> indices memref<40x128xi32>) outs(%v, %n : memref<1x128xf32>, memref<1x128xi32>) {columns = 2048, gptq.plan = #warps}
  return
}

// What is drawn goes to the result and to where the next call reads it. Exponentials and what they are multiplied with are
// doubles, rounded one by one; sums are integers.
// CHECK-LABEL: func @sample
//  CHECK-SAME:   gptq.advances
// CHECK-COUNT-20: arith.mului_extended {{.*}} : i32
//   CHECK-NOT:   math.
//       CHECK:   arith.subf {{.*}} : f64
// CHECK-COUNT-13: arith.addf {{.*}} : f64
//       CHECK:   arith.fptosi {{.*}} : f64 to i64
// CHECK-COUNT-4: arith.addi {{.*}} : i64
//       CHECK:   arith.cmpf oge, {{.*}} : f64
//       CHECK:   arith.mului_extended {{.*}} : i64
// CHECK-COUNT-2: memref.store {{.*}} : memref<1xi32>
func.func @sample(%v: memref<4x16xf32>, %n: memref<4x16xi32>, %how: memref<6xi32>, %p: index, %r: memref<1xi32>, %t: memref<1xi32>) {
  gptq.sample_token ins(%v, %n, %how at %p : memref<4x16xf32>, memref<4x16xi32>, memref<6xi32>) outs(%r, %t : memref<1xi32>, memref<1xi32>) {gptq.plan = #warps}
  return
}

// -----
#warps = #gptq.plan<mMin = 1, mMax = 8, unit = "mma_m16n8k16", tileM = 1, tileN = 0, tileK = 0, rows = 1, columns = 1, lanes = 4, path = "direct", partials = "global", scale = "weight", zero = "weight", threads = 128>
func.func @two_runs_fit(%x: memref<1x50000xf32>, %i: index, %v: memref<1x4096xf32>, %n: memref<1x4096xi32>) {
  // expected-error @+1 {{expects at most 2048 values for each part, but found 4096}}
  gptq.top_k ins(%x part %i : memref<1x50000xf32>) outs(%v, %n : memref<1x4096xf32>, memref<1x4096xi32>) {columns = 10000, gptq.plan = #warps}
  return
}
