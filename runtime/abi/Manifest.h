//===- Manifest.h - What a compiled model says about itself -----*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Plain structs for `manifest.json` of a compiled model; docs/ModelFormat.md
// explains each field. The compiler fills and serializes them, the runtime
// parses and checks them.
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_RUNTIME_ABI_MANIFEST_H
#define GPTQ_RUNTIME_ABI_MANIFEST_H

#include "runtime/abi/Status.h"

#include <string>
#include <vector>

namespace gptq::abi {

/// Bounds on what a manifest may ask for. They are far above any real model
/// and low enough that sums and products of a few of them stay below 2^63.
namespace limits {
/// Bytes of one tensor, state or arena.
inline constexpr int64_t bytes = int64_t(1) << 44;
/// Scratch bytes of one thread.
inline constexpr int64_t scratchBytes = int64_t(1) << 30;
/// Rows of a call, tokens of a context, entries of a vocabulary.
inline constexpr int64_t count = int64_t(1) << 31;
/// Workgroups of one dispatch.
inline constexpr int64_t workgroups = int64_t(1) << 40;
/// The same on a GPU, and the threads and memory of one workgroup there: what
/// the CUDA driver can be asked for.
inline constexpr int64_t gpuWorkgroups = (int64_t(1) << 31) - 1;
inline constexpr int64_t gpuThreads = 1024;
inline constexpr int64_t gpuSharedBytes = int64_t(1) << 20;
/// Characters of a name.
inline constexpr size_t nameLength = 1024;
} // namespace limits

struct ManifestTarget {
  /// `cpu` or `nvvm`.
  std::string kind = "cpu";
  /// A processor, or an architecture like `sm_90a`.
  std::string name;
  /// Instruction sets the code needs, as LLVM spells them.
  std::vector<std::string> features;
};

/// What `sm_90a` says: the compute capability that code was compiled for.
struct ComputeCapability {
  int major = 0;
  int minor = 0;
  /// `a`: that capability only; `f`: its family only; 0: it and later ones.
  char suffix = 0;

  /// Nothing if `name` is not the name of an architecture.
  static std::optional<ComputeCapability> parse(std::string_view name);
  /// Whether PTX for this runs on a device of the capability `other`.
  bool ptxRunsOn(const ComputeCapability &other) const;
  /// Whether a cubin for this does; it is not compiled again.
  bool cubinRunsOn(const ComputeCapability &other) const;
};

struct ManifestModel {
  std::string family;
  std::string name;
  int64_t vocabSize = 0;
  int64_t maxContext = 0;
  std::vector<int64_t> bosIds;
  std::vector<int64_t> eosIds;
  bool addBos = false;
  int64_t parameters = 0;
  std::string quantization;
};

struct ManifestTokenizer {
  /// `sentencepiece`, `bpe` or `none`.
  std::string kind = "none";
  /// Names without the `file.` of their tensors.
  std::vector<std::string> files;
};

struct ManifestSection {
  std::string tensor;
  int64_t bytes = 0;
  uint64_t checksum = 0;
};

struct ManifestState {
  std::string name;
  int64_t bytes = 0;
};

/// A size known when the model was compiled, or M, the rows of the call.
struct ManifestDim {
  /// -1 stands for M.
  int64_t size = -1;

  static ManifestDim rows() { return {-1}; }
  bool isRows() const { return size < 0; }
  int64_t at(int64_t m) const { return isRows() ? m : size; }
};

/// An input or output of an entry.
struct ManifestPort {
  std::string name;
  /// `f32`, `i32`, `f16` or `bf16`.
  std::string dtype = "f32";
  std::vector<ManifestDim> shape;

  bool isHalf() const { return dtype == "f16" || dtype == "bf16"; }
  int64_t elementBytes() const { return isHalf() ? 2 : 4; }

  /// Elements in a call of `m` rows.
  int64_t elements(int64_t m) const;
};

struct ManifestArgument {
  enum class Kind { Arena, Weight, State, Input, Output };
  Kind kind = Kind::Arena;
  /// Of the weight, state, input or output.
  int64_t index = 0;
  /// Of arena memory: [offset, offset + sizeBase + sizePerRow * M).
  int64_t offset = 0;
  int64_t sizeBase = 0;
  int64_t sizePerRow = 0;
  /// Of a weight that is those of several experts, one behind the other: how
  /// many there are, and how many each row of a call uses at most; 0: it is
  /// read as a whole. For those who count what is read.
  int64_t expertsUsed = 0, experts = 0;

  static ManifestArgument arena(int64_t offset, int64_t base, int64_t perRow) {
    return {Kind::Arena, 0, offset, base, perRow, 0, 0};
  }
  static ManifestArgument of(Kind kind, int64_t index) {
    return {kind, index, 0, 0, 0, 0, 0};
  }
};

/// ceil((a * M + b * P + c) / d)
struct GridFactor {
  int64_t a = 0;
  int64_t b = 0;
  int64_t c = 0;
  int64_t d = 1;

  int64_t at(int64_t m, int64_t p) const {
    return (a * m + b * p + c + d - 1) / d;
  }
};

struct ManifestVariant {
  int64_t mMax = 0;
  std::string symbol;
  std::vector<GridFactor> grid;
  int64_t scratchBytes = 0;
  /// On a GPU: threads and dynamic shared memory of a workgroup, and whether
  /// the kernel itself waits for the dispatch before it, so that it may start
  /// earlier.
  int64_t threads = 0;
  int64_t sharedBytes = 0;
  bool overlap = false;

  /// The product of the factors; at most limits::workgroups in a checked
  /// manifest.
  int64_t workgroups(int64_t m, int64_t p) const;
};

struct ManifestDispatch {
  std::string name;
  std::vector<ManifestArgument> args;
  std::vector<ManifestVariant> variants;
};

struct ManifestEntry {
  std::string name;
  int64_t maxM = 0;
  int64_t arenaBytes = 0;
  std::vector<ManifestPort> inputs;
  std::vector<ManifestPort> outputs;
  std::vector<ManifestDispatch> dispatches;
  /// Of `sample`: the tokens that are sampled from, at most; 0 elsewhere.
  int64_t maxTopK = 0;
};

struct Manifest {
  std::string producer;
  ManifestTarget target;
  std::optional<ManifestModel> model;
  ManifestTokenizer tokenizer;
  std::string chatTemplate;
  std::vector<ManifestSection> sections;
  std::vector<ManifestState> state;
  std::vector<ManifestEntry> entries;

  const ManifestEntry *findEntry(std::string_view name) const;
};

/// Whether `name` is one of the entries of a language model, which run on
/// tokens: `generate`, `score`, `next`, `sample`.
bool isLanguageModelEntry(std::string_view name);

/// Checks everything that can be checked without the file's other tensors:
/// ranges, arena bounds, indices of inputs, outputs and states, the order of
/// variants, grids that cannot overflow, the ports of a language model's
/// entries. Weight indices and sections are checked against the file by its
/// loader.
Status checkManifest(const Manifest &manifest);

/// Parses and checks.
Expected<Manifest> parseManifest(std::string_view json);

/// The inverse of parseManifest.
std::string serializeManifest(const Manifest &manifest);

} // namespace gptq::abi

#endif // GPTQ_RUNTIME_ABI_MANIFEST_H
