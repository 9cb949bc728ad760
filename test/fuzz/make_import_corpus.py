#!/usr/bin/env python3
"""Writes the seed corpus of ImportFuzzer: small checkpoints in its input format.

    make_import_corpus.py OUT
"""
import os
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from reference import formats  # noqa: E402
from reference.make_checkpoint import make_layer, make_model  # noqa: E402

# In the order of ImportFuzzer's fileNames.
NAMES = ["config.json", "model.safetensors", "quantize_config.json", "model.safetensors.index.json",
         "a.safetensors", "b.safetensors", "generation_config.json", "tokenizer_config.json",
         "tokenizer.model", "chat_template.jinja"]


def encode(folder, names):
    out = b""
    for name in names:
        with open(os.path.join(folder, name), "rb") as f:
            content = f.read()
        out += bytes([NAMES.index(name)]) + len(content).to_bytes(3, "little") + content
    return out


def main():
    corpus = sys.argv[1]
    os.makedirs(corpus, exist_ok=True)
    tiny = dict(hidden=8, intermediate=8, layers=1, heads=2, kv_heads=1, vocab=8, context=16, group_size=8)

    def write(name, data):
        with open(os.path.join(corpus, name), "wb") as f:
            f.write(data)

    with tempfile.TemporaryDirectory() as root:
        for family in ("llama3", "mistral", "qwen2", "qwen3", "gemma3", "phi3", "opt", "gpt_neox"):
            folder = make_model(os.path.join(root, family), family, head_dim=4 if family == "qwen3" else None,
                                bits=None if family == "llama3" else 4, sym=family != "qwen2",
                                act_order=family == "qwen3", changes={"rotary_pct": 0.5} if family == "gpt_neox" else None, **tiny)
            # An even number of files in front of the tensors asks for the whole model.
            first = "config.json" if family == "llama3" else "quantize_config.json"
            write(family, encode(folder, [first, "config.json", "model.safetensors"]))
        for i, variant in enumerate((dict(sym=False), dict(bits=8, act_order=True, group_size=8),
                                     dict(sym=False, checkpoint_format="gptq_v2", bias=True))):
            folder = make_layer(os.path.join(root, f"layer{i}"), 16, 8, **variant)
            write(f"layer{i}", encode(folder, ["config.json", "model.safetensors"]))
        for name in formats.NAMES:
            rows, columns = {"marlin": (128, 256), "awq-gemv_fast": (64, 8)}.get(name, (32, 32))
            variant = dict(sym=name == "marlin", group_size=128 if name == "marlin" else 32,
                           bits=3 if name in ("gptq", "gptq_p", "compressed-tensors-padded") else 4,
                           act_order=name == "compressed-tensors")
            folder = make_layer(os.path.join(root, name), rows, columns, checkpoint_format=name, **variant)
            write(name, encode(folder, ["config.json", "model.safetensors"]))
        overrides = {r"-:.*v_proj": {}, r"+:.*q_proj": {"bits": 8, "group_size": 4}, r".*": {"sym": False}}
        for name in ("gptq", "compressed-tensors"):
            folder = make_model(os.path.join(root, f"rules-{name}"), checkpoint_format=name, overrides=overrides, **tiny)
            write(f"rules-{name}", encode(folder, ["config.json", "config.json", "model.safetensors"]))
        with open(os.path.join(root, "llama3", "model.safetensors"), "rb") as f:
            tensors = f.read()
        index = b'{"weight_map": {"layer.weight": "a.safetensors"}}'
        write("index", bytes([3]) + len(index).to_bytes(3, "little") + index
              + bytes([4]) + len(tensors).to_bytes(3, "little") + tensors)


if __name__ == "__main__":
    main()
