//===- CPULowerGroupDot.cpp - The inner loop on CPUs ----------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Codegen/CPU/Passes.h"
#include "gptq/Codegen/Common/Layout.h"
#include "gptq/Codegen/Common/Plan.h"
#include "gptq/Codegen/Common/VectorBuilder.h"
#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Interfaces/FunctionInterfaces.h"
#include "llvm/ADT/Sequence.h"
#include <cmath>

namespace mlir::gptq {
#define GEN_PASS_DEF_CPULOWERGROUPDOTPASS
#include "gptq/Codegen/CPU/Passes.h.inc"
} // namespace mlir::gptq

using namespace mlir;
using namespace mlir::gptq;

namespace {

/// Lowers one group_dot: a register tile of R rows by V vectors of lanes.
class DotLowering {
public:
  DotLowering(GroupDotOp op, VectorBuilder &b)
      : op(op), b(b), layout(op.getLayout()),
        type(cast<VectorType>(op.getAcc().getType())),
        rows(type.getDimSize(0)) {
    const ::gptq::UnitInfo *unit =
        findUnit(op.getPlan().getUnit(), op.getPlan().getLanes());
    addsWide = unit && unit->addsBytesWide && b.lanes == 16;
    int64_t runs = op.getColumns().size(), width = type.getDimSize(1) / runs;
    for (int64_t column : op.getColumns())
      for (int64_t at = 0; at < width; at += b.lanes)
        columns.push_back(column + at);
  }

  LogicalResult run();

private:
  void runOnFloats();
  void runOnBytes();

  int64_t vectors() const { return columns.size(); }
  bool isFloat() { return isa<FloatType>(weightType().getElementType()); }
  MemRefType weightType() { return cast<MemRefType>(op.getW().getType()); }
  Value constant(VectorType type, int64_t value) {
    return arith::ConstantOp::create(
        b, DenseElementsAttr::get(
               type, b.getIntegerAttr(type.getElementType(), value)));
  }
  SmallVector<Value> split(Value tile);
  Value splitColumns(Value perColumn, int64_t vector);
  Value join(ArrayRef<Value> parts);
  Value load(Value block, int64_t address);
  void prefetch(Value block, int64_t part, int64_t parts);
  Value joinWord(Value block, int64_t word, int64_t column);
  void step(Value block, Value k0, int64_t limit, MutableArrayRef<Value> sums);
  void stepField(ArrayRef<Value> weights, Value k, int64_t set, double factor,
                 MutableArrayRef<Value> sums);
  bool readsBytes();
  Value callIntrinsic(StringRef name, Type type, ValueRange operands);
  Value broadcastBytes(Value column);
  void stepBytes(Value block, Value k0, ArrayRef<int64_t> part, bool fetches,
                 MutableArrayRef<Value> sums);
  SmallVector<Value> dotBytes(ArrayRef<int64_t> part, ArrayRef<Value> acc,
                              bool fetches);

  GroupDotOp op;
  VectorBuilder &b;
  Layout layout;
  std::optional<JoinedWords> joined;
  VectorType type;
  int64_t rows;
  /// The first column of each vector of the tile.
  SmallVector<int64_t> columns;
  SmallVector<Value> scales, zeros, offsets;
  /// Whether codes are multiplied where they lie in their word, as q * 2^shift,
  /// by activations that are as much smaller. Both are exact, and a shift for
  /// every vector of weights becomes a multiplication for every activation:
  /// worth it where fewer rows than vectors share a step.
  bool multipliesInPlace() const {
    return rows < vectors() && scales.empty() && zeros.empty() &&
           offsets.empty();
  }

  /// Independent sums per accumulator.
  int64_t sets = 1;
  /// Whether products of bytes are added to 32-bit sums at once (vpdpbusd).
  bool addsWide;
};

} // namespace

Value DotLowering::splitColumns(Value perColumn, int64_t vector) {
  if (vectors() == 1)
    return perColumn;
  return vector::ExtractStridedSliceOp::create(
      b, perColumn, ArrayRef<int64_t>{vector * b.lanes},
      ArrayRef<int64_t>{b.lanes}, ArrayRef<int64_t>{1});
}

