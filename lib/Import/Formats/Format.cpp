//===- Formats/Format.cpp - How a checkpoint stores linear layers ---------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "lib/Import/Formats/Format.h"
#include "gptq/Dialect/GPTQ/IR/CodesReader.h"
#include "lib/Import/GGUF.h"
#include "mlir/IR/Builders.h"
#include "llvm/Support/Endian.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace mlir::gptq;
using abi::DType;
using abi::StatusCode;

Format::~Format() = default;

abi::Expected<View> Format::readTable(Checkpoint &checkpoint, StringRef module,
                                      int64_t rows, int64_t columns,
                                      MLIRContext *context) const {
  return readDense(checkpoint, (module + ".weight").str(), {rows, columns},
                   context);
}

bool mlir::gptq::isWeightPart(StringRef part) {
  return llvm::is_contained({"qweight", "weight_packed", "B"}, part) ||
         findBlockType(part);
}

std::unique_ptr<Format> mlir::gptq::createFormat(const QuantConfig &config) {
  if (config.method == "awq")
    return createAWQFormat(config);
  if (config.method == "compressed-tensors")
    return createCompressedTensorsFormat(config);
  if (config.method == "gguf")
    return createGGUFFormat(config);
  if (config.method == "marlin")
    return createMarlinFormat(config);
  return createGPTQFormat(config);
}

std::string mlir::gptq::describeSettings(const QuantConfig &config) {
  return config.method + " " + std::to_string(config.bits) + "-bit " +
         (config.groupSize < 0 ? "one group"
                               : "group " + std::to_string(config.groupSize));
}

abi::Expected<QuantSettings>
mlir::gptq::settingsOfQuantized(const QuantConfig &config,
                                Checkpoint &checkpoint, StringRef module) {
  GPTQ_ASSIGN(std::optional<QuantSettings> settings, config.settingsOf(module));
  if (settings)
    return *settings;
  // What tensors exist decides.
  checkpoint.warn("the settings leave some modules dense that are quantized; "
                  "they are read with the settings of the others");
  return QuantSettings(config);
}

int64_t mlir::gptq::rowsPerGroup(const QuantSettings &settings, int64_t k) {
  return settings.groupSize < 0 ? k : std::min(settings.groupSize, k);
}

static Type getElementType(DType dtype, MLIRContext *context) {
  Builder b(context);
  switch (dtype) {
  case DType::F16:
    return b.getF16Type();
  case DType::BF16:
    return b.getBF16Type();
  case DType::F32:
    return b.getF32Type();
  default:
    return b.getIntegerType(8 * byteWidth(dtype));
  }
}

DataAttr mlir::gptq::getData(const CheckpointTensor &tensor,
                             MLIRContext *context) {
  SmallVector<int64_t> shape(tensor.info->shape.begin(),
                             tensor.info->shape.end());
  auto type =
      RankedTensorType::get(shape, getElementType(tensor.info->dtype, context));
  return DataAttr::get(context, StringAttr::get(context, tensor.file),
                       StringAttr::get(context, tensor.name),
                       int64_t(tensor.offset), type);
}

View mlir::gptq::getDataView(const CheckpointTensor &tensor,
                             MLIRContext *context) {
  DataAttr data = getData(tensor, context);
  return {data.getType(), data, {}};
}

abi::Expected<View> mlir::gptq::readDense(Checkpoint &checkpoint,
                                          StringRef name,
                                          ArrayRef<int64_t> shape,
                                          MLIRContext *context) {
  GPTQ_ASSIGN(CheckpointTensor tensor,
              checkpoint.get(name, kFloatDTypes, shape));
  return getDataView(tensor, context);
}

uint32_t mlir::gptq::loadWord(abi::ByteSpan bytes, size_t i) {
  return llvm::support::endian::read32le(bytes.data + 4 * i);
}

//===----------------------------------------------------------------------===//
// Views
//===----------------------------------------------------------------------===//

View mlir::gptq::getCodesView(CodesAttr codes, int64_t rows, int64_t columns) {
  auto element = IntegerType::get(codes.getContext(), codes.getBits());
  return {RankedTensorType::get({rows, columns}, element), codes, {}};
}

