//===- Vectorize.cpp - Model ops on vectors -------------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Vectorize.h"
#include "gptq/Codegen/Common/Passes.h"
#include "gptq/Codegen/Common/Plan.h"
#include "mlir/Dialect/GPU/IR/GPUDialect.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Interfaces/FunctionInterfaces.h"
#include <numeric>

#include <cmath>

namespace mlir::gptq {
#define GEN_PASS_DEF_VECTORIZEPASS
#include "gptq/Codegen/Common/Passes.h.inc"
} // namespace mlir::gptq

using namespace mlir;
using namespace mlir::gptq;

//===----------------------------------------------------------------------===//
// Functions of every element
//===----------------------------------------------------------------------===//

namespace {

/// Arithmetic on vectors of the type of one.
struct Lanes {
  VectorBuilder &b;
  VectorType type;

  Value operator()(double value) const {
    return arith::ConstantOp::create(
        b, DenseElementsAttr::get(type, float(value)));
  }
  Value add(Value x, Value y) const { return arith::AddFOp::create(b, x, y); }
  Value sub(Value x, Value y) const { return arith::SubFOp::create(b, x, y); }
  Value mul(Value x, Value y) const { return arith::MulFOp::create(b, x, y); }
  Value div(Value x, Value y) const { return arith::DivFOp::create(b, x, y); }
  Value exp(Value x) const { return math::ExpOp::create(b, x); }
  /// x / (1 + exp(-y)): x times the logistic function of y.
  Value logistic(Value x, Value y) const {
    Value e = exp(arith::NegFOp::create(b, y));
    return div(x, add((*this)(1.0), e));
  }
};

} // namespace

/// v (1 + erf(v / √2)) / 2. With x = |v| / √2 the part of v that is missing on
/// its side of 0, erfc(x) / 2, is a polynomial in t = 1 / (1 + p x) times
/// exp(-x²), off by at most 1.5e-7 (Abramowitz and Stegun, 7.1.26).
static Value gelu(const Lanes &f, Value v) {
  static constexpr double p = 0.3275911;
  static constexpr double terms[] = {1.061405429, -1.453152027, 1.421413741,
                                     -0.284496736, 0.254829592};
  VectorBuilder &b = f.b;
  Value x = f.mul(math::AbsFOp::create(b, v), f(M_SQRT1_2));
  Value t = f.div(f(1.0), f.add(f(1.0), f.mul(f(p), x)));
  Value sum = f(terms[0]);
  for (double term : llvm::drop_begin(terms))
    sum = f.add(f.mul(sum, t), f(term));
  Value e = f.exp(arith::NegFOp::create(b, f.mul(x, x)));
  Value missing = f.mul(f.mul(f.mul(sum, t), e), f.mul(v, f(0.5)));
  Value isNegative =
      arith::CmpFOp::create(b, arith::CmpFPredicate::OLT, v, f(0.0));
  return arith::SelectOp::create(b, isNegative, missing, f.sub(v, missing));
}

Value mlir::gptq::activate(VectorBuilder &b, Activation activation, Value v) {
  Lanes f{b, cast<VectorType>(v.getType())};
  switch (activation) {
  case Activation::Silu:
    return f.logistic(v, v);
  case Activation::Gelu:
    return gelu(f, v);
  case Activation::GeluTanh: {
    // (1 + tanh(u)) / 2 is the logistic function of 2 u.
    Value cube = f.mul(f.mul(v, v), v);
    Value u = f.add(v, f.mul(cube, f(0.044715)));
    return f.logistic(v, f.mul(u, f(2 * std::sqrt(2 / M_PI))));
  }
  case Activation::Relu:
    return arith::MaximumFOp::create(b, v, f(0.0));
  }
  llvm_unreachable("not an activation");
}

Value mlir::gptq::softcap(VectorBuilder &b, double cap, Value v) {
  // tanh(u) = 1 - 2 / (1 + exp(2 u)), which is 1 and -1 where exp overflows or
  // vanishes.
  Lanes f{b, cast<VectorType>(v.getType())};
  Value e = f.exp(f.mul(v, f(2 / cap)));
  return f.sub(f(cap), f.div(f(2 * cap), f.add(f(1.0), e)));
}

//===----------------------------------------------------------------------===//
// Matmuls
//===----------------------------------------------------------------------===//

namespace {

class MatmulVectorizer {
public:
  MatmulVectorizer(VectorBuilder &b, const MatmulTile &op) : b(b), op(op) {}
  void run();

private:
  void tile(Value panel, Value row, int64_t rows, int64_t chunk);
  Value group(Value panel, Value row, Value g, int64_t depth,
              ArrayRef<int64_t> columns, Value acc);
  Value perColumn(Value buffer, Value panel, Value g,
                  ArrayRef<int64_t> columns);
  void finish(Value panel, Value row, ArrayRef<int64_t> columns, Value acc);

  /// Columns of the weight that one register tile covers.
  int64_t chunkColumns() const {
    return std::min(op.plan.getColumns(), op.layout.getBlockN());
  }

  VectorBuilder &b;
  const MatmulTile &op;
};

} // namespace

/// The scales, zero points or offsets of one group for the columns of a tile.
Value MatmulVectorizer::perColumn(Value buffer, Value panel, Value g,
                                  ArrayRef<int64_t> columns) {
  int64_t width = chunkColumns() / columns.size();
  auto type = cast<MemRefType>(buffer.getType());
  Value joined;
  for (auto [i, column] : llvm::enumerate(columns)) {
    Value run = vector::LoadOp::create(
        b, VectorType::get({width}, type.getElementType()), buffer,
        ValueRange{panel, g, b.index(column)});
    if (type.getElementType().isIntOrIndex())
      run = arith::UIToFPOp::create(b, b.vectorType(width), run);
    run = b.toF32(run);
    if (columns.size() == 1)
      return run;
    if (!joined)
      joined = b.zeros(b.vectorType(chunkColumns()));
    joined = vector::InsertStridedSliceOp::create(
        b, run, joined, ArrayRef<int64_t>{int64_t(i) * width},
        ArrayRef<int64_t>{1});
  }
  return joined;
}

/// Adds the products of the first `depth` rows of group `g` to `acc`.
Value MatmulVectorizer::group(Value panel, Value row, Value g, int64_t depth,
                              ArrayRef<int64_t> columns, Value acc) {
  Value k0 = b.mul(g, op.groupSize);
  Value block = b.mul(g, llvm::divideCeil(op.groupSize, op.layout.getBlockK()));
  Value scale, zero, offset, unit;
  if (op.bytes) {
    int64_t rows = cast<VectorType>(acc.getType()).getDimSize(0);
    unit = b.zeros(b.vectorType(rows));
    for (int64_t r = 0; r < rows; ++r)
      unit = vector::InsertOp::create(
          b, b.loadScalar(op.units, {b.add(row, r), g}), unit, r);
  }
  if (op.scales)
    scale = perColumn(op.scales, panel, g, columns);
  if (op.zeros)
    zero = perColumn(op.zeros, panel, g, columns);
  else if (op.zeroPoint != 0)
    zero = b.splat(b.f32(op.zeroPoint), chunkColumns());
  if (op.offsets)
    offset = perColumn(op.offsets, panel, g, columns);
  return GroupDotOp::create(b, acc.getType(), op.lhs, row, k0, op.weight, panel,
                            block, b.getDenseI64ArrayAttr(columns), acc,
                            op.perm, op.bytes, unit, scale, zero, offset,
                            b.getI64IntegerAttr(depth), op.layout, op.plan);
}

