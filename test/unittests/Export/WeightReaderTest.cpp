//===- WeightReaderTest.cpp - Weight views against plain references -------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Export/WeightReader.h"
#include "gptq/Codegen/Common/Layout.h"
#include "gptq/Codegen/Common/Plan.h"
#include "mlir/IR/MLIRContext.h"
#include "mlir/Parser/Parser.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/MathExtras.h"
#include "llvm/Support/Path.h"
#include "gtest/gtest.h"

#include <array>
#include <chrono>
#include <cmath>
#include <cstring>
#include <fstream>
#include <random>

using namespace mlir;
using namespace mlir::gptq;

namespace {

using Bytes = std::vector<uint8_t>;

/// A folder with one file, `data.bin`, and modules of weights over it.
struct WeightReaderTest : testing::Test {
  WeightReaderTest() {
    context.loadDialect<GPTQDialect>();
    EXPECT_FALSE(llvm::sys::fs::createUniqueDirectory("gptq-test", folder));
  }
  ~WeightReaderTest() override { llvm::sys::fs::remove_directories(folder); }

  template <typename T> void writeData(const std::vector<T> &values) {
    SmallString<128> path(folder);
    llvm::sys::path::append(path, "data.bin");
    std::ofstream(path.c_str(), std::ios::binary)
        .write(reinterpret_cast<const char *>(values.data()),
               values.size() * sizeof(T));
  }

  OwningOpRef<ModuleOp> parse(const std::string &weights) {
    return parseSourceString<ModuleOp>("module attributes {gptq.folder = \"" +
                                           folder.str().str() + "\"} {\n" +
                                           weights + "}\n",
                                       &context);
  }

  /// The stored bytes of weight @w of a module made of `weights`.
  Bytes read(const std::string &weights) {
    OwningOpRef<ModuleOp> module = parse(weights);
    EXPECT_TRUE(module);
    if (!module)
      return {};
    Bytes result;
    auto weight = cast<WeightOp>(module->lookupSymbol("w"));
    WeightReader reader(*module);
    model::Status status = reader.read(weight, [&](model::ByteSpan piece) {
      result.insert(result.end(), piece.data, piece.data + piece.size);
      return model::Status();
    });
    error = status.message();
    if (status.ok())
      EXPECT_EQ(int64_t(result.size()), *storedBytes(weight));
    return result;
  }

  template <typename T> std::vector<T> readAs(const std::string &weights) {
    Bytes bytes = read(weights);
    std::vector<T> result(bytes.size() / sizeof(T));
    std::memcpy(result.data(), bytes.data(), bytes.size());
    return result;
  }

  MLIRContext context;
  SmallString<64> folder;
  std::string error;
  std::mt19937 random{1};
};

std::string dataAttr(const std::string &type, int64_t offset = 0) {
  return "#gptq.data<\"data.bin\", \"t\", " + std::to_string(offset) +
         ", tensor<" + type + ">>";
}

/// The bytes of elements `at(k, n)` packed by `layout`, bit by bit; each
/// `group` of rows starts with a block of its own.
Bytes naivePack(LayoutAttr attr, int64_t k, int64_t n,
                llvm::function_ref<uint32_t(int64_t, int64_t)> at,
                int64_t group = 1 << 30) {
  Layout layout(attr);
  int64_t panels = llvm::divideCeil(n, layout.blockN());
  int64_t blocks = attr.blocksOf(k, group);
  Bytes result(panels * blocks * layout.blockBits() / 8);
  for (int64_t c = 0; c < n; ++c)
    for (int64_t r = 0; r < k; ++r)
      for (int64_t b = 0; b < layout.bits(); ++b) {
        int64_t before = attr.blocksOf(r / group * group, group);
        int64_t row = r % group;
        int64_t block =
            c / layout.blockN() * blocks + before + row / layout.blockK();
        int64_t bit =
            block * layout.blockBits() +
            layout.address(b, row % layout.blockK(), c % layout.blockN());
        result[bit / 8] |= (at(r, c) >> b & 1) << (bit % 8);
      }
  return result;
}

/// Element `i` of a stream of `bits`-bit elements; word w of it is `word(w)`.
uint32_t fromStream(int64_t i, int64_t bits,
                    llvm::function_ref<uint32_t(int64_t)> word) {
  uint32_t result = 0;
  for (int64_t b = 0; b < bits; ++b) {
    int64_t at = i * bits + b;
    result |= (word(at / 32) >> (at % 32) & 1) << b;
  }
  return result;
}

std::string shape(std::initializer_list<int64_t> sizes, StringRef element) {
  std::string result;
  for (int64_t size : sizes)
    result += std::to_string(size) + "x";
  return result + element.str();
}

std::string str(Attribute attr) {
  std::string s;
  llvm::raw_string_ostream(s) << attr;
  return s;
}

} // namespace

