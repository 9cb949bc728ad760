//===- PlanFile.cpp - Plans that a user gives -----------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Codegen/Common/PlanFile.h"
#include "gptq/Codegen/Common/Passes.h"
#include "gptq/Codegen/Common/Plan.h"
#include "mlir/AsmParser/AsmParser.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/Diagnostics.h"
#include "llvm/ADT/MapVector.h"
#include "llvm/ADT/SmallPtrSet.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/Support/MemoryBuffer.h"

namespace mlir::gptq {
#define GEN_PASS_DEF_APPLYPLANFILEPASS
#include "gptq/Codegen/Common/Passes.h.inc"
} // namespace mlir::gptq

using namespace mlir;
using namespace mlir::gptq;

static constexpr StringRef kOp = "op", kTarget = "target", kPlans = "plans",
                           kLayer = "layer", kNormalize = "normalize",
                           kRing = "ring";

//===----------------------------------------------------------------------===//
// Describing ops
//===----------------------------------------------------------------------===//

/// Whatever of `op` its plans may depend on: sizes, numbers of heads, kinds of
/// elements. Never which layer it is.
static NamedAttrList describe(Operation *op) {
  OpBuilder b(op->getContext());
  NamedAttrList facts;
  facts.set(kOp, b.getStringAttr(op->getName().stripDialect()));
  auto lastDim = [](Value value) -> int64_t {
    auto type = dyn_cast<ShapedType>(value.getType());
    return type && type.hasRank() && type.getRank() > 0 ? type.getShape().back()
                                                        : ShapedType::kDynamic;
  };
  auto style = cast<DestinationStyleOpInterface>(op);
  Value input = style.getDpsInputs().front();
  for (auto [name, value] :
       {std::pair("n", style.getDpsInits()[0]), {"k", input}})
    // Tokens are a row of their own, however many they are.
    if (int64_t size = lastDim(value);
        !ShapedType::isDynamic(size) &&
        cast<ShapedType>(value.getType()).getRank() > 1)
      facts.set(name, b.getI64IntegerAttr(size));
  // bits, group_size, heads, …; not what is discardable.
  for (NamedAttribute attr : op->getAttrs()) {
    if (attr.getName().getValue().contains('.') ||
        attr.getName() == "zero_point" || attr.getName() == "zero_offset")
      continue;
    if (auto number = dyn_cast<IntegerAttr>(attr.getValue()))
      facts.set(attr.getName(), number.getType().isInteger(1)
                                    ? Attribute(number)
                                    : b.getI64IntegerAttr(number.getInt()));
  }
  auto elementType = [&](StringRef name, Value value) {
    Type type = getElementTypeOrSelf(value.getType());
    if (isa<FloatType>(type))
      facts.set(name, TypeAttr::get(type));
  };
  elementType("activations", input);
  auto whether = [&](StringRef name, Value value) {
    facts.set(name, b.getBoolAttr(bool(value)));
  };
  if (auto matmul = dyn_cast<DequantMatmulOp>(op)) {
    whether("zero_points", matmul.getZeros());
    whether("offsets", matmul.getOffsets());
    whether("normalized", matmul.getSource());
    whether("runs", matmul.getRuns());
    whether("act_order", matmul.getPerm());
    facts.set("follows_weights", b.getBoolAttr(followsWeights(op)));
    facts.set("epilogue",
              b.getStringAttr(stringifyEpilogue(matmul.getEpilogue())));
  } else if (auto matmul = dyn_cast<MatmulOp>(op)) {
    elementType("weight", matmul.getWeight());
    whether("normalized", matmul.getSource());
    whether("runs", matmul.getRuns());
    facts.set("follows_weights", b.getBoolAttr(followsWeights(op)));
    facts.set("epilogue",
              b.getStringAttr(stringifyEpilogue(matmul.getEpilogue())));
  }
  facts.set("max_m", b.getI64IntegerAttr(getPlans(op).back().getMMax()));
  return facts;
}

/// The name of an op's layer, which it need not have.
static StringRef labelOf(Operation *op) {
  auto label = op->getAttrOfType<StringAttr>(kLabelAttr);
  return label ? label.getValue() : StringRef();
}

