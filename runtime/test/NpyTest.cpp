//===- NpyTest.cpp - NumPy array files ------------------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/lib/Npy.h"

#include "runtime/test/ToyModel.h"

#include <gtest/gtest.h>

#include <cstring>

using namespace gptq::abi;
using namespace gptq::runtime;

/// A file as NumPy writes it.
static std::string npy(const std::string &descr, const std::string &shape,
                       const std::string &data,
                       const std::string &order = "False") {
  std::string header = "{'descr': '" + descr + "', 'fortran_order': " + order +
                       ", 'shape': " + shape + ", }\n";
  std::string out("\x93NUMPY\x01\x00", 8);
  out += char(header.size());
  out += '\0';
  return out + header + data;
}

template <typename T> static std::string bytesOf(std::vector<T> values) {
  return {reinterpret_cast<const char *>(values.data()),
          values.size() * sizeof(T)};
}

static void expectRefused(const std::string &file, const char *part) {
  Expected<NpyArray> a = parseNpy(ByteSpan::of(file));
  ASSERT_FALSE(a) << "accepted; expected: " << part;
  EXPECT_NE(a.status().message().find(part), std::string::npos)
      << a.status().message();
}

TEST(Npy, RoundTrips) {
  NpyArray array;
  array.shape = {2, 3};
  array.floats = {1, 2, 3, 4, 5, -6.5f};
  std::string path = gptq::test::temporaryFolder() + "round.npy";
  ASSERT_TRUE(writeNpy(path, array).ok());
  Expected<NpyArray> again = readNpy(path);
  ASSERT_TRUE(again) << again.status().message();
  EXPECT_EQ(again->shape, array.shape);
  EXPECT_EQ(again->floats, array.floats);
  EXPECT_EQ(npyHeader({2, 3}, false).size() % 64, 0u);
}

TEST(Npy, WidensAndNarrows) {
  std::string f2 = npy("<f2", "(2,)", bytesOf<uint16_t>({0x3c00, 0xc100}));
  Expected<NpyArray> a = parseNpy(ByteSpan::of(f2));
  ASSERT_TRUE(a) << a.status().message();
  EXPECT_EQ(a->floats, (std::vector<float>{1, -2.5}));
  std::string i8 = npy("<i8", "(1, 2)", bytesOf<int64_t>({-5, 7}));
  a = parseNpy(ByteSpan::of(i8));
  ASSERT_TRUE(a) << a.status().message();
  EXPECT_EQ(a->integers, (std::vector<int32_t>{-5, 7}));
  expectRefused(npy("<i8", "(1,)", bytesOf<int64_t>({int64_t(1) << 31})),
                "does not fit 32 bits");
}

TEST(Npy, RefusesBadFiles) {
  std::string one = bytesOf<float>({1});
  expectRefused("", "not a .npy file");
  expectRefused("\x93NUMPY", "not a .npy file");
  expectRefused(npy("<f4", "(2,)", one), "needs 2 elements");
  expectRefused(npy("<f4", "(1,)", one + "x"), "needs 1 elements");
  expectRefused(npy("<f4", "(1,)", one, "True"), "row-major");
  expectRefused(npy("<f8", "(1,)", one), "'<f8'");
  expectRefused(npy(">f4", "(1,)", one), "found");
  expectRefused(npy("<f4", "1", one), "not a tuple");
  expectRefused(npy("<f4", "(-1,)", one), "tuple of sizes");
  expectRefused(npy("<f4", "(99999999999999999999,)", one), "overflows");
  expectRefused(npy("<f4", "(4294967296, 4294967296)", one), "too large");
  expectRefused(npy("<f4", "(1,1,1,1,1,1,1,1,1)", one), "too large");
  std::string cut = npy("<f4", "(1,)", one).substr(0, 20);
  expectRefused(cut, "header needs");
}
