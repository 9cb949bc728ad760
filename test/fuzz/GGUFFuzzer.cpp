//===- GGUFFuzzer.cpp - Imports GGUF files nobody vouches for -------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The input is a GGUF file, or two parts of one: the first, then the second,
// with the length of the first in front, four bytes, little-endian, the highest
// bit set.
//
//===----------------------------------------------------------------------===//

#include "gptq/Import/Import.h"
#include "gptq/Import/Inspect.h"
#include "mlir/IR/Diagnostics.h"
#include "mlir/IR/MLIRContext.h"
#include "llvm/Support/Endian.h"

#include <algorithm>
#include <cstdlib>

using namespace mlir;
using namespace mlir::gptq;

// LLVM's allocators and containers are compiled partly here, with annotations
// for the sanitizer, and partly in its shared libraries, without them.
extern "C" const char *__asan_default_options() {
  return "allow_user_poisoning=0:detect_container_overflow=0";
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  // A context keeps every attribute it has seen; a fresh one now and then
  // bounds that.
  static std::unique_ptr<MLIRContext> context;
  static unsigned runs = 0;
  if (runs++ % 256 == 0) {
    context = std::make_unique<MLIRContext>(MLIRContext::Threading::DISABLED);
    context->getDiagEngine().registerHandler([](Diagnostic &) {});
  }

  auto folder = std::make_unique<MemoryFolder>("fuzz");
  std::string first = "m-00001-of-00002.gguf";
  auto text = [](const uint8_t *data, size_t size) {
    return std::string(reinterpret_cast<const char *>(data), size);
  };
  if (size > 4 && data[3] >> 7) {
    const uint32_t length = llvm::support::endian::read32le(data) & 0x7FFFFFFF;
    const size_t split = std::min<size_t>(length, size - 4);
    folder->add(first, text(data + 4, split));
    folder->add("m-00002-of-00002.gguf",
                text(data + 4 + split, size - 4 - split));
  } else {
    folder->add(first, text(data, size));
  }
  auto opened = openGGUF(std::move(folder), first);
  if (!opened)
    return 0;
  std::string error;
  OwningOpRef<ModuleOp> module =
      importCheckpoint(**opened, {}, context.get(), error);
  // Either a module or a reason, and never a module that does not verify.
  if (bool(module) != error.empty() ||
      error == "'fuzz' was read, but the result does not verify")
    std::abort();
  // Describing reads every code that a module could be made of.
  (void)inspectCheckpoint(**opened, /*verify=*/true, context.get());
  return 0;
}
