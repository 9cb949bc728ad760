// RUN: gptq-opt %s -verify-roundtrip | FileCheck %s
// Every op and attribute prints as it parses.

// CHECK: gptq.weight @codes : tensor<64x32xi4> = #gptq.codes<<"m.safetensors", "q.qweight", 0, tensor<8x32xi32>>, bits = 4, packing = rows>
gptq.weight @codes : tensor<64x32xi4> = #gptq.codes<#gptq.data<"m.safetensors", "q.qweight", 0, tensor<8x32xi32>>, bits = 4, packing = rows>
// CHECK: wordAdd = 286331153
gptq.weight @zeros : tensor<2x32xi4> = #gptq.codes<#gptq.data<"m.safetensors", "q.qzeros", 1024, tensor<2x4xi32>>, bits = 4, packing = columns, wordAdd = 286331153>
// CHECK: gptq.weight @planes : {{.*}}, bits = 3, packing = rows, record = 3, planes = [#gptq.plane<bits = 2, offset = 0, order = "k0 k1 k2 k3 k4">,
gptq.weight @planes : tensor<64x32xi3> = #gptq.codes<#gptq.data<"m.safetensors", "q.qweight", 0, tensor<6x32xi32>>, bits = 3, packing = rows, record = 3, planes = [#gptq.plane<bits = 2, offset = 0, order = "k0 k1 k2 k3 k4">, #gptq.plane<bits = 1, offset = 64, order = "k0 k1 k2 k3 k4">]>
// CHECK: gptq.weight @padded : {{.*}}, bits = 3, packing = columns, transposed = true, count = 10, record = 1, fieldAdd = 4>
gptq.weight @padded : tensor<64x32xi3> = #gptq.codes<#gptq.data<"m.safetensors", "q.packed", 0, tensor<32x7xi32>>, bits = 3, packing = columns, transposed = true, count = 10, record = 1, fieldAdd = 4>
// CHECK: gptq.weight @product : tensor<4x32xf32> = #gptq.product<@small, @fine, isNegated = true>
gptq.weight @product : tensor<4x32xf32> = #gptq.product<@small, @fine, isNegated = true>
// CHECK: gptq.weight @quotient : tensor<4x32xi4> = #gptq.quotient<@small, @fine, isNegated = true>
gptq.weight @quotient : tensor<4x32xi4> = #gptq.quotient<@small, @fine, isNegated = true>
// CHECK: gptq.weight @table : tensor<8x64xf32> = #gptq.dequantized<@small, @fine, offsets = @product, zeroPoint = 8, groupSize = 32>
gptq.weight @table : tensor<8x64xf32> = #gptq.dequantized<@small, @fine, offsets = @product, zeroPoint = 8, groupSize = 32>
// CHECK: gptq.weight @halves : tensor<32xi32> = #gptq.deinterleave<run = 8>
gptq.weight @halves : tensor<32xi32> = #gptq.deinterleave<run = 8>
// CHECK: order = "k2 k0 k1 k2"
gptq.weight @twice : tensor<8x32xi4> = #gptq.codes<#gptq.data<"m.gguf", "q", 0, tensor<32x8xi8>>, bits = 4, packing = columns, transposed = true, record = 8, planes = [#gptq.plane<bits = 4, offset = 0, order = "k2 k0 k1 k2">]>
gptq.weight @scales : tensor<2x32xf16> = #gptq.data<"m.safetensors", "q.scales", 2048, tensor<2x32xf16>>
gptq.weight @order : tensor<64xi32> = #gptq.argsort<#gptq.data<"m.safetensors", "q.g_idx", 4096, tensor<64xi32>>, groups = 2>
gptq.weight @sorted : tensor<64x32xi4> = #gptq.gather<@codes, order = @order, dim = 0>
gptq.weight @joined : tensor<64x64xi4> = #gptq.concat<[@codes, @sorted], dim = 1>
// CHECK: gptq.weight @rotary : tensor<16x8xf32> = #gptq.rotary<
gptq.weight @rotary : tensor<16x8xf32> = #gptq.rotary<theta = 1.000000e+04 : f64, scaling = "none", factor = 1.000000e+00 : f64, lowFreqFactor = 1.000000e+00 : f64, highFreqFactor = 4.000000e+00 : f64, originalContext = 16>
// CHECK: factors = [1.000000e+00, 1.500000e+00], magnitude = 1.190000e+00 : f64>
gptq.weight @long : tensor<16x4xf32> = #gptq.rotary<theta = 1.000000e+04 : f64, scaling = "longrope", factor = 1.000000e+00 : f64, lowFreqFactor = 1.000000e+00 : f64, highFreqFactor = 4.000000e+00 : f64, originalContext = 16, factors = [1.0, 1.5], magnitude = 1.19 : f64>
// CHECK: gptq.weight @one_more : tensor<8xf32> = #gptq.plus<@norm, 1.000000e+00 : f64>
gptq.weight @norm : tensor<8xf16> = #gptq.data<"m.safetensors", "n", 64, tensor<8xf16>>
gptq.weight @one_more : tensor<8xf32> = #gptq.plus<@norm, 1.0 : f64>
// CHECK: = #gptq.dealt<parts = 3, run = 8>
gptq.weight @heads : tensor<48xi32> = #gptq.dealt<parts = 3, run = 8>
gptq.weight @packed : tensor<4x8x8xi32> = #gptq.packed<@codes, layout = #gptq.layout<bits = 4, blockN = 8, blockK = 8, order = "b0 b1 k0 k1 k2 n0 n1 n2">>
gptq.weight @places : tensor<16x64xf16> = #gptq.data<"m.safetensors", "places", 256, tensor<16x64xf16>>
gptq.state @keys : memref<2x16x8xf32>