TEST_F(WeightReaderTest, DataIsDeliveredUnchanged) {
  writeData<uint16_t>({1, 2, 3, 4, 5, 6});
  EXPECT_EQ(readAs<uint16_t>("gptq.weight @w : tensor<2x2xf16> = " +
                             dataAttr("2x2xf16", 4)),
            (std::vector<uint16_t>{3, 4, 5, 6}));
}

TEST_F(WeightReaderTest, DataBeyondTheFileIsRefused) {
  writeData<uint16_t>({1, 2, 3});
  read("gptq.weight @w : tensor<2x2xf16> = " + dataAttr("2x2xf16"));
  EXPECT_EQ(error, "weight 'w': tensor 't' needs bytes 0 to 8 of 'data.bin', "
                   "which has 6 bytes");
}

// Streams along rows (qweight) and columns (qzeros), sizes that end inside a
// word, and the word addition that undoes the published v1 writers.
TEST_F(WeightReaderTest, CodesOfEveryWidth) {
  for (int64_t bits : {1, 2, 3, 4, 5, 6, 7, 8})
    for (bool rows : {true, false})
      for (uint32_t add : {0u, 0x11111111u}) {
        if (add && 32 % bits != 0)
          continue;
        const int64_t k = 37, n = 21;
        const int64_t words = llvm::divideCeil((rows ? k : n) * bits, 32);
        std::vector<uint32_t> values(words * (rows ? n : k));
        for (uint32_t &v : values)
          v = random();
        writeData(values);
        std::string type = shape({k, n}, "i" + std::to_string(bits));
        Bytes codes =
            read("gptq.weight @w : tensor<" + type + "> = #gptq.codes<" +
                 dataAttr(rows ? shape({words, n}, "i32")
                               : shape({k, words}, "i32")) +
                 ", bits = " + std::to_string(bits) +
                 ", packing = " + (rows ? "rows" : "columns") +
                 ", wordAdd = " + std::to_string(add) + ">");
        ASSERT_EQ(error, "");
        for (int64_t r = 0; r < k; ++r)
          for (int64_t c = 0; c < n; ++c)
            ASSERT_EQ(codes[r * n + c],
                      fromStream(rows ? r : c, bits,
                                 [&](int64_t w) {
                                   return add + (rows ? values[w * n + c]
                                                      : values[r * words + w]);
                                 }))
                << bits;
      }
}

// The v1 writers stored every zero point less one by a single subtraction per
// word: a field of 0 borrowed from the next. Adding it back restores all.
TEST_F(WeightReaderTest, WordAddUndoesBorrows) {
  const uint32_t stored = 0x00000301u - 0x11111111u;
  writeData<uint32_t>({stored});
  Bytes zeros = read("gptq.weight @w : tensor<1x8xi4> = #gptq.codes<" +
                     dataAttr("1x1xi32") +
                     ", bits = 4, packing = columns, wordAdd = 286331153>");
  EXPECT_EQ(zeros, (Bytes{1, 0, 3, 0, 0, 0, 0, 0}));
}

