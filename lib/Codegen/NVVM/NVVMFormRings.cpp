//===- NVVMFormRings.cpp - Operands through a ring in shared memory -------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Codegen/Common/Layout.h"
#include "gptq/Codegen/Common/Plan.h"
#include "gptq/Codegen/Common/VectorBuilder.h"
#include "gptq/Codegen/NVVM/NVVMOps.h"
#include "gptq/Codegen/NVVM/Passes.h"
#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/Utils/StaticValueUtils.h"
#include "mlir/IR/IRMapping.h"
#include "mlir/IR/Remarks.h"

namespace mlir::gptq {
#define GEN_PASS_DEF_NVVMFORMRINGSPASS
#include "gptq/Codegen/NVVM/Passes.h.inc"
} // namespace mlir::gptq

using namespace mlir;
using namespace mlir::gptq;
using Fragments = ::gptq::MatrixFragments;

static constexpr auto kGlobalSpace =
    static_cast<unsigned>(NVVM::NVVMMemorySpace::Global);
static constexpr auto kSharedSpace =
    static_cast<unsigned>(NVVM::NVVMMemorySpace::Shared);
static constexpr int64_t kWarpThreads = VectorBuilder::kWarpThreads;
/// Warps that share registers out among themselves.
static constexpr int64_t kGroupWarps = 4;
/// Registers of a multiprocessor; of one thread, at most; and in what numbers
/// they are handed out.
static constexpr int64_t kAllRegisters = 1 << 16, kMostRegisters = 240,
                         kRegisterStep = 8;
/// Registers of a thread that orders activations beside what it has loaded, and
/// of one that copies them beside an address for each of its rows.
static constexpr int64_t kOrderRegisters = 16, kCopyRegisters = 24;
/// What an image is aligned to: eight lines, whose pieces are exchanged by the
/// line's number.
static constexpr int64_t kImageAlignment = 1024;
/// A copy of `cp.async`, at most; what lines of an image are exchanged in.
static constexpr int64_t kPieceBytes = 16;
/// Two activations that one thread multiplies together.
static constexpr int64_t kWordBytes = 4;
/// Pieces that four threads exchange words of; the rows of one `stmatrix` that
/// do so, and its matrices.
static constexpr int64_t kSquare = kPieceBytes / kWordBytes,
                         kSquareRows = kWarpThreads / kSquare;
/// Loads of a thread that orders activations, before it stores.
static constexpr int64_t kOrderLoads = 8;
/// How long a thread sleeps before it looks again whether a barrier is
/// through, in nanoseconds.
static constexpr int64_t kSleep = 10'000'000;
/// Barrier 0 is for all threads of a workgroup, this one for those that
/// multiply.
static constexpr int64_t kConsumerBarrier = 1;

namespace {

/// Rows of a weight [panels, rows, elements] that pass through the ring, for
/// all panels of the workgroup.
struct Stream {
  Value buffer;
  /// The first row of a part of K, in the loop.
  Value row;
  int64_t rows;
  /// The places: [stages, panels, rows, elements].
  Value ring;

  MemRefType type() const { return cast<MemRefType>(buffer.getType()); }
  /// Bytes of one panel and part.
  int64_t bytes() const {
    return rows * type().getDimSize(2) * type().getElementTypeBitWidth() / 8;
  }
};

/// Warps that feed a ring: one copies weights, `copy` activations, and `order`
/// put these in the order of the unit.
struct Feeders {
  int64_t copy, order;

  /// With those that are there to fill a group, and do nothing.
  int64_t warps() const { return llvm::alignTo(1 + copy + order, kGroupWarps); }
  int64_t threads() const { return warps() * kWarpThreads; }
};

/// One loop over parts of K whose operands can pass through a ring.
class RingFormer {
public:
  RingFormer(func::FuncOp kernel, scf::ForOp loop)
      : kernel(kernel), loop(loop), b(loop, /*lanes=*/1) {}

  /// Whether the loop is as `form` expects; otherwise `why` it is not.
  bool match(std::string &why);
  void form();

private:
  /// Of the phases of a barrier.
  enum Parity { kFirst = 0, kOver = 1 };

