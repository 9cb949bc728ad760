//===- Formats/CompressedTensors.cpp - pack-quantized weights -----------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// With b bits, K input rows, N output columns and G groups:
//
//   | tensor            | dtype, shape                | content              |
//   | ----------------- | --------------------------- | -------------------- |
//   | weight_packed     | i32 [N, ceil(K*b/32)]       | codes, along K       |
//   | weight_scale      | f16, bf16 or f32 [N, G]     |                      |
//   | weight_zero_point | i32 [ceil(N*b/32), G]       | along N; where they  |
//   |                   |                             | are not symmetric    |
//   | weight_shape      | i64 or i32 [2]              | N, K                 |
//   | weight_g_idx      | i32 [K], may be left out    | the group of a row   |
//
// Codes are stored plus 2^(b-1), that is, unsigned. Where b does not divide
// 32, older files put 32 / b whole codes into a word: [N, ceil(K / (32 / b))].
//
//===----------------------------------------------------------------------===//

#include "lib/Import/Config.h"
#include "lib/Import/Formats/Format.h"
#include "mlir/IR/Builders.h"
#include "llvm/Support/Endian.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace mlir::gptq;
using abi::DType;
using abi::JsonView;
using abi::Status;
using abi::StatusCode;

//===----------------------------------------------------------------------===//
// Settings
//===----------------------------------------------------------------------===//

/// Checks that `key` is left out: nothing else is read.
static Status expectNone(const JsonView &object, StringRef key) {
  if (std::optional<JsonView> value = findValue(object, key))
    return abi::makeStatus(StatusCode::Unsupported,
                           "%s: is not supported, expected null",
                           value->path().c_str());
  return Status::success();
}

static abi::Expected<QuantSettings> readWeights(const JsonView &weights) {
  QuantSettings settings;
  GPTQ_ASSIGN(settings.bits, readInteger(weights, "num_bits", 2, 8));
  GPTQ_ASSIGN(std::string type, readString(weights, "type", "int"));
  if (type != "int")
    return unsupported(weights, "type", type, "'int'");
  GPTQ_ASSIGN(settings.isSymmetric, readBool(weights, "symmetric", true));
  GPTQ_ASSIGN(bool isDynamic, readBool(weights, "dynamic", false));
  if (isDynamic)
    return unsupported(weights, "dynamic", "true", "false");
  std::optional<JsonView> size = findValue(weights, "group_size");
  GPTQ_ASSIGN(std::string strategy,
              readString(weights, "strategy", size ? "group" : "channel"));
  settings.groupSize = -1;
  if (strategy == "group") {
    GPTQ_ASSIGN(settings.groupSize, readGroupSize(weights));
  } else if (strategy != "channel") {
    return unsupported(weights, "strategy", strategy, "'group' or 'channel'");
  }
  // Older files have a boolean here.
  std::optional<JsonView> order = findValue(weights, "actorder");
  if (order && order->raw().is_boolean()) {
    settings.isActOrder = order->raw().get<bool>();
  } else if (order) {
    GPTQ_ASSIGN(std::string name, order->string());
    if (!llvm::is_contained({"group", "weight", "static"}, name))
      return unsupported(weights, "actorder", name,
                         "'group', 'weight' or 'static'");
    settings.isActOrder = name == "group";
  }
  return settings;
}

static Status checkPacking(const JsonView &holder) {
  GPTQ_ASSIGN(std::string format,
              readString(holder, "format", "pack-quantized"));
  if (format != "pack-quantized" && format != "mixed-precision")
    return unsupported(holder, "format", format, "'pack-quantized'");
  return Status::success();
}

/// A target or an entry of `ignore`: a name, or a pattern after "re:".
static abi::Expected<ModuleRule> readTarget(const JsonView &value) {
  GPTQ_ASSIGN(std::string text, value.string());
  StringRef pattern = text;
  if (pattern.consume_front("re:"))
    return ModuleRule::fromPattern(value, pattern);
  ModuleRule rule;
  rule.text = text;
  // Names of classes have no dots; all that is quantized here is linear.
  rule.isForAll = text == "Linear";
  return rule;
}

