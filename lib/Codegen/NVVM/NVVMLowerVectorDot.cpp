//===- NVVMLowerVectorDot.cpp - The inner loop on vector units ------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Every thread of a warp has one column of a tile, and all read the same
// activations. Of arithmetic there are two kinds:
//
//   in f32     each code, and each activation, is converted and multiplied
//   in pairs   rows k and k + 1 are the halves of a word, one exponent set over
//              the bits of both codes makes numbers of them, and one
//              instruction multiplies both
//
// In pairs sums are as short as the type is coarse. With u = 2^-11 for f16
// (2^-8 for bf16), w and x the numbers multiplied, 8 rows are 4 pairs: a
// product and three fused steps, 4 roundings. Such sums are added one to the
// other until they hold `rows` rows, then widened and added in f32. A
// product has met at most 4 + rows / 8 - 1 roundings, so
//
//   |error| <= (3 + rows / 8) u / (1 - (3 + rows / 8) u) * sum of |w x|
//
// which is 7 u = 0.35 % for 32 rows in f16, 4 u = 1.6 % for 8 rows in bf16.
// Roundings differ in sign: for 4096 normal activations and random codes the
// root mean square error is 5e-4 (2.6e-3) of the results', about twice what
// rounding such activations to the type costs. Codes less zero points are
// exact.
//
// Range: f16 ends at 65504. Where the scale comes after the sum, codes less
// zero points are multiplied by 2^-bits, so that they are below 1: sums of 16
// numbers overflow where activations are above 4000, and products lose bits
// where they are below 2^-14.
//
//===----------------------------------------------------------------------===//

#include "NVVMOperands.h"
#include "gptq/Codegen/Common/Layout.h"
#include "gptq/Codegen/Common/Plan.h"
#include "gptq/Codegen/NVVM/Passes.h"
#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Interfaces/FunctionInterfaces.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"

namespace mlir::gptq {
#define GEN_PASS_DEF_NVVMLOWERVECTORDOTPASS
#define GEN_PASS_DEF_NVVMSELECTHALFMATHPASS
#include "gptq/Codegen/NVVM/Passes.h.inc"
} // namespace mlir::gptq

using namespace mlir;
using namespace mlir::gptq;

/// Rows of K that are loaded and multiplied together: 16 bytes of activations.
static constexpr int64_t kSliceRows = 8;

namespace {

/// Where the codes of one thread lie inside a block of its layout.
class LaneLayout {
public:
  static FailureOr<LaneLayout> create(GroupDotOp op);

  int64_t blockK() const { return plane.blockK(); }
  int64_t bits() const { return plane.bits(); }
  /// Elements of the buffer that a thread has side by side, and how often.
  int64_t perShare() const { return (int64_t(1) << lanePlace) / unit; }
  int64_t shares() const {
    return plane.blockBits() / ((int64_t(1) << lanePlace) * plane.blockN());
  }
  /// The number, among a thread's elements of the buffer, of the one that has
  /// row `k`, and the place of the row's lowest bit in it.
  int64_t elementOf(int64_t k) const { return bitOf(k) / unit; }
  int64_t placeOf(int64_t k) const { return bitOf(k) % unit; }
  /// Row `k` by its bit among all bits of a thread.
  int64_t bitOf(int64_t k) const {
    const int64_t address = plane.address(0, k, 0);
    const int64_t share = address >> lanePlace;
    return (share / plane.blockN() << lanePlace) +
           (address & ((int64_t(1) << lanePlace) - 1));
  }

private:
  LaneLayout(const Plane &plane, int64_t unit)
      : plane(plane), unit(unit), lanePlace(plane.positionOf(LayoutDim::N, 0)) {
  }

  Plane plane;
  /// Bits of an element of the buffer.
  int64_t unit;
  unsigned lanePlace;
};

/// Panels that are multiplied by the same activations.
struct Panels {
  SmallVector<GroupDotOp> dots;

