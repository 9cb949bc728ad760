//===- ConfigTest.cpp - Tests of configuration files ----------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "lib/Import/Config.h"
#include "TestCheckpoint.h"
#include "lib/Import/QuantConfig.h"
#include "gtest/gtest.h"

#include <cmath>

namespace mlir::gptq::test {
namespace {

/// Reads the small Llama's config.json with `changes` merged into it; a key of
/// null is removed.
abi::Expected<ModelConfig> readChanged(const Json &changes,
                                       const Json &generation = nullptr) {
  Json config = smallLlama().files["config.json"];
  for (auto it = changes.begin(); it != changes.end(); ++it)
    if (it->is_null())
      config.erase(it.key());
    else
      config[it.key()] = *it;
  MemoryFolder folder("small");
  folder.add("config.json", config.dump());
  if (!generation.is_null())
    folder.add("generation_config.json", generation.dump());
  return readModelConfig(folder);
}

void expectRefused(const Json &changes, const std::string &message) {
  abi::Expected<ModelConfig> config = readChanged(changes);
  ASSERT_FALSE(config) << changes.dump();
  EXPECT_NE(config.status().message().find(message), std::string::npos)
      << changes.dump() << " gave: " << config.status().message();
}

TEST(ModelConfig, ReadsShapes) {
  auto config = readChanged(Json::object());
  ASSERT_TRUE(config) << config.status().message();
  EXPECT_EQ(config->family, &kLlamaFamily);
  EXPECT_EQ(config->hiddenSize, 8);
  EXPECT_EQ(config->intermediateSize, 12);
  EXPECT_EQ(config->heads, 2);
  EXPECT_EQ(config->kvHeads, 1);
  EXPECT_EQ(config->headDim, 4);
  EXPECT_EQ(config->maxPositions, 32);
  EXPECT_EQ(config->epsilon, 1e-5);
  EXPECT_EQ(config->bosIds, std::vector<int64_t>{1});
  EXPECT_FALSE(config->qkvBias);
}

TEST(ModelConfig, RefusesWrongTypesAndRanges) {
  expectRefused({{"hidden_size", "8"}},
                "config.json.hidden_size: expected an integer");
  expectRefused({{"hidden_size", 0}},
                "config.json.hidden_size: expected an integer from 1");
  expectRefused({{"hidden_size", int64_t(1) << 40}}, "found 1099511627776");
  expectRefused({{"hidden_size", 8.5}}, "number with a fraction");
  expectRefused({{"hidden_size", nullptr}}, "'hidden_size' is missing");
  expectRefused({{"num_hidden_layers", 100000}}, "num_hidden_layers");
  expectRefused({{"num_key_value_heads", 3}},
                "multiple of num_key_value_heads");
  expectRefused({{"num_key_value_heads", -1}}, "num_key_value_heads");
  expectRefused({{"head_dim", 5}}, "even head_dim");
  expectRefused({{"num_attention_heads", 4096}, {"head_dim", 4096}},
                "num_attention_heads * head_dim");
  expectRefused({{"rms_norm_eps", "tiny"}}, "rms_norm_eps: expected a number");
  expectRefused({{"rms_norm_eps", -1.0}},
                "rms_norm_eps: expected a number from");
  expectRefused({{"rope_theta", 0}}, "rope_theta");
  expectRefused({{"eos_token_id", 16}},
                "eos_token_id: expected an integer from 0 to 15");
  expectRefused({{"tie_word_embeddings", "yes"}}, "expected true or false");
}

TEST(ModelConfig, RefusesWhatItDoesNotKnowByName) {
  expectRefused({{"model_type", "gpt2"}},
                "config.json.model_type: 'gpt2' is not supported");
  expectRefused({{"model_type", nullptr}}, "model_type");
  expectRefused({{"hidden_act", "quick_gelu"}},
                "'quick_gelu' is not supported");
  expectRefused({{"rope_scaling", {{"rope_type", "yarn"}, {"factor", 4.0}}}},
                "'yarn' is not supported");
  expectRefused({{"rope_scaling", {{"type", "dynamic"}, {"factor", 4.0}}}},
                "'dynamic' is not supported");
  expectRefused({{"partial_rotary_factor", 0.5}}, "partial_rotary_factor");
  expectRefused(
      {{"model_type", "qwen2"}, {"layer_types", {"linear_attention"}}},
      "'linear_attention' is not supported");
}

TEST(ModelConfig, ReadsRotaryScaling) {
  auto config = readChanged({{"rope_scaling",
                              {{"rope_type", "llama3"},
                               {"factor", 8.0},
                               {"low_freq_factor", 1.0},
                               {"high_freq_factor", 4.0},
                               {"original_max_position_embeddings", 16}}}});
  ASSERT_TRUE(config) << config.status().message();
  EXPECT_EQ(config->rope.kind, "llama3");
  EXPECT_EQ(config->rope.highFreqFactor, 4.0);
  EXPECT_EQ(config->rope.originalContext, 16);

  config = readChanged({{"rope_scaling", {{"type", "linear"}, {"factor", 2}}}});
  ASSERT_TRUE(config) << config.status().message();
  EXPECT_EQ(config->rope.kind, "linear");
  EXPECT_EQ(config->rope.factor, 2.0);

  // Newer writers keep theta and scaling in one place.
  config =
      readChanged({{"rope_theta", nullptr},
                   {"rope_parameters",
                    {{"rope_type", "default"}, {"rope_theta", 500000.0}}}});
  ASSERT_TRUE(config) << config.status().message();
  EXPECT_EQ(config->rope.kind, "none");
  EXPECT_EQ(config->rope.theta, 500000.0);

  expectRefused({{"rope_scaling",
                  {{"rope_type", "llama3"},
                   {"factor", 8.0},
                   {"low_freq_factor", 4.0},
                   {"high_freq_factor", 4.0},
                   {"original_max_position_embeddings", 16}}}},
                "high_freq_factor above low_freq_factor");
  expectRefused({{"rope_scaling", {{"rope_type", "linear"}}}},
                "'factor' is missing");
}

TEST(ModelConfig, ReadsGemma) {
  Json gemma = {{"model_type", "gemma2"},
                {"num_hidden_layers", 3},
                {"head_dim", 6},
                {"query_pre_attn_scalar", 16},
                {"sliding_window", 6},
                {"tie_word_embeddings", nullptr},
                {"attn_logit_softcapping", 5},
                {"hidden_act", "gelu"}};
  auto config = readChanged(gemma);
  ASSERT_TRUE(config) << config.status().message();
  EXPECT_EQ(config->attentionScale, 0.25);
  EXPECT_EQ(config->attentionCap, 5);
  // What is left out is usual; hidden_act is an older key.
  EXPECT_EQ(config->logitCap, 30);
  EXPECT_EQ(config->activation, Activation::GeluTanh);
  EXPECT_TRUE(config->tiedEmbeddings);
  EXPECT_EQ(config->windows, (std::vector<int64_t>{6, 0, 6}));
  EXPECT_FALSE(config->localRope);

  gemma["model_type"] = "gemma3_text";
  gemma["sliding_window_pattern"] = 3;
  gemma["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 8.0}};
  config = readChanged(gemma);
  ASSERT_TRUE(config) << config.status().message();
  EXPECT_EQ(config->logitCap, 0);
  EXPECT_EQ(config->windows, (std::vector<int64_t>{6, 6, 0}));
  EXPECT_EQ(config->rope.factor, 8);
  ASSERT_TRUE(config->localRope);
  EXPECT_EQ(config->localRope->theta, 10000);
  EXPECT_EQ(config->localRope->kind, "none");

  // Newer writers have rotary positions by type of layer.
  gemma["rope_scaling"] = nullptr;
  gemma["rope_parameters"] = {
      {"full_attention",
       {{"rope_type", "linear"}, {"factor", 4.0}, {"rope_theta", 5e5}}},
      {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 2e4}}}};
  config = readChanged(gemma);
  ASSERT_TRUE(config) << config.status().message();
  EXPECT_EQ(config->rope.factor, 4);
  EXPECT_EQ(config->rope.theta, 5e5);
  EXPECT_EQ(config->localRope->theta, 2e4);

