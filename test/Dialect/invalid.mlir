// RUN: gptq-opt %s -split-input-file -verify-diagnostics
// Each function is named for the rule it breaks.

// expected-error @+1 {{expects its data to have at least 8x32 elements, but found 'tensor<7x32xi32>'}}
gptq.weight @words_hold_all_rows : tensor<64x32xi4> = #gptq.codes<#gptq.data<"m", "q", 0, tensor<7x32xi32>>, bits = 4, packing = rows>

// -----
// expected-error @+1 {{expects its data to have at least 32x8 elements}}
gptq.weight @transposed_words_hold_all_rows : tensor<64x32xi4> = #gptq.codes<#gptq.data<"m", "q", 0, tensor<8x32xi32>>, bits = 4, packing = columns, transposed = true>

// -----
// expected-error @+1 {{expects its data to have at least 4x32 elements}}
gptq.weight @codes_across_words_end_with_the_last : tensor<33x32xi3> = #gptq.codes<#gptq.data<"m", "q", 0, tensor<3x32xi32>>, bits = 3, packing = rows>

// -----
// expected-error @+1 {{expects its data to have at least 32x4 elements}}
gptq.weight @padded_words_hold_all_rows : tensor<32x32xi3> = #gptq.codes<#gptq.data<"m", "q", 0, tensor<32x3xi32>>, bits = 3, packing = columns, transposed = true, count = 10, record = 1>

// -----
// expected-error @+1 {{expects elements of 4 bits, but found 'i8'}}
gptq.weight @elements_have_their_bits : tensor<64x32xi8> = #gptq.codes<#gptq.data<"m", "q", 0, tensor<8x32xi32>>, bits = 4, packing = rows>

// -----
// expected-error @+1 {{expects codes to come from a matrix}}
gptq.weight @data_is_a_matrix : tensor<64x32xi4> = #gptq.codes<#gptq.data<"m", "q", 0, tensor<256xi32>>, bits = 4, packing = rows>

// -----
// expected-error @+1 {{expects elements of 1 to 8, 16 or 32 bits, but found 12}}
gptq.weight @codes_have_8_bits_at_most : tensor<64x32xi12> = #gptq.codes<#gptq.data<"m", "q", 0, tensor<24x32xi32>>, bits = 12, packing = rows>

// -----
// expected-error @+1 {{expects a record of 32 bits to hold its codes, but found 11 of 3 bits}}
gptq.weight @records_hold_their_codes : tensor<64x32xi3> = #gptq.codes<#gptq.data<"m", "q", 0, tensor<6x32xi32>>, bits = 3, packing = rows, count = 11, record = 1>

// -----
// expected-error @+1 {{expects wordAdd only for words of 32 bits}}
gptq.weight @only_words_are_added_to : tensor<64x32xi4> = #gptq.codes<#gptq.data<"m", "q", 0, tensor<16x32xi16>>, bits = 4, packing = rows, wordAdd = 1>

// -----
// expected-error @+1 {{expects planes with a record, and without a count}}
gptq.weight @planes_need_a_record : tensor<64x32xi4> = #gptq.codes<#gptq.data<"m", "q", 0, tensor<8x32xi32>>, bits = 4, packing = rows, planes = [#gptq.plane<bits = 4, offset = 0, order = "k0 k1 k2">]>

// -----
// expected-error @+1 {{expects an order to name bits k0, k1, … and n0, n1, … from 0 on}}
gptq.weight @orders_leave_no_bit_out : tensor<64x32xi4> = #gptq.codes<#gptq.data<"m", "q", 0, tensor<8x32xi32>>, bits = 4, packing = rows, record = 1, planes = [#gptq.plane<bits = 4, offset = 0, order = "k0 k2">]>

// -----
// expected-error @+1 {{expects a plane to lie in a record of 32 bits}}
gptq.weight @planes_lie_in_the_record : tensor<64x32xi4> = #gptq.codes<#gptq.data<"m", "q", 0, tensor<8x32xi32>>, bits = 4, packing = rows, record = 1, planes = [#gptq.plane<bits = 4, offset = 4, order = "k0 k1 k2">]>

