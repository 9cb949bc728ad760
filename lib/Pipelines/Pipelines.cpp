//===- Pipelines.cpp - The order of passes --------------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Pipelines/Pipelines.h"
#include "gptq/Codegen/CPU/Passes.h"
#include "gptq/Codegen/Common/Passes.h"
#include "gptq/Codegen/NVVM/NVVMOps.h"
#include "gptq/Codegen/NVVM/Passes.h"
#include "gptq/Dialect/GPTQ/IR/BufferizableOpInterfaceImpl.h"
#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "gptq/Dialect/GPTQ/Transforms/Passes.h"
#include "gptq/Target/Target.h"
#include "mlir/Conversion/AffineToStandard/AffineToStandard.h"
#include "mlir/Conversion/NVVMToLLVM/NVVMToLLVM.h"
#include "mlir/Conversion/SCFToControlFlow/SCFToControlFlow.h"
#include "mlir/Dialect/Affine/IR/AffineOps.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Arith/Transforms/BufferizableOpInterfaceImpl.h"
#include "mlir/Dialect/Bufferization/IR/Bufferization.h"
#include "mlir/Dialect/Bufferization/Transforms/OneShotAnalysis.h"
#include "mlir/Dialect/Bufferization/Transforms/Passes.h"
#include "mlir/Dialect/ControlFlow/IR/ControlFlow.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/GPU/IR/GPUDialect.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/MemRef/Transforms/Passes.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/SCF/Transforms/BufferizableOpInterfaceImpl.h"
#include "mlir/Dialect/SCF/Transforms/Passes.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/Tensor/IR/TensorTilingInterfaceImpl.h"
#include "mlir/Dialect/Tensor/Transforms/BufferizableOpInterfaceImpl.h"
#include "mlir/Dialect/Tensor/Transforms/SubsetInsertionOpInterfaceImpl.h"
#include "mlir/Dialect/UB/IR/UBOps.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/Dialect/Vector/Transforms/BufferizableOpInterfaceImpl.h"
#include "mlir/Pass/PassRegistry.h"
#include "mlir/Transforms/Passes.h"
#include "llvm/ADT/StringSwitch.h"

using namespace mlir;
using namespace mlir::gptq;

ArrayRef<StringRef> mlir::gptq::stageNames() {
  static const StringRef names[] = {"normalized", "planned", "packed",
                                    "dispatched", "tiled",   "vector",
                                    "target"};
  return names;
}

static void addCleanup(OpPassManager &pm) {
  pm.addPass(createCanonicalizerPass());
  pm.addPass(createCSEPass());
}

static void buildNormalized(OpPassManager &pm, const PipelineOptions &options) {
  pm.addPass(createNormalizeZeroPointsPass());
  pm.addPass(createNormalizeActOrderPass());
  if (!options.fuse)
    return;
  pm.addPass(createFoldPermutationsPass());
  pm.addPass(createFuseResidualNormPass());
  pm.addPass(createFuseParallelMatmulsPass());
  pm.addPass(createFuseActivationPass());
  addCleanup(pm);
}

static bool isForNVVM(const PipelineOptions &options) {
  const ::gptq::TargetInfo *target = ::gptq::findTarget(options.target);
  return target && target->kind == ::gptq::TargetInfo::Kind::NVVM;
}

