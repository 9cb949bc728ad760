//===- GPTQAttrs.td - Weight views, layouts and plans -------*- tablegen -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_ATTRS_TD
#define GPTQ_ATTRS_TD

include "gptq/Dialect/GPTQ/IR/GPTQDialect.td"
include "mlir/IR/AttrTypeBase.td"
include "mlir/IR/EnumAttr.td"

class GPTQ_Attr<string name, string attrMnemonic> : AttrDef<GPTQ_Dialect, name> {
  let mnemonic = attrMnemonic;
}

//===----------------------------------------------------------------------===//
// Views: where the elements of a weight come from
//===----------------------------------------------------------------------===//

def GPTQ_DataAttr : GPTQ_Attr<"Data", "data"> {
  let summary = "A tensor in a checkpoint file, as it lies there";
  let description = [{
    `bytes` bytes at `offset` of `file` (a path relative to the checkpoint folder, or absolute), row-major, little-endian, of
    type `tensor<shape x element>`. As a view it yields those elements unchanged.

    ```mlir
    #gptq.data<"model.safetensors", "lm_head.weight", 1024, tensor<512x64xf16>>
    ```
  }];
  let parameters = (ins "::mlir::StringAttr":$file, "::mlir::StringAttr":$tensor, "int64_t":$offset,
                        "::mlir::RankedTensorType":$type);
  let assemblyFormat = "`<` $file `,` $tensor `,` $offset `,` $type `>`";
  let extraClassDeclaration = [{
    /// Size of the range in bytes.
    int64_t getByteSize() const;
  }];
}

def GPTQ_Packing : I32EnumAttr<"Packing", "which dimension of the data a record runs along", [
    I32EnumAttrCase<"Rows", 0, "rows">, I32EnumAttrCase<"Columns", 1, "columns">]> {
  let cppNamespace = "::mlir::gptq";
  let genSpecializedAttr = 0;
}

def GPTQ_PlaneAttr : GPTQ_Attr<"Plane", "plane"> {
  let summary = "Some bits of each code of a record";
  let description = [{
    `bits` bits of every code of a block, side by side from bit `offset` of the record on, in the order of the codes that `order` gives: it names
    the bits of a code's place from the lowest up, `k<i>` and `n<i>` being bit i of its row and of its column inside the block. So
    "n1 n2 n0" puts columns 0, 2, 4, 6, 1, 3, 5, 7 of a block of eight beside each other. A bit `_` is always 0: "_ k0" leaves every other
    field to something else. A bit that is named again counts at both places: with "k1 k0 _ k1" rows 2 and 3 lie nine fields after rows 0 and 1.

    ```mlir
    #gptq.plane<bits = 4, offset = 0, order = "n1 n2 n0">
    ```
  }];
  let parameters = (ins "int64_t":$bits, "int64_t":$offset, "::mlir::StringAttr":$order);
  let assemblyFormat = "`<` struct($bits, $offset, $order) `>`";
}

