//===- GGUF.h - A checked reader of GGUF files ------------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A GGUF file, versions 2 and 3, little-endian:
//
//   | bytes    | content                                                  |
//   | -------- | -------------------------------------------------------- |
//   | 4        | "GGUF"                                                   |
//   | 4, 8, 8  | version, numbers of tensors and of metadata entries      |
//   |          | each entry: key, type (4 bytes), value                   |
//   |          | each tensor: name, number of dimensions (4), dimensions  |
//   |          | (8 each, the fastest first), type (4), offset (8)        |
//   |          | filler up to a multiple of `general.alignment`           |
//   | the rest | the tensors' bytes, each at a multiple of the alignment  |
//
// Strings are a length (8 bytes) and UTF-8; arrays a type (4), a length (8) and
// values. Opening checks everything that later reads rely on.
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_LIB_IMPORT_GGUF_H
#define GPTQ_LIB_IMPORT_GGUF_H

#include "gptq/Import/Folder.h"
#include "runtime/abi/Json.h"
#include "runtime/abi/SafeTensors.h"
#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringRef.h"

namespace mlir::gptq {

/// A number type of tensors. Rows are whole blocks of `block` elements, which
/// take `bytes` bytes.
struct BlockType {
  uint32_t id;
  /// As tensors of it end in a `Checkpoint`, e.g. "q4_k".
  llvm::StringLiteral name;
  int64_t block;
  int64_t bytes;
  /// Of elements, or of bytes where a block has several.
  abi::DType dtype;
};

/// The types that are read, and the one of a name, or null.
llvm::ArrayRef<BlockType> blockTypes();
const BlockType *findBlockType(llvm::StringRef name);

struct GGUFTensor {
  std::string name;
  const BlockType *type = nullptr;
  /// Slowest dimension first; one or two, and the last in whole blocks.
  std::vector<uint64_t> shape;
  /// Where its bytes start in the file.
  uint64_t offset = 0;
  abi::ByteSpan bytes;
};

/// What an open file says. Refers to the file's bytes, which must outlive it.
class GGUFFile {
public:
  static abi::Expected<GGUFFile> open(abi::ByteSpan file);

  const std::vector<GGUFTensor> &tensors() const { return list; }
  /// The metadata as one object, of whose strings all are UTF-8.
  abi::Expected<abi::Json> readMetadata() const;

private:
  abi::ByteSpan file;
  /// Where the metadata lie, and how many entries they have.
  uint64_t metadataOffset = 0, entries = 0;
  std::vector<GGUFTensor> list;
};

/// The name that other checkpoints give `tensor`: "blk.0.attn_q.weight" is
/// "model.layers.0.self_attn.q_proj.<type>". Its own where it has none.
std::string importedName(const GGUFTensor &tensor);

/// The files in which other checkpoints hold a tokenizer.
struct TokenizerFiles {
  /// "tokenizer.model", "tokenizer.json", or empty: there is none.
  std::string name;
  std::string content;
  /// tokenizer_config.json.
  abi::Json config;
};

/// Makes them from the metadata of a file.
abi::Expected<TokenizerFiles> makeTokenizer(const abi::JsonView &metadata);

} // namespace mlir::gptq

#endif // GPTQ_LIB_IMPORT_GGUF_H
