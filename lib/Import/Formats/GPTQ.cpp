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
// Codes follow each other in a stream of bits, or ("gptq_p") lie in planes: of
// every 32 codes first the lowest bits of all, then the next.
//
//===----------------------------------------------------------------------===//

#include "lib/Import/Config.h"
#include "lib/Import/Formats/Format.h"
#include "mlir/IR/Builders.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/MathExtras.h"

#include <numeric>

using namespace mlir;
using namespace mlir::gptq;
using abi::DType;
using abi::JsonView;
using abi::Status;
using abi::StatusCode;

//===----------------------------------------------------------------------===//
// Settings
//===----------------------------------------------------------------------===//

/// The keys of every object called `name` in the JSON text, as they stand
/// there: parsed objects are sorted.
static std::vector<std::string> keysInOrder(StringRef text, StringRef name) {
  std::vector<std::string> keys, path;
  auto note = [&](int depth, abi::Json::parse_event_t event,
                  abi::Json &parsed) {
    if (event != abi::Json::parse_event_t::key)
      return true;
    path.resize(depth);
    path.back() = parsed.get<std::string>();
    if (depth >= 2 && path[depth - 2] == name)
      keys.push_back(path.back());
    return true;
  };
  (void)abi::Json::parse(text.begin(), text.end(), note,
                         /*allow_exceptions=*/false);
  return keys;
}

/// The widths that `format` packs.
static ArrayRef<int64_t> widthsOf(StringRef format) {
  static constexpr int64_t stream[] = {2, 3, 4, 8};
  static constexpr int64_t planar[] = {2, 3, 4, 5, 6, 7, 8};
  if (format == "gptq_p")
    return planar;
  return stream;
}

/// Changes `settings` to what `config` says.
static Status readSettings(const JsonView &config, StringRef format,
                           bool isOverride, QuantSettings &settings) {
  auto isSaid = [&](std::initializer_list<StringRef> keys) {
    return !isOverride || findValue(config, firstKey(config, keys));
  };
  if (isSaid({"bits", "w_bit", "wbits"})) {
    GPTQ_ASSIGN(settings.bits, readBits(config, widthsOf(format)));
  }
  if (isSaid({"group_size", "q_group_size"})) {
    GPTQ_ASSIGN(settings.groupSize, readGroupSize(config));
  }
  GPTQ_ASSIGN(settings.isSymmetric,
              readBool(config, "sym", settings.isSymmetric));
  GPTQ_ASSIGN(settings.isActOrder,
              readBool(config, "desc_act", settings.isActOrder));
  return Status::success();
}

/// Reads `dynamic`: patterns of module names, the first that matches counts;
/// `-:` leaves a module dense, `+:` or nothing changes its settings.
static Status readDynamic(const JsonView &config, StringRef text,
                          QuantConfig &quant) {
  std::optional<JsonView> dynamic = findValue(config, "dynamic");
  if (!dynamic || dynamic->raw() == abi::Json(false) ||
      (dynamic->raw().is_structured() && dynamic->raw().empty()))
    return Status::success();
  GPTQ_TRY(dynamic->expectObject());
  constexpr size_t maxRules = 4096;
  if (dynamic->raw().size() > maxRules)
    return abi::makeStatus(
        StatusCode::Unsupported, "%s: expected at most %zu patterns, found %zu",
        dynamic->path().c_str(), maxRules, dynamic->raw().size());
  for (StringRef key : keysInOrder(text, "dynamic")) {
    std::optional<JsonView> override = dynamic->find(key.str());
    if (!override)
      continue;
    StringRef pattern = key;
    bool isDense = pattern.consume_front("-:");
    if (!isDense)
      pattern.consume_front("+:");
    GPTQ_ASSIGN(ModuleRule rule, ModuleRule::fromPattern(*dynamic, pattern));
    if (!isDense) {
      GPTQ_TRY(override->expectObject());
      rule.settings = quant;
      GPTQ_TRY(readSettings(*override, quant.format, /*isOverride=*/true,
                            *rule.settings));
    }
    quant.rules.push_back(std::move(rule));
  }
  return Status::success();
}

