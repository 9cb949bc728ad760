//===- GPTQFormatTest.cpp - Tests of GPTQ layers --------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "TestCheckpoint.h"
#include "lib/Import/Formats/Format.h"
#include "mlir/IR/MLIRContext.h"
#include "gtest/gtest.h"

namespace mlir::gptq::test {
namespace {

struct GPTQFormatTest : testing::Test {
  GPTQFormatTest() { context.loadDialect<GPTQDialect>(); }

  /// Reads the layer "l" of `c`.
  abi::Expected<LinearViews> read(const TestCheckpoint &c,
                                  std::optional<LinearShape> shape = {}) {
    MemoryFolder folder = c.folder();
    auto checkpoint = Checkpoint::open(folder);
    if (!checkpoint)
      return checkpoint.status();
    auto format = createGPTQFormat(config);
    auto views = readLinear(**checkpoint, format.get(), "l", shape,
                            BiasRule::AsFound, &context);
    warnings = (*checkpoint)->warnings();
    return views;
  }

  void expectRefused(const TestCheckpoint &c, const std::string &message,
                     std::optional<LinearShape> shape = {}) {
    auto views = read(c, shape);
    ASSERT_FALSE(views) << "expected: " << message;
    EXPECT_NE(views.status().message().find(message), std::string::npos)
        << views.status().message();
  }

  /// A layer of K = 16, N = 8 in groups of 8.
  TestCheckpoint layer(uint32_t zeroWord) {
    config.groupSize = 8;
    TestCheckpoint c;
    c.addQuantized("l", 16, 8, 2, 4, zeroWord);
    return c;
  }

