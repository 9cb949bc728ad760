//===- Experts.cpp - Mixtures of experts ----------------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "lib/Import/ModelBuilder.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace mlir::gptq;
using abi::JsonView;
using abi::Status;
using abi::StatusCode;

// Far above any published model; a row's experts are added up one by one.
static constexpr int64_t kMaxExperts = 4096;
static constexpr int64_t kMaxExpertsPerRow = 64;
static constexpr int64_t kMaxStep = 1 << 20;

//===----------------------------------------------------------------------===//
// config.json
//===----------------------------------------------------------------------===//

Status mlir::gptq::readExpertConfig(const JsonView &config,
                                    ModelConfig &model) {
  const ExpertNames &names = model.family->experts;
  if (names.countKey.empty())
    return Status::success();
  ExpertConfig &experts = model.experts;
  GPTQ_ASSIGN(experts.count,
              readInteger(config, names.countKey, 1, kMaxExperts));
  GPTQ_ASSIGN(experts.perRow,
              readInteger(config, "num_experts_per_tok", 1,
                          std::min(experts.count, kMaxExpertsPerRow)));
  GPTQ_ASSIGN(experts.width, readInteger(config, names.widthKey, 1, kMaxWidth));
  GPTQ_ASSIGN(experts.normalizes, readBool(config, "norm_topk_prob", false));
  experts.normalizes |= names.alwaysNormalizes;
  if (!names.sharedWidthKey.empty()) {
    GPTQ_ASSIGN(experts.sharedWidth,
                readInteger(config, names.sharedWidthKey, 1, kMaxWidth));
  }

  // Layers between which there are others have none.
  GPTQ_ASSIGN(int64_t step,
              readInteger(config, "decoder_sparse_step", 1, kMaxStep, 1));
  experts.layers.resize(model.numLayers);
  for (int64_t layer = 0; layer < model.numLayers; ++layer)
    experts.layers[layer] = (layer + 1) % step == 0;
  if (std::optional<JsonView> dense = findValue(config, "mlp_only_layers")) {
    GPTQ_ASSIGN(std::vector<JsonView> elements, dense->elements());
    for (const JsonView &element : elements) {
      GPTQ_ASSIGN(int64_t layer, element.integer(0, model.numLayers - 1));
      experts.layers[layer] = false;
    }
  }
  return Status::success();
}

//===----------------------------------------------------------------------===//
// Reading
//===----------------------------------------------------------------------===//

/// The error that `module` is `found` where `first`, of another expert of its
/// layer, is `expected`.
static Status disagree(StringRef module, StringRef found, StringRef first,
                       StringRef expected) {
  return abi::makeStatus(
      StatusCode::Unsupported,
      "module %s: expected %s, as in module %s of another expert, found %s",
      abi::quoteForMessage(module).c_str(), expected.str().c_str(),
      abi::quoteForMessage(first).c_str(), found.str().c_str());
}

/// What a stacked layer has to share with the others.
static std::string describeKind(const LinearViews &views) {
  std::string text;
  llvm::raw_string_ostream os(text);
  if (views.weight)
    os << "a dense weight of " << views.weight.type.getElementType();
  else
    os << views.bits << "-bit codes in groups of " << views.groupSize
       << " with scales of " << views.scales.type.getElementType();
  os << (views.bias ? " and a bias" : "");
  return text;
}

/// Makes the layers of all experts alike where they differ only in what is
/// written out: zero points that happen to be all one number in some experts,
/// rows that happen to lie in order.
static Status makeAlike(MutableArrayRef<LinearViews> all,
                        ArrayRef<std::string> modules) {
  const LinearViews &first = all.front();
  for (auto [views, module] : llvm::zip(all, modules))
    if (std::string kind = describeKind(views); kind != describeKind(first))
      return disagree(module, kind, modules.front(), describeKind(first));
  if (first.weight)
    return Status::success();

  const bool isOnePoint = llvm::all_of(all, [&](const LinearViews &views) {
    return views.zeroPoint && views.zeroPoint == first.zeroPoint;
  });
  const bool isOrdered = llvm::none_of(
      all, [](const LinearViews &views) { return bool(views.groupIndex); });
  for (auto [views, module] : llvm::zip(all, modules)) {
    if (!isOnePoint && views.zeroPoint) {
      if (!views.constantZeros)
        return disagree(module, "none", modules.front(),
                        "stored zero points, or the same one");
      views.zeros = views.constantZeros;
      views.zeroPoint.reset();
    }
    if (!isOrdered && !views.groupIndex) {
      if (!views.orderedIndex)
        return disagree(module, "none", modules.front(),
                        "the group of each row");
      views.groupIndex = views.orderedIndex;
    }
  }
  return Status::success();
}

abi::Expected<ModelBuilder::Linear>
ModelBuilder::readStack(const std::string &label, ArrayRef<std::string> modules,
                        LinearShape shape) {
  std::vector<LinearViews> all;
  for (const std::string &module : modules) {
    GPTQ_ASSIGN(LinearViews views, readLinear(checkpoint, format, module, shape,
                                              BiasRule::AsFound, ctx));
    all.push_back(std::move(views));
  }
  GPTQ_TRY(makeAlike(all, modules));

  std::vector<Linear> parts;
  for (auto [views, module] : llvm::zip(all, modules)) {
    Linear part;
    part.views = std::move(views);
    part.label = labelOf(module);
    GPTQ_TRY(declareLinear(part));
    parts.push_back(std::move(part));
  }
  Linear stack;
  stack.label = label;
  stack.views = parts.front().views;
  auto join = [&](Symbol Linear::*symbol, StringRef suffix) {
    if (!(parts.front().*symbol))
      return;
    SmallVector<Attribute> names;
    for (const Linear &part : parts)
      names.push_back((part.*symbol).name);
    auto type = cast<RankedTensorType>((parts.front().*symbol).type);
    SmallVector<int64_t> stacked(type.getShape());
    stacked.insert(stacked.begin(), parts.size());
    stack.*symbol = declare(label + suffix.str(),
                            View{type.clone(stacked),
                                 StackAttr::get(ctx, b.getArrayAttr(names)),
                                 {}});
  };
  join(&Linear::weight, ".weight");
  join(&Linear::codes, ".codes");
  join(&Linear::scales, ".scales");
  join(&Linear::zeros, ".zeros");
  join(&Linear::groupIndex, ".g_idx");
  join(&Linear::bias, ".bias");
  return stack;
}

