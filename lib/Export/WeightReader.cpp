//===- WeightReader.cpp - Evaluates weight views --------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Export/WeightReader.h"
#include "gptq/Dialect/GPTQ/IR/CodesReader.h"
#include "gptq/Export/Packer.h"
#include "mlir/IR/Threading.h"
#include "llvm/ADT/TypeSwitch.h"
#include "llvm/ADT/bit.h"
#include "llvm/Support/MathExtras.h"
#include "llvm/Support/Path.h"

#include <cmath>
#include <cstring>
#include <numeric>
#include <sys/mman.h>

using namespace mlir;
using namespace mlir::gptq;
using model::Expected;
using model::Status;
using model::StatusCode;

/// Views nest a few levels; more means that symbols refer to each other in a
/// circle.
static constexpr unsigned kMaxDepth = 32;

/// Bytes handed to the sink at once, and bytes read from files before their
/// pages are given back: large enough that the calls cost nothing.
static constexpr int64_t kPieceBytes = 16 << 20;

//===----------------------------------------------------------------------===//
// Files
//===----------------------------------------------------------------------===//

Expected<model::ByteSpan> CheckpointFiles::bytes(StringRef file) {
  auto it = files.find(file);
  if (it == files.end()) {
    SmallString<128> path(file);
    if (!llvm::sys::path::is_absolute(file) && !folder.empty()) {
      path = folder;
      llvm::sys::path::append(path, file);
    }
    GPTQ_ASSIGN(model::MappedFile mapped,
                model::MappedFile::open(std::string(path)));
    it = files.try_emplace(file, std::move(mapped)).first;
  }
  return it->second.bytes();
}

void CheckpointFiles::dropPages() const {
  for (const auto &entry : files) {
    model::ByteSpan span = entry.second.bytes();
    if (span.size > 0)
      ::madvise(const_cast<uint8_t *>(span.data), span.size, MADV_DONTNEED);
  }
}

//===----------------------------------------------------------------------===//
// Types as matrices
//===----------------------------------------------------------------------===//

namespace {

struct Matrix {
  int64_t rows = 1;
  int64_t columns = 1;
  /// Bytes of an element as rows deliver it.
  unsigned width = 1;
};

} // namespace

static std::string text(Type type) {
  std::string s;
  llvm::raw_string_ostream(s) << type;
  return s;
}

/// How a weight of `type` is delivered in rows.
static Matrix asMatrix(RankedTensorType type) {
  Matrix m;
  ArrayRef<int64_t> shape = type.getShape();
  if (shape.size() == 1) {
    m.columns = shape[0];
  } else if (shape.size() > 1) {
    m.rows = shape[0];
    for (int64_t size : shape.drop_front())
      m.columns *= size;
  }
  m.width = llvm::divideCeil(type.getElementTypeBitWidth(), 8);
  return m;
}

/// Whether dimension `dim` of a weight of `type` runs along the rows of its
/// matrix (0) or its columns (1); fails for one that is only part of them.
static Expected<int> matrixDim(WeightOp weight, int64_t dim) {
  int64_t rank = weight.getTensorType().getRank();
  if (rank == 1 && dim == 0)
    return 1;
  if (rank >= 2 && dim == 0)
    return 0;
  if (rank == 2 && dim == 1)
    return 1;
  return model::makeStatus(StatusCode::Unsupported,
                           "weight '%s' is a view along dimension %lld of %s, "
                           "which is not supported",
                           weight.getSymName().str().c_str(), (long long)dim,
                           text(weight.getType()).c_str());
}

template <typename... Args>
static Status weightError(WeightOp weight, const char *format, Args... args) {
  Status status;
  if constexpr (sizeof...(args) == 0)
    status = Status(StatusCode::InvalidFile, format);
  else
    status = model::makeStatus(StatusCode::InvalidFile, format, args...);
  return status.withContext("weight '" + weight.getSymName().str() + "'");
}

//===----------------------------------------------------------------------===//
// Views
//===----------------------------------------------------------------------===//

namespace {

using Order = std::shared_ptr<const std::vector<int32_t>>;

/// #gptq.data
struct DataSource final : RowSource {
  DataSource(Matrix m, const uint8_t *data)
      : RowSource(m.rows, m.columns, m.width), data(data) {}
  void readRow(int64_t row, uint8_t *out) override {
    std::memcpy(out, data + row * rowBytes(), rowBytes());
  }
  const uint8_t *data;
};

/// The i-th little-endian word at `p`, which need not be aligned: safetensors
/// headers have any length.
inline uint32_t loadWord(const uint8_t *p, int64_t i) {
  uint32_t word;
  std::memcpy(&word, p + 4 * i, 4);
  return word;
}

/// #gptq.codes
struct CodesSource final : RowSource {
  CodesSource(Matrix m, CodesAttr codes, const uint8_t *bytes)
      : RowSource(m.rows, m.columns, m.width),
        reader(codes, m.rows, m.columns, bytes) {}
  void readRow(int64_t row, uint8_t *out) override { reader.readRow(row, out); }
  CodesReader reader;
};

/// Rows of a source as numbers.
class NumberRows {
public:
  NumberRows(std::unique_ptr<RowSource> source, Type element)
      : source(std::move(source)), element(element),
        buffer(this->source->rowBytes()) {}

