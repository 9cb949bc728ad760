// RUN: gptq-opt %s -split-input-file -verify-diagnostics -gptq-nvvm-plan | FileCheck %s
// RUN: gptq-opt %s -split-input-file -gptq-nvvm-plan="buffer-partials=false hoist-scales=false fold-zeros=false prefetch=false load-bits=32" 2>/dev/null | FileCheck %s --check-prefix=OFF
// RUN: gptq-opt %s -split-input-file -gptq-nvvm-plan=reasons=true 2>/dev/null | FileCheck %s --check-prefix=WHY
// RUN: gptq-opt %s -split-input-file -gptq-nvvm-plan=clusters=false 2>/dev/null | FileCheck %s --check-prefix=NOCLUSTER
// RUN: gptq-opt %s -split-input-file -gptq-nvvm-plan=chip=sm_89 2>/dev/null | FileCheck %s --check-prefix=SM89
// RUN: gptq-opt %s -split-input-file -gptq-nvvm-plan=ring=false 2>/dev/null | FileCheck %s --check-prefix=NORING
// RUN: gptq-opt %s -split-input-file -gptq-nvvm-plan=unit=fma_f16x2 2>/dev/null | FileCheck %s --check-prefix=LANES
// RUN: gptq-opt %s -split-input-file -gptq-nvvm-plan=unit=fma_f32 2>/dev/null | FileCheck %s --check-prefix=SCALAR

// 8192 columns are 512 tiles of 16: four for each of 132 multiprocessors, their sums in 16 registers, and room for two
// parts of K. More rows leave no room for a sum of activations of their own: zero points are subtracted from codes. From
// 9 rows on pairs of workgroups share K, eight tiles each; two groups of four warps have two of them each, and take turns.
// Of the 32 parts of K that each workgroup has ten are on their way, of which two are left when all others have been in
// rounds; twelve would leave eight. With 32 rows rounds are of two parts for each turn, and twelve are whole rounds.
// With 64 rows eight warps have all, and registers for two sets of sums, in rounds of four.
// CHECK-LABEL: func @matmul
//       CHECK:   gptq.plans = [#gptq.plan<mMin = 1, mMax = 1, unit = "mma_m16n8k16", tileM = 8, tileN = 64, tileK = 0, rows = 8, columns = 64, lanes = 32, path = "direct", partials = "shared", scale = "accumulator", zero = "accumulator", threads = 512, stepK = 128, stages = 2, firstBytes = 288, aheadBytes = 96>,
//  CHECK-SAME:   #gptq.plan<mMin = 2, mMax = 8,
//  CHECK-SAME:   #gptq.plan<mMin = 9, mMax = 16, unit = "wgmma_m64k16", {{.*}} path = "ring", {{.*}} scale = "accumulator", zero = "weight", threads = 512, stepK = 128, stages = 10, cluster = 2>,
//  CHECK-SAME:   #gptq.plan<mMin = 17, mMax = 32, unit = "wgmma_m64k16", tileM = 32, tileN = 128, tileK = 0, rows = 32, columns = 16, lanes = 32, path = "ring", partials = "shared", scale = "accumulator", zero = "weight", threads = 512, stepK = 128, stages = 12, cluster = 2>,
//  CHECK-SAME:   #gptq.plan<mMin = 33, mMax = 512, unit = "wgmma_m64k16", tileM = 64, tileN = 128, tileK = 0, rows = 64, {{.*}} scale = "accumulator", zero = "weight", threads = 256, stepK = 128, stages = 8, cluster = 2>]
// NOCLUSTER-LABEL: func @matmul
//       NOCLUSTER:   #gptq.plan<mMin = 17, mMax = 32, unit = "wgmma_m64k16", tileM = 32, tileN = 64, tileK = 0, rows = 32, {{.*}} path = "ring", partials = "shared", {{.*}} threads = 512,
// NORING-LABEL: func @matmul
//       NORING:   #gptq.plan<mMin = 9, mMax = 16, {{.*}} rows = 16, columns = 32, {{.*}} threads = 512, stepK = 64, stages = 2, firstBytes = 288, aheadBytes = 288>,
//       NORING:   #gptq.plan<mMin = 17, mMax = 512, unit = "mma_m16n8k16", tileM = 32, tileN = 64, tileK = 0, rows = 32, columns = 32, {{.*}} zero = "weight", threads = 384, stepK = 64, firstBytes = 288, aheadBytes = 288>]
// OFF-LABEL: func @matmul
//       OFF:   partials = "global", scale = "weight", zero = "weight", threads = 512, stepK = 128, loadBits = 32>
// Chips whose kernels do not start early load nothing ahead of the wait.
// SM89-LABEL: func @matmul
//   SM89-NOT:   firstBytes
// WHY-LABEL: func @matmul
//       WHY:   gptq.reasons = [{{.*}}path = "no ring: up to 8 rows are multiplied where they lie"
//  WHY-SAME:     tileN = "4 of 512 tiles of 16 columns: 128 workgroups for 132 places"
//  WHY-SAME:     cluster = "2 workgroups share K, and with it the activations that each reads; they read each other's sums"
//  WHY-SAME:     threads = "8 warps, four together, for 8 tiles, 1 times along K; more have no registers for a second set of sums"
func.func @matmul(%x: tensor<?x8192xf16>, %q: tensor<8192x8192xi4>, %s: tensor<64x8192xf16>, %e: tensor<?x8192xf32>) -> tensor<?x8192xf32> attributes {gptq.max_m = 512 : i64} {
  %0 = gptq.dequant_matmul ins(%x, %q, %s : tensor<?x8192xf16>, tensor<8192x8192xi4>, tensor<64x8192xf16>) outs(%e : tensor<?x8192xf32>) {bits = 4, group_size = 128, zero_point = 8} -> tensor<?x8192xf32>
  return %0 : tensor<?x8192xf32>
}

