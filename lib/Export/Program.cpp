//===- Program.cpp - Entry functions as a compiled model's program --------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Export/Program.h"
#include "gptq/Target/Target.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "runtime/abi/KernelABI.h"
#include "llvm/ADT/MapVector.h"
#include "llvm/ADT/SetVector.h"
#include "llvm/ADT/TypeSwitch.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace mlir::gptq;
using model::Expected;
using model::Status;
using model::StatusCode;

//===----------------------------------------------------------------------===//
// Memory
//===----------------------------------------------------------------------===//

int64_t mlir::gptq::planArena(MutableArrayRef<ArenaBuffer> buffers) {
  // The largest first, each at the lowest place that is free while it lives:
  // small ones then fill the gaps that large ones leave.
  SmallVector<ArenaBuffer *> order, placed;
  for (ArenaBuffer &buffer : buffers)
    order.push_back(&buffer);
  llvm::sort(order, [](const ArenaBuffer *a, const ArenaBuffer *b) {
    return std::pair(-a->bytes, a) < std::pair(-b->bytes, b);
  });
  int64_t total = 0;
  for (ArenaBuffer *buffer : order) {
    int64_t offset = 0;
    // `placed` is sorted by offset.
    for (const ArenaBuffer *other : placed) {
      if (other->last < buffer->first || buffer->last < other->first)
        continue;
      if (offset + buffer->bytes <= other->offset)
        break;
      offset = std::max(
          offset,
          int64_t(llvm::alignTo(other->offset + other->bytes, GPTQ_ALIGNMENT)));
    }
    buffer->offset = offset;
    total = std::max(total, offset + buffer->bytes);
    placed.insert(
        llvm::upper_bound(placed, buffer,
                          [](const ArenaBuffer *a, const ArenaBuffer *b) {
                            return a->offset < b->offset;
                          }),
        buffer);
  }
  return llvm::alignTo(total, GPTQ_ALIGNMENT);
}

//===----------------------------------------------------------------------===//
// Values of an entry function
//===----------------------------------------------------------------------===//

static std::string text(Type type) {
  std::string s;
  llvm::raw_string_ostream(s) << type;
  return s;
}

namespace {

/// A size c + m * M.
struct RowCount {
  int64_t base = 0;
  int64_t perRow = 0;
};

/// What stands behind a value of an entry function.
struct Place {
  enum Kind {
    None,
    Buffer,
    Weight,
    State,
    Input,
    // Not memory a kernel can be handed.
    Empty,
    Rows,
    Position,
    Constant
  };
  Kind kind = None;
  /// Index of the buffer, weight, state or input; the constant's value.
  int64_t index = 0;
};

/// Memory that dispatches write.
struct Buffer {
  RowCount bytes;
  int64_t first = 0;
  int64_t last = 0;
  /// The output this is, or -1.
  int64_t output = -1;
  /// The value whose elements it holds now.
  Value holds;
  /// Its place in the arena, known last.
  int64_t offset = 0;
};

/// Turns one entry function into its part of the manifest.
class EntryBuilder {
public:
  EntryBuilder(func::FuncOp entry, llvm::SetVector<Operation *> &weights,
               llvm::SetVector<Operation *> &states,
               llvm::SetVector<StringAttr> &kernels)
      : entry(entry), weights(weights), states(states), kernels(kernels) {}

  Expected<model::ManifestEntry> build();

private:
  Status error(Operation *op, const Twine &message);
  Status addArgument(BlockArgument arg);
  Status addOp(Operation *op);
  Status addDispatch(DispatchOp dispatch);
  Status addReturn(func::ReturnOp op);
  Expected<std::vector<model::ManifestVariant>> variants(DispatchOp dispatch);
  Expected<model::ManifestPort> port(Type type, StringAttr name,
                                     const Twine &defaultName);
  Expected<RowCount> bytes(Operation *op, RankedTensorType type);
  model::ManifestArgument argument(Place place, int64_t slots) const;