  int64_t rows() const { return source->rows; }
  int64_t columns() const { return source->columns; }

  void readRow(int64_t row, MutableArrayRef<float> out) {
    source->readRow(row, buffer.data());
    for (auto [i, value] : llvm::enumerate(out)) {
      if (element.isInteger()) {
        const uint8_t byte = buffer[i];
        value = element.isSignedInteger() ? float(int8_t(byte)) : float(byte);
      } else if (element.isF32()) {
        std::memcpy(&value, buffer.data() + 4 * i, 4);
      } else {
        uint16_t half;
        std::memcpy(&half, buffer.data() + 2 * i, 2);
        value = element.isBF16() ? llvm::bit_cast<float>(uint32_t(half) << 16)
                                 : float(llvm::bit_cast<_Float16>(half));
      }
    }
  }

private:
  std::unique_ptr<RowSource> source;
  Type element;
  std::vector<uint8_t> buffer;
};

/// #gptq.product
struct ProductSource final : RowSource {
  ProductSource(Matrix m, NumberRows a, NumberRows b, bool isNegated)
      : RowSource(m.rows, m.columns, 4), a(std::move(a)), b(std::move(b)),
        isNegated(isNegated), left(this->a.columns()), right(m.columns) {}
  void readRow(int64_t row, uint8_t *out) override {
    a.readRow(row / (rows / a.rows()), left);
    b.readRow(row, right);
    const int64_t run = columns / a.columns();
    for (int64_t c = 0; c < columns; ++c) {
      const float product = left[c / run] * right[c];
      right[c] = isNegated ? -product : product;
    }
    std::memcpy(out, right.data(), rowBytes());
  }
  NumberRows a, b;
  bool isNegated;
  std::vector<float> left, right;
};

/// #gptq.dequantized
struct DequantizedSource final : RowSource {
  DequantizedSource(Matrix m, NumberRows codes, NumberRows scales,
                    std::optional<NumberRows> offsets, DequantizedAttr view)
      : RowSource(m.rows, m.columns, 4), codes(std::move(codes)),
        scales(std::move(scales)), offsets(std::move(offsets)),
        zeroPoint(view.getZeroPoint()), groupSize(view.getGroupSize()),
        values(m.columns), scale(this->scales.columns()),
        offset(this->scales.columns()) {}
  void readRow(int64_t row, uint8_t *out) override {
    codes.readRow(row, values);
    scales.readRow(row, scale);
    if (offsets)
      offsets->readRow(row, offset);
    for (int64_t c = 0; c < columns; ++c)
      values[c] = scale[c / groupSize] * (values[c] - zeroPoint) +
                  offset[c / groupSize];
    std::memcpy(out, values.data(), rowBytes());
  }
  NumberRows codes, scales;
  std::optional<NumberRows> offsets;
  float zeroPoint;
  int64_t groupSize;
  std::vector<float> values, scale, offset;
};

/// #gptq.quotient
struct QuotientSource final : RowSource {
  QuotientSource(Matrix m, NumberRows a, NumberRows b, bool isNegated)
      : RowSource(m.rows, m.columns, m.width), a(std::move(a)), b(std::move(b)),
        isNegated(isNegated), left(m.columns), right(m.columns) {}
  void readRow(int64_t row, uint8_t *out) override {
    a.readRow(row, left);
    b.readRow(row, right);
    for (int64_t c = 0; c < columns; ++c) {
      const float quotient = right[c] == 0 ? 0 : left[c] / right[c];
      left[c] = isNegated ? -quotient : quotient;
      // Whether they fit was checked when the view was opened.
      if (width == 1)
        out[c] = uint8_t(std::lrint(left[c]));
    }
    if (width == 4)
      std::memcpy(out, left.data(), rowBytes());
  }
  /// The first quotient that does not round to 0 … `last`.
  std::optional<float> findMisfit(int64_t last) {
    std::vector<uint8_t> codes(rowBytes());
    for (int64_t row = 0; row < rows; ++row) {
      readRow(row, codes.data());
      for (float quotient : left)
        if (!(quotient > -0.5f && quotient < float(last) + 0.5f))
          return quotient;
    }
    return std::nullopt;
  }
  NumberRows a, b;
  bool isNegated;
  std::vector<float> left, right;
};

/// The rows of a source in runs, each filled up with zeros to whole blocks.
struct PaddedRuns final : RowSource {
  PaddedRuns(std::unique_ptr<RowSource> source, int64_t run, LayoutAttr layout)
      : RowSource(layout.blocksOf(source->rows, run) * layout.getBlockK(),
                  source->columns, source->width),
        source(std::move(source)), run(run),
        to(llvm::alignTo(run, layout.getBlockK())) {}
  void readRow(int64_t row, uint8_t *out) override {
    int64_t from = row / to * run + row % to;
    if (row % to < run && from < source->rows)
      source->readRow(from, out);
    else
      std::memset(out, 0, rowBytes());
  }
  std::unique_ptr<RowSource> source;
  int64_t run, to;
};

/// One row of 32-bit integers: #gptq.argsort.
struct OrderSource final : RowSource {
  explicit OrderSource(Order order)
      : RowSource(1, order->size(), 4), order(std::move(order)) {}
  void readRow(int64_t, uint8_t *out) override {
    std::memcpy(out, order->data(), rowBytes());
  }
  Order order;
};

/// The runs of a concatenation: parts of `sizes` elements along the dimension,
/// one after another or in turn.
class ConcatRuns {
public:
  struct Place {
    size_t part;
    /// Beyond the part's size where a run is filled up with zeros.
    int64_t index;
  };

