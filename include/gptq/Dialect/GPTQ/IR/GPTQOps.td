//===- GPTQOps.td - Operations of the gptq dialect ----------*- tablegen -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_OPS_TD
#define GPTQ_OPS_TD

include "gptq/Dialect/GPTQ/IR/GPTQAttrs.td"
include "mlir/IR/BuiltinAttributes.td"
include "mlir/IR/SymbolInterfaces.td"
include "mlir/Interfaces/DestinationStyleOpInterface.td"
include "mlir/Interfaces/InferTypeOpInterface.td"
include "mlir/Interfaces/SideEffectInterfaces.td"
include "mlir/Interfaces/TilingInterface.td"

class GPTQ_Op<string mnemonic, list<Trait> traits = []> : Op<GPTQ_Dialect, mnemonic, traits>;

def GPTQ_Float : AnyTypeOf<[F16, BF16, F32]>;

/// Before bufferization a tensor, afterwards a memref: the ops of this dialect live until their kernel is vectorized.
class GPTQ_Shaped<list<Type> types, list<int> ranks> :
    AnyTypeOf<[TensorRankOf<types, ranks>, MemRefRankOf<types, ranks>]>;
def GPTQ_Matrix : GPTQ_Shaped<[GPTQ_Float], [2]>;
def GPTQ_Vector : GPTQ_Shaped<[GPTQ_Float], [1]>;
/// Activations: [M, H], or with several slots a row [M, S, H], which in a kernel are one matrix [M S, H].
def GPTQ_Rows : GPTQ_Shaped<[GPTQ_Float], [2, 3]>;
/// Numbers of experts, rows or runs.
def GPTQ_Numbers : GPTQ_Shaped<[I32], [2]>;
/// Activations of three bytes, and what one of them is worth (`gptq.stage_split`).
def GPTQ_Bytes : GPTQ_Shaped<[I8], [2]>;
def GPTQ_Units : GPTQ_Shaped<[F32], [2]>;
def GPTQ_State : MemRefRankOf<[F32, F16, BF16], [3]>;

//===----------------------------------------------------------------------===//
// Symbols: weights and state
//===----------------------------------------------------------------------===//

def GPTQ_WeightOp : GPTQ_Op<"weight", [Symbol]> {
  let summary = "Declares a weight by the bytes it is made from";
  let description = [{
    A constant tensor of `type` whose elements `init` describes: a view of checkpoint bytes, or of other weights. The elements
    never enter the IR; they are read when the compiled model is written. Quantized codes are unsigned: `tensor<KxNxi4>`.

    ```mlir
    gptq.weight @q.codes : tensor<64x64xi4> = #gptq.codes<#gptq.data<"m.safetensors", "q.qweight", 0, tensor<8x64xi32>>, bits = 4, packing = rows>
    ```
  }];
  let arguments = (ins SymbolNameAttr:$sym_name, TypeAttrOf<AnyRankedTensor>:$type, AnyAttr:$init);
  let assemblyFormat = "$sym_name `:` $type `=` $init attr-dict";
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    ::mlir::RankedTensorType getTensorType() { return ::llvm::cast<::mlir::RankedTensorType>(getType()); }
  }];
}

def GPTQ_LoadWeightOp : GPTQ_Op<"load_weight", [Pure, DeclareOpInterfaceMethods<SymbolUserOpInterface>]> {
  let summary = "The value of a weight";
  let arguments = (ins FlatSymbolRefAttr:$weight);
  let results = (outs AnyRankedTensor:$result);
  let assemblyFormat = "$weight `:` type($result) attr-dict";
}

def GPTQ_StateOp : GPTQ_Op<"state", [Symbol]> {
  let summary = "Declares memory that lives as long as a session";
  let description = "A zero-initialized buffer of `type`, such as one layer's cache of keys, `memref<kvHeads x context x headDim>`.";
  let arguments = (ins SymbolNameAttr:$sym_name, TypeAttrOf<AnyMemRef>:$type);
  let assemblyFormat = "$sym_name `:` $type attr-dict";
}

def GPTQ_LoadStateOp : GPTQ_Op<"load_state", [Pure, DeclareOpInterfaceMethods<SymbolUserOpInterface>]> {
  let summary = "The buffer of a state";
  let arguments = (ins FlatSymbolRefAttr:$state);
  let results = (outs AnyMemRef:$result);
  let assemblyFormat = "$state `:` type($result) attr-dict";
}

//===----------------------------------------------------------------------===//
// Model ops
//===----------------------------------------------------------------------===//

/// A destination-style op over rows (tokens) with tiling. The last operands are the destinations.
class GPTQ_ModelOp<string mnemonic, list<Trait> traits = []> : GPTQ_Op<mnemonic, traits # [
    DestinationStyleOpInterface, DeclareOpInterfaceMethods<MemoryEffectsOpInterface>,
    DeclareOpInterfaceMethods<ReifyRankedShapedTypeOpInterface, ["reifyResultShapes"]>,
    DeclareOpInterfaceMethods<TilingInterface, ["getLoopIteratorTypes", "getIterationDomain",
      "getTiledImplementation", "getResultTilePosition"]>]> {
  let results = (outs Variadic<AnyRankedTensor>:$results);
  let hasVerifier = 1;
  code modelOpDeclaration = [{
    ::mlir::MutableOperandRange getDpsInitsMutable() { return getInitsMutable(); }
  }];
  let extraClassDeclaration = modelOpDeclaration;
}

def GPTQ_Activation : I32EnumAttr<"Activation", "a function of every element", [
    I32EnumAttrCase<"Silu", 0, "silu">, I32EnumAttrCase<"Gelu", 1, "gelu">, I32EnumAttrCase<"GeluTanh", 2, "gelu_tanh">,
    I32EnumAttrCase<"Relu", 3, "relu">]> {
  let cppNamespace = "::mlir::gptq";
  let genSpecializedAttr = 0;
}
def GPTQ_ActivationAttr : EnumAttr<GPTQ_Dialect, GPTQ_Activation, "function"> {
  let assemblyFormat = "`<` $value `>`";
}

