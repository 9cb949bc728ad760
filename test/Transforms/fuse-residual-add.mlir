// RUN: gptq-opt %s -gptq-fuse-residual-add --remarks-filter=gptq 2>%t.remarks | FileCheck %s
// RUN: FileCheck %s --check-prefix=REMARK --input-file %t.remarks

gptq.weight @w : tensor<64xf16> = #gptq.data<"m", "w", 0, tensor<64xf16>>
gptq.weight @q : tensor<64x64xi4> = #gptq.codes<#gptq.data<"m", "q", 0, tensor<8x64xi32>>, bits = 4, packing = rows>
gptq.weight @s : tensor<1x64xf16> = #gptq.data<"m", "s", 0, tensor<1x64xf16>>
gptq.weight @d : tensor<64x64xf16> = #gptq.data<"m", "d", 0, tensor<64x64xf16>>

// The product goes where the residual is; who reads the sum reads the matmul's result.
// CHECK-LABEL: func @added
//       CHECK:   %[[H:.+]] = gptq.rms_norm
//       CHECK:   %[[SUM:.+]] = gptq.dequant_matmul {{.*}} outs(%[[H]] : {{.*}}accumulate
//   CHECK-NOT:   gptq.add
//       CHECK:   return %[[SUM]]
func.func @added(%x: tensor<?x64xf32>, %e: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %w = gptq.load_weight @w : tensor<64xf16>
  %q = gptq.load_weight @q : tensor<64x64xi4>
  %s = gptq.load_weight @s : tensor<1x64xf16>
  %h = gptq.rms_norm ins(%x, %w : tensor<?x64xf32>, tensor<64xf16>) outs(%e : tensor<?x64xf32>) {epsilon = 1.0e-5} -> tensor<?x64xf32>
  %p = gptq.dequant_matmul ins(%x, %q, %s : tensor<?x64xf32>, tensor<64x64xi4>, tensor<1x64xf16>) outs(%e : tensor<?x64xf32>) {bits = 4, group_size = 64, zero_point = 8} -> tensor<?x64xf32>
  %0 = gptq.add ins(%h, %p : tensor<?x64xf32>, tensor<?x64xf32>) outs(%e : tensor<?x64xf32>) -> tensor<?x64xf32>
  return %0 : tensor<?x64xf32>
}

// A sum that is normalized leaves the norm behind, also where only one row of it is. Dense matmuls add, too.
// CHECK-LABEL: func @normalized_row
//       CHECK:   %[[H:.+]] = gptq.rms_norm
//       CHECK:   %[[SUM:.+]] = gptq.matmul {{.*}} outs(%[[H]] : {{.*}}accumulate
//       CHECK:   %[[ROW:.+]] = tensor.extract_slice %[[SUM]]
//       CHECK:   %[[N:.+]] = gptq.rms_norm ins(%[[ROW]],
//   CHECK-NOT:   gptq.add_rms_norm
//       CHECK:   return %[[N]]
func.func @normalized_row(%x: tensor<?x64xf32>, %e: tensor<?x64xf32>, %f: tensor<1x64xf32>, %last: index) -> tensor<1x64xf32> {
  %w = gptq.load_weight @w : tensor<64xf16>
  %d = gptq.load_weight @d : tensor<64x64xf16>
  %h = gptq.rms_norm ins(%x, %w : tensor<?x64xf32>, tensor<64xf16>) outs(%e : tensor<?x64xf32>) {epsilon = 1.0e-5} -> tensor<?x64xf32>
  %p = gptq.matmul ins(%x, %d : tensor<?x64xf32>, tensor<64x64xf16>) outs(%e : tensor<?x64xf32>) -> tensor<?x64xf32>
  %a = tensor.extract_slice %h[%last, 0] [1, 64] [1, 1] : tensor<?x64xf32> to tensor<1x64xf32>
  %b = tensor.extract_slice %p[%last, 0] [1, 64] [1, 1] : tensor<?x64xf32> to tensor<1x64xf32>
  %0:2 = gptq.add_rms_norm ins(%a, %b, %w : tensor<1x64xf32>, tensor<1x64xf32>, tensor<64xf16>) outs(%f, %f : tensor<1x64xf32>, tensor<1x64xf32>) {epsilon = 1.0e-5} -> tensor<1x64xf32>, tensor<1x64xf32>
  return %0#1 : tensor<1x64xf32>
}

// The residual is read once more after the matmul: it may not be overwritten.
// CHECK-LABEL: func @residual_is_read_later
//       CHECK:   gptq.matmul
//   CHECK-NOT:   accumulate
//       CHECK:   gptq.add
//      REMARK: FuseResidualAdd{{.*}}the residual is read later
func.func @residual_is_read_later(%x: tensor<?x64xf32>, %e: tensor<?x64xf32>) -> (tensor<?x64xf32>, tensor<?x64xf32>) {
  %w = gptq.load_weight @w : tensor<64xf16>
  %d = gptq.load_weight @d : tensor<64x64xf16>
  %h = gptq.rms_norm ins(%x, %w : tensor<?x64xf32>, tensor<64xf16>) outs(%e : tensor<?x64xf32>) {epsilon = 1.0e-5} -> tensor<?x64xf32>
  %p = gptq.matmul ins(%x, %d : tensor<?x64xf32>, tensor<64x64xf16>) outs(%e : tensor<?x64xf32>) -> tensor<?x64xf32>
  %0 = gptq.add ins(%h, %p : tensor<?x64xf32>, tensor<?x64xf32>) outs(%e : tensor<?x64xf32>) -> tensor<?x64xf32>
  return %0, %h : tensor<?x64xf32>, tensor<?x64xf32>
}

// The product itself is wanted, too.
// CHECK-LABEL: func @product_is_read
//   CHECK-NOT:   accumulate
//       CHECK:   gptq.add
//      REMARK: FuseResidualAdd{{.*}}its result is read by itself
func.func @product_is_read(%x: tensor<?x64xf32>, %e: tensor<?x64xf32>) -> (tensor<?x64xf32>, tensor<?x64xf32>) {
  %w = gptq.load_weight @w : tensor<64xf16>
  %d = gptq.load_weight @d : tensor<64x64xf16>
  %h = gptq.rms_norm ins(%x, %w : tensor<?x64xf32>, tensor<64xf16>) outs(%e : tensor<?x64xf32>) {epsilon = 1.0e-5} -> tensor<?x64xf32>
  %p = gptq.matmul ins(%x, %d : tensor<?x64xf32>, tensor<64x64xf16>) outs(%e : tensor<?x64xf32>) -> tensor<?x64xf32>
  %0 = gptq.add ins(%h, %p : tensor<?x64xf32>, tensor<?x64xf32>) outs(%e : tensor<?x64xf32>) -> tensor<?x64xf32>
  return %0, %p : tensor<?x64xf32>, tensor<?x64xf32>
}

// An argument is the caller's.
// CHECK-LABEL: func @argument
//   CHECK-NOT:   accumulate
//       CHECK:   gptq.add
//      REMARK: FuseResidualAdd{{.*}}the residual is not computed before it
func.func @argument(%x: tensor<?x64xf32>, %e: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %d = gptq.load_weight @d : tensor<64x64xf16>
  %p = gptq.matmul ins(%x, %d : tensor<?x64xf32>, tensor<64x64xf16>) outs(%e : tensor<?x64xf32>) -> tensor<?x64xf32>
  %0 = gptq.add ins(%x, %p : tensor<?x64xf32>, tensor<?x64xf32>) outs(%e : tensor<?x64xf32>) -> tensor<?x64xf32>
  return %0 : tensor<?x64xf32>
}
