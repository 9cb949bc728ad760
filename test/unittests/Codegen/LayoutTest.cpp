//===- LayoutTest.cpp - The algebra of layouts ----------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Codegen/Common/Layout.h"
#include "gptq/Codegen/Common/Plan.h"
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
  /// The only plane of a layout.
  Plane plane(int64_t bits, int64_t blockN, int64_t blockK, StringRef order) {
    Layout whole = layout(bits, blockN, blockK, order);
    EXPECT_EQ(whole.getParts().size(), 1u);
    return whole.getParts().front().plane;
  }
  /// What a unit of `lanes` lanes reads.
  Layout unitLayout(int64_t lanes, int64_t bits) {
    ::gptq::UnitInfo unit;
    unit.lanes = lanes;
    unit.vectorsPerPanel = 4;
    return Layout(toAttr(&context, unit.weightLayout(bits, /*span=*/0), bits));
  }

  MLIRContext context;
};

} // namespace

// Eight lanes of one word each; a word holds eight rows of its column.
TEST_F(LayoutTest, WordsOfRows) {
  Plane l = plane(4, 8, 8, "b0 b1 k0 k1 k2 n0 n1 n2");
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
  Plane l = plane(4, 1, 8, "b0 b1 k1 k2 k0");
  const int64_t expected[] = {0, 2, 4, 6, 1, 3, 5, 7};
  for (int64_t f = 0; f < 8; ++f)
    EXPECT_EQ(l.field(0, f).k, expected[f]);
  EXPECT_EQ(l.positionOf(LayoutDim::K, 0), 4u);
}

// Elements whose bits lie apart inside one permutation.
TEST_F(LayoutTest, BitsApart) {
  Plane l = plane(4, 8, 4, "b0 k0 k1 n0 n1 n2 b1");
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
      Plane l = Layout(attr).getParts().front().plane;
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
  Plane from = plane(4, 8, 8, "b0 b1 k0 k1 k2 n0 n1 n2");
  Plane to = plane(4, 8, 8, "b0 b1 n0 n1 k1 k0 n2 k2");
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
  EXPECT_EQ(
      Layout(attr).getParts().front().plane.contiguousRun(LayoutDim::N, 16), 4);
}

// Two low bits, then the high bit, one plane behind the other.
TEST_F(LayoutTest, Planes) {
  Layout l = layout(3, 2, 32, "b0 k3 k2 k0 k1 n0 k4 | k3 k4 k2 k0 k1 n0");
  ASSERT_EQ(l.getParts().size(), 2u);
  EXPECT_EQ(l.bits(), 3);
  EXPECT_EQ(l.blockBits(), 3 * 2 * 32);
  EXPECT_EQ(l.getParts()[0].plane.bits(), 2);
  EXPECT_EQ(l.getParts()[1].plane.bits(), 1);
  EXPECT_EQ(l.getParts()[1].firstBit, 2);
  EXPECT_EQ(l.getParts()[1].firstAddress, 128);
  EXPECT_EQ(l.address(0, 0, 0), 0);
  EXPECT_EQ(l.address(1, 0, 0), 1);
  EXPECT_EQ(l.address(2, 0, 0), 128);
  EXPECT_EQ(l.address(2, 0, 1), 160);
  EXPECT_EQ(l.coordinate(129), (LayoutCoordinate{2, 8, 0}));
  EXPECT_EQ(l.getParts()[0].plane.wordAddress(1, 1), 96);
}

// What units read is a bijection for every width, and takes no more than its
// bits.
TEST_F(LayoutTest, UnitLayoutsAreBijections) {
  for (int64_t lanes : {8, 16})
    for (int64_t bits : {1, 2, 3, 4, 5, 6, 7, 8, 16, 32}) {
      Layout l = unitLayout(lanes, bits);
      ASSERT_EQ(l.blockN(), 4 * lanes);
      ASSERT_EQ(l.blockBits(), bits * l.blockN() * l.blockK());
      std::vector<bool> seen(l.blockBits());
      for (int64_t n = 0; n < l.blockN(); ++n)
        for (int64_t k = 0; k < l.blockK(); ++k)
          for (int64_t b = 0; b < bits; ++b) {
            int64_t a = l.address(b, k, n);
            ASSERT_LT(a, l.blockBits());
            ASSERT_FALSE(seen[a]);
            seen[a] = true;
            ASSERT_EQ(l.coordinate(a), (LayoutCoordinate{b, k, n}));
          }
    }
}

// Joined words hold the elements, whatever the planes: a block filled bit by
// bit is read word by word.
TEST_F(LayoutTest, JoinedWordsHoldTheElements) {
  std::mt19937 random(1);
  for (int64_t lanes : {8, 16})
    for (int64_t bits = 1; bits <= 8; ++bits) {
      Layout l = unitLayout(lanes, bits);
      FailureOr<JoinedWords> joined = JoinedWords::create(l);
      ASSERT_TRUE(succeeded(joined));
      EXPECT_EQ(joined->slotBits(), int64_t(llvm::PowerOf2Ceil(bits)));
      std::vector<uint32_t> words(l.blockBits() / 32);
      std::vector<uint32_t> elements(l.blockN() * l.blockK());
      for (int64_t n = 0; n < l.blockN(); ++n)
        for (int64_t k = 0; k < l.blockK(); ++k) {
          uint32_t element = random() % (1u << bits);
          elements[n * l.blockK() + k] = element;
          for (int64_t b = 0; b < bits; ++b) {
            int64_t a = l.address(b, k, n);
            words[a / 32] |= (element >> b & 1) << (a % 32);
          }
        }
      for (int64_t n = 0; n < l.blockN(); ++n) {
        std::vector<bool> seen(l.blockK());
        for (int64_t c = 0; c < joined->words(); ++c) {
          uint32_t word = 0;
          for (const JoinedWords::Source &source : joined->sources(c, n)) {
            uint32_t part = words[source.address / 32] &
                            joined->maskOfSlots(source.field, source.bits);
            word |= part >> source.field << source.firstBit;
          }
          for (int64_t i = 0; i < joined->slots(); ++i) {
            int64_t k = joined->row(c, i);
            ASSERT_FALSE(seen[k]);
            seen[k] = true;
            uint32_t slot = word >> i * joined->slotBits();
            ASSERT_EQ(slot & ((1u << joined->slotBits()) - 1),
                      elements[n * l.blockK() + k]);
          }
        }
      }
    }
}

// Planes whose fields are not of the same rows slot by slot do not go together.
TEST_F(LayoutTest, WordsThatCannotBeJoined) {
  EXPECT_TRUE(failed(JoinedWords::create(
      layout(3, 1, 32, "b0 k3 k2 k0 k1 k4 | k0 k1 k2 k3 k4"))));
  EXPECT_TRUE(
      failed(JoinedWords::create(layout(4, 8, 8, "b0 b1 n0 k0 k1 k2 n1 n2"))));
  EXPECT_TRUE(
      failed(JoinedWords::create(layout(16, 4, 1, "b0 b1 b2 b3 n0 n1"))));
}

// Blocks that groups take when none shares a block with another.
TEST_F(LayoutTest, BlocksOfGroups) {
  LayoutAttr attr =
      Layout::get(&context, 4, 1, 8, {"b0", "b1", "k0", "k1", "k2"});
  EXPECT_EQ(attr.blocksOf(64, 64), 8);
  EXPECT_EQ(attr.blocksOf(60, 16), 8);
  EXPECT_EQ(attr.blocksOf(60, 20), 9);
  EXPECT_EQ(attr.blocksOf(45, 20), 7);
  EXPECT_EQ(attr.blocksOf(45, 100), 6);
}