// -----
// expected-error @+1 {{expects planes of one block}}
gptq.weight @planes_are_of_one_block : tensor<64x32xi3> = #gptq.codes<#gptq.data<"m", "q", 0, tensor<6x32xi32>>, bits = 3, packing = rows, record = 3, planes = [#gptq.plane<bits = 2, offset = 0, order = "k0 k1 k2 k3 k4">, #gptq.plane<bits = 1, offset = 64, order = "k0 k1 k2 k3">]>

// -----
// expected-error @+1 {{expects planes of 3 bits together, but found 2}}
gptq.weight @planes_make_up_the_code : tensor<64x32xi3> = #gptq.codes<#gptq.data<"m", "q", 0, tensor<6x32xi32>>, bits = 3, packing = rows, record = 3, planes = [#gptq.plane<bits = 2, offset = 0, order = "k0 k1 k2 k3 k4">]>

// -----
// expected-error @+1 {{expects the type of its data}}
gptq.weight @data_has_the_type : tensor<64xf16> = #gptq.data<"m", "q", 0, tensor<32xf16>>

// -----
// expected-error @+1 {{expects init to be a view of data}}
gptq.weight @init_is_a_view : tensor<2xf16> = dense<0.0> : tensor<2xf16>

// -----
// expected-error @+1 {{expects a run of at least 0, and 0 where the source is transposed, but found 20}}
gptq.weight @runs_are_not_transposed : tensor<1x6x8xi32> = #gptq.packed<@w, layout = #gptq.layout<bits = 4, blockN = 8, blockK = 8, order = "b0 b1 k0 k1 k2 n0 n1 n2">, transposed = true, run = 20>

// -----
// expected-error @+1 {{expects each address bit once, but 'k0' occurs twice}}
#twice = #gptq.layout<bits = 4, blockN = 8, blockK = 8, order = "b0 b1 k0 k0 k2 n0 n1 n2">

// -----
// expected-error @+1 {{expects order to name 8 address bits, but it names 7}}
#missing = #gptq.layout<bits = 4, blockN = 8, blockK = 8, order = "b0 b1 k0 k1 k2 n0 n1">

// -----
// expected-error @+1 {{expects blockN and blockK to be powers of two, but found 12 and 8}}
#powers = #gptq.layout<bits = 4, blockN = 12, blockK = 8, order = "b0">

// -----
// expected-error @+1 {{expects planes of 3 bits together, but they have 2}}
#too_narrow = #gptq.layout<bits = 3, blockN = 8, blockK = 16, order = "b0 k0 k1 k2 k3 n0 n1 n2">

// -----
// expected-error @+1 {{expects planes of 3 bits together, but they have 4}}
#too_wide = #gptq.layout<bits = 3, blockN = 1, blockK = 16, order = "b0 k0 k1 k2 k3 | b0 k0 k1 k2 k3">

// -----
// expected-error @+1 {{expects order to name 4 address bits, but it names 3}}
#plane_misses_a_row = #gptq.layout<bits = 3, blockN = 1, blockK = 16, order = "b0 k0 k1 k2 k3 | k0 k1 k2">

// -----
// expected-error @+1 {{expects a plane to name its bits from b0 up, but found 'b1' among 1}}
#plane_starts_at_0 = #gptq.layout<bits = 3, blockN = 1, blockK = 16, order = "b1 k0 k1 k2 k3 | k0 k1 k2 k3">

// -----
// expected-error @+1 {{expects path to be one of direct, promote, split, normalize, ring, but found "fast"}}
#plan = #gptq.plan<mMin = 1, mMax = 1, unit = "fma_f32", tileM = 0, tileN = 32, tileK = 0, rows = 1, columns = 32, lanes = 8, path = "fast", partials = "global", scale = "weight", zero = "weight">

