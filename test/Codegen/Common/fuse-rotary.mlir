// RUN: gptq-opt %s -split-input-file -gptq-fuse-rotary | FileCheck %s
// With one row, attention rotates and appends by itself.

// CHECK-LABEL: func @one_row(
//  CHECK-SAME:   %[[Q:.+]]: tensor<1x32xf32>, %[[K:.+]]: tensor<1x16xf32>, %[[V:.+]]: tensor<1x16xf32>, %[[T:.+]]: tensor<16x8xf32>, %[[N:.+]]: tensor<8xf16>, %[[P:.+]]: index
//   CHECK-NOT:   rotary_append
//       CHECK:   gptq.attention ins(%[[Q]] rotary %[[K]], %[[V]], %[[T]] q_norm %[[N]] k_norm %[[N]] at %[[P]] : tensor<1x32xf32> rotary tensor<1x16xf32>, tensor<1x16xf32>, tensor<16x8xf32> q_norm tensor<8xf16> k_norm tensor<8xf16>)
//  CHECK-SAME:     epsilon = 1.250000e-01 : f64
func.func @one_row(%q: tensor<1x32xf32>, %k: tensor<1x16xf32>, %v: tensor<1x16xf32>, %t: tensor<16x8xf32>, %n: tensor<8xf16>, %p: index, %ck: memref<2x16x8xf16>, %cv: memref<2x16x8xf16>, %e: tensor<1x32xf32>) -> tensor<1x32xf32> {
  %0 = gptq.rotary_append ins(%q, %k, %v, %t q_norm %n k_norm %n at %p : tensor<1x32xf32>, tensor<1x16xf32>, tensor<1x16xf32>, tensor<16x8xf32> q_norm tensor<8xf16> k_norm tensor<8xf16>)
      state(%ck, %cv : memref<2x16x8xf16>, memref<2x16x8xf16>) outs(%e : tensor<1x32xf32>) {heads = 4, kv_heads = 2, head_dim = 8, epsilon = 0.125} -> tensor<1x32xf32>
  %1 = gptq.attention ins(%0 at %p : tensor<1x32xf32>) state(%ck, %cv : memref<2x16x8xf16>, memref<2x16x8xf16>) outs(%e : tensor<1x32xf32>) {heads = 4, kv_heads = 2, head_dim = 8, scale = 1.0} -> tensor<1x32xf32>
  return %1 : tensor<1x32xf32>
}

// -----
// Workgroups would need keys that others rotate.
// CHECK-LABEL: func @many_rows
//       CHECK:   gptq.rotary_append
func.func @many_rows(%q: tensor<?x32xf32>, %k: tensor<?x16xf32>, %t: tensor<16x8xf32>, %p: index, %c: memref<2x16x8xf16>, %e: tensor<?x32xf32>) -> tensor<?x32xf32> {
  %0 = gptq.rotary_append ins(%q, %k, %k, %t at %p : tensor<?x32xf32>, tensor<?x16xf32>, tensor<?x16xf32>, tensor<16x8xf32>)
      state(%c, %c : memref<2x16x8xf16>, memref<2x16x8xf16>) outs(%e : tensor<?x32xf32>) {heads = 4, kv_heads = 2, head_dim = 8} -> tensor<?x32xf32>
  %1 = gptq.attention ins(%0 at %p : tensor<?x32xf32>) state(%c, %c : memref<2x16x8xf16>, memref<2x16x8xf16>) outs(%e : tensor<?x32xf32>) {heads = 4, kv_heads = 2, head_dim = 8, scale = 1.0} -> tensor<?x32xf32>
  return %1 : tensor<?x32xf32>
}

// -----
// Somebody else wants the rotated queries.
// CHECK-LABEL: func @read_twice
//       CHECK:   gptq.rotary_append
func.func @read_twice(%q: tensor<1x32xf32>, %k: tensor<1x16xf32>, %t: tensor<16x8xf32>, %p: index, %c: memref<2x16x8xf16>, %e: tensor<1x32xf32>) -> (tensor<1x32xf32>, tensor<1x32xf32>) {
  %0 = gptq.rotary_append ins(%q, %k, %k, %t at %p : tensor<1x32xf32>, tensor<1x16xf32>, tensor<1x16xf32>, tensor<16x8xf32>)
      state(%c, %c : memref<2x16x8xf16>, memref<2x16x8xf16>) outs(%e : tensor<1x32xf32>) {heads = 4, kv_heads = 2, head_dim = 8} -> tensor<1x32xf32>
  %1 = gptq.attention ins(%0 at %p : tensor<1x32xf32>) state(%c, %c : memref<2x16x8xf16>, memref<2x16x8xf16>) outs(%e : tensor<1x32xf32>) {heads = 4, kv_heads = 2, head_dim = 8, scale = 1.0} -> tensor<1x32xf32>
  return %0, %1 : tensor<1x32xf32>, tensor<1x32xf32>
}
