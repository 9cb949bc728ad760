// RUN: gptq-opt %s -gptq-fuse-residual-norm | FileCheck %s

gptq.weight @w : tensor<64xf16> = #gptq.data<"m", "w", 0, tensor<64xf16>>

// The sum is still wanted by the next residual: both results are used.
// CHECK-LABEL: func @both_results
//  CHECK-SAME:   %[[A:[a-z0-9]+]]: tensor<?x64xf32>, %[[B:[a-z0-9]+]]: tensor<?x64xf32>
//       CHECK:   %[[R:.+]]:2 = gptq.add_rms_norm ins(%[[A]], %[[B]],
//   CHECK-NOT:   gptq.add ins
//       CHECK:   return %[[R]]#0, %[[R]]#1
func.func @both_results(%a: tensor<?x64xf32>, %b: tensor<?x64xf32>, %e: tensor<?x64xf32>) -> (tensor<?x64xf32>, tensor<?x64xf32>) {
  %w = gptq.load_weight @w : tensor<64xf16>
  %0 = gptq.add ins(%a, %b : tensor<?x64xf32>, tensor<?x64xf32>) outs(%e : tensor<?x64xf32>) -> tensor<?x64xf32>
  %1 = gptq.rms_norm ins(%0, %w : tensor<?x64xf32>, tensor<64xf16>) outs(%e : tensor<?x64xf32>) {epsilon = 1.0e-5} -> tensor<?x64xf32>
  return %0, %1 : tensor<?x64xf32>, tensor<?x64xf32>
}

// Only the last row is normalized: the addition of the other rows goes, too.
// CHECK-LABEL: func @last_row
//   CHECK-DAG:   tensor.extract_slice %{{.*}} : tensor<?x64xf32> to tensor<1x64xf32>
//   CHECK-DAG:   tensor.extract_slice %{{.*}} : tensor<?x64xf32> to tensor<1x64xf32>
//       CHECK:   gptq.add_rms_norm {{.*}} -> tensor<1x64xf32>, tensor<1x64xf32>
//   CHECK-NOT:   gptq.add ins
func.func @last_row(%a: tensor<?x64xf32>, %b: tensor<?x64xf32>, %e: tensor<?x64xf32>, %f: tensor<1x64xf32>, %last: index) -> tensor<1x64xf32> {
  %w = gptq.load_weight @w : tensor<64xf16>
  %0 = gptq.add ins(%a, %b : tensor<?x64xf32>, tensor<?x64xf32>) outs(%e : tensor<?x64xf32>) -> tensor<?x64xf32>
  %s = tensor.extract_slice %0[%last, 0] [1, 64] [1, 1] : tensor<?x64xf32> to tensor<1x64xf32>
  %1 = gptq.rms_norm ins(%s, %w : tensor<1x64xf32>, tensor<64xf16>) outs(%f : tensor<1x64xf32>) {epsilon = 1.0e-5} -> tensor<1x64xf32>
  return %1 : tensor<1x64xf32>
}
