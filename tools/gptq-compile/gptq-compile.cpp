//===- gptq-compile.cpp - Compiles a checkpoint into one file -------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Progress.h"
#include "gptq/Codegen/Common/PlanFile.h"
#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "gptq/Export/Assembler.h"
#include "gptq/Export/Export.h"
#include "gptq/Import/Import.h"
#include "gptq/Pipelines/Explain.h"
#include "gptq/Pipelines/Pipelines.h"
#include "gptq/Target/Target.h"
#include "mlir/IR/AsmState.h"
#include "mlir/IR/Diagnostics.h"
#include "mlir/IR/MLIRContext.h"
#include "mlir/Parser/Parser.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Support/Timing.h"
#include "runtime/abi/MappedFile.h"
#include "runtime/lib/Tokenizer.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/CommandLine.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/InitLLVM.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/SourceMgr.h"
#include "llvm/Support/ToolOutputFile.h"

using namespace mlir;
using namespace mlir::gptq;
namespace cl = llvm::cl;

//===----------------------------------------------------------------------===//
// Options
//===----------------------------------------------------------------------===//

static cl::OptionCategory category("gptq-compile options");

static cl::opt<std::string>
    input(cl::Positional, cl::Required,
          cl::desc("<checkpoint folder, file.gguf or file.mlir>"),
          cl::cat(category));
static cl::opt<std::string> output("o", cl::value_desc("model.gptqm"),
                                   cl::desc("The compiled model to write"),
                                   cl::cat(category));
static cl::opt<std::string> target(
    "target", cl::init("cpu"), cl::value_desc("kind[:name]"),
    cl::desc("What to compile for: cpu (this machine), cpu:x86-64-v3, "
             "cpu:x86-64-v4, cpu:x86-64-v4-vnni, nvvm:sm_75, nvvm:sm_80, "
             "nvvm:sm_86, nvvm:sm_89, nvvm:sm_90a, nvvm:sm_100a, nvvm:sm_120a"),
    cl::cat(category));
static cl::opt<std::string> layer("layer", cl::value_desc("name"),
                                  cl::desc("Compile this linear layer alone"),
                                  cl::cat(category));
// A string, because LLVM reports a number that is none by itself.
static cl::opt<std::string>
    maxContext("max-context", cl::value_desc("tokens"),
               cl::desc("Tokens a session can hold (default: as trained, at "
                        "most 4096)"),
               cl::cat(category));
static cl::opt<std::string>
    plan("plan", cl::value_desc("file"),
         cl::desc("Plans to use in place of the planner's, as --write-plan "
                  "writes them"),
         cl::cat(category));
static cl::opt<std::string>
    writePlan("write-plan", cl::value_desc("file"),
              cl::desc("Write the plans there, to be edited and given back"),
              cl::cat(category));
static cl::opt<bool>
    explain("explain",
            cl::desc("Print the plan of every layer, and the reasons"),
            cl::cat(category));
static cl::opt<std::string>
    bandwidth("bandwidth", cl::value_desc("GB/s"),
              cl::desc("With --explain: what memory delivers, for floors "
                       "(default: one core's share on the target)"),
              cl::cat(category));
static cl::opt<std::string>
    dumpIR("dump-ir", cl::value_desc("folder"),
           cl::desc("Write every form of the IR there, one file each"),
           cl::cat(category));
static cl::opt<bool> quiet("quiet", cl::desc("Print errors only"),
                           cl::cat(category));
static cl::opt<bool> noFuse("no-fuse", cl::desc("Leave layers as they are"),
                            cl::cat(category));
static cl::opt<bool> noPromote("no-promote",
                               cl::desc("Read activations where they lie"),
                               cl::cat(category));
static cl::opt<bool>
    noBufferPartials("no-buffer-partials",
                     cl::desc("Add partial sums up in the result"),
                     cl::cat(category));
static cl::opt<bool> noVectorize("no-vectorize",
                                 cl::desc("Compute one weight at a time"),
                                 cl::cat(category));
