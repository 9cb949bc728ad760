//===- NVVMOps.cpp - Instructions that no other dialect has ---------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Codegen/NVVM/NVVMOps.h"
#include "mlir/IR/DialectImplementation.h"
#include "mlir/IR/OpImplementation.h"

using namespace mlir;
using namespace mlir::gptq;

#include "gptq/Codegen/NVVM/NVVMOpsDialect.cpp.inc"

void GPTQNVVMDialect::initialize() {
  addOperations<
#define GET_OP_LIST
#include "gptq/Codegen/NVVM/NVVMOps.cpp.inc"
      >();
}

LogicalResult WarpgroupMmaOp::verify() {
  if (getA().size() != 4)
    return emitOpError("expects 4 registers of the first operand, but found ")
           << getA().size();
  const size_t sums = getNumResults();
  if (sums == 0 || sums % 4 != 0 || sums > 128)
    return emitOpError("expects 4 to 128 sums, four at a time, but found ")
           << sums;
  if (!getAcc().empty() && getAcc().size() != sums)
    return emitOpError("expects as many sums before as after, but found ")
           << getAcc().size() << " and " << sums;
  return success();
}

#define GET_OP_CLASSES
#include "gptq/Codegen/NVVM/NVVMOps.cpp.inc"