SmallVector<Value> DotLowering::split(Value tile) {
  SmallVector<Value> parts;
  for (int64_t r = 0; r < rows; ++r) {
    Value row = vector::ExtractOp::create(b, tile, r);
    for (int64_t v = 0; v < vectors(); ++v)
      parts.push_back(splitColumns(row, v));
  }
  return parts;
}

Value DotLowering::join(ArrayRef<Value> parts) {
  Value tile = b.zeros(type);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t v = 0; v < vectors(); ++v)
      tile = vector::InsertStridedSliceOp::create(
          b, parts[r * vectors() + v], tile, ArrayRef<int64_t>{r, v * b.lanes},
          ArrayRef<int64_t>{1});
  return tile;
}

/// One word of each lane's column, or one element.
Value DotLowering::load(Value block, int64_t address) {
  auto word = VectorType::get({b.lanes}, weightType().getElementType());
  return vector::LoadOp::create(
      b, word, op.getW(),
      ValueRange{op.getPanel(), block,
                 b.index(address / weightType().getElementTypeBitWidth())});
}

/// Bytes that are fetched together.
static constexpr int64_t kLineBytes = 64;

/// Bytes of a panel between the block that is multiplied and the one that is
/// fetched: some 200 ns ahead of time, in a quarter of the smallest first-level
/// cache, which activations need, too.
static constexpr int64_t kPrefetchBytes = 8192;

/// Fetches part `part` of `parts` of the block that is multiplied some time
/// after `block`. A core holds ten to sixteen lines that are on their way;
/// fetching a block's all at once would stop it until most have come.
void DotLowering::prefetch(Value block, int64_t part, int64_t parts) {
  const int64_t lines = llvm::divideCeil(layout.blockBits(), 8 * kLineBytes);
  const int64_t bytes = layout.blockBits() / 8;
  const int64_t unit = weightType().getElementTypeBitWidth();
  Value ahead = b.add(block, llvm::divideCeil(kPrefetchBytes, bytes));
  for (int64_t line :
       llvm::seq(lines * part / parts, lines * (part + 1) / parts))
    memref::PrefetchOp::create(
        b, op.getLoc(), op.getW(),
        ValueRange{op.getPanel(), ahead, b.index(line * kLineBytes * 8 / unit)},
        /*isWrite=*/false, /*localityHint=*/3, /*isDataCache=*/true);
}

/// Word `word` of each lane's column, put together from its planes. What fills
/// slots beside the codes is undefined: each part is blended into what lies
/// around it, one instruction on AVX-512, and users of a code mask it anyhow.
Value DotLowering::joinWord(Value block, int64_t word, int64_t column) {
  Value result;
  for (const auto &[address, field, firstBit, bits] :
       joined->sources(word, column)) {
    Value part = load(block, address);
    auto type = cast<VectorType>(part.getType());
    if (firstBit > field)
      part = arith::ShLIOp::create(b, part, constant(type, firstBit - field));
    else if (firstBit < field)
      part = arith::ShRUIOp::create(b, part, constant(type, field - firstBit));
    if (!result) {
      result = part;
      continue;
    }
    const int32_t mask = joined->maskOfSlots(firstBit, bits);
    result = arith::OrIOp::create(
        b, arith::AndIOp::create(b, part, constant(type, mask)),
        arith::AndIOp::create(b, result, constant(type, ~mask)));
  }
  return result;
}

/// Adds the products of `weights`, all of input row `k` and `1 / factor` times
/// what they should be.
void DotLowering::stepField(ArrayRef<Value> weights, Value k, int64_t set,
                            double factor, MutableArrayRef<Value> sums) {
  if (op.getPerm())
    k = arith::IndexCastOp::create(
        b, b.getIndexType(),
        memref::LoadOp::create(b, op.getPerm(), ValueRange{k}));
  for (int64_t r = 0; r < rows; ++r) {
    Value x =
        b.splat(b.loadScalar(op.getX(), {b.add(op.getRow(), r), k}), b.lanes);
    if (factor != 1)
      x = arith::MulFOp::create(b, x, b.splat(b.f32(factor), b.lanes));
    for (int64_t v = 0; v < vectors(); ++v) {
      Value &sum = sums[(set * rows + r) * vectors() + v];
      sum = vector::FMAOp::create(b, x, weights[v], sum);
    }
  }
}

