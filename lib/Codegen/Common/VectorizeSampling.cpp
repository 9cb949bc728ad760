//===- VectorizeSampling.cpp - Drawing a token ----------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The k largest of a row, and a token drawn from them. Elements are sorted as
// 64-bit keys that hold the value and, so that no two are equal, the index: the
// result does not depend on who compares what. The rest is the arithmetic of
// runtime/abi/Sampling.h.
//
// A workgroup sorts what fits its memory at a time. Runs of k keys are sorted
// (Batcher's bitonic merges, K. E. Batcher, "Sorting networks and their
// applications", 1968); of two sorted runs the k largest are the larger ones of
// key i of one and key k - 1 - i of the other, which are then merged again.
//
//===----------------------------------------------------------------------===//

#include "Vectorize.h"
#include "gptq/Codegen/Common/Plan.h"
#include "mlir/Interfaces/FunctionInterfaces.h"
#include "runtime/abi/Sampling.h"
#include "llvm/Support/MathExtras.h"

#include <limits>

using namespace mlir;
using namespace mlir::gptq;
namespace sampling = ::gptq::abi::sampling;

static_assert(kSamplingWords == sampling::NumWords);

/// Keys that a workgroup holds at a time: 32 KiB of the 48 KiB that every GPU
/// has for one.
static constexpr int64_t kMostKeys = 4096;
/// The index that stands for no element.
static constexpr int64_t kNowhere = std::numeric_limits<int32_t>::max();

namespace {

/// Arithmetic on scalars.
class Scalars {
public:
  explicit Scalars(VectorBuilder &b) : b(b) {}

  Value i32(int64_t value) const {
    return arith::ConstantOp::create(b, b.getI32IntegerAttr(int32_t(value)));
  }
  Value i64(int64_t value) const {
    return arith::ConstantOp::create(b, b.getI64IntegerAttr(value));
  }
  Value f64(double value) const {
    return arith::ConstantOp::create(b, b.getF64FloatAttr(value));
  }
  /// Words as one number.
  Value join(Value low, Value high) const {
    return arith::OrIOp::create(b, extend(low), shiftLeft(extend(high), 32));
  }
  Value extend(Value word) const {
    return arith::ExtUIOp::create(b, b.getI64Type(), word);
  }
  Value low(Value x) const {
    return arith::TruncIOp::create(b, b.getI32Type(), x);
  }
  Value high(Value x) const {
    return low(arith::ShRUIOp::create(b, x, i64(32)));
  }
  Value shiftLeft(Value x, int64_t bits) const {
    return arith::ShLIOp::create(b, x, i64(bits));
  }
  Value exclusiveOr(Value x, Value y) const {
    return arith::XOrIOp::create(b, x, y);
  }
  Value more(Value x, Value y) const {
    return arith::CmpIOp::create(b, arith::CmpIPredicate::ugt, x, y);
  }
  /// The halves of the product of unsigned numbers.
  std::pair<Value, Value> multiply(Value x, Value y) const {
    auto product = arith::MulUIExtendedOp::create(b, x, y);
    return {product.getLow(), product.getHigh()};
  }

private:
  VectorBuilder &b;
};

} // namespace

//===----------------------------------------------------------------------===//
// Keys
//===----------------------------------------------------------------------===//

/// A key that is larger the larger `value` (f32) is and, of equal ones, the
/// lower `index` (i32): floats order like their bits, but for the sign. NaNs
/// have the key of no element.
static Value keyOf(VectorBuilder &b, Value value, Value index) {
  Scalars s(b);
  Value isNan =
      arith::CmpFOp::create(b, arith::CmpFPredicate::UNO, value, value);
  value =
      select(b, isNan, b.f32(-std::numeric_limits<float>::infinity()), value);
  index = select(b, isNan, s.i32(kNowhere), index);
  // -0 and 0 are equal.
  value = arith::AddFOp::create(b, value, b.f32(0));
  Value bits = arith::BitcastOp::create(b, b.getI32Type(), value);
  Value sign = arith::ShRSIOp::create(b, bits, s.i32(31));
  Value ordered = s.exclusiveOr(
      bits, arith::OrIOp::create(b, sign, s.i32(int64_t(1) << 31)));
  return s.join(s.exclusiveOr(index, s.i32(-1)), ordered);
}

/// The index in a key.
static Value indexOf(VectorBuilder &b, Value key) {
  Scalars s(b);
  return s.exclusiveOr(s.low(key), s.i32(-1));
}

