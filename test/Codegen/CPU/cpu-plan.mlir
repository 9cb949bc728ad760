// RUN: gptq-opt %s -gptq-cpu-plan | FileCheck %s --check-prefixes=CHECK,V3
// RUN: gptq-opt %s -gptq-cpu-plan=cpu=x86-64-v4 | FileCheck %s --check-prefixes=CHECK,V4
// RUN: gptq-opt %s -gptq-cpu-plan=cpu=x86-64-v4-vnni | FileCheck %s --check-prefixes=CHECK,VNNI
// RUN: gptq-opt %s -gptq-cpu-plan="hoist-scales=false fold-zeros=false promote=false buffer-partials=false" | FileCheck %s --check-prefix=OFF
// RUN: not gptq-opt %s -gptq-cpu-plan=cpu=z80 2>&1 | FileCheck %s --check-prefix=ERROR
// One plan for single rows and one for the rest; nothing is rewritten.

// RUN: not gptq-opt %s -gptq-cpu-plan=cpu=sm_90a 2>&1 | FileCheck %s --check-prefix=KIND
// KIND: expects a known CPU target, but found 'sm_90a'
// ERROR: expects a known CPU target, but found 'z80'
// CHECK-LABEL: func @layer
//       CHECK:   gptq.dequant_matmul {{.*}} perm {{.*}} gptq.plans = [
//          V3:   mMin = 1, mMax = 1, unit = "fma_f32", {{.*}} rows = 1, columns = 32, lanes = 8, path = "promote"
//     V3-SAME:   mMin = 2, mMax = 512, unit = "fma_f32", tileM = {{[0-9]+}}, {{.*}} rows = 6, columns = 16, lanes = 8, path = "promote", {{.*}} scale = "accumulator", zero = "accumulator"
//          V4:   mMin = 2, mMax = 512, {{.*}} rows = 12, columns = 32, lanes = 16
//        VNNI:   mMin = 1, mMax = 1, unit = "fma_f32_vnni", {{.*}} path = "split"
//   VNNI-SAME:   mMin = 2, mMax = 512, {{.*}} rows = 12, columns = 32, lanes = 16, path = "promote"
//         OFF:   mMin = 2, mMax = 512, {{.*}} path = "direct", partials = "global", scale = "weight", zero = "weight"
//       CHECK:   gptq.rms_norm {{.*}} gptq.plans = [#gptq.plan<mMin = 1, mMax = 1,
func.func @layer(%x: tensor<?x64xf32>, %q: tensor<64x32xi4>, %s: tensor<2x32xf16>, %p: tensor<64xi32>, %e: tensor<?x32xf32>,
                 %h: tensor<1x64xf32>, %w: tensor<64xf16>) -> tensor<?x32xf32> attributes {gptq.max_m = 512 : i64} {
  %0 = gptq.dequant_matmul ins(%x, %q, %s perm %p : tensor<?x64xf32>, tensor<64x32xi4>, tensor<2x32xf16> perm tensor<64xi32>) outs(%e : tensor<?x32xf32>) {bits = 4, group_size = 32, zero_point = 8} -> tensor<?x32xf32>
  %1 = gptq.rms_norm ins(%h, %w : tensor<1x64xf32>, tensor<64xf16>) outs(%h : tensor<1x64xf32>) {epsilon = 1.0e-5} -> tensor<1x64xf32>
  return %0 : tensor<?x32xf32>
}

// A tile of permuted activations is no larger than what promotion copies: 42 rows of 5632 f32.
// V3-LABEL: func @long_rows
//       V3:   mMin = 2, mMax = 512, unit = "fma_f32", tileM = 42, {{.*}} path = "promote"
func.func @long_rows(%x: tensor<?x5632xf32>, %q: tensor<5632x32xi4>, %s: tensor<44x32xf16>, %p: tensor<5632xi32>, %e: tensor<?x32xf32>) -> tensor<?x32xf32> attributes {gptq.max_m = 512 : i64} {
  %0 = gptq.dequant_matmul ins(%x, %q, %s perm %p : tensor<?x5632xf32>, tensor<5632x32xi4>, tensor<44x32xf16> perm tensor<5632xi32>) outs(%e : tensor<?x32xf32>) {bits = 4, group_size = 128, zero_point = 8} -> tensor<?x32xf32>
  return %0 : tensor<?x32xf32>
}
