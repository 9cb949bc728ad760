// RUN: split-file %s %t
// RUN: gptq-opt %t/m.mlir -gptq-cpu-plan=cpu=x86-64-v3 -gptq-apply-plan-file="file=%t/cpu.plan target=x86-64-v3" 2>%t/warnings | FileCheck %t/m.mlir
// RUN: FileCheck %t/cpu.plan --check-prefix=WARN --input-file %t/warnings
// RUN: gptq-opt %t/gpu.mlir -pass-pipeline="builtin.module(gptq-to-planned{target=sm_90a plan-file=%t/gpu.plan})" | FileCheck %t/gpu.mlir
// RUN: gptq-opt %t/ring.mlir -pass-pipeline="builtin.module(gptq-to-planned{target=sm_90a plan-file=%t/ring.plan})" | FileCheck %t/ring.mlir
// RUN: gptq-opt %t/ring.mlir -pass-pipeline="builtin.module(gptq-to-planned{target=sm_90a ring=false plan-file=%t/ring.plan})" | FileCheck %t/ring.mlir
// RUN: gptq-opt %t/ring.mlir -pass-pipeline="builtin.module(gptq-to-planned{target=sm_90a plan-file=%t/direct.plan})" | FileCheck %t/ring.mlir --check-prefix=DIRECT
// RUN: not gptq-opt %t/ring.mlir -pass-pipeline="builtin.module(gptq-to-planned{target=sm_90a plan-file=%t/odd.plan})" 2>&1 | FileCheck %t/odd.plan
// RUN: not gptq-opt %t/ring.mlir -pass-pipeline="builtin.module(gptq-to-planned{target=sm_100a plan-file=%t/ring.plan})" 2>&1 | FileCheck %t/ring.plan

//--- m.mlir
// The first entry that matches counts; where the file says nothing, the planner does. Ranges of M are cut off at the op's most rows.
// CHECK-LABEL: func @layer
//       CHECK:   gptq.dequant_matmul {{.*}}gptq.label = "a", gptq.plans = [#gptq.plan<mMin = 1, mMax = 4, unit = "fma_f32", tileM = 0, tileN = 64, {{.*}} rows = 1,
//  CHECK-SAME:     #gptq.plan<mMin = 5, mMax = 20, unit = "fma_f32", tileM = 12, {{.*}} rows = 3,
//       CHECK:   gptq.dequant_matmul {{.*}}gptq.label = "b", gptq.plans = [#gptq.plan<mMin = 1, mMax = 20, unit = "fma_f32", tileM = 0, tileN = 32,
//       CHECK:   gptq.rms_norm {{.*}} [#gptq.plan<mMin = 1, mMax = 1, {{.*}} #gptq.plan<mMin = 2, mMax = 20, unit = "fma_f32", tileM = 8,
func.func @layer(%x: tensor<?x64xf32>, %q: tensor<64x64xi4>, %s: tensor<2x64xf16>, %w: tensor<64xf16>, %e: tensor<?x64xf32>) -> tensor<?x64xf32> attributes {gptq.max_m = 20 : i64} {
  %a = gptq.dequant_matmul ins(%x, %q, %s : tensor<?x64xf32>, tensor<64x64xi4>, tensor<2x64xf16>) outs(%e : tensor<?x64xf32>) {bits = 4, group_size = 32, zero_point = 8, gptq.label = "a"} -> tensor<?x64xf32>
  %b = gptq.dequant_matmul ins(%a, %q, %s : tensor<?x64xf32>, tensor<64x64xi4>, tensor<2x64xf16>) outs(%e : tensor<?x64xf32>) {bits = 4, group_size = 32, zero_point = 8, gptq.label = "b"} -> tensor<?x64xf32>
  %c = gptq.rms_norm ins(%b, %w : tensor<?x64xf32>, tensor<64xf16>) outs(%e : tensor<?x64xf32>) {epsilon = 1.0e-5} -> tensor<?x64xf32>
  return %c : tensor<?x64xf32>
}