static void buildPlans(OpPassManager &pm, const PipelineOptions &options) {
  const ::gptq::TargetInfo *target = ::gptq::findTarget(options.target);
  const bool isGpu = isForNVVM(options);
  if (isGpu && options.next) {
    AddNextPassOptions next;
    next.parts = target->multiprocessors;
    next.maxTopK = options.maxTopK;
    pm.addPass(createAddNextPass(next));
  }
  if (options.fuse && target && target->avoidsSmallKernels) {
    pm.addPass(createFuseResidualAddPass());
    pm.addPass(createFuseNormMatmulPass());
  }
  if (isGpu) {
    pm.addPass(createStagePermutationsPass());
    if (options.fuse && options.fuseRotary)
      pm.addPass(createFuseRotaryPass());
    NarrowActivationsPassOptions narrow;
    narrow.type = options.activations;
    pm.addPass(createNarrowActivationsPass(narrow));
    if (options.splitContext) {
      SplitContextPassOptions split;
      // One loads while the other sums.
      split.workgroups = 2 * target->multiprocessors;
      pm.addPass(createSplitContextPass(split));
    }
    addCleanup(pm);
    NVVMPlanPassOptions plan;
    plan.chip = options.target;
    plan.bufferPartials = options.bufferPartials;
    plan.hoistScales = options.hoistScales;
    plan.foldZeros = options.foldZeros;
    plan.prefetch = options.prefetch;
    plan.ring = options.ring;
    plan.clusters = options.clusters;
    plan.normalize = options.normalize;
    plan.loadBits = options.loadBits;
    plan.unit = options.unit;
    plan.reasons = options.reasons;
    pm.addPass(createNVVMPlanPass(plan));
    return;
  }
  CPUPlanPassOptions plan;
  plan.cpu = options.target;
  plan.promote = options.promote;
  plan.bufferPartials = options.bufferPartials;
  plan.hoistScales = options.hoistScales;
  plan.foldZeros = options.foldZeros;
  plan.reasons = options.reasons;
  pm.addPass(createCPUPlanPass(plan));
}

static void buildPlanned(OpPassManager &pm, const PipelineOptions &options) {
  buildPlans(pm, options);
  if (options.planFile.empty())
    return;
  ApplyPlanFilePassOptions apply;
  apply.file = options.planFile;
  apply.target = options.target;
  pm.addPass(createApplyPlanFilePass(apply));
}

static void buildDispatched(OpPassManager &pm) {
  pm.addPass(createFormDispatchesPass());
  pm.addPass(createCSEPass());
}

static void buildTiled(OpPassManager &pm) {
  OpPassManager &kernels = pm.nest<ModuleOp>();
  OpPassManager &kernel = kernels.nest<func::FuncOp>();
  kernel.addPass(createTileToWorkgroupsPass());
  kernel.addPass(createPromoteActivationsPass());
  kernel.addPass(createSplitReductionPass());
  kernel.addPass(createBufferPartialsPass());
  // Sizes inside a loop become those in front of it, so that what is cut out of
  // a tensor and put back is seen to be the same part.
  kernel.addPass(createSCFForLoopCanonicalizationPass());
  addCleanup(kernels);
}

static void buildVector(OpPassManager &pm, const PipelineOptions &options) {
  OpPassManager &kernels = pm.nest<ModuleOp>();
  kernels.addPass(bufferization::createEmptyTensorEliminationPass());
  bufferization::OneShotBufferizePassOptions bufferize;
  kernels.addPass(bufferization::createOneShotBufferizePass(bufferize));
  addCleanup(kernels);
  OpPassManager &kernel = kernels.nest<func::FuncOp>();
  kernel.addPass(createDistributeWorkgroupsPass());
  VectorizePassOptions vectorize;
  vectorize.scalar = !options.vectorize;
  kernel.addPass(createVectorizePass(vectorize));
  if (options.foldZeros)
    kernel.addPass(createFoldOffsetsPass());
  // Each acts where the plan asks for it.
  kernel.addPass(createHoistScalesPass());
  kernel.addPass(createFoldZeroPointsPass());
  addCleanup(kernels);
}