// A record of 11 bytes for 4 rows and 2 columns of 5-bit codes: after two bytes
// of something else the lowest 4 bits of each, in the upper half of a byte, and
// in the last byte the highest bits in another order.
TEST_F(WeightReaderTest, RecordsOfPlanes) {
  constexpr int64_t record = 11, k = 8, n = 4;
  Bytes bytes(record * (k / 4) * (n / 2));
  for (uint8_t &byte : bytes)
    byte = random();
  writeData(bytes);
  // Records lie along n first: dimension 0 of the data runs along n.
  std::string data = dataAttr(shape({n / 2, record * k / 4}, "i8"));
  Bytes codes = read(
      "gptq.weight @w : tensor<8x4xi5> = #gptq.codes<" + data +
      ", bits = 5, packing = columns, transposed = true, record = 11, "
      "fieldAdd = 16, planes = [#gptq.plane<bits = 4, offset = 20, order = "
      "\"_ n0 k0 k1\">, #gptq.plane<bits = 1, offset = 80, order = \"k1 k0 "
      "n0\">]>");
  ASSERT_EQ(error, "");
  ASSERT_EQ(codes.size(), size_t(k * n));
  for (int64_t row = 0; row < k; ++row)
    for (int64_t column = 0; column < n; ++column) {
      const uint8_t *r =
          &bytes[(column / 2) * record * (k / 4) + row / 4 * record];
      const int64_t k0 = row & 1, k1 = row >> 1 & 1, n0 = column & 1;
      const int64_t byte = 2 + (n0 + 2 * k0 + 4 * k1);
      const uint8_t low = r[byte] >> 4;
      const uint8_t high = r[10] >> (k1 + 2 * k0 + 4 * n0) & 1;
      ASSERT_EQ(codes[row * n + column], ((high << 4 | low) + 16) & 31)
          << row << ", " << column;
    }
  // The half in front of each record, for 4 rows and 2 columns at once.
  Bytes halves = read("gptq.weight @w : tensor<2x2xf16> = #gptq.codes<" + data +
                      ", bits = 16, packing = columns, transposed = true, "
                      "record = 11, planes = [#gptq.plane<bits = 16, offset = "
                      "0, order = \"\">]>");
  ASSERT_EQ(halves.size(), 8u);
  for (int64_t g = 0; g < 2; ++g)
    for (int64_t c = 0; c < 2; ++c)
      for (int64_t byte = 0; byte < 2; ++byte)
        EXPECT_EQ(halves[(g * 2 + c) * 2 + byte],
                  bytes[(c * 2 + g) * record + byte]);
}

TEST_F(WeightReaderTest, ProductsAndQuotients) {
  // 2, 0.5 and 0.25, -4 as halves; 3, -2, 0, 5 as signed bytes.
  writeData<uint8_t>(
      {0x00, 0x40, 0x00, 0x38, 0x00, 0x34, 0x00, 0xC4, 3, 0xFE, 0, 5});
  std::string sources =
      "gptq.weight @top : tensor<1x2xf16> = " + dataAttr("1x2xf16") +
      "\ngptq.weight @all : tensor<2x2xf16> = " + dataAttr("2x2xf16") +
      "\ngptq.weight @fine : tensor<2x2xsi8> = " + dataAttr("2x2xsi8", 8) +
      "\n";
  EXPECT_EQ(readAs<float>(sources + "gptq.weight @w : tensor<2x2xf32> = "
                                    "#gptq.product<@top, @fine>"),
            (std::vector<float>{6, -1, 0, 2.5}));
  EXPECT_EQ(readAs<float>(sources +
                          "gptq.weight @w : tensor<2x2xf32> = "
                          "#gptq.product<@top, @fine, isNegated = true>"),
            (std::vector<float>{-6, 1, -0.0f, -2.5}));
  EXPECT_EQ(readAs<float>(sources + "gptq.weight @side : tensor<2x1xf16> = " +
                          dataAttr("2x1xf16") +
                          "\ngptq.weight @w : tensor<2x2xf32> = "
                          "#gptq.product<@side, @fine>"),
            (std::vector<float>{6, -4, 0, 2.5}));
  EXPECT_EQ(readAs<float>(sources + "gptq.weight @w : tensor<2x2xf32> = "
                                    "#gptq.quotient<@all, @fine>"),
            (std::vector<float>{2.0f / 3, -0.25f, 0, -0.8f}));
  EXPECT_EQ(read(sources + "gptq.weight @w : tensor<2x2xi4> = "
                           "#gptq.quotient<@fine, @all>"),
            Bytes());
  EXPECT_EQ(error, "weight 'w': expected quotients from 0 to 15, found -4");
}

TEST_F(WeightReaderTest, DequantizedTables) {
  // Scales 2, -1, 0.5, 1; offsets 0.25, 0, -4, 8; codes 9, 8, 0, 15 twice.
  writeData<uint8_t>({0x00, 0x40, 0x00, 0xBC, 0x00, 0x38, 0x00,
                      0x3C, 0x00, 0x34, 0x00, 0x00, 0x00, 0xC4,
                      0x00, 0x48, 0x89, 0xF0, 0x89, 0xF0});
  std::string sources =
      "gptq.weight @s : tensor<2x2xf16> = " + dataAttr("2x2xf16") +
      "\ngptq.weight @o : tensor<2x2xf16> = " + dataAttr("2x2xf16", 8) +
      "\ngptq.weight @c : tensor<2x4xi4> = #gptq.codes<" +
      dataAttr("2x2xi8", 16) + ", bits = 4, packing = columns>\n";
  EXPECT_EQ(readAs<float>(sources + "gptq.weight @w : tensor<2x4xf32> = "
                                    "#gptq.dequantized<@c, @s, zeroPoint = 8, "
                                    "groupSize = 2>"),
            (std::vector<float>{2, 0, 8, -7, 0.5, 0, -8, 7}));
  EXPECT_EQ(readAs<float>(sources +
                          "gptq.weight @w : tensor<2x4xf32> = "
                          "#gptq.dequantized<@c, @s, offsets = @o, zeroPoint = "
                          "8, groupSize = 2>"),
            (std::vector<float>{2.25, 0.25, 8, -7, -3.5, -4, 0, 15}));
  read(sources + "gptq.weight @w : tensor<2x4xf32> = #gptq.dequantized<@c, "
                 "@s, zeroPoint = 8, groupSize = 4>");
  EXPECT_EQ(error, "weight 'w': expected its source 's' to be numbers of its "
                   "rank with 1 columns, found tensor<2x2xf16>");
}