// Many columns: two workgroups of half as many warps on each multiprocessor.
// CHECK-LABEL: func @wide
//       CHECK:   mMax = 1, {{.*}} tileN = 112, {{.*}} columns = 112, {{.*}} threads = 256, stepK = 128, occupancy = 2, firstBytes = 288, aheadBytes = 96>
func.func @wide(%x: tensor<?x8192xf16>, %q: tensor<8192x28672xi4>, %s: tensor<64x28672xf16>, %e: tensor<?x28672xf32>) -> tensor<?x28672xf32> attributes {gptq.max_m = 1 : i64} {
  %0 = gptq.dequant_matmul ins(%x, %q, %s : tensor<?x8192xf16>, tensor<8192x28672xi4>, tensor<64x28672xf16>) outs(%e : tensor<?x28672xf32>) {bits = 4, group_size = 128, zero_point = 8} -> tensor<?x28672xf32>
  return %0 : tensor<?x28672xf32>
}

// More codes of a part than a thread loads first would not be on their way together: of 8 bits four tiles, of f16 two.
// CHECK-LABEL: func @wide_8_bits
//       CHECK:   mMax = 1, {{.*}} tileN = 64, {{.*}} threads = 256, stepK = 128, occupancy = 2, firstBytes = 288, aheadBytes = 96>
// CHECK-LABEL: func @head
//       CHECK:   mMax = 1, {{.*}} tileN = 32, {{.*}} threads = 256, stepK = 128, occupancy = 2, firstBytes = 288, aheadBytes = 96>
func.func @wide_8_bits(%x: tensor<?x8192xf16>, %q: tensor<8192x28672xi8>, %s: tensor<64x28672xf16>, %e: tensor<?x28672xf32>) -> tensor<?x28672xf32> attributes {gptq.max_m = 1 : i64} {
  %0 = gptq.dequant_matmul ins(%x, %q, %s : tensor<?x8192xf16>, tensor<8192x28672xi8>, tensor<64x28672xf16>) outs(%e : tensor<?x28672xf32>) {bits = 8, group_size = 128, zero_point = 128} -> tensor<?x28672xf32>
  return %0 : tensor<?x28672xf32>
}
func.func @head(%x: tensor<?x4096xf16>, %w: tensor<128256x4096xf16>, %e: tensor<?x128256xf32>) -> tensor<?x128256xf32> attributes {gptq.max_m = 1 : i64} {
  %0 = gptq.matmul ins(%x, %w : tensor<?x4096xf16>, tensor<128256x4096xf16>) outs(%e : tensor<?x128256xf32>) -> tensor<?x128256xf32>
  return %0 : tensor<?x128256xf32>
}

