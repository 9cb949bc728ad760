//===- ScratchFile.cpp - Files that are gone afterwards -------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ScratchFile.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Signals.h"
#include "llvm/Support/raw_ostream.h"

using namespace mlir;
using namespace mlir::gptq;
using model::Expected;
using model::Status;
using model::StatusCode;

ScratchFile::~ScratchFile() {
  if (path.empty())
    return;
  llvm::sys::fs::remove(path);
  llvm::sys::DontRemoveFileOnSignal(path);
}

Status ScratchFile::create(StringRef suffix, StringRef content) {
  int fd;
  if (std::error_code code =
          llvm::sys::fs::createTemporaryFile("gptq-kernels", suffix, fd, path))
    return Status(StatusCode::ResourceExhausted,
                  "cannot create a temporary file: " + code.message());
  llvm::sys::RemoveFileOnSignal(path);
  llvm::raw_fd_ostream stream(fd, /*shouldClose=*/true);
  stream << content;
  stream.close();
  if (stream.has_error()) {
    std::string reason = stream.error().message();
    stream.clear_error();
    return Status(StatusCode::ResourceExhausted,
                  "cannot write '" + path.str().str() + "': " + reason);
  }
  return {};
}

Expected<std::string> ScratchFile::read() const {
  auto buffer = llvm::MemoryBuffer::getFile(path);
  if (!buffer)
    return Status(StatusCode::ResourceExhausted,
                  "cannot read '" + path.str().str() +
                      "': " + buffer.getError().message());
  return (*buffer)->getBuffer().str();
}