/// Who wrote the file: the first entry of meta.quantizer, or all of it.
static std::string readQuantizer(const JsonView &config) {
  std::optional<JsonView> meta = findValue(config, "meta");
  if (!meta || !meta->raw().is_object())
    return "";
  std::optional<JsonView> quantizer = findValue(*meta, "quantizer");
  if (!quantizer)
    return "";
  const abi::Json &value = quantizer->raw();
  if (value.is_string())
    return value.get<std::string>();
  if (value.is_array() && !value.empty() && value[0].is_string())
    return value[0].get<std::string>();
  return "";
}

Status mlir::gptq::readGPTQConfig(const JsonView &config, StringRef text,
                                  QuantConfig &quant) {
  StringRef formatKey = firstKey(config, {"checkpoint_format", "format"});
  GPTQ_ASSIGN(quant.format, readString(config, formatKey, "gptq"));
  if (!llvm::is_contained({"gptq", "gptq_v2", "gptq_p"}, quant.format))
    return unsupported(config, formatKey, quant.format,
                       "'gptq', 'gptq_v2', 'gptq_p' or 'marlin'");
  GPTQ_TRY(readSettings(config, quant.format, /*isOverride=*/false, quant));
  GPTQ_ASSIGN(std::string packType, readString(config, "pack_dtype", "int32"));
  if (packType != "int32")
    return unsupported(config, "pack_dtype", packType, "'int32'");
  quant.quantizer = readQuantizer(config);
  return readDynamic(config, text, quant);
}

//===----------------------------------------------------------------------===//
// The format
//===----------------------------------------------------------------------===//

namespace {
class GPTQFormat final : public Format {
public:
  explicit GPTQFormat(const QuantConfig &config) : config(config) {}

  std::string describe() const override { return describeSettings(config); }
  bool holds(const Checkpoint &checkpoint, StringRef module) const override {
    return checkpoint.has((module + ".qweight").str());
  }
  abi::Expected<LinearViews> read(Checkpoint &checkpoint, StringRef module,
                                  std::optional<LinearShape> shape,
                                  MLIRContext *context) const override;

private:
  bool isPlanar() const { return config.format == "gptq_p"; }
  CodesAttr getCodes(const CheckpointTensor &tensor, int64_t bits,
                     Packing packing, MLIRContext *context) const;
  Status readZeros(Checkpoint &checkpoint, const CheckpointTensor &qzeros,
                   const QuantSettings &settings, LinearViews &linear,
                   MLIRContext *context) const;

  QuantConfig config;
};
} // namespace

std::unique_ptr<Format>
mlir::gptq::createGPTQFormat(const QuantConfig &config) {
  return std::make_unique<GPTQFormat>(config);
}

/// The view of 32 codes in planes, along rows ("k") or columns ("n").
static ArrayAttr getPlanes(int64_t bits, StringRef dim, MLIRContext *context) {
  std::string order;
  for (int i = 0; i < 5; ++i)
    order += (i ? " " : "") + dim.str() + std::to_string(i);
  SmallVector<Attribute> planes;
  int64_t offset = 0;
  // Planes have a power of two of bits: 7 is 4 + 2 + 1, and 3 is 2 + 1.
  for (int64_t width = 8; width > 0; width /= 2) {
    if (!(bits & width))
      continue;
    planes.push_back(PlaneAttr::get(context, width, offset,
                                    StringAttr::get(context, order)));
    offset += 32 * width;
  }
  return ArrayAttr::get(context, planes);
}

CodesAttr GPTQFormat::getCodes(const CheckpointTensor &tensor, int64_t bits,
                               Packing packing, MLIRContext *context) const {
  DataAttr data = getData(tensor, context);
  if (!isPlanar())
    return CodesAttr::get(data, bits, packing);
  return CodesAttr::get(
      data, bits, packing, /*transposed=*/false, /*record=*/bits,
      getPlanes(bits, packing == Packing::Rows ? "k" : "n", context));
}

//===----------------------------------------------------------------------===//
// qzeros
//===----------------------------------------------------------------------===//

/// The words of a stream that has `field` in each of its fields, until they
/// repeat.
static SmallVector<int64_t> repeatField(int64_t field, int64_t bits) {
  SmallVector<int64_t> words(std::lcm(int64_t(32), bits) / 32, 0);
  for (int64_t bit = 0, end = 32 * int64_t(words.size()); bit < end; ++bit)
    words[bit / 32] |= (field >> bit % bits & 1) << bit % 32;
  return words;
}