View mlir::gptq::getTransposedView(const CheckpointTensor &tensor, int64_t rows,
                                   int64_t columns, MLIRContext *context) {
  Type element = getElementType(tensor.info->dtype, context);
  auto codes =
      CodesAttr::get(getData(tensor, context), element.getIntOrFloatBitWidth(),
                     Packing::Columns, /*transposed=*/true);
  return {RankedTensorType::get({rows, columns}, element), codes, {}};
}

FlatSymbolRefAttr mlir::gptq::getPartRef(int i, MLIRContext *context) {
  return FlatSymbolRefAttr::get(context, std::to_string(i));
}

View mlir::gptq::getReordered(View source, View order, int64_t dim,
                              MLIRContext *context) {
  if (!source)
    return {};
  auto gather = GatherAttr::get(context, getPartRef(0, context),
                                getPartRef(1, context), dim);
  RankedTensorType type = source.type;
  return {type, gather, {std::move(source), std::move(order)}};
}

std::optional<int64_t>
mlir::gptq::findConstant(CodesAttr codes, int64_t rows, int64_t columns,
                         const CheckpointTensor &tensor) {
  CodesReader reader(codes, rows, columns, tensor.bytes.data);
  std::vector<uint8_t> row(columns);
  std::optional<uint8_t> first;
  for (int64_t r = 0; r < rows; ++r) {
    reader.readRow(r, row.data());
    if (!first)
      first = row[0];
    if (llvm::any_of(row, [&](uint8_t code) { return code != *first; }))
      return std::nullopt;
  }
  return first;
}

void mlir::gptq::setZeros(LinearViews &linear, CodesAttr codes, int64_t groups,
                          const CheckpointTensor &tensor) {
  linear.zeroPoint = findConstant(codes, groups, linear.n, tensor);
  (linear.zeroPoint ? linear.constantZeros : linear.zeros) =
      getCodesView(codes, groups, linear.n);
}

abi::Status mlir::gptq::readGroupIndex(const CheckpointTensor &tensor,
                                       int64_t groups, LinearViews &linear,
                                       MLIRContext *context) {
  SmallVector<int64_t> members(groups, 0);
  bool isOrdered = true;
  for (int64_t row = 0; row < linear.k; ++row) {
    int64_t stored = int32_t(loadWord(tensor.bytes, row));
    // Readers index with it, and a negative index counts from the end.
    int64_t group = stored < 0 ? stored + groups : stored;
    if (group < 0 || group >= groups)
      return abi::makeStatus(
          StatusCode::InvalidFile,
          "tensor %s in '%s': expected groups from %lld to %lld, but row %lld "
          "is in group %lld",
          abi::quoteForMessage(tensor.name).c_str(), tensor.file.str().c_str(),
          (long long)-groups, (long long)groups - 1, (long long)row,
          (long long)stored);
    ++members[group];
    isOrdered &= stored == row / linear.groupSize;
  }
  for (int64_t group = 0; group < groups; ++group) {
    int64_t expected =
        std::min(linear.groupSize, linear.k - group * linear.groupSize);
    if (members[group] != expected)
      return abi::makeStatus(
          StatusCode::Unsupported,
          "tensor %s in '%s': expected group %lld to have %lld rows, found "
          "%lld",
          abi::quoteForMessage(tensor.name).c_str(), tensor.file.str().c_str(),
          (long long)group, (long long)expected, (long long)members[group]);
  }
  // In one group there is no order to keep.
  (!isOrdered && groups > 1 ? linear.groupIndex : linear.orderedIndex) =
      getDataView(tensor, context);
  return abi::Status::success();
}

//===----------------------------------------------------------------------===//
// Values
//===----------------------------------------------------------------------===//

