//===- EmitKernel.cpp - Lone linear layers with random weights ------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Import/Import.h"
#include "runtime/abi/Json.h"
#include "runtime/abi/RandomLayer.h"
#include "runtime/abi/SafeTensors.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace mlir::gptq;
using abi::DType;
using abi::StatusCode;

/// Bytes of the weights of one layer at most; more than any published layer.
static constexpr int64_t kMaxElements = int64_t(1) << 31;

abi::Expected<KernelShape> KernelShape::parse(StringRef text) {
  auto invalid = [&] {
    return abi::makeStatus(
        StatusCode::InvalidArgument,
        "kernel shape: expected N,K,bits,group with bits 4, 8 or 16, then "
        "perhaps ,asym or ,act-order, found %s",
        abi::quoteForMessage(text).c_str());
  };
  SmallVector<StringRef> parts;
  text.split(parts, ',');
  if (parts.size() < 4)
    return invalid();
  KernelShape shape;
  int64_t *numbers[] = {&shape.n, &shape.k, &shape.bits, &shape.group};
  for (auto [part, number] : llvm::zip(parts, numbers))
    if (part.trim().getAsInteger(10, *number))
      return invalid();
  for (StringRef flag : ArrayRef(parts).drop_front(4)) {
    if (flag == "asym")
      shape.isSymmetric = false;
    else if (flag == "act-order")
      shape.isActOrder = true;
    else
      return invalid();
  }
  if (shape.n < 1 || shape.k < 1 || shape.n > kMaxElements / shape.k ||
      !llvm::is_contained({4, 8, 16}, shape.bits) || shape.group < -1 ||
      shape.group == 0)
    return invalid();
  return shape;
}

namespace {
/// Writes tensors one after another, and a header in front of them.
class TensorWriter {
public:
  void add(StringRef name, DType dtype, std::vector<uint64_t> shape,
           StringRef bytes) {
    uint64_t begin = data.size();
    data += bytes;
    infos.push_back({name.str(), dtype, std::move(shape), begin, data.size()});
  }
  std::string take() {
    return abi::writeSafeTensorsHeader(infos, {}, /*alignment=*/64) + data;
  }

private:
  std::vector<abi::TensorInfo> infos;
  std::string data;
};
} // namespace

static void append(std::string &bytes, uint64_t value, int width) {
  for (int i = 0; i < width; ++i)
    bytes.push_back(char(value >> (8 * i)));
}

OwningOpRef<ModuleOp>
mlir::gptq::emitKernelModule(const KernelShape &shape, StringRef folder,
                             StringRef file, MLIRContext *context,
                             std::string &weights, std::string &error) {
  TensorWriter writer;
  MemoryFolder memory(folder.str());
  uint64_t n = shape.n, k = shape.k, bits = shape.bits;
  const abi::RandomLayer layer{shape.n,           shape.k,
                               shape.bits,        shape.group,
                               shape.isSymmetric, shape.isActOrder};
  std::string bytes;
  if (bits == 16) {
    for (uint64_t column = 0; column < n; ++column)
      for (uint64_t row = 0; row < k; ++row)
        append(bytes, layer.dense(row, column), 2);
    writer.add("layer.weight", DType::F16, {n, k}, bytes);
  } else {
    uint64_t groups = layer.groups(), fields = 32 / bits;
    uint64_t rowWords = llvm::divideCeil(k, fields);
    uint64_t zeroWords = llvm::divideCeil(n, fields);
    /// A word of `fields` codes.
    auto word = [&](auto code) {
      uint32_t out = 0;
      for (uint64_t i = 0; i < fields; ++i)
        out |= code(i) << (i * bits);
      return out;
    };
    for (uint64_t row = 0; row < rowWords; ++row)
      for (uint64_t column = 0; column < n; ++column)
        append(bytes, word([&](uint64_t i) {
                 return layer.code(row * fields + i, column);
               }),
               4);
    writer.add("layer.qweight", DType::I32, {rowWords, n}, bytes);

    // As version 2 stores them: the true zero points.
    bytes.clear();
    for (uint64_t g = 0; g < groups; ++g)
      for (uint64_t column = 0; column < zeroWords; ++column)
        append(bytes, word([&](uint64_t i) {
                 return layer.zero(g, column * fields + i);
               }),
               4);
    writer.add("layer.qzeros", DType::I32, {groups, zeroWords}, bytes);

    bytes.clear();
    for (uint64_t g = 0; g < groups; ++g)
      for (uint64_t column = 0; column < n; ++column)
        append(bytes, layer.scale(g, column), 2);
    writer.add("layer.scales", DType::F16, {groups, n}, bytes);
    if (shape.isActOrder) {
      bytes.clear();
      for (uint32_t g : layer.groupOfRows())
        append(bytes, g, 4);
      writer.add("layer.g_idx", DType::I32, {k}, bytes);
    }
    abi::Json config = {{"bits", bits},
                        {"group_size", shape.group},
                        {"sym", shape.isSymmetric},
                        {"desc_act", shape.isActOrder},
                        {"quant_method", "gptq"},
                        {"checkpoint_format", "gptq_v2"}};
    memory.add("quantize_config.json", config.dump());
  }
  weights = writer.take();
  memory.add(file, weights);
  ImportOptions options;
  options.layer = "layer";
  return importCheckpoint(memory, options, context, error);
}
