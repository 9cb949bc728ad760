//===- BufferizableOpInterfaceImpl.h - Model ops on buffers -----*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_DIALECT_GPTQ_IR_BUFFERIZABLEOPINTERFACEIMPL_H
#define GPTQ_DIALECT_GPTQ_IR_BUFFERIZABLEOPINTERFACEIMPL_H

namespace mlir {
class DialectRegistry;
namespace gptq {

/// Lets one-shot bufferization turn the model ops into ops on memrefs.
void registerBufferizableOpInterfaceExternalModels(DialectRegistry &registry);

} // namespace gptq
} // namespace mlir

#endif // GPTQ_DIALECT_GPTQ_IR_BUFFERIZABLEOPINTERFACEIMPL_H