static cl::opt<bool>
    noHoistScales("no-hoist-scales",
                  cl::desc("Apply scales to each weight, not to each group"),
                  cl::cat(category));
static cl::opt<bool> noFoldZeros(
    "no-fold-zeros",
    cl::desc("Subtract zero points from each weight, not from each group"),
    cl::cat(category));

static cl::opt<std::string> activations(
    "activations", cl::init("auto"), cl::value_desc("type"),
    cl::desc("GPUs: what matmuls read activations as: f16, bf16, auto"),
    cl::cat(category));
static cl::opt<bool>
    noOverlap("no-overlap",
              cl::desc("GPUs: start a kernel when the one in front has ended"),
              cl::cat(category));
static cl::opt<bool>
    noNormalize("no-normalize",
                cl::desc("GPUs: normalize rows in kernels of their own"),
                cl::cat(category));
static cl::opt<bool>
    noNext("no-next",
           cl::desc("GPUs: leave out the entries that choose tokens"),
           cl::cat(category));
static cl::opt<int64_t> maxTopK(
    "max-top-k", cl::init(128), cl::value_desc("tokens"),
    cl::desc("GPUs: largest top-k that the device samples with by itself, a "
             "power of two (default: 128); 0 leaves sampling to the host"),
    cl::cat(category));
static cl::opt<bool>
    noFuseRotary("no-fuse-rotary",
                 cl::desc("GPUs: rotate and append in a kernel of its own"),
                 cl::cat(category));
static cl::opt<bool>
    noSplitContext("no-split-context",
                   cl::desc("GPUs: attend to all of the context in one "
                            "workgroup a head"),
                   cl::cat(category));
static cl::opt<bool>
    noPrefetch("no-prefetch",
               cl::desc("GPUs: load weights when they are multiplied"),
               cl::cat(category));
static cl::opt<bool> noRing(
    "no-ring",
    cl::desc("GPUs: read operands where they lie for any number of rows, "
             "not through a ring in shared memory"),
    cl::cat(category));
static cl::opt<bool>
    noClusters("no-clusters",
               cl::desc("GPUs: let each workgroup sum over all of K"),
               cl::cat(category));
static cl::opt<std::string>
    loadBits("load-bits", cl::init("128"), cl::value_desc("bits"),
             cl::desc("GPUs: bits of packed weights that a thread loads at "
                      "once, 32, 64 or 128"),
             cl::cat(category));

static cl::opt<std::string>
    ptxas("ptxas", cl::value_desc("path"),
          cl::desc("GPUs: the assembler that adds machine code to the PTX, or "
                   "none (default: $CUDA_HOME/bin/ptxas, or the one in PATH, "
                   "if there is one)"),
          cl::cat(category));
static cl::opt<std::string>
    unit("unit", cl::value_desc("name"),
         cl::desc("GPUs: the arithmetic unit that multiplies: mma_m16n8k16 "
                  "(sm_75: mma_m16n8k8), fma_f16x2, fma_f32 (default: the "
                  "matrix unit)"),
         cl::cat(category));
static cl::opt<bool> noHalfMath(
    "no-half-math",
    cl::desc("GPUs: with --unit=fma_f16x2, convert and multiply each weight "
             "by itself, in f32"),
    cl::cat(category));

/// The options MLIR brings that belong in this tool's help.
static constexpr StringRef kShownOptions[] = {
    "mlir-timing",
    "mlir-timing-display",
    "mlir-disable-threading",
    "mlir-pass-pipeline-crash-reproducer",
    "mlir-pass-pipeline-local-reproducer",
    "mlir-print-ir-after-all",
    "mlir-print-ir-before-all"};

//===----------------------------------------------------------------------===//
// Errors
//===----------------------------------------------------------------------===//

