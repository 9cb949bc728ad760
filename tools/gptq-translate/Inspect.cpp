//===- Inspect.cpp - Describes a checkpoint for people --------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Inspect.h"
#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "gptq/Import/Import.h"
#include "gptq/Import/Inspect.h"
#include "gptq/Pipelines/Pipelines.h"
#include "gptq/Target/Target.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/Remarks.h"
#include "mlir/Pass/PassManager.h"
#include "llvm/ADT/MapVector.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FormatVariadic.h"

using namespace mlir;
using namespace mlir::gptq;
using abi::Json;

//===----------------------------------------------------------------------===//
// What becomes of it
//===----------------------------------------------------------------------===//

namespace {
/// Keeps why layers stay apart.
struct MissedRemarks final : remark::detail::MLIRRemarkStreamerBase {
  explicit MissedRemarks(Json &out) : out(out) {}
  void streamOptimizationRemark(const remark::detail::Remark &r) override {
    auto name = r.getLocation()->findInstanceOf<NameLoc>();
    if (!name || r.getRemarkType() != llvm::remarks::Type::Missed)
      return;
    for (const remark::detail::Remark::Arg &arg : r.getArgs())
      if (arg.key == "Reason")
        out.push_back({{"layer", name.getName().str()}, {"reason", arg.val}});
  }
  Json &out;
};
} // namespace

static void addOnce(Json &list, const Json &value) {
  // Not `contains`, which asks for keys.
  if (std::find(list.begin(), list.end(), value) == list.end())
    list.push_back(value);
}

/// Imports and normalizes the whole model; notes which matmuls were joined, or
/// why it cannot be imported.
static void describeFusions(StringRef folder, MLIRContext *context,
                            Json &report) {
  std::string error;
  OwningOpRef<ModuleOp> module =
      importCheckpoint(folder, ImportOptions(), context, error);
  if (!module) {
    addOnce(report["problems"], error);
    return;
  }
  Json apart = Json::array(), joined = Json::array();
  remark::RemarkCategories categories;
  categories.missed = "gptq";
  // Fails only if the streamer cannot be made.
  (void)remark::enableOptimizationRemarks(
      *context, std::make_unique<MissedRemarks>(apart),
      std::make_unique<remark::RemarkEmittingPolicyAll>(), categories);
  PassManager pm(context);
  buildStage(pm, "normalized", PipelineOptions());
  const bool isDone = succeeded(pm.run(*module));
  context->setRemarkEngine(nullptr);
  if (!isDone) {
    report["problems"].push_back("the imported model cannot be normalized");
    return;
  }
  module->lookupSymbol<func::FuncOp>("generate").walk([&](Operation *op) {
    auto label = op->getAttrOfType<StringAttr>(kLabelAttr);
    if (isa<DequantMatmulOp, MatmulOp>(op) && label &&
        label.getValue().contains('+'))
      joined.push_back(label.getValue().str());
  });
  report["joined"] = std::move(joined);
  // Each entry says the same.
  Json once = Json::array();
  for (const Json &note : apart)
    addOnce(once, note);
  report["apart"] = std::move(once);
}

/// How long each target takes at least for one token: the weights are read.
static void addFloors(Json &report) {
  const int64_t bytes = report["bytes"].value("per_token", int64_t(0));
  report["decode_floor_ms"] = Json::object();
  if (bytes == 0)
    return;
  for (auto targets : {::gptq::cpuTargets(), ::gptq::nvvmTargets()})
    for (const ::gptq::TargetInfo &target : targets)
      if (target.coreBandwidth > 0)
        report["decode_floor_ms"][target.name] =
            double(bytes) / double(target.coreBandwidth) * 1e3;
}

//===----------------------------------------------------------------------===//
// As text
//===----------------------------------------------------------------------===//

static std::string sizeText(int64_t bytes) {
  if (bytes >= 1'000'000)
    return llvm::formatv("{0:f2} MB", bytes / 1e6);
  return llvm::formatv("{0:f1} kB", bytes / 1e3);
}

/// Three digits that mean something.
static std::string format3(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.3g", value);
  return text;
}

/// `name` with its numbers replaced: what layers of many blocks share.
static std::string patternOf(StringRef name) {
  SmallVector<StringRef> parts;
  name.split(parts, '.');
  for (StringRef &part : parts)
    if (int64_t number; !part.getAsInteger(10, number))
      part = "*";
  return llvm::join(parts, ".");
}

static std::string kindOf(const Json &module) {
  if (module.contains("problem") && !module.contains("kind"))
    return "not readable";
  std::string bias = module["bias"].get<bool>() ? ", with bias" : "";
  if (module["kind"] == "dense")
    return "dense " + module["type"].get<std::string>() + bias;
  const int64_t size = module["group_size"].get<int64_t>();
  std::string text = std::to_string(module["bits"].get<int64_t>()) + " bits, ";
  text += size >= module["k"].get<int64_t>()
              ? std::string("one group")
              : "groups of " + std::to_string(size);
  if (module["zero_point"].is_number())
    text +=
        ", zero point " + std::to_string(module["zero_point"].get<int64_t>());
  else
    text += ", zero points per group";
  if (module.value("offsets", false))
    text += ", offsets";
  if (module["act_order"].get<bool>())
    text += ", act-order";
  return text + ", scales " + module["scales"].get<std::string>() + bias;
}

