//===- Formats/GGUF.cpp - The block types of GGUF files -------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Rows of a matrix [N, K] are cut into blocks along K, each with its scales in
// front of or behind its codes. Places in a block are in bytes; d, m and dmin
// are halves, and weights are
//
//   | type | rows | w             | block                                    |
//   | ---- | ---- | ------------- | ---------------------------------------- |
//   | q4_0 | 32   | d (q - 8)     | d, codes at 2                            |
//   | q4_1 | 32   | d q + m       | d, m at 2, codes at 4                    |
//   | q5_0 | 32   | d (q - 16)    | d, high bits at 2, low ones at 6         |
//   | q5_1 | 32   | d q + m       | d, m at 2, high bits at 4, low ones at 8 |
//   | q8_0 | 32   | d q, signed q | d, codes at 2                            |
//   | q4_k | 256  | d a q - dmin b| d, dmin at 2, a and b at 4, codes at 16  |
//   | q5_k | 256  | the same      | the same; high bits at 16, low at 48     |
//   | q6_k | 256  | d a (q - 32)  | low bits, high ones at 128, a at 192,    |
//   |      |      |               | d at 208                                 |
//
// with a, b of 6 bits for every 32 rows, and for q6_k of signed bytes for every
// 16.
//
//===----------------------------------------------------------------------===//

#include "lib/Import/GGUF.h"
#include "lib/Import/Config.h"
#include "lib/Import/Formats/Format.h"
#include "mlir/IR/Builders.h"

using namespace mlir;
using namespace mlir::gptq;
using abi::DType;
using abi::JsonView;
using abi::Status;
using abi::StatusCode;

namespace {

/// Where a field of a block lies, from bit `offset` on; `order` as in
/// #gptq.plane, of rows.
struct FieldPlace {
  int64_t bits;
  int64_t offset;
  StringLiteral order;
};

/// How a type is taken apart.
struct BlockFields {
  StringLiteral type;
  int64_t bits;
  int64_t group;
  int64_t zeroPoint;
  /// Added to codes modulo 2^bits.
  int64_t fieldAdd;
  ArrayRef<FieldPlace> codes;
  /// Scales are `scale`, or times `fineScale` where a block has several groups;
  /// offsets likewise, and then subtracted.
  ArrayRef<FieldPlace> scale, fineScale, offset, fineOffset;
};

constexpr FieldPlace kFirstHalf[] = {{16, 0, ""}};
constexpr FieldPlace kSecondHalf[] = {{16, 16, ""}};
constexpr FieldPlace kLastHalf[] = {{16, 8 * 208, ""}};
// Bytes of two nibbles, the low ones first.
constexpr FieldPlace kNibbles2[] = {{4, 8 * 2, "k4 k0 k1 k2 k3"}};
constexpr FieldPlace kNibbles4[] = {{4, 8 * 4, "k4 k0 k1 k2 k3"}};
constexpr FieldPlace kBytes2[] = {{8, 8 * 2, "k0 k1 k2 k3 k4"}};
constexpr FieldPlace kHigh2Nibbles6[] = {{4, 8 * 6, "k4 k0 k1 k2 k3"},
                                         {1, 8 * 2, "k0 k1 k2 k3 k4"}};
constexpr FieldPlace kHigh4Nibbles8[] = {{4, 8 * 8, "k4 k0 k1 k2 k3"},
                                         {1, 8 * 4, "k0 k1 k2 k3 k4"}};
// Of every 64 rows 32 bytes, the low nibbles first.
constexpr FieldPlace kQ4KCodes[] = {{4, 8 * 16, "k5 k0 k1 k2 k3 k4 k6 k7"}};
// Bit i of high byte j is that of row 32 i + j.
constexpr FieldPlace kQ5KCodes[] = {{4, 8 * 48, "k5 k0 k1 k2 k3 k4 k6 k7"},
                                    {1, 8 * 16, "k5 k6 k7 k0 k1 k2 k3 k4"}};
// Of every 128 rows 64 bytes of nibbles, 32 of pairs of bits.
constexpr FieldPlace kQ6KCodes[] = {{4, 0, "k6 k0 k1 k2 k3 k4 k5 k7"},
                                    {2, 8 * 128, "k5 k6 k0 k1 k2 k3 k4 k7"}};
constexpr FieldPlace kQ6KScales[] = {{8, 8 * 192, "k0 k1 k2 k3"}};
// Twelve bytes hold eight a and eight b: bytes 0 to 3 the a of groups 0 to 3 in
// their low six bits, bytes 4 to 7 the b; bytes 8 to 11 the low nibbles of the
// a, then of the b, of groups 4 to 7, whose high bits are the two that bytes 0
// to 7 have left.
constexpr FieldPlace kFineScales[] = {{4, 8 * 4, "_ k0 k1 _ k2"},
                                      {2, 8 * 4 + 4, "k2 _ k0 k1"}};
constexpr FieldPlace kFineOffsets[] = {{4, 8 * 8, "k2 k0 k1 k2"},
                                       {2, 8 * 8 + 4, "k2 _ k0 k1"}};

const BlockFields kFields[] = {
    {"q4_0", 4, 32, 8, 0, kNibbles2, kFirstHalf, {}, {}, {}},
    {"q4_1", 4, 32, 0, 0, kNibbles4, kFirstHalf, {}, kSecondHalf, {}},
    {"q5_0", 5, 32, 16, 0, kHigh2Nibbles6, kFirstHalf, {}, {}, {}},
    {"q5_1", 5, 32, 0, 0, kHigh4Nibbles8, kFirstHalf, {}, kSecondHalf, {}},
    {"q8_0", 8, 32, 128, 128, kBytes2, kFirstHalf, {}, {}, {}},
    {"q4_k", 4, 32, 0, 0, kQ4KCodes, kFirstHalf, kFineScales, kSecondHalf,
     kFineOffsets},
    {"q5_k", 5, 32, 0, 0, kQ5KCodes, kFirstHalf, kFineScales, kSecondHalf,
     kFineOffsets},
    {"q6_k", 6, 16, 32, 0, kQ6KCodes, kLastHalf, kQ6KScales, {}, {}},
};

} // namespace