  Stream *streamOf(Value buffer);
  void makeRing();
  void multiplyAll();
  std::pair<Value, Value> nextPlace(Value slot, Value parity, int64_t count);
  SmallVector<Value> multiplyPart(Value slot, Value parity, Value part,
                                  ValueRange sums, bool isAhead);
  void copyWeights(Value lane);
  void copyActivations(Value warp, Value lane);
  void orderActivations(Value warp, Value lane);
  void feed();
  void shareMemory(Block *consumer);
  void shareRegisters(Block *consumer, Block *feeder);
  void waitForConsumers();
  void forParts(Value barriers, Parity first,
                function_ref<void(Value part, Value slot)> body);

  Value pointer(Value buffer, ValueRange indices) {
    auto type = cast<MemRefType>(buffer.getType());
    return PointerOp::create(
        b,
        LLVM::LLVMPointerType::get(b.getContext(), type.getMemorySpace()
                                                       ? kSharedSpace
                                                       : kGlobalSpace),
        buffer, indices);
  }
  Value i32(int64_t value) {
    return arith::ConstantOp::create(b, b.getI32IntegerAttr(value));
  }
  Value isLess(Value x, Value y) {
    return arith::CmpIOp::create(b, arith::CmpIPredicate::slt, x, y);
  }
  /// Waits until the phase of this parity is over.
  void wait(Value barriers, Value slot, Value parity) {
    NVVM::MBarrierTryWaitParityOp::create(b, pointer(barriers, slot), parity,
                                          i32(kSleep));
  }
  void ifTrue(Value condition, function_ref<void()> body) {
    auto only = scf::IfOp::create(b, condition);
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(only.thenBlock());
    body();
  }
  Value allocate(ArrayRef<int64_t> shape, Type element, int64_t alignment) {
    auto space = gpu::AddressSpaceAttr::get(b.getContext(),
                                            gpu::AddressSpace::Workgroup);
    return memref::AllocOp::create(
        b, MemRefType::get(shape, element, MemRefLayoutAttrInterface(), space),
        b.getI64IntegerAttr(alignment));
  }
  /// As many bytes behind `pointer`.
  Value behind(Value pointer, LLVM::GEPArg bytes) {
    return LLVM::GEPOp::create(b, pointer.getType(), b.getI8Type(), pointer,
                               ArrayRef<LLVM::GEPArg>{bytes});
  }
  Value toI64(Value offset) {
    return arith::ExtUIOp::create(
        b, b.getI64Type(),
        arith::IndexCastUIOp::create(b, b.getI32Type(), offset));
  }
  /// Where `piece` (a number) of `row` is in the first line of an image.
  Value placeOfPiece(Value row, Value piece) {
    Value exchanged =
        arith::XOrIOp::create(b, piece, b.remainder(row, plane().blockN()));
    return b.add(b.mul(row, lineBytes()), b.mul(exchanged, kPieceBytes));
  }
  Plane plane() {
    const Layout layout(
        toAttr(b.getContext(), unit->activationLayout(), 8 * elementBytes()));
    return layout.getParts().front().plane;
  }
  int64_t elementBytes() {
    return cast<MemRefType>(x.getType()).getElementTypeBitWidth() / 8;
  }
  /// Bytes from one row of activations to the next.
  int64_t rowBytes() {
    const int64_t stride =
        cast<MemRefType>(x.getType()).getStridesAndOffset().first[0];
    return stride * elementBytes();
  }
  /// Whether so many warps multiply that more to feed them, or a second set of
  /// sums of many rows, would have too few registers.
  bool hasManyWarps() { return consumers > 2 * kGroupWarps * kWarpThreads; }
  int64_t lineBytes() { return plane().blockK() * elementBytes(); }
  /// Warps that share a line of an image to order it, and how many lines they
  /// have.
  int64_t across() { return lineBytes() / (kSquare * kPieceBytes); }
  int64_t linesToOrder() {
    return rows * depth / plane().blockK() * across() / feeders.order;
  }
  /// Place `slot` of a ring.
  Value place(Value ring, Value slot);
  /// What `value`, computed in the loop from its counter, is for `part`.
  Value valueFor(Value value, Value part);

  func::FuncOp kernel;
  scf::ForOp loop;
  VectorBuilder b;

  SmallVector<GroupDotOp> dots;
  SmallVector<Stream> streams;
  PlanAttr plan;
  const ::gptq::UnitInfo *unit = nullptr;
  /// Parts of K; the warps that take them in turn; threads that multiply.
  int64_t parts = 0, turns = 0, consumers = 0;
  int64_t rows = 0, depth = 0, panels = 0;
  Feeders feeders{};
  Value x, images, landed, full, empty, thread;
};

} // namespace

