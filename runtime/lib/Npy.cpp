//===- Npy.cpp - NumPy array files ----------------------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/lib/Npy.h"

#include "runtime/abi/Json.h"
#include "runtime/abi/MappedFile.h"
#include "runtime/lib/Half.h"

#include <cerrno>
#include <cstdio>
#include <cstring>

using namespace gptq::abi;
using namespace gptq::runtime;

static Status invalid(const std::string &what) {
  return Status(StatusCode::InvalidFile, what);
}

/// The text behind `'key':` in the header's dictionary.
static Expected<std::string_view> field(std::string_view header,
                                        const std::string &key) {
  size_t at = header.find("'" + key + "'");
  if (at == std::string_view::npos)
    return invalid("the header has no '" + key + "'");
  at = header.find_first_not_of(": ", at + key.size() + 2);
  if (at == std::string_view::npos)
    return invalid("the header's '" + key + "' has no value");
  return header.substr(at);
}

Expected<NpyArray> gptq::runtime::parseNpy(ByteSpan file) {
  static const char magic[] = "\x93NUMPY";
  if (file.size < 10 || std::memcmp(file.data, magic, 6) != 0)
    return invalid("not a .npy file (" + std::to_string(file.size) + " bytes)");
  unsigned major = file.data[6];
  size_t start = major == 1 ? 10 : 12;
  if (major < 1 || major > 3 || file.size < start)
    return invalid("expected version 1 to 3 of the .npy format, found " +
                   std::to_string(major));
  size_t length = file.data[8] | size_t(file.data[9]) << 8;
  if (major > 1)
    length |= size_t(file.data[10]) << 16 | size_t(file.data[11]) << 24;
  if (length > file.size - start)
    return invalid("the header needs " + std::to_string(length) +
                   " bytes, the file has " + std::to_string(file.size - start));
  std::string_view header = file.text().substr(start, length);

  GPTQ_ASSIGN(std::string_view order, field(header, "fortran_order"));
  if (order.substr(0, 5) != "False")
    return Status(StatusCode::Unsupported,
                  "expected an array in row-major order");
  GPTQ_ASSIGN(std::string_view descr, field(header, "descr"));
  std::string_view kind = descr.substr(0, 5);
  bool isF4 = kind == "'<f4'", isF2 = kind == "'<f2'", isI4 = kind == "'<i4'",
       isI8 = kind == "'<i8'";
  if (!isF4 && !isF2 && !isI4 && !isI8)
    return Status(StatusCode::Unsupported,
                  "expected elements '<f4', '<f2', '<i4' or '<i8', found " +
                      quoteForMessage(kind));

  GPTQ_ASSIGN(std::string_view shape, field(header, "shape"));
  NpyArray array;
  int64_t elements = 1;
  if (shape.empty() || shape[0] != '(')
    return invalid("the header's shape is not a tuple");
  for (size_t i = 1; i < shape.size() && shape[i] != ')';) {
    if (shape[i] == ',' || shape[i] == ' ') {
      ++i;
      continue;
    }
    int64_t size = 0;
    size_t begin = i;
    for (; i < shape.size() && shape[i] >= '0' && shape[i] <= '9'; ++i)
      if (__builtin_mul_overflow(size, 10, &size) ||
          __builtin_add_overflow(size, shape[i] - '0', &size))
        return invalid("the header's shape overflows");
    if (i == begin)
      return invalid("the header's shape is not a tuple of sizes");
    array.shape.push_back(size);
    if (array.shape.size() > 8 ||
        __builtin_mul_overflow(elements, size, &elements))
      return invalid("the header's shape is too large");
  }

  size_t width = isF2 ? 2 : isI8 ? 8 : 4;
  size_t bytes = file.size - start - length;
  if (uint64_t(elements) > SIZE_MAX / width || elements * width != bytes)
    return invalid("the shape needs " + std::to_string(elements) +
                   " elements of " + std::to_string(width) +
                   " bytes, the file has " + std::to_string(bytes) + " bytes");
  const uint8_t *data = file.data + start + length;
  array.isInteger = isI4 || isI8;
  if (array.isInteger)
    array.integers.resize(elements);
  else
    array.floats.resize(elements);
  if (isF4 && bytes)
    std::memcpy(array.floats.data(), data, bytes);
  if (isI4 && bytes)
    std::memcpy(array.integers.data(), data, bytes);
  for (int64_t i = 0; isF2 && i < elements; ++i) {
    uint16_t half;
    std::memcpy(&half, data + 2 * i, 2);
    array.floats[i] = widenF16(half);
  }
  for (int64_t i = 0; isI8 && i < elements; ++i) {
    int64_t value;
    std::memcpy(&value, data + 8 * i, 8);
    if (value < INT32_MIN || value > INT32_MAX)
      return invalid("element " + std::to_string(i) + ", " +
                     std::to_string(value) + ", does not fit 32 bits");
    array.integers[i] = int32_t(value);
  }
  return array;
}

Expected<NpyArray> gptq::runtime::readNpy(const std::string &path) {
  GPTQ_ASSIGN(MappedFile file, MappedFile::open(path));
  Expected<NpyArray> array = parseNpy(file.bytes());
  if (!array)
    return array.status().withContext(path);
  return array;
}

std::string gptq::runtime::npyHeader(const std::vector<int64_t> &shape,
                                     bool isInteger) {
  std::string text = std::string("{'descr': '") + (isInteger ? "<i4" : "<f4") +
                     "', 'fortran_order': False, 'shape': (";
  for (int64_t size : shape)
    text += std::to_string(size) + ",";
  text += "), }";
  // The elements start at a multiple of 64 bytes, the header ends its line.
  text.append(63 - (10 + text.size()) % 64, ' ');
  text += '\n';
  std::string out = "\x93NUMPY";
  out += '\x01';
  out += '\0';
  out += char(text.size());
  out += char(text.size() >> 8);
  return out + text;
}

Status gptq::runtime::writeNpy(const std::string &path, const NpyArray &array) {
  std::string header = npyHeader(array.shape, array.isInteger);
  const void *data = array.isInteger
                         ? static_cast<const void *>(array.integers.data())
                         : array.floats.data();
  size_t count = array.isInteger ? array.integers.size() : array.floats.size();
  FILE *file = std::fopen(path.c_str(), "wbe");
  bool isGood =
      file &&
      std::fwrite(header.data(), 1, header.size(), file) == header.size() &&
      std::fwrite(data, 4, count, file) == count;
  if (file)
    isGood &= std::fclose(file) == 0;
  if (!isGood)
    return makeStatus(StatusCode::NotFound, "cannot write '%s': %s",
                      path.c_str(), std::strerror(errno));
  return {};
}