// -----
// expected-error @+1 {{expects cluster to be 1, or more with partials = shared, but found 2 with "global"}}
#halves = #gptq.plan<mMin = 1, mMax = 1, unit = "fma_f32", tileM = 0, tileN = 32, tileK = 0, rows = 1, columns = 32, lanes = 8, path = "direct", partials = "global", scale = "weight", zero = "weight", cluster = 2>

// -----
// expected-error @+1 {{expects firstBytes to be at least 0, but found -4}}
#first = #gptq.plan<mMin = 1, mMax = 1, unit = "fma_f32", tileM = 0, tileN = 32, tileK = 0, rows = 1, columns = 32, lanes = 8, path = "direct", partials = "global", scale = "weight", zero = "weight", firstBytes = -4>

// -----
// expected-error @+1 {{expects aheadBytes to be at least 0 and at most firstBytes = 16, but found 20}}
#ahead = #gptq.plan<mMin = 1, mMax = 1, unit = "fma_f32", tileM = 0, tileN = 32, tileK = 0, rows = 1, columns = 32, lanes = 8, path = "direct", partials = "global", scale = "weight", zero = "weight", firstBytes = 16, aheadBytes = 20>

// -----
// expected-error @+1 {{expects 1 <= mMin <= mMax, but found 4 and 2}}
#range = #gptq.plan<mMin = 4, mMax = 2, unit = "fma_f32", tileM = 0, tileN = 32, tileK = 0, rows = 1, columns = 32, lanes = 8, path = "direct", partials = "global", scale = "weight", zero = "weight">

// -----
func.func @codes_have_k_rows(%x: tensor<?x64xf32>, %q: tensor<32x32xi4>, %s: tensor<2x32xf16>, %e: tensor<?x32xf32>) {
  // expected-error @+1 {{expects dimension 0 of codes to be 64 (K, as in lhs), but found 32}}
  %0 = gptq.dequant_matmul ins(%x, %q, %s : tensor<?x64xf32>, tensor<32x32xi4>, tensor<2x32xf16>) outs(%e : tensor<?x32xf32>) {bits = 4, group_size = 32, zero_point = 8} -> tensor<?x32xf32>
  return
}

// -----
func.func @one_scale_per_group(%x: tensor<?x64xf32>, %q: tensor<64x32xi4>, %s: tensor<3x32xf16>, %e: tensor<?x32xf32>) {
  // expected-error @+1 {{expects dimension 0 of scales to be 2 (ceil(K / group_size)), but found 3}}
  %0 = gptq.dequant_matmul ins(%x, %q, %s : tensor<?x64xf32>, tensor<64x32xi4>, tensor<3x32xf16>) outs(%e : tensor<?x32xf32>) {bits = 4, group_size = 32, zero_point = 8} -> tensor<?x32xf32>
  return
}

// -----
func.func @offsets_for_each_group(%x: tensor<?x64xf32>, %q: tensor<64x32xi4>, %s: tensor<2x32xf16>, %o: tensor<4x32xf16>, %e: tensor<?x32xf32>) {
  // expected-error @+1 {{offsets}}
  %0 = gptq.dequant_matmul ins(%x, %q, %s offsets %o : tensor<?x64xf32>, tensor<64x32xi4>, tensor<2x32xf16> offsets tensor<4x32xf16>)
      outs(%e : tensor<?x32xf32>) {bits = 4, group_size = 32, zero_point = 0} -> tensor<?x32xf32>
  return
}

// -----

// expected-error @+1 {{expects a run of two halves, but found 3}}
gptq.weight @halves_of_whole_rows : tensor<32xi32> = #gptq.deinterleave<run = 3>

// -----

// expected-error @+1 {{expects an order of type i32 [N], N in runs of 8}}
gptq.weight @runs_of_whole_heads : tensor<33xi32> = #gptq.deinterleave<run = 8>

// -----

