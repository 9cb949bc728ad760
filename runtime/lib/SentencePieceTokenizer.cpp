//===- SentencePieceTokenizer.cpp - tokenizer.model -----------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/lib/SentencePieceModel.h"
#include "runtime/lib/SpecialTokens.h"
#include "runtime/lib/Tokenizer.h"

#include <sentencepiece_processor.h>

using namespace gptq::abi;
using namespace gptq::runtime;

/// What SentencePiece writes for a space.
static constexpr std::string_view spaceMark = "\xe2\x96\x81";

namespace {

class SentencePieceTokenizer final : public Tokenizer {
public:
  static Expected<std::unique_ptr<Tokenizer>> read(ByteSpan model) {
    GPTQ_TRY(checkSentencePieceModel(model));
    auto tokenizer = std::make_unique<SentencePieceTokenizer>();
    sentencepiece::util::Status status =
        tokenizer->processor.LoadFromSerializedProto(
            std::string_view(model.text()));
    if (!status.ok())
      return makeStatus(StatusCode::InvalidFile,
                        "tokenizer.model cannot be read: %s",
                        status.error_message());
    for (int id = 0; id < tokenizer->processor.GetPieceSize(); ++id)
      if (tokenizer->processor.IsControl(id))
        tokenizer->special.add(tokenizer->processor.IdToPiece(id), id, {});
    // Decoding drops a space exactly if encoding adds one.
    std::vector<int> ids;
    (void)tokenizer->processor.Encode("a", &ids);
    if (!ids.empty()) {
      const std::string &first = tokenizer->processor.IdToPiece(ids[0]);
      if (first.compare(0, spaceMark.size(), spaceMark) == 0)
        tokenizer->addsSpace = true;
    }
    return std::unique_ptr<Tokenizer>(std::move(tokenizer));
  }

  Status encode(std::string_view text, bool parseSpecial,
                std::vector<int32_t> &out) const override {
    if (!parseSpecial)
      return encodePlain(text, out);
    return special.split(
        text, [&](std::string_view part) { return encodePlain(part, out); },
        [&](int32_t id) { out.push_back(id); });
  }

  void appendBytes(int32_t token, std::string &out) const override {
    if (token < 0 || token >= size() || processor.IsControl(token))
      return;
    if (processor.IsUnknown(token)) {
      // The library's own way to show what it does not know.
      out += " \xe2\x81\x87 ";
      return;
    }
    const std::string &piece = processor.IdToPiece(token);
    if (processor.IsByte(token)) {
      // <0xAB>
      out += char(std::strtol(piece.substr(3, 2).c_str(), nullptr, 16));
      return;
    }
    for (size_t i = 0; i < piece.size();) {
      if (piece.compare(i, spaceMark.size(), spaceMark) == 0) {
        out += ' ';
        i += spaceMark.size();
      } else {
        out += piece[i++];
      }
    }
  }

  int leadingSpaces() const override { return addsSpace ? 1 : 0; }

  std::string name(int32_t token) const override {
    return token >= 0 && token < size() ? processor.IdToPiece(token) : "";
  }

  int64_t size() const override { return processor.GetPieceSize(); }

private:
  Status encodePlain(std::string_view text, std::vector<int32_t> &out) const {
    if (text.empty())
      return {};
    std::vector<int> ids;
    sentencepiece::util::Status status = processor.Encode(text, &ids);
    if (!status.ok())
      return makeStatus(StatusCode::InvalidArgument,
                        "the text cannot be encoded: %s",
                        status.error_message());
    out.insert(out.end(), ids.begin(), ids.end());
    return {};
  }

  sentencepiece::SentencePieceProcessor processor;
  SpecialTokens special;
  bool addsSpace = false;
};

} // namespace

Expected<std::unique_ptr<Tokenizer>>
gptq::runtime::readSentencePiece(ByteSpan model) {
  return SentencePieceTokenizer::read(model);
}