  GroupDotOp first() const { return dots.front(); }
  int64_t rows() const {
    return cast<VectorType>(first().getAcc().getType()).getDimSize(0);
  }
};

/// Lowers the products of a few panels, slice by slice of K, so that
/// activations are loaded once and soon used up.
class LanesLowering {
public:
  LanesLowering(VectorBuilder &b, const Panels &panels)
      : b(b), panels(panels), op(panels.first()),
        type(cast<FloatType>(
            cast<MemRefType>(op.getX().getType()).getElementType())) {}
  virtual ~LanesLowering() = default;

  LogicalResult run();

protected:
  /// Multiplies rows `k` to `k` + `count` of panel number `p`, which lie in
  /// `elements` from row `inBlock` of a block, by `x`, the same rows of each
  /// row of activations.
  virtual void multiply(int64_t p, ArrayRef<Value> elements, int64_t inBlock,
                        int64_t count, ArrayRef<SmallVector<Value>> x) = 0;
  /// Before the first product and after `done` rows of `depth`.
  virtual LogicalResult start() { return success(); }
  virtual void finishSlice(int64_t done, int64_t depth) {}
  /// Two activations as an operand of `multiply`, or each for itself.
  virtual void addOperands(Value pair, SmallVectorImpl<Value> &to) = 0;

  bool isDense() { return isa<FloatType>(weightType()); }
  Type weightType() {
    return cast<MemRefType>(op.getW().getType()).getElementType();
  }
  Value i32(int64_t value) {
    return arith::ConstantOp::create(b, b.getI32IntegerAttr(int32_t(value)));
  }
  Value element(Value vector, int64_t at) {
    return vector::ExtractOp::create(b, vector, at);
  }
  Value &sum(int64_t p, int64_t row) { return sums[p][row]; }

  VectorBuilder &b;
  const Panels &panels;
  /// The first of the products, which speaks for all.
  GroupDotOp op;
  FloatType type;
  std::optional<LaneLayout> layout;

private:
  void findRows();
  SmallVector<SmallVector<Value>> loadActivations(int64_t k, int64_t count);
  SmallVector<Value> loadBlock(GroupDotOp dot, int64_t number);

  /// The rows of activations, all inside the buffer.
  SmallVector<Value> rows;
  /// Sums in f32: [panel][row].
  SmallVector<SmallVector<Value>> sums;
};

/// Converts and multiplies weight by weight.
class ScalarLowering final : public LanesLowering {
public:
  using LanesLowering::LanesLowering;

private:
  LogicalResult start() override;
  void multiply(int64_t p, ArrayRef<Value> elements, int64_t inBlock,
                int64_t count, ArrayRef<SmallVector<Value>> x) override;
  void addOperands(Value pair, SmallVectorImpl<Value> &to) override {
    for (int64_t i = 0; i < 2; ++i)
      to.push_back(b.toF32(element(pair, i)));
  }

  /// Zero point and scale of each panel's column, where weights need them.
  SmallVector<Value> zeros, scales;
};

/// Multiplies pairs of rows.
class PairLowering final : public LanesLowering {
public:
  PairLowering(VectorBuilder &b, const Panels &panels, int64_t rowsPerSum)
      : LanesLowering(b, panels), rowsPerSum(rowsPerSum) {}

private:
  LogicalResult start() override;
  void multiply(int64_t p, ArrayRef<Value> elements, int64_t inBlock,
                int64_t count, ArrayRef<SmallVector<Value>> x) override;
  void finishSlice(int64_t done, int64_t depth) override;
  void addOperands(Value pair, SmallVectorImpl<Value> &to) override {
    to.push_back(pair);
  }
  Value weights(int64_t p, ArrayRef<Value> elements, int64_t k);
  Value minus(int64_t p, double added);
  Value splat(Value f32);

  /// What codes are multiplied by so that their sums stay in range.
  double factor() {
    return isDense() || op.getScale() || type.isBF16()
               ? 1
               : std::ldexp(1.0, -layout->bits());
  }

  int64_t rowsPerSum;
  /// Sums of a few rows: [panel][row].
  SmallVector<SmallVector<Value>> partial;
  /// -factor * (zero point + what unpacking adds), by panel and that number.
  std::map<std::pair<int64_t, double>, Value> subtrahends;
  SmallVector<Value> scales;
};

} // namespace

