//===- Tokenizer.cpp - Which tokenizer a checkpoint brings ----------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "lib/Import/Tokenizer.h"
#include "lib/Import/Checkpoint.h"
#include "llvm/Support/ConvertUTF.h"

using namespace mlir::gptq;
using abi::JsonView;
using abi::Status;
using abi::StatusCode;
using llvm::StringRef;

/// The template in tokenizer_config.json: a text, or a list of named ones of
/// which "default" is meant.
static abi::Expected<std::string> readChatTemplate(const JsonView &config) {
  std::optional<JsonView> value = config.find("chat_template");
  if (!value || value->raw().is_null())
    return std::string();
  if (!value->raw().is_array())
    return value->string();
  GPTQ_ASSIGN(std::vector<JsonView> elements, value->elements());
  for (const JsonView &element : elements) {
    GPTQ_ASSIGN(JsonView nameView, element.at("name"));
    GPTQ_ASSIGN(std::string name, nameView.string());
    if (name != "default")
      continue;
    GPTQ_ASSIGN(JsonView text, element.at("template"));
    return text.string();
  }
  return std::string();
}

abi::Expected<TokenizerInfo> mlir::gptq::readTokenizer(Folder &folder,
                                                       bool addBos) {
  TokenizerInfo info;
  info.addBos = addBos;
  if (folder.exists("tokenizer.model")) {
    GPTQ_ASSIGN(abi::ByteSpan bytes, folder.read("tokenizer.model"));
    // A list of base64 ranks, a text, goes by this name, too; a SentencePiece
    // model starts with its first piece, field 1 of a protocol buffer.
    const bool isText =
        bytes.size > 0 &&
        llvm::all_of(
            llvm::ArrayRef(bytes.data, std::min<size_t>(bytes.size, 64)),
            [](uint8_t c) { return c == '\n' || (c >= ' ' && c < 127); });
    if (bytes.size > 0 && bytes.data[0] == 0x0A) {
      info.kind = "sentencepiece";
      info.files.push_back("tokenizer.model");
    } else if (!isText) {
      return abi::makeStatus(abi::StatusCode::InvalidFile,
                             "tokenizer.model: expected a SentencePiece model "
                             "or a list of ranks, found %zu bytes of neither",
                             bytes.size);
    }
  }
  if (info.kind == "none" && folder.exists("tokenizer.json")) {
    info.kind = "bpe";
    info.files.push_back("tokenizer.json");
  }

  if (folder.exists("tokenizer_config.json")) {
    GPTQ_ASSIGN(abi::Json document,
                readJsonObject(folder, "tokenizer_config.json"));
    JsonView config(document, "tokenizer_config.json");
    if (info.kind != "none")
      info.files.push_back("tokenizer_config.json");
    std::optional<JsonView> add = config.find("add_bos_token");
    if (add && !add->raw().is_null()) {
      GPTQ_ASSIGN(info.addBos, add->boolean());
    }
    GPTQ_ASSIGN(info.chatTemplate, readChatTemplate(config));
  }
  // Where both exist, writers keep the separate file up to date.
  if (folder.exists("chat_template.jinja")) {
    GPTQ_ASSIGN(abi::ByteSpan bytes, folder.read("chat_template.jinja"));
    info.chatTemplate = std::string(bytes.text());
  }
  constexpr size_t maxBytes = size_t(1) << 20;
  if (info.chatTemplate.size() > maxBytes)
    return abi::makeStatus(StatusCode::InvalidFile,
                           "chat template has %zu bytes, expected at most %zu",
                           info.chatTemplate.size(), maxBytes);
  const auto *text =
      reinterpret_cast<const llvm::UTF8 *>(info.chatTemplate.data());
  if (!llvm::isLegalUTF8String(&text, text + info.chatTemplate.size()))
    return abi::makeStatus(StatusCode::InvalidFile,
                           "chat_template.jinja: expected UTF-8 text");
  return info;
}
