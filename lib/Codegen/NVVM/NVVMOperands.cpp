//===- NVVMOperands.cpp - What the inner loops of all units share ---------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "NVVMOperands.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "llvm/Support/FormatVariadic.h"

using namespace mlir;
using namespace mlir::gptq;

/// The largest number known to divide `value`, at most 64.
static int64_t knownDivisor(Value value) {
  if (std::optional<int64_t> constant = getConstantIntValue(value))
    return *constant == 0 ? 64 : std::gcd<int64_t>(*constant, 64);
  if (auto mul = value.getDefiningOp<arith::MulIOp>())
    return std::min<int64_t>(64, knownDivisor(mul.getLhs()) *
                                     knownDivisor(mul.getRhs()));
  if (auto add = value.getDefiningOp<arith::AddIOp>())
    return std::gcd(knownDivisor(add.getLhs()), knownDivisor(add.getRhs()));
  return 1;
}

llvm::Align mlir::gptq::alignmentOf(Value buffer, Value column) {
  auto type = cast<MemRefType>(buffer.getType());
  const int64_t bytes = type.getElementTypeBitWidth() / 8;
  int64_t divisor = knownDivisor(column);
  auto [strides, offset] = type.getStridesAndOffset();
  (void)offset;
  int64_t row = strides[0];
  divisor = ShapedType::isDynamic(row) ? 1 : std::gcd(divisor, row);
  return llvm::Align(std::min<int64_t>(
      16, int64_t(1) << llvm::countr_zero<uint64_t>(divisor * bytes)));
}

/// The pattern of 2^exponent.
static int64_t patternOf(FloatType type, int64_t exponent) {
  return type.isBF16() ? (127 + exponent) << 7 : (15 + exponent) << 10;
}

Value mlir::gptq::unpackPair(VectorBuilder &b, Value word, int64_t shift,
                             int64_t place, int64_t bits, FloatType type,
                             bool inOne) {
  auto constant = [&](uint32_t v) -> Value {
    return arith::ConstantOp::create(b, b.getI32IntegerAttr(int32_t(v)));
  };
  auto twice = [](int64_t half) { return uint32_t(half) * 0x10001u; };
  if (shift)
    word = arith::ShRUIOp::create(b, word, constant(shift));
  const uint32_t mask = twice(((int64_t(1) << bits) - 1) << place);
  // The exponent that makes the lowest bit of the code worth 1.
  const uint32_t exponent = twice(patternOf(type, fractionBits(type) - place));
  if (inOne) {
    // (word & mask) | exponent. Of the two constants one has to be in a
    // register, which ptxas takes for it only if there is one instruction.
    const std::string lop3 =
        llvm::formatv("lop3.b32 $0, $1, {0:x}, {1:x}, 0xEA;", mask, exponent);
    word = LLVM::InlineAsmOp::create(b, b.getI32Type(), word, lop3, "=r,r",
                                     /*has_side_effects=*/false,
                                     /*is_align_stack=*/false,
                                     LLVM::TailCallKind::None,
                                     LLVM::AsmDialectAttr(), ArrayAttr())
               .getResult(0);
  } else {
    word = arith::AndIOp::create(b, word, constant(mask));
    word = arith::OrIOp::create(b, word, constant(exponent));
  }
  return LLVM::BitcastOp::create(b, VectorType::get({2}, type), word);
}
