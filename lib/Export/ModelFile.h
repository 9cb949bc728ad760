//===- ModelFile.h - Streams a compiled model to disk -----------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A compiled model's header and manifest come first in the file, and the
// manifest holds the checksums of everything after it. Both have a size that
// does not depend on the checksums' values, so their place is left free,
// sections are streamed behind it, and the two are written last.
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_LIB_EXPORT_MODELFILE_H
#define GPTQ_LIB_EXPORT_MODELFILE_H

#include "gptq/Export/WeightReader.h"
#include "runtime/abi/Checksum.h"
#include "runtime/abi/Manifest.h"
#include "runtime/abi/SafeTensors.h"

#include <functional>

namespace mlir::gptq {

class ModelFile {
public:
  /// `manifest.sections` says what will be streamed, in that order; checksums
  /// are filled in on the way.
  ModelFile(StringRef path, model::Manifest manifest,
            std::function<void(int64_t, int64_t)> progress);
  ModelFile(const ModelFile &) = delete;
  /// Removes the file unless it was kept.
  ~ModelFile();

  /// Checks that the disk has room, and creates the file under a temporary
  /// name.
  model::Status create();
  /// The next bytes of the current section.
  model::Status append(model::ByteSpan bytes);
  /// Ends the current section, which must be complete.
  model::Status endSection();
  /// Writes header and manifest, and gives the file its name.
  model::Status keep();

  int64_t fileBytes() const { return totalBytes; }

private:
  model::Status failure(const char *verb) const;
  model::Status write(model::ByteSpan bytes);

  std::string target, folder, temporary;
  model::Manifest manifest;
  std::function<void(int64_t, int64_t)> progress;
  std::vector<model::TensorInfo> tensors;
  /// Bytes of the file up to the end of the manifest, and of all of it.
  int64_t headBytes = 0, totalBytes = 0;
  int fd = -1;
  /// Where the next byte goes.
  int64_t position = 0;
  size_t section = 0;
  int64_t sectionBytes = 0;
  model::ChecksumStream sum;
};

} // namespace mlir::gptq

#endif // GPTQ_LIB_EXPORT_MODELFILE_H