/// Bias, epilogue and the one write of a tile.
void MatmulVectorizer::finish(Value panel, Value row, ArrayRef<int64_t> columns,
                              Value acc) {
  auto type = cast<VectorType>(acc.getType());
  int64_t width = type.getDimSize(1) / columns.size();
  int64_t outColumns = columnsOf(op.out);
  bool ragged =
      ShapedType::isDynamic(outColumns) || outColumns % op.panelColumns() != 0;
  Value outSize = !ragged ? Value()
                  : ShapedType::isDynamic(outColumns)
                      ? Value(memref::DimOp::create(b, op.out, 1))
                      : b.index(outColumns);
  Value column = b.add(b.mul(panel, op.panelColumns()), columns.front());
  auto left = [&](Value total, Value from) -> Value {
    return arith::SubIOp::create(b, total, from);
  };

  SmallVector<Value> biases;
  if (op.bias)
    for (int64_t c : columns) {
      // The bias is as long as the weight is wide, interleaved like it.
      Value at = b.add(b.mul(panel, op.layout.getBlockN()), c);
      biases.push_back(
          b.loadFirst(op.bias, {at}, width,
                      left(memref::DimOp::create(b, op.bias, 0), at)));
    }
  for (int64_t r = 0; r < type.getDimSize(0); ++r) {
    Value all = vector::ExtractOp::create(b, acc, r);
    SmallVector<Value> runs;
    for (size_t i = 0; i < columns.size(); ++i) {
      Value run = columns.size() == 1
                      ? all
                      : vector::ExtractStridedSliceOp::create(
                            b, all, ArrayRef<int64_t>{int64_t(i) * width},
                            ArrayRef<int64_t>{width}, ArrayRef<int64_t>{1});
      if (op.bias)
        run = arith::AddFOp::create(b, run, biases[i]);
      runs.push_back(run);
    }
    Value result = runs[0];
    if (op.epilogue != Epilogue::None)
      result = activate(b, getActivation(op.epilogue), result);
    if (isGated(op.epilogue))
      result = arith::MulFOp::create(b, result, runs[1]);
    Value outRow = b.add(row, r);
    SmallVector<Value> at{outRow, column};
    if (!ragged) {
      if (op.accumulate)
        result = arith::AddFOp::create(b, result, b.load(op.out, at, width));
      b.store(result, op.out, at);
      continue;
    }
    Value count = left(outSize, column);
    if (op.accumulate)
      result = arith::AddFOp::create(b, result,
                                     b.loadFirst(op.out, at, width, count));
    b.storeFirst(result, op.out, at, count);
  }
}

/// One register tile: `rows` rows from `row`, chunk number `chunk` of `panel`.
void MatmulVectorizer::tile(Value panel, Value row, int64_t rows,
                            int64_t chunk) {
  // With a gate a tile holds gate columns and the up columns they go with.
  SmallVector<int64_t> columns;
  if (isGated(op.epilogue)) {
    int64_t half = chunkColumns() / 2;
    columns = {chunk * half, op.layout.getBlockN() / 2 + chunk * half};
  } else {
    columns = {chunk * chunkColumns()};
  }
  auto type = VectorType::get({rows, chunkColumns()}, b.getF32Type());
  Value acc = b.zeros(type);
  int64_t whole = op.k / op.groupSize, rest = op.k % op.groupSize;
  if (whole == 1) {
    acc = group(panel, row, b.index(0), op.groupSize, columns, acc);
  } else if (whole > 1) {
    auto loop = scf::ForOp::create(b, b.index(0), b.index(whole), b.index(1),
                                   ValueRange{acc});
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(loop.getBody());
    Value next = group(panel, row, loop.getInductionVar(), op.groupSize,
                       columns, loop.getRegionIterArg(0));
    scf::YieldOp::create(b, ValueRange{next});
    acc = loop.getResult(0);
  }
  if (rest)
    acc = group(panel, row, b.index(whole), rest, columns, acc);
  finish(panel, row, columns, acc);
}

void MatmulVectorizer::run() {
  Value panels = rowsOf(b, op.weight);
  Value m = rowsOf(b, op.lhs);
  bool singleRow = cast<MemRefType>(op.lhs.getType()).getDimSize(0) == 1;
  int64_t chunks = op.layout.getBlockN() / chunkColumns();
  b.forEach(panels, [&](Value panel) {
    auto rowsFrom = [&](Value from, Value to, int64_t rows) {
      b.forRange(from, to, rows, [&](Value row) {
        for (int64_t chunk = 0; chunk < chunks; ++chunk)
          tile(panel, row, rows, chunk);
      });
    };
    if (singleRow) {
      for (int64_t chunk = 0; chunk < chunks; ++chunk)
        tile(panel, b.index(0), 1, chunk);
      return;
    }
    // Whole tiles first; what is left goes in pairs, then singly.
    SmallVector<int64_t> steps = {op.plan.getRows()};
    for (int64_t rows : {2, 1})
      if (rows < steps.back())
        steps.push_back(rows);
    Value from = b.index(0);
    for (int64_t rows : steps) {
      Value left = arith::SubIOp::create(b, m, from);
      Value to = arith::SubIOp::create(
          b, m, arith::RemUIOp::create(b, left, b.index(rows)));
      rowsFrom(from, to, rows);
      from = to;
    }
  });
}

static LogicalResult vectorize(const MatmulTile &tile, VectorBuilder &b) {
  const ::gptq::UnitInfo *unit = unitOf(tile.plan);
  if (unit && unit->isWarps())
    return vectorizeOnWarps(tile, *unit, b);
  MatmulVectorizer(b, tile).run();
  return success();
}

static LogicalResult vectorize(DequantMatmulOp op, VectorBuilder &b,
                               PlanAttr plan) {
  LayoutAttr layout = op.getLayoutAttr();
  if (!layout || op.getGIdx() || op.getSource() || op.getRuns())
    return op.emitOpError("expects packed weights of one expert, no g_idx and "
                          "no norm_of");
  MatmulTile tile{op,
                  op.getLhs(),
                  op.getCodes(),
                  op.getScales(),
                  op.getZeros(),
                  op.getOffsets(),
                  op.getPerm(),
                  op.getBias(),
                  op.getBytes(),
                  op.getUnits(),
                  op.getInits()[0],
                  layout,
                  plan,
                  op.getK(),
                  std::min<int64_t>(op.getGroupSize(), op.getK()),
                  int64_t(op.getZeroPoint().value_or(0)),
                  op.getEpilogue(),
                  op.getAccumulate()};
  return vectorize(tile, b);
}

static LogicalResult vectorize(MatmulOp op, VectorBuilder &b, PlanAttr plan) {
  if (!op.getLayout() || op.getSource() || op.getRuns())
    return op.emitOpError("expects a packed weight of one expert and no "
                          "norm_of");
  MatmulTile tile{op,      op.getLhs(),      op.getWeight(),
                  Value(), Value(),          Value(),
                  Value(), op.getBias(),     Value(),
                  Value(), op.getInits()[0], op.getLayoutAttr(),
                  plan,    op.getK(),        op.getK(),
                  0,       op.getEpilogue(), op.getAccumulate()};
  return vectorize(tile, b);
}

//===----------------------------------------------------------------------===//
// Row-wise ops
//===----------------------------------------------------------------------===//