/// An activation, of gate columns times up columns where it ends in Mul (`isGated`).
def GPTQ_Epilogue : I32EnumAttr<"Epilogue", "what happens to a result before it is written", [
    I32EnumAttrCase<"None", 0, "none">, I32EnumAttrCase<"SiluMul", 1, "silu_mul">, I32EnumAttrCase<"GeluMul", 2, "gelu_mul">,
    I32EnumAttrCase<"GeluTanhMul", 3, "gelu_tanh_mul">, I32EnumAttrCase<"ReluMul", 4, "relu_mul">, I32EnumAttrCase<"Silu", 5, "silu">,
    I32EnumAttrCase<"Gelu", 6, "gelu">, I32EnumAttrCase<"GeluTanh", 7, "gelu_tanh">, I32EnumAttrCase<"Relu", 8, "relu">]> {
  let cppNamespace = "::mlir::gptq";
  let genSpecializedAttr = 0;
}
def GPTQ_EpilogueAttr : EnumAttr<GPTQ_Dialect, GPTQ_Epilogue, "epilogue"> {
  let assemblyFormat = "`<` $value `>`";
}

def GPTQ_DequantMatmulOp : GPTQ_ModelOp<"dequant_matmul", [AttrSizedOperandSegments]> {
  let summary = "Multiplies activations by group-quantized weights";
  let description = [{
    Writes `lhs * w` to `init` (adds it with `accumulate`), where

        w[k, n] = scales[g, n] * (codes[k, n] - (zeros[g, n] + zero_offset)) + offsets[g, n],   g = g_idx ? g_idx[k] : k / group_size

    Without `zeros` every zero point is `zero_point`, without `offsets` nothing is added. With `perm`, row k of the weight meets column `perm[k]` of `lhs`. `bias[n]` is
    added once. Sums are kept in f32. Shapes: lhs [M, K], codes [K, N], scales, zeros and offsets [ceil(K / group_size), N], perm and g_idx [K],
    bias [N], init [M, N]; the last group may be short.

    With `layout`, codes are packed (`gptq.packed`): [panels, blocks, words], every group starting a block; and scales, zeros and offsets come in the same panels:
    [panels, groups, blockN]. `bytes` and `units` are `lhs` once more, as `gptq.stage_split` makes it: a target that multiplies bytes reads
    those instead. So are `source` and `norm`: `lhs` is `gptq.rms_norm` of them with `epsilon`, and a kernel whose plan says
    `path = normalize` computes it itself and leaves `lhs` unread.

    An epilogue is an activation of the sums (`gptq.activation`). Those that end in `_mul`: the columns are pairs of runs of h = blockN / 2
    (packed; N / 2 otherwise), gate then up; the result, N / 2 columns, is the activation of gate times up.

    With `runs` [E + 1, 2] the weight is one of E experts': codes, scales, zeros, perm, g_idx and bias have one more dimension in front, lhs is
    [M, S, K] and init [M, S, N], and the M S rows, taken as one matrix, are sorted by expert (`gptq.group_rows`): rows runs[r, 1] …
    runs[r + 1, 1] − 1 are multiplied by the weight of expert runs[r, 0]. A run has at most M rows. Tiling to a run leaves an ordinary product
    with the weight of its expert, so nothing after it knows of experts.

    ```mlir
    %r = gptq.dequant_matmul ins(%x, %q, %s : tensor<?x64xf32>, tensor<64x32xi4>, tensor<2x32xf16>)
        outs(%y : tensor<?x32xf32>) {bits = 4, group_size = 32, zero_point = 8} -> tensor<?x32xf32>
    ```
  }];
  let arguments = (ins GPTQ_Rows:$lhs, GPTQ_Shaped<[AnyInteger], [2, 3, 4]>:$codes, GPTQ_Shaped<[GPTQ_Float], [2, 3, 4]>:$scales,
                       Optional<GPTQ_Shaped<[AnyInteger], [2, 3, 4]>>:$zeros, Optional<GPTQ_Shaped<[GPTQ_Float], [2, 3, 4]>>:$offsets,
                       Optional<GPTQ_Shaped<[I32], [1, 2]>>:$g_idx,
                       Optional<GPTQ_Shaped<[I32], [1, 2]>>:$perm, Optional<GPTQ_Shaped<[GPTQ_Float], [1, 2]>>:$bias,
                       Optional<GPTQ_Bytes>:$bytes, Optional<GPTQ_Units>:$units, Optional<GPTQ_Matrix>:$source,
                       Optional<GPTQ_Vector>:$norm, Optional<GPTQ_Numbers>:$runs, Variadic<GPTQ_Rows>:$inits,
                       ConfinedAttr<I64Attr, [IntMinValue<1>, IntMaxValue<8>]>:$bits,
                       ConfinedAttr<I64Attr, [IntPositive]>:$group_size,
                       DefaultValuedAttr<I64Attr, "0">:$zero_offset, OptionalAttr<I64Attr>:$zero_point,
                       OptionalAttr<GPTQ_LayoutAttr>:$layout,
                       DefaultValuedAttr<GPTQ_EpilogueAttr, "::mlir::gptq::Epilogue::None">:$epilogue, UnitAttr:$accumulate,
                       OptionalAttr<F64Attr>:$epsilon);
  let assemblyFormat = [{
    `ins` `(` $lhs `,` $codes `,` $scales (`zeros` $zeros^)? (`offsets` $offsets^)? (`g_idx` $g_idx^)? (`perm` $perm^)? (`bias` $bias^)?
      (`split` $bytes^ `,` $units)? (`norm_of` $source^ `,` $norm)? (`runs` $runs^)? `:` type($lhs) `,` type($codes) `,` type($scales)
      (`zeros` type($zeros)^)? (`offsets` type($offsets)^)? (`g_idx` type($g_idx)^)? (`perm` type($perm)^)? (`bias` type($bias)^)?
      (`split` type($bytes)^ `,` type($units))? (`norm_of` type($source)^ `,` type($norm))? (`runs` type($runs)^)? `)`
    `outs` `(` $inits `:` type($inits) `)` attr-dict (`->` type($results)^)?
  }];
  let extraClassDeclaration = modelOpDeclaration # [{
    /// Rows of the weight (K) and its columns before the epilogue (N).
    int64_t getK();
    int64_t getN();
    int64_t getNumGroups() { return (getK() + getGroupSize() - 1) / getGroupSize(); }
  }];
}