/// Adds the products of `block` of the panel, whose first row is `k0`, and of
/// which only the first `limit` rows belong to the group.
void DotLowering::step(Value block, Value k0, int64_t limit,
                       MutableArrayRef<Value> sums) {
  if (isFloat()) {
    SmallVector<Value> weights;
    for (int64_t column : columns)
      weights.push_back(b.toF32(load(block, layout.address(0, 0, column))));
    return stepField(weights, k0, /*set=*/0, /*factor=*/1, sums);
  }
  const int64_t slot = joined->slotBits(), slots = joined->slots();
  int64_t fields = 0;
  for (int64_t c = 0; c < joined->words(); ++c) {
    auto slotsOfGroup = llvm::make_filter_range(
        llvm::seq(slots), [&](int64_t i) { return joined->row(c, i) < limit; });
    if (slotsOfGroup.empty())
      continue;
    // One row waits for its weights, which no loop before it has touched.
    if (rows == 1)
      prefetch(block, c, joined->words());
    SmallVector<Value> words;
    for (int64_t column : columns)
      words.push_back(joinWord(block, c, column));
    for (int64_t i : slotsOfGroup) {
      const int64_t shift = i * slot;
      // A whole slot at the upper end would be a negative number in place, and
      // needs no mask where it is shifted down.
      const bool isWholeTop = i + 1 == slots && slot == layout.bits();
      const bool inPlace = multipliesInPlace() && shift > 0 && !isWholeTop;
      SmallVector<Value> weights;
      for (int64_t v = 0; v < vectors(); ++v) {
        Value w = words[v];
        auto wordType = cast<VectorType>(w.getType());
        if (shift && !inPlace)
          w = arith::ShRUIOp::create(b, w, constant(wordType, shift));
        if (!isWholeTop)
          w = arith::AndIOp::create(
              b, w,
              constant(wordType, ((int64_t(1) << layout.bits()) - 1)
                                     << (inPlace ? shift : 0)));
        // Codes have at most 8 bits: signed conversion is exact, and one
        // instruction.
        w = arith::SIToFPOp::create(b, b.vectorType(b.lanes), w);
        if (!zeros.empty())
          w = arith::SubFOp::create(b, w, zeros[v]);
        if (!scales.empty())
          w = arith::MulFOp::create(b, w, scales[v]);
        if (!offsets.empty())
          w = arith::AddFOp::create(b, w, offsets[v]);
        weights.push_back(w);
      }
      stepField(weights, b.add(k0, joined->row(c, i)), fields++ % sets,
                inPlace ? std::ldexp(1.0, -shift) : 1, sums);
    }
  }
}

/// FMAs in flight that hide the latency of one: 4 cycles, and unpacking lets no
/// more than one start in a cycle. More sums would spill words of weights.
static constexpr int64_t kIndependentSums = 4;

void DotLowering::runOnFloats() {
  for (int64_t v = 0; v < vectors(); ++v) {
    if (op.getScale())
      scales.push_back(splitColumns(op.getScale(), v));
    if (op.getZero())
      zeros.push_back(splitColumns(op.getZero(), v));
    if (op.getOffset())
      offsets.push_back(splitColumns(op.getOffset(), v));
  }

  int64_t depth = op.getDepth(), blockK = layout.blockK();
  int64_t whole = depth / blockK, rest = depth % blockK;
  int64_t tileVectors = rows * vectors();
  sets = std::clamp<int64_t>(kIndependentSums / tileVectors, 1, blockK);

  SmallVector<Value> sums = split(op.getAcc());
  for (int64_t set = 1; set < sets; ++set)
    sums.append(tileVectors, b.zeros(b.vectorType(b.lanes)));
  auto stepAt = [&](Value i, int64_t limit, MutableArrayRef<Value> sums) {
    step(b.add(op.getBlock(), i), b.add(op.getK0(), b.mul(i, blockK)), limit,
         sums);
  };
  if (whole) {
    auto loop =
        scf::ForOp::create(b, b.index(0), b.index(whole), b.index(1), sums);
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(loop.getBody());
    SmallVector<Value> next(loop.getRegionIterArgs());
    stepAt(loop.getInductionVar(), blockK, next);
    scf::YieldOp::create(b, next);
    sums.assign(loop.getResults().begin(), loop.getResults().end());
  }
  if (rest)
    stepAt(b.index(whole), rest, sums);
  for (int64_t i = tileVectors, e = sums.size(); i < e; ++i) {
    Value &sum = sums[i % tileVectors];
    sum = arith::AddFOp::create(b, sum, sums[i]);
  }
  op.getResult().replaceAllUsesWith(
      join(ArrayRef(sums).take_front(tileVectors)));
}

