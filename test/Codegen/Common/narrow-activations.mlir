// RUN: gptq-opt %s -split-input-file -verify-diagnostics -gptq-narrow-activations=type=bf16

func.func @other_weights(%x: tensor<?x64xf32>, %w: tensor<32x64xf16>, %e: tensor<?x32xf32>) -> tensor<?x32xf32> {
  // expected-error @+1 {{expects dense weights of 'bf16', the type of the activations, but found 'f16'}}
  %0 = gptq.matmul ins(%x, %w : tensor<?x64xf32>, tensor<32x64xf16>) outs(%e : tensor<?x32xf32>) -> tensor<?x32xf32>
  return %0 : tensor<?x32xf32>
}

// -----

func.func @other_type(%x: tensor<?x64xf32>, %w: tensor<32x64xbf16>, %e: tensor<?x32xf32>) -> tensor<?x32xf32> {
  %0 = gptq.matmul ins(%x, %w : tensor<?x64xf32>, tensor<32x64xbf16>) outs(%e : tensor<?x32xf32>) -> tensor<?x32xf32>
  return %0 : tensor<?x32xf32>
}