  ConcatRuns(std::vector<int64_t> sizes, int64_t interleave)
      : sizes(std::move(sizes)), run(interleave) {}

  int64_t total() const {
    if (run == 0)
      return std::accumulate(sizes.begin(), sizes.end(), int64_t(0));
    return sizes.size() * llvm::divideCeil(sizes[0], run) * run;
  }

  /// Where element `i` of the result comes from.
  Place operator[](int64_t i) const {
    if (run > 0) {
      const int64_t parts = sizes.size();
      return {size_t(i / run % parts), i / (run * parts) * run + i % run};
    }
    size_t part = 0;
    while (i >= sizes[part])
      i -= sizes[part++];
    return {part, i};
  }

  bool isPadding(Place place) const { return place.index >= sizes[place.part]; }

  /// Calls `copy(place, index in the result, length)` for all runs; those
  /// beyond a part's end are left out.
  template <typename Fn> void forEachRun(Fn copy) const {
    for (int64_t i = 0, e = total(); i < e;) {
      Place place = (*this)[i];
      int64_t left = sizes[place.part] - place.index;
      if (left > 0)
        copy(place, i, run == 0 ? left : std::min(run, left));
      i += run == 0 ? left : run;
    }
  }

private:
  std::vector<int64_t> sizes;
  int64_t run;
};

using Sources = std::vector<std::unique_ptr<RowSource>>;

/// #gptq.concat along rows.
struct RowConcat final : RowSource {
  RowConcat(Matrix m, Sources parts, ConcatRuns runs)
      : RowSource(m.rows, m.columns, m.width), parts(std::move(parts)),
        runs(std::move(runs)) {}
  void readRow(int64_t row, uint8_t *out) override {
    ConcatRuns::Place place = runs[row];
    if (runs.isPadding(place))
      std::memset(out, 0, rowBytes());
    else
      parts[place.part]->readRow(place.index, out);
  }
  Sources parts;
  ConcatRuns runs;
};

/// #gptq.concat along columns.
struct ColumnConcat final : RowSource {
  ColumnConcat(Matrix m, Sources parts, ConcatRuns runs)
      : RowSource(m.rows, m.columns, m.width), parts(std::move(parts)),
        runs(std::move(runs)) {
    for (const auto &part : this->parts)
      buffers.emplace_back(part->rowBytes());
  }
  void readRow(int64_t row, uint8_t *out) override {
    for (size_t i = 0; i < parts.size(); ++i)
      parts[i]->readRow(row, buffers[i].data());
    std::memset(out, 0, rowBytes());
    runs.forEachRun([&](ConcatRuns::Place from, int64_t to, int64_t length) {
      std::memcpy(out + to * width,
                  buffers[from.part].data() + from.index * width,
                  length * width);
    });
  }
  Sources parts;
  ConcatRuns runs;
  std::vector<std::vector<uint8_t>> buffers;
};

/// #gptq.gather along rows.
struct RowGather final : RowSource {
  RowGather(Matrix m, std::unique_ptr<RowSource> source, Order order)
      : RowSource(m.rows, m.columns, m.width), source(std::move(source)),
        order(std::move(order)) {}
  void readRow(int64_t row, uint8_t *out) override {
    source->readRow((*order)[row], out);
  }
  std::unique_ptr<RowSource> source;
  Order order;
};

/// #gptq.gather along columns.
struct ColumnGather final : RowSource {
  ColumnGather(Matrix m, std::unique_ptr<RowSource> source, Order order)
      : RowSource(m.rows, m.columns, m.width), source(std::move(source)),
        order(std::move(order)), buffer(this->source->rowBytes()) {}
  void readRow(int64_t row, uint8_t *out) override {
    source->readRow(row, buffer.data());
    for (int64_t c = 0; c < columns; ++c)
      std::memcpy(out + c * width, buffer.data() + (*order)[c] * width, width);
  }
  std::unique_ptr<RowSource> source;
  Order order;
  std::vector<uint8_t> buffer;
};

/// #gptq.plus
struct PlusSource final : RowSource {
  PlusSource(Matrix m, NumberRows source, float number)
      : RowSource(m.rows, m.columns, 4), source(std::move(source)),
        number(number), values(m.columns) {}
  void readRow(int64_t row, uint8_t *out) override {
    source.readRow(row, values);
    for (float &value : values)
      value += number;
    std::memcpy(out, values.data(), rowBytes());
  }
  NumberRows source;
  float number;
  std::vector<float> values;
};

/// #gptq.rotary
struct RotarySource final : RowSource {
  RotarySource(Matrix m, RotaryAttr rotary)
      : RowSource(m.rows, m.columns, 4), frequencies(m.columns / 2) {
    if (FloatAttr given = rotary.getMagnitude())
      magnitude = given.getValueAsDouble();
    const double theta = rotary.getTheta().getValueAsDouble();
    const double factor = rotary.getFactor().getValueAsDouble();
    const double low = rotary.getLowFreqFactor().getValueAsDouble();
    const double high = rotary.getHighFreqFactor().getValueAsDouble();
    const double context = rotary.getOriginalContext();
    StringRef scaling = rotary.getScaling().getValue();
    for (size_t i = 0; i < frequencies.size(); ++i) {
      double f = std::pow(theta, -2.0 * i / m.columns);
      if (scaling == "linear") {
        f /= factor;
      } else if (scaling == "llama3") {
        const double wavelength = 2 * M_PI / f;
        if (wavelength > context / low) {
          f /= factor;
        } else if (wavelength >= context / high) {
          const double smooth = (context / wavelength - low) / (high - low);
          f = (1 - smooth) * f / factor + smooth * f;
        }
      } else if (scaling == "longrope") {
        f /= rotary.getFactors()[i];
      }
      frequencies[i] = f;
    }
  }
  void readRow(int64_t row, uint8_t *out) override {
    const size_t half = frequencies.size();
    for (size_t i = 0; i < half; ++i) {
      const double angle = row * frequencies[i];
      const float c = magnitude * std::cos(angle);
      const float s = magnitude * std::sin(angle);
      std::memcpy(out + 4 * i, &c, 4);
      std::memcpy(out + 4 * (half + i), &s, 4);
    }
  }
  std::vector<double> frequencies;
  double magnitude = 1;
};

} // namespace