// Behind a kernel that reads no weights all go ahead. Behind a matmul, which reads them up to its end, and where it is not known
// what is in front, a matmul of few rows asks for a part of K before that, scales of two columns included, and for a third of what it loads first
// at most; the second of 2 parts of 2 tiles stays in the loop, though registers would hold both.
// CHECK-LABEL: func @behind
//       CHECK:   mMax = 1, {{.*}} tileN = 32, {{.*}} threads = 512, stepK = 128, stages = 2, firstBytes = 288, aheadBytes = 288>
//       CHECK:   mMax = 1, {{.*}} tileN = 32, {{.*}} threads = 512, stepK = 128, stages = 2, firstBytes = 72, aheadBytes = 72>
//       CHECK:   mMax = 1, {{.*}} tileN = 112, {{.*}} firstBytes = 288, aheadBytes = 96>
// WHY-LABEL: func @behind
//       WHY:   aheadBytes = "the kernel in front may read weights up to its end: more than 72 bytes a thread would hold up what it writes, and what this kernel waits for"
func.func @behind(%x: tensor<?x4096xf16>, %q: tensor<4096x4096xi4>, %s: tensor<32x4096xf16>, %r: tensor<4096x28672xi4>, %t: tensor<32x28672xf16>, %e: tensor<?x4096xf16>, %g: tensor<?x28672xf16>) -> tensor<?x28672xf16> attributes {gptq.max_m = 1 : i64} {
  %y = arith.addf %x, %x : tensor<?x4096xf16>
  %0 = gptq.dequant_matmul ins(%y, %q, %s : tensor<?x4096xf16>, tensor<4096x4096xi4>, tensor<32x4096xf16>) outs(%e : tensor<?x4096xf16>) {bits = 4, group_size = 128, zero_point = 8} -> tensor<?x4096xf16>
  %1 = gptq.dequant_matmul ins(%0, %q, %s : tensor<?x4096xf16>, tensor<4096x4096xi4>, tensor<32x4096xf16>) outs(%e : tensor<?x4096xf16>) {bits = 4, group_size = 128, zero_point = 8} -> tensor<?x4096xf16>
  %2 = gptq.dequant_matmul ins(%1, %r, %t : tensor<?x4096xf16>, tensor<4096x28672xi4>, tensor<32x28672xf16>) outs(%g : tensor<?x28672xf16>) {bits = 4, group_size = 128, zero_point = 8} -> tensor<?x28672xf16>
  return %2 : tensor<?x28672xf16>
}

// Of 8 bits as many weights are multiplied where they lie up to 16 rows.
// CHECK-LABEL: func @few_of_8_bits
//       CHECK:   #gptq.plan<mMin = 9, mMax = 16, unit = "mma_m16n8k16", {{.*}} path = "direct"
func.func @few_of_8_bits(%x: tensor<?x8192xf16>, %q: tensor<8192x8192xi8>, %s: tensor<64x8192xf16>, %e: tensor<?x8192xf32>) -> tensor<?x8192xf32> attributes {gptq.max_m = 16 : i64} {
  %0 = gptq.dequant_matmul ins(%x, %q, %s : tensor<?x8192xf16>, tensor<8192x8192xi8>, tensor<64x8192xf16>) outs(%e : tensor<?x8192xf32>) {bits = 8, group_size = 128, zero_point = 128} -> tensor<?x8192xf32>
  return %0 : tensor<?x8192xf32>
}

// Of 8 bits a part's codes and two sets of sums leave registers to eight warps only: they take no turns.
// CHECK-LABEL: func @ring_of_8_bits
//       CHECK:   #gptq.plan<mMin = 9, mMax = 16, unit = "wgmma_m64k16", {{.*}} rows = 16, {{.*}} scale = "accumulator", {{.*}} threads = 256, stepK = 128, stages = 4, cluster = 2>
func.func @ring_of_8_bits(%x: tensor<?x28672xf16>, %q: tensor<28672x8192xi8>, %s: tensor<224x8192xf16>, %e: tensor<?x8192xf32>) -> tensor<?x8192xf32> attributes {gptq.max_m = 16 : i64} {
  %0 = gptq.dequant_matmul ins(%x, %q, %s : tensor<?x28672xf16>, tensor<28672x8192xi8>, tensor<224x8192xf16>) outs(%e : tensor<?x8192xf32>) {bits = 8, group_size = 128, zero_point = 128} -> tensor<?x8192xf32>
  return %0 : tensor<?x8192xf32>
}

