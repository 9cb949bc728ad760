// RUN: gptq-opt %s -pass-pipeline="builtin.module(func.func(gptq-split-reduction))" | FileCheck %s
// RUN: gptq-opt %s -pass-pipeline="builtin.module(func.func(gptq-split-reduction,gptq-buffer-partials))" | FileCheck %s --check-prefix=SHARED
// The sum over K is taken in parts of whole groups; with shared partials they meet in workgroup memory.

#plan = #gptq.plan<mMin = 2, mMax = 64, unit = "fma_f32", tileM = 24, tileN = 32, tileK = 40, rows = 6, columns = 16, lanes = 8, path = "direct", partials = "shared", scale = "accumulator", zero = "accumulator">
#layout = #gptq.layout<bits = 4, blockN = 32, blockK = 8, order = "b0 b1 k0 k1 k2 n0 n1 n2 n3 n4">
// CHECK-LABEL: func @parts
//  CHECK-SAME:   %[[E:[a-z0-9]+]]: tensor<?x32xf32>, %[[B:[a-z0-9]+]]: tensor<32xf16>
//   CHECK-DAG:   tensor.extract_slice %{{.+}}[0, 0] [%{{.+}}, 64]
//   CHECK-DAG:   tensor.extract_slice %{{.+}}[0, 0, 0] [1, 8, 32]
//   CHECK-DAG:   tensor.extract_slice %{{.+}}[0, 0, 0] [1, 2, 32]
//       CHECK:   %[[FIRST:.+]] = gptq.dequant_matmul {{.*}} outs(%[[E]] :
//   CHECK-NOT:   accumulate
//   CHECK-DAG:   tensor.extract_slice %{{.+}}[0, 64] [%{{.+}}, 36]
//   CHECK-DAG:   tensor.extract_slice %{{.+}}[0, 8, 0] [1, 5, 32]
//   CHECK-DAG:   tensor.extract_slice %{{.+}}[0, 2, 0] [1, 2, 32]
//       CHECK:   gptq.dequant_matmul {{.*}} bias %[[B]] {{.*}} outs(%[[FIRST]] : {{.*}} {accumulate,
// SHARED-LABEL: func @parts
//       SHARED:   %[[ROOM:.+]] = bufferization.alloc_tensor() {memory_space = #gpu.address_space<workgroup>} : tensor<24x32xf32>
//       SHARED:   %[[TILE:.+]] = tensor.extract_slice %[[ROOM]]
//       SHARED:   %[[A:.+]] = gptq.dequant_matmul {{.*}} outs(%[[TILE]] :
//       SHARED:   %[[SUM:.+]] = gptq.dequant_matmul {{.*}} outs(%[[A]] :
//       SHARED:   %[[Y:.+]] = gptq.stage ins(%[[SUM]] {{.*}} outs(%arg3
//       SHARED:   return %[[Y]]
func.func @parts(%x: tensor<?x100xf32>, %q: tensor<1x13x32xi32>, %s: tensor<1x4x32xf16>, %e: tensor<?x32xf32>, %b: tensor<32xf16>) -> tensor<?x32xf32> {
  %0 = gptq.dequant_matmul ins(%x, %q, %s bias %b : tensor<?x100xf32>, tensor<1x13x32xi32>, tensor<1x4x32xf16> bias tensor<32xf16>) outs(%e : tensor<?x32xf32>) {bits = 4, group_size = 32, zero_point = 8, layout = #layout, gptq.plan = #plan} -> tensor<?x32xf32>
  return %0 : tensor<?x32xf32>
}

// Groups that do not fill whole words start blocks of their own: 40 rows are two groups of 3 blocks.
// CHECK-LABEL: func @parts_of_part_words
//   CHECK-DAG:   tensor.extract_slice %{{.+}}[0, 40] [%{{.+}}, 10]
//   CHECK-DAG:   tensor.extract_slice %{{.+}}[0, 6, 0] [1, 2, 32]
//   CHECK-DAG:   tensor.extract_slice %{{.+}}[0, 2, 0] [1, 1, 32]
func.func @parts_of_part_words(%x: tensor<?x50xf32>, %q: tensor<1x8x32xi32>, %s: tensor<1x3x32xf16>, %e: tensor<?x32xf32>) -> tensor<?x32xf32> {
  %0 = gptq.dequant_matmul ins(%x, %q, %s : tensor<?x50xf32>, tensor<1x8x32xi32>, tensor<1x3x32xf16>) outs(%e : tensor<?x32xf32>) {bits = 4, group_size = 20, zero_point = 8, layout = #layout, gptq.plan = #plan} -> tensor<?x32xf32>
  return %0 : tensor<?x32xf32>
}

// An epilogue that is not linear needs the whole sum.
// CHECK-LABEL: func @epilogue
// CHECK-COUNT-1: gptq.dequant_matmul
// CHECK-NOT: gptq.dequant_matmul
func.func @epilogue(%x: tensor<?x100xf32>, %q: tensor<1x13x32xi32>, %s: tensor<1x4x32xf16>, %e: tensor<?x16xf32>) -> tensor<?x16xf32> {
  %0 = gptq.dequant_matmul ins(%x, %q, %s : tensor<?x100xf32>, tensor<1x13x32xi32>, tensor<1x4x32xf16>) outs(%e : tensor<?x16xf32>) {bits = 4, group_size = 32, zero_point = 8, layout = #layout, epilogue = #gptq.epilogue<silu_mul>, gptq.plan = #plan} -> tensor<?x16xf32>
  return %0 : tensor<?x16xf32>
}

// Groups of 20 rows take three blocks of 8 each: a part of two groups starts at block 6.
// CHECK-LABEL: func @groups_of_their_own_blocks
//   CHECK-DAG:   tensor.extract_slice %{{.+}}[0, 0, 0] [1, 6, 32]
//   CHECK-DAG:   tensor.extract_slice %{{.+}}[0, 40] [%{{.+}}, 30]
//   CHECK-DAG:   tensor.extract_slice %{{.+}}[0, 6, 0] [1, 5, 32]
func.func @groups_of_their_own_blocks(%x: tensor<?x70xf32>, %q: tensor<1x11x32xi32>, %s: tensor<1x4x32xf16>, %e: tensor<?x32xf32>) -> tensor<?x32xf32> {
  %0 = gptq.dequant_matmul ins(%x, %q, %s : tensor<?x70xf32>, tensor<1x11x32xi32>, tensor<1x4x32xf16>) outs(%e : tensor<?x32xf32>) {bits = 4, group_size = 20, zero_point = 8, layout = #layout, gptq.plan = #plan} -> tensor<?x32xf32>
  return %0 : tensor<?x32xf32>
}