static LogicalResult vectorize(EmbeddingOp op, VectorBuilder &b, PlanAttr) {
  Value out = op.getInits()[0], table = op.getTable();
  int64_t width = columnsOf(out);
  const double scale = op.getScale().convertToDouble();
  b.forEach(rowsOf(b, out), [&](Value row) {
    Value token = arith::IndexCastOp::create(
        b, b.getIndexType(),
        memref::LoadOp::create(b, op.getTokens(), ValueRange{row}));
    auto put = [&](Value v, Value at) {
      int64_t n = cast<VectorType>(v.getType()).getDimSize(0);
      if (scale != 1)
        v = arith::MulFOp::create(b, v, b.splat(b.f32(scale), n));
      if (op.getPositions())
        v = arith::AddFOp::create(
            b, v,
            b.load(op.getPositions(), {b.add(op.getPosition(), row), at}, n));
      b.store(v, out, {row, at});
    };
    if (!op.getLayout()) {
      b.forChunks(width, [&](Value at, int64_t n) {
        put(b.load(table, {token, at}, n), at);
      });
      return;
    }
    // One column of a panel: its elements lie a panel's width apart.
    Value blockN = b.index(op.getLayout()->getBlockN());
    Value panel = arith::DivUIOp::create(b, token, blockN);
    Value column = arith::RemUIOp::create(b, token, blockN);
    b.forEach(b.index(width), [&](Value at) {
      put(b.splat(b.loadScalar(table, {panel, at, column}), 1), at);
    });
  });
  return success();
}

Value mlir::gptq::inverseRms(VectorBuilder &b, Value squares, int64_t size,
                             double epsilon) {
  Value mean = arith::DivFOp::create(b, squares, b.f32(double(size)));
  Value root = math::SqrtOp::create(
      b, Value(arith::AddFOp::create(b, mean, b.f32(epsilon))));
  return arith::DivFOp::create(b, b.f32(1.0), root);
}

/// `width` elements of `buffer` as f32, at a multiple of `width` of a row, or
/// of a vector. Where rows are whole, that says how far they are aligned.
static Value loadAligned(VectorBuilder &b, Value buffer, ValueRange indices,
                         int64_t width) {
  auto type = cast<MemRefType>(buffer.getType());
  const int64_t row = type.getShape().back();
  auto [strides, offset] = type.getStridesAndOffset();
  const bool isWhole =
      type.getRank() == 1 ? offset == 0 : strides[0] == row && strides[1] == 1;
  const int64_t elements = !isWhole              ? 1
                           : type.getRank() == 1 ? width
                                                 : std::gcd(width, row);
  const int64_t bytes = elements * type.getElementTypeBitWidth() / 8;
  return b.toF32(vector::LoadOp::create(
      b, VectorType::get({width}, type.getElementType()), buffer, indices,
      /*nontemporal=*/false,
      llvm::Align(int64_t(1) << llvm::countr_zero(uint64_t(bytes)))));
}

/// Vectors of a row that a thread keeps between reading and normalizing it, at
/// most.
static constexpr int64_t kKeptVectors = 8;

/// out[row] = in[row] * weight / rms(in[row]).
static void normalizeRow(VectorBuilder &b, Value in, Value weight, Value out,
                         Value row, double epsilon) {
  int64_t size = columnsOf(in);
  const int64_t kept = size / (b.threads * b.lanes);
  if (b.threads > 1 && size % (b.threads * b.lanes) == 0 &&
      kept <= kKeptVectors) {
    // All loads at once; what a thread has read it need not read again.
    SmallVector<Value> at, values, weights;
    for (int64_t i = 0; i < kept; ++i) {
      at.push_back(b.add(b.mul(b.thread, b.lanes), i * b.threads * b.lanes));
      values.push_back(loadAligned(b, in, {row, at[i]}, b.lanes));
      weights.push_back(loadAligned(b, weight, {at[i]}, b.lanes));
    }
    Value squares;
    for (Value v : values) {
      Value square = arith::MulFOp::create(b, v, v);
      squares =
          squares ? Value(arith::AddFOp::create(b, squares, square)) : square;
    }
    Value inverse =
        inverseRms(b, b.allReduce(b.reduce(squares)), size, epsilon);
    for (int64_t i = 0; i < kept; ++i)
      b.store(
          arith::MulFOp::create(
              b, arith::MulFOp::create(b, values[i], b.splat(inverse, b.lanes)),
              weights[i]),
          out, {row, at[i]});
    return;
  }
  Value squares = b.sumChunks(size, [&](Value at, int64_t n) -> Value {
    Value v = b.load(in, {row, at}, n);
    return arith::MulFOp::create(b, v, v);
  });
  Value inverse = inverseRms(b, squares, size, epsilon);
  b.forChunks(size, [&](Value at, int64_t n) {
    Value v =
        arith::MulFOp::create(b, b.load(in, {row, at}, n), b.splat(inverse, n));
    b.store(arith::MulFOp::create(b, v, b.load(weight, {at}, n)), out,
            {row, at});
  });
}

static LogicalResult vectorize(RMSNormOp op, VectorBuilder &b, PlanAttr) {
  b.forEach(rowsOf(b, op.getInput()), [&](Value row) {
    normalizeRow(b, op.getInput(), op.getWeight(), op.getInits()[0], row,
                 op.getEpsilon().convertToDouble());
  });
  return success();
}

static LogicalResult vectorize(LayerNormOp op, VectorBuilder &b, PlanAttr) {
  Value in = op.getInput();
  const int64_t size = columnsOf(in);
  auto meanOf = [&](function_ref<Value(Value, int64_t)> term) -> Value {
    return arith::DivFOp::create(b, b.sumChunks(size, term),
                                 b.f32(double(size)));
  };
  b.forEach(rowsOf(b, in), [&](Value row) {
    Value mean =
        meanOf([&](Value at, int64_t n) { return b.load(in, {row, at}, n); });
    auto deviation = [&](Value at, int64_t n) -> Value {
      return arith::SubFOp::create(b, b.load(in, {row, at}, n),
                                   b.splat(mean, n));
    };
    // The mean goes first: the difference of two large sums would lose bits.
    Value squares = b.sumChunks(size, [&](Value at, int64_t n) -> Value {
      Value v = deviation(at, n);
      return arith::MulFOp::create(b, v, v);
    });
    Value inverse =
        inverseRms(b, squares, size, op.getEpsilon().convertToDouble());
    b.forChunks(size, [&](Value at, int64_t n) {
      Value v = arith::MulFOp::create(b, deviation(at, n), b.splat(inverse, n));
      v = arith::MulFOp::create(b, v, b.load(op.getWeight(), {at}, n));
      if (op.getBias())
        v = arith::AddFOp::create(b, v, b.load(op.getBias(), {at}, n));
      b.store(v, op.getInits()[0], {row, at});
    });
  });
  return success();
}

/// out[row] = f(x[row]) element by element.
static void mapRows(VectorBuilder &b, Value x, Value out,
                    function_ref<Value(Value)> f) {
  b.forEach(rowsOf(b, x), [&](Value row) {
    b.forChunks(columnsOf(x), [&](Value at, int64_t n) {
      b.store(f(b.load(x, {row, at}, n)), out, {row, at});
    });
  });
}

/// out[row] = f(x[row], y[row]) element by element.
static void combineRows(VectorBuilder &b, Value x, Value y, Value out,
                        function_ref<Value(Value, Value)> f) {
  b.forEach(rowsOf(b, x), [&](Value row) {
    b.forChunks(columnsOf(x), [&](Value at, int64_t n) {
      b.store(f(b.load(x, {row, at}, n), b.load(y, {row, at}, n)), out,
              {row, at});
    });
  });
}

static LogicalResult vectorize(AddOp op, VectorBuilder &b, PlanAttr) {
  combineRows(b, op.getLhs(), op.getRhs(), op.getInits()[0],
              [&](Value x, Value y) { return arith::AddFOp::create(b, x, y); });
  return success();
}

