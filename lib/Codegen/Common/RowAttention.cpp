//===- RowAttention.cpp - Attention of one row ----------------------------===//
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

/// Attention of one row over the context or a part of it.
///
/// A warp reads several positions with one load: `share` threads hold the
/// elements of one, `width` each. The warps of a workgroup read a chunk of the
/// context together, kLoads loads of keys and of values at once; part i takes
/// chunks i, i + parts, …. Every warp keeps, for each query head, the highest
/// score so far and, relative to it, the sum of exponentials and the weighted
/// sum of values; at the end those of the warps are joined.
class RowAttention {
public:
  RowAttention(AttentionOp op, VectorBuilder &b)
      : op(op), b(b), d(op.getHeadDim()), queries(op.getQueries()),
        warps(b.threads / kLanes) {}

  LogicalResult run();

private:
  /// What is kept of the context so far: of the queries whose scores a thread
  /// has, the highest and its share of the sum of exponentials; of every query,
  /// the weighted sum of values.
  struct State {
    SmallVector<Value> highest, totals, sums;
  };
  /// Keys and values on their way, and how far the row's own position is behind
  /// that of the first of them, as i32: one register holds where all are.
  struct Chunk {
    Value distance;
    SmallVector<Value> keys, values;
  };

  bool rotates() { return bool(op.getK()); }
  Type cacheType() {
    return cast<MemRefType>(op.getKeys().getType()).getElementType();
  }
  Value loadRaw(Value buffer, SmallVector<Value> indices, bool settled);
  Value loadSettled(Value buffer, SmallVector<Value> indices);
  Value sumOverShare(Value value);
  Value rotate(Value in, Value head, Value norm);
  Value element(Value vector, int64_t i) {
    return vector::ExtractOp::create(b, vector, i);
  }

  /// From the position of one load of a chunk to that of the next.
  int64_t stride() { return warps * lines; }
  Value i32(int64_t value) {
    return arith::ConstantOp::create(b, b.getI32IntegerAttr(int32_t(value)));
  }
  Chunk load(Value chunk, bool settled);
  void append(Chunk &chunk);
  SmallVector<Value> addHalves(ArrayRef<Value> values, int64_t mask);
  Value hasLaneBit(int64_t mask) {
    Value bit = b.remainder(b.divide(b.thread, mask), 2);
    return equal(b, bit, b.index(1));
  }
  Value fromOwner(ArrayRef<Value> values, int64_t i, int64_t h);
  Value overPositions(Value value, function_ref<Value(Value, Value)> reduce);
  State attend(Chunk chunk, const State *state);
  void write(const State &state);
  void writeNothing();
  void attendToPart(Value part, Value chunks);

  AttentionOp op;
  VectorBuilder &b;
  const int64_t d, queries, warps;
  /// Elements that a thread holds of a head; threads that share one; positions
  /// that a warp reads at once.
  int64_t width, share, lines;
  /// The threads that share a position divide the scores of the positions they
  /// have read into groups of loads and these into groups of queries.
  int64_t loadGroups, headGroups;
  /// The warp, the thread's line of positions, where its elements start, and
  /// whether it has any.
  Value warp, line, at, holds;
  /// The first position this row attends to, and its own, the last.
  Value start, position;
  /// The number of the first thread of this line, in its warp.
  Value firstOfLine;
  /// The queries; key and value of this row, as the caches hold them.
  SmallVector<Value> q;
  Value newKey, newValue;
  /// Where the other elements of rotated pairs are, their angles, and the norms
  /// of both.
  Value otherAt, cosine, sine;

  /// Loads that are on their way together.
  static constexpr int64_t kLoads = 4;
  static constexpr int64_t kMostWidth = 8;
};

} // namespace

/// A load that stays where it is, in front of a wait for what it does not need.
Value RowAttention::loadRaw(Value buffer, SmallVector<Value> indices,
                            bool settled) {
  auto load = loadRun(b, buffer, indices, width);
  if (settled) {
    load->setAttr(kSettledAttr, b.getUnitAttr());
    load->setAttr(kPrefetchedAttr, b.getUnitAttr());
  }
  return load;
}

/// A load of weights.
Value RowAttention::loadSettled(Value buffer, SmallVector<Value> indices) {
  auto load = loadRun(b, buffer, indices, width);
  load->setAttr(kSettledAttr, b.getUnitAttr());
  return b.toF32(load);
}