/// Whether `value` is computed from the counter of `loop` and from what is
/// known outside, without reading memory.
static bool dependsOnCounterOnly(Value value, scf::ForOp loop) {
  if (auto arg = dyn_cast<BlockArgument>(value))
    return arg.getOwner() != loop.getBody() || arg == loop.getInductionVar();
  Operation *def = value.getDefiningOp();
  return def->getBlock() != loop.getBody() ||
         (isPure(def) && llvm::all_of(def->getOperands(), [&](Value operand) {
            return dependsOnCounterOnly(operand, loop);
          }));
}

Stream *RingFormer::streamOf(Value buffer) {
  for (Stream &stream : streams)
    if (stream.buffer == buffer)
      return &stream;
  return nullptr;
}

bool RingFormer::match(std::string &why) {
  auto refuse = [&](const Twine &reason) {
    why = reason.str();
    return false;
  };
  auto threads = kernel->getAttrOfType<IntegerAttr>(kThreadsAttr);
  std::optional<int64_t> upper = getConstantIntValue(loop.getUpperBound());
  std::optional<int64_t> step = getConstantIntValue(loop.getStep());
  if (!threads || !upper || !step || loop->getBlock() != &kernel.front())
    return refuse("expects a loop over a number of parts that is known");
  parts = *upper;
  turns = *step;
  consumers = threads.getInt();

  auto addStream = [&](Value buffer, Value row, int64_t rows) {
    if (Stream *known = streamOf(buffer))
      return known->row == row && known->rows == rows;
    streams.push_back({buffer, row, rows, Value()});
    return true;
  };
  for (Operation &op : loop.getBody()->without_terminator()) {
    if (auto dot = dyn_cast<GroupDotOp>(op)) {
      dots.push_back(dot);
      const int64_t blockK = dot.getLayout().getBlockK();
      if (dot.getX() != dots[0].getX() || dot.getK0() != dots[0].getK0() ||
          dot.getDepth() != dots[0].getDepth() || dot.getPerm() ||
          dot.getOffset() || dot.getDepth() % blockK != 0 ||
          getConstantIntValue(dot.getRow()) != 0)
        return refuse("expects products with the same whole blocks of "
                      "activations, in the order of K and without offsets");
      if (!addStream(dot.getW(), dot.getBlock(), dot.getDepth() / blockK))
        return refuse("expects products with the same part of a weight");
      continue;
    }
    auto load = dyn_cast<vector::LoadOp>(op);
    if (!load) {
      if (!isPure(&op))
        return refuse("expects nothing but loads and products in the loop");
      continue;
    }
    if (!isWeight(load.getBase()) || load.getMemRefType().getRank() != 3 ||
        !addStream(load.getBase(), load.getIndices()[1], 1))
      return refuse("expects loads of one row of a weight");
  }
  if (dots.empty())
    return refuse("expects products in the loop");
  plan = dots[0].getPlan();
  unit = findUnit(plan.getUnit(), plan.getLanes());
  if (!unit || unit->warps < 2)
    return refuse("expects a unit that reads activations from shared memory");
  x = dots[0].getX();
  rows = plan.getRows();
  depth = dots[0].getDepth();
  const int64_t blockK = unit->activationLayout().blockK;
  if (depth % blockK != 0 || rows % Fragments::tileRows != 0)
    return refuse("expects parts of whole blocks of " + Twine(blockK) +
                  " rows of K, but found " + Twine(depth));
  if (rowBytes() % kPieceBytes != 0)
    return refuse("expects rows of activations at multiples of 16 bytes, but "
                  "found " +
                  Twine(rowBytes()) + " from one to the next");
  if (!dependsOnCounterOnly(dots[0].getK0(), loop))
    return refuse("expects parts that follow from the loop's counter");
  panels = llvm::divideCeil(plan.getTileN(), dots[0].getLayout().getBlockN());
  for (Stream &stream : streams) {
    if (!dependsOnCounterOnly(stream.row, loop))
      return refuse("expects parts that follow from the loop's counter");
    if (stream.bytes() % kPieceBytes != 0)
      return refuse("expects parts of whole 16 bytes, but found " +
                    Twine(stream.bytes()));
  }
  if (plan.getStages() % turns != 0)
    return refuse("expects as many places for each warp that takes turns");
  feeders =
      rows > kMaxHoistedRows && !hasManyWarps() ? Feeders{2, 4} : Feeders{1, 2};
  return true;
}