TEST_F(WeightReaderTest, DeinterleavePutsHalvesTogether) {
  writeData<int32_t>({0, 10, 1, 11, 2, 12, 3, 13});
  std::string source =
      "gptq.weight @s : tensor<8xi32> = " + dataAttr("8xi32") +
      "\ngptq.weight @o : tensor<8xi32> = #gptq.deinterleave<run = 4>\n";
  EXPECT_EQ(readAs<int32_t>(source + "gptq.weight @w : tensor<8xi32> = "
                                     "#gptq.gather<@s, order = @o, dim = 0>"),
            (std::vector<int32_t>{0, 1, 10, 11, 2, 3, 12, 13}));
}

TEST_F(WeightReaderTest, ABitNamedAgainCountsAtBothPlaces) {
  // Rows 2 and 3 lie nine nibbles after rows 0 and 1.
  writeData<uint8_t>({0x01, 0x02, 0, 0, 0x30, 0x40, 0, 0});
  EXPECT_EQ(read("gptq.weight @w : tensor<4x1xi4> = #gptq.codes<" +
                 dataAttr("1x8xi8") +
                 ", bits = 4, packing = columns, transposed = true, record = "
                 "8, planes = [#gptq.plane<bits = 4, offset = 0, order = \"k1 "
                 "k0 _ k1\">]>"),
            (Bytes{1, 2, 3, 4}));
}

TEST_F(WeightReaderTest, ArgsortIsStableAndCountsNegativesFromTheEnd) {
  // -1 is group 2, -3 group 0.
  writeData<int32_t>({1, 0, -1, 1, -3, 2, 0});
  EXPECT_EQ(readAs<int32_t>("gptq.weight @w : tensor<7xi32> = #gptq.argsort<" +
                            dataAttr("7xi32") + ", groups = 3>"),
            (std::vector<int32_t>{1, 4, 6, 0, 3, 2, 5}));
  for (int32_t wrong : {3, -4}) {
    writeData<int32_t>({0, wrong});
    read("gptq.weight @w : tensor<2xi32> = #gptq.argsort<" + dataAttr("2xi32") +
         ", groups = 3>");
    EXPECT_EQ(error, "weight 'w': row 1 belongs to group " +
                         std::to_string(wrong) + ", but there are 3 groups");
  }
}

TEST_F(WeightReaderTest, ConcatAlongEitherDimension) {
  writeData<uint16_t>({1, 2, 3, 4, 11, 12, 13, 14, 15, 16});
  std::string a =
      "gptq.weight @a : tensor<2x2xf16> = " + dataAttr("2x2xf16") + "\n";
  EXPECT_EQ(readAs<uint16_t>(
                a +
                "gptq.weight @b : tensor<2x3xf16> = " + dataAttr("2x3xf16", 8) +
                "\ngptq.weight @w : tensor<2x5xf16> = #gptq.concat<[@a, @b], "
                "dim = 1>"),
            (std::vector<uint16_t>{1, 2, 11, 12, 13, 3, 4, 14, 15, 16}));
  EXPECT_EQ(readAs<uint16_t>(
                a +
                "gptq.weight @b : tensor<3x2xf16> = " + dataAttr("3x2xf16", 8) +
                "\ngptq.weight @w : tensor<5x2xf16> = #gptq.concat<[@a, @b], "
                "dim = 0>"),
            (std::vector<uint16_t>{1, 2, 3, 4, 11, 12, 13, 14, 15, 16}));
  read(a + "gptq.weight @b : tensor<3x2xf16> = " + dataAttr("3x2xf16", 8) +
       "\ngptq.weight @w : tensor<2x5xf16> = #gptq.concat<[@a, @b], dim = 1>");
  EXPECT_EQ(error, "weight 'w': its part 'b' has another shape");
}