/// What to call `op` in a message.
static std::string nameOf(Operation *op) {
  StringRef kind = op->getName().stripDialect(), label = labelOf(op);
  return label.empty() ? "a " + kind.str() : "'" + label.str() + "'";
}

static std::string textOf(Attribute attr) {
  std::string text;
  llvm::raw_string_ostream os(text);
  if (auto number = dyn_cast<IntegerAttr>(attr);
      number && !number.getType().isInteger(1))
    os << number.getInt();
  else
    os << attr;
  return text;
}

LogicalResult mlir::gptq::writePlanFile(ModuleOp module,
                                        const ::gptq::TargetInfo &target,
                                        raw_ostream &os) {
  struct Group {
    ArrayAttr plans;
    llvm::SetVector<StringRef> labels;
  };
  llvm::MapVector<Attribute, Group> groups;
  WalkResult result = module.walk([&](Operation *op) {
    if (getPlans(op).empty())
      return WalkResult::advance();
    NamedAttrList facts = describe(op);
    auto plans = op->getAttrOfType<ArrayAttr>(kPlansAttr);
    Group &group = groups[facts.getDictionary(op->getContext())];
    if (group.plans && group.plans != plans) {
      op->emitError("has other plans than an op that a plan file cannot tell "
                    "from it");
      return WalkResult::interrupt();
    }
    group.plans = plans;
    if (!labelOf(op).empty())
      group.labels.insert(labelOf(op));
    return WalkResult::advance();
  });
  if (result.wasInterrupted())
    return failure();

  os << "// The plans of " << target.name
     << ", one entry for all ops of one description. Edited, they are given "
        "back with\n// --plan. Names that are left out match every op; "
        "the first entry that matches counts.\n";
  for (auto &[key, group] : groups) {
    os << "\n";
    if (!group.labels.empty())
      os << "// " << group.labels.front()
         << (group.labels.size() > 1
                 ? " and " + std::to_string(group.labels.size() - 1) + " more"
                 : "")
         << "\n";
    os << "{" << kOp << " = " << textOf(cast<DictionaryAttr>(key).get(kOp))
       << ", " << kTarget << " = \"" << target.name << "\"";
    for (NamedAttribute fact : cast<DictionaryAttr>(key))
      if (fact.getName() != kOp)
        os << ", " << fact.getName().getValue() << " = "
           << textOf(fact.getValue());
    os << ", " << kPlans << " = [";
    llvm::interleave(
        group.plans, [&](Attribute plan) { os << "\n  " << plan; },
        [&] { os << ","; });
    os << "]}\n";
  }
  return success();
}

//===----------------------------------------------------------------------===//
// Reading
//===----------------------------------------------------------------------===//

/// Drops spaces and comments.
static StringRef skipSpace(StringRef text) {
  for (;;) {
    text = text.ltrim();
    if (!text.starts_with("//"))
      return text;
    text = text.drop_until([](char c) { return c == '\n'; });
  }
}