namespace {
/// Prints lines under headings: a heading is shown once.
class Lines {
public:
  explicit Lines(llvm::raw_ostream &os) : os(os) {}
  void add(StringRef heading, const llvm::Twine &text) {
    os << llvm::formatv("  {0,-12} ", heading == last ? "" : heading) << text
       << "\n";
    last = heading.str();
  }

private:
  llvm::raw_ostream &os;
  std::string last;
};
} // namespace

static void printText(const Json &report, llvm::raw_ostream &os) {
  auto number = [](const Json &object, const char *key) {
    return std::to_string(object[key].get<int64_t>());
  };
  os << report["folder"].get<std::string>() << "\n";
  Lines lines(os);
  lines.add("files", std::to_string(report["files"].size()) + ", " +
                         sizeText(report["bytes"]["files"].get<int64_t>()));
  for (const Json &file : report["files"])
    if (file.contains("xxh3"))
      lines.add("", file["xxh3"].get<std::string>() + "  " +
                        file["name"].get<std::string>());
  const Json &declared = report.value("declared", Json());
  if (declared.is_null()) {
    lines.add("declared", "no quantization that can be read");
  } else {
    std::string text =
        declared["method"].get<std::string>() + " (" +
        declared["format"].get<std::string>() + "), " +
        number(declared, "bits") + " bits, group size " +
        number(declared, "group_size") +
        (declared["sym"].get<bool>() ? ", symmetric" : ", not symmetric") +
        (declared["desc_act"].get<bool>() ? ", act-order" : "");
    if (declared["rules"].get<int64_t>() > 0)
      text += ", " + number(declared, "rules") + " rules for modules";
    if (std::string by = declared["quantizer"]; !by.empty())
      text += ", by " + abi::quoteForMessage(by);
    lines.add("declared", text);
  }
  const Json &model = report["model"];
  if (!model.is_null())
    lines.add("model", model["family"].get<std::string>() + ", " +
                           number(model, "layers") + " layers, hidden size " +
                           number(model, "hidden_size") + ", MLP " +
                           number(model, "intermediate_size") + ", " +
                           number(model, "heads") + " heads on " +
                           number(model, "kv_heads") + ", vocabulary " +
                           number(model, "vocab_size"));
  if (!model.is_null() && model.contains("experts"))
    lines.add("experts", number(model, "experts_per_token") + " of " +
                             number(model, "experts") + " for a token, width " +
                             number(model, "expert_width") + ", in " +
                             number(model, "expert_layers") + " layers");
  if (!report["tokenizer"].is_null())
    lines.add("tokenizer", report["tokenizer"]["kind"].get<std::string>());

  // Modules of one kind and place share a line.
  llvm::MapVector<std::string, int64_t, std::map<std::string, unsigned>> kinds,
      evidence;
  for (const Json &module : report.value("modules", Json::array())) {
    ++kinds[patternOf(module["name"].get<std::string>()) + ": " +
            kindOf(module)];
    if (module.contains("evidence"))
      ++evidence[module["evidence"].get<std::string>()];
  }
  auto addCounted = [&](StringRef heading, auto &counted) {
    for (const auto &[text, count] : counted)
      lines.add(heading, std::to_string(count) + " x " + text);
  };
  addCounted("found", kinds);
  addCounted("zero points", evidence);
  int64_t zeroScales = 0;
  double worst = 0;
  std::string worstName;
  for (const Json &module : report.value("modules", Json::array())) {
    zeroScales += module.value("zero_scales", int64_t(0));
    if (module.value("saturated_codes", 0.0) > worst) {
      worst = module["saturated_codes"].get<double>();
      worstName = module["name"].get<std::string>();
    }
  }
  if (!worstName.empty())
    lines.add("values",
              llvm::formatv("{0} scales are 0; at most {1:f1} % of the codes "
                            "of a layer lie at an end of their range ({2})",
                            zeroScales, worst * 100, worstName)
                  .str());

  llvm::MapVector<std::string, int64_t, std::map<std::string, unsigned>> joined,
      apart;
  for (const Json &label : report.value("joined", Json::array()))
    ++joined[patternOf(label.get<std::string>())];
  for (const Json &note : report.value("apart", Json::array()))
    ++apart[patternOf(note["layer"].get<std::string>()) + ": " +
            note["reason"].get<std::string>()];
  addCounted("joined", joined);
  addCounted("apart", apart);
  if (report["bytes"].contains("per_token"))
    lines.add("one token", "reads " + sizeText(report["bytes"]["per_token"]) +
                               " of weights, as published");
  for (const auto &[target, ms] : report["decode_floor_ms"].items())
    lines.add(
        "at least",
        llvm::formatv("{0} ms on {1}{2}", format3(ms.get<double>()), target,
                      StringRef(target).starts_with("x86") ? ", each core" : "")
            .str());
  for (const char *key : {"warnings", "problems"})
    for (const Json &text : report.value(key, Json::array()))
      lines.add(StringRef(key).drop_back(), text.get<std::string>());
}

int64_t mlir::gptq::inspect(StringRef folder, const InspectOptions &options,
                            MLIRContext *context, llvm::raw_ostream &os,
                            std::string &error) {
  auto opened = openCheckpoint(folder);
  if (!opened) {
    error = opened.status().message();
    return -1;
  }
  Json report = inspectCheckpoint(**opened, options.verify, context);
  describeFusions(folder, context, report);
  addFloors(report);
  if (options.asJson)
    os << report.dump(1, ' ', false, Json::error_handler_t::replace) << "\n";
  else
    printText(report, os);
  return report["problems"].size();
}