def GPTQ_CodesAttr : GPTQ_Attr<"Codes", "codes"> {
  let summary = "Elements unpacked from the words of a file";
  let description = [{
    A view of a matrix of integers or floating-point numbers, `data`, as a weight [K, N] of elements of `bits` bits: unsigned codes of up to 8 bits,
    or numbers of 16 or 32. The weight is cut into blocks; the elements of a block lie in a *record*, a run of `record` elements of `data` that is
    read as one little-endian number. Records lie as blocks do: dimension 0 of `data` runs along K, or along N with `transposed`; and
    the elements of a record are below each other with `packing = rows` (GPTQ's `qweight`), beside each other with `columns` (its `qzeros`).

    Without `planes` a block is a run of `count` elements along the dimension that records run along, element i in bits b·i … b·i + b − 1. By
    default a record is as short as possible without bits to spare: 8 codes of 4 bits in a word, 32 of 3 bits in three; what lies beyond
    the weight's last element may be missing. With `planes` (lowest bits of the element first) their orders say how large a block is
    and where its elements lie; records are whole.

    Before a record is taken apart, `wordAdd` is added to each of its words of 32 bits modulo 2^32: the exact inverse of the published writers
    who subtract one from every field with one subtraction per word. Then `fieldAdd` is added to each code modulo 2^b: 1 for writers that
    subtract one from each field, 2^(b − 1) for codes in two's complement.

    ```mlir
    #gptq.codes<#gptq.data<"m.safetensors", "q.qzeros", 64, tensor<2x8xi32>>, bits = 4, packing = columns, wordAdd = 286331153>
    ```

    | as published | what says so |
    | --- | --- |
    | GPTQ, 3 bits, `qweight` | `bits = 3, packing = rows` |
    | the same in planes | `bits = 3, packing = rows, record = 3, planes = [#gptq.plane<bits = 2, offset = 0, order = "k0 k1 k2 k3 k4">, #gptq.plane<bits = 1, offset = 64, order = "k0 k1 k2 k3 k4">]` |
    | AWQ `gemm` | `bits = 4, packing = columns, record = 1, planes = [#gptq.plane<bits = 4, offset = 0, order = "n1 n2 n0">]` |
    | compressed-tensors | `bits = 4, packing = columns, transposed = true` |
    | the same of 3 bits, ten in a word | `bits = 3, packing = columns, transposed = true, count = 10, record = 1` |
    | a transposed matrix of halves | `bits = 16, packing = columns, transposed = true` |
  }];
  let parameters = (ins "::mlir::gptq::DataAttr":$data, "int64_t":$bits, EnumParameter<GPTQ_Packing>:$packing,
                        DefaultValuedParameter<"bool", "false">:$transposed, DefaultValuedParameter<"int64_t", "0">:$count,
                        DefaultValuedParameter<"int64_t", "0">:$record, DefaultValuedParameter<"int64_t", "0">:$wordAdd,
                        DefaultValuedParameter<"int64_t", "0">:$fieldAdd, OptionalParameter<"::mlir::ArrayAttr">:$planes);
  let assemblyFormat = "`<` $data `,` struct($bits, $packing, $transposed, $count, $record, $wordAdd, $fieldAdd, $planes) `>`";
  let builders = [AttrBuilderWithInferredContext<(ins "::mlir::gptq::DataAttr":$data, "int64_t":$bits, "::mlir::gptq::Packing":$packing,
      CArg<"bool", "false">:$transposed, CArg<"int64_t", "0">:$wordAdd, CArg<"int64_t", "0">:$fieldAdd), [{
    return $_get(data.getContext(), data, bits, packing, transposed, /*count=*/0, /*record=*/0, wordAdd, fieldAdd,
                 ::mlir::ArrayAttr());
  }]>, AttrBuilderWithInferredContext<(ins "::mlir::gptq::DataAttr":$data, "int64_t":$bits, "::mlir::gptq::Packing":$packing,
      "bool":$transposed, "int64_t":$record, "::mlir::ArrayAttr":$planes), [{
    return $_get(data.getContext(), data, bits, packing, transposed, /*count=*/0, record, /*wordAdd=*/0, /*fieldAdd=*/0, planes);
  }]>];
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    /// The defaults of `count` and `record` filled in, and the size of a block.
    struct Blocks {
      int64_t k, n;
      /// Elements of `data`.
      int64_t record;
    };
    Blocks getBlocks() const;
    /// The smallest shape of `data` that holds a weight of `k` rows and `n` columns.
    std::array<int64_t, 2> getDataShape(int64_t k, int64_t n) const;
  }];
}

def GPTQ_ProductAttr : GPTQ_Attr<"Product", "product"> {
  let summary = "Scales that are stored as a product";
  let description = [{
    A view of two weights [G, N] as their product, in f32: element [g, n] is a[g / r, n] * b[g, n], `a` having one row for r = G / rows of them,
    or likewise one column for several; with `isNegated` its negative. Codes are numbers, of a signed type (`si8`) in two's complement.
  }];
  let parameters = (ins "::mlir::FlatSymbolRefAttr":$a, "::mlir::FlatSymbolRefAttr":$b,
                        DefaultValuedParameter<"bool", "false">:$isNegated);
  let assemblyFormat = "`<` $a `,` $b (`,` `isNegated` `=` $isNegated^)? `>`";
}

