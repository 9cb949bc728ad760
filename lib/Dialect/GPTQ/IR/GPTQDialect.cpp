//===- GPTQDialect.cpp - Dialect and attributes ---------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Dialect/GPTQ/IR/CodesReader.h"
#include "mlir/Dialect/Affine/IR/AffineOps.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/DialectImplementation.h"
#include "mlir/IR/DialectResourceBlobManager.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/TypeSwitch.h"

#include <numeric>

using namespace mlir;
using namespace mlir::gptq;

#include "gptq/Dialect/GPTQ/IR/GPTQDialect.cpp.inc"
#include "gptq/Dialect/GPTQ/IR/GPTQEnums.cpp.inc"

#define GET_ATTRDEF_CLASSES
#include "gptq/Dialect/GPTQ/IR/GPTQAttrs.cpp.inc"

void GPTQDialect::initialize() {
  addAttributes<
#define GET_ATTRDEF_LIST
#include "gptq/Dialect/GPTQ/IR/GPTQAttrs.cpp.inc"
      >();
  addOperations<
#define GET_OP_LIST
#include "gptq/Dialect/GPTQ/IR/GPTQOps.cpp.inc"
      >();
}

std::optional<StringRef> mlir::gptq::findTokenizerFile(ModuleOp module,
                                                       StringRef name) {
  auto tokenizer = module->getAttrOfType<DictionaryAttr>(kTokenizerAttr);
  auto contents = tokenizer ? tokenizer.getAs<DictionaryAttr>("contents")
                            : DictionaryAttr();
  auto file =
      contents ? contents.getAs<DenseResourceElementsAttr>(name) : nullptr;
  AsmResourceBlob *blob = file ? file.getRawHandle().getBlob() : nullptr;
  if (!blob)
    return std::nullopt;
  ArrayRef<char> bytes = blob->getData();
  return StringRef(bytes.data(), bytes.size());
}

int64_t DataAttr::getByteSize() const {
  return getType().getNumElements() * getType().getElementTypeBitWidth() / 8;
}

//===----------------------------------------------------------------------===//
// #gptq.codes
//===----------------------------------------------------------------------===//

CodesAttr::Blocks CodesAttr::getBlocks() const {
  const int64_t width = getData().getType().getElementTypeBitWidth();
  if (ArrayAttr planes = getPlanes()) {
    auto order = OrderBits::parse(cast<PlaneAttr>(planes[0]).getOrder());
    const int64_t k = int64_t(1) << order->k, n = int64_t(1) << order->n;
    return {k, n, getRecord()};
  }
  int64_t count = getCount();
  if (count == 0)
    count = std::lcm(width, getBits()) / getBits();
  int64_t record = getRecord();
  if (record == 0)
    record = llvm::divideCeil(count * getBits(), width);
  const bool isAlongK = (getPacking() == Packing::Rows) != getTransposed();
  return {isAlongK ? count : 1, isAlongK ? 1 : count, record};
}

std::array<int64_t, 2> CodesAttr::getDataShape(int64_t k, int64_t n) const {
  const Blocks blocks = getBlocks();
  std::array<int64_t, 2> size = {k, n}, block = {blocks.k, blocks.n};
  if (getTransposed()) {
    std::swap(size[0], size[1]);
    std::swap(block[0], block[1]);
  }
  const int along = getPacking() == Packing::Rows ? 0 : 1;
  std::array<int64_t, 2> shape;
  shape[1 - along] = llvm::divideCeil(size[1 - along], block[1 - along]);
  shape[along] = size[along] / block[along] * blocks.record;
  // Codes in their natural order end where the last one does.
  if (int64_t rest = size[along] % block[along])
    shape[along] +=
        getPlanes()
            ? blocks.record
            : llvm::divideCeil(rest * getBits(),
                               getData().getType().getElementTypeBitWidth());
  return shape;
}

