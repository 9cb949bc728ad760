//===- Generate.cpp - Text, logits and lone functions ---------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Modes.h"

#include "runtime/lib/Npy.h"

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <unistd.h>

using namespace gptq::run;
using gptq::runtime::NpyArray;

static int64_t maxRows(const gptq_model *model, const char *entryName) {
  gptq_model_info info = infoOf(model);
  for (size_t i = 0; i < info.entry_count; ++i) {
    gptq_entry_info entry;
    check([&](gptq_error *e) {
      return gptq_model_get_entry(model, i, &entry, e);
    });
    if (std::string_view(entry.name) == entryName)
      return entry.max_rows;
  }
  return 1;
}

/// Feeds tokens in parts, so that Ctrl-C is noticed between them.
static void evalTokens(gptq_model *model, gptq_session *session,
                       const std::vector<int32_t> &tokens, Stats &stats) {
  Stopwatch watch;
  int64_t part = maxRows(model, "generate"), count = int64_t(tokens.size());
  for (int64_t at = 0; at < count && !isInterrupted(); at += part) {
    int64_t rows = std::min(part, count - at);
    check([&](gptq_error *e) {
      return gptq_session_eval(session, tokens.data() + at, rows, e);
    });
    stats.prefillTokens += rows;
  }
  stats.prefillSeconds += watch.seconds();
}

namespace {

/// Writes text as it comes, but for as long as it may be the start of a stop
/// text keeps it back.
class StopFilter {
public:
  explicit StopFilter(const std::vector<std::string> &stops) : stops(stops) {}

  /// Returns true once a stop text has appeared; it is not written.
  bool push(std::string_view text) {
    held += text;
    size_t cut = std::string::npos;
    for (const std::string &stop : stops)
      cut = std::min(cut, held.find(stop));
    if (cut != std::string::npos) {
      write(cut);
      held.clear();
      return true;
    }
    size_t keep = 0;
    for (const std::string &stop : stops)
      for (size_t n = std::min(stop.size() - 1, held.size()); n > keep; --n)
        if (held.compare(held.size() - n, n, stop, 0, n) == 0)
          keep = n;
    write(held.size() - keep);
    return false;
  }
  void flush() { write(held.size()); }
  bool endsLine() const { return last == '\n'; }

private:
  void write(size_t bytes) {
    if (bytes == 0)
      return;
    std::fwrite(held.data(), 1, bytes, stdout);
    std::fflush(stdout);
    last = held[bytes - 1];
    held.erase(0, bytes);
  }

  const std::vector<std::string> &stops;
  std::string held;
  char last = '\n';
};

} // namespace

/// Who chooses tokens, and why not the device.
static std::string chosenBy(const gptq_model_info &info,
                            const gptq_sampling &sampling, bool deviceChooses) {
  if (deviceChooses)
    return "the device";
  if (info.max_top_k == 0 || sampling.temperature == 0)
    return "the host: the model was compiled without the entry that does";
  return "the host: the device needs a top-k of 1 to " +
         std::to_string(info.max_top_k);
}

/// Generates from the session's last logits until a stop; returns the tokens
/// made, without the one that ended the text.
static std::vector<int32_t>
continueText(gptq_model *model, gptq_session *session, gptq_sampler *sampler,
             Printer *printer, StopFilter &filter,
             const GenerateOptions &options, Stats &stats) {
  gptq_model_info info = infoOf(model);
  size_t eosCount = 0;
  const int32_t *eos = gptq_model_eos_ids(model, &eosCount);
  std::vector<int32_t> made;
  const bool deviceChooses = gptq_model_chooses(model, sampler);
  stats.chosenBy = chosenBy(info, options.sampling, deviceChooses);
  int32_t token = 0;
  Stopwatch watch;
  while (int64_t(made.size()) < options.maxTokens && !isInterrupted()) {
    if (!deviceChooses || made.empty())
      token =
          gptq_sampler_pick(sampler, gptq_session_logits(session),
                            info.vocab_size, gptq_session_position(session));
    if (!options.ignoreEos &&
        std::find(eos, eos + eosCount, token) != eos + eosCount)
      break;
    made.push_back(token);
    if (printer) {
      if (filter.push(printer->push(token)))
        break;
    } else {
      std::printf("%s%d", made.size() > 1 ? "," : "", token);
      std::fflush(stdout);
    }
    if (int64_t(made.size()) == options.maxTokens)
      break;
    if (gptq_session_position(session) == info.max_context) {
      std::fprintf(stderr,
                   "gptq-run: note: the context of %lld tokens is full\n",
                   (long long)info.max_context);
      break;
    }
    check([&](gptq_error *e) {
      return deviceChooses
                 ? gptq_session_sample(session, sampler, token, &token, e)
                 : gptq_session_eval(session, &token, 1, e);
    });
    ++stats.decodeTokens;
  }
  stats.decodeSeconds += watch.seconds();
  return made;
}