  // Models that see images as well have what they are to text in a part, and
  // the smaller ones leave out how many heads they have.
  config = readChanged({{"model_type", "gemma3"},
                        {"eos_token_id", {1, 3}},
                        {"text_config",
                         {{"hidden_size", 64},
                          {"intermediate_size", 96},
                          {"num_hidden_layers", 1},
                          {"eos_token_id", 2}}}});
  ASSERT_TRUE(config) << config.status().message();
  EXPECT_EQ(config->heads, 8);
  EXPECT_EQ(config->kvHeads, 4);
  EXPECT_EQ(config->headDim, 256);
  EXPECT_EQ(config->vocabSize, 262208);
  EXPECT_EQ(config->eosIds, (std::vector<int64_t>{1, 3}));
  expectRefused({{"model_type", "gemma3"}}, "key 'text_config' is missing");
  expectRefused(
      {{"model_type", "gemma3"}, {"text_config", {{"model_type", "gemma9"}}}},
      "config.json.text_config.model_type: 'gemma9' is not supported");

  expectRefused({{"model_type", "gemma2"}, {"query_pre_attn_scalar", 0}},
                "query_pre_attn_scalar: expected a number from");
  expectRefused({{"model_type", "gemma2"}, {"final_logit_softcapping", -30.0}},
                "final_logit_softcapping: expected a number from 0");
  expectRefused({{"model_type", "gemma2"}, {"hidden_activation", "tanh"}},
                "config.json.hidden_activation: 'tanh' is not supported, "
                "expected 'silu', 'gelu', 'gelu_pytorch_tanh' or 'relu'");
  expectRefused(
      {{"model_type", "gemma3_text"}, {"use_bidirectional_attention", true}},
      "use_bidirectional_attention: 'true' is not supported");
  expectRefused({{"model_type", "gemma3_text"}, {"sliding_window_pattern", 0}},
                "sliding_window_pattern: expected an integer from 1");
}

TEST(ModelConfig, ReadsLongRope) {
  Json phi = {{"model_type", "phi3"},
              {"head_dim", 8},
              {"partial_rotary_factor", 0.5},
              {"original_max_position_embeddings", 8},
              {"rope_scaling",
               {{"type", "su"},
                {"short_factor", {1.0, 1.5}},
                {"long_factor", {2.0, 4.0}}}}};
  auto config = readChanged(phi);
  ASSERT_TRUE(config) << config.status().message();
  EXPECT_EQ(config->rotaryDim, 4);
  EXPECT_EQ(config->rope.originalContext, 8);
  EXPECT_EQ(config->rope.longFactors, (std::vector<double>{2, 4}));
  // 32 positions are 4 times as many: sqrt(1 + ln 4 / ln 8) = sqrt(5 / 3).
  EXPECT_NEAR(config->rope.magnitude, std::sqrt(5.0 / 3), 1e-12);

  auto changed = [&](const char *key, Json value) {
    Json copy = phi;
    copy["rope_scaling"][key] = std::move(value);
    return copy;
  };
  expectRefused(changed("long_factor", Json::array({2.0})),
                "config.json.rope_scaling.long_factor: expected a factor for "
                "each of 2 pairs, found 1");
  expectRefused(changed("short_factor", Json::array({0.0, 1.0})),
                "expected a number from 1e-06 to 1e+06, found 0");
  expectRefused(changed("short_factor", Json::array({1.0, "2"})),
                "expected a number");
  expectRefused(changed("type", "yarn"), "'yarn' is not supported");
  phi["partial_rotary_factor"] = 0.4;
  expectRefused(phi, "partial_rotary_factor: expected a part of head_dim, 8, "
                     "that is an even number of elements, found 0.4");
}

TEST(ModelConfig, ReadsLayerNormFamilies) {
  Json opt = {{"model_type", "opt"}, {"ffn_dim", 20}, {"hidden_act", nullptr}};
  auto config = readChanged(opt);
  ASSERT_TRUE(config) << config.status().message();
  EXPECT_EQ(config->intermediateSize, 20);
  EXPECT_EQ(config->activation, Activation::Relu);
  EXPECT_EQ(config->rotaryDim, 0);
  EXPECT_TRUE(config->qkvBias && config->outputBias && config->mlpBias);
  // Galactica.
  opt["enable_bias"] = false;
  opt["activation_function"] = "gelu";
  config = readChanged(opt);
  ASSERT_TRUE(config) << config.status().message();
  EXPECT_FALSE(config->qkvBias || config->mlpBias);
  EXPECT_EQ(config->activation, Activation::Gelu);
  auto refused = [&](const char *key, Json value, const char *message) {
    Json copy = opt;
    copy[key] = std::move(value);
    expectRefused(copy, message);
  };
  refused("do_layer_norm_before", false,
          "config.json.do_layer_norm_before: 'false' is not supported, "
          "expected true");
  refused("word_embed_proj_dim", 4,
          "config.json.word_embed_proj_dim: '4' is not supported, expected "
          "hidden_size, 8");
  refused("layer_norm_elementwise_affine", false, "expected true");
  refused("_remove_final_layer_norm", true, "expected false");
  refused("ffn_dim", nullptr, "key 'ffn_dim' is missing");

  Json neox = {{"model_type", "gpt_neox"},
               {"head_dim", 16},
               {"layer_norm_eps", 1e-3},
               {"hidden_act", "gelu_new"}};
  config = readChanged(neox);
  ASSERT_TRUE(config) << config.status().message();
  EXPECT_EQ(config->rotaryDim, 4);
  EXPECT_EQ(config->epsilon, 1e-3);
  EXPECT_EQ(config->activation, Activation::GeluTanh);
  EXPECT_TRUE(config->isParallel);
  EXPECT_TRUE(config->outputBias && config->mlpBias);
  neox["rotary_pct"] = 1.5;
  expectRefused(neox, "rotary_pct: expected a number from 0 to 1, found 1.5");
}

TEST(ModelConfig, ReadsWindows) {
  using Windows = std::vector<int64_t>;
  Json two = {{"num_hidden_layers", 2}, {"sliding_window", 6}};
  auto windows = [&](Json changes) -> Windows {
    changes.update(two);
    auto config = readChanged(changes);
    EXPECT_TRUE(config) << config.status().message();
    return config ? config->windows : Windows();
  };
  EXPECT_EQ(windows({{"model_type", "mistral"}}), (Windows{6, 6}));
  EXPECT_EQ(windows({{"model_type", "qwen2"}, {"use_sliding_window", false}}),
            (Windows{0, 0}));
  EXPECT_EQ(windows({{"model_type", "qwen2"},
                     {"use_sliding_window", true},
                     {"max_window_layers", 1}}),
            (Windows{0, 6}));
  EXPECT_EQ(windows({{"model_type", "qwen3"},
                     {"use_sliding_window", true},
                     {"layer_types", {"sliding_attention", "full_attention"}}}),
            (Windows{6, 0}));
  EXPECT_EQ(windows({{"model_type", "llama"}}), (Windows{0, 0}));
}

TEST(ModelConfig, FamiliesDiffer) {
  auto qwen2 = readChanged({{"model_type", "qwen2"}});
  ASSERT_TRUE(qwen2) << qwen2.status().message();
  EXPECT_TRUE(qwen2->qkvBias);
  EXPECT_FALSE(qwen2->outputBias);
  auto qwen3 = readChanged({{"model_type", "qwen3"}});
  ASSERT_TRUE(qwen3) << qwen3.status().message();
  EXPECT_EQ(qwen3->headDim, 128);
  EXPECT_FALSE(qwen3->family->modules.queryNorm.empty());
  auto llama = readChanged({{"attention_bias", true}, {"mlp_bias", true}});
  ASSERT_TRUE(llama) << llama.status().message();
  EXPECT_TRUE(llama->qkvBias && llama->outputBias && llama->mlpBias);
}

TEST(ModelConfig, GenerationConfigSaysWhereTextEnds) {
  auto config = readChanged({{"eos_token_id", 2}}, {{"eos_token_id", {3, 4}}});
  ASSERT_TRUE(config) << config.status().message();
  EXPECT_EQ(config->eosIds, (std::vector<int64_t>{3, 4}));
  EXPECT_EQ(config->bosIds, (std::vector<int64_t>{1}));
}

TEST(ModelConfig, RefusesBrokenJson) {
  for (const char *text :
       {"", "{", "[]", "{\"model_type\": \"llama\", \"model_type\": \"llama\"}",
        "\xff"}) {
    MemoryFolder folder("small");
    folder.add("config.json", text);
    EXPECT_FALSE(readModelConfig(folder)) << text;
  }
  MemoryFolder folder("small");
  folder.add("config.json", std::string(100000, '['));
  EXPECT_FALSE(readModelConfig(folder));
}

/// Reads quantization settings from config.json and, unless null, from
/// quantize_config.json.
abi::Expected<std::optional<QuantConfig>>
readQuant(const Json &inConfig, const Json &alone,
          std::vector<std::string> *warnings = nullptr) {
  TestCheckpoint c;
  c.addDense("x", {1});
  c.files["config.json"] = {{"quantization_config", inConfig}};
  if (!alone.is_null())
    c.files["quantize_config.json"] = alone;
  MemoryFolder folder = c.folder();
  auto checkpoint = Checkpoint::open(folder);
  if (!checkpoint)
    return checkpoint.status();
  auto quant = readQuantConfig(**checkpoint);
  if (warnings)
    *warnings = (*checkpoint)->warnings();
  return quant;
}

TEST(QuantConfig, ReadsBothPlacesAndSpellings) {
  auto quant = readQuant({{"bits", 8},
                          {"group_size", -1},
                          {"sym", false},
                          {"desc_act", true},
                          {"quant_method", "gptq"},
                          {"checkpoint_format", "gptq_v2"}},
                         nullptr);
  ASSERT_TRUE(quant) << quant.status().message();
  ASSERT_TRUE(quant->has_value());
  EXPECT_EQ((*quant)->bits, 8);
  EXPECT_EQ((*quant)->groupSize, -1);
  EXPECT_FALSE((*quant)->isSymmetric);
  EXPECT_TRUE((*quant)->isActOrder);
  EXPECT_EQ((*quant)->format, "gptq_v2");

  quant = readQuant(nullptr, {{"wbits", 4}, {"q_group_size", 64}});
  ASSERT_TRUE(quant) << quant.status().message();
  EXPECT_EQ((*quant)->groupSize, 64);
  EXPECT_EQ((*quant)->format, "gptq");

  quant = readQuant(nullptr, nullptr);
  ASSERT_TRUE(quant);
  EXPECT_FALSE(quant->has_value());
}

TEST(QuantConfig, PrefersConfigAndReportsDisagreement) {
  std::vector<std::string> warnings;
  auto quant = readQuant({{"bits", 4}, {"group_size", 128}},
                         {{"bits", 4}, {"group_size", 64}}, &warnings);
  ASSERT_TRUE(quant) << quant.status().message();
  EXPECT_EQ((*quant)->groupSize, 128);
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_EQ(warnings[0], "quantize_config.json says group_size 64, but "
                         "config.json.quantization_config "
                         "says 128, which is used");
}

TEST(QuantConfig, RefusesByName) {
  auto refuse = [](Json changes, const std::string &message) {
    Json config = {{"bits", 4}, {"group_size", 128}};
    config.update(changes);
    auto quant = readQuant(config, nullptr);
    ASSERT_FALSE(quant) << changes.dump();
    EXPECT_NE(quant.status().message().find(message), std::string::npos)
        << quant.status().message();
  };
  refuse({{"quant_method", "bnb"}}, "quant_method: 'bnb' is not supported");
  refuse({{"checkpoint_format", "bitblas"}}, "'bitblas' is not supported");
  refuse({{"bits", 5}}, "'5' is not supported, expected 2, 3, 4 or 8");
  refuse({{"checkpoint_format", "gptq_p"}, {"bits", 9}},
         "'9' is not supported, expected 2, 3, 4, 5, 6, 7 or 8");
  refuse({{"group_size", 0}}, "expected -1 or a positive number");
  refuse({{"group_size", -2}}, "group_size");
  refuse({{"pack_dtype", "int64"}}, "'int64' is not supported");
  refuse({{"dynamic", {{"(", Json::object()}}}}, "the pattern cannot be read");
  refuse({{"dynamic", {{".*", {{"bits", 16}}}}}}, "bits: '16'");
  refuse({{"dynamic", {{".*", 3}}}}, "expected an object");
  refuse({{"dynamic", {1}}}, "expected an object");
  refuse({{"is_marlin_format", true}, {"desc_act", true}}, "desc_act");
  refuse({{"checkpoint_format", "marlin"}, {"sym", false}}, "sym");
  refuse({{"quant_method", "awq"}, {"bits", 8}}, "'8' is not supported");
  refuse({{"quant_method", "awq"}, {"version", "exllama"}}, "'exllama'");
}

/// Settings from the text of a config.json, whose keys have an order.
abi::Expected<std::optional<QuantConfig>> readQuantText(StringRef text) {
  TestCheckpoint c;
  c.addDense("x", {1});
  MemoryFolder folder = c.folder();
  folder.add("config.json", "{\"quantization_config\": " + text.str() + "}");
  auto checkpoint = Checkpoint::open(folder);
  if (!checkpoint)
    return checkpoint.status();
  return readQuantConfig(**checkpoint);
}

// Patterns match from the start of a name, not all of it, and the first counts:
// not in the order of the alphabet, in which parsers keep keys.
TEST(QuantConfig, FirstMatchOfDynamicWins) {
  auto quant = readQuantText(
      R"({"bits": 4, "group_size": 128, "dynamic": {
            "+:model\\.layers\\.[01]\\..*down": {"bits": 8, "group_size": 32},
            "-:.*\\.down_proj": {},
            "model\\.layers\\.1": {"sym": false},
            "+:.*": {"desc_act": true, "mse": 2.4}}})");
  ASSERT_TRUE(quant) << quant.status().message();
  auto of = [&](StringRef module) {
    auto settings = (*quant)->settingsOf(module);
    EXPECT_TRUE(settings) << settings.status().message();
    return *settings;
  };
  auto down = of("model.layers.1.mlp.down_proj");
  ASSERT_TRUE(down.has_value());
  EXPECT_EQ(down->bits, 8);
  EXPECT_EQ(down->groupSize, 32);
  EXPECT_TRUE(down->isSymmetric);
  EXPECT_FALSE(of("model.layers.2.mlp.down_proj").has_value());
  EXPECT_FALSE(of("model.layers.1.mlp.up_proj")->isSymmetric);
  EXPECT_EQ(of("model.layers.1.mlp.up_proj")->bits, 4);
  EXPECT_TRUE(of("lm_head")->isActOrder);
  EXPECT_FALSE(of("model.layers.1.mlp.up_proj")->isActOrder);
}

