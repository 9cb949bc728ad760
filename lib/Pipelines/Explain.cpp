//===- Explain.cpp - What was decided, for people -------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Pipelines/Explain.h"
#include "gptq/Codegen/Common/Plan.h"
#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/Remarks.h"
#include "llvm/ADT/MapVector.h"
#include "llvm/ADT/SetVector.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/Support/FormatVariadic.h"
#include <map>
#include <mutex>

using namespace mlir;
using namespace mlir::gptq;

//===----------------------------------------------------------------------===//
// Names of many layers
//===----------------------------------------------------------------------===//

/// "0-3,5" for 0, 1, 2, 3, 5.
static std::string rangeText(ArrayRef<int64_t> numbers) {
  std::string text;
  for (size_t i = 0; i < numbers.size();) {
    size_t last = i;
    while (last + 1 < numbers.size() && numbers[last + 1] == numbers[last] + 1)
      ++last;
    text += (text.empty() ? "" : ",") + std::to_string(numbers[i]);
    if (last > i)
      text += "-" + std::to_string(numbers[last]);
    i = last + 1;
  }
  return text;
}

/// Splits "layers.3.mlp.down_proj" at its first part that is a number.
static bool splitAtNumber(StringRef label, StringRef &before, int64_t &number,
                          StringRef &after) {
  for (size_t at = label.find('.'); at != StringRef::npos;
       at = label.find('.', at + 1)) {
    StringRef rest = label.drop_front(at + 1);
    StringRef part = rest.take_until([](char c) { return c == '.'; });
    if (part.getAsInteger(10, number))
      continue;
    before = label.take_front(at + 1);
    after = rest.drop_front(part.size());
    return true;
  }
  return false;
}

namespace {
/// Labels that differ only in the number of their block.
struct LabelSet {
  llvm::SetVector<StringRef> labels;

  std::string text() const {
    SmallVector<int64_t> numbers;
    StringRef before, after;
    for (StringRef label : labels) {
      int64_t number;
      if (!splitAtNumber(label, before, number, after))
        return label.str();
      numbers.push_back(number);
    }
    llvm::sort(numbers);
    return (before + rangeText(numbers) + after).str();
  }
};
} // namespace

/// `label` without the number of its block: what it is grouped by.
static std::string patternOf(StringRef label) {
  StringRef before, after;
  int64_t number;
  return splitAtNumber(label, before, number, after)
             ? (before + "#" + after).str()
             : label.str();
}

static std::string sizeText(int64_t bytes) {
  if (bytes >= 1'000'000)
    return llvm::formatv("{0:f2} MB", bytes / 1e6);
  if (bytes >= 1000)
    return llvm::formatv("{0:f1} kB", bytes / 1e3);
  return llvm::formatv("{0} bytes", bytes);
}

static int64_t bytesOf(Value value) {
  if (!value)
    return 0;
  auto type = cast<ShapedType>(value.getType());
  return llvm::divideCeil(type.getNumElements() * type.getElementTypeBitWidth(),
                          8);
}

//===----------------------------------------------------------------------===//
// Explanation
//===----------------------------------------------------------------------===//

namespace {

/// One kind of planned layer.
struct LayerKind {
  LabelSet set;
  llvm::SetVector<StringRef> entries;
  /// What it is, and what is read of it.
  std::string description;
  int64_t bytes = 0;
  SmallVector<PlanAttr> plans;
  /// By plan: a field and its reason.
  SmallVector<DictionaryAttr> reasons;
  /// The most rows its entry takes: the last plan's range is open to there.
  int64_t maxRows = 0;
};

struct Note {
  bool isDone;
  std::string label, reason;
};

/// What a kernel takes, by the names that the remark gave.
struct KernelUse {
  std::string kernel;
  std::map<std::string, std::string> figures;
};

/// Keeps remarks of this compiler.
struct NoteTaker final : remark::detail::MLIRRemarkStreamerBase {
  NoteTaker(std::vector<Note> &notes, std::vector<KernelUse> &uses,
            std::mutex &mutex)
      : notes(notes), uses(uses), mutex(mutex) {}

  void streamOptimizationRemark(const remark::detail::Remark &r) override {
    std::string label = "?";
    if (auto name = r.getLocation()->findInstanceOf<NameLoc>())
      label = name.getName().str();
    // Kernels are compiled side by side.
    std::lock_guard<std::mutex> lock(mutex);
    if (r.getRemarkType() == llvm::remarks::Type::Analysis) {
      KernelUse &use = uses.emplace_back();
      use.kernel = label;
      for (const remark::detail::Remark::Arg &arg : r.getArgs())
        use.figures[arg.key] = arg.val;
      return;
    }
    for (const remark::detail::Remark::Arg &arg : r.getArgs())
      if (arg.key == "Reason")
        notes.push_back(
            {r.getRemarkType() == llvm::remarks::Type::Passed, label, arg.val});
  }

