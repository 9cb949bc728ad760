//===- CodeObject.cpp - A model's machine code ----------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/lib/CodeObject.h"

#include "runtime/lib/Elf.h"

#include <cerrno>
#include <cstring>
#include <dlfcn.h>
#include <elf.h>
#include <sys/mman.h>
#include <unistd.h>

using namespace gptq::abi;
using namespace gptq::runtime;

Expected<CodeObject> CodeObject::load(ByteSpan elf) {
  // A page past the end of a file is a bus error.
  GPTQ_TRY(checkElf(elf, "code.elf", ET_DYN));
  CodeObject object;
  object.fd = ::memfd_create("gptq-code", MFD_CLOEXEC);
  if (object.fd < 0)
    return makeStatus(StatusCode::ResourceExhausted,
                      "cannot make memory for the model's code: %s",
                      std::strerror(errno));
  for (ByteSpan rest = elf; rest.size > 0;) {
    ssize_t n = ::write(object.fd, rest.data, rest.size);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return makeStatus(StatusCode::ResourceExhausted,
                        "cannot hold %zu bytes of the model's code: %s",
                        elf.size, std::strerror(errno));
    rest.data += n;
    rest.size -= size_t(n);
  }
  std::string path = "/proc/self/fd/" + std::to_string(object.fd);
  object.handle = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!object.handle) {
    const char *reason = ::dlerror();
    return makeStatus(StatusCode::InvalidFile, "cannot load code.elf: %s",
                      reason ? reason : "unknown reason");
  }
  return object;
}

CodeObject::~CodeObject() {
  if (handle)
    ::dlclose(handle);
  if (fd >= 0)
    ::close(fd);
}

Expected<gptq_cpu_kernel> CodeObject::find(const std::string &symbol) const {
  void *address = ::dlsym(handle, symbol.c_str());
  if (!address)
    return makeStatus(StatusCode::InvalidFile,
                      "code.elf does not export the kernel '%s'",
                      symbol.c_str());
  return reinterpret_cast<gptq_cpu_kernel>(address);
}
