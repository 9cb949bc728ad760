//===- ChatTemplate.h - Renders messages as a model was trained on *- C++
//-*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_RUNTIME_LIB_CHATTEMPLATE_H
#define GPTQ_RUNTIME_LIB_CHATTEMPLATE_H

#include "runtime/abi/Status.h"

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace gptq::runtime {

struct ChatMessage {
  std::string role;
  std::string content;
};

/// A parsed Jinja template. Understands the part of the language that chat
/// templates of language models use; anything else is refused by name. Time
/// and output of a rendering are bounded.
class ChatTemplate {
public:
  static abi::Expected<ChatTemplate> parse(std::string_view source);

  ChatTemplate(ChatTemplate &&) noexcept;
  ChatTemplate &operator=(ChatTemplate &&) noexcept;
  ~ChatTemplate();

  abi::Expected<std::string> render(const std::vector<ChatMessage> &messages,
                                    bool addGenerationPrompt,
                                    const std::string &bosToken,
                                    const std::string &eosToken) const;

private:
  struct Impl;
  explicit ChatTemplate(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl;
};

} // namespace gptq::runtime

#endif // GPTQ_RUNTIME_LIB_CHATTEMPLATE_H
