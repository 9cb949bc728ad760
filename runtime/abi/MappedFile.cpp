//===- MappedFile.cpp - A file mapped for reading -------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/abi/MappedFile.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

using namespace gptq::abi;

Expected<MappedFile> MappedFile::open(const std::string &path) {
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return makeStatus(StatusCode::NotFound, "cannot open '%s': %s",
                      path.c_str(), std::strerror(errno));
  struct stat info;
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(fd);
    return makeStatus(StatusCode::NotFound, "'%s' is not a regular file",
                      path.c_str());
  }
  MappedFile file;
  // An empty file cannot be mapped; no bytes are a fair picture of it.
  if (info.st_size > 0) {
    void *p = ::mmap(nullptr, info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED) {
      int error = errno;
      ::close(fd);
      return makeStatus(
          StatusCode::ResourceExhausted, "cannot map %lld bytes of '%s': %s",
          (long long)info.st_size, path.c_str(), std::strerror(error));
    }
    file.span = {static_cast<const uint8_t *>(p), size_t(info.st_size)};
  }
  ::close(fd);
  return file;
}

MappedFile::~MappedFile() {
  if (span.data)
    ::munmap(const_cast<uint8_t *>(span.data), span.size);
}