  std::vector<Note> &notes;
  std::vector<KernelUse> &uses;
  std::mutex &mutex;
};

} // namespace

struct Explanation::Storage {
  MLIRContext &context;
  const ::gptq::TargetInfo &target;
  double bytesPerSecond;
  bool isOwnBandwidth;
  std::mutex mutex;
  std::vector<Note> notes;
  std::vector<KernelUse> uses;
  /// By kernel: the layers that run it, by kind.
  llvm::StringMap<std::map<std::string, LabelSet>> layersOf;
  llvm::MapVector<std::string, LayerKind, std::map<std::string, unsigned>>
      kinds;
  /// Entries and their largest M, in order.
  SmallVector<std::pair<StringRef, int64_t>> entries;
  /// Ops that work row by row: how many of which name.
  llvm::MapVector<StringRef, int64_t> rowOps;

  void add(Operation *op, StringRef entry, int64_t maxRows);
};

Explanation::Explanation(MLIRContext &context, const ::gptq::TargetInfo &target,
                         double bytesPerSecond)
    : storage(new Storage{context,
                          target,
                          bytesPerSecond > 0 ? bytesPerSecond
                                             : double(target.coreBandwidth),
                          bytesPerSecond <= 0,
                          {},
                          {},
                          {},
                          {},
                          {},
                          {},
                          {}}) {
  remark::RemarkCategories categories;
  categories.passed = categories.missed = categories.analysis = "gptq";
  // Fails only if the streamer cannot be made.
  (void)remark::enableOptimizationRemarks(
      context,
      std::make_unique<NoteTaker>(storage->notes, storage->uses,
                                  storage->mutex),
      std::make_unique<remark::RemarkEmittingPolicyAll>(), categories);
}

Explanation::~Explanation() {
  // The engine would go on writing to `storage`.
  storage->context.setRemarkEngine(nullptr);
}

void Explanation::Storage::add(Operation *op, StringRef entry,
                               int64_t maxRows) {
  SmallVector<PlanAttr> plans = getPlans(op);
  if (plans.empty())
    return;
  std::string description;
  llvm::raw_string_ostream text(description);
  int64_t bytes = 0, slots = 1, experts = 1;
  // Of experts one row reads those of its slots.
  auto ofRuns = [&](Value lhs, Value weight, Value runs) {
    if (!runs)
      return;
    slots = cast<ShapedType>(lhs.getType()).getDimSize(1);
    experts = cast<ShapedType>(weight.getType()).getDimSize(0);
    text << ", " << slots << " of " << experts << " experts for a row";
  };
  auto part = [&](StringRef name, Value value) {
    if (!value)
      return;
    const int64_t size = bytesOf(value) / experts * slots;
    text << (bytes ? ", " : "; reads ") << name << " " << sizeText(size);
    bytes += size;
  };
  if (auto matmul = dyn_cast<DequantMatmulOp>(op)) {
    text << "N " << matmul.getN() << ", K " << matmul.getK() << ", "
         << matmul.getBits() << " bits, "
         << (int64_t(matmul.getGroupSize()) >= matmul.getK()
                 ? std::string("one group")
                 : "groups of " + std::to_string(matmul.getGroupSize()))
         << ", "
         << (matmul.getZeros()     ? "with zero points"
             : matmul.getOffsets() ? "with offsets"
                                   : "symmetric");
    if (matmul.getPerm())
      text << ", rows permuted (act-order)";
    if (matmul.getEpilogue() != Epilogue::None)
      text << ", then " << stringifyEpilogue(matmul.getEpilogue());
    ofRuns(matmul.getLhs(), matmul.getCodes(), matmul.getRuns());
    part("codes", matmul.getCodes());
    part("scales", matmul.getScales());
    part("zero points", matmul.getZeros());
    part("offsets", matmul.getOffsets());
    part("permutation", matmul.getPerm());
    part("bias", matmul.getBias());
  } else if (auto matmul = dyn_cast<MatmulOp>(op)) {
    text << "N " << matmul.getN() << ", K " << matmul.getK() << ", dense "
         << getElementTypeOrSelf(matmul.getWeight().getType());
    if (matmul.getEpilogue() != Epilogue::None)
      text << ", then " << stringifyEpilogue(matmul.getEpilogue());
    ofRuns(matmul.getLhs(), matmul.getWeight(), matmul.getRuns());
    part("weight", matmul.getWeight());
    part("bias", matmul.getBias());
  } else {
    ++rowOps[op->getName().stripDialect()];
    return;
  }

  auto label = op->getAttrOfType<StringAttr>(kLabelAttr);
  StringRef name = label ? label.getValue() : op->getName().stripDialect();
  auto reasons = op->getAttrOfType<ArrayAttr>(kReasonsAttr);
  // The last range ends where the entry does, which is no difference.
  std::string key = patternOf(name) + "\n" + description;
  llvm::raw_string_ostream keyText(key);
  for (PlanAttr plan : plans) {
    bool isOpen = plan.getMMax() == maxRows && maxRows > 1;
    keyText << "\n"
            << (isOpen ? withRows(plan, plan.getMMin(), INT32_MAX) : plan);
  }
  LayerKind &kind = kinds[key];
  kind.set.labels.insert(name);
  kind.entries.insert(entry);
  if (!kind.plans.empty())
    return;
  kind.description = description;
  kind.bytes = bytes;
  kind.plans = plans;
  kind.maxRows = maxRows;
  if (reasons)
    kind.reasons = llvm::to_vector(reasons.getAsRange<DictionaryAttr>());
}

