// RUN: gptq-opt %s -split-input-file -verify-diagnostics -gptq-add-next=parts=4 -cse -canonicalize | FileCheck %s
// RUN: gptq-opt %s -split-input-file -verify-diagnostics -gptq-add-next=max-top-k=512 | FileCheck %s --check-prefix=MANY
// RUN: gptq-opt %s -split-input-file -verify-diagnostics -gptq-add-next=max-top-k=0 | FileCheck %s --check-prefix=NONE
// RUN: not gptq-opt %s -split-input-file -gptq-add-next=max-top-k=100 2>&1 | FileCheck %s --check-prefix=ODD
// ODD: expects max-top-k to be 0 or a power of two from 2 to 512, but found 100
// The entry for one token is the one for many with static shapes, and chooses the next token.

gptq.weight @table : tensor<5000x64xf16> = #gptq.data<"m", "t", 0, tensor<5000x64xf16>>
// CHECK-LABEL: func @generate(%{{.+}}: tensor<?xi32>
// CHECK-LABEL: func @next(
//  CHECK-SAME:   %[[TOKEN:.+]]: tensor<1xi32> {gptq.name = "tokens"}, %{{.+}}: index) ->
//  CHECK-SAME:   (tensor<1xi32> {gptq.name = "token"}, tensor<1x5000xf32> {gptq.name = "logits"}) attributes {gptq.max_m = 1 : i64}
//   CHECK-NOT:   tensor.dim
//       CHECK:   %[[X:.+]] = gptq.embedding ins(%[[TOKEN]], %{{.+}} : tensor<1xi32>, tensor<5000x64xf16>) outs(%{{.+}} : tensor<1x64xf32>)
//   CHECK-NOT:   tensor.extract_slice
//       CHECK:   %[[LOGITS:.+]] = gptq.matmul ins(%[[X]], {{.*}} -> tensor<1x5000xf32>
//       CHECK:   %[[MOST:.+]]:2 = gptq.argmax ins(%[[LOGITS]] part %c0 : tensor<1x5000xf32>) outs({{.*}} : tensor<4x1xf32>, tensor<4x1xi32>) {columns = 1250 : i64, gptq.label = "argmax"}
//       CHECK:   %[[NEXT:.+]]:2 = gptq.choose_token ins(%[[MOST]]#0, %[[MOST]]#1 : {{.*}}) outs(%{{.+}}, %[[TOKEN]] : tensor<1xi32>, tensor<1xi32>)
//       CHECK:   return %[[NEXT]]#0, %[[LOGITS]]

// So does the entry that draws it, from as many of the likeliest as asked for; how is an input, and the logits are nobody's.
// CHECK-LABEL: func @sample(
//  CHECK-SAME:   %[[TOKEN:.+]]: tensor<1xi32> {gptq.name = "tokens"}, %[[P:.+]]: index, %[[HOW:.+]]: tensor<6xi32> {gptq.name = "sampling"}) ->
//  CHECK-SAME:   (tensor<1xi32> {gptq.name = "token"}) attributes {gptq.max_m = 1 : i64, gptq.max_top_k = 128 : i64}
//       CHECK:   %[[LOGITS:.+]] = gptq.matmul
//       CHECK:   %[[TOP:.+]]:2 = gptq.top_k ins(%[[LOGITS]] part %c0 : tensor<1x5000xf32>) outs({{.*}} : tensor<5x128xf32>, tensor<5x128xi32>) {columns = 1024 : i64, gptq.label = "top_k"}
//       CHECK:   %[[NEXT:.+]]:2 = gptq.sample_token ins(%[[TOP]]#0, %[[TOP]]#1, %[[HOW]] at %[[P]] : {{.*}}) outs(%{{.+}}, %[[TOKEN]] : tensor<1xi32>, tensor<1xi32>)
//       CHECK:   return %[[NEXT]]#0 : tensor<1xi32>

// 5 parts of 512 are too many for the workgroup that draws.
// MANY: %[[TOP:.+]]:2 = gptq.top_k ins(%{{.+}} part {{.*}} outs({{.*}} : tensor<5x512xf32>, tensor<5x512xi32>)
// MANY: %[[MERGED:.+]]:2 = gptq.top_k ins(%[[TOP]]#0 indices %[[TOP]]#1 part %{{.+}} : tensor<5x512xf32> indices tensor<5x512xi32>) outs({{.*}} : tensor<2x512xf32>, tensor<2x512xi32>) {columns = 2048 : i64, gptq.label = "top_k.merge"}
// MANY: gptq.sample_token ins(%[[MERGED]]#0, %[[MERGED]]#1,
// NONE: func @next
// NONE-NOT: func @sample
func.func @generate(%tokens: tensor<?xi32> {gptq.name = "tokens"}, %p: index) -> (tensor<1x5000xf32> {gptq.name = "logits"}) attributes {gptq.max_m = 64 : i64} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %m = tensor.dim %tokens, %c0 : tensor<?xi32>
  %table = gptq.load_weight @table : tensor<5000x64xf16>
  %e = tensor.empty(%m) : tensor<?x64xf32>
  %x = gptq.embedding ins(%tokens, %table : tensor<?xi32>, tensor<5000x64xf16>) outs(%e : tensor<?x64xf32>) -> tensor<?x64xf32>
  %last = arith.subi %m, %c1 : index
  %s = tensor.extract_slice %x[%last, 0] [1, 64] [1, 1] : tensor<?x64xf32> to tensor<1x64xf32>
  %f = tensor.empty() : tensor<1x5000xf32>
  %y = gptq.matmul ins(%s, %table : tensor<1x64xf32>, tensor<5000x64xf16>) outs(%f : tensor<1x5000xf32>) -> tensor<1x5000xf32>
  return %y : tensor<1x5000xf32>
}

// -----
// A lone function has no next token.
// CHECK-LABEL: func @layer
//   CHECK-NOT: func @next
func.func @layer(%x: tensor<?x64xf32>) -> tensor<?x64xf32> attributes {gptq.max_m = 64 : i64} {
  return %x : tensor<?x64xf32>
}

// -----
// expected-error @+1 {{expects the entry generate to take tokens and their position and to return one row of logits, but found '(tensor<?x64xf32>) -> tensor<?x64xf32>'}}
func.func @generate(%x: tensor<?x64xf32>) -> tensor<?x64xf32> attributes {gptq.max_m = 64 : i64} {
  return %x : tensor<?x64xf32>
}