  func::FuncOp entry;
  // Of the whole program; entries share them.
  llvm::SetVector<Operation *> &weights, &states;
  llvm::SetVector<StringAttr> &kernels;
  model::ManifestEntry result;
  llvm::DenseMap<Value, Place> places;
  std::vector<Buffer> buffers;
  /// The places of the arguments of each dispatch; offsets are known last.
  std::vector<SmallVector<Place>> arguments;
  /// Experts that each dispatch multiplies a row by; 0: it knows of none.
  SmallVector<int64_t> slots;
};

} // namespace

Status EntryBuilder::error(Operation *op, const Twine &message) {
  std::string where = "entry '" + entry.getSymName().str() + "'";
  if (auto dispatch = dyn_cast<DispatchOp>(op))
    where += ", dispatch '" + dispatch.getLabel().str() + "'";
  return Status(StatusCode::InvalidArgument, where + ": " + message.str());
}

/// The dtype an entry's input or output of `type` has in the manifest.
Expected<model::ManifestPort> EntryBuilder::port(Type type, StringAttr name,
                                                 const Twine &defaultName) {
  auto tensor = dyn_cast<RankedTensorType>(type);
  model::ManifestPort result;
  result.name = name ? name.str() : defaultName.str();
  Type element = tensor ? tensor.getElementType() : Type();
  if (!element || !(element.isF32() || element.isF16() || element.isBF16() ||
                    element.isInteger(32)))
    return error(entry, "expects inputs and outputs to be tensors of f32, f16, "
                        "bf16 or i32, but found " +
                            text(type));
  result.dtype = element.isInteger(32) ? "i32" : text(element);
  for (auto [i, size] : llvm::enumerate(tensor.getShape())) {
    if (ShapedType::isDynamic(size) && i > 0)
      return error(entry, "expects only the first dimension to be dynamic, but "
                          "found " +
                              text(type));
    result.shape.push_back(ShapedType::isDynamic(size)
                               ? model::ManifestDim::rows()
                               : model::ManifestDim{size});
  }
  return result;
}

Expected<RowCount> EntryBuilder::bytes(Operation *op, RankedTensorType type) {
  int64_t elements = 1;
  for (auto [i, size] : llvm::enumerate(type.getShape())) {
    if (ShapedType::isDynamic(size) && i > 0)
      return error(op, "expects only the first dimension to be dynamic, but "
                       "found " +
                           text(type));
    if (!ShapedType::isDynamic(size) &&
        __builtin_mul_overflow(elements, size, &elements))
      return error(op, text(type) + " has more elements than 64 bits count");
  }
  int64_t total = elements;
  if (__builtin_mul_overflow(
          total, llvm::divideCeil(type.getElementTypeBitWidth(), 8), &total) ||
      total > model::limits::bytes)
    return error(op, text(type) + " is larger than a model's memory may be");
  if (type.getRank() > 0 && type.isDynamicDim(0))
    return RowCount{0, total};
  return RowCount{total, 0};
}

Status EntryBuilder::addArgument(BlockArgument arg) {
  if (arg.getType().isIndex()) {
    places[arg] = {Place::Position};
    return {};
  }
  GPTQ_ASSIGN(
      model::ManifestPort input,
      port(arg.getType(),
           entry.getArgAttrOfType<StringAttr>(arg.getArgNumber(), kNameAttr),
           "input" + Twine(result.inputs.size())));
  places[arg] = {Place::Input, int64_t(result.inputs.size())};
  result.inputs.push_back(std::move(input));
  return {};
}