TEST(QuantConfig, GroupsOfCompressedTensors) {
  auto quant = readQuantText(R"({
      "quant_method": "compressed-tensors", "format": "pack-quantized",
      "ignore": ["lm_head", "re:.*\\.0\\..*gate"],
      "config_groups": {
        "group_0": {"targets": ["Linear"], "input_activations": null,
          "weights": {"num_bits": 4, "type": "int", "symmetric": true,
                      "strategy": "group", "group_size": 128}},
        "group_1": {"targets": ["re:.*down_proj"],
          "weights": {"num_bits": 8, "type": "int", "symmetric": false,
                      "strategy": "channel", "actorder": "group"}}}})");
  ASSERT_TRUE(quant) << quant.status().message();
  auto of = [&](StringRef module) { return *(*quant)->settingsOf(module); };
  EXPECT_FALSE(of("lm_head").has_value());
  EXPECT_FALSE(of("model.layers.0.mlp.gate_proj").has_value());
  EXPECT_EQ(of("model.layers.1.mlp.gate_proj")->bits, 4);
  EXPECT_EQ(of("model.layers.1.mlp.down_proj")->bits, 8);
  EXPECT_EQ(of("model.layers.1.mlp.down_proj")->groupSize, -1);
  EXPECT_TRUE(of("model.layers.1.mlp.down_proj")->isActOrder);
  EXPECT_FALSE(of("model.layers.1.mlp.down_proj")->isSymmetric);
}

TEST(QuantConfig, CompressedTensorsRefusesByName) {
  auto refuse = [](const Json &changes, const std::string &message) {
    Json group = {{"targets", {"Linear"}},
                  {"weights", {{"num_bits", 4}, {"group_size", 128}}}};
    group.merge_patch(changes);
    Json config = {{"quant_method", "compressed-tensors"},
                   {"config_groups", {{"group_0", group}}}};
    auto quant = readQuantText(config.dump());
    ASSERT_FALSE(quant) << changes.dump();
    EXPECT_NE(quant.status().message().find(message), std::string::npos)
        << quant.status().message();
  };
  refuse({{"weights", {{"type", "float"}}}}, "'float' is not supported");
  refuse({{"weights", {{"strategy", "block"}}}}, "'block' is not supported");
  refuse({{"weights", {{"num_bits", 16}}}}, "num_bits");
  refuse({{"weights", {{"dynamic", true}}}}, "dynamic");
  refuse({{"input_activations", {{"num_bits", 8}}}}, "input_activations");
  refuse({{"format", "nvfp4-pack-quantized"}}, "is not supported");
  refuse({{"targets", {"re:("}}}, "the pattern cannot be read");
}

} // namespace
} // namespace mlir::gptq::test
