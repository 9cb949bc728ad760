//===- NVVMLowerToLLVM.cpp - The NVVM dialect and the kernel ABI ----------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Codegen/Common/KernelEntry.h"
#include "gptq/Codegen/Common/Plan.h"
#include "gptq/Codegen/NVVM/NVVMOps.h"
#include "gptq/Codegen/NVVM/Passes.h"
#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "mlir/Conversion/ArithToLLVM/ArithToLLVM.h"
#include "mlir/Conversion/ControlFlowToLLVM/ControlFlowToLLVM.h"
#include "mlir/Conversion/FuncToLLVM/ConvertFuncToLLVM.h"
#include "mlir/Conversion/GPUToNVVM/GPUToNVVMPass.h"
#include "mlir/Conversion/LLVMCommon/ConversionTarget.h"
#include "mlir/Conversion/LLVMCommon/Pattern.h"
#include "mlir/Conversion/LLVMCommon/TypeConverter.h"
#include "mlir/Conversion/MathToLLVM/MathToLLVM.h"
#include "mlir/Conversion/MemRefToLLVM/MemRefToLLVM.h"
#include "mlir/Conversion/UBToLLVM/UBToLLVM.h"
#include "mlir/Conversion/VectorToLLVM/ConvertVectorToLLVM.h"
#include "mlir/Dialect/Arith/Transforms/Passes.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/GPU/IR/GPUDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/IR/BuiltinOps.h"
#include "runtime/abi/KernelABI.h"
#include "llvm/Support/FormatVariadic.h"

namespace mlir::gptq {
#define GEN_PASS_DEF_NVVMLOWERTOLLVMPASS
#define GEN_PASS_DEF_NVVMOVERLAPLAUNCHESPASS
#include "gptq/Codegen/NVVM/Passes.h.inc"
} // namespace mlir::gptq

using namespace mlir;
using namespace mlir::gptq;

/// Shared memory whose size the launch decides.
static constexpr StringRef kSharedMemory = "workgroup_memory";
static constexpr unsigned kGlobalSpace = 1, kSharedSpace = 3;
/// The most that a workgroup buffer may ask for.
static constexpr unsigned kSharedAlignment = 1024;

/// Whether `kernel` reads P, its second index argument.
static bool usesPosition(func::FuncOp kernel) {
  unsigned indices = 0;
  for (BlockArgument arg : kernel.getArguments())
    if (arg.getType().isIndex() && indices++ == 1)
      return !arg.use_empty();
  return false;
}

/// Makes the grid function: one pointer per buffer, then one to the values of
/// M and P in device memory.
static void makeEntry(LLVM::LLVMFuncOp body, LLVM::GlobalOp shared,
                      const KernelSignature &signature, bool usesPosition) {
  ImplicitLocOpBuilder b(body.getLoc(), body);
  MLIRContext *ctx = b.getContext();
  auto global = LLVM::LLVMPointerType::get(ctx, kGlobalSpace);
  auto generic = LLVM::LLVMPointerType::get(ctx);
  const int64_t buffers = signature.numBuffers();
  auto entry = LLVM::LLVMFuncOp::create(
      b, body.getSymName(),
      LLVM::LLVMFunctionType::get(LLVM::LLVMVoidType::get(ctx),
                                  SmallVector<Type>(buffers + 1, global)));
  entry->setAttr(NVVM::NVVMDialect::getKernelFuncAttrName(), b.getUnitAttr());
  auto attribute = [&](StringRef name) -> int64_t {
    auto attr = dyn_cast_or_null<IntegerAttr>(signature.attributes.get(name));
    return attr ? attr.getInt() : 1;
  };
  entry->setAttr(
      NVVM::NVVMDialect::getMaxntidAttrName(),
      b.getDenseI32ArrayAttr({int32_t(attribute(kThreadsAttr)), 1, 1}));
  entry->setAttr(NVVM::NVVMDialect::getMinctasmAttrName(),
                 b.getI32IntegerAttr(attribute(kOccupancyAttr)));
  b.setInsertionPointToStart(entry.addEntryBlock(b));
  for (int64_t i = 0; i <= buffers; ++i) {
    entry.setArgAttr(i, LLVM::LLVMDialect::getAlignAttrName(),
                     b.getI64IntegerAttr(GPTQ_ALIGNMENT));
    entry.setArgAttr(i, LLVM::LLVMDialect::getNoAliasAttrName(),
                     b.getUnitAttr());
  }
  // What the kernel in front leaves may be read from here on, the position too.
  if (signature.attributes.get(kOverlapAttr) && usesPosition)
    NVVM::GriddepcontrolOp::create(b, NVVM::GridDepActionKind::wait);
  auto loadDim = [&](int64_t i) -> Value {
    Value at = LLVM::GEPOp::create(b, global, b.getI64Type(),
                                   entry.getArgument(buffers),
                                   ArrayRef<LLVM::GEPArg>{int32_t(i)});
    return LLVM::LoadOp::create(b, b.getI64Type(), at);
  };
  Value workgroup = LLVM::ZExtOp::create(
      b, b.getI64Type(), NVVM::BlockIdXOp::create(b, b.getI32Type()));
  callBody(b, body, entry, signature,
           {loadDim(GPTQ_DIM_M), loadDim(GPTQ_DIM_P), workgroup,
            LLVM::AddressOfOp::create(b, shared), [&](int64_t i) -> Value {
              return LLVM::AddrSpaceCastOp::create(b, generic,
                                                   entry.getArgument(i));
            }});
}

