//===- GPTQTensors.h - Layers as GPTQ checkpoints store them -----*- C++
//-*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_EXPORT_GPTQTENSORS_H
#define GPTQ_EXPORT_GPTQTENSORS_H

#include "gptq/Export/TensorFile.h"

namespace mlir::gptq {

/// One quantized layer, imported alone, whatever format it came from.
class QuantizedLayer {
public:
  /// Finds the one `gptq.dequant_matmul` of `module`.
  static model::Expected<std::unique_ptr<QuantizedLayer>>
  open(OwningOpRef<ModuleOp> module);

  int64_t bits() { return matmul.getBits(); }
  /// -1: one group.
  int64_t groupSize();
  bool isSymmetric();
  bool isActOrder() { return bool(matmul.getGIdx()); }

  /// Adds the layer's tensors as `name`.qweight and so on to `tensors`, with
  /// zero points less one for version 1. They read from this layer while
  /// written.
  model::Status addTensors(StringRef name, bool isVersion1,
                           std::vector<TensorToWrite> &tensors);

private:
  explicit QuantizedLayer(OwningOpRef<ModuleOp> module)
      : module(std::move(module)), reader(*this->module) {}
  /// The weight that `value` loads.
  WeightOp weightOf(Value value);
  model::Status writeCodes(WeightReader::Sink sink);
  model::Status writeZeros(bool isVersion1, WeightReader::Sink sink);
  model::Status writeGroups(WeightReader::Sink sink);

  OwningOpRef<ModuleOp> module;
  WeightReader reader;
  DequantMatmulOp matmul;
};

} // namespace mlir::gptq

#endif // GPTQ_EXPORT_GPTQTENSORS_H
