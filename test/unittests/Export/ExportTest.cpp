//===- ExportTest.cpp - A module becomes a file becomes numbers -----------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Export/Export.h"
#include "gptq/Export/Program.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/MLIRContext.h"
#include "mlir/Parser/Parser.h"
#include "runtime/abi/Checksum.h"
#include "runtime/abi/KernelABI.h"
#include "runtime/abi/SafeTensors.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"
#include "llvm/TargetParser/Host.h"
#include "gtest/gtest.h"

#include <cstring>
#include <dlfcn.h>
#include <fstream>
#include <random>

using namespace mlir;
using namespace mlir::gptq;

namespace {

struct ExportTest : testing::Test {
  ExportTest() {
    DialectRegistry registry;
    registry.insert<GPTQDialect, arith::ArithDialect, func::FuncDialect,
                    LLVM::LLVMDialect, tensor::TensorDialect>();
    registerObjectCodeTranslations(registry);
    context.appendDialectRegistry(registry);
    EXPECT_FALSE(llvm::sys::fs::createUniqueDirectory("gptq-test", folder));
  }
  ~ExportTest() override { llvm::sys::fs::remove_directories(folder); }

  std::string path(const char *name) {
    SmallString<128> path(folder);
    llvm::sys::path::append(path, name);
    return path.str().str();
  }

  void writeFile(const char *name, StringRef bytes) {
    std::ofstream(path(name), std::ios::binary) << bytes.str();
  }

  OwningOpRef<ModuleOp> parse(const std::string &body,
                              const std::string &attributes = "") {
    return parseSourceString<ModuleOp>("module attributes {gptq.folder = \"" +
                                           folder.str().str() + "\"" +
                                           attributes + "} {\n" + body + "}\n",
                                       &context);
  }

  size_t filesInFolder() {
    size_t count = 0;
    std::error_code code;
    for (llvm::sys::fs::directory_iterator it(folder, code), end; it != end;
         it.increment(code))
      ++count;
    return count;
  }

  MLIRContext context;
  SmallString<64> folder;
};

/// A compiled model, read and its code loaded.
struct LoadedModel {
  explicit LoadedModel(const std::string &path) {
    file = model::MappedFile::open(path).take();
    model::Expected<model::SafeTensors> opened =
        model::SafeTensors::open(file.bytes());
    EXPECT_TRUE(opened.ok()) << opened.status().message();
    tensors = opened.take();
    model::Expected<model::Manifest> parsed =
        model::parseManifest(bytes("manifest.json").text());
    EXPECT_TRUE(parsed.ok()) << parsed.status().message();
    manifest = parsed.take();

    std::string object = path + ".so";
    std::ofstream(object, std::ios::binary) << bytes("code.elf").text();
    library = ::dlopen(object.c_str(), RTLD_NOW | RTLD_LOCAL);
    EXPECT_TRUE(library) << ::dlerror();
    ::unlink(object.c_str());
  }
  ~LoadedModel() { ::dlclose(library); }

  model::ByteSpan bytes(const char *name) {
    const model::TensorInfo *info = tensors.find(name);
    EXPECT_TRUE(info) << name;
    return info ? tensors.bytes(*info) : model::ByteSpan();
  }

  gptq_cpu_kernel kernel(const std::string &name) {
    return reinterpret_cast<gptq_cpu_kernel>(::dlsym(library, name.c_str()));
  }