FailureOr<LaneLayout> LaneLayout::create(GroupDotOp op) {
  const Layout whole(op.getLayout());
  auto refuse = [&](const Twine &why) -> FailureOr<LaneLayout> {
    return op.emitOpError("expects ")
           << why << ", but found " << op.getLayout();
  };
  if (whole.getParts().size() != 1)
    return refuse("a layout of one plane");
  const Plane &plane = whole.getParts().front().plane;
  const int64_t unit =
      cast<MemRefType>(op.getW().getType()).getElementTypeBitWidth();
  LaneLayout layout(plane, unit);
  const int64_t lanes = op.getPlan().getLanes();
  if (plane.blockN() != lanes || plane.blockK() < kSliceRows)
    return refuse("blocks of " + Twine(lanes) + " columns and at least " +
                  Twine(kSliceRows) + " rows");
  for (unsigned i = 0; int64_t(1) << i < lanes; ++i)
    if (layout.lanePlace + i >= plane.numAddressBits() ||
        !(plane.at(layout.lanePlace + i) == LayoutBit{LayoutDim::N, i}))
      return refuse("columns side by side");
  if (layout.perShare() < 1)
    return refuse("whole words for each thread");
  return layout;
}

void LanesLowering::findRows() {
  auto memref = cast<MemRefType>(op.getX().getType());
  Value m = memref.isDynamicDim(0)
                ? Value(memref::DimOp::create(b, op.getX(), 0))
                : b.index(memref.getDimSize(0));
  Value last = arith::SubIOp::create(b, m, b.index(1));
  // Rows that do not exist are the last one: their sums are not stored.
  for (int64_t r = 0; r < panels.rows(); ++r)
    rows.push_back(arith::MinUIOp::create(b, b.add(op.getRow(), r), last));
}

/// Activations `k` to `k` + `count` of each row, as operands.
SmallVector<SmallVector<Value>> LanesLowering::loadActivations(int64_t k,
                                                               int64_t count) {
  Value x = op.getX(), column = b.add(op.getK0(), k);
  const int64_t perLoad = std::min<int64_t>(
      kSliceRows,
      std::max<int64_t>(2, op.getPlan().getLoadBits() / type.getWidth()));
  const llvm::Align alignment = std::min(
      alignmentOf(x, column), llvm::Align(perLoad * type.getWidth() / 8));
  SmallVector<SmallVector<Value>> operands;
  for (Value row : rows) {
    SmallVector<Value> &of = operands.emplace_back();
    int64_t i = 0;
    for (; i + perLoad <= count; i += perLoad) {
      auto load = vector::LoadOp::create(b, VectorType::get({perLoad}, type), x,
                                         ValueRange{row, b.add(column, i)},
                                         /*nontemporal=*/false, alignment);
      load->setAttr(kInPlaceAttr, b.getUnitAttr());
      for (int64_t j = 0; j < perLoad; j += 2)
        addOperands(vector::ExtractStridedSliceOp::create(
                        b, load, ArrayRef<int64_t>{j}, ArrayRef<int64_t>{2},
                        ArrayRef<int64_t>{1}),
                    of);
    }
    // What does not fill a load: in pairs, of which the last may be half.
    for (; i < count; i += 2) {
      Value pair = b.zeros(VectorType::get({2}, type));
      for (int64_t j = 0; j < 2 && i + j < count; ++j)
        pair = vector::InsertOp::create(
            b,
            memref::LoadOp::create(b, x, ValueRange{row, b.add(column, i + j)}),
            pair, j);
      addOperands(pair, of);
    }
  }
  return operands;
}