/// The value in a key.
static Value valueOf(VectorBuilder &b, Value key) {
  Scalars s(b);
  Value ordered = s.high(key);
  Value isNegative =
      arith::CmpIOp::create(b, arith::CmpIPredicate::sge, ordered, s.i32(0));
  Value mask = select(b, isNegative, s.i32(-1), s.i32(int64_t(1) << 31));
  return arith::BitcastOp::create(b, b.getF32Type(),
                                  s.exclusiveOr(ordered, mask));
}

/// The key of no element: -∞ at kNowhere, which every element's key exceeds.
static Value noKey(VectorBuilder &b) {
  return Scalars(b).i64(0x007FFFFF80000000);
}

//===----------------------------------------------------------------------===//
// Sorting
//===----------------------------------------------------------------------===//

namespace {

/// Sorts keys in workgroup memory, the largest first.
class Sorter {
public:
  /// For the `k` largest of `most` keys, which may be runs of k that are sorted
  /// already.
  Sorter(VectorBuilder &b, int64_t k, int64_t most, bool areRunsSorted)
      : b(b), k(k), areRunsSorted(areRunsSorted),
        room(std::clamp<int64_t>(llvm::PowerOf2Ceil(most), k, kMostKeys)),
        trips(most <= room ? 1 : 1 + llvm::divideCeil(most - room, room - k)),
        keys(b.workgroupBuffer({room}, b.getI64Type())) {}

  /// Leaves the largest of `from(i)`, i in [begin, end), in the first k places
  /// of the buffer it returns.
  Value run(Value begin, Value end, function_ref<Value(Value)> from);

private:
  Value load(Value at) {
    return memref::LoadOp::create(b, keys, ValueRange{at});
  }
  void store(Value key, Value at) {
    memref::StoreOp::create(b, key, keys, ValueRange{at});
  }
  Value sub(Value x, Value y) { return arith::SubIOp::create(b, x, y); }
  Value shiftRight(Value x, Value bits) {
    return arith::ShRUIOp::create(b, x, bits);
  }
  Value shiftLeft(Value x, Value bits) {
    return arith::ShLIOp::create(b, x, bits);
  }
  /// Runs `body(i)` for i in [from, count), which the threads share, and waits
  /// for all of them. `count` is `most` at most.
  void forShare(Value from, Value count, int64_t most,
                function_ref<void(Value)> body);
  void order(Value first, Value second);
  void mergeHalves(Value runs, Value spacing, Value size);
  void sortRuns();
  void keepLargest();

  VectorBuilder &b;
  const int64_t k;
  const bool areRunsSorted;
  const int64_t room, trips;
  Value keys;
};

} // namespace

void Sorter::forShare(Value from, Value count, int64_t most,
                      function_ref<void(Value)> body) {
  Value first = b.threads > 1 ? b.add(from, b.thread) : from;
  if (most > b.threads || b.threads == 1) {
    b.forRange(first, count, b.threads, body);
  } else {
    auto is = scf::IfOp::create(b, less(b, first, count));
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(is.thenBlock());
    body(first);
  }
  b.barrier();
}

/// Puts the larger of two keys first.
void Sorter::order(Value first, Value second) {
  Value x = load(first), y = load(second);
  Value isMore = Scalars(b).more(y, x);
  store(select(b, isMore, y, x), first);
  store(select(b, isMore, x, y), second);
}

/// Sorts `runs` runs of 2^size keys, whose starts are 2^spacing apart, where
/// each rises and then falls, or the other way round, or is a part of such:
/// keys half a run apart are compared, then those a quarter apart, and so on.
void Sorter::mergeHalves(Value runs, Value spacing, Value size) {
  Value one = b.index(1), zero = b.index(0);
  // Keys of a pair are 2^distance apart.
  b.forRange(zero, size, 1, [&](Value step) {
    Value distance = sub(sub(size, one), step);
    Value pairs = shiftLeft(runs, sub(size, one));
    forShare(zero, pairs, room / 2, [&](Value pair) {
      // The pair's number in its run, and the run's start.
      Value run = shiftRight(pair, sub(size, one));
      Value i = sub(pair, shiftLeft(run, sub(size, one)));
      Value block = shiftRight(i, distance);
      Value first =
          b.add(b.add(i, shiftLeft(block, distance)), shiftLeft(run, spacing));
      order(first, b.add(first, shiftLeft(one, distance)));
    });
  });
}