  model::MappedFile file;
  model::SafeTensors tensors;
  model::Manifest manifest;
  void *library = nullptr;
};

/// Two kernels on rows of 4 floats: x + w into the result, and the result
/// doubled. The first clears its row first, by a fill of unknown length.
constexpr const char *kKernels = R"(
  module @kernels attributes {gptq.target = "x86-64-v3"} {
    llvm.func @add_row(%args: !llvm.ptr, %dims: !llvm.ptr, %row: i64, %scratch: !llvm.ptr)
        attributes {gptq.grid = [array<i64: 1, 0, 0, 1>], gptq.scratch_bytes = 128 : i64} {
      %x0 = llvm.load %args : !llvm.ptr -> !llvm.ptr
      %p1 = llvm.getelementptr %args[1] : (!llvm.ptr) -> !llvm.ptr, !llvm.ptr
      %w = llvm.load %p1 : !llvm.ptr -> !llvm.ptr
      %p2 = llvm.getelementptr %args[2] : (!llvm.ptr) -> !llvm.ptr, !llvm.ptr
      %y0 = llvm.load %p2 : !llvm.ptr -> !llvm.ptr
      %four = llvm.mlir.constant(4 : i64) : i64
      %at = llvm.mul %row, %four : i64
      %x = llvm.getelementptr %x0[%at] : (!llvm.ptr, i64) -> !llvm.ptr, f32
      %y = llvm.getelementptr %y0[%at] : (!llvm.ptr, i64) -> !llvm.ptr, f32
      %m = llvm.load %dims : !llvm.ptr -> i64
      %zero = llvm.mlir.constant(0 : i8) : i8
      %rows = llvm.sub %m, %row : i64
      %bytes = llvm.mul %rows, %four : i64
      "llvm.intr.memset"(%y, %zero, %bytes) <{isVolatile = false}> : (!llvm.ptr, i8, i64) -> ()
      %a = llvm.load %x {alignment = 4 : i64} : !llvm.ptr -> vector<4xf32>
      %b = llvm.load %w {alignment = 4 : i64} : !llvm.ptr -> vector<4xf32>
      %c = llvm.fadd %a, %b : vector<4xf32>
      llvm.store %c, %y {alignment = 4 : i64} : vector<4xf32>, !llvm.ptr
      llvm.return
    }
    llvm.func @double_row(%args: !llvm.ptr, %dims: !llvm.ptr, %row: i64, %scratch: !llvm.ptr)
        attributes {gptq.grid = [array<i64: 1, 0, 0, 1>]} {
      %x0 = llvm.load %args : !llvm.ptr -> !llvm.ptr
      %p1 = llvm.getelementptr %args[1] : (!llvm.ptr) -> !llvm.ptr, !llvm.ptr
      %y0 = llvm.load %p1 : !llvm.ptr -> !llvm.ptr
      %four = llvm.mlir.constant(4 : i64) : i64
      %at = llvm.mul %row, %four : i64
      %x = llvm.getelementptr %x0[%at] : (!llvm.ptr, i64) -> !llvm.ptr, f32
      %y = llvm.getelementptr %y0[%at] : (!llvm.ptr, i64) -> !llvm.ptr, f32
      %a = llvm.load %x {alignment = 4 : i64} : !llvm.ptr -> vector<4xf32>
      %c = llvm.fadd %a, %a : vector<4xf32>
      llvm.store %c, %y {alignment = 4 : i64} : vector<4xf32>, !llvm.ptr
      llvm.return
    }
    llvm.func @unused(%args: !llvm.ptr, %dims: !llvm.ptr, %row: i64, %scratch: !llvm.ptr) {
      llvm.return
    }
  }
)";

constexpr const char *kWeights = R"(
  gptq.weight @dead : tensor<4xf32> = #gptq.data<"data.bin", "dead", 99999, tensor<4xf32>>
  gptq.weight @w : tensor<4xf32> = #gptq.data<"data.bin", "w", 4, tensor<4xf32>>
)";

std::string entry(const char *name, int maxM) {
  return std::string("  func.func @") + name +
         R"((%x: tensor<?x4xf32> {gptq.name = "x"}) -> (tensor<?x4xf32> {gptq.name = "y"})
      attributes {gptq.max_m = )" +
         std::to_string(maxM) + R"(} {
    %c0 = arith.constant 0 : index
    %m = tensor.dim %x, %c0 : tensor<?x4xf32>
    %w = gptq.load_weight @w : tensor<4xf32>
    %e = tensor.empty(%m) : tensor<?x4xf32>
    %s = gptq.dispatch "first" [@kernels::@add_row] up_to [64] rows %m at %c0
        ins(%x, %w : tensor<?x4xf32>, tensor<4xf32>) outs(%e : tensor<?x4xf32>) -> tensor<?x4xf32>
    %t = gptq.dispatch "second" [@kernels::@double_row] up_to [64] rows %m at %c0
        ins(%s : tensor<?x4xf32>) outs(%e : tensor<?x4xf32>) -> tensor<?x4xf32>
    %u = gptq.dispatch "third" [@kernels::@double_row, @kernels::@unused] up_to [16, 64] rows %m at %c0
        ins(%t : tensor<?x4xf32>) outs(%e : tensor<?x4xf32>) -> tensor<?x4xf32>
    return %u : tensor<?x4xf32>
  }
)";
}

