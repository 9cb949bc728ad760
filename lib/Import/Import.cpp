//===- Import.cpp - Reads checkpoint folders into model IR ----------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

#include "gptq/Import/Import.h"
#include "lib/Import/ModelBuilder.h"
#include "lib/Import/Tokenizer.h"
#include "mlir/IR/AsmState.h"
#include "mlir/IR/Diagnostics.h"
#include "mlir/IR/DialectResourceBlobManager.h"
#include "mlir/IR/Verifier.h"

using namespace mlir;
using namespace mlir::gptq;
using abi::Status;
using abi::StatusCode;

/// Tokens a session gets where nobody says: the caches of longer ones would
/// take more memory than most sessions want.
static constexpr int64_t kUsualContext = 4096;
static constexpr int64_t kMaxRows = int64_t(1) << 20;

/// Checks a number a user gave.
static Status checkOption(const char *name, int64_t value, int64_t max) {
  if (value >= 1 && value <= max)
    return Status::success();
  return abi::makeStatus(StatusCode::InvalidArgument,
                         "%s: expected 1 to %lld, found %lld", name,
                         (long long)max, (long long)value);
}

/// Describes model and tokenizer on the module.
static void setModelAttributes(ModuleOp module, const ModelConfig &config,
                               const TokenizerInfo &tokenizer, Folder &folder,
                               StringRef quantization, int64_t context,
                               int64_t parameters) {
  Builder b(module.getContext());
  auto entry = [&](StringRef name, Attribute value) {
    return b.getNamedAttr(name, value);
  };
  module->setAttr(
      kModelAttr,
      b.getDictionaryAttr(
          {entry("family", b.getStringAttr(config.family->name)),
           entry("name", b.getStringAttr(folder.name())),
           entry("vocab_size", b.getI64IntegerAttr(config.vocabSize)),
           entry("max_context", b.getI64IntegerAttr(context)),
           entry("bos_ids", b.getDenseI64ArrayAttr(config.bosIds)),
           entry("eos_ids", b.getDenseI64ArrayAttr(config.eosIds)),
           entry("add_bos", b.getBoolAttr(tokenizer.addBos)),
           entry("parameters", b.getI64IntegerAttr(parameters)),
           entry("quantization", b.getStringAttr(quantization))}));
  SmallVector<StringRef> files(tokenizer.files.begin(), tokenizer.files.end());
  SmallVector<NamedAttribute> entries = {
      entry("kind", b.getStringAttr(tokenizer.kind)),
      entry("files", b.getStrArrayAttr(files))};
  SmallVector<NamedAttribute> contents;
  for (const std::string &name : tokenizer.files) {
    if (!folder.isMade(name))
      continue;
    // It was read before.
    abi::ByteSpan bytes = *folder.read(name);
    auto type = RankedTensorType::get({int64_t(bytes.size)}, b.getI8Type());
    contents.push_back(entry(
        name,
        DenseResourceElementsAttr::get(
            type, name,
            HeapAsmResourceBlob::allocateAndCopyInferAlign(ArrayRef(
                reinterpret_cast<const char *>(bytes.data), bytes.size)))));
  }
  if (!contents.empty())
    entries.push_back(entry("contents", b.getDictionaryAttr(contents)));
  module->setAttr(kTokenizerAttr, b.getDictionaryAttr(entries));
  if (!tokenizer.chatTemplate.empty())
    module->setAttr(kChatTemplateAttr, b.getStringAttr(tokenizer.chatTemplate));
}

/// Reads a whole model into `builder`.
static Status importModel(Folder &folder, const ImportOptions &options,
                          const Format *format, ModelBuilder &builder) {
  GPTQ_ASSIGN(ModelConfig config, readModelConfig(folder));
  GPTQ_TRY(checkOption("rows of one call", options.maxRows, kMaxRows));
  GPTQ_TRY(
      checkOption("scored rows of one call", options.maxScoreRows, kMaxRows));
  int64_t context = options.maxContext;
  if (context == 0)
    context = std::min(config.maxPositions, kUsualContext);
  GPTQ_TRY(checkOption("context of the model", context, config.maxPositions));

  GPTQ_ASSIGN(TokenizerInfo tokenizer,
              readTokenizer(folder, config.family->addBos));
  if (config.bosIds.empty())
    tokenizer.addBos = false;
  GPTQ_TRY(builder.addModel(config, context, options));
  setModelAttributes(builder.getModule(), config, tokenizer, folder,
                     format ? format->describe() : "none", context,
                     builder.getNumParameters());
  return Status::success();
}

/// Imports what `options` asks for into `module`.
static Status importInto(Folder &folder, const ImportOptions &options,
                         MLIRContext *context, OwningOpRef<ModuleOp> &module) {
  GPTQ_ASSIGN(std::unique_ptr<Checkpoint> checkpoint, Checkpoint::open(folder));
  GPTQ_ASSIGN(std::optional<QuantConfig> quant, readQuantConfig(*checkpoint));
  std::unique_ptr<Format> format;
  if (quant)
    format = createFormat(*quant);

  ModelBuilder builder(*checkpoint, format.get(), context);
  if (options.layer.empty())
    GPTQ_TRY(importModel(folder, options, format.get(), builder));
  else
    GPTQ_TRY(builder.addLayer(options.layer));
  Builder b(context);
  builder.getModule()->setAttr(kFolderAttr, b.getStringAttr(folder.path()));

  for (const std::string &warning : checkpoint->warnings())
    emitWarning(UnknownLoc::get(context)) << warning;
  if (failed(verify(builder.getModule())))
    return abi::makeStatus(StatusCode::InvalidFile,
                           "'%s' was read, but the result does not verify",
                           folder.path().c_str());
  module = builder.take();
  return Status::success();
}

OwningOpRef<ModuleOp> mlir::gptq::importCheckpoint(Folder &folder,
                                                   const ImportOptions &options,
                                                   MLIRContext *context,
                                                   std::string &error) {
  context->loadDialect<GPTQDialect, arith::ArithDialect, func::FuncDialect,
                       tensor::TensorDialect>();
  OwningOpRef<ModuleOp> module;
  error = importInto(folder, options, context, module).message();
  return module;
}

OwningOpRef<ModuleOp> mlir::gptq::importCheckpoint(StringRef folder,
                                                   const ImportOptions &options,
                                                   MLIRContext *context,
                                                   std::string &error) {
  abi::Expected<std::unique_ptr<Folder>> opened = openCheckpoint(folder);
  if (!opened) {
    error = opened.status().message();
    return {};
  }
  return importCheckpoint(**opened, options, context, error);
}
