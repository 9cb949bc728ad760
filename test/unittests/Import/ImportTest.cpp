//===- ImportTest.cpp - Tests of whole imports ----------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Import/Import.h"
#include "TestCheckpoint.h"
#include "gptq/Dialect/GPTQ/IR/GPTQ.h"
#include "mlir/Parser/Parser.h"
#include "gtest/gtest.h"

namespace mlir::gptq::test {
namespace {

struct ImportTest : testing::Test {
  OwningOpRef<ModuleOp> import(const TestCheckpoint &c,
                               ImportOptions options = {}) {
    MemoryFolder folder = c.folder();
    return importCheckpoint(folder, options, &context, error);
  }
  void expectRefused(const TestCheckpoint &c, const std::string &message,
                     ImportOptions options = {}) {
    ASSERT_FALSE(import(c, options)) << "expected: " << message;
    EXPECT_NE(error.find(message), std::string::npos) << error;
    EXPECT_EQ(error.find('\n'), std::string::npos) << error;
  }
  static std::string print(ModuleOp module) {
    std::string text;
    llvm::raw_string_ostream os(text);
    module.print(os);
    return text;
  }
  /// Expects the text of `module` to parse to the same text.
  void expectRoundTrip(ModuleOp module) {
    std::string text = print(module);
    OwningOpRef<ModuleOp> parsed =
        parseSourceString<ModuleOp>(text, ParserConfig(&context));
    ASSERT_TRUE(parsed);
    EXPECT_EQ(print(*parsed), text);
  }