def GPTQ_DequantizeOp : GPTQ_Op<"dequantize", [Pure]> {
  let summary = "The floating-point weight that quantized codes stand for";
  let description = [{
    w[k, n] = scales[g, n] * (codes[k, n] - zeros[g, n]) with g = k / group_size, or `zero_point` where `zeros` is absent; [K, N] as in
    `gptq.dequant_matmul`. For inspection and tests: no pipeline makes it, and nothing lowers it for a whole weight.
  }];
  let arguments = (ins 2DTensorOf<[AnyInteger]>:$codes, 2DTensorOf<[GPTQ_Float]>:$scales,
                       Optional<2DTensorOf<[AnyInteger]>>:$zeros, ConfinedAttr<I64Attr, [IntPositive]>:$group_size,
                       OptionalAttr<I64Attr>:$zero_point);
  let results = (outs 2DTensorOf<[GPTQ_Float]>:$result);
  let assemblyFormat = [{
    $codes `,` $scales (`zeros` $zeros^)? attr-dict `:` type($codes) `,` type($scales) (`zeros` type($zeros)^)? `->` type($result)
  }];
  let hasVerifier = 1;
}

def GPTQ_MatmulOp : GPTQ_ModelOp<"matmul", [AttrSizedOperandSegments]> {
  let summary = "Multiplies activations by a dense weight, as linear layers store it";
  let description = [{
    init[m, n] = sum over k of lhs[m, k] * weight[n, k], plus `bias[n]`; lhs [M, K], weight [N, K], init [M, N]. Sums are kept in f32. With
    `layout` the weight is packed: [panels, blocks, elements of a block]. With `accumulate` the product is added to `init`. `source`,
    `norm` and `epsilon` are as in `gptq.dequant_matmul`. With `runs` the weight [E, N, K] is one of several experts', as there.
  }];
  let arguments = (ins GPTQ_Rows:$lhs, GPTQ_Shaped<[GPTQ_Float], [2, 3, 4]>:$weight, Optional<GPTQ_Shaped<[GPTQ_Float], [1, 2]>>:$bias,
                       Optional<GPTQ_Matrix>:$source, Optional<GPTQ_Vector>:$norm, Optional<GPTQ_Numbers>:$runs,
                       Variadic<GPTQ_Rows>:$inits, OptionalAttr<GPTQ_LayoutAttr>:$layout,
                       DefaultValuedAttr<GPTQ_EpilogueAttr, "::mlir::gptq::Epilogue::None">:$epilogue, UnitAttr:$accumulate,
                       OptionalAttr<F64Attr>:$epsilon);
  let assemblyFormat = [{
    `ins` `(` $lhs `,` $weight (`bias` $bias^)? (`norm_of` $source^ `,` $norm)? (`runs` $runs^)? `:` type($lhs) `,` type($weight)
      (`bias` type($bias)^)? (`norm_of` type($source)^ `,` type($norm))? (`runs` type($runs)^)? `)`
    `outs` `(` $inits `:` type($inits) `)` attr-dict (`->` type($results)^)?
  }];
  let extraClassDeclaration = modelOpDeclaration # [{
    int64_t getK();
    int64_t getN();
  }];
}

def GPTQ_EmbeddingOp : GPTQ_ModelOp<"embedding", [AttrSizedOperandSegments]> {
  let summary = "Looks up the rows of a table";
  let description = [{
    init[m, :] = scale * table[tokens[m], :], plus positions[position + m, :] where there is such a table; tokens i32 [M], table [V, H],
    positions [context, H], init [M, H]. With `layout` the table is packed as the weight of a `gptq.matmul` (tied embeddings). Token ids
    are checked by the caller.

    ```mlir
    %x = gptq.embedding ins(%tokens, %table positions %places at %p : tensor<?xi32>, tensor<128x64xf16> positions tensor<256x64xf16>)
        outs(%e : tensor<?x64xf32>) -> tensor<?x64xf32>
    ```
  }];
  let arguments = (ins GPTQ_Shaped<[I32], [1]>:$tokens, GPTQ_Shaped<[GPTQ_Float], [2, 3]>:$table, Optional<GPTQ_Matrix>:$positions,
                       Optional<Index>:$position, Variadic<GPTQ_Matrix>:$inits, OptionalAttr<GPTQ_LayoutAttr>:$layout,
                       DefaultValuedAttr<F64Attr, "1.0">:$scale);
  let assemblyFormat = [{
    `ins` `(` $tokens `,` $table (`positions` $positions^ `at` $position)? `:` type($tokens) `,` type($table) (`positions` type($positions)^)? `)`
    `outs` `(` $inits `:` type($inits) `)` attr-dict (`->` type($results)^)?
  }];
}

def GPTQ_RMSNormOp : GPTQ_ModelOp<"rms_norm"> {
  let summary = "Root-mean-square normalization of rows";
  let description = [{
    init[m, h] = input[m, h] * weight[h] / sqrt(mean over h of input[m, h]^2 + epsilon); input and init [M, H], weight [H].
  }];
  let arguments = (ins GPTQ_Matrix:$input, GPTQ_Vector:$weight, Variadic<GPTQ_Matrix>:$inits, F64Attr:$epsilon);
  let assemblyFormat = [{
    `ins` `(` $input `,` $weight `:` type($input) `,` type($weight) `)`
    `outs` `(` $inits `:` type($inits) `)` attr-dict (`->` type($results)^)?
  }];
}