static LogicalResult vectorize(ActivationOp op, VectorBuilder &b, PlanAttr) {
  auto f = [&](Value x) { return activate(b, op.getFunction(), x); };
  if (op.getUp())
    combineRows(
        b, op.getInput(), op.getUp(), op.getInits()[0],
        [&](Value x, Value y) { return arith::MulFOp::create(b, f(x), y); });
  else
    mapRows(b, op.getInput(), op.getInits()[0], f);
  return success();
}

static LogicalResult vectorize(SoftcapOp op, VectorBuilder &b, PlanAttr) {
  mapRows(b, op.getInput(), op.getInits()[0], [&](Value v) {
    return softcap(b, op.getCap().convertToDouble(), v);
  });
  return success();
}

static LogicalResult vectorize(AddRMSNormOp op, VectorBuilder &b, PlanAttr) {
  Value sum = op.getInits()[0], out = op.getInits()[1];
  b.forEach(rowsOf(b, op.getLhs()), [&](Value row) {
    b.forChunks(columnsOf(sum), [&](Value at, int64_t n) {
      Value v = arith::AddFOp::create(b, b.load(op.getLhs(), {row, at}, n),
                                      b.load(op.getRhs(), {row, at}, n));
      b.store(v, sum, {row, at});
    });
    normalizeRow(b, sum, op.getWeight(), out, row,
                 op.getEpsilon().convertToDouble());
  });
  return success();
}

static LogicalResult vectorize(StageOp op, VectorBuilder &b, PlanAttr) {
  Value in = op.getInput(), out = op.getInits()[0];
  if (op.getRuns())
    return op.emitOpError("expects the rows of one expert");
  b.forEach(rowsOf(b, in), [&](Value row) {
    if (!op.getPerm()) {
      auto copy = [&](Value at, int64_t n) {
        b.store(b.load(in, {row, at}, n), out, {row, at});
      };
      if (!ShapedType::isDynamic(columnsOf(in)))
        return b.forChunks(columnsOf(in), copy);
      // The last tile of columns may be narrower: whole vectors, then the rest.
      Value columns = memref::DimOp::create(b, in, 1), lanes = b.index(b.lanes);
      Value whole = arith::DivUIOp::create(b, columns, lanes);
      b.forEach(whole, [&](Value i) { copy(b.mul(i, b.lanes), b.lanes); });
      Value done = b.mul(whole, b.lanes);
      b.forEach(arith::SubIOp::create(b, columns, done),
                [&](Value i) { copy(b.add(done, i), 1); });
      return;
    }
    b.forEachElement(columnsOf(in), [&](Value at) {
      Value from = arith::IndexCastOp::create(
          b, b.getIndexType(),
          memref::LoadOp::create(b, op.getPerm(), ValueRange{at}));
      b.store(b.splat(b.loadScalar(in, {row, from}), 1), out, {row, at});
    });
  });
  return success();
}

/// The largest |term(offset, width)| over [0, size), or a NaN if there is one.
static Value largestMagnitude(VectorBuilder &b, int64_t size,
                              function_ref<Value(Value, int64_t)> term) {
  auto magnitude = [&](Value at, int64_t n) -> Value {
    return math::AbsFOp::create(b, term(at, n));
  };
  auto reduce = [&](Value vector) -> Value {
    return vector::ReductionOp::create(b, vector::CombiningKind::MAXIMUMF,
                                       vector);
  };
  int64_t whole = size / b.lanes * b.lanes;
  auto loop =
      scf::ForOp::create(b, b.index(0), b.index(whole), b.index(b.lanes),
                         ValueRange{b.zeros(b.vectorType(b.lanes))});
  {
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(loop.getBody());
    Value next =
        arith::MaximumFOp::create(b, loop.getRegionIterArg(0),
                                  magnitude(loop.getInductionVar(), b.lanes));
    scf::YieldOp::create(b, ValueRange{next});
  }
  Value largest = reduce(loop.getResult(0));
  if (whole == size)
    return largest;
  return arith::MaximumFOp::create(
      b, largest, reduce(magnitude(b.index(whole), size - whole)));
}

/// The largest integer three signed bytes may stand for that leaves room for
/// their carries.
static constexpr double kLargestSplit = 127 * 65536;
/// The smallest magnitude a group is measured by: its inverse times
/// kLargestSplit is finite.
static constexpr double kSmallestMagnitude = 0x1p-100;

static LogicalResult vectorize(StageSplitOp op, VectorBuilder &outer,
                               PlanAttr) {
  if (outer.threads > 1)
    return op.emitOpError("expects workgroups of one thread");
  // What is out of order is read one by one.
  VectorBuilder b(op, op.getPerm() ? 1 : outer.lanes);
  Value in = op.getInput(), bytes = op.getInits()[0], units = op.getInits()[1];
  int64_t k = columnsOf(in), group = op.getGroupSize();
  int64_t stride = columnsOf(bytes) / 3;
  auto splat = [&](Value like, TypedAttr value) -> Value {
    auto type = cast<VectorType>(like.getType());
    return arith::ConstantOp::create(b, DenseElementsAttr::get(type, value));
  };

  auto splitGroup = [&](Value row, Value g, int64_t depth) {
    Value k0 = b.mul(g, group);
    auto input = [&](Value at, int64_t n) -> Value {
      Value column = b.add(k0, at);
      if (op.getPerm())
        column = arith::IndexCastOp::create(
            b, b.getIndexType(),
            memref::LoadOp::create(b, op.getPerm(), ValueRange{column}));
      return b.load(in, {row, column}, n);
    };
    Value largest = arith::MaximumFOp::create(
        b, largestMagnitude(b, depth, input), b.f32(kSmallestMagnitude));
    Value bound = b.f32(kLargestSplit);
    memref::StoreOp::create(b, arith::DivFOp::create(b, largest, bound), units,
                            ValueRange{row, g});
    Value inverse = arith::DivFOp::create(b, bound, largest);
    b.forChunks(depth, [&](Value at, int64_t n) {
      Value v = arith::MulFOp::create(b, input(at, n), b.splat(inverse, n));
      v = math::RoundEvenOp::create(b, v);
      // NaNs have no integers; the unit, which is one too, stands for them.
      Value most = splat(v, b.getF32FloatAttr(kLargestSplit));
      Value isLess =
          arith::CmpFOp::create(b, arith::CmpFPredicate::OLT, v, most);
      v = arith::SelectOp::create(b, isLess, v, most);
      Value rest =
          arith::FPToSIOp::create(b, VectorType::get({n}, b.getI32Type()), v);
      for (int64_t i = 0; i < 3; ++i) {
        Value low = arith::TruncIOp::create(
            b, VectorType::get({n}, b.getI8Type()), rest);
        vector::StoreOp::create(
            b, low, bytes, ValueRange{row, b.add(b.add(k0, at), i * stride)});
        // The byte is signed: what is above half of it is carried.
        rest = arith::AddIOp::create(b, rest,
                                     splat(rest, b.getI32IntegerAttr(128)));
        rest = arith::ShRSIOp::create(b, rest,
                                      splat(rest, b.getI32IntegerAttr(8)));
      }
    });
  };
  b.forEach(rowsOf(b, in), [&](Value row) {
    b.forEach(b.index(k / group), [&](Value g) { splitGroup(row, g, group); });
    if (k % group)
      splitGroup(row, b.index(k / group), k % group);
  });
  return success();
}

