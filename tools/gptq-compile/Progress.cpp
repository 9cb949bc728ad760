//===- Progress.cpp - Shows how far an export is --------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Progress.h"

#include <cstdio>
#include <unistd.h>

using namespace gptq;

/// Below this a bar only flickers, and logs have no use for lines.
static constexpr int64_t kLongBytes = 256 << 20;

std::string gptq::bytesText(int64_t bytes) {
  if (bytes < 1000)
    return std::to_string(bytes) + " bytes";
  double value = bytes;
  const char *unit = "";
  for (const char *next : {"kB", "MB", "GB", "TB"}) {
    if (value < 999.95)
      break;
    value /= 1000;
    unit = next;
  }
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f %s", value, unit);
  return text;
}

Progress::Progress(bool isQuiet)
    : isQuiet(isQuiet), isTerminal(::isatty(STDERR_FILENO)) {}

void Progress::clear() {
  if (isShown)
    std::fputs("\r\x1b[K", stderr);
  isShown = false;
}

void Progress::step(llvm::StringRef what) {
  if (isQuiet)
    return;
  if (!isTerminal) {
    std::printf("%s\n", what.str().c_str());
    std::fflush(stdout);
    return;
  }
  std::fprintf(stderr, "\r\x1b[K%s", what.str().c_str());
  std::fflush(stderr);
  isShown = true;
}

void Progress::update(int64_t done, int64_t total) {
  if (isQuiet || total == 0)
    return;
  Clock::time_point now = Clock::now();
  if (startBytes < 0) {
    start = now;
    startBytes = done;
  }
  if (!isTerminal) {
    int64_t tenth = done * 10 / total;
    if (total < kLongBytes || tenth == tenths || tenth == 10)
      return;
    tenths = tenth;
    std::printf("written %s of %s\n", bytesText(done).c_str(),
                bytesText(total).c_str());
    std::fflush(stdout);
    return;
  }
  if (done < total && isShown && now - shown < std::chrono::milliseconds(100))
    return;
  shown = now;
  double seconds = std::chrono::duration<double>(now - start).count();
  std::string left;
  // A rate over less than half a second is a guess.
  if (seconds > 0.5 && done > startBytes) {
    int64_t s = seconds * (total - done) / (done - startBytes) + 0.5;
    char text[32];
    std::snprintf(text, sizeof(text), "  %lld:%02d left", (long long)(s / 60),
                  int(s % 60));
    left = text;
  }
  constexpr int width = 24;
  std::string bar(done * width / total, '#');
  bar.resize(width, '.');
  std::fprintf(stderr, "\r\x1b[K[%s] %3d %%  %s of %s%s", bar.c_str(),
               int(done * 100 / total), bytesText(done).c_str(),
               bytesText(total).c_str(), left.c_str());
  std::fflush(stderr);
  isShown = true;
}

void Progress::finish(llvm::StringRef line) {
  clear();
  if (isQuiet)
    return;
  std::printf("%s\n", line.str().c_str());
  std::fflush(stdout);
}
