//===- Formats/Format.h - How a checkpoint stores linear layers -*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_LIB_IMPORT_FORMATS_FORMAT_H
#define GPTQ_LIB_IMPORT_FORMATS_FORMAT_H

#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "lib/Import/Checkpoint.h"
#include "lib/Import/QuantConfig.h"

#include <memory>
#include <optional>

namespace mlir::gptq {

/// A weight to be: its type, and the view of checkpoint bytes it is made from.
struct View {
  RankedTensorType type;
  Attribute init;
  /// Weights that `init` is made from, which it calls @"0", @"1", ….
  std::vector<View> parts;

  explicit operator bool() const { return bool(type); }
};

/// A linear layer [K, N] as views. Either `weight` (dense, [N, K]) or `codes`
/// and `scales` are there.
struct LinearViews {
  int64_t n = 0;
  int64_t k = 0;
  View weight;
  View codes;
  View scales;
  /// Neither of these two: a dense layer. Exactly one: a quantized one.
  View zeros;
  std::optional<int64_t> zeroPoint;
  /// What is added to the weights of each group, where there is such a thing.
  View offsets;
  /// Beside `zeroPoint`, where it was found in the checkpoint: what `zeros`
  /// would be. Layers that are stacked have all of them or none.
  View constantZeros;
  /// How it was found what the stored zero points mean; for people.
  std::string zeroEvidence;
  /// The group of each row, where it is not row / groupSize.
  View groupIndex;
  /// The order in which the columns N above, and the bias, are stored; empty
  /// where it is their own. `readLinear` applies it.
  View outputOrder;
  /// What `groupIndex` would be where the checkpoint stores rows in order.
  View orderedIndex;
  View bias;
  int64_t bits = 0;
  int64_t groupSize = 0;
};

/// What is known of a layer before its tensors are read.
struct LinearShape {
  int64_t n;
  int64_t k;
};

enum class BiasRule {
  /// The layer has one.
  Required,
  /// The layer has one if the checkpoint does, whatever its config says.
  AsFound,
};

/// A way to store quantized linear layers. One file per format.
class Format {
public:
  virtual ~Format();

  /// For people: "gptq 4-bit group 128".
  virtual std::string describe() const = 0;
  /// Whether `module` is stored this way, going by which tensors exist.
  virtual bool holds(const Checkpoint &checkpoint,
                     llvm::StringRef module) const = 0;
  /// Reads everything but the bias. Without `shape` it is taken from the
  /// tensors.
  virtual abi::Expected<LinearViews> read(Checkpoint &checkpoint,
                                          llvm::StringRef module,
                                          std::optional<LinearShape> shape,
                                          MLIRContext *context) const = 0;
  /// Reads a table [rows, columns] whose rows are looked up.
  virtual abi::Expected<View> readTable(Checkpoint &checkpoint,
                                        llvm::StringRef module, int64_t rows,
                                        int64_t columns,
                                        MLIRContext *context) const;
};

/// The format that `config` describes.
std::unique_ptr<Format> createFormat(const QuantConfig &config);

std::unique_ptr<Format> createGPTQFormat(const QuantConfig &config);
std::unique_ptr<Format> createAWQFormat(const QuantConfig &config);
std::unique_ptr<Format>
createCompressedTensorsFormat(const QuantConfig &config);
std::unique_ptr<Format> createGGUFFormat(const QuantConfig &config);
std::unique_ptr<Format> createMarlinFormat(const QuantConfig &config);

/// "gptq 4-bit group 128".
std::string describeSettings(const QuantConfig &config);

/// Reads `module` in `format` (may be null) or dense, with its bias.
abi::Expected<LinearViews> readLinear(Checkpoint &checkpoint,
                                      const Format *format,
                                      llvm::StringRef module,
                                      std::optional<LinearShape> shape,
                                      BiasRule biasRule, MLIRContext *context);

/// The tensor as it lies in its file.
DataAttr getData(const CheckpointTensor &tensor, MLIRContext *context);
View getDataView(const CheckpointTensor &tensor, MLIRContext *context);

/// Reads a dense floating-point tensor of a known shape.
abi::Expected<View> readDense(Checkpoint &checkpoint, llvm::StringRef name,
                              llvm::ArrayRef<int64_t> shape,
                              MLIRContext *context);

/// The settings of `module`, whose tensors say that it is quantized.
abi::Expected<QuantSettings> settingsOfQuantized(const QuantConfig &config,
                                                 Checkpoint &checkpoint,
                                                 llvm::StringRef module);
/// Rows of one group of `settings`, and how many groups `linear` has.
int64_t rowsPerGroup(const QuantSettings &settings, int64_t k);

/// Codes [rows, columns] that `codes` unpacks.
View getCodesView(CodesAttr codes, int64_t rows, int64_t columns);
/// Numbers [rows, columns] of the element type of `tensor`, which holds them
/// transposed.
View getTransposedView(const CheckpointTensor &tensor, int64_t rows,
                       int64_t columns, MLIRContext *context);
/// Names part `i` of a view.
FlatSymbolRefAttr getPartRef(int i, MLIRContext *context);

/// `source` with dimension `dim` in the order that `order` gives.
View getReordered(View source, View order, int64_t dim, MLIRContext *context);

/// What all codes of a view [rows, columns] on `tensor` are, if they are one.
std::optional<int64_t> findConstant(CodesAttr codes, int64_t rows,
                                    int64_t columns,
                                    const CheckpointTensor &tensor);

/// Sets the zero points of `linear` from a view [groups, N] on `tensor`: the
/// number that all are, or the view.
void setZeros(LinearViews &linear, CodesAttr codes, int64_t groups,
              const CheckpointTensor &tensor);

/// Reads the group of each row, unless rows lie in order. Each group must have
/// as many rows as it would have in order.
abi::Status readGroupIndex(const CheckpointTensor &tensor, int64_t groups,
                           LinearViews &linear, MLIRContext *context);

/// Element `i` of little-endian bytes that need not be aligned.
uint32_t loadWord(abi::ByteSpan bytes, size_t i);
/// Whether a tensor whose name ends in `part` holds the weight of a layer.
bool isWeightPart(llvm::StringRef part);
/// Fails where a floating-point tensor holds an infinity or a NaN.
abi::Status checkFinite(const CheckpointTensor &tensor);

} // namespace mlir::gptq

#endif // GPTQ_LIB_IMPORT_FORMATS_FORMAT_H