static LogicalResult vectorize(RotaryAppendOp op, VectorBuilder &b, PlanAttr) {
  const int64_t d = op.getHeadDim();
  const int64_t rotated = op.getTable() ? columnsOf(op.getTable()) : 0;
  const int64_t half = rotated / 2;
  double epsilon = op.getEpsilon().convertToDouble();
  b.forEach(rowsOf(b, op.getQ()), [&](Value row) {
    Value p = b.add(op.getPosition(), row);
    // Normalizes one head of `in` and rotates what of it is rotated; `put`
    // stores element vectors.
    auto rotate = [&](Value in, Value norm, Value head,
                      function_ref<void(Value, Value)> put) {
      Value base = b.mul(head, d);
      Value inverse;
      if (norm) {
        Value squares = b.sumChunks(d, [&](Value at, int64_t n) -> Value {
          Value v = b.load(in, {row, b.add(base, at)}, n);
          return arith::MulFOp::create(b, v, v);
        });
        inverse = inverseRms(b, squares, d, epsilon);
      }
      auto element = [&](Value i, int64_t n) -> Value {
        Value v = b.load(in, {row, b.add(base, i)}, n);
        if (!norm)
          return v;
        v = arith::MulFOp::create(b, v, b.splat(inverse, n));
        return arith::MulFOp::create(b, v, b.load(norm, {i}, n));
      };
      b.forChunks(half, [&](Value at, int64_t n) {
        Value at2 = b.add(at, half);
        Value x = element(at, n), y = element(at2, n);
        Value c = b.load(op.getTable(), {p, at}, n);
        Value s = b.load(op.getTable(), {p, at2}, n);
        put(arith::SubFOp::create(b, arith::MulFOp::create(b, x, c),
                                  arith::MulFOp::create(b, y, s)),
            at);
        put(arith::AddFOp::create(b, arith::MulFOp::create(b, y, c),
                                  arith::MulFOp::create(b, x, s)),
            at2);
      });
      b.forChunks(d - rotated, [&](Value at, int64_t n) {
        Value i = b.add(at, rotated);
        put(element(i, n), i);
      });
    };
    b.forEachPart(op.getHeads(), [&](Value head) {
      rotate(op.getQ(), op.getQNorm(), head, [&](Value v, Value at) {
        b.store(v, op.getInits()[0], {row, b.add(b.mul(head, d), at)});
      });
    });
    b.forEachPart(op.getKvHeads(), [&](Value head) {
      rotate(op.getK(), op.getKNorm(), head, [&](Value v, Value at) {
        b.store(v, op.getKeys(), {head, p, at});
      });
      b.forChunks(d, [&](Value at, int64_t n) {
        b.store(b.load(op.getV(), {row, b.add(b.mul(head, d), at)}, n),
                op.getValues(), {head, p, at});
      });
    });
  });
  return success();
}

//===----------------------------------------------------------------------===//
// Experts
//===----------------------------------------------------------------------===//

/// Whether the logit `x` of expert `i` comes before `y` of `j`.
static Value comesBefore(VectorBuilder &b, Value x, Value i, Value y, Value j) {
  Value isLarger = arith::CmpFOp::create(b, arith::CmpFPredicate::OGT, x, y);
  Value isEqual = arith::CmpFOp::create(b, arith::CmpFPredicate::OEQ, x, y);
  Value isLower = arith::CmpIOp::create(b, arith::CmpIPredicate::slt, i, j);
  return arith::OrIOp::create(
      b, isLarger, Value(arith::AndIOp::create(b, isEqual, isLower)));
}

/// The first of `count` logits of a row after logit `last` of expert
/// `lastExpert`: {logit, expert}. The threads that share the work look at
/// logits in turn, and all know the result.
static std::pair<Value, Value> nextExpert(VectorBuilder &b, Value logits,
                                          Value row, int64_t count, Value last,
                                          Value lastExpert) {
  Value lowest = b.f32(-std::numeric_limits<float>::infinity());
  Value none = arith::ConstantOp::create(b, b.getI32IntegerAttr(count));
  const bool isShared = b.threads > 1;
  auto loop =
      scf::ForOp::create(b, isShared ? b.thread : b.index(0), b.index(count),
                         b.index(b.threads), ValueRange{lowest, none});
  {
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(loop.getBody());
    Value at = loop.getInductionVar();
    Value expert = arith::IndexCastOp::create(b, b.getI32Type(), at);
    Value logit = memref::LoadOp::create(b, logits, ValueRange{row, at});
    // A NaN has no place in the order: it comes last, and is there once.
    Value isNumber =
        arith::CmpFOp::create(b, arith::CmpFPredicate::ORD, logit, logit);
    logit = arith::SelectOp::create(b, isNumber, logit, lowest);
    Value isBetter = arith::AndIOp::create(
        b, comesBefore(b, last, lastExpert, logit, expert),
        comesBefore(b, logit, expert, loop.getRegionIterArg(0),
                    loop.getRegionIterArg(1)));
    scf::YieldOp::create(
        b, ValueRange{arith::SelectOp::create(b, isBetter, logit,
                                              loop.getRegionIterArg(0)),
                      arith::SelectOp::create(b, isBetter, expert,
                                              loop.getRegionIterArg(1))});
  }
  Value best = loop.getResult(0), expert = loop.getResult(1);
  for (int64_t mask = VectorBuilder::kWarpThreads / 2; isShared && mask > 0;
       mask /= 2) {
    Value otherBest = b.shuffle(best, mask), other = b.shuffle(expert, mask);
    Value isBetter = comesBefore(b, otherBest, other, best, expert);
    best = arith::SelectOp::create(b, isBetter, otherBest, best);
    expert = arith::SelectOp::create(b, isBetter, other, expert);
  }
  return {best, expert};
}

static LogicalResult vectorize(RouteOp op, VectorBuilder &b, PlanAttr) {
  Value logits = op.getLogits();
  Value experts = op.getInits()[0], weights = op.getInits()[1];
  const int64_t count = columnsOf(logits), slots = columnsOf(experts);
  auto exp = [&](Value x, Value most) -> Value {
    return math::ExpOp::create(b, Value(arith::SubFOp::create(b, x, most)));
  };
  auto i32 = [&](int64_t v) -> Value {
    return arith::ConstantOp::create(b, b.getI32IntegerAttr(v));
  };
  // One warp is enough for a row.
  auto routeRow = [&](Value row) {
    auto choice = scf::ForOp::create(
        b, b.index(0), b.index(slots), b.index(1),
        ValueRange{b.f32(std::numeric_limits<float>::infinity()), i32(-1),
                   b.f32(0), b.f32(0)});
    {
      OpBuilder::InsertionGuard guard(b);
      b.setInsertionPointToStart(choice.getBody());
      Value slot = choice.getInductionVar();
      std::pair<Value, Value> next =
          nextExpert(b, logits, row, count, choice.getRegionIterArg(0),
                     choice.getRegionIterArg(1));
      Value logit = next.first, expert = next.second;
      Value isFirst =
          arith::CmpIOp::create(b, arith::CmpIPredicate::eq, slot, b.index(0));
      Value most = arith::SelectOp::create(b, isFirst, logit,
                                           choice.getRegionIterArg(2));
      Value sum = arith::AddFOp::create(b, choice.getRegionIterArg(3),
                                        exp(logit, most));
      b.onFirstThread([&] {
        memref::StoreOp::create(b, expert, experts, ValueRange{row, slot});
        memref::StoreOp::create(b, logit, weights, ValueRange{row, slot});
      });
      scf::YieldOp::create(b, ValueRange{logit, expert, most, sum});
    }
    Value most = choice.getResult(2), sum = choice.getResult(3);
    if (!op.getNormalize())
      sum = b.sumChunks(count, [&](Value at, int64_t n) -> Value {
        return exp(b.load(logits, {row, at}, n), b.splat(most, n));
      });
    b.onFirstThread([&] {
      b.forEach(b.index(slots), [&](Value slot) {
        Value logit = b.loadScalar(weights, {row, slot});
        memref::StoreOp::create(b,
                                arith::DivFOp::create(b, exp(logit, most), sum),
                                weights, ValueRange{row, slot});
      });
    });
  };
  b.forEach(rowsOf(b, logits), [&](Value row) {
    b.forEachPart(1, [&](Value) { routeRow(row); });
  });
  return success();
}