// 1792 tiles are 14 for each multiprocessor: with many rows they go through a ring, 64 rows at a time, in 16 warps of which 14
// have a tile. Scales are applied to codes, in f16, and to sums with up to 32 rows, in rounds of two parts; bf16 would round too
// much, and keeps to 32 rows; 64 rows of two sets of sums are for eight warps, where they are enough.
// CHECK-LABEL: func @ring
//       CHECK:   #gptq.plan<mMin = 2, mMax = 8, unit = "mma_m16n8k16",
//  CHECK-SAME:   #gptq.plan<mMin = 9, mMax = 16, unit = "wgmma_m64k16", tileM = 16, tileN = 224, tileK = 0, rows = 16, {{.*}} scale = "accumulator", zero = "weight", threads = 512, stepK = 128, stages = 4>
//  CHECK-SAME:   #gptq.plan<mMin = 17, mMax = 32, unit = "wgmma_m64k16", tileM = 32, {{.*}} scale = "accumulator", zero = "weight", threads = 512, stepK = 128, stages = 8>
//  CHECK-SAME:   #gptq.plan<mMin = 33, mMax = 512, unit = "wgmma_m64k16", tileM = 64, tileN = 224, tileK = 0, rows = 64, columns = 16, lanes = 32, path = "ring", partials = "shared", scale = "weight", zero = "weight", threads = 512, stepK = 128, stages = 4>
// CHECK-LABEL: func @ring_bf16
//       CHECK:   #gptq.plan<mMin = 33, mMax = 512, unit = "wgmma_m64k16", tileM = 32, tileN = 224, tileK = 0, rows = 32, {{.*}} path = "ring", partials = "shared", scale = "accumulator", zero = "weight", threads = 512,
// CHECK-LABEL: func @ring_bf16_of_eight_warps
//       CHECK:   #gptq.plan<mMin = 33, mMax = 512, unit = "wgmma_m64k16", tileM = 64, tileN = 128, tileK = 0, rows = 64, {{.*}} path = "ring", partials = "shared", scale = "accumulator", zero = "weight", threads = 256, stepK = 128, stages = 8, cluster = 2>
// WHY-LABEL: func @ring
//       WHY:   path = "4 parts of 128 rows of K on their way"
// WHY-LABEL: func @ring_ragged
//       WHY:   path = "no ring: groups of 32 of 8192 rows of K are no whole parts of 64"
// WHY-LABEL: func @ring_short
//       WHY:   path = "no ring: up to 16 rows of fewer than 4 tiles or 393216 weights of a multiprocessor are multiplied faster where they lie"
//       WHY:   path = "no ring: 2 parts of 128 rows of K are not 2 for each of 2 turns of 2 workgroups"
func.func @ring(%x: tensor<?x8192xf16>, %q: tensor<8192x28672xi4>, %s: tensor<64x28672xf16>, %e: tensor<?x28672xf32>) -> tensor<?x28672xf32> attributes {gptq.max_m = 512 : i64} {
  %0 = gptq.dequant_matmul ins(%x, %q, %s : tensor<?x8192xf16>, tensor<8192x28672xi4>, tensor<64x28672xf16>) outs(%e : tensor<?x28672xf32>) {bits = 4, group_size = 128, zero_point = 8} -> tensor<?x28672xf32>
  return %0 : tensor<?x28672xf32>
}
func.func @ring_bf16(%x: tensor<?x8192xbf16>, %q: tensor<8192x28672xi4>, %s: tensor<64x28672xf16>, %e: tensor<?x28672xf32>) -> tensor<?x28672xf32> attributes {gptq.max_m = 512 : i64} {
  %0 = gptq.dequant_matmul ins(%x, %q, %s : tensor<?x8192xbf16>, tensor<8192x28672xi4>, tensor<64x28672xf16>) outs(%e : tensor<?x28672xf32>) {bits = 4, group_size = 128, zero_point = 8} -> tensor<?x28672xf32>
  return %0 : tensor<?x28672xf32>
}
func.func @ring_bf16_of_eight_warps(%x: tensor<?x8192xbf16>, %q: tensor<8192x8192xi4>, %s: tensor<64x8192xf16>, %e: tensor<?x8192xf32>) -> tensor<?x8192xf32> attributes {gptq.max_m = 512 : i64} {
  %0 = gptq.dequant_matmul ins(%x, %q, %s : tensor<?x8192xbf16>, tensor<8192x8192xi4>, tensor<64x8192xf16>) outs(%e : tensor<?x8192xf32>) {bits = 4, group_size = 128, zero_point = 8} -> tensor<?x8192xf32>
  return %0 : tensor<?x8192xf32>
}
func.func @ring_ragged(%x: tensor<?x8192xf16>, %q: tensor<8192x28672xi4>, %s: tensor<256x28672xf16>, %e: tensor<?x28672xf32>) -> tensor<?x28672xf32> attributes {gptq.max_m = 512 : i64} {
  %0 = gptq.dequant_matmul ins(%x, %q, %s : tensor<?x8192xf16>, tensor<8192x28672xi4>, tensor<256x28672xf16>) outs(%e : tensor<?x28672xf32>) {bits = 4, group_size = 32, zero_point = 8} -> tensor<?x28672xf32>
  return %0 : tensor<?x28672xf32>
}

