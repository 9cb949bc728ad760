//===- EmitKernel.cpp - Lone linear layers with random weights ------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Import/Import.h"
#include "runtime/abi/Json.h"
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

/// SplitMix64: the same numbers everywhere.
class Random {
public:
  uint64_t next() {
    uint64_t z = (state += 0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return z ^ (z >> 31);
  }
  uint32_t below(uint32_t bound) { return uint32_t((next() >> 32) % bound); }

private:
  uint64_t state = 0;
};
} // namespace

static void append(std::string &bytes, uint64_t value, int width) {
  for (int i = 0; i < width; ++i)
    bytes.push_back(char(value >> (8 * i)));
}

/// Half-precision numbers 2^-e * [1, 2), positive or of either sign.
static std::string randomHalves(Random &random, int64_t count, int e,
                                bool isSigned) {
  std::string bytes;
  for (int64_t i = 0; i < count; ++i)
    append(bytes,
           (15 - e) << 10 | random.below(1024) |
               (isSigned ? random.below(2) << 15 : 0),
           2);
  return bytes;
}

OwningOpRef<ModuleOp>
mlir::gptq::emitKernelModule(const KernelShape &shape, StringRef folder,
                             StringRef file, MLIRContext *context,
                             std::string &weights, std::string &error) {
  Random random;
  TensorWriter writer;
  MemoryFolder memory(folder.str());
  uint64_t n = shape.n, k = shape.k, bits = shape.bits;
  if (bits == 16) {
    writer.add("layer.weight", DType::F16, {n, k},
               randomHalves(random, n * k, /*e=*/5, /*isSigned=*/true));
  } else {
    uint64_t group = shape.group < 0 ? k : std::min(uint64_t(shape.group), k);
    uint64_t groups = llvm::divideCeil(k, group);
    uint64_t rowWords = llvm::divideCeil(k * bits, 32);
    uint64_t zeroWords = llvm::divideCeil(n * bits, 32);
    std::string bytes;
    for (uint64_t i = 0; i < rowWords * n; ++i)
      append(bytes, random.next() >> 32, 4);
    writer.add("layer.qweight", DType::I32, {rowWords, n}, bytes);

    // As version 2 stores them: the true zero points, from 1 up.
    bytes.clear();
    for (uint64_t i = 0; i < groups * zeroWords; ++i) {
      uint32_t word = 0;
      for (uint64_t shift = 0; shift < 32; shift += bits)
        word |= (shape.isSymmetric ? 1u << (bits - 1)
                                   : 1 + random.below((1u << bits) - 1))
                << shift;
      append(bytes, word, 4);
    }
    writer.add("layer.qzeros", DType::I32, {groups, zeroWords}, bytes);
    writer.add("layer.scales", DType::F16, {groups, n},
               randomHalves(random, groups * n, /*e=*/int(bits) + 2,
                            /*isSigned=*/false));
    if (shape.isActOrder) {
      std::vector<uint32_t> index(k);
      for (uint64_t row = 0; row < k; ++row)
        index[row] = uint32_t(row / group);
      for (uint64_t row = k; row > 1; --row)
        std::swap(index[row - 1], index[random.below(uint32_t(row))]);
      bytes.clear();
      for (uint32_t g : index)
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
