//===- Formats/AWQ.cpp - AWQ's gemm, gemv and gemv_fast -----------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Four bits, K input rows, N output columns, G = K / group_size groups:
//
//   | version   | tensor       | dtype, shape   | content                       |
//   | --------- | ------------ | -------------- | ----------------------------- |
//   | gemm      | qweight      | i32 [K, N/8]   | along N, nibbles interleaved  |
//   |           | qzeros       | i32 [G, N/8]   | true zero points, likewise    |
//   |           | scales       | f16 [G, N]     |                               |
//   | gemv      | qweight      | i32 [N, K/8]   | along K, in order             |
//   |           | qzeros       | i32 [N, Z]     | along G, in order; Z*8 >= G   |
//   |           | scales       | f16 [N, 8*Z]   |                               |
//   | gemv_fast | qweight      | i16 [N/4, K]   | records of 4 columns, 64 rows |
//   |           | scaled_zeros | f16 [8*Z, N]   | -scale * zero point           |
//   |           | scales       | f16 [8*Z, N]   |                               |
//
//===----------------------------------------------------------------------===//

#include "lib/Import/Config.h"
#include "lib/Import/Formats/Format.h"
#include "mlir/IR/Builders.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace mlir::gptq;
using abi::DType;
using abi::JsonView;
using abi::Status;
using abi::StatusCode;

static constexpr int64_t kBits = 4;
/// Codes of a word.
static constexpr int64_t kFields = 8;

Status mlir::gptq::readAWQConfig(const JsonView &config, QuantConfig &quant) {
  StringRef formatKey =
      firstKey(config, {"version", "checkpoint_format", "format"});
  GPTQ_ASSIGN(std::string format, readString(config, formatKey, "gemm"));
  quant.format = StringRef(format).lower();
  if (quant.format == "llm-awq")
    quant.format = "gemv_fast";
  if (!llvm::is_contained({"gemm", "gemv", "gemv_fast"}, quant.format))
    return unsupported(config, formatKey, format,
                       "'gemm', 'gemv', 'gemv_fast' or 'llm-awq'");
  GPTQ_ASSIGN(quant.bits, readBits(config, {kBits}));
  GPTQ_ASSIGN(quant.groupSize, readGroupSize(config));
  GPTQ_ASSIGN(bool hasZeros, readBool(config, "zero_point", true));
  quant.isSymmetric = !hasZeros;
  return Status::success();
}

namespace {
class AWQFormat final : public Format {
public:
  explicit AWQFormat(const QuantConfig &config) : config(config) {}

  std::string describe() const override { return describeSettings(config); }
  bool holds(const Checkpoint &checkpoint, StringRef module) const override {
    return checkpoint.has((module + ".qweight").str());
  }
  abi::Expected<LinearViews> read(Checkpoint &checkpoint, StringRef module,
                                  std::optional<LinearShape> shape,
                                  MLIRContext *context) const override;

private:
  /// Each reads the tensors of one version into `linear`.
  Status readGemm(Checkpoint &checkpoint, StringRef module,
                  std::optional<LinearShape> shape, MLIRContext *context,
                  LinearViews &linear) const;
  Status readGemv(Checkpoint &checkpoint, StringRef module,
                  std::optional<LinearShape> shape, MLIRContext *context,
                  LinearViews &linear) const;
  Status readGemvFast(Checkpoint &checkpoint, StringRef module,
                      std::optional<LinearShape> shape, MLIRContext *context,
                      LinearViews &linear) const;
  /// Sets K and what follows from it; returns the number of groups.
  abi::Expected<int64_t> setRows(const CheckpointTensor &qweight, int64_t k,
                                 LinearViews &linear) const;

  QuantConfig config;
};
} // namespace

std::unique_ptr<Format> mlir::gptq::createAWQFormat(const QuantConfig &config) {
  return std::make_unique<AWQFormat>(config);
}

/// The size of a dimension that holds `fields` codes in each element, or -1
/// where the size of the weight is not known.
static int64_t packedSize(std::optional<LinearShape> shape,
                          int64_t LinearShape::*size, int64_t fields) {
  return shape ? llvm::divideCeil((*shape).*size, fields) : -1;
}