// Too little of K for turns of their own.
// CHECK-LABEL: func @ring_short
//   CHECK-NOT:   path = "ring"
func.func @ring_short(%x: tensor<?x256xf16>, %q: tensor<256x64xi4>, %s: tensor<2x64xf16>, %e: tensor<?x64xf32>) -> tensor<?x64xf32> attributes {gptq.max_m = 512 : i64} {
  %0 = gptq.dequant_matmul ins(%x, %q, %s : tensor<?x256xf16>, tensor<256x64xi4>, tensor<2x64xf16>) outs(%e : tensor<?x64xf32>) {bits = 4, group_size = 128, zero_point = 8} -> tensor<?x64xf32>
  return %0 : tensor<?x64xf32>
}

// Offsets of groups are folded into sums of activations, which nobody has of those in a ring.
// CHECK-LABEL: func @ring_offsets
//   CHECK-NOT:   path = "ring"
// WHY-LABEL: func @ring_offsets
//       WHY:   path = "no ring: groups have offsets"
func.func @ring_offsets(%x: tensor<?x8192xf16>, %q: tensor<8192x28672xi4>, %s: tensor<64x28672xf16>, %e: tensor<?x28672xf32>) -> tensor<?x28672xf32> attributes {gptq.max_m = 512 : i64} {
  %0 = gptq.dequant_matmul ins(%x, %q, %s offsets %s : tensor<?x8192xf16>, tensor<8192x28672xi4>, tensor<64x28672xf16> offsets tensor<64x28672xf16>) outs(%e : tensor<?x28672xf32>) {bits = 4, group_size = 128, zero_point = 8} -> tensor<?x28672xf32>
  return %0 : tensor<?x28672xf32>
}

// What every workgroup normalizes is there later than activations are: two thirds of the weights go ahead where registers hold
// all, and otherwise one tile's.
// CHECK-LABEL: func @normalized_wide
//       CHECK:   tileN = 112, {{.*}} path = "normalize", {{.*}} firstBytes = 288, aheadBytes = 36>
func.func @normalized_wide(%x: tensor<1x4096xf32>, %w: tensor<4096xf16>, %q: tensor<4096x28672xi4>, %s: tensor<32x28672xf16>, %e: tensor<1x4096xf16>, %f: tensor<1x28672xf16>) -> tensor<1x28672xf16> attributes {gptq.max_m = 1 : i64} {
  %n = gptq.rms_norm ins(%x, %w : tensor<1x4096xf32>, tensor<4096xf16>) outs(%e : tensor<1x4096xf16>) {epsilon = 1.0e-5} -> tensor<1x4096xf16>
  %0 = gptq.dequant_matmul ins(%n, %q, %s norm_of %x, %w : tensor<1x4096xf16>, tensor<4096x28672xi4>, tensor<32x28672xf16> norm_of tensor<1x4096xf32>, tensor<4096xf16>) outs(%f : tensor<1x28672xf16>) {bits = 4, group_size = 128, zero_point = 8, epsilon = 1.0e-5} -> tensor<1x28672xf16>
  return %0 : tensor<1x28672xf16>
}

