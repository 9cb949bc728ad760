//===- TokenizerModelFuzzer.cpp - Feeds the reader of tokenizer.model -----===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// SentencePiece is not built for fuzzing, so only what it does to memory it
// does not own, its exceptions and its aborts show.
//
//===----------------------------------------------------------------------===//

#include "runtime/lib/Tokenizer.h"

#include <algorithm>

using namespace gptq::abi;
using namespace gptq::runtime;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  Expected<std::unique_ptr<Tokenizer>> tokenizer =
      readSentencePiece({data, size});
  if (!tokenizer)
    return 0;
  // The file's own bytes as text reach its pieces and its character map.
  std::string own(reinterpret_cast<const char *>(data),
                  std::min<size_t>(size, 2048));
  for (std::string_view text :
       {std::string_view(own),
        std::string_view("It's  1234 caf\xc3\xa9\n\xf0\x9f\x98\x80 <s>"
                         "\xef\xbc\xa1\xef\xb7\xba\xe3\x80\x80"
                         "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                         "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
        std::string_view("\0\xff\xc3", 3)}) {
    std::vector<int32_t> ids;
    (void)(*tokenizer)->encode(text, true, ids);
    StreamDecoder decoder(**tokenizer);
    for (int32_t id : ids)
      (void)decoder.push(id);
    (void)decoder.push(-1);
    (void)decoder.push(INT32_MAX);
    (void)decoder.finish();
  }
  return 0;
}
