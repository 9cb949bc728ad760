//===- ModelBuilder.cpp - Builds the imported form ------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/AttrTypeSubElements.h"

#include "lib/Import/ModelBuilder.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/bit.h"

#include <cmath>

using namespace mlir;
using namespace mlir::gptq;
using abi::Status;
using abi::StatusCode;

//===----------------------------------------------------------------------===//
// Symbols
//===----------------------------------------------------------------------===//

ModelBuilder::ModelBuilder(Checkpoint &checkpoint, const Format *format,
                           MLIRContext *context)
    : checkpoint(checkpoint), format(format), ctx(context),
      module(ModuleOp::create(UnknownLoc::get(context))), b(context),
      symbols(context) {
  // Symbols come first, functions after them.
  b.setInsertionPointToEnd(module->getBody());
  symbols.setInsertionPointToEnd(module->getBody());
}

std::string ModelBuilder::labelOf(StringRef name) const {
  name.consume_front(prefix);
  return name.str();
}

ModelBuilder::Symbol ModelBuilder::declare(StringRef name, const View &view) {
  if (!view)
    return {};
  // Parts get names of their own, which the view then refers to.
  Attribute init = view.init;
  if (!view.parts.empty()) {
    AttrTypeReplacer names;
    llvm::SmallDenseMap<Attribute, Attribute> parts;
    for (auto [i, part] : llvm::enumerate(view.parts)) {
      std::string partName = (name + "." + Twine(i)).str();
      parts[getPartRef(i, ctx)] = declare(partName, part).name;
    }
    names.addReplacement(
        [&](FlatSymbolRefAttr ref) -> std::optional<Attribute> {
          if (Attribute known = parts.lookup(ref))
            return known;
          return std::nullopt;
        });
    init = names.replace(init);
  }
  auto op = WeightOp::create(symbols, NameLoc::get(b.getStringAttr(name)), name,
                             view.type, init);
  return {FlatSymbolRefAttr::get(op.getSymNameAttr()), view.type};
}

ModelBuilder::Symbol ModelBuilder::declareState(StringRef name,
                                                ArrayRef<int64_t> shape) {
  auto type = MemRefType::get(shape, b.getF32Type());
  auto op =
      StateOp::create(symbols, NameLoc::get(b.getStringAttr(name)), name, type);
  return {FlatSymbolRefAttr::get(op.getSymNameAttr()), type};
}

abi::Expected<ModelBuilder::Symbol>
ModelBuilder::readVector(const std::string &name, int64_t size) {
  GPTQ_ASSIGN(View view, readDense(checkpoint, name, size, ctx));
  numParameters += size;
  return declare(labelOf(name), view);
}

abi::Expected<ModelBuilder::Linear> ModelBuilder::readLinearLayer(
    const std::string &module, std::optional<LinearShape> shape,
    BiasRule biasRule, function_ref<void(LinearViews &)> change) {
  Linear linear;
  GPTQ_ASSIGN(linear.views,
              readLinear(checkpoint, format, module, shape, biasRule, ctx));
  if (change)
    change(linear.views);
  linear.label = labelOf(module);
  GPTQ_TRY(declareLinear(linear));
  return linear;
}

Status ModelBuilder::declareLinear(Linear &linear) {
  LinearViews &views = linear.views;
  numParameters += views.n * views.k + (views.bias ? views.n : 0);
  linear.weight = declare(linear.label + ".weight", views.weight);
  linear.codes = declare(linear.label + ".codes", views.codes);
  linear.scales = declare(linear.label + ".scales", views.scales);
  linear.zeros = declare(linear.label + ".zeros", views.zeros);
  linear.offsets = declare(linear.label + ".offsets", views.offsets);
  if (views.groupIndex) {
    // Layers quantized on one input have one order: named once, it shows passes
    // that they can be joined.
    auto data = cast<DataAttr>(views.groupIndex.init);
    GPTQ_ASSIGN(CheckpointTensor index,
                checkpoint.get(data.getTensor(), abi::DType::I32, views.k));
    Symbol &known = groupIndices[StringRef(
        reinterpret_cast<const char *>(index.bytes.data), index.bytes.size)];
    if (!known)
      known = declare(linear.label + ".g_idx", views.groupIndex);
    linear.groupIndex = known;
  }
  linear.bias = declare(linear.label + ".bias", views.bias);
  return Status::success();
}