void RingFormer::makeRing() {
  const int64_t stages = plan.getStages();
  auto activations = cast<MemRefType>(x.getType()).getElementType();
  images = allocate({stages, rows, depth}, activations, kImageAlignment);
  for (Stream &stream : streams)
    stream.ring =
        allocate({stages, panels, stream.rows, stream.type().getDimSize(2)},
                 stream.type().getElementType(), kPieceBytes);
  landed = allocate({stages}, b.getI64Type(), /*alignment=*/8);
  full = allocate({stages}, b.getI64Type(), /*alignment=*/8);
  empty = allocate({stages}, b.getI64Type(), /*alignment=*/8);
  // Activations have landed when what every copying thread asked for is there.
  // A place is full when weights are there, too, and activations are in order,
  // and empty when every thread of one turn has multiplied: the arrival of one
  // for its warp would not order what the others have read.
  thread = gpu::ThreadIdOp::create(b, gpu::Dimension::x);
  Value isFirst =
      arith::CmpIOp::create(b, arith::CmpIPredicate::eq, thread, b.index(0));
  ifTrue(isFirst, [&] {
    for (int64_t slot = 0; slot < stages; ++slot) {
      for (auto [barriers, count] :
           {std::pair(landed, feeders.copy * kWarpThreads),
            {full, (1 + feeders.order) * kWarpThreads},
            {empty, consumers / turns}})
        NVVM::MBarrierInitOp::create(b, pointer(barriers, b.index(slot)),
                                     i32(count), Value());
    }
    NVVM::FenceMbarrierInitOp::create(b);
  });
  gpu::BarrierOp::create(b);
}

Value RingFormer::place(Value ring, Value slot) {
  auto type = cast<MemRefType>(ring.getType());
  SmallVector<OpFoldResult> offsets(type.getRank(), b.getIndexAttr(0)), sizes,
      strides(type.getRank(), b.getIndexAttr(1));
  offsets[0] = getAsOpFoldResult(slot);
  for (int64_t size : type.getShape())
    sizes.push_back(b.getIndexAttr(size));
  sizes[0] = b.getIndexAttr(1);
  auto result = cast<MemRefType>(memref::SubViewOp::inferRankReducedResultType(
      type.getShape().drop_front(), type, offsets, sizes, strides));
  return memref::SubViewOp::create(b, result, ring, offsets, sizes, strides);
}

Value RingFormer::valueFor(Value value, Value part) {
  IRMapping map;
  map.map(loop.getInductionVar(), part);
  std::function<Value(Value)> clone = [&](Value v) -> Value {
    if (Value known = map.lookupOrNull(v))
      return known;
    Operation *def = v.getDefiningOp();
    if (!def || def->getBlock() != loop.getBody())
      return v;
    for (Value operand : def->getOperands())
      clone(operand);
    return b.clone(*def, map)->getResult(cast<OpResult>(v).getResultNumber());
  };
  return clone(value);
}

/// The loop's body for part `part` of K, which lies in place `slot`. If
/// `isAhead`, the unit multiplies the part in front, which lies in another
/// place, while weights are unpacked.
SmallVector<Value> RingFormer::multiplyPart(Value slot, Value parity,
                                            Value part, ValueRange sums,
                                            bool isAhead) {
  wait(full, slot, parity);
  IRMapping map;
  map.map(loop.getInductionVar(), part);
  map.map(loop.getRegionIterArgs(), sums);
  Value image = place(images, slot), zero = b.index(0);
  DenseMap<Value, Value> places;
  for (Stream &stream : streams)
    places[stream.buffer] = place(stream.ring, slot);
  for (Operation &op : loop.getBody()->without_terminator()) {
    Operation *copy = b.clone(op, map);
    if (auto dot = dyn_cast<GroupDotOp>(copy)) {
      dot.getXMutable().assign(image);
      dot.getRowMutable().assign(zero);
      dot.getK0Mutable().assign(zero);
      dot.getWMutable().assign(places.lookup(dot.getW()));
      dot.getBlockMutable().assign(zero);
      dot->setAttr(kImageAttr, b.getUnitAttr());
      if (std::exchange(isAhead, false))
        dot->setAttr(kAheadAttr, b.getUnitAttr());
    } else if (auto load = dyn_cast<vector::LoadOp>(copy)) {
      load.getBaseMutable().assign(places.lookup(load.getBase()));
      load.getIndicesMutable()[1].assign(zero);
      load.setNontemporal(false);
    }
  }
  NVVM::MBarrierArriveOp::create(b, /*res=*/b.getI64Type(),
                                 pointer(empty, slot), /*count=*/Value());
  SmallVector<Value> next;
  for (Value value : loop.getBody()->getTerminator()->getOperands())
    next.push_back(map.lookupOrDefault(value));
  return next;
}

