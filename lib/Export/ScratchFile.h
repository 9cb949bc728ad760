//===- ScratchFile.h - Files that are gone afterwards -----------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_LIB_EXPORT_SCRATCHFILE_H
#define GPTQ_LIB_EXPORT_SCRATCHFILE_H

#include "gptq/Export/WeightReader.h"
#include "llvm/ADT/SmallString.h"

namespace mlir::gptq {

/// A file in the system's folder for temporary ones, gone afterwards whatever
/// happens.
class ScratchFile {
public:
  ScratchFile() = default;
  ScratchFile(const ScratchFile &) = delete;
  ~ScratchFile();

  model::Status create(StringRef suffix, StringRef content);
  /// What is in it now.
  model::Expected<std::string> read() const;

  SmallString<128> path;
};

} // namespace mlir::gptq

#endif // GPTQ_LIB_EXPORT_SCRATCHFILE_H