//===----------------------------------------------------------------------===//
// Products of bytes
//===----------------------------------------------------------------------===//
//
// With activations of three bytes, x = unit * (b0 + 256 b1 + 65536 b2), a sum
// of q * x is three sums of integers, of which one instruction computes four
// rows of a column at a time: vpmaddubsw multiplies bytes and adds pairs of
// products in 16 bits. These are added up as long as they cannot overflow, then
// widened. Where there is vpdpbusd it adds four products to a sum of 32 bits at
// once. No conversion of codes, and no rounding before the group's end.

/// Bytes an activation is split into.
static constexpr int64_t kBytes = 3;
/// Vectors of columns that share an activation's broadcast: their sums, times
/// kBytes, and their words fit 16 registers, or 32 where vectors have 16 lanes
/// and there is nothing to widen.
static constexpr int64_t kByteVectors = 2, kWideByteVectors = 4;

/// Four-row steps whose sums stay in 16 bits: two products each, of a code of
/// `bits` bits and a signed byte.
static int64_t stepsIn16Bits(int64_t bits) {
  return 32767 / (2 * ((1 << bits) - 1) * 128);
}

bool DotLowering::readsBytes() {
  if (!op.getBytes() || isFloat() || rows != 1 || op.getScale() ||
      op.getZero() || op.getOffset() || (b.lanes != 8 && b.lanes != 16))
    return false;
  const int64_t bits = layout.bits();
  if (bits > 8 || (!addsWide && stepsIn16Bits(bits) < layout.blockK() / 4) ||
      int64_t(op.getDepth()) * ((1 << bits) - 1) * 128 > INT32_MAX)
    return false;
  // The rows of the bytes of a word must follow each other.
  const int64_t slotsPerByte = 8 / joined->slotBits();
  for (int64_t c = 0; c < joined->words(); ++c)
    for (int64_t i = 0; i < joined->slots(); ++i)
      if (joined->row(c, i) !=
          joined->row(c, i % slotsPerByte) + i / slotsPerByte)
        return false;
  return true;
}

Value DotLowering::callIntrinsic(StringRef name, Type type,
                                 ValueRange operands) {
  return LLVM::CallIntrinsicOp::create(b, type, b.getStringAttr(name), operands)
      ->getResult(0);
}

/// Four bytes of the activations from `column` on, for every lane.
Value DotLowering::broadcastBytes(Value column) {
  Value four =
      vector::LoadOp::create(b, VectorType::get({4}, b.getI8Type()),
                             op.getBytes(), ValueRange{op.getRow(), column});
  Value word = vector::ExtractOp::create(
      b,
      vector::BitCastOp::create(b, VectorType::get({1}, b.getI32Type()), four),
      0);
  Value words = vector::BroadcastOp::create(
      b, VectorType::get({b.lanes}, b.getI32Type()), word);
  return vector::BitCastOp::create(
      b, VectorType::get({4 * b.lanes}, b.getI8Type()), words);
}