//===----------------------------------------------------------------------===//
// Opening views
//===----------------------------------------------------------------------===//

WeightReader::WeightReader(ModuleOp module)
    : module(module),
      files(module->getAttrOfType<StringAttr>(kFolderAttr)
                ? module->getAttrOfType<StringAttr>(kFolderAttr).getValue()
                : StringRef()) {
  for (WeightOp weight : module.getOps<WeightOp>())
    weights[weight.getSymName()] = weight;
}

Expected<std::unique_ptr<RowSource>> WeightReader::open(WeightOp weight) {
  return open(weight, 0);
}

Expected<std::unique_ptr<RowSource>>
WeightReader::openSymbol(FlatSymbolRefAttr name, unsigned depth) {
  auto it = weights.find(name.getValue());
  if (it == weights.end())
    return model::makeStatus(
        StatusCode::NotFound,
        "a view refers to weight '%s', which does not exist",
        name.getValue().str().c_str());
  return open(it->second, depth);
}

/// The bytes of `data`, after checking that the file has them.
static Expected<const uint8_t *> mapData(WeightOp weight, DataAttr data,
                                         CheckpointFiles &files) {
  GPTQ_ASSIGN(model::ByteSpan file, files.bytes(data.getFile().getValue()));
  uint64_t begin = data.getOffset(), size = data.getByteSize();
  if (data.getOffset() < 0 || begin > file.size || size > file.size - begin)
    return weightError(weight,
                       "tensor '%s' needs bytes %llu to %llu of '%s', which "
                       "has %zu bytes",
                       data.getTensor().str().c_str(),
                       (unsigned long long)begin,
                       (unsigned long long)(begin + size),
                       data.getFile().str().c_str(), file.size);
  return file.data + begin;
}

