//===- SafeTensorsTest.cpp - The checked safetensors reader ---------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/abi/SafeTensors.h"

#include <gtest/gtest.h>

using namespace gptq::abi;

/// A file with the given header and `dataBytes` bytes of data.
static std::string file(const std::string &header, size_t dataBytes) {
  std::string out(8, '\0');
  for (int i = 0; i < 8; ++i)
    out[i] = char(uint64_t(header.size()) >> (8 * i));
  return out + header + std::string(dataBytes, 'x');
}

static std::string openError(const std::string &bytes) {
  Expected<SafeTensors> st = SafeTensors::open(ByteSpan::of(bytes));
  return st ? "no error" : st.status().message();
}

/// Expects the file to be refused with a message that holds `part`.
static void expectRefused(const std::string &bytes, const char *part) {
  std::string error = openError(bytes);
  EXPECT_NE(error.find(part), std::string::npos) << error;
}

TEST(SafeTensors, ReadsTensorsInOrderOfTheirBytes) {
  std::string bytes =
      file(R"({"__metadata__":{"format":"pt"},)"
           R"("b":{"dtype":"F16","shape":[2,3],"data_offsets":[4,16]},)"
           R"("a":{"dtype":"I32","shape":[],"data_offsets":[0,4]},)"
           R"("empty":{"dtype":"F32","shape":[0,5],"data_offsets":[4,4]}}   )",
           16);
  Expected<SafeTensors> st = SafeTensors::open(ByteSpan::of(bytes));
  ASSERT_TRUE(st) << st.status().message();
  ASSERT_EQ(st->tensors().size(), 3u);
  EXPECT_EQ(st->tensors()[0].name, "a");
  EXPECT_EQ(st->tensors()[1].name, "empty");
  EXPECT_EQ(st->tensors()[2].name, "b");
  EXPECT_EQ(st->metadata().at("format"), "pt");
  const TensorInfo *b = st->find("b");
  ASSERT_TRUE(b);
  EXPECT_EQ(b->shape, (std::vector<uint64_t>{2, 3}));
  EXPECT_EQ(b->dtype, DType::F16);
  EXPECT_EQ(st->bytes(*b).size, 12u);
  EXPECT_EQ(st->bytes(*b).data,
            reinterpret_cast<const uint8_t *>(bytes.data()) + st->dataOffset() +
                4);
  EXPECT_FALSE(st->find("c"));
}

TEST(SafeTensors, HeaderRoundTrips) {
  std::vector<TensorInfo> tensors = {{"x", DType::F32, {4, 4}, 0, 64},
                                     {"y", DType::BF16, {3}, 64, 70}};
  std::string bytes =
      writeSafeTensorsHeader(tensors, {{"k", "v"}}, 64) + std::string(70, 'x');
  Expected<SafeTensors> st = SafeTensors::open(ByteSpan::of(bytes));
  ASSERT_TRUE(st) << st.status().message();
  EXPECT_EQ(st->dataOffset() % 64, 0u);
  EXPECT_EQ(st->metadata().at("k"), "v");
  ASSERT_EQ(st->tensors().size(), 2u);
  EXPECT_EQ(st->tensors()[1].shape, tensors[1].shape);
  EXPECT_EQ(st->tensors()[1].dtype, DType::BF16);
}

TEST(SafeTensors, KnowsEveryDType) {
  for (const char *name :
       {"BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "U16", "I16", "F16", "BF16",
        "U32", "I32", "F32", "U64", "I64", "F64"}) {
    std::optional<DType> dtype = parseDType(name);
    ASSERT_TRUE(dtype) << name;
    EXPECT_STREQ(dtypeName(*dtype), name);
  }
  EXPECT_EQ(byteWidth(DType::F64), 8u);
  EXPECT_EQ(byteWidth(DType::BF16), 2u);
  EXPECT_EQ(byteWidth(DType::Bool), 1u);
  EXPECT_FALSE(parseDType("F17"));
}

TEST(SafeTensors, RefusesShortFilesAndBadLengths) {
  expectRefused("", "0 bytes");
  expectRefused("1234567", "7 bytes");
  expectRefused(file("{}", 0).substr(0, 9), "header needs 2 bytes");
  expectRefused(std::string("\xff\xff\xff\xff\xff\xff\xff\x7f", 8) + "{}",
                "longer than the format's limit");
  expectRefused(std::string(8, '\0'), "does not start with '{'");
}

TEST(SafeTensors, RefusesBadJson) {
  expectRefused(file("[]", 0), "does not start with '{'");
  expectRefused(file("{", 0), "not valid");
  expectRefused(file("{}x", 0), "not valid");
  expectRefused(file("{\"a\":1}", 0), "expected an object");
  expectRefused(file("{\"\xff\":{}}", 0), "not valid");
  std::string deep = "{\"a\":" + std::string(1000000, '[');
  expectRefused(file(deep, 0), "nested deeper");
  std::string tensor = R"({"dtype":"U8","shape":[1],"data_offsets":[0,1]})";
  expectRefused(file("{\"a\":" + tensor + ",\"a\":" + tensor + "}", 1),
                "twice");
  expectRefused(file(R"({"__metadata__":{"a":1}})", 0), "expected a string");
}

TEST(SafeTensors, RefusesBadTensors) {
  auto tensor = [](const char *fields, size_t bytes) {
    return file(std::string("{\"a\":{") + fields + "}}", bytes);
  };
  expectRefused(tensor(R"("dtype":"U9","shape":[1],"data_offsets":[0,1])", 1),
                "dtype 'U9' is not known");
  expectRefused(tensor(R"("shape":[1],"data_offsets":[0,1])", 1),
                "'dtype' is missing");
  expectRefused(tensor(R"("dtype":"U8","shape":[-1],"data_offsets":[0,1])", 1),
                "found -1");
  expectRefused(tensor(R"("dtype":"U8","shape":[1.0],"data_offsets":[0,1])", 1),
                "expected an integer");
  expectRefused(tensor(R"("dtype":"U8","shape":[1],"data_offsets":[0])", 1),
                "expected 2 data_offsets, found 1");
  expectRefused(tensor(R"("dtype":"U8","shape":[2],"data_offsets":[0,1])", 1),
                "need 2 bytes");
  expectRefused(tensor(R"("dtype":"U8","shape":[2],"data_offsets":[0,2])", 1),
                "not a range inside");
  expectRefused(tensor(R"("dtype":"U8","shape":[1],"data_offsets":[1,0])", 1),
                "not a range inside");
  expectRefused(
      tensor(
          R"("dtype":"F32","shape":[4611686018427387904,1],"data_offsets":[0,0])",
          0),
      "overflows");
  expectRefused(
      tensor(
          R"("dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,1])",
          1),
      "expected an integer from 0");
}

TEST(SafeTensors, RefusesOverlapsAndHoles) {
  auto two = [](const char *a, const char *b, size_t bytes) {
    return file(
        std::string(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":)") + a +
            R"(},"b":{"dtype":"U8","shape":[2],"data_offsets":)" + b + "}}",
        bytes);
  };
  EXPECT_EQ(openError(two("[0,2]", "[2,4]", 4)), "no error");
  expectRefused(two("[0,2]", "[1,3]", 3), "overlap");
  expectRefused(two("[0,2]", "[0,2]", 2), "overlap");
  expectRefused(two("[0,2]", "[3,5]", 5), "hole");
  expectRefused(two("[1,3]", "[3,5]", 5), "hole");
  expectRefused(two("[0,2]", "[2,4]", 5), "cover 4");
}