  MLIRContext context;
  QuantConfig config;
  std::vector<std::string> warnings;
};

//===----------------------------------------------------------------------===//
// Zero points
//===----------------------------------------------------------------------===//

TEST_F(GPTQFormatTest, SymmetricZerosAreAConstant) {
  for (auto [bits, v1, v2] :
       {std::tuple<int64_t, uint32_t, uint32_t>(4, 0x77777777, 0x88888888),
        {8, 0x7F7F7F7F, 0x80808080}}) {
    for (bool isV2 : {false, true}) {
      TestCheckpoint c;
      c.addQuantized("l", 16, 8, 2, bits, isV2 ? v2 : v1);
      config.bits = bits;
      config.groupSize = 8;
      config.format = isV2 ? "gptq_v2" : "gptq";
      auto views = read(c);
      ASSERT_TRUE(views) << views.status().message();
      EXPECT_EQ(views->zeroPoint, 1 << (bits - 1));
      EXPECT_FALSE(views->zeros);
      EXPECT_TRUE(warnings.empty());
    }
  }
}

TEST_F(GPTQFormatTest, DataDecideTheVersionOfSymmetricFiles) {
  TestCheckpoint c = layer(0x88888888);
  auto views = read(c);
  ASSERT_TRUE(views) << views.status().message();
  EXPECT_EQ(views->zeroPoint, 8);
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_NE(warnings[0].find("stored as in gptq_v2"), std::string::npos);

  c = layer(0x77777777);
  config.format = "gptq_v2";
  views = read(c);
  ASSERT_TRUE(views) << views.status().message();
  EXPECT_EQ(views->zeroPoint, 8);
  ASSERT_EQ(warnings.size(), 1u);
}

TEST_F(GPTQFormatTest, AsymmetricConstantsAreTakenAtTheirWord) {
  TestCheckpoint c = layer(0x77777777);
  config.isSymmetric = false;
  config.format = "gptq_v2";
  auto views = read(c);
  ASSERT_TRUE(views) << views.status().message();
  EXPECT_EQ(views->zeroPoint, 7);
  EXPECT_TRUE(warnings.empty());
}

TEST_F(GPTQFormatTest, PaddingOfTheLastWordIsNotLookedAt) {
  config.groupSize = 16;
  // N = 11: the last of two words holds three zero points.
  for (uint32_t padding : {0x00000777u, 0xFFFFF777u, 0x12345777u}) {
    TestCheckpoint c;
    c.addQuantized("l", 16, 11, 1, 4, 0x77777777);
    c.tensors["l.qzeros"].bytes = words({0x77777777, padding});
    auto views = read(c);
    ASSERT_TRUE(views) << views.status().message();
    EXPECT_EQ(views->zeroPoint, 8);
  }
}

TEST_F(GPTQFormatTest, Version1AddsToTheWord) {
  // Zero points 0, 3, 4, …, less one in each field with a borrow.
  uint32_t zeros = 0x98765430;
  TestCheckpoint c = layer(zeros - 0x11111111);
  config.isSymmetric = false;
  auto views = read(c);
  ASSERT_TRUE(views) << views.status().message();
  ASSERT_TRUE(views->zeros);
  EXPECT_EQ(cast<CodesAttr>(views->zeros.init).getWordAdd(), 0x11111111);
  EXPECT_EQ(cast<CodesAttr>(views->zeros.init).getPacking(), Packing::Columns);

  config.format = "gptq_v2";
  views = read(layer(zeros));
  ASSERT_TRUE(views) << views.status().message();
  EXPECT_EQ(cast<CodesAttr>(views->zeros.init).getWordAdd(), 0);
}

TEST_F(GPTQFormatTest, OverwrittenZerosAreRefused) {
  // A zero point of 0 in field 2 and in field 4.
  TestCheckpoint c = layer(0x65432176);
  c.tensors["l.qzeros"].bytes = words({0xFFFFFF76, 0xFFFF4321});
  config.isSymmetric = false;
  expectRefused(c, "cannot be recovered");
  // Another field of ones with something above it: a sound writer's borrow.
  c.tensors["l.qzeros"].bytes = words({0xFFFFFF76, 0x65432F21});
  EXPECT_TRUE(read(c));
  // Padding of ones says nothing.
  config.groupSize = 16;
  c = TestCheckpoint();
  c.addQuantized("l", 16, 3, 1, 4, 0xFFFFF531);
  EXPECT_TRUE(read(c));
}

TEST_F(GPTQFormatTest, SymmetricByNameOnlyIsWarnedOf) {
  auto views = read(layer(0x65432176));
  ASSERT_TRUE(views) << views.status().message();
  EXPECT_TRUE(views->zeros);
  ASSERT_EQ(warnings.size(), 1u);
}

//===----------------------------------------------------------------------===//
// Groups
//===----------------------------------------------------------------------===//

TEST_F(GPTQFormatTest, GroupsInOrderNeedNoIndex) {
  TestCheckpoint c = layer(0x77777777);
  c.addGroupIndex("l", {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1});
  auto views = read(c);
  ASSERT_TRUE(views) << views.status().message();
  EXPECT_FALSE(views->groupIndex);
}

TEST_F(GPTQFormatTest, GroupsOutOfOrderKeepTheirIndex) {
  TestCheckpoint c = layer(0x77777777);
  c.addGroupIndex("l", {0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1});
  auto views = read(c);
  ASSERT_TRUE(views) << views.status().message();
  EXPECT_TRUE(views->groupIndex);
  // The same groups, counted from the end.
  c.addGroupIndex("l", {-2, -1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, -2, -1});
  views = read(c);
  ASSERT_TRUE(views) << views.status().message();
  EXPECT_TRUE(views->groupIndex);
}

TEST_F(GPTQFormatTest, OneGroupHasNoOrder) {
  config.groupSize = -1;
  TestCheckpoint c;
  c.addQuantized("l", 16, 8, 1, 4, 0x77777777);
  c.addGroupIndex("l", std::vector<int>(16, -1));
  auto views = read(c);
  ASSERT_TRUE(views) << views.status().message();
  EXPECT_FALSE(views->groupIndex);
  EXPECT_EQ(views->groupSize, 16);
}

TEST_F(GPTQFormatTest, GroupsOutOfRangeAreRefused) {
  for (int group : {2, -3, INT32_MAX, INT32_MIN}) {
    TestCheckpoint c = layer(0x77777777);
    std::vector<int> index(16, 0);
    index[5] = group;
    c.addGroupIndex("l", index);
    expectRefused(c, "but row 5 is in group " + std::to_string(group));
  }
}

TEST_F(GPTQFormatTest, UnevenGroupsAreRefused) {
  TestCheckpoint c = layer(0x77777777);
  c.addGroupIndex("l", {0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1});
  expectRefused(c, "expected group 0 to have 8 rows, found 9");
  c.addGroupIndex("l", std::vector<int>(16, 0));
  expectRefused(c, "expected group 0 to have 8 rows, found 16");
}

TEST_F(GPTQFormatTest, LastGroupMayBeShort) {
  config.groupSize = 12;
  TestCheckpoint c;
  c.addQuantized("l", 20, 8, 2, 4, 0x77777777);
  auto views = read(c, LinearShape{8, 20});
  ASSERT_TRUE(views) << views.status().message();
  EXPECT_EQ(views->k, 20);
  EXPECT_EQ(views->groupSize, 12);
  // Nothing but the model tells padding from rows.
  views = read(c);
  ASSERT_TRUE(views) << views.status().message();
  EXPECT_EQ(views->k, 24);
}

//===----------------------------------------------------------------------===//
// Shapes and values
//===----------------------------------------------------------------------===//

TEST_F(GPTQFormatTest, WrongTensorsAreRefused) {
  TestCheckpoint c = layer(0x77777777);
  expectRefused(c,
                "tensor 'l.qweight' in 'model.safetensors': expected I32 [4, "
                "8], found I32 [2, 8]",
                LinearShape{8, 32});
  c.tensors.erase("l.scales");
  expectRefused(
      c, "tensor 'l.scales' is missing, expected F16 or BF16 or F32 [2, 8]");

  c = layer(0x77777777);
  c.tensors["l.scales"].dtype = DType::I16;
  expectRefused(c, "found I16 [2, 8]");

  c = layer(0x77777777);
  config.groupSize = 4;
  expectRefused(
      c,
      "'l.scales' in 'model.safetensors': expected F16 or BF16 or F32 [4, 8]");

  c = layer(0x77777777);
  c.tensors["l.weight"] = c.tensors["l.scales"];
  expectRefused(c, "expected a quantized or a dense weight, found both");

  c = layer(0x77777777);
  c.addGroupIndex("l", std::vector<int>(40, 0));
  expectRefused(c, "expected 5 rows for the 40 rows of g_idx, found 2");
}

TEST_F(GPTQFormatTest, ScalesMustBeFinite) {
  for (uint16_t value : {0x7C00, 0xFC00, 0x7E01}) {
    TestCheckpoint c = layer(0x77777777);
    c.tensors["l.scales"].bytes.replace(6, 2, halves(1, value));
    expectRefused(c, "element 3 is infinite or not a number");
  }
}

TEST_F(GPTQFormatTest, ZeroBiasIsLeftOut) {
  TestCheckpoint c = layer(0x77777777);
  c.tensors["l.bias"] = {DType::F16, {8}, halves(8, 0x8000)};
  auto views = read(c);
  ASSERT_TRUE(views) << views.status().message();
  EXPECT_FALSE(views->bias);
}

TEST_F(GPTQFormatTest, BiasIsAppliedThoughConfigDoesNotAskForIt) {
  TestCheckpoint c = layer(0x77777777);
  c.tensors["l.bias"] = {DType::F16, {8}, halves(8)};
  auto views = read(c);
  ASSERT_TRUE(views) << views.status().message();
  EXPECT_TRUE(views->bias);
}

} // namespace
} // namespace mlir::gptq::test
