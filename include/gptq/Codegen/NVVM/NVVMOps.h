//===- NVVMOps.h - Instructions that no other dialect has -------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_CODEGEN_NVVM_NVVMOPS_H
#define GPTQ_CODEGEN_NVVM_NVVMOPS_H

#include "mlir/Bytecode/BytecodeOpInterface.h"
#include "mlir/IR/BuiltinAttributes.h"
#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/Dialect.h"
#include "mlir/IR/OpDefinition.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"

#include "gptq/Codegen/NVVM/NVVMOpsDialect.h.inc"

#define GET_OP_CLASSES
#include "gptq/Codegen/NVVM/NVVMOps.h.inc"

namespace mlir::gptq {

/// On a `gptq.group_dot`: its activations lie in workgroup memory as the unit's
/// second operand (`UnitInfo::activationLayout`), not row by row; `row` and
/// `k0` are then 0.
inline constexpr llvm::StringLiteral kImageAttr = "gptq.image";

/// On a `gptq.group_dot` with kImageAttr: its weights are there before the
/// product in front ends, and are unpacked while the unit is busy with that.
inline constexpr llvm::StringLiteral kAheadAttr = "gptq.ahead";

/// On an `scf.if` that gives the threads of a workgroup different work: each of
/// its branches is taken in every workgroup.
inline constexpr llvm::StringLiteral kRolesAttr = "gptq.roles";

/// Through a ring: the largest number of rows whose scales are applied to sums
/// in sixteen warps.
inline constexpr int64_t kMaxHoistedRows = 32;

/// How many places of a ring a round has, for each turn, where scales of many
/// rows are applied to sums: those of each part are registers of their own.
/// Four where weights of the next part are unpacked ahead, for those of a
/// round's first part are not. 0: as many as there are.
inline int64_t fewPlaces(int64_t rows, bool hoists) {
  return !hoists || rows <= kMaxHoistedRows / 2 ? 0
         : rows <= kMaxHoistedRows              ? 2
                                                : 4;
}

/// Of `places` of a ring that one turn has, those of one round: all, so that
/// their addresses are constants, or a few.
inline int64_t placesOfRound(int64_t places, int64_t rows, bool hoists) {
  const int64_t few = fewPlaces(rows, hoists);
  return few && places % few == 0 ? few : places;
}

} // namespace mlir::gptq

#endif // GPTQ_CODEGEN_NVVM_NVVMOPS_H