def GPTQ_DequantizedAttr : GPTQ_Attr<"Dequantized", "dequantized"> {
  let summary = "A table that is stored quantized, as numbers";
  let description = [{
    A view of a table [V, H] in f32: element [v, h] is scales[v, g] * (codes[v, h] - zeroPoint) + offsets[v, g] with g = h / groupSize. For tables
    whose rows are looked up; weights that are multiplied stay codes.
  }];
  let parameters = (ins "::mlir::FlatSymbolRefAttr":$codes, "::mlir::FlatSymbolRefAttr":$scales,
                        OptionalParameter<"::mlir::FlatSymbolRefAttr">:$offsets, "int64_t":$zeroPoint, "int64_t":$groupSize);
  let assemblyFormat = "`<` $codes `,` $scales `,` struct($offsets, $zeroPoint, $groupSize) `>`";
}

def GPTQ_QuotientAttr : GPTQ_Attr<"Quotient", "quotient"> {
  let summary = "Zero points that are stored multiplied by their scales";
  let description = [{
    A view of two weights of one shape as `a` / `b`, or −a / b with `isNegated`; 0 where `b` is 0. As f32; a weight of integers is rounded to the
    nearest, and what does not fit its bits is an error.
  }];
  let parameters = (ins "::mlir::FlatSymbolRefAttr":$a, "::mlir::FlatSymbolRefAttr":$b,
                        DefaultValuedParameter<"bool", "false">:$isNegated);
  let assemblyFormat = "`<` $a `,` $b (`,` `isNegated` `=` $isNegated^)? `>`";
}

def GPTQ_ArgsortAttr : GPTQ_Attr<"Argsort", "argsort"> {
  let summary = "The stable order that sorts a checkpoint's g_idx";
  let description = [{
    A view of `data` (i32 [K], the group of each input row; a negative g means g + `groups`) as the permutation that sorts it,
    stably: element i is the original row that comes i-th when rows are grouped.
  }];
  let parameters = (ins "::mlir::gptq::DataAttr":$data, "int64_t":$groups);
  let assemblyFormat = "`<` $data `,` `groups` `=` $groups `>`";
}

def GPTQ_DeinterleaveAttr : GPTQ_Attr<"Deinterleave", "deinterleave"> {
  let summary = "The order that undoes interleaved halves";
  let description = [{
    A view i32 [N] of no data: an order of N elements that lie in runs of `run`, the two halves of each run having been dealt out in turn. Element
    r = h * run + s * run / 2 + i, with s < 2 and i < run / 2, is h * run + 2 * i + s. For checkpoints that store the pairs of rows that rotary
    positions turn beside each other.
  }];
  let parameters = (ins "int64_t":$run);
  let assemblyFormat = "`<` struct($run) `>`";
  let genVerifyDecl = 1;
}

def GPTQ_ConcatAttr : GPTQ_Attr<"Concat", "concat"> {
  let summary = "Several weights beside each other along a dimension";
  let description = [{
    The elements of `parts` (weight symbols of equal shape but for `dim`) one after another along `dim`. With `interleave` = b > 0
    runs of b taken in turn from each part: b of the first, b of the second, …, again b of the first; parts must then have the same
    size, and a last short run is filled up to b with zeros, so the result has parts * ceil(size / b) * b elements along `dim`.
  }];
  let parameters = (ins "::mlir::ArrayAttr":$parts, "int64_t":$dim, DefaultValuedParameter<"int64_t", "0">:$interleave);
  let assemblyFormat = "`<` $parts `,` struct($dim, $interleave) `>`";
}

