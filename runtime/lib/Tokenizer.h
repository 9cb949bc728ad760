//===- Tokenizer.h - Text to tokens and back --------------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_RUNTIME_LIB_TOKENIZER_H
#define GPTQ_RUNTIME_LIB_TOKENIZER_H

#include "runtime/abi/Status.h"

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace gptq::runtime {

/// Immutable once made; usable from several threads.
class Tokenizer {
public:
  virtual ~Tokenizer() = default;

  /// Appends the tokens of `text`, without a start token.
  virtual abi::Status encode(std::string_view text, bool parseSpecial,
                             std::vector<int32_t> &out) const = 0;

  /// Appends the bytes `token` stands for; special tokens stand for none.
  /// Bytes of several tokens may make up one character.
  virtual void appendBytes(int32_t token, std::string &out) const = 0;

  /// Spaces that encoding puts in front of a text and decoding takes away.
  virtual int leadingSpaces() const = 0;

  /// The token's own name, e.g. `<s>`; empty if there is no such token.
  virtual std::string name(int32_t token) const = 0;

  /// Number of ids, the largest id plus one.
  virtual int64_t size() const = 0;
};

/// Reads a `tokenizer.model` of SentencePiece.
abi::Expected<std::unique_ptr<Tokenizer>>
readSentencePiece(abi::ByteSpan model);

/// Reads a `tokenizer.json` that describes a BPE model.
abi::Expected<std::unique_ptr<Tokenizer>> readTokenizerJson(abi::ByteSpan json);

/// Turns tokens into valid UTF-8 as they come. A character whose last bytes
/// may still come is held back; bytes that can be no character become U+FFFD.
class StreamDecoder {
public:
  explicit StreamDecoder(const Tokenizer &tokenizer);

  /// The text that `token` made certain.
  std::string push(int32_t token);
  /// What was held back; starts over.
  std::string finish();

private:
  const Tokenizer &tokenizer;
  int spacesToDrop;
  std::string held;
};

/// Bytes at the start of `text` that are complete, and what they read as:
/// appends them to `out` as valid UTF-8. With `isFinal`, all of `text`.
size_t appendValidUtf8(std::string_view text, bool isFinal, std::string &out);

} // namespace gptq::runtime

#endif // GPTQ_RUNTIME_LIB_TOKENIZER_H
