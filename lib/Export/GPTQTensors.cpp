//===- GPTQTensors.cpp - Layers as GPTQ checkpoints store them ------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Export/GPTQTensors.h"
#include "mlir/IR/SymbolTable.h"
#include "llvm/Support/MathExtras.h"

#include <numeric>

using namespace mlir;
using namespace mlir::gptq;
using model::DType;
using model::Expected;
using model::Status;
using model::StatusCode;

/// Puts codes one after another into a stream of bits, lowest first.
static void putCode(MutableArrayRef<uint32_t> words, int64_t i, int64_t bits,
                    uint32_t code) {
  const int64_t word = i * bits / 32, shift = i * bits % 32;
  words[word] |= code << shift;
  if (shift + bits > 32)
    words[word + 1] |= code >> (32 - shift);
}

static Status give(WeightReader::Sink sink, ArrayRef<uint32_t> words) {
  return sink({reinterpret_cast<const uint8_t *>(words.data()),
               words.size() * sizeof(uint32_t)});
}

Expected<std::unique_ptr<QuantizedLayer>>
QuantizedLayer::open(OwningOpRef<ModuleOp> module) {
  std::unique_ptr<QuantizedLayer> layer(new QuantizedLayer(std::move(module)));
  layer->module->walk([&](DequantMatmulOp op) { layer->matmul = op; });
  if (!layer->matmul)
    return Status(StatusCode::InvalidArgument,
                  "expected a quantized layer, found none");
  return layer;
}

int64_t QuantizedLayer::groupSize() {
  const int64_t size = matmul.getGroupSize();
  return size >= matmul.getK() ? -1 : size;
}

bool QuantizedLayer::isSymmetric() {
  return matmul.getZeroPoint() == int64_t(1) << (bits() - 1);
}

WeightOp QuantizedLayer::weightOf(Value value) {
  auto load = value ? value.getDefiningOp<LoadWeightOp>() : nullptr;
  return load ? module->lookupSymbol<WeightOp>(load.getWeight()) : nullptr;
}

Status QuantizedLayer::writeCodes(WeightReader::Sink sink) {
  GPTQ_ASSIGN(std::unique_ptr<RowSource> codes,
              reader.open(weightOf(matmul.getCodes())));
  const int64_t columns = codes->columns, width = bits();
  // As many rows as fill whole words.
  const int64_t run = std::lcm(int64_t(32), width) / width;
  std::vector<uint8_t> row(codes->rowBytes());
  for (int64_t first = 0; first < codes->rows; first += run) {
    const int64_t rows = std::min(run, codes->rows - first);
    const int64_t height = llvm::divideCeil(rows * width, 32);
    std::vector<uint32_t> words(height * columns);
    for (int64_t r = 0; r < rows; ++r) {
      codes->readRow(first + r, row.data());
      const int64_t word = r * width / 32, shift = r * width % 32;
      for (int64_t c = 0; c < columns; ++c) {
        words[word * columns + c] |= uint32_t(row[c]) << shift;
        if (shift + width > 32)
          words[(word + 1) * columns + c] |= uint32_t(row[c]) >> (32 - shift);
      }
    }
    GPTQ_TRY(give(sink, words));
  }
  return Status();
}

Status QuantizedLayer::writeZeros(bool isVersion1, WeightReader::Sink sink) {
  const int64_t columns = matmul.getN(), width = bits();
  const uint32_t mask = (1u << width) - 1;
  std::unique_ptr<RowSource> zeros;
  if (matmul.getZeros()) {
    GPTQ_ASSIGN(zeros, reader.open(weightOf(matmul.getZeros())));
  }
  std::vector<uint8_t> row(columns, uint8_t(matmul.getZeroPoint().value_or(0)));
  // Fields of 3 bits straddle words: one is taken off each of them; else off
  // all fields of a word at once, as other writers do.
  const bool isByField = 32 % width != 0;
  uint32_t ones = 0;
  for (int64_t shift = 0; !isByField && shift < 32; shift += width)
    ones |= 1u << shift;
  for (int64_t g = 0; g < matmul.getNumGroups(); ++g) {
    if (zeros)
      zeros->readRow(g, row.data());
    std::vector<uint32_t> words(llvm::divideCeil(columns * width, 32));
    for (int64_t c = 0; c < columns; ++c)
      putCode(words, c, width,
              isVersion1 && isByField ? (row[c] - 1u) & mask : row[c]);
    if (isVersion1 && !isByField)
      for (uint32_t &word : words)
        word -= ones;
    GPTQ_TRY(give(sink, words));
  }
  return Status();
}

Status QuantizedLayer::writeGroups(WeightReader::Sink sink) {
  if (WeightOp index = weightOf(matmul.getGIdx()))
    return reader.read(index, sink);
  std::vector<uint32_t> groups(matmul.getK());
  for (auto [row, group] : llvm::enumerate(groups))
    group = row / matmul.getGroupSize();
  return give(sink, groups);
}

Status QuantizedLayer::addTensors(StringRef name, bool isVersion1,
                                  std::vector<TensorToWrite> &tensors) {
  const int64_t width = bits();
  if (!llvm::is_contained({2, 3, 4, 8}, width))
    return model::makeStatus(StatusCode::Unsupported,
                             "module '%s': expected codes of 2, 3, 4 or 8 "
                             "bits, which GPTQ streams, found %lld",
                             name.str().c_str(), (long long)width);
  if (matmul.getOffsets())
    return model::makeStatus(StatusCode::Unsupported,
                             "module '%s': expected whole zero points, which "
                             "GPTQ stores, found offsets",
                             name.str().c_str());
  WeightOp scales = weightOf(matmul.getScales());
  const uint64_t n = matmul.getN(), k = matmul.getK();
  const uint64_t groups = matmul.getNumGroups();
  auto words = [&](uint64_t codes) {
    return llvm::divideCeil(codes * uint64_t(width), 32);
  };
  auto add = [&](const char *part, DType dtype, std::vector<uint64_t> shape,
                 std::function<Status(WeightReader::Sink)> produce) {
    tensors.push_back({(name + "." + part).str(), dtype, std::move(shape),
                       std::move(produce)});
  };
  add("qweight", DType::I32, {words(k), n},
      [this](WeightReader::Sink sink) { return writeCodes(sink); });
  add("qzeros", DType::I32, {groups, words(n)},
      [this, isVersion1](WeightReader::Sink sink) {
        return writeZeros(isVersion1, sink);
      });
  add("scales", storedDType(scales.getTensorType().getElementType()),
      {groups, n}, [this, scales](WeightReader::Sink sink) {
        return reader.read(scales, sink);
      });
  add("g_idx", DType::I32, {k},
      [this](WeightReader::Sink sink) { return writeGroups(sink); });
  return Status();
}
