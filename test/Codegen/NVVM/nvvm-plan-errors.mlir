// RUN: gptq-opt %s -split-input-file -verify-diagnostics -gptq-nvvm-plan=chip=sm_75
// RUN: not gptq-opt %s -gptq-nvvm-plan=chip=sm_11 2>&1 | FileCheck %s
// RUN: not gptq-opt %s -gptq-nvvm-plan=unit=abacus 2>&1 | FileCheck %s --check-prefix=UNIT
// UNIT: error: expects a unit of sm_90a, but found 'abacus'
// CHECK: error: expects a known NVIDIA architecture, but found 'sm_11'

func.func @no_bf16(%x: tensor<?x64xbf16>, %w: tensor<32x64xbf16>, %e: tensor<?x32xf32>) -> tensor<?x32xf32> attributes {gptq.max_m = 1 : i64} {
  // expected-error @+1 {{expects activations of f16 on sm_75, whose matrix units have no bf16}}
  %0 = gptq.matmul ins(%x, %w : tensor<?x64xbf16>, tensor<32x64xbf16>) outs(%e : tensor<?x32xf32>) -> tensor<?x32xf32>
  return %0 : tensor<?x32xf32>
}