Status mlir::gptq::readGGUFConfig(const JsonView &config, QuantConfig &quant) {
  GPTQ_ASSIGN(quant.format, readString(config, "format", ""));
  GPTQ_ASSIGN(quant.interleavedRows,
              readInteger(config, "interleaved_rows", 0, kMaxWidth, 0));
  // What most matrices have; each says itself what it is.
  quant.bits = 16;
  quant.groupSize = -1;
  for (const BlockFields &fields : kFields) {
    if (fields.type != quant.format)
      continue;
    quant.bits = fields.bits;
    quant.groupSize = fields.group;
    quant.isSymmetric = fields.offset.empty();
  }
  if (const BlockType *type = findBlockType(quant.format);
      type && type->dtype == DType::F32)
    quant.bits = 32;
  return Status::success();
}

namespace {

/// Makes the views of one matrix: as a weight [K, N], or as a table [N, K].
class BlockViews {
public:
  BlockViews(const CheckpointTensor &tensor, const BlockType &type,
             bool isTable, MLIRContext *context)
      : data(getData(tensor, context)), type(type), isTable(isTable),
        n(tensor.dim(0)), k(tensor.dim(1) / type.bytes * type.block),
        context(context) {
    fields = llvm::find_if(
        kFields, [&](const BlockFields &f) { return f.type == type.name; });
  }

  const BlockFields &of() const { return *fields; }
  int64_t rows() const { return k; }

  View codes() const {
    return read(fields->codes, k, IntegerType::get(context, fields->bits),
                fields->fieldAdd);
  }
  View scales() const { return product(fields->scale, fields->fineScale); }
  View offsets() const {
    return fields->offset.empty()
               ? View()
               : product(fields->offset, fields->fineOffset,
                         /*isNegated=*/!fields->fineOffset.empty());
  }

private:
  RankedTensorType typeOf(int64_t along, Type element) const {
    return isTable ? RankedTensorType::get({n, along}, element)
                   : RankedTensorType::get({along, n}, element);
  }

  /// `along` elements of each row, taken from `planes` of every block.
  View read(ArrayRef<FieldPlace> planes, int64_t along, Type element,
            int64_t fieldAdd = 0) const {
    SmallVector<Attribute> attrs;
    int64_t bits = 0;
    for (const FieldPlace &place : planes) {
      std::string order = place.order.str();
      if (isTable)
        std::replace(order.begin(), order.end(), 'k', 'n');
      attrs.push_back(PlaneAttr::get(context, place.bits, place.offset,
                                     StringAttr::get(context, order)));
      bits += place.bits;
    }
    auto codes = CodesAttr::get(context, data, bits, Packing::Columns,
                                /*transposed=*/!isTable, /*count=*/0,
                                /*record=*/type.bytes, /*wordAdd=*/0, fieldAdd,
                                ArrayAttr::get(context, attrs));
    return {typeOf(along, element), codes, {}};
  }

  /// The halves `top` of each block, times the numbers `fine` of its groups.
  View product(ArrayRef<FieldPlace> top, ArrayRef<FieldPlace> fine,
               bool isNegated = false) const {
    View halves = read(top, k / type.block, Float16Type::get(context));
    if (fine.empty())
      return halves;
    int64_t bits = 0;
    for (const FieldPlace &place : fine)
      bits += place.bits;
    // Bytes are in two's complement, what is narrower is not.
    auto element = IntegerType::get(
        context, bits, bits == 8 ? IntegerType::Signed : IntegerType::Signless);
    const int64_t groups = k / fields->group;
    return {typeOf(groups, Float32Type::get(context)),
            ProductAttr::get(context, getPartRef(0, context),
                             getPartRef(1, context), isNegated),
            {halves, read(fine, groups, element)}};
  }

  DataAttr data;
  const BlockType &type;
  bool isTable;
  int64_t n, k;
  MLIRContext *context;
  const BlockFields *fields;
};

class GGUFFormat final : public Format {
public:
  explicit GGUFFormat(const QuantConfig &config) : config(config) {}