/// The sum over the threads that share a position, on each of them.
Value RowAttention::sumOverShare(Value value) {
  for (int64_t mask = share / 2; mask > 0; mask /= 2)
    value = arith::AddFOp::create(b, value, b.shuffle(value, mask));
  return value;
}

/// This thread's elements of a head of `in`, normalized with `norm` if there is
/// one, and rotated.
Value RowAttention::rotate(Value in, Value head, Value norm) {
  Value zero = b.index(0), base = b.mul(head, d);
  auto load = [&](Value from) {
    return b.toF32(loadRun(b, in, {zero, b.add(base, from)}, width));
  };
  Value own = load(at), other = load(otherAt);
  if (norm) {
    Value squares = b.reduce(arith::MulFOp::create(b, own, own));
    squares = sumOverShare(select(b, holds, squares, b.f32(0.0)));
    Value inverse = b.splat(
        inverseRms(b, squares, d, op.getEpsilon().convertToDouble()), width);
    auto scaled = [&](Value v, Value from) -> Value {
      v = arith::MulFOp::create(b, v, inverse);
      return arith::MulFOp::create(b, v, loadSettled(norm, {from}));
    };
    own = scaled(own, at);
    other = scaled(other, otherAt);
  }
  return arith::AddFOp::create(b, arith::MulFOp::create(b, own, cosine),
                               arith::MulFOp::create(b, other, sine));
}

/// Starts the loads of chunk number `chunk`.
RowAttention::Chunk RowAttention::load(Value chunk, bool settled) {
  Chunk result;
  Value first = b.add(start, b.mul(chunk, stride() * kLoads));
  first = b.add(first, b.add(b.mul(warp, lines), line));
  result.distance = arith::IndexCastOp::create(
      b, b.getI32Type(), arith::SubIOp::create(b, position, first));
  // Past the end the last position is read again, and counts nothing. That of
  // this row may not be there yet.
  Value last =
      rotates()
          ? Value(arith::MaxSIOp::create(
                b, arith::SubIOp::create(b, position, b.index(1)), b.index(0)))
          : position;
  Value zero = b.index(0);
  for (int64_t i = 0; i < kLoads; ++i) {
    Value there = arith::MinSIOp::create(b, b.add(first, i * stride()), last);
    result.keys.push_back(loadRaw(op.getKeys(), {zero, there, at}, settled));
    result.values.push_back(
        loadRaw(op.getValues(), {zero, there, at}, settled));
  }
  return result;
}

/// Puts this row's key and value where `chunk` has them, and into the caches.
void RowAttention::append(Chunk &chunk) {
  SmallVector<Value> isNew;
  Value isMine;
  for (int64_t i = 0; i < kLoads; ++i) {
    isNew.push_back(equal(b, chunk.distance, i32(i * stride())));
    isMine = isMine ? Value(arith::OrIOp::create(b, isMine, isNew.back()))
                    : isNew.back();
  }
  SmallVector<Value> old(chunk.keys);
  llvm::append_range(old, chunk.values);
  // One warp of one part has the position: the others choose nothing.
  auto only = scf::IfOp::create(b, ValueRange(old).getTypes(), isMine,
                                /*withElseRegion=*/true);
  {
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(only.thenBlock());
    SmallVector<Value> chosen;
    for (auto [i, value] : llvm::enumerate(old))
      chosen.push_back(
          select(b, isNew[i % kLoads], i < kLoads ? newKey : newValue, value));
    auto stores = scf::IfOp::create(b, holds);
    scf::YieldOp::create(b, chosen);
    b.setInsertionPointToStart(stores.thenBlock());
    Value zero = b.index(0);
    for (auto [value, cache] :
         {std::pair(newKey, op.getKeys()), {newValue, op.getValues()}})
      vector::StoreOp::create(b, value, cache, ValueRange{zero, position, at},
                              /*nontemporal=*/false, alignmentOf(cache, width));
    b.setInsertionPointToStart(only.elseBlock());
    scf::YieldOp::create(b, old);
  }
  auto results = only.getResults();
  chunk.keys.assign(results.begin(), results.begin() + kLoads);
  chunk.values.assign(results.begin() + kLoads, results.end());
}

