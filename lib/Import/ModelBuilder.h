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
    explicit operator bool() const { return weight || codes; }
    Symbol weight, codes, scales, zeros, offsets, groupIndex, bias;
    LinearViews views;
    std::string label;
  };
  struct Norm {
    Symbol weight, bias;
    std::string label;
    explicit operator bool() const { return bool(weight); }
  };
  struct Attention {
    std::string label;
    /// Either the three, or all in one.
    Linear q, k, v, qkv, o;
    Symbol queryNorm, keyNorm, keys, values, rotary;
    int64_t window = 0;
  };
  struct Mlp {
    std::string label;
    /// Either the two, perhaps without a gate, or both in one.
    Linear gate, up, gateUp, down;
  };
  /// Experts, of which each row goes through a few, and perhaps one of all
  /// rows.
  struct Experts {
    Linear router;
    /// The layers of all experts, stacked.
    Mlp mlp;
    std::optional<Mlp> shared;
    Linear sharedGate;
  };
  struct Layer {
    /// `outputNorm` and `downNorm` are of what is added to the rows.
    Norm inputNorm, outputNorm, mlpNorm, downNorm;
    Attention attention;
    /// One of these two.
    Mlp mlp;
    std::optional<Experts> experts;
  };
  struct Model {
    Symbol embedding, positions;
    double embeddingScale = 1;
    Norm norm;
    Linear head;
    std::vector<Layer> layers;
  };

  Symbol declare(StringRef name, const View &view);
  Symbol declareState(StringRef name, ArrayRef<int64_t> shape);
  /// Reads the vector `name` and declares it; as the family's norms have it.
  abi::Expected<Symbol> readVector(const std::string &name, int64_t size);
  abi::Expected<Symbol> readNormVector(const ModelConfig &config,
                                       const std::string &name, int64_t size);
  /// Reads the table of positions, its first rows being those of the context.
  abi::Expected<Symbol> readPositions(const ModelConfig &config,
                                      int64_t context);
  /// Reads a linear layer; `change` may put its views in another form.
  abi::Expected<Linear>
  readLinearLayer(const std::string &module, std::optional<LinearShape> shape,
                  BiasRule biasRule,
                  function_ref<void(LinearViews &)> change = {});
  /// Declares what `linear.views` show under `linear.label`.
  abi::Status declareLinear(Linear &linear);
  /// Reads the layers `modules`, one of each expert, and stacks them.
  abi::Expected<Linear> readStack(const std::string &label,
                                  ArrayRef<std::string> modules,
                                  LinearShape shape);
  /// Whether the checkpoint has the linear layer `module`.
  bool hasLinear(StringRef module) const;
  /// Gathers the outputs of `views`, whose rows belong to `parts` in turn, a
  /// head each, part by part.
  void gatherParts(LinearViews &views, int64_t parts, int64_t run);
  /// No name: no norm.
  abi::Expected<Norm> readNorm(const ModelConfig &config,
                               const std::string &block, StringRef module);
  /// Each reads what the block `name`, "model.layers.0.", has of it.
  abi::Expected<Attention> readAttention(const ModelConfig &config,
                                         int64_t context, int64_t index,
                                         const std::string &name);
  abi::Expected<Mlp> readMlp(const ModelConfig &config,
                             const std::string &name);
  abi::Expected<Experts> readExperts(const ModelConfig &config,
                                     const std::string &name);
  abi::Expected<Layer> readLayer(const ModelConfig &config, int64_t context,
                                 int64_t index);
  /// The rotary positions, with what the checkpoint divides frequencies by.
  abi::Expected<Rope> readRope(const ModelConfig &config);
  abi::Expected<Model> readModel(const ModelConfig &config, int64_t context);
  /// Emits an entry; its logits are those of the last row, or of every row.
  void emitEntry(const ModelConfig &config, const Model &model, StringRef name,
                 bool isLastRowOnly, int64_t maxRows);
  /// Emits a block; `emitAttention` and `emitMlp` its parts without residuals,
  /// on normalized rows.
  Value emitLayer(const ModelConfig &config, const Layer &layer, Value x,
                  Value position);
  Value emitAttention(const ModelConfig &config, const Attention &attention,
                      Value x, Value position);
  Value emitMlp(const ModelConfig &config, const Mlp &mlp, Value x,
                Value runs = Value());
  Value emitExperts(const ModelConfig &config, const Experts &experts, Value x);

  /// What people call a tensor or a module: without the prefix all share.
  std::string labelOf(StringRef name) const;
  /// The location of ops labeled `label`.
  Location at(const std::string &label);
  Value load(const Symbol &symbol, Location loc);
  /// An activation of as many rows, and slots, as `like` and `columns` columns.
  Value empty(Value like, int64_t columns, Location loc);
  /// With `runs` x is sorted by expert, and `linear` a stack of theirs.
  Value emitLinear(const Linear &linear, Value x, Value runs = Value());
  /// Columns `first` … `first + count - 1` of `x`.
  Value emitColumns(Value x, int64_t first, int64_t count);
  /// `x` itself without a norm.
  Value emitNorm(const ModelConfig &config, const Norm &norm, Value x);
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
  /// The tables of rotary positions, and the order of dealt heads, once there
  /// is one.
  Symbol rotary, localRotary, headOrder;
  /// The weight that stands for a g_idx of these bytes.
  llvm::DenseMap<StringRef, Symbol> groupIndices;
};

} // namespace mlir::gptq

#endif // GPTQ_LIB_IMPORT_MODELBUILDER_H