void Explanation::addPlans(ModuleOp module) {
  for (auto entry : module.getOps<func::FuncOp>()) {
    auto maxRows = entry->getAttrOfType<IntegerAttr>(kMaxRowsAttr);
    if (!maxRows)
      continue;
    // Names outlive the module: they are kept by the context.
    StringRef name = entry.getSymNameAttr().getValue();
    storage->entries.push_back({name, maxRows.getInt()});
    entry.walk(
        [&](Operation *op) { storage->add(op, name, maxRows.getInt()); });
  }
}

/// The rows a plan is for: "1", "2 and more", "2 to 16".
void Explanation::addKernels(ModuleOp module) {
  module.walk([&](DispatchOp dispatch) {
    StringRef label = dispatch.getLabelAttr().getValue();
    for (auto kernel : dispatch.getKernels().getAsRange<SymbolRefAttr>())
      storage->layersOf[kernel.getLeafReference().getValue()][patternOf(label)]
          .labels.insert(label);
  });
}

static std::string rowsText(PlanAttr plan, int64_t maxRows) {
  if (plan.getMMin() == plan.getMMax())
    return std::to_string(plan.getMMin());
  if (plan.getMMax() == maxRows)
    return std::to_string(plan.getMMin()) + " up";
  return std::to_string(plan.getMMin()) + "-" + std::to_string(plan.getMMax());
}

static std::string tileText(int64_t size) {
  return size ? std::to_string(size) : "all";
}

/// Prints rows of cells, columns as wide as their widest cell.
static void printTable(raw_ostream &os,
                       ArrayRef<SmallVector<std::string>> table) {
  SmallVector<size_t> widths(table.front().size());
  for (const auto &row : table)
    for (auto [i, cell] : llvm::enumerate(row))
      widths[i] = std::max(widths[i], cell.size());
  for (const auto &row : table) {
    std::string line = "   ";
    for (auto [i, cell] : llvm::enumerate(row))
      line += " " + cell + std::string(widths[i] + 1 - cell.size(), ' ');
    os << StringRef(line).rtrim() << "\n";
  }
}

/// Prints the reasons of `kind`; what is the same for all ranges of M once.
static void printReasons(raw_ostream &os, const LayerKind &kind) {
  // In the order of the table's columns.
  static constexpr StringRef fields[] = {
      "plan",    "tileM",    "tileN",   "tileK",  "registers",  "rows",
      "columns", "path",     "threads", "stages", "firstBytes", "aheadBytes",
      "cluster", "partials", "scale",   "zero"};
  for (StringRef field : fields) {
    llvm::MapVector<StringRef, SmallVector<size_t>> byText;
    for (auto [i, reasons] : llvm::enumerate(kind.reasons))
      if (auto text = reasons.getAs<StringAttr>(field))
        byText[text.getValue()].push_back(i);
    for (auto &[text, plans] : byText) {
      os << "    " << field;
      if (plans.size() < kind.plans.size())
        for (size_t i : plans)
          os << (i == plans.front() ? " (M " : ", ")
             << rowsText(kind.plans[i], kind.maxRows)
             << (i == plans.back() ? ")" : "");
      os << ": " << text << "\n";
    }
  }
}

