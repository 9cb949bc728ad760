//===- gptq-bench.cpp - Measures compiled models and matmuls --------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Bench.h"

#include <CLI/CLI.hpp>

#include <cstdio>
#include <ctime>
#include <fstream>
#include <new>

using namespace gptq::bench;

/// Now, as 2031-05-09T17:30:00Z.
static std::string date() {
  std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

/// Numbers of threads without repetitions; none becomes one and all.
static std::vector<int> threadCounts(std::vector<int> counts) {
  if (counts.empty())
    counts = {1, describeMachine().processors};
  std::vector<int> out;
  for (int count : counts)
    if (std::find(out.begin(), out.end(), count) == out.end())
      out.push_back(count);
  return out;
}

int main(int argc, char **argv) {
  CLI::App app(
      "Measures how fast compiled models and their matmuls run, and what share "
      "that is of what this machine can do.\n\nThe limits are measured in the "
      "same run: reading memory too large for the caches, and f32 "
      "multiply-adds in registers, with the same number of threads. Shares "
      "compare median times with the best the machine showed, so a busy "
      "machine lowers them.");
  app.set_version_flag("--version",
                       std::string("gptq-bench ") + gptq_version());
  app.require_subcommand(1);
  std::string json;
  std::vector<int> threads;
  int device = 0;
  auto addShared = [&](CLI::App *command) {
    command
        ->add_option("--threads", threads,
                     "Numbers of threads to measure, e.g. 1,2; default: one, "
                     "and one for each core")
        ->delimiter(',')
        ->check(CLI::Range(1, 1024));
    command
        ->add_option("--device", device,
                     "Which of several GPUs, for what is "
                     "compiled for one")
        ->capture_default_str();
    command->add_option("--json", json,
                        "Write the results there, with every sample");
  };

  MatmulOptions matmul;
  CLI::App *matmulCommand = app.add_subcommand(
      "matmul",
      "Compiles lone matmuls with random weights and measures their calls.\n"
      "Weights come from memory: each call runs another copy, until all copies "
      "are four times the last-level cache; six times on a GPU, where results "
      "are also checked.");
  matmulCommand
      ->add_option("--target", matmul.target,
                   "What to compile for: cpu (this machine) or as gptq-compile "
                   "takes it")
      ->capture_default_str();
  matmulCommand
      ->add_option("--shape", matmul.shapes,
                   "Outputs x inputs of the matmul, NxK; several: "
                   "4096x4096,11008x4096")
      ->delimiter(',')
      ->capture_default_str();
  matmulCommand->add_option("--m", matmul.rows, "Numbers of rows of one call")
      ->delimiter(',')
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  matmulCommand
      ->add_option("--bits", matmul.bits,
                   "Bits of a weight; 16: dense; several, 2,3,4, are measured "
                   "in turn")
      ->delimiter(',')
      ->check(CLI::IsMember({2, 3, 4, 5, 6, 7, 8, 16}))
      ->capture_default_str();
  matmulCommand
      ->add_option("--group", matmul.group,
                   "Weights along K that share a scale; -1: all")
      ->capture_default_str();
  matmulCommand->add_flag("--asym", matmul.asym, "A zero point for each group");
  matmulCommand->add_flag("--act-order", matmul.actOrder,
                          "Groups in the order of activations");
  matmulCommand
      ->add_option("--samples", matmul.samples,
                   "Calls of each kind to measure, at least 11")
      ->check(CLI::Range(11, 100000))
      ->capture_default_str();
  matmulCommand
      ->add_option("--seconds", matmul.seconds,
                   "For each shape: once 11 calls are measured, stop after "
                   "this time")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  matmulCommand->add_option("--bin-dir", matmul.binDir,
                            "Folder of gptq-translate and gptq-compile; "
                            "default: where this program is");
  matmulCommand
      ->add_option("--compile", matmul.compileArguments,
                   "One more argument for gptq-compile; may be given several "
                   "times")
      ->take_all()
      ->allow_extra_args(false);
  CLI::Option *write = matmulCommand->add_option(
      "--write", matmul.writeTo,
      "Only compile, into this folder, to measure on another machine");
  matmulCommand
      ->add_option("--read", matmul.readFrom,
                   "Only measure what --write left in this folder")
      ->excludes(write);
  matmulCommand
      ->add_option("--tolerance", matmul.tolerance,
                   "On a GPU: largest error of a result, relative to the "
                   "largest result")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  matmulCommand
      ->add_option("--rest", matmul.rest,
                   "On a GPU: milliseconds of rest before each measurement, so "
                   "that a card does not lower its clocks for its power limit")
      ->check(CLI::Range(0.0, 10000.0))
      ->capture_default_str();
  addShared(matmulCommand);

  ModelOptions model;
  CLI::App *modelCommand = app.add_subcommand(
      "model", "Measures prefill and decode of a compiled language model.");
  modelCommand->add_option("model", model.path, "The compiled model")
      ->required();
  modelCommand
      ->add_option("--prompt-tokens", model.promptTokens,
                   "Tokens of the prompt; default: what fits, at most 512")
      ->check(CLI::PositiveNumber);
  modelCommand
      ->add_option("--new-tokens", model.newTokens,
                   "Tokens to make; default: what fits, at most 128")
      ->check(CLI::PositiveNumber);
  modelCommand
      ->add_option("--temperature", model.temperature,
                   "How tokens are chosen, as by gptq-run; 0: the likeliest. "
                   "The host chooses where the device cannot")
      ->capture_default_str();
  modelCommand
      ->add_option("--top-k", model.topK,
                   "Choose among the k most likely tokens; 0: all")
      ->capture_default_str();
  modelCommand->add_flag("--choose-on-host", model.chooseOnHost,
                         "Choose tokens on the host where the device can, too");
  modelCommand
      ->add_option("--samples", model.samples,
                   "Times to measure, after one "
                   "to warm up")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  addShared(modelCommand);

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError &e) {
    if (e.get_exit_code() == 0)
      return app.exit(e);
    std::fprintf(stderr, "gptq-bench: error: %s\n", e.what());
    return 1;
  }

  std::ofstream file;
  int status = 1;
  try {
    if (!json.empty()) {
      // Before minutes of measuring, not after.
      file.open(json);
      if (!file)
        throw Error("cannot write '" + json + "'");
    }
    gptq::run::catchInterrupt();
    nlohmann::ordered_json report = {
        {"version", 1},
        {"producer", std::string("gptq-bench ") + gptq_version()},
        {"date", date()}};
    matmul.threads = model.threads = threadCounts(threads);
    report["threads"] = matmul.threads;
    if (matmul.target == "cpu")
      matmul.target = "cpu:native";
    report["kind"] = *matmulCommand ? "matmul" : "model";
    matmul.device = model.device = device;
    int wrong = 0;
    if (*matmulCommand)
      wrong = benchMatmul(matmul, report);
    else
      benchModel(model, report);
    if (file.is_open() && !(file << report.dump(1) << '\n' << std::flush))
      throw Error("cannot write '" + json + "'");
    if (wrong == 0)
      return 0;
    // The report says which, and stays.
    std::fflush(stdout);
    std::fprintf(stderr, "gptq-bench: error: %d results are wrong\n", wrong);
    return 1;
  } catch (const Interrupted &) {
    status = gptq::run::interruptedStatus;
  } catch (const std::bad_alloc &) {
    std::fprintf(stderr, "gptq-bench: error: out of memory\n");
  } catch (const std::exception &e) {
    std::fflush(stdout);
    std::fprintf(stderr, "gptq-bench: error: %s\n", e.what());
  }
  // Half a report is none.
  if (file.is_open())
    std::remove(json.c_str());
  return status;
}
