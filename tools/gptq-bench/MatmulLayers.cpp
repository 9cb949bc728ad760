//===- MatmulLayers.cpp - The lone matmuls that are measured --------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "MatmulLayers.h"

#include "runtime/abi/Json.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace gptq::bench;
using gptq::abi::RandomLayer;

namespace fs = std::filesystem;

extern char **environ;

/// Lists the layers of a folder.
static constexpr const char *listName = "layers.json";

TempFolder::TempFolder() {
  std::error_code error;
  fs::path parent = fs::temp_directory_path(error);
  if (error)
    throw Error("no folder for temporary files: " + error.message());
  std::string name = (parent / "gptq-bench-XXXXXX").string();
  if (!mkdtemp(name.data()))
    throw Error("cannot make a folder in '" + parent.string() +
                "': " + std::strerror(errno));
  path = name;
}

TempFolder::~TempFolder() {
  std::error_code ignored;
  fs::remove_all(path, ignored);
}

std::string CompiledLayer::shape() const {
  return std::to_string(layer.n) + "x" + std::to_string(layer.k);
}

std::string CompiledLayer::text() const {
  return shape() + ", " + std::to_string(layer.bits) + "-bit, group " +
         std::to_string(layer.group) +
         (layer.isSymmetric ? "" : ", asymmetric") +
         (layer.isActOrder ? ", act-order" : "");
}

nlohmann::ordered_json CompiledLayer::describe() const {
  return {{"shape", shape()},
          {"n", layer.n},
          {"k", layer.k},
          {"bits", layer.bits},
          {"group", layer.group},
          {"asym", !layer.isSymmetric},
          {"act_order", layer.isActOrder}};
}

/// N and K of `NxK`.
static void parseShape(const std::string &text, RandomLayer &layer) {
  char end = 0;
  long long n = 0, k = 0;
  if (std::sscanf(text.c_str(), "%lldx%lld%c", &n, &k, &end) != 2 || n < 1 ||
      k < 1 || n > (1 << 20) || k > (1 << 20))
    throw Error("expected a shape like 4096x4096, found '" + text + "'");
  layer.n = n;
  layer.k = k;
}

/// Runs a tool of the compiler. Its own error becomes ours.
static void runTool(const fs::path &binDir, const fs::path &folder,
                    std::vector<std::string> arguments) {
  stopIfInterrupted();
  const std::string name = arguments[0];
  const std::string program = (binDir / name).string();
  const std::string log = (folder / "log").string();
  std::vector<char *> argv;
  arguments[0] = program;
  for (std::string &argument : arguments)
    argv.push_back(argument.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  for (int stream : {STDOUT_FILENO, STDERR_FILENO})
    posix_spawn_file_actions_addopen(&actions, stream, log.c_str(),
                                     O_WRONLY | O_CREAT | O_APPEND, 0600);
  pid_t child = 0;
  int error = posix_spawn(&child, program.c_str(), &actions, nullptr,
                          argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0)
    throw Error("cannot start '" + program + "': " + std::strerror(error) +
                "; --bin-dir says where the compiler is");
  int status = 0;
  while (waitpid(child, &status, 0) < 0)
    if (errno != EINTR)
      throw Error("lost '" + program + "': " + std::strerror(errno));
  stopIfInterrupted();
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
    return;
  std::string text = gptq::run::readFile(log);
  const std::string mark = name + ": error: ";
  size_t start = text.find(mark);
  start = start == std::string::npos ? 0 : start + mark.size();
  text = text.substr(start, text.find('\n', start) - start);
  throw Error(name + " failed: " + (text.empty() ? "no reason given" : text));
}

/// Where the compiler's tools are.
static fs::path binDirOf(const MatmulOptions &options) {
  if (!options.binDir.empty())
    return options.binDir;
  std::error_code error;
  fs::path self = fs::read_symlink("/proc/self/exe", error);
  if (error)
    throw Error("cannot tell where this program is; use --bin-dir");
  return self.parent_path();
}

std::vector<CompiledLayer>
gptq::bench::compileLayers(const MatmulOptions &options,
                           const fs::path &folder) {
  const fs::path binDir = binDirOf(options);
  std::vector<CompiledLayer> layers;
  for (const std::string &shape : options.shapes)
    for (int bits : options.bits) {
      RandomLayer &layer = layers.emplace_back().layer;
      parseShape(shape, layer);
      layer.bits = bits;
      layer.group = options.group;
      layer.isSymmetric = !options.asym;
      layer.isActOrder = options.actOrder;
    }
  for (CompiledLayer &made : layers) {
    const RandomLayer &layer = made.layer;
    std::string kernel =
        std::to_string(layer.n) + "," + std::to_string(layer.k) + "," +
        std::to_string(layer.bits) + "," + std::to_string(layer.group);
    std::string name = made.shape() + "-" + std::to_string(layer.bits) +
                       "bit-group" + std::to_string(layer.group);
    if (!layer.isSymmetric) {
      kernel += ",asym";
      name += "-asym";
    }
    if (layer.isActOrder) {
      kernel += ",act-order";
      name += "-act-order";
    }
    made.model = (folder / (name + ".gptqm")).string();
    TempFolder work;
    const std::string source = (work.path / "matmul.mlir").string();
    runTool(binDir, work.path,
            {"gptq-translate", "--emit-kernel", kernel, "-o", source});
    std::vector<std::string> compile = {
        "gptq-compile", source,    "--quiet", "--target=" + options.target,
        "-o",           made.model};
    compile.insert(compile.end(), options.compileArguments.begin(),
                   options.compileArguments.end());
    runTool(binDir, work.path, std::move(compile));
  }
  return layers;
}

void gptq::bench::writeLayers(const std::vector<CompiledLayer> &layers,
                              const fs::path &folder) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const CompiledLayer &made : layers) {
    list.push_back(made.describe());
    list.back()["model"] = fs::path(made.model).filename().string();
  }
  const std::string path = (folder / listName).string();
  std::ofstream file(path);
  if (!(file << list.dump(1) << '\n' << std::flush))
    throw Error("cannot write '" + path + "'");
}

