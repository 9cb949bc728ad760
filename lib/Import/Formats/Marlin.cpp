//===- Formats/Marlin.cpp - Codes in the order of matrix units ----------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Four bits, symmetric, K input rows, N output columns, G groups:
//
//   | tensor | dtype, shape     | content                                     |
//   | ------ | ---------------- | ------------------------------------------- |
//   | B      | i32 [K/16, 2*N]  | records of 16 rows and 64 columns           |
//   | s      | f16 [G, N]       | scales, permuted in runs of 64 columns, or  |
//   |        |                  | of 32 where there is one group              |
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
static constexpr int64_t kRecordRows = 16, kRecordColumns = 64;

Status mlir::gptq::readMarlinConfig(const JsonView &config,
                                    QuantConfig &quant) {
  quant.format = "marlin";
  if (findValue(config, firstKey(config, {"bits", "w_bit", "wbits"}))) {
    GPTQ_ASSIGN(quant.bits, readBits(config, {kBits}));
  }
  GPTQ_ASSIGN(quant.groupSize, readGroupSize(config));
  GPTQ_ASSIGN(quant.isSymmetric, readBool(config, "sym", true));
  if (!quant.isSymmetric)
    return unsupported(config, "sym", "false", "true for marlin");
  GPTQ_ASSIGN(quant.isActOrder, readBool(config, "desc_act", false));
  if (quant.isActOrder)
    return unsupported(config, "desc_act", "true", "false for marlin");
  return Status::success();
}

namespace {
class MarlinFormat final : public Format {
public:
  explicit MarlinFormat(const QuantConfig &config) : config(config) {}

  std::string describe() const override { return describeSettings(config); }
  bool holds(const Checkpoint &checkpoint, StringRef module) const override {
    return checkpoint.has((module + ".B").str());
  }
  abi::Expected<LinearViews> read(Checkpoint &checkpoint, StringRef module,
                                  std::optional<LinearShape> shape,
                                  MLIRContext *context) const override;

private:
  QuantConfig config;
};
} // namespace

std::unique_ptr<Format>
mlir::gptq::createMarlinFormat(const QuantConfig &config) {
  return std::make_unique<MarlinFormat>(config);
}

/// A view of `tensor` in records of `record` elements, of one plane.
static CodesAttr getRecords(const CheckpointTensor &tensor, int64_t bits,
                            int64_t record, StringRef order,
                            MLIRContext *context) {
  auto plane = PlaneAttr::get(context, bits, /*offset=*/0,
                              StringAttr::get(context, order));
  return CodesAttr::get(getData(tensor, context), bits, Packing::Columns,
                        /*transposed=*/false, record,
                        ArrayAttr::get(context, {plane}));
}

abi::Expected<LinearViews> MarlinFormat::read(Checkpoint &checkpoint,
                                              StringRef module,
                                              std::optional<LinearShape> shape,
                                              MLIRContext *context) const {
  auto name = [&](StringRef part) { return (module + "." + part).str(); };
  if (shape && (shape->k % kRecordRows != 0 || shape->n % kRecordColumns != 0))
    return abi::makeStatus(
        StatusCode::InvalidFile,
        "module %s: expected K and N in whole records of %lld x %lld, found "
        "%lld x %lld",
        abi::quoteForMessage(module).c_str(), (long long)kRecordRows,
        (long long)kRecordColumns, (long long)shape->k, (long long)shape->n);
  LinearViews linear;
  linear.bits = kBits;
  GPTQ_ASSIGN(CheckpointTensor codes,
              checkpoint.get(name("B"), DType::I32,
                             {shape ? shape->k / kRecordRows : -1,
                              shape ? 2 * shape->n : -1}));
  linear.k = codes.dim(0) * kRecordRows;
  linear.n = codes.dim(1) / 2;
  const int64_t record = kRecordRows * kRecordColumns * kBits / 32;
  if (codes.dim(1) % record != 0)
    return abi::makeStatus(
        StatusCode::InvalidFile,
        "tensor %s in '%s': expected whole records of %lld words, found %lld "
        "words",
        abi::quoteForMessage(codes.name).c_str(), codes.file.str().c_str(),
        (long long)record, (long long)codes.dim(1));
  linear.codes =
      getCodesView(getRecords(codes, kBits, record,
                              "k3 n3 k0 n4 n5 k1 k2 n0 n1 n2", context),
                   linear.k, linear.n);

  linear.groupSize = rowsPerGroup(config, linear.k);
  int64_t groups = llvm::divideCeil(linear.k, linear.groupSize);
  GPTQ_ASSIGN(CheckpointTensor scales,
              checkpoint.get(name("s"), DType::F16, {groups, linear.n}));
  GPTQ_TRY(checkFinite(scales));
  linear.scales.type =
      RankedTensorType::get({groups, linear.n}, Float16Type::get(context));
  linear.scales.init =
      groups == 1 ? getRecords(scales, 16, 32, "n0 n3 n4 n1 n2", context)
                  : getRecords(scales, 16, 64, "n3 n4 n5 n0 n1 n2", context);
  linear.zeroPoint = int64_t(1) << (kBits - 1);
  return linear;
}