Status EntryBuilder::addOp(Operation *op) {
  return TypeSwitch<Operation *, Status>(op)
      .Case([&](LoadWeightOp load) {
        Operation *weight =
            SymbolTable::lookupNearestSymbolFrom(load, load.getWeightAttr());
        if (!weight)
          return error(op, "expects a weight named '" + load.getWeight() + "'");
        // Two symbols that read the same bytes the same way are one weight.
        for (Operation *other : weights)
          if (cast<WeightOp>(other).getInit() ==
                  cast<WeightOp>(weight).getInit() &&
              cast<WeightOp>(other).getType() ==
                  cast<WeightOp>(weight).getType())
            weight = other;
        weights.insert(weight);
        places[load] = {Place::Weight,
                        int64_t(llvm::find(weights, weight) - weights.begin())};
        return Status();
      })
      .Case([&](LoadStateOp load) {
        Operation *state =
            SymbolTable::lookupNearestSymbolFrom(load, load.getStateAttr());
        if (!state)
          return error(op, "expects a state named '" + load.getState() + "'");
        states.insert(state);
        places[load] = {Place::State,
                        int64_t(llvm::find(states, state) - states.begin())};
        return Status();
      })
      .Case([&](tensor::DimOp dim) {
        auto type = dyn_cast<RankedTensorType>(dim.getSource().getType());
        if (!type || dim.getConstantIndex() != 0 || !type.isDynamicDim(0))
          return error(op, "expects tensor.dim to ask for M only");
        places[dim] = {Place::Rows};
        return Status();
      })
      .Case([&](arith::ConstantOp constant) {
        auto value = dyn_cast<IntegerAttr>(constant.getValue());
        if (!value)
          return error(op, "expects constants to be integers");
        places[constant] = {Place::Constant, value.getInt()};
        return Status();
      })
      .Case([&](tensor::EmptyOp empty) {
        for (Value size : empty.getDynamicSizes())
          if (places.lookup(size).kind != Place::Rows)
            return error(op, "expects the dynamic dimension of tensor.empty to "
                             "be M");
        places[empty] = {Place::Empty};
        return Status();
      })
      .Case([&](DispatchOp dispatch) { return addDispatch(dispatch); })
      .Case([&](func::ReturnOp ret) { return addReturn(ret); })
      .Default([&](Operation *) {
        return error(op, "expects only dispatches, but found " +
                             op->getName().getStringRef());
      });
}

Expected<std::vector<model::ManifestVariant>>
EntryBuilder::variants(DispatchOp dispatch) {
  // A dispatch of a fixed number of rows always runs the same kernel.
  Place rows = places.lookup(dispatch.getRows());
  const bool isFixed = rows.kind == Place::Constant;
  std::vector<model::ManifestVariant> variants;
  const int64_t first = std::min<int64_t>(dispatch.getMMin(), result.maxM + 1);
  for (auto [kernel, bound] :
       llvm::zip(dispatch.getKernels(), dispatch.getMMax())) {
    if (isFixed && rows.index > bound)
      continue;
    auto fn = SymbolTable::lookupNearestSymbolFrom<LLVM::LLVMFuncOp>(
        dispatch, cast<SymbolRefAttr>(kernel));
    if (!fn)
      return error(
          dispatch,
          "expects kernels in the llvm dialect, but '" +
              cast<SymbolRefAttr>(kernel).getLeafReference().getValue() +
              "' is not");
    kernels.insert(fn.getSymNameAttr());
    model::ManifestVariant variant;
    variant.mMax = isFixed ? result.maxM : std::min(bound, result.maxM);
    variant.symbol = fn.getSymName().str();
    auto threads = fn->getAttrOfType<IntegerAttr>(kThreadsAttr);
    if (threads)
      variant.threads = threads.getInt();
    variant.overlap = fn->hasAttr(kOverlapAttr);
    // Workgroup memory is a thread's own on a CPU, shared on a GPU.
    if (auto bytes = fn->getAttrOfType<IntegerAttr>(kScratchAttr))
      (threads ? variant.sharedBytes : variant.scratchBytes) = bytes.getInt();
    auto grid = fn->getAttrOfType<ArrayAttr>(kGridAttr);
    if (!grid)
      return error(dispatch,
                   "kernel '" + fn.getSymName() + "' has no " + kGridAttr);
    for (Attribute attr : grid) {
      auto factor = dyn_cast<DenseI64ArrayAttr>(attr);
      if (!factor || factor.size() != 4)
        return error(dispatch, "kernel '" + fn.getSymName() +
                                   "' expects factors of 4 numbers in " +
                                   kGridAttr);
      model::GridFactor f{factor[0], factor[1], factor[2], factor[3]};
      if (isFixed) {
        f.c += f.a * rows.index;
        f.a = 0;
      }
      variant.grid.push_back(f);
    }
    if (variants.empty() && first > 1 && !isFixed) {
      // For fewer rows a grid of no workgroups.
      model::ManifestVariant none = variant;
      none.mMax = first - 1;
      none.grid = {{0, 0, 0, 1}};
      variants.push_back(std::move(none));
      if (first > result.maxM)
        break;
    }
    variants.push_back(std::move(variant));
    // Later kernels are for more rows than a call can have.
    if (variants.back().mMax == result.maxM)
      break;
  }
  if (variants.empty() || variants.back().mMax < result.maxM)
    return error(dispatch,
                 "expects kernels for up to " + Twine(result.maxM) +
                     " rows, but they end at " +
                     Twine(variants.empty() ? 0 : variants.back().mMax));
  return variants;
}

