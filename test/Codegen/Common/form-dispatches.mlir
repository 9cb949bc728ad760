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
// Each kernel of a matmul has what it reads: the row itself where the plan says that it normalizes it, the normalized rows otherwise, and
// those are made only for calls that have such a kernel. A matmul that adds to a residual writes it in place.
#norm = #gptq.plan<mMin = 2, mMax = 64, unit = "fma_f32", tileM = 8, tileN = 0, tileK = 0, rows = 1, columns = 8, lanes = 8, path = "direct", partials = "global", scale = "weight", zero = "weight">
#own = #gptq.plan<mMin = 1, mMax = 1, unit = "fma_f32", tileM = 0, tileN = 0, tileK = 0, rows = 1, columns = 8, lanes = 8, path = "normalize", partials = "global", scale = "weight", zero = "weight">
#one = #gptq.plan<mMin = 1, mMax = 1, unit = "fma_f32", tileM = 0, tileN = 0, tileK = 0, rows = 1, columns = 8, lanes = 8, path = "direct", partials = "global", scale = "weight", zero = "weight">
gptq.weight @w : tensor<64xf16> = #gptq.data<"m", "w", 0, tensor<64xf16>>
gptq.weight @d : tensor<64x64xf16> = #gptq.data<"m", "d", 0, tensor<64x64xf16>>
// CHECK-LABEL: func @normalized(
//  CHECK-SAME:   %[[X:.+]]: tensor<?x64xf32>)
//       CHECK:   %[[N:.+]] = gptq.dispatch "norm" [@kernels::@rms_norm_{{.+}}_m64] up_to [64] rows %{{.+}} at %{{.+}} ins(%[[X]], {{.*}} {m_min = 2 : i64}
//       CHECK:   %[[H:.+]] = gptq.dispatch "matmul" [@kernels::@[[OWN:.+]], @kernels::@[[READS:.+]]] up_to [1, 64] {{.*}}ins(%[[W:.+]], %[[X]], %[[V:.+]], %[[N]] :
//       CHECK:   gptq.dispatch "matmul" {{.*}} outs(%[[H]] :
//       CHECK:   func.func @[[OWN]](%{{.+}}: memref<64x64xf16> {gptq.weight}, %{{.+}}: memref<1x64xf32>, %{{.+}}: memref<64xf16> {gptq.weight}, %{{.+}}: memref<1x64xf16>
//       CHECK:     gptq.matmul ins(%{{.+}}, %{{.+}} norm_of %{{.+}}, %{{.+}} :
//       CHECK:   func.func @[[READS]](
//   CHECK-NOT:     norm_of
//       CHECK:     gptq.matmul ins(
//       CHECK:   func.func @{{.+}}(
//       CHECK:     bufferization.to_tensor %{{.+}} restrict writable
func.func @normalized(%x: tensor<?x64xf32>) -> tensor<?x64xf32> attributes {gptq.max_m = 64 : i64} {
  %c0 = arith.constant 0 : index
  %m = tensor.dim %x, %c0 : tensor<?x64xf32>
  %w = gptq.load_weight @w : tensor<64xf16>
  %d = gptq.load_weight @d : tensor<64x64xf16>
  %e = tensor.empty(%m) : tensor<?x64xf32>
  %f = tensor.empty(%m) : tensor<?x64xf16>
  %n = gptq.rms_norm ins(%x, %w : tensor<?x64xf32>, tensor<64xf16>) outs(%f : tensor<?x64xf16>) {epsilon = 1.0e-5, gptq.plans = [#norm], gptq.label = "norm"} -> tensor<?x64xf16>
  %0 = gptq.matmul ins(%n, %d norm_of %x, %w : tensor<?x64xf16>, tensor<64x64xf16> norm_of tensor<?x64xf32>, tensor<64xf16>) outs(%e : tensor<?x64xf32>) {epsilon = 1.0e-5, gptq.plans = [#own, #norm]} -> tensor<?x64xf32>
  %1 = gptq.matmul ins(%x, %d : tensor<?x64xf32>, tensor<64x64xf16>) outs(%0 : tensor<?x64xf32>) {accumulate, gptq.plans = [#one, #norm]} -> tensor<?x64xf32>
  return %1 : tensor<?x64xf32>
}

// -----
// Where all kernels of the readers do, no norm is left.
#own = #gptq.plan<mMin = 1, mMax = 1, unit = "fma_f32", tileM = 0, tileN = 0, tileK = 0, rows = 1, columns = 8, lanes = 8, path = "normalize", partials = "global", scale = "weight", zero = "weight">
gptq.weight @w : tensor<64xf16> = #gptq.data<"m", "w", 0, tensor<64xf16>>
gptq.weight @d : tensor<64x64xf16> = #gptq.data<"m", "d", 0, tensor<64x64xf16>>
// CHECK-LABEL: func @unread(
//   CHECK-NOT:   rms_norm
//       CHECK:   gptq.dispatch "matmul" [@kernels::@{{.+}}] up_to [64] rows %{{.+}} at %{{.+}} ins(%{{.+}}, %{{.+}}, %{{.+}} : tensor<64x64xf16>, tensor<1x64xf32>, tensor<64xf16>)
func.func @unread(%x: tensor<1x64xf32>, %y: tensor<?x64xf32>) -> tensor<1x64xf32> attributes {gptq.max_m = 64 : i64} {
  %w = gptq.load_weight @w : tensor<64xf16>
  %d = gptq.load_weight @d : tensor<64x64xf16>
  %e = tensor.empty() : tensor<1x64xf32>
  %f = tensor.empty() : tensor<1x64xf16>
  %n = gptq.rms_norm ins(%x, %w : tensor<1x64xf32>, tensor<64xf16>) outs(%f : tensor<1x64xf16>) {epsilon = 1.0e-5, gptq.plans = []} -> tensor<1x64xf16>
  %0 = gptq.matmul ins(%n, %d norm_of %x, %w : tensor<1x64xf16>, tensor<64x64xf16> norm_of tensor<1x64xf32>, tensor<64xf16>) outs(%e : tensor<1x64xf32>) {epsilon = 1.0e-5, gptq.plans = [#own]} -> tensor<1x64xf32>
  return %0 : tensor<1x64xf32>
}

// -----
// An entry for one row has kernels for one row, and may leave its input for the next call.
#one = #gptq.plan<mMin = 1, mMax = 1, unit = "fma_f32", tileM = 0, tileN = 0, tileK = 0, rows = 1, columns = 8, lanes = 8, path = "direct", partials = "global", scale = "weight", zero = "weight">
// CHECK-LABEL: func @one_row(
//  CHECK-SAME:   %[[T:.+]]: tensor<1xi32>, %[[P:.+]]: index, %{{.+}}: tensor<2x1xf32>, %{{.+}}: tensor<2x1xi32>)
//       CHECK:   %[[ONE:.+]] = arith.constant 1 : index
//       CHECK:   gptq.dispatch "choose_token" [@kernels::@choose_token_0_m1] up_to [1] rows %[[ONE]] at %[[P]] ins({{.*}}) outs(%{{.+}}, %[[T]] : tensor<1xi32>, tensor<1xi32>)
//       CHECK:   func.func @choose_token_0_m1(%{{.+}}: memref<2x1xf32>, %{{.+}}: memref<2x1xi32>, %{{.+}}: memref<1xi32>, %{{.+}}: memref<1xi32>, %{{.+}}: index, %{{.+}}: index)
func.func @one_row(%t: tensor<1xi32>, %p: index, %v: tensor<2x1xf32>, %n: tensor<2x1xi32>) -> tensor<1xi32> attributes {gptq.max_m = 1 : i64} {
  %e = tensor.empty() : tensor<1xi32>
  %0:2 = gptq.choose_token ins(%v, %n : tensor<2x1xf32>, tensor<2x1xi32>) outs(%e, %t : tensor<1xi32>, tensor<1xi32>) {gptq.plans = [#one]} -> tensor<1xi32>, tensor<1xi32>
  return %0#0 : tensor<1xi32>
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

// -----
// Slots of rows are what an op takes as activations; a packed weight of one panel that the entry is handed has three dimensions, too, and stays.
#plan = #gptq.plan<mMin = 1, mMax = 1, unit = "fma_f32", tileM = 0, tileN = 32, tileK = 0, rows = 1, columns = 32, lanes = 8, path = "direct", partials = "global", scale = "weight", zero = "weight">
#layout = #gptq.layout<bits = 4, blockN = 32, blockK = 8, order = "b0 b1 k0 k1 k2 n0 n1 n2 n3 n4">
// CHECK-LABEL: func @one_panel(
//       CHECK:   gptq.dispatch "dequant_matmul" {{.*}} -> tensor<1x32xf32>
//   CHECK-NOT:   gptq.slots
//       CHECK:   func.func @dequant_matmul_0_m1(%{{.+}}: memref<1x64xf32>, %[[Q:.+]]: memref<1x8x32xi32>, %[[S:.+]]: memref<1x2x32xf16>,
//   CHECK-NOT:     memref.collapse_shape
//       CHECK:     gptq.dequant_matmul {{.*}} tensor<1x8x32xi32>, tensor<1x2x32xf16>)
func.func @one_panel(%x: tensor<1x64xf32>, %q: tensor<1x8x32xi32>, %s: tensor<1x2x32xf16>) -> tensor<1x32xf32> attributes {gptq.max_m = 1 : i64} {
  %e = tensor.empty() : tensor<1x32xf32>
  %0 = gptq.dequant_matmul ins(%x, %q, %s : tensor<1x64xf32>, tensor<1x8x32xi32>, tensor<1x2x32xf16>) outs(%e : tensor<1x32xf32>) {bits = 4, group_size = 32, zero_point = 8, layout = #layout, gptq.plans = [#plan]} -> tensor<1x32xf32>
  return %0 : tensor<1x32xf32>
}
