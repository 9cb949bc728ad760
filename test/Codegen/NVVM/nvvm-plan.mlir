// RUN: gptq-opt %s -split-input-file -verify-diagnostics -gptq-nvvm-plan | FileCheck %s
// RUN: gptq-opt %s -split-input-file -gptq-nvvm-plan="buffer-partials=false hoist-scales=false fold-zeros=false prefetch=false load-bits=32" 2>/dev/null | FileCheck %s --check-prefix=OFF
// RUN: gptq-opt %s -split-input-file -gptq-nvvm-plan=reasons=true 2>/dev/null | FileCheck %s --check-prefix=WHY

// 8192 columns are 512 tiles of 16: four for each of 132 multiprocessors, their sums in 16 registers, and room for two
// parts of K. 32 rows leave no room for a sum of activations of their own: zero points are subtracted from codes.
// CHECK-LABEL: func @matmul
//       CHECK:   gptq.plans = [#gptq.plan<mMin = 1, mMax = 1, unit = "mma_m16n8k16", tileM = 8, tileN = 64, tileK = 0, rows = 8, columns = 64, lanes = 32, path = "direct", partials = "shared", scale = "accumulator", zero = "accumulator", threads = 512, stepK = 128, stages = 2>,
//  CHECK-SAME:   #gptq.plan<mMin = 2, mMax = 8,
//  CHECK-SAME:   #gptq.plan<mMin = 9, mMax = 16, {{.*}} rows = 16,
//  CHECK-SAME:   #gptq.plan<mMin = 17, mMax = 32, unit = "mma_m16n8k16",
//  CHECK-SAME:   #gptq.plan<mMin = 33, mMax = 512, unit = "mma_m16n8k16", tileM = 32, tileN = 64, tileK = 0, rows = 32, columns = 32, {{.*}} zero = "weight", threads = 512, stepK = 64, stages = 2>]
// OFF-LABEL: func @matmul
//       OFF:   partials = "global", scale = "weight", zero = "weight", threads = 512, stepK = 128, loadBits = 32>
// WHY-LABEL: func @matmul
//       WHY:   gptq.reasons = [{{.*}}tileN = "4 of 512 tiles of 16 columns: 128 workgroups for 132 places"
func.func @matmul(%x: tensor<?x8192xf16>, %q: tensor<8192x8192xi4>, %s: tensor<64x8192xf16>, %e: tensor<?x8192xf32>) -> tensor<?x8192xf32> attributes {gptq.max_m = 512 : i64} {
  %0 = gptq.dequant_matmul ins(%x, %q, %s : tensor<?x8192xf16>, tensor<8192x8192xi4>, tensor<64x8192xf16>) outs(%e : tensor<?x8192xf32>) {bits = 4, group_size = 128, zero_point = 8} -> tensor<?x8192xf32>
  return %0 : tensor<?x8192xf32>
}

// Many columns: two workgroups of half as many warps on each multiprocessor.
// CHECK-LABEL: func @wide
//       CHECK:   mMax = 1, {{.*}} tileN = 112, {{.*}} columns = 112, {{.*}} threads = 256, stepK = 128, occupancy = 2>
func.func @wide(%x: tensor<?x8192xf16>, %q: tensor<8192x28672xi4>, %s: tensor<64x28672xf16>, %e: tensor<?x28672xf32>) -> tensor<?x28672xf32> attributes {gptq.max_m = 1 : i64} {
  %0 = gptq.dequant_matmul ins(%x, %q, %s : tensor<?x8192xf16>, tensor<8192x28672xi4>, tensor<64x28672xf16>) outs(%e : tensor<?x28672xf32>) {bits = 4, group_size = 128, zero_point = 8} -> tensor<?x28672xf32>
  return %0 : tensor<?x28672xf32>
}

