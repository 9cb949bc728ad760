// RUN: gptq-opt %s -split-input-file -gptq-pack-weights | FileCheck %s --check-prefix=PACK
// RUN: gptq-opt %s -split-input-file -gptq-pack-weights -gptq-form-dispatches -cse | FileCheck %s --check-prefix=FORM
// RUN: gptq-opt %s -split-input-file -gptq-pack-weights -gptq-to-dispatched -gptq-to-tiled | FileCheck %s --check-prefix=TILE
// RUN: gptq-opt %s -split-input-file -gptq-pack-weights -gptq-to-dispatched -gptq-to-tiled -gptq-to-vector | FileCheck %s --check-prefix=VECTOR
// A product with the weights of several experts becomes, run by run, the product with the weight of one.

#one = #gptq.plan<mMin = 1, mMax = 1, unit = "fma_f32", tileM = 0, tileN = 32, tileK = 0, rows = 1, columns = 32, lanes = 8, path = "promote", partials = "global", scale = "accumulator", zero = "accumulator">
#many = #gptq.plan<mMin = 2, mMax = 64, unit = "fma_f32", tileM = 24, tileN = 32, tileK = 0, rows = 6, columns = 16, lanes = 8, path = "direct", partials = "global", scale = "accumulator", zero = "accumulator">
gptq.weight @q0 : tensor<64x80xi4> = #gptq.codes<#gptq.data<"m", "q0", 0, tensor<8x80xi32>>, bits = 4, packing = rows>
gptq.weight @q1 : tensor<64x80xi4> = #gptq.codes<#gptq.data<"m", "q1", 0, tensor<8x80xi32>>, bits = 4, packing = rows>
gptq.weight @q2 : tensor<64x80xi4> = #gptq.codes<#gptq.data<"m", "q2", 0, tensor<8x80xi32>>, bits = 4, packing = rows>
gptq.weight @q : tensor<3x64x80xi4> = #gptq.stack<[@q0, @q1, @q2]>
gptq.weight @s0 : tensor<2x80xf16> = #gptq.data<"m", "s0", 0, tensor<2x80xf16>>
gptq.weight @s : tensor<3x2x80xf16> = #gptq.stack<[@s0, @s0, @s0]>
gptq.weight @p0 : tensor<64xi32> = #gptq.argsort<#gptq.data<"m", "p0", 0, tensor<64xi32>>, groups = 2>
gptq.weight @p : tensor<3x64xi32> = #gptq.stack<[@p0, @p0, @p0]>

// Each expert is packed by itself.
// PACK-DAG: gptq.weight @q1.packed : tensor<3x8x32xi32> = #gptq.packed<@q1, layout
// PACK-DAG: gptq.weight @q.packed : tensor<3x3x8x32xi32> = #gptq.stack<[@q0.packed, @q1.packed, @q2.packed]>
// PACK-DAG: gptq.weight @s.packed : tensor<3x3x2x32xf16> = #gptq.stack<[@s0.packed, @s0.packed, @s0.packed]>

// The slots of all rows are the rows of one matrix; the dispatch says how many experts a row is multiplied by.
//       FORM: gptq.dispatch {{.*}} {gptq.slots = 2 : i64}
//       FORM: func.func @dequant_matmul_0_m1(%[[X:.+]]: memref<1x2x64xf32>, %{{.+}}: memref<3x3x8x32xi32> {gptq.weight}, %{{.+}}: memref<3x3x2x32xf16> {gptq.weight}, %{{.+}}: memref<3x64xi32> {gptq.weight}, %{{.+}}: memref<4x2xi32>, %[[Y:.+]]: memref<1x2x80xf32>,
//   FORM-DAG:   memref.collapse_shape %[[X]] {{\[\[}}0, 1], [2]] : memref<1x2x64xf32> into memref<2x64xf32>
//   FORM-DAG:   memref.collapse_shape %[[Y]] {{\[\[}}0, 1], [2]]
//       FORM:   gptq.dequant_matmul {{.*}} outs(%{{.+}} : tensor<2x80xf32>)
//       FORM: func.func @dequant_matmul_1_m64(%{{.+}}: memref<?x2x64xf32>

