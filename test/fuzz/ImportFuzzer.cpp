//===- ImportFuzzer.cpp - Imports folders nobody vouches for --------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

//
// The input is a folder: files one after another, each with four bytes in front
// of its content,
//
//   | byte | content                                                      |
//   | ---- | ------------------------------------------------------------ |
//   | 0    | which file of `fileNames`                                    |
//   | 1–3  | its length, little-endian; the last file may be cut short    |
//
// A folder with an odd number of files in front of its first model.safetensors
// is imported as the lone layer "layer".
//
//===----------------------------------------------------------------------===//

#include "gptq/Import/Import.h"
#include "gptq/Import/Inspect.h"
#include "mlir/IR/Diagnostics.h"
#include "mlir/IR/MLIRContext.h"

#include <algorithm>
#include <cstdlib>

using namespace mlir;
using namespace mlir::gptq;

static constexpr const char *fileNames[] = {"config.json",
                                            "model.safetensors",
                                            "quantize_config.json",
                                            "model.safetensors.index.json",
                                            "a.safetensors",
                                            "b.safetensors",
                                            "generation_config.json",
                                            "tokenizer_config.json",
                                            "tokenizer.model",
                                            "chat_template.jinja"};

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
  if (runs++ % 512 == 0) {
    context = std::make_unique<MLIRContext>(MLIRContext::Threading::DISABLED);
    context->getDiagEngine().registerHandler([](Diagnostic &) {});
  }

  MemoryFolder folder("fuzz");
  ImportOptions options;
  unsigned filesBefore = 0;
  while (size > 4) {
    const char *name = fileNames[data[0] % std::size(fileNames)];
    size_t length = data[1] | data[2] << 8 | size_t(data[3]) << 16;
    data += 4;
    size -= 4;
    length = std::min(length, size);
    if (StringRef(name) == "model.safetensors" && filesBefore % 2)
      options.layer = "layer";
    folder.add(name, std::string(reinterpret_cast<const char *>(data), length));
    ++filesBefore;
    data += length;
    size -= length;
  }
  std::string error;
  OwningOpRef<ModuleOp> module =
      importCheckpoint(folder, options, context.get(), error);
  // Either a module or a reason, and never a module that does not verify.
  if (bool(module) != error.empty() ||
      error == "'fuzz' was read, but the result does not verify")
    std::abort();
  // Describing reads every code that a module could be made of.
  (void)inspectCheckpoint(folder, /*verify=*/true, context.get());
  return 0;
}