bool hasV3() {
  llvm::StringMap<bool> host = llvm::sys::getHostCPUFeatures();
  return host.lookup("avx2") && host.lookup("fma") && host.lookup("f16c");
}

} // namespace

TEST_F(ExportTest, AWholeModelRuns) {
  const float data[] = {0, 10, 20, 30, 40};
  writeFile("data.bin",
            StringRef(reinterpret_cast<const char *>(data), sizeof(data)));
  // Two entries share the weight and the kernels.
  OwningOpRef<ModuleOp> module =
      parse(kWeights + entry("f", 5) + entry("g", 2) + kKernels);
  ASSERT_TRUE(module);
  int64_t last = 0, total = 0;
  ExportOptions options;
  options.progress = [&](int64_t done, int64_t all) {
    EXPECT_GE(done, last);
    last = done;
    total = all;
  };
  model::Expected<ExportSummary> summary =
      exportModel(*module, path("m.gptqm"), options);
  ASSERT_TRUE(summary.ok()) << summary.status().message();
  EXPECT_EQ(summary->kernels, 2);
  EXPECT_EQ(summary->weightBytes, 16);
  EXPECT_EQ(last, total);
  EXPECT_EQ(last, summary->fileBytes);
  EXPECT_EQ(filesInFolder(), 2u);

  LoadedModel loaded(path("m.gptqm"));
  EXPECT_EQ(int64_t(loaded.file.bytes().size), summary->fileBytes);
  EXPECT_EQ(loaded.tensors.dataOffset() % GPTQ_ALIGNMENT, 0u);
  for (const model::TensorInfo &tensor : loaded.tensors.tensors())
    if (StringRef(tensor.name).starts_with("pad."))
      for (size_t i = 0; i < tensor.byteSize(); ++i)
        EXPECT_EQ(loaded.tensors.bytes(tensor).data[i], 0);
    else
      EXPECT_EQ(tensor.begin % GPTQ_ALIGNMENT, 0u) << tensor.name;
  EXPECT_EQ(loaded.tensors.metadata().at("format"), "gptqm");
  EXPECT_EQ(
      loaded.tensors.metadata().at("manifest_checksum"),
      model::checksumText(model::checksum(loaded.bytes("manifest.json"))));
  EXPECT_FALSE(loaded.tensors.find("w.1"));
  ASSERT_EQ(loaded.manifest.sections.size(), 2u);
  for (const model::ManifestSection &s : loaded.manifest.sections) {
    model::ByteSpan bytes = loaded.bytes(s.tensor.c_str());
    EXPECT_EQ(int64_t(bytes.size), s.bytes);
    EXPECT_EQ(model::checksum(bytes), s.checksum) << s.tensor;
  }
  EXPECT_EQ(loaded.manifest.target.name, "x86-64-v3");
  EXPECT_FALSE(loaded.manifest.model);

  ASSERT_EQ(loaded.manifest.entries.size(), 2u);
  const model::ManifestEntry &f = loaded.manifest.entries[0];
  EXPECT_EQ(f.name, "f");
  EXPECT_EQ(f.inputs[0].name, "x");
  EXPECT_EQ(f.outputs[0].name, "y");
  EXPECT_TRUE(f.outputs[0].shape[0].isRows());
  // Two buffers live at once; each is 5 rows of 16 bytes, rounded up to 64.
  EXPECT_EQ(f.arenaBytes, 256);
  ASSERT_EQ(f.dispatches.size(), 3u);
  EXPECT_EQ(f.dispatches[0].variants[0].scratchBytes, 128);
  // Of two kernels, only the one that calls can reach.
  ASSERT_EQ(f.dispatches[2].variants.size(), 1u);
  EXPECT_EQ(f.dispatches[2].variants[0].mMax, 5);
  EXPECT_FALSE(loaded.kernel("unused"));
  EXPECT_FALSE(loaded.kernel("memset"));

  if (!hasV3())
    GTEST_SKIP() << "this processor cannot run x86-64-v3 code";
  alignas(64) float x[20], y[20] = {};
  alignas(64) uint8_t arena[256], scratch[128];
  alignas(64) float w[4];
  std::memcpy(w, loaded.bytes("w.0").data, sizeof(w));
  for (int i = 0; i < 20; ++i)
    x[i] = i;
  const int64_t dims[2] = {5, 0};
  for (const model::ManifestDispatch &dispatch : f.dispatches) {
    std::vector<void *> args;
    for (const model::ManifestArgument &arg : dispatch.args)
      switch (arg.kind) {
      case model::ManifestArgument::Kind::Arena:
        EXPECT_EQ(arg.sizePerRow, 16);
        args.push_back(arena + arg.offset);
        break;
      case model::ManifestArgument::Kind::Weight:
        args.push_back(w);
        break;
      case model::ManifestArgument::Kind::Input:
        args.push_back(x);
        break;
      default:
        args.push_back(y);
      }
    gptq_cpu_kernel kernel = loaded.kernel(dispatch.variants[0].symbol);
    ASSERT_TRUE(kernel);
    for (int64_t i = 0; i < dispatch.variants[0].workgroups(5, 0); ++i)
      kernel(args.data(), dims, i, scratch);
  }
  for (int i = 0; i < 20; ++i)
    EXPECT_EQ(y[i], 4 * (x[i] + 10 * (i % 4 + 1)));
}