FailureOr<SmallVector<PlanFileEntry>>
mlir::gptq::readPlanFile(StringRef path, MLIRContext *context) {
  auto buffer = llvm::MemoryBuffer::getFile(path, /*IsText=*/true);
  if (!buffer) {
    emitError(UnknownLoc::get(context), "cannot read the plan file '")
        << path << "': " << buffer.getError().message();
    return failure();
  }
  const StringRef text = (*buffer)->getBuffer();
  auto locationOf = [&](const char *at) -> Location {
    StringRef before = text.take_front(at - text.data());
    return FileLineColLoc::get(context, path, before.count('\n') + 1,
                               before.size() - (before.rfind('\n') + 1) + 1);
  };
  SmallVector<PlanFileEntry> entries;
  for (StringRef rest = skipSpace(text); !rest.empty();) {
    Location loc = locationOf(rest.data());
    size_t read = 0;
    std::string error;
    Location errorLoc = loc;
    Attribute attr;
    {
      ScopedDiagnosticHandler handler(context, [&](Diagnostic &diagnostic) {
        if (!error.empty() ||
            diagnostic.getSeverity() != DiagnosticSeverity::Error)
          return success();
        error = diagnostic.str();
        // The parser counts from the start of what it is given.
        if (auto at =
                diagnostic.getLocation()->findInstanceOf<FileLineColLoc>()) {
          size_t place = rest.data() - text.data();
          for (unsigned line = 1; line < at.getLine(); ++line)
            place = text.find('\n', place) + 1;
          errorLoc = locationOf(text.data() + place + at.getColumn() - 1);
        }
        return success();
      });
      attr = parseAttribute(rest, context, Type(), &read);
    }
    if (!error.empty()) {
      emitError(errorLoc) << error;
      return failure();
    }
    auto description = dyn_cast_or_null<DictionaryAttr>(attr);
    if (!description) {
      emitError(loc, "expects entries {op = …, plans = […]} in a plan file");
      return failure();
    }
    entries.push_back({description, loc});
    rest = skipSpace(rest.drop_front(read));
  }
  return entries;
}

//===----------------------------------------------------------------------===//
// Applying
//===----------------------------------------------------------------------===//

/// Fields of a plan by name, as text.
static SmallVector<std::pair<StringRef, std::string>> fieldsOf(PlanAttr plan) {
  auto number = [](int64_t value) { return std::to_string(value); };
  return {{"unit", plan.getUnit().str()},
          {"tileM", number(plan.getTileM())},
          {"tileN", number(plan.getTileN())},
          {"tileK", number(plan.getTileK())},
          {"rows", number(plan.getRows())},
          {"columns", number(plan.getColumns())},
          {"lanes", number(plan.getLanes())},
          {"path", plan.getPath().str()},
          {"partials", plan.getPartials().str()},
          {"scale", plan.getScale().str()},
          {"zero", plan.getZero().str()},
          {"threads", number(plan.getThreads())},
          {"stepK", number(plan.getStepK())},
          {"occupancy", number(plan.getOccupancy())},
          {"stages", number(plan.getStages())},
          {"loadBits", number(plan.getLoadBits())},
          {"cluster", number(plan.getCluster())},
          {"firstBytes", number(plan.getFirstBytes())},
          {"aheadBytes", number(plan.getAheadBytes())}};
}

namespace {
/// Whether a plan can be honoured, and if not, why.
class PlanCheck {
public:
  PlanCheck(Operation *op, const ::gptq::TargetInfo &target, PlanAttr plan,
            PlanAttr planned)
      : op(op), target(target), plan(plan), planned(planned) {}

  /// Empty, or a sentence.
  std::string run() {
    const ::gptq::UnitInfo *unit = target.findUnit(plan.getUnit());
    if (!unit)
      return target.name + " has no unit " + textOf(plan.getUnit()) +
             ", expected " + textOf(planned.getUnit());
    const bool isMatmul = isa<DequantMatmulOp, MatmulOp>(op);
    const bool isGpu = target.kind == ::gptq::TargetInfo::Kind::NVVM;
    // What nothing reads stays as it was planned.
    SmallVector<StringRef> free;
    if (!isMatmul) {
      // Attention's fields depend on each other and on its heads.
      if (!isGpu)
        free = {"tileM"};
      else if (!isa<AttentionOp>(op))
        free = {"threads"};
    } else if (unit->isWarps()) {
      const ::gptq::UnitInfo *other = target.findUnit(planned.getUnit());
      if (!other || other->kind != unit->kind || other->lanes != unit->lanes)
        return mismatch("unit", plan.getUnit(),
                        planned.getUnit().getValue() +
                            ", or one that reads its layout");
      if (std::string why = checkPath(*unit); !why.empty())
        return why;
      free = {"unit",       "tileM",     "tileN",  "rows",     "columns",
              "path",       "partials",  "scale",  "zero",     "threads",
              "stepK",      "occupancy", "stages", "loadBits", "cluster",
              "firstBytes", "aheadBytes"};
    } else {
      free = {"tileM", "tileN",    "tileK", "rows", "columns",
              "path",  "partials", "scale", "zero"};
    }
    for (auto [mine, theirs] : llvm::zip(fieldsOf(plan), fieldsOf(planned)))
      if (mine.second != theirs.second && !llvm::is_contained(free, mine.first))
        return mismatch(mine.first, mine.second, theirs.second);

    if (isGpu)
      between("threads", plan.getThreads(), kWarp, 1024, kWarp);
    if (isMatmul && plan.getPath() == kRing)
      checkRing(*unit);
    else if (isMatmul && unit->isWarps())
      checkWarps(*unit);
    else if (isMatmul)
      checkVectors(*unit);
    return error;
  }

private:
  static constexpr int64_t kWarp = 32;