//===----------------------------------------------------------------------===//
// Reading a model
//===----------------------------------------------------------------------===//

bool ModelBuilder::hasLinear(StringRef module) const {
  return checkpoint.has((module + ".weight").str()) ||
         (format && format->holds(checkpoint, module));
}

/// `view` with the elements along `dim` in the order `order`.
static View gather(View view, FlatSymbolRefAttr order, int64_t dim) {
  if (!view)
    return view;
  MLIRContext *ctx = view.init.getContext();
  RankedTensorType type = view.type;
  auto init = GatherAttr::get(ctx, getPartRef(0, ctx), order, dim);
  return {type, init, {std::move(view)}};
}

void ModelBuilder::gatherParts(LinearViews &views, int64_t parts, int64_t run) {
  if (!headOrder) {
    View order = {RankedTensorType::get({views.n}, b.getI32Type()),
                  DealtAttr::get(ctx, parts, run),
                  {}};
    headOrder = declare("head_order", order);
  }
  views.weight = gather(std::move(views.weight), headOrder.name, 0);
  views.codes = gather(std::move(views.codes), headOrder.name, 1);
  views.scales = gather(std::move(views.scales), headOrder.name, 1);
  views.zeros = gather(std::move(views.zeros), headOrder.name, 1);
  views.bias = gather(std::move(views.bias), headOrder.name, 0);
}

abi::Expected<ModelBuilder::Symbol>
ModelBuilder::readNormVector(const ModelConfig &config, const std::string &name,
                             int64_t size) {
  if (config.family->norm != NormKind::OnePlusRMS)
    return readVector(name, size);
  GPTQ_ASSIGN(View view, readDense(checkpoint, name, size, ctx));
  numParameters += size;
  View sum = {RankedTensorType::get({size}, b.getF32Type()),
              PlusAttr::get(ctx, getPartRef(0, ctx), b.getF64FloatAttr(1.0)),
              {std::move(view)}};
  return declare(labelOf(name), sum);
}

abi::Expected<ModelBuilder::Norm>
ModelBuilder::readNorm(const ModelConfig &config, const std::string &block,
                       StringRef module) {
  Norm norm;
  if (module.empty())
    return norm;
  const std::string name = block + module.str();
  norm.label = labelOf(name);
  GPTQ_ASSIGN(norm.weight,
              readNormVector(config, name + ".weight", config.hiddenSize));
  if (config.family->norm == NormKind::Layer) {
    GPTQ_ASSIGN(norm.bias, readVector(name + ".bias", config.hiddenSize));
  }
  return norm;
}

abi::Expected<ModelBuilder::Symbol>
ModelBuilder::readPositions(const ModelConfig &config, int64_t context) {
  const ModuleNames &modules = config.family->modules;
  const std::string name =
      (modules.prefix + modules.positions + ".weight").str();
  const int64_t h = config.hiddenSize;
  const int64_t unused = config.family->unusedPositions;
  GPTQ_ASSIGN(
      CheckpointTensor tensor,
      checkpoint.get(name, kFloatDTypes, {config.maxPositions + unused, h}));
  numParameters += (config.maxPositions + unused) * h;
  DataAttr data = getData(tensor, ctx);
  auto type = data.getType().clone({context, h});
  const int64_t skipped = unused * h * byteWidth(tensor.info->dtype);
  View view = {type,
               DataAttr::get(ctx, data.getFile(), data.getTensor(),
                             data.getOffset() + skipped, type),
               {}};
  return declare(labelOf(name), view);
}

static BiasRule biasRule(bool has) {
  return has ? BiasRule::Required : BiasRule::AsFound;
}