func.func @zeros_or_zero_point(%x: tensor<?x64xf32>, %q: tensor<64x32xi4>, %s: tensor<2x32xf16>, %e: tensor<?x32xf32>) {
  // expected-error @+1 {{expects zeros or zero_point}}
  %0 = gptq.dequant_matmul ins(%x, %q, %s : tensor<?x64xf32>, tensor<64x32xi4>, tensor<2x32xf16>) outs(%e : tensor<?x32xf32>) {bits = 4, group_size = 32} -> tensor<?x32xf32>
  return
}

// -----
func.func @codes_have_their_bits(%x: tensor<?x64xf32>, %q: tensor<64x32xi8>, %s: tensor<2x32xf16>, %e: tensor<?x32xf32>) {
  // expected-error @+1 {{expects codes of 4 bits, but found 'i8'}}
  %0 = gptq.dequant_matmul ins(%x, %q, %s : tensor<?x64xf32>, tensor<64x32xi8>, tensor<2x32xf16>) outs(%e : tensor<?x32xf32>) {bits = 4, group_size = 32, zero_point = 8} -> tensor<?x32xf32>
  return
}

// -----
func.func @weight_has_k_columns(%x: tensor<?x64xf32>, %w: tensor<32x60xf16>, %e: tensor<?x32xf32>) {
  // expected-error @+1 {{expects dimension 1 of weight to be 64 (K, as in lhs), but found 60}}
  %0 = gptq.matmul ins(%x, %w : tensor<?x64xf32>, tensor<32x60xf16>) outs(%e : tensor<?x32xf32>) -> tensor<?x32xf32>
  return
}

// -----
func.func @heads_divide(%q: tensor<?x24xf32>, %p: index, %c: memref<2x16x8xf32>, %e: tensor<?x24xf32>) {
  // expected-error @+1 {{expects heads to be a multiple of kv_heads, but found 3 and 2}}
  %0 = gptq.attention ins(%q at %p : tensor<?x24xf32>) state(%c, %c : memref<2x16x8xf32>, memref<2x16x8xf32>) outs(%e : tensor<?x24xf32>) {heads = 3, kv_heads = 2, head_dim = 8, scale = 1.0} -> tensor<?x24xf32>
  return
}

// -----
func.func @parts_know_the_first(%q: tensor<1x16xf32>, %p: index, %c: memref<2x16x8xf32>, %s: tensor<3x16xf32>, %t: tensor<3x4xf32>) {
  // expected-error @+1 {{expects the number of its first part where there are several, but found 3 parts without it}}
  %0:2 = gptq.attention ins(%q at %p : tensor<1x16xf32>) state(%c, %c : memref<2x16x8xf32>, memref<2x16x8xf32>) outs(%s, %t : tensor<3x16xf32>, tensor<3x4xf32>) {heads = 2, kv_heads = 2, head_dim = 8, scale = 1.0, parts = 3} -> tensor<3x16xf32>, tensor<3x4xf32>
  return
}

// -----
func.func @norms_go_with_rotations(%q: tensor<1x16xf32>, %p: index, %n: tensor<8xf32>, %c: memref<2x16x8xf32>, %e: tensor<1x16xf32>) {
  // expected-error @+1 {{expects k, v and table where it rotates, and norms only there}}
  %0 = gptq.attention ins(%q q_norm %n at %p : tensor<1x16xf32> q_norm tensor<8xf32>) state(%c, %c : memref<2x16x8xf32>, memref<2x16x8xf32>) outs(%e : tensor<1x16xf32>) {heads = 2, kv_heads = 2, head_dim = 8, scale = 1.0} -> tensor<1x16xf32>
  return
}

// -----
func.func @pairs_for_each_head(%s: tensor<3x16xf32>, %t: tensor<3x2xf32>, %e: tensor<1x16xf32>) {
  // expected-error @+1 {{expects dimension 1 of stats to be 4 (a pair a head), but found 2}}
  %0 = gptq.join_attention ins(%s, %t : tensor<3x16xf32>, tensor<3x2xf32>) outs(%e : tensor<1x16xf32>) {heads = 2, head_dim = 8} -> tensor<1x16xf32>
  return
}

