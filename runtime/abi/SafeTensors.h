//===- SafeTensors.h - A checked safetensors reader -------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A safetensors file:
//
//   | bytes        | content                                               |
//   | ------------ | ----------------------------------------------------- |
//   | 8            | N, the header's length, little-endian                 |
//   | N            | JSON: {"name": {"dtype", "shape", "data_offsets"}, …} |
//   | the rest     | the tensors' bytes, without holes or overlaps         |
//
// Opening checks everything that later reads rely on.
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_RUNTIME_ABI_SAFETENSORS_H
#define GPTQ_RUNTIME_ABI_SAFETENSORS_H

#include "runtime/abi/Status.h"

#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace gptq::abi {

enum class DType : uint8_t {
  Bool,
  U8,
  I8,
  F8E5M2,
  F8E4M3,
  U16,
  I16,
  F16,
  BF16,
  U32,
  I32,
  F32,
  U64,
  I64,
  F64,
};

/// Bytes of one element.
size_t byteWidth(DType dtype);
/// The name safetensors uses, e.g. `BF16`.
const char *dtypeName(DType dtype);
std::optional<DType> parseDType(std::string_view name);

struct TensorInfo {
  std::string name;
  DType dtype = DType::U8;
  std::vector<uint64_t> shape;
  /// Byte range inside the data section; end - begin is the product of the
  /// shape times the element's width.
  uint64_t begin = 0;
  uint64_t end = 0;

  uint64_t byteSize() const { return end - begin; }
};

/// What the header of an open file says. Refers to the file's bytes, which
/// must outlive it.
class SafeTensors {
public:
  /// Longest header accepted, the limit of the format's reference reader.
  static constexpr uint64_t maxHeaderBytes = 100'000'000;

  /// Reads and checks the header of a whole file.
  static Expected<SafeTensors> open(ByteSpan file);

  /// All tensors, in the order of their bytes.
  const std::vector<TensorInfo> &tensors() const { return list; }
  /// The tensor of that name, or null.
  const TensorInfo *find(std::string_view name) const;
  const std::map<std::string, std::string> &metadata() const { return meta; }
  /// A tensor's bytes; `tensor` is one of this file's.
  ByteSpan bytes(const TensorInfo &tensor) const {
    return {data.data + tensor.begin, size_t(tensor.byteSize())};
  }
  /// Where the data section starts in the file, in bytes.
  uint64_t dataOffset() const { return offset; }

private:
  ByteSpan data;
  uint64_t offset = 0;
  std::vector<TensorInfo> list;
  std::unordered_map<std::string, size_t> byName;
  std::map<std::string, std::string> meta;
};

/// The bytes in front of the data section for tensors whose ranges are set:
/// the length and the header, padded with spaces so that the data section
/// starts at a multiple of `alignment`.
std::string
writeSafeTensorsHeader(const std::vector<TensorInfo> &tensors,
                       const std::map<std::string, std::string> &metadata,
                       uint64_t alignment);

} // namespace gptq::abi

#endif // GPTQ_RUNTIME_ABI_SAFETENSORS_H
