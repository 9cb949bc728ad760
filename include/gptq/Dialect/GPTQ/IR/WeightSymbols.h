//===- WeightSymbols.h - Weights of a module --------------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_DIALECT_GPTQ_IR_WEIGHTSYMBOLS_H
#define GPTQ_DIALECT_GPTQ_IR_WEIGHTSYMBOLS_H

#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/BuiltinOps.h"

namespace mlir::gptq {

/// A weight to declare: what is appended to the name of the one it is made
/// from, its type, its view.
struct DerivedWeight {
  std::string suffix;
  RankedTensorType type;
  Attribute view;
};

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

  /// The weights that `weight` is a stack of, or itself.
  SmallVector<WeightOp> partsOf(WeightOp weight) {
    auto stack = dyn_cast<StackAttr>(weight.getInit());
    if (!stack)
      return {weight};
    SmallVector<WeightOp> parts;
    for (auto part : stack.getParts().getAsRange<FlatSymbolRefAttr>())
      parts.push_back(symbols.lookup<WeightOp>(part.getValue()));
    return parts;
  }

  /// Returns a load, at `b`, of the weight that `describe` makes of `sources`;
  /// where these are stacks, of the stack of what it makes of their parts. A
  /// weight is declared after the first of its sources, under its name and the
  /// suffix, if it is not there yet.
  Value
  derive(OpBuilder &b, ArrayRef<WeightOp> sources,
         function_ref<DerivedWeight(MutableArrayRef<WeightOp>)> describe) {
    SmallVector<SmallVector<WeightOp>> parts;
    for (WeightOp source : sources)
      parts.push_back(partsOf(source));
    WeightOp first = sources.front();
    const bool isStack = isa<StackAttr>(first.getInit());
    DerivedWeight derived;
    SmallVector<Attribute> names;
    WeightOp weight;
    for (size_t i = 0; i < parts.front().size(); ++i) {
      SmallVector<WeightOp> ones;
      for (ArrayRef<WeightOp> each : parts)
        ones.push_back(each[i]);
      derived = describe(ones);
      weight = declare(b, ones.front(), derived);
      names.push_back(FlatSymbolRefAttr::get(weight));
    }
    if (isStack) {
      SmallVector<int64_t> shape(derived.type.getShape());
      shape.insert(shape.begin(), names.size());
      derived.type = derived.type.clone(shape);
      derived.view = StackAttr::get(b.getContext(), b.getArrayAttr(names));
      weight = declare(b, first, derived);
    }
    return LoadWeightOp::create(b, b.getInsertionPoint()->getLoc(),
                                derived.type, FlatSymbolRefAttr::get(weight));
  }

  /// The weight that shows `derived.view`, declared after `source` if it is not
  /// there yet.
  WeightOp declare(OpBuilder &b, WeightOp source,
                   const DerivedWeight &derived) {
    WeightOp &weight = declared[{derived.view, derived.type}];
    if (!weight) {
      OpBuilder::InsertionGuard guard(b);
      b.setInsertionPointAfter(source);
      weight = WeightOp::create(b, source.getLoc(),
                                source.getSymName().str() + derived.suffix,
                                derived.type, derived.view);
      // The table sees to it that names are unique.
      symbols.insert(weight);
    }
    return weight;
  }

private:
  SymbolTable symbols;
  DenseMap<std::pair<Attribute, Type>, WeightOp> declared;
};

} // namespace mlir::gptq

#endif // GPTQ_DIALECT_GPTQ_IR_WEIGHTSYMBOLS_H