// Runs of 2 of each part in turn; the last runs, of 1, are filled up.
TEST_F(WeightReaderTest, ConcatInterleaved) {
  writeData<uint16_t>({0, 1, 2, 3, 4, 10, 11, 12, 13, 14});
  for (bool columns : {false, true}) {
    std::string part = columns ? "1x5xf16" : "5x1xf16";
    std::string whole = columns ? "1x12xf16" : "12x1xf16";
    EXPECT_EQ(readAs<uint16_t>(
                  "gptq.weight @a : tensor<" + part + "> = " + dataAttr(part) +
                  "\ngptq.weight @b : tensor<" + part +
                  "> = " + dataAttr(part, 10) + "\ngptq.weight @w : tensor<" +
                  whole + "> = #gptq.concat<[@a, @b], dim = " +
                  std::to_string(columns) + ", interleave = 2>"),
              (std::vector<uint16_t>{0, 1, 10, 11, 2, 3, 12, 13, 4, 0, 14, 0}));
  }
}

TEST_F(WeightReaderTest, GatherAlongEitherDimension) {
  writeData<int32_t>({1, 0, 1, 10, 11, 12, 20, 21, 22});
  std::string source =
      "gptq.weight @s : tensor<2x3xi32> = " + dataAttr("2x3xi32", 12) +
      "\ngptq.weight @g : tensor<3xi32> = " + dataAttr("3xi32") +
      "\ngptq.weight @o : tensor<3xi32> = #gptq.argsort<" + dataAttr("3xi32") +
      ", groups = 2>\n";
  // The order that sorts 1 0 1 is 1 0 2.
  EXPECT_EQ(readAs<int32_t>(source + "gptq.weight @w : tensor<2x3xi32> = "
                                     "#gptq.gather<@s, order = @o, dim = 1>"),
            (std::vector<int32_t>{11, 10, 12, 21, 20, 22}));
  EXPECT_EQ(readAs<int32_t>(source + "gptq.weight @w : tensor<3x3xi32> = "
                                     "#gptq.gather<@s, order = @g, dim = 0>"),
            (std::vector<int32_t>{20, 21, 22, 10, 11, 12, 20, 21, 22}));
  // An order of an order composes them.
  EXPECT_EQ(readAs<int32_t>(source + "gptq.weight @w : tensor<3xi32> = "
                                     "#gptq.gather<@o, order = @g, dim = 0>"),
            (std::vector<int32_t>{0, 1, 0}));
  read(source + "gptq.weight @w : tensor<3x3xi32> = #gptq.gather<@s, order = "
                "@o, dim = 0>");
  EXPECT_EQ(error, "the order 'o' names element 2 of 2");
}

TEST_F(WeightReaderTest, DealtOrders) {
  // Two parts of three runs of two, dealt out in turn.
  EXPECT_EQ(readAs<int32_t>("gptq.weight @w : tensor<12xi32> = "
                            "#gptq.dealt<parts = 2, run = 2>"),
            (std::vector<int32_t>{0, 1, 4, 5, 8, 9, 2, 3, 6, 7, 10, 11}));
}

TEST_F(WeightReaderTest, SumsWithANumber) {
  writeData<float>({-0.25f, 0.5f, 3.0f});
  std::string source =
      "gptq.weight @s : tensor<3xf32> = " + dataAttr("3xf32") + "\n";
  EXPECT_EQ(readAs<float>(source + "gptq.weight @w : tensor<3xf32> = "
                                   "#gptq.plus<@s, 1.0 : f64>"),
            (std::vector<float>{0.75f, 1.5f, 4.0f}));
  read(source + "gptq.weight @w : tensor<4xf32> = #gptq.plus<@s, 1.0 : f64>");
  EXPECT_NE(error.find("expected its source 's' to be numbers of its rank "
                       "with 4 columns"),
            std::string::npos)
      << error;
}

TEST_F(WeightReaderTest, CirclesAreRefused) {
  read(
      "gptq.weight @o : tensor<2xi32> = #gptq.gather<@w, order = @w, dim = 0>\n"
      "gptq.weight @w : tensor<2xi32> = #gptq.gather<@o, order = @o, dim = 0>");
  EXPECT_NE(error.find("circle"), std::string::npos) << error;
}

