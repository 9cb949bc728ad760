//===- Half.h - Half-precision numbers --------------------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_RUNTIME_LIB_HALF_H
#define GPTQ_RUNTIME_LIB_HALF_H

#include <cstdint>
#include <cstring>

namespace gptq::runtime {

/// IEEE half precision; narrowing rounds to the nearest even.
inline float widenF16(uint16_t bits) {
  _Float16 value;
  std::memcpy(&value, &bits, sizeof(value));
  return float(value);
}

inline uint16_t narrowToF16(float value) {
  _Float16 half = _Float16(value);
  uint16_t bits;
  std::memcpy(&bits, &half, sizeof(bits));
  return bits;
}

/// The upper half of an f32; narrowing rounds to the nearest even.
inline float widenBF16(uint16_t bits) {
  uint32_t word = uint32_t(bits) << 16;
  float value;
  std::memcpy(&value, &word, sizeof(value));
  return value;
}

inline uint16_t narrowToBF16(float value) {
  uint32_t word;
  std::memcpy(&word, &value, sizeof(word));
  // Rounding must not carry a not-a-number into infinity.
  if (value != value)
    return uint16_t(word >> 16 | 0x40);
  return uint16_t((word + 0x7fff + (word >> 16 & 1)) >> 16);
}

} // namespace gptq::runtime

#endif // GPTQ_RUNTIME_LIB_HALF_H
