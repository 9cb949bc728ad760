//===- NVVMLowerWarpgroupDot.cpp - The inner loop on wgmma ----------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Four warps multiply their tiles of 16 columns by one image of activations in
// shared memory: wgmma m64nNk16, weights in registers with the fragments of
// WeightFragments.h, activations found by a descriptor.
//
//===----------------------------------------------------------------------===//

#include "WeightFragments.h"
#include "gptq/Codegen/Common/Plan.h"
#include "gptq/Codegen/NVVM/NVVMOps.h"
#include "gptq/Codegen/NVVM/Passes.h"
#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "mlir/Analysis/SliceAnalysis.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/Utils/StaticValueUtils.h"
#include "mlir/Interfaces/FunctionInterfaces.h"

namespace mlir::gptq {
#define GEN_PASS_DEF_NVVMLOWERWARPGROUPDOTPASS
#include "gptq/Codegen/NVVM/Passes.h.inc"
} // namespace mlir::gptq

using namespace mlir;
using namespace mlir::gptq;
using Fragments = ::gptq::MatrixFragments;

static constexpr auto kSharedSpace =
    static_cast<unsigned>(NVVM::NVVMMemorySpace::Shared);
/// Descriptors count in 16 bytes.
static constexpr int64_t kDescriptorBytes = 16;
/// A line of an image holds 64 rows of K of one row of activations, four steps
/// of the unit.
static constexpr int64_t kLineBytes = 128, kStepsPerLine = 4;
/// Everything in a descriptor but the address: 128-byte swizzle (1 in bits 62
/// and 63), groups of 8 lines 1024 bytes apart (bits 32 to 45), and the
/// distance that such an image does not have, 1 (bits 16 to 29). PTX ISA,
/// matrix descriptor.
static constexpr uint64_t kImageDescriptor =
    (uint64_t(1) << 62) | (uint64_t(1024 / kDescriptorBytes) << 32) |
    (uint64_t(1) << 16);
/// Steps whose weights are unpacked together: 16 registers, while those of as
/// many others are being multiplied.
static constexpr int64_t kStepsAtOnce = 4;

/// One instruction that `values` pass through, so that what computes them stays
/// in front of it and what uses them behind.
static SmallVector<Value> passThrough(VectorBuilder &b, StringRef instruction,
                                      ArrayRef<Value> values) {
  std::string outputs, inputs;
  SmallVector<Type> types;
  for (auto [i, value] : llvm::enumerate(values)) {
    types.push_back(value.getType());
    outputs += value.getType().isF32()         ? "=f,"
               : value.getType().isInteger(64) ? "=l,"
                                               : "=r,";
    inputs += (i ? "," : "") + std::to_string(i);
  }
  Value result =
      LLVM::InlineAsmOp::create(
          b, LLVM::LLVMStructType::getLiteral(b.getContext(), types), values,
          instruction, outputs + inputs, /*has_side_effects=*/true,
          /*is_align_stack=*/false, LLVM::TailCallKind::None,
          LLVM::AsmDialectAttr(), ArrayAttr())
          .getResult(0);
  SmallVector<Value> passed;
  for (size_t i = 0; i < values.size(); ++i)
    passed.push_back(LLVM::ExtractValueOp::create(b, result, i));
  return passed;
}

/// The descriptor of `image`: that of the ring's first place, and how far from
/// there the image's own is.
static std::pair<Value, Value> descriptorOf(VectorBuilder &b, Value image) {
  auto type = cast<MemRefType>(image.getType());
  Value offset = b.index(0);
  if (auto place = image.getDefiningOp<memref::SubViewOp>()) {
    auto ring = cast<MemRefType>(place.getSource().getType());
    const int64_t bytes =
        ring.getStridesAndOffset().first[0] * ring.getElementTypeBitWidth() / 8;
    offset = b.mul(getValueOrCreateConstantIndexOp(b, b.getLoc(),
                                                   place.getMixedOffsets()[0]),
                   bytes / kDescriptorBytes);
    image = place.getSource();
    type = ring;
  }
  auto pointer = LLVM::LLVMPointerType::get(b.getContext(), kSharedSpace);
  SmallVector<Value> first(type.getRank(), b.index(0));
  Value address = LLVM::PtrToIntOp::create(
      b, b.getI32Type(), PointerOp::create(b, pointer, image, first));
  address = arith::ShRUIOp::create(
      b, address,
      arith::ConstantOp::create(
          b, b.getI32IntegerAttr(llvm::Log2_64(kDescriptorBytes))));
  Value descriptor = arith::OrIOp::create(
      b, arith::ExtUIOp::create(b, b.getI64Type(), address),
      arith::ConstantOp::create(b, b.getI64IntegerAttr(kImageDescriptor)));
  return {descriptor, arith::IndexCastOp::create(b, b.getI64Type(), offset)};
}