Status mlir::gptq::readCompressedTensorsConfig(const JsonView &config,
                                               QuantConfig &quant) {
  quant.format = "pack-quantized";
  GPTQ_TRY(checkPacking(config));
  GPTQ_TRY(expectNone(config, "kv_cache_scheme"));
  if (std::optional<JsonView> ignored = findValue(config, "ignore")) {
    GPTQ_ASSIGN(std::vector<JsonView> elements, ignored->elements());
    for (const JsonView &element : elements) {
      GPTQ_ASSIGN(ModuleRule rule, readTarget(element));
      quant.rules.push_back(std::move(rule));
    }
  }
  GPTQ_ASSIGN(JsonView groups, config.at("config_groups"));
  GPTQ_TRY(groups.expectObject());
  // What names a module comes before what means all.
  std::vector<ModuleRule> general;
  for (auto it = groups.raw().begin(); it != groups.raw().end(); ++it) {
    JsonView group(*it, groups.path() + "." + abi::quoteForMessage(it.key()));
    GPTQ_TRY(group.expectObject());
    GPTQ_TRY(checkPacking(group));
    GPTQ_TRY(expectNone(group, "input_activations"));
    GPTQ_TRY(expectNone(group, "output_activations"));
    GPTQ_ASSIGN(JsonView weights, group.at("weights"));
    GPTQ_TRY(weights.expectObject());
    GPTQ_ASSIGN(QuantSettings settings, readWeights(weights));
    GPTQ_ASSIGN(JsonView targets, group.at("targets"));
    GPTQ_ASSIGN(std::vector<JsonView> elements, targets.elements());
    if (it == groups.raw().begin())
      static_cast<QuantSettings &>(quant) = settings;
    for (const JsonView &element : elements) {
      GPTQ_ASSIGN(ModuleRule rule, readTarget(element));
      rule.settings = settings;
      (rule.isForAll ? general : quant.rules).push_back(std::move(rule));
    }
  }
  llvm::move(general, std::back_inserter(quant.rules));
  return Status::success();
}

//===----------------------------------------------------------------------===//
// A layer
//===----------------------------------------------------------------------===//

namespace {
class CompressedTensorsFormat final : public Format {
public:
  explicit CompressedTensorsFormat(const QuantConfig &config)
      : config(config) {}

  std::string describe() const override { return describeSettings(config); }
  bool holds(const Checkpoint &checkpoint, StringRef module) const override {
    return checkpoint.has((module + ".weight_packed").str());
  }
  abi::Expected<LinearViews> read(Checkpoint &checkpoint, StringRef module,
                                  std::optional<LinearShape> shape,
                                  MLIRContext *context) const override;

private:
  QuantConfig config;
};
} // namespace

std::unique_ptr<Format>
mlir::gptq::createCompressedTensorsFormat(const QuantConfig &config) {
  return std::make_unique<CompressedTensorsFormat>(config);
}

/// Reads N and K, and checks them against `shape`.
static abi::Expected<LinearShape> readShape(Checkpoint &checkpoint,
                                            const std::string &name,
                                            std::optional<LinearShape> shape) {
  static constexpr DType integers[] = {DType::I64, DType::I32};
  GPTQ_ASSIGN(CheckpointTensor tensor, checkpoint.get(name, integers, 2));
  int64_t found[2];
  for (size_t i = 0; i < 2; ++i)
    found[i] = tensor.info->dtype == DType::I64
                   ? int64_t(llvm::support::endian::read64le(tensor.bytes.data +
                                                             8 * i))
                   : int32_t(loadWord(tensor.bytes, i));
  bool fits = found[0] >= 1 && found[1] >= 1 && found[0] <= kMaxWidth &&
              found[1] <= kMaxWidth;
  if (shape)
    fits = found[0] == shape->n && found[1] == shape->k;
  if (!fits)
    return abi::makeStatus(
        StatusCode::InvalidFile,
        "tensor %s in '%s': expected N and K, %s, found %lld and %lld",
        abi::quoteForMessage(tensor.name).c_str(), tensor.file.str().c_str(),
        shape ? (std::to_string(shape->n) + " and " + std::to_string(shape->k))
                    .c_str()
              : "positive",
        (long long)found[0], (long long)found[1]);
  return LinearShape{found[0], found[1]};
}

/// Whether the bits above the last whole code are 0 in all words: codes across
/// words would use them.
static bool areSpareBitsUnused(const CheckpointTensor &tensor, int64_t bits) {
  const uint32_t used = (uint64_t(1) << 32 / bits * bits) - 1;
  for (size_t i = 0, e = tensor.bytes.size / 4; i < e; ++i)
    if (loadWord(tensor.bytes, i) & ~used)
      return false;
  return true;
}