static void buildTarget(OpPassManager &pm, const PipelineOptions &options) {
  const bool nvvm = isForNVVM(options);
  OpPassManager &kernels = pm.nest<ModuleOp>();
  OpPassManager &kernel = kernels.nest<func::FuncOp>();
  if (nvvm) {
    // Each acts where the plan asks for it.
    kernel.addPass(createNVVMFormClustersPass());
    kernel.addPass(createNVVMFormRingsPass());
    // Each lowers what is for its kind of unit.
    kernel.addPass(createNVVMLowerWarpgroupDotPass());
    if (options.halfMath) {
      NVVMSelectHalfMathPassOptions select;
      select.bf16 = ::gptq::findTarget(options.target)->hasBF16;
      kernel.addPass(createNVVMSelectHalfMathPass(select));
    }
    kernel.addPass(createNVVMLowerVectorDotPass());
    kernel.addPass(createNVVMLowerGroupDotPass());
  } else {
    kernel.addPass(createCPULowerGroupDotPass());
  }
  // Acts where the plan asks for it.
  kernel.addPass(createPrefetchOperandsPass());
  kernel.addPass(createAssignWorkgroupMemoryPass());
  kernel.addPass(memref::createExpandStridedMetadataPass());
  kernel.addPass(createLowerAffinePass());
  addCleanup(kernel);
  kernel.addPass(createLoopInvariantCodeMotionPass());
  // Last: canonicalization would turn inserts back into broadcasts.
  ExpandVectorsPassOptions expand;
  expand.base2 = nvvm;
  kernel.addPass(createExpandVectorsPass(expand));
  kernel.addPass(createCSEPass());
  if (nvvm && options.overlap &&
      ::gptq::findTarget(options.target)->launchesOverlap)
    kernel.addPass(createNVVMOverlapLaunchesPass());
  kernel.addPass(createSCFToControlFlowPass());
  if (nvvm) {
    NVVMLowerToLLVMPassOptions lower;
    lower.streamBytes = ::gptq::findTarget(options.target)->streamBytes;
    kernels.addPass(createNVVMLowerToLLVMPass(lower));
    // Instructions of the NVVM dialect that are written as assembly.
    kernels.addPass(createConvertNVVMToLLVMPass());
  } else {
    kernels.addPass(createCPULowerToLLVMPass());
  }
  addCleanup(kernels);
}

void mlir::gptq::buildStage(OpPassManager &pm, StringRef stage,
                            const PipelineOptions &options) {
  if (stage == "normalized")
    buildNormalized(pm, options);
  else if (stage == "planned")
    buildPlanned(pm, options);
  else if (stage == "packed")
    pm.addPass(createPackWeightsPass());
  else if (stage == "dispatched")
    buildDispatched(pm);
  else if (stage == "tiled")
    buildTiled(pm);
  else if (stage == "vector")
    buildVector(pm, options);
  else if (stage == "target")
    buildTarget(pm, options);
}

void mlir::gptq::registerAllDialects(DialectRegistry &registry) {
  registry.insert<GPTQDialect, GPTQNVVMDialect, affine::AffineDialect,
                  arith::ArithDialect, bufferization::BufferizationDialect,
                  cf::ControlFlowDialect, func::FuncDialect, gpu::GPUDialect,
                  LLVM::LLVMDialect, math::MathDialect, memref::MemRefDialect,
                  NVVM::NVVMDialect, scf::SCFDialect, tensor::TensorDialect,
                  ub::UBDialect, vector::VectorDialect>();
  registerBufferizableOpInterfaceExternalModels(registry);
  arith::registerBufferizableOpInterfaceExternalModels(registry);
  scf::registerBufferizableOpInterfaceExternalModels(registry);
  tensor::registerBufferizableOpInterfaceExternalModels(registry);
  tensor::registerSubsetOpInterfaceExternalModels(registry);
  vector::registerBufferizableOpInterfaceExternalModels(registry);
}

void mlir::gptq::registerAllPasses() {
  registerGPTQTransformsPasses();
  registerGPTQCodegenCommonPasses();
  registerGPTQCodegenCPUPasses();
  registerGPTQCodegenNVVMPasses();
  mlir::registerTransformsPasses();
  bufferization::registerBufferizationPasses();
}

