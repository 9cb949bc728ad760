//===- TestCheckpoint.h - Small checkpoints in memory -----------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_TEST_UNITTESTS_IMPORT_TESTCHECKPOINT_H
#define GPTQ_TEST_UNITTESTS_IMPORT_TESTCHECKPOINT_H

#include "gptq/Import/Import.h"
#include "runtime/abi/Json.h"
#include "runtime/abi/SafeTensors.h"

#include <map>

namespace mlir::gptq::test {

using abi::DType;
using abi::Json;

/// The bytes of 32-bit words.
inline std::string words(const std::vector<uint32_t> &values) {
  std::string bytes;
  for (uint32_t value : values)
    for (int i = 0; i < 4; ++i)
      bytes.push_back(char(value >> (8 * i)));
  return bytes;
}

/// `count` halves of the bits `value` (0x3C00: 1.0).
inline std::string halves(size_t count, uint16_t value = 0x3C00) {
  std::string bytes;
  for (size_t i = 0; i < count; ++i) {
    bytes.push_back(char(value));
    bytes.push_back(char(value >> 8));
  }
  return bytes;
}

/// Tensors and JSON files to put into a folder.
struct TestCheckpoint {
  struct Tensor {
    DType dtype;
    std::vector<uint64_t> shape;
    std::string bytes;
  };
  std::map<std::string, Tensor> tensors;
  std::map<std::string, Json> files;

  /// A dense f16 tensor of ones.
  void addDense(const std::string &name, std::vector<uint64_t> shape) {
    uint64_t count = 1;
    for (uint64_t size : shape)
      count *= size;
    tensors[name] = {DType::F16, std::move(shape), halves(count)};
  }

  /// A quantized layer whose words of zero points are all `zeroWord`.
  void addQuantized(const std::string &name, uint64_t k, uint64_t n,
                    uint64_t groups, uint64_t bits, uint32_t zeroWord) {
    uint64_t rowWords = (k * bits + 31) / 32, zeroWords = (n * bits + 31) / 32;
    tensors[name + ".qweight"] = {
        DType::I32,
        {rowWords, n},
        words(std::vector<uint32_t>(rowWords * n, 0x76543210))};
    tensors[name + ".qzeros"] = {
        DType::I32,
        {groups, zeroWords},
        words(std::vector<uint32_t>(groups * zeroWords, zeroWord))};
    tensors[name + ".scales"] = {DType::F16, {groups, n}, halves(groups * n)};
  }

  void addGroupIndex(const std::string &name, std::vector<int> groups) {
    std::vector<uint32_t> stored(groups.begin(), groups.end());
    tensors[name + ".g_idx"] = {
        DType::I32, {uint64_t(stored.size())}, words(stored)};
  }

  static std::string serialize(const std::map<std::string, Tensor> &tensors) {
    std::vector<abi::TensorInfo> infos;
    std::string data;
    for (const auto &[name, tensor] : tensors) {
      uint64_t begin = data.size();
      data += tensor.bytes;
      infos.push_back(
          {name, tensor.dtype, tensor.shape, begin, uint64_t(data.size())});
    }
    return abi::writeSafeTensorsHeader(infos, {}, 8) + data;
  }

  MemoryFolder folder() const {
    MemoryFolder result("/checkpoints/small");
    result.add("model.safetensors", serialize(tensors));
    for (const auto &[name, value] : files)
      result.add(name, value.dump());
    return result;
  }
};

/// A Llama of one dense layer: width 8, two heads of 4, one of keys, MLP 12,
/// vocabulary 16.
inline TestCheckpoint smallLlama() {
  TestCheckpoint c;
  c.files["config.json"] = {
      {"model_type", "llama"},    {"hidden_size", 8},
      {"intermediate_size", 12},  {"num_hidden_layers", 1},
      {"num_attention_heads", 2}, {"num_key_value_heads", 1},
      {"vocab_size", 16},         {"rms_norm_eps", 1e-5},
      {"hidden_act", "silu"},     {"max_position_embeddings", 32},
      {"rope_theta", 10000.0},    {"tie_word_embeddings", false},
      {"bos_token_id", 1},        {"eos_token_id", 2}};
  c.addDense("model.embed_tokens.weight", {16, 8});
  std::string layer = "model.layers.0.";
  c.addDense(layer + "input_layernorm.weight", {8});
  c.addDense(layer + "self_attn.q_proj.weight", {8, 8});
  c.addDense(layer + "self_attn.k_proj.weight", {4, 8});
  c.addDense(layer + "self_attn.v_proj.weight", {4, 8});
  c.addDense(layer + "self_attn.o_proj.weight", {8, 8});
  c.addDense(layer + "post_attention_layernorm.weight", {8});
  c.addDense(layer + "mlp.gate_proj.weight", {12, 8});
  c.addDense(layer + "mlp.up_proj.weight", {12, 8});
  c.addDense(layer + "mlp.down_proj.weight", {8, 12});
  c.addDense("model.norm.weight", {8});
  c.addDense("lm_head.weight", {16, 8});
  return c;
}

} // namespace mlir::gptq::test

#endif // GPTQ_TEST_UNITTESTS_IMPORT_TESTCHECKPOINT_H
