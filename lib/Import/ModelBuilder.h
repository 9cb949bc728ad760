//===- ModelBuilder.h - Builds the imported form ----------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_LIB_IMPORT_MODELBUILDER_H
#define GPTQ_LIB_IMPORT_MODELBUILDER_H

#include "gptq/Import/Import.h"
#include "lib/Import/Config.h"
#include "lib/Import/Formats/Format.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/Builders.h"

namespace mlir::gptq {

/// Builds modules in the imported form: model ops as the architecture is
/// written down, one weight symbol per tensor, nothing fused or reordered.
class ModelBuilder {
public:
  ModelBuilder(Checkpoint &checkpoint, const Format *format,
               MLIRContext *context);

  /// Adds `@generate` and `@score` with all weights and states.
  abi::Status addModel(const ModelConfig &config, int64_t context,
                       const ImportOptions &options);
  /// Adds the linear layer `module` as a function.
  abi::Status addLayer(StringRef module);

  ModuleOp getModule() { return *module; }
  OwningOpRef<ModuleOp> take() { return std::move(module); }
  /// Elements of all weights so far.
  int64_t getNumParameters() const { return numParameters; }

private:
  /// A declared weight or state; null: there is none.
  struct Symbol {
    FlatSymbolRefAttr name;
    Type type;
    explicit operator bool() const { return bool(name); }
  };
  struct Linear {
    Symbol weight, codes, scales, zeros, groupIndex, bias;
    LinearViews views;
    std::string label;
  };
  struct Norm {
    Symbol weight;
    std::string label;
  };
  struct Attention {
    std::string label;
    Linear q, k, v, o;
    Symbol queryNorm, keyNorm, keys, values;
    int64_t window = 0;
  };
  struct Mlp {
    std::string label;
    Linear gate, up, down;
  };
  struct Layer {
    Norm inputNorm, mlpNorm;
    Attention attention;
    Mlp mlp;
  };
  struct Model {
    Symbol embedding, rotary;
    Norm norm;
    Linear head;
    std::vector<Layer> layers;
  };

  Symbol declare(StringRef name, const View &view);
  Symbol declareState(StringRef name, ArrayRef<int64_t> shape);
  /// Reads the vector `name` and declares it.
  abi::Expected<Symbol> readVector(const std::string &name, int64_t size);
  abi::Expected<Linear> readLinearLayer(const std::string &module,
                                        std::optional<LinearShape> shape,
                                        BiasRule biasRule);
  abi::Expected<Norm> readNorm(const std::string &module, int64_t size);
  /// Each reads what the block `name`, "model.layers.0.", has of it.
  abi::Expected<Attention> readAttention(const ModelConfig &config,
                                         int64_t context, int64_t index,
                                         const std::string &name);
  abi::Expected<Mlp> readMlp(const ModelConfig &config,
                             const std::string &name);
  abi::Expected<Layer> readLayer(const ModelConfig &config, int64_t context,
                                 int64_t index);
  abi::Expected<Model> readModel(const ModelConfig &config, int64_t context);
  /// Emits an entry; its logits are those of the last row, or of every row.
  void emitEntry(const ModelConfig &config, const Model &model, StringRef name,
                 bool isLastRowOnly, int64_t maxRows);
  /// Emits a block; `emitAttention` and `emitMlp` its parts without residuals,
  /// on normalized rows.
  Value emitLayer(const ModelConfig &config, const Layer &layer, Value x,
                  Value table, Value position);
  Value emitAttention(const ModelConfig &config, const Attention &attention,
                      Value x, Value table, Value position);
  Value emitMlp(const ModelConfig &config, const Mlp &mlp, Value x);

  /// What people call a tensor or a module: without the prefix all share.
  std::string labelOf(StringRef name) const;
  /// The location of ops labeled `label`.
  Location at(const std::string &label);
  Value load(const Symbol &symbol, Location loc);
  /// An activation of as many rows as `like` and `columns` columns.
  Value empty(Value like, int64_t columns, Location loc);
  Value emitLinear(const Linear &linear, Value x);
  Value emitNorm(const Norm &norm, double epsilon, Value x);
  Value emitAdd(const std::string &label, Value a, Value b);
  func::FuncOp startFunction(StringRef name, ArrayRef<Type> inputs,
                             ArrayRef<StringRef> inputNames, Type result,
                             StringRef resultName, int64_t maxRows);

  Checkpoint &checkpoint;
  const Format *format;
  MLIRContext *ctx;
  /// What the names of all modules start with.
  StringRef prefix = ModuleNames().prefix;
  OwningOpRef<ModuleOp> module;
  /// Where the next op of a function goes, and the next symbol.
  OpBuilder b;
  OpBuilder symbols;
  /// M inside the current function.
  Value rows;
  int64_t numParameters = 0;
  /// The weight that stands for a g_idx of these bytes.
  llvm::DenseMap<StringRef, Symbol> groupIndices;
};

} // namespace mlir::gptq

#endif // GPTQ_LIB_IMPORT_MODELBUILDER_H