/// Counts the slots of each expert, then lays the experts one behind the other,
/// then numbers the slots of each.
static LogicalResult vectorize(GroupRowsOp op, VectorBuilder &b, PlanAttr) {
  Value experts = op.getExperts(), positions = op.getInits()[0];
  Value order = op.getInits()[1], runs = op.getInits()[2];
  const int64_t count = cast<MemRefType>(runs.getType()).getDimSize(0) - 1;
  const int64_t slots = columnsOf(experts);
  Value rows = rowsOf(b, experts);
  auto i32 = [&](int64_t v) -> Value {
    return arith::ConstantOp::create(b, b.getI32IntegerAttr(v));
  };
  auto toI32 = [&](Value v) -> Value {
    return arith::IndexCastOp::create(b, b.getI32Type(), v);
  };
  auto plusOne = [&](Value v) -> Value {
    return arith::AddIOp::create(b, v, i32(1));
  };
  auto is = [&](Value x, Value y) -> Value {
    return arith::CmpIOp::create(b, arith::CmpIPredicate::eq, x, y);
  };
  // Runs `body(row, slot, number so far)` for every slot, returns the number.
  auto countSlots = [&](Value start,
                        function_ref<Value(Value, Value, Value)> body) {
    auto overRows =
        scf::ForOp::create(b, b.index(0), rows, b.index(1), ValueRange{start});
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(overRows.getBody());
    auto overSlots =
        scf::ForOp::create(b, b.index(0), b.index(slots), b.index(1),
                           ValueRange{overRows.getRegionIterArg(0)});
    {
      OpBuilder::InsertionGuard inner(b);
      b.setInsertionPointToStart(overSlots.getBody());
      scf::YieldOp::create(b, ValueRange{body(overRows.getInductionVar(),
                                              overSlots.getInductionVar(),
                                              overSlots.getRegionIterArg(0))});
    }
    scf::YieldOp::create(b, overSlots.getResults());
    return overRows.getResult(0);
  };
  auto expertAt = [&](Value row, Value slot) -> Value {
    return memref::LoadOp::create(b, experts, ValueRange{row, slot});
  };

  Value firsts = b.workgroupBuffer({count}, b.getI32Type());
  b.forEachElement(count, [&](Value e) {
    Value expert = toI32(e);
    Value own =
        countSlots(i32(0), [&](Value row, Value slot, Value n) -> Value {
          return arith::SelectOp::create(b, is(expertAt(row, slot), expert),
                                         plusOne(n), n);
        });
    memref::StoreOp::create(b, own, firsts, ValueRange{e});
  });
  b.barrier();
  b.onFirstThread([&] {
    auto put = [&](Value run, Value expert, Value first) {
      memref::StoreOp::create(b, expert, runs, ValueRange{run, b.index(0)});
      memref::StoreOp::create(b, first, runs, ValueRange{run, b.index(1)});
    };
    auto loop = scf::ForOp::create(b, b.index(0), b.index(count), b.index(1),
                                   ValueRange{b.index(0), i32(0)});
    {
      OpBuilder::InsertionGuard guard(b);
      b.setInsertionPointToStart(loop.getBody());
      Value e = loop.getInductionVar(), run = loop.getRegionIterArg(0);
      Value first = loop.getRegionIterArg(1);
      Value own = memref::LoadOp::create(b, firsts, ValueRange{e});
      memref::StoreOp::create(b, first, firsts, ValueRange{e});
      // Without slots it is overwritten by the next one.
      put(run, toI32(e), first);
      Value next =
          arith::SelectOp::create(b, is(own, i32(0)), run, b.add(run, 1));
      scf::YieldOp::create(
          b, ValueRange{next, arith::AddIOp::create(b, first, own)});
    }
    b.forRange(loop.getResult(0), b.index(count + 1), 1,
               [&](Value run) { put(run, i32(0), loop.getResult(1)); });
  });
  b.barrier();
  b.forEachElement(count, [&](Value e) {
    Value expert = toI32(e);
    Value first = memref::LoadOp::create(b, firsts, ValueRange{e});
    countSlots(first, [&](Value row, Value slot, Value n) -> Value {
      Value isOwn = is(expertAt(row, slot), expert);
      auto own = scf::IfOp::create(b, isOwn);
      {
        OpBuilder::InsertionGuard guard(b);
        b.setInsertionPointToStart(own.thenBlock());
        memref::StoreOp::create(b, n, positions, ValueRange{row, slot});
        Value at = arith::IndexCastOp::create(b, b.getIndexType(), n);
        Value number = toI32(b.add(b.mul(row, slots), slot));
        memref::StoreOp::create(
            b, number, order,
            ValueRange{arith::DivUIOp::create(b, at, b.index(slots)),
                       arith::RemUIOp::create(b, at, b.index(slots))});
      }
      return arith::SelectOp::create(b, isOwn, plusOne(n), n);
    });
  });
  return success();
}

static LogicalResult vectorize(GatherRowsOp op, VectorBuilder &b, PlanAttr) {
  Value in = op.getInput(), out = op.getInits()[0];
  const int64_t slots = columnsOf(op.getOrder());
  b.forEach(rowsOf(b, op.getOrder()), [&](Value row) {
    b.forEach(b.index(slots), [&](Value slot) {
      Value number = arith::IndexCastOp::create(
          b, b.getIndexType(),
          memref::LoadOp::create(b, op.getOrder(), ValueRange{row, slot}));
      Value from = arith::DivUIOp::create(b, number, b.index(slots));
      Value to = b.add(b.mul(row, slots), slot);
      b.forChunks(columnsOf(in), [&](Value at, int64_t n) {
        b.store(b.load(in, {from, at}, n), out, {to, at});
      });
    });
  });
  return success();
}

static LogicalResult vectorize(CombineRowsOp op, VectorBuilder &b, PlanAttr) {
  Value in = op.getInput(), out = op.getInits()[0];
  const int64_t slots = columnsOf(op.getPositions());
  b.forEach(rowsOf(b, out), [&](Value row) {
    SmallVector<std::pair<Value, Value>> terms;
    for (int64_t s = 0; s < slots; ++s) {
      SmallVector<Value> at = {row, b.index(s)};
      Value position = memref::LoadOp::create(b, op.getPositions(), at);
      terms.push_back(
          {arith::IndexCastOp::create(b, b.getIndexType(), position),
           b.loadScalar(op.getWeights(), at)});
    }
    Value share;
    if (op.getShared()) {
      Value gate = b.loadScalar(op.getGate(), {row, b.index(0)});
      Value one = b.f32(1);
      Value e = math::ExpOp::create(b, Value(arith::NegFOp::create(b, gate)));
      share = arith::DivFOp::create(b, one,
                                    Value(arith::AddFOp::create(b, one, e)));
    }
    b.forChunks(columnsOf(out), [&](Value at, int64_t n) {
      Value sum;
      auto add = [&](Value weight, Value row, Value from) {
        Value v = b.load(from, {row, at}, n), w = b.splat(weight, n);
        sum = sum ? Value(vector::FMAOp::create(b, w, v, sum))
                  : Value(arith::MulFOp::create(b, w, v));
      };
      for (auto [position, weight] : terms)
        add(weight, position, in);
      if (share)
        add(share, row, op.getShared());
      b.store(sum, out, {row, at});
    });
  });
  return success();
}

//===----------------------------------------------------------------------===//
// Attention
//===----------------------------------------------------------------------===//