/// This thread's elements of block number `number` after the first.
SmallVector<Value> LanesLowering::loadBlock(GroupDotOp dot, int64_t number) {
  Type element = cast<MemRefType>(dot.getW().getType()).getElementType();
  const int64_t width = element.getIntOrFloatBitWidth();
  const int64_t perShare = layout->perShare();
  const int64_t perLoad = std::max<int64_t>(
      1, std::min(perShare, dot.getPlan().getLoadBits() / width));
  Value lane = gpu::LaneIdOp::create(b, /*upper_bound=*/IntegerAttr());
  Value block = b.add(dot.getBlock(), number);
  SmallVector<Value> elements;
  for (int64_t share = 0; share < layout->shares(); ++share)
    for (int64_t at = 0; at < perShare; at += perLoad) {
      Value place = b.add(b.mul(lane, perShare),
                          share * dot.getPlan().getLanes() * perShare + at);
      // What several loads of a warp share has to wait for them in the cache;
      // they stay apart.
      auto run = vector::LoadOp::create(
          b, VectorType::get({perLoad}, element), dot.getW(),
          ValueRange{dot.getPanel(), block, place},
          /*nontemporal=*/perLoad == perShare,
          llvm::Align(std::max<int64_t>(1, perLoad * width / 8)));
      if (perLoad != perShare)
        run->setAttr(kPrefetchedAttr, b.getUnitAttr());
      for (int64_t i = 0; i < perLoad; ++i)
        elements.push_back(vector::ExtractOp::create(b, run, i));
    }
  return elements;
}

LogicalResult LanesLowering::run() {
  FailureOr<LaneLayout> found = LaneLayout::create(op);
  if (failed(found))
    return failure();
  layout = *found;
  for (GroupDotOp dot : panels.dots) {
    SmallVector<Value> &of = sums.emplace_back();
    for (int64_t r = 0; r < panels.rows(); ++r)
      of.push_back(
          vector::ExtractOp::create(b, dot.getAcc(), ArrayRef<int64_t>{r, 0}));
  }
  findRows();
  if (failed(start()))
    return failure();
  // All loads of weights first: they wait for memory together.
  const int64_t depth = op.getDepth(), blockK = layout->blockK();
  SmallVector<SmallVector<SmallVector<Value>>> blocks;
  for (int64_t i = 0; i * blockK < depth; ++i) {
    blocks.emplace_back();
    for (GroupDotOp dot : panels.dots)
      blocks.back().push_back(loadBlock(dot, i));
  }
  for (int64_t k = 0; k < depth; k += kSliceRows) {
    const int64_t count = std::min(kSliceRows, depth - k);
    SmallVector<SmallVector<Value>> x = loadActivations(k, count);
    for (size_t p = 0; p < panels.dots.size(); ++p)
      multiply(p, blocks[k / blockK][p], k % blockK, count, x);
    finishSlice(k + count, depth);
  }
  for (auto [p, of] : llvm::enumerate(sums)) {
    GroupDotOp dot = panels.dots[p];
    Value result = b.zeros(dot.getAcc().getType());
    for (int64_t r = 0; r < panels.rows(); ++r)
      result =
          vector::InsertOp::create(b, of[r], result, ArrayRef<int64_t>{r, 0});
    dot.getResult().replaceAllUsesWith(result);
  }
  // Last: new code goes in front of the first.
  for (GroupDotOp dot : panels.dots)
    dot.erase();
  return success();
}

//===----------------------------------------------------------------------===//
// In f32
//===----------------------------------------------------------------------===//

LogicalResult ScalarLowering::start() {
  for (GroupDotOp dot : panels.dots) {
    zeros.push_back(dot.getZero() ? element(dot.getZero(), 0) : Value());
    scales.push_back(dot.getScale() ? element(dot.getScale(), 0) : Value());
  }
  return success();
}

void ScalarLowering::multiply(int64_t p, ArrayRef<Value> elements,
                              int64_t inBlock, int64_t count,
                              ArrayRef<SmallVector<Value>> x) {
  for (int64_t k = 0; k < count; ++k) {
    Value weight = elements[layout->elementOf(inBlock + k)];
    if (isDense()) {
      weight = b.toF32(weight);
    } else {
      if (int64_t place = layout->placeOf(inBlock + k))
        weight = arith::ShRUIOp::create(b, weight, i32(place));
      weight = arith::AndIOp::create(b, weight,
                                     i32((int64_t(1) << layout->bits()) - 1));
      weight = arith::UIToFPOp::create(b, b.getF32Type(), weight);
    }
    if (zeros[p])
      weight = arith::SubFOp::create(b, weight, zeros[p]);
    if (scales[p])
      weight = arith::MulFOp::create(b, weight, scales[p]);
    for (auto [row, of] : llvm::enumerate(x))
      sum(p, row) = math::FmaOp::create(b, weight, of[k], sum(p, row));
  }
}