// One row has as many runs as slots; a run's first row and its expert come from memory, and what is left knows of one expert.
//       TILE: func.func @dequant_matmul_0_m1
//       TILE:   scf.forall (%[[R:.+]], %[[P:.+]]) in (2, 3)
//       TILE:     %[[E:.+]] = tensor.extract %{{.+}}[%[[R]], %c0]
//       TILE:     %[[EXPERT:.+]] = arith.index_cast %[[E]]
//       TILE:     %[[F:.+]] = tensor.extract %{{.+}}[%[[R]], %c1]
//       TILE:     %[[FIRST:.+]] = arith.index_cast %[[F]]
//       TILE:     %[[ROWS:.+]] = arith.subi %{{.+}}, %[[FIRST]]
//   TILE-DAG:     tensor.extract_slice %{{.+}}[%[[FIRST]], 0] [%[[ROWS]], 64] [1, 1]
//   TILE-DAG:     tensor.extract_slice %{{.+}}[%[[EXPERT]], 0] [1, 64] [1, 1] : tensor<3x64xi32> to tensor<64xi32>
//   TILE-DAG:     tensor.extract_slice %{{.+}}[%[[EXPERT]], %[[P]], 0, 0] [1, 1, 8, 32] [1, 1, 1, 1] : tensor<3x3x8x32xi32> to tensor<1x8x32xi32>
//       TILE:     gptq.stage {{.*}} perm
//       TILE:     gptq.dequant_matmul ins(%{{[^ ]+}}, %{{[^ ]+}}, %{{[^ ]+}} : tensor<?x64xf32>, tensor<1x8x32xi32>, tensor<1x2x32xf16>)
//   TILE-NOT:     runs
// Of many rows, as many runs as experts at most, each a tile of rows at a time.
//       TILE: func.func @dequant_matmul_1_m64
//       TILE:   scf.forall (%{{.+}}, %{{.+}}) in (3, 3)
//       TILE:     scf.for %{{.+}} = %c0 to %{{.+}} step %c24

