//===- Npy.h - NumPy array files --------------------------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_RUNTIME_LIB_NPY_H
#define GPTQ_RUNTIME_LIB_NPY_H

#include "runtime/abi/Status.h"

#include <string>
#include <vector>

namespace gptq::runtime {

/// An array on its way to or from a kernel, which know f32 and i32 only.
struct NpyArray {
  std::vector<int64_t> shape;
  bool isInteger = false;
  /// One of the two holds the elements, row by row.
  std::vector<float> floats;
  std::vector<int32_t> integers;
};

/// Reads a `.npy` file of f4, f2 (widened), i4 or i8 (narrowed, if every value
/// fits) in row-major order with at most 8 dimensions.
abi::Expected<NpyArray> parseNpy(abi::ByteSpan file);
abi::Expected<NpyArray> readNpy(const std::string &path);

/// The bytes in front of the elements of a `.npy` file of f4 or i4.
std::string npyHeader(const std::vector<int64_t> &shape, bool isInteger);
abi::Status writeNpy(const std::string &path, const NpyArray &array);

} // namespace gptq::runtime

#endif // GPTQ_RUNTIME_LIB_NPY_H
