//===- TokenizerJsonFuzzer.cpp - Feeds the reader of tokenizer.json -------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/lib/Tokenizer.h"

using namespace gptq::abi;
using namespace gptq::runtime;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  Expected<std::unique_ptr<Tokenizer>> tokenizer =
      readTokenizerJson({data, size});
  if (!tokenizer)
    return 0;
  std::vector<int32_t> ids;
  (void)(*tokenizer)
      ->encode("It's  1234 caf\xc3\xa9\n\xf0\x9f\x98\x80 <s>", true, ids);
  StreamDecoder decoder(**tokenizer);
  for (int32_t id : ids)
    (void)decoder.push(id);
  (void)decoder.push(-1);
  (void)decoder.push(INT32_MAX);
  (void)decoder.finish();
  return 0;
}