  std::string mismatch(StringRef field, StringRef found,
                       const Twine &expected) {
    return ("expects " + field + " = " + expected + ", but found " + found)
        .str();
  }

  void refuse(StringRef field, int64_t found, const Twine &expected) {
    if (error.empty())
      error = mismatch(field, std::to_string(found), expected);
  }

  /// A multiple of `step` from `least` to `most`.
  void between(StringRef field, int64_t value, int64_t least, int64_t most,
               int64_t step) {
    if (value >= least && value <= most && value % step == 0)
      return;
    std::string multiple =
        step > 1 ? "a multiple of " + std::to_string(step) + " from " : "";
    refuse(field, value,
           least == most ? std::to_string(least)
                         : multiple + std::to_string(least) + " to " +
                               std::to_string(most));
  }

  /// The path, which says where operands are multiplied.
  std::string checkPath(const ::gptq::UnitInfo &unit) {
    StringRef path = plan.getPath();
    // Who normalizes is what was planned; see `apply`.
    if (path == kNormalize)
      return "";
    auto quantized = dyn_cast<DequantMatmulOp>(op);
    const bool canRing =
        quantized && !quantized.getOffsets() && !quantized.getRuns();
    if (unit.warps > 1 && !canRing)
      return mismatch("unit", plan.getUnit(),
                      "one whose warps multiply for themselves: weights are "
                      "dense, groups have offsets, or rows come in runs");
    if (path != (unit.warps > 1 ? kRing : StringRef("direct")))
      return mismatch("path", path,
                      Twine(unit.warps > 1 ? "ring of " : "direct of ") +
                          plan.getUnit().getValue());
    return "";
  }

  /// Warps that multiply together what passes through a ring.
  void checkRing(const ::gptq::UnitInfo &unit) {
    auto matmul = cast<DequantMatmulOp>(op);
    const int64_t rows = plan.getRows(), tileN = plan.getTileN();
    between("rows", rows, 16, 64, 16);
    if (plan.getTileM() != rows)
      refuse("tileM", plan.getTileM(), Twine(rows) + ", the rows of a tile");
    const int64_t columns = unit.tileColumns();
    between("columns", plan.getColumns(), columns, columns, 1);
    between("tileN", tileN, columns, kMaxRingThreads / kWarp * columns,
            columns);
    if (!error.empty())
      return;
    // Warps without a tile multiply, too; more warps take parts of K in turn.
    const int64_t threads =
        llvm::alignTo(llvm::divideCeil(tileN, columns), unit.warps) * kWarp;
    between("threads", plan.getThreads(), threads,
            kMaxRingThreads / threads * threads, threads);
    between("occupancy", plan.getOccupancy(), 1, 1, 1);
    between("firstBytes", plan.getFirstBytes(), 0, 0, 1);
    between("loadBits", plan.getLoadBits(), 32, 128, 32);
    if (error.empty() && plan.getZero() != "weight")
      error = mismatch("zero", plan.getZero(),
                       "weight: sums of a ring are not corrected");
    // Parts of K are whole lines of an image and blocks, and have one scale.
    const int64_t k = matmul.getK(), stepK = plan.getStepK();
    const int64_t group = int64_t(matmul.getGroupSize()) >= k
                              ? k
                              : int64_t(matmul.getGroupSize());
    const int64_t line = std::max(
        unit.activationLayout().blockK,
        unit.weightLayout(matmul.getBits(), group < k ? group : 0).blockK);
    if (error.empty() && (stepK <= 0 || stepK > kMaxStep || stepK % line != 0 ||
                          group % stepK != 0 || k % stepK != 0))
      refuse("stepK", stepK,
             "a multiple of " + Twine(line) + " up to " + Twine(kMaxStep) +
                 " that divides groups of " + Twine(group) + " and " +
                 Twine(k) + " rows of K");
    between("cluster", plan.getCluster(), 1, kMaxCluster, 1);
    if (error.empty() && k / stepK % plan.getCluster() != 0)
      refuse("cluster", plan.getCluster(),
             "a divisor of the " + Twine(k / stepK) + " parts of " +
                 Twine(stepK) + " rows of K");
    if (!error.empty())
      return;
    const int64_t turns = plan.getThreads() / threads;
    const RingBytes bytes = ringBytes(
        plan, matmul.getBits(),
        getElementTypeOrSelf(matmul.getScales()).getIntOrFloatBitWidth(),
        bool(matmul.getZeros()));
    const int64_t most = bytes.places(target.workgroupMemory) / turns * turns;
    between("stages", plan.getStages(), turns, most, turns);
  }