def GPTQ_LayerNormOp : GPTQ_ModelOp<"layer_norm", [AttrSizedOperandSegments]> {
  let summary = "Normalization of rows to mean 0 and variance 1";
  let description = [{
    init[m, h] = (input[m, h] - a) * weight[h] / sqrt(v + epsilon) + bias[h] with a the mean and v the mean square deviation from it of
    row m; input and init [M, H], weight and bias [H].
  }];
  let arguments = (ins GPTQ_Matrix:$input, GPTQ_Vector:$weight, Optional<GPTQ_Vector>:$bias, Variadic<GPTQ_Matrix>:$inits, F64Attr:$epsilon);
  let assemblyFormat = [{
    `ins` `(` $input `,` $weight (`bias` $bias^)? `:` type($input) `,` type($weight) (`bias` type($bias)^)? `)`
    `outs` `(` $inits `:` type($inits) `)` attr-dict (`->` type($results)^)?
  }];
}

def GPTQ_AddOp : GPTQ_ModelOp<"add"> {
  let summary = "Adds two activations of the same shape";
  let arguments = (ins GPTQ_Matrix:$lhs, GPTQ_Matrix:$rhs, Variadic<GPTQ_Matrix>:$inits);
  let assemblyFormat = [{
    `ins` `(` $lhs `,` $rhs `:` type($lhs) `,` type($rhs) `)` `outs` `(` $inits `:` type($inits) `)` attr-dict (`->` type($results)^)?
  }];
}

def GPTQ_AddRMSNormOp : GPTQ_ModelOp<"add_rms_norm"> {
  let summary = "Adds a residual and normalizes the sum";
  let description = "First result: lhs + rhs. Second: `gptq.rms_norm` of it. All [M, H], weight [H].";
  let arguments = (ins GPTQ_Matrix:$lhs, GPTQ_Matrix:$rhs, GPTQ_Vector:$weight, Variadic<GPTQ_Matrix>:$inits, F64Attr:$epsilon);
  let assemblyFormat = [{
    `ins` `(` $lhs `,` $rhs `,` $weight `:` type($lhs) `,` type($rhs) `,` type($weight) `)`
    `outs` `(` $inits `:` type($inits) `)` attr-dict (`->` type($results)^)?
  }];
}

def GPTQ_ActivationOp : GPTQ_ModelOp<"activation", [AttrSizedOperandSegments]> {
  let summary = "The activation of an MLP, and its gate where it has one";
  let description = [{
    init = f(input), or f(input) * up with `up`; all [M, I] or [M, S, I].

    | `function` | f(v) |
    | --- | --- |
    | `silu` | v / (1 + exp(-v)) |
    | `gelu` | v (1 + erf(v / √2)) / 2 |
    | `gelu_tanh` | v (1 + tanh(√(2/π) (v + 0.044715 v³))) / 2 |
    | `relu` | max(v, 0) |

    ```mlir
    %y = gptq.activation ins(%gate times %up : tensor<?x96xf32> times tensor<?x96xf32>)
        outs(%e : tensor<?x96xf32>) {function = #gptq.function<silu>} -> tensor<?x96xf32>
    ```
  }];
  let arguments = (ins GPTQ_Rows:$input, Optional<GPTQ_Rows>:$up, Variadic<GPTQ_Rows>:$inits, GPTQ_ActivationAttr:$function);
  let assemblyFormat = [{
    `ins` `(` $input (`times` $up^)? `:` type($input) (`times` type($up)^)? `)` `outs` `(` $inits `:` type($inits) `)` attr-dict
    (`->` type($results)^)?
  }];
}

def GPTQ_SoftcapOp : GPTQ_ModelOp<"softcap"> {
  let summary = "Bends numbers so that they stay inside a range";
  let description = "init = cap * tanh(input / cap); both [M, N].";
  let arguments = (ins GPTQ_Matrix:$input, Variadic<GPTQ_Matrix>:$inits, F64Attr:$cap);
  let assemblyFormat = "`ins` `(` $input `:` type($input) `)` `outs` `(` $inits `:` type($inits) `)` attr-dict (`->` type($results)^)?";
}

def GPTQ_StageOp : GPTQ_ModelOp<"stage", [AttrSizedOperandSegments]> {
  let summary = "Copies activations, reordering their columns";
  let description = [{
    init[m, k] = input[m, perm[k]], or input[m, k] without `perm`; input and init [M, K], perm i32 [K]. With `runs` input and init are [M, S, K], and
    `perm` [E, K] has an order for each expert, as in `gptq.dequant_matmul`.
  }];
  let arguments = (ins GPTQ_Rows:$input, Optional<GPTQ_Shaped<[I32], [1, 2]>>:$perm, Optional<GPTQ_Numbers>:$runs, Variadic<GPTQ_Rows>:$inits);
  let assemblyFormat = [{
    `ins` `(` $input (`perm` $perm^)? (`runs` $runs^)? `:` type($input) (`perm` type($perm)^)? (`runs` type($runs)^)? `)`
    `outs` `(` $inits `:` type($inits) `)` attr-dict (`->` type($results)^)?
  }];
}

def GPTQ_StageSplitOp : GPTQ_ModelOp<"stage_split", [AttrSizedOperandSegments]> {
  let summary = "Copies activations as integers of three bytes, a unit for each group";
  let description = [{
    With g = k / group_size, v[m, k] = input[m, perm[k]] (or input[m, k] without `perm`) and a the largest |v[m, k]| of group g,

        units[m, g] = a / 8323072,   b0 + 256 b1 + 65536 b2 = v[m, k] / units[m, g], rounded to the nearest integer

    and bytes[m, i P + k] = b_i, each in −128 … 127; P, a third of the columns of `bytes`, is at least K. So a group is as exact
    as its largest element is in f32, and its sums of products with small codes are sums of integers, which round nothing. (8323072 =
    127 · 65536 is the largest multiple whose b2 fits.) A group with an infinity or a NaN has such a unit. Bytes beyond K stay as
    they are.
  }];
  let arguments = (ins GPTQ_Matrix:$input, Optional<GPTQ_Shaped<[I32], [1]>>:$perm, Variadic<AnyTypeOf<[GPTQ_Bytes, GPTQ_Units]>>:$inits,
                       ConfinedAttr<I64Attr, [IntPositive]>:$group_size);
  let assemblyFormat = [{
    `ins` `(` $input (`perm` $perm^)? `:` type($input) (`perm` type($perm)^)? `)`
    `outs` `(` $inits `:` type($inits) `)` attr-dict (`->` type($results)^)?
  }];
}