abi::Expected<int64_t> AWQFormat::setRows(const CheckpointTensor &qweight,
                                          int64_t k,
                                          LinearViews &linear) const {
  linear.k = k;
  linear.groupSize = rowsPerGroup(config, k);
  if (k % linear.groupSize != 0)
    return abi::makeStatus(
        StatusCode::InvalidFile,
        "tensor %s in '%s': expected rows in whole groups of %lld, found %lld",
        abi::quoteForMessage(qweight.name).c_str(), qweight.file.str().c_str(),
        (long long)linear.groupSize, (long long)k);
  return k / linear.groupSize;
}

Status AWQFormat::readGemm(Checkpoint &checkpoint, StringRef module,
                           std::optional<LinearShape> shape,
                           MLIRContext *context, LinearViews &linear) const {
  auto name = [&](StringRef part) { return (module + "." + part).str(); };
  // Columns 0, 2, 4, 6, 1, 3, 5, 7 of every eight are the nibbles of a word.
  auto interleaved = [&](const CheckpointTensor &tensor) {
    auto plane = PlaneAttr::get(context, kBits, /*offset=*/0,
                                StringAttr::get(context, "n1 n2 n0"));
    return CodesAttr::get(getData(tensor, context), kBits, Packing::Columns,
                          /*transposed=*/false,
                          /*record=*/1, ArrayAttr::get(context, {plane}));
  };
  GPTQ_ASSIGN(CheckpointTensor qweight,
              checkpoint.get(name("qweight"), DType::I32,
                             {shape ? shape->k : -1,
                              packedSize(shape, &LinearShape::n, kFields)}));
  GPTQ_ASSIGN(int64_t groups, setRows(qweight, qweight.dim(0), linear));
  linear.n = shape ? shape->n : qweight.dim(1) * kFields;
  linear.codes = getCodesView(interleaved(qweight), linear.k, linear.n);
  GPTQ_ASSIGN(CheckpointTensor scales,
              checkpoint.get(name("scales"), kFloatDTypes, {groups, linear.n}));
  GPTQ_TRY(checkFinite(scales));
  linear.scales = getDataView(scales, context);
  if (config.isSymmetric && !checkpoint.has(name("qzeros"))) {
    linear.zeroPoint = int64_t(1) << (kBits - 1);
    return Status::success();
  }
  GPTQ_ASSIGN(
      CheckpointTensor qzeros,
      checkpoint.get(name("qzeros"), DType::I32, {groups, qweight.dim(1)}));
  setZeros(linear, interleaved(qzeros), groups, qzeros);
  return Status::success();
}

Status AWQFormat::readGemv(Checkpoint &checkpoint, StringRef module,
                           std::optional<LinearShape> shape,
                           MLIRContext *context, LinearViews &linear) const {
  auto name = [&](StringRef part) { return (module + "." + part).str(); };
  auto alongColumns = [&](const CheckpointTensor &tensor) {
    return CodesAttr::get(getData(tensor, context), kBits, Packing::Columns,
                          /*transposed=*/true);
  };
  GPTQ_ASSIGN(CheckpointTensor qweight,
              checkpoint.get(name("qweight"), DType::I32,
                             {shape ? shape->n : -1,
                              packedSize(shape, &LinearShape::k, kFields)}));
  linear.n = qweight.dim(0);
  GPTQ_ASSIGN(
      int64_t groups,
      setRows(qweight, shape ? shape->k : qweight.dim(1) * kFields, linear));
  linear.codes = getCodesView(alongColumns(qweight), linear.k, linear.n);
  GPTQ_ASSIGN(CheckpointTensor qzeros,
              checkpoint.get(name("qzeros"), DType::I32, {linear.n, -1}));
  if (qzeros.dim(1) * kFields < groups)
    return abi::makeStatus(
        StatusCode::InvalidFile,
        "tensor %s in '%s': expected words for %lld groups, found %lld",
        abi::quoteForMessage(qzeros.name).c_str(), qzeros.file.str().c_str(),
        (long long)groups, (long long)qzeros.dim(1));
  setZeros(linear, alongColumns(qzeros), groups, qzeros);
  GPTQ_ASSIGN(CheckpointTensor scales,
              checkpoint.get(name("scales"), kFloatDTypes,
                             {linear.n, qzeros.dim(1) * kFields}));
  GPTQ_TRY(checkFinite(scales));
  linear.scales = getTransposedView(scales, groups, linear.n, context);
  return Status::success();
}