// Values of Llama 3.1's published scaling: theta 500000, D 128, factor 8, low
// 1, high 4, original context 8192; wavelengths beyond 8192 are divided by 8,
// below 2048 kept.
TEST_F(WeightReaderTest, RotaryTables) {
  const double theta = 500000, factor = 8, low = 1, high = 4, original = 8192;
  for (std::string scaling : {"none", "linear", "llama3"}) {
    const int64_t positions = 50, d = 128;
    auto table = readAs<float>(
        "gptq.weight @w : tensor<50x128xf32> = #gptq.rotary<theta = 5.0e5 : "
        "f64, scaling = \"" +
        scaling +
        "\", factor = 8.0 : f64, lowFreqFactor = 1.0 : f64, highFreqFactor = "
        "4.0 : f64, originalContext = 8192>");
    ASSERT_EQ(error, "");
    int kept = 0, divided = 0, between = 0;
    for (int64_t i = 0; i < d / 2; ++i) {
      double f = std::exp(-2.0 * i / d * std::log(theta));
      if (scaling == "linear")
        f /= factor;
      if (scaling == "llama3") {
        double turns = original * f / (2 * std::acos(-1.0));
        // Turns over the original context: more than `high` keeps f, fewer than
        // `low` divides it, linear in the turns between.
        double s = std::clamp((turns - low) / (high - low), 0.0, 1.0);
        f = f * (s + (1 - s) / factor);
        kept += s == 1;
        divided += s == 0;
        between += s > 0 && s < 1;
      }
      for (int64_t p : {0, 1, 7, 49}) {
        // Angles agree to a few units of the last place of a double; a float's
        // last place is 2^-24.
        EXPECT_NEAR(table[p * d + i], std::cos(p * f), 1e-7);
        EXPECT_NEAR(table[p * d + d / 2 + i], std::sin(p * f), 1e-7);
      }
    }
    if (scaling == "llama3") {
      EXPECT_GT(kept, 20);
      EXPECT_GT(between, 3);
      EXPECT_GT(divided, 20);
    }
    EXPECT_EQ(int64_t(table.size()), positions * d);
  }
  // Divided by 2 and 4, and larger by half.
  auto longer = readAs<float>(
      "gptq.weight @w : tensor<2x4xf32> = #gptq.rotary<theta = 1.0e4 : f64, "
      "scaling = \"longrope\", factor = 1.0 : f64, lowFreqFactor = 1.0 : f64, "
      "highFreqFactor = 1.0 : f64, originalContext = 0, factors = [2.0, 4.0], "
      "magnitude = 1.5 : f64>");
  EXPECT_EQ(longer,
            (std::vector<float>{1.5f, 1.5f, 0, 0, float(1.5 * std::cos(0.5)),
                                float(1.5 * std::cos(0.0025)),
                                float(1.5 * std::sin(0.5)),
                                float(1.5 * std::sin(0.0025))}));
  // By hand: pair 0 turns by one radian per position whatever theta is.
  auto table = readAs<float>(
      "gptq.weight @w : tensor<2x4xf32> = #gptq.rotary<theta = 1.0e4 : f64, "
      "scaling = \"none\", factor = 1.0 : f64, lowFreqFactor = 1.0 : f64, "
      "highFreqFactor = 1.0 : f64, originalContext = 0>");
  EXPECT_EQ(table, (std::vector<float>{1, 1, 0, 0, 0.5403023058681398f,
                                       0.9999500004166653f, 0.8414709848078965f,
                                       0.009999833334166664f}));
}

