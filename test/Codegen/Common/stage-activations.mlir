// RUN: gptq-opt %s -split-input-file -gptq-stage-permutations | FileCheck %s --check-prefix=STAGE
// RUN: gptq-opt %s -split-input-file -gptq-narrow-activations | FileCheck %s --check-prefix=NARROW
// RUN: sed s/32x64xf16/32x64xbf16/ %s | gptq-opt -split-input-file -gptq-narrow-activations=type=bf16 | FileCheck %s --check-prefix=BF16
// RUN: not gptq-opt %s -split-input-file -gptq-narrow-activations=type=f8 2>&1 | FileCheck %s --check-prefix=TYPE
// TYPE: error: expects type auto, f16 or bf16, but found 'f8'

// STAGE-LABEL: func @permuted
//       STAGE:   %[[X:.+]] = gptq.stage ins(%arg0 perm %arg3
//       STAGE:   gptq.dequant_matmul ins(%[[X]], %arg1, %arg2 :
//   STAGE-NOT:   perm
// An argument of a lone function changes its type.
// NARROW-LABEL: func @permuted(%arg0: tensor<?x64xf16>
func.func @permuted(%x: tensor<?x64xf32>, %q: tensor<64x32xi4>, %s: tensor<2x32xf16>, %p: tensor<64xi32>, %e: tensor<?x32xf32>) -> tensor<?x32xf32> attributes {gptq.max_m = 8 : i64} {
  %0 = gptq.dequant_matmul ins(%x, %q, %s perm %p : tensor<?x64xf32>, tensor<64x32xi4>, tensor<2x32xf16> perm tensor<64xi32>) outs(%e : tensor<?x32xf32>) {bits = 4, group_size = 32, zero_point = 8} -> tensor<?x32xf32>
  return %0 : tensor<?x32xf32>
}

// -----
// A norm that only a matmul reads writes f16; a sum that is read elsewhere stays f32 and is converted once.
gptq.state @keys : memref<2x16x8xf32>
// NARROW: gptq.state @keys : memref<2x16x8xf16>
// NARROW-LABEL: func @producers
//       NARROW:   %[[N:.+]] = gptq.rms_norm {{.*}} -> tensor<?x64xf16>
//       NARROW:   %[[A:.+]] = gptq.add {{.*}} -> tensor<?x64xf32>
//       NARROW:   %[[C:.+]] = gptq.stage ins(%[[A]] : tensor<?x64xf32>) {{.*}} -> tensor<?x64xf16>
//       NARROW:   gptq.matmul ins(%[[N]], %arg3
//       NARROW:   gptq.matmul ins(%[[C]], %arg3
//       NARROW:   gptq.load_state @keys : memref<2x16x8xf16>
// BF16-LABEL: func @producers
//       BF16:   gptq.rms_norm {{.*}} -> tensor<?x64xbf16>
func.func @producers(%x: tensor<?x64xf32>, %y: tensor<?x64xf32>, %n: tensor<64xf16>, %w: tensor<32x64xf16>, %e: tensor<?x32xf32>) -> (tensor<?x32xf32>, tensor<?x32xf32>, tensor<?x64xf32>) {
  %c0 = arith.constant 0 : index
  %m = tensor.dim %x, %c0 : tensor<?x64xf32>
  %r = tensor.empty(%m) : tensor<?x64xf32>
  %0 = gptq.rms_norm ins(%x, %n : tensor<?x64xf32>, tensor<64xf16>) outs(%r : tensor<?x64xf32>) {epsilon = 1.0e-5} -> tensor<?x64xf32>
  %1 = gptq.add ins(%x, %y : tensor<?x64xf32>, tensor<?x64xf32>) outs(%r : tensor<?x64xf32>) -> tensor<?x64xf32>
  %2 = gptq.matmul ins(%0, %w : tensor<?x64xf32>, tensor<32x64xf16>) outs(%e : tensor<?x32xf32>) -> tensor<?x32xf32>
  %3 = gptq.matmul ins(%1, %w : tensor<?x64xf32>, tensor<32x64xf16>) outs(%e : tensor<?x32xf32>) -> tensor<?x32xf32>
  %k = gptq.load_state @keys : memref<2x16x8xf32>
  return %2, %3, %1 : tensor<?x32xf32>, tensor<?x32xf32>, tensor<?x64xf32>
}
