//===- SafeTensorsFuzzer.cpp - Feeds the safetensors reader ---------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/abi/SafeTensors.h"

using namespace gptq::abi;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  Expected<SafeTensors> file = SafeTensors::open({data, size});
  if (!file)
    return 0;
  // What was accepted must be readable: touch both ends of every tensor.
  volatile uint8_t sink = 0;
  for (const TensorInfo &tensor : file->tensors())
    if (ByteSpan bytes = file->bytes(tensor); bytes.size > 0)
      sink = bytes.data[0] ^ bytes.data[bytes.size - 1];
  (void)sink;
  return 0;
}
