//===- gptq-run.cpp - Runs compiled models --------------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Modes.h"

#include <CLI/CLI.hpp>

#include <cstdio>
#include <new>

using namespace gptq::run;

int main(int argc, char **argv) {
  CLI::App app("Runs models that gptq-compile has compiled.");
  app.set_version_flag("--version", std::string("gptq-run ") + gptq_version());
  std::string path;
  app.add_option("model", path, "The compiled model, a .gptqm file")
      ->required();

  std::string prompt, promptFile;
  std::vector<int32_t> tokens;
  GenerateOptions generation;
  app.add_option("--prompt", prompt, "Text to continue");
  app.add_option("--prompt-file", promptFile, "File with the text to continue");
  app.add_option("--tokens", tokens, "Token ids to continue, e.g. 1,403,407")
      ->delimiter(',')
      ->check([](const std::string &id) {
        return id.empty() ? "expected a token id, found nothing" : "";
      });
  app.add_option("--max-tokens", generation.maxTokens, "Most tokens to make")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--temperature", generation.sampling.temperature,
                 "0 takes the most likely token")
      ->capture_default_str();
  app.add_option("--top-k", generation.sampling.top_k,
                 "Choose among the k most likely tokens; 0: all. GPUs choose "
                 "by themselves with k of 1 to what the model was compiled "
                 "for, 128 by default; otherwise logits are copied to the "
                 "host for every token, which chooses the same (--stats says "
                 "who does)")
      ->capture_default_str();
  app.add_option("--top-p", generation.sampling.top_p,
                 "Choose among the likeliest tokens that reach p together")
      ->capture_default_str();
  app.add_option("--seed", generation.sampling.seed,
                 "Equal seeds give equal text")
      ->capture_default_str();
  app.add_option("--stop", generation.stop,
                 "Text that ends the answer; may be given several times")
      ->take_all()
      ->allow_extra_args(false);
  app.add_flag("!--no-echo", generation.echo, "Do not repeat the prompt");
  app.add_flag("--print-tokens", generation.printTokens,
               "Print the ids of the tokens made instead of their text");
  app.add_flag("--ignore-eos", generation.ignoreEos,
               "Go on behind the token that ends a text");

  std::string logits, perplexityFile, system;
  app.add_option("--logits", logits,
                 "Write the logits of every prompt token, f32 [tokens, vocab]");
  PerplexityOptions ppl;
  app.add_option("--perplexity", perplexityFile,
                 "Measure the loss of a text file");
  app.add_option("--window", ppl.window,
                 "Tokens of a window, its start token included; default: "
                 "min(max_context, 512)");
  app.add_option("--stride", ppl.stride,
                 "Tokens from a window's start to the next; default: a window");
  app.add_option("--max-windows", ppl.maxWindows, "Most windows; 0: all");
  app.add_option("--perplexity-from", ppl.from,
                 "Share of the text's characters to skip")
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--perplexity-bos", ppl.bos,
                 "Where the start token goes; default: window if the model "
                 "wants one")
      ->check(CLI::IsMember({"window", "text", "none"}));

  bool isInspect = false, asJson = false, isChat = false, showStats = false;
  app.add_flag("--inspect", isInspect, "Show what is inside, run nothing");
  app.add_flag("--json", asJson, "With --inspect: as JSON");
  app.add_flag("--interactive", isChat, "Chat");
  app.add_option("--system", system, "With --interactive: the system message");

  std::string function;
  std::vector<std::string> inputs, outputs;
  app.add_option("--function", function, "Run a lone function");
  app.add_option("--input", inputs, "Its inputs, .npy files in order")
      ->allow_extra_args(false);
  app.add_option("--output", outputs, "Its outputs, .npy files in order")
      ->allow_extra_args(false);

  gptq_model_options options = gptq_model_default_options();
  app.add_option("--threads", options.threads,
                 "Threads that compute; 0: one for each core");
  app.add_option("--device", options.device,
                 "Which of several GPUs, for models compiled for one")
      ->capture_default_str();
  app.add_flag("!--no-verify", options.verify, "Do not compare checksums");
  app.add_flag("--stats", showStats, "Print times and memory to stderr");

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError &e) {
    if (e.get_exit_code() == 0)
      return app.exit(e);
    std::fprintf(stderr, "gptq-run: error: %s\n", e.what());
    return 1;
  }

  try {
    Stopwatch watch;
    options.inspect_only = isInspect;
    ModelPtr model = openModel(path, options);
    Stats stats;
    stats.loadSeconds = watch.seconds();
    gptq_model_info info = infoOf(model.get());
    if (isInspect) {
      inspect(model.get(), path, asJson);
      return 0;
    }
    if (!function.empty()) {
      runFunction(model.get(), function, inputs, outputs);
      return 0;
    }
    if (!info.is_language_model)
      throw Error(path + ": holds lone functions; run one with --function or "
                         "list them with --inspect");

    catchInterrupt();
    int status = 0;
    if (!perplexityFile.empty()) {
      status = perplexity(model.get(), perplexityFile, ppl, stats);
    } else if (isChat) {
      status = chat(model.get(), system, generation, stats);
    } else {
      if (!promptFile.empty())
        prompt = readFile(promptFile);
      if (tokens.empty() &&
          app.count("--prompt") + app.count("--prompt-file") == 0)
        throw Error("nothing to do: expected --prompt, --tokens, "
                    "--interactive, --perplexity or --inspect");
      if (tokens.empty())
        tokens = encode(model.get(), prompt, /*addBos=*/true);
      if (tokens.empty())
        throw Error("the prompt has no tokens");
      if (!logits.empty())
        writeLogits(model.get(), tokens, logits, stats);
      else
        status = generate(model.get(), tokens, generation, stats);
    }
    if (showStats)
      stats.print(model.get());
    return status;
  } catch (const std::bad_alloc &) {
    std::fprintf(stderr, "gptq-run: error: out of memory\n");
  } catch (const std::exception &e) {
    std::fflush(stdout);
    std::fprintf(stderr, "gptq-run: error: %s\n", e.what());
  }
  return 1;
}