/// The stable order that sorts `groups` of `count` rows.
static Expected<Order> sortGroups(WeightOp weight, const uint8_t *data,
                                  int64_t count, int64_t groups) {
  // Groups are few: count them, then place each row behind those before it.
  std::vector<int32_t> group(count);
  std::vector<int64_t> next(groups + 1);
  for (int64_t i = 0; i < count; ++i) {
    int32_t g = loadWord(data, i);
    int32_t at = g < 0 ? g + groups : g;
    if (at < 0 || at >= groups)
      return weightError(weight,
                         "row %lld belongs to group %d, but there are %lld "
                         "groups",
                         (long long)i, g, (long long)groups);
    group[i] = at;
    ++next[at + 1];
  }
  std::partial_sum(next.begin(), next.end(), next.begin());
  auto order = std::make_shared<std::vector<int32_t>>(count);
  for (int64_t i = 0; i < count; ++i)
    (*order)[next[group[i]]++] = i;
  return Order(order);
}

Expected<Order> WeightReader::readOrder(FlatSymbolRefAttr name, int64_t limit,
                                        unsigned depth) {
  Order &order = orders[name.getValue()];
  if (!order) {
    GPTQ_ASSIGN(std::unique_ptr<RowSource> source, openSymbol(name, depth));
    WeightOp weight = weights[name.getValue()];
    if (source->rows != 1 || weight.getTensorType().getRank() != 1 ||
        !weight.getTensorType().getElementType().isInteger(32))
      return weightError(weight, "expected an order of type i32 [K], found %s",
                         text(weight.getType()).c_str());
    auto values = std::make_shared<std::vector<int32_t>>(source->columns);
    source->readRow(0, reinterpret_cast<uint8_t *>(values->data()));
    orders[name.getValue()] = values;
  }
  Order result = orders[name.getValue()];
  for (int32_t i : *result)
    if (i < 0 || i >= limit)
      return model::makeStatus(
          StatusCode::InvalidFile, "the order '%s' names element %d of %lld",
          name.getValue().str().c_str(), i, (long long)limit);
  return result;
}

