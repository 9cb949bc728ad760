//===- Families/Family.cpp - The list of model families -------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "lib/Import/Families/Family.h"

using namespace mlir::gptq;

llvm::ArrayRef<const Family *> mlir::gptq::allFamilies() {
  static const Family *const families[] = {
      &kGemma2Family,  &kGemma3Family,   &kGPTNeoXFamily, &kLlamaFamily,
      &kMistralFamily, &kMixtralFamily,  &kOPTFamily,     &kPhi3Family,
      &kQwen2Family,   &kQwen2MoeFamily, &kQwen3Family,   &kQwen3MoeFamily};
  return families;
}

const Family *mlir::gptq::findFamily(llvm::StringRef modelType) {
  for (const Family *family : allFamilies())
    if (family->name == modelType)
      return family;
  return nullptr;
}