def GPTQ_PlusAttr : GPTQ_Attr<"Plus", "plus"> {
  let summary = "A weight and a number";
  let description = "The elements of `source`, a weight of floating-point numbers, each plus `number`, in f32: norms that are stored as w and mean 1 + w.";
  let parameters = (ins "::mlir::FlatSymbolRefAttr":$source, "::mlir::FloatAttr":$number);
  let assemblyFormat = "`<` $source `,` $number `>`";
}

def GPTQ_DealtAttr : GPTQ_Attr<"Dealt", "dealt"> {
  let summary = "The order that gathers what was dealt out in turn";
  let description = [{
    A view i32 [N], N a multiple of `parts * run`: runs of `run` elements belong to the first part, the second, … in turn, and the order has all
    elements of the first part first, then those of the second. With p = i / (N / parts) and j = i % (N / parts), element i is
    (j / run * parts + p) * run + j % run: what undoes `#gptq.concat` with `interleave`.
  }];
  let parameters = (ins "int64_t":$parts, "int64_t":$run);
  let assemblyFormat = "`<` struct($parts, $run) `>`";
}

def GPTQ_StackAttr : GPTQ_Attr<"Stack", "stack"> {
  let summary = "Several weights of one type as one with another dimension";
  let description = [{
    Element [e, …] is element […] of `parts[e]` (weight symbols of one type): the weights of a layer's experts. Passes that rewrite a stack rewrite its
    parts, each like a weight of its own; they are written one after another.

    ```mlir
    gptq.weight @experts.codes : tensor<2x64x64xi4> = #gptq.stack<[@experts.0.codes, @experts.1.codes]>
    ```
  }];
  let parameters = (ins "::mlir::ArrayAttr":$parts);
  let assemblyFormat = "`<` $parts `>`";
}

def GPTQ_GatherAttr : GPTQ_Attr<"Gather", "gather"> {
  let summary = "A weight with one dimension reordered";
  let description = "Element i along `dim` is element `order[i]` of `source` (both weight symbols).";
  let parameters = (ins "::mlir::FlatSymbolRefAttr":$source, "::mlir::FlatSymbolRefAttr":$order, "int64_t":$dim);
  let assemblyFormat = "`<` $source `,` struct($order, $dim) `>`";
}

def GPTQ_RotaryAttr : GPTQ_Attr<"Rotary", "rotary"> {
  let summary = "The table of rotary position embeddings";
  let description = [{
    A computed f32 table [positions, D]: for pair i < D/2 and angle a = p·f_i, element [p, i] is cos a and [p, D/2 + i] is
    sin a, with f_i = theta^(−2i/D). `scaling` "llama3" changes f_i as Llama 3.1 publishes it: wavelengths beyond
    `originalContext / lowFreqFactor` are divided by `factor`, those below `originalContext / highFreqFactor` kept, those between
    interpolated. "linear" divides every f_i by `factor`, "longrope" f_i by `factors[i]`. Every cosine and sine is multiplied by
    `magnitude` (1 without it). Computed in double precision, rounded once.
  }];
  let parameters = (ins "::mlir::FloatAttr":$theta, "::mlir::StringAttr":$scaling, "::mlir::FloatAttr":$factor,
                        "::mlir::FloatAttr":$lowFreqFactor, "::mlir::FloatAttr":$highFreqFactor, "int64_t":$originalContext,
                        OptionalParameter<"::mlir::DenseF64ArrayAttr">:$factors, OptionalParameter<"::mlir::FloatAttr">:$magnitude);
  let assemblyFormat = "`<` struct($theta, $scaling, $factor, $lowFreqFactor, $highFreqFactor, $originalContext, $factors, $magnitude) `>`";
}

//===----------------------------------------------------------------------===//
// Layouts
//===----------------------------------------------------------------------===//