/// Replaces the loop by one over the places of the ring.
void RingFormer::multiplyAll() {
  b.setInsertionPoint(loop);
  const int64_t stages = plan.getStages();
  Value turn = loop.getLowerBound();
  SmallVector<Value> sums(loop.getInitArgs());
  const int64_t unrolled =
      turns *
      placesOfRound(stages / turns, rows, plan.getScale() == "accumulator");
  // Unpacked weights of two parts and two sets of sums are more than the
  // registers of a thread of sixteen warps.
  auto isAhead = [&](int64_t first) {
    return first > 0 && rows > kMaxHoistedRows && !hasManyWarps() &&
           plan.getScale() == "accumulator";
  };
  const int64_t rounds = parts / unrolled, rest = parts % unrolled;
  Value base = b.index(0), parity = i32(rounds % 2);
  if (rounds) {
    const bool moves = unrolled != stages;
    if (moves)
      sums.append({base, i32(0)});
    auto round =
        scf::ForOp::create(b, b.index(0), b.index(rounds), b.index(1), sums);
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(round.getBody());
    Value number = round.getInductionVar();
    sums.assign(round.getRegionIterArgs().begin(),
                round.getRegionIterArgs().end());
    Value slots = base, phase;
    if (moves) {
      phase = sums.pop_back_val();
      slots = sums.pop_back_val();
    } else {
      phase = arith::AndIOp::create(
          b, arith::IndexCastOp::create(b, b.getI32Type(), number), i32(1));
    }
    for (int64_t first = 0; first < unrolled; first += turns) {
      Value own = b.add(turn, first);
      Value slot = moves ? b.add(slots, own) : own;
      sums = multiplyPart(slot, phase, b.add(b.mul(number, unrolled), own),
                          sums, isAhead(first));
    }
    if (moves) {
      auto [next, nextPhase] = nextPlace(slots, phase, unrolled);
      sums.append({next, nextPhase});
    }
    scf::YieldOp::create(b, sums);
    sums.assign(round.getResults().begin(), round.getResults().end());
    if (moves) {
      parity = sums.pop_back_val();
      base = sums.pop_back_val();
    }
  }
  for (int64_t first = 0; first < rest; first += turns) {
    Value own = b.add(turn, first);
    Value slot = arith::AddIOp::create(b, base, own);
    Value part = b.add(own, rounds * unrolled);
    if (first + turns <= rest) {
      sums = multiplyPart(slot, parity, part, sums, isAhead(first));
      continue;
    }
    // There is not a part for every turn.
    auto last = scf::IfOp::create(b, TypeRange(ValueRange(sums)),
                                  isLess(turn, b.index(rest - first)),
                                  /*withElseRegion=*/true);
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(last.elseBlock());
    scf::YieldOp::create(b, sums);
    b.setInsertionPointToStart(last.thenBlock());
    scf::YieldOp::create(
        b, multiplyPart(slot, parity, part, sums, /*isAhead=*/false));
    sums.assign(last.getResults().begin(), last.getResults().end());
  }
  loop.replaceAllUsesWith(sums);
  loop.erase();
}

/// The place `count` after `slot`, and the parity of its phase.
std::pair<Value, Value> RingFormer::nextPlace(Value slot, Value parity,
                                              int64_t count) {
  Value next = b.add(slot, count);
  Value wraps = arith::CmpIOp::create(b, arith::CmpIPredicate::eq, next,
                                      b.index(plan.getStages()));
  return {arith::SelectOp::create(b, wraps, b.index(0), next),
          arith::XOrIOp::create(
              b, parity, arith::ExtUIOp::create(b, b.getI32Type(), wraps))};
}

/// Runs `body` for every part, once the barrier of its place is through a
/// phase: for the first parts the first, or the one before, which counts as
/// over.
void RingFormer::forParts(Value barriers, Parity first,
                          function_ref<void(Value, Value)> body) {
  auto all = scf::ForOp::create(b, b.index(0), b.index(parts), b.index(1),
                                ValueRange{b.index(0), i32(first)});
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(all.getBody());
  Value slot = all.getRegionIterArg(0), parity = all.getRegionIterArg(1);
  wait(barriers, slot, parity);
  body(all.getInductionVar(), slot);
  auto [next, nextParity] = nextPlace(slot, parity, 1);
  scf::YieldOp::create(b, ValueRange{next, nextParity});
}