  /// Warps that hold tiles together.
  void checkWarps(const ::gptq::UnitInfo &unit) {
    const int64_t rows = plan.getRows(), columns = plan.getColumns();
    const int64_t width = unit.tileColumns();
    between("rows", rows, unit.tileRows(), 64, unit.tileRows());
    if (plan.getTileM() != rows)
      refuse("tileM", plan.getTileM(),
             Twine(rows) + ", the rows of a warp's tile");
    between("columns", columns, width, 512, width);
    if (error.empty() && rows * columns / kWarp > kMaxSums)
      refuse("columns", columns,
             "at most " + Twine(kMaxSums * kWarp / rows / width * width) +
                 " beside " + Twine(rows) + " rows: " + Twine(kMaxSums) +
                 " sums for a thread");
    between("tileN", plan.getTileN(), width, 1 << 16, width);
    between("cluster", plan.getCluster(), 1, 1, 1);
    between("stages", plan.getStages(), 1, 2, 1);
    between("firstBytes", plan.getFirstBytes(), 0, kRegisterBytes, 1);
    if (error.empty() && unit.multipliesPairs && plan.getZero() != "weight")
      error = mismatch("zero", plan.getZero(),
                       "weight: sums in half precision have to be small");
    if (!error.empty())
      return;
    const int64_t shares = llvm::divideCeil(plan.getTileN(), columns);
    if (plan.getThreads() % (shares * kWarp) != 0)
      refuse("threads", plan.getThreads(),
             "a multiple of " + Twine(shares * kWarp) + ", " + Twine(shares) +
                 " warps for " + Twine(plan.getTileN()) + " columns");
    between("stepK", plan.getStepK(), 0, 256, 1);
    between("occupancy", plan.getOccupancy(), 1, 32, 1);
    between("loadBits", plan.getLoadBits(), 32, 128, 32);
    const int64_t sums = plan.getThreads() * rows * columns / kWarp * 4;
    if (sums > target.workgroupMemory)
      refuse("threads", plan.getThreads(),
             "fewer: their sums take " + Twine(sums) +
                 " bytes of shared memory, of which " + target.name + " has " +
                 Twine(target.workgroupMemory));
  }

