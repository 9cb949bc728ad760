//===- GptqCompileTest.cpp - The command line of gptq-compile -------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "llvm/ADT/SmallString.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/Program.h"
#include "gtest/gtest.h"

#include <csignal>
#include <fstream>
#include <set>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>

using namespace llvm;

namespace {

struct GptqCompileTest : testing::Test {
  GptqCompileTest() {
    EXPECT_FALSE(sys::fs::createUniqueDirectory("gptq-test", folder));
  }
  ~GptqCompileTest() override { sys::fs::remove_directories(folder); }

  std::string path(const Twine &name) {
    SmallString<128> path(folder);
    sys::path::append(path, name);
    return path.str().str();
  }

  void write(const Twine &name, StringRef text) {
    std::ofstream(path(name), std::ios::binary) << text.str();
  }

  static std::string read(const std::string &path) {
    std::ifstream stream(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
  }

  std::set<std::string> files(const Twine &name = "") {
    std::set<std::string> result;
    std::error_code code;
    for (sys::fs::directory_iterator it(path(name), code), end; it != end;
         it.increment(code))
      result.insert(sys::path::filename(it->path()).str());
    return result;
  }

  /// Runs the tool; its outputs are in `out` and `err` afterwards.
  int run(std::vector<std::string> args) {
    std::vector<StringRef> all = {GPTQ_COMPILE};
    all.insert(all.end(), args.begin(), args.end());
    SmallString<64> outPath, errPath;
    sys::fs::createTemporaryFile("gptq-test", "out", outPath);
    sys::fs::createTemporaryFile("gptq-test", "err", errPath);
    int code =
        sys::ExecuteAndWait(GPTQ_COMPILE, all, std::nullopt,
                            {StringRef(""), outPath.str(), errPath.str()});
    out = read(outPath.c_str());
    err = read(errPath.c_str());
    sys::fs::remove(outPath);
    sys::fs::remove(errPath);
    return code;
  }

  /// Writes a module in its final form over `rows` rows of 1 MB of weights.
  void writeModule(int64_t rows) {
    write("m.mlir",
          R"(
      gptq.weight @w : tensor<)" +
              std::to_string(rows) +
              R"(x262144xf32> = #gptq.data<"data.bin", "w", 0, tensor<)" +
              std::to_string(rows) + R"(x262144xf32>>
      func.func @f(%x: tensor<?x4xf32>) -> tensor<?x4xf32> attributes {gptq.max_m = 1} {
        %c0 = arith.constant 0 : index
        %m = tensor.dim %x, %c0 : tensor<?x4xf32>
        %w = gptq.load_weight @w : tensor<)" +
              std::to_string(rows) + R"(x262144xf32>
        %e = tensor.empty(%m) : tensor<?x4xf32>
        %s = gptq.dispatch "d" [@kernels::@k] up_to [1] rows %m at %c0
            ins(%x, %w : tensor<?x4xf32>, tensor<)" +
              std::to_string(rows) +
              R"(x262144xf32>) outs(%e : tensor<?x4xf32>) -> tensor<?x4xf32>
        return %s : tensor<?x4xf32>
      }
      module @kernels {
        llvm.func @k(%args: !llvm.ptr, %dims: !llvm.ptr, %i: i64, %scratch: !llvm.ptr)
            attributes {gptq.grid = []} {
          llvm.return
        }
      })");
    // A hole: no disk is filled.
    write("data.bin", "");
    EXPECT_EQ(::truncate(path("data.bin").c_str(), rows << 20), 0);
  }

  SmallString<64> folder;
  std::string out, err;
};

} // namespace

TEST_F(GptqCompileTest, WritesAModelFromItsFinalForm) {
  writeModule(2);
  EXPECT_EQ(
      run({path("m.mlir"), "--target=cpu:x86-64-v4", "-o", path("m.gptqm")}), 0)
      << err;
  EXPECT_EQ(err, "");
  EXPECT_NE(out.find("wrote " + path("m.gptqm") + ": 2.1 MB"),
            std::string::npos)
      << out;
  // The folder of the module is that of its files.
  EXPECT_EQ(files(), (std::set<std::string>{"data.bin", "m.gptqm", "m.mlir"}));
  EXPECT_NE(read(path("m.gptqm")).find("\"name\":\"x86-64-v4\""),
            std::string::npos);
}

TEST_F(GptqCompileTest, QuietIsSilent) {
  writeModule(1);
  EXPECT_EQ(run({path("m.mlir"), "--quiet", "--target=cpu:x86-64-v3", "-o",
                 path("m.gptqm")}),
            0);
  EXPECT_EQ(out + err, "");
}