// A single row is normalized by every workgroup; the norm is planned for more rows only, and not at all where there are none.
// CHECK-LABEL: func @normalized
//       CHECK:   gptq.rms_norm {{.*}} gptq.plans = [#gptq.plan<mMin = 2, mMax = 64,
//   CHECK-NOT:   mMin = 1,
//       CHECK:   gptq.matmul {{.*}} gptq.plans = [#gptq.plan<mMin = 1, mMax = 1, {{.*}} path = "normalize", {{.*}} firstBytes = 288, aheadBytes = 85>, #gptq.plan<mMin = 2, {{.*}} path = "direct", {{.*}} firstBytes = 288, aheadBytes = 288>
//       CHECK:   gptq.rms_norm {{.*}} gptq.plans = []
// WHY-LABEL: func @normalized
//       WHY:   path = "every workgroup normalizes the row itself"
//       WHY:   path = "rows are normalized once for all workgroups; no ring: weights are dense"
func.func @normalized(%x: tensor<?x64xf32>, %y: tensor<1x64xf32>, %w: tensor<64xf16>, %d: tensor<64x64xf16>, %e: tensor<?x64xf16>, %f: tensor<1x64xf16>) -> (tensor<?x64xf16>, tensor<1x64xf16>) attributes {gptq.max_m = 64 : i64} {
  %n = gptq.rms_norm ins(%x, %w : tensor<?x64xf32>, tensor<64xf16>) outs(%e : tensor<?x64xf16>) {epsilon = 1.0e-5} -> tensor<?x64xf16>
  %0 = gptq.matmul ins(%n, %d norm_of %x, %w : tensor<?x64xf16>, tensor<64x64xf16> norm_of tensor<?x64xf32>, tensor<64xf16>) outs(%e : tensor<?x64xf16>) {epsilon = 1.0e-5} -> tensor<?x64xf16>
  %r = gptq.rms_norm ins(%y, %w : tensor<1x64xf32>, tensor<64xf16>) outs(%f : tensor<1x64xf16>) {epsilon = 1.0e-5} -> tensor<1x64xf16>
  %1 = gptq.matmul ins(%r, %d norm_of %y, %w : tensor<1x64xf16>, tensor<64x64xf16> norm_of tensor<1x64xf32>, tensor<64xf16>) outs(%f : tensor<1x64xf16>) {epsilon = 1.0e-5} -> tensor<1x64xf16>
  return %0, %1 : tensor<?x64xf16>, tensor<1x64xf16>
}

// A workgroup a row; for attention of one row one for each query head as well, of several tiles on the matrix unit.
// CHECK-LABEL: func @rows
//       CHECK:   gptq.rms_norm {{.*}} tileM = 1, tileN = 0, {{.*}} threads = 512>
//       CHECK:   gptq.attention {{.*}} mMax = 1, {{.*}} tileM = 1, tileN = 1, {{.*}} rows = 1, {{.*}} threads = 512>
//  CHECK-SAME:     mMin = 2, mMax = 64, {{.*}} tileM = 32, tileN = 2, {{.*}} rows = 16, {{.*}} threads = 128>
func.func @rows(%x: tensor<?x32xf32>, %w: tensor<32xf16>, %p: index, %c: memref<2x16x8xf16>, %e: tensor<?x32xf32>) -> tensor<?x32xf32> attributes {gptq.max_m = 64 : i64} {
  %0 = gptq.rms_norm ins(%x, %w : tensor<?x32xf32>, tensor<32xf16>) outs(%e : tensor<?x32xf32>) {epsilon = 1.0e-5} -> tensor<?x32xf32>
  %1 = gptq.attention ins(%0 at %p : tensor<?x32xf32>) state(%c, %c : memref<2x16x8xf16>, memref<2x16x8xf16>) outs(%e : tensor<?x32xf32>) {heads = 4, kv_heads = 2, head_dim = 8, scale = 1.0} -> tensor<?x32xf32>
  return %1 : tensor<?x32xf32>
}