// -----
func.func @values_then_indices(%x: tensor<1x16xf32>, %p: index, %v: tensor<3x1xf32>, %n: tensor<3x1xi32>) {
  // expected-error @+1 {{expects values of f32, then indices of i32, but found}}
  %0:2 = gptq.argmax ins(%x part %p : tensor<1x16xf32>) outs(%n, %v : tensor<3x1xi32>, tensor<3x1xf32>) {columns = 8} -> tensor<3x1xi32>, tensor<3x1xf32>
  return
}

// -----
func.func @top_k_sorts_powers_of_two(%x: tensor<1x16xf32>, %p: index, %v: tensor<3x5xf32>, %n: tensor<3x5xi32>) {
  // expected-error @+1 {{expects a power of two of values for each part, but found 'tensor<3x5xf32>'}}
  %0:2 = gptq.top_k ins(%x part %p : tensor<1x16xf32>) outs(%v, %n : tensor<3x5xf32>, tensor<3x5xi32>) {columns = 8} -> tensor<3x5xf32>, tensor<3x5xi32>
  return
}

// -----
func.func @an_index_for_each_value(%x: tensor<1x16xf32>, %p: index, %v: tensor<3x8xf32>, %n: tensor<3x4xi32>) {
  // expected-error @+1 {{expects dimension 1 of indices to be 8 (as in values), but found 4}}
  %0:2 = gptq.top_k ins(%x part %p : tensor<1x16xf32>) outs(%v, %n : tensor<3x8xf32>, tensor<3x4xi32>) {columns = 8} -> tensor<3x8xf32>, tensor<3x4xi32>
  return
}

// -----
func.func @parts_are_whole_runs(%x: tensor<4x8xf32>, %i: tensor<4x8xi32>, %p: index, %v: tensor<3x8xf32>, %n: tensor<3x8xi32>) {
  // expected-error @+1 {{expects parts of a multiple of 8 columns, but found 12}}
  %0:2 = gptq.top_k ins(%x indices %i part %p : tensor<4x8xf32> indices tensor<4x8xi32>) outs(%v, %n : tensor<3x8xf32>, tensor<3x8xi32>) {columns = 12} -> tensor<3x8xf32>, tensor<3x8xi32>
  return
}

// -----
func.func @runs_are_as_long_as_the_result(%x: tensor<4x16xf32>, %i: tensor<4x16xi32>, %p: index, %v: tensor<2x8xf32>, %n: tensor<2x8xi32>) {
  // expected-error @+1 {{expects dimension 1 of input to be 8 (k, as in the result), but found 16}}
  %0:2 = gptq.top_k ins(%x indices %i part %p : tensor<4x16xf32> indices tensor<4x16xi32>) outs(%v, %n : tensor<2x8xf32>, tensor<2x8xi32>) {columns = 32} -> tensor<2x8xf32>, tensor<2x8xi32>
  return
}

// -----
func.func @how_tokens_are_drawn_has_six_words(%v: tensor<3x8xf32>, %n: tensor<3x8xi32>, %how: tensor<5xi32>, %p: index, %t: tensor<1xi32>) {
  // expected-error @+1 {{expects dimension 0 of sampling to be 6 (how tokens are drawn), but found 5}}
  %0:2 = gptq.sample_token ins(%v, %n, %how at %p : tensor<3x8xf32>, tensor<3x8xi32>, tensor<5xi32>) outs(%t, %t : tensor<1xi32>, tensor<1xi32>) -> tensor<1xi32>, tensor<1xi32>
  return
}

// -----
func.func @fragments_have_one_type(%a: vector<4x2xf16>, %b: vector<2x2xbf16>, %c: vector<2x2xf32>) {
  // expected-error @+1 {{expects a and b of one element type}}
  %0 = gptq.fragment_dot %a, %b, %c : vector<4x2xf16>, vector<2x2xbf16>, vector<2x2xf32>
  return
}

// -----
func.func @weight_exists() {
  // expected-error @+1 {{expects a gptq.weight named @nowhere}}
  %0 = gptq.load_weight @nowhere : tensor<2xf16>
  return
}