  MLIRContext context{MLIRContext::Threading::DISABLED};
  std::string error;
};

TEST_F(ImportTest, ModelRoundTrips) {
  OwningOpRef<ModuleOp> module = import(smallLlama());
  ASSERT_TRUE(module) << error;
  expectRoundTrip(*module);
  auto model = (*module)->getAttrOfType<DictionaryAttr>(kModelAttr);
  // Two tables of 16 x 8, norms of 8, projections of 64, 32, 32, 64, an MLP of
  // 3 * 96.
  EXPECT_EQ(model.getAs<IntegerAttr>("parameters").getInt(),
            2 * 16 * 8 + 3 * 8 + 192 + 3 * 96);
  EXPECT_EQ(model.getAs<IntegerAttr>("max_context").getInt(), 32);
}

TEST_F(ImportTest, QuantizedAndDenseLayersMix) {
  TestCheckpoint c = smallLlama();
  c.files["quantize_config.json"] = {
      {"bits", 4}, {"group_size", 8}, {"sym", true}};
  c.tensors.erase("model.layers.0.mlp.down_proj.weight");
  c.addQuantized("model.layers.0.mlp.down_proj", 12, 8, 2, 4, 0x77777777);
  OwningOpRef<ModuleOp> module = import(c);
  ASSERT_TRUE(module) << error;
  expectRoundTrip(*module);
  int quantized = 0, dense = 0;
  module->walk([&](DequantMatmulOp) { ++quantized; });
  module->walk([&](MatmulOp) { ++dense; });
  EXPECT_EQ(quantized, 2);
  EXPECT_EQ(dense, 14);
}

TEST_F(ImportTest, QuantizedTensorsNeedSettings) {
  TestCheckpoint c = smallLlama();
  c.tensors.erase("model.layers.0.mlp.down_proj.weight");
  c.addQuantized("model.layers.0.mlp.down_proj", 12, 8, 2, 4, 0x77777777);
  expectRefused(c, "no quantization_config");
}

TEST_F(ImportTest, TensorsMustFitTheModel) {
  TestCheckpoint c = smallLlama();
  c.tensors.erase("model.layers.0.self_attn.k_proj.weight");
  expectRefused(c, "tensor 'model.layers.0.self_attn.k_proj.weight' is "
                   "missing, expected F16 or BF16 or F32 [4, 8]");

  c = smallLlama();
  c.addDense("model.layers.0.mlp.up_proj.weight", {12, 9});
  expectRefused(c, "expected F16 or BF16 or F32 [12, 8], found F16 [12, 9]");

  c = smallLlama();
  c.addDense("model.layers.1.input_layernorm.weight", {8});
  expectRefused(c, "tensor 'model.layers.1.input_layernorm.weight' has no "
                   "place in a llama model of 1 layers");

  c = smallLlama();
  c.addDense("model.layers.0.self_attn.rotary_emb.inv_freq", {2});
  EXPECT_TRUE(import(c)) << error;
}

TEST_F(ImportTest, TiedEmbeddingsAreOneWeight) {
  TestCheckpoint c = smallLlama();
  c.files["config.json"]["tie_word_embeddings"] = true;
  c.tensors.erase("lm_head.weight");
  OwningOpRef<ModuleOp> module = import(c);
  ASSERT_TRUE(module) << error;
  EXPECT_FALSE(module->lookupSymbol("lm_head.weight"));
}

TEST_F(ImportTest, OptionsAreChecked) {
  ImportOptions options;
  options.maxContext = 33;
  expectRefused(smallLlama(),
                "context of the model: expected 1 to 32, found 33", options);
  options.maxContext = -5;
  expectRefused(smallLlama(), "expected 1 to 32, found -5", options);
  options = {};
  options.maxRows = 0;
  expectRefused(smallLlama(), "rows of one call", options);
  options = {};
  options.layer = "model.layers.7.mlp.down_proj";
  expectRefused(smallLlama(),
                "'model.layers.7.mlp.down_proj.weight' is missing", options);
}

TEST_F(ImportTest, LayersAreNamedByTheirLastPart) {
  ImportOptions options;
  for (auto [layer, symbol] :
       {std::pair<std::string, std::string>("a.b.proj", "proj"),
        {"1", "layer_1"},
        {"x.0", "layer_0"},
        {"a.b-c", "b_c"},
        {"p.", "p"}}) {
    TestCheckpoint c;
    c.addDense(layer + ".weight", {3, 5});
    options.layer = layer;
    OwningOpRef<ModuleOp> module = import(c, options);
    ASSERT_TRUE(module) << layer << ": " << error;
    EXPECT_TRUE(module->lookupSymbol(symbol)) << layer;
    expectRoundTrip(*module);
  }
}

TEST_F(ImportTest, ShardsMustAgreeWithTheIndex) {
  TestCheckpoint c = smallLlama();
  std::map<std::string, TestCheckpoint::Tensor> shards[2];
  Json map = Json::object();
  int i = 0;
  for (const auto &[name, tensor] : c.tensors) {
    int shard = i++ % 2;
    shards[shard][name] = tensor;
    map[name] = "s" + std::to_string(shard) + ".safetensors";
  }
  auto import = [&](const Json &weightMap) {
    MemoryFolder folder("sharded");
    for (int shard : {0, 1})
      folder.add("s" + std::to_string(shard) + ".safetensors",
                 TestCheckpoint::serialize(shards[shard]));
    folder.add("config.json", c.files["config.json"].dump());
    folder.add("model.safetensors.index.json",
               Json({{"weight_map", weightMap}}).dump());
    error.clear();
    return bool(importCheckpoint(folder, {}, &context, error));
  };
  EXPECT_TRUE(import(map)) << error;

  Json changed = map;
  changed["lm_head.weight"] = "../s0.safetensors";
  EXPECT_FALSE(import(changed));
  EXPECT_NE(error.find("expected a safetensors file inside the folder, found "
                       "'../s0.safetensors'"),
            std::string::npos)
      << error;

  changed = map;
  changed["lm_head.weight"] = map["lm_head.weight"] == "s0.safetensors"
                                  ? "s1.safetensors"
                                  : "s0.safetensors";
  EXPECT_FALSE(import(changed));
  EXPECT_NE(error.find("tensor 'lm_head.weight': expected in"),
            std::string::npos)
      << error;

  changed = map;
  changed["missing"] = "s0.safetensors";
  EXPECT_FALSE(import(changed));
  EXPECT_NE(error.find("found nowhere"), std::string::npos) << error;

  shards[0]["twice"] = shards[1]["twice"] = {DType::F16, {1}, halves(1)};
  EXPECT_FALSE(import(map));
  EXPECT_NE(error.find("tensor 'twice': expected in one file, found in "
                       "'s0.safetensors' and 's1.safetensors'"),
            std::string::npos)
      << error;
}

TEST_F(ImportTest, EmittedKernelsRoundTrip) {
  for (const char *text :
       {"64,77,4,32", "5,3,8,-1,asym", "64,96,4,32,asym,act-order",
        "16,24,16,1", "9,77,3,20,asym", "5,40,7,-1"}) {
    auto shape = KernelShape::parse(text);
    ASSERT_TRUE(shape) << shape.status().message();
    std::string weights, again;
    OwningOpRef<ModuleOp> module = emitKernelModule(
        *shape, "/tmp", "k.safetensors", &context, weights, error);
    ASSERT_TRUE(module) << text << ": " << error;
    expectRoundTrip(*module);
    ASSERT_TRUE(emitKernelModule(*shape, "/tmp", "k.safetensors", &context,
                                 again, error));
    EXPECT_EQ(weights, again);
  }
  for (const char *text :
       {"", "1,2,3", "64,64,9,32", "0,64,4,32", "64,64,4,0",
        "64,64,4,32,sparse", "4000000000,4000000000,4,32", "x,64,4,32"})
    EXPECT_FALSE(KernelShape::parse(text)) << text;
}

TEST(Folder, NamesStayInside) {
  for (const char *name :
       {"a", "a/b", "model-00001-of-00002.safetensors", "..a"})
    EXPECT_TRUE(Folder::isPlainName(name)) << name;
  for (const char *name :
       {"", "/a", "..", "../a", "a/../b", "a//b", "./a", "a\n", "a\\b", "a/"})
    EXPECT_FALSE(Folder::isPlainName(name)) << name;
}

} // namespace
} // namespace mlir::gptq::test