// unpack(pack(w)) == w: every packed bit lies where the layout says, and the
// padding is zero. Each width, layouts of the units in use and random ones,
// sizes that do not divide the block, groups that do not either.
TEST_F(WeightReaderTest, PackedCodes) {
  SmallVector<LayoutAttr> layouts;
  auto add = [&](int64_t bits, int64_t n, int64_t k, StringRef order) {
    layouts.push_back(LayoutAttr::get(&context, bits, n, k,
                                      StringAttr::get(&context, order)));
  };
  for (int64_t bits : {1, 2, 3, 4, 5, 6, 7, 8})
    for (int64_t lanes : {8, 16}) {
      ::gptq::UnitInfo unit;
      unit.lanes = lanes;
      unit.vectorsPerPanel = 4;
      layouts.push_back(
          toAttr(&context, unit.weightLayout(bits, /*span=*/0), bits));
    }
  for (int64_t bits : {1, 2, 4, 8}) {
    StringRef b = StringRef("b0 b1 b2 ").take_front(3 * llvm::Log2_64(bits));
    add(bits, 8, 8, (b + "k0 k1 k2 n0 n1 n2").str());
    add(bits, 32, 8, (b + "k1 k2 k0 n0 n1 n2 n3 n4").str());
    add(bits, 16, 16, (b + "k0 k1 n0 n1 n2 n3 k2 k3").str());
    add(bits, 16, 4, (b + "n0 k0 k1 n1 n2 n3").str());
    add(bits, 8, 1, (b + "n0 n1 n2").str());
  }
  // Random planes: one for each bit set in the width, in any order.
  for (int64_t bits : {1, 2, 3, 4, 5, 6, 7, 8})
    for (int round = 0; round < 10; ++round) {
      int64_t n = 8 << random() % 3, k = 1 << random() % 5;
      SmallVector<int64_t> widths;
      for (int64_t width : {1, 2, 4, 8})
        if (bits & width)
          widths.push_back(width);
      std::shuffle(widths.begin(), widths.end(), random);
      std::string order;
      for (int64_t width : widths) {
        SmallVector<std::string> names;
        auto append = [&](char dim, int64_t size) {
          for (int i = 0; i < int(llvm::Log2_64(size)); ++i)
            names.push_back(dim + std::to_string(i));
        };
        append('b', width);
        append('n', n);
        append('k', k);
        std::shuffle(names.begin(), names.end(), random);
        order += (order.empty() ? "" : " | ") + llvm::join(names, " ");
      }
      add(bits, n, k, order);
    }
  for (LayoutAttr attr : layouts)
    for (auto [k, n, group] : std::vector<std::array<int64_t, 3>>{
             {64, 64, 0}, {37, 21, 0}, {5, 3, 0}, {37, 21, 12}, {64, 9, 48}}) {
      const int64_t bits = attr.getBits();
      const int64_t words = llvm::divideCeil(k * bits, 32);
      std::vector<uint32_t> values(words * n);
      for (uint32_t &v : values)
        v = random();
      writeData(values);
      const int64_t rows = group ? group : k;
      std::string source =
          "gptq.weight @s : tensor<" +
          shape({k, n}, "i" + std::to_string(bits)) + "> = #gptq.codes<" +
          dataAttr(shape({words, n}, "i32")) +
          ", bits = " + std::to_string(bits) + ", packing = rows>\n";
      Bytes packed =
          read(source + "gptq.weight @w : tensor<" +
               shape({int64_t(llvm::divideCeil(n, attr.getBlockN())),
                      attr.blocksOf(k, rows), attr.getBlockBits() / 8},
                     "i8") +
               "> = #gptq.packed<@s, layout = " + str(attr) +
               (group ? ", run = " + std::to_string(group) + ">" : ">"));
      ASSERT_EQ(error, "");
      auto code = [&, n = n](int64_t r, int64_t c) {
        return fromStream(r, bits,
                          [&](int64_t w) { return values[w * n + c]; });
      };
      ASSERT_EQ(packed, naivePack(attr, k, n, code, rows))
          << str(attr) << " " << k << "x" << n << " " << group;
    }
}

// Scales in panels, zero points widened to bytes, a dense weight stored as
// [N, K], all of sizes that do not divide the panel.
TEST_F(WeightReaderTest, PackedElements) {
  const int64_t rows = 5, columns = 41;
  for (unsigned bits : {8u, 16u, 32u})
    for (int64_t blockN : {1, 8, 32})
      for (int64_t blockK : {1, 4})
        for (bool transposed : {false, true}) {
          SmallVector<std::string> names;
          for (unsigned i = 0; i < llvm::Log2_32(bits); ++i)
            names.push_back("b" + std::to_string(i));
          for (unsigned i = 0; i < llvm::Log2_64(blockN); ++i)
            names.push_back("n" + std::to_string(i));
          for (unsigned i = 0; i < llvm::Log2_64(blockK); ++i)
            names.push_back("k" + std::to_string(i));
          LayoutAttr attr = LayoutAttr::get(
              &context, bits, blockN, blockK,
              StringAttr::get(&context, llvm::join(names, " ")));
          std::string element = bits == 8 ? "i8" : bits == 16 ? "f16" : "f32";
          Bytes values(rows * columns * bits / 8);
          for (uint8_t &v : values)
            v = random();
          writeData(values);
          const int64_t k = transposed ? columns : rows;
          const int64_t n = transposed ? rows : columns;
          Bytes packed = read(
              "gptq.weight @s : tensor<" + shape({rows, columns}, element) +
              "> = " + dataAttr(shape({rows, columns}, element)) +
              "\ngptq.weight @w : tensor<" +
              shape({int64_t(llvm::divideCeil(n, blockN)),
                     int64_t(llvm::divideCeil(k, blockK)), blockN * blockK},
                    element) +
              "> = #gptq.packed<@s, layout = " + str(attr) +
              (transposed ? ", transposed = true>" : ">"));
          ASSERT_EQ(error, "");
          ASSERT_EQ(packed, naivePack(attr, k, n,
                                      [&](int64_t r, int64_t c) {
                                        int64_t i = transposed
                                                        ? c * columns + r
                                                        : r * columns + c;
                                        uint32_t v = 0;
                                        std::memcpy(&v, &values[i * bits / 8],
                                                    bits / 8);
                                        return v;
                                      }))
              << str(attr) << transposed;
        }
  writeData<uint32_t>({0x87654321});
  EXPECT_EQ(
      read("gptq.weight @s : tensor<1x8xi4> = #gptq.codes<" +
           dataAttr("1x1xi32") + ", bits = 4, packing = columns>\n" +
           "gptq.weight @w : tensor<2x1x4xi8> = #gptq.packed<@s, layout = "
           "<bits = 8, blockN = 4, blockK = 1, order = \"b0 b1 b2 n0 "
           "n1\">>"),
      (Bytes{1, 2, 3, 4, 5, 6, 7, 8}));
}

