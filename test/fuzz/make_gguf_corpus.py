#!/usr/bin/env python3
"""Writes the seed corpus of GGUFFuzzer: small models of every type, whole and in parts.

    make_gguf_corpus.py OUT
"""
import os
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from reference import gguf  # noqa: E402

PIECES = ["<unk>", "<s>", "</s>", *[f"<0x{b:02X}>" for b in range(256)], "\u2581a", "a"]
BYTES = [chr(b) for b in (*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324))]


def main():
    corpus = sys.argv[1]
    os.makedirs(corpus, exist_ok=True)
    pieces = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": PIECES,
              "tokenizer.ggml.scores": [0.0] * len(PIECES),
              "tokenizer.ggml.token_type": ("i32", [2, 3, 3] + [6] * 256 + [1, 1])}
    pairs = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "qwen2", "tokenizer.ggml.tokens": BYTES + ["ab"],
             "tokenizer.ggml.token_type": ("i32", [1] * 257), "tokenizer.ggml.merges": ["a b"],
             "tokenizer.chat_template": "{{ messages }}", "tokenizer.ggml.add_bos_token": False}
    tiny = dict(layers=1, heads=2, kv_heads=1, vocab=8, context=16)
    with tempfile.TemporaryDirectory() as root:
        def write(name, **variant):
            layout = gguf.LAYOUTS.get(variant["kind"])
            # Rows of a whole super-block, but few of them.
            size = dict(hidden=256, head_dim=2, heads=1) if layout and layout.is_super else dict(hidden=32)
            path, _ = gguf.random_model(os.path.join(root, f"{name}.gguf"), **{**tiny, "inner": 32, **size, **variant})
            parts = [path]
            if variant.get("parts", 1) > 1:
                parts.append(path.replace("-00001-", "-00002-"))
            content = []
            for part in parts:
                with open(part, "rb") as f:
                    content.append(f.read())
            front = b"" if len(parts) == 1 else (len(content[0]) | 1 << 31).to_bytes(4, "little")
            with open(os.path.join(corpus, name), "wb") as f:
                f.write(front + b"".join(content))

        for kind in gguf.TYPES + ("f16", "bf16", "f32"):
            write(kind, kind=kind)
        write("pieces", kind="q8_0", tokenizer=pieces)
        write("pairs", kind="q4_0", architecture="qwen2", tokenizer=pairs)
        write("qwen3", kind="q8_0", architecture="qwen3")
        write("tied", kind="q4_1", tied=True, divisors=[1.0] * 8)
        write("window", kind="q5_0", window=8)
        write("parts", kind="q8_0", parts=2)


if __name__ == "__main__":
    main()