/// Vectors of one head that are summed at the same time: enough to hide the
/// latency of an FMA, few enough to stay in registers.
static constexpr int64_t kHeadVectors = 8;

static LogicalResult vectorize(AttentionOp op, VectorBuilder &b,
                               PlanAttr plan) {
  if (b.threads > 1)
    return vectorizeOnWarps(op, b, plan);
  if (op.getK() || op.getPart())
    return op.emitOpError("expects workgroups of several threads where it "
                          "rotates or is in parts");
  int64_t d = op.getHeadDim(), groups = op.getHeads() / op.getKvHeads();
  int64_t context = cast<MemRefType>(op.getKeys().getType()).getDimSize(1);
  if (ShapedType::isDynamic(context))
    return op.emitOpError("expects caches of a static size");
  auto space =
      gpu::AddressSpaceAttr::get(b.getContext(), gpu::AddressSpace::Workgroup);
  Value scores = memref::AllocOp::create(
      b, MemRefType::get({context}, b.getF32Type(), MemRefLayoutAttrInterface(),
                         space));
  // The chunks of a head's vector: offset and width.
  SmallVector<std::pair<int64_t, int64_t>> chunks;
  for (int64_t at = 0; at < d; at += b.lanes)
    chunks.push_back({at, std::min(b.lanes, d - at)});

  b.forEach(rowsOf(b, op.getQ()), [&](Value row) {
    Value end = b.add(b.add(op.getPosition(), row), 1);
    Value start = b.index(0);
    if (op.getWindow() > 0)
      start = arith::MaxSIOp::create(
          b, arith::SubIOp::create(b, end, b.index(op.getWindow())), start);
    b.forEach(b.index(op.getKvHeads()), [&](Value kv) {
      b.forEach(b.index(groups), [&](Value inGroup) {
        Value head = b.add(b.mul(kv, groups), inGroup);
        Value base = b.mul(head, d);
        // Scores of all positions, and the largest.
        Value lowest = b.f32(-std::numeric_limits<float>::infinity());
        auto dots =
            scf::ForOp::create(b, start, end, b.index(1), ValueRange{lowest});
        {
          OpBuilder::InsertionGuard guard(b);
          b.setInsertionPointToStart(dots.getBody());
          Value t = dots.getInductionVar();
          SmallVector<Value> partial;
          Value rest;
          for (auto [i, chunk] : llvm::enumerate(chunks)) {
            auto [at, n] = chunk;
            Value q = b.load(op.getQ(), {row, b.add(base, at)}, n);
            Value k = b.load(op.getKeys(), {kv, t, b.index(at)}, n);
            if (n != b.lanes)
              rest = b.reduce(arith::MulFOp::create(b, q, k));
            else if (partial.size() < 4)
              partial.push_back(arith::MulFOp::create(b, q, k));
            else
              partial[i % 4] = vector::FMAOp::create(b, q, k, partial[i % 4]);
          }
          Value dot = rest;
          if (!partial.empty()) {
            Value sum = partial[0];
            for (Value p : llvm::drop_begin(partial))
              sum = arith::AddFOp::create(b, sum, p);
            sum = b.reduce(sum);
            dot = dot ? Value(arith::AddFOp::create(b, dot, sum)) : sum;
          }
          dot = arith::MulFOp::create(b, dot,
                                      b.f32(op.getScale().convertToDouble()));
          memref::StoreOp::create(b, dot, scores, ValueRange{t});
          Value most =
              arith::MaximumFOp::create(b, dots.getRegionIterArg(0), dot);
          scf::YieldOp::create(b, ValueRange{most});
        }
        // Capping keeps the order: the largest stays the largest.
        const double cap = op.getSoftcap().convertToDouble();
        auto capped = [&](Value v) { return cap > 0 ? softcap(b, cap, v) : v; };
        Value most = vector::ExtractOp::create(
            b, capped(b.splat(dots.getResult(0), 1)), 0);

        // exp(score - largest), and the sum of these.
        auto exponentials = [&](Value from, Value to, int64_t n,
                                Value sum) -> Value {
          auto loop =
              scf::ForOp::create(b, from, to, b.index(n), ValueRange{sum});
          OpBuilder::InsertionGuard guard(b);
          b.setInsertionPointToStart(loop.getBody());
          Value t = loop.getInductionVar();
          Value e = math::ExpOp::create(
              b, Value(arith::SubFOp::create(b, capped(b.load(scores, {t}, n)),
                                             b.splat(most, n))));
          b.store(e, scores, {t});
          scf::YieldOp::create(b, ValueRange{arith::AddFOp::create(
                                      b, loop.getRegionIterArg(0), e)});
          return loop.getResult(0);
        };
        Value count = arith::SubIOp::create(b, end, start);
        Value rest = arith::RemUIOp::create(b, count, b.index(b.lanes));
        Value wholeEnd = arith::SubIOp::create(b, end, rest);
        Value total = b.reduce(exponentials(start, wholeEnd, b.lanes,
                                            b.zeros(b.vectorType(b.lanes))));
        Value tail = exponentials(wholeEnd, end, 1, b.zeros(b.vectorType(1)));
        total = arith::AddFOp::create(b, total, b.reduce(tail));
        Value inverse = arith::DivFOp::create(b, b.f32(1.0), total);

        // The weighted sum of values, a few vectors of the head at a time.
        for (size_t first = 0; first < chunks.size(); first += kHeadVectors) {
          auto part = ArrayRef(chunks).slice(
              first, std::min<size_t>(kHeadVectors, chunks.size() - first));
          SmallVector<Value> sums;
          for (auto [at, n] : part)
            sums.push_back(b.zeros(b.vectorType(n)));
          auto loop = scf::ForOp::create(b, start, end, b.index(1), sums);
          {
            OpBuilder::InsertionGuard guard(b);
            b.setInsertionPointToStart(loop.getBody());
            Value t = loop.getInductionVar();
            Value a = b.loadScalar(scores, {t});
            SmallVector<Value> next;
            for (auto [i, chunk] : llvm::enumerate(part)) {
              auto [at, n] = chunk;
              Value v = b.load(op.getValues(), {kv, t, b.index(at)}, n);
              next.push_back(vector::FMAOp::create(b, b.splat(a, n), v,
                                                   loop.getRegionIterArg(i)));
            }
            scf::YieldOp::create(b, next);
          }
          for (auto [i, chunk] : llvm::enumerate(part)) {
            auto [at, n] = chunk;
            b.store(arith::MulFOp::create(b, loop.getResult(i),
                                          b.splat(inverse, n)),
                    op.getInits()[0], {row, b.add(base, at)});
          }
        }
      });
    });
  });
  return success();
}

static LogicalResult vectorize(JoinAttentionOp op, VectorBuilder &b, PlanAttr) {
  if (b.threads == 1)
    return op.emitOpError("expects workgroups of several threads");
  return vectorizeOnWarps(op, b);
}

//===----------------------------------------------------------------------===//
// The next token
//===----------------------------------------------------------------------===//

namespace {
/// An element and where it is.
struct Largest {
  Value value, index;
};
} // namespace

/// The larger of two elements, of equal ones that in front. NaNs are never
/// larger.
static Largest larger(VectorBuilder &b, Largest x, Largest y) {
  Value more =
      arith::CmpFOp::create(b, arith::CmpFPredicate::OGT, y.value, x.value);
  Value same =
      arith::CmpFOp::create(b, arith::CmpFPredicate::OEQ, y.value, x.value);
  Value before =
      arith::CmpIOp::create(b, arith::CmpIPredicate::slt, y.index, x.index);
  Value wins = arith::OrIOp::create(b, more, both(b, same, before));
  return {select(b, wins, y.value, x.value), select(b, wins, y.index, x.index)};
}