def GPTQ_RotaryAppendOp : GPTQ_ModelOp<"rotary_append", [AttrSizedOperandSegments]> {
  let summary = "Rotates queries and keys, and appends keys and values to their caches";
  let description = [{
    For row m at position p = position + m and every head of D = head_dim elements: with `q_norm` / `k_norm` [D] the head of q / k is first
    normalized (`gptq.rms_norm` over D, `epsilon`); then of its first R <= D elements the pair (i, R/2 + i) is rotated by the angle whose
    cosine and sine are `table[p, i]` and `table[p, R/2 + i]`; without a table nothing is. Queries go to `init` [M, heads*D]; keys to
    keys[h, p, :] and values to values[h, p, :], h < kv_heads. q [M, heads*D], k and v [M, kv_heads*D], table f32 [context, R], keys
    and values [kv_heads, context, D].
  }];
  let arguments = (ins GPTQ_Matrix:$q, GPTQ_Matrix:$k, GPTQ_Matrix:$v, Optional<GPTQ_Matrix>:$table, Optional<GPTQ_Vector>:$q_norm,
                       Optional<GPTQ_Vector>:$k_norm, Index:$position, GPTQ_State:$keys, GPTQ_State:$values,
                       Variadic<GPTQ_Matrix>:$inits, ConfinedAttr<I64Attr, [IntPositive]>:$heads,
                       ConfinedAttr<I64Attr, [IntPositive]>:$kv_heads, ConfinedAttr<I64Attr, [IntPositive]>:$head_dim,
                       DefaultValuedAttr<F64Attr, "0.0">:$epsilon);
  let assemblyFormat = [{
    `ins` `(` $q `,` $k `,` $v (`,` $table^)? (`q_norm` $q_norm^)? (`k_norm` $k_norm^)? `at` $position `:`
      type($q) `,` type($k) `,` type($v) (`,` type($table)^)? (`q_norm` type($q_norm)^)? (`k_norm` type($k_norm)^)? `)`
    `state` `(` $keys `,` $values `:` type($keys) `,` type($values) `)`
    `outs` `(` $inits `:` type($inits) `)` attr-dict (`->` type($results)^)?
  }];
}

def GPTQ_AttentionOp : GPTQ_ModelOp<"attention", [AttrSizedOperandSegments]> {
  let summary = "Causal attention over the caches";
  let description = [{
    For row m at position p = position + m and head h, with g = h / (heads / kv_heads) and t over 0 … p (with `window` w > 0 over
    max(0, p − w + 1) … p): init[m, h*D + d] = sum_t a_t * values[g, t, d], a = softmax_t(s_t), s_t = scale * sum_d q[m, h*D + d] * keys[g, t, d].
    With `softcap` c > 0 it is c * tanh(s_t / c) instead of s_t.
    q and init [M, heads*D]; keys and values [kv_heads, context, D].

    With `k`, `v` and `table` (one row only) it is the `gptq.rotary_append` in front as well, which `q_norm`, `k_norm` and `epsilon` belong to: q and k
    are not rotated yet, and key and value of position p are appended to the caches.

    With `parts` n > 1 (one row only) the positions are dealt out to n parts, in which order is the lowering's choice; every part has
    exponentials relative to the highest score s of its own, and leaves their sum and that of the values they weigh, not
    divided by it, for `gptq.join_attention`. The inits are then sums f32 [n, heads*D] and stats f32 [n, 2*heads], the pairs (s, sum of
    exponentials); a part without positions leaves zeros and (−∞, 0). `part` is the number of the first row of the inits.
  }];
  let arguments = (ins GPTQ_Matrix:$q, Optional<GPTQ_Matrix>:$k, Optional<GPTQ_Matrix>:$v, Optional<GPTQ_Matrix>:$table,
                       Optional<GPTQ_Vector>:$q_norm, Optional<GPTQ_Vector>:$k_norm, Index:$position, Optional<Index>:$part,
                       GPTQ_State:$keys, GPTQ_State:$values, Variadic<GPTQ_Matrix>:$inits,
                       ConfinedAttr<I64Attr, [IntPositive]>:$heads, ConfinedAttr<I64Attr, [IntPositive]>:$kv_heads,
                       ConfinedAttr<I64Attr, [IntPositive]>:$head_dim, F64Attr:$scale,
                       DefaultValuedAttr<I64Attr, "0">:$window, DefaultValuedAttr<F64Attr, "0.0">:$softcap,
                       DefaultValuedAttr<F64Attr, "0.0">:$epsilon,
                       DefaultValuedAttr<ConfinedAttr<I64Attr, [IntPositive]>, "1">:$parts);
  let assemblyFormat = [{
    `ins` `(` $q (`rotary` $k^ `,` $v `,` $table)? (`q_norm` $q_norm^)? (`k_norm` $k_norm^)? `at` $position (`part` $part^)? `:`
      type($q) (`rotary` type($k)^ `,` type($v) `,` type($table))? (`q_norm` type($q_norm)^)? (`k_norm` type($k_norm)^)? `)`
    `state` `(` $keys `,` $values `:` type($keys) `,` type($values) `)`
    `outs` `(` $inits `:` type($inits) `)` attr-dict (`->` type($results)^)?
  }];
  let extraClassDeclaration = modelOpDeclaration # [{
    /// Query heads that read one head of the caches.
    int64_t getQueries() { return getHeads() / getKvHeads(); }
  }];
}

