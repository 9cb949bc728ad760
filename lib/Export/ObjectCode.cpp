//===- ObjectCode.cpp - Kernels as a shared object ------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Export/ObjectCode.h"
#include "ScratchFile.h"
#include "lld/Common/Driver.h"
#include "mlir/Target/LLVMIR/Dialect/Builtin/BuiltinToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Dialect/LLVMIR/LLVMToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Dialect/NVVM/NVVMToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Export.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/AsmParser/Parser.h"
#include "llvm/IR/LegacyPassManager.h"
#include "llvm/IR/Module.h"
#include "llvm/Linker/Linker.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/Passes/PassBuilder.h"
#include "llvm/Support/SourceMgr.h"
#include "llvm/Support/TargetSelect.h"
#include "llvm/Target/TargetMachine.h"
#include "llvm/Transforms/Utils/Cloning.h"

LLD_HAS_DRIVER(elf)

using namespace mlir;
using namespace mlir::gptq;
using model::Expected;
using model::Status;
using model::StatusCode;

/// Code may be compiled on any machine; on CPUs it runs on Linux on x86-64.
static StringRef tripleOf(const ::gptq::TargetInfo &target) {
  return target.kind == ::gptq::TargetInfo::Kind::NVVM
             ? "nvptx64-nvidia-cuda"
             : "x86_64-unknown-linux-gnu";
}

/// Where the code generator calls them although no kernel did: copies and fills
/// whose length is not a constant. String instructions are fast on every
/// processor since 2012 and, unlike a loop, are never turned into a call of the
/// function they implement.
static constexpr StringRef kMemoryFunctions = R"(
define hidden ptr @memcpy(ptr %to, ptr %from, i64 %bytes) nounwind "no-builtins" {
  call { ptr, ptr, i64 } asm sideeffect "rep movsb", "={di},={si},={cx},0,1,2,~{memory}"(ptr %to, ptr %from, i64 %bytes)
  ret ptr %to
}
define hidden ptr @memset(ptr %to, i32 %value, i64 %bytes) nounwind "no-builtins" {
  %byte = trunc i32 %value to i8
  call { ptr, i64 } asm sideeffect "rep stosb", "={di},={cx},{ax},0,1,~{memory}"(i8 %byte, ptr %to, i64 %bytes)
  ret ptr %to
}
define hidden ptr @memmove(ptr %to, ptr %from, i64 %bytes) nounwind "no-builtins" {
  %a = ptrtoint ptr %to to i64
  %b = ptrtoint ptr %from to i64
  %ahead = sub i64 %a, %b
  %overlaps = icmp ult i64 %ahead, %bytes
  br i1 %overlaps, label %backward, label %forward
forward:
  call { ptr, ptr, i64 } asm sideeffect "rep movsb", "={di},={si},={cx},0,1,2,~{memory}"(ptr %to, ptr %from, i64 %bytes)
  ret ptr %to
backward:
  %last = sub i64 %bytes, 1
  %toLast = getelementptr i8, ptr %to, i64 %last
  %fromLast = getelementptr i8, ptr %from, i64 %last
  call { ptr, ptr, i64 } asm sideeffect "std\0Arep movsb\0Acld", "={di},={si},={cx},0,1,2,~{memory},~{flags},~{dirflag}"(ptr %toLast, ptr %fromLast, i64 %bytes)
  ret ptr %to
}
)";

static Status codeError(const Twine &message) {
  return Status(StatusCode::Unsupported, message.str());
}

/// The first line of `text`, which tools end with details.
static std::string firstLine(StringRef text) {
  return text.trim().split('\n').first.str();
}

//===----------------------------------------------------------------------===//
// LLVM IR
//===----------------------------------------------------------------------===//

void mlir::gptq::registerObjectCodeTranslations(DialectRegistry &registry) {
  registerBuiltinDialectTranslation(registry);
  registerLLVMDialectTranslation(registry);
  registerNVVMDialectTranslation(registry);
}