std::optional<OrderBits> OrderBits::parse(StringAttr text) {
  OrderBits order;
  SmallVector<StringRef> names;
  text.getValue().split(names, ' ', -1, /*KeepEmpty=*/false);
  uint64_t seen[2] = {0, 0};
  for (StringRef name : names) {
    if (name == "_") {
      order.places.push_back({Gap, 0});
      continue;
    }
    const Dim dim = name[0] == 'k' ? Row : Column;
    unsigned bit;
    if ((name[0] != 'k' && name[0] != 'n') ||
        name.drop_front().getAsInteger(10, bit) || bit >= kMaxBits)
      return std::nullopt;
    seen[dim] |= uint64_t(1) << bit;
    order.places.push_back({dim, bit});
  }
  order.k = llvm::popcount(seen[Row]);
  order.n = llvm::popcount(seen[Column]);
  // Bits 0 … k − 1, none left out.
  if (seen[Row] != (uint64_t(1) << order.k) - 1 ||
      seen[Column] != (uint64_t(1) << order.n) - 1 ||
      order.places.size() > kMaxBits)
    return std::nullopt;
  return order;
}

int64_t OrderBits::placeOf(int64_t k, int64_t n) const {
  int64_t place = 0;
  for (auto [i, bit] : llvm::enumerate(places))
    if (bit.first != Gap)
      place |= ((bit.first == Row ? k : n) >> bit.second & 1) << i;
  return place;
}

LogicalResult CodesAttr::verify(function_ref<InFlightDiagnostic()> emitError,
                                DataAttr data, int64_t bits, Packing,
                                bool transposed, int64_t count, int64_t record,
                                int64_t wordAdd, int64_t fieldAdd,
                                ArrayAttr planes) {
  RankedTensorType type = data.getType();
  const int64_t width = type.getElementTypeBitWidth();
  if (type.getRank() != 2 || !llvm::is_contained({8, 16, 32}, width))
    return emitError() << "expects codes to come from a matrix of elements of "
                          "8, 16 or 32 bits, but found "
                       << type;
  if (!((bits >= 1 && bits <= 8) || bits == 16 || bits == 32))
    return emitError()
           << "expects elements of 1 to 8, 16 or 32 bits, but found " << bits;
  // Bounds keep what follows from overflowing.
  constexpr int64_t maxRecord = int64_t(1) << 16;
  if (count < 0 || record < 0 || count > maxRecord || record > maxRecord)
    return emitError() << "expects a count and a record of 0 to " << maxRecord
                       << ", but found " << count << " and " << record;
  if (wordAdd != 0 && width != 32)
    return emitError() << "expects wordAdd only for words of 32 bits, but "
                          "found words of "
                       << width;
  if (!planes) {
    const int64_t held = count > 0 ? count : std::lcm(width, bits) / bits;
    if (record > 0 && held * bits > record * width)
      return emitError() << "expects a record of " << record * width
                         << " bits to hold its codes, but found " << held
                         << " of " << bits << " bits";
    return success();
  }
  if (count != 0 || record == 0 || planes.empty())
    return emitError() << "expects planes with a record, and without a count";
  int64_t sum = 0;
  std::optional<OrderBits> first;
  for (Attribute attr : planes) {
    auto plane = dyn_cast<PlaneAttr>(attr);
    if (!plane)
      return emitError() << "expects planes to be #gptq.plane, but found "
                         << attr;
    std::optional<OrderBits> order = OrderBits::parse(plane.getOrder());
    if (!order)
      return emitError() << "expects an order to name bits k0, k1, … and n0, "
                            "n1, … from 0 on, but found "
                         << plane.getOrder();
    if (!first)
      first = order;
    if (order->k != first->k || order->n != first->n)
      return emitError() << "expects planes of one block, but found "
                         << plane.getOrder();
    // The last place that any code takes.
    const int64_t last = order->placeOf((int64_t(1) << order->k) - 1,
                                        (int64_t(1) << order->n) - 1);
    if (plane.getBits() < 1 || plane.getBits() > bits ||
        plane.getOffset() < 0 || plane.getOffset() > record * width ||
        plane.getOffset() + (last + 1) * plane.getBits() > record * width)
      return emitError() << "expects a plane to lie in a record of "
                         << record * width << " bits, but found " << plane;
    sum += plane.getBits();
  }
  if (sum != bits)
    return emitError() << "expects planes of " << bits
                       << " bits together, but found " << sum;
  return success();
}