/// Calls `fn(word, index in its row, mask)` for each word, `mask` selecting its
/// bits that are not padding, until it returns false; returns whether it never
/// did.
template <typename Fn>
static bool allWords(const CheckpointTensor &qzeros, int64_t n, int64_t bits,
                     Fn fn) {
  size_t width = qzeros.dim(1), words = qzeros.dim(0) * width;
  uint32_t lastMask = n * bits % 32 ? (1u << n * bits % 32) - 1 : ~0u;
  for (size_t i = 0; i < words; ++i) {
    size_t column = i % width;
    if (!fn(loadWord(qzeros.bytes, i), column,
            column == width - 1 ? lastMask : ~0u))
      return false;
  }
  return true;
}

/// Whether all words repeat `pattern`.
static bool arePattern(const CheckpointTensor &qzeros, int64_t n, int64_t bits,
                       ArrayRef<int64_t> pattern) {
  return allWords(
      qzeros, n, bits, [&](uint32_t word, size_t column, uint32_t mask) {
        return (word & mask) == (pattern[column % pattern.size()] & mask);
      });
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
  auto isConsistent = [&](uint32_t word, size_t column, uint32_t mask) {
    int64_t end = llvm::popcount(mask);
    // The first field that starts in this word: 3 bits straddle words.
    int64_t shift = (bits - column * 32 % bits) % bits;
    for (; shift + bits < end; shift += bits) {
      if ((word >> shift & field) != field)
        continue;
      evidence += (end - shift) / bits - 1;
      return (word & mask) >> shift == mask >> shift;
    }
    return true;
  };
  return allWords(qzeros, n, bits, isConsistent) && evidence >= 3;
}

/// Refuses zero points for the reason `why`.
static Status refuseZeros(const CheckpointTensor &qzeros, const char *why) {
  return abi::makeStatus(StatusCode::InvalidFile, "tensor %s in '%s': %s",
                         abi::quoteForMessage(qzeros.name).c_str(),
                         qzeros.file.str().c_str(), why);
}

/// What one writer of 3-bit files subtracted from true zero points of 4, its
/// first and last word swapped: what is left.
static constexpr int64_t kSwappedWords[] = {0x00000000, 0xB6DB6DB7, 0x49249249};

