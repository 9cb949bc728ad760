//===- Artifact.h - A compiled model's file, checked ------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_RUNTIME_LIB_ARTIFACT_H
#define GPTQ_RUNTIME_LIB_ARTIFACT_H

#include "runtime/abi/Manifest.h"

#include <string>
#include <vector>

namespace gptq::runtime {

/// Where everything is inside a compiled model. Refers to the file's bytes.
struct Artifact {
  abi::Manifest manifest;
  std::string manifestText;
  std::vector<abi::ByteSpan> weights;

  /// The tensor `code.<name>`, e.g. of `elf`; nothing if absent.
  std::optional<abi::ByteSpan> findCode(std::string_view name) const;

  /// The carried file `name`, e.g. `tokenizer.json`; nothing if absent.
  std::optional<abi::ByteSpan> findFile(std::string_view name) const;

  /// All of `code.<name>`, without the `code.`.
  std::vector<std::pair<std::string, abi::ByteSpan>> codes;
  /// All of `file.<name>`, without the `file.`.
  std::vector<std::pair<std::string, abi::ByteSpan>> files;
};

/// Reads a compiled model and checks all that running it relies on, except for
/// the sections' checksums and the code itself. `file` starts at a multiple of
/// 64 bytes in memory.
abi::Expected<Artifact> readArtifact(abi::ByteSpan file);

/// Compares every section with its checksum on up to `threads` threads.
abi::Status verifyArtifact(const Artifact &artifact, int threads);

} // namespace gptq::runtime

#endif // GPTQ_RUNTIME_LIB_ARTIFACT_H
