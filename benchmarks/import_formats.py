#!/usr/bin/env python3
"""Imports a checkpoint of a 7B model's shape in every format: time, and memory beside the mapped files.

    import_formats.py --work DIR [--formats gptq,gguf-q4_k] [--layers N] [--compile] [--json out.json]

One format at a time: writes random codes in shards, reads them once through the page
cache's back (what the disk gives), imports them, with --compile also compiles them, and
deletes them. Pages of the files are dropped before each step, so that each reads the
disk. Needs room for twice one checkpoint, some 4 GB each.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

sys.path[:0] = [os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", part) for part in ("tools", "test")]

import numpy as np  # noqa: E402

from quantize.checkpoint import CheckpointWriter, write_json  # noqa: E402
from reference import gguf  # noqa: E402

BINARIES = os.environ.get("GPTQ_BIN_DIR", os.path.join(os.path.dirname(__file__), "..", "build", "bin"))
HIDDEN, MLP, LAYERS, HEADS, VOCABULARY, GROUP = 4096, 11008, 32, 32, 32000, 128
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCABULARY,
          "hidden_size": HIDDEN, "intermediate_size": MLP, "num_attention_heads": HEADS, "num_key_value_heads": HEADS,
          "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
          "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float16"}
PARTS = (("self_attn.q_proj", HIDDEN, HIDDEN), ("self_attn.k_proj", HIDDEN, HIDDEN), ("self_attn.v_proj", HIDDEN, HIDDEN),
         ("self_attn.o_proj", HIDDEN, HIDDEN), ("mlp.gate_proj", MLP, HIDDEN), ("mlp.up_proj", MLP, HIDDEN),
         ("mlp.down_proj", HIDDEN, MLP))
POOL = np.random.default_rng(0).integers(-2**31, 2**31, 1 << 22).astype(np.int32)


def words(*shape):
    return np.resize(POOL, shape)


def scales(*shape):
    return np.resize(np.random.default_rng(1).uniform(0.001, 0.002, 4096).astype(np.float16), shape)


def gptq(n, k):
    groups = k // GROUP
    return {"qweight": words(k // 8, n), "qzeros": words(groups, n // 8) & 0x66666666, "scales": scales(groups, n),
            "g_idx": (np.arange(k) // GROUP).astype(np.int32)}


def awq(n, k):
    return {"qweight": words(k, n // 8), "qzeros": words(k // GROUP, n // 8), "scales": scales(k // GROUP, n)}


def compressed_tensors(n, k):
    return {"weight_packed": words(n, k // 8), "weight_scale": scales(n, k // GROUP),
            "weight_shape": np.array([n, k], np.int64)}


def marlin(n, k):
    return {"B": words(k // 16, 2 * n), "s": scales(k // GROUP, n)}


common = {"bits": 4, "group_size": GROUP, "sym": False, "desc_act": False}
FORMATS = {
    "gptq": (gptq, {**common, "quant_method": "gptq", "checkpoint_format": "gptq_v2"}),
    "awq-gemm": (awq, {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"}),
    "compressed-tensors": (compressed_tensors, {
        "quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": ["lm_head"],
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": {
            "num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": GROUP}}}}),
    "marlin": (marlin, {**common, "sym": True, "quant_method": "gptq", "checkpoint_format": "marlin",
                        "is_marlin_format": True}),
    "gguf-q4_0": "q4_0",
    "gguf-q4_k": "q4_k",
    "gguf-q6_k": "q6_k",
}


def write_folder(folder, packer, settings, layers):
    writer = CheckpointWriter(folder, 512 << 20)
    table = np.resize(scales(4096), (VOCABULARY, HIDDEN))
    writer.add("model.embed_tokens.weight", table)
    for i in range(layers):
        for part in ("input_layernorm", "post_attention_layernorm"):
            writer.add(f"model.layers.{i}.{part}.weight", np.ones(HIDDEN, np.float16))
        for part, n, k in PARTS:
            for name, value in packer(n, k).items():
                writer.add(f"model.layers.{i}.{part}.{name}", value)
    writer.add("model.norm.weight", np.ones(HIDDEN, np.float16))
    writer.add("lm_head.weight", table)
    writer.close()
    write_json(folder, "config.json", {**CONFIG, "num_hidden_layers": layers, "quantization_config": settings})


def write_gguf(path, kind, layers, parts=8):
    """Random bytes with scales that are finite, in parts."""
    metadata = gguf.metadata_of({**CONFIG, "num_hidden_layers": layers}, "llama")
    shapes = {"token_embd.weight": (VOCABULARY, HIDDEN), "output.weight": (VOCABULARY, HIDDEN)}
    vectors = {"output_norm.weight": HIDDEN}
    for i in range(layers):
        for part in ("attn_norm", "ffn_norm"):
            vectors[f"blk.{i}.{part}.weight"] = HIDDEN
        for part, n, k in PARTS:
            shapes[gguf.gguf_name(f"model.layers.{i}.{part}.weight")] = (n, k)
    size = gguf.LAYOUTS[kind].size
    sample = gguf.random_matrix(np.random.default_rng(0), kind, 64, 4096).data.reshape(-1, size)
    pool = np.resize(sample, ((1 << 20) // size, size)).tobytes()

    class Repeated:
        """`count` bytes of the pool, as if they were there."""

        def __init__(self, count):
            self.count = count

        def __len__(self):
            return self.count

        def __add__(self, tail):
            whole, rest = divmod(self.count, len(pool))
            return pool * whole + pool[:rest] + tail

    tensors = {n: ("f32", [s], np.ones(s, "<f4").tobytes()) for n, s in vectors.items()}
    for name, (n, k) in shapes.items():
        tensors[name] = (kind, [n, k], Repeated(n * k // gguf.LAYOUTS[kind].block * size))
    return gguf.write_parts(path, metadata, tensors, parts)


def drop(folder):
    os.sync()
    for name in os.listdir(folder):
        with open(os.path.join(folder, name), "rb") as f:
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_rate(folder):
    """Bytes a second of reading every file once, in order."""
    drop(folder)
    start, total = time.time(), 0
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb", buffering=0) as f:
            while block := f.read(16 << 20):
                total += len(block)
    return total, total / (time.time() - start)


def measure(folder, name, *arguments):
    """(seconds, largest memory of its own, largest of mapped files) of a tool."""
    drop(folder)
    start, own, mapped = time.time(), 0, 0
    process = subprocess.Popen([os.path.join(BINARIES, name), *arguments], stdout=subprocess.DEVNULL)
    while process.poll() is None:
        try:
            with open(f"/proc/{process.pid}/status", encoding="ascii") as f:
                kinds = dict(re.findall(r"^(RssAnon|RssFile):\s+(\d+) kB", f.read(), re.M))
            own, mapped = max(own, int(kinds.get("RssAnon", 0))), max(mapped, int(kinds.get("RssFile", 0)))
        except (OSError, ValueError):
            pass
        time.sleep(0.01)
    if process.returncode != 0:
        sys.exit(f"{name} failed")
    return time.time() - start, own << 10, mapped << 10


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--work", metavar="DIR", help="a folder on the disk to measure")
    p.add_argument("--formats", default=",".join(FORMATS))
    p.add_argument("--layers", type=int, default=LAYERS)
    p.add_argument("--compile", action="store_true")
    p.add_argument("--json", metavar="FILE")
    a = p.parse_args()
    rows = []
    for name in a.formats.split(","):
        root = tempfile.mkdtemp(dir=a.work)
        try:
            folder = os.path.join(root, "checkpoint")
            os.makedirs(folder)
            source = folder
            if name.startswith("gguf"):
                source = write_gguf(os.path.join(folder, "model"), FORMATS[name], a.layers)
            else:
                write_folder(folder, *FORMATS[name], a.layers)
            total, rate = read_rate(folder)
            steps = {"import": ("gptq-translate", "--import-hf", source, "-o", os.path.join(root, "m.mlir"))}
            if a.compile:
                steps["compile"] = ("gptq-compile", source, "--quiet", "-o", os.path.join(root, "m.gptqm"))
            row = {"format": name, "bytes": total, "disk_bytes_per_second": rate}
            for step, command in steps.items():
                seconds, own, mapped = measure(folder, *command)
                row[step] = {"seconds": seconds, "own_bytes": own, "mapped_bytes": mapped}
            rows.append(row)
        finally:
            shutil.rmtree(root)
        print(f"{name}: {total / 1e9:.2f} GB, disk {rate / 1e6:.0f} MB/s; " + "; ".join(
            f"{step} {row[step]['seconds']:.1f} s, {row[step]['own_bytes'] / 1e6:.0f} MB of its own, "
            f"{row[step]['mapped_bytes'] / 1e6:.0f} MB mapped" for step in steps), flush=True)
    if a.json:
        with open(a.json, "w", encoding="utf-8") as f:
            json.dump(rows, f, indent=1)


if __name__ == "__main__":
    main()
