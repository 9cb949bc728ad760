//===- EmitKernel.cpp - Lone linear layers with random weights ------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Import/Import.h"
#include "lib/Import/ModelBuilder.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
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
        "kernel shape: expected N,K,bits,group with bits 2 to 8 or 16, then "
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
      !llvm::is_contained({2, 3, 4, 5, 6, 7, 8, 16}, shape.bits) ||
      shape.group < -1 || shape.group == 0)
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

namespace {
/// Words of a stream of elements of `bits` bits, lowest first.
class BitStream {
public:
  explicit BitStream(int64_t bits) : bits(bits) {}
  void add(uint32_t element) {
    pending |= uint64_t(element) << filled;
    filled += bits;
    if (filled < 32)
      return;
    words.push_back(uint32_t(pending));
    pending >>= 32;
    filled -= 32;
  }
  std::vector<uint32_t> take() {
    if (filled > 0)
      words.push_back(uint32_t(pending));
    return std::move(words);
  }

private:
  int64_t bits, filled = 0;
  uint64_t pending = 0;
  std::vector<uint32_t> words;
};

/// A layer of any width: codes and zero points are streams of bits, zero points
/// as they are.
class MadeUpFormat final : public Format {
public:
  explicit MadeUpFormat(const KernelShape &shape) : shape(shape) {}

  std::string describe() const override { return "made up"; }
  bool holds(const Checkpoint &, StringRef) const override { return true; }
  abi::Expected<LinearViews> read(Checkpoint &checkpoint, StringRef module,
                                  std::optional<LinearShape>,
                                  MLIRContext *context) const override {
    auto codes = [&](const CheckpointTensor &tensor, int64_t rows,
                     Packing packing) {
      auto type = RankedTensorType::get({rows, shape.n},
                                        IntegerType::get(context, shape.bits));
      return View{
          type, CodesAttr::get(getData(tensor, context), shape.bits, packing)};
    };
    auto get = [&](StringRef part, int64_t rank = 2) {
      return checkpoint.get((module + "." + part).str(),
                            {DType::I32, DType::F16},
                            SmallVector<int64_t>(rank, -1));
    };
    LinearViews linear;
    linear.n = shape.n;
    linear.k = shape.k;
    linear.bits = shape.bits;
    linear.groupSize =
        shape.group < 0 ? shape.k : std::min(shape.group, shape.k);
    GPTQ_ASSIGN(CheckpointTensor qweight, get("qweight"));
    linear.codes = codes(qweight, shape.k, Packing::Rows);
    GPTQ_ASSIGN(CheckpointTensor scales, get("scales"));
    linear.scales = getDataView(scales, context);
    if (shape.isSymmetric) {
      linear.zeroPoint = int64_t(1) << (shape.bits - 1);
    } else {
      GPTQ_ASSIGN(CheckpointTensor zeros, get("qzeros"));
      linear.zeros = codes(zeros, llvm::divideCeil(shape.k, linear.groupSize),
                           Packing::Columns);
    }
    if (shape.isActOrder) {
      GPTQ_ASSIGN(CheckpointTensor groupIndex, get("g_idx", 1));
      linear.groupIndex = getDataView(groupIndex, context);
    }
    return linear;
  }

private:
  KernelShape shape;
};
} // namespace

/// Writes the tensors of a quantized layer.
static void addQuantized(TensorWriter &writer, const abi::RandomLayer &layer) {
  uint64_t n = layer.n, k = layer.k, groups = layer.groups();
  uint64_t rowWords = llvm::divideCeil(k * layer.bits, 32);
  std::vector<std::vector<uint32_t>> columns;
  for (uint64_t column = 0; column < n; ++column) {
    BitStream stream(layer.bits);
    for (uint64_t row = 0; row < k; ++row)
      stream.add(layer.code(row, column));
    columns.push_back(stream.take());
  }
  std::string bytes;
  for (uint64_t row = 0; row < rowWords; ++row)
    for (uint64_t column = 0; column < n; ++column)
      append(bytes, columns[column][row], 4);
  writer.add("layer.qweight", DType::I32, {rowWords, n}, bytes);

  if (!layer.isSymmetric) {
    bytes.clear();
    for (uint64_t g = 0; g < groups; ++g) {
      BitStream stream(layer.bits);
      for (uint64_t column = 0; column < n; ++column)
        stream.add(layer.zero(g, column));
      for (uint32_t word : stream.take())
        append(bytes, word, 4);
    }
    writer.add("layer.qzeros", DType::I32,
               {groups, llvm::divideCeil(n * layer.bits, 32)}, bytes);
  }

  bytes.clear();
  for (uint64_t g = 0; g < groups; ++g)
    for (uint64_t column = 0; column < n; ++column)
      append(bytes, layer.scale(g, column), 2);
  writer.add("layer.scales", DType::F16, {groups, n}, bytes);
  if (!layer.isActOrder)
    return;
  bytes.clear();
  for (uint32_t g : layer.groupOfRows())
    append(bytes, g, 4);
  writer.add("layer.g_idx", DType::I32, {k}, bytes);
}

/// Builds the module of the layer whose tensors `folder` holds.
static abi::Expected<OwningOpRef<ModuleOp>>
buildLayer(Folder &folder, const Format *format, MLIRContext *context) {
  context->loadDialect<GPTQDialect, func::FuncDialect, tensor::TensorDialect>();
  GPTQ_ASSIGN(std::unique_ptr<Checkpoint> checkpoint, Checkpoint::open(folder));
  ModelBuilder builder(*checkpoint, format, context);
  GPTQ_TRY(builder.addLayer("layer"));
  builder.getModule()->setAttr(kFolderAttr,
                               StringAttr::get(context, folder.path()));
  return builder.take();
}

OwningOpRef<ModuleOp>
mlir::gptq::emitKernelModule(const KernelShape &shape, StringRef folder,
                             StringRef file, MLIRContext *context,
                             std::string &weights, std::string &error) {
  TensorWriter writer;
  const abi::RandomLayer layer{shape.n,           shape.k,
                               shape.bits,        shape.group,
                               shape.isSymmetric, shape.isActOrder};
  std::unique_ptr<Format> format;
  if (shape.bits == 16) {
    std::string bytes;
    for (int64_t column = 0; column < shape.n; ++column)
      for (int64_t row = 0; row < shape.k; ++row)
        append(bytes, layer.dense(row, column), 2);
    writer.add("layer.weight", DType::F16,
               {uint64_t(shape.n), uint64_t(shape.k)}, bytes);
  } else {
    addQuantized(writer, layer);
    format = std::make_unique<MadeUpFormat>(shape);
  }
  weights = writer.take();
  MemoryFolder memory(folder.str());
  memory.add(file, weights);
  abi::Expected<OwningOpRef<ModuleOp>> module =
      buildLayer(memory, format.get(), context);
  if (!module) {
    error = module.status().message();
    return {};
  }
  return module.take();
}
