//===- WeightSymbols.h - Weights of a module --------------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_DIALECT_GPTQ_TRANSFORMS_WEIGHTSYMBOLS_H
#define GPTQ_DIALECT_GPTQ_TRANSFORMS_WEIGHTSYMBOLS_H

#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/BuiltinOps.h"

namespace mlir::gptq {

/// The weights of a module: finds them, and declares new ones as views of
/// others, each view once.
class WeightSymbols {
public:
  explicit WeightSymbols(ModuleOp module) : symbols(module) {}

  /// The weight that `value` loads, or null.
  WeightOp of(Value value) {
    auto load = value ? value.getDefiningOp<LoadWeightOp>() : nullptr;
    return load ? symbols.lookup<WeightOp>(load.getWeight()) : nullptr;
  }

  /// Returns a load, at `b`, of the weight of `type` that `view` describes. It
  /// is declared after `source`, under its name and `suffix`, if it is not
  /// there yet.
  Value derive(OpBuilder &b, WeightOp source, const Twine &suffix,
               RankedTensorType type, Attribute view) {
    WeightOp &weight = declared[{view, type}];
    if (!weight) {
      OpBuilder::InsertionGuard guard(b);
      b.setInsertionPointAfter(source);
      weight = WeightOp::create(
          b, source.getLoc(), (source.getSymName() + suffix).str(), type, view);
      // The table sees to it that names are unique.
      symbols.insert(weight);
    }
    return LoadWeightOp::create(b, b.getInsertionPoint()->getLoc(), type,
                                FlatSymbolRefAttr::get(weight));
  }

private:
  SymbolTable symbols;
  DenseMap<std::pair<Attribute, Type>, WeightOp> declared;
};

} // namespace mlir::gptq

#endif // GPTQ_DIALECT_GPTQ_TRANSFORMS_WEIGHTSYMBOLS_H