Status GPTQFormat::readZeros(Checkpoint &checkpoint,
                             const CheckpointTensor &qzeros,
                             const QuantSettings &settings, LinearViews &linear,
                             MLIRContext *context) const {
  const int64_t bits = settings.bits, half = int64_t(1) << (bits - 1);
  const int64_t n = linear.n, groups = qzeros.dim(0);
  const bool storesTrueZeros = config.format != "gptq";
  auto warnOfSym = [&] {
    checkpoint.warn("sym is true, but the stored zero points are not those of "
                    "a symmetric file; they are used as stored");
  };
  if (isPlanar()) {
    setZeros(linear, getCodes(qzeros, bits, Packing::Columns, context), groups,
             qzeros);
    if (settings.isSymmetric && linear.zeroPoint != half)
      warnOfSym();
    return Status::success();
  }

  // Symmetric files hold one constant, from which their version follows; what
  // they say about it is wrong often enough.
  bool isV1 = arePattern(qzeros, n, bits, repeatField(half - 1, bits));
  bool isV2 = !isV1 && arePattern(qzeros, n, bits, repeatField(half, bits));
  if (isV1 || isV2) {
    bool isAsDeclared = isV2 == storesTrueZeros;
    if (isAsDeclared || settings.isSymmetric) {
      if (!isAsDeclared)
        checkpoint.warn("checkpoint_format is " + config.format +
                        ", but the zero points are stored as in " +
                        (isV2 ? "gptq_v2" : "gptq") + ", which is used");
      linear.zeroPoint = half;
      linear.zeroEvidence =
          std::string("qzeros repeats ") +
          llvm::utohexstr(
              uint32_t(repeatField(isV2 ? half : half - 1, bits)[0])) +
          ", symmetric as stored in " + (isV2 ? "gptq_v2" : "gptq");
      return Status::success();
    }
  } else if (bits == 3 && arePattern(qzeros, n, bits, kSwappedWords)) {
    if (!settings.isSymmetric)
      return refuseZeros(qzeros,
                         "zero points look like those of a faulty writer that "
                         "swapped words, but sym is false: what they are is "
                         "not known");
    checkpoint.warn("the 3-bit zero points are those of a faulty writer that "
                    "swapped words; sym is true, so they are taken to be 4");
    linear.zeroPoint = half;
    linear.zeroEvidence = "qzeros repeats the words of a faulty writer";
    return Status::success();
  } else if (settings.isSymmetric) {
    warnOfSym();
  }

  int64_t wordAdd = 0, fieldAdd = 0;
  linear.zeroEvidence = "stored as they are, as checkpoint_format says";
  if (!storesTrueZeros) {
    linear.zeroEvidence = "stored less one, as checkpoint_format says";
    // Writers subtract one from every field: of 3 bits, which straddle words,
    // from each alone, otherwise from a whole word at once.
    if (bits == 3)
      fieldAdd = 1;
    else
      wordAdd = repeatField(1, bits).front();
    if (areOverwritten(qzeros, n, bits))
      return refuseZeros(qzeros,
                         "zero points next to zero points of 0 are "
                         "overwritten with ones, as a faulty writer left "
                         "them, and cannot be recovered");
    // Its earlier versions subtracted swapped words, and what is left cannot be
    // told from sound zero points where they differ.
    if (bits == 3 && StringRef(config.quantizer).starts_with("gptqmodel"))
      return refuseZeros(qzeros,
                         "3-bit zero points of format 'gptq' that are not "
                         "symmetric cannot be told from those of a faulty "
                         "version of their writer, gptqmodel");
  }
  setZeros(linear,
           CodesAttr::get(getData(qzeros, context), bits, Packing::Columns,
                          /*transposed=*/false, wordAdd, fieldAdd),
           groups, qzeros);
  return Status::success();
}

//===----------------------------------------------------------------------===//
// A layer
//===----------------------------------------------------------------------===//

abi::Expected<LinearViews> GPTQFormat::read(Checkpoint &checkpoint,
                                            StringRef module,
                                            std::optional<LinearShape> shape,
                                            MLIRContext *context) const {
  GPTQ_ASSIGN(QuantSettings settings,
              settingsOfQuantized(config, checkpoint, module));
  const int64_t bits = settings.bits;
  auto name = [&](StringRef part) { return (module + "." + part).str(); };
  auto words = [&](int64_t codes) {
    // Planes are whole.
    return isPlanar() ? int64_t(llvm::divideCeil(codes, 32)) * bits
                      : int64_t(llvm::divideCeil(uint64_t(codes) * bits, 32));
  };
  LinearViews linear;
  linear.bits = bits;

  GPTQ_ASSIGN(
      CheckpointTensor qweight,
      checkpoint.get(name("qweight"), DType::I32,
                     {shape ? words(shape->k) : -1, shape ? shape->n : -1}));
  linear.n = qweight.dim(1);
  if (shape)
    linear.k = shape->k;
  else
    linear.k = qweight.dim(0) * 32 / bits;
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

  linear.groupSize = rowsPerGroup(settings, linear.k);
  int64_t groups = llvm::divideCeil(linear.k, linear.groupSize);
  GPTQ_ASSIGN(CheckpointTensor scales,
              checkpoint.get(name("scales"), kFloatDTypes, {groups, linear.n}));
  GPTQ_TRY(checkFinite(scales));
  linear.scales = getDataView(scales, context);
  GPTQ_ASSIGN(
      CheckpointTensor qzeros,
      checkpoint.get(name("qzeros"), DType::I32, {groups, words(linear.n)}));
  GPTQ_TRY(readZeros(checkpoint, qzeros, settings, linear, context));
  linear.codes = getCodesView(getCodes(qweight, bits, Packing::Rows, context),
                              linear.k, linear.n);
  if (groupIndex)
    GPTQ_TRY(readGroupIndex(*groupIndex, groups, linear, context));
  return linear;
}