namespace {
/// Loads that stream (`nontemporal`) or that were moved ahead as instructions
/// of their own: the first with hints that suit what is read once, the others
/// because LLVM would move a load whose value goes around a loop back to its
/// use.
struct LowerPlacedLoad final : ConvertOpToLLVMPattern<vector::LoadOp> {
  LowerPlacedLoad(const LLVMTypeConverter &converter, int64_t streamBytes)
      : ConvertOpToLLVMPattern(converter, /*benefit=*/2),
        streamBytes(streamBytes) {}
  const int64_t streamBytes;

  LogicalResult matchAndRewrite(vector::LoadOp op, OpAdaptor adaptor,
                                ConversionPatternRewriter &b) const override {
    VectorType type = op.getVectorType();
    MemRefType memref = op.getMemRefType();
    const int64_t words =
        type.getNumElements() * type.getElementTypeBitWidth() / 32;
    const int64_t alignment = op.getAlignment().value_or(1);
    if ((!op.getNontemporal() && !op->hasAttr(kPrefetchedAttr)) ||
        memref.getMemorySpace() || type.getRank() != 1 ||
        (words != 1 && words != 2 && words != 4) || alignment < 4 * words ||
        type.getNumElements() * type.getElementTypeBitWidth() != 32 * words)
      return failure();
    Location loc = op.getLoc();
    Value pointer = LLVM::AddrSpaceCastOp::create(
        b, loc, LLVM::LLVMPointerType::get(b.getContext(), kGlobalSpace),
        getStridedElementPtr(b, loc, memref, adaptor.getBase(),
                             adaptor.getIndices()));
    std::string results, constraints;
    for (int64_t i = 0; i < words; ++i) {
      results += (i ? ",$" : "$") + std::to_string(i);
      constraints += "=r,";
    }
    if (words > 1)
      results = "{" + results + "}";
    std::string code = op.getNontemporal()
                           ? "ld.global.nc.L1::no_allocate.L2::" +
                                 std::to_string(streamBytes) + "B"
                           : "ld.global";
    if (words > 1)
      code += ".v" + std::to_string(words);
    code += ".b32 " + results + ",[$" + std::to_string(words) + "];";
    Type i32 = b.getI32Type();
    Type result = words == 1
                      ? i32
                      : Type(LLVM::LLVMStructType::getLiteral(
                            b.getContext(), SmallVector<Type>(words, i32)));
    Value loaded =
        LLVM::InlineAsmOp::create(
            b, loc, result, ValueRange{pointer}, code, constraints + "l",
            /*has_side_effects=*/true, /*is_align_stack=*/false,
            LLVM::TailCallKind::None, LLVM::AsmDialectAttr(), ArrayAttr())
            .getResult(0);
    Value whole = loaded;
    if (words > 1) {
      whole = LLVM::PoisonOp::create(b, loc, VectorType::get({words}, i32));
      for (int64_t i = 0; i < words; ++i)
        whole = LLVM::InsertElementOp::create(
            b, loc, whole, LLVM::ExtractValueOp::create(b, loc, loaded, i),
            LLVM::ConstantOp::create(b, loc, i32, b.getI32IntegerAttr(i)));
    }
    b.replaceOp(op, LLVM::BitcastOp::create(b, loc, type, whole));
    return success();
  }
};

struct LowerPointer final : ConvertOpToLLVMPattern<PointerOp> {
  using ConvertOpToLLVMPattern::ConvertOpToLLVMPattern;