// A warp multiplies with all 32 columns that its threads hold; 128 tiles of them are one for each of 128 workgroups. Zero
// points cost nothing where unpacked pairs have something subtracted anyway. The more rows, the fewer warps: each thread has
// sums and activations of every row.
// LANES-LABEL: func @lanes
//       LANES:   gptq.plans = [#gptq.plan<mMin = 1, mMax = 1, unit = "fma_f16x2", tileM = 1, tileN = 32, tileK = 0, rows = 1, columns = 32, lanes = 32, path = "direct", partials = "shared", scale = "accumulator", zero = "weight", threads = 512, stepK = 128, stages = 2, firstBytes = 128, aheadBytes = 128>,
//  LANES-SAME:   #gptq.plan<mMin = 2, mMax = 2, {{[^<]*}} rows = 2,
//  LANES-SAME:   #gptq.plan<mMin = 3, mMax = 4, {{[^<]*}} rows = 4, {{[^<]*}} threads = 512, stepK = 64, stages = 2, firstBytes = 32, aheadBytes = 32>,
//  LANES-SAME:   #gptq.plan<mMin = 5, mMax = 8, {{[^<]*}} rows = 8, {{[^<]*}} threads = 256, stepK = 32, stages = 2, firstBytes = 16, aheadBytes = 16>,
//  LANES-SAME:   #gptq.plan<mMin = 9, mMax = 16, {{[^<]*}} tileM = 8, {{[^<]*}} rows = 8,
//  LANES-SAME:   #gptq.plan<mMin = 17, mMax = 512, {{[^<]*}} tileM = 8, {{[^<]*}} rows = 8,
// One weight at a time: a zero point is worth folding.
// SCALAR-LABEL: func @lanes
//       SCALAR:   unit = "fma_f32", {{[^<]*}} scale = "accumulator", zero = "accumulator"
//  SCALAR-SAME:   #gptq.plan<mMin = 9, mMax = 16, {{[^<]*}} rows = 16, {{[^<]*}} threads = 256, stepK = 32, stages = 2, firstBytes = 8, aheadBytes = 8>,
func.func @lanes(%x: tensor<?x4096xf16>, %q: tensor<4096x4096xi4>, %s: tensor<32x4096xf16>, %e: tensor<?x4096xf32>) -> tensor<?x4096xf32> attributes {gptq.max_m = 512 : i64} {
  %0 = gptq.dequant_matmul ins(%x, %q, %s : tensor<?x4096xf16>, tensor<4096x4096xi4>, tensor<32x4096xf16>) outs(%e : tensor<?x4096xf32>) {bits = 4, group_size = 128, zero_point = 8} -> tensor<?x4096xf32>
  return %0 : tensor<?x4096xf32>
}

// Query heads of one cache share what is loaded, eight at most; parts are workgroups of their own.
// CHECK-LABEL: func @parts
//       CHECK:   gptq.attention {{.*}} tileM = 1, tileN = 6, {{.*}} threads = 256, occupancy = 2>
//       CHECK:   gptq.join_attention {{.*}} tileM = 1, {{.*}} threads = 128>
func.func @parts(%q: tensor<1x96xf32>, %p: index, %c: memref<1x16x8xf16>, %s: tensor<5x96xf32>, %t: tensor<5x24xf32>, %e: tensor<1x96xf32>) -> tensor<1x96xf32> attributes {gptq.max_m = 1 : i64} {
  %c0 = arith.constant 0 : index
  %0:2 = gptq.attention ins(%q at %p part %c0 : tensor<1x96xf32>) state(%c, %c : memref<1x16x8xf16>, memref<1x16x8xf16>) outs(%s, %t : tensor<5x96xf32>, tensor<5x24xf32>) {heads = 12, kv_heads = 1, head_dim = 8, scale = 1.0, parts = 5} -> tensor<5x96xf32>, tensor<5x24xf32>
  %1 = gptq.join_attention ins(%0#0, %0#1 : tensor<5x96xf32>, tensor<5x24xf32>) outs(%e : tensor<1x96xf32>) {heads = 12, head_dim = 8} -> tensor<1x96xf32>
  return %1 : tensor<1x96xf32>
}

// Large heads go row by row.
// CHECK-LABEL: func @large_heads
//       CHECK:   mMin = 2, mMax = 64, {{.*}} tileM = 1, tileN = 1, {{.*}} rows = 1,
func.func @large_heads(%x: tensor<?x256xf32>, %p: index, %c: memref<1x16x256xf16>, %e: tensor<?x256xf32>) -> tensor<?x256xf32> attributes {gptq.max_m = 64 : i64} {
  %1 = gptq.attention ins(%x at %p : tensor<?x256xf32>) state(%c, %c : memref<1x16x256xf16>, memref<1x16x256xf16>) outs(%e : tensor<?x256xf32>) {heads = 1, kv_heads = 1, head_dim = 256, scale = 1.0} -> tensor<?x256xf32>
  return %1 : tensor<?x256xf32>
}