static SamplerPtr createSampler(const gptq_sampling &sampling) {
  gptq_sampler *sampler = nullptr;
  check([&](gptq_error *e) {
    return gptq_sampler_create(&sampling, &sampler, e);
  });
  return SamplerPtr(sampler);
}

int gptq::run::generate(gptq_model *model, const std::vector<int32_t> &prompt,
                        const GenerateOptions &options, Stats &stats) {
  SamplerPtr sampler = createSampler(options.sampling);
  SessionPtr session = createSession(model);
  bool asText = infoOf(model).has_tokenizer && !options.printTokens;
  std::unique_ptr<Printer> printer;
  StopFilter filter(options.stop);
  if (asText) {
    printer = std::make_unique<Printer>(model);
    // The prompt goes through the decoder even if it is not shown: it decides
    // whether the text after it starts with a space.
    const std::vector<std::string> noStops;
    StopFilter plain(noStops);
    for (int32_t token : prompt) {
      std::string_view text = printer->push(token);
      if (options.echo)
        plain.push(text);
    }
  }
  evalTokens(model, session.get(), prompt, stats);
  if (!isInterrupted())
    continueText(model, session.get(), sampler.get(), printer.get(), filter,
                 options, stats);
  if (printer)
    filter.push(printer->finish());
  filter.flush();
  std::printf("\n");
  return isInterrupted() ? interruptedStatus : 0;
}

/// The whole conversation as the model's template writes it.
static std::string
renderChat(gptq_model *model,
           const std::vector<std::pair<std::string, std::string>> &messages) {
  std::vector<gptq_chat_message> list;
  for (const auto &[role, content] : messages)
    list.push_back({role.c_str(), content.c_str()});
  std::string text;
  for (int i = 0; i < 2; ++i) {
    size_t bytes = 0;
    check([&](gptq_error *e) {
      return gptq_apply_chat_template(model, list.data(), list.size(), true,
                                      text.data(), text.size(), &bytes, e);
    });
    bool fits = bytes <= text.size();
    text.resize(bytes);
    if (fits)
      break;
  }
  return text;
}

int gptq::run::chat(gptq_model *model, const std::string &system,
                    const GenerateOptions &options, Stats &stats) {
  SamplerPtr sampler = createSampler(options.sampling);
  SessionPtr session = createSession(model);
  bool hasTemplate = infoOf(model).has_chat_template;
  std::vector<std::pair<std::string, std::string>> messages;
  if (!system.empty())
    messages.emplace_back("system", system);
  // What the session holds, to go on from the longest common beginning.
  std::vector<int32_t> held;
  std::string plain;
  bool isTerminal = ::isatty(STDIN_FILENO);
  if (isTerminal)
    std::fprintf(stderr, "%s; an empty line or Ctrl-D ends\n",
                 hasTemplate ? "chat with the model's template"
                             : "the model has no chat template: plain text");
  while (true) {
    if (isTerminal)
      std::fprintf(stderr, "> ");
    std::string line;
    if (!std::getline(std::cin, line) || line.empty())
      return isInterrupted() ? interruptedStatus : 0;
    std::vector<int32_t> tokens;
    if (hasTemplate) {
      messages.emplace_back("user", line);
      tokens = encode(model, renderChat(model, messages), /*addBos=*/false);
    } else {
      plain += line;
      tokens = encode(model, plain, /*addBos=*/true);
    }
    // The last token is evaluated again even if it is held: its logits are
    // what the answer starts from.
    size_t common = 0;
    while (common < held.size() && common + 1 < tokens.size() &&
           held[common] == tokens[common])
      ++common;
    check([&](gptq_error *e) {
      return gptq_session_rewind(session.get(), int64_t(common), e);
    });
    std::vector<int32_t> fresh(tokens.begin() + common, tokens.end());
    evalTokens(model, session.get(), fresh, stats);

    Printer printer(model);
    std::string answer;
    StopFilter filter(options.stop);
    std::vector<int32_t> made;
    if (!isInterrupted())
      made = continueText(model, session.get(), sampler.get(), &printer, filter,
                          options, stats);
    filter.push(printer.finish());
    filter.flush();
    std::printf("\n");
    std::fflush(stdout);
    Printer again(model);
    for (int32_t token : made)
      answer += again.push(token);
    answer += again.finish();
    held = std::move(tokens);
    held.insert(held.end(), made.begin(), made.end());
    held.resize(size_t(gptq_session_position(session.get())));
    if (hasTemplate)
      messages.emplace_back("assistant", answer);
    else
      plain += answer;
    if (isInterrupted()) {
      // Ctrl-C ends the answer; at the prompt it ends the program.
      clearInterrupt();
      std::cin.clear();
    }
  }
}

