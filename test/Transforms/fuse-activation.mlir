// RUN: gptq-opt %s -gptq-fuse-activation | FileCheck %s
// The gate becomes the epilogue of the joined matmul, which then has half the columns.

// CHECK-LABEL: func @gated
//       CHECK:   %[[Y:.+]] = gptq.dequant_matmul {{.*}} {bits = 4 : i64, epilogue = #gptq.epilogue<silu_mul>{{.*}}} -> tensor<?x32xf32>
//   CHECK-NOT:   gptq.activation
//       CHECK:   return %[[Y]]
func.func @gated(%x: tensor<?x64xf32>, %q: tensor<64x64xi4>, %s: tensor<2x64xf16>, %e: tensor<?x64xf32>, %f: tensor<?x32xf32>, %m: index) -> tensor<?x32xf32> {
  %0 = gptq.dequant_matmul ins(%x, %q, %s : tensor<?x64xf32>, tensor<64x64xi4>, tensor<2x64xf16>) outs(%e : tensor<?x64xf32>) {bits = 4, group_size = 32, zero_point = 8} -> tensor<?x64xf32>
  %g = tensor.extract_slice %0[0, 0] [%m, 32] [1, 1] : tensor<?x64xf32> to tensor<?x32xf32>
  %u = tensor.extract_slice %0[0, 32] [%m, 32] [1, 1] : tensor<?x64xf32> to tensor<?x32xf32>
  %1 = gptq.activation ins(%g times %u : tensor<?x32xf32> times tensor<?x32xf32>) outs(%f : tensor<?x32xf32>) {function = #gptq.function<silu>} -> tensor<?x32xf32>
  return %1 : tensor<?x32xf32>
}

// Up before gate is another function.
// CHECK-LABEL: func @swapped
//       CHECK:   gptq.activation
func.func @swapped(%x: tensor<?x64xf32>, %q: tensor<64x64xi4>, %s: tensor<2x64xf16>, %e: tensor<?x64xf32>, %f: tensor<?x32xf32>, %m: index) -> tensor<?x32xf32> {
  %0 = gptq.dequant_matmul ins(%x, %q, %s : tensor<?x64xf32>, tensor<64x64xi4>, tensor<2x64xf16>) outs(%e : tensor<?x64xf32>) {bits = 4, group_size = 32, zero_point = 8} -> tensor<?x64xf32>
  %g = tensor.extract_slice %0[0, 0] [%m, 32] [1, 1] : tensor<?x64xf32> to tensor<?x32xf32>
  %u = tensor.extract_slice %0[0, 32] [%m, 32] [1, 1] : tensor<?x64xf32> to tensor<?x32xf32>
  %1 = gptq.activation ins(%u times %g : tensor<?x32xf32> times tensor<?x32xf32>) outs(%f : tensor<?x32xf32>) {function = #gptq.function<silu>} -> tensor<?x32xf32>
  return %1 : tensor<?x32xf32>
}

// Gate and up as they are imported: joined first, then fused, rows counted by M.
// RUN: gptq-opt %s -gptq-fuse-parallel-matmuls -gptq-fuse-activation | FileCheck %s --check-prefix=JOIN
gptq.weight @gate : tensor<32x64xf16> = #gptq.data<"m", "gate", 0, tensor<32x64xf16>>
gptq.weight @up : tensor<32x64xf16> = #gptq.data<"m", "up", 0, tensor<32x64xf16>>
// JOIN-LABEL: func @imported
//       JOIN:   gptq.matmul {{.*}} {epilogue = #gptq.epilogue<silu_mul>} -> tensor<?x32xf32>
//   JOIN-NOT:   gptq.activation
//       JOIN:   return
func.func @imported(%x: tensor<?x64xf32>, %w: tensor<64xf16>, %e: tensor<?x64xf32>, %f: tensor<?x32xf32>) -> tensor<?x32xf32> {
  %h = gptq.rms_norm ins(%x, %w : tensor<?x64xf32>, tensor<64xf16>) outs(%e : tensor<?x64xf32>) {epsilon = 1.0e-5} -> tensor<?x64xf32>
  %g = gptq.load_weight @gate : tensor<32x64xf16>
  %u = gptq.load_weight @up : tensor<32x64xf16>
  %0 = gptq.matmul ins(%h, %g : tensor<?x64xf32>, tensor<32x64xf16>) outs(%f : tensor<?x32xf32>) -> tensor<?x32xf32>
  %1 = gptq.matmul ins(%h, %u : tensor<?x64xf32>, tensor<32x64xf16>) outs(%f : tensor<?x32xf32>) -> tensor<?x32xf32>
  %2 = gptq.activation ins(%0 times %1 : tensor<?x32xf32> times tensor<?x32xf32>) outs(%f : tensor<?x32xf32>) {function = #gptq.function<silu>} -> tensor<?x32xf32>
  return %2 : tensor<?x32xf32>
}

// Without a gate the activation is the epilogue of the matmul that it alone reads.
// CHECK-LABEL: func @plain
//       CHECK:   gptq.matmul {{.*}} {epilogue = #gptq.epilogue<relu>} -> tensor<?x32xf32>
//   CHECK-NOT:   gptq.activation
func.func @plain(%x: tensor<?x64xf32>, %w: tensor<32x64xf16>, %e: tensor<?x32xf32>) -> tensor<?x32xf32> {
  %0 = gptq.matmul ins(%x, %w : tensor<?x64xf32>, tensor<32x64xf16>) outs(%e : tensor<?x32xf32>) -> tensor<?x32xf32>
  %1 = gptq.activation ins(%0 : tensor<?x32xf32>) outs(%e : tensor<?x32xf32>) {function = #gptq.function<relu>} -> tensor<?x32xf32>
  return %1 : tensor<?x32xf32>
}

// CHECK-LABEL: func @read_twice
//       CHECK:   gptq.activation
func.func @read_twice(%x: tensor<?x64xf32>, %w: tensor<32x64xf16>, %e: tensor<?x32xf32>) -> (tensor<?x32xf32>, tensor<?x32xf32>) {
  %0 = gptq.matmul ins(%x, %w : tensor<?x64xf32>, tensor<32x64xf16>) outs(%e : tensor<?x32xf32>) -> tensor<?x32xf32>
  %1 = gptq.activation ins(%0 : tensor<?x32xf32>) outs(%e : tensor<?x32xf32>) {function = #gptq.function<gelu>} -> tensor<?x32xf32>
  return %0, %1 : tensor<?x32xf32>, tensor<?x32xf32>
}