/// The largest of `from(i)` for i in [begin, end), which the threads share, on
/// all of the first warp's threads.
static Largest largestOf(VectorBuilder &b, Value begin, Value end,
                         function_ref<Largest(Value)> from) {
  constexpr int64_t lanes = VectorBuilder::kWarpThreads;
  const int64_t warps = b.threads / lanes;
  Type i32 = b.getI32Type();
  Value lowest = b.f32(-std::numeric_limits<float>::infinity());
  Value nowhere = arith::ConstantOp::create(
      b, b.getI32IntegerAttr(std::numeric_limits<int32_t>::max()));
  auto loop =
      scf::ForOp::create(b, b.threads > 1 ? b.add(begin, b.thread) : begin, end,
                         b.index(b.threads), ValueRange{lowest, nowhere});
  {
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(loop.getBody());
    Largest next =
        larger(b, {loop.getRegionIterArg(0), loop.getRegionIterArg(1)},
               from(loop.getInductionVar()));
    scf::YieldOp::create(b, ValueRange{next.value, next.index});
  }
  Largest result{loop.getResult(0), loop.getResult(1)};
  if (b.threads == 1)
    return result;
  auto inWarp = [&](Largest own) {
    for (int64_t mask = lanes / 2; mask > 0; mask /= 2)
      own = larger(b, own,
                   {b.shuffle(own.value, mask), b.shuffle(own.index, mask)});
    return own;
  };
  result = inWarp(result);
  if (warps == 1)
    return result;
  Value values = b.workgroupBuffer({warps});
  Value indices = memref::AllocOp::create(
      b, MemRefType::get({warps}, i32, MemRefLayoutAttrInterface(),
                         cast<MemRefType>(values.getType()).getMemorySpace()));
  Value lane = b.remainder(b.thread, lanes), warp = b.divide(b.thread, lanes);
  auto store = scf::IfOp::create(b, equal(b, lane, b.index(0)));
  {
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(store.thenBlock());
    memref::StoreOp::create(b, result.value, values, ValueRange{warp});
    memref::StoreOp::create(b, result.index, indices, ValueRange{warp});
  }
  gpu::BarrierOp::create(b);
  // Past the last warp the last is read again.
  Value at = arith::MinSIOp::create(b, lane, b.index(warps - 1));
  return inWarp({memref::LoadOp::create(b, values, ValueRange{at}),
                 memref::LoadOp::create(b, indices, ValueRange{at})});
}

static LogicalResult vectorize(ArgmaxOp op, VectorBuilder &b, PlanAttr) {
  Value values = op.getInits()[0], indices = op.getInits()[1];
  Value n = b.index(columnsOf(op.getInput()));
  if (cast<MemRefType>(values.getType()).getDimSize(0) != 1)
    return op.emitOpError("expects a part for each workgroup");
  Value begin = b.mul(op.getPart(), op.getColumns());
  Value end = arith::MinSIOp::create(b, n, b.add(begin, op.getColumns()));
  Value zero = b.index(0);
  Largest largest = largestOf(b, begin, end, [&](Value column) -> Largest {
    return {b.loadScalar(op.getInput(), {zero, column}),
            arith::IndexCastOp::create(b, b.getI32Type(), column)};
  });
  auto write = [&] {
    memref::StoreOp::create(b, largest.value, values, ValueRange{zero, zero});
    memref::StoreOp::create(b, largest.index, indices, ValueRange{zero, zero});
  };
  if (b.threads > 1)
    b.onFirstThread(write);
  else
    write();
  return success();
}

static LogicalResult vectorize(ChooseTokenOp op, VectorBuilder &b, PlanAttr) {
  auto kernel = op->getParentOfType<FunctionOpInterface>();
  kernel->setAttr(kAdvancesAttr, b.getUnitAttr());
  Value zero = b.index(0);
  Largest largest =
      largestOf(b, zero, rowsOf(b, op.getValues()), [&](Value part) -> Largest {
        return {
            memref::LoadOp::create(b, op.getValues(), ValueRange{part, zero}),
            memref::LoadOp::create(b, op.getIndices(), ValueRange{part, zero})};
      });
  Value nowhere = arith::ConstantOp::create(
      b, b.getI32IntegerAttr(std::numeric_limits<int32_t>::max()));
  Value isNowhere = equal(b, largest.index, nowhere);
  Value token =
      select(b, isNowhere, arith::ConstantOp::create(b, b.getI32IntegerAttr(0)),
             largest.index);
  auto write = [&] {
    for (Value init : op.getInits())
      memref::StoreOp::create(b, token, init, ValueRange{zero});
  };
  if (b.threads > 1)
    b.onFirstThread(write);
  else
    write();
  return success();
}

static LogicalResult vectorize(TopKOp op, VectorBuilder &b, PlanAttr) {
  return vectorizeTopK(op, b);
}

static LogicalResult vectorize(SampleTokenOp op, VectorBuilder &b, PlanAttr) {
  return vectorizeSampleToken(op, b);
}

namespace {
struct VectorizePass final
    : mlir::gptq::impl::VectorizePassBase<VectorizePass> {
  using Base::Base;

  template <typename... Ops>
  LogicalResult vectorizeAny(Operation *op, VectorBuilder &b, PlanAttr plan) {
    LogicalResult result = failure();
    (void)((isa<Ops>(op) ? (result = vectorize(cast<Ops>(op), b, plan), true)
                         : false) ||
           ...);
    return result;
  }

  void runOnOperation() override {
    SmallVector<Operation *> ops;
    getOperation()->walk([&](Operation *op) {
      if (getPlan(op) && isa<DestinationStyleOpInterface>(op))
        ops.push_back(op);
    });
    for (Operation *op : ops) {
      if (!cast<DestinationStyleOpInterface>(op).hasPureBufferSemantics()) {
        op->emitOpError("expects buffers: bufferize before vectorizing");
        return signalPassFailure();
      }
      PlanAttr plan = getPlan(op);
      if (scalar && plan.getThreads() == 1) {
        PlanAttr::Fields fields = plan.getFields();
        fields.lanes = 1;
        plan = PlanAttr::get(&getContext(), fields);
      }
      if (plan.getThreads() > 1) {
        Builder attrs(&getContext());
        getOperation()->setAttr(kThreadsAttr,
                                attrs.getI64IntegerAttr(plan.getThreads()));
        getOperation()->setAttr(kOccupancyAttr,
                                attrs.getI64IntegerAttr(plan.getOccupancy()));
      }
      VectorBuilder b(op, plan.getLanes(), plan.getThreads());
      if (failed(vectorizeAny<
                 DequantMatmulOp, MatmulOp, EmbeddingOp, RMSNormOp, LayerNormOp,
                 SoftcapOp, AddOp, AddRMSNormOp, ActivationOp, StageOp,
                 StageSplitOp, RotaryAppendOp, AttentionOp, JoinAttentionOp,
                 ArgmaxOp, ChooseTokenOp, TopKOp, SampleTokenOp, RouteOp,
                 GroupRowsOp, GatherRowsOp, CombineRowsOp>(op, b, plan)))
        return signalPassFailure();
      // What one thread has left in workgroup memory others may read.
      if (plan.getThreads() > 1 && writesWorkgroupMemory(op))
        gpu::BarrierOp::create(b);
      op->erase();
    }
  }

private:
  static bool writesWorkgroupMemory(Operation *op) {
    return llvm::any_of(
        cast<DestinationStyleOpInterface>(op).getDpsInits(), [](Value init) {
          return bool(cast<MemRefType>(init.getType()).getMemorySpace());
        });
  }
};
} // namespace