/// Adds the products of a block, in 16 bits unless `addsWide`: `sums` of each
/// byte, for each column of `part`.
void DotLowering::stepBytes(Value block, Value k0, ArrayRef<int64_t> part,
                            bool fetches, MutableArrayRef<Value> sums) {
  const int64_t slot = joined->slotBits();
  const int64_t stride =
      cast<MemRefType>(op.getBytes().getType()).getDimSize(1) / kBytes;
  auto bytes = VectorType::get({4 * b.lanes}, b.getI8Type());
  StringRef multiply = b.lanes == 8 ? "llvm.x86.avx2.pmadd.ub.sw"
                                    : "llvm.x86.avx512.pmaddubs.w.512";
  for (int64_t c = 0; c < joined->words(); ++c) {
    SmallVector<Value> words;
    if (fetches)
      prefetch(block, c, joined->words());
    for (int64_t column : part)
      words.push_back(joinWord(block, c, column));
    for (int64_t i = 0; i < 8 / slot; ++i) {
      SmallVector<Value> codes;
      for (Value w : words) {
        auto wordType = cast<VectorType>(w.getType());
        if (i > 0)
          w = arith::ShRUIOp::create(b, w, constant(wordType, i * slot));
        if (layout.bits() < 8)
          w = arith::AndIOp::create(
              b, w,
              constant(wordType, ((1 << layout.bits()) - 1) * 0x01010101));
        codes.push_back(vector::BitCastOp::create(b, bytes, w));
      }
      Value k = b.add(k0, joined->row(c, i));
      for (int64_t byte = 0; byte < kBytes; ++byte) {
        Value x = broadcastBytes(b.add(k, byte * stride));
        for (auto [v, code] : llvm::enumerate(codes)) {
          Value &sum = sums[byte * part.size() + v];
          if (addsWide)
            sum = callIntrinsic("llvm.x86.avx512.vpdpbusd.512", sum.getType(),
                                ValueRange{sum, code, x});
          else
            sum = arith::AddIOp::create(
                b, sum,
                callIntrinsic(multiply, sum.getType(), ValueRange{code, x}));
        }
      }
    }
  }
}

/// Adds the group's products of the columns of `part` to `acc`, a vector for
/// each of them.
SmallVector<Value> DotLowering::dotBytes(ArrayRef<int64_t> part,
                                         ArrayRef<Value> acc, bool fetches) {
  auto narrow = VectorType::get({2 * b.lanes}, b.getI16Type());
  auto wide = VectorType::get({b.lanes}, b.getI32Type());
  const int64_t blockK = layout.blockK();
  const int64_t blocks = llvm::divideCeil(op.getDepth(), blockK);
  const size_t count = kBytes * part.size();

  // Adds `blocks` blocks from number `first` of the group on to `sums`.
  auto addBlocks = [&](Value first, int64_t blocks,
                       ValueRange sums) -> SmallVector<Value> {
    auto loop =
        scf::ForOp::create(b, b.index(0), b.index(blocks), b.index(1), sums);
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(loop.getBody());
    Value i = b.add(first, loop.getInductionVar());
    Value block = b.add(op.getBlock(), i);
    SmallVector<Value> next(loop.getRegionIterArgs());
    stepBytes(block, b.add(op.getK0(), b.mul(i, blockK)), part, fetches, next);
    scf::YieldOp::create(b, next);
    return SmallVector<Value>(loop.getResults());
  };
  // The same with sums of 16 bits in between.
  auto addNarrowBlocks = [&](Value first, int64_t blocks,
                             ValueRange sums) -> SmallVector<Value> {
    StringRef widen = b.lanes == 8 ? "llvm.x86.avx2.pmadd.wd"
                                   : "llvm.x86.avx512.pmaddw.d.512";
    SmallVector<Value> result;
    for (auto [sum, narrowSum] :
         llvm::zip(sums, addBlocks(first, blocks,
                                   SmallVector<Value>(count, b.zeros(narrow)))))
      result.push_back(arith::AddIOp::create(
          b, sum,
          callIntrinsic(widen, wide,
                        ValueRange{narrowSum, constant(narrow, 1)})));
    return result;
  };

  SmallVector<Value> sums(count, b.zeros(wide));
  if (addsWide) {
    sums = addBlocks(b.index(0), blocks, sums);
  } else {
    const int64_t blocksAtOnce = stepsIn16Bits(layout.bits()) / (blockK / 4);
    int64_t whole = blocks / blocksAtOnce;
    if (whole) {
      auto loop =
          scf::ForOp::create(b, b.index(0), b.index(whole * blocksAtOnce),
                             b.index(blocksAtOnce), sums);
      OpBuilder::InsertionGuard guard(b);
      b.setInsertionPointToStart(loop.getBody());
      scf::YieldOp::create(b,
                           addNarrowBlocks(loop.getInductionVar(), blocksAtOnce,
                                           loop.getRegionIterArgs()));
      sums.assign(loop.getResults().begin(), loop.getResults().end());
    }
    if (int64_t rest = blocks % blocksAtOnce)
      sums = addNarrowBlocks(b.index(whole * blocksAtOnce), rest, sums);
  }

  Value unit = b.splat(vector::ExtractOp::create(b, op.getUnit(), 0), b.lanes);
  SmallVector<Value> results;
  for (size_t v = 0; v < part.size(); ++v) {
    Value sum;
    for (int64_t byte = kBytes; byte-- > 0;) {
      Value term = arith::SIToFPOp::create(b, b.vectorType(b.lanes),
                                           sums[byte * part.size() + v]);
      sum = sum ? Value(vector::FMAOp::create(
                      b, sum, b.splat(b.f32(256), b.lanes), term))
                : term;
    }
    results.push_back(vector::FMAOp::create(b, sum, unit, acc[v]));
  }
  return results;
}