// -----
func.func @columns_inside_a_panel(%x: memref<1x64xf32>, %w: memref<1x8x32xi32>, %i: index, %acc: vector<1x16xf32>) {
  // expected-error @+1 {{expects columns 24 to 40 to lie inside a panel of 32}}
  %0 = gptq.group_dot %x[%i, %i], %w[%i, %i] acc %acc {columns = array<i64: 24>, depth = 64 : i64,
      layout = #gptq.layout<bits = 4, blockN = 32, blockK = 8, order = "b0 b1 k0 k1 k2 n0 n1 n2 n3 n4">,
      plan = #gptq.plan<mMin = 1, mMax = 1, unit = "fma_f32", tileM = 0, tileN = 32, tileK = 0, rows = 1, columns = 16, lanes = 8, path = "direct", partials = "global", scale = "weight", zero = "weight">}
      : memref<1x64xf32>, memref<1x8x32xi32>, vector<1x16xf32>
  return
}

// -----
func.func @split_has_three_bytes(%x: tensor<?x64xf32>, %b: tensor<?x128xi8>, %u: tensor<?x2xf32>) {
  // expected-error @+1 {{expects three times at least 64 columns of bytes, but found 128}}
  %0:2 = gptq.stage_split ins(%x : tensor<?x64xf32>) outs(%b, %u : tensor<?x128xi8>, tensor<?x2xf32>) {group_size = 32} -> tensor<?x128xi8>, tensor<?x2xf32>
  return
}

// -----
func.func @split_has_a_unit_for_each_group(%x: tensor<?x64xf32>, %b: tensor<?x192xi8>, %u: tensor<?x3xf32>) {
  // expected-error @+1 {{expects dimension 1 of units to be 2 (ceil(K / group_size)), but found 3}}
  %0:2 = gptq.stage_split ins(%x : tensor<?x64xf32>) outs(%b, %u : tensor<?x192xi8>, tensor<?x3xf32>) {group_size = 32} -> tensor<?x192xi8>, tensor<?x3xf32>
  return
}

// -----
func.func @split_writes_bytes_first(%x: tensor<?x64xf32>, %b: tensor<?x192xi8>, %u: tensor<?x2xf32>) {
  // expected-error @+1 {{expects to write bytes, then units, but found}}
  %0:2 = gptq.stage_split ins(%x : tensor<?x64xf32>) outs(%u, %b : tensor<?x2xf32>, tensor<?x192xi8>) {group_size = 32} -> tensor<?x2xf32>, tensor<?x192xi8>
  return
}

// -----
func.func @softcap_is_positive(%x: tensor<?x8xf32>) {
  // expected-error @+1 {{expects a cap above 0, but found 0.000000e+00}}
  %0 = gptq.softcap ins(%x : tensor<?x8xf32>) outs(%x : tensor<?x8xf32>) {cap = 0.0} -> tensor<?x8xf32>
  return
}

// -----
func.func @positions_are_as_wide_as_rows(%t: tensor<?xi32>, %w: tensor<10x8xf32>, %p: tensor<16x4xf32>, %i: index, %e: tensor<?x8xf32>) {
  // expected-error @+1 {{expects dimension 1 of positions to be 8 (H, as in init), but found 4}}
  %0 = gptq.embedding ins(%t, %w positions %p at %i : tensor<?xi32>, tensor<10x8xf32> positions tensor<16x4xf32>) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
  return
}

// -----
func.func @table_fits_a_head(%q: tensor<?x16xf32>, %t: tensor<16x10xf32>, %p: index, %c: memref<2x16x8xf32>) {
  // expected-error @+1 {{expects a table for an even number of at most 8 elements of a head, but found 'tensor<16x10xf32>'}}
  %0 = gptq.rotary_append ins(%q, %q, %q, %t at %p : tensor<?x16xf32>, tensor<?x16xf32>, tensor<?x16xf32>, tensor<16x10xf32>) state(%c, %c : memref<2x16x8xf32>, memref<2x16x8xf32>) outs(%q : tensor<?x16xf32>) {heads = 2, kv_heads = 2, head_dim = 8} -> tensor<?x16xf32>
  return
}

// -----
// expected-error @+1 {{expects an order i32 [N], N a multiple of 3 runs of 8, but found 'tensor<20xi32>'}}
gptq.weight @dealt : tensor<20xi32> = #gptq.dealt<parts = 3, run = 8>

// -----
// expected-error @+1 {{expects a factor for each pair of a row, but found 1 factors for 'tensor<16x4xf32>'}}
gptq.weight @long : tensor<16x4xf32> = #gptq.rotary<theta = 1.0 : f64, scaling = "longrope", factor = 1.0 : f64, lowFreqFactor = 1.0 : f64, highFreqFactor = 4.0 : f64, originalContext = 16, factors = [1.0]>

// -----
// expected-error @+1 {{expects sums of f32, but found 'tensor<4xf16>'}}
gptq.weight @plus : tensor<4xf16> = #gptq.plus<@plus, 1.0 : f64>

// -----
func.func @norms_have_an_epsilon(%n: tensor<1x64xf16>, %d: tensor<64x64xf16>, %x: tensor<1x64xf32>, %w: tensor<64xf16>, %e: tensor<1x64xf32>) {
  // expected-error @+1 {{expects norm_of together with epsilon}}
  %0 = gptq.matmul ins(%n, %d norm_of %x, %w : tensor<1x64xf16>, tensor<64x64xf16> norm_of tensor<1x64xf32>, tensor<64xf16>) outs(%e : tensor<1x64xf32>) -> tensor<1x64xf32>
  return
}

// -----
// expected-error @+1 {{expects a type whose first dimension counts the 2 weights it stacks, but found 'tensor<3x64xi32>'}}
gptq.weight @stack_counts_its_parts : tensor<3x64xi32> = #gptq.stack<[@a, @b]>

// -----
func.func @slots_have_different_experts(%l: tensor<?x2xf32>, %e: tensor<?x3xi32>, %w: tensor<?x3xf32>) {
  // expected-error @+1 {{expects at most as many slots as experts, 2, but found 3}}
  %0:2 = gptq.route ins(%l : tensor<?x2xf32>) outs(%e, %w : tensor<?x3xi32>, tensor<?x3xf32>) -> tensor<?x3xi32>, tensor<?x3xf32>
  return
}

// -----
func.func @norms_have_the_shape_of_activations(%n: tensor<1x64xf16>, %d: tensor<64x64xf16>, %x: tensor<1x32xf32>, %w: tensor<64xf16>, %e: tensor<1x64xf32>) {
  // expected-error @+1 {{expects dimension 1 of norm_of to be 64 (as in lhs), but found 32}}
  %0 = gptq.matmul ins(%n, %d norm_of %x, %w : tensor<1x64xf16>, tensor<64x64xf16> norm_of tensor<1x32xf32>, tensor<64xf16>) outs(%e : tensor<1x64xf32>) {epsilon = 1.0e-5} -> tensor<1x64xf32>
  return
}

// -----
func.func @experts_come_before_weights(%l: tensor<?x4xf32>, %e: tensor<?x2xi32>, %w: tensor<?x2xf32>) {
  // expected-error @+1 {{expects logits and weights of f32}}
  %0:2 = gptq.route ins(%l : tensor<?x4xf32>) outs(%w, %e : tensor<?x2xf32>, tensor<?x2xi32>) -> tensor<?x2xf32>, tensor<?x2xi32>
  return
}

// -----
func.func @runs_are_pairs(%e: tensor<?x2xi32>, %r: tensor<5x3xi32>) {
  // expected-error @+1 {{expects dimension 1 of runs to be 2 (expert and first row), but found 3}}
  %0:3 = gptq.group_rows ins(%e : tensor<?x2xi32>) outs(%e, %e, %r : tensor<?x2xi32>, tensor<?x2xi32>, tensor<5x3xi32>) -> tensor<?x2xi32>, tensor<?x2xi32>, tensor<5x3xi32>
  return
}

// -----
func.func @gathered_rows_are_slots(%x: tensor<?x64xf32>, %o: tensor<?x2xi32>, %e: tensor<?x3x64xf32>) {
  // expected-error @+1 {{expects dimension 1 of init to be 2 (S, as in order), but found 3}}
  %0 = gptq.gather_rows ins(%x, %o : tensor<?x64xf32>, tensor<?x2xi32>) outs(%e : tensor<?x3x64xf32>) -> tensor<?x3x64xf32>
  return
}

// -----
func.func @shared_gate_is_a_column(%x: tensor<?x2x64xf32>, %p: tensor<?x2xi32>, %w: tensor<?x2xf32>, %y: tensor<?x64xf32>) {
  // expected-error @+1 {{expects dimension 1 of gate to be 1 (one number a row), but found 64}}
  %0 = gptq.combine_rows ins(%x, %p, %w shared %y, %y : tensor<?x2x64xf32>, tensor<?x2xi32>, tensor<?x2xf32> shared tensor<?x64xf32>, tensor<?x64xf32>) outs(%y : tensor<?x64xf32>) -> tensor<?x64xf32>
  return
}

// -----
func.func @slots_have_runs(%x: tensor<?x2x64xf32>, %q: tensor<64x32xi4>, %s: tensor<2x32xf16>, %e: tensor<?x2x32xf32>) {
  // expected-error @+1 {{expects runs with several slots a row, but found none with lhs of type 'tensor<?x2x64xf32>'}}
  %0 = gptq.dequant_matmul ins(%x, %q, %s : tensor<?x2x64xf32>, tensor<64x32xi4>, tensor<2x32xf16>) outs(%e : tensor<?x2x32xf32>) {bits = 4, group_size = 32, zero_point = 8} -> tensor<?x2x32xf32>
  return
}

// -----
func.func @runs_have_experts(%x: tensor<?x2x64xf32>, %q: tensor<64x32xi4>, %s: tensor<2x32xf16>, %r: tensor<3x2xi32>, %e: tensor<?x2x32xf32>) {
  // expected-error @+1 {{expects codes of rank 3, but found 'tensor<64x32xi4>'}}
  %0 = gptq.dequant_matmul ins(%x, %q, %s runs %r : tensor<?x2x64xf32>, tensor<64x32xi4>, tensor<2x32xf16> runs tensor<3x2xi32>) outs(%e : tensor<?x2x32xf32>) {bits = 4, group_size = 32, zero_point = 8} -> tensor<?x2x32xf32>
  return
}

// -----
func.func @every_expert_has_scales(%x: tensor<?x2x64xf32>, %q: tensor<2x64x32xi4>, %s: tensor<3x2x32xf16>, %r: tensor<3x2xi32>, %e: tensor<?x2x32xf32>) {
  // expected-error @+1 {{expects dimension 0 of scales to be 2 (one of each expert), but found 3}}
  %0 = gptq.dequant_matmul ins(%x, %q, %s runs %r : tensor<?x2x64xf32>, tensor<2x64x32xi4>, tensor<3x2x32xf16> runs tensor<3x2xi32>) outs(%e : tensor<?x2x32xf32>) {bits = 4, group_size = 32, zero_point = 8} -> tensor<?x2x32xf32>
  return
}

// -----
func.func @runs_end_behind_the_last_expert(%x: tensor<?x2x64xf32>, %w: tensor<2x32x64xf16>, %r: tensor<2x2xi32>, %e: tensor<?x2x32xf32>) {
  // expected-error @+1 {{expects dimension 0 of runs to be 3 (experts + 1), but found 2}}
  %0 = gptq.matmul ins(%x, %w runs %r : tensor<?x2x64xf32>, tensor<2x32x64xf16> runs tensor<2x2xi32>) outs(%e : tensor<?x2x32xf32>) -> tensor<?x2x32xf32>
  return
}