/// Sorts every run of k keys: from runs of one key on, two neighbours are
/// merged, the second one read from its end.
void Sorter::sortRuns() {
  Value one = b.index(1), zero = b.index(0);
  Value pairs = b.index(room / 2);
  b.forRange(zero, b.index(llvm::Log2_64(k)), 1, [&](Value size) {
    // Two runs of 2^size keys.
    forShare(zero, pairs, room / 2, [&](Value pair) {
      Value run = shiftRight(pair, size);
      Value start = shiftLeft(run, b.add(size, one));
      Value i = sub(pair, shiftLeft(run, size));
      Value last = sub(shiftLeft(one, b.add(size, one)), one);
      order(b.add(start, i), b.add(start, sub(last, i)));
    });
    Value runs = shiftRight(b.index(room), size);
    mergeHalves(runs, size, size);
  });
}

/// Leaves the k largest keys of all runs, which are sorted, in the first.
void Sorter::keepLargest() {
  Value one = b.index(1), zero = b.index(0), last = b.index(k - 1);
  const int64_t logK = llvm::Log2_64(k), levels = llvm::Log2_64(room) - logK;
  if (levels == 0)
    return;
  b.forRange(zero, b.index(levels), 1, [&](Value level) {
    // Runs start 2^spacing apart; every second one is given up.
    Value spacing = b.add(level, logK);
    Value runs = shiftRight(b.index(room / 2), spacing);
    forShare(zero, b.mul(runs, k), room / 2, [&](Value pair) {
      Value run = b.divide(pair, k), i = b.remainder(pair, k);
      Value start = shiftLeft(run, b.add(spacing, one));
      Value first = b.add(start, i);
      Value x = load(first),
            y = load(
                b.add(b.add(start, shiftLeft(one, spacing)), sub(last, i)));
      store(select(b, Scalars(b).more(y, x), y, x), first);
    });
    mergeHalves(runs, b.add(spacing, one), b.index(logK));
  });
}

Value Sorter::run(Value begin, Value end, function_ref<Value(Value)> from) {
  // From the second time on the first run holds the largest so far.
  b.forRange(b.index(0), b.index(trips), 1, [&](Value trip) {
    Value isFirst = equal(b, trip, b.index(0));
    Value kept = select(b, isFirst, b.index(0), b.index(k));
    Value base = b.add(begin, b.mul(trip, room - k));
    forShare(kept, b.index(room), room, [&](Value at) {
      Value i = b.add(base, at);
      auto is = scf::IfOp::create(b, TypeRange{b.getI64Type()}, less(b, i, end),
                                  /*withElseRegion=*/true);
      OpBuilder::InsertionGuard guard(b);
      b.setInsertionPointToStart(is.thenBlock());
      scf::YieldOp::create(b, ValueRange{from(i)});
      b.setInsertionPointToStart(is.elseBlock());
      scf::YieldOp::create(b, ValueRange{noKey(b)});
      b.setInsertionPointAfter(is);
      store(is.getResult(0), at);
    });
    if (!areRunsSorted)
      sortRuns();
    keepLargest();
  });
  return keys;
}

//===----------------------------------------------------------------------===//
// The ops
//===----------------------------------------------------------------------===//

/// Two runs of k keys have to fit.
static LogicalResult checkFits(Operation *op, int64_t k) {
  if (2 * k <= kMostKeys)
    return success();
  return op->emitOpError("expects at most ")
         << kMostKeys / 2 << " values for each part, but found " << k;
}

/// The key of the element that `indices` has at `i`, both taken as one row.
static Value keyAt(VectorBuilder &b, Value values, Value indices, Value i) {
  const int64_t k = columnsOf(values);
  SmallVector<Value> place = {b.divide(i, k), b.remainder(i, k)};
  return keyOf(b, b.loadScalar(values, place),
               memref::LoadOp::create(b, indices, place));
}