/// The view of codes that lie along dimension `along` of `tensor`, `size` of
/// them, in whichever of the two packings its size says.
static abi::Expected<CodesAttr> readPacked(const CheckpointTensor &tensor,
                                           int64_t bits, int along,
                                           int64_t size, MLIRContext *context) {
  const int64_t dense = llvm::divideCeil(size * bits, 32);
  const int64_t padded = llvm::divideCeil(size, 32 / bits);
  const int64_t found = tensor.dim(along);
  if (found != dense && found != padded)
    return abi::makeStatus(
        StatusCode::InvalidFile,
        "tensor %s in '%s': expected %lld words for %lld codes of %lld bits, "
        "or %lld without codes across words, found %lld",
        abi::quoteForMessage(tensor.name).c_str(), tensor.file.str().c_str(),
        (long long)dense, (long long)size, (long long)bits, (long long)padded,
        (long long)found);
  // Sizes that say nothing leave it to the data, unless words have no spare
  // bits and both packings are one: that would read every weight for nothing.
  const bool isDense = found == dense && (found != padded || 32 % bits == 0 ||
                                          !areSpareBitsUnused(tensor, bits));
  return CodesAttr::get(context, getData(tensor, context), bits,
                        along == 0 ? Packing::Rows : Packing::Columns,
                        /*transposed=*/true, isDense ? 0 : 32 / bits,
                        /*record=*/isDense ? 0 : 1, /*wordAdd=*/0,
                        /*fieldAdd=*/0, /*planes=*/ArrayAttr());
}

/// Whether no row has a group: what some writers leave where order is none.
static bool areAllUnset(const CheckpointTensor &index) {
  for (int64_t row = 0; row < index.dim(0); ++row)
    if (loadWord(index.bytes, row) != 0xFFFFFFFF)
      return false;
  return true;
}

abi::Expected<LinearViews>
CompressedTensorsFormat::read(Checkpoint &checkpoint, StringRef module,
                              std::optional<LinearShape> shape,
                              MLIRContext *context) const {
  GPTQ_ASSIGN(QuantSettings settings,
              settingsOfQuantized(config, checkpoint, module));
  auto name = [&](StringRef part) { return (module + "." + part).str(); };
  GPTQ_ASSIGN(LinearShape size,
              readShape(checkpoint, name("weight_shape"), shape));
  LinearViews linear;
  linear.bits = settings.bits;
  linear.n = size.n;
  linear.k = size.k;
  linear.groupSize = rowsPerGroup(settings, linear.k);
  const int64_t groups = llvm::divideCeil(linear.k, linear.groupSize);

  GPTQ_ASSIGN(
      CheckpointTensor packed,
      checkpoint.get(name("weight_packed"), DType::I32, {linear.n, -1}));
  GPTQ_ASSIGN(CodesAttr codes,
              readPacked(packed, linear.bits, /*along=*/1, linear.k, context));
  linear.codes = getCodesView(codes, linear.k, linear.n);
  GPTQ_ASSIGN(
      CheckpointTensor scales,
      checkpoint.get(name("weight_scale"), kFloatDTypes, {linear.n, groups}));
  GPTQ_TRY(checkFinite(scales));
  linear.scales = getTransposedView(scales, groups, linear.n, context);

  if (checkpoint.has(name("weight_zero_point")) || !settings.isSymmetric) {
    GPTQ_ASSIGN(
        CheckpointTensor zeros,
        checkpoint.get(name("weight_zero_point"), DType::I32, {-1, groups}));
    GPTQ_ASSIGN(CodesAttr zeroCodes,
                readPacked(zeros, linear.bits, /*along=*/0, linear.n, context));
    setZeros(linear, zeroCodes, groups, zeros);
  } else {
    linear.zeroPoint = int64_t(1) << (linear.bits - 1);
  }
  if (checkpoint.has(name("weight_g_idx"))) {
    GPTQ_ASSIGN(CheckpointTensor index,
                checkpoint.get(name("weight_g_idx"), DType::I32, linear.k));
    if (!areAllUnset(index))
      GPTQ_TRY(readGroupIndex(index, groups, linear, context));
  }
  return linear;
}