def GPTQ_LayoutAttr : GPTQ_Attr<"Layout", "layout"> {
  let summary = "Where the bits of a packed weight go, as permutations of address bits";
  let description = [{
    A weight [K, N] of `bits`-bit elements is cut into blocks of `blockN` × `blockK` (powers of two, the last ones padded with
    zeros); blocks lie panel by panel: all blocks along K of the first `blockN` columns, then the next columns. Inside a block, the
    bit address is a permutation of the bits of (bit, k, n): `order` names them from the lowest address bit up, `b<i>`, `k<i>` and
    `n<i>` being bit i of the position inside an element, a row inside the block, a column inside the block.

    Example: 8 lanes of one 32-bit word each, a word holding 8 consecutive rows of its column, lowest bits first:
    ```mlir
    #gptq.layout<bits = 4, blockN = 8, blockK = 8, order = "b0 b1 k0 k1 k2 n0 n1 n2">
    ```
    Every order is a bijection by construction; the verifier checks that each bit occurs exactly once. (A 4-bit
    element has bits b0, b1: the address *inside* an element of 2^2 bits.)

    A block of elements of another width is several *planes*, one behind the other: with `|` between them `order` holds a
    permutation for each, lowest bits of the elements first. A plane of a names b0 … has 2^a bits of every element; together
    they have `bits`. Three-bit elements as two low bits (64 words of them), then the high bit (32 words):
    ```mlir
    #gptq.layout<bits = 3, blockN = 32, blockK = 32, order = "b0 k3 k2 k0 k1 n0 n1 n2 n3 n4 k4 | k3 k4 k2 k0 k1 n0 n1 n2 n3 n4">
    ```
  }];
  let parameters = (ins "int64_t":$bits, "int64_t":$blockN, "int64_t":$blockK, "::mlir::StringAttr":$order);
  let assemblyFormat = "`<` struct($bits, $blockN, $blockK, $order) `>`";
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    /// Bits of a block.
    int64_t getBlockBits() const { return getBits() * getBlockN() * getBlockK(); }
    /// Blocks that hold the first `k` rows of a weight in groups of `groupSize`, each of which starts a block.
    int64_t blocksOf(int64_t k, int64_t groupSize) const;
  }];
}

def GPTQ_PackedAttr : GPTQ_Attr<"Packed", "packed"> {
  let summary = "A weight packed by a layout";
  let description = [{
    The elements of weight `source`, [K, N] (or [N, K] with `transposed`), packed by `layout`. The packed weight has type
    `tensor<panels x blocks x words x i32>` for quantized codes, or of the element type for elements of 8 bits and more, with
    ceil(K / blockK) blocks. With `run` > 0 every run of that many rows of K starts a block of its own and its last block is filled up
    with zeros, so that groups of any size start at whole words; not with `transposed`.
  }];
  let parameters = (ins "::mlir::FlatSymbolRefAttr":$source, "::mlir::gptq::LayoutAttr":$layout,
                        DefaultValuedParameter<"bool", "false">:$transposed, DefaultValuedParameter<"int64_t", "0">:$run);
  let assemblyFormat = "`<` $source `,` struct($layout, $transposed, $run) `>`";
  let genVerifyDecl = 1;
}

//===----------------------------------------------------------------------===//
// Plans
//===----------------------------------------------------------------------===//