//===----------------------------------------------------------------------===//
// In pairs
//===----------------------------------------------------------------------===//

LogicalResult PairLowering::start() {
  if (isDense() && weightType() != type)
    return op.emitOpError(
               "expects weights of the activations' type, but found ")
           << weightType() << " and " << type;
  for (int64_t k = 0; k < layout->blockK(); k += 2)
    if (layout->bitOf(k + 1) != layout->bitOf(k) + 16)
      return op.emitOpError("expects pairs of rows in the halves of a word, "
                            "but found ")
             << op.getLayout();
  for (GroupDotOp dot : panels.dots)
    scales.push_back(dot.getScale() ? splat(element(dot.getScale(), 0))
                                    : Value());
  partial.assign(panels.dots.size(), SmallVector<Value>(panels.rows()));
  return success();
}

/// A number as a pair of the type that is multiplied.
Value PairLowering::splat(Value f32) {
  return vector::BroadcastOp::create(b, VectorType::get({2}, type),
                                     arith::TruncFOp::create(b, type, f32));
}

/// What unpacked codes of panel `p`, times `factor`, still need added.
Value PairLowering::minus(int64_t p, double added) {
  Value &known = subtrahends[{p, added}];
  if (known)
    return known;
  GroupDotOp dot = panels.dots[p];
  Value zero = dot.getZero() ? element(dot.getZero(), 0) : b.f32(0);
  // Exact: whole numbers below 2^(fraction bits + 1), times a power of two.
  Value sum = arith::AddFOp::create(b, zero, b.f32(added));
  return known = splat(arith::MulFOp::create(b, sum, b.f32(-factor())));
}

/// Rows `k` and `k` + 1 of a block of panel `p`, as numbers.
Value PairLowering::weights(int64_t p, ArrayRef<Value> elements, int64_t k) {
  auto pairType = VectorType::get({2}, type);
  if (isDense()) {
    Value pair = b.zeros(pairType);
    for (int64_t e = 0; e < 2; ++e)
      pair = vector::InsertOp::create(b, elements[layout->elementOf(k + e)],
                                      pair, e);
    return pair;
  }
  const int64_t bits = layout->bits(), place = layout->placeOf(k);
  Value word = elements[layout->elementOf(k)];
  GroupDotOp dot = panels.dots[p];
  Value pair;
  if (bits > fractionBits(type)) {
    // No room for an exponent over the code: each by itself.
    pair = b.zeros(pairType);
    for (int64_t e = 0; e < 2; ++e) {
      Value code = arith::ShRUIOp::create(b, word, i32(place + 16 * e));
      code = arith::AndIOp::create(b, code, i32((int64_t(1) << bits) - 1));
      Value wide = arith::UIToFPOp::create(b, b.getF32Type(), code);
      if (dot.getZero())
        wide = arith::SubFOp::create(b, wide, element(dot.getZero(), 0));
      pair = vector::InsertOp::create(b, arith::TruncFOp::create(b, type, wide),
                                      pair, e);
    }
  } else {
    // Shifts are shared by all places that the fraction has room for.
    const int64_t each = fractionBits(type) / bits * bits;
    const int64_t shift = place / each * each;
    pair = unpackPair(b, word, shift, place - shift, bits, type);
    const double added = std::ldexp(1.0, fractionBits(type) - (place - shift));
    Value times = arith::ConstantOp::create(
        b, DenseElementsAttr::get(pairType, b.getFloatAttr(type, factor())));
    pair = math::FmaOp::create(b, pair, times, minus(p, added));
  }
  if (scales[p])
    pair = arith::MulFOp::create(b, pair, scales[p]);
  return pair;
}