LogicalResult mlir::gptq::vectorizeTopK(TopKOp op, VectorBuilder &b) {
  Value values = op.getInits()[0], indices = op.getInits()[1];
  auto input = cast<MemRefType>(op.getInput().getType());
  const int64_t k = columnsOf(values), columns = op.getColumns();
  if (failed(checkFits(op, k)))
    return failure();
  if (!input.hasStaticShape())
    return op.emitOpError("expects an input of known size, but found ")
           << input;
  Value zero = b.index(0);
  Sorter sorter(b, k, columns, /*areRunsSorted=*/bool(op.getIndices()));
  b.forEach(rowsOf(b, values), [&](Value row) {
    Value begin = b.mul(b.add(op.getPart(), row), columns);
    Value end = arith::MinSIOp::create(b, b.index(input.getNumElements()),
                                       b.add(begin, columns));
    Value keys = sorter.run(begin, end, [&](Value column) -> Value {
      if (op.getIndices())
        return keyAt(b, op.getInput(), op.getIndices(), column);
      return keyOf(b, b.loadScalar(op.getInput(), {zero, column}),
                   arith::IndexCastOp::create(b, b.getI32Type(), column));
    });
    b.forEachElement(k, [&](Value i) {
      Value key = memref::LoadOp::create(b, keys, ValueRange{i});
      memref::StoreOp::create(b, valueOf(b, key), values, ValueRange{row, i});
      memref::StoreOp::create(b, indexOf(b, key), indices, ValueRange{row, i});
    });
    // The keys of the next part come to the same place.
    b.barrier();
  });
  return success();
}

/// The weight of a candidate `value` where `top` is the largest, f32.
static Value weightOf(VectorBuilder &b, Value value, Value top, Value scale) {
  Scalars s(b);
  auto wide = [&](Value x) -> Value {
    return arith::ExtFOp::create(b, b.getF64Type(), x);
  };
  Value y = arith::MulFOp::create(
      b, arith::SubFOp::create(b, wide(value), wide(top)), scale);
  Value lowest = s.f64(sampling::lowestExponent);
  // Next to an infinite `top`, y is no number: it is not above `lowest` either.
  Value isAbove =
      arith::CmpFOp::create(b, arith::CmpFPredicate::OGT, y, lowest);
  y = select(b, isAbove, y, lowest);
  Value n = arith::FPToSIOp::create(b, b.getI64Type(), y);
  Value f = arith::SubFOp::create(
      b, y, arith::SIToFPOp::create(b, b.getF64Type(), n));
  Value power;
  for (double term : llvm::reverse(sampling::exp2Terms))
    power = power ? Value(arith::AddFOp::create(
                        b, arith::MulFOp::create(b, power, f), s.f64(term)))
                  : s.f64(term);
  // 2^(n + weightBits) by its exponent, whose bias is 1023.
  Value bits = s.shiftLeft(
      arith::AddIOp::create(b, n, s.i64(1023 + sampling::weightBits)), 52);
  Value scaled = arith::MulFOp::create(
      b, power, arith::BitcastOp::create(b, b.getF64Type(), bits));
  return arith::FPToSIOp::create(b, b.getI64Type(),
                                 arith::AddFOp::create(b, scaled, s.f64(0.5)));
}

/// The random bits of `position`, i64, under `seed`, two words.
static Value randomBits(VectorBuilder &b, Value position,
                        std::array<Value, 2> seed) {
  namespace philox = sampling::philox;
  Scalars s(b);
  std::array<Value, 4> x = {s.low(position), s.high(position), s.i32(0),
                            s.i32(0)};
  std::array<Value, 2> key = seed;
  for (int round = 0; round < philox::rounds; ++round) {
    auto [aLow, aHigh] = s.multiply(x[0], s.i32(philox::multipliers[0]));
    auto [bLow, bHigh] = s.multiply(x[2], s.i32(philox::multipliers[1]));
    x = {s.exclusiveOr(s.exclusiveOr(bHigh, x[1]), key[0]), bLow,
         s.exclusiveOr(s.exclusiveOr(aHigh, x[3]), key[1]), aLow};
    for (int i = 0; i < 2; ++i)
      key[i] = arith::AddIOp::create(b, key[i], s.i32(philox::steps[i]));
  }
  return s.join(x[0], x[1]);
}