Expected<std::unique_ptr<RowSource>> WeightReader::open(WeightOp weight,
                                                        unsigned depth) {
  using Result = Expected<std::unique_ptr<RowSource>>;
  if (depth > kMaxDepth)
    return weightError(weight, "its views refer to each other in a circle");
  RankedTensorType type = weight.getTensorType();
  const Matrix m = asMatrix(type);
  // A view yields the elements of its source, all of them of one type.
  auto openLike = [&](FlatSymbolRefAttr name) -> Result {
    GPTQ_ASSIGN(std::unique_ptr<RowSource> source, openSymbol(name, depth + 1));
    RankedTensorType sourceType = weights[name.getValue()].getTensorType();
    if (sourceType.getElementType() != type.getElementType() ||
        sourceType.getRank() != type.getRank())
      return weightError(
          weight,
          "expected its source '%s' to have its rank and element "
          "type, %s, found %s",
          name.getValue().str().c_str(), text(type).c_str(),
          text(sourceType).c_str());
    return source;
  };

  // Numbers of this weight's rank with `columns` columns; 0: with any number of
  // which the weight has several.
  auto openMatrix = [&](FlatSymbolRefAttr name,
                        int64_t columns) -> Expected<NumberRows> {
    GPTQ_ASSIGN(std::unique_ptr<RowSource> source, openSymbol(name, depth + 1));
    RankedTensorType sourceType = weights[name.getValue()].getTensorType();
    Type element = sourceType.getElementType();
    if (sourceType.getRank() != type.getRank() || type.getRank() > 2 ||
        (columns > 0 ? source->columns != columns
                     : source->columns == 0 || m.columns % source->columns) ||
        !(element.isF16() || element.isBF16() || element.isF32() ||
          (element.isInteger() && source->width == 1)))
      return weightError(weight,
                         "expected its source '%s' to be numbers of its rank "
                         "with %lld columns, found %s",
                         name.getValue().str().c_str(),
                         (long long)(columns > 0 ? columns : m.columns),
                         text(sourceType).c_str());
    return NumberRows(std::move(source), element);
  };
  auto openNumbers = [&](FlatSymbolRefAttr name) {
    return openMatrix(name, m.columns);
  };

  return TypeSwitch<Attribute, Result>(weight.getInit())
      .Case([&](DataAttr data) -> Result {
        if (type.getElementTypeBitWidth() % 8 != 0)
          return weightError(weight,
                             "expected elements of whole bytes, found %s",
                             text(type).c_str());
        GPTQ_ASSIGN(const uint8_t *bytes, mapData(weight, data, files));
        return Result(std::make_unique<DataSource>(m, bytes));
      })
      .Case([&](CodesAttr codes) -> Result {
        GPTQ_ASSIGN(const uint8_t *bytes,
                    mapData(weight, codes.getData(), files));
        return Result(std::make_unique<CodesSource>(m, codes, bytes));
      })
      .Case([&](ProductAttr product) -> Result {
        GPTQ_ASSIGN(NumberRows a, openMatrix(product.getA(), /*columns=*/0));
        GPTQ_ASSIGN(NumberRows b, openNumbers(product.getB()));
        if (!type.getElementType().isF32() || b.rows() != m.rows ||
            a.rows() == 0 || m.rows % a.rows() != 0)
          return weightError(weight,
                             "expected f32 products of %lld rows, a whole "
                             "number for each of the first factor's %lld, "
                             "found %s",
                             (long long)b.rows(), (long long)a.rows(),
                             text(type).c_str());
        return Result(std::make_unique<ProductSource>(
            m, std::move(a), std::move(b), product.getIsNegated()));
      })
      .Case([&](DequantizedAttr table) -> Result {
        if (!type.getElementType().isF32() || table.getGroupSize() < 1)
          return weightError(weight,
                             "expected a table of f32 in groups of at least 1, "
                             "found %s in groups of %lld",
                             text(type).c_str(),
                             (long long)table.getGroupSize());
        const int64_t groups =
            llvm::divideCeil(m.columns, table.getGroupSize());
        GPTQ_ASSIGN(NumberRows codes, openNumbers(table.getCodes()));
        GPTQ_ASSIGN(NumberRows scales, openMatrix(table.getScales(), groups));
        std::optional<NumberRows> offsets;
        if (FlatSymbolRefAttr name = table.getOffsets()) {
          GPTQ_ASSIGN(offsets, openMatrix(name, groups));
        }
        if (codes.rows() != m.rows || scales.rows() != m.rows ||
            (offsets && offsets->rows() != m.rows))
          return weightError(weight, "its parts do not have its %lld rows",
                             (long long)m.rows);
        return Result(std::make_unique<DequantizedSource>(
            m, std::move(codes), std::move(scales), std::move(offsets), table));
      })
      .Case([&](QuotientAttr quotient) -> Result {
        GPTQ_ASSIGN(NumberRows a, openNumbers(quotient.getA()));
        GPTQ_ASSIGN(NumberRows b, openNumbers(quotient.getB()));
        const bool isInteger =
            m.width == 1 && type.getElementType().isInteger();
        if (a.rows() != m.rows || b.rows() != m.rows ||
            !(type.getElementType().isF32() || isInteger))
          return weightError(weight,
                             "expected quotients of %lld rows, as f32 or "
                             "integers of up to 8 bits, found %s",
                             (long long)a.rows(), text(type).c_str());
        auto source = std::make_unique<QuotientSource>(
            m, std::move(a), std::move(b), quotient.getIsNegated());
        if (isInteger) {
          const int64_t last =
              (int64_t(1) << type.getElementTypeBitWidth()) - 1;
          if (std::optional<float> misfit = source->findMisfit(last))
            return weightError(weight,
                               "expected quotients from 0 to %lld, found %g",
                               (long long)last, double(*misfit));
        }
        return Result(std::move(source));
      })
      .Case([&](ArgsortAttr argsort) -> Result {
        Order &cached = orders[weight.getSymName()];
        if (!cached) {
          GPTQ_ASSIGN(const uint8_t *bytes,
                      mapData(weight, argsort.getData(), files));
          GPTQ_ASSIGN(cached, sortGroups(weight, bytes, m.columns,
                                         argsort.getGroups()));
        }
        return Result(std::make_unique<OrderSource>(cached));
      })
      .Case([&](DeinterleaveAttr deinterleave) -> Result {
        // The verifier has seen whole runs.
        const int64_t run = deinterleave.getRun();
        auto order = std::make_shared<std::vector<int32_t>>(m.columns);
        for (int64_t r = 0; r < m.columns; ++r) {
          const int64_t half = r % run / (run / 2), i = r % (run / 2);
          (*order)[r] = r / run * run + 2 * i + half;
        }
        return Result(std::make_unique<OrderSource>(std::move(order)));
      })
      .Case([&](ConcatAttr concat) -> Result {
        GPTQ_ASSIGN(int dim, matrixDim(weight, concat.getDim()));
        Sources parts;
        std::vector<int64_t> sizes;
        for (Attribute part : concat.getParts()) {
          GPTQ_ASSIGN(std::unique_ptr<RowSource> source,
                      openLike(cast<FlatSymbolRefAttr>(part)));
          int64_t size = dim == 0 ? source->rows : source->columns;
          int64_t other = dim == 0 ? source->columns : source->rows;
          if (other != (dim == 0 ? m.columns : m.rows) ||
              (concat.getInterleave() > 0 && !sizes.empty() &&
               size != sizes[0]))
            return weightError(
                weight, "its part '%s' has another shape",
                cast<FlatSymbolRefAttr>(part).getValue().str().c_str());
          sizes.push_back(size);
          parts.push_back(std::move(source));
        }
        if (sizes.empty())
          return weightError(weight, "it concatenates nothing");
        ConcatRuns runs(std::move(sizes), concat.getInterleave());
        if (runs.total() != (dim == 0 ? m.rows : m.columns))
          return weightError(weight,
                             "its parts make %lld elements along dimension "
                             "%lld, its type is %s",
                             (long long)runs.total(),
                             (long long)concat.getDim(), text(type).c_str());
        if (dim == 0)
          return Result(std::make_unique<RowConcat>(m, std::move(parts),
                                                    std::move(runs)));
        return Result(std::make_unique<ColumnConcat>(m, std::move(parts),
                                                     std::move(runs)));
      })
      .Case([&](GatherAttr gather) -> Result {
        GPTQ_ASSIGN(int dim, matrixDim(weight, gather.getDim()));
        GPTQ_ASSIGN(std::unique_ptr<RowSource> source,
                    openLike(gather.getSource()));
        int64_t size = dim == 0 ? source->rows : source->columns;
        GPTQ_ASSIGN(Order order, readOrder(gather.getOrder(), size, depth + 1));
        if (int64_t(order->size()) != (dim == 0 ? m.rows : m.columns) ||
            (dim == 0 ? source->columns != m.columns : source->rows != m.rows))
          return weightError(weight,
                             "its order has %zu elements and its source %lld "
                             "x %lld, its type is %s",
                             order->size(), (long long)source->rows,
                             (long long)source->columns, text(type).c_str());
        if (dim == 0)
          return Result(std::make_unique<RowGather>(m, std::move(source),
                                                    std::move(order)));
        return Result(std::make_unique<ColumnGather>(m, std::move(source),
                                                     std::move(order)));
      })
      .Case([&](PlusAttr plus) -> Result {
        GPTQ_ASSIGN(NumberRows source, openNumbers(plus.getSource()));
        if (source.rows() != m.rows || !type.getElementType().isF32())
          return weightError(weight,
                             "expected sums of %lld rows in f32, found "
                             "%s",
                             (long long)source.rows(), text(type).c_str());
        return Result(std::make_unique<PlusSource>(
            m, std::move(source), plus.getNumber().getValueAsDouble()));
      })
      .Case([&](DealtAttr dealt) -> Result {
        Order &cached = orders[weight.getSymName()];
        if (!cached) {
          const int64_t parts = dealt.getParts(), run = dealt.getRun();
          const int64_t each = m.columns / parts;
          auto order = std::make_shared<std::vector<int32_t>>(m.columns);
          for (int64_t i = 0; i < m.columns; ++i) {
            const int64_t part = i / each, j = i % each;
            (*order)[i] = (j / run * parts + part) * run + j % run;
          }
          cached = order;
        }
        return Result(std::make_unique<OrderSource>(cached));
      })
      .Case([&](RotaryAttr rotary) -> Result {
        StringRef scaling = rotary.getScaling().getValue();
        if (!type.getElementType().isF32() || type.getRank() != 2 ||
            m.columns % 2 != 0)
          return weightError(weight,
                             "expected a table of type f32 [positions, D] with "
                             "an even D, found %s",
                             text(type).c_str());
        if (scaling == "longrope") {
          // That there are enough the verifier checked.
          if (!rotary.getFactors())
            return weightError(weight, "rotary scaling 'longrope' has no "
                                       "factors");
          return Result(std::make_unique<RotarySource>(m, rotary));
        }
        if (scaling != "llama3" && scaling != "linear" && scaling != "none" &&
            scaling != "default" && !scaling.empty())
          return weightError(weight, "rotary scaling '%s' is not known",
                             scaling.str().c_str());
        return Result(std::make_unique<RotarySource>(m, rotary));
      })
      .Default([&](Attribute) -> Result {
        return weightError(weight, "a packed weight or a stack cannot be the "
                                   "source of a view");
      });
}

