//===- WeightFragments.h - Codes as operands of matrix units ----*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Y^T = W^T X^T in tiles of m16n8k16: weights are the 16-row operand A,
// activations the 8-column operand B. Thread l = 4 g + t of a warp holds
//
//   A, register i = h + 2 j, half e   column g + 8 h of the tile, k(t, j, e)
//   B, register j, half e             row g of the activations, k(t, j, e)
//   sums, number 2 h + i              column g + 8 h, row 2 t + i
//
// (PTX ISA, matrix fragments for mma.m16n8k16; a warp of wgmma.m64nNk16 holds
// the same of A and of the sums). The unit asks only that A and B agree on k.
// With k = 32 c + 8 t + 4 s + 2 j + e a thread's activations for two steps s
// lie side by side.
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_LIB_CODEGEN_NVVM_WEIGHTFRAGMENTS_H
#define GPTQ_LIB_CODEGEN_NVVM_WEIGHTFRAGMENTS_H

#include "gptq/Codegen/Common/Layout.h"
#include "gptq/Codegen/Common/VectorBuilder.h"
#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "gptq/Target/Target.h"

namespace mlir::gptq {

/// The A registers of one `gptq.group_dot`.
class WeightFragments {
public:
  /// Checks that the layout is one that fragments lie in, and writes what
  /// blocks have in common before `op`.
  static FailureOr<WeightFragments> create(GroupDotOp op, VectorBuilder &b);

  /// What unpacking adds to the codes of columns g + 8 h and nobody has
  /// subtracted from them again.
  double added(int64_t h) const { return addedTo[h]; }
  int64_t numBlocks() {
    return llvm::divideCeil(op.getDepth(), layout().blockK());
  }
  /// One step of the unit: its number in the op, and four pairs.
  struct Step {
    int64_t number;
    std::array<Value, 4> a;
  };
  /// The words of block `index` that this thread has codes in.
  SmallVector<Value> load(int64_t index);
  /// Those of all blocks.
  SmallVector<SmallVector<Value>> loadAll();
  /// The steps of block `index`, whose words are `words`.
  FailureOr<SmallVector<Step>> unpack(int64_t index, ArrayRef<Value> words);

private:
  WeightFragments(GroupDotOp op, VectorBuilder &b)
      : op(op), b(b), whole(op.getLayout()) {}

  const Plane &layout() const { return whole.getParts().front().plane; }
  InFlightDiagnostic refuse(const Twine &why) {
    return op.emitOpError("expects ")
           << why << ", but found " << op.getLayout();
  }
  /// Bits of a thread's run of codes.
  int64_t shareBits() const { return int64_t(1) << lanePlace; }
  /// The place of register i's half e at the step's row `k` of a block.
  int64_t addressOf(int64_t k, int64_t i, int64_t e) const {
    return layout().address(0, k + 2 * (i / 2) + e, 8 * (i % 2));
  }

  GroupDotOp op;
  VectorBuilder &b;
  Layout whole;
  FloatType type;
  bool isDense = false, converts = false;
  int64_t unit = 0, lanePlace = 0;
  int64_t places[2] = {0, 0};
  double addedTo[2] = {0, 0};
  Value minus[2], times[2];
};

} // namespace mlir::gptq

#endif // GPTQ_LIB_CODEGEN_NVVM_WEIGHTFRAGMENTS_H