TEST_F(ExportTest, SameInputSameFile) {
  writeFile("data.bin", std::string(20, 'x'));
  std::string files[2];
  for (std::string &file : files) {
    OwningOpRef<ModuleOp> module = parse(kWeights + entry("f", 5) + kKernels);
    ASSERT_TRUE(exportModel(*module, path("m.gptqm")).ok());
    std::ifstream stream(path("m.gptqm"), std::ios::binary);
    file.assign(std::istreambuf_iterator<char>(stream), {});
  }
  EXPECT_EQ(files[0], files[1]);
}

TEST_F(ExportTest, CarriesModelAndTokenizer) {
  writeFile("data.bin", std::string(20, 'x'));
  writeFile("tokenizer.model", "pieces");
  OwningOpRef<ModuleOp> module = parse(
      kWeights + entry("f", 5) + "gptq.state @k : memref<2x8x4xf32>\n" +
          R"(func.func @generate(%x: tensor<?xi32>, %p: index) -> tensor<1x512xf32> attributes {gptq.max_m = 8} {
    %c0 = arith.constant 0 : index
    %c1 = arith.constant 1 : index
    %k = gptq.load_state @k : memref<2x8x4xf32>
    %e = tensor.empty() : tensor<1x512xf32>
    %s = gptq.dispatch "last" [@kernels::@double_row] up_to [1] rows %c1 at %p
        ins(%x, %k : tensor<?xi32>, memref<2x8x4xf32>) outs(%e : tensor<1x512xf32>) -> tensor<1x512xf32>
    return %s : tensor<1x512xf32>
  })" + kKernels,
      R"(, gptq.model = {family = "llama", name = "m", vocab_size = 512, max_context = 64, bos_ids = [1],
         eos_ids = array<i64: 2, 3>, add_bos = true, parameters = 7, quantization = "none"},
         gptq.tokenizer = {kind = "sentencepiece", files = ["tokenizer.model"]},
         gptq.chat_template = "{{ x }}")");
  ASSERT_TRUE(module);
  model::Expected<ExportSummary> summary =
      exportModel(*module, path("m.gptqm"));
  ASSERT_TRUE(summary.ok()) << summary.status().message();
  LoadedModel loaded(path("m.gptqm"));
  const model::Manifest &m = loaded.manifest;
  ASSERT_TRUE(m.model);
  EXPECT_EQ(m.model->family, "llama");
  EXPECT_EQ(m.model->vocabSize, 512);
  EXPECT_EQ(m.model->maxContext, 64);
  EXPECT_EQ(m.model->bosIds, (std::vector<int64_t>{1}));
  EXPECT_EQ(m.model->eosIds, (std::vector<int64_t>{2, 3}));
  EXPECT_TRUE(m.model->addBos);
  EXPECT_EQ(m.model->parameters, 7);
  EXPECT_EQ(m.chatTemplate, "{{ x }}");
  EXPECT_EQ(m.tokenizer.kind, "sentencepiece");
  EXPECT_EQ(loaded.bytes("file.tokenizer.model").text(), "pieces");
  ASSERT_EQ(m.state.size(), 1u);
  EXPECT_EQ(m.state[0].name, "k");
  EXPECT_EQ(m.state[0].bytes, 2 * 8 * 4 * 4);
  // A dispatch of one row runs its kernel for every M, on one row's grid.
  const model::ManifestVariant &v = m.entries[1].dispatches[0].variants[0];
  EXPECT_EQ(v.mMax, 8);
  EXPECT_EQ(v.workgroups(8, 0), 1);
}

