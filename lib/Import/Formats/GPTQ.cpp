//===- Formats/GPTQ.cpp - GPTQ's qweight, qzeros, scales and g_idx --------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

//
// With b bits, K input rows, N output columns and G groups:
//
//   | tensor  | dtype, shape             | content                             |
//   | ------- | ------------------------ | ----------------------------------- |
//   | qweight | i32 [ceil(K*b/32), N]    | codes, packed along K               |
//   | qzeros  | i32 [G, ceil(N*b/32)]    | zero points (v1: less one), along N |
//   | scales  | f16, bf16 or f32 [G, N]  |                                     |
//   | g_idx   | i32 [K], may be left out | the group of each row               |
//
//===----------------------------------------------------------------------===//

#include "lib/Import/Formats/Format.h"
#include "mlir/IR/Builders.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace mlir::gptq;
using abi::DType;
using abi::Status;
using abi::StatusCode;

namespace {
/// Zero points, decoded: the one they all are, or how to read them.
struct ZeroPoints {
  std::optional<int64_t> constant;
  /// What makes the stored words the true ones (see #gptq.codes).
  uint32_t wordAdd = 0;
};

class GPTQFormat final : public Format {
public:
  explicit GPTQFormat(const QuantConfig &config) : config(config) {}

  std::string describe() const override {
    return "gptq " + std::to_string(config.bits) + "-bit " +
           (config.groupSize < 0 ? "one group"
                                 : "group " + std::to_string(config.groupSize));
  }
  bool holds(const Checkpoint &checkpoint, StringRef module) const override {
    return checkpoint.has((module + ".qweight").str());
  }
  abi::Expected<LinearViews> read(Checkpoint &checkpoint, StringRef module,
                                  std::optional<LinearShape> shape,
                                  MLIRContext *context) const override;

private:
  abi::Expected<ZeroPoints> analyzeZeros(Checkpoint &checkpoint,
                                         const CheckpointTensor &qzeros,
                                         int64_t n) const;

  QuantConfig config;
};
} // namespace

std::unique_ptr<Format>
mlir::gptq::createGPTQFormat(const QuantConfig &config) {
  return std::make_unique<GPTQFormat>(config);
}

//===----------------------------------------------------------------------===//
// g_idx
//===----------------------------------------------------------------------===//

/// Checks that each group has as many rows as it would have in order: all of
/// `groupSize` but the last. Returns whether the rows are out of order.
static abi::Expected<bool> checkGroupIndex(const CheckpointTensor &tensor,
                                           int64_t k, int64_t groups,
                                           int64_t groupSize) {
  SmallVector<int64_t> members(groups, 0);
  bool isOrdered = true;
  for (int64_t row = 0; row < k; ++row) {
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
    isOrdered &= stored == row / groupSize;
  }
  for (int64_t group = 0; group < groups; ++group) {
    int64_t expected = std::min(groupSize, k - group * groupSize);
    if (members[group] != expected)
      return abi::makeStatus(
          StatusCode::Unsupported,
          "tensor %s in '%s': expected group %lld to have %lld rows, found "
          "%lld",
          abi::quoteForMessage(tensor.name).c_str(), tensor.file.str().c_str(),
          (long long)group, (long long)expected, (long long)members[group]);
  }
  // In one group there is no order to keep.
  return !isOrdered && groups > 1;
}

//===----------------------------------------------------------------------===//
// qzeros
//===----------------------------------------------------------------------===//

/// A word with `field` in each of its fields.
static uint32_t repeatField(uint32_t field, int64_t bits) {
  uint32_t word = 0;
  for (int64_t shift = 0; shift < 32; shift += bits)
    word |= field << shift;
  return word;
}

/// Calls `fn(word, mask)` for each word, `mask` selecting its bits that are
/// not padding, until it returns false; returns whether it never did.
template <typename Fn>
static bool allWords(const CheckpointTensor &qzeros, int64_t n, int64_t bits,
                     Fn fn) {
  size_t width = qzeros.dim(1), words = qzeros.dim(0) * width;
  uint32_t lastMask = n * bits % 32 ? (1u << n * bits % 32) - 1 : ~0u;
  for (size_t i = 0; i < words; ++i)
    if (!fn(loadWord(qzeros.bytes, i), i % width == width - 1 ? lastMask : ~0u))
      return false;
  return true;
}

/// Whether the words look like those of a writer that put -1 for a zero point
/// of 0 as 32 set bits over its field and all above it, so that these are
/// lost. Fields of set bits occur in sound words, too, but not with nothing
/// else above them in every case: three such fields above make that a chance
/// of less than one in 2^(3*bits).
static bool areOverwritten(const CheckpointTensor &qzeros, int64_t n,
                           int64_t bits) {
  uint32_t field = (1u << bits) - 1;
  int64_t evidence = 0;
  auto isConsistent = [&](uint32_t word, uint32_t mask) {
    int64_t end = llvm::popcount(mask);
    for (int64_t shift = 0; shift + bits < end; shift += bits) {
      if ((word >> shift & field) != field)
        continue;
      evidence += (end - shift) / bits - 1;
      return (word & mask) >> shift == mask >> shift;
    }
    return true;
  };
  return allWords(qzeros, n, bits, isConsistent) && evidence >= 3;
}

