// Drawing a token is the same arithmetic everywhere: on no target is a product of doubles contracted with what is added to it,
// or an exponential taken from a library.
// RUN: gptq-compile %s --quiet --target=nvvm:sm_90a -o %t.gptqm --dump-ir %t.gpu
// RUN: FileCheck %s --check-prefix=PTX --input-file %t.gpu/8-kernels.s
// RUN: FileCheck %s --check-prefix=ALONE --input-file %t.gpu/8-kernels.s
// RUN: gptq-compile %s --quiet --target=cpu:x86-64-v4 -o %t.gptqm --dump-ir %t.cpu
// RUN: FileCheck %s --check-prefix=CPU --input-file %t.cpu/8-kernels.s

//     PTX: .visible .entry top_k_0_m1(
//     PTX: bar.sync
//     PTX: .visible .entry sample_token_1_m1(
// PTX-DAG: mul.rn.f64
// PTX-DAG: add.rn.f64
// PTX-DAG: mul.hi.u64
// ALONE-NOT: {{fma\..*f64|mad\..*f64|ex2|call}}

//     CPU: top_k_0_m1:
//     CPU: sample_token_1_m1:
// CPU-NOT: {{vf(n)?m(add|sub).*sd|exp@PLT}}
//     CPU: vmulsd
// CPU-NOT: {{vf(n)?m(add|sub).*sd|exp@PLT}}
func.func @draw(%tokens: tensor<1xi32> {gptq.name = "tokens"}, %logits: tensor<1x5003xf32> {gptq.name = "logits"}, %how: tensor<6xi32> {gptq.name = "sampling"}, %p: index) -> (tensor<1xi32> {gptq.name = "token"}) attributes {gptq.max_m = 1 : i64} {
  %c0 = arith.constant 0 : index
  %v = tensor.empty() : tensor<2x64xf32>
  %i = tensor.empty() : tensor<2x64xi32>
  %t = tensor.empty() : tensor<1xi32>
  %top:2 = gptq.top_k ins(%logits part %c0 : tensor<1x5003xf32>) outs(%v, %i : tensor<2x64xf32>, tensor<2x64xi32>) {columns = 4096} -> tensor<2x64xf32>, tensor<2x64xi32>
  %r:2 = gptq.sample_token ins(%top#0, %top#1, %how at %p : tensor<2x64xf32>, tensor<2x64xi32>, tensor<6xi32>) outs(%t, %tokens : tensor<1xi32>, tensor<1xi32>) -> tensor<1xi32>, tensor<1xi32>
  return %r#0 : tensor<1xi32>
}
