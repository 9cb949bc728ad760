// RUN: gptq-opt %s -gptq-split-context=workgroups=15 | FileCheck %s
// Attention of one row is split over as many parts as give every workgroup one; of many rows it is left alone.

// CHECK-LABEL: func @one_row(
//  CHECK-SAME:   %[[Q:.+]]: tensor<1x32xf32>, %[[P:.+]]: index, %[[C:.+]]: memref<2x512x8xf16>, %[[E:.+]]: tensor<1x32xf16>)
//   CHECK-DAG:   %[[SUMS:.+]] = tensor.empty() : tensor<8x32xf32>
//   CHECK-DAG:   %[[STATS:.+]] = tensor.empty() : tensor<8x8xf32>
//       CHECK:   %[[PARTS:.+]]:2 = gptq.attention ins(%[[Q]] at %[[P]] part %c0 : tensor<1x32xf32>) state(%[[C]], %[[C]] : {{.*}}) outs(%[[SUMS]], %[[STATS]] : {{.*}})
//  CHECK-SAME:     gptq.label = "a", head_dim = 8 : i64, heads = 4 : i64, kv_heads = 2 : i64, parts = 8 : i64, {{.*}}window = 5 : i64
//       CHECK:   %[[R:.+]] = gptq.join_attention ins(%[[PARTS]]#0, %[[PARTS]]#1 : {{.*}}) outs(%[[E]] : tensor<1x32xf16>) {gptq.label = "a.join", head_dim = 8 : i64, heads = 4 : i64}
//       CHECK:   return %[[R]]
func.func @one_row(%q: tensor<1x32xf32>, %p: index, %c: memref<2x512x8xf16>, %e: tensor<1x32xf16>) -> tensor<1x32xf16> {
  %0 = gptq.attention ins(%q at %p : tensor<1x32xf32>) state(%c, %c : memref<2x512x8xf16>, memref<2x512x8xf16>) outs(%e : tensor<1x32xf16>) {heads = 4, kv_heads = 2, head_dim = 8, scale = 1.0, window = 5, gptq.label = "a"} -> tensor<1x32xf16>
  return %0 : tensor<1x32xf16>
}

// CHECK-LABEL: func @many_rows
//   CHECK-NOT:   join_attention
func.func @many_rows(%q: tensor<?x32xf32>, %p: index, %c: memref<2x512x8xf16>, %e: tensor<?x32xf16>) -> tensor<?x32xf16> {
  %0 = gptq.attention ins(%q at %p : tensor<?x32xf32>) state(%c, %c : memref<2x512x8xf16>, memref<2x512x8xf16>) outs(%e : tensor<?x32xf16>) {heads = 4, kv_heads = 2, head_dim = 8, scale = 1.0} -> tensor<?x32xf16>
  return %0 : tensor<?x32xf16>
}

// No more parts than the context has positions for.
// CHECK-LABEL: func @short_context
//       CHECK:   parts = 2 : i64
// CHECK-LABEL: func @one_part
//   CHECK-NOT:   join_attention
func.func @short_context(%q: tensor<1x32xf32>, %p: index, %c: memref<2x100x8xf16>, %e: tensor<1x32xf16>) -> tensor<1x32xf16> {
  %0 = gptq.attention ins(%q at %p : tensor<1x32xf32>) state(%c, %c : memref<2x100x8xf16>, memref<2x100x8xf16>) outs(%e : tensor<1x32xf16>) {heads = 4, kv_heads = 2, head_dim = 8, scale = 1.0} -> tensor<1x32xf16>
  return %0 : tensor<1x32xf16>
}
func.func @one_part(%q: tensor<1x32xf32>, %p: index, %c: memref<2x16x8xf16>, %e: tensor<1x32xf16>) -> tensor<1x32xf16> {
  %0 = gptq.attention ins(%q at %p : tensor<1x32xf32>) state(%c, %c : memref<2x16x8xf16>, memref<2x16x8xf16>) outs(%e : tensor<1x32xf16>) {heads = 4, kv_heads = 2, head_dim = 8, scale = 1.0} -> tensor<1x32xf16>
  return %0 : tensor<1x32xf16>
}