/// The plans of a kind of layer, one a row, in the fields that the target has.
static SmallVector<SmallVector<std::string>>
planTable(const LayerKind &kind, const ::gptq::TargetInfo &target) {
  // On a GPU the threads of a warp hold a tile together.
  const bool hasWarps = target.kind == ::gptq::TargetInfo::Kind::NVVM;
  SmallVector<SmallVector<std::string>> table;
  if (hasWarps)
    table.push_back({"M", "tileM", "tileN", "warp tile", "threads", "stepK",
                     "stages", "first bytes", "ahead", "occupancy", "cluster",
                     "partials", "scale", "zero", "unit"});
  else
    table.push_back({"M", "tileM", "tileN", "tileK", "registers", "path",
                     "partials", "scale", "zero", "unit"});
  for (PlanAttr plan : kind.plans) {
    auto &row = table.emplace_back();
    row = {rowsText(plan, kind.maxRows), tileText(plan.getTileM()),
           tileText(plan.getTileN())};
    const std::string tile = std::to_string(plan.getRows()) + "x" +
                             std::to_string(plan.getColumns());
    if (hasWarps)
      row.append({tile, std::to_string(plan.getThreads()),
                  tileText(plan.getStepK()), std::to_string(plan.getStages()),
                  std::to_string(plan.getFirstBytes()),
                  std::to_string(plan.getAheadBytes()),
                  std::to_string(plan.getOccupancy()),
                  std::to_string(plan.getCluster())});
    else
      row.append({tileText(plan.getTileK()), tile, plan.getPath().str()});
    row.append(
        {plan.getPartials().str(), plan.getScale().str(), plan.getZero().str(),
         hasWarps
             ? plan.getUnit().str()
             : plan.getUnit().str() + " x" + std::to_string(plan.getLanes())});
  }
  return table;
}

void Explanation::print(raw_ostream &os) const {
  const Storage &s = *storage;
  os << "plans for " << s.target.name << "; floors: packed weights at "
     << llvm::formatv("{0:f1}", s.bytesPerSecond / 1e9) << " GB/s, "
     << (!s.isOwnBandwidth ? "as asked for"
         : s.target.kind == ::gptq::TargetInfo::Kind::CPU
             ? "about what one core of such a processor reads (--bandwidth to "
               "change)"
             : "what the memory of the largest GPU of this architecture is "
               "specified for (--bandwidth to change)")
     << "\n";
  os << "entries: ";
  for (auto [i, entry] : llvm::enumerate(s.entries))
    os << (i ? ", " : "") << entry.first << " (M to " << entry.second << ")";
  os << "\n";

  for (const auto &[key, kind] : s.kinds) {
    os << "\n" << kind.set.text();
    if (kind.set.labels.size() > 1)
      os << " x" << kind.set.labels.size();
    if (kind.entries.size() < s.entries.size())
      os << " (in " << llvm::join(kind.entries, ", ") << ")";
    os << "\n    " << kind.description << "\n    " << sizeText(kind.bytes)
       << " for each call, floor "
       << llvm::formatv("{0:f1}", kind.bytes / s.bytesPerSecond * 1e6)
       << " µs\n";
    printTable(os, planTable(kind, s.target));
    printReasons(os, kind);
  }

  if (!s.rowOps.empty()) {
    os << "\nrow by row, one workgroup for a few rows or for a head:";
    for (auto [i, op] : llvm::enumerate(s.rowOps))
      os << (i ? ", " : " ") << op.first << " x" << op.second;
    os << "\n";
  }

  for (bool isDone : {true, false}) {
    // By reason and kind of layer; entries repeat what they share.
    std::map<std::pair<std::string, std::string>, LabelSet> groups;
    for (const Note &note : s.notes)
      if (note.isDone == isDone)
        groups[{note.reason, patternOf(note.label)}].labels.insert(note.label);
    if (groups.empty())
      continue;
    os << (isDone ? "\ndone\n" : "\nnot done\n");
    for (const auto &[key, set] : groups)
      os << "    " << set.text() << ": " << key.first << "\n";
  }

  if (s.uses.empty())
    return;
  os << "\nkernels: registers and bytes of local memory of a thread\n";
  SmallVector<SmallVector<std::string>> table;
  table.push_back({"kernel", "registers", "stack", "spilled", "layers"});
  for (const KernelUse &use : s.uses) {
    std::vector<std::string> layers;
    if (auto it = s.layersOf.find(use.kernel); it != s.layersOf.end())
      for (const auto &[pattern, set] : it->second)
        layers.push_back(set.text());
    auto figure = [&](const char *name) {
      auto it = use.figures.find(name);
      return it == use.figures.end() ? std::string("?") : it->second;
    };
    table.push_back({use.kernel, figure("Registers"), figure("StackBytes"),
                     figure("SpillBytes"), llvm::join(layers, ", ")});
  }
  // The assembler goes from the last to the first.
  std::stable_sort(table.begin() + 1, table.end(),
                   [](const auto &a, const auto &b) {
                     return StringRef(a[0]).compare_numeric(b[0]) < 0;
                   });
  printTable(os, table);
}
