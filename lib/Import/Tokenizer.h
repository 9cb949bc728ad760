//===- Tokenizer.h - Which tokenizer a checkpoint brings --------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_LIB_IMPORT_TOKENIZER_H
#define GPTQ_LIB_IMPORT_TOKENIZER_H

#include "gptq/Import/Folder.h"

namespace mlir::gptq {

struct TokenizerInfo {
  /// "sentencepiece", "bpe" or "none".
  std::string kind = "none";
  /// Its files, the one that defines it first.
  std::vector<std::string> files;
  /// The Jinja text of the chat template, or empty.
  std::string chatTemplate;
  bool addBos = false;
};

/// Looks at the tokenizer's files; `addBos` where they do not say.
abi::Expected<TokenizerInfo> readTokenizer(Folder &folder, bool addBos);

} // namespace mlir::gptq

#endif // GPTQ_LIB_IMPORT_TOKENIZER_H