Status EntryBuilder::addDispatch(DispatchOp dispatch) {
  const int64_t number = arguments.size();
  Place rows = places.lookup(dispatch.getRows());
  if (rows.kind != Place::Rows && rows.kind != Place::Constant)
    return error(dispatch, "expects its rows to be M or a constant");
  Place position = places.lookup(dispatch.getPosition());
  if (position.kind != Place::Position &&
      !(position.kind == Place::Constant && position.index == 0))
    return error(dispatch, "expects its position to be the entry's, or 0");

  // Marks a buffer as needed here, and refuses to read what was overwritten.
  auto use = [&](Value value, Place place) -> Status {
    if (place.kind != Place::Buffer)
      return {};
    Buffer &buffer = buffers[place.index];
    if (buffer.holds != value)
      return error(dispatch, "reads a tensor that an earlier dispatch "
                             "accumulated into");
    buffer.last = number;
    return {};
  };
  SmallVector<Place> args;
  for (Value input : dispatch.getInputs()) {
    Place place = places.lookup(input);
    if (place.kind == Place::None || place.kind >= Place::Empty)
      return error(dispatch, "expects its inputs to be tensors or states, but "
                             "found " +
                                 text(input.getType()));
    GPTQ_TRY(use(input, place));
    args.push_back(place);
  }
  for (auto [i, init] : llvm::enumerate(dispatch.getInits())) {
    Place place = places.lookup(init);
    Value value = dispatch.getResult(i);
    if (place.kind == Place::Empty) {
      GPTQ_ASSIGN(RowCount size,
                  bytes(dispatch, cast<RankedTensorType>(value.getType())));
      place = {Place::Buffer, int64_t(buffers.size())};
      buffers.push_back({size, number, number, -1, value, 0});
    } else if (place.kind == Place::Buffer) {
      GPTQ_TRY(use(init, place));
      // The kernel adds to it: the result lies where the operand was.
      if (llvm::is_contained(dispatch.getInputs(), init))
        return error(dispatch, "expects no tensor to be both input and "
                               "destination");
      buffers[place.index].holds = value;
    } else if (place.kind == Place::Input) {
      // Left for the next call.
      if (llvm::is_contained(dispatch.getInputs(), init))
        return error(dispatch, "expects no tensor to be both input and "
                               "destination");
    } else {
      return error(dispatch, "expects its destinations to be tensor.empty, "
                             "results of dispatches or inputs of the entry");
    }
    places[value] = place;
    args.push_back(place);
  }
  model::ManifestDispatch entry;
  entry.name = dispatch.getLabel().str();
  GPTQ_ASSIGN(entry.variants, variants(dispatch));
  result.dispatches.push_back(std::move(entry));
  arguments.push_back(std::move(args));
  auto used = dispatch->getAttrOfType<IntegerAttr>(kSlotsAttr);
  slots.push_back(used ? used.getInt() : 0);
  return {};
}