// 1792 tiles are 14 for each multiprocessor: with many rows they go through a ring, 64 rows at a time, in 16 warps of which 14
// have a tile. Scales are applied to codes, in f16; bf16 would round too much, and keeps to 32 rows and two sets of sums.
// CHECK-LABEL: func @ring
//       CHECK:   #gptq.plan<mMin = 17, mMax = 32, unit = "mma_m16n8k16",
//  CHECK-SAME:   #gptq.plan<mMin = 33, mMax = 512, unit = "wgmma_m64k16", tileM = 64, tileN = 224, tileK = 0, rows = 64, columns = 16, lanes = 32, path = "ring", partials = "shared", scale = "weight", zero = "weight", threads = 512, stepK = 128, stages = 7>
// CHECK-LABEL: func @ring_bf16
//       CHECK:   #gptq.plan<mMin = 33, mMax = 512, unit = "wgmma_m64k16", tileM = 32, tileN = 224, tileK = 0, rows = 32, {{.*}} path = "ring", partials = "shared", scale = "accumulator", zero = "weight", threads = 512,
// WHY-LABEL: func @ring
//       WHY:   path = "7 parts of 128 rows of K on their way"
// WHY-LABEL: func @ring_ragged
//       WHY:   path = "no ring: groups of 32 of 8192 rows of K are no whole parts of 64"
func.func @ring(%x: tensor<?x8192xf16>, %q: tensor<8192x28672xi4>, %s: tensor<64x28672xf16>, %e: tensor<?x28672xf32>) -> tensor<?x28672xf32> attributes {gptq.max_m = 512 : i64} {
  %0 = gptq.dequant_matmul ins(%x, %q, %s : tensor<?x8192xf16>, tensor<8192x28672xi4>, tensor<64x28672xf16>) outs(%e : tensor<?x28672xf32>) {bits = 4, group_size = 128, zero_point = 8} -> tensor<?x28672xf32>
  return %0 : tensor<?x28672xf32>
}
func.func @ring_bf16(%x: tensor<?x8192xbf16>, %q: tensor<8192x28672xi4>, %s: tensor<64x28672xf16>, %e: tensor<?x28672xf32>) -> tensor<?x28672xf32> attributes {gptq.max_m = 512 : i64} {
  %0 = gptq.dequant_matmul ins(%x, %q, %s : tensor<?x8192xbf16>, tensor<8192x28672xi4>, tensor<64x28672xf16>) outs(%e : tensor<?x28672xf32>) {bits = 4, group_size = 128, zero_point = 8} -> tensor<?x28672xf32>
  return %0 : tensor<?x28672xf32>
}
func.func @ring_ragged(%x: tensor<?x8192xf16>, %q: tensor<8192x28672xi4>, %s: tensor<256x28672xf16>, %e: tensor<?x28672xf32>) -> tensor<?x28672xf32> attributes {gptq.max_m = 512 : i64} {
  %0 = gptq.dequant_matmul ins(%x, %q, %s : tensor<?x8192xf16>, tensor<8192x28672xi4>, tensor<256x28672xf16>) outs(%e : tensor<?x28672xf32>) {bits = 4, group_size = 32, zero_point = 8} -> tensor<?x28672xf32>
  return %0 : tensor<?x28672xf32>
}

// A workgroup a row; for attention one for each query head as well.
// CHECK-LABEL: func @rows
//       CHECK:   gptq.rms_norm {{.*}} tileM = 1, tileN = 0, {{.*}} threads = 512>
//       CHECK:   gptq.attention {{.*}} tileM = 1, tileN = 1, {{.*}} threads = 512>
func.func @rows(%x: tensor<?x32xf32>, %w: tensor<32xf16>, %p: index, %c: memref<2x16x8xf16>, %e: tensor<?x32xf32>) -> tensor<?x32xf32> attributes {gptq.max_m = 64 : i64} {
  %0 = gptq.rms_norm ins(%x, %w : tensor<?x32xf32>, tensor<32xf16>) outs(%e : tensor<?x32xf32>) {epsilon = 1.0e-5} -> tensor<?x32xf32>
  %1 = gptq.attention ins(%0 at %p : tensor<?x32xf32>) state(%c, %c : memref<2x16x8xf16>, memref<2x16x8xf16>) outs(%e : tensor<?x32xf32>) {heads = 4, kv_heads = 2, head_dim = 8, scale = 1.0} -> tensor<?x32xf32>
  return %1 : tensor<?x32xf32>
}