LogicalResult mlir::gptq::vectorizeSampleToken(SampleTokenOp op,
                                               VectorBuilder &b) {
  op->getParentOfType<FunctionOpInterface>()->setAttr(kAdvancesAttr,
                                                      b.getUnitAttr());
  Scalars s(b);
  auto word = [&](sampling::Word i) -> Value {
    return memref::LoadOp::create(b, op.getSampling(), ValueRange{b.index(i)});
  };
  auto at = [&](Value buffer, Value i) -> Value {
    return memref::LoadOp::create(b, buffer, ValueRange{i});
  };
  const int64_t parts =
                    cast<MemRefType>(op.getValues().getType()).getDimSize(0),
                k = columnsOf(op.getValues());
  if (ShapedType::isDynamic(parts))
    return op.emitOpError("expects a known number of parts");
  if (failed(checkFits(op, k)))
    return failure();
  Value topK = word(sampling::TopK);
  Value topP =
      arith::BitcastOp::create(b, b.getF32Type(), word(sampling::TopP));
  Value scale = arith::BitcastOp::create(
      b, b.getF64Type(),
      s.join(word(sampling::ScaleLow), word(sampling::ScaleHigh)));
  Value next = arith::AddIOp::create(
      b, arith::IndexCastOp::create(b, b.getI64Type(), op.getPosition()),
      s.i64(1));
  Value random =
      randomBits(b, next, {word(sampling::SeedLow), word(sampling::SeedHigh)});

  Value keys = Sorter(b, k, parts * k, /*areRunsSorted=*/true)
                   .run(b.index(0), b.index(parts * k), [&](Value i) -> Value {
                     return keyAt(b, op.getValues(), op.getIndices(), i);
                   });

  // Weights, the first of which is known; then the sums of all up to each, by
  // doubling what is added up.
  Value zero = b.index(0);
  Value sums = b.workgroupBuffer({k}, b.getI64Type()),
        more = b.workgroupBuffer({k}, b.getI64Type());
  Value top = valueOf(b, at(keys, zero));
  b.forEachElement(k, [&](Value i) {
    Value key = at(keys, i);
    Value isCandidate =
        both(b, less(b, arith::IndexCastOp::create(b, b.getI32Type(), i), topK),
             arith::CmpIOp::create(b, arith::CmpIPredicate::ne, key, noKey(b)));
    Value weight = select(b, isCandidate,
                          weightOf(b, valueOf(b, key), top, scale), s.i64(0));
    weight = select(b, equal(b, i, zero),
                    s.i64(int64_t(1) << sampling::weightBits), weight);
    memref::StoreOp::create(b, weight, sums, ValueRange{i});
  });
  b.barrier();
  // What stands `distance` in front of i; 0 where nothing does.
  auto before = [&](Value i, int64_t distance) -> Value {
    Value away = b.index(distance);
    Value there = arith::CmpIOp::create(b, arith::CmpIPredicate::sge, i, away);
    Value place =
        select(b, there, arith::SubIOp::create(b, i, away), b.index(0));
    return select(b, there, at(sums, place), s.i64(0));
  };
  for (int64_t distance = 1; distance < k; distance *= 2) {
    b.forEachElement(k, [&](Value i) {
      Value sum = arith::AddIOp::create(b, at(sums, i), before(i, distance));
      memref::StoreOp::create(b, sum, more, ValueRange{i});
    });
    b.barrier();
    std::swap(sums, more);
  }

  // The first sum that reaches top_p of all.
  auto wide = [&](Value sum) -> Value {
    return arith::SIToFPOp::create(b, b.getF64Type(), sum);
  };
  auto onlyIf = [&](Value condition, function_ref<void()> body) {
    auto only = scf::IfOp::create(b, condition);
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(only.thenBlock());
    body();
  };
  Value limit =
      arith::MulFOp::create(b, wide(at(sums, b.index(k - 1))),
                            arith::ExtFOp::create(b, b.getF64Type(), topP));
  Value kept = b.workgroupBuffer({1}, b.getI64Type());
  b.forEachElement(k, [&](Value i) {
    Value sum = at(sums, i);
    // Without a predecessor the limit, which is above 0, is not reached.
    Value isFirst = both(
        b,
        arith::CmpFOp::create(b, arith::CmpFPredicate::OGE, wide(sum), limit),
        arith::CmpFOp::create(b, arith::CmpFPredicate::OLT, wide(before(i, 1)),
                              limit));
    onlyIf(isFirst,
           [&] { memref::StoreOp::create(b, sum, kept, ValueRange{zero}); });
  });
  b.barrier();

  // The first sum that exceeds what the random bits ask for.
  Value target = s.multiply(random, at(kept, zero)).second;
  b.forEachElement(k, [&](Value i) {
    Value exceeds = arith::CmpIOp::create(b, arith::CmpIPredicate::sgt,
                                          at(sums, i), target);
    Value isIn = arith::CmpIOp::create(b, arith::CmpIPredicate::sle,
                                       before(i, 1), target);
    onlyIf(both(b, exceeds, isIn), [&] {
      Value index = indexOf(b, at(keys, i));
      Value token =
          select(b, equal(b, index, s.i32(kNowhere)), s.i32(0), index);
      for (Value init : op.getInits())
        memref::StoreOp::create(b, token, init, ValueRange{zero});
    });
  });
  return success();
}