void DotLowering::runOnBytes() {
  SmallVector<Value> acc = split(op.getAcc()), results;
  const int64_t most = addsWide ? kWideByteVectors : kByteVectors;
  for (int64_t first = 0; first < vectors(); first += most) {
    int64_t count = std::min(most, vectors() - first);
    results.append(dotBytes(ArrayRef(columns).slice(first, count),
                            ArrayRef(acc).slice(first, count), first == 0));
  }
  op.getResult().replaceAllUsesWith(join(results));
}

LogicalResult DotLowering::run() {
  const int64_t unit = weightType().getElementTypeBitWidth();
  bool isFit =
      (type.getDimSize(1) / int64_t(op.getColumns().size())) % b.lanes == 0;
  for (const Layout::Part &part : layout.getParts())
    isFit = isFit && part.plane.hasWholeElements() &&
            part.plane.contiguousRun(LayoutDim::N, unit) >= b.lanes;
  if (!isFloat()) {
    FailureOr<JoinedWords> words = JoinedWords::create(layout);
    isFit = isFit && succeeded(words);
    if (isFit)
      joined.emplace(*words);
  }
  if (!isFit)
    return op.emitOpError("expects a layout with ")
           << b.lanes << " columns side by side, one word each, but found "
           << op.getLayout();
  if (readsBytes())
    runOnBytes();
  else
    runOnFloats();
  op.erase();
  return success();
}

/// Lowers a group_sum: whole vectors along K, then a sum over lanes.
static void lowerGroupSum(GroupSumOp op, VectorBuilder &b) {
  auto type = cast<VectorType>(op.getResult().getType());
  Value result = b.zeros(type);
  for (int64_t r = 0; r < type.getDimSize(0); ++r) {
    Value row = b.add(op.getRow(), r), sum;
    if (op.getPerm()) {
      auto loop = scf::ForOp::create(b, b.index(0), b.index(op.getDepth()),
                                     b.index(1), ValueRange{b.f32(0.0)});
      OpBuilder::InsertionGuard guard(b);
      b.setInsertionPointToStart(loop.getBody());
      Value at = arith::IndexCastOp::create(
          b, b.getIndexType(),
          memref::LoadOp::create(
              b, op.getPerm(),
              ValueRange{b.add(op.getK0(), loop.getInductionVar())}));
      Value next = arith::AddFOp::create(b, loop.getRegionIterArg(0),
                                         b.loadScalar(op.getX(), {row, at}));
      scf::YieldOp::create(b, ValueRange{next});
      sum = loop.getResult(0);
    } else {
      sum = b.sumChunks(op.getDepth(), [&](Value at, int64_t n) {
        return b.load(op.getX(), {row, b.add(op.getK0(), at)}, n);
      });
    }
    result = vector::InsertOp::create(b, sum, result, r);
  }
  op.getResult().replaceAllUsesWith(result);
  op.erase();
}

namespace {
struct CPULowerGroupDotPass final
    : mlir::gptq::impl::CPULowerGroupDotPassBase<CPULowerGroupDotPass> {
  using Base::Base;

  void runOnOperation() override {
    SmallVector<Operation *> ops;
    getOperation()->walk([&](Operation *op) {
      if (isa<GroupDotOp, GroupSumOp>(op))
        ops.push_back(op);
    });
    for (Operation *op : ops) {
      if (auto sum = dyn_cast<GroupSumOp>(op)) {
        VectorBuilder b(op, sum.getPlan().getLanes());
        lowerGroupSum(sum, b);
        continue;
      }
      auto dot = cast<GroupDotOp>(op);
      VectorBuilder b(op, dot.getPlan().getLanes());
      if (failed(DotLowering(dot, b).run()))
        return signalPassFailure();
    }
  }
};
} // namespace
