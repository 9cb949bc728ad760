//===- MatmulLayers.h - The lone matmuls that are measured ------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_TOOLS_GPTQ_BENCH_MATMULLAYERS_H
#define GPTQ_TOOLS_GPTQ_BENCH_MATMULLAYERS_H

#include "Bench.h"

#include "runtime/abi/RandomLayer.h"

#include <filesystem>

namespace gptq::bench {

/// A folder nobody else can enter, gone with the object.
class TempFolder {
public:
  TempFolder();
  TempFolder(const TempFolder &) = delete;
  ~TempFolder();

  std::filesystem::path path;
};

/// A made-up layer, and the compiled model that holds it.
struct CompiledLayer {
  abi::RandomLayer layer;
  std::string model;

  /// NxK.
  std::string shape() const;
  /// Shape and quantization, as a person reads them.
  std::string text() const;
  /// What a result says about its layer.
  nlohmann::ordered_json describe() const;
};

/// Compiles the layers that `options` ask for into `folder`.
std::vector<CompiledLayer> compileLayers(const MatmulOptions &options,
                                         const std::filesystem::path &folder);

/// Writes into `folder` what `readLayers` needs beside the compiled models.
void writeLayers(const std::vector<CompiledLayer> &layers,
                 const std::filesystem::path &folder);

/// The layers that were written into `folder`, perhaps on another machine.
std::vector<CompiledLayer> readLayers(const std::filesystem::path &folder);

} // namespace gptq::bench

#endif // GPTQ_TOOLS_GPTQ_BENCH_MATMULLAYERS_H
