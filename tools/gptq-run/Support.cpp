//===- Support.cpp - What all of gptq-run's modes share -------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Support.h"

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

using namespace gptq::run;

ModelPtr gptq::run::openModel(const std::string &path,
                              gptq_model_options options) {
  gptq_model *model = nullptr;
  check([&](gptq_error *e) {
    return gptq_model_open(path.c_str(), &options, &model, e);
  });
  return ModelPtr(model);
}

SessionPtr gptq::run::createSession(gptq_model *model) {
  gptq_session *session = nullptr;
  check([&](gptq_error *e) { return gptq_session_create(model, &session, e); });
  return SessionPtr(session);
}

gptq_model_info gptq::run::infoOf(const gptq_model *model) {
  gptq_model_info info;
  gptq_model_get_info(model, &info);
  return info;
}

gptq_device_info gptq::run::deviceOf(const gptq_model *model) {
  gptq_device_info info;
  check([&](gptq_error *e) { return gptq_model_get_device(model, &info, e); });
  return info;
}

std::vector<int32_t> gptq::run::encode(const gptq_model *model,
                                       std::string_view text, bool addBos,
                                       bool parseSpecial) {
  // A token stands for at least a byte in nearly every text; the second call
  // is for the rest.
  std::vector<int32_t> tokens(text.size() + 16);
  size_t count = 0;
  for (int i = 0; i < 2; ++i) {
    check([&](gptq_error *e) {
      return gptq_encode(model, text.data(), text.size(), addBos, parseSpecial,
                         tokens.data(), tokens.size(), &count, e);
    });
    bool fits = count <= tokens.size();
    tokens.resize(count);
    if (fits)
      break;
  }
  return tokens;
}

Printer::Printer(const gptq_model *model) {
  gptq_decoder *d = nullptr;
  check([&](gptq_error *e) { return gptq_decoder_create(model, &d, e); });
  decoder.reset(d);
}

std::string_view Printer::push(int32_t token) {
  const char *text = nullptr;
  size_t bytes = 0;
  check([&](gptq_error *e) {
    return gptq_decoder_push(decoder.get(), token, &text, &bytes, e);
  });
  return {text, bytes};
}

std::string_view Printer::finish() {
  const char *text = nullptr;
  size_t bytes = 0;
  check([&](gptq_error *e) {
    return gptq_decoder_finish(decoder.get(), &text, &bytes, e);
  });
  return {text, bytes};
}

std::string gptq::run::readFile(const std::string &path) {
  FILE *file = std::fopen(path.c_str(), "rbe");
  if (!file)
    throw Error("cannot open '" + path + "': " + std::strerror(errno));
  std::string text;
  char buffer[1 << 16];
  for (size_t n; (n = std::fread(buffer, 1, sizeof(buffer), file)) > 0;)
    text.append(buffer, n);
  bool failed = std::ferror(file);
  std::fclose(file);
  if (failed)
    throw Error("cannot read '" + path + "'");
  return text;
}

void Stats::print(const gptq_model *model) const {
  std::fprintf(stderr, "load:    %.1f ms\n", loadSeconds * 1e3);
  auto rate = [](const char *name, int64_t tokens, double seconds) {
    if (tokens > 0)
      std::fprintf(stderr, "%-8s %lld tokens, %.1f ms, %.2f tokens/s\n", name,
                   (long long)tokens, seconds * 1e3, tokens / seconds);
  };
  rate("prefill:", prefillTokens, prefillSeconds);
  rate("decode:", decodeTokens, decodeSeconds);
  gptq_memory memory;
  if (gptq_memory_usage(&memory, nullptr) == GPTQ_OK)
    std::fprintf(stderr, "memory:  %s resident, %s at most\n",
                 bytesText(memory.resident_bytes).c_str(),
                 bytesText(memory.peak_resident_bytes).c_str());
  gptq_device_info device = deviceOf(model);
  if (device.total_bytes == 0) {
    std::fprintf(stderr, "threads: %d\n", infoOf(model).threads);
    return;
  }
  gptq_model_info info = infoOf(model);
  std::fprintf(stderr, "device:  %s, %s\n", device.name, device.code);
  std::fprintf(stderr,
               "         %s for the model: %s weights, %s arena, %s a session, "
               "the rest inputs and outputs\n",
               bytesText(device.model_bytes).c_str(),
               bytesText(info.weight_bytes).c_str(),
               bytesText(info.arena_bytes).c_str(),
               bytesText(info.state_bytes).c_str());
  std::fprintf(stderr, "         %s of %s free\n",
               bytesText(device.free_bytes).c_str(),
               bytesText(device.total_bytes).c_str());
  if (!chosenBy.empty())
    std::fprintf(stderr, "tokens:  chosen by %s\n", chosenBy.c_str());
}

static volatile std::sig_atomic_t interruptFlag = 0;

void gptq::run::catchInterrupt() {
  struct sigaction action{};
  action.sa_handler = [](int) { interruptFlag = 1; };
  // Without SA_RESTART a read of the terminal ends too; with SA_RESETHAND a
  // second Ctrl-C ends a program that is too slow to notice the first.
  action.sa_flags = SA_RESETHAND;
  sigaction(SIGINT, &action, nullptr);
}

bool gptq::run::isInterrupted() { return interruptFlag != 0; }

void gptq::run::clearInterrupt() {
  interruptFlag = 0;
  catchInterrupt();
}

std::string gptq::run::bytesText(int64_t size) {
  const char *const units[] = {"bytes", "KiB", "MiB", "GiB"};
  double value = double(size);
  int unit = 0;
  while (value >= 1024 && unit < 3) {
    value /= 1024;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof(text), unit ? "%.1f %s" : "%.0f %s", value,
                units[unit]);
  return text;
}