def GPTQ_PlanAttr : GPTQ_Attr<"Plan", "plan"> {
  let summary = "The design of one kernel for one range of M";
  let description = [{
    Chosen by one planner per target, only read afterwards; each field is consumed by one pass, and without that pass the IR is still
    correct, only slower.

    | field | unit | consumed by |
    | --- | --- | --- |
    | `mMin`, `mMax` | rows of the activations this kernel is used for | gptq-form-dispatches |
    | `unit` | name of the arithmetic unit (`Target`) | the target's lowering |
    | `tileM`, `tileN` | rows and columns (queries of one cache head, for attention) of one workgroup; 0: all | gptq-tile-to-workgroups |
    | `tileK` | input rows that one workgroup sums before a partial result is set down; 0: all it has | gptq-split-reduction |
    | `cluster` | workgroups that share K, an equal part each, and add up each other's sums (`partials = shared`); 1: each sums over all of K | gptq-distribute-workgroups, gptq-vectorize |
    | `rows`, `columns` | shape of one register tile, a thread's or a warp's | gptq-vectorize |
    | `lanes` | elements of one vector, or threads that hold one register tile together | gptq-vectorize |
    | `threads` | threads of one workgroup | gptq-vectorize |
    | `stepK` | input rows that a warp multiplies between two applications of a scale, at most; 0: a group | gptq-vectorize |
    | `occupancy` | workgroups that share a core at a time | the target's lowering |
    | `stages` | parts of K whose operands are on their way or in use at a time: 1 or 2, or the places of a ring | gptq-prefetch-operands, gptq-nvvm-form-rings |
    | `firstBytes` | bytes of a thread's registers for operands of the first parts of K, which are loaded before all else; 0: none are | gptq-prefetch-operands |
    | `aheadBytes` | bytes of these that are loaded while the kernel in front may still be at work; the others follow the loads of activations, which wait for that kernel. Where it has ended, both come at once | gptq-prefetch-operands, gptq-nvvm-overlap-launches |
    | `loadBits` | bits one thread loads of packed weights at once, at most | the target's lowering |
    | `path` | `direct`: activations read in place; `promote`: copied to workgroup memory first; `split`: copied there as integers of three bytes (`gptq.stage_split`); `normalize`: normalized there (`norm_of` of a matmul); `ring`: passed through `stages` places of workgroup memory with the weights | gptq-promote-activations, gptq-nvvm-form-rings |
    | `partials` | `global`: added up where the result lies; `shared`: in workgroup memory, written once | gptq-buffer-partials, gptq-vectorize |
    | `scale`, `zero` | `weight`: applied to each weight; `accumulator`: once per group | gptq-hoist-scales, gptq-fold-zero-points |
  }];
  let parameters = (ins "int64_t":$mMin, "int64_t":$mMax, "::mlir::StringAttr":$unit, "int64_t":$tileM, "int64_t":$tileN,
                        "int64_t":$tileK, "int64_t":$rows, "int64_t":$columns, "int64_t":$lanes, "::mlir::StringAttr":$path,
                        "::mlir::StringAttr":$partials, "::mlir::StringAttr":$scale, "::mlir::StringAttr":$zero,
                        DefaultValuedParameter<"int64_t", "1">:$threads, DefaultValuedParameter<"int64_t", "0">:$stepK,
                        DefaultValuedParameter<"int64_t", "1">:$occupancy,
                        DefaultValuedParameter<"int64_t", "1">:$stages,
                        DefaultValuedParameter<"int64_t", "128">:$loadBits,
                        DefaultValuedParameter<"int64_t", "1">:$cluster,
                        DefaultValuedParameter<"int64_t", "0">:$firstBytes,
                        DefaultValuedParameter<"int64_t", "0">:$aheadBytes);
  let assemblyFormat = [{
    `<` struct($mMin, $mMax, $unit, $tileM, $tileN, $tileK, $rows, $columns, $lanes, $path, $partials, $scale, $zero, $threads,
               $stepK, $occupancy, $stages, $loadBits, $cluster, $firstBytes, $aheadBytes) `>`
  }];
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    /// All fields, to make a plan from or to copy one with some of them changed. Names that are null are those of what is
    /// done without a plan: `direct`, `global`, `weight`, `weight`.
    struct Fields {
      int64_t mMin = 1, mMax = 1;
      ::mlir::StringAttr unit;
      int64_t tileM = 0, tileN = 0, tileK = 0, rows = 1, columns = 1, lanes = 1;
      ::mlir::StringAttr path, partials, scale, zero;
      int64_t threads = 1, stepK = 0, occupancy = 1, stages = 1, loadBits = 128, cluster = 1, firstBytes = 0,
              aheadBytes = 0;
    };
    static PlanAttr get(::mlir::MLIRContext *context, const Fields &fields);
    Fields getFields() const;
  }];
}

#endif // GPTQ_ATTRS_TD