  /// Threads that hold a tile each.
  void checkVectors(const ::gptq::UnitInfo &unit) {
    const int64_t panel = unit.panelColumns(), columns = plan.getColumns();
    if (columns % unit.lanes != 0 || panel % columns != 0)
      refuse("columns", columns,
             "a multiple of " + Twine(unit.lanes) +
                 " that divides a panel of " + Twine(panel));
    if (error.empty() && plan.getRows() * columns / unit.lanes > kMaxSums)
      refuse("rows", plan.getRows(),
             "at most " + Twine(kMaxSums * unit.lanes / columns) + " beside " +
                 Twine(columns) + " columns");
    between("tileN", plan.getTileN(), panel, 1 << 16, panel);
    auto quantized = dyn_cast<DequantMatmulOp>(op);
    if (plan.getTileK() != 0 &&
        (!quantized || quantized.getEpilogue() != Epilogue::None))
      refuse("tileK", plan.getTileK(),
             quantized ? "0, for the epilogue needs the whole sum"
                       : "0, for sums over dense weights are not split");
    if (error.empty() && plan.getPath() == "split" &&
        (!quantized || quantized.getBits() > 3 || plan.getMMax() > 1 ||
         plan.getScale() != "accumulator" || plan.getZero() != "accumulator"))
      error = mismatch("path", "split",
                       "direct or promote: activations are split for one row "
                       "and codes of up to 3 bits with scale and zero in the "
                       "accumulator");
  }

  /// More would not be held in any register file.
  static constexpr int64_t kMaxSums = 128;
  /// Of a thread, at most.
  static constexpr int64_t kRegisterBytes = 255 * 4;
  /// Threads that multiply what passes through a ring, beside those that copy:
  /// more have too few registers.
  static constexpr int64_t kMaxRingThreads = 512;
  /// Rows of K of one place, at most.
  static constexpr int64_t kMaxStep = 256;
  /// Workgroups of a cluster that every chip with clusters places.
  static constexpr int64_t kMaxCluster = 8;

