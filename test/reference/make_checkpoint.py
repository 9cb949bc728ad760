#!/usr/bin/env python3
"""Writes small random checkpoints of every family and format, for tests.

    make_checkpoint.py model OUT --family qwen3 --bits 8 --act-order
    make_checkpoint.py layer OUT --rows 77 --columns 45 --group-size 32 --asym

Same arguments, same bytes. Packs whole bit streams, so that the field-wise packing
of the quantizer and the reader of the compiler are both checked against it.
"""
import argparse
import dataclasses
import json
import os
import re
import shutil
import struct
import sys

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from reference import formats  # noqa: E402
from reference.formats import pack_stream, round_to, stored_zeros  # noqa: E402,F401

FAMILIES = ("llama", "llama3", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "phi3-long", "opt", "gpt_neox",
            "mixtral", "qwen2_moe", "qwen3_moe")
# Where a family differs from Llama: what its models are called, and its modules.
ARCHITECTURES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3", "gemma2": "Gemma2",
                 "gemma3_text": "Gemma3", "phi3": "Phi3", "opt": "OPT", "gpt_neox": "GPTNeoX",
                 "mixtral": "Mixtral", "qwen2_moe": "Qwen2Moe", "qwen3_moe": "Qwen3Moe"}
USUAL = dict(embedding="model.embed_tokens", layers="model.layers", norm="model.norm", head="lm_head",
             input_norm="input_layernorm", output="self_attn.o_proj", mlp_norm="post_attention_layernorm",
             up="mlp.up_proj", down="mlp.down_proj")
MODULES = {
    "gemma2": dict(mlp_norm="pre_feedforward_layernorm"),
    "gemma3_text": dict(mlp_norm="pre_feedforward_layernorm"),
    "opt": dict(embedding="model.decoder.embed_tokens", layers="model.decoder.layers", norm="model.decoder.final_layer_norm",
                input_norm="self_attn_layer_norm", output="self_attn.out_proj", mlp_norm="final_layer_norm", up="fc1", down="fc2"),
    "gpt_neox": dict(embedding="gpt_neox.embed_in", layers="gpt_neox.layers", norm="gpt_neox.final_layer_norm",
                     head="embed_out", output="attention.dense", up="mlp.dense_h_to_4h", down="mlp.dense_4h_to_h"),
}
ZEROS = ("middle", "random", "extremes")


def random_layer(rng, rows, columns, bits=4, group_size=-1, sym=True, act_order=False, bias=False,
                 zeros="extremes", g_idx="written", scale_dtype="F16", size=1.0):
    """One layer y = x W + b, W [rows, columns], with |W| ~ size / sqrt(rows).

    `g_idx`: "written", "absent" (then rows must fill whole words), or "negative"
    (some group numbers count from the end, as torch allows).
    """
    span = rows if group_size == -1 else group_size
    groups = -(-rows // span)
    codes = rng.integers(0, 1 << bits, (rows, columns))
    if sym:
        z = np.full((groups, columns), 1 << (bits - 1))
    elif zeros == "middle":
        quarter = max(1 << bits >> 2, 1)
        z = rng.integers(quarter, 3 * quarter + 1, (groups, columns))
    else:
        z = rng.integers(0, 1 << bits, (groups, columns))
        if zeros == "extremes":
            pick = rng.integers(0, 4, z.shape)
            z = np.where(pick == 0, 0, np.where(pick == 1, (1 << bits) - 1, z))
    spread = (1 << bits) / np.sqrt(12.0)
    scales = size / spread / np.sqrt(rows) * rng.uniform(0.5, 1.5, (groups, columns))
    index = np.arange(rows) // span
    if act_order:
        index = rng.permutation(index)
    if g_idx == "negative":
        index = np.where(rng.random(rows) < 0.5, index - groups, index)
    if g_idx == "absent":
        assert rows * bits % 32 == 0 and not act_order, "rows are not known without g_idx"
    return formats.Layer(bits, group_size, sym, codes, z, round_to(scales, scale_dtype),
                         None if g_idx == "absent" else index.astype(np.int32), act_order,
                         round_to(rng.normal(size=columns) * size, scale_dtype) if bias else None)


def write_safetensors(path, tensors):
    header, position = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, array) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(array.shape),
                        "data_offsets": [position, position + array.nbytes]}
        position += array.nbytes
    blob = json.dumps(header).encode()
    blob += b" " * (-len(blob) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(blob)) + blob)
        for _, array in tensors.values():
            f.write(np.ascontiguousarray(array).tobytes())