Status EntryBuilder::addReturn(func::ReturnOp op) {
  for (auto [i, value] : llvm::enumerate(op.getOperands())) {
    Place place = places.lookup(value);
    if (place.kind != Place::Buffer || buffers[place.index].holds != value ||
        buffers[place.index].output >= 0)
      return error(op, "expects result " + Twine(i) +
                           " to be the result of a dispatch, returned once");
    buffers[place.index].output = i;
    GPTQ_ASSIGN(model::ManifestPort output,
                port(value.getType(),
                     entry.getResultAttrOfType<StringAttr>(i, kNameAttr),
                     "output" + Twine(i)));
    result.outputs.push_back(std::move(output));
  }
  return {};
}

model::ManifestArgument EntryBuilder::argument(Place place,
                                               int64_t slots) const {
  using Argument = model::ManifestArgument;
  switch (place.kind) {
  case Place::Weight: {
    Argument weight = Argument::of(Argument::Kind::Weight, place.index);
    auto stack =
        dyn_cast<StackAttr>(cast<WeightOp>(weights[place.index]).getInit());
    if (stack && slots) {
      weight.experts = stack.getParts().size();
      weight.expertsUsed = std::min(slots, weight.experts);
    }
    return weight;
  }
  case Place::State:
    return Argument::of(Argument::Kind::State, place.index);
  case Place::Input:
    return Argument::of(Argument::Kind::Input, place.index);
  default: {
    const Buffer &buffer = buffers[place.index];
    if (buffer.output >= 0)
      return Argument::of(Argument::Kind::Output, buffer.output);
    return Argument::arena(buffer.offset, buffer.bytes.base,
                           buffer.bytes.perRow);
  }
  }
}

Expected<model::ManifestEntry> EntryBuilder::build() {
  auto maxRows = entry->getAttrOfType<IntegerAttr>(kMaxRowsAttr);
  result.name = entry.getSymName().str();
  result.maxM = maxRows.getInt();
  if (result.maxM < 1 || result.maxM > model::limits::count)
    return error(entry, "expects " + Twine(kMaxRowsAttr) +
                            " to be a number of rows, but found " +
                            Twine(result.maxM));
  if (auto topK = entry->getAttrOfType<IntegerAttr>(kMaxTopKAttr))
    result.maxTopK = topK.getInt();
  if (!entry.getBody().hasOneBlock())
    return error(entry, "expects one block");
  for (BlockArgument arg : entry.getArguments())
    GPTQ_TRY(addArgument(arg));
  for (Operation &op : entry.getBody().front())
    GPTQ_TRY(addOp(&op));

  // Outputs lie in the caller's memory.
  SmallVector<ArenaBuffer> arena;
  for (const Buffer &buffer : buffers)
    if (buffer.output < 0)
      arena.push_back({buffer.bytes.base + buffer.bytes.perRow * result.maxM,
                       buffer.first, buffer.last});
  result.arenaBytes = planArena(arena);
  auto *next = arena.begin();
  for (Buffer &buffer : buffers)
    if (buffer.output < 0)
      buffer.offset = next++->offset;
  for (auto [dispatch, args, used] :
       llvm::zip(result.dispatches, arguments, slots))
    for (Place place : args)
      dispatch.args.push_back(argument(place, used));
  return std::move(result);
}

//===----------------------------------------------------------------------===//
// The module
//===----------------------------------------------------------------------===//

static std::string stringIn(DictionaryAttr dict, StringRef key) {
  auto value = dict.getAs<StringAttr>(key);
  return value ? value.str() : std::string();
}

static int64_t integerIn(DictionaryAttr dict, StringRef key) {
  auto value = dict.getAs<IntegerAttr>(key);
  return value ? value.getInt() : 0;
}

static std::vector<int64_t> integersIn(DictionaryAttr dict, StringRef key) {
  std::vector<int64_t> result;
  if (auto values = dict.getAs<DenseI64ArrayAttr>(key))
    result.assign(values.asArrayRef().begin(), values.asArrayRef().end());
  else if (auto array = dict.getAs<ArrayAttr>(key))
    for (auto value : array.getAsRange<IntegerAttr>())
      result.push_back(value.getInt());
  return result;
}