/// `message` as one sentence on one line, without a final full stop.
static std::string oneSentence(StringRef message) {
  SmallVector<StringRef> lines;
  message.split(lines, '\n', -1, /*KeepEmpty=*/false);
  std::string result;
  for (StringRef line : lines) {
    line = line.trim();
    if (line.empty())
      continue;
    if (!result.empty())
      result += "; ";
    result += line;
  }
  return StringRef(result).rtrim('.').str();
}

static int fail(StringRef message) {
  llvm::errs() << "gptq-compile: error: " << oneSentence(message) << "\n";
  return 1;
}

namespace {

/// Keeps the first error of a context as a sentence, and prints warnings.
class Diagnostics {
public:
  explicit Diagnostics(MLIRContext *context, ::gptq::Progress &progress)
      : isQuiet(quiet),
        handler(context, [this, &progress](Diagnostic &diagnostic) {
          if (diagnostic.getSeverity() == DiagnosticSeverity::Error) {
            if (error.empty())
              error = sentence(diagnostic);
          } else if (diagnostic.getSeverity() == DiagnosticSeverity::Warning &&
                     !isQuiet) {
            progress.clear();
            llvm::outs() << "warning: " << sentence(diagnostic) << "\n";
            llvm::outs().flush();
          }
          return success();
        }) {}

  /// The first error, or `otherwise`.
  std::string message(StringRef otherwise) const {
    return error.empty() ? otherwise.str() : error;
  }

private:
  static std::string sentence(Diagnostic &diagnostic) {
    std::string text;
    llvm::raw_string_ostream stream(text);
    if (auto at = diagnostic.getLocation()->findInstanceOf<FileLineColLoc>())
      stream << at.getFilename().getValue() << ":" << at.getLine() << ":"
             << at.getColumn() << ": ";
    else if (auto name = diagnostic.getLocation()->findInstanceOf<NameLoc>())
      stream << name.getName().getValue() << ": ";
    stream << diagnostic;
    for (Diagnostic &note : diagnostic.getNotes()) {
      std::string line = oneSentence(note.str());
      // The op itself, in full, is for the IR dump.
      if (!StringRef(line).starts_with("see current operation"))
        stream << "; " << line;
    }
    return oneSentence(text);
  }

  const bool isQuiet;
  std::string error;
  ScopedDiagnosticHandler handler;
};

} // namespace

//===----------------------------------------------------------------------===//
// Steps
//===----------------------------------------------------------------------===//

/// The target that `--target` names, or null and an error.
static const ::gptq::TargetInfo *chosenTarget(std::string &error) {
  auto [kind, name] = StringRef(target).split(':');
  auto known = [] {
    std::string names;
    for (const ::gptq::TargetInfo &t : ::gptq::cpuTargets())
      names += ", cpu:" + t.name;
    for (const ::gptq::TargetInfo &t : ::gptq::nvvmTargets())
      names += ", nvvm:" + t.name;
    return names.substr(2);
  };
  if (kind == "cpu" && (name.empty() || name == "native")) {
    const ::gptq::TargetInfo *native = ::gptq::nativeTarget();
    if (!native)
      error = "this machine's processor is none of " + known() +
              "; name one of them with --target";
    return native;
  }
  using Kind = ::gptq::TargetInfo::Kind;
  const ::gptq::TargetInfo *result = ::gptq::findTarget(name);
  if (!result || kind != (result->kind == Kind::CPU ? "cpu" : "nvvm")) {
    result = nullptr;
    error =
        "target '" + target + "' is not known, the targets are cpu, " + known();
  }
  return result;
}