namespace {
struct TextOptions : PassPipelineOptions<TextOptions> {
  Option<std::string> target{
      *this, "target", llvm::cl::init("x86-64-v3"),
      llvm::cl::desc("Name of the target: x86-64-v3, x86-64-v4, sm_90a, …")};
  Option<bool> fuse{
      *this, "fuse", llvm::cl::init(true),
      llvm::cl::desc("Fuse residual and norm, parallel matmuls, silu and mul")};
  Option<bool> promote{
      *this, "promote", llvm::cl::init(true),
      llvm::cl::desc("Copy permuted activations to workgroup memory")};
  Option<bool> bufferPartials{
      *this, "buffer-partials", llvm::cl::init(true),
      llvm::cl::desc("Keep partial sums in workgroup memory")};
  Option<bool> vectorize{
      *this, "vectorize", llvm::cl::init(true),
      llvm::cl::desc("Use vectors of the target's lanes, not of one")};
  Option<bool> hoistScales{*this, "hoist-scales", llvm::cl::init(true),
                           llvm::cl::desc("Apply scales once per group")};
  Option<bool> foldZeros{*this, "fold-zeros", llvm::cl::init(true),
                         llvm::cl::desc("Subtract zero points once per group")};
  Option<std::string> activations{
      *this, "activations", llvm::cl::init("auto"),
      llvm::cl::desc(
          "GPUs: what matmuls read activations as: f16, bf16, auto")};
  Option<bool> prefetch{*this, "prefetch", llvm::cl::init(true),
                        llvm::cl::desc("GPUs: load weights ahead of time")};
  Option<bool> ring{
      *this, "ring", llvm::cl::init(true),
      llvm::cl::desc("GPUs: pass operands of many rows through a ring")};
  Option<bool> clusters{
      *this, "clusters", llvm::cl::init(true),
      llvm::cl::desc("GPUs: share K between workgroups of a cluster")};
  Option<bool> normalize{
      *this, "normalize", llvm::cl::init(true),
      llvm::cl::desc("GPUs: let every workgroup normalize a single row")};
  Option<bool> next{*this, "next", llvm::cl::init(true),
                    llvm::cl::desc("GPUs: add the entries that choose tokens")};
  Option<int64_t> maxTopK{
      *this, "max-top-k", llvm::cl::init(128),
      llvm::cl::desc("GPUs: tokens that the device samples from, at most")};
  Option<bool> fuseRotary{
      *this, "fuse-rotary", llvm::cl::init(true),
      llvm::cl::desc("GPUs: rotate and append where attention reads")};
  Option<bool> splitContext{
      *this, "split-context", llvm::cl::init(true),
      llvm::cl::desc("GPUs: split attention over parts of the context")};
  Option<bool> overlap{*this, "overlap", llvm::cl::init(true),
                       llvm::cl::desc("GPUs: let kernels start early")};
  Option<int64_t> loadBits{
      *this, "load-bits", llvm::cl::init(128),
      llvm::cl::desc("GPUs: bits of weights a thread loads at once, at most")};
  Option<std::string> unit{
      *this, "unit", llvm::cl::init(""),
      llvm::cl::desc("GPUs: the arithmetic unit: mma_m16n8k16, fma_f16x2, "
                     "fma_f32; empty: the matrix unit")};
  Option<bool> halfMath{
      *this, "half-math", llvm::cl::init(true),
      llvm::cl::desc("GPUs: multiply packed halves where the unit does")};

  Option<std::string> planFile{
      *this, "plan-file",
      llvm::cl::desc("File of plans that replace the planner's")};

  PipelineOptions get() const {
    PipelineOptions options;
    options.target = target;
    options.fuse = fuse;
    options.promote = promote;
    options.bufferPartials = bufferPartials;
    options.vectorize = vectorize;
    options.hoistScales = hoistScales;
    options.foldZeros = foldZeros;
    options.activations = activations;
    options.prefetch = prefetch;
    options.ring = ring;
    options.clusters = clusters;
    options.overlap = overlap;
    options.normalize = normalize;
    options.next = next;
    options.maxTopK = maxTopK;
    options.fuseRotary = fuseRotary;
    options.splitContext = splitContext;
    options.loadBits = loadBits;
    options.planFile = planFile;
    options.unit = unit;
    options.halfMath = halfMath;
    return options;
  }
};
} // namespace

void mlir::gptq::registerPipelines() {
  static const std::string prefix = "gptq-to-";
  for (StringRef stage : stageNames())
    PassPipelineRegistration<TextOptions>(
        prefix + stage.str(),
        ("Lowers the form before to the form '" + stage + "'").str(),
        [stage](OpPassManager &pm, const TextOptions &options) {
          buildStage(pm, stage, options.get());
        });
  PassPipelineRegistration<TextOptions>(
      "gptq-cpu", "Lowers an imported model to the LLVM dialect for a CPU",
      [](OpPassManager &pm, const TextOptions &options) {
        for (StringRef stage : stageNames())
          buildStage(pm, stage, options.get());
      });
  PassPipelineRegistration<TextOptions>(
      "gptq-nvvm", "Lowers an imported model to the NVVM dialect for a GPU",
      [](OpPassManager &pm, const TextOptions &text) {
        PipelineOptions options = text.get();
        if (!isForNVVM(options))
          options.target = "sm_90a";
        for (StringRef stage : stageNames())
          buildStage(pm, stage, options);
      });
}