TEST_F(ExportTest, CallsIntoLibrariesAreRefusedByName) {
  OwningOpRef<ModuleOp> module = parse(R"(
    func.func @f(%x: tensor<?x4xf32>) -> tensor<?x4xf32> attributes {gptq.max_m = 1} {
      %c0 = arith.constant 0 : index
      %m = tensor.dim %x, %c0 : tensor<?x4xf32>
      %e = tensor.empty(%m) : tensor<?x4xf32>
      %s = gptq.dispatch "d" [@kernels::@k] up_to [1] rows %m at %c0
          ins(%x : tensor<?x4xf32>) outs(%e : tensor<?x4xf32>) -> tensor<?x4xf32>
      return %s : tensor<?x4xf32>
    }
    module @kernels attributes {gptq.target = "x86-64-v3"} {
      llvm.func @k(%args: !llvm.ptr, %dims: !llvm.ptr, %row: i64, %scratch: !llvm.ptr)
          attributes {gptq.grid = []} {
        %a = llvm.load %args : !llvm.ptr -> f32
        %b = llvm.intr.exp(%a) : (f32) -> f32
        llvm.store %b, %args : f32, !llvm.ptr
        llvm.return
      }
    })");
  ASSERT_TRUE(module);
  model::Expected<ExportSummary> summary =
      exportModel(*module, path("m.gptqm"));
  ASSERT_FALSE(summary.ok());
  EXPECT_EQ(summary.status().message(),
            "a kernel calls 'expf', but kernels may call nothing");
  EXPECT_EQ(filesInFolder(), 0u);
}

// Whatever goes wrong, the message is one sentence and no file is left, and one
// of an earlier export stays as it was.
TEST_F(ExportTest, FailuresLeaveNothing) {
  writeFile("m.gptqm", "earlier");
  OwningOpRef<ModuleOp> module = parse(kWeights + entry("f", 5) + kKernels);
  model::Expected<ExportSummary> summary =
      exportModel(*module, path("m.gptqm"));
  ASSERT_FALSE(summary.ok());
  EXPECT_NE(summary.status().message().find("data.bin"), std::string::npos)
      << summary.status().message();
  writeFile("data.bin", "short");
  summary = exportModel(*module, path("m.gptqm"));
  ASSERT_FALSE(summary.ok());
  EXPECT_EQ(summary.status().message(),
            "weight 'w': tensor 'w' needs bytes 4 to 20 of 'data.bin', which "
            "has 5 bytes");
  EXPECT_EQ(filesInFolder(), 2u);
  EXPECT_EQ(model::MappedFile::open(path("m.gptqm"))->bytes().text(),
            "earlier");

  writeFile("data.bin", std::string(20, 'x'));
  summary = exportModel(*module, path("no/such/folder/m.gptqm"));
  ASSERT_FALSE(summary.ok());
  EXPECT_EQ(summary.status().message(), "cannot write '" +
                                            path("no/such/folder/m.gptqm") +
                                            "': No such file or directory");
}