def write_json(folder, name, value):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
        json.dump(value, f, indent=1)


def make_layer(folder, rows, columns, seed=0, name="layer", checkpoint_format="gptq", **variant):
    """A folder that holds one quantized layer and nothing else."""
    layer = random_layer(np.random.default_rng(seed), rows, columns, **variant)
    return write_layer(folder, layer, checkpoint_format, name)


def write_layer(folder, layer, checkpoint_format="gptq", name="layer"):
    os.makedirs(folder, exist_ok=True)
    parts = formats.pack(layer, checkpoint_format)
    write_safetensors(os.path.join(folder, "model.safetensors"),
                      {f"{name}.{part}": value for part, value in parts.items()})
    write_json(folder, "config.json", {"quantization_config": formats.settings(layer, checkpoint_format)})
    return folder


def override(overrides, name):
    """What the first pattern that matches changes, or None where it leaves the module dense."""
    for pattern, changes in (overrides or {}).items():
        if re.match(re.sub(r"^[+-]:", "", pattern), name):
            return None if pattern.startswith("-:") else changes
    return {}


def kind_of(family):
    """The model_type of one of FAMILIES."""
    return {"llama3": "llama", "gemma3": "gemma3_text", "phi3-long": "phi3"}.get(family, family)


def opt_config(sizes):
    config = {"architectures": ["OPTForCausalLM"], "model_type": "opt", "activation_function": "relu", "bos_token_id": 2,
              "eos_token_id": 2, "do_layer_norm_before": True, "word_embed_proj_dim": sizes["hidden_size"],
              "ffn_dim": sizes.pop("intermediate_size"), "_remove_final_layer_norm": False}
    del sizes["num_key_value_heads"]
    return {**config, **sizes}


def neox_config(sizes):
    config = {"architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox", "hidden_act": "gelu", "layer_norm_eps": 1e-5,
              "rotary_emb_base": 10000, "rotary_pct": 0.25, "use_parallel_residual": True, "bos_token_id": 0,
              "eos_token_id": 0}
    del sizes["num_key_value_heads"]
    return {**config, **sizes}


def add_gemma(config, family, width):
    """Limits so low and a scalar so unlike head_dim that models without them would differ."""
    del config["rope_scaling"]
    config.update(hidden_act="gelu_pytorch_tanh", hidden_activation="gelu_pytorch_tanh", attention_bias=False,
                  head_dim=width, query_pre_attn_scalar=width + 8, sliding_window=24)
    if family == "gemma2":
        config.update(attn_logit_softcapping=2.0, final_logit_softcapping=10.0)
    else:
        config.update(attn_logit_softcapping=None, final_logit_softcapping=None, rope_theta=1000000.0,
                      rope_local_base_freq=10000.0, rope_scaling={"factor": 8.0, "rope_type": "linear"},
                      sliding_window_pattern=2)


def add_phi3(config, family, width):
    config.update(attention_bias=False, original_max_position_embeddings=config["max_position_embeddings"])
    if family == "phi3":
        config["sliding_window"] = 24
        return
    pairs = int(width * 0.75) // 2
    config.update(partial_rotary_factor=0.75, sliding_window=None, original_max_position_embeddings=64, rope_scaling={
        "type": "longrope", "short_factor": [1.0 + 0.05 * i for i in range(pairs)],
        "long_factor": [1.1 + 0.9 * i for i in range(pairs)]})