TEST_F(WeightReaderTest, PackedTypeMustFit) {
  writeData<uint16_t>(std::vector<uint16_t>(64));
  std::string source =
      "gptq.weight @s : tensor<8x8xf16> = " + dataAttr("8x8xf16") + "\n";
  read(source + "gptq.weight @w : tensor<2x8x8xf16> = #gptq.packed<@s, layout "
                "= <bits = 16, blockN = 8, blockK = 1, order = \"b0 b1 b2 b3 "
                "n0 n1 n2\">>");
  EXPECT_EQ(error,
            "weight 'w': tensor<8x8xf16> packs to 128 bytes (1 panels of "
            "8 blocks), its type is tensor<2x8x8xf16>");
  read(source + "gptq.weight @w : tensor<1x8x8xi8> = #gptq.packed<@s, layout = "
                "<bits = 8, blockN = 8, blockK = 1, order = \"b0 b1 b2 n0 n1 "
                "n2\">>");
  EXPECT_EQ(error, "weight 'w': a layout of 8-bit elements cannot hold those "
                   "of tensor<8x8xf16>");
}

// Not a check but a figure: codes packed per second. Run with
// --gtest_also_run_disabled_tests.
TEST_F(WeightReaderTest, DISABLED_PackingSpeed) {
  const int64_t k = 8192, n = 8192;
  context.disableMultithreading();
  std::vector<uint32_t> values(k / 8 * n);
  for (uint32_t &v : values)
    v = random();
  writeData(values);
  for (const char *layout :
       {"<bits = 4, blockN = 8, blockK = 8, order = \"b0 b1 k0 k1 k2 n0 n1 "
        "n2\">",
        "<bits = 4, blockN = 32, blockK = 8, order = \"b0 b1 k1 k2 k0 n0 n1 n2 "
        "n3 n4\">",
        "<bits = 4, blockN = 16, blockK = 8, order = \"b0 b1 k0 n0 k1 k2 n1 n2 "
        "n3\">",
        "<bits = 4, blockN = 32, blockK = 8, order = \"b0 k0 k1 k2 b1 n0 n1 n2 "
        "n3 n4\">"}) {
    int64_t blockN = 32;
    StringRef(layout).split("blockN = ").second.consumeInteger(10, blockN);
    std::string weights =
        "gptq.weight @s : tensor<8192x8192xi4> = #gptq.codes<" +
        dataAttr("1024x8192xi32") +
        ", bits = 4, packing = rows>\ngptq.weight @w : tensor<" +
        shape({n / blockN, k / 8, blockN}, "i32") +
        "> = #gptq.packed<@s, layout = " + layout + ">";
    OwningOpRef<ModuleOp> module = parse(weights);
    WeightReader reader(*module);
    auto weight = cast<WeightOp>(module->lookupSymbol("w"));
    for (int round = 0; round < 2; ++round) {
      auto start = std::chrono::steady_clock::now();
      ASSERT_TRUE(
          reader.read(weight, [](model::ByteSpan) { return model::Status(); })
              .ok());
      double s = std::chrono::duration<double>(
                     std::chrono::steady_clock::now() - start)
                     .count();
      std::printf("%4.0f M codes/s  %s\n", k * n / s / 1e6, layout);
    }
  }
}