abi::Expected<ModelBuilder::Attention>
ModelBuilder::readAttention(const ModelConfig &config, int64_t context,
                            int64_t index, const std::string &name) {
  const ModuleNames &modules = config.family->modules;
  int64_t h = config.hiddenSize, d = config.headDim;
  int64_t q = config.heads * d, kv = config.kvHeads * d;
  const BiasRule qkvBias = biasRule(config.qkvBias);
  auto read = [&](StringRef part, LinearShape shape, BiasRule bias) {
    return readLinearLayer(name + part.str(), shape, bias);
  };

  Attention attention;
  attention.label = labelOf(name + modules.output.rsplit('.').first.str());
  // A window that never ends inside the context is none.
  attention.window =
      config.windows[index] < context ? config.windows[index] : 0;
  attention.rotary =
      config.windows[index] && localRotary ? localRotary : rotary;
  const std::string fused = name + modules.queryKeyValue.str();
  if (!modules.queryKeyValue.empty() && hasLinear(fused)) {
    GPTQ_ASSIGN(attention.qkv,
                readLinearLayer(fused, LinearShape{q + 2 * kv, h}, qkvBias,
                                [&](LinearViews &views) {
                                  if (config.family->dealsHeads)
                                    gatherParts(views, /*parts=*/3, /*run=*/d);
                                }));
  } else {
    GPTQ_ASSIGN(attention.q, read(modules.query, {q, h}, qkvBias));
    GPTQ_ASSIGN(attention.k, read(modules.key, {kv, h}, qkvBias));
    GPTQ_ASSIGN(attention.v, read(modules.value, {kv, h}, qkvBias));
  }
  if (!modules.queryNorm.empty()) {
    GPTQ_ASSIGN(
        attention.queryNorm,
        readNormVector(config, name + modules.queryNorm.str() + ".weight", d));
    GPTQ_ASSIGN(
        attention.keyNorm,
        readNormVector(config, name + modules.keyNorm.str() + ".weight", d));
  }
  GPTQ_ASSIGN(attention.o,
              read(modules.output, {h, q}, biasRule(config.outputBias)));
  std::string block = labelOf(name);
  attention.keys =
      declareState(block + "keys", {config.kvHeads, context, config.headDim});
  attention.values =
      declareState(block + "values", {config.kvHeads, context, config.headDim});
  return attention;
}

abi::Expected<ModelBuilder::Mlp>
ModelBuilder::readMlp(const ModelConfig &config, const std::string &name) {
  const ModuleNames &modules = config.family->modules;
  int64_t h = config.hiddenSize, i = config.intermediateSize;
  auto read = [&](StringRef part, LinearShape shape) {
    return readLinearLayer(name + part.str(), shape, biasRule(config.mlpBias));
  };
  Mlp mlp;
  mlp.label = labelOf(name + "mlp");
  if (!modules.gateUp.empty() && hasLinear(name + modules.gateUp.str())) {
    GPTQ_ASSIGN(mlp.gateUp, read(modules.gateUp, {2 * i, h}));
  } else {
    if (!modules.gate.empty()) {
      GPTQ_ASSIGN(mlp.gate, read(modules.gate, {i, h}));
    }
    GPTQ_ASSIGN(mlp.up, read(modules.up, {i, h}));
  }
  GPTQ_ASSIGN(mlp.down, read(modules.down, {h, i}));
  return mlp;
}

abi::Expected<ModelBuilder::Layer>
ModelBuilder::readLayer(const ModelConfig &config, int64_t context,
                        int64_t index) {
  const ModuleNames &modules = config.family->modules;
  const std::string name =
      (modules.prefix + modules.layers + "." + Twine(index) + ".").str();
  Layer layer;
  GPTQ_ASSIGN(layer.inputNorm, readNorm(config, name, modules.inputNorm));
  GPTQ_ASSIGN(layer.attention, readAttention(config, context, index, name));
  GPTQ_ASSIGN(layer.outputNorm, readNorm(config, name, modules.outputNorm));
  GPTQ_ASSIGN(layer.mlpNorm, readNorm(config, name, modules.mlpNorm));
  if (config.experts.count && config.experts.layers[index]) {
    GPTQ_ASSIGN(layer.experts, readExperts(config, name));
  } else {
    GPTQ_ASSIGN(layer.mlp, readMlp(config, name));
  }
  GPTQ_ASSIGN(layer.downNorm, readNorm(config, name, modules.downNorm));
  for (StringRef tensor : modules.ignored)
    checkpoint.ignore(name + tensor.str());
  return layer;
}