  std::string describe() const override {
    return config.format.empty() ? "gguf" : "gguf " + config.format;
  }
  bool holds(const Checkpoint &checkpoint, StringRef module) const override {
    return typeOf(checkpoint, module);
  }
  abi::Expected<LinearViews> read(Checkpoint &checkpoint, StringRef module,
                                  std::optional<LinearShape> shape,
                                  MLIRContext *context) const override;
  abi::Expected<View> readTable(Checkpoint &checkpoint, StringRef module,
                                int64_t rows, int64_t columns,
                                MLIRContext *context) const override;

private:
  static std::string nameOf(StringRef module, const BlockType &type) {
    return (module + "." + type.name).str();
  }
  /// The type that the weight of `module` is stored in, or null.
  const BlockType *typeOf(const Checkpoint &checkpoint,
                          StringRef module) const {
    for (const BlockType &type : blockTypes())
      if (checkpoint.has(nameOf(module, type)))
        return &type;
    return nullptr;
  }
  /// The weight of `module`, [n, k], in blocks of `type`.
  abi::Expected<CheckpointTensor> get(Checkpoint &checkpoint, StringRef module,
                                      const BlockType &type, int64_t n,
                                      int64_t k) const;

  QuantConfig config;
};

} // namespace

std::unique_ptr<Format>
mlir::gptq::createGGUFFormat(const QuantConfig &config) {
  return std::make_unique<GGUFFormat>(config);
}

abi::Expected<CheckpointTensor> GGUFFormat::get(Checkpoint &checkpoint,
                                                StringRef module,
                                                const BlockType &type,
                                                int64_t n, int64_t k) const {
  if (k >= 0 && k % type.block != 0)
    return abi::makeStatus(
        StatusCode::InvalidFile,
        "module %s: expected K in whole blocks of %lld, found %lld",
        abi::quoteForMessage(module).c_str(), (long long)type.block,
        (long long)k);
  // More bytes than elements of one, where a block holds several.
  const int64_t width = k < 0             ? -1
                        : type.block == 1 ? k
                                          : k / type.block * type.bytes;
  return checkpoint.get(nameOf(module, type), type.dtype, {n, width});
}

abi::Expected<LinearViews> GGUFFormat::read(Checkpoint &checkpoint,
                                            StringRef module,
                                            std::optional<LinearShape> shape,
                                            MLIRContext *context) const {
  const BlockType &type = *typeOf(checkpoint, module);
  GPTQ_ASSIGN(CheckpointTensor tensor,
              get(checkpoint, module, type, shape ? shape->n : -1,
                  shape ? shape->k : -1));
  LinearViews linear;
  linear.n = tensor.dim(0);
  if (type.block == 1) {
    linear.k = tensor.dim(1);
    linear.weight = getDataView(tensor, context);
  } else {
    BlockViews views(tensor, type, /*isTable=*/false, context);
    linear.k = views.rows();
    linear.bits = views.of().bits;
    linear.groupSize = views.of().group;
    linear.zeroPoint = views.of().zeroPoint;
    linear.codes = views.codes();
    linear.scales = views.scales();
    linear.offsets = views.offsets();
  }
  const bool isTurned = module.ends_with(".self_attn.q_proj") ||
                        module.ends_with(".self_attn.k_proj");
  if (isTurned && config.interleavedRows > 0) {
    if (config.interleavedRows % 2 != 0 ||
        linear.n % config.interleavedRows != 0)
      return abi::makeStatus(
          StatusCode::InvalidFile,
          "tensor %s in '%s': expected rows for whole heads of %lld, found "
          "%lld",
          abi::quoteForMessage(tensor.stored).c_str(),
          tensor.file.str().c_str(), (long long)config.interleavedRows,
          (long long)linear.n);
    linear.outputOrder = {
        RankedTensorType::get(linear.n, IntegerType::get(context, 32)),
        DeinterleaveAttr::get(context, config.interleavedRows),
        {}};
  }
  return linear;
}

abi::Expected<View> GGUFFormat::readTable(Checkpoint &checkpoint,
                                          StringRef module, int64_t rows,
                                          int64_t columns,
                                          MLIRContext *context) const {
  const BlockType &type = *typeOf(checkpoint, module);
  GPTQ_ASSIGN(CheckpointTensor tensor,
              get(checkpoint, module, type, rows, columns));
  if (type.block == 1)
    return getDataView(tensor, context);
  BlockViews views(tensor, type, /*isTable=*/true, context);
  View offsets = views.offsets();
  auto init = DequantizedAttr::get(
      context, getPartRef(0, context), getPartRef(1, context),
      offsets ? getPartRef(2, context) : FlatSymbolRefAttr(),
      views.of().zeroPoint, views.of().group);
  View table = {
      RankedTensorType::get({rows, columns}, Float32Type::get(context)),
      init,
      {views.codes(), views.scales()}};
  if (offsets)
    table.parts.push_back(std::move(offsets));
  return table;
}