  Operation *op;
  const ::gptq::TargetInfo &target;
  PlanAttr plan, planned;
  std::string error;
};

struct ApplyPlanFilePass final
    : mlir::gptq::impl::ApplyPlanFilePassBase<ApplyPlanFilePass> {
  using Base::Base;

  /// Checks that `entry` is well-formed, and reads its plans.
  LogicalResult checkEntry(const PlanFileEntry &entry) {
    auto expect = [&](StringRef name, bool isRight, const char *what) {
      if (!isRight)
        emitError(entry.loc) << "expects " << name << " to be " << what;
      return success(isRight);
    };
    DictionaryAttr d = entry.description;
    auto plans = d.getAs<ArrayAttr>(kPlans);
    if (failed(expect(kOp, bool(d.getAs<StringAttr>(kOp)), "an op's name")) ||
        failed(expect(kPlans,
                      plans && !plans.empty() &&
                          llvm::all_of(plans, llvm::IsaPred<PlanAttr>),
                      "a list of #gptq.plan")) ||
        failed(expect(
            kTarget, !d.contains(kTarget) || bool(d.getAs<StringAttr>(kTarget)),
            "a target's name")))
      return failure();
    int64_t from = cast<PlanAttr>(plans[0]).getMMin();
    for (auto plan : plans.getAsRange<PlanAttr>()) {
      if (plan.getMMin() != from)
        return emitError(entry.loc)
               << "expects plans without gaps, the next from mMin = " << from
               << ", but found " << plan.getMMin();
      from = plan.getMMax() + 1;
    }
    return success();
  }

  /// Whether `entry` is for `op`; an error if it never could be.
  FailureOr<bool> matches(const PlanFileEntry &entry, Operation *op,
                          const NamedAttrList &facts) {
    if (entry.description.get(kOp) != facts.get(kOp))
      return false;
    bool isFor = true;
    for (NamedAttribute named : entry.description) {
      StringRef name = named.getName();
      if (name == kPlans || name == kTarget)
        continue;
      if (name == kLayer) {
        auto layer = dyn_cast<StringAttr>(named.getValue());
        isFor &= layer && layer.getValue() == labelOf(op);
        continue;
      }
      Attribute fact = facts.get(name);
      if (!fact) {
        std::string known;
        for (NamedAttribute f : facts)
          known += (known.empty() ? "" : ", ") + f.getName().str();
        emitError(entry.loc)
            << "names '" << name << "', but what " << textOf(facts.get(kOp))
            << " has is " << known << ", " << kLayer;
        return failure();
      }
      isFor &= fact == named.getValue();
    }
    return isFor;
  }

  /// Gives `op` the plans of `entry`, as far as it has rows.
  LogicalResult apply(const PlanFileEntry &entry, Operation *op,
                      const ::gptq::TargetInfo &info) {
    SmallVector<PlanAttr> planned = getPlans(op);
    const int64_t minRows = planned.front().getMMin(),
                  maxRows = planned.back().getMMax();
    auto refuse = [&](PlanAttr plan, const Twine &why) {
      return emitError(entry.loc)
             << "cannot be honoured for M = " << plan.getMMin() << " to "
             << plan.getMMax() << " of " << nameOf(op) << ": " << why;
    };
    SmallVector<Attribute> plans;
    int64_t covered = minRows;
    for (auto plan :
         entry.description.getAs<ArrayAttr>(kPlans).getAsRange<PlanAttr>()) {
      const int64_t from = std::max(plan.getMMin(), minRows),
                    to = std::min(plan.getMMax(), maxRows);
      if (from > to)
        continue;
      if (from != covered)
        break;
      plan = withRows(plan, from, to);
      // What is planned for other ops relies on who normalizes.
      for (PlanAttr other : planned)
        if (other.getMMin() <= to && from <= other.getMMax() &&
            (other.getPath() == kNormalize) != (plan.getPath() == kNormalize))
          return refuse(plan, "expects path = " + other.getPath().getValue() +
                                  " from M = " + Twine(other.getMMin()) +
                                  " to " + Twine(other.getMMax()) +
                                  ", but found " + plan.getPath().getValue());
      // What was planned for the last of these rows.
      PlanAttr there = *llvm::find_if(
          planned, [&](PlanAttr p) { return p.getMMax() >= to; });
      std::string why = PlanCheck(op, info, plan, there).run();
      if (!why.empty())
        return refuse(plan, why);
      plans.push_back(plan);
      covered = to + 1;
    }
    if (covered <= maxRows)
      return emitError(entry.loc)
             << "expects plans for M = " << minRows << " to " << maxRows
             << ", all rows of " << nameOf(op) << ", but found none for "
             << covered;
    OpBuilder b(op);
    op->setAttr(kPlansAttr, b.getArrayAttr(plans));
    if (op->hasAttr(kReasonsAttr)) {
      auto at = entry.loc->findInstanceOf<FileLineColLoc>();
      auto why = b.getDictionaryAttr(b.getNamedAttr(
          "plan", b.getStringAttr("given by " + at.getFilename().str() + ":" +
                                  Twine(at.getLine()))));
      op->setAttr(kReasonsAttr,
                  b.getArrayAttr(SmallVector<Attribute>(plans.size(), why)));
    }
    return success();
  }

  void runOnOperation() override {
    const ::gptq::TargetInfo *info = ::gptq::findTarget(target);
    if (!info) {
      getOperation().emitError("expects a known target, but found '")
          << target << "'";
      return signalPassFailure();
    }
    auto read = readPlanFile(file, &getContext());
    if (failed(read))
      return signalPassFailure();
    SmallVector<PlanFileEntry> entries;
    for (const PlanFileEntry &entry : *read) {
      if (failed(checkEntry(entry)))
        return signalPassFailure();
      auto name = entry.description.getAs<StringAttr>(kTarget);
      if (!name || name == target.getValue())
        entries.push_back(entry);
    }
    SmallVector<bool> used(entries.size(), false);
    WalkResult result = getOperation().walk([&](Operation *op) {
      if (getPlans(op).empty())
        return WalkResult::advance();
      const NamedAttrList facts = describe(op);
      for (auto [i, entry] : llvm::enumerate(entries)) {
        FailureOr<bool> isFor = matches(entry, op, facts);
        if (failed(isFor) || (*isFor && failed(apply(entry, op, *info))))
          return WalkResult::interrupt();
        if (*isFor) {
          used[i] = true;
          break;
        }
      }
      return WalkResult::advance();
    });
    if (result.wasInterrupted())
      return signalPassFailure();
    for (auto [i, entry] : llvm::enumerate(entries))
      if (!used[i])
        emitWarning(entry.loc) << "plans for no op of this model, or only for "
                                  "ops that an entry before has planned";
  }
};
} // namespace
