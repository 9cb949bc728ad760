//===- TensorFile.cpp - Writes safetensors files --------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Export/TensorFile.h"
#include "llvm/Support/Error.h"
#include "llvm/Support/raw_ostream.h"

using namespace mlir;
using namespace mlir::gptq;
using model::DType;
using model::Status;
using model::StatusCode;

Status mlir::gptq::writeTensorFile(StringRef path,
                                   const std::vector<TensorToWrite> &tensors) {
  std::vector<model::TensorInfo> infos;
  uint64_t offset = 0;
  for (const TensorToWrite &tensor : tensors) {
    uint64_t bytes = byteWidth(tensor.dtype);
    for (uint64_t size : tensor.shape)
      bytes *= size;
    infos.push_back(
        {tensor.name, tensor.dtype, tensor.shape, offset, offset + bytes});
    offset += bytes;
  }
  Status status;
  auto write = [&](raw_ostream &os) -> llvm::Error {
    os << model::writeSafeTensorsHeader(infos, {{"format", "pt"}},
                                        /*alignment=*/8);
    for (auto [tensor, info] : llvm::zip(tensors, infos)) {
      uint64_t written = 0;
      status = tensor.produce([&](model::ByteSpan bytes) {
        os.write(reinterpret_cast<const char *>(bytes.data), bytes.size);
        written += bytes.size;
        return Status();
      });
      if (status.ok() && written != info.byteSize())
        status = model::makeStatus(
            StatusCode::InvalidArgument,
            "tensor '%s' should have %llu bytes, but %llu were produced",
            info.name.c_str(), (unsigned long long)info.byteSize(),
            (unsigned long long)written);
      // Its text is the status; this only stops the writing. What is buffered
      // cannot be written any more once the file is discarded.
      if (!status.ok()) {
        os.flush();
        return llvm::createStringError("stopped");
      }
    }
    return llvm::Error::success();
  };
  llvm::Error error = llvm::writeToOutput(path, write);
  std::string text = llvm::toString(std::move(error));
  if (!status.ok())
    return status;
  if (!text.empty())
    return Status(StatusCode::ResourceExhausted,
                  "cannot write '" + path.str() + "': " + text);
  return Status();
}

DType mlir::gptq::storedDType(Type type) {
  if (type.isF16())
    return DType::F16;
  if (type.isBF16())
    return DType::BF16;
  if (type.isF32())
    return DType::F32;
  return type.getIntOrFloatBitWidth() == 32 ? DType::I32 : DType::U8;
}

Status mlir::gptq::writeWeights(ModuleOp module, StringRef path) {
  WeightReader reader(module);
  std::vector<TensorToWrite> tensors;
  for (WeightOp weight : module.getOps<WeightOp>()) {
    // The parts of a stack are there by themselves.
    if (isa<PackedAttr, StackAttr>(weight.getInit()))
      continue;
    RankedTensorType type = weight.getTensorType();
    tensors.push_back(
        {weight.getSymName().str(), storedDType(type.getElementType()),
         std::vector<uint64_t>(type.getShape().begin(), type.getShape().end()),
         [&reader, weight](WeightReader::Sink sink) {
           return reader.read(weight, sink);
         }});
  }
  return writeTensorFile(path, tensors);
}
