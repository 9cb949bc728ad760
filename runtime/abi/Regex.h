//===- Regex.h - Regular expressions that come with a file -----*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_RUNTIME_ABI_REGEX_H
#define GPTQ_RUNTIME_ABI_REGEX_H

#include "runtime/abi/Status.h"

#include <memory>
#include <string_view>
#include <utility>
#include <vector>

namespace gptq::abi {

/// A compiled pattern over UTF-8, with Unicode's letters, digits and spaces.
class Regex {
public:
  static Expected<Regex> compile(std::string_view pattern);

  Regex(Regex &&) noexcept;
  Regex &operator=(Regex &&) noexcept;
  ~Regex();

  /// All matches in `text`, which is valid UTF-8, as [begin, end), in order
  /// and none of them empty. Fails where matching takes too many steps.
  Status findAll(std::string_view text,
                 std::vector<std::pair<size_t, size_t>> &out) const;
  /// Whether a match starts where `text`, which is valid UTF-8, does.
  Expected<bool> matchesStart(std::string_view text) const;

private:
  struct Impl;
  explicit Regex(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl;
};

} // namespace gptq::abi

#endif // GPTQ_RUNTIME_ABI_REGEX_H