void RingFormer::copyWeights(Value lane) {
  // 16 bytes a thread. A copy of its own for each panel (`cp.async.bulk`) would
  // be one instruction after another: a warp starts one at a time.
  Value there = memref::DimOp::create(b, streams[0].buffer, 0);
  Value zero = b.index(0);
  forParts(empty, kOver, [&](Value part, Value slot) {
    for (Stream &stream : streams) {
      const int64_t pieces = stream.bytes() / kPieceBytes;
      const int64_t perPiece =
          kPieceBytes * 8 / stream.type().getElementTypeBitWidth();
      Value row = valueFor(stream.row, part);
      for (int64_t first = 0; first < panels * pieces; first += kWarpThreads) {
        Value own = b.add(lane, first);
        Value panel = b.divide(own, pieces);
        Value at = b.mul(b.remainder(own, pieces), perPiece);
        ifTrue(isLess(panel, there), [&] {
          NVVM::CpAsyncOp::create(
              b, pointer(stream.ring, {slot, panel, zero, at}),
              pointer(stream.buffer, {panel, row, at}), kPieceBytes,
              NVVM::LoadCacheModifierKind::CG, /*cpSize=*/Value());
        });
      }
    }
    NVVM::CpAsyncMBarrierArriveOp::create(b, pointer(full, slot),
                                          /*noinc=*/true);
  });
}

/// Copies rows as they lie, 16 bytes a thread, each piece to where its words
/// are exchanged. Warp i has the i-th of equal shares of the rows.
void RingFormer::copyActivations(Value warp, Value lane) {
  Value there = memref::DimOp::create(b, x, 0);
  const int64_t perLine = lineBytes() / kPieceBytes,
                perCopy = kWarpThreads / perLine, group = plane().blockN(),
                share = rows / feeders.copy;
  // Where a piece comes from is the same for every part but for a number, in a
  // register for each row of a thread; where it goes to is so after `group`
  // rows again. Of rows that do not exist the last is copied: their sums are
  // not stored.
  Value last = arith::SubIOp::create(b, there, b.index(1));
  Value piece = b.remainder(lane, perLine);
  Value own = b.add(b.divide(lane, perLine), b.mul(warp, share));
  SmallVector<Value> sources, targets;
  for (int64_t first = 0; first < share; first += perCopy) {
    Value row = b.add(own, first);
    Value exists = arith::MinUIOp::create(b, row, last);
    sources.push_back(
        toI64(b.add(b.mul(exists, rowBytes()), b.mul(piece, kPieceBytes))));
    if (first < group)
      targets.push_back(toI64(placeOfPiece(row, piece)));
  }
  const int64_t lines = depth / plane().blockK();
  forParts(empty, kOver, [&](Value part, Value slot) {
    Value to = pointer(images, {slot, b.index(0), b.index(0)});
    Value from = pointer(x, {b.index(0), valueFor(dots[0].getK0(), part)});
    for (auto [i, offset] : llvm::enumerate(sources)) {
      Value source = behind(from, offset);
      Value target = behind(to, targets[i % targets.size()]);
      const int64_t first = i / targets.size() * group;
      // Lines of all rows, then the next.
      for (int64_t line = 0; line < lines; ++line)
        NVVM::CpAsyncOp::create(
            b, behind(target, int32_t((line * rows + first) * lineBytes())),
            behind(source, int32_t(line * lineBytes())), kPieceBytes,
            NVVM::LoadCacheModifierKind::CG, /*cpSize=*/Value());
    }
    NVVM::CpAsyncMBarrierArriveOp::create(b, pointer(landed, slot),
                                          /*noinc=*/true);
  });
}