abi::Expected<ZeroPoints>
GPTQFormat::analyzeZeros(Checkpoint &checkpoint, const CheckpointTensor &qzeros,
                         int64_t n) const {
  int64_t bits = config.bits;
  uint32_t half = 1u << (bits - 1), ones = repeatField(1, bits);
  auto isConstant = [&](uint32_t pattern) {
    return allWords(qzeros, n, bits, [&](uint32_t word, uint32_t mask) {
      return (word & mask) == (pattern & mask);
    });
  };

  // Symmetric files hold one constant, from which their version follows; what
  // they say about it is wrong often enough.
  bool isV1 = isConstant(repeatField(half - 1, bits));
  bool isV2 = !isV1 && isConstant(repeatField(half, bits));
  if (isV1 || isV2) {
    bool isAsDeclared = isV2 == config.storesTrueZeros;
    if (isAsDeclared || config.isSymmetric) {
      if (!isAsDeclared)
        checkpoint.warn(std::string("checkpoint_format is ") +
                        (config.storesTrueZeros ? "gptq_v2" : "gptq") +
                        ", but the zero points are stored as in " +
                        (isV2 ? "gptq_v2" : "gptq") + ", which is used");
      return ZeroPoints{int64_t(half), 0};
    }
  } else if (config.isSymmetric) {
    checkpoint.warn("sym is true, but the stored zero points are not those of "
                    "a symmetric file; they are used as stored");
  }

  ZeroPoints zeros;
  zeros.wordAdd = config.storesTrueZeros ? 0 : ones;
  if (zeros.wordAdd && areOverwritten(qzeros, n, bits))
    return abi::makeStatus(
        StatusCode::InvalidFile,
        "tensor %s in '%s': zero points next to zero points of 0 are "
        "overwritten with ones, as a faulty writer left them, and cannot be "
        "recovered",
        abi::quoteForMessage(qzeros.name).c_str(), qzeros.file.str().c_str());
  uint32_t field = (1u << bits) - 1;
  uint32_t first = (loadWord(qzeros.bytes, 0) + zeros.wordAdd) & field;
  uint32_t pattern = repeatField(first, bits);
  if (allWords(qzeros, n, bits, [&](uint32_t word, uint32_t mask) {
        return ((word + zeros.wordAdd) & mask) == (pattern & mask);
      }))
    zeros.constant = first;
  return zeros;
}

//===----------------------------------------------------------------------===//
// A layer
//===----------------------------------------------------------------------===//

abi::Expected<LinearViews> GPTQFormat::read(Checkpoint &checkpoint,
                                            StringRef module,
                                            std::optional<LinearShape> shape,
                                            MLIRContext *context) const {
  auto name = [&](StringRef part) { return (module + "." + part).str(); };
  auto words = [&](int64_t codes) {
    return int64_t(llvm::divideCeil(uint64_t(codes) * config.bits, 32));
  };
  LinearViews linear;
  linear.bits = config.bits;

  GPTQ_ASSIGN(
      CheckpointTensor qweight,
      checkpoint.get(name("qweight"), DType::I32,
                     {shape ? words(shape->k) : -1, shape ? shape->n : -1}));
  linear.n = qweight.dim(1);
  if (shape)
    linear.k = shape->k;
  else
    linear.k = qweight.dim(0) * (32 / config.bits);
  bool hasGroupIndex = checkpoint.has(name("g_idx"));
  std::optional<CheckpointTensor> groupIndex;
  if (hasGroupIndex) {
    GPTQ_ASSIGN(groupIndex, checkpoint.get(name("g_idx"), DType::I32,
                                           shape ? linear.k : -1));
    // It alone knows K where the last word of a column has padding.
    linear.k = groupIndex->dim(0);
  }
  if (qweight.dim(0) != words(linear.k))
    return abi::makeStatus(
        StatusCode::InvalidFile,
        "tensor %s in '%s': expected %lld rows for the %lld rows of g_idx, "
        "found %lld",
        abi::quoteForMessage(qweight.name).c_str(), qweight.file.str().c_str(),
        (long long)words(linear.k), (long long)linear.k,
        (long long)qweight.dim(0));

  linear.groupSize =
      config.groupSize < 0 ? linear.k : std::min(config.groupSize, linear.k);
  int64_t groups = llvm::divideCeil(linear.k, linear.groupSize);
  GPTQ_ASSIGN(CheckpointTensor scales,
              checkpoint.get(name("scales"), kFloatDTypes, {groups, linear.n}));
  GPTQ_TRY(checkFinite(scales));
  GPTQ_ASSIGN(
      CheckpointTensor qzeros,
      checkpoint.get(name("qzeros"), DType::I32, {groups, words(linear.n)}));
  GPTQ_ASSIGN(ZeroPoints zeros, analyzeZeros(checkpoint, qzeros, linear.n));

  auto codeType = IntegerType::get(context, config.bits);
  linear.codes.type = RankedTensorType::get({linear.k, linear.n}, codeType);
  linear.codes.init = CodesAttr::get(context, getData(qweight, context),
                                     config.bits, Packing::Rows, /*wordAdd=*/0);
  linear.scales = getDataView(scales, context);
  linear.zeroPoint = zeros.constant;
  if (!zeros.constant) {
    linear.zeros.type = RankedTensorType::get({groups, linear.n}, codeType);
    linear.zeros.init =
        CodesAttr::get(context, getData(qzeros, context), config.bits,
                       Packing::Columns, zeros.wordAdd);
  }
  if (groupIndex) {
    GPTQ_ASSIGN(bool isPermuted, checkGroupIndex(*groupIndex, linear.k, groups,
                                                 linear.groupSize));
    if (isPermuted)
      linear.groupIndex = getDataView(*groupIndex, context);
  }
  return linear;
}
