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
static constexpr auto kGlobalSpace =
    static_cast<unsigned>(NVVM::NVVMMemorySpace::Global);
static constexpr auto kSharedSpace =
    static_cast<unsigned>(NVVM::NVVMMemorySpace::Shared);
/// The most that a workgroup buffer may ask for.
static constexpr unsigned kSharedAlignment = 1024;

/// Whether `kernel` reads M or P, its first and second index argument.
static bool usesDim(func::FuncOp kernel, unsigned dim) {
  unsigned indices = 0;
  for (BlockArgument arg : kernel.getArguments()) {
    if (arg.getType().isIndex() && indices++ == dim)
      return !arg.use_empty();
    // A buffer that is open in its first dimension has M rows.
    auto type = dyn_cast<MemRefType>(arg.getType());
    if (dim == GPTQ_DIM_M && type && type.getRank() > 0 &&
        type.isDynamicDim(0) && !type.getMemorySpace() && !arg.use_empty())
      return true;
  }
  return false;
}

/// Makes the grid function: one pointer per buffer, then one to the values of
/// M and P in device memory.
static void makeEntry(LLVM::LLVMFuncOp body, LLVM::GlobalOp shared,
                      const KernelSignature &signature, bool usesM,
                      bool usesPosition) {
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
  if (signature.attributes.get(kClusterAttr))
    entry->setAttr(
        NVVM::NVVMDialect::getClusterDimAttrName(),
        b.getDenseI32ArrayAttr({int32_t(attribute(kClusterAttr)), 1, 1}));
  b.setInsertionPointToStart(entry.addEntryBlock(b));
  for (int64_t i = 0; i <= buffers; ++i) {
    entry.setArgAttr(i, LLVM::LLVMDialect::getAlignAttrName(),
                     b.getI64IntegerAttr(GPTQ_ALIGNMENT));
    // What other kernels write changes while this one waits for them. Were it
    // not aliased, it would be read as what is constant: at any time, and not
    // coherently.
    if (i < buffers && signature.weights[i])
      entry.setArgAttr(i, LLVM::LLVMDialect::getNoAliasAttrName(),
                       b.getUnitAttr());
  }
  // Nothing of the same call writes M and P but its last kernel: they may be
  // read before the kernel in front has ended. Volatile: until that wait, the
  // level-1 cache may hold what they were in the call before.
  auto placeOf = [&](int64_t i) -> Value {
    return LLVM::GEPOp::create(b, global, b.getI64Type(),
                               entry.getArgument(buffers),
                               ArrayRef<LLVM::GEPArg>{int32_t(i)});
  };
  const bool advances = bool(signature.attributes.get(kAdvancesAttr));
  auto loadDim = [&](int64_t i, bool isUsed) -> Value {
    if (!isUsed)
      return LLVM::ConstantOp::create(b, b.getI64Type(),
                                      b.getI64IntegerAttr(0));
    return LLVM::LoadOp::create(b, b.getI64Type(), placeOf(i), /*alignment=*/8,
                                /*isVolatile=*/true);
  };
  Value position = loadDim(GPTQ_DIM_P, usesPosition || advances);
  Value workgroup = LLVM::ZExtOp::create(
      b, b.getI64Type(), NVVM::BlockIdXOp::create(b, b.getI32Type()));
  callBody(b, body, entry, signature,
           {loadDim(GPTQ_DIM_M, usesM), position, workgroup,
            LLVM::AddressOfOp::create(b, shared), [&](int64_t i) -> Value {
              return LLVM::AddrSpaceCastOp::create(b, generic,
                                                   entry.getArgument(i));
            }});
  if (!advances)
    return;
  // The first thread alone: the others may not have read it yet.
  Block *last = b.getInsertionBlock();
  Operation *end = last->getTerminator();
  Block *done = last->splitBlock(end);
  Block *advance = b.createBlock(done);
  auto constant = [&](Type type, int64_t value) -> Value {
    return LLVM::ConstantOp::create(b, type, b.getIntegerAttr(type, value));
  };
  Value next = LLVM::AddOp::create(b, position, constant(b.getI64Type(), 1));
  LLVM::StoreOp::create(b, next, placeOf(GPTQ_DIM_P));
  LLVM::BrOp::create(b, ValueRange(), done);
  b.setInsertionPointToEnd(last);
  Value isFirst = LLVM::ICmpOp::create(
      b, LLVM::ICmpPredicate::eq, NVVM::ThreadIdXOp::create(b, b.getI32Type()),
      constant(b.getI32Type(), 0));
  LLVM::CondBrOp::create(b, isFirst, advance, done);
}