void PairLowering::multiply(int64_t p, ArrayRef<Value> elements,
                            int64_t inBlock, int64_t count,
                            ArrayRef<SmallVector<Value>> x) {
  SmallVector<Value> pairs;
  for (int64_t k = 0; k < count; k += 2)
    pairs.push_back(weights(p, elements, inBlock + k));
  for (auto [row, of] : llvm::enumerate(x)) {
    Value slice;
    for (auto [weight, activation] : llvm::zip(pairs, of))
      slice = slice ? Value(math::FmaOp::create(b, weight, activation, slice))
                    : Value(arith::MulFOp::create(b, weight, activation));
    Value &known = partial[p][row];
    known = known ? Value(arith::AddFOp::create(b, known, slice)) : slice;
  }
}

void PairLowering::finishSlice(int64_t done, int64_t depth) {
  if (done % rowsPerSum != 0 && done != depth)
    return;
  for (size_t p = 0; p < partial.size(); ++p)
    for (int64_t row = 0; row < panels.rows(); ++row) {
      Value &of = partial[p][row];
      Value wide = arith::AddFOp::create(b, b.toF32(element(of, 0)),
                                         b.toF32(element(of, 1)));
      sum(p, row) = factor() == 1
                        ? Value(arith::AddFOp::create(b, sum(p, row), wide))
                        : Value(math::FmaOp::create(
                              b, wide, b.f32(1 / factor()), sum(p, row)));
      of = Value();
    }
}

//===----------------------------------------------------------------------===//
// Passes
//===----------------------------------------------------------------------===//

/// Whether `op` only reads, or not even that.
static bool onlyReads(Operation *op) {
  if (isMemoryEffectFree(op))
    return true;
  auto effects = dyn_cast<MemoryEffectOpInterface>(op);
  return effects && effects.onlyHasEffect<MemoryEffects::Read>();
}

/// Collects in `moved` what has to be in front of `first` before `value` can be
/// used there; false if that cannot be.
static bool collectBefore(Value value, Operation *first,
                          SetVector<Operation *> &moved) {
  Operation *def = value.getDefiningOp();
  if (!def || def->getBlock() != first->getBlock() ||
      def->isBeforeInBlock(first) || moved.contains(def))
    return true;
  if (def == first || isa<GroupDotOp>(def) || !onlyReads(def) ||
      def->getNumRegions() > 0)
    return false;
  for (Value operand : def->getOperands())
    if (!collectBefore(operand, first, moved))
      return false;
  moved.insert(def);
  return true;
}

/// Whether `dot` can be computed where `first` is; moves its operands there.
static bool moveOperandsTo(GroupDotOp dot, GroupDotOp first) {
  for (Operation *op = first; op != dot.getOperation(); op = op->getNextNode())
    if (!onlyReads(op))
      return false;
  SetVector<Operation *> moved;
  for (Value operand : dot->getOperands())
    if (!collectBefore(operand, first, moved))
      return false;
  for (Operation *op : moved)
    op->moveBefore(first);
  return true;
}

/// The products under `root` that `isWanted`, those together that read the same
/// activations in the same block.
static SmallVector<Panels> collect(Operation *root,
                                   function_ref<bool(GroupDotOp)> isWanted) {
  // What has to be alike; the last says which of scale and zero there are.
  using Key = std::tuple<Block *, Value, Value, Value, Value, int64_t,
                         Attribute, Attribute, Type, Type, int64_t>;
  llvm::MapVector<Key, SmallVector<Panels>> found;
  root->walk([&](GroupDotOp op) {
    if (!isWanted(op))
      return;
    Key key{op->getBlock(),
            op.getX(),
            op.getRow(),
            op.getK0(),
            op.getPerm(),
            op.getDepth(),
            op.getLayout(),
            op.getPlan(),
            op.getW().getType(),
            op.getAcc().getType(),
            (op.getScale() ? 1 : 0) + (op.getZero() ? 2 : 0)};
    SmallVector<Panels> &alike = found[key];
    if (!alike.empty() && moveOperandsTo(op, alike.back().first()))
      alike.back().dots.push_back(op);
    else
      alike.push_back({{op}});
  });
  SmallVector<Panels> all;
  for (auto &[key, alike] : found)
    llvm::append_range(all, alike);
  return all;
}

/// Checks what both kinds of arithmetic ask of a product.
static LogicalResult check(GroupDotOp op) {
  Type type = cast<MemRefType>(op.getX().getType()).getElementType();
  if ((type.isF16() || type.isBF16()) && !op.getPerm())
    return success();
  return op.emitOpError("expects activations of f16 or bf16 and no "
                        "permutation, but found ")
         << type << (op.getPerm() ? " with one" : "");
}