void gptq::run::writeLogits(gptq_model *model,
                            const std::vector<int32_t> &prompt,
                            const std::string &path, Stats &stats) {
  SessionPtr session = createSession(model);
  NpyArray array;
  int64_t vocab = infoOf(model).vocab_size, count = int64_t(prompt.size());
  array.shape = {count, vocab};
  array.floats.resize(size_t(count * vocab));
  Stopwatch watch;
  check([&](gptq_error *e) {
    return gptq_session_score(session.get(), prompt.data(), count,
                              array.floats.data(), e);
  });
  stats.prefillTokens += count;
  stats.prefillSeconds += watch.seconds();
  gptq::abi::Status status = gptq::runtime::writeNpy(path, array);
  if (!status.ok())
    throw Error(status.message());
}

void gptq::run::runFunction(gptq_model *model, const std::string &name,
                            const std::vector<std::string> &inputs,
                            const std::vector<std::string> &outputs) {
  std::vector<NpyArray> arrays;
  std::vector<gptq_tensor> in, out;
  auto tensorOf = [](NpyArray &array) {
    gptq_tensor t{};
    t.dtype = array.isInteger ? GPTQ_I32 : GPTQ_F32;
    t.rank = array.shape.size();
    std::copy(array.shape.begin(), array.shape.end(), t.shape);
    t.data = array.isInteger ? static_cast<void *>(array.integers.data())
                             : array.floats.data();
    return t;
  };
  for (const std::string &path : inputs) {
    gptq::abi::Expected<NpyArray> array = gptq::runtime::readNpy(path);
    if (!array)
      throw Error(array.status().message());
    arrays.push_back(array.take());
  }
  // The rows of the call, which the outputs' shapes need.
  int64_t rows = 1;
  for (size_t i = 0; i < arrays.size(); ++i) {
    gptq_port_info port;
    check([&](gptq_error *e) {
      return gptq_model_get_port(model, name.c_str(), false, i, &port, e);
    });
    for (size_t d = 0; d < port.rank && d < arrays[i].shape.size(); ++d)
      if (port.shape[d] < 0)
        rows = arrays[i].shape[d];
    in.push_back(tensorOf(arrays[i]));
  }
  std::vector<NpyArray> results(outputs.size());
  for (size_t i = 0; i < outputs.size(); ++i) {
    gptq_port_info port;
    check([&](gptq_error *e) {
      return gptq_model_get_port(model, name.c_str(), true, i, &port, e);
    });
    size_t elements = 1;
    for (size_t d = 0; d < port.rank; ++d) {
      results[i].shape.push_back(port.shape[d] < 0 ? rows : port.shape[d]);
      elements *= size_t(results[i].shape[d]);
    }
    results[i].isInteger = port.dtype == GPTQ_I32;
    if (results[i].isInteger)
      results[i].integers.resize(elements);
    else
      results[i].floats.resize(elements);
    out.push_back(tensorOf(results[i]));
  }
  SessionPtr session = createSession(model);
  check([&](gptq_error *e) {
    return gptq_session_run(session.get(), name.c_str(), in.data(), in.size(),
                            out.data(), out.size(), e);
  });
  for (size_t i = 0; i < outputs.size(); ++i) {
    gptq::abi::Status status = gptq::runtime::writeNpy(outputs[i], results[i]);
    if (!status.ok())
      throw Error(status.message());
  }
}