std::vector<CompiledLayer> gptq::bench::readLayers(const fs::path &folder) {
  using namespace gptq::abi;
  const std::string path = (folder / listName).string();
  std::vector<CompiledLayer> layers;
  auto read = [&]() -> Status {
    const std::string text = run::readFile(path);
    GPTQ_ASSIGN(Json document, parseJson(text));
    JsonView root(document, "layers");
    GPTQ_ASSIGN(std::vector<JsonView> list, root.elements());
    for (const JsonView &entry : list) {
      CompiledLayer made;
      auto integer = [&](const char *key, int64_t min, int64_t max,
                         int64_t &out) -> Status {
        GPTQ_ASSIGN(JsonView member, entry.at(key));
        GPTQ_ASSIGN(out, member.integer(min, max));
        return {};
      };
      auto boolean = [&](const char *key, bool &out) -> Status {
        GPTQ_ASSIGN(JsonView member, entry.at(key));
        GPTQ_ASSIGN(out, member.boolean());
        return {};
      };
      bool isAsymmetric = false;
      GPTQ_TRY(integer("n", 1, 1 << 20, made.layer.n));
      GPTQ_TRY(integer("k", 1, 1 << 20, made.layer.k));
      GPTQ_TRY(integer("bits", 1, 16, made.layer.bits));
      GPTQ_TRY(integer("group", -1, 1 << 20, made.layer.group));
      GPTQ_TRY(boolean("asym", isAsymmetric));
      GPTQ_TRY(boolean("act_order", made.layer.isActOrder));
      made.layer.isSymmetric = !isAsymmetric;
      if (made.layer.group == 0)
        return makeStatus(StatusCode::InvalidFile,
                          "%s: expected a group of at least 1, or -1, found 0",
                          entry.path().c_str());
      GPTQ_ASSIGN(JsonView model, entry.at("model"));
      GPTQ_ASSIGN(std::string name, model.string());
      made.model = (folder / fs::path(name).filename()).string();
      layers.push_back(std::move(made));
    }
    return {};
  };
  Status status = read();
  if (!status.ok())
    throw Error(path + ": " + status.message());
  if (layers.empty())
    throw Error(path + ": lists no layers");
  return layers;
}