  LogicalResult matchAndRewrite(PointerOp op, OpAdaptor adaptor,
                                ConversionPatternRewriter &b) const override {
    Value pointer = getStridedElementPtr(
        b, op.getLoc(), cast<MemRefType>(op.getBuffer().getType()),
        adaptor.getBuffer(), adaptor.getIndices());
    Type type = op.getPointer().getType();
    if (pointer.getType() != type)
      pointer = LLVM::AddrSpaceCastOp::create(b, op.getLoc(), type, pointer);
    b.replaceOp(op, pointer);
    return success();
  }
};

/// The operands of the instruction: sums, the four registers, the descriptor,
/// whether sums are added to, then twice "not negated" and "not transposed".
struct LowerWarpgroupMma final : ConvertOpToLLVMPattern<WarpgroupMmaOp> {
  using ConvertOpToLLVMPattern::ConvertOpToLLVMPattern;

  LogicalResult matchAndRewrite(WarpgroupMmaOp op, OpAdaptor adaptor,
                                ConversionPatternRewriter &b) const override {
    const size_t sums = op.getNumResults();
    std::string constraints, list;
    for (size_t i = 0; i < sums; ++i) {
      constraints += "=f,";
      list += (i ? ",$" : "$") + std::to_string(i);
    }
    constraints += "r,r,r,r,l";
    const bool adds = !adaptor.getAcc().empty();
    SmallVector<Value> operands(adaptor.getA());
    operands.push_back(adaptor.getB());
    if (adds)
      for (size_t i = 0; i < sums; ++i) {
        constraints += "," + std::to_string(i);
        operands.push_back(adaptor.getAcc()[i]);
      }
    StringRef type = op.getType().isBF16() ? "bf16" : "f16";
    std::string code =
        llvm::formatv("wgmma.mma_async.sync.aligned.m64n{0}k16.f32.{1}.{1} "
                      "{{{2}},{{${3},${4},${5},${6}},${7},{8},1,1,0;",
                      2 * sums, type, list, sums, sums + 1, sums + 2, sums + 3,
                      sums + 4, adds ? 1 : 0);
    auto result = LLVM::LLVMStructType::getLiteral(
        b.getContext(), SmallVector<Type>(sums, b.getF32Type()));
    Value all =
        LLVM::InlineAsmOp::create(
            b, op.getLoc(), result, operands, code, constraints,
            /*has_side_effects=*/true, /*is_align_stack=*/false,
            LLVM::TailCallKind::None, LLVM::AsmDialectAttr(), ArrayAttr())
            .getResult(0);
    SmallVector<Value> results;
    for (size_t i = 0; i < sums; ++i)
      results.push_back(LLVM::ExtractValueOp::create(b, op.getLoc(), all, i));
    b.replaceOp(op, results);
    return success();
  }
};

struct NVVMOverlapLaunchesPass final
    : mlir::gptq::impl::NVVMOverlapLaunchesPassBase<NVVMOverlapLaunchesPass> {
  using Base::Base;

  /// Whether `op`, or one inside, touches memory that the kernel in front may
  /// have written, or may still read: anything but weights and workgroup
  /// memory.
  static bool mustWait(Operation *op) {
    if (op->getNumRegions() > 0)
      return op
          ->walk([&](Operation *inner) {
            return inner != op && inner->getNumRegions() == 0 && mustWait(inner)
                       ? WalkResult::interrupt()
                       : WalkResult::advance();
          })
          .wasInterrupted();
    if (auto load = dyn_cast<vector::LoadOp>(op))
      return !isWeight(load.getBase());
    if (auto copy = dyn_cast<NVVM::CpAsyncBulkGlobalToSharedClusterOp>(op)) {
      auto from = copy.getSrcMem().getDefiningOp<PointerOp>();
      return !from || !isWeight(from.getBuffer());
    }
    // Barriers lie in workgroup memory.
    if (isa<NVVM::MBarrierInitOp, NVVM::MBarrierTryWaitParityOp,
            NVVM::MBarrierArriveExpectTxOp, NVVM::FenceMbarrierInitOp,
            gpu::BarrierOp>(op) ||
        op->hasTrait<OpTrait::IsTerminator>())
      return false;
    return !isMemoryEffectFree(op);
  }

  /// Waits in `block` before the first op that has to, in each branch for
  /// itself.
  static void placeWait(Block &block) {
    for (Operation &op : llvm::make_early_inc_range(block)) {
      if (isa<NVVM::GriddepcontrolOp>(op) || !mustWait(&op))
        continue;
      if (isa<scf::IfOp>(op)) {
        for (Region &region : op.getRegions())
          if (!region.empty())
            placeWait(region.front());
        // A branch that had not to wait goes on.
        continue;
      }
      OpBuilder b(&op);
      NVVM::GriddepcontrolOp::create(b, op.getLoc(),
                                     NVVM::GridDepActionKind::wait);
      return;
    }
  }

  void runOnOperation() override {
    auto kernel = dyn_cast<func::FuncOp>(getOperation().getOperation());
    if (!kernel || !kernel->hasAttr(kKernelAttr))
      return;
    OpBuilder b(&getContext());
    kernel->setAttr(kOverlapAttr, b.getUnitAttr());
    Block &body = kernel.getBody().front();
    b.setInsertionPointToStart(&body);
    NVVM::GriddepcontrolOp::create(b, kernel.getLoc(),
                                   NVVM::GridDepActionKind::launch_dependents);
    // The entry waits before it reads P.
    if (usesPosition(kernel))
      return;
    placeWait(body);
  }
};

struct NVVMLowerToLLVMPass final
    : mlir::gptq::impl::NVVMLowerToLLVMPassBase<NVVMLowerToLLVMPass> {
  using Base::Base;

  void runOnOperation() override {
    ModuleOp module = getOperation();
    auto kernels = collectKernels(module);
    llvm::DenseSet<StringAttr> readsPosition;
    for (auto kernel : module.getOps<func::FuncOp>())
      if (usesPosition(kernel))
        readsPosition.insert(kernel.getSymNameAttr());

    LowerToLLVMOptions options(&getContext());
    LLVMTypeConverter converter(&getContext(), options);
    configureGpuToNVVMTypeConverter(converter);
    RewritePatternSet patterns(&getContext());
    arith::populateArithExpandOpsPatterns(patterns);
    arith::populateArithToLLVMConversionPatterns(converter, patterns);
    cf::populateControlFlowToLLVMConversionPatterns(converter, patterns);
    populateFuncToLLVMConversionPatterns(converter, patterns);
    // Before the patterns that call libdevice: kernels need no library.
    populateMathToLLVMConversionPatterns(converter, patterns,
                                         /*approximateLog1p=*/true,
                                         /*benefit=*/2);
    populateFinalizeMemRefToLLVMConversionPatterns(converter, patterns);
    populateVectorToLLVMConversionPatterns(converter, patterns);
    populateGpuToNVVMConversionPatterns(converter, patterns);
    patterns.add<LowerPlacedLoad>(converter, streamBytes.getValue());
    patterns.add<LowerPointer, LowerWarpgroupMma>(converter);
    ub::populateUBToLLVMConversionPatterns(converter, patterns);
    LLVMConversionTarget target(getContext());
    target.addLegalOp<ModuleOp>();
    target.addLegalDialect<NVVM::NVVMDialect>();
    if (failed(applyFullConversion(module, target, std::move(patterns))))
      return signalPassFailure();

    OpBuilder b = OpBuilder::atBlockBegin(module.getBody());
    auto shared = LLVM::GlobalOp::create(
        b, module.getLoc(), LLVM::LLVMArrayType::get(b.getI8Type(), 0),
        /*isConstant=*/false, LLVM::Linkage::External, kSharedMemory,
        Attribute(), kSharedAlignment, kSharedSpace);
    for (auto &[name, signature] : kernels)
      makeEntry(module.lookupSymbol<LLVM::LLVMFuncOp>(name), shared, signature,
                readsPosition.contains(name));
  }
};
} // namespace