/// Puts copied activations in the order of the unit, in place: of four pieces
/// that follow each other in a row, each has the words that one thread of four
/// multiplies, and the unit wants the first words of all, the second, and so
/// on. `stmatrix` stores word i of four threads as 16 bytes. Warps take four
/// pieces of a line in turn, and equal shares of the lines.
void RingFormer::orderActivations(Value warp, Value lane) {
  const Plane order = plane();
  const int64_t group = order.blockN();
  const int64_t perWord = kWordBytes / elementBytes(),
                perPiece = kPieceBytes / elementBytes();
  auto byteOf = [&](int64_t k) { return order.address(0, k, 0) / 8; };
  auto pieceOf = [&](int64_t k) { return byteOf(k) / kPieceBytes; };
  assert(group == kSquareRows && byteOf(perPiece) == kWordBytes &&
         byteOf(2 * perPiece) == 2 * kWordBytes &&
         "a thread's words are not as stmatrix stores them");
  // Which row a thread's number stands for: those that are read or written at
  // once have no bank in common.
  auto rowOf = [&](Value number) -> Value {
    return b.add(b.mul(b.remainder(number, 2), group / 2), b.divide(number, 2));
  };
  const int64_t share = linesToOrder();
  Value column = b.remainder(warp, across());
  Value firstByte = b.mul(b.divide(warp, across()), share * lineBytes());
  auto toOffset = [&](Value row, Value piece) {
    return toI64(b.add(firstByte, placeOfPiece(row, piece)));
  };
  Value own = b.add(b.mul(column, kSquare), b.remainder(lane, kSquare));
  Value from = toOffset(rowOf(b.divide(lane, kSquare)), own);
  Value word = b.divide(lane, kSquareRows);
  Value piece = b.add(b.mul(b.remainder(word, 2), pieceOf(perWord)),
                      b.mul(b.divide(word, 2), pieceOf(2 * perWord)));
  piece = b.add(piece, b.mul(column, pieceOf(kSquare * perPiece)));
  Value to = toOffset(rowOf(b.remainder(lane, kSquareRows)), piece);

  SmallVector<int32_t> squares;
  for (int64_t first = 0; first < share; first += group)
    squares.push_back(int32_t(first * lineBytes()));
  auto words = VectorType::get({kSquare}, b.getI32Type());
  forParts(landed, kFirst, [&](Value, Value slot) {
    Value image = pointer(images, {slot, b.index(0), b.index(0)});
    Value source = behind(image, from), target = behind(image, to);
    for (ArrayRef<int32_t> rest = squares; !rest.empty();) {
      auto some = rest.take_front(kOrderLoads);
      rest = rest.drop_front(some.size());
      SmallVector<Value> loaded;
      for (int32_t bytes : some)
        loaded.push_back(
            LLVM::LoadOp::create(b, words, behind(source, bytes), kPieceBytes));
      NVVM::SyncWarpOp::create(b, i32(-1));
      for (auto [value, bytes] : llvm::zip(loaded, some)) {
        SmallVector<Value> parts;
        for (int64_t i = 0; i < kSquare; ++i)
          parts.push_back(LLVM::ExtractElementOp::create(b, value, i32(i)));
        NVVM::StMatrixOp::create(b, behind(target, bytes), parts,
                                 NVVM::MMALayout::row,
                                 NVVM::LdStMatrixShapeAttr::get(
                                     b.getContext(), kSquareRows, kSquareRows),
                                 NVVM::LdStMatrixEltType::B16);
      }
    }
    // The unit reads another way than threads write.
    NVVM::FenceProxyOp::create(
        b, NVVM::ProxyKind::async_shared,
        NVVM::SharedSpaceAttr::get(b.getContext(),
                                   NVVM::SharedSpace::shared_cta));
    NVVM::MBarrierArriveOp::create(b, /*res=*/b.getI64Type(),
                                   pointer(full, slot), /*count=*/Value());
  });
}

/// Lets the buffers of `consumer` lie where the ring was: when all threads that
/// multiply are through, nobody uses it any more.
void RingFormer::shareMemory(Block *consumer) {
  SmallVector<memref::AllocOp> buffers;
  consumer->walk([&](memref::AllocOp op) { buffers.push_back(op); });
  if (buffers.empty())
    return;
  for (memref::AllocOp buffer : buffers)
    buffer->setAttr(kAfterOthersAttr, b.getUnitAttr());
  b.setInsertionPoint(buffers.front());
  waitForConsumers();
}

/// A barrier of the threads that multiply.
void RingFormer::waitForConsumers() {
  NVVM::BarrierOp::create(b, TypeRange(), i32(kConsumerBarrier), i32(consumers),
                          NVVM::BarrierReductionAttr(), Value());
}

