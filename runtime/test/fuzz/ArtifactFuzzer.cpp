//===- ArtifactFuzzer.cpp - Feeds the loader of compiled models -----------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The input is read as a whole file, as the machine code in one, and, because
// no fuzzer guesses checksums, as the manifest of files that are otherwise
// sound: one with code for a processor, one with code for a GPU.
//
//===----------------------------------------------------------------------===//

#include "runtime/abi/Checksum.h"
#include "runtime/abi/SafeTensors.h"
#include "runtime/lib/Device.h"
#include "runtime/lib/Elf.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <elf.h>

using namespace gptq::abi;
using namespace gptq::runtime;

/// Reads a file at an address the loader takes, and whatever it leads to
/// short of running code.
static void read(const std::string &file) {
  size_t bytes = (file.size() + 63) / 64 * 64 + 64;
  uint8_t *copy = static_cast<uint8_t *>(std::aligned_alloc(64, bytes));
  std::memcpy(copy, file.data(), file.size());
  if (Expected<Artifact> artifact = readArtifact({copy, file.size()})) {
    (void)verifyArtifact(*artifact, 1);
    // The promises of a checked manifest: no overflow, nothing out of bounds.
    for (const ManifestEntry &entry : artifact->manifest.entries)
      for (const ManifestDispatch &dispatch : entry.dispatches) {
        for (const ManifestVariant &variant : dispatch.variants)
          if (variant.workgroups(entry.maxM, 0) < 0 ||
              &variantFor(dispatch, entry.maxM) >= &*dispatch.variants.end())
            std::abort();
        for (const ManifestArgument &arg : dispatch.args)
          if (arg.kind == ManifestArgument::Kind::Arena &&
              arg.offset + arg.sizeBase + arg.sizePerRow * entry.maxM >
                  entry.arenaBytes)
            std::abort();
      }
  }
  std::free(copy);
}

/// A file whose manifest is `input` and whose code is the tensor `codeName`.
static std::string fileWith(const std::string &input, const char *codeName) {
  const size_t size = input.size();
  ByteSpan span = ByteSpan::of(input);
  uint64_t code = (size + 63) / 64 * 64;
  std::vector<TensorInfo> tensors = {
      {"manifest.json", DType::U8, {size}, 0, size}};
  if (code > size)
    tensors.push_back({"pad.0", DType::U8, {code - size}, size, code});
  tensors.push_back({codeName, DType::U8, {64}, code, code + 64});
  tensors.push_back({"w.0", DType::U8, {64}, code + 64, code + 128});
  std::string file = writeSafeTensorsHeader(
      tensors,
      {{"format", "gptqm"},
       {"version", "1"},
       {"manifest_checksum", checksumText(checksum(span))}},
      64);
  file += input;
  file.resize(file.size() + (code - size) + 128);
  return file;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  std::string input(reinterpret_cast<const char *>(data), size);
  read(input);
  read(fileWith(input, "code.elf"));
  read(fileWith(input, "code.ptx"));
  for (uint16_t type : {ET_DYN, ET_EXEC})
    (void)checkElf({data, size}, "code", type);
  return 0;
}
