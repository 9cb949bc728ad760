// RUN: gptq-opt %s -pass-pipeline="builtin.module(func.func(gptq-vectorize))" | FileCheck %s
// RUN: gptq-opt %s -pass-pipeline="builtin.module(func.func(gptq-vectorize{scalar=true}))" | FileCheck %s --check-prefix=SCALAR
// Model ops on buffers become loops over vectors; a matmul a loop over groups around register tiles.

#one = #gptq.plan<mMin = 1, mMax = 1, unit = "fma_f32", tileM = 0, tileN = 32, tileK = 0, rows = 1, columns = 32, lanes = 8, path = "direct", partials = "global", scale = "accumulator", zero = "accumulator">
#many = #gptq.plan<mMin = 2, mMax = 64, unit = "fma_f32", tileM = 24, tileN = 32, tileK = 0, rows = 6, columns = 16, lanes = 8, path = "direct", partials = "global", scale = "accumulator", zero = "accumulator">
#layout = #gptq.layout<bits = 4, blockN = 32, blockK = 8, order = "b0 b1 k0 k1 k2 n0 n1 n2 n3 n4">

// CHECK-LABEL: func @single_row
//       CHECK:   scf.for %[[G:.+]] = %{{.+}} to %{{.+}} step %{{.+}} iter_args(%[[ACC:.+]] = %{{.+}}) -> (vector<1x32xf32>)
//       CHECK:     vector.load %{{.+}} : memref<1x3x32xf16>, vector<32xf16>
//       CHECK:     vector.load %{{.+}} : memref<1x3x32xi8>, vector<32xi8>
//       CHECK:     gptq.group_dot {{.*}} acc %[[ACC]] scale %{{.+}} zero %{{.+}} {{.*}}depth = 32
//       CHECK:   gptq.group_dot {{.*}}depth = 12
//       CHECK:   vector.store
// SCALAR-LABEL: func @single_row
//       SCALAR:   gptq.group_dot {{.*}} lanes = 1,
func.func @single_row(%x: memref<1x76xf32>, %q: memref<1x10x32xi32>, %s: memref<1x3x32xf16>, %z: memref<1x3x32xi8>, %e: memref<1x32xf32>) {
  gptq.dequant_matmul ins(%x, %q, %s zeros %z : memref<1x76xf32>, memref<1x10x32xi32>, memref<1x3x32xf16> zeros memref<1x3x32xi8>) outs(%e : memref<1x32xf32>) {bits = 4, group_size = 32, layout = #layout, gptq.plan = #one}
  return
}

// Groups of 20 rows lie 3 blocks apart.
// CHECK-LABEL: func @part_words
//       CHECK:   scf.for %[[G:[a-z0-9]+]] = {{.*}} iter_args
//       CHECK:     %[[K:.+]] = arith.muli %[[G]], %c20
//       CHECK:     %[[BLOCK:.+]] = arith.muli %[[G]], %c3
//       CHECK:     gptq.group_dot %{{.+}}[%{{.+}}, %[[K]]], %{{.+}}[%{{.+}}, %[[BLOCK]]] {{.*}}depth = 20
func.func @part_words(%x: memref<1x40xf32>, %q: memref<1x6x32xi32>, %s: memref<1x2x32xf16>, %e: memref<1x32xf32>) {
  gptq.dequant_matmul ins(%x, %q, %s : memref<1x40xf32>, memref<1x6x32xi32>, memref<1x2x32xf16>) outs(%e : memref<1x32xf32>) {bits = 4, group_size = 20, zero_point = 8, layout = #layout, gptq.plan = #one}
  return
}

// Six rows at a time, then pairs, then single rows; the last columns are stored under a mask.
// CHECK-LABEL: func @many_rows
//       CHECK:   vector<6x16xf32>
//       CHECK:   vector.maskedstore
//       CHECK:   vector<2x16xf32>
//       CHECK:   vector<1x16xf32>
func.func @many_rows(%x: memref<?x64xf32>, %q: memref<1x8x32xi32>, %s: memref<1x2x32xf16>, %e: memref<?x20xf32>) {
  gptq.dequant_matmul ins(%x, %q, %s : memref<?x64xf32>, memref<1x8x32xi32>, memref<1x2x32xf16>) outs(%e : memref<?x20xf32>) {bits = 4, group_size = 32, zero_point = 8, layout = #layout, gptq.plan = #many}
  return
}

// A tile of a gated MLP holds gate columns and the up columns they go with.
// CHECK-LABEL: func @gated
//       CHECK:   gptq.group_dot {{.*}}columns = array<i64: 0, 16>
//       CHECK:   math.exp
//       CHECK:   vector.store {{.*}} vector<16xf32>
func.func @gated(%x: memref<1x64xf32>, %q: memref<1x8x32xi32>, %s: memref<1x2x32xf16>, %e: memref<1x16xf32>) {
  gptq.dequant_matmul ins(%x, %q, %s : memref<1x64xf32>, memref<1x8x32xi32>, memref<1x2x32xf16>) outs(%e : memref<1x16xf32>) {bits = 4, group_size = 32, zero_point = 8, layout = #layout, epilogue = #gptq.epilogue<silu_mul>, gptq.plan = #one}
  return
}

// A row of 20 elements: two vectors of 8, one of 4.
// CHECK-LABEL: func @norm
//       CHECK:   scf.for {{.*}} iter_args(%{{.+}} = %{{.+}}) -> (vector<8xf32>)
//       CHECK:   vector<4xf32>
//       CHECK:   math.sqrt
//       CHECK:   arith.divf
// SCALAR-LABEL: func @norm
//       SCALAR:   vector<1xf32>
//   SCALAR-NOT:   vector<8xf32>
func.func @norm(%x: memref<?x20xf32>, %w: memref<20xf16>, %e: memref<?x20xf32>) {
  gptq.rms_norm ins(%x, %w : memref<?x20xf32>, memref<20xf16>) outs(%e : memref<?x20xf32>) {epsilon = 1.0e-5, gptq.plan = #many}
  return
}

// Scores are kept in workgroup memory; a window bounds where they start.
// CHECK-LABEL: func @attention
//       CHECK:   memref.alloc() : memref<16xf32, #gpu.address_space<workgroup>>
//       CHECK:   arith.maxsi
//       CHECK:   arith.maximumf
//       CHECK:   math.exp
//       CHECK:   vector.fma
func.func @attention(%q: memref<?x16xf32>, %p: index, %c: memref<1x16x8xf32>, %e: memref<?x16xf32>) {
  gptq.attention ins(%q at %p : memref<?x16xf32>) state(%c, %c : memref<1x16x8xf32>, memref<1x16x8xf32>) outs(%e : memref<?x16xf32>) {heads = 2, kv_heads = 1, head_dim = 8, scale = 1.0, window = 4, gptq.plan = #many}
  return
}

// CHECK-LABEL: func @rotary
//       CHECK:   vector.load %{{.+}} : memref<16x8xf32>
//       CHECK:   vector.store %{{.+}} : memref<1x16x8xf32>
func.func @rotary(%q: memref<?x16xf32>, %k: memref<?x8xf32>, %t: memref<16x8xf32>, %p: index, %c: memref<1x16x8xf32>, %e: memref<?x16xf32>) {
  gptq.rotary_append ins(%q, %k, %k, %t at %p : memref<?x16xf32>, memref<?x8xf32>, memref<?x8xf32>, memref<16x8xf32>) state(%c, %c : memref<1x16x8xf32>, memref<1x16x8xf32>) outs(%e : memref<?x16xf32>) {heads = 2, kv_heads = 1, head_dim = 8, gptq.plan = #many}
  return
}

// Activations become integers of three bytes: the largest of a group gives the unit, each byte carries into the next.
#split = #gptq.plan<mMin = 1, mMax = 1, unit = "fma_f32", tileM = 0, tileN = 32, tileK = 0, rows = 1, columns = 32, lanes = 8, path = "split", partials = "global", scale = "accumulator", zero = "accumulator">
// CHECK-LABEL: func @split
//  CHECK-SAME:   %[[X:[a-z0-9]+]]: memref<1x40xf32>, %[[B:[a-z0-9]+]]: memref<1x192xi8>, %[[U:[a-z0-9]+]]: memref<1x2xf32>
//       CHECK:   math.absf
//       CHECK:   vector.reduction <maximumf>
//       CHECK:   memref.store %{{.+}}, %[[U]]
//       CHECK:   math.roundeven
//       CHECK:   arith.fptosi
//       CHECK:   arith.trunci
//       CHECK:   vector.store %{{.+}}, %[[B]]{{.*}} : memref<1x192xi8>, vector<8xi8>
//       CHECK:   arith.shrsi
//       CHECK:   vector.store %{{.+}}, %[[B]]
//       CHECK:   vector.store %{{.+}}, %[[B]]
func.func @split(%x: memref<1x40xf32>, %b: memref<1x192xi8>, %u: memref<1x2xf32>) {
  gptq.stage_split ins(%x : memref<1x40xf32>) outs(%b, %u : memref<1x192xi8>, memref<1x2xf32>) {group_size = 32, gptq.plan = #split}
  return
}

// Groups of 20 rows start at every third block of 8; bytes come with the unit of their group.
// CHECK-LABEL: func @groups_of_their_own_blocks
//       CHECK:   scf.for %[[G:[a-z0-9]+]] = {{.*}} -> (vector<1x32xf32>)
//       CHECK:     %[[K:.+]] = arith.muli %[[G]], %c20
//       CHECK:     %[[BLOCK:.+]] = arith.muli %[[G]], %c3
//       CHECK:     memref.load %{{.+}}[%{{.+}}, %[[G]]] : memref<1x2xf32>
//       CHECK:     gptq.group_dot %{{.+}}[%{{.+}}, %[[K]]] split %{{.+}} by %{{.+}}, %{{.+}}[%{{.+}}, %[[BLOCK]]] {{.*}}depth = 20
func.func @groups_of_their_own_blocks(%x: memref<1x40xf32>, %q: memref<1x6x32xi32>, %s: memref<1x2x32xf16>, %b: memref<1x192xi8>, %u: memref<1x2xf32>, %e: memref<1x32xf32>) {
  gptq.dequant_matmul ins(%x, %q, %s split %b, %u : memref<1x40xf32>, memref<1x6x32xi32>, memref<1x2x32xf16> split memref<1x192xi8>, memref<1x2xf32>) outs(%e : memref<1x32xf32>) {bits = 4, group_size = 20, zero_point = 8, layout = #layout, gptq.plan = #split}
  return
}

// The columns of the last tile are known when it runs: whole vectors, then one by one.
// CHECK-LABEL: func @stage_of_any_width
//       CHECK:   scf.for
//       CHECK:     arith.divui
//       CHECK:     scf.for
//       CHECK:       vector.store {{.*}} vector<8xf32>
//       CHECK:     scf.for
//       CHECK:       vector.store {{.*}} vector<1xf32>
func.func @stage_of_any_width(%x: memref<?x?xf32>, %y: memref<?x?xf32>) {
  gptq.stage ins(%x : memref<?x?xf32>) outs(%y : memref<?x?xf32>) {gptq.plan = #gptq.plan<mMin = 2, mMax = 64, unit = "fma_f32", tileM = 0, tileN = 32, tileK = 32, rows = 1, columns = 32, lanes = 8, path = "promote", partials = "shared", scale = "accumulator", zero = "accumulator">}
  return
}
