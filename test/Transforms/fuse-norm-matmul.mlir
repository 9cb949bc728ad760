// RUN: gptq-opt %s -gptq-fuse-norm-matmul | FileCheck %s

gptq.weight @w : tensor<64xf16> = #gptq.data<"m", "w", 0, tensor<64xf16>>
gptq.weight @q : tensor<64x64xi4> = #gptq.codes<#gptq.data<"m", "q", 0, tensor<8x64xi32>>, bits = 4, packing = rows>
gptq.weight @s : tensor<1x64xf16> = #gptq.data<"m", "s", 0, tensor<1x64xf16>>
gptq.weight @d : tensor<64x64xf16> = #gptq.data<"m", "d", 0, tensor<64x64xf16>>
gptq.weight @p : tensor<64xi32> = #gptq.data<"m", "p", 0, tensor<64xi32>>

// Every matmul learns what its activations are the norm of; the norm stays for kernels that want it.
// CHECK-LABEL: func @normalized
//  CHECK-SAME:   %[[X:[a-z0-9]+]]: tensor<?x64xf32>
//       CHECK:   %[[W:.+]] = gptq.load_weight @w
//       CHECK:   %[[N:.+]] = gptq.rms_norm ins(%[[X]], %[[W]]
//       CHECK:   gptq.dequant_matmul ins(%[[N]], %{{.+}}, %{{.+}} norm_of %[[X]], %[[W]] : {{.*}}epsilon = 1.000000e-05
//       CHECK:   gptq.matmul ins(%[[N]], %{{.+}} norm_of %[[X]], %[[W]] : {{.*}}epsilon = 1.000000e-05
func.func @normalized(%x: tensor<?x64xf32>, %e: tensor<?x64xf32>) -> (tensor<?x64xf32>, tensor<?x64xf32>) {
  %w = gptq.load_weight @w : tensor<64xf16>
  %q = gptq.load_weight @q : tensor<64x64xi4>
  %s = gptq.load_weight @s : tensor<1x64xf16>
  %d = gptq.load_weight @d : tensor<64x64xf16>
  %n = gptq.rms_norm ins(%x, %w : tensor<?x64xf32>, tensor<64xf16>) outs(%e : tensor<?x64xf32>) {epsilon = 1.0e-5} -> tensor<?x64xf32>
  %0 = gptq.dequant_matmul ins(%n, %q, %s : tensor<?x64xf32>, tensor<64x64xi4>, tensor<1x64xf16>) outs(%e : tensor<?x64xf32>) {bits = 4, group_size = 64, zero_point = 8} -> tensor<?x64xf32>
  %1 = gptq.matmul ins(%n, %d : tensor<?x64xf32>, tensor<64x64xf16>) outs(%e : tensor<?x64xf32>) -> tensor<?x64xf32>
  return %0, %1 : tensor<?x64xf32>, tensor<?x64xf32>
}

// What is read in another order than it is normalized in is left alone.
// CHECK-LABEL: func @permuted
//   CHECK-NOT:   norm_of
func.func @permuted(%x: tensor<?x64xf32>, %e: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %w = gptq.load_weight @w : tensor<64xf16>
  %q = gptq.load_weight @q : tensor<64x64xi4>
  %s = gptq.load_weight @s : tensor<1x64xf16>
  %p = gptq.load_weight @p : tensor<64xi32>
  %n = gptq.rms_norm ins(%x, %w : tensor<?x64xf32>, tensor<64xf16>) outs(%e : tensor<?x64xf32>) {epsilon = 1.0e-5} -> tensor<?x64xf32>
  %0 = gptq.dequant_matmul ins(%n, %q, %s perm %p : tensor<?x64xf32>, tensor<64x64xi4>, tensor<1x64xf16> perm tensor<64xi32>) outs(%e : tensor<?x64xf32>) {bits = 4, group_size = 64, zero_point = 8} -> tensor<?x64xf32>
  return %0 : tensor<?x64xf32>
}
