//===- ModelWriter.cpp - Writes a compiled model --------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/abi/ModelWriter.h"

#include "runtime/abi/Checksum.h"
#include "runtime/abi/KernelABI.h"
#include "runtime/abi/SafeTensors.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

using namespace gptq::abi;

namespace {

/// A file that exists under a temporary name until it is kept.
class TemporaryFile {
public:
  explicit TemporaryFile(const std::string &target)
      : target(target), name(target + ".XXXXXX") {
    fd = ::mkostemp(name.data(), O_CLOEXEC);
  }
  ~TemporaryFile() {
    if (fd < 0)
      return;
    ::close(fd);
    if (!isKept)
      ::unlink(name.c_str());
  }

  Status write(ByteSpan bytes) {
    if (fd < 0)
      return failure("create");
    while (bytes.size > 0) {
      ssize_t n = ::write(fd, bytes.data, bytes.size);
      if (n < 0 && errno == EINTR)
        continue;
      if (n <= 0)
        return failure("write");
      bytes.data += n;
      bytes.size -= size_t(n);
    }
    return {};
  }

  /// Syncs the file and gives it its name.
  Status keep() {
    // mkostemp makes the file private; a model is as readable as any file.
    mode_t mask = ::umask(0);
    ::umask(mask);
    if (::fchmod(fd, 0666 & ~mask) != 0 || ::fsync(fd) != 0)
      return failure("sync");
    if (::rename(name.c_str(), target.c_str()) != 0)
      return failure("rename");
    isKept = true;
    // The name itself is on disk once its folder is; a file system that
    // cannot sync folders loses nothing but that certainty.
    size_t slash = target.rfind('/');
    std::string folder =
        slash == std::string::npos ? "." : target.substr(0, slash + 1);
    int dir = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir >= 0) {
      ::fsync(dir);
      ::close(dir);
    }
    return {};
  }

private:
  Status failure(const char *verb) const {
    return makeStatus(StatusCode::ResourceExhausted, "cannot %s '%s': %s", verb,
                      target.c_str(), std::strerror(errno));
  }

  std::string target;
  std::string name;
  int fd = -1;
  bool isKept = false;
};

} // namespace

Status gptq::abi::writeModel(const std::string &path, Manifest manifest,
                             const std::vector<ModelSection> &sections) {
  manifest.sections.clear();
  for (const ModelSection &s : sections)
    manifest.sections.push_back(
        {s.tensor, int64_t(s.bytes.size), checksum(s.bytes)});
  GPTQ_TRY(checkManifest(manifest));
  std::string manifestText = serializeManifest(manifest);

  // The manifest first: a reader that only inspects touches few pages.
  std::vector<ModelSection> all = {
      {"manifest.json", ByteSpan::of(manifestText)}};
  all.insert(all.end(), sections.begin(), sections.end());

  std::vector<TensorInfo> tensors;
  std::vector<ByteSpan> spans;
  static const uint8_t zeros[GPTQ_ALIGNMENT] = {};
  uint64_t offset = 0;
  size_t pads = 0;
  auto append = [&](std::string name, ByteSpan bytes) {
    tensors.push_back({std::move(name),
                       DType::U8,
                       {bytes.size},
                       offset,
                       offset + bytes.size});
    spans.push_back(bytes);
    offset += bytes.size;
  };
  for (const ModelSection &s : all) {
    if (uint64_t rest = offset % GPTQ_ALIGNMENT)
      append("pad." + std::to_string(pads++), {zeros, GPTQ_ALIGNMENT - rest});
    append(s.tensor, s.bytes);
  }

  TemporaryFile file(path);
  GPTQ_TRY(file.write(ByteSpan::of(writeSafeTensorsHeader(
      tensors,
      {{"format", "gptqm"},
       {"version", std::to_string(GPTQ_MODEL_VERSION)},
       {"manifest_checksum",
        checksumText(checksum(ByteSpan::of(manifestText)))}},
      GPTQ_ALIGNMENT))));
  for (ByteSpan span : spans)
    GPTQ_TRY(file.write(span));
  return file.keep();
}
