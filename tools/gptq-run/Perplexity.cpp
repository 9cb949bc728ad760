//===- Perplexity.cpp - The loss of a text --------------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Modes.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

using namespace gptq::run;

/// -log p of `token`, in float64.
static double loss(const float *logits, int64_t vocab, int32_t token) {
  double top = *std::max_element(logits, logits + vocab), sum = 0;
  for (int64_t i = 0; i < vocab; ++i)
    sum += std::exp(double(logits[i]) - top);
  return std::log(sum) + top - double(logits[token]);
}

int gptq::run::perplexity(gptq_model *model, const std::string &path,
                          const PerplexityOptions &options, Stats &stats) {
  gptq_model_info info = infoOf(model);
  if (!info.is_language_model || !info.has_score)
    throw Error("perplexity needs a language model with the entry 'score'");
  int64_t window = options.window ? options.window
                                  : std::min<int64_t>(info.max_context, 512);
  if (window < 2 || window > info.max_context)
    throw Error("expected a window of 2 to " +
                std::to_string(info.max_context) + " tokens, found " +
                std::to_string(window));
  size_t bosCount = 0;
  const int32_t *bosIds = gptq_model_bos_ids(model, &bosCount);
  std::string bos = options.bos;
  if (bos.empty())
    bos = info.add_bos ? "window" : "none";
  if (bos != "none" && bosCount == 0)
    throw Error("the model has no start token; use --perplexity-bos none");

  std::string text = readFile(path);
  // A share of the characters, not of the bytes, so that no character is cut.
  size_t characters = 0, start = 0;
  for (char c : text)
    characters += (c & 0xc0) != 0x80;
  size_t skip = size_t(double(characters) * options.from);
  for (; start < text.size() && skip > 0; --skip)
    do
      ++start;
    while (start < text.size() && (text[start] & 0xc0) == 0x80);
  std::vector<int32_t> tokens =
      encode(model, std::string_view(text).substr(start), /*addBos=*/false,
             /*parseSpecial=*/false);
  bool bosEachWindow = bos == "window";
  if (bos == "text")
    tokens.insert(tokens.begin(), bosIds[0]);

  int64_t content = window - (bosEachWindow ? 1 : 0);
  int64_t stride = options.stride ? options.stride : content;
  if (stride < 1 || stride > content)
    throw Error("expected a stride of 1 to " + std::to_string(content) +
                " tokens, found " + std::to_string(stride));

  SessionPtr session = createSession(model);
  std::vector<float> logits(size_t(window * info.vocab_size));
  std::vector<int32_t> ids;
  double sum = 0;
  int64_t predicted = 0, windows = 0;
  // Tokens before this one have been predicted already.
  int64_t scored = 0, total = int64_t(tokens.size());
  Stopwatch watch;
  for (int64_t at = 0; at < total && !isInterrupted(); at += stride) {
    if (options.maxWindows && windows == options.maxWindows)
      break;
    int64_t end = std::min(at + content, total);
    ids.clear();
    if (bosEachWindow)
      ids.push_back(bosIds[0]);
    ids.insert(ids.end(), tokens.begin() + at, tokens.begin() + end);
    if (ids.size() < 2)
      break;
    check([&](gptq_error *e) {
      return gptq_session_rewind(session.get(), 0, e);
    });
    // The last token predicts nothing that is known.
    int64_t count = int64_t(ids.size()) - 1;
    check([&](gptq_error *e) {
      return gptq_session_score(session.get(), ids.data(), count, logits.data(),
                                e);
    });
    for (int64_t i = 0; i < count; ++i) {
      int64_t position = at + i + (bosEachWindow ? 0 : 1);
      if (position < scored)
        continue;
      sum += loss(logits.data() + i * info.vocab_size, info.vocab_size,
                  ids[size_t(i) + 1]);
      ++predicted;
    }
    stats.prefillTokens += count;
    scored = end;
    ++windows;
    if (end == total)
      break;
  }
  stats.prefillSeconds += watch.seconds();
  if (predicted == 0 && isInterrupted())
    return interruptedStatus;
  if (predicted == 0)
    throw Error("'" + path + "' has too few tokens to predict one");
  std::printf("text:       %s, from %.4g of its characters, %lld tokens\n",
              path.c_str(), options.from, (long long)total);
  std::printf("method:     %lld windows of %lld tokens, stride %lld, start "
              "token %s, every token scored once\n",
              (long long)windows, (long long)window, (long long)stride,
              bosEachWindow   ? "at each window's start"
              : bos == "text" ? "once at the text's start"
                              : "nowhere");
  std::printf("predicted:  %lld tokens\n", (long long)predicted);
  std::printf("loss:       %.5f nats/token\n", sum / predicted);
  std::printf("perplexity: %.5f\n", std::exp(sum / predicted));
  return isInterrupted() ? interruptedStatus : 0;
}