/// Of `values`, equally long halves of which the threads whose number has and
/// has not the bit `mask` are to keep: the sums over both, of the kept half.
SmallVector<Value> RowAttention::addHalves(ArrayRef<Value> values,
                                           int64_t mask) {
  Value hasBit = hasLaneBit(mask);
  SmallVector<Value> kept;
  const size_t half = values.size() / 2;
  for (size_t i = 0; i < half; ++i) {
    Value low = values[i], high = values[half + i];
    Value own = select(b, hasBit, high, low);
    Value other = select(b, hasBit, low, high);
    kept.push_back(arith::AddFOp::create(b, own, b.shuffle(other, mask)));
  }
  return kept;
}

/// `value` of the thread of the same line that has score (i, h), or what
/// belongs to query h where no i is given.
Value RowAttention::fromOwner(ArrayRef<Value> values, int64_t i, int64_t h) {
  const int64_t heads = queries / headGroups, loads = kLoads / loadGroups;
  const int64_t number = (i / loads) * (share / loadGroups) +
                         (h / heads) * (share / loadGroups / headGroups);
  Value value =
      values[int64_t(values.size()) == heads ? h % heads
                                             : (i % loads) * heads + h % heads];
  if (share == 1)
    return value;
  Value from = arith::OrIOp::create(b, firstOfLine, i32(number));
  return gpu::ShuffleOp::create(b, value, from, i32(kLanes),
                                gpu::ShuffleMode::IDX)
      .getShuffleResult();
}

/// Reduces `value` over the threads that hold other scores of the same query.
Value RowAttention::overPositions(Value value,
                                  function_ref<Value(Value, Value)> reduce) {
  for (int64_t mask = kLanes / 2; mask >= share; mask /= 2)
    value = reduce(value, b.shuffle(value, mask));
  for (int64_t groups = 2; groups <= loadGroups; groups *= 2)
    value = reduce(value, b.shuffle(value, share / groups));
  return value;
}

/// Adds `chunk` to `state`, or starts with it where there is none.
RowAttention::State RowAttention::attend(Chunk chunk, const State *state) {
  if (rotates())
    append(chunk);
  // The scores of position i are in front of those of i + 1.
  SmallVector<Value> scores;
  for (int64_t i = 0; i < kLoads; ++i) {
    Value k = b.toF32(chunk.keys[i]);
    for (int64_t h = 0; h < queries; ++h) {
      Value sum = arith::MulFOp::create(b, element(q[h], 0), element(k, 0));
      for (int64_t e = 1; e < width; ++e)
        sum = math::FmaOp::create(b, element(q[h], e), element(k, e), sum);
      scores.push_back(sum);
    }
  }
  // Each step of the sum leaves a thread half of the scores while they halve,
  // first by position, then by query.
  for (int64_t mask = share / 2, groups = 2; mask > 0; mask /= 2, groups *= 2) {
    if (groups <= loadGroups * headGroups) {
      scores = addHalves(scores, mask);
      continue;
    }
    for (Value &score : scores)
      score = arith::AddFOp::create(b, score, b.shuffle(score, mask));
  }
  SmallVector<Value> counts;
  for (int64_t i = 0; i < kLoads; ++i)
    counts.push_back(arith::CmpIOp::create(b, arith::CmpIPredicate::sge,
                                           chunk.distance, i32(i * stride())));
  for (int64_t groups = 2; groups <= loadGroups; groups *= 2) {
    Value hasBit = hasLaneBit(share / groups);
    const size_t half = counts.size() / 2;
    for (size_t i = 0; i < half; ++i)
      counts[i] = select(b, hasBit, counts[half + i], counts[i]);
    counts.resize(half);
  }
  // Scores are in units of ln 2 from here on.
  const double scale = op.getScale().convertToDouble();
  const bool isCapped = op.getSoftcap().convertToDouble() != 0;
  auto times = [&](Value value, double factor) -> Value {
    return arith::MulFOp::create(b, value, b.f32(factor));
  };
  const int64_t heads = queries / headGroups;
  auto larger = [&](Value x, Value y) -> Value {
    return arith::MaximumFOp::create(b, x, y);
  };
  State next;
  SmallVector<Value> weights(scores.size()), keeps;
  for (int64_t h = 0; h < heads; ++h) {
    Value highest;
    for (auto [i, counted] : llvm::enumerate(counts)) {
      Value &score = scores[i * heads + h];
      if (isCapped)
        score = times(cappedScore(op, b, times(score, scale)),
                      llvm::numbers::log2e);
      else
        score = times(score, scale * llvm::numbers::log2e);
      score = select(b, counted, score, lowestScore(b));
      highest = highest ? larger(highest, score) : score;
    }
    highest = overPositions(highest, larger);
    if (state)
      highest = larger(highest, state->highest[h]);
    Value base = finite(b, highest), total;
    if (state) {
      keeps.push_back(weight2Of(b, state->highest[h], base));
      total = arith::MulFOp::create(b, state->totals[h], keeps.back());
    }
    for (size_t i = 0; i < counts.size(); ++i) {
      Value weight = weight2Of(b, scores[i * heads + h], base);
      weights[i * heads + h] = weight;
      total = total ? Value(arith::AddFOp::create(b, total, weight)) : weight;
    }
    next.highest.push_back(highest);
    next.totals.push_back(total);
  }
  if (state)
    for (int64_t h = 0; h < queries; ++h)
      next.sums.push_back(arith::MulFOp::create(
          b, state->sums[h], b.splat(fromOwner(keeps, 0, h), width)));
  for (int64_t i = 0; i < kLoads; ++i) {
    Value v = b.toF32(chunk.values[i]);
    for (int64_t h = 0; h < queries; ++h) {
      Value weight = b.splat(fromOwner(weights, i, h), width);
      if (int64_t(next.sums.size()) == h)
        next.sums.push_back(arith::MulFOp::create(b, weight, v));
      else
        next.sums[h] = vector::FMAOp::create(b, weight, v, next.sums[h]);
    }
  }
  return next;
}