abi::Expected<Rope> ModelBuilder::readRope(const ModelConfig &config) {
  Rope rope = config.rope;
  if (!checkpoint.has(kRotaryDivisors))
    return rope;
  GPTQ_ASSIGN(
      CheckpointTensor tensor,
      checkpoint.get(kRotaryDivisors, abi::DType::F32, config.rotaryDim / 2));
  std::vector<double> divisors;
  for (int64_t i = 0; i < config.rotaryDim / 2; ++i) {
    divisors.push_back(llvm::bit_cast<float>(loadWord(tensor.bytes, i)));
    if (!std::isfinite(divisors.back()) || divisors.back() <= 0)
      return abi::makeStatus(StatusCode::InvalidFile,
                             "tensor %s in '%s': expected positive numbers, "
                             "found %g",
                             abi::quoteForMessage(tensor.stored).c_str(),
                             tensor.file.str().c_str(), divisors.back());
  }
  rope.kind = "longrope";
  rope.magnitude = 1;
  rope.shortFactors = rope.longFactors = std::move(divisors);
  return rope;
}

/// The table of rotary positions.
static View getRotary(const ModelConfig &config, const Rope &rope,
                      int64_t context, MLIRContext *ctx) {
  Builder b(ctx);
  DenseF64ArrayAttr factors;
  FloatAttr magnitude;
  if (rope.kind == "longrope") {
    // One cache cannot hold keys of both: the context decides for all.
    factors = b.getDenseF64ArrayAttr(
        context <= rope.originalContext ? rope.shortFactors : rope.longFactors);
    magnitude = b.getF64FloatAttr(rope.magnitude);
  }
  auto init = RotaryAttr::get(
      ctx, b.getF64FloatAttr(rope.theta), b.getStringAttr(rope.kind),
      b.getF64FloatAttr(rope.factor), b.getF64FloatAttr(rope.lowFreqFactor),
      b.getF64FloatAttr(rope.highFreqFactor), rope.originalContext, factors,
      magnitude);
  return {RankedTensorType::get({context, config.rotaryDim}, b.getF32Type()),
          init,
          {}};
}

/// sqrt(hidden_size) as a number of the type that embeddings have: what models
/// were trained with.
static double getEmbeddingScale(int64_t hiddenSize, FloatType type) {
  llvm::APFloat scale(std::sqrt(double(hiddenSize)));
  bool isInexact;
  scale.convert(type.getFloatSemantics(), llvm::APFloat::rmNearestTiesToEven,
                &isInexact);
  return scale.convertToDouble();
}