/// The sum of the activations of a group: threads take columns in turn.
static LogicalResult lowerSum(GroupSumOp op) {
  if (op.getPerm())
    return op.emitOpError("expects activations without a permutation");
  constexpr int64_t lanes = VectorBuilder::kWarpThreads;
  const int64_t depth = op.getDepth();
  VectorBuilder b(op, lanes);
  auto memref = cast<MemRefType>(op.getX().getType());
  Value m = memref.isDynamicDim(0)
                ? Value(memref::DimOp::create(b, op.getX(), 0))
                : b.index(memref.getDimSize(0));
  Value last = arith::SubIOp::create(b, m, b.index(1));
  Value lane = gpu::LaneIdOp::create(b, /*upper_bound=*/IntegerAttr());
  auto type = cast<VectorType>(op.getResult().getType());
  Value result = b.zeros(type);
  for (int64_t r = 0; r < type.getDimSize(0); ++r) {
    Value row = arith::MinUIOp::create(b, b.add(op.getRow(), r), last);
    Value sum;
    for (int64_t at = 0; at < depth; at += lanes) {
      // Past the end the first is read again, and counts nothing.
      const bool isWhole = at + lanes <= depth;
      Value column = b.add(lane, at), exists;
      if (!isWhole) {
        exists = arith::CmpIOp::create(b, arith::CmpIPredicate::ult, column,
                                       b.index(depth));
        column = arith::SelectOp::create(b, exists, column, b.index(0));
      }
      Value term = b.loadScalar(op.getX(), {row, b.add(op.getK0(), column)});
      if (!isWhole)
        term = arith::SelectOp::create(b, exists, term, b.f32(0));
      sum = sum ? Value(arith::AddFOp::create(b, sum, term)) : term;
    }
    for (int64_t mask = lanes / 2; mask > 0; mask /= 2)
      sum = arith::AddFOp::create(b, sum, b.shuffle(sum, mask));
    result = vector::InsertOp::create(b, sum, result, r);
  }
  op.getResult().replaceAllUsesWith(result);
  op.erase();
  return success();
}

namespace {
struct NVVMSelectHalfMathPass final
    : mlir::gptq::impl::NVVMSelectHalfMathPassBase<NVVMSelectHalfMathPass> {
  using Base::Base;

  void runOnOperation() override {
    for (const Panels &panels : collect(getOperation(), [&](GroupDotOp op) {
           const ::gptq::UnitInfo *unit = unitOf(op.getPlan());
           Type type = cast<MemRefType>(op.getX().getType()).getElementType();
           return unit && unit->multipliesPairs &&
                  (type.isF16() || (type.isBF16() && bf16));
         })) {
      GroupDotOp op = panels.first();
      const bool isBF16 =
          cast<MemRefType>(op.getX().getType()).getElementType().isBF16();
      VectorBuilder b(op, op.getPlan().getLanes());
      if (failed(check(op)) ||
          failed(PairLowering(b, panels, isBF16 ? bf16Rows : f16Rows).run()))
        return signalPassFailure();
    }
  }
};

struct NVVMLowerVectorDotPass final
    : mlir::gptq::impl::NVVMLowerVectorDotPassBase<NVVMLowerVectorDotPass> {
  using Base::Base;

  void runOnOperation() override {
    SmallVector<GroupSumOp> sums;
    getOperation()->walk([&](GroupSumOp op) {
      if (usesLanes(op.getPlan()))
        sums.push_back(op);
    });
    for (GroupSumOp op : sums)
      if (failed(lowerSum(op)))
        return signalPassFailure();
    for (const Panels &panels : collect(getOperation(), [](GroupDotOp op) {
           return usesLanes(op.getPlan());
         })) {
      GroupDotOp op = panels.first();
      VectorBuilder b(op, op.getPlan().getLanes());
      if (failed(check(op)) || failed(ScalarLowering(b, panels).run()))
        return signalPassFailure();
    }
  }
};
} // namespace