//===----------------------------------------------------------------------===//
// Stored bytes
//===----------------------------------------------------------------------===//

Expected<int64_t> mlir::gptq::storedBytes(WeightOp weight) {
  RankedTensorType type = weight.getTensorType();
  if (isa<PackedAttr>(weight.getInit())) {
    int64_t bits = type.getNumElements() * type.getElementTypeBitWidth();
    if (bits % 8 != 0)
      return weightError(weight, "expected whole bytes, found %s",
                         text(type).c_str());
    return bits / 8;
  }
  const Matrix m = asMatrix(type);
  return m.rows * m.columns * m.width;
}

Status WeightReader::readPacked(WeightOp weight, PackedAttr packed, Sink sink) {
  auto it = weights.find(packed.getSource().getValue());
  if (it == weights.end())
    return weightError(weight, "it packs weight '%s', which does not exist",
                       packed.getSource().getValue().str().c_str());
  RankedTensorType sourceType = it->second.getTensorType();
  if (sourceType.getRank() != 2)
    return weightError(weight, "expected a matrix to pack, found %s",
                       text(sourceType).c_str());
  unsigned sourceBits = sourceType.getElementTypeBitWidth();
  int64_t layoutBits = packed.getLayout().getBits();
  if (sourceType.getElementType().isInteger() ? layoutBits < sourceBits
                                              : layoutBits != sourceBits)
    return weightError(weight,
                       "a layout of %lld-bit elements cannot hold those of %s",
                       (long long)layoutBits, text(sourceType).c_str());
  const bool transposed = packed.getTransposed();
  const LayoutAttr layout = packed.getLayout();
  const int64_t run = packed.getRun();
  int64_t k = sourceType.getDimSize(transposed ? 1 : 0);
  if (run > 0)
    k = layout.blocksOf(k, run) * layout.getBlockK();
  Expected<Packer> packer =
      Packer::create(layout, k, sourceType.getDimSize(transposed ? 0 : 1),
                     asMatrix(sourceType).width, transposed);
  if (!packer)
    return packer.status().withContext("weight '" + weight.getSymName().str() +
                                       "'");
  GPTQ_ASSIGN(int64_t bytes, storedBytes(weight));
  if (bytes != packer->bytes())
    return weightError(weight,
                       "%s packs to %lld bytes (%lld panels of %lld blocks), "
                       "its type is %s",
                       text(sourceType).c_str(), (long long)packer->bytes(),
                       (long long)packer->getPanels(),
                       (long long)packer->getBlocksK(),
                       text(weight.getType()).c_str());
  if (bytes > bufferBytes) {
    buffer.reset();
    buffer.reset(new uint8_t[bytes]);
    bufferBytes = bytes;
  }

  // One view per thread: views have buffers of their own.
  MLIRContext *context = module.getContext();
  const int64_t slabs = packer->numSlabs();
  // Below a few hundred KB a thread costs more than it saves.
  int64_t threads = context->isMultithreadingEnabled() && bytes > (1 << 18)
                        ? std::min<int64_t>(context->getNumThreads(), slabs)
                        : 1;
  std::vector<std::unique_ptr<RowSource>> sources;
  for (int64_t t = 0; t < threads; ++t) {
    GPTQ_ASSIGN(std::unique_ptr<RowSource> source, open(it->second, 1));
    if (run > 0)
      source = std::make_unique<PaddedRuns>(std::move(source), run, layout);
    sources.push_back(std::move(source));
  }
  mlir::parallelFor(context, 0, threads, [&](size_t t) {
    int64_t sinceDrop = 0;
    packer->pack(*sources[t], slabs * t / threads, slabs * (t + 1) / threads,
                 buffer.get(), [&](int64_t read) {
                   sinceDrop += read;
                   if (sinceDrop < kPieceBytes)
                     return;
                   sinceDrop = 0;
                   files.dropPages();
                 });
  });
  files.dropPages();
  for (int64_t at = 0; at < bytes; at += kPieceBytes)
    GPTQ_TRY(
        sink({buffer.get() + at, size_t(std::min(kPieceBytes, bytes - at))}));
  return {};
}

