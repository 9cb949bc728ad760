// RUN: gptq-opt %s -pass-pipeline="builtin.module(func.func(gptq-promote-activations))" | FileCheck %s
// RUN: gptq-opt %s -pass-pipeline="builtin.module(func.func(gptq-promote-activations{max-bytes=4096}))" --remarks-filter=gptq 2>&1 | FileCheck %s --check-prefix=SMALL
// The activation tile moves to workgroup memory in the order it is read; the packed weights stay put.

#plan = #gptq.plan<mMin = 2, mMax = 64, unit = "fma_f32", tileM = 24, tileN = 32, tileK = 0, rows = 6, columns = 16, lanes = 8, path = "promote", partials = "shared", scale = "accumulator", zero = "accumulator">
#layout = #gptq.layout<bits = 4, blockN = 32, blockK = 8, order = "b0 b1 k0 k1 k2 n0 n1 n2 n3 n4">
// CHECK-LABEL: func @permuted
//  CHECK-SAME:   %[[X:[a-z0-9]+]]: tensor<?x64xf32>, %[[Q:[a-z0-9]+]]: tensor<1x8x32xi32>
//       CHECK:   %[[ROOM:.+]] = bufferization.alloc_tensor() {memory_space = #gpu.address_space<workgroup>} : tensor<24x64xf32>
//       CHECK:   %[[TILE:.+]] = tensor.extract_slice %[[ROOM]]
//       CHECK:   %[[COPY:.+]] = gptq.stage ins(%[[X]] perm %{{.+}} outs(%[[TILE]]
//       CHECK:   gptq.dequant_matmul ins(%[[COPY]], %[[Q]],
//   CHECK-NOT:   perm
// SMALL-LABEL: func @permuted
//       SMALL:   gptq.dequant_matmul {{.*}} perm
func.func @permuted(%x: tensor<?x64xf32>, %q: tensor<1x8x32xi32>, %s: tensor<1x2x32xf16>, %p: tensor<64xi32>, %e: tensor<?x32xf32>) -> tensor<?x32xf32> {
  %0 = gptq.dequant_matmul ins(%x, %q, %s perm %p : tensor<?x64xf32>, tensor<1x8x32xi32>, tensor<1x2x32xf16> perm tensor<64xi32>) outs(%e : tensor<?x32xf32>) {bits = 4, group_size = 32, zero_point = 8, layout = #layout, gptq.plan = #plan} -> tensor<?x32xf32>
  return %0 : tensor<?x32xf32>
}

// Split activations lie beside the others: room for the rows of the last block, and a unit for each group. They stay where
// nothing else reads them out of order.
#split = #gptq.plan<mMin = 1, mMax = 1, unit = "fma_f32", tileM = 0, tileN = 32, tileK = 0, rows = 1, columns = 32, lanes = 8, path = "split", partials = "global", scale = "accumulator", zero = "accumulator">
#three = #gptq.layout<bits = 3, blockN = 32, blockK = 32, order = "b0 k3 k2 k0 k1 n0 n1 n2 n3 n4 k4 | k3 k4 k2 k0 k1 n0 n1 n2 n3 n4">
// CHECK-LABEL: func @split
//  CHECK-SAME:   %[[X:[a-z0-9]+]]: tensor<1x100xf32>
//   CHECK-NOT:   gptq.stage ins
//       CHECK:   %[[BYTES:.+]] = bufferization.alloc_tensor() {memory_space = #gpu.address_space<workgroup>} : tensor<1x576xi8>
//       CHECK:   %[[UNITS:.+]] = bufferization.alloc_tensor() {memory_space = #gpu.address_space<workgroup>} : tensor<1x4xf32>
//       CHECK:   %[[S:.+]]:2 = gptq.stage_split ins(%[[X]] : {{.*}} outs(%[[BYTES]], %[[UNITS]] : {{.*}} group_size = 32
//       CHECK:   gptq.dequant_matmul ins(%[[X]], %{{.+}}, %{{.+}} split %[[S]]#0, %[[S]]#1 :
// SMALL-LABEL: func @split
//       SMALL:   gptq.stage_split
func.func @split(%x: tensor<1x100xf32>, %q: tensor<1x4x96xi32>, %s: tensor<1x4x32xf16>, %e: tensor<1x32xf32>) -> tensor<1x32xf32> {
  %0 = gptq.dequant_matmul ins(%x, %q, %s : tensor<1x100xf32>, tensor<1x4x96xi32>, tensor<1x4x32xf16>) outs(%e : tensor<1x32xf32>) {bits = 3, group_size = 32, zero_point = 4, layout = #three, gptq.plan = #split} -> tensor<1x32xf32>
  return %0 : tensor<1x32xf32>
}

// What is read out of order is put in order first.
// CHECK-LABEL: func @split_permuted
//       CHECK:   %[[COPY:.+]] = gptq.stage ins(%{{.+}} perm %
//       CHECK:   %[[S:.+]]:2 = gptq.stage_split ins(%[[COPY]] :
//       CHECK:   gptq.dequant_matmul ins(%[[COPY]], %{{.+}}, %{{.+}} split %[[S]]#0, %[[S]]#1 :
func.func @split_permuted(%x: tensor<1x100xf32>, %q: tensor<1x4x96xi32>, %s: tensor<1x4x32xf16>, %p: tensor<100xi32>, %e: tensor<1x32xf32>) -> tensor<1x32xf32> {
  %0 = gptq.dequant_matmul ins(%x, %q, %s perm %p : tensor<1x100xf32>, tensor<1x4x96xi32>, tensor<1x4x32xf16> perm tensor<100xi32>) outs(%e : tensor<1x32xf32>) {bits = 3, group_size = 32, zero_point = 4, layout = #three, gptq.plan = #split} -> tensor<1x32xf32>
  return %0 : tensor<1x32xf32>
}

// Where the plan says so the kernel normalizes its row itself, as its activations are typed.
#normalize = #gptq.plan<mMin = 1, mMax = 1, unit = "mma_m16n8k16", tileM = 8, tileN = 16, tileK = 0, rows = 8, columns = 16, lanes = 32, path = "normalize", partials = "shared", scale = "accumulator", zero = "accumulator", threads = 64, stepK = 64>
#matrix = #gptq.layout<bits = 4, blockN = 16, blockK = 64, order = "b0 b1 n3 k1 k0 k2 k5 k3 k4 n0 n1 n2">
// CHECK-LABEL: func @normalized
//  CHECK-SAME:   %[[N:[a-z0-9]+]]: tensor<1x64xf16>, %[[X:[a-z0-9]+]]: tensor<1x64xf32>, %[[W:[a-z0-9]+]]: tensor<64xf16>
//       CHECK:   %[[ROOM:.+]] = bufferization.alloc_tensor() {memory_space = #gpu.address_space<workgroup>} : tensor<1x64xf16>
//       CHECK:   %[[OWN:.+]] = gptq.rms_norm ins(%[[X]], %[[W]] : {{.*}} outs(%[[ROOM]] : {{.*}}epsilon = 1.000000e-05{{.*}}lanes = 4,{{.*}}threads = 64
//       CHECK:   gptq.dequant_matmul ins(%[[OWN]],
//   CHECK-NOT:   norm_of
func.func @normalized(%n: tensor<1x64xf16>, %x: tensor<1x64xf32>, %w: tensor<64xf16>, %q: tensor<1x1x128xi32>, %s: tensor<1x1x16xf16>, %e: tensor<1x16xf32>) -> tensor<1x16xf32> {
  %0 = gptq.dequant_matmul ins(%n, %q, %s norm_of %x, %w : tensor<1x64xf16>, tensor<1x1x128xi32>, tensor<1x1x16xf16> norm_of tensor<1x64xf32>, tensor<64xf16>) outs(%e : tensor<1x16xf32>) {bits = 4, group_size = 64, zero_point = 8, epsilon = 1.0e-5, layout = #matrix, gptq.plan = #normalize} -> tensor<1x16xf32>
  return %0 : tensor<1x16xf32>
}