//--- cpu.plan
// A comment, then entries.
{op = "dequant_matmul", layer = "b", plans = [
  #gptq.plan<mMin = 1, mMax = 1000, unit = "fma_f32", tileM = 0, tileN = 32, tileK = 0, rows = 1, columns = 16, lanes = 8,
             path = "direct", partials = "global", scale = "weight", zero = "weight">]}
// Another target's.
{op = "dequant_matmul", target = "sm_90a", plans = [#gptq.plan<mMin = 1, mMax = 1, unit = "mma_m16n8k16", tileM = 8, tileN = 64, tileK = 0, rows = 8,
  columns = 64, lanes = 32, path = "direct", partials = "shared", scale = "accumulator", zero = "accumulator">]}
{op = "dequant_matmul", target = "x86-64-v3", n = 64, k = 64, bits = 4, group_size = 32, zero_points = false, act_order = false,
 epilogue = "none", activations = f32, max_m = 20, plans = [
  #gptq.plan<mMin = 1, mMax = 4, unit = "fma_f32", tileM = 0, tileN = 64, tileK = 0, rows = 1, columns = 32, lanes = 8,
             path = "direct", partials = "global", scale = "accumulator", zero = "accumulator">,
  #gptq.plan<mMin = 5, mMax = 64, unit = "fma_f32", tileM = 12, tileN = 32, tileK = 32, rows = 3, columns = 16, lanes = 8,
             path = "direct", partials = "shared", scale = "accumulator", zero = "accumulator">,
  #gptq.plan<mMin = 65, mMax = 100, unit = "fma_f32", tileM = 12, tileN = 32, tileK = 32, rows = 3, columns = 16, lanes = 8,
             path = "direct", partials = "shared", scale = "accumulator", zero = "accumulator">]}
// WARN: cpu.plan:[[@LINE+1]]:1: warning: plans for no op of this model
{op = "dequant_matmul", bits = 4, plans = [#gptq.plan<mMin = 1, mMax = 1, unit = "fma_f32", tileM = 0, tileN = 32, tileK = 0, rows = 1, columns = 16,
  lanes = 8, path = "direct", partials = "global", scale = "weight", zero = "weight">]}
// WARN-NOT: warning

//--- gpu.mlir
// CHECK: gptq.dequant_matmul {{.*}} [#gptq.plan<mMin = 1, mMax = 8, unit = "mma_m16n8k16", tileM = 8, tileN = 32, {{.*}} threads = 64, stepK = 64, loadBits = 64>,
// CHECK-SAME: #gptq.plan<mMin = 9, mMax = 20, unit = "mma_m16n8k16", tileM = 16, tileN = 32, {{.*}} rows = 16, columns = 16, {{.*}} threads = 128, stepK = 128, occupancy = 2, stages = 2>]
func.func @layer(%x: tensor<?x256xf32>, %q: tensor<256x64xi4>, %s: tensor<2x64xf16>, %e: tensor<?x64xf32>) -> tensor<?x64xf32> attributes {gptq.max_m = 20 : i64} {
  %a = gptq.dequant_matmul ins(%x, %q, %s : tensor<?x256xf32>, tensor<256x64xi4>, tensor<2x64xf16>) outs(%e : tensor<?x64xf32>) {bits = 4, group_size = 128, zero_point = 8} -> tensor<?x64xf32>
  return %a : tensor<?x64xf32>
}

//--- gpu.plan
{op = "dequant_matmul", plans = [
  #gptq.plan<mMin = 1, mMax = 8, unit = "mma_m16n8k16", tileM = 8, tileN = 32, tileK = 0, rows = 8, columns = 32, lanes = 32,
             path = "direct", partials = "shared", scale = "accumulator", zero = "accumulator", threads = 64, stepK = 64, loadBits = 64>,
  #gptq.plan<mMin = 9, mMax = 64, unit = "mma_m16n8k16", tileM = 16, tileN = 32, tileK = 0, rows = 16, columns = 16, lanes = 32,
             path = "direct", partials = "shared", scale = "accumulator", zero = "weight", threads = 128, stepK = 128, occupancy = 2, stages = 2>]}

