//===- Assembler.cpp - Machine code of NVIDIA GPUs ------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Export/Assembler.h"
#include "ScratchFile.h"
#include "mlir/IR/Remarks.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/Program.h"

#include <cstdlib>

using namespace mlir;
using namespace mlir::gptq;
using model::Expected;
using model::Status;
using model::StatusCode;

Expected<std::string> mlir::gptq::findAssembler(StringRef choice) {
  if (choice == "none")
    return std::string();
  if (!choice.empty()) {
    if (!llvm::sys::fs::can_execute(choice))
      return Status(StatusCode::InvalidArgument,
                    ("expected the path of ptxas or 'none', but '" + choice +
                     "' is no program")
                        .str());
    return choice.str();
  }
  if (const char *home = std::getenv("CUDA_HOME")) {
    SmallString<128> path(home);
    llvm::sys::path::append(path, "bin", "ptxas");
    if (llvm::sys::fs::can_execute(path))
      return path.str().str();
  }
  auto found = llvm::sys::findProgramByName("ptxas");
  return found ? *found : std::string();
}

/// Drops everything to the first number of `text`, and takes that.
static int64_t takeNumber(StringRef &text) {
  text = text.drop_until([](char c) { return c >= '0' && c <= '9'; });
  int64_t number = 0;
  if (text.consumeInteger(10, number))
    return 0;
  return number;
}

/// The number in front of `unit`, as in "2 bytes spill stores"; 0 if there is
/// none.
static int64_t numberBefore(StringRef line, StringRef unit) {
  size_t at = line.find(unit);
  if (at == StringRef::npos)
    return 0;
  StringRef before = line.take_front(at).rtrim();
  StringRef digits =
      before.take_back(before.size() - 1 -
                       before.find_last_not_of("0123456789")); // npos + 1 is 0.
  return takeNumber(digits);
}

/// The text after "ptxas <severity> :", if `line` is one of that.
static std::optional<StringRef> messageOf(StringRef line, StringRef severity) {
  size_t at = line.find(severity);
  if (!line.starts_with("ptxas") || at == StringRef::npos)
    return std::nullopt;
  StringRef rest = line.drop_front(at + severity.size()).ltrim();
  if (!rest.consume_front(":"))
    return std::nullopt;
  return rest.trim();
}

AssembledCode mlir::gptq::parseAssemblerOutput(StringRef text) {
  AssembledCode code;
  SmallVector<StringRef> lines;
  text.split(lines, '\n', -1, /*KeepEmpty=*/false);
  for (StringRef line : lines) {
    std::optional<StringRef> info = messageOf(line, "info");
    std::optional<StringRef> warning = messageOf(line, "warning");
    if (info && info->consume_front("Compiling entry function '")) {
      code.kernels.push_back({info->split('\'').first.str()});
    } else if (warning || (info && info->starts_with("(C"))) {
      // "… in the function 'k', 8 bytes …", "… in function 'k'"
      auto [before, after] = (warning ? *warning : *info).split("function '");
      auto [kernel, rest] = after.split('\'');
      if (before.consume_back("in ") || before.consume_back("in the "))
        before = before.rtrim();
      code.notes.push_back({kernel.str(), (before + rest).str()});
    } else if (!code.kernels.empty()) {
      KernelUse &kernel = code.kernels.back();
      if (line.contains("bytes stack frame")) {
        kernel.stackBytes = numberBefore(line, " bytes stack frame");
        kernel.spillBytes = numberBefore(line, " bytes spill stores") +
                            numberBefore(line, " bytes spill loads");
      } else if (info && info->starts_with("Used ")) {
        kernel.registers = numberBefore(line, " registers");
      }
    }
  }
  return code;
}

/// The first thing that `text` says went wrong.
static std::string firstError(StringRef text) {
  SmallVector<StringRef> lines;
  text.split(lines, '\n', -1, /*KeepEmpty=*/false);
  for (StringRef line : lines)
    for (StringRef severity : {"error", "fatal"})
      if (std::optional<StringRef> message = messageOf(line, severity)) {
        // "ptxas FILE, line 30; error   : …": the file is gone by now.
        StringRef place = line.split(", line ").second;
        return (place.empty() ? std::string()
                              : "line " + std::to_string(takeNumber(place)) +
                                    " of the PTX: ") +
               message->str();
      }
  return lines.empty() ? "it says nothing" : lines.front().trim().str();
}

Expected<AssembledCode> mlir::gptq::assemble(StringRef ptx,
                                             const ::gptq::TargetInfo &target,
                                             StringRef assembler) {
  ScratchFile input, output, messages;
  GPTQ_TRY(input.create("ptx", ptx));
  GPTQ_TRY(output.create("cubin", ""));
  GPTQ_TRY(messages.create("txt", ""));
  std::string arch = "-arch=" + target.llvmCpu, error;
  int status = llvm::sys::ExecuteAndWait(
      assembler,
      {assembler, arch, "-v", "-warn-spills", input.path.str(), "-o",
       output.path.str()},
      std::nullopt, {StringRef(""), messages.path.str(), messages.path.str()},
      /*SecondsToWait=*/0, /*MemoryLimit=*/0, &error);
  GPTQ_ASSIGN(std::string text, messages.read());
  if (status != 0)
    return Status(StatusCode::Unsupported,
                  ("'" + assembler + "' cannot assemble the kernels for " +
                   target.name + ": " +
                   (error.empty() ? firstError(text) : error) +
                   " (--ptxas=none compiles without it)")
                      .str());
  AssembledCode code = parseAssemblerOutput(text);
  GPTQ_ASSIGN(code.cubin, output.read());
  if (code.cubin.empty())
    return Status(StatusCode::Unsupported,
                  ("'" + assembler + "' made no code of the kernels for " +
                   target.name + " (--ptxas=none compiles without it)")
                      .str());
  return code;
}

void mlir::gptq::emitRemarks(MLIRContext *context, const AssembledCode &code) {
  remark::RemarkOpts options =
      remark::RemarkOpts::name("Assemble").category("gptq");
  auto locationOf = [&](StringRef kernel) {
    return NameLoc::get(StringAttr::get(context, kernel));
  };
  for (const KernelUse &use : code.kernels)
    remark::analysis(locationOf(use.kernel), options)
        << remark::metric("Registers", use.registers)
        << remark::metric("StackBytes", use.stackBytes)
        << remark::metric("SpillBytes", use.spillBytes);
  for (const auto &[kernel, note] : code.notes)
    remark::missed(locationOf(kernel.empty() ? "all kernels" : kernel), options)
        << remark::reason("ptxas: {0}", note);
}