TEST_F(GptqCompileTest, DumpsEveryForm) {
  writeModule(1);
  EXPECT_EQ(run({path("m.mlir"), "--target=cpu:x86-64-v3", "-o",
                 path("m.gptqm"), "--dump-ir", path("ir")}),
            0);
  EXPECT_EQ(files("ir"),
            (std::set<std::string>{"0-imported.mlir", "1-kernels.ll",
                                   "1-kernels.s"}));
  EXPECT_NE(read(path("ir/1-kernels.s")).find("k:"), std::string::npos);
}

// One sentence, one line, status 1, no file.
TEST_F(GptqCompileTest, Errors) {
  writeModule(1);
  write("bad.mlir", "gptq.weight @w");
  write("wrong.mlir",
        "gptq.weight @w : tensor<2x2xf16> = #gptq.codes<#gptq.data<\"a\", "
        "\"b\", 0, tensor<2x2xi32>>, bits = 4, packing = rows>");
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  struct {
    std::vector<std::string> args;
    std::string error;
  } cases[] = {
      {{path("m.mlir"), "--target=cpu:x86-64-v3", "-o", path("pipe")},
       "cannot write '" + path("pipe") +
           "': expected a file or none, but found a device or pipe"},
      {{path("m.mlir"), "--target=cpu:x86-64-v3", "-o", folder.str().str()},
       "cannot write '" + folder.str().str() +
           "': expected a file or none, but found a folder"},
      {{"x"}, "no file to write, name one with -o"},
      {{path("x"), "-o", path("m.gptqm")},
       "'" + path("x") + "' does not exist"},
      {{path("m.mlir"), "-o", path("m.gptqm"), "--fast"},
       "Unknown command line argument '--fast'"},
      {{path("m.mlir"), "-o", path("m.gptqm"), "--target=gpu"},
       "target 'gpu' is not known, the targets are cpu, cpu:x86-64-v3, "
       "cpu:x86-64-v4, cpu:x86-64-v4-vnni, nvvm:sm_75, nvvm:sm_80, "
       "nvvm:sm_86, nvvm:sm_89, nvvm:sm_90a, nvvm:sm_100a, nvvm:sm_120a"},
      {{path("m.mlir"), "-o", path("m.gptqm"), "--target=nvvm:x86-64-v3"},
       "target 'nvvm:x86-64-v3' is not known, the targets are cpu, "
       "cpu:x86-64-v3, cpu:x86-64-v4, cpu:x86-64-v4-vnni, nvvm:sm_75, "
       "nvvm:sm_80, nvvm:sm_86, nvvm:sm_89, nvvm:sm_90a, nvvm:sm_100a, "
       "nvvm:sm_120a"},
      {{path("m.mlir"), "-o", path("m.gptqm"), "--activations=f8"},
       "--activations takes f16, bf16 or auto, but found 'f8'"},
      {{path("m.mlir"), "-o", path("m.gptqm"), "--load-bits=8"},
       "--load-bits takes 32, 64 or 128, but found '8'"},
      {{path("m.mlir"), "-o", path("m.gptqm"), "--layer=a"},
       "--layer and --max-context are for checkpoints, but '" + path("m.mlir") +
           "' is none"},
      {{folder.str().str(), "-o", path("m.gptqm"), "--max-context=all"},
       "--max-context takes a number of tokens, but found 'all'"},
      {{path("bad.mlir"), "-o", path("m.gptqm")},
       path("bad.mlir") + ":1:14: expected ':'"},
      {{path("wrong.mlir"), "-o", path("m.gptqm")},
       path("wrong.mlir") +
           ":1:1: 'gptq.weight' op expects elements of 4 bits, but found "
           "'f16'"},
      {{path("m.mlir"), "--target=cpu:x86-64-v3", "-o", path("no/m.gptqm")},
       "cannot write '" + path("no/m.gptqm") + "': No such file or directory"},
  };
  std::set<std::string> before = files();
  for (const auto &c : cases) {
    EXPECT_EQ(run(c.args), 1);
    EXPECT_EQ(err, "gptq-compile: error: " + c.error + "\n");
    EXPECT_EQ(files(), before);
  }
}

// A signal in the middle of a long write leaves nothing behind.
TEST_F(GptqCompileTest, SignalsLeaveNothing) {
  writeModule(4096);
  std::set<std::string> before = files();
  std::string module = path("m.mlir"), model = path("m.gptqm");
  std::vector<StringRef> args = {
      GPTQ_COMPILE, module, "--quiet", "--target=cpu:x86-64-v3", "-o", model};
  sys::ProcessInfo process =
      sys::ExecuteNoWait(GPTQ_COMPILE, args, std::nullopt,
                         {StringRef(""), StringRef(""), StringRef("")});
  for (int i = 0; i < 1000 && files() == before; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_NE(files(), before);
  EXPECT_FALSE(sys::fs::exists(model));
  ::kill(process.Pid, SIGTERM);
  sys::Wait(process, std::nullopt);
  EXPECT_EQ(files(), before);
}
