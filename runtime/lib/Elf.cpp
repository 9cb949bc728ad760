//===- Elf.cpp - Checks files of machine code -----------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/lib/Elf.h"

#include <cstring>
#include <elf.h>

using namespace gptq::abi;
using namespace gptq::runtime;

/// Checks that `bytes` from `offset` on are inside of `file`.
static bool isInside(ByteSpan file, uint64_t offset, uint64_t bytes) {
  return offset <= file.size && bytes <= file.size - offset;
}

static Status endsBehind(ByteSpan file, const char *name, const char *part) {
  return makeStatus(StatusCode::InvalidFile,
                    "%s has %zu bytes, but its %s ends behind them", name,
                    file.size, part);
}

Status gptq::runtime::checkElf(ByteSpan file, const char *name, uint16_t type) {
  Elf64_Ehdr header;
  if (file.size < sizeof(header) ||
      std::memcmp(file.data, ELFMAG, SELFMAG) != 0)
    return makeStatus(StatusCode::InvalidFile,
                      "%s is not an ELF file (%zu bytes)", name, file.size);
  std::memcpy(&header, file.data, sizeof(header));
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_type != type)
    return makeStatus(StatusCode::InvalidFile, "%s is not a 64-bit %s", name,
                      type == ET_DYN ? "shared object" : "executable");
  if ((header.e_phnum && header.e_phentsize != sizeof(Elf64_Phdr)) ||
      (header.e_shoff && header.e_shentsize != sizeof(Elf64_Shdr)))
    return makeStatus(StatusCode::InvalidFile,
                      "%s has segments of %u and sections of %u bytes in its "
                      "tables, expected %zu and %zu",
                      name, header.e_phentsize, header.e_shentsize,
                      sizeof(Elf64_Phdr), sizeof(Elf64_Shdr));

  if (!isInside(file, header.e_phoff,
                uint64_t(header.e_phnum) * sizeof(Elf64_Phdr)))
    return endsBehind(file, name, "table of segments");
  for (unsigned i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr segment;
    std::memcpy(&segment, file.data + header.e_phoff + i * sizeof(segment),
                sizeof(segment));
    if (!isInside(file, segment.p_offset, segment.p_filesz))
      return endsBehind(file, name, ("segment " + std::to_string(i)).c_str());
  }

  uint64_t sections = header.e_shnum;
  if (header.e_shoff && sections == 0) {
    // More than the header can say: the first section says how many.
    Elf64_Shdr first;
    if (!isInside(file, header.e_shoff, sizeof(first)))
      return endsBehind(file, name, "table of sections");
    std::memcpy(&first, file.data + header.e_shoff, sizeof(first));
    sections = first.sh_size;
  }
  if (sections > file.size / sizeof(Elf64_Shdr) ||
      !isInside(file, header.e_shoff, sections * sizeof(Elf64_Shdr)))
    return endsBehind(file, name, "table of sections");
  for (uint64_t i = 0; i < sections; ++i) {
    Elf64_Shdr section;
    std::memcpy(&section, file.data + header.e_shoff + i * sizeof(section),
                sizeof(section));
    if (section.sh_type != SHT_NOBITS && section.sh_type != SHT_NULL &&
        !isInside(file, section.sh_offset, section.sh_size))
      return endsBehind(file, name, ("section " + std::to_string(i)).c_str());
  }
  return {};
}