static Expected<std::unique_ptr<llvm::TargetMachine>>
createMachine(const ::gptq::TargetInfo &target) {
  if (target.kind == ::gptq::TargetInfo::Kind::NVVM) {
    LLVMInitializeNVPTXTargetInfo();
    LLVMInitializeNVPTXTarget();
    LLVMInitializeNVPTXTargetMC();
    LLVMInitializeNVPTXAsmPrinter();
  } else {
    LLVMInitializeX86TargetInfo();
    LLVMInitializeX86Target();
    LLVMInitializeX86TargetMC();
    LLVMInitializeX86AsmPrinter();
    LLVMInitializeX86AsmParser();
  }
  llvm::Triple triple(tripleOf(target));
  std::string error;
  const llvm::Target *llvmTarget =
      llvm::TargetRegistry::lookupTarget(triple, error);
  if (!llvmTarget)
    return codeError(firstLine(error));
  std::string features;
  for (const std::string &feature : target.features)
    features += (features.empty() ? "+" : ",+") + feature;
  llvm::TargetOptions options;
  // One section per function and constant, so that what is not used, the memory
  // functions above all, is not linked.
  options.FunctionSections = true;
  options.DataSections = true;
  std::unique_ptr<llvm::TargetMachine> machine(llvmTarget->createTargetMachine(
      triple, target.llvmCpu, features, options, llvm::Reloc::PIC_,
      llvm::CodeModel::Small, llvm::CodeGenOptLevel::Aggressive));
  if (!machine)
    return codeError("LLVM has no code generator for " + tripleOf(target));
  return machine;
}

/// Makes `kernels` the only functions that are visible, and tells the optimizer
/// what it may rely on.
static Status prepare(llvm::Module &module, ArrayRef<std::string> kernels,
                      const llvm::TargetMachine &machine) {
  llvm::StringSet<> exported;
  for (const std::string &kernel : kernels)
    exported.insert(kernel);
  for (llvm::GlobalValue &value : module.global_values())
    if (!value.isDeclaration() && !exported.contains(value.getName()))
      value.setLinkage(llvm::GlobalValue::InternalLinkage);
  if (machine.getTargetTriple().isNVPTX())
    return {};

  llvm::SMDiagnostic diagnostic;
  std::unique_ptr<llvm::Module> memory = llvm::parseAssemblyString(
      kMemoryFunctions, diagnostic, module.getContext());
  assert(memory && "the memory functions are well-formed");
  memory->setDataLayout(module.getDataLayout());
  memory->setTargetTriple(module.getTargetTriple());
  if (llvm::Linker::linkModules(module, std::move(memory)))
    return codeError("a kernel defines memcpy, memmove or memset");

  const bool has512 = machine.getTargetFeatureString().contains("avx512f") ||
                      machine.getTargetCPU() == "x86-64-v4";
  for (llvm::Function &fn : module) {
    if (fn.isDeclaration())
      continue;
    fn.setDoesNotThrow();
    fn.addFnAttr("target-cpu", machine.getTargetCPU());
    fn.addFnAttr("target-features", machine.getTargetFeatureString());
    // Vectors have the width the target's plans gave them.
    fn.addFnAttr("prefer-vector-width", has512 ? "512" : "256");
    if (exported.contains(fn.getName()))
      fn.setLinkage(llvm::GlobalValue::ExternalLinkage);
  }
  return {};
}

static void optimize(llvm::Module &module, llvm::TargetMachine &machine) {
  llvm::PipelineTuningOptions tuning;
  // Vectors are in the IR already; turning what is scalar into more of them
  // only bloats kernels' tails.
  tuning.LoopVectorization = false;
  tuning.SLPVectorization = false;
  tuning.LoopInterleaving = false;
  // What a GPU's registers hold at a time is planned.
  if (machine.getTargetTriple().isNVPTX())
    tuning.LoopUnrolling = false;
  llvm::LoopAnalysisManager loops;
  llvm::FunctionAnalysisManager functions;
  llvm::CGSCCAnalysisManager components;
  llvm::ModuleAnalysisManager modules;
  llvm::PassBuilder builder(&machine, tuning);
  builder.registerModuleAnalyses(modules);
  builder.registerCGSCCAnalyses(components);
  builder.registerFunctionAnalyses(functions);
  builder.registerLoopAnalyses(loops);
  builder.crossRegisterProxies(loops, functions, components, modules);
  builder.buildPerModuleDefaultPipeline(llvm::OptimizationLevel::O3)
      .run(module, modules);
}

