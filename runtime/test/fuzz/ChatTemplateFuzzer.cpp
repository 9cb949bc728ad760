//===- ChatTemplateFuzzer.cpp - Feeds the interpreter of chat templates ---===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/lib/ChatTemplate.h"

using namespace gptq::abi;
using namespace gptq::runtime;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  Expected<ChatTemplate> chat =
      ChatTemplate::parse(ByteSpan{data, size}.text());
  if (chat)
    (void)chat->render({{"system", "Be good."},
                        {"user", "Hi"},
                        {"assistant", "<think>a</think>b"},
                        {"user", "Bye"}},
                       true, "<s>", "</s>");
  return 0;
}
