//===- ModelWriter.h - Writes a compiled model ------------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_RUNTIME_ABI_MODELWRITER_H
#define GPTQ_RUNTIME_ABI_MODELWRITER_H

#include "runtime/abi/Manifest.h"

#include <string>
#include <vector>

namespace gptq::abi {

/// One tensor of the file: `code.elf`, `w.<i>` or `file.<name>`.
struct ModelSection {
  std::string tensor;
  ByteSpan bytes;
};

/// Writes the compiled model `path`: lays out the sections 64-byte aligned
/// with fillers between them, fills in `manifest.sections` and the checksums,
/// checks the manifest. The file appears under its name only when it is
/// complete and on disk.
Status writeModel(const std::string &path, Manifest manifest,
                  const std::vector<ModelSection> &sections);

} // namespace gptq::abi

#endif // GPTQ_RUNTIME_ABI_MODELWRITER_H