static Expected<SmallString<0>> emit(llvm::Module &module,
                                     llvm::TargetMachine &machine,
                                     llvm::CodeGenFileType kind) {
  SmallString<0> bytes;
  llvm::raw_svector_ostream stream(bytes);
  llvm::legacy::PassManager passes;
  if (machine.addPassesToEmitFile(passes, stream, nullptr, kind))
    return codeError("LLVM cannot write object code for " +
                     machine.getTargetTriple().str());
  passes.run(module);
  return bytes;
}

//===----------------------------------------------------------------------===//
// Linking
//===----------------------------------------------------------------------===//

/// What the linker's messages mean.
static Status linkError(StringRef messages) {
  auto [before, after] = messages.split("undefined symbol: ");
  if (!after.empty())
    return codeError("a kernel calls '" + firstLine(after) +
                     "', but kernels may call nothing");
  return codeError("cannot link the kernels: " + firstLine(messages));
}

static Expected<std::string> link(StringRef object) {
  ScratchFile input, output;
  GPTQ_TRY(input.create("o", object));
  GPTQ_TRY(output.create("so", ""));
  std::string messages;
  llvm::raw_string_ostream stream(messages);
  const char *args[] = {"ld.lld",
                        "-shared",
                        "--no-undefined",
                        "--gc-sections",
                        "--strip-all",
                        "--build-id=none",
                        "--hash-style=gnu",
                        "-znoexecstack",
                        "-znow",
                        "--threads=1",
                        "--color-diagnostics=never",
                        input.path.c_str(),
                        "-o",
                        output.path.c_str()};
  lld::Result result =
      lld::lldMain(args, stream, stream, {{lld::Gnu, &lld::elf::link}});
  if (result.retCode != 0)
    return linkError(messages);
  return output.read();
}

Expected<std::string>
mlir::gptq::compileKernels(ModuleOp module, ArrayRef<std::string> kernels,
                           const ::gptq::TargetInfo &target,
                           ObjectCodeOptions options) {
  llvm::LLVMContext context;
  std::unique_ptr<llvm::Module> code =
      translateModuleToLLVMIR(module, context, "kernels");
  if (!code)
    return codeError("cannot translate the kernels to LLVM IR");
  GPTQ_ASSIGN(std::unique_ptr<llvm::TargetMachine> machine,
              createMachine(target));
  code->setTargetTriple(machine->getTargetTriple());
  code->setDataLayout(machine->createDataLayout());
  GPTQ_TRY(prepare(*code, kernels, *machine));
  optimize(*code, *machine);
  if (options.llvmIR) {
    llvm::raw_string_ostream stream(*options.llvmIR);
    code->print(stream, nullptr);
  }
  if (target.kind == ::gptq::TargetInfo::Kind::NVVM) {
    GPTQ_ASSIGN(SmallString<0> ptx,
                emit(*code, *machine, llvm::CodeGenFileType::AssemblyFile));
    if (options.assembly)
      *options.assembly = ptx.str().str();
    return ptx.str().str();
  }
  if (options.assembly) {
    // Writing code changes the module.
    std::unique_ptr<llvm::Module> copy = llvm::CloneModule(*code);
    GPTQ_ASSIGN(SmallString<0> assembly,
                emit(*copy, *machine, llvm::CodeGenFileType::AssemblyFile));
    *options.assembly = assembly.str().str();
  }
  GPTQ_ASSIGN(SmallString<0> object,
              emit(*code, *machine, llvm::CodeGenFileType::ObjectFile));
  return link(object);
}
