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

FAMILIES = ("llama", "llama3", "mistral", "qwen2", "qwen3")
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


def model_config(family, **sizes):
    kind = "llama" if family == "llama3" else family
    names = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
    config = {"architectures": [f"{names[kind]}ForCausalLM"], "model_type": kind, "hidden_act": "silu",
              "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "rope_scaling": None,
              "bos_token_id": 1, "eos_token_id": 2, **sizes}
    if family == "llama3":
        config["rope_theta"] = 500000.0
        config["rope_scaling"] = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                                  "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    if family == "mistral":
        config["sliding_window"] = 24
    if family in ("qwen2", "qwen3"):
        config.update(use_sliding_window=False, sliding_window=None, max_window_layers=28)
    if family in ("llama", "llama3", "qwen3"):
        config["attention_bias"] = False
    if family in ("llama", "llama3"):
        config["mlp_bias"] = False
    return config


def make_model(folder, family="llama", seed=0, bits=4, group_size=32, sym=True, act_order=False,
               checkpoint_format="gptq", g_idx="written", zeros="middle", dense_dtype="F16", shards=1,
               tied=False, biases=False, hidden=64, intermediate=96, layers=2, heads=4, kv_heads=2,
               head_dim=None, vocab=128, context=256, rope_scaling=None, window=None, tokenizer=None,
               overrides=None, quantized_head=False):
    """A whole checkpoint folder. `bits` None leaves every layer dense. `overrides` maps
    patterns to settings as `dynamic` does. The same arguments but for the format give the
    same weights."""
    rng = np.random.default_rng(seed)
    os.makedirs(folder, exist_ok=True)
    width = head_dim or hidden // heads
    config = model_config(
        family, hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, vocab_size=vocab,
        max_position_embeddings=context, tie_word_embeddings=tied,
        torch_dtype={"F16": "float16", "BF16": "bfloat16", "F32": "float32"}[dense_dtype])
    if head_dim or family == "qwen3":
        config["head_dim"] = width
    if rope_scaling:
        config["rope_scaling"] = rope_scaling
    if window:
        config["sliding_window"] = window
        if family in ("qwen2", "qwen3"):
            config.update(use_sliding_window=True, max_window_layers=1)
    # Qwen2 always has biases on queries, keys and values; Mistral never has any.
    attention_bias = biases and family in ("llama", "llama3", "qwen3")
    mlp_bias = biases and family in ("llama", "llama3")
    if attention_bias:
        config["attention_bias"] = True
    if mlp_bias:
        config["mlp_bias"] = True
    tensors = {"model.embed_tokens.weight": round_to(rng.normal(size=(vocab, hidden)), dense_dtype)}
    norm = lambda n: round_to(rng.uniform(0.7, 1.3, n), dense_dtype)

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
        if order_of in quantized:
            layer.index = quantized[order_of].index
        quantized[name] = layer
        for part, value in formats.pack(layer, checkpoint_format).items():
            tensors[f"{name}.{part}"] = value

    for i in range(layers):
        p = f"model.layers.{i}."
        # Layers of one input have one order, as quantizers write it; in every other block they differ.
        first = lambda name: p + name if act_order and i % 2 == 0 else None
        tensors[p + "input_layernorm.weight"] = norm(hidden)
        qkv_bias = attention_bias or family == "qwen2"
        linear(p + "self_attn.q_proj", hidden, heads * width, qkv_bias)
        linear(p + "self_attn.k_proj", hidden, kv_heads * width, qkv_bias, order_of=first("self_attn.q_proj"))
        linear(p + "self_attn.v_proj", hidden, kv_heads * width, qkv_bias, order_of=first("self_attn.q_proj"))
        linear(p + "self_attn.o_proj", heads * width, hidden, attention_bias, 0.5)
        if family == "qwen3":
            tensors[p + "self_attn.q_norm.weight"] = norm(width)
            tensors[p + "self_attn.k_norm.weight"] = norm(width)
        tensors[p + "post_attention_layernorm.weight"] = norm(hidden)
        linear(p + "mlp.gate_proj", hidden, intermediate, mlp_bias)
        linear(p + "mlp.up_proj", hidden, intermediate, mlp_bias, order_of=first("mlp.gate_proj"))
        linear(p + "mlp.down_proj", intermediate, hidden, mlp_bias, 0.5)
    tensors["model.norm.weight"] = norm(hidden)
    if not tied or quantized_head:
        linear("lm_head", hidden, vocab, False, is_quantized=quantized_head)
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
                   tied=a.tied, biases=a.bias, hidden=a.hidden, intermediate=a.intermediate, layers=a.layers,
                   heads=a.heads, kv_heads=a.kv_heads, head_dim=a.head_dim, vocab=a.vocab, context=a.context,
                   tokenizer=a.tokenizer, **variant)


if __name__ == "__main__":
    main()