LogicalResult
DeinterleaveAttr::verify(llvm::function_ref<InFlightDiagnostic()> emitError,
                         int64_t run) {
  if (run < 2 || run % 2 != 0)
    return emitError() << "expects a run of two halves, but found " << run;
  return success();
}

//===----------------------------------------------------------------------===//
// Layouts and plans
//===----------------------------------------------------------------------===//

LogicalResult
PackedAttr::verify(llvm::function_ref<InFlightDiagnostic()> emitError,
                   FlatSymbolRefAttr, LayoutAttr, bool transposed,
                   int64_t run) {
  if (run < 0 || (run > 0 && transposed))
    return emitError() << "expects a run of at least 0, and 0 where the source "
                          "is transposed, but found "
                       << run;
  return success();
}

int64_t LayoutAttr::blocksOf(int64_t k, int64_t groupSize) const {
  return k / groupSize * llvm::divideCeil(groupSize, getBlockK()) +
         llvm::divideCeil(k % groupSize, getBlockK());
}

LogicalResult LayoutAttr::verify(function_ref<InFlightDiagnostic()> emitError,
                                 int64_t bits, int64_t blockN, int64_t blockK,
                                 StringAttr order) {
  auto isPowerOf2 = [](int64_t v) { return v > 0 && llvm::isPowerOf2_64(v); };
  if (!isPowerOf2(blockN) || !isPowerOf2(blockK))
    return emitError() << "expects blockN and blockK to be powers of two, but "
                          "found "
                       << blockN << " and " << blockK;
  if (bits < 1 || bits > 64)
    return emitError() << "expects elements of 1 to 64 bits, but found "
                       << bits;
  SmallVector<StringRef> planes;
  order.getValue().split(planes, '|');
  int64_t planeBits = 0;
  for (StringRef plane : planes) {
    int64_t left[3] = {llvm::Log2_64_Ceil(bits), llvm::Log2_64(blockK),
                       llvm::Log2_64(blockN)};
    SmallVector<StringRef> names;
    plane.split(names, ' ', -1, /*KeepEmpty=*/false);
    llvm::SmallDenseSet<StringRef, 16> seen;
    int64_t inElement = 0, highest = -1;
    for (StringRef name : names) {
      size_t dim = StringRef("bkn").find(name.empty() ? '?' : name[0]);
      int64_t bit;
      if (dim == StringRef::npos || name.drop_front().getAsInteger(10, bit) ||
          bit < 0 || bit >= left[dim])
        return emitError() << "expects order to name address bits of (bit, k, "
                              "n), but found '"
                           << name << "'";
      if (!seen.insert(name).second)
        return emitError() << "expects each address bit once, but '" << name
                           << "' occurs twice";
      if (dim == 0) {
        ++inElement;
        highest = std::max(highest, bit);
      }
    }
    // A single plane has the width of the elements.
    if (planes.size() == 1 && isPowerOf2(bits))
      inElement = left[0];
    if (highest >= inElement)
      return emitError() << "expects a plane to name its bits from b0 up, but "
                            "found 'b"
                         << highest << "' among " << inElement;
    if (int64_t(names.size()) != inElement + left[1] + left[2])
      return emitError() << "expects order to name "
                         << inElement + left[1] + left[2]
                         << " address bits, but it names " << names.size();
    planeBits += int64_t(1) << inElement;
  }
  if (planeBits != bits)
    return emitError() << "expects planes of " << bits
                       << " bits together, but they have " << planeBits;
  return success();
}

PlanAttr PlanAttr::get(MLIRContext *context, const Fields &f) {
  auto name = [&](StringAttr given, StringRef usual) {
    return given ? given : StringAttr::get(context, usual);
  };
  return get(context, f.mMin, f.mMax, f.unit, f.tileM, f.tileN, f.tileK, f.rows,
             f.columns, f.lanes, name(f.path, "direct"),
             name(f.partials, "global"), name(f.scale, "weight"),
             name(f.zero, "weight"), f.threads, f.stepK, f.occupancy, f.stages,
             f.loadBits, f.cluster, f.firstBytes, f.aheadBytes);
}