abi::Expected<ModelBuilder::Model>
ModelBuilder::readModel(const ModelConfig &config, int64_t context) {
  int64_t h = config.hiddenSize, vocab = config.vocabSize;
  const ModuleNames &modules = config.family->modules;
  const std::string head = modules.head.str();
  const std::string table = (modules.prefix + modules.embedding).str();
  Model model;
  const bool isInFormat = format && format->holds(checkpoint, table);
  GPTQ_ASSIGN(View embedding,
              isInFormat
                  ? format->readTable(checkpoint, table, vocab, h, ctx)
                  : readDense(checkpoint, table + ".weight", {vocab, h}, ctx));
  model.embedding = declare(labelOf(table) + ".weight", embedding);
  numParameters += vocab * h;
  if (config.family->scalesEmbeddings)
    model.embeddingScale =
        getEmbeddingScale(h, cast<FloatType>(embedding.type.getElementType()));
  if (!modules.positions.empty()) {
    GPTQ_ASSIGN(model.positions, readPositions(config, context));
  }
  if (config.rotaryDim) {
    GPTQ_ASSIGN(Rope rope, readRope(config));
    rotary = declare("rotary", getRotary(config, rope, context, ctx));
  }
  if (config.localRope)
    localRotary = declare("local_rotary",
                          getRotary(config, *config.localRope, context, ctx));
  for (int64_t index = 0; index < config.numLayers; ++index) {
    GPTQ_ASSIGN(Layer layer, readLayer(config, context, index));
    model.layers.push_back(std::move(layer));
  }
  GPTQ_ASSIGN(model.norm, readNorm(config, modules.prefix.str(), modules.norm));
  // A quantized head is one of its own, whatever the configuration says.
  if (config.tiedEmbeddings && !(format && format->holds(checkpoint, head))) {
    if (isa<DequantizedAttr>(embedding.init)) {
      // What is multiplied stays codes.
      GPTQ_ASSIGN(model.head, readLinearLayer(table, LinearShape{vocab, h},
                                              BiasRule::AsFound));
      numParameters -= vocab * h;
    } else {
      model.head.weight = model.embedding;
      model.head.views.n = vocab;
      model.head.views.k = h;
    }
    model.head.label = head;
    checkpoint.ignore(head + ".weight");
  } else {
    GPTQ_ASSIGN(model.head, readLinearLayer(head, LinearShape{vocab, h},
                                            BiasRule::AsFound));
  }
  std::vector<std::string> unused = checkpoint.unused();
  if (!unused.empty())
    return abi::makeStatus(
        StatusCode::InvalidFile,
        "tensor %s has no place in a %s model of %lld layers (%zu such "
        "tensors)",
        abi::quoteForMessage(unused.front()).c_str(),
        config.family->name.str().c_str(), (long long)config.numLayers,
        unused.size());
  return model;
}

//===----------------------------------------------------------------------===//
// Emitting
//===----------------------------------------------------------------------===//

Location ModelBuilder::at(const std::string &label) {
  return NameLoc::get(b.getStringAttr(label));
}

Value ModelBuilder::load(const Symbol &symbol, Location loc) {
  if (!symbol)
    return {};
  if (isa<MemRefType>(symbol.type))
    return LoadStateOp::create(b, loc, symbol.type, symbol.name);
  return LoadWeightOp::create(b, loc, symbol.type, symbol.name);
}

/// Names `op` for people.
static Value labeled(Operation *op, StringRef label) {
  op->setAttr(kLabelAttr, StringAttr::get(op->getContext(), label));
  return op->getResult(0);
}

Value ModelBuilder::empty(Value like, int64_t columns, Location loc) {
  auto type = cast<RankedTensorType>(like.getType());
  SmallVector<Value> dynamic;
  if (type.isDynamicDim(0))
    dynamic.push_back(rows);
  SmallVector<int64_t> shape(type.getShape());
  shape.back() = columns;
  return tensor::EmptyOp::create(b, loc, shape, b.getF32Type(), dynamic);
}

Value ModelBuilder::emitLinear(const Linear &linear, Value x, Value runs) {
  Location loc = at(linear.label);
  const LinearViews &views = linear.views;
  Value bias = load(linear.bias, loc);
  if (linear.weight) {
    Value weight = load(linear.weight, loc);
    Value init = empty(x, views.n, loc);
    return labeled(MatmulOp::create(b, loc, init.getType(), x, weight, bias,
                                    /*source=*/Value(), /*norm=*/Value(), runs,
                                    init, LayoutAttr(), Epilogue::None,
                                    /*accumulate=*/false,
                                    /*epsilon=*/FloatAttr()),
                   linear.label);
  }
  Value codes = load(linear.codes, loc), scales = load(linear.scales, loc);
  Value zeros = load(linear.zeros, loc);
  Value offsets = load(linear.offsets, loc);
  Value groupIndex = load(linear.groupIndex, loc);
  Value init = empty(x, views.n, loc);
  IntegerAttr zeroPoint;
  if (views.zeroPoint)
    zeroPoint = b.getI64IntegerAttr(*views.zeroPoint);
  return labeled(
      DequantMatmulOp::create(
          b, loc, init.getType(), x, codes, scales, zeros, offsets, groupIndex,
          /*perm=*/Value(), bias, /*bytes=*/Value(), /*units=*/Value(),
          /*source=*/Value(), /*norm=*/Value(), runs, init,
          b.getI64IntegerAttr(views.bits), b.getI64IntegerAttr(views.groupSize),
          /*zero_offset=*/b.getI64IntegerAttr(0), zeroPoint, LayoutAttr(),
          EpilogueAttr::get(ctx, Epilogue::None), /*accumulate=*/UnitAttr(),
          /*epsilon=*/FloatAttr()),
      linear.label);
}