Status WeightReader::readStack(WeightOp weight, StackAttr stack, Sink sink) {
  GPTQ_ASSIGN(int64_t left, storedBytes(weight));
  for (auto part : stack.getParts().getAsRange<FlatSymbolRefAttr>()) {
    auto it = weights.find(part.getValue());
    if (it == weights.end() || isa<StackAttr>(it->second.getInit()))
      return weightError(weight,
                         "it stacks weight '%s', which is no weight of "
                         "its own",
                         part.getValue().str().c_str());
    GPTQ_ASSIGN(int64_t bytes, storedBytes(it->second));
    left -= bytes;
    if (left < 0)
      break;
    GPTQ_TRY(read(it->second, sink));
  }
  if (left != 0)
    return weightError(weight, "its parts do not add up to its type, %s",
                       text(weight.getType()).c_str());
  return {};
}

Status WeightReader::read(WeightOp weight, Sink sink) {
  if (auto stack = dyn_cast<StackAttr>(weight.getInit()))
    return readStack(weight, stack, sink);
  if (auto packed = dyn_cast<PackedAttr>(weight.getInit()))
    return readPacked(weight, packed, sink);
  GPTQ_ASSIGN(std::unique_ptr<RowSource> source, open(weight, 0));
  const int64_t rowBytes = source->rowBytes();
  const int64_t rowsAtOnce =
      std::max<int64_t>(1, rowBytes == 0 ? 1 : kPieceBytes / rowBytes);
  std::vector<uint8_t> piece(std::min(rowsAtOnce, source->rows) * rowBytes);
  for (int64_t row = 0; row < source->rows;) {
    int64_t rows = std::min(rowsAtOnce, source->rows - row);
    for (int64_t r = 0; r < rows; ++r)
      source->readRow(row + r, piece.data() + r * rowBytes);
    GPTQ_TRY(sink({piece.data(), size_t(rows * rowBytes)}));
    row += rows;
    files.dropPages();
  }
  return {};
}
