//===- TileAttention.cpp - Attention of several rows on a matrix unit -----===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "AttentionOnWarps.h"
#include "mlir/Dialect/GPU/IR/GPUDialect.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace mlir::gptq;
using namespace mlir::gptq::attention;

namespace {

/// Attention of several rows on a matrix unit. A warp takes kRows rows of one
/// query head; the warps of a workgroup read the same head of the caches, at
/// nearly the same time. Scores are products of queries and keys, kPositions at
/// a time; their exponentials, rounded to the type of the caches, are the left
/// operand of the product with values as they lie in registers.
///
/// Thread 4 g + t loads runs of consecutive elements of keys and values, which
/// decides the order of the sum over a head's elements, the same for queries,
/// and which columns of the result it holds.
class TileAttention {
public:
  TileAttention(AttentionOp op, VectorBuilder &b)
      : op(op), b(b), d(op.getHeadDim()), queries(op.getQueries()),
        half(cast<MemRefType>(op.getKeys().getType()).getElementType()) {
    // A load of keys yields both operands of one or two steps.
    keyRun = d % (4 * kMostRun) == 0 ? kMostRun : kMostRun / 2;
    while (valueRun < kMostRun && d % (2 * valueRun * kColumns) == 0)
      valueRun *= 2;
  }

  LogicalResult run();

private:
  using Fragments = SmallVector<Value>;
  struct State {
    /// Of this thread's two rows: the highest score, and this thread's share of
    /// the sum of exponentials.
    SmallVector<Value> highest, total;
    /// One tile of the result for each kColumns elements of a head.
    Fragments sums;
  };

  int64_t keySteps() const { return llvm::divideCeil(d, 4 * keyRun); }
  int64_t valueSteps() const { return d / (valueRun * kColumns); }
  /// Elements from `at` on, as a vector of `count` of them.
  Value part(Value vector, int64_t at, int64_t count) {
    return vector::ExtractStridedSliceOp::create(
        b, vector, ArrayRef<int64_t>{at}, ArrayRef<int64_t>{count},
        ArrayRef<int64_t>{1});
  }
  Value fragment(ArrayRef<Value> pairs) {
    Value result = b.zeros(VectorType::get({int64_t(pairs.size()), 2}, half));
    for (auto [i, pair] : llvm::enumerate(pairs))
      result = vector::InsertOp::create(b, pair, result, int64_t(i));
    return result;
  }
  Value load(Value buffer, Value row, Value at, int64_t width) {
    return loadRun(b, buffer, {b.index(0), row, at}, width);
  }
  /// Where this thread's run of step `step` starts.
  Value keyColumn(int64_t step) {
    Value at = b.add(b.mul(t, keyRun), step * 4 * keyRun);
    if (d % (4 * keyRun) == 0)
      return at;
    // Past the end of a head queries are zeros.
    return arith::MinSIOp::create(b, at, b.index(d - keyRun));
  }

  Fragments loadQueries();
  SmallVector<Value> scores(Value first, const Fragments &q);
  void attend(Value first, const Fragments &q, State &state);
  void store(const State &state);

  AttentionOp op;
  VectorBuilder &b;
  const int64_t d, queries;
  const Type half;
  int64_t keyRun, valueRun = 1;
  /// The thread is number 4 g + t of its warp.
  Value g, t;
  /// The rows there are, this thread's two, and their positions.
  Value rows, row[2], position[2];
  /// The last position any row attends to, and where this query head's
  /// elements start.
  Value last, head;

  static constexpr int64_t kRows = 16, kColumns = 8, kPositions = 16;
  static constexpr int64_t kMostRun = 8;
};

} // namespace

/// The queries of this warp, scaled and rounded: the left operands of all
/// steps.
TileAttention::Fragments TileAttention::loadQueries() {
  Value scale = b.f32(op.getScale().convertToDouble());
  Value lastRow = arith::SubIOp::create(b, rows, b.index(1));
  Fragments result;
  for (int64_t step = 0; step < keySteps(); ++step) {
    Value runs[2];
    for (int64_t i = 0; i < 2; ++i) {
      // Rows that do not exist are the last once more, and are not stored.
      Value there = arith::MinSIOp::create(b, row[i], lastRow);
      Value v = b.toF32(
          loadRun(b, op.getQ(), {there, b.add(head, keyColumn(step))}, keyRun));
      v = arith::MulFOp::create(b, v, b.splat(scale, keyRun));
      if ((step + 1) * 4 * keyRun > d) {
        Value exists =
            less(b, b.add(b.mul(t, keyRun), step * 4 * keyRun), b.index(d));
        v = select(b, exists, v, b.zeros(b.vectorType(keyRun)));
      }
      runs[i] = arith::TruncFOp::create(b, VectorType::get({keyRun}, half), v);
    }
    for (int64_t at = 0; at < keyRun; at += 4)
      result.push_back(
          fragment({part(runs[0], at, 2), part(runs[1], at, 2),
                    part(runs[0], at + 2, 2), part(runs[1], at + 2, 2)}));
  }
  return result;
}