Status AWQFormat::readGemvFast(Checkpoint &checkpoint, StringRef module,
                               std::optional<LinearShape> shape,
                               MLIRContext *context,
                               LinearViews &linear) const {
  auto name = [&](StringRef part) { return (module + "." + part).str(); };
  constexpr int64_t rows = 64, columns = 4;
  GPTQ_ASSIGN(CheckpointTensor qweight,
              checkpoint.get(name("qweight"), DType::I16,
                             {packedSize(shape, &LinearShape::n, columns),
                              shape ? shape->k : -1}));
  linear.n = qweight.dim(0) * columns;
  GPTQ_ASSIGN(int64_t groups, setRows(qweight, qweight.dim(1), linear));
  if (linear.k % rows != 0 || (shape && shape->n != linear.n))
    return abi::makeStatus(
        StatusCode::InvalidFile,
        "tensor %s in '%s': expected whole records of %lld rows and %lld "
        "columns, found %lld x %lld",
        abi::quoteForMessage(qweight.name).c_str(), qweight.file.str().c_str(),
        (long long)rows, (long long)columns, (long long)linear.k,
        (long long)(shape ? shape->n : linear.n));
  // Pairs of rows of every 32 are dealt out to four words, and even rows of
  // a word's pairs come before odd ones.
  auto plane =
      PlaneAttr::get(context, kBits, /*offset=*/0,
                     StringAttr::get(context, "k3 k4 k0 k1 k2 k5 n0 n1"));
  linear.codes =
      getCodesView(CodesAttr::get(getData(qweight, context), kBits,
                                  Packing::Columns, /*transposed=*/true,
                                  /*record=*/rows * columns * kBits / 16,
                                  ArrayAttr::get(context, {plane})),
                   linear.k, linear.n);

  // More rows than groups, in whole words' worth.
  auto topRows = [&](StringRef part) -> abi::Expected<View> {
    GPTQ_ASSIGN(CheckpointTensor tensor,
                checkpoint.get(name(part), DType::F16, {-1, linear.n}));
    GPTQ_TRY(checkFinite(tensor));
    if (tensor.dim(0) < groups)
      return abi::makeStatus(
          StatusCode::InvalidFile,
          "tensor %s in '%s': expected at least %lld rows, found %lld",
          abi::quoteForMessage(tensor.name).c_str(), tensor.file.str().c_str(),
          (long long)groups, (long long)tensor.dim(0));
    auto codes = CodesAttr::get(getData(tensor, context), 16, Packing::Columns);
    return View{
        RankedTensorType::get({groups, linear.n}, Float16Type::get(context)),
        codes,
        {}};
  };
  GPTQ_ASSIGN(linear.scales, topRows("scales"));
  bool isNewName = checkpoint.has(name("scaled_zeros"));
  GPTQ_ASSIGN(View scaledZeros, topRows(isNewName ? "scaled_zeros" : "qzeros"));
  linear.zeros.type = RankedTensorType::get({groups, linear.n},
                                            IntegerType::get(context, kBits));
  linear.zeros.init =
      QuotientAttr::get(context, getPartRef(0, context), getPartRef(1, context),
                        /*isNegated=*/true);
  linear.zeros.parts = {scaledZeros, linear.scales};
  return Status::success();
}

abi::Expected<LinearViews> AWQFormat::read(Checkpoint &checkpoint,
                                           StringRef module,
                                           std::optional<LinearShape> shape,
                                           MLIRContext *context) const {
  LinearViews linear;
  linear.bits = kBits;
  if (config.format == "gemm")
    GPTQ_TRY(readGemm(checkpoint, module, shape, context, linear));
  else if (config.format == "gemv")
    GPTQ_TRY(readGemv(checkpoint, module, shape, context, linear));
  else
    GPTQ_TRY(readGemvFast(checkpoint, module, shape, context, linear));
  return linear;
}
