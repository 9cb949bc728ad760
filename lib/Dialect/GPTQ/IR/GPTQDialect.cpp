//===- GPTQDialect.cpp - Dialect and attributes ---------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "mlir/Dialect/Affine/IR/AffineOps.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/DialectImplementation.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/TypeSwitch.h"

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

int64_t DataAttr::getByteSize() const {
  return getType().getNumElements() * getType().getElementTypeBitWidth() / 8;
}

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

LogicalResult
PlanAttr::verify(function_ref<InFlightDiagnostic()> emitError, int64_t mMin,
                 int64_t mMax, StringAttr unit, int64_t tileM, int64_t tileN,
                 int64_t tileK, int64_t rows, int64_t columns, int64_t lanes,
                 StringAttr path, StringAttr partials, StringAttr scale,
                 StringAttr zero, int64_t threads, int64_t stepK,
                 int64_t occupancy, int64_t stages, int64_t loadBits) {
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
  if (stages < 1 || stages > 2)
    return emitError() << "expects stages to be 1 or 2, but found " << stages;
  if (threads < 1 || loadBits < 8 || !llvm::isPowerOf2_64(loadBits))
    return emitError() << "expects threads to be at least 1 and loadBits to be "
                          "a power of two of at least 8, but found "
                       << threads << " and " << loadBits;
  auto oneOf = [&](StringRef field, StringAttr value,
                   ArrayRef<StringRef> allowed) -> LogicalResult {
    if (llvm::is_contained(allowed, value.getValue()))
      return success();
    return emitError() << "expects " << field << " to be one of "
                       << llvm::join(allowed, ", ") << ", but found " << value;
  };
  if (failed(oneOf("path", path, {"direct", "promote", "split"})) ||
      failed(oneOf("partials", partials, {"global", "shared"})) ||
      failed(oneOf("scale", scale, {"weight", "accumulator"})) ||
      failed(oneOf("zero", zero, {"weight", "accumulator"})))
    return failure();
  return success();
}