def model_config(family, width, **sizes):
    kind = kind_of(family)
    if family == "opt":
        return opt_config(sizes)
    if family == "gpt_neox":
        return neox_config(sizes)
    config = {"architectures": [f"{ARCHITECTURES[kind]}ForCausalLM"], "model_type": kind, "hidden_act": "silu",
              "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "rope_scaling": None,
              "bos_token_id": 1, "eos_token_id": 2, **sizes}
    if family == "llama3":
        config["rope_theta"] = 500000.0
        config["rope_scaling"] = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                                  "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    if family == "mistral":
        config["sliding_window"] = 24
    if family == "mixtral":
        config["sliding_window"] = None
    if family.startswith("qwen"):
        config.update(use_sliding_window=False, sliding_window=None, max_window_layers=28)
    if family in ("llama", "llama3", "qwen3", "qwen3_moe"):
        config["attention_bias"] = False
    if family in ("llama", "llama3"):
        config["mlp_bias"] = False
    if family in ("gemma2", "gemma3"):
        add_gemma(config, family, width)
    if family in ("phi3", "phi3-long"):
        add_phi3(config, family, width)
    return config


def make_model(folder, family="llama", seed=0, bits=4, group_size=32, sym=True, act_order=False,
               checkpoint_format="gptq", g_idx="written", zeros="middle", dense_dtype="F16", shards=1,
               tied=None, biases=False, hidden=64, intermediate=96, layers=2, heads=4, kv_heads=2,
               head_dim=None, vocab=128, context=256, rope_scaling=None, window=None, tokenizer=None,
               overrides=None, quantized_head=False, changes=None, experts=8, experts_per_token=2, expert_width=None,
               normalizes=True, dense_layers=(), sparse_step=1, quantized_router=False):
    """A whole checkpoint folder. `bits` None leaves every layer dense. `overrides` maps
    patterns to settings as `dynamic` does; `changes` are made to config.json. Families of
    mixtures have `experts` of width `expert_width`, by default `intermediate`, in all
    blocks but `dense_layers` and those `sparse_step` leaves out. The same arguments but for
    the format give the same weights."""
    rng = np.random.default_rng(seed)
    os.makedirs(folder, exist_ok=True)
    width = head_dim or hidden // heads
    kind = kind_of(family)
    modules = {**USUAL, **MODULES.get(kind, {})}
    is_gemma, is_phi, has_layer_norm = kind in ("gemma2", "gemma3_text"), kind == "phi3", kind in ("opt", "gpt_neox")
    if has_layer_norm:
        kv_heads = heads
    usually_tied = is_gemma or kind == "opt"
    if tied is None:
        tied = usually_tied
    config = model_config(
        family, width, hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, vocab_size=vocab,
        max_position_embeddings=context, tie_word_embeddings=tied,
        torch_dtype={"F16": "float16", "BF16": "bfloat16", "F32": "float32"}[dense_dtype])
    # Some families leave out what is usual.
    if usually_tied and tied:
        del config["tie_word_embeddings"]
    if head_dim or family in ("qwen3", "qwen3_moe"):
        config["head_dim"] = width
    expert_width = expert_width or intermediate
    if family == "mixtral":
        config.update(num_local_experts=experts, num_experts_per_tok=experts_per_token,
                      intermediate_size=expert_width)
    elif family in ("qwen2_moe", "qwen3_moe"):
        config.update(num_experts=experts, num_experts_per_tok=experts_per_token, norm_topk_prob=normalizes,
                      moe_intermediate_size=expert_width, decoder_sparse_step=sparse_step,
                      mlp_only_layers=list(dense_layers))
        if family == "qwen2_moe":
            config["shared_expert_intermediate_size"] = intermediate
    if rope_scaling:
        config["rope_scaling"] = rope_scaling
    if window:
        config["sliding_window"] = window
        if family.startswith("qwen"):
            config.update(use_sliding_window=True, max_window_layers=1)
    config.update(changes or {})
    # Qwen2 always has biases on queries, keys and values; Mistral never has any.
    attention_bias = biases and family in ("llama", "llama3", "qwen3")
    mlp_bias = biases and family in ("llama", "llama3")
    if attention_bias:
        config["attention_bias"] = True
    if mlp_bias:
        config["mlp_bias"] = True
    attention_bias, mlp_bias = attention_bias or has_layer_norm, mlp_bias or has_layer_norm
    tensors = {modules["embedding"] + ".weight": round_to(rng.normal(size=(vocab, hidden)), dense_dtype)}
    if kind == "opt":
        tensors["model.decoder.embed_positions.weight"] = round_to(rng.normal(size=(context + 2, hidden)) * 0.3, dense_dtype)

    def norm(name, size):
        tensors[name + ".weight"] = round_to(rng.uniform(0.7, 1.3, size) - (1 if is_gemma else 0), dense_dtype)
        if has_layer_norm:
            tensors[name + ".bias"] = round_to(rng.normal(size=size) * 0.2, dense_dtype)

    quantized = {}

    def linear(name, rows, columns, bias, size=1.0, order_of=None, is_quantized=bits is not None):
        changes = override(overrides, name)
        if not is_quantized or changes is None:
            w = rng.normal(size=(columns, rows)) * size / np.sqrt(rows)
            tensors[f"{name}.weight"] = round_to(w, dense_dtype)
            if bias:
                tensors[f"{name}.bias"] = round_to(rng.normal(size=columns) * 0.3, dense_dtype)
            return
        layer = random_layer(rng, rows, columns, changes.get("bits", bits), changes.get("group_size", group_size),
                             changes.get("sym", sym), act_order, bias, zeros, g_idx, size=size)
        if order_of in quantized and layer.index is not None:
            layer.index = quantized[order_of].index
        quantized[name] = layer
        for part, value in formats.pack(layer, checkpoint_format).items():
            tensors[f"{name}.{part}"] = value

    for i in range(layers):
        p = f"{modules['layers']}.{i}."
        # Layers of one input have one order, as quantizers write it; in every other block they differ.
        first = lambda name: p + name if act_order and i % 2 == 0 else None
        norm(p + modules["input_norm"], hidden)
        qkv_bias = attention_bias or family in ("qwen2", "qwen2_moe")
        if is_phi or kind == "gpt_neox":
            name = "self_attn.qkv_proj" if is_phi else "attention.query_key_value"
            linear(p + name, hidden, (heads + 2 * kv_heads) * width, qkv_bias)
        else:
            linear(p + "self_attn.q_proj", hidden, heads * width, qkv_bias)
            linear(p + "self_attn.k_proj", hidden, kv_heads * width, qkv_bias, order_of=first("self_attn.q_proj"))
            linear(p + "self_attn.v_proj", hidden, kv_heads * width, qkv_bias, order_of=first("self_attn.q_proj"))
        linear(p + modules["output"], heads * width, hidden, attention_bias, 0.5)
        if kind in ("qwen3", "qwen3_moe", "gemma3_text"):
            norm(p + "self_attn.q_norm", width)
            norm(p + "self_attn.k_norm", width)
        if is_gemma:
            norm(p + "post_attention_layernorm", hidden)
        norm(p + modules["mlp_norm"], hidden)

        def mlp(name, width, gate="gate_proj", up="up_proj", down="down_proj"):
            linear(p + name + gate, hidden, width, mlp_bias)
            linear(p + name + up, hidden, width, mlp_bias, order_of=first(name + gate))
            linear(p + name + down, width, hidden, mlp_bias, 0.5)

        if family == "mixtral":
            linear(p + "block_sparse_moe.gate", hidden, experts, False, is_quantized=quantized_router)
            for e in range(experts):
                mlp(f"block_sparse_moe.experts.{e}.", expert_width, "w1", "w3", "w2")
        elif family in ("qwen2_moe", "qwen3_moe") and i not in dense_layers and (i + 1) % sparse_step == 0:
            linear(p + "mlp.gate", hidden, experts, False, is_quantized=quantized_router)
            for e in range(experts):
                mlp(f"mlp.experts.{e}.", expert_width)
            if family == "qwen2_moe":
                mlp("mlp.shared_expert.", intermediate)
                linear(p + "mlp.shared_expert_gate", hidden, 1, False, is_quantized=False)
        elif is_phi:
            linear(p + "mlp.gate_up_proj", hidden, 2 * intermediate, mlp_bias)
            linear(p + modules["down"], intermediate, hidden, mlp_bias, 0.5)
        else:
            if not has_layer_norm:
                linear(p + "mlp.gate_proj", hidden, intermediate, mlp_bias)
            linear(p + modules["up"], hidden, intermediate, mlp_bias, order_of=first("mlp.gate_proj"))
            linear(p + modules["down"], intermediate, hidden, mlp_bias, 0.5)
        if is_gemma:
            norm(p + "post_feedforward_layernorm", hidden)
    norm(modules["norm"], hidden)
    if not tied or quantized_head:
        linear(modules["head"], hidden, vocab, False, is_quantized=quantized_head)
    if bits is not None:
        usual = dataclasses.replace(next(iter(quantized.values())), bits=bits, group_size=group_size, sym=sym)
        config["quantization_config"] = formats.settings(usual, checkpoint_format, overrides)
        write_json(folder, "quantize_config.json", config["quantization_config"])
    write_json(folder, "config.json", config)
    if shards == 1:
        write_safetensors(os.path.join(folder, "model.safetensors"), tensors)
    else:
        # Dealt out in turn, so that the parts of a layer lie in different shards.
        weight_map = {name: f"model-{i % shards + 1:05d}-of-{shards:05d}.safetensors"
                      for i, name in enumerate(tensors)}
        for shard in sorted(set(weight_map.values())):
            write_safetensors(os.path.join(folder, shard),
                              {n: t for n, t in tensors.items() if weight_map[n] == shard})
        total = sum(a.nbytes for _, a in tensors.values())
        write_json(folder, "model.safetensors.index.json",
                   {"metadata": {"total_size": total}, "weight_map": weight_map})
    for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        if tokenizer and os.path.exists(os.path.join(tokenizer, name)):
            shutil.copyfile(os.path.join(tokenizer, name), os.path.join(folder, name))
    return folder


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("kind", choices=("model", "layer"))
    p.add_argument("out", metavar="OUT")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--bits", type=int, choices=range(2, 9), default=4)
    p.add_argument("--group-size", type=int, default=32)
    p.add_argument("--asym", action="store_true")
    p.add_argument("--act-order", action="store_true")
    p.add_argument("--format", choices=formats.NAMES, default="gptq")
    p.add_argument("--g-idx", choices=("written", "absent", "negative"), default="written")
    p.add_argument("--zeros", choices=ZEROS, default="middle")
    p.add_argument("--bias", action="store_true")
    layer = p.add_argument_group("layer")
    layer.add_argument("--rows", type=int, default=64, help="K, input features")
    layer.add_argument("--columns", type=int, default=64, help="N, output features")
    layer.add_argument("--name", default="layer")
    whole = p.add_argument_group("model")
    whole.add_argument("--family", choices=FAMILIES, default="llama")
    whole.add_argument("--dense", action="store_true", help="quantize nothing")
    whole.add_argument("--dtype", choices=("F16", "BF16", "F32"), default="F16")
    whole.add_argument("--tied", action="store_true")
    for name, value in (("shards", 1), ("hidden", 64), ("intermediate", 96), ("layers", 2), ("heads", 4),
                        ("kv-heads", 2), ("head-dim", None), ("vocab", 128), ("context", 256)):
        whole.add_argument(f"--{name}", type=int, default=value)
    whole.add_argument("--tokenizer", metavar="DIR", help="folder to copy a tokenizer from")
    a = p.parse_args()
    variant = dict(group_size=a.group_size, sym=not a.asym, act_order=a.act_order,
                   checkpoint_format=a.format, g_idx=a.g_idx, zeros=a.zeros)
    if a.kind == "layer":
        make_layer(a.out, a.rows, a.columns, a.seed, a.name, bits=a.bits, bias=a.bias, **variant)
    else:
        make_model(a.out, a.family, a.seed, None if a.dense else a.bits, dense_dtype=a.dtype, shards=a.shards,
                   tied=a.tied or None, biases=a.bias, hidden=a.hidden, intermediate=a.intermediate, layers=a.layers,
                   heads=a.heads, kv_heads=a.kv_heads, head_dim=a.head_dim, vocab=a.vocab, context=a.context,
                   tokenizer=a.tokenizer, **variant)


if __name__ == "__main__":
    main()