/// Returns the first element of a floating-point tensor for whose bits
/// `isWanted` is true.
template <typename Fn>
static std::optional<size_t> findElement(const CheckpointTensor &tensor,
                                         Fn isWanted) {
  size_t width = byteWidth(tensor.info->dtype);
  const uint8_t *data = tensor.bytes.data;
  for (size_t i = 0, e = tensor.bytes.size / width; i < e; ++i) {
    uint32_t bits = width == 4 ? llvm::support::endian::read32le(data + 4 * i)
                               : llvm::support::endian::read16le(data + 2 * i);
    if (isWanted(bits))
      return i;
  }
  return std::nullopt;
}

abi::Status mlir::gptq::checkFinite(const CheckpointTensor &tensor) {
  uint32_t exponent = 0x7F800000;
  if (tensor.info->dtype == DType::F16)
    exponent = 0x7C00;
  else if (tensor.info->dtype == DType::BF16)
    exponent = 0x7F80;
  std::optional<size_t> at = findElement(
      tensor, [&](uint32_t bits) { return (bits & exponent) == exponent; });
  if (!at)
    return abi::Status::success();
  return abi::makeStatus(StatusCode::InvalidFile,
                         "tensor %s in '%s': expected finite numbers, but "
                         "element %zu is infinite or not a number",
                         abi::quoteForMessage(tensor.name).c_str(),
                         tensor.file.str().c_str(), *at);
}

/// Whether every element is +0 or -0.
static bool isAllZero(const CheckpointTensor &tensor) {
  uint32_t sign = byteWidth(tensor.info->dtype) == 4 ? 0x80000000u : 0x8000u;
  return !findElement(tensor, [&](uint32_t bits) { return bits & ~sign; });
}

/// Reads `module`.bias as `rule` says; nothing where there is none, or one of
/// zeros that nothing asks for: some writers add it to every layer.
static abi::Expected<View> readBias(Checkpoint &checkpoint, StringRef module,
                                    int64_t n, BiasRule rule,
                                    MLIRContext *context) {
  std::string name = (module + ".bias").str();
  if (rule != BiasRule::Required && !checkpoint.has(name))
    return View();
  GPTQ_ASSIGN(CheckpointTensor tensor, checkpoint.get(name, kFloatDTypes, n));
  GPTQ_TRY(checkFinite(tensor));
  if (rule != BiasRule::Required && isAllZero(tensor))
    return View();
  return getDataView(tensor, context);
}

abi::Expected<LinearViews>
mlir::gptq::readLinear(Checkpoint &checkpoint, const Format *format,
                       StringRef module, std::optional<LinearShape> shape,
                       BiasRule biasRule, MLIRContext *context) {
  LinearViews linear;
  std::string weightName = (module + ".weight").str();
  if (format && format->holds(checkpoint, module)) {
    if (checkpoint.has(weightName))
      return abi::makeStatus(
          StatusCode::InvalidFile,
          "module %s: expected a quantized or a dense weight, found both",
          abi::quoteForMessage(module).c_str());
    GPTQ_ASSIGN(linear, format->read(checkpoint, module, shape, context));
  } else if (!format && (checkpoint.has((module + ".qweight").str()) ||
                         checkpoint.has((module + ".weight_packed").str()))) {
    return abi::makeStatus(
        StatusCode::InvalidFile,
        "module %s is quantized, but there is no quantization_config in "
        "config.json and no quantize_config.json",
        abi::quoteForMessage(module).c_str());
  } else {
    int64_t n = shape ? shape->n : -1, k = shape ? shape->k : -1;
    GPTQ_ASSIGN(CheckpointTensor weight,
                checkpoint.get(weightName, kFloatDTypes, {n, k}));
    linear.n = weight.dim(0);
    linear.k = weight.dim(1);
    linear.weight = getDataView(weight, context);
  }
  GPTQ_ASSIGN(linear.bias,
              readBias(checkpoint, module, linear.n, biasRule, context));
  if (linear.outputOrder) {
    auto reorder = [&](View &view, int64_t dim) {
      view = getReordered(std::move(view), linear.outputOrder, dim, context);
    };
    reorder(linear.weight, 0);
    for (View *view :
         {&linear.codes, &linear.scales, &linear.zeros, &linear.offsets})
      reorder(*view, 1);
    reorder(linear.bias, 0);
  }
  return linear;
}