def GPTQ_JoinAttentionOp : GPTQ_ModelOp<"join_attention"> {
  let summary = "The attention of one row from its parts";
  let description = [{
    With (s_i, e_i) = stats[i, 2h], stats[i, 2h + 1] as `gptq.attention` leaves them for part i, and w_i = exp(s_i − max s):
    init[0, h*D + d] = sum_i w_i * sums[i, h*D + d] / sum_i w_i * e_i, added up in the order of the parts. sums [parts, heads*D], stats
    [parts, 2*heads], init [1, heads*D].
  }];
  let arguments = (ins GPTQ_Matrix:$sums, GPTQ_Matrix:$stats, Variadic<GPTQ_Matrix>:$inits,
                       ConfinedAttr<I64Attr, [IntPositive]>:$heads, ConfinedAttr<I64Attr, [IntPositive]>:$head_dim);
  let assemblyFormat = [{
    `ins` `(` $sums `,` $stats `:` type($sums) `,` type($stats) `)`
    `outs` `(` $inits `:` type($inits) `)` attr-dict (`->` type($results)^)?
  }];
}

def GPTQ_ArgmaxOp : GPTQ_ModelOp<"argmax"> {
  let summary = "The largest elements of the parts of a row";
  let description = [{
    Row i of the inits, values f32 [parts, 1] and indices i32 [parts, 1], is the largest of input[0, c] over the columns c of part i, `columns` of
    them from (part + i) * columns on, and the lowest such c; −∞ and 2^31 − 1 where there are none but NaNs. input [1, N].
  }];
  let arguments = (ins GPTQ_Matrix:$input, Index:$part, Variadic<GPTQ_Shaped<[F32, I32], [2]>>:$inits,
                       ConfinedAttr<I64Attr, [IntPositive]>:$columns);
  let assemblyFormat = [{
    `ins` `(` $input `part` $part `:` type($input) `)` `outs` `(` $inits `:` type($inits) `)` attr-dict (`->` type($results)^)?
  }];
}

def GPTQ_ChooseTokenOp : GPTQ_ModelOp<"choose_token"> {
  let summary = "The most likely token, where the next call finds it";
  let description = [{
    The index that goes with the largest of values [parts, 1], the lowest among equals and 0 if all are NaNs, is written to both inits, i32 [1]:
    the result of an entry, and its input, which a device reads when it repeats the entry. The kernel also adds 1 to P.
  }];
  let arguments = (ins GPTQ_Matrix:$values, GPTQ_Shaped<[I32], [2]>:$indices, Variadic<GPTQ_Shaped<[I32], [1]>>:$inits);
  let assemblyFormat = [{
    `ins` `(` $values `,` $indices `:` type($values) `,` type($indices) `)`
    `outs` `(` $inits `:` type($inits) `)` attr-dict (`->` type($results)^)?
  }];
}

def GPTQ_TopKOp : GPTQ_ModelOp<"top_k", [AttrSizedOperandSegments]> {
  let summary = "The k largest elements of the parts of a row";
  let description = [{
    Row i of the inits, values f32 [parts, k] and indices i32 [parts, k], are the k largest of input[0, c] over the columns c of part i, `columns` of
    them from (part + i) * columns on: the largest first, of equal ones the lowest c. NaNs are left out; where fewer than k columns are left, −∞ and
    2^31 − 1 follow. input [1, N]; k is a power of two. With `indices` both are [P, k] as another `gptq.top_k` leaves them, taken as a row of P k
    columns, of which a part has a multiple of k: indices[0, c] is then what stands for c.

    ```mlir
    %r:2 = gptq.top_k ins(%logits part %c0 : tensor<1x5000xf32>) outs(%v, %i : tensor<2x64xf32>, tensor<2x64xi32>) {columns = 2500}
        -> tensor<2x64xf32>, tensor<2x64xi32>
    ```
  }];
  let arguments = (ins GPTQ_Matrix:$input, Optional<GPTQ_Shaped<[I32], [2]>>:$indices, Index:$part,
                       Variadic<GPTQ_Shaped<[F32, I32], [2]>>:$inits, ConfinedAttr<I64Attr, [IntPositive]>:$columns);
  let assemblyFormat = [{
    `ins` `(` $input (`indices` $indices^)? `part` $part `:` type($input) (`indices` type($indices)^)? `)`
    `outs` `(` $inits `:` type($inits) `)` attr-dict (`->` type($results)^)?
  }];
}

def GPTQ_SampleTokenOp : GPTQ_ModelOp<"sample_token"> {
  let summary = "A token drawn from the likeliest, where the next call finds it";
  let description = [{
    Of the values [parts, K], as `gptq.top_k` leaves them, the k largest v_0 ≥ v_1 ≥ … are candidates, the lower index first among equals. A
    candidate weighs w_i = 2^32 · exp((v_i − v_0) / temperature), rounded to an integer; kept are those before which the sum of weights does not
    reach top_p of the sum of all. With W the sum of what is kept and u the random 64 bits of `position` + 1, the index that goes with the first
    candidate whose weight, added to all in front, exceeds ⌊u W / 2^64⌋ is written to both inits, i32 [1], as by `gptq.choose_token`; 0 if all
    values are NaNs. The kernel also adds 1 to P.

    `sampling` [6] holds k, 1 to K; top_p as the bits of an f32; the halves of log2(e) / temperature as an f64; and those of the seed.
    `runtime/abi/Sampling.h` has the arithmetic bit by bit: sampling on the host gives the same token.

    ```mlir
    %r:2 = gptq.sample_token ins(%v, %i, %sampling at %p : tensor<2x64xf32>, tensor<2x64xi32>, tensor<6xi32>)
        outs(%token, %input : tensor<1xi32>, tensor<1xi32>) -> tensor<1xi32>, tensor<1xi32>
    ```
  }];
  let arguments = (ins GPTQ_Matrix:$values, GPTQ_Shaped<[I32], [2]>:$indices, GPTQ_Shaped<[I32], [1]>:$sampling, Index:$position,
                       Variadic<GPTQ_Shaped<[I32], [1]>>:$inits);
  let assemblyFormat = [{
    `ins` `(` $values `,` $indices `,` $sampling `at` $position `:` type($values) `,` type($indices) `,` type($sampling) `)`
    `outs` `(` $inits `:` type($inits) `)` attr-dict (`->` type($results)^)?
  }];
}