namespace {
/// Loads that stream (`nontemporal`), that were moved ahead or that stay in
/// place as instructions of their own: the first with hints that suit what is
/// read once, the others because LLVM would move a load whose value goes around
/// a loop back to its use, or join neighbours that the plan wants apart.
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
    if ((!op.getNontemporal() && !op->hasAttr(kPrefetchedAttr) &&
         !op->hasAttr(kInPlaceAttr)) ||
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
    // What an earlier call has written may be old in the level-1 cache until
    // the kernel waits for the one in front. ptxas takes loads of constants
    // (`nc`) as late as it can, and so behind that wait: what goes ahead of it
    // must not be one.
    const bool isAhead = op->hasAttr(kPrefetchedAttr);
    std::string code = op.getNontemporal()
                           ? (isAhead ? "ld.global" : "ld.global.nc") +
                                 std::string(".L1::no_allocate.L2::") +
                                 std::to_string(streamBytes) + "B"
                       : op->hasAttr(kSettledAttr) ? "ld.relaxed.gpu.global"
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

/// 2^x of an f32 is one instruction, if what is below the smallest normal
/// number may be 0; LLVM's own scales such numbers up and the result down.
struct LowerExp2 final : ConvertOpToLLVMPattern<math::Exp2Op> {
  LowerExp2(const LLVMTypeConverter &converter)
      : ConvertOpToLLVMPattern(converter, /*benefit=*/3) {}
  LogicalResult matchAndRewrite(math::Exp2Op op, OpAdaptor adaptor,
                                ConversionPatternRewriter &b) const override {
    if (!op.getType().isF32())
      return failure();
    auto result = LLVM::CallIntrinsicOp::create(
        b, op.getLoc(), op.getType(),
        b.getStringAttr("llvm.nvvm.ex2.approx.ftz.f32"), adaptor.getOperand());
    b.replaceOp(op, result->getResults());
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

  /// Whether `op` touches memory that the kernel in front may have written, or
  /// may still read: anything but loads of weights and of what is settled.
  static bool mustWait(Operation *op) {
    return op
        ->walk([&](Operation *inner) {
          if (inner->getNumRegions() > 0 || inner->hasAttr(kSettledAttr))
            return WalkResult::advance();
          // Barriers in workgroup memory and registers, for threads of
          // different work.
          if (isa<NVVM::MBarrierInitOp, NVVM::MBarrierTryWaitParityOp,
                  NVVM::CpAsyncMBarrierArriveOp, NVVM::FenceMbarrierInitOp,
                  NVVM::SetMaxRegisterOp, gpu::BarrierOp>(inner))
            return WalkResult::advance();
          bool waits = !isMemoryEffectFree(inner);
          if (auto load = dyn_cast<vector::LoadOp>(inner))
            waits = !isWeight(load.getBase());
          else if (auto copy = dyn_cast<NVVM::CpAsyncOp>(inner)) {
            auto from = copy.getSrc().getDefiningOp<PointerOp>();
            waits = !from || !isWeight(from.getBuffer());
          }
          return waits ? WalkResult::interrupt() : WalkResult::advance();
        })
        .wasInterrupted();
  }

  /// Moves loads of weights in front of `wait`, with what their places are
  /// computed from.
  static void moveUp(Operation *wait) {
    llvm::SetVector<Operation *> movable;
    auto comesWithIt = [&](Value operand) {
      Operation *def = operand.getDefiningOp();
      return !def || def->getBlock() != wait->getBlock() ||
             def->isBeforeInBlock(wait) || movable.contains(def);
    };
    for (Operation *op = wait; op; op = op->getNextNode()) {
      auto load = dyn_cast<vector::LoadOp>(op);
      const bool readsWeight = load && isWeight(load.getBase());
      if ((readsWeight || (op->getNumRegions() == 0 && isPure(op))) &&
          llvm::all_of(op->getOperands(), comesWithIt))
        movable.insert(op);
    }
    DenseSet<Operation *> needed;
    for (Operation *op : llvm::reverse(movable)) {
      if (!isa<vector::LoadOp>(op) && !needed.contains(op))
        continue;
      needed.insert(op);
      for (Value operand : op->getOperands())
        if (Operation *def = operand.getDefiningOp())
          needed.insert(def);
    }
    for (Operation *op : movable)
      if (needed.contains(op) && op != wait)
        op->moveBefore(wait);
  }

  /// Puts loads of weights that follow others behind the first loads of
  /// activations, which go up to `wait`: so many on their way would hold up
  /// both those and what the kernel in front still writes.
  static void moveBehind(Operation *wait) {
    SmallVector<Operation *> following;
    for (Operation &op : *wait->getBlock())
      if (op.hasAttr(kFollowsAttr))
        following.push_back(&op);
    if (following.empty())
      return;
    llvm::SetVector<Operation *> reached;
    SmallVector<Operation *> open;
    for (Operation *op = wait->getNextNode(); op; op = op->getNextNode()) {
      auto load = dyn_cast<vector::LoadOp>(op);
      if (load && !isWeight(load.getBase()) &&
          !load.getMemRefType().getMemorySpace())
        open.push_back(op);
      else if (op->getNumRegions() > 0 || (!load && !isMemoryEffectFree(op)))
        break;
    }
    while (!open.empty()) {
      Operation *op = open.pop_back_val();
      if (!reached.insert(op))
        continue;
      for (Value operand : op->getOperands())
        if (Operation *def = operand.getDefiningOp();
            def && def->getBlock() == wait->getBlock() &&
            wait->isBeforeInBlock(def))
          open.push_back(def);
    }
    SmallVector<Operation *> early(reached.begin(), reached.end());
    llvm::sort(early, [](Operation *a, Operation *b) {
      return a->isBeforeInBlock(b);
    });
    Operation *last = wait;
    for (Operation *op : llvm::concat<Operation *const>(early, following)) {
      op->moveAfter(last);
      last = op;
    }
  }

  /// Whether `op` is all that is left to do, one way or the other, and waits
  /// both ways: nobody may end before the kernel in front has.
  static bool isChoice(Operation &op) {
    auto choice = dyn_cast<scf::IfOp>(op);
    if (!choice || !choice.elseBlock() ||
        op.getNextNode() != op.getBlock()->getTerminator())
      return false;
    return llvm::all_of(op.getRegions(), [](Region &region) {
      return llvm::any_of(region.front(),
                          [](Operation &inner) { return mustWait(&inner); });
    });
  }

  /// Waits in `block` before the first op that has to, in each branch for
  /// itself where threads have different work.
  static void placeWait(Block &block) {
    for (Operation &op : llvm::make_early_inc_range(block)) {
      if (isa<NVVM::GriddepcontrolOp>(op) || !mustWait(&op))
        continue;
      if (op.hasAttr(kRolesAttr)) {
        for (Region &region : op.getRegions())
          if (!region.empty())
            placeWait(region.front());
        // A branch that had not to wait goes on.
        continue;
      }
      if (isChoice(op)) {
        for (Region &region : op.getRegions())
          placeWait(region.front());
        return;
      }
      OpBuilder b(&op);
      auto wait = NVVM::GriddepcontrolOp::create(b, op.getLoc(),
                                                 NVVM::GridDepActionKind::wait);
      moveUp(wait);
      moveBehind(wait);
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
    placeWait(body);
  }
};

struct NVVMLowerToLLVMPass final
    : mlir::gptq::impl::NVVMLowerToLLVMPassBase<NVVMLowerToLLVMPass> {
  using Base::Base;

  void runOnOperation() override {
    ModuleOp module = getOperation();
    auto kernels = collectKernels(module);

    llvm::DenseMap<StringAttr, std::pair<bool, bool>> reads;
    for (auto kernel : module.getOps<func::FuncOp>())
      reads[kernel.getSymNameAttr()] = {usesDim(kernel, GPTQ_DIM_M),
                                        usesDim(kernel, GPTQ_DIM_P)};

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
    patterns.add<LowerPointer, LowerWarpgroupMma, LowerExp2>(converter);
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
                reads[name].first, reads[name].second);
    // LLVM says of the intrinsic that it has nothing to do with memory, and may
    // move loads across it.
    module.walk([](NVVM::GriddepcontrolOp op) {
      if (op.getKind() != NVVM::GridDepActionKind::wait)
        return;
      OpBuilder b(op);
      LLVM::InlineAsmOp::create(
          b, op.getLoc(), TypeRange(), ValueRange(), "griddepcontrol.wait;",
          "~{memory}", /*has_side_effects=*/true, /*is_align_stack=*/false,
          LLVM::TailCallKind::None, LLVM::AsmDialectAttr(), ArrayAttr());
      op.erase();
    });
  }
};
} // namespace