/// The scores of kPositions positions from `first` on: two tiles.
SmallVector<Value> TileAttention::scores(Value first, const Fragments &q) {
  auto type = VectorType::get({2, 2}, b.getF32Type());
  SmallVector<Value> tiles;
  for (int64_t j = 0; j < 2; ++j) {
    Value key =
        arith::MinSIOp::create(b, b.add(b.add(first, g), j * kColumns), last);
    Value tile = b.zeros(type);
    const auto *left = q.begin();
    for (int64_t step = 0; step < keySteps(); ++step) {
      Value run = load(op.getKeys(), key, keyColumn(step), keyRun);
      for (int64_t at = 0; at < keyRun; at += 4)
        tile = FragmentDotOp::create(
            b, *left++, fragment({part(run, at, 2), part(run, at + 2, 2)}),
            tile);
    }
    tiles.push_back(tile);
  }
  return tiles;
}

/// Adds kPositions positions from `first` on to `state`.
void TileAttention::attend(Value first, const Fragments &q, State &state) {
  SmallVector<Value> tiles = scores(first, q);
  // Values are loaded before they are needed.
  SmallVector<SmallVector<Value>> values;
  for (int64_t step = 0; step < valueSteps(); ++step) {
    SmallVector<Value> &runs = values.emplace_back();
    for (int64_t i = 0; i < 4; ++i) {
      Value there = b.add(b.add(first, b.mul(t, 2)), i / 2 * kColumns + i % 2);
      Value at = b.add(b.mul(g, valueRun), step * valueRun * kColumns);
      runs.push_back(load(op.getValues(),
                          arith::MinSIOp::create(b, there, last), at,
                          valueRun));
    }
  }
  Value weights[2][2][2], keep[2];
  for (int64_t i = 0; i < 2; ++i) {
    Value highest = state.highest[i];
    for (int64_t j = 0; j < 2; ++j)
      for (int64_t e = 0; e < 2; ++e) {
        Value at = b.add(b.add(first, b.mul(t, 2)), j * kColumns + e);
        Value counts = arith::CmpIOp::create(b, arith::CmpIPredicate::sle, at,
                                             position[i]);
        if (op.getWindow() > 0)
          counts =
              both(b, counts, less(b, position[i], b.add(at, op.getWindow())));
        Value score =
            vector::ExtractOp::create(b, tiles[j], ArrayRef<int64_t>{i, e});
        score = select(b, counts, cappedScore(op, b, score), lowestScore(b));
        weights[i][j][e] = score;
        highest = arith::MaximumFOp::create(b, highest, score);
      }
    // The four threads of a row.
    for (int64_t mask : {1, 2})
      highest = arith::MaximumFOp::create(b, highest, b.shuffle(highest, mask));
    Value base = finite(b, highest);
    keep[i] = weightOf(b, state.highest[i], base);
    Value total = arith::MulFOp::create(b, state.total[i], keep[i]);
    for (auto &tile : weights[i])
      for (Value &weight : tile) {
        weight = weightOf(b, weight, base);
        total = arith::AddFOp::create(b, total, weight);
      }
    state.highest[i] = highest;
    state.total[i] = total;
  }
  auto pair = [&](Value x, Value y) -> Value {
    return vector::FromElementsOp::create(b, VectorType::get({2}, x.getType()),
                                          ValueRange{x, y});
  };
  SmallVector<Value> pairs;
  for (int64_t j = 0; j < 2; ++j)
    for (int64_t i = 0; i < 2; ++i)
      pairs.push_back(
          arith::TruncFOp::create(b, VectorType::get({2}, half),
                                  pair(weights[i][j][0], weights[i][j][1])));
  Value left = fragment(pairs);
  Value kept = b.zeros(VectorType::get({2, 2}, b.getF32Type()));
  for (int64_t i = 0; i < 2; ++i)
    for (int64_t e = 0; e < 2; ++e)
      kept =
          vector::InsertOp::create(b, keep[i], kept, ArrayRef<int64_t>{i, e});
  for (auto [number, sum] : llvm::enumerate(state.sums)) {
    const int64_t n = number;
    ArrayRef<Value> runs = values[n / valueRun];
    auto element = [&](int64_t i) -> Value {
      return vector::ExtractOp::create(b, runs[i], n % valueRun);
    };
    Value right =
        fragment({pair(element(0), element(1)), pair(element(2), element(3))});
    sum = FragmentDotOp::create(b, left, right,
                                arith::MulFOp::create(b, sum, kept));
  }
}