/// Whether nothing but the next product of the block wants the sums of `op`.
static bool isContinued(GroupDotOp op) {
  if (!op->hasOneUse())
    return false;
  auto next = dyn_cast<GroupDotOp>(*op->user_begin());
  return next && next->getBlock() == op->getBlock() &&
         next.getAcc() == op.getResult() && next->hasAttr(kImageAttr);
}

namespace {
/// What is known of the product in front, whose sums are still being added to.
struct Running {
  Value sums;
  Operation *end = nullptr;
};

/// The weights of a product: words of each block, and the blocks that are
/// unpacked already.
struct Weights {
  GroupDotOp of;
  SmallVector<SmallVector<Value>> words;
  SmallVector<SmallVector<WeightFragments::Step>> unpacked;
};
} // namespace

/// The next product of the block that is lowered here.
static GroupDotOp following(GroupDotOp op) {
  for (Operation *next = op->getNextNode(); next; next = next->getNextNode())
    if (auto dot = dyn_cast<GroupDotOp>(next); dot && dot->hasAttr(kImageAttr))
      return dot;
  return GroupDotOp();
}

/// Moves in front of `front` what is between the two and the weights of `op`
/// wait for or are found by. Whether that is all known without `front`.
static bool moveInFront(GroupDotOp op, GroupDotOp front) {
  BackwardSliceOptions options([&](Operation *def) {
    return def->getBlock() == front->getBlock() && !def->isBeforeInBlock(front);
  });
  options.inclusive = true;
  options.omitBlockArguments = true;
  llvm::SetVector<Operation *> needed;
  LogicalResult found = success();
  for (Operation *next = front->getNextNode(); next != op;
       next = next->getNextNode())
    if (isa<NVVM::MBarrierTryWaitParityOp>(next) && succeeded(found))
      found = getBackwardSlice(next, &needed, options);
  for (Value value :
       {Value(op.getW()), Value(op.getPanel()), Value(op.getBlock()),
        Value(op.getScale()), Value(op.getZero())})
    if (value && succeeded(found))
      found = getBackwardSlice(value, &needed, options);
  // Scales and zero points are read behind the barrier like the weights.
  auto mayMove = [](Operation *def) {
    return isPure(def) ||
           isa<vector::LoadOp, NVVM::MBarrierTryWaitParityOp>(def);
  };
  if (failed(found) || !llvm::all_of(needed, mayMove))
    return false;
  for (Operation *next = front->getNextNode(); next != op;) {
    Operation *own = next;
    next = next->getNextNode();
    if (needed.contains(own))
      own->moveBefore(front);
  }
  return true;
}

/// Moves behind `done` what gives places back between the product in front and
/// `product`: only then has the unit read them.
static void giveBackLater(Operation *front, Operation *product,
                          Operation *done) {
  SmallVector<Operation *> later;
  for (Operation *op = front->getNextNode(); op != product;
       op = op->getNextNode())
    if (isa<NVVM::MBarrierArriveOp>(op))
      later.push_back(op);
  for (Operation *op : later) {
    op->moveAfter(done);
    done = op;
  }
}