//--- ring.mlir
// A file says by itself what passes through a ring and how, whatever the planner would have done.
//  CHECK: gptq.dequant_matmul {{.*}} [#gptq.plan<mMin = 1, mMax = 8, unit = "mma_m16n8k16", {{.*}} firstBytes = 96>, #gptq.plan<mMin = 9, mMax = 512, unit = "wgmma_m64k16", {{.*}} rows = 48, {{.*}} path = "ring", {{.*}} threads = 256, stepK = 64, stages = 6, cluster = 4>]
// DIRECT: gptq.dequant_matmul {{.*}} [#gptq.plan<mMin = 1, mMax = 512, unit = "mma_m16n8k16", {{.*}} path = "direct",
func.func @layer(%x: tensor<?x8192xf32>, %q: tensor<8192x28672xi4>, %s: tensor<64x28672xf16>, %e: tensor<?x28672xf32>) -> tensor<?x28672xf32> attributes {gptq.max_m = 512 : i64} {
  %a = gptq.dequant_matmul ins(%x, %q, %s : tensor<?x8192xf32>, tensor<8192x28672xi4>, tensor<64x28672xf16>) outs(%e : tensor<?x28672xf32>) {bits = 4, group_size = 128, zero_point = 8} -> tensor<?x28672xf32>
  return %a : tensor<?x28672xf32>
}

//--- direct.plan
{op = "dequant_matmul", plans = [
  #gptq.plan<mMin = 1, mMax = 512, unit = "mma_m16n8k16", tileM = 8, tileN = 32, tileK = 0, rows = 8, columns = 32, lanes = 32,
             path = "direct", partials = "shared", scale = "accumulator", zero = "weight", threads = 64, stepK = 64, loadBits = 64>]}

//--- ring.plan
// CHECK: cannot be honoured for M = 9 to 512 of a dequant_matmul: sm_100a has no unit "wgmma_m64k16", expected "mma_m16n8k16"
{op = "dequant_matmul", plans = [
  #gptq.plan<mMin = 1, mMax = 8, unit = "mma_m16n8k16", tileM = 8, tileN = 32, tileK = 0, rows = 8, columns = 32, lanes = 32,
             path = "direct", partials = "shared", scale = "accumulator", zero = "weight", threads = 64, stepK = 64, firstBytes = 96>,
  #gptq.plan<mMin = 9, mMax = 512, unit = "wgmma_m64k16", tileM = 48, tileN = 64, tileK = 0, rows = 48, columns = 16, lanes = 32,
             path = "ring", partials = "shared", scale = "weight", zero = "weight", threads = 256, stepK = 64, stages = 6, cluster = 4>]}

//--- odd.plan
// CHECK: cannot be honoured for M = 9 to 512 of a dequant_matmul: expects cluster = a divisor of the 128 parts of 64 rows of K, but found 3
{op = "dequant_matmul", plans = [
  #gptq.plan<mMin = 1, mMax = 8, unit = "mma_m16n8k16", tileM = 8, tileN = 32, tileK = 0, rows = 8, columns = 32, lanes = 32,
             path = "direct", partials = "shared", scale = "accumulator", zero = "weight", threads = 64, stepK = 64>,
  #gptq.plan<mMin = 9, mMax = 512, unit = "wgmma_m64k16", tileM = 48, tileN = 64, tileK = 0, rows = 48, columns = 16, lanes = 32,
             path = "ring", partials = "shared", scale = "weight", zero = "weight", threads = 256, stepK = 64, stages = 6, cluster = 3>]}