/// Reads the tokenizer that `module` carries with the reader that gptq-run has:
/// what that would refuse is refused before anything is compiled.
static bool checkTokenizer(ModuleOp module, std::string &error) {
  auto folder = module->getAttrOfType<StringAttr>(kFolderAttr);
  auto tokenizer = module->getAttrOfType<DictionaryAttr>(kTokenizerAttr);
  auto kind = tokenizer ? tokenizer.getAs<StringAttr>("kind") : StringAttr();
  if (!folder || !kind || kind == "none")
    return true;
  const bool isPieces = kind == "sentencepiece";
  StringRef name = isPieces ? "tokenizer.model" : "tokenizer.json";
  SmallString<128> path(folder.getValue());
  llvm::sys::path::append(path, name);
  ::gptq::abi::ByteSpan bytes;
  ::gptq::abi::MappedFile file;
  if (std::optional<StringRef> made = findTokenizerFile(module, name)) {
    bytes = ::gptq::abi::ByteSpan::of(*made);
  } else {
    auto opened = ::gptq::abi::MappedFile::open(path.str().str());
    if (!opened) {
      error = opened.status().message();
      return false;
    }
    file = opened.take();
    bytes = file.bytes();
  }
  auto read = isPieces ? ::gptq::runtime::readSentencePiece(bytes)
                       : ::gptq::runtime::readTokenizerJson(bytes);
  if (!read)
    error = ("'" + path + "': " + read.status().message()).str();
  return bool(read);
}

/// Writes the file `path`, if it can be written whole.
static bool writeText(StringRef path,
                      llvm::function_ref<void(raw_ostream &)> content,
                      std::string &error) {
  std::error_code code;
  llvm::ToolOutputFile file(path, code, llvm::sys::fs::OF_None);
  if (!code) {
    content(file.os());
    file.os().close();
    code = file.os().error();
    file.os().clear_error();
    if (!code)
      file.keep();
  }
  if (code)
    error = ("cannot write '" + path + "': " + code.message()).str();
  return !code;
}

/// Writes `module` as form number `number`.
static bool dump(ModuleOp module, unsigned number, StringRef form,
                 std::string &error) {
  if (dumpIR.empty())
    return true;
  SmallString<128> path(dumpIR);
  llvm::sys::path::append(path, Twine(number) + "-" + form + ".mlir");
  if (std::error_code code = llvm::sys::fs::create_directories(dumpIR)) {
    error = ("cannot write '" + path + "': " + code.message()).str();
    return false;
  }
  return writeText(
      path,
      [&](raw_ostream &os) {
        module->print(os);
        os << "\n";
      },
      error);
}

/// Writes the plans of `module` where --write-plan says.
static bool writePlans(ModuleOp module, const ::gptq::TargetInfo &target,
                       std::string &error) {
  std::string text;
  llvm::raw_string_ostream stream(text);
  return succeeded(writePlanFile(module, target, stream)) &&
         writeText(writePlan, [&](raw_ostream &os) { os << text; }, error);
}

/// Whether passes have nothing left to do: kernels are there.
static bool isFinal(ModuleOp module) {
  auto kernels = module.lookupSymbol<ModuleOp>(kKernelsModule);
  if (!kernels)
    return false;
  bool hasModelOps = false;
  kernels.walk([&](Operation *op) {
    hasModelOps |= isa_and_nonnull<GPTQDialect>(op->getDialect());
  });
  return !hasModelOps;
}

/// Reads the folder or the file that the command line names.
static OwningOpRef<ModuleOp>
readInput(MLIRContext &context, Diagnostics &diagnostics, std::string &error) {
  if (llvm::sys::fs::is_directory(input) ||
      StringRef(input).ends_with(".gguf")) {
    ImportOptions options;
    if (!maxContext.empty() &&
        (!llvm::to_integer(maxContext, options.maxContext) ||
         options.maxContext < 1)) {
      error = "--max-context takes a number of tokens, but found '" +
              maxContext + "'";
      return nullptr;
    }
    options.layer = layer;
    return importCheckpoint(StringRef(input), options, &context, error);
  }
  if (!llvm::sys::fs::exists(input)) {
    error = "'" + input + "' does not exist";
    return nullptr;
  }
  if (!layer.empty() || !maxContext.empty()) {
    error = "--layer and --max-context are for checkpoints, but '" + input +
            "' is none";
    return nullptr;
  }
  OwningOpRef<ModuleOp> module =
      parseSourceFile<ModuleOp>(input.getValue(), &context);
  if (!module) {
    error = diagnostics.message("cannot read '" + input + "'");
    return nullptr;
  }
  // File names inside a module without a folder are relative to it.
  if (!(*module)->hasAttr(kFolderAttr)) {
    StringRef folder = llvm::sys::path::parent_path(input);
    (*module)->setAttr(kFolderAttr, StringAttr::get(&context, folder));
  }
  return module;
}