//===----------------------------------------------------------------------===//
// Experts
//===----------------------------------------------------------------------===//

def GPTQ_RouteOp : GPTQ_ModelOp<"route"> {
  let summary = "Chooses the experts of each row, and their weights";
  let description = [{
    With p = softmax(logits[m, :]): experts[m, s] is the number of the s-th largest p, the lower number first where two are equal, and
    weights[m, s] is that p; with `normalize` divided by the sum of the S chosen ones. logits [M, E]; the destinations are experts, i32 [M, S],
    and weights, f32 [M, S]. A NaN among the logits counts as −infinity in the choice, so the experts of a row are always different.

    ```mlir
    %r:2 = gptq.route ins(%logits : tensor<?x8xf32>) outs(%e, %w : tensor<?x2xi32>, tensor<?x2xf32>) {normalize} -> tensor<?x2xi32>, tensor<?x2xf32>
    ```
  }];
  let arguments = (ins GPTQ_Matrix:$logits, Variadic<AnyTypeOf<[GPTQ_Numbers, GPTQ_Matrix]>>:$inits, UnitAttr:$normalize);
  let assemblyFormat = "`ins` `(` $logits `:` type($logits) `)` `outs` `(` $inits `:` type($inits) `)` attr-dict (`->` type($results)^)?";
}

def GPTQ_GroupRowsOp : GPTQ_ModelOp<"group_rows"> {
  let summary = "Sorts the slots of all rows by expert";
  let description = [{
    The M S slots of `experts` [M, S], slot s of row m being number m S + s, are sorted stably by expert: order[p / S, p % S] is the number of the
    slot that comes p-th, positions[m, s] the p of a slot, so each is the other's inverse. runs[r, :] is the expert and the first p of the r-th run
    of slots of one expert; runs without slots follow, with expert 0 and p = M S. Destinations: positions and order, i32 [M, S], and runs,
    i32 [E + 1, 2]. Experts below 0 or from E on are not allowed.
  }];
  let arguments = (ins GPTQ_Numbers:$experts, Variadic<GPTQ_Numbers>:$inits);
  let assemblyFormat = "`ins` `(` $experts `:` type($experts) `)` `outs` `(` $inits `:` type($inits) `)` attr-dict (`->` type($results)^)?";
}

def GPTQ_GatherRowsOp : GPTQ_ModelOp<"gather_rows"> {
  let summary = "Copies rows in the order of their experts";
  let description = [{
    Row p of init, taken as a matrix of M S rows, is row order[p / S, p % S] / S of input: input [M, H], order i32 [M, S], init [M, S, H].
  }];
  let arguments = (ins GPTQ_Matrix:$input, GPTQ_Numbers:$order, Variadic<GPTQ_Rows>:$inits);
  let assemblyFormat = [{
    `ins` `(` $input `,` $order `:` type($input) `,` type($order) `)`
    `outs` `(` $inits `:` type($inits) `)` attr-dict (`->` type($results)^)?
  }];
}

def GPTQ_CombineRowsOp : GPTQ_ModelOp<"combine_rows", [AttrSizedOperandSegments]> {
  let summary = "Adds up what the experts of a row made of it";
  let description = [{
    init[m, h] = sum over s of weights[m, s] * input[positions[m, s], h], s ascending, `input` [M, S, H] taken as a matrix of M S rows; with `shared`
    [M, H] and `gate` [M, 1] plus shared[m, h] / (1 + exp(−gate[m, 0])), an expert of all rows. positions i32 [M, S], weights f32 [M, S], init [M, H].
  }];
  let arguments = (ins GPTQ_Rows:$input, GPTQ_Numbers:$positions, GPTQ_Matrix:$weights, Optional<GPTQ_Matrix>:$shared,
                       Optional<GPTQ_Matrix>:$gate, Variadic<GPTQ_Matrix>:$inits);
  let assemblyFormat = [{
    `ins` `(` $input `,` $positions `,` $weights (`shared` $shared^ `,` $gate)? `:` type($input) `,` type($positions) `,` type($weights)
      (`shared` type($shared)^ `,` type($gate))? `)`
    `outs` `(` $inits `:` type($inits) `)` attr-dict (`->` type($results)^)?
  }];
}

//===----------------------------------------------------------------------===//
// The program
//===----------------------------------------------------------------------===//

def GPTQ_DispatchOp : GPTQ_Op<"dispatch", [
    DestinationStyleOpInterface, AttrSizedOperandSegments, DeclareOpInterfaceMethods<SymbolUserOpInterface>,
    DeclareOpInterfaceMethods<MemoryEffectsOpInterface>]> {
  let summary = "Runs a kernel over a grid of workgroups";
  let description = [{
    Runs the first of `kernels` whose `m_max` is at least M, the number of rows of this call; nothing where M is below `m_min`. Every kernel takes one memref per input, then one per
    init, then M and the position, all of the static parts of their shapes known to it. Kernels live in the nested
    module `@kernels`, and say on themselves how many workgroups they want (`gptq.grid`).

    ```mlir
    %y = gptq.dispatch "layers.0.mlp.down_proj" [@kernels::@k4_m1, @kernels::@k4_m256] up_to [1, 256] rows %m at %p
        ins(%x, %w, %s : tensor<?x64xf32>, tensor<2x8x32xi32>, tensor<2x2x32xf16>) outs(%e : tensor<?x64xf32>) -> tensor<?x64xf32>
    ```
  }];
  let arguments = (ins Variadic<AnyType>:$inputs, Variadic<AnyRankedTensor>:$inits, Index:$rows, Index:$position,
                       SymbolRefArrayAttr:$kernels, DenseI64ArrayAttr:$m_max, StrAttr:$label,
                       DefaultValuedAttr<I64Attr, "1">:$m_min);
  let results = (outs Variadic<AnyRankedTensor>:$results);
  let assemblyFormat = [{
    $label $kernels `up_to` $m_max `rows` $rows `at` $position `ins` `(` ($inputs^ `:` type($inputs))? `)`
    `outs` `(` ($inits^ `:` type($inits))? `)` attr-dict (`->` type($results)^)?
  }];
  let extraClassDeclaration = [{
    ::mlir::MutableOperandRange getDpsInitsMutable() { return getInitsMutable(); }
  }];
}