/// Joins the warps, and writes what this part has found.
void RowAttention::write(const State &state) {
  const bool inParts = bool(op.getPart());
  Value highest = b.workgroupBuffer({queries, warps});
  Value totals = b.workgroupBuffer({queries, warps});
  Value sums = b.workgroupBuffer({warps, queries, d});
  auto plus = [&](Value x, Value y) -> Value {
    return arith::AddFOp::create(b, x, y);
  };
  // The lines of a warp are relative to the same score. Each step of their sum
  // leaves a thread half of the elements while they halve.
  Value from = at, writes = holds;
  int64_t run = width;
  SmallVector<SmallVector<Value>> parts(queries);
  for (auto [h, sum] : llvm::enumerate(state.sums))
    for (int64_t e = 0; e < width; ++e)
      parts[h].push_back(element(sum, e));
  for (int64_t mask = kLanes / 2; mask >= share; mask /= 2) {
    const bool halves = run % 2 == 0;
    for (SmallVector<Value> &elements : parts) {
      if (halves) {
        elements = addHalves(elements, mask);
        continue;
      }
      for (Value &own : elements)
        own = plus(own, b.shuffle(own, mask));
    }
    Value hasBit = hasLaneBit(mask);
    if (halves) {
      run /= 2;
      from = select(b, hasBit, b.add(from, run), from);
    } else {
      writes = select(b, hasBit, b.zeros(b.getI1Type()), writes);
    }
  }
  {
    auto only = scf::IfOp::create(b, writes);
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(only.thenBlock());
    for (int64_t h = 0; h < queries; ++h)
      storeRun(b,
               vector::FromElementsOp::create(b, b.vectorType(run), parts[h]),
               sums, {warp, b.index(h), from});
  }
  SmallVector<Value> own;
  for (Value total : state.totals)
    own.push_back(overPositions(total, plus));
  {
    // One thread for each group of queries.
    const int64_t threads = share / loadGroups / headGroups;
    Value lane = b.remainder(b.thread, kLanes);
    Value group = b.divide(lane, threads);
    Value isFirst = both(b, equal(b, b.remainder(lane, threads), b.index(0)),
                         less(b, group, b.index(headGroups)));
    auto only = scf::IfOp::create(b, isFirst);
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(only.thenBlock());
    for (auto [h, total] : llvm::enumerate(own)) {
      Value head = b.add(b.mul(group, queries / headGroups), h);
      memref::StoreOp::create(b, state.highest[h], highest,
                              ValueRange{head, warp});
      memref::StoreOp::create(b, total, totals, ValueRange{head, warp});
    }
  }
  gpu::BarrierOp::create(b);
  // A thread has the statistics of a query to itself: several elements share
  // what they cost.
  int64_t count = 4;
  while (d % count != 0 || (count > 1 && count * b.threads > queries * d))
    count /= 2;
  Value zero = b.index(0);
  auto allWarps = [&](Value buffer, Value head) {
    const int64_t step = std::min<int64_t>(4, warps & -warps);
    SmallVector<Value> values;
    for (int64_t w = 0; w < warps; w += step) {
      Value some = loadRun(b, buffer, {head, b.index(w)}, step);
      for (int64_t i = 0; i < step; ++i)
        values.push_back(element(some, i));
    }
    return values;
  };
  b.forEachElement(queries * d / count, [&](Value number) {
    Value e = b.mul(number, count);
    Value head = b.divide(e, d), i = b.remainder(e, d);
    SmallVector<Value> weights = allWarps(highest, head);
    Value most = weights[0];
    for (Value other : ArrayRef(weights).drop_front())
      most = arith::MaximumFOp::create(b, most, other);
    Value base = finite(b, most), total, value;
    for (auto [w, part] : llvm::enumerate(allWarps(totals, head))) {
      Value weight = weight2Of(b, weights[w], base);
      Value sum = loadRun(b, sums, {b.index(int64_t(w)), head, i}, count);
      Value all = b.splat(weight, count);
      total = w ? Value(math::FmaOp::create(b, weight, part, total))
                : Value(arith::MulFOp::create(b, weight, part));
      value = w ? Value(vector::FMAOp::create(b, all, sum, value))
                : Value(arith::MulFOp::create(b, all, sum));
    }
    if (!inParts)
      value = arith::DivFOp::create(b, value, b.splat(total, count));
    storeRun(b, value, op.getInits()[0], {zero, e});
    if (!inParts)
      return;
    auto one = scf::IfOp::create(b, equal(b, i, zero));
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(one.thenBlock());
    Value natural = arith::MulFOp::create(b, most, b.f32(llvm::numbers::ln2));
    storeRun(b,
             vector::FromElementsOp::create(b, b.vectorType(2),
                                            ValueRange{natural, total}),
             op.getInits()[1], {zero, b.mul(head, 2)});
  });
}

