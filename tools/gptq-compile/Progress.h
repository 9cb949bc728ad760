//===- Progress.h - Shows how far an export is ------------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_TOOLS_GPTQ_COMPILE_PROGRESS_H
#define GPTQ_TOOLS_GPTQ_COMPILE_PROGRESS_H

#include "llvm/ADT/StringRef.h"

#include <chrono>
#include <cstdint>
#include <string>

namespace gptq {

/// "17 bytes", "3.2 MB", "41.7 GB".
std::string bytesText(int64_t bytes);

/// On a terminal a bar on stderr that is rewritten in place; otherwise a line
/// on stdout for each step, so that logs stay short and stderr is left to
/// errors.
class Progress {
public:
  explicit Progress(bool isQuiet);
  ~Progress() { clear(); }

  /// Begins a step without a known length.
  void step(llvm::StringRef what);
  /// Shows bytes written.
  void update(int64_t done, int64_t total);
  /// Prints a last line.
  void finish(llvm::StringRef line);
  /// Removes the bar; before anything else is printed.
  void clear();

private:
  using Clock = std::chrono::steady_clock;

  bool isQuiet, isTerminal, isShown = false;
  /// The bar's rate is that of the write, without the compilation before it.
  Clock::time_point start, shown;
  int64_t startBytes = -1;
  /// Tenths that have had their line.
  int64_t tenths = 0;
};

} // namespace gptq

#endif // GPTQ_TOOLS_GPTQ_COMPILE_PROGRESS_H