int main(int argc, char **argv) {
  llvm::InitLLVM init(argc, argv);
  registerPassManagerCLOptions();
  registerMLIRContextCLOptions();
  registerAsmPrinterCLOptions();
  registerDefaultTimingManagerCLOptions();
  for (StringRef name : kShownOptions)
    if (cl::Option *option = cl::getRegisteredOptions().lookup(name))
      option->addCategory(category);
  cl::HideUnrelatedOptions(category);
  std::string usage;
  llvm::raw_string_ostream usageStream(usage);
  if (!cl::ParseCommandLineOptions(
          argc, argv,
          "Compiles a checkpoint folder or a GGUF file into one .gptqm file\n",
          &usageStream)) {
    StringRef line = StringRef(usage).split('\n').first;
    // "gptq-compile: Unknown command line argument 'x'.  Try: …"
    line.consume_front(llvm::sys::path::filename(argv[0]));
    line = line.ltrim(": ").split("  Try:").first.rtrim("!");
    // LLVM has written what is wrong with an option's value itself.
    return line.empty() ? 1 : fail(line);
  }
  if (output.empty())
    return fail("no file to write, name one with -o");
  std::string error;
  const ::gptq::TargetInfo *info = chosenTarget(error);
  if (!info)
    return fail(error);

  double gigabytesPerSecond = 0;
  if (!bandwidth.empty() &&
      (!llvm::to_float(StringRef(bandwidth), gigabytesPerSecond) ||
       !(gigabytesPerSecond > 0)))
    return fail("--bandwidth takes a number of GB/s, but found '" + bandwidth +
                "'");

  ::gptq::Progress progress(quiet);
  auto failClean = [&](StringRef message) {
    progress.clear();
    return fail(message);
  };
  DialectRegistry registry;
  registerAllDialects(registry);
  registerObjectCodeTranslations(registry);
  MLIRContext context(registry);
  context.loadAllAvailableDialects();
  Diagnostics diagnostics(&context, progress);
  DefaultTimingManager timing;
  applyDefaultTimingManagerCLOptions(timing);
  TimingScope timer = timing.getRootScope();

  PipelineOptions options;
  if (!llvm::is_contained({"f16", "bf16", "auto"}, StringRef(activations)))
    return failClean("--activations takes f16, bf16 or auto, but found '" +
                     activations + "'");
  if (!llvm::to_integer(loadBits, options.loadBits) ||
      !llvm::is_contained({32, 64, 128}, options.loadBits))
    return failClean("--load-bits takes 32, 64 or 128, but found '" + loadBits +
                     "'");
  const bool isGpu = info->kind == ::gptq::TargetInfo::Kind::NVVM;
  model::Expected<std::string> assembler =
      findAssembler(isGpu ? StringRef(ptxas) : StringRef("none"));
  if (!assembler)
    return failClean("--ptxas: " + assembler.status().message());
  if (!unit.empty() && !isGpu)
    return failClean("--unit is for GPUs, but the target is " + info->name);
  // Plans choose a unit of several warps by themselves.
  const ::gptq::UnitInfo *chosen = info->findUnit(unit);
  if (!unit.empty() && (!chosen || chosen->warps > 1)) {
    std::vector<std::string> names;
    for (const ::gptq::UnitInfo &known : info->units)
      if (known.warps == 1)
        names.push_back(known.name);
    return failClean("--unit takes " + llvm::join(names, ", ") + " for " +
                     info->name + ", but found '" + unit + "'");
  }
  progress.step("reading " + input);
  TimingScope importTimer = timer.nest("Import");
  OwningOpRef<ModuleOp> module = readInput(context, diagnostics, error);
  importTimer.stop();
  if (!module)
    return failClean(error);
  if (!checkTokenizer(*module, error))
    return failClean(error);
  unsigned number = 0;
  if (!dump(*module, number++, "imported", error))
    return failClean(error);

  std::unique_ptr<Explanation> explanation;
  if (!isFinal(*module)) {
    options.target = info->name;
    options.fuse = !noFuse;
    options.activations = activations;
    options.prefetch = !noPrefetch;
    options.overlap = !noOverlap;
    options.ring = !noRing;
    options.clusters = !noClusters;
    options.normalize = !noNormalize;
    options.next = !noNext;
    options.maxTopK = maxTopK;
    options.fuseRotary = !noFuseRotary;
    options.splitContext = !noSplitContext;
    options.promote = !noPromote;
    options.bufferPartials = !noBufferPartials;
    options.vectorize = !noVectorize;
    options.hoistScales = !noHoistScales;
    options.foldZeros = !noFoldZeros;
    options.planFile = plan;
    options.unit = unit;
    options.halfMath = !noHalfMath;
    options.reasons = explain;
    if (explain)
      explanation = std::make_unique<Explanation>(context, *info,
                                                  gigabytesPerSecond * 1e9);
    progress.step("compiling for " + info->name);
    for (StringRef stage : stageNames()) {
      PassManager passes(&context);
      if (failed(applyPassManagerCLOptions(passes)))
        return failClean(diagnostics.message("cannot set up the passes"));
      TimingScope stageTimer = timer.nest(stage);
      passes.enableTiming(stageTimer);
      buildStage(passes, stage, options);
      if (failed(passes.run(*module)))
        return failClean(diagnostics.message(
            ("the passes to the form '" + stage + "' failed").str()));
      if (!dump(*module, number++, stage, error))
        return failClean(error);
      if (stage == "planned" && !writePlan.empty() &&
          !writePlans(*module, *info, error))
        return failClean(diagnostics.message(error));
      if (explanation && stage == "packed")
        explanation->addPlans(*module);
      if (explanation && stage == "dispatched")
        explanation->addKernels(*module);
    }
  }
  auto kernels = module->lookupSymbol<ModuleOp>(kKernelsModule);
  if (kernels && !kernels->hasAttr(kTargetAttr) &&
      !(*module)->hasAttr(kTargetAttr))
    kernels->setAttr(kTargetAttr, StringAttr::get(&context, info->name));

  // The linker, a library of this process, sets all options back.
  const std::string path = output, irFolder = dumpIR;
  progress.step("writing " + path);
  TimingScope exportTimer = timer.nest("Export");
  ExportOptions exportOptions;
  exportOptions.assembler = *assembler;
  exportOptions.progress = [&](int64_t done, int64_t total) {
    progress.update(done, total);
  };
  std::string llvmIR, assembly;
  if (!irFolder.empty()) {
    exportOptions.code.llvmIR = &llvmIR;
    exportOptions.code.assembly = &assembly;
  }
  model::Expected<ExportSummary> summary =
      exportModel(*module, path, exportOptions);
  exportTimer.stop();
  if (explanation) {
    progress.clear();
    explanation->print(llvm::outs());
    llvm::outs().flush();
  }
  if (!summary)
    return failClean(diagnostics.message(summary.status().message()));
  progress.finish("wrote " + path + ": " +
                  ::gptq::bytesText(summary->fileBytes) + ", weights " +
                  ::gptq::bytesText(summary->weightBytes) + ", " +
                  std::to_string(summary->kernels) + " kernels in " +
                  ::gptq::bytesText(summary->codeBytes));
  for (auto [text, name] :
       {std::pair(&llvmIR, "kernels.ll"), std::pair(&assembly, "kernels.s")}) {
    if (irFolder.empty())
      break;
    SmallString<128> file(irFolder);
    llvm::sys::path::append(file, Twine(number) + "-" + name);
    std::error_code code;
    llvm::raw_fd_ostream(file, code) << *text;
  }
  return 0;
}
