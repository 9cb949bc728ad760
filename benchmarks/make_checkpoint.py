#!/usr/bin/env python3
"""Writes a large random GPTQ checkpoint of a published model's shape.

The codes are random bytes, so this runs about as fast as the disk. Scales and
norms are chosen so that activations keep their size through all layers: outputs
of a projection have the variance of its inputs, and the two branches of each
of L layers add 1/(2L) of it. Memory stays near one shard.

    make_checkpoint.py --shape tinyllama-1.1b --out DIR
"""
import argparse
import math
import os
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))

import numpy as np

from quantize import packing
from quantize.checkpoint import CheckpointWriter, write_json

# hidden, MLP, layers, heads, key/value heads, vocabulary, context, rotary base, model_type
SHAPES = {
    "tinyllama-1.1b": (2048, 5632, 22, 32, 4, 32000, 2048, 10000.0, "llama"),
    "llama2-7b": (4096, 11008, 32, 32, 32, 32000, 4096, 10000.0, "llama"),
    "mistral-7b": (4096, 14336, 32, 32, 8, 32000, 32768, 10000.0, "mistral"),
    "llama3-8b": (4096, 14336, 32, 32, 8, 128256, 8192, 500000.0, "llama"),
    "qwen2-7b": (3584, 18944, 28, 28, 4, 152064, 32768, 1000000.0, "qwen2"),
}
TOKENIZER = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json")


def random_words(rng, shape, pool):
    words = np.frombuffer(rng.bytes(4 * min(math.prod(shape), pool or math.prod(shape))), np.int32)
    return np.resize(words, shape)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--out", required=True, metavar="DIR")
    p.add_argument("--shape", choices=SHAPES, default="tinyllama-1.1b")
    p.add_argument("--layers", type=int, help="fewer layers than the shape has")
    p.add_argument("--vocab", type=int, help="fewer words than the shape has")
    p.add_argument("--bits", type=int, choices=(2, 3, 4, 8), default=4)
    p.add_argument("--group-size", type=int, default=128)
    p.add_argument("--act-order", action="store_true")
    p.add_argument("--tokenizer", metavar="DIR", help="folder to copy a tokenizer from")
    p.add_argument("--shard-size", type=int, default=512, metavar="MIB")
    p.add_argument("--pool", type=int, metavar="N",
                   help="repeat N random values in every tensor, so that the file compresses well")
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args()
    hidden, mlp, layers, heads, kv_heads, vocab, context, theta, kind = SHAPES[a.shape]
    layers, vocab = a.layers or layers, a.vocab or vocab
    width = hidden // heads
    rng = np.random.default_rng(a.seed)
    writer = CheckpointWriter(a.out, a.shard_size << 20)

    def normal(rows, columns):
        size = rows * columns
        return np.resize(rng.standard_normal(min(size, a.pool or size), np.float32).astype(np.float16), (rows, columns))

    def linear(name, rows, columns, variance=1.0, bias=False):
        size = rows if a.group_size == -1 else a.group_size
        groups = -(-rows // size)
        # Random codes have the variance (4^b - 1) / 12.
        scale = math.sqrt(12 * variance / rows / (4**a.bits - 1))
        zeros = np.full((1, columns), 1 << (a.bits - 1))
        index = (np.arange(rows) // size).astype(np.int32)
        writer.add(f"{name}.qweight", random_words(rng, (packing.packed_words(rows, a.bits), columns), a.pool))
        writer.add(f"{name}.qzeros", np.repeat(packing.pack_zeros(zeros, a.bits, "gptq"), groups, 0))
        spread = rng.uniform(0.8, 1.2, min(groups * columns, a.pool or groups * columns))
        writer.add(f"{name}.scales", np.resize((scale * spread).astype(np.float16), (groups, columns)))
        writer.add(f"{name}.g_idx", rng.permutation(index) if a.act_order else index)
        if bias:
            writer.add(f"{name}.bias", (0.1 * rng.standard_normal(columns)).astype(np.float16))

    ones = np.ones(hidden, np.float16)
    writer.add("model.embed_tokens.weight", normal(vocab, hidden))
    branch = 1 / (2 * layers)
    for i in range(layers):
        prefix = f"model.layers.{i}."
        writer.add(prefix + "input_layernorm.weight", ones)
        writer.add(prefix + "post_attention_layernorm.weight", ones)
        for name, columns in (("q", heads * width), ("k", kv_heads * width), ("v", kv_heads * width)):
            linear(f"{prefix}self_attn.{name}_proj", hidden, columns, bias=kind == "qwen2")
        linear(prefix + "self_attn.o_proj", heads * width, hidden, branch)
        linear(prefix + "mlp.gate_proj", hidden, mlp)
        linear(prefix + "mlp.up_proj", hidden, mlp)
        linear(prefix + "mlp.down_proj", mlp, hidden, branch)
        print(f"layer {i + 1}/{layers}", flush=True)
    writer.add("model.norm.weight", ones)
    writer.add("lm_head.weight", (normal(vocab, hidden) / np.float16(math.sqrt(hidden))))
    writer.close()

    settings = {"bits": a.bits, "group_size": a.group_size, "sym": True, "desc_act": a.act_order,
                "quant_method": "gptq", "checkpoint_format": "gptq"}
    names = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2"}
    write_json(a.out, "quantize_config.json", settings)
    write_json(a.out, "config.json", {
        "architectures": [f"{names[kind]}ForCausalLM"], "model_type": kind, "vocab_size": vocab,
        "hidden_size": hidden, "intermediate_size": mlp, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "max_position_embeddings": context,
        "rms_norm_eps": 1e-5, "rope_theta": theta, "rope_scaling": None, "hidden_act": "silu",
        "sliding_window": None, "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2,
        "torch_dtype": "float16", "quantization_config": settings})
    for name in TOKENIZER:
        if a.tokenizer and os.path.exists(os.path.join(a.tokenizer, name)):
            shutil.copyfile(os.path.join(a.tokenizer, name), os.path.join(a.out, name))
    print(f"wrote {a.out}: {writer.total / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