/// Divides by the sums of exponentials, and writes the rows that exist.
void TileAttention::store(const State &state) {
  for (int64_t i = 0; i < 2; ++i) {
    Value total = state.total[i];
    for (int64_t mask : {1, 2})
      total = arith::AddFOp::create(b, total, b.shuffle(total, mask));
    Value inverse = arith::DivFOp::create(b, b.f32(1.0), total);
    auto only = scf::IfOp::create(b, less(b, row[i], rows));
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(only.thenBlock());
    for (int64_t step = 0; step < valueSteps(); ++step) {
      SmallVector<Value> elements;
      for (int64_t e = 0; e < 2; ++e)
        for (int64_t w = 0; w < valueRun; ++w)
          elements.push_back(vector::ExtractOp::create(
              b, state.sums[step * valueRun + w], ArrayRef<int64_t>{i, e}));
      const int64_t width = 2 * valueRun;
      Value v =
          vector::FromElementsOp::create(b, b.vectorType(width), elements);
      v = arith::MulFOp::create(b, v, b.splat(inverse, width));
      Value at = b.add(b.mul(t, width), step * valueRun * kColumns);
      storeRun(b, v, op.getInits()[0], {row[i], b.add(head, at)});
    }
  }
}

LogicalResult TileAttention::run() {
  if (!half.isF16() && !half.isBF16())
    return op.emitOpError("expects caches of f16 or bf16, but found ") << half;
  if (d % kColumns != 0)
    return op.emitOpError("expects heads of a multiple of ")
           << kColumns << " elements, but found " << d;
  Value lane = b.remainder(b.thread, kLanes);
  Value warp = b.divide(b.thread, kLanes);
  g = b.divide(lane, 4);
  t = b.remainder(lane, 4);
  rows = rowsOf(b, op.getQ());
  const int64_t warps = b.threads / kLanes;
  // Query heads first, then tiles of rows: those a workgroup has may be more
  // than its warps.
  Value tiles = arith::CeilDivUIOp::create(b, rows, b.index(kRows));
  Value units = arith::MulIOp::create(b, tiles, b.index(queries));
  b.forRange(warp, units, warps, [&](Value unit) {
    head = b.mul(b.remainder(unit, queries), d);
    Value firstRow = b.mul(b.divide(unit, queries), kRows);
    for (int64_t i = 0; i < 2; ++i) {
      row[i] = b.add(b.add(firstRow, g), i * kColumns);
      position[i] = b.add(op.getPosition(), row[i]);
    }
    Value end = arith::MinSIOp::create(b, rows, b.add(firstRow, kRows));
    end = b.add(op.getPosition(), end);
    last = arith::SubIOp::create(b, end, b.index(1));
    Fragments q = loadQueries();
    State state;
    state.highest.assign(2, lowestScore(b));
    state.total.assign(2, b.f32(0.0));
    state.sums.assign(d / kColumns,
                      b.zeros(VectorType::get({2, 2}, b.getF32Type())));
    auto pack = [&](const State &from) {
      SmallVector<Value> values(from.highest);
      llvm::append_range(values, from.total);
      llvm::append_range(values, from.sums);
      return values;
    };
    auto unpack = [&](ValueRange values) {
      State to;
      to.highest.assign(values.begin(), values.begin() + 2);
      to.total.assign(values.begin() + 2, values.begin() + 4);
      to.sums.assign(values.begin() + 4, values.end());
      return to;
    };
    Value start =
        firstPosition(op, b, b.add(b.add(op.getPosition(), firstRow), 1));
    auto loop =
        scf::ForOp::create(b, start, end, b.index(kPositions), pack(state));
    {
      OpBuilder::InsertionGuard guard(b);
      b.setInsertionPointToStart(loop.getBody());
      State next = unpack(loop.getRegionIterArgs());
      attend(loop.getInductionVar(), q, next);
      scf::YieldOp::create(b, pack(next));
    }
    store(unpack(loop.getResults()));
  });
  return success();
}

LogicalResult mlir::gptq::attention::vectorizeTiles(AttentionOp op,
                                                    VectorBuilder &b) {
  return TileAttention(op, b).run();
}
