//===- ModelWriter.cpp - Writes compiled models ---------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ModelFile.h"
#include "gptq/Export/Assembler.h"
#include "gptq/Export/Export.h"
#include "gptq/Export/Program.h"

using namespace mlir;
using namespace mlir::gptq;
using model::Expected;
using model::Status;

Expected<ExportSummary> mlir::gptq::exportModel(ModuleOp module, StringRef path,
                                                const ExportOptions &options) {
  GPTQ_ASSIGN(Program program, buildProgram(module));
  model::Manifest &manifest = program.manifest;
  const ::gptq::TargetInfo *target = ::gptq::findTarget(manifest.target.name);
  GPTQ_ASSIGN(std::string code,
              compileKernels(program.kernelModule, program.kernels, *target,
                             options.code));
  const bool isPtx = target->kind == ::gptq::TargetInfo::Kind::NVVM;
  std::string cubin;
  if (isPtx && !options.assembler.empty()) {
    GPTQ_ASSIGN(AssembledCode assembled,
                assemble(code, *target, options.assembler));
    emitRemarks(module.getContext(), assembled);
    cubin = std::move(assembled.cubin);
  }

  // Every size is known before the first byte of a weight is read.
  WeightReader reader(module);
  ExportSummary summary;
  auto addSection = [&](const std::string &name, int64_t bytes) {
    manifest.sections.push_back({name, bytes, 0});
  };
  addSection(isPtx ? "code.ptx" : "code.elf", code.size());
  if (!cubin.empty())
    addSection("code.cubin", cubin.size());
  for (auto [i, weight] : llvm::enumerate(program.weights)) {
    GPTQ_ASSIGN(int64_t bytes, storedBytes(weight));
    addSection("w." + std::to_string(i), bytes);
    summary.weightBytes += bytes;
  }
  std::vector<model::ByteSpan> carried;
  for (const std::string &name : manifest.tokenizer.files) {
    model::ByteSpan bytes;
    if (std::optional<StringRef> made = findTokenizerFile(module, name)) {
      bytes = model::ByteSpan::of(*made);
    } else {
      GPTQ_ASSIGN(bytes, reader.getFiles().bytes(name));
    }
    carried.push_back(bytes);
    addSection("file." + name, bytes.size);
  }
  GPTQ_TRY(model::checkManifest(manifest));

  ModelFile file(path, manifest, options.progress);
  GPTQ_TRY(file.create());
  GPTQ_TRY(file.append(model::ByteSpan::of(code)));
  GPTQ_TRY(file.endSection());
  if (!cubin.empty()) {
    GPTQ_TRY(file.append(model::ByteSpan::of(cubin)));
    GPTQ_TRY(file.endSection());
  }
  for (WeightOp weight : program.weights) {
    GPTQ_TRY(reader.read(
        weight, [&](model::ByteSpan bytes) { return file.append(bytes); }));
    GPTQ_TRY(file.endSection());
  }
  for (model::ByteSpan bytes : carried) {
    GPTQ_TRY(file.append(bytes));
    GPTQ_TRY(file.endSection());
  }
  GPTQ_TRY(file.keep());
  summary.fileBytes = file.fileBytes();
  summary.codeBytes = code.size() + cubin.size();
  summary.kernels = program.kernels.size();
  return summary;
}