/// Reads the attributes about the model, its tokenizer and its target.
static Status readAttributes(ModuleOp module, ModuleOp kernels,
                             model::Manifest &manifest) {
  manifest.producer = "gptq-mlir " GPTQ_VERSION;
  StringRef targetName;
  for (ModuleOp holder : {kernels, module})
    if (auto name = holder->getAttrOfType<StringAttr>(kTargetAttr))
      if (targetName.empty())
        targetName = name.getValue();
  const ::gptq::TargetInfo *target = ::gptq::findTarget(targetName);
  if (!target)
    return Status(StatusCode::InvalidArgument,
                  targetName.empty()
                      ? "the kernels do not say for which target they are"
                      : "target '" + targetName.str() + "' is not known");
  const bool isNVVM = target->kind == ::gptq::TargetInfo::Kind::NVVM;
  manifest.target = {isNVVM ? "nvvm" : "cpu", target->name, target->features};

  if (auto dict = module->getAttrOfType<DictionaryAttr>(kModelAttr)) {
    model::ManifestModel m;
    m.family = stringIn(dict, "family");
    m.name = stringIn(dict, "name");
    m.vocabSize = integerIn(dict, "vocab_size");
    m.maxContext = integerIn(dict, "max_context");
    m.bosIds = integersIn(dict, "bos_ids");
    m.eosIds = integersIn(dict, "eos_ids");
    if (auto addBos = dict.getAs<BoolAttr>("add_bos"))
      m.addBos = addBos.getValue();
    m.parameters = integerIn(dict, "parameters");
    m.quantization = stringIn(dict, "quantization");
    manifest.model = std::move(m);
  }
  if (auto dict = module->getAttrOfType<DictionaryAttr>(kTokenizerAttr)) {
    manifest.tokenizer.kind = stringIn(dict, "kind");
    if (auto files = dict.getAs<ArrayAttr>("files"))
      for (auto file : files.getAsRange<StringAttr>())
        manifest.tokenizer.files.push_back(file.str());
  }
  if (auto chat = module->getAttrOfType<StringAttr>(kChatTemplateAttr))
    manifest.chatTemplate = chat.str();
  return {};
}

Expected<Program> mlir::gptq::buildProgram(ModuleOp module) {
  Program program;
  program.kernelModule = module.lookupSymbol<ModuleOp>(kKernelsModule);
  if (!program.kernelModule)
    return Status(StatusCode::InvalidArgument,
                  "the module has no kernels: it is not in its final form");
  GPTQ_TRY(readAttributes(module, program.kernelModule, program.manifest));

  llvm::SetVector<Operation *> weights, states;
  llvm::SetVector<StringAttr> kernels;
  for (auto entry : module.getOps<func::FuncOp>()) {
    if (!entry->hasAttrOfType<IntegerAttr>(kMaxRowsAttr))
      continue;
    GPTQ_ASSIGN(model::ManifestEntry result,
                EntryBuilder(entry, weights, states, kernels).build());
    program.manifest.entries.push_back(std::move(result));
  }
  if (program.manifest.entries.empty())
    return Status(StatusCode::InvalidArgument,
                  "the module has no entry function (one with " +
                      kMaxRowsAttr.str() + ")");
  for (Operation *weight : weights)
    program.weights.push_back(cast<WeightOp>(weight));
  for (Operation *op : states) {
    auto state = cast<StateOp>(op);
    auto type = cast<MemRefType>(state.getType());
    if (!type.hasStaticShape())
      return Status(StatusCode::InvalidArgument,
                    "state '" + state.getSymName().str() +
                        "' expects a static shape, but found " + text(type));
    program.manifest.state.push_back(
        {state.getSymName().str(),
         type.getNumElements() *
             int64_t(llvm::divideCeil(type.getElementTypeBitWidth(), 8))});
  }
  for (StringAttr kernel : kernels)
    program.kernels.push_back(kernel.str());
  GPTQ_TRY(model::checkManifest(program.manifest));
  return program;
}