LogicalResult RowAttention::run() {
  if (cast<MemRefType>(op.getQ().getType()).getDimSize(0) != 1)
    return op.emitOpError("expects one row in a workgroup");
  if (op.getPart() &&
      cast<MemRefType>(op.getInits()[0].getType()).getDimSize(0) != 1)
    return op.emitOpError("expects one part in a workgroup");
  // Both halves of a head are whole numbers of threads, for rotations.
  const int64_t unit = rotates() ? d / 2 : d;
  width = std::min<int64_t>(kMostWidth, unit & -unit);
  while (width * kLanes < d && unit % (2 * width) == 0)
    width *= 2;
  if (width * kLanes < d)
    return op.emitOpError("expects heads that ")
           << kLanes << " threads share evenly, but found " << d << " elements";
  share = llvm::PowerOf2Ceil(d / width);
  lines = kLanes / share;
  loadGroups = std::min(share, kLoads);
  headGroups = std::min(share / loadGroups, queries & -queries);

  Value lane = b.remainder(b.thread, kLanes);
  warp = b.divide(b.thread, kLanes);
  line = b.divide(lane, share);
  firstOfLine =
      arith::IndexCastOp::create(b, b.getI32Type(), b.mul(line, share));
  Value own = b.mul(b.remainder(lane, share), width);
  holds = less(b, own, b.index(d));
  // Threads without elements read the last, which then count nothing.
  at = arith::MinSIOp::create(b, own, b.index(d - width));
  position = op.getPosition();
  Value end = b.add(position, 1);
  start = firstPosition(op, b, end);

  Value count = arith::SubIOp::create(b, end, start);
  Value chunks =
      arith::CeilDivUIOp::create(b, count, b.index(stride() * kLoads));
  if (!op.getPart()) {
    attendToPart(b.index(0), chunks);
    return success();
  }
  // A short context has fewer chunks than there are parts.
  auto choice = scf::IfOp::create(b, less(b, op.getPart(), chunks),
                                  /*withElseRegion=*/true);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(choice.thenBlock());
  attendToPart(op.getPart(), chunks);
  b.setInsertionPointToStart(choice.elseBlock());
  writeNothing();
  return success();
}

