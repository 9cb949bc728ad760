//===- ModelFile.cpp - Streams a compiled model to disk -------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ModelFile.h"
#include "runtime/abi/KernelABI.h"
#include "llvm/Support/MathExtras.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/Signals.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

using namespace mlir;
using namespace mlir::gptq;
using model::Status;
using model::StatusCode;

/// Header and manifest for `tensors` and `manifest`, as they begin the file.
static std::string head(const std::vector<model::TensorInfo> &tensors,
                        const std::string &manifestText) {
  return model::writeSafeTensorsHeader(
             tensors,
             {{"format", "gptqm"},
              {"version", std::to_string(GPTQ_MODEL_VERSION)},
              {"manifest_checksum", model::checksumText(model::checksum(
                                        model::ByteSpan::of(manifestText)))}},
             GPTQ_ALIGNMENT) +
         manifestText;
}

ModelFile::ModelFile(StringRef path, model::Manifest m,
                     std::function<void(int64_t, int64_t)> progress)
    : target(path), folder(llvm::sys::path::parent_path(path)),
      manifest(std::move(m)), progress(std::move(progress)) {
  if (folder.empty())
    folder = ".";
  SmallString<128> name(folder);
  llvm::sys::path::append(name, "." + llvm::sys::path::filename(path) +
                                    ".tmp-" + Twine(::getpid()));
  temporary = name.str().str();

  // Checksums have a fixed number of digits: this text has its final length.
  std::string manifestText = model::serializeManifest(manifest);
  uint64_t offset = 0;
  size_t pads = 0;
  auto add = [&](std::string name, uint64_t bytes) {
    tensors.push_back(
        {std::move(name), model::DType::U8, {bytes}, offset, offset + bytes});
    offset += bytes;
  };
  auto addAligned = [&](std::string name, uint64_t bytes) {
    if (uint64_t rest = offset % GPTQ_ALIGNMENT)
      add("pad." + std::to_string(pads++), GPTQ_ALIGNMENT - rest);
    add(std::move(name), bytes);
  };
  addAligned("manifest.json", manifestText.size());
  for (const model::ManifestSection &s : manifest.sections)
    addAligned(s.tensor, s.bytes);
  headBytes = head(tensors, manifestText).size();
  totalBytes = headBytes - manifestText.size() + offset;
}

ModelFile::~ModelFile() {
  if (fd < 0)
    return;
  ::close(fd);
  ::unlink(temporary.c_str());
  llvm::sys::DontRemoveFileOnSignal(temporary);
}

Status ModelFile::failure(const char *verb) const {
  return model::makeStatus(StatusCode::ResourceExhausted, "cannot %s '%s': %s",
                           verb, target.c_str(), std::strerror(errno));
}

Status ModelFile::create() {
  // The file takes its name at the end, and that of a device would be lost.
  struct stat there;
  if (::stat(target.c_str(), &there) == 0 && !S_ISREG(there.st_mode))
    return model::makeStatus(
        StatusCode::InvalidArgument,
        "cannot write '%s': expected a file or none, but found %s",
        target.c_str(),
        S_ISDIR(there.st_mode) ? "a folder" : "a device or pipe");
  struct statvfs disk;
  if (::statvfs(folder.c_str(), &disk) != 0)
    return failure("write");
  if (uint64_t(disk.f_bavail) * disk.f_frsize < uint64_t(totalBytes))
    return model::makeStatus(
        StatusCode::ResourceExhausted,
        "cannot write '%s': it needs %lld MB, the disk has %llu MB left",
        target.c_str(), (long long)(totalBytes / 1'000'000 + 1),
        (unsigned long long)(uint64_t(disk.f_bavail) * disk.f_frsize /
                             1'000'000));
  // The name has our process's number: a file of that name is a leftover.
  ::unlink(temporary.c_str());
  fd = ::open(temporary.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd < 0)
    return failure("create");
  llvm::sys::RemoveFileOnSignal(temporary);
  position = headBytes;
  return {};
}

Status ModelFile::write(model::ByteSpan bytes) {
  while (bytes.size > 0) {
    ssize_t n = ::pwrite(fd, bytes.data, bytes.size, position);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return failure("write");
    bytes.data += n;
    bytes.size -= size_t(n);
    position += n;
  }
  return {};
}

Status ModelFile::append(model::ByteSpan bytes) {
  if (sectionBytes == 0)
    // Fillers are zeros: the file system provides them.
    position = llvm::alignTo(position, GPTQ_ALIGNMENT);
  sum.update(bytes);
  sectionBytes += bytes.size;
  // In pieces, for the sake of whoever watches the progress.
  constexpr size_t piece = 4 << 20;
  while (bytes.size > 0) {
    size_t n = std::min(piece, bytes.size);
    GPTQ_TRY(write({bytes.data, n}));
    bytes.data += n;
    bytes.size -= n;
    if (progress)
      progress(position, totalBytes);
  }
  return {};
}

Status ModelFile::endSection() {
  model::ManifestSection &s = manifest.sections[section++];
  if (sectionBytes != s.bytes)
    return model::makeStatus(StatusCode::InvalidArgument,
                             "section '%s' should have %lld bytes, but %lld "
                             "were produced",
                             s.tensor.c_str(), (long long)s.bytes,
                             (long long)sectionBytes);
  s.checksum = sum.finish();
  sectionBytes = 0;
  return {};
}

Status ModelFile::keep() {
  std::string text = head(tensors, model::serializeManifest(manifest));
  if (int64_t(text.size()) != headBytes || section != manifest.sections.size())
    return Status(StatusCode::InvalidArgument,
                  "the header of '" + target + "' does not fit its place");
  position = 0;
  GPTQ_TRY(write(model::ByteSpan::of(text)));
  if (::ftruncate(fd, totalBytes) != 0 || ::fsync(fd) != 0)
    return failure("write");
  if (::rename(temporary.c_str(), target.c_str()) != 0)
    return failure("rename");
  llvm::sys::DontRemoveFileOnSignal(temporary);
  ::close(fd);
  fd = -1;
  // The name is on disk once its folder is; a file system that cannot sync
  // folders loses nothing but that certainty.
  int dir = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (dir >= 0) {
    ::fsync(dir);
    ::close(dir);
  }
  if (progress)
    progress(totalBytes, totalBytes);
  return {};
}