PlanAttr::Fields PlanAttr::getFields() const {
  Fields f;
  f.mMin = getMMin();
  f.mMax = getMMax();
  f.unit = getUnit();
  f.tileM = getTileM();
  f.tileN = getTileN();
  f.tileK = getTileK();
  f.rows = getRows();
  f.columns = getColumns();
  f.lanes = getLanes();
  f.path = getPath();
  f.partials = getPartials();
  f.scale = getScale();
  f.zero = getZero();
  f.threads = getThreads();
  f.stepK = getStepK();
  f.occupancy = getOccupancy();
  f.stages = getStages();
  f.loadBits = getLoadBits();
  f.cluster = getCluster();
  f.firstBytes = getFirstBytes();
  f.aheadBytes = getAheadBytes();
  return f;
}

LogicalResult
PlanAttr::verify(function_ref<InFlightDiagnostic()> emitError, int64_t mMin,
                 int64_t mMax, StringAttr unit, int64_t tileM, int64_t tileN,
                 int64_t tileK, int64_t rows, int64_t columns, int64_t lanes,
                 StringAttr path, StringAttr partials, StringAttr scale,
                 StringAttr zero, int64_t threads, int64_t stepK,
                 int64_t occupancy, int64_t stages, int64_t loadBits,
                 int64_t cluster, int64_t firstBytes, int64_t aheadBytes) {
  if (mMin < 1 || mMax < mMin)
    return emitError() << "expects 1 <= mMin <= mMax, but found " << mMin
                       << " and " << mMax;
  if (tileM < 0 || tileN < 0 || tileK < 0)
    return emitError() << "expects tileM, tileN and tileK to be at least 0";
  if (rows < 1 || columns < 1 || lanes < 1)
    return emitError()
           << "expects rows, columns and lanes to be at least 1, but found "
           << rows << ", " << columns << " and " << lanes;
  if (stepK < 0)
    return emitError() << "expects stepK to be at least 0, but found " << stepK;
  if (occupancy < 1)
    return emitError() << "expects occupancy to be at least 1, but found "
                       << occupancy;
  const bool isRing = path.getValue() == "ring";
  if (stages < 1 || (stages > 2 && !isRing))
    return emitError() << "expects stages to be 1 or 2, or more in a ring, but "
                          "found "
                       << stages;
  if (threads < 1 || loadBits < 8 || !llvm::isPowerOf2_64(loadBits))
    return emitError() << "expects threads to be at least 1 and loadBits to be "
                          "a power of two of at least 8, but found "
                       << threads << " and " << loadBits;
  if (firstBytes < 0)
    return emitError() << "expects firstBytes to be at least 0, but found "
                       << firstBytes;
  if (aheadBytes < 0 || aheadBytes > firstBytes)
    return emitError() << "expects aheadBytes to be at least 0 and at most "
                          "firstBytes = "
                       << firstBytes << ", but found " << aheadBytes;
  if (cluster < 1 || (cluster > 1 && partials.getValue() != "shared"))
    return emitError() << "expects cluster to be 1, or more with partials = "
                          "shared, but found "
                       << cluster << " with " << partials;
  auto oneOf = [&](StringRef field, StringAttr value,
                   ArrayRef<StringRef> allowed) -> LogicalResult {
    if (llvm::is_contained(allowed, value.getValue()))
      return success();
    return emitError() << "expects " << field << " to be one of "
                       << llvm::join(allowed, ", ") << ", but found " << value;
  };
  if (failed(oneOf("path", path,
                   {"direct", "promote", "split", "normalize", "ring"})) ||
      failed(oneOf("partials", partials, {"global", "shared"})) ||
      failed(oneOf("scale", scale, {"weight", "accumulator"})) ||
      failed(oneOf("zero", zero, {"weight", "accumulator"})))
    return failure();
  return success();
}