// CHECK-LABEL: func @model_ops
func.func @model_ops(%tokens: tensor<?xi32>, %table: tensor<10x64xf16>, %w: tensor<64xf32>, %a: tensor<?x64xf32>,
                     %k: tensor<?x16xf32>, %norm: tensor<8xf32>, %e: tensor<?x64xf32>, %p: index, %b: tensor<?x192xi8>,
                     %u: tensor<?x2xf32>) {
  // CHECK: gptq.load_state @keys : memref<2x16x8xf32>
  %keys = gptq.load_state @keys : memref<2x16x8xf32>
  // CHECK: gptq.load_weight @rotary : tensor<16x8xf32>
  %rotary = gptq.load_weight @rotary : tensor<16x8xf32>
  // CHECK: gptq.embedding
  %0 = gptq.embedding ins(%tokens, %table : tensor<?xi32>, tensor<10x64xf16>) outs(%e : tensor<?x64xf32>) -> tensor<?x64xf32>
  // CHECK: gptq.embedding ins({{.*}} positions %{{.*}} at %{{.*}} positions tensor<16x64xf16>) {{.*}}scale = 8.000000e+00 : f64
  %places = gptq.load_weight @places : tensor<16x64xf16>
  %placed = gptq.embedding ins(%tokens, %table positions %places at %p : tensor<?xi32>, tensor<10x64xf16> positions tensor<16x64xf16>)
      outs(%e : tensor<?x64xf32>) {scale = 8.0} -> tensor<?x64xf32>
  // CHECK: gptq.layer_norm ins({{.*}} bias
  %ln = gptq.layer_norm ins(%0, %w bias %w : tensor<?x64xf32>, tensor<64xf32> bias tensor<64xf32>) outs(%e : tensor<?x64xf32>) {epsilon = 1.0e-5} -> tensor<?x64xf32>
  // CHECK: gptq.softcap {{.*}} {cap = 3.000000e+01 : f64}
  %capped = gptq.softcap ins(%0 : tensor<?x64xf32>) outs(%e : tensor<?x64xf32>) {cap = 30.0} -> tensor<?x64xf32>
  // CHECK: gptq.rms_norm
  %1 = gptq.rms_norm ins(%0, %w : tensor<?x64xf32>, tensor<64xf32>) outs(%e : tensor<?x64xf32>) {epsilon = 1.0e-5} -> tensor<?x64xf32>
  // CHECK: gptq.add_rms_norm
  %2:2 = gptq.add_rms_norm ins(%0, %1, %w : tensor<?x64xf32>, tensor<?x64xf32>, tensor<64xf32>)
      outs(%e, %e : tensor<?x64xf32>, tensor<?x64xf32>) {epsilon = 1.0e-5} -> tensor<?x64xf32>, tensor<?x64xf32>
  // CHECK: gptq.add
  %3 = gptq.add ins(%0, %1 : tensor<?x64xf32>, tensor<?x64xf32>) outs(%e : tensor<?x64xf32>) -> tensor<?x64xf32>
  // CHECK: gptq.activation
  %4 = gptq.activation ins(%0 times %1 : tensor<?x64xf32> times tensor<?x64xf32>) outs(%e : tensor<?x64xf32>) {function = #gptq.function<silu>} -> tensor<?x64xf32>
  // CHECK: gptq.activation ins(%{{.*}} : tensor<?x64xf32>) {{.*}} {function = #gptq.function<gelu_tanh>}
  %gelu = gptq.activation ins(%0 : tensor<?x64xf32>) outs(%e : tensor<?x64xf32>) {function = #gptq.function<gelu_tanh>} -> tensor<?x64xf32>
  // CHECK: gptq.stage_split
  %split:2 = gptq.stage_split ins(%0 : tensor<?x64xf32>) outs(%b, %u : tensor<?x192xi8>, tensor<?x2xf32>) {group_size = 32} -> tensor<?x192xi8>, tensor<?x2xf32>
  // CHECK: gptq.stage ins
  %5 = gptq.stage ins(%0 : tensor<?x64xf32>) outs(%e : tensor<?x64xf32>) -> tensor<?x64xf32>
  // CHECK: gptq.rotary_append {{.*}} q_norm {{.*}} at {{.*}} state
  %6 = gptq.rotary_append ins(%0, %k, %k, %rotary q_norm %norm k_norm %norm at %p :
      tensor<?x64xf32>, tensor<?x16xf32>, tensor<?x16xf32>, tensor<16x8xf32> q_norm tensor<8xf32> k_norm tensor<8xf32>)
      state(%keys, %keys : memref<2x16x8xf32>, memref<2x16x8xf32>) outs(%e : tensor<?x64xf32>)
      {heads = 8, kv_heads = 2, head_dim = 8, epsilon = 1.0e-6} -> tensor<?x64xf32>
  // CHECK: gptq.rotary_append ins(%{{.*}}, %{{.*}}, %{{.*}} at %{{.*}} : tensor<?x64xf32>, tensor<?x16xf32>, tensor<?x16xf32>) state
  %plain = gptq.rotary_append ins(%0, %k, %k at %p : tensor<?x64xf32>, tensor<?x16xf32>, tensor<?x16xf32>)
      state(%keys, %keys : memref<2x16x8xf32>, memref<2x16x8xf32>) outs(%e : tensor<?x64xf32>) {heads = 8, kv_heads = 2, head_dim = 8} -> tensor<?x64xf32>
  // CHECK: gptq.attention {{.*}} softcap = 5.000000e+01 : f64
  %7 = gptq.attention ins(%6 at %p : tensor<?x64xf32>) state(%keys, %keys : memref<2x16x8xf32>, memref<2x16x8xf32>)
      outs(%e : tensor<?x64xf32>) {heads = 8, kv_heads = 2, head_dim = 8, scale = 0.35, window = 4, softcap = 50.0} -> tensor<?x64xf32>
  return
}

// CHECK-LABEL: func @decode_ops
func.func @decode_ops(%token: tensor<1xi32>, %q: tensor<1x64xf32>, %k: tensor<1x16xf32>, %rotary: tensor<16x8xf32>, %norm: tensor<8xf32>, %p: index,
                      %keys: memref<2x16x8xf32>, %s: tensor<3x64xf32>, %t: tensor<3x16xf32>, %v: tensor<2x1xf32>, %n: tensor<2x1xi32>) {
  %c0 = arith.constant 0 : index
  // CHECK: gptq.attention ins({{.*}} rotary {{.*}} q_norm {{.*}} k_norm {{.*}} at {{.*}} part
  %0:2 = gptq.attention ins(%q rotary %k, %k, %rotary q_norm %norm k_norm %norm at %p part %c0 :
      tensor<1x64xf32> rotary tensor<1x16xf32>, tensor<1x16xf32>, tensor<16x8xf32> q_norm tensor<8xf32> k_norm tensor<8xf32>)
      state(%keys, %keys : memref<2x16x8xf32>, memref<2x16x8xf32>) outs(%s, %t : tensor<3x64xf32>, tensor<3x16xf32>)
      {heads = 8, kv_heads = 2, head_dim = 8, scale = 0.35, epsilon = 1.0e-6, parts = 3} -> tensor<3x64xf32>, tensor<3x16xf32>
  // CHECK: gptq.join_attention
  %1 = gptq.join_attention ins(%0#0, %0#1 : tensor<3x64xf32>, tensor<3x16xf32>) outs(%q : tensor<1x64xf32>) {heads = 8, head_dim = 8} -> tensor<1x64xf32>
  // CHECK: gptq.argmax
  %2:2 = gptq.argmax ins(%1 part %c0 : tensor<1x64xf32>) outs(%v, %n : tensor<2x1xf32>, tensor<2x1xi32>) {columns = 32} -> tensor<2x1xf32>, tensor<2x1xi32>
  // CHECK: gptq.choose_token
  %3:2 = gptq.choose_token ins(%2#0, %2#1 : tensor<2x1xf32>, tensor<2x1xi32>) outs(%token, %token : tensor<1xi32>, tensor<1xi32>) -> tensor<1xi32>, tensor<1xi32>
  return
}

// CHECK-LABEL: func @sampling
func.func @sampling(%logits: tensor<1x64xf32>, %how: tensor<6xi32>, %p: index, %token: tensor<1xi32>) {
  %c0 = arith.constant 0 : index
  %v = tensor.empty() : tensor<2x8xf32>
  %n = tensor.empty() : tensor<2x8xi32>
  %w = tensor.empty() : tensor<1x8xf32>
  %m = tensor.empty() : tensor<1x8xi32>
  // CHECK: gptq.top_k
  %0:2 = gptq.top_k ins(%logits part %c0 : tensor<1x64xf32>) outs(%v, %n : tensor<2x8xf32>, tensor<2x8xi32>) {columns = 32} -> tensor<2x8xf32>, tensor<2x8xi32>
  // CHECK: gptq.top_k ins({{.*}} indices {{.*}} part
  %2:2 = gptq.top_k ins(%0#0 indices %0#1 part %c0 : tensor<2x8xf32> indices tensor<2x8xi32>) outs(%w, %m : tensor<1x8xf32>, tensor<1x8xi32>) {columns = 16} -> tensor<1x8xf32>, tensor<1x8xi32>
  // CHECK: gptq.sample_token
  %1:2 = gptq.sample_token ins(%0#0, %0#1, %how at %p : tensor<2x8xf32>, tensor<2x8xi32>, tensor<6xi32>) outs(%token, %token : tensor<1xi32>, tensor<1xi32>) -> tensor<1xi32>, tensor<1xi32>
  return
}

// CHECK-LABEL: func @fragments
func.func @fragments(%a: vector<4x2xf16>, %b: vector<2x2xf16>, %c: vector<2x2xf32>) {
  // CHECK: gptq.fragment_dot
  %0 = gptq.fragment_dot %a, %b, %c : vector<4x2xf16>, vector<2x2xf16>, vector<2x2xf32>
  return
}

// CHECK: gptq.weight @stack : tensor<2x64x32xi4> = #gptq.stack<[@codes, @sorted]>
gptq.weight @stack : tensor<2x64x32xi4> = #gptq.stack<[@codes, @sorted]>

// CHECK-LABEL: func @experts
func.func @experts(%x: tensor<?x64xf32>, %logits: tensor<?x2xf32>, %q: tensor<2x64x32xi4>, %s: tensor<2x2x32xf16>, %perm: tensor<2x64xi32>,
                   %w: tensor<2x32x64xf16>, %ids: tensor<?x2xi32>, %share: tensor<?x2xf32>, %runs: tensor<3x2xi32>, %xs: tensor<?x2x64xf32>,
                   %ys: tensor<?x2x32xf32>, %y: tensor<?x32xf32>, %gate: tensor<?x1xf32>) {
  // CHECK: gptq.route {{.*}} {normalize}
  %r:2 = gptq.route ins(%logits : tensor<?x2xf32>) outs(%ids, %share : tensor<?x2xi32>, tensor<?x2xf32>) {normalize} -> tensor<?x2xi32>, tensor<?x2xf32>
  // CHECK: gptq.group_rows
  %g:3 = gptq.group_rows ins(%r#0 : tensor<?x2xi32>) outs(%ids, %ids, %runs : tensor<?x2xi32>, tensor<?x2xi32>, tensor<3x2xi32>)
      -> tensor<?x2xi32>, tensor<?x2xi32>, tensor<3x2xi32>
  // CHECK: gptq.gather_rows
  %0 = gptq.gather_rows ins(%x, %g#1 : tensor<?x64xf32>, tensor<?x2xi32>) outs(%xs : tensor<?x2x64xf32>) -> tensor<?x2x64xf32>
  // CHECK: gptq.stage {{.*}} perm {{.*}} runs
  %1 = gptq.stage ins(%0 perm %perm runs %g#2 : tensor<?x2x64xf32> perm tensor<2x64xi32> runs tensor<3x2xi32>) outs(%xs : tensor<?x2x64xf32>) -> tensor<?x2x64xf32>
  // CHECK: gptq.dequant_matmul {{.*}} perm {{.*}} runs
  %2 = gptq.dequant_matmul ins(%1, %q, %s perm %perm runs %g#2 : tensor<?x2x64xf32>, tensor<2x64x32xi4>, tensor<2x2x32xf16> perm tensor<2x64xi32> runs tensor<3x2xi32>)
      outs(%ys : tensor<?x2x32xf32>) {bits = 4, group_size = 32, zero_point = 8} -> tensor<?x2x32xf32>
  // CHECK: gptq.matmul {{.*}} runs
  %3 = gptq.matmul ins(%1, %w runs %g#2 : tensor<?x2x64xf32>, tensor<2x32x64xf16> runs tensor<3x2xi32>) outs(%ys : tensor<?x2x32xf32>) -> tensor<?x2x32xf32>
  // CHECK: gptq.activation
  %4 = gptq.activation ins(%2 times %3 : tensor<?x2x32xf32> times tensor<?x2x32xf32>) outs(%ys : tensor<?x2x32xf32>) {function = #gptq.function<silu>} -> tensor<?x2x32xf32>
  // CHECK: gptq.combine_rows {{.*}} shared
  %5 = gptq.combine_rows ins(%4, %g#0, %r#1 shared %y, %gate : tensor<?x2x32xf32>, tensor<?x2xi32>, tensor<?x2xf32> shared tensor<?x32xf32>, tensor<?x1xf32>)
      outs(%y : tensor<?x32xf32>) -> tensor<?x32xf32>
  return
}

// CHECK-LABEL: func @matmuls
func.func @matmuls(%x: tensor<?x64xf32>, %q: tensor<64x32xi4>, %s: tensor<2x32xf16>, %z: tensor<2x32xi4>, %perm: tensor<64xi32>,
                   %bias: tensor<32xf16>, %w: tensor<32x64xbf16>, %e: tensor<?x32xf32>) {
  // CHECK: gptq.dequant_matmul ins({{.*}} zeros {{.*}} perm {{.*}} bias
  %0 = gptq.dequant_matmul ins(%x, %q, %s zeros %z perm %perm bias %bias : tensor<?x64xf32>, tensor<64x32xi4>, tensor<2x32xf16>
      zeros tensor<2x32xi4> perm tensor<64xi32> bias tensor<32xf16>) outs(%e : tensor<?x32xf32>) {bits = 4, group_size = 32} -> tensor<?x32xf32>
  // CHECK: gptq.dequant_matmul ins({{.*}} offsets {{.*}} bias
  %4 = gptq.dequant_matmul ins(%x, %q, %s offsets %s bias %bias : tensor<?x64xf32>, tensor<64x32xi4>, tensor<2x32xf16>
      offsets tensor<2x32xf16> bias tensor<32xf16>) outs(%e : tensor<?x32xf32>) {bits = 4, group_size = 32, zero_point = 0} -> tensor<?x32xf32>
  // CHECK: gptq.matmul
  %1 = gptq.matmul ins(%x, %w : tensor<?x64xf32>, tensor<32x64xbf16>) outs(%e : tensor<?x32xf32>) -> tensor<?x32xf32>
  // CHECK: gptq.dequantize
  %2 = gptq.dequantize %q, %s zeros %z {group_size = 32} : tensor<64x32xi4>, tensor<2x32xf16> zeros tensor<2x32xi4> -> tensor<64x32xf32>
  return
}