TEST_F(ExportTest, RefusesWhatIsNotFinal) {
  auto message = [&](const std::string &body) {
    OwningOpRef<ModuleOp> module = parse(body);
    EXPECT_TRUE(module);
    model::Expected<Program> program = buildProgram(*module);
    return program.ok() ? "" : program.status().message();
  };
  EXPECT_EQ(message(""),
            "the module has no kernels: it is not in its final form");
  EXPECT_EQ(message(kKernels),
            "the module has no entry function (one with gptq.max_m)");
  EXPECT_EQ(message("module @kernels {}"),
            "the kernels do not say for which target they are");
  EXPECT_EQ(message(R"(module @kernels attributes {gptq.target = "vax"} {})"),
            "target 'vax' is not known");
  EXPECT_EQ(message(kWeights + entry("f", 65) + kKernels),
            "entry 'f', dispatch 'first': expects kernels for up to 65 rows, "
            "but they end at 64");
  EXPECT_EQ(message(std::string(R"(
    func.func @f(%x: tensor<?x4xf32>) -> tensor<?x4xf32> attributes {gptq.max_m = 1} {
      return %x : tensor<?x4xf32>
    })") + kKernels),
            "entry 'f': expects result 0 to be the result of a dispatch, "
            "returned once");
}

// A result that adds to its destination lies where the destination was; the
// old value cannot be read afterwards.
TEST_F(ExportTest, DestinationsAreReused) {
  auto body = [](const char *last) {
    return std::string(R"(
    func.func @f(%x: tensor<?x4xf32>) -> tensor<?x4xf32> attributes {gptq.max_m = 4} {
      %c0 = arith.constant 0 : index
      %m = tensor.dim %x, %c0 : tensor<?x4xf32>
      %e = tensor.empty(%m) : tensor<?x4xf32>
      %a = gptq.dispatch "a" [@kernels::@double_row] up_to [4] rows %m at %c0
          ins(%x : tensor<?x4xf32>) outs(%e : tensor<?x4xf32>) -> tensor<?x4xf32>
      %b = gptq.dispatch "b" [@kernels::@double_row] up_to [4] rows %m at %c0
          ins(%x : tensor<?x4xf32>) outs(%a : tensor<?x4xf32>) -> tensor<?x4xf32>
      %c = gptq.dispatch "c" [@kernels::@double_row] up_to [4] rows %m at %c0
          ins()") +
           last +
           R"( : tensor<?x4xf32>) outs(%e : tensor<?x4xf32>) -> tensor<?x4xf32>
      return %c : tensor<?x4xf32>
    })" + kKernels;
  };
  OwningOpRef<ModuleOp> module = parse(body("%b"));
  model::Expected<Program> program = buildProgram(*module);
  ASSERT_TRUE(program.ok()) << program.status().message();
  const model::ManifestEntry &f = program->manifest.entries[0];
  EXPECT_EQ(f.arenaBytes, 64);
  EXPECT_EQ(f.dispatches[0].args[1].offset, f.dispatches[1].args[1].offset);

  module = parse(body("%a"));
  program = buildProgram(*module);
  ASSERT_FALSE(program.ok());
  EXPECT_EQ(program.status().message(),
            "entry 'f', dispatch 'c': reads a tensor that an earlier dispatch "
            "accumulated into");
}

// Calls of fewer rows than a dispatch is for run no workgroup of it.
TEST_F(ExportTest, DispatchesStartAtSomeRows) {
  auto body = [](int maxM) {
    return R"(
    func.func @f(%x: tensor<?x4xf32>) -> tensor<?x4xf32> attributes {gptq.max_m = )" +
           std::to_string(maxM) + R"(} {
      %c0 = arith.constant 0 : index
      %m = tensor.dim %x, %c0 : tensor<?x4xf32>
      %e = tensor.empty(%m) : tensor<?x4xf32>
      %a = gptq.dispatch "a" [@kernels::@double_row] up_to [4] rows %m at %c0
          ins(%x : tensor<?x4xf32>) outs(%e : tensor<?x4xf32>) {m_min = 3} -> tensor<?x4xf32>
      return %a : tensor<?x4xf32>
    })" + kKernels;
  };
  OwningOpRef<ModuleOp> module = parse(body(4));
  model::Expected<Program> program = buildProgram(*module);
  ASSERT_TRUE(program.ok()) << program.status().message();
  const auto &some = program->manifest.entries[0].dispatches[0].variants;
  ASSERT_EQ(some.size(), 2u);
  EXPECT_EQ(some[0].mMax, 2);
  EXPECT_EQ(some[0].workgroups(2, 0), 0);
  EXPECT_EQ(some[1].mMax, 4);
  EXPECT_EQ(some[1].workgroups(4, 0), 4);

  // An entry that never has as many rows.
  module = parse(body(2));
  program = buildProgram(*module);
  ASSERT_TRUE(program.ok()) << program.status().message();
  const auto &none = program->manifest.entries[0].dispatches[0].variants;
  ASSERT_EQ(none.size(), 1u);
  EXPECT_EQ(none[0].mMax, 2);
  EXPECT_EQ(none[0].workgroups(2, 0), 0);
}