// Nothing is copied on the way, and the grid counts runs and panels.
//       VECTOR: func.func @dequant_matmul_0_m1({{.*}}gptq.grid = [array<i64: 0, 0, 2, 1>, array<i64: 0, 0, 3, 1>]
//       VECTOR:   gptq.group_dot
//       VECTOR: func.func @dequant_matmul_1_m64({{.*}}gptq.grid = [array<i64: 0, 0, 3, 1>, array<i64: 0, 0, 3, 1>]
//   VECTOR-NOT:   memref.copy
//   VECTOR-NOT:   memref.alloc
//       VECTOR:   gptq.group_dot
func.func @experts(%x: tensor<?x2x64xf32>, %runs: tensor<4x2xi32>) -> tensor<?x2x80xf32> attributes {gptq.max_m = 64 : i64} {
  %c0 = arith.constant 0 : index
  %m = tensor.dim %x, %c0 : tensor<?x2x64xf32>
  %q = gptq.load_weight @q : tensor<3x64x80xi4>
  %s = gptq.load_weight @s : tensor<3x2x80xf16>
  %p = gptq.load_weight @p : tensor<3x64xi32>
  %e = tensor.empty(%m) : tensor<?x2x80xf32>
  %0 = gptq.dequant_matmul ins(%x, %q, %s perm %p runs %runs : tensor<?x2x64xf32>, tensor<3x64x80xi4>, tensor<3x2x80xf16> perm tensor<3x64xi32> runs tensor<4x2xi32>) outs(%e : tensor<?x2x80xf32>) {bits = 4, group_size = 32, zero_point = 8, gptq.plans = [#one, #many]} -> tensor<?x2x80xf32>
  return %0 : tensor<?x2x80xf32>
}

// -----
// Row-wise ops on slots count them.
#many = #gptq.plan<mMin = 1, mMax = 64, unit = "fma_f32", tileM = 8, tileN = 0, tileK = 0, rows = 1, columns = 8, lanes = 8, path = "direct", partials = "global", scale = "weight", zero = "weight">
//       VECTOR: func.func @activation_0_m64({{.*}}gptq.grid = [array<i64: 2, 0, 0, 8>]
//       VECTOR:   math.exp
func.func @silu_mul(%x: tensor<?x2x32xf32>) -> tensor<?x2x32xf32> attributes {gptq.max_m = 64 : i64} {
  %c0 = arith.constant 0 : index
  %m = tensor.dim %x, %c0 : tensor<?x2x32xf32>
  %e = tensor.empty(%m) : tensor<?x2x32xf32>
  %0 = gptq.activation ins(%x times %x : tensor<?x2x32xf32> times tensor<?x2x32xf32>) outs(%e : tensor<?x2x32xf32>) {function = #gptq.function<silu>, gptq.plans = [#many]} -> tensor<?x2x32xf32>
  return %0 : tensor<?x2x32xf32>
}

// -----
// The ops around the products: rows are tiled where each is on its own, and sorted by one workgroup.
#many = #gptq.plan<mMin = 1, mMax = 64, unit = "fma_f32", tileM = 8, tileN = 0, tileK = 0, rows = 1, columns = 8, lanes = 8, path = "direct", partials = "global", scale = "weight", zero = "weight">
//       VECTOR: func.func @route_0_m64({{.*}}gptq.grid = [array<i64: 1, 0, 0, 8>]
//       VECTOR:   scf.for {{.*}} -> (f32, i32, f32, f32)
//       VECTOR:     arith.cmpf ord
//       VECTOR: func.func @group_rows_1_m64({{.*}}gptq.grid = [array<i64: 0, 0, 1, 1>]
//       VECTOR:   memref.alloc() : memref<4xi32, #gpu.address_space<workgroup>>
//       VECTOR: func.func @gather_rows_2_m64({{.*}}gptq.grid = [array<i64: 1, 0, 0, 8>]
//       VECTOR:   vector.load
//       VECTOR:   vector.store
//       VECTOR: func.func @combine_rows_3_m64({{.*}}gptq.grid = [array<i64: 1, 0, 0, 8>]
//       VECTOR:   arith.mulf
//       VECTOR:   vector.fma
func.func @around(%logits: tensor<?x4xf32>, %x: tensor<?x32xf32>) -> tensor<?x32xf32> attributes {gptq.max_m = 64 : i64} {
  %c0 = arith.constant 0 : index
  %m = tensor.dim %x, %c0 : tensor<?x32xf32>
  %i = tensor.empty(%m) : tensor<?x2xi32>
  %w = tensor.empty(%m) : tensor<?x2xf32>
  %r = tensor.empty() : tensor<5x2xi32>
  %s = tensor.empty(%m) : tensor<?x2x32xf32>
  %y = tensor.empty(%m) : tensor<?x32xf32>
  %0:2 = gptq.route ins(%logits : tensor<?x4xf32>) outs(%i, %w : tensor<?x2xi32>, tensor<?x2xf32>) {normalize, gptq.plans = [#many]} -> tensor<?x2xi32>, tensor<?x2xf32>
  %1:3 = gptq.group_rows ins(%0#0 : tensor<?x2xi32>) outs(%i, %i, %r : tensor<?x2xi32>, tensor<?x2xi32>, tensor<5x2xi32>) {gptq.plans = [#many]} -> tensor<?x2xi32>, tensor<?x2xi32>, tensor<5x2xi32>
  %2 = gptq.gather_rows ins(%x, %1#1 : tensor<?x32xf32>, tensor<?x2xi32>) outs(%s : tensor<?x2x32xf32>) {gptq.plans = [#many]} -> tensor<?x2x32xf32>
  %3 = gptq.combine_rows ins(%2, %1#0, %0#1 : tensor<?x2x32xf32>, tensor<?x2xi32>, tensor<?x2xf32>) outs(%y : tensor<?x32xf32>) {gptq.plans = [#many]} -> tensor<?x32xf32>
  return %3 : tensor<?x32xf32>
}
