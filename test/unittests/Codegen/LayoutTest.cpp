//===- LayoutTest.cpp - The algebra of layouts ----------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Codegen/Common/Layout.h"
#include "mlir/IR/MLIRContext.h"
#include "gtest/gtest.h"

#include <algorithm>
#include <random>

using namespace mlir;
using namespace mlir::gptq;

namespace {

struct LayoutTest : testing::Test {
  LayoutTest() { context.loadDialect<GPTQDialect>(); }

  Layout layout(int64_t bits, int64_t blockN, int64_t blockK, StringRef order) {
    return Layout(LayoutAttr::get(&context, bits, blockN, blockK,
                                  StringAttr::get(&context, order)));
  }

  MLIRContext context;
};

} // namespace

// Eight lanes of one word each; a word holds eight rows of its column.
TEST_F(LayoutTest, WordsOfRows) {
  Layout l = layout(4, 8, 8, "b0 b1 k0 k1 k2 n0 n1 n2");
  EXPECT_EQ(l.bits(), 4);
  EXPECT_EQ(l.blockK(), 8);
  EXPECT_EQ(l.blockN(), 8);
  EXPECT_EQ(l.blockBits(), 256);
  for (int64_t n = 0; n < 8; ++n)
    for (int64_t k = 0; k < 8; ++k) {
      EXPECT_EQ(l.wordOf(k, n), n);
      EXPECT_EQ(l.shiftOf(k, n), 4 * k);
      EXPECT_EQ(l.field(n, k), (LayoutCoordinate{0, k, n}));
    }
  EXPECT_TRUE(l.wordsAreColumns());
  EXPECT_TRUE(l.hasWholeElements());
  EXPECT_EQ(l.contiguousRun(LayoutDim::N, 32), 8);
  EXPECT_EQ(l.contiguousRun(LayoutDim::K, 4), 8);
  EXPECT_EQ(l.contiguousRun(LayoutDim::N, 4), 1);
}

// Fields in the order 0 2 4 6 1 3 5 7, as an unpack of pairs wants them.
TEST_F(LayoutTest, FieldsOfPairs) {
  Layout l = layout(4, 1, 8, "b0 b1 k1 k2 k0");
  const int64_t expected[] = {0, 2, 4, 6, 1, 3, 5, 7};
  for (int64_t f = 0; f < 8; ++f)
    EXPECT_EQ(l.field(0, f).k, expected[f]);
  EXPECT_EQ(l.positionOf(LayoutDim::K, 0), 4u);
}

TEST_F(LayoutTest, Planes) {
  Layout l = layout(4, 8, 4, "b0 k0 k1 n0 n1 n2 b1");
  EXPECT_EQ(l.chunkBits(), 2);
  EXPECT_FALSE(l.hasWholeElements());
  EXPECT_FALSE(l.wordsAreColumns());
  EXPECT_EQ(l.address(2, 0, 0), 64);
  EXPECT_EQ(l.field(2, 1), (LayoutCoordinate{2, 1, 0}));
}

// Every order is a bijection, linear, and undone by its inverse.
TEST_F(LayoutTest, RandomOrdersAreLinearBijections) {
  std::mt19937 random(1);
  for (int64_t bits : {1, 2, 4, 8, 16, 32})
    for (int round = 0; round < 8; ++round) {
      int64_t blockN = 1 << random() % 5, blockK = 1 << random() % 5;
      SmallVector<LayoutBit> order;
      for (auto [dim, size] :
           {std::pair(LayoutDim::Bit, bits), std::pair(LayoutDim::K, blockK),
            std::pair(LayoutDim::N, blockN)})
        for (unsigned i = 0; int64_t(1) << i < size; ++i)
          order.push_back({dim, i});
      std::shuffle(order.begin(), order.end(), random);
      LayoutAttr attr = Layout::get(&context, order);
      ASSERT_EQ(attr.getBits(), bits);
      ASSERT_EQ(attr.getBlockN(), blockN);
      ASSERT_EQ(attr.getBlockK(), blockK);
      Layout l(attr);
      std::vector<bool> seen(l.blockBits());
      BitPermutation p = l.permutation();
      for (int64_t n = 0; n < blockN; ++n)
        for (int64_t k = 0; k < blockK; ++k)
          for (int64_t b = 0; b < bits; ++b) {
            int64_t a = l.address(b, k, n);
            ASSERT_LT(a, l.blockBits());
            ASSERT_FALSE(seen[a]);
            seen[a] = true;
            ASSERT_EQ(l.coordinate(a), (LayoutCoordinate{b, k, n}));
            ASSERT_EQ(a, l.address(b, 0, 0) + l.address(0, k, 0) +
                             l.address(0, 0, n));
            ASSERT_EQ(p(b + bits * (k + blockK * n)), a);
          }
      EXPECT_EQ(p.after(p.inverse()), BitPermutation::identity(p.size()));
      EXPECT_EQ(p.inverse().after(p), BitPermutation::identity(p.size()));
    }
}

TEST_F(LayoutTest, RepackIsTargetAfterInverse) {
  Layout from = layout(4, 8, 8, "b0 b1 k0 k1 k2 n0 n1 n2");
  Layout to = layout(4, 8, 8, "b0 b1 n0 n1 k1 k0 n2 k2");
  BitPermutation repack = from.repackTo(to);
  for (int64_t n = 0; n < 8; ++n)
    for (int64_t k = 0; k < 8; ++k)
      for (int64_t b = 0; b < 4; ++b)
        EXPECT_EQ(repack(from.address(b, k, n)), to.address(b, k, n));
  EXPECT_EQ(to.repackTo(from), repack.inverse());
}

TEST_F(LayoutTest, AttributeFromNames) {
  LayoutAttr attr =
      Layout::get(&context, 16, 4, 1, {"b0", "b1", "b2", "b3", "n0", "n1"});
  EXPECT_EQ(attr.getOrder().getValue(), "b0 b1 b2 b3 n0 n1");
  EXPECT_EQ(Layout(attr).contiguousRun(LayoutDim::N, 16), 4);
}
