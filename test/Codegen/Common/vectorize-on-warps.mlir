// RUN: gptq-opt %s -split-input-file -verify-diagnostics -pass-pipeline="builtin.module(func.func(gptq-vectorize))" | FileCheck %s
// Where a workgroup has several threads they share its work.

#shared = #gptq.plan<mMin = 2, mMax = 8, unit = "mma_m16n8k16", tileM = 8, tileN = 32, tileK = 0, rows = 8, columns = 16, lanes = 32, path = "direct", partials = "shared", scale = "accumulator", zero = "accumulator", threads = 128, stepK = 128, stages = 2, firstBytes = 64, aheadBytes = 16>
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
//       CHECK:   } {gptq.ahead_bytes = 16 : i64, gptq.first_bytes = 64 : i64, gptq.stages = 2 : i64}
//       CHECK:   scf.if
//       CHECK:     gptq.group_dot {{.*}} depth = 88
//       CHECK:   memref.alloc() : memref<1x8x2x32xf32, #gpu.address_space<workgroup>>
//       CHECK:   gpu.barrier
//       CHECK:   scf.for
//       CHECK:     memref.load {{.*}} #gpu.address_space<workgroup>
//       CHECK:     vector.store {{.*}} : memref<?x32xf32>, vector<1xf32>
//   CHECK-NOT:   atomic_rmw
func.func @partials_in_workgroup_memory(%x: memref<?x344xf16>, %q: memref<2x6x128xi32>, %s: memref<2x3x16xf16>, %e: memref<?x32xf32>) {
  gptq.dequant_matmul ins(%x, %q, %s : memref<?x344xf16>, memref<2x6x128xi32>, memref<2x3x16xf16>) outs(%e : memref<?x32xf32>) {bits = 4, group_size = 128, zero_point = 8, layout = #layout, gptq.plan = #shared}
  return
}

// One row that is added to the result: what every thread adds to is there before anything is multiplied, and of the sums only
// those of the first thread of each column are set down.
// CHECK-LABEL: func @one_row_is_added
//       CHECK:   %[[OLD:.+]] = vector.load %arg3[%{{.+}}, %{{.+}}] {alignment = 4 : i64, gptq.prefetched} : memref<1x32xf32>, vector<1xf32>
//       CHECK:   %[[EARLIER:.+]] = vector.extract %[[OLD]][0]
//       CHECK:   scf.for
//       CHECK:     gptq.group_dot
//       CHECK:   memref.alloc() : memref<1x4x2x8xf32, #gpu.address_space<workgroup>>
//       CHECK:   scf.if
// CHECK-COUNT-2:   memref.store {{.*}} memref<1x4x2x8xf32, #gpu.address_space<workgroup>>
//   CHECK-NOT:     memref.store
//       CHECK:   gpu.barrier
//       CHECK:   arith.addf %{{.+}}, %[[EARLIER]]
func.func @one_row_is_added(%x: memref<1x256xf16>, %q: memref<2x4x128xi32>, %s: memref<2x2x16xf16>, %e: memref<1x32xf32>) {
  gptq.dequant_matmul ins(%x, %q, %s : memref<1x256xf16>, memref<2x4x128xi32>, memref<2x2x16xf16>) outs(%e : memref<1x32xf32>) {bits = 4, group_size = 128, zero_point = 8, accumulate, layout = #layout, gptq.plan = #shared}
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

// Two workgroups of a cluster take two parts of 64 rows each, and hold a part of the room for sums; each adds up half of the
// result, in the order of workgroups and warps, and waits until the other has read.
#halves = #gptq.plan<mMin = 2, mMax = 8, unit = "mma_m16n8k16", tileM = 8, tileN = 32, tileK = 0, rows = 8, columns = 16, lanes = 32, path = "direct", partials = "shared", scale = "accumulator", zero = "accumulator", threads = 64, stepK = 64, cluster = 2>
// CHECK-LABEL: func @partials_in_a_cluster
//       CHECK:   %[[MEMBER:.+]] = gpu.cluster_block_id x
//       CHECK:   scf.for %[[C:.+]] = %{{.+}} to %c2{{.*}} step %c1{{.*}} -> (vector<2x2xf32>)
//       CHECK:     %[[FIRST:.+]] = arith.muli %[[MEMBER]], %c2
//       CHECK:     arith.addi %[[FIRST]], %[[C]]
//       CHECK:   %[[ROOM:.+]] = memref.alloc() {gptq.cluster = 2 : i64} : memref<2x8x1x32xf32, #gpu.address_space<workgroup>>
//       CHECK:   memref.store %{{.+}}, %[[ROOM]][%[[MEMBER]],
//       CHECK:   gpu.barrier {gptq.cluster = 2 : i64}
//       CHECK:   scf.for {{.*}} step %c128
//       CHECK:     memref.load %[[ROOM]][%c0
//       CHECK:     memref.load %[[ROOM]][%c1
//       CHECK:     vector.store
//       CHECK:   gpu.barrier {gptq.cluster = 2 : i64}
func.func @partials_in_a_cluster(%x: memref<?x256xf16>, %q: memref<2x4x128xi32>, %s: memref<2x2x16xf16>, %e: memref<?x32xf32>) {
  gptq.dequant_matmul ins(%x, %q, %s : memref<?x256xf16>, memref<2x4x128xi32>, memref<2x2x16xf16>) outs(%e : memref<?x32xf32>) {bits = 4, group_size = 128, zero_point = 8, layout = #layout, gptq.plan = #halves}
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

// All of the context, 4 x 4 x 8 positions at once; what the warps found is joined at the end.
// CHECK-LABEL: func @attention
// CHECK-COUNT-8: vector.load {{.*}} {alignment = 16 : i64} : memref<1x64x32xf16>, vector<8xf16>
// Two steps leave each of the four threads of a position one of four scores, of which it has the exponential; nothing came before.
// CHECK-COUNT-3: gpu.shuffle xor
//       CHECK:   arith.select {{.*}} : f32
// CHECK-COUNT-5: gpu.shuffle xor
//   CHECK-NOT:   gpu.shuffle
//       CHECK:   math.exp2
//   CHECK-NOT:   math.exp2
// CHECK-COUNT-4: gpu.shuffle idx
//       CHECK:   scf.for {{.*}} step %c1
// CHECK-COUNT-8:   vector.load
// CHECK-COUNT-2:   math.exp2
//   CHECK-NOT:     math.exp2
// CHECK-COUNT-5:   gpu.shuffle idx
//       CHECK:     scf.yield
//       CHECK:   gpu.barrier
//       CHECK:   arith.divf
func.func @attention(%q: memref<1x32xf32>, %p: index, %c: memref<1x64x32xf16>, %e: memref<1x32xf16>) {
  gptq.attention ins(%q at %p : memref<1x32xf32>) state(%c, %c : memref<1x64x32xf16>, memref<1x64x32xf16>) outs(%e : memref<1x32xf16>) {heads = 1, kv_heads = 1, head_dim = 32, scale = 1.0, gptq.plan = #rows}
  return
}

// A part of the context: each of four warps reads 4 x 8 positions at once, four threads one of them; keys and values of earlier
// calls first. The row's own are rotated, used in place of what was read, and appended. Where there are fewer chunks than parts, a
// part says that it has nothing.
// CHECK-LABEL: func @part
//       CHECK:   %[[CHUNKS:.+]] = arith.ceildivui
//       CHECK:   %[[HAS:.+]] = arith.cmpi slt, %arg4, %[[CHUNKS]]
//       CHECK:   scf.if %[[HAS]] {
// CHECK-COUNT-8: vector.load {{.*}} {alignment = 16 : i64, gptq.prefetched, gptq.settled} : memref<1x64x32xf16>, vector<8xf16>
//       CHECK:   vector.load {{.*}} {alignment = 16 : i64, gptq.settled} : memref<64x32xf32>, vector<8xf32>
//       CHECK:   scf.if {{.*}} -> (vector<8xf16>,
// CHECK-COUNT-8:   arith.select {{.*}} : vector<8xf16>
//       CHECK:     vector.store {{.*}} {alignment = 16 : i64} : memref<1x64x32xf16>, vector<8xf16>
//       CHECK:   } else {
//       CHECK:   gpu.shuffle xor
//       CHECK:   math.exp2
//       CHECK:   scf.for {{.*}} step %c5
//   CHECK-NOT:     gptq.settled
//       CHECK:   gpu.barrier
//   CHECK-NOT:   arith.divf
//       CHECK:   vector.store {{.*}} : memref<1x64xf32>
//       CHECK:   vector.store {{.*}} : memref<1x4xf32>
//       CHECK:   } else {
//   CHECK-NOT:     memref<1x64xf32>
//       CHECK:     vector.store {{.*}} : memref<1x4xf32>
func.func @part(%q: memref<1x64xf32>, %k: memref<1x32xf32>, %t: memref<64x32xf32>, %p: index, %i: index, %c: memref<1x64x32xf16>, %s: memref<1x64xf32>, %u: memref<1x4xf32>) {
  gptq.attention ins(%q rotary %k, %k, %t at %p part %i : memref<1x64xf32> rotary memref<1x32xf32>, memref<1x32xf32>, memref<64x32xf32>) state(%c, %c : memref<1x64x32xf16>, memref<1x64x32xf16>) outs(%s, %u : memref<1x64xf32>, memref<1x4xf32>) {heads = 2, kv_heads = 1, head_dim = 32, scale = 1.0, parts = 5, gptq.plan = #rows}
  return
}

// Parts are joined in their order; of those without a position nothing was written but that.
// CHECK-LABEL: func @join
// Loads depend on nothing that another finds. A warp has elements of one head: each of its threads has the weight of one part.
// CHECK-COUNT-2: memref.load {{.*}} : memref<2x32xf32>
//       CHECK:   vector.load {{.*}} : memref<2x2xf32>, vector<2xf32>
// CHECK-COUNT-5: gpu.shuffle xor
//       CHECK:   math.exp
//   CHECK-NOT:   math.exp
//       CHECK:   gpu.shuffle idx
//       CHECK:   arith.cmpf oeq
//       CHECK:   arith.select
//       CHECK:   math.fma
//       CHECK:   gpu.shuffle idx
//       CHECK:   arith.divf
func.func @join(%s: memref<2x32xf32>, %u: memref<2x2xf32>, %e: memref<1x32xf16>) {
  gptq.join_attention ins(%s, %u : memref<2x32xf32>, memref<2x2xf32>) outs(%e : memref<1x32xf16>) {heads = 1, head_dim = 32, gptq.plan = #rows}
  return
}

// Where warps cross heads each thread has all weights.
// CHECK-LABEL: func @join_across_heads
// CHECK-COUNT-2: vector.load {{.*}} : memref<2x4xf32>, vector<2xf32>
//   CHECK-NOT:   gpu.shuffle
// CHECK-COUNT-2: math.exp
//       CHECK:   arith.divf
func.func @join_across_heads(%s: memref<2x32xf32>, %u: memref<2x4xf32>, %e: memref<1x32xf16>) {
  gptq.join_attention ins(%s, %u : memref<2x32xf32>, memref<2x4xf32>) outs(%e : memref<1x32xf16>) {heads = 2, head_dim = 16, gptq.plan = #rows}
  return
}

// Several rows: scores, then weighted values, on the matrix unit, 16 rows by 16 positions.
#tiles = #gptq.plan<mMin = 2, mMax = 64, unit = "mma_m16n8k16", tileM = 32, tileN = 2, tileK = 0, rows = 16, columns = 1, lanes = 4, path = "direct", partials = "global", scale = "weight", zero = "weight", threads = 128>
// CHECK-LABEL: func @tile
//       CHECK:   scf.for {{.*}} step %c4
//       CHECK:     arith.truncf {{.*}} : vector<8xf32> to vector<8xf16>
//       CHECK:     scf.for {{.*}} step %c16
// CHECK-COUNT-2:     gptq.fragment_dot {{.*}} : vector<4x2xf16>, vector<2x2xf16>, vector<2x2xf32>
//       CHECK:       math.exp
// CHECK-COUNT-4:     gptq.fragment_dot
//   CHECK-NOT:       gptq.fragment_dot
//       CHECK:     arith.divf
//       CHECK:     scf.if
//       CHECK:       vector.store {{.*}} vector<8xf16>
func.func @tile(%q: memref<?x64xf32>, %p: index, %c: memref<1x64x32xf16>, %e: memref<?x64xf16>) {
  gptq.attention ins(%q at %p : memref<?x64xf32>) state(%c, %c : memref<1x64x32xf16>, memref<1x64x32xf16>) outs(%e : memref<?x64xf16>) {heads = 2, kv_heads = 1, head_dim = 32, scale = 1.0, gptq.plan = #tiles}
  return
}

// The largest logit: of each thread, of each warp, of all; the first of equal ones.
// CHECK-LABEL: func @argmax
//       CHECK:   scf.for {{.*}} -> (f32, i32)
//       CHECK:     arith.cmpf ogt
//       CHECK:     arith.cmpf oeq
//       CHECK:   gpu.shuffle xor {{.*}} : f32
//       CHECK:   gpu.shuffle xor {{.*}} : i32
//       CHECK:   gpu.barrier
//       CHECK:   memref.store {{.*}} : memref<1x1xi32>
func.func @argmax(%x: memref<1x5000xf32>, %i: index, %v: memref<1x1xf32>, %n: memref<1x1xi32>) {
  gptq.argmax ins(%x part %i : memref<1x5000xf32>) outs(%v, %n : memref<1x1xf32>, memref<1x1xi32>) {columns = 1250, gptq.plan = #rows}
  return
}

// The token goes to the result and to where the next call reads it.
// CHECK-LABEL: func @choose
//  CHECK-SAME:   gptq.advances
// CHECK-COUNT-2: memref.store {{.*}} : memref<1xi32>
func.func @choose(%v: memref<4x1xf32>, %n: memref<4x1xi32>, %r: memref<1xi32>, %t: memref<1xi32>) {
  gptq.choose_token ins(%v, %n : memref<4x1xf32>, memref<4x1xi32>) outs(%r, %t : memref<1xi32>, memref<1xi32>) {gptq.plan = #rows}
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

// -----
#thirds = #gptq.plan<mMin = 2, mMax = 8, unit = "mma_m16n8k16", tileM = 8, tileN = 32, tileK = 0, rows = 8, columns = 16, lanes = 32, path = "direct", partials = "shared", scale = "accumulator", zero = "accumulator", threads = 64, stepK = 64, cluster = 3>
#layout = #gptq.layout<bits = 4, blockN = 16, blockK = 64, order = "b0 b1 n3 k1 k0 k2 k5 k3 k4 n0 n1 n2">
func.func @parts_are_shared_evenly(%x: memref<?x256xf16>, %q: memref<2x4x128xi32>, %s: memref<2x2x16xf16>, %e: memref<?x32xf32>) {
  // expected-error @+1 {{expects parts of 64 rows that 3 workgroups share evenly, but found 256 rows}}
  gptq.dequant_matmul ins(%x, %q, %s : memref<?x256xf16>, memref<2x4x128xi32>, memref<2x2x16xf16>) outs(%e : memref<?x32xf32>) {bits = 4, group_size = 128, zero_point = 8, layout = #layout, gptq.plan = #thirds}
  return
}

// -----
#rows = #gptq.plan<mMin = 1, mMax = 8, unit = "mma_m16n8k16", tileM = 2, tileN = 1, tileK = 0, rows = 1, columns = 1, lanes = 4, path = "direct", partials = "global", scale = "weight", zero = "weight", threads = 128>
func.func @one_row(%q: memref<2x32xf32>, %p: index, %c: memref<1x64x32xf16>, %e: memref<2x32xf16>) {
  // expected-error @+1 {{expects one row in a workgroup}}
  gptq.attention ins(%q at %p : memref<2x32xf32>) state(%c, %c : memref<1x64x32xf16>, memref<1x64x32xf16>) outs(%e : memref<2x32xf16>) {heads = 1, kv_heads = 1, head_dim = 32, scale = 1.0, gptq.plan = #rows}
  return
}