// What a call is made with may be a destination: the next call finds it there.
TEST_F(ExportTest, InputsAreDestinations) {
  auto body = [](const char *input) {
    return std::string(R"(
    func.func @f(%x: tensor<1x4xf32>, %y: tensor<1x4xf32>) -> tensor<1x4xf32> attributes {gptq.max_m = 1} {
      %c0 = arith.constant 0 : index
      %c1 = arith.constant 1 : index
      %e = tensor.empty() : tensor<1x4xf32>
      %a = gptq.dispatch "a" [@kernels::@double_row] up_to [64] rows %c1 at %c0
          ins()") +
           input +
           R"( : tensor<1x4xf32>) outs(%x : tensor<1x4xf32>) -> tensor<1x4xf32>
      %b = gptq.dispatch "b" [@kernels::@double_row] up_to [64] rows %c1 at %c0
          ins(%y : tensor<1x4xf32>) outs(%e : tensor<1x4xf32>) -> tensor<1x4xf32>
      return %b : tensor<1x4xf32>
    })" + kKernels;
  };
  OwningOpRef<ModuleOp> module = parse(body("%y"));
  model::Expected<Program> program = buildProgram(*module);
  ASSERT_TRUE(program.ok()) << program.status().message();
  const model::ManifestArgument &left =
      program->manifest.entries[0].dispatches[0].args[1];
  EXPECT_EQ(left.kind, model::ManifestArgument::Kind::Input);
  EXPECT_EQ(left.index, 0);

  module = parse(body("%x"));
  program = buildProgram(*module);
  ASSERT_FALSE(program.ok());
  EXPECT_EQ(program.status().message(),
            "entry 'f', dispatch 'a': expects no tensor to be both input and "
            "destination");
}

// Buffers that live at the same time never overlap, and the arena is no larger
// than it must be for a chain.
TEST(PlanArena, NeverOverlaps) {
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    std::vector<ArenaBuffer> buffers(random() % 40);
    for (ArenaBuffer &b : buffers) {
      b.bytes = random() % 1000;
      b.first = random() % 20;
      b.last = b.first + random() % 6;
    }
    int64_t total = planArena(buffers), live = 0;
    for (const ArenaBuffer &a : buffers) {
      live += a.bytes + 64;
      EXPECT_EQ(a.offset % 64, 0);
      EXPECT_LE(a.offset + a.bytes, total);
      for (const ArenaBuffer &b : buffers)
        if (&a != &b && a.first <= b.last && b.first <= a.last && a.bytes > 0 &&
            b.bytes > 0)
          EXPECT_TRUE(a.offset + a.bytes <= b.offset ||
                      b.offset + b.bytes <= a.offset);
    }
    EXPECT_LE(total, live + 64);
  }
  // A chain of three needs room for two.
  std::vector<ArenaBuffer> chain = {{640, 0, 1}, {640, 1, 2}, {640, 2, 3}};
  EXPECT_EQ(planArena(chain), 1280);
}