Value ModelBuilder::emitColumns(Value x, int64_t first, int64_t count) {
  Location loc = x.getLoc();
  auto type = cast<RankedTensorType>(x.getType());
  OpFoldResult size = b.getIndexAttr(type.getDimSize(0));
  if (type.isDynamicDim(0))
    size = rows;
  SmallVector<OpFoldResult> offsets{b.getIndexAttr(0), b.getIndexAttr(first)};
  SmallVector<OpFoldResult> sizes{size, b.getIndexAttr(count)};
  SmallVector<OpFoldResult> strides(2, b.getIndexAttr(1));
  return tensor::ExtractSliceOp::create(b, loc,
                                        type.clone({type.getDimSize(0), count}),
                                        x, offsets, sizes, strides);
}

Value ModelBuilder::emitNorm(const ModelConfig &config, const Norm &norm,
                             Value x) {
  if (!norm)
    return x;
  Location loc = at(norm.label);
  Value w = load(norm.weight, loc), bias = load(norm.bias, loc);
  Value init = empty(x, cast<RankedTensorType>(x.getType()).getDimSize(1), loc);
  FloatAttr epsilon = b.getF64FloatAttr(config.epsilon);
  if (config.family->norm == NormKind::Layer)
    return labeled(
        LayerNormOp::create(b, loc, init.getType(), x, w, bias, init, epsilon),
        norm.label);
  return labeled(RMSNormOp::create(b, loc, init.getType(), x, w, init, epsilon),
                 norm.label);
}

Value ModelBuilder::emitAdd(const std::string &label, Value lhs, Value rhs) {
  Location loc = at(label);
  Value init =
      empty(lhs, cast<RankedTensorType>(lhs.getType()).getDimSize(1), loc);
  return labeled(AddOp::create(b, loc, init.getType(), lhs, rhs, init), label);
}

Value ModelBuilder::emitAttention(const ModelConfig &config,
                                  const Attention &attention, Value x,
                                  Value position) {
  int64_t d = config.headDim, width = config.heads * d;
  int64_t kvWidth = config.kvHeads * d;
  IntegerAttr heads = b.getI64IntegerAttr(config.heads);
  IntegerAttr kvHeads = b.getI64IntegerAttr(config.kvHeads);
  IntegerAttr headDim = b.getI64IntegerAttr(d);
  Value q, k, v;
  if (attention.qkv) {
    Value all = emitLinear(attention.qkv, x);
    q = emitColumns(all, 0, width);
    k = emitColumns(all, width, kvWidth);
    v = emitColumns(all, width + kvWidth, kvWidth);
  } else {
    q = emitLinear(attention.q, x);
    k = emitLinear(attention.k, x);
    v = emitLinear(attention.v, x);
  }

  const std::string rotaryLabel = attention.label + ".rotary";
  Location loc = at(rotaryLabel);
  Value table = load(attention.rotary, loc);
  Value queryNorm = load(attention.queryNorm, loc);
  Value keyNorm = load(attention.keyNorm, loc);
  Value keys = load(attention.keys, loc), values = load(attention.values, loc);
  Value init = empty(x, width, loc);
  Value rotated =
      labeled(RotaryAppendOp::create(
                  b, loc, init.getType(), q, k, v, table, queryNorm, keyNorm,
                  position, keys, values, init, heads, kvHeads, headDim,
                  b.getF64FloatAttr(queryNorm ? config.epsilon : 0.0)),
              rotaryLabel);

  const std::string label = attention.label + ".attention";
  loc = at(label);
  init = empty(x, width, loc);
  Value mixed = labeled(
      AttentionOp::create(
          b, loc, init.getType(), rotated, /*k=*/Value(), /*v=*/Value(),
          /*table=*/Value(), /*q_norm=*/Value(), /*k_norm=*/Value(), position,
          /*part=*/Value(), keys, values, init, heads, kvHeads, headDim,
          b.getF64FloatAttr(config.attentionScale),
          b.getI64IntegerAttr(attention.window),
          b.getF64FloatAttr(config.attentionCap),
          /*epsilon=*/b.getF64FloatAttr(0.0),
          /*parts=*/b.getI64IntegerAttr(1)),
      label);
  return emitLinear(attention.o, mixed);
}

