//===- SpecialTokens.h - Tokens written out in text -------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_RUNTIME_LIB_SPECIALTOKENS_H
#define GPTQ_RUNTIME_LIB_SPECIALTOKENS_H

#include "runtime/abi/Status.h"

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace gptq::runtime {

/// Names that stand for one token wherever they appear in a text.
class SpecialTokens {
public:
  struct Flags {
    /// The token takes the white space before or after it along.
    bool stripLeft = false;
    bool stripRight = false;
    /// Only where no letter or digit touches the name.
    bool singleWord = false;
  };

  /// An empty name is ignored.
  void add(std::string name, int32_t id, Flags flags);
  bool empty() const { return tokens.empty(); }

  /// Cuts `text` into plain parts and special tokens, in order. Among names
  /// that start at the same place the longest wins. Stops at the first error.
  abi::Status split(std::string_view text,
                    const std::function<abi::Status(std::string_view)> &onText,
                    const std::function<void(int32_t)> &onToken) const;

private:
  struct Token {
    std::string name;
    int32_t id;
    Flags flags;
  };

  std::vector<Token> tokens;
  /// Indices into `tokens` by first byte, longest name first.
  std::vector<size_t> byFirstByte[256];
};

} // namespace gptq::runtime

#endif // GPTQ_RUNTIME_LIB_SPECIALTOKENS_H
