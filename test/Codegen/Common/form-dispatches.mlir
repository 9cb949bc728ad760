// RUN: gptq-opt %s -split-input-file -verify-diagnostics -gptq-form-dispatches -cse | FileCheck %s
// Each op becomes a kernel per range of M; two ops that differ only in their weights share kernels.

#one = #gptq.plan<mMin = 1, mMax = 1, unit = "fma_f32", tileM = 0, tileN = 0, tileK = 0, rows = 1, columns = 8, lanes = 8, path = "direct", partials = "global", scale = "weight", zero = "weight">
#many = #gptq.plan<mMin = 2, mMax = 64, unit = "fma_f32", tileM = 8, tileN = 0, tileK = 0, rows = 1, columns = 8, lanes = 8, path = "direct", partials = "global", scale = "weight", zero = "weight">
gptq.weight @w : tensor<64xf16> = #gptq.data<"m", "w", 0, tensor<64xf16>>
gptq.weight @v : tensor<64xf16> = #gptq.data<"m", "v", 0, tensor<64xf16>>
// CHECK-LABEL: func @entry(
//  CHECK-SAME:   %[[X:.+]]: tensor<?x64xf32>, %[[P:.+]]: index)
//       CHECK:   %[[M:.+]] = tensor.dim %[[X]]
//       CHECK:   gptq.dispatch "first" [@kernels::@rms_norm_0_m1, @kernels::@rms_norm_1_m64] up_to [1, 64] rows %[[M]] at %[[P]]
//       CHECK:   gptq.dispatch "rms_norm" [@kernels::@rms_norm_0_m1, @kernels::@rms_norm_1_m64] up_to [1, 64]
//       CHECK:   gptq.dispatch "last" [@kernels::@rms_norm_2_m64] up_to [64]
//       CHECK: module @kernels
//       CHECK:   func.func @rms_norm_0_m1(%{{.+}}: memref<1x64xf32>, %{{.+}}: memref<64xf16> {gptq.weight}, %{{.+}}: memref<1x64xf32>, %{{.+}}: index, %{{.+}}: index) attributes {gptq.kernel}
//       CHECK:     gptq.rms_norm {{.*}} gptq.plan = #gptq.plan<mMin = 1,
//       CHECK:     bufferization.materialize_in_destination
//       CHECK:   func.func @rms_norm_1_m64(%{{.+}}: memref<?x64xf32>
//       CHECK:   func.func @rms_norm_2_m64(%[[XS:.+]]: memref<?x64xf32>, %{{.+}}: memref<64xf16> {gptq.weight}, %{{.+}}: memref<1x64xf32>, %[[ROWS:.+]]: index, %{{.+}}: index)
//   CHECK-DAG:     %[[LAST:.+]] = arith.subi %[[ROWS]]
//       CHECK:     tensor.extract_slice %{{.+}}[%[[LAST]], 0] [1, 64]
//   CHECK-NOT:   func.func
func.func @entry(%x: tensor<?x64xf32>, %p: index) -> (tensor<?x64xf32>, tensor<1x64xf32>) attributes {gptq.max_m = 64 : i64} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %m = tensor.dim %x, %c0 : tensor<?x64xf32>
  %w = gptq.load_weight @w : tensor<64xf16>
  %v = gptq.load_weight @v : tensor<64xf16>
  %e = tensor.empty(%m) : tensor<?x64xf32>
  %f = tensor.empty() : tensor<1x64xf32>
  %0 = gptq.rms_norm ins(%x, %w : tensor<?x64xf32>, tensor<64xf16>) outs(%e : tensor<?x64xf32>) {epsilon = 1.0e-5, gptq.plans = [#one, #many], gptq.label = "first"} -> tensor<?x64xf32>
  %1 = gptq.rms_norm ins(%0, %v : tensor<?x64xf32>, tensor<64xf16>) outs(%e : tensor<?x64xf32>) {epsilon = 1.0e-5, gptq.plans = [#one, #many]} -> tensor<?x64xf32>
  %last = arith.subi %m, %c1 : index
  %s = tensor.extract_slice %1[%last, 0] [1, 64] [1, 1] : tensor<?x64xf32> to tensor<1x64xf32>
  %2 = gptq.rms_norm ins(%s, %v : tensor<1x64xf32>, tensor<64xf16>) outs(%f : tensor<1x64xf32>) {epsilon = 1.0e-5, gptq.plans = [#one], gptq.label = "last"} -> tensor<1x64xf32>
  return %1, %2 : tensor<?x64xf32>, tensor<1x64xf32>
}

// -----
#one = #gptq.plan<mMin = 1, mMax = 1, unit = "fma_f32", tileM = 0, tileN = 0, tileK = 0, rows = 1, columns = 8, lanes = 8, path = "direct", partials = "global", scale = "weight", zero = "weight">
func.func @plans_reach_max_m(%x: tensor<?x64xf32>, %w: tensor<64xf16>) -> tensor<?x64xf32> attributes {gptq.max_m = 64 : i64} {
  %c0 = arith.constant 0 : index
  %m = tensor.dim %x, %c0 : tensor<?x64xf32>
  %e = tensor.empty(%m) : tensor<?x64xf32>
  // expected-error @+1 {{expects plans for every M up to 64, but they end at 1}}
  %0 = gptq.rms_norm ins(%x, %w : tensor<?x64xf32>, tensor<64xf16>) outs(%e : tensor<?x64xf32>) {epsilon = 1.0e-5, gptq.plans = [#one]} -> tensor<?x64xf32>
  return %0 : tensor<?x64xf32>
}
