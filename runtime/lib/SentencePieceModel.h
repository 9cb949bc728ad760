//===- SentencePieceModel.h - Checks a tokenizer.model ----------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_RUNTIME_LIB_SENTENCEPIECEMODEL_H
#define GPTQ_RUNTIME_LIB_SENTENCEPIECEMODEL_H

#include "runtime/abi/Status.h"

namespace gptq::runtime {

/// Checks everything about a `tokenizer.model` that the SentencePiece library
/// takes on trust. What passes can be given to the library and used.
abi::Status checkSentencePieceModel(abi::ByteSpan model);

} // namespace gptq::runtime

#endif // GPTQ_RUNTIME_LIB_SENTENCEPIECEMODEL_H