abi::Expected<ModelBuilder::Experts>
ModelBuilder::readExperts(const ModelConfig &config, const std::string &name) {
  const ExpertNames &names = config.family->experts;
  const int64_t h = config.hiddenSize, i = config.experts.width;
  const std::string folder = name + names.experts.str() + ".";
  Experts experts;
  experts.mlp.label = labelOf(name + names.experts.rsplit('.').first.str());
  GPTQ_ASSIGN(experts.router,
              readLinearLayer(name + names.router.str(),
                              LinearShape{config.experts.count, h},
                              BiasRule::AsFound));
  auto read = [&](StringRef part, LinearShape shape) {
    std::vector<std::string> modules;
    for (int64_t e = 0; e < config.experts.count; ++e)
      modules.push_back((folder + Twine(e) + "." + part).str());
    return readStack(labelOf(folder) + part.str(), modules, shape);
  };
  GPTQ_ASSIGN(experts.mlp.gate, read(names.gate, {i, h}));
  GPTQ_ASSIGN(experts.mlp.up, read(names.up, {i, h}));
  GPTQ_ASSIGN(experts.mlp.down, read(names.down, {h, i}));
  if (config.experts.sharedWidth == 0)
    return experts;

  const ModuleNames &modules = config.family->modules;
  const int64_t width = config.experts.sharedWidth;
  auto readShared = [&](StringRef module, LinearShape shape) {
    return readLinearLayer(
        (name + names.shared + "." + module.rsplit('.').second).str(), shape,
        BiasRule::AsFound);
  };
  Mlp shared;
  shared.label = labelOf(name + names.shared.str());
  GPTQ_ASSIGN(shared.gate, readShared(modules.gate, {width, h}));
  GPTQ_ASSIGN(shared.up, readShared(modules.up, {width, h}));
  GPTQ_ASSIGN(shared.down, readShared(modules.down, {h, width}));
  experts.shared = std::move(shared);
  GPTQ_ASSIGN(experts.sharedGate,
              readLinearLayer(name + names.sharedGate.str(), LinearShape{1, h},
                              BiasRule::AsFound));
  return experts;
}

//===----------------------------------------------------------------------===//
// Emitting
//===----------------------------------------------------------------------===//

Value ModelBuilder::emitExperts(const ModelConfig &config,
                                const Experts &experts, Value x) {
  const int64_t slots = config.experts.perRow, count = config.experts.count;
  auto rowType = cast<RankedTensorType>(x.getType());
  const int64_t m = rowType.getDimSize(0);
  SmallVector<Value> dynamic;
  if (rowType.isDynamicDim(0))
    dynamic.push_back(rows);
  auto room = [&](Location loc, ArrayRef<int64_t> shape,
                  Type element) -> Value {
    ValueRange sizes = dynamic;
    return tensor::EmptyOp::create(
        b, loc, shape, element,
        ShapedType::isDynamic(shape[0]) ? sizes : ValueRange());
  };
  auto named = [&](StringRef op) { return experts.mlp.label + "." + op.str(); };
  auto label = [&](Operation *op, StringRef name) {
    op->setAttr(kLabelAttr, b.getStringAttr(named(name)));
    return op;
  };
  Type i32 = b.getI32Type(), f32 = b.getF32Type();

  Value logits = emitLinear(experts.router, x);
  Location loc = at(named("route"));
  SmallVector<Value> inits = {room(loc, {m, slots}, i32),
                              room(loc, {m, slots}, f32)};
  Operation *route = label(
      RouteOp::create(b, loc, TypeRange(ValueRange(inits)), logits, inits,
                      config.experts.normalizes ? b.getUnitAttr() : nullptr),
      "route");
  loc = at(named("group_rows"));
  inits = {room(loc, {m, slots}, i32), room(loc, {m, slots}, i32),
           room(loc, {count + 1, 2}, i32)};
  Operation *group =
      label(GroupRowsOp::create(b, loc, TypeRange(ValueRange(inits)),
                                route->getResult(0), inits),
            "group_rows");
  Value positions = group->getResult(0), runs = group->getResult(2);
  loc = at(named("gather_rows"));
  inits = {room(loc, {m, slots, config.hiddenSize}, f32)};
  Operation *gather =
      label(GatherRowsOp::create(b, loc, TypeRange(ValueRange(inits)), x,
                                 group->getResult(1), inits),
            "gather_rows");
  Value made = emitMlp(config, experts.mlp, gather->getResult(0), runs);

  Value shared, sharedGate;
  if (experts.shared) {
    shared = emitMlp(config, *experts.shared, x);
    sharedGate = emitLinear(experts.sharedGate, x);
  }
  loc = at(named("combine_rows"));
  inits = {empty(x, config.hiddenSize, loc)};
  return label(CombineRowsOp::create(b, loc, TypeRange(ValueRange(inits)), made,
                                     positions, route->getResult(1), shared,
                                     sharedGate, inits),
               "combine_rows")
      ->getResult(0);
}