/// Lowers `op`; `running` is what is in flight before and after, `ahead` what
/// is known of the weights.
static LogicalResult lower(GroupDotOp op, Running &running, Weights &ahead) {
  VectorBuilder b(op, op.getPlan().getLanes());
  auto x = cast<MemRefType>(op.getX().getType());
  const int64_t rows = op.getPlan().getRows();
  if (!usesMatrixUnit(op.getPlan()) || x.getDimSize(0) != rows ||
      x.getDimSize(1) != int64_t(op.getDepth()))
    return op.emitOpError("expects an image of ")
           << rows << " rows and " << op.getDepth() << " columns, but found "
           << x;
  if (op.getPerm() || op.getOffset())
    return op.emitOpError("expects activations in the order of K and no "
                          "offsets");
  FailureOr<WeightFragments> weights = WeightFragments::create(op, b);
  if (failed(weights))
    return failure();

  auto tileType = cast<VectorType>(op.getAcc().getType());
  auto forSums = [&](function_ref<void(ArrayRef<int64_t>)> body) {
    for (int64_t tile = 0; tile < rows / Fragments::tileRows; ++tile)
      for (int64_t h = 0; h < Fragments::columnsPerThread; ++h)
        for (int64_t i = 0; i < Fragments::rowsPerThread; ++i)
          body({tile * Fragments::rowsPerThread + i, h});
  };
  // A sum that starts at zero needs no registers before.
  SmallVector<Value> sums;
  if (!matchPattern(op.getAcc(), m_Zero()) &&
      !matchPattern(op.getAcc(), m_AnyZeroFloat()))
    forSums([&](ArrayRef<int64_t> at) {
      sums.push_back(vector::ExtractOp::create(b, op.getAcc(), at));
    });
  const size_t count = rows / 2;
  const bool continues = running.sums && running.sums == op.getAcc();
  const bool isLast = !isContinued(op);
  auto [ring, place] = descriptorOf(b, op.getX());

  bool isRunning = continues;
  Operation *firstWait = nullptr;
  // All words first: none waits for shared memory between two products.
  Weights known = std::exchange(ahead, Weights());
  if (known.of != op)
    known = {op, weights->loadAll(), {}};
  for (auto [block, words] : llvm::enumerate(known.words)) {
    FailureOr<SmallVector<WeightFragments::Step>> steps =
        block < known.unpacked.size() ? known.unpacked[block]
                                      : weights->unpack(block, words);
    if (failed(steps))
      return failure();
    for (ArrayRef<WeightFragments::Step> rest = *steps; !rest.empty();) {
      auto some = rest.take_front(kStepsAtOnce);
      rest = rest.drop_front(some.size());
      SmallVector<Value> registers;
      for (const WeightFragments::Step &step : some)
        for (Value pair : step.a)
          registers.push_back(LLVM::BitcastOp::create(b, b.getI32Type(), pair));
      // Descriptors are one and a constant, added where they are needed: all of
      // a ring's would fill the registers. Sums that are being added to must
      // not be touched.
      const size_t own = registers.size();
      registers.push_back(ring);
      if (!isRunning)
        registers.append(sums);
      registers = passThrough(b, "wgmma.fence.sync.aligned;", registers);
      Value image = arith::AddIOp::create(b, registers[own], place);
      if (!isRunning)
        sums.assign(registers.begin() + own + 1, registers.end());
      isRunning = true;
      for (auto [i, step] : llvm::enumerate(some)) {
        const int64_t bytes =
            step.number / kStepsPerLine * rows * kLineBytes +
            step.number % kStepsPerLine * (kLineBytes / kStepsPerLine);
        Value b0 = arith::AddIOp::create(
            b, image,
            arith::ConstantOp::create(
                b, b.getI64IntegerAttr(bytes / kDescriptorBytes)));
        auto product =
            WarpgroupMmaOp::create(b, SmallVector<Type>(count, b.getF32Type()),
                                   ArrayRef(registers).slice(4 * i, 4), b0,
                                   sums, TypeAttr::get(x.getElementType()));
        sums.assign(product->result_begin(), product->result_end());
      }
      NVVM::WgmmaGroupSyncAlignedOp::create(b);
      // Registers of the steps before these are free again, and what they read.
      if (continues || !isLast) {
        auto wait = NVVM::WgmmaWaitGroupSyncOp::create(b, 1);
        if (!firstWait)
          firstWait = wait;
      }
    }
  }
  if (continues)
    giveBackLater(running.end, op, firstWait);
  if (GroupDotOp next = following(op); next && next->hasAttr(kAheadAttr)) {
    if (!isLast || !moveInFront(next, op))
      return next.emitOpError("expects weights that are there before the "
                              "product in front ends");
    FailureOr<WeightFragments> others = WeightFragments::create(next, b);
    if (failed(others))
      return failure();
    ahead = {next, others->loadAll(), {}};
    for (auto [block, words] : llvm::enumerate(ahead.words)) {
      auto steps = others->unpack(block, words);
      if (failed(steps))
        return failure();
      ahead.unpacked.push_back(*steps);
    }
  }
  if (isLast)
    sums = passThrough(b, "wgmma.wait_group.sync.aligned 0;", sums);

  Value result = b.zeros(tileType);
  size_t next = 0;
  forSums([&](ArrayRef<int64_t> at) {
    result = vector::InsertOp::create(b, sums[next++], result, at);
  });
  running = isLast ? Running() : Running{result, result.getDefiningOp()};
  op.getResult().replaceAllUsesWith(result);
  op.erase();
  return success();
}

namespace {
struct NVVMLowerWarpgroupDotPass final
    : mlir::gptq::impl::NVVMLowerWarpgroupDotPassBase<
          NVVMLowerWarpgroupDotPass> {
  using Base::Base;

  void runOnOperation() override {
    SmallVector<GroupDotOp> dots;
    getOperation()->walk([&](GroupDotOp op) {
      if (op->hasAttr(kImageAttr))
        dots.push_back(op);
    });
    Running running;
    Weights ahead;
    for (GroupDotOp op : dots)
      if (failed(lower(op, running, ahead)))
        return signalPassFailure();
  }
};
} // namespace