/// What each warp does that feeds the ring.
void RingFormer::feed() {
  Value own = arith::SubIOp::create(b, thread, b.index(consumers));
  Value warp = b.divide(own, kWarpThreads);
  Value lane = b.remainder(own, kWarpThreads);
  int64_t first = 0;
  // The next `count` warps; some may be left behind the last.
  auto role = [&](int64_t count, function_ref<void(Value)> work) {
    Value number = arith::SubIOp::create(b, warp, b.index(first));
    first += count;
    if (first == feeders.warps())
      return work(number);
    auto choice = scf::IfOp::create(b, isLess(warp, b.index(first)),
                                    /*withElseRegion=*/true);
    choice->setAttr(kRolesAttr, b.getUnitAttr());
    b.setInsertionPointToStart(choice.thenBlock());
    work(number);
    b.setInsertionPointToStart(choice.elseBlock());
  };
  role(1, [&](Value) { copyWeights(lane); });
  role(feeders.copy, [&](Value number) { copyActivations(number, lane); });
  role(feeders.order, [&](Value number) { orderActivations(number, lane); });
}

/// Gives those that multiply the registers that those that feed do not need.
/// That these instructions are for whole warps also tells the assembler that
/// what follows is uniform: descriptors are computed once for a warp.
void RingFormer::shareRegisters(Block *consumer, Block *feeder) {
  const int64_t threads = consumers + feeders.threads();
  const int64_t each = kAllRegisters / threads / kRegisterStep * kRegisterStep;
  const int64_t loads =
      std::min(kOrderLoads, linesToOrder() / plane().blockN());
  const int64_t rowsOfThread =
      rows / feeders.copy * lineBytes() / kPieceBytes / kWarpThreads;
  const int64_t least =
      llvm::alignTo(std::max(kSquare * loads + kOrderRegisters,
                             2 * rowsOfThread + kCopyRegisters),
                    kRegisterStep);
  const int64_t most =
      std::min(kMostRegisters, (each * threads - least * feeders.threads()) /
                                   consumers / kRegisterStep * kRegisterStep);
  // Measured: without it sixteen warps multiply 64 rows 2 % faster.
  if (least >= each || most <= each ||
      (rows > kMaxHoistedRows && hasManyWarps()))
    return;
  auto set = [&](Block *block, NVVM::SetMaxRegisterAction action,
                 int64_t count) {
    b.setInsertionPointToStart(block);
    NVVM::SetMaxRegisterOp::create(b, count, action);
  };
  set(consumer, NVVM::SetMaxRegisterAction::increase, most);
  set(feeder, NVVM::SetMaxRegisterAction::decrease, least);
}

void RingFormer::form() {
  makeRing();
  Value multiplies = isLess(thread, b.index(consumers));
  auto split = scf::IfOp::create(b, multiplies, /*withElseRegion=*/true);
  split->setAttr(kRolesAttr, b.getUnitAttr());
  Block *body = split->getBlock();
  Block *consumer = split.thenBlock();
  consumer->getOperations().splice(consumer->begin(), body->getOperations(),
                                   std::next(split->getIterator()),
                                   std::prev(body->end()));
  // The threads that copy do not come to these barriers.
  SmallVector<gpu::BarrierOp> barriers;
  consumer->walk([&](gpu::BarrierOp op) { barriers.push_back(op); });
  for (gpu::BarrierOp op : barriers) {
    b.setInsertionPoint(op);
    waitForConsumers();
    op.erase();
  }

  b.setInsertionPointToStart(split.elseBlock());
  feed();
  multiplyAll();
  shareMemory(consumer);
  shareRegisters(consumer, split.elseBlock());
  kernel->setAttr(kThreadsAttr,
                  b.getI64IntegerAttr(consumers + feeders.threads()));
}

namespace {
struct NVVMFormRingsPass final
    : mlir::gptq::impl::NVVMFormRingsPassBase<NVVMFormRingsPass> {
  using Base::Base;

  void runOnOperation() override {
    auto kernel = dyn_cast<func::FuncOp>(getOperation().getOperation());
    if (!kernel || kernel.isExternal())
      return;
    SmallVector<scf::ForOp> loops;
    kernel.walk([&](scf::ForOp loop) {
      auto dots = loop.getBody()->getOps<GroupDotOp>();
      if (!dots.empty() && (*dots.begin()).getPlan().getPath() == "ring")
        loops.push_back(loop);
    });
    for (scf::ForOp loop : loops) {
      RingFormer former(kernel, loop);
      std::string why;
      if (former.match(why)) {
        former.form();
        continue;
      }
      remark::missed(loop.getLoc(),
                     remark::RemarkOpts::name("FormRings").category("gptq"))
          << remark::reason("no ring: {0}", why);
    }
  }
};
} // namespace