Value ModelBuilder::emitMlp(const ModelConfig &config, const Mlp &mlp, Value x,
                            Value runs) {
  const int64_t width = mlp.down.views.k;
  Value input, up;
  if (mlp.gateUp) {
    Value both = emitLinear(mlp.gateUp, x);
    input = emitColumns(both, 0, width);
    up = emitColumns(both, width, width);
  } else if (mlp.gate) {
    input = emitLinear(mlp.gate, x, runs);
    up = emitLinear(mlp.up, x, runs);
  } else {
    input = emitLinear(mlp.up, x);
  }
  const std::string label = mlp.label + ".activation";
  Location loc = at(label);
  Value init = empty(x, width, loc);
  Value active = labeled(ActivationOp::create(b, loc, init.getType(), input, up,
                                              init, config.activation),
                         label);
  return emitLinear(mlp.down, active, runs);
}

Value ModelBuilder::emitLayer(const ModelConfig &config, const Layer &layer,
                              Value x, Value position) {
  const std::string attentionLabel = layer.attention.label + ".residual";
  const std::string mlpLabel =
      (layer.experts ? layer.experts->mlp : layer.mlp).label + ".residual";
  Value normed = emitNorm(config, layer.inputNorm, x);
  Value mixed = emitAttention(config, layer.attention, normed, position);
  mixed = emitNorm(config, layer.outputNorm, mixed);
  Value between = emitAdd(attentionLabel, x, mixed);
  normed = emitNorm(config, layer.mlpNorm, config.isParallel ? x : between);
  Value part = layer.experts ? emitExperts(config, *layer.experts, normed)
                             : emitMlp(config, layer.mlp, normed);
  part = emitNorm(config, layer.downNorm, part);
  return emitAdd(mlpLabel, between, part);
}

func::FuncOp ModelBuilder::startFunction(StringRef name, ArrayRef<Type> inputs,
                                         ArrayRef<StringRef> inputNames,
                                         Type result, StringRef resultName,
                                         int64_t maxRows) {
  b.setInsertionPointToEnd(module->getBody());
  auto func = func::FuncOp::create(b, at(name.str()), name,
                                   b.getFunctionType(inputs, result));
  func->setAttr(kMaxRowsAttr, b.getI64IntegerAttr(maxRows));
  for (auto [i, inputName] : llvm::enumerate(inputNames))
    if (!inputName.empty())
      func.setArgAttr(i, kNameAttr, b.getStringAttr(inputName));
  func.setResultAttr(0, kNameAttr, b.getStringAttr(resultName));
  Block *body = func.addEntryBlock();
  b.setInsertionPointToStart(body);
  Value zero = arith::ConstantIndexOp::create(b, func.getLoc(), 0);
  rows = tensor::DimOp::create(b, func.getLoc(), body->getArgument(0), zero);
  return func;
}

