//===- Formats/Format.cpp - How a checkpoint stores linear layers ---------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "lib/Import/Formats/Format.h"
#include "mlir/IR/Builders.h"
#include "llvm/Support/Endian.h"

using namespace mlir;
using namespace mlir::gptq;
using abi::DType;
using abi::StatusCode;

Format::~Format() = default;

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
  return {data.getType(), data};
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
  } else if (!format && checkpoint.has((module + ".qweight").str())) {
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
  return linear;
}