//===----------------------------------------------------------------------===//
// Kernels
//===----------------------------------------------------------------------===//

def GPTQ_GroupDotOp : GPTQ_Op<"group_dot", [
    AttrSizedOperandSegments, AllTypesMatch<["acc", "result"]>, MemoryEffects<[MemRead]>]> {
  let summary = "Multiplies a register tile of activations by one group of packed weights";
  let description = [{
    With R × N the shape of `acc`:

        result[r, n] = acc[r, n] + sum over k < depth of x[row + r, perm[k0 + k]] * (scale[n] * (w[panel, block, k, c(n)] - zero[n]) + offset[n])

    The N columns come in runs of equal length that start at `columns`: with c of them, c(n) = columns[n / (N / c)] + n % (N / c).
    `w` is packed by `layout`, panel by panel; row k = 0 is the first of block `block`, and rows go on in the blocks after it; those of the
    last block beyond `depth` are zero. Without `perm` column k0 + k of x is read; without `zero`, `scale` and `offset` the codes themselves are
    multiplied (for a layout of floating-point elements always). `bytes` hold the same activations split in three (`gptq.stage_split`),
    `unit` [R] is theirs for this group: a lowering may multiply those.

    Where the plan's `lanes` threads hold a tile together, they all execute the op with the same `row`, `k0`, `panel` and `block`, and R and N
    count a thread's own rows and columns: which ones, the unit says (`Target`); `columns` is then [0]. Its lowering is the target's inner loop.
  }];
  let arguments = (ins MemRefRankOf<[GPTQ_Float], [2]>:$x, Index:$row, Index:$k0,
                       MemRefRankOf<[I32, F16, BF16, F32], [3]>:$w, Index:$panel, Index:$block, DenseI64ArrayAttr:$columns,
                       VectorOfRankAndType<[2], [F32]>:$acc, Optional<MemRefRankOf<[I32], [1]>>:$perm,
                       Optional<MemRefRankOf<[I8], [2]>>:$bytes, Optional<VectorOfRankAndType<[1], [F32]>>:$unit,
                       Optional<VectorOfRankAndType<[1], [F32]>>:$scale,
                       Optional<VectorOfRankAndType<[1], [F32]>>:$zero, Optional<VectorOfRankAndType<[1], [F32]>>:$offset,
                       ConfinedAttr<I64Attr, [IntPositive]>:$depth, GPTQ_LayoutAttr:$layout, GPTQ_PlanAttr:$plan);
  let results = (outs VectorOfRankAndType<[2], [F32]>:$result);
  let assemblyFormat = [{
    $x `[` $row `,` $k0 `]` (`perm` $perm^)? (`split` $bytes^ `by` $unit)? `,` $w `[` $panel `,` $block `]` `acc` $acc
    (`scale` $scale^)? (`zero` $zero^)? (`offset` $offset^)? attr-dict `:` type($x) (`perm` type($perm)^)? (`split` type($bytes)^ `by` type($unit))? `,`
    type($w) `,` type($acc) (`scale` type($scale)^)? (`zero` type($zero)^)? (`offset` type($offset)^)?
  }];
  let hasVerifier = 1;
}

def GPTQ_GroupSumOp : GPTQ_Op<"group_sum", [MemoryEffects<[MemRead]>]> {
  let summary = "Sums the activations of one group";
  let description = [{
    result[r] = sum over k < depth of x[row + r, perm[k0 + k]] (column k0 + k without `perm`): the S_g of zero-point folding. Rows are
    those of the `gptq.group_dot` it corrects.
  }];
  let arguments = (ins MemRefRankOf<[GPTQ_Float], [2]>:$x, Index:$row, Index:$k0, Optional<MemRefRankOf<[I32], [1]>>:$perm,
                       ConfinedAttr<I64Attr, [IntPositive]>:$depth, GPTQ_PlanAttr:$plan);
  let results = (outs VectorOfRankAndType<[1], [F32]>:$result);
  let assemblyFormat = [{
    $x `[` $row `,` $k0 `]` (`perm` $perm^)? attr-dict `:` type($x) (`perm` type($perm)^)? `->` type($result)
  }];
}

def GPTQ_FragmentDotOp : GPTQ_Op<"fragment_dot", [Pure, AllTypesMatch<["acc", "result"]>]> {
  let summary = "A warp's product of two small tiles in registers";
  let description = [{
    result = acc + a * b with a [16, 16], b [16, 8] and acc [16, 8], dealt out to the 32 threads of a warp, which all execute it. Thread
    4 g + t holds, with i, e < 2: of acc the elements (row g + 8 i, column 2 t + e) as [i, e]; of a, with j < 2, (row g + 8 i, step k(t, j, e)) as
    [i + 2 j, e]; of b (step k(t, j, e), column g) as [j, e]. The unit asks only that a and b agree on k.
  }];
  let arguments = (ins VectorOfRankAndType<[2], [F16, BF16]>:$a, VectorOfRankAndType<[2], [F16, BF16]>:$b,
                       VectorOfRankAndType<[2], [F32]>:$acc);
  let results = (outs VectorOfRankAndType<[2], [F32]>:$result);
  let assemblyFormat = "$a `,` $b `,` $acc attr-dict `:` type($a) `,` type($b) `,` type($acc)";
  let hasVerifier = 1;
}

#endif // GPTQ_OPS_TD