void ModelBuilder::emitEntry(const ModelConfig &config, const Model &model,
                             StringRef name, bool isLastRowOnly,
                             int64_t maxRows) {
  int64_t h = config.hiddenSize;
  Type tokensType =
      RankedTensorType::get({ShapedType::kDynamic}, b.getI32Type());
  Type logitsType = RankedTensorType::get(
      {isLastRowOnly ? 1 : ShapedType::kDynamic, config.vocabSize},
      b.getF32Type());
  func::FuncOp func =
      startFunction(name, {tokensType, b.getIndexType()}, {"tokens", ""},
                    logitsType, "logits", maxRows);
  Value tokens = func.getArgument(0), position = func.getArgument(1);

  const std::string label = config.family->modules.embedding.str();
  Location loc = at(label);
  Value table = load(model.embedding, loc);
  Value positions = load(model.positions, loc);
  Value init = tensor::EmptyOp::create(
      b, loc, ArrayRef<int64_t>{ShapedType::kDynamic, h}, b.getF32Type(), rows);
  Value x = labeled(
      EmbeddingOp::create(b, loc, init.getType(), tokens, table, positions,
                          positions ? position : Value(), init, LayoutAttr(),
                          b.getF64FloatAttr(model.embeddingScale)),
      label);
  for (const Layer &layer : model.layers)
    x = emitLayer(config, layer, x, position);

  if (isLastRowOnly) {
    loc = at("last_row");
    Value one = arith::ConstantIndexOp::create(b, loc, 1);
    Value last = arith::SubIOp::create(b, loc, rows, one);
    auto type = RankedTensorType::get({1, h}, b.getF32Type());
    SmallVector<OpFoldResult> offsets{last, b.getIndexAttr(0)};
    SmallVector<OpFoldResult> sizes{b.getIndexAttr(1), b.getIndexAttr(h)};
    SmallVector<OpFoldResult> strides(2, b.getIndexAttr(1));
    x = tensor::ExtractSliceOp::create(b, loc, type, x, offsets, sizes,
                                       strides);
  }
  x = emitNorm(config, model.norm, x);
  Value logits = emitLinear(model.head, x);
  if (config.logitCap > 0) {
    loc = at("softcap");
    init = empty(logits, config.vocabSize, loc);
    logits = labeled(SoftcapOp::create(b, loc, init.getType(), logits, init,
                                       b.getF64FloatAttr(config.logitCap)),
                     "softcap");
  }
  func::ReturnOp::create(b, func.getLoc(), logits);
}

Status ModelBuilder::addModel(const ModelConfig &config, int64_t context,
                              const ImportOptions &options) {
  prefix = config.family->modules.prefix;
  GPTQ_ASSIGN(Model model, readModel(config, context));
  emitEntry(config, model, "generate", /*isLastRowOnly=*/true,
            std::min(options.maxRows, context));
  emitEntry(config, model, "score", /*isLastRowOnly=*/false,
            std::min(options.maxScoreRows, context));
  return Status::success();
}

/// The last part of a module's name as a symbol: "down_proj" of
/// "model.layers.0.mlp.down_proj".
static std::string symbolFor(StringRef module) {
  std::string name = module.rsplit('.').second.str();
  if (name.empty())
    name = module.rtrim('.').str();
  for (char &c : name)
    if (!llvm::isAlnum(c) && c != '_')
      c = '_';
  if (name.empty() || llvm::isDigit(name[0]))
    name = "layer_" + name;
  return name;
}

Status ModelBuilder::addLayer(StringRef module) {
  // Enough for a prompt of one call; nothing else bounds a lone layer.
  constexpr int64_t maxRows = 512;
  GPTQ_ASSIGN(Linear linear,
              readLinearLayer(module.str(), std::nullopt, BiasRule::AsFound));
  const LinearViews &views = linear.views;
  auto type = [&](int64_t columns) -> Type {
    return RankedTensorType::get({ShapedType::kDynamic, columns},
                                 b.getF32Type());
  };
  func::FuncOp func = startFunction(symbolFor(module), type(views.k), {"x"},
                                    type(views.n), "y", maxRows);
  Value y = emitLinear(linear, func.getArgument(0));
  func::ReturnOp::create(b, func.getLoc(), y);
  return Status::success();
}
