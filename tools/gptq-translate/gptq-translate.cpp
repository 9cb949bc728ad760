//===- gptq-translate.cpp - From checkpoints to IR ------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ExportGPTQ.h"
#include "Inspect.h"
#include "gptq/Export/TensorFile.h"
#include "gptq/Import/Import.h"
#include "mlir/IR/AsmState.h"
#include "mlir/IR/Diagnostics.h"
#include "mlir/IR/MLIRContext.h"
#include "mlir/Support/FileUtilities.h"
#include "llvm/ADT/SmallString.h"
#include "llvm/Support/CommandLine.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/InitLLVM.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/ToolOutputFile.h"

using namespace mlir;
using namespace mlir::gptq;

namespace cl = llvm::cl;

static cl::OptionCategory category("gptq-translate options");
static cl::opt<std::string> importHF("import-hf",
                                     cl::desc("Import this checkpoint: a "
                                              "folder, or a GGUF file"),
                                     cl::value_desc("path"), cl::cat(category));
static cl::opt<std::string>
    layer("layer",
          cl::desc("Import one linear layer: model.layers.0.mlp.down_proj"),
          cl::value_desc("name"), cl::cat(category));
static cl::opt<int64_t> maxContext(
    "max-context", cl::init(0), cl::value_desc("tokens"), cl::cat(category),
    cl::desc("Tokens a session can hold (default: what the model was trained "
             "for, at most 4096)"));
static cl::opt<int64_t> maxRows("max-rows", cl::init(256),
                                cl::value_desc("tokens"), cl::cat(category),
                                cl::desc("Tokens of one call of @generate"));
static cl::opt<int64_t> maxScoreRows("max-score-rows", cl::init(64),
                                     cl::value_desc("tokens"),
                                     cl::cat(category),
                                     cl::desc("Tokens of one call of @score"));
static cl::opt<std::string> emitKernel(
    "emit-kernel", cl::value_desc("N,K,bits,group[,asym][,act-order]"),
    cl::cat(category),
    cl::desc("Write a lone linear layer; its random weights go beside the "
             "output, into a file that ends in .safetensors (bits 16: dense)"));
static cl::opt<std::string>
    writeWeightsTo("write-weights",
                   cl::desc("Write the elements of every imported weight into "
                            "a safetensors file, codes as bytes"),
                   cl::value_desc("file"), cl::cat(category));
static cl::opt<std::string> exportFolder(
    "export-gptq",
    cl::desc("With --import-hf: write the checkpoint, of any format, into this "
             "new folder in format GPTQ"),
    cl::value_desc("folder"), cl::cat(category));
static cl::opt<std::string>
    exportFormat("gptq-format", cl::init("gptq_v2"),
                 cl::desc("With --export-gptq: gptq_v2 (default) or gptq"),
                 cl::value_desc("format"), cl::cat(category));
static cl::opt<std::string>
    inspectFolder("inspect",
                  cl::desc("Say what this checkpoint, a folder or a GGUF file, "
                           "holds, and what keeps it from being compiled"),
                  cl::value_desc("path"), cl::cat(category));
static cl::opt<bool> asJson("json", cl::desc("With --inspect: as JSON"),
                            cl::cat(category));
static cl::opt<bool> verifyValues(
    "verify",
    cl::desc("With --inspect: read every weight; checksums, scales of zero, "
             "codes at the ends of their range"),
    cl::cat(category));
static cl::opt<std::string> outputName("o", cl::desc("Output file"),
                                       cl::value_desc("file"), cl::init("-"),
                                       cl::cat(category));

static int fail(const llvm::Twine &message) {
  llvm::errs() << "gptq-translate: error: " << message << "\n";
  return 1;
}

/// Writes `text` to the file `name`, or to standard output.
static bool writeFile(StringRef name,
                      llvm::function_ref<void(raw_ostream &)> fn,
                      std::string &error) {
  std::unique_ptr<llvm::ToolOutputFile> file = openOutputFile(name, &error);
  if (!file)
    return false;
  fn(file->os());
  file->os().flush();
  if (file->os().has_error()) {
    error =
        "cannot write '" + name.str() + "': " + file->os().error().message();
    file->os().clear_error();
    return false;
  }
  file->keep();
  return true;
}

/// Makes the module of `--emit-kernel` and writes its weights.
static OwningOpRef<ModuleOp> makeKernel(MLIRContext *context,
                                        std::string &error) {
  auto shape = KernelShape::parse(emitKernel);
  if (!shape) {
    error = shape.status().message();
    return {};
  }
  if (outputName == "-") {
    error = "--emit-kernel writes two files and needs -o";
    return {};
  }
  llvm::SmallString<256> weightsName(outputName);
  llvm::sys::fs::make_absolute(weightsName);
  llvm::sys::path::replace_extension(weightsName, "safetensors");
  std::string weights;
  OwningOpRef<ModuleOp> module = emitKernelModule(
      *shape, llvm::sys::path::parent_path(weightsName),
      llvm::sys::path::filename(weightsName), context, weights, error);
  if (module &&
      !writeFile(weightsName, [&](raw_ostream &os) { os << weights; }, error))
    return {};
  return module;
}

int main(int argc, char **argv) {
  llvm::InitLLVM init(argc, argv);
  cl::HideUnrelatedOptions(category);
  cl::ParseCommandLineOptions(
      argc, argv, "Reads checkpoints of quantized language models into IR\n");
  if (int(!importHF.empty()) + int(!emitKernel.empty()) +
          int(!inspectFolder.empty()) !=
      1)
    return fail("expected one of --import-hf, --emit-kernel and --inspect");

  MLIRContext context(MLIRContext::Threading::DISABLED);
  ScopedDiagnosticHandler handler(&context, [](Diagnostic &diagnostic) {
    bool isWarning = diagnostic.getSeverity() == DiagnosticSeverity::Warning;
    llvm::errs() << "gptq-translate: " << (isWarning ? "warning: " : "error: ")
                 << diagnostic << "\n";
  });
  std::string error;
  if (!inspectFolder.empty()) {
    // Doubts are part of the report.
    ScopedDiagnosticHandler quiet(&context, [](Diagnostic &) {});
    int64_t problems = 0;
    if (!writeFile(
            outputName,
            [&](raw_ostream &os) {
              problems = inspect(inspectFolder, {verifyValues, asJson},
                                 &context, os, error);
            },
            error))
      return fail(error);
    if (problems < 0)
      return fail(error);
    return problems == 0 ? 0 : 1;
  }
  if (!exportFolder.empty()) {
    if (importHF.empty() ||
        (exportFormat != "gptq" && exportFormat != "gptq_v2"))
      return fail("--export-gptq needs --import-hf, and --gptq-format to be "
                  "gptq or gptq_v2");
    abi::Status status =
        exportGPTQ(importHF, exportFolder, exportFormat, &context);
    return status.ok() ? 0 : fail(status.message());
  }
  OwningOpRef<ModuleOp> module;
  if (!emitKernel.empty()) {
    module = makeKernel(&context, error);
  } else {
    ImportOptions options;
    options.maxContext = maxContext;
    options.maxRows = maxRows;
    options.maxScoreRows = maxScoreRows;
    options.layer = layer;
    module = importCheckpoint(StringRef(importHF), options, &context, error);
  }
  if (!module)
    return fail(error);
  if (!writeWeightsTo.empty())
    if (abi::Status status = writeWeights(*module, writeWeightsTo);
        !status.ok())
      return fail(status.message());
  if (!writeFile(
          outputName, [&](raw_ostream &os) { os << *module << "\n"; }, error))
    return fail(error);
  return 0;
}