/// Says that a part has no position; what its sums are does not matter then.
void RowAttention::writeNothing() {
  b.forEachElement(queries, [&](Value head) {
    Value zero = b.index(0), place = b.mul(head, 2), stats = op.getInits()[1];
    b.store(b.splat(lowestScore(b), 1), stats, {zero, place});
    b.store(b.splat(b.f32(0.0), 1), stats, {zero, b.add(place, 1)});
  });
}

/// Attends to every `parts`-th of `chunks` chunks from number `part` on, of
/// which there is one at least.
void RowAttention::attendToPart(Value part, Value chunks) {
  // What earlier calls left in the caches needs no waiting for the kernel in
  // front.
  Chunk first = load(part, /*settled=*/rotates());
  Value zero = b.index(0);
  if (rotates()) {
    const int64_t half = d / 2;
    Value isLow = less(b, at, b.index(half));
    Value low =
        select(b, isLow, at, arith::SubIOp::create(b, at, b.index(half)));
    otherAt = select(b, isLow, b.add(at, half), low);
    cosine = loadSettled(op.getTable(), {position, low});
    sine = loadSettled(op.getTable(), {position, b.add(low, half)});
    sine = select(b, isLow, arith::NegFOp::create(b, sine), sine);
  }
  for (int64_t h = 0; h < queries; ++h) {
    Value v =
        rotates()
            ? rotate(op.getQ(), b.index(h), op.getQNorm())
            : b.toF32(loadRun(b, op.getQ(), {zero, b.add(at, h * d)}, width));
    q.push_back(select(b, holds, v, b.zeros(b.vectorType(width))));
  }
  if (rotates()) {
    newKey = rotate(op.getK(), zero, op.getKNorm());
    newValue = b.toF32(loadRun(b, op.getV(), {zero, at}, width));
    for (Value *v : {&newKey, &newValue})
      if (!cacheType().isF32())
        *v = arith::TruncFOp::create(b, VectorType::get({width}, cacheType()),
                                     *v);
  }
  State state = attend(first, nullptr);

  // The key and the value that every thread keeps for the chunk of this row,
  // should it come later: loads of chunks need the registers.
  SmallVector<Value> keeps;
  if (rotates())
    keeps = {newKey, newValue};
  SmallVector<Value> rooms;
  for (Value value : keeps) {
    auto type = cast<VectorType>(value.getType());
    rooms.push_back(
        b.workgroupBuffer({b.threads, width}, type.getElementType()));
    vector::StoreOp::create(b, value, rooms.back(), ValueRange{b.thread, zero},
                            /*nontemporal=*/false,
                            alignmentOf(rooms.back(), width));
  }
  auto pack = [](const State &from) {
    SmallVector<Value> values(from.highest);
    llvm::append_range(values, from.totals);
    llvm::append_range(values, from.sums);
    return values;
  };
  auto unpack = [&](ValueRange values) {
    const int64_t heads = queries / headGroups;
    State to;
    to.highest.assign(values.begin(), values.begin() + heads);
    to.totals.assign(values.begin() + heads, values.begin() + 2 * heads);
    to.sums.assign(values.begin() + 2 * heads, values.end());
    return to;
  };
  auto loop = scf::ForOp::create(b, b.add(part, op.getParts()), chunks,
                                 b.index(op.getParts()), pack(state));
  {
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(loop.getBody());
    State before = unpack(loop.getRegionIterArgs());
    if (rotates()) {
      // Without it LLVM would know what is loaded, and keep that in registers.
      gpu::BarrierOp::create(b);
      newKey = loadRun(b, rooms[0], {b.thread, zero}, width);
      newValue = loadRun(b, rooms[1], {b.thread, zero}, width);
    }
    Chunk chunk = load(loop.getInductionVar(), /*settled=*/false);
    scf::YieldOp::create(b, pack(attend(chunk, &before)));
  }
  write(unpack(loop.getResults()));
}

LogicalResult mlir::gptq::attention::vectorizeRow(AttentionOp op,
                                                  VectorBuilder &b) {
  return RowAttention(op, b).run();
}
