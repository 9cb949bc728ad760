// RUN: gptq-opt %s -split-input-file -verify-diagnostics -gptq-pack-weights | FileCheck %s
// Weights are read in the unit's layout; scales and zero points come in the same panels.

#plan = #gptq.plan<mMin = 2, mMax = 64, unit = "fma_f32", tileM = 24, tileN = 32, tileK = 0, rows = 6, columns = 16, lanes = 8, path = "promote", partials = "shared", scale = "accumulator", zero = "accumulator">
gptq.weight @q : tensor<172x40xi4> = #gptq.codes<#gptq.data<"m", "q", 0, tensor<22x40xi32>>, bits = 4, packing = rows>
gptq.weight @s : tensor<6x40xf16> = #gptq.data<"m", "s", 0, tensor<6x40xf16>>
gptq.weight @z : tensor<6x40xi4> = #gptq.codes<#gptq.data<"m", "z", 0, tensor<6x5xi32>>, bits = 4, packing = columns>
// CHECK-DAG: gptq.weight @q.packed : tensor<2x22x32xi32> = #gptq.packed<@q, layout = <bits = 4, blockN = 32, blockK = 8, order = "b0 b1 k2 k0 k1 n0 n1 n2 n3 n4">>
// CHECK-DAG: gptq.weight @s.packed : tensor<2x6x32xf16> = #gptq.packed<@s, layout = <bits = 16, blockN = 32, blockK = 1,
// CHECK-DAG: gptq.weight @z.packed : tensor<2x6x32xi8> = #gptq.packed<@z, layout = <bits = 8, blockN = 32, blockK = 1,
// CHECK-LABEL: func @ragged
//       CHECK:   gptq.dequant_matmul {{.*}} layout = #gptq.layout
func.func @ragged(%x: tensor<?x172xf32>, %e: tensor<?x40xf32>) -> tensor<?x40xf32> {
  %q = gptq.load_weight @q : tensor<172x40xi4>
  %s = gptq.load_weight @s : tensor<6x40xf16>
  %z = gptq.load_weight @z : tensor<6x40xi4>
  %0 = gptq.dequant_matmul ins(%x, %q, %s zeros %z : tensor<?x172xf32>, tensor<172x40xi4>, tensor<6x40xf16> zeros tensor<6x40xi4>) outs(%e : tensor<?x40xf32>) {bits = 4, group_size = 32, gptq.plans = [#plan]} -> tensor<?x40xf32>
  return %0 : tensor<?x40xf32>
}

// -----
// Three bits are planes of two and one. Groups of 48 rows are no whole number of blocks of 32: each takes two of its own.
#plan = #gptq.plan<mMin = 2, mMax = 64, unit = "fma_f32", tileM = 24, tileN = 32, tileK = 0, rows = 6, columns = 16, lanes = 8, path = "promote", partials = "shared", scale = "accumulator", zero = "accumulator">
gptq.weight @q : tensor<172x40xi3> = #gptq.codes<#gptq.data<"m", "q", 0, tensor<17x40xi32>>, bits = 3, packing = rows>
gptq.weight @s : tensor<4x40xf16> = #gptq.data<"m", "s", 0, tensor<4x40xf16>>
// CHECK: gptq.weight @q.packed : tensor<2x7x96xi32> = #gptq.packed<@q, layout = <bits = 3, blockN = 32, blockK = 32, order = "b0 k3 k2 k0 k1 n0 n1 n2 n3 n4 k4 | k3 k4 k2 k0 k1 n0 n1 n2 n3 n4">, run = 48>
func.func @planes(%x: tensor<?x172xf32>, %e: tensor<?x40xf32>) -> tensor<?x40xf32> {
  %q = gptq.load_weight @q : tensor<172x40xi3>
  %s = gptq.load_weight @s : tensor<4x40xf16>
  %0 = gptq.dequant_matmul ins(%x, %q, %s : tensor<?x172xf32>, tensor<172x40xi3>, tensor<4x40xf16>) outs(%e : tensor<?x40xf32>) {bits = 3, group_size = 48, zero_point = 4, gptq.plans = [#plan]} -> tensor<?x40xf32>
  return %0 : tensor<?x40xf32>
}

// -----
// Groups of 20 rows each begin a block: two whole words and half of one, 13 groups of 3 blocks and a last one of 2 rows.
#plan = #gptq.plan<mMin = 2, mMax = 64, unit = "fma_f32", tileM = 24, tileN = 32, tileK = 0, rows = 6, columns = 16, lanes = 8, path = "promote", partials = "shared", scale = "accumulator", zero = "accumulator">
gptq.weight @q : tensor<262x40xi4> = #gptq.codes<#gptq.data<"m", "q", 0, tensor<33x40xi32>>, bits = 4, packing = rows>
gptq.weight @s : tensor<14x40xf16> = #gptq.data<"m", "s", 0, tensor<14x40xf16>>
// CHECK: gptq.weight @q.packed : tensor<2x40x32xi32> = #gptq.packed<@q, {{.*}} run = 20>
// CHECK-LABEL: func @groups_of_part_words
func.func @groups_of_part_words(%x: tensor<?x262xf32>, %e: tensor<?x40xf32>) -> tensor<?x40xf32> {
  %q = gptq.load_weight @q : tensor<262x40xi4>
  %s = gptq.load_weight @s : tensor<14x40xf16>
  %0 = gptq.dequant_matmul ins(%x, %q, %s : tensor<?x262xf32>, tensor<262x40xi4>, tensor<14x40xf16>) outs(%e : tensor<?x40xf32>) {bits = 4, group_size = 20, zero_point = 8, gptq.plans = [#plan]} -> tensor<?x40xf32>
  return %0 : tensor<?x40xf32>
}

// -----
// A table that is also the weight of a matmul is read packed by both.
#plan = #gptq.plan<mMin = 2, mMax = 64, unit = "fma_f32", tileM = 24, tileN = 32, tileK = 0, rows = 6, columns = 16, lanes = 8, path = "promote", partials = "shared", scale = "accumulator", zero = "accumulator">
gptq.weight @e : tensor<50x64xf16> = #gptq.data<"m", "e", 0, tensor<50x64xf16>>
// CHECK: gptq.weight @e.packed : tensor<2x64x32xf16> = #gptq.packed<@e, {{.*}} transposed = true>
// CHECK-LABEL: func @tied
//   CHECK-NOT:   load_weight @e :
//       CHECK:   gptq.embedding {{.*}} layout =
//       CHECK:   gptq.matmul {{.*}} layout =
func.func @tied(%t: tensor<?xi32>, %h: tensor<?x64xf32>, %l: tensor<?x50xf32>) -> tensor<?x50xf32> {
  %e = gptq.load_weight @e : tensor<50x64xf16>
  %0 = gptq.embedding ins(%t, %e : tensor<?xi32>, tensor<50x64xf16>) outs(%h : tensor<?x64xf32>) {gptq.plans = [#plan]} -> tensor<?x64xf32>
  %1 = gptq.matmul ins(%0, %e : tensor<?x64xf32>, tensor<50x64xf16>) outs(%l : tensor<?x50xf32>) {gptq.plans = [#plan]} -> tensor<?x50xf32>
  return %1 : tensor<?x50xf32>
}

// -----
// Gate and up are interleaved by half a panel, short runs filled up.
#plan = #gptq.plan<mMin = 2, mMax = 64, unit = "fma_f32", tileM = 24, tileN = 32, tileK = 0, rows = 6, columns = 16, lanes = 8, path = "promote", partials = "shared", scale = "accumulator", zero = "accumulator">
gptq.weight @g : tensor<64x40xi4> = #gptq.codes<#gptq.data<"m", "g", 0, tensor<8x40xi32>>, bits = 4, packing = rows>
gptq.weight @u : tensor<64x40xi4> = #gptq.codes<#gptq.data<"m", "u", 0, tensor<8x40xi32>>, bits = 4, packing = rows>
gptq.weight @gu : tensor<64x80xi4> = #gptq.concat<[@g, @u], dim = 1>
gptq.weight @gs : tensor<2x40xf16> = #gptq.data<"m", "gs", 0, tensor<2x40xf16>>
gptq.weight @us : tensor<2x40xf16> = #gptq.data<"m", "us", 0, tensor<2x40xf16>>
gptq.weight @gus : tensor<2x80xf16> = #gptq.concat<[@gs, @us], dim = 1>
// CHECK-DAG: gptq.weight @gu.interleaved : tensor<64x96xi4> = #gptq.concat<[@g, @u], dim = 1, interleave = 16>
// CHECK-DAG: gptq.weight @gu.interleaved.packed : tensor<3x8x32xi32>
// CHECK-DAG: gptq.weight @gus.interleaved : tensor<2x96xf16> = #gptq.concat<[@gs, @us], dim = 1, interleave = 16>
func.func @gated(%x: tensor<?x64xf32>, %e: tensor<?x40xf32>) -> tensor<?x40xf32> {
  %q = gptq.load_weight @gu : tensor<64x80xi4>
  %s = gptq.load_weight @gus : tensor<2x80xf16>
  %0 = gptq.dequant_matmul ins(%x, %q, %s : tensor<?x64xf32>, tensor<64x80xi4>, tensor<2x80xf16>) outs(%e : tensor<?x40xf32>) {bits = 4, group_size = 32, zero_point = 8, epilogue = #gptq.epilogue<silu_mul>, gptq.plans = [#plan]} -> tensor<?x40xf32>
  return %0 : tensor<?x40xf32>
}

// -----
#plan = #gptq.plan<mMin = 2, mMax = 64, unit = "abacus", tileM = 24, tileN = 32, tileK = 0, rows = 6, columns = 16, lanes = 8, path = "direct", partials = "global", scale = "weight", zero = "weight">
gptq.weight @w : tensor<8x64xf16> = #gptq.data<"m", "w", 0, tensor<8x64xf16>>
func.func @unit_is_known(%x: tensor<?x64xf32>, %e: tensor<?x8xf32>) -> tensor<?x8xf32> {
  %w = gptq.load_weight @w : tensor<8x64xf16>
  // expected-error @+1 {{expects a known unit in its plan, but found "abacus" with 8 lanes}}
  %0 = gptq.matmul ins(%x, %w : tensor<?x64xf32>, tensor<8x64xf16>) outs(%e : tensor<?x8xf32>) {gptq.plans = [#plan]} -> tensor<?x8xf32>
  return %0 : tensor<?x8xf32>
}
