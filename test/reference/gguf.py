#!/usr/bin/env python3
"""Writes GGUF files, for tests, from the description of the format in docs/Formats.md.

    gguf.py OUT.gguf --architecture qwen2 --type q4_k          a random model
    gguf.py OUT.gguf --from FOLDER --type q8_0                 a dense checkpoint folder

Every weight of a model is kept beside the file as what its bytes stand for, in
float64, so that logits can be compared. Blocks are laid out element by element
through tables of bit positions; the reader has none such.
"""
import argparse
import dataclasses
import functools
import json
import os
import struct
import sys

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from reference.checkpoint import Checkpoint  # noqa: E402

MAGIC, VERSION = b"GGUF", 3
IDS = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "q2_k": 10, "q3_k": 11,
       "q4_k": 12, "q5_k": 13, "q6_k": 14, "iq4_nl": 20, "bf16": 30}
DENSE = {"f32": "<f4", "f16": "<f2", "bf16": "<u2"}


# ---------------------------------------------------------------- block types
@dataclasses.dataclass
class Matrix:
    """A matrix [N, K]: w = scales * (codes - zero) + offsets, each group its own."""
    kind: str
    codes: np.ndarray          # [N, K], unsigned
    scales: np.ndarray         # [N, groups], float64, exact
    offsets: np.ndarray        # likewise, or None
    zero: int
    data: np.ndarray           # [N, bytes of a row]

    def weight(self):
        """[N, K], exact: no factor has more than 24 bits."""
        group = self.codes.shape[1] // self.scales.shape[1]
        wide = lambda a: np.repeat(a, group, 1)
        w = wide(self.scales) * (self.codes.astype(np.float64) - self.zero)
        return w if self.offsets is None else w + wide(self.offsets)


@dataclasses.dataclass(frozen=True)
class Layout:
    block: int        # elements
    group: int        # elements that share a scale
    size: int         # bytes
    bits: int
    zero: int
    code_bits: object  # element -> the positions of its code's bits, lowest first
    has_offsets: bool = False
    is_super: bool = False


def field(byte, first, count):
    """`count` bits of a byte from bit `first` on, as positions in the block."""
    return [8 * byte + first + i for i in range(count)]


def nibble_halves(start):
    """32 codes in 16 bytes: byte j has element j below, element j + 16 above."""
    return lambda e: field(start + e % 16, 4 * (e // 16), 4)


def with_fifth(start, low):
    """The fifth bits of 32 codes are one little-endian word of bits."""
    return lambda e: low(e) + [8 * start + e]


def k_nibbles(start):
    """32 bytes hold 64 codes: the first 32 below, the others above."""
    return lambda e: field(start + e // 64 * 32 + e % 32, 4 * (e % 64 // 32), 4)


def q6_bits(e):
    half, rest = divmod(e, 128)
    quarter, column = divmod(rest, 32)
    low = field(64 * half + column + 32 * (quarter % 2), 4 * (quarter // 2), 4)
    return low + field(128 + 32 * half + column, 2 * quarter, 2)


LAYOUTS = {
    "q4_0": Layout(32, 32, 18, 4, 8, nibble_halves(2)),
    "q4_1": Layout(32, 32, 20, 4, 0, nibble_halves(4), has_offsets=True),
    "q5_0": Layout(32, 32, 22, 5, 16, with_fifth(2, nibble_halves(6))),
    "q5_1": Layout(32, 32, 24, 5, 0, with_fifth(4, nibble_halves(8)), has_offsets=True),
    # Signed codes: the eighth bit is turned over, which adds 128.
    "q8_0": Layout(32, 32, 34, 8, 128, lambda e: field(2 + e, 0, 8)),
    "q4_k": Layout(256, 32, 144, 4, 0, k_nibbles(16), True, True),
    "q5_k": Layout(256, 32, 176, 5, 0,
                   lambda e: k_nibbles(48)(e) + [8 * (16 + e % 32) + e // 32], True, True),
    "q6_k": Layout(256, 16, 210, 6, 32, q6_bits, is_super=True),
}
TYPES = tuple(LAYOUTS)


@functools.lru_cache(None)
def positions(kind):
    """[elements of a block, bits of a code]"""
    layout = LAYOUTS[kind]
    return np.array([layout.code_bits(e) for e in range(layout.block)])


def pack_six_bits(a, b):
    """Twelve bytes of eight pairs of six-bit numbers [.., 8]."""
    out = np.zeros(a.shape[:-1] + (12,), np.uint8)
    for j in range(4):
        out[..., j] = a[..., j] | (a[..., j + 4] >> 4) << 6
        out[..., j + 4] = b[..., j] | (b[..., j + 4] >> 4) << 6
        out[..., j + 8] = a[..., j + 4] & 15 | (b[..., j + 4] & 15) << 4
    return out


def halves(values):
    """[..., 2] bytes of each number as a half."""
    return np.asarray(values, "<f2")[..., None].view(np.uint8)


def pack(kind, codes, top, fine=None, low_top=None, low_fine=None):
    """A Matrix of codes [N, K] and, for each block, `top` and `low_top` as halves; for each
    group of a super-block the whole numbers `fine` and `low_fine`."""
    layout = LAYOUTS[kind]
    n, k = codes.shape
    blocks = k // layout.block
    top, low_top = (None if v is None else np.asarray(v, np.float16) for v in (top, low_top))
    stored = codes.reshape(n, blocks, layout.block).astype(np.int64)
    if kind == "q8_0":
        stored = stored ^ 128
    bits = np.zeros((n, blocks, 8 * layout.size), np.uint8)
    places = positions(kind)
    for i in range(layout.bits):
        bits[:, :, places[:, i]] = stored >> i & 1
    data = np.packbits(bits, axis=-1, bitorder="little")
    scales = top.astype(np.float64)
    offsets = None if low_top is None else low_top.astype(np.float64)
    if kind == "q6_k":
        data[..., 192:208] = fine.reshape(n, blocks, 16).astype(np.int8).view(np.uint8)
        data[..., 208:210] = halves(top)
    else:
        data[..., 0:2] = halves(top)
        if low_top is not None:
            data[..., 2:4] = halves(low_top)
        if fine is not None:
            data[..., 4:16] = pack_six_bits(*(v.reshape(n, blocks, 8).astype(np.uint8) for v in (fine, low_fine)))
    if fine is not None:
        per = layout.block // layout.group
        scales = np.repeat(scales, per, 1) * fine
        if low_fine is not None:
            offsets = -np.repeat(offsets, per, 1) * low_fine
    return Matrix(kind, codes, scales, offsets, layout.zero, data.reshape(n, -1))


def random_matrix(rng, kind, n, k, size=1.0):
    """Codes and scales of all values, with |w| ~ size / sqrt(k)."""
    layout = LAYOUTS[kind]
    codes = rng.integers(0, 1 << layout.bits, (n, k))
    blocks, groups = k // layout.block, k // layout.group
    step = size / np.sqrt(k) / (1 << layout.bits) * np.sqrt(12.0)
    top = step * rng.uniform(0.5, 1.5, (n, blocks)) * rng.choice([-1, 1], (n, blocks), p=[0.2, 0.8])
    if not layout.is_super:
        low = -top * (1 << layout.bits - 1) * rng.uniform(0.7, 1.3, top.shape) if layout.has_offsets else None
        return pack(kind, codes, top, low_top=low)
    if kind == "q6_k":
        return pack(kind, codes, top / 32, rng.integers(-128, 128, (n, groups)) // 2 * 2 + 1)
    fine, low_fine = rng.integers(0, 64, (2, n, groups))
    return pack(kind, codes, top / 32, fine, np.abs(top) / 32 * (1 << layout.bits - 1), low_fine)


def quantize(kind, w):
    """The nearest codes to w [N, K] under simple scales."""
    layout = LAYOUTS[kind]
    n, k = w.shape
    last = (1 << layout.bits) - 1
    grouped = w.reshape(n, -1, layout.group)
    low, high = np.minimum(grouped.min(-1), 0), grouped.max(-1)
    per = layout.block // layout.group
    blocks = lambda a: np.abs(a).reshape(n, -1, per).max(-1)
    fine = low_fine = low_top = None
    if layout.has_offsets:
        scale, least = (high - low) / last, low
        if layout.is_super:
            top, low_top = np.float16(blocks(scale) / 63), np.float16(blocks(least) / 63)
            wide = lambda a: np.repeat(np.maximum(a.astype(np.float64), 1e-30), per, 1)
            fine = np.clip(np.rint(scale / wide(top)), 0, 63).astype(int)
            low_fine = np.clip(np.rint(-least / wide(low_top)), 0, 63).astype(int)
        else:
            top, low_top = np.float16(scale), np.float16(least)
    else:
        scale = np.abs(grouped).max(-1) / layout.zero
        top = np.float16(scale if per == 1 else blocks(scale) / 127)
        if per > 1:
            fine = np.clip(np.rint(scale / np.repeat(np.maximum(top.astype(np.float64), 1e-30), per, 1)), 0, 127)
            fine = fine.astype(int)
    probe = pack(kind, np.zeros((n, k), int), top, fine, low_top, low_fine)
    wide = lambda a: np.repeat(a, layout.group, 1)
    steps = np.where(probe.scales == 0, 1, probe.scales)
    shifted = w if probe.offsets is None else w - wide(probe.offsets)
    codes = np.clip(np.rint(shifted / wide(steps)) + layout.zero, 0, last).astype(int)
    return pack(kind, codes, top, fine, low_top, low_fine)


# ---------------------------------------------------------------- files
def spell(text):
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def value_bytes(value, kind=None):
    """(type, bytes) of a metadata value: bool, int, float, str, or a list of one of these."""
    if isinstance(value, tuple):
        kind, value = value
    if isinstance(value, list):
        inner = [value_bytes(v, kind) for v in value]
        first = inner[0][0] if inner else 4
        assert all(t == first for t, _ in inner)
        return 9, struct.pack("<IQ", first, len(inner)) + b"".join(b for _, b in inner)
    if isinstance(value, bool):
        return 7, struct.pack("<?", value)
    if isinstance(value, str):
        return 8, spell(value)
    if isinstance(value, float):
        return 6, struct.pack("<f", value)
    number = {None: (4, "<I"), "i32": (5, "<i"), "u64": (10, "<Q"), "u16": (2, "<H")}[kind]
    return number[0], struct.pack(number[1], value)


def header_bytes(metadata, tensors, alignment, version=VERSION):
    """Everything in front of the data. `tensors`: (name, type, shape as [N, K], offset)."""
    out = MAGIC + struct.pack("<IQQ", version, len(tensors), len(metadata))
    for key, value in metadata.items():
        kind, raw = value_bytes(value)
        out += spell(key) + struct.pack("<I", kind) + raw
    for name, kind, shape, offset in tensors:
        out += spell(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *reversed(shape))
        out += struct.pack("<IQ", kind if isinstance(kind, int) else IDS[kind], offset)
    return out + b"\0" * (-len(out) % alignment)


def write(path, metadata, tensors):
    """tensors: {name: (type, shape, bytes)}"""
    alignment = metadata.get("general.alignment", 32)
    listed, offset = [], 0
    for name, (kind, shape, raw) in tensors.items():
        listed.append((name, kind, shape, offset))
        offset += len(raw) + -len(raw) % alignment
    with open(path, "wb") as f:
        f.write(header_bytes(metadata, listed, alignment))
        for _, _, raw in tensors.values():
            f.write(raw + b"\0" * (-len(raw) % alignment))
    return path


def write_parts(stem, metadata, tensors, count):
    """The same in `count` files; the path of the first."""
    names = list(tensors)
    paths = []
    for i in range(count):
        own = {"split.no": ("u16", i), "split.count": ("u16", count), "split.tensors.count": ("i32", len(names))}
        part = {n: tensors[n] for n in names[i::count]}
        paths.append(write(f"{stem}-{i + 1:05d}-of-{count:05d}.gguf", {**metadata, **own} if i == 0 else own, part))
    return paths[0]


# ---------------------------------------------------------------- models
NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
LAYER_NAMES = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
               "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
               "self_attn.k_norm": "attn_k_norm", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
               "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}


def gguf_name(name):
    module, part = name.rsplit(".", 1)
    if module.startswith("model.layers."):
        _, _, index, rest = module.split(".", 3)
        return f"blk.{index}.{LAYER_NAMES[rest]}.{part}"
    return f"{NAMES[module]}.{part}"


def interleave(rows, heads):
    """Rows of every head [.., D] dealt out: those of its first half at even places."""
    shape = rows.shape
    return rows.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


class Packed(Checkpoint):
    """What a written file stands for, as reference.model reads it."""

    def __init__(self, config):
        self.config, self.tensors, self.matrices = config, {}, {}

    def dense(self, name):
        return self.tensors[name]

    def linear(self, name):
        return self.tensors[f"{name}.weight"].T, self.tensors.get(f"{name}.bias")


def as_bytes(kind, array):
    """(bytes, the float64 they stand for) of a dense array."""
    if kind == "bf16":
        words = (np.asarray(array, np.float32).view(np.uint32) >> 16).astype("<u2")
        return words.tobytes(), (words.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    stored = np.asarray(array, DENSE[kind])
    return stored.tobytes(), stored.astype(np.float64)


def metadata_of(config, architecture):
    a = architecture
    out = {"general.architecture": a, "general.name": "test", f"{a}.block_count": config["num_hidden_layers"],
           f"{a}.context_length": config["max_position_embeddings"], f"{a}.embedding_length": config["hidden_size"],
           f"{a}.feed_forward_length": config["intermediate_size"],
           f"{a}.attention.head_count": config["num_attention_heads"],
           f"{a}.attention.head_count_kv": config["num_key_value_heads"],
           f"{a}.attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
           f"{a}.rope.freq_base": float(config["rope_theta"])}
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    if a == "llama":
        out[f"{a}.rope.dimension_count"] = width
    if "head_dim" in config:
        out[f"{a}.attention.key_length"] = out[f"{a}.attention.value_length"] = width
    if config.get("sliding_window"):
        out[f"{a}.attention.sliding_window"] = config["sliding_window"]
    return out


def pieces_metadata(path):
    """The metadata of a SentencePiece model, from its protocol buffer."""
    with open(path, "rb") as f:
        raw = f.read()

    def varint(at):
        value = shift = 0
        while True:
            value |= (raw[at] & 127) << shift
            at, shift = at + 1, shift + 7
            if raw[at - 1] < 128:
                return value, at

    def fields(at, end):
        while at < end:
            tag, at = varint(at)
            if tag & 7 == 2:
                size, at = varint(at)
                yield tag >> 3, (at, at + size)
                at += size
            elif tag & 7 == 5:
                yield tag >> 3, struct.unpack_from("<f", raw, at)[0]
                at += 4
            else:
                value, at = varint(at)
                yield tag >> 3, value

    tokens, scores, kinds = [], [], []
    for number, value in fields(0, len(raw)):
        if number == 1:
            piece = dict(fields(*value))
            tokens.append(raw[slice(*piece[1])].decode())
            scores.append(float(piece.get(2, 0.0)))
            kinds.append(piece.get(3, 1))
    return {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.scores": scores,
            "tokenizer.ggml.token_type": ("i32", kinds), "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.unknown_token_id": 0}


def pairs_metadata(path, pre="gpt-2"):
    """The metadata of the byte pairs of a tokenizer.json."""
    with open(path, encoding="utf-8") as f:
        file = json.load(f)
    vocabulary = {i: t for t, i in file["model"]["vocab"].items()}
    kinds = {i: 1 for i in vocabulary}
    for token in file["added_tokens"]:
        vocabulary[token["id"]] = token["content"]
        kinds[token["id"]] = 3 if token["special"] else 4
    count = max(vocabulary) + 1
    merges = [m if isinstance(m, str) else " ".join(m) for m in file["model"]["merges"]]
    return {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre,
            "tokenizer.ggml.tokens": [vocabulary.get(i, f"[PAD{i}]") for i in range(count)],
            "tokenizer.ggml.token_type": ("i32", [kinds.get(i, 5) for i in range(count)]),
            "tokenizer.ggml.merges": merges}


def fallback(kind, columns):
    """What a matrix of `columns` is stored as where `kind` has no such rows."""
    if kind in LAYOUTS and columns % LAYOUTS[kind].block == 0 or kind in DENSE:
        return kind
    return "q8_0" if columns % 32 == 0 else "f16"


def pack_model(config, architecture, matrix_of, vector_of, kind_of, divisors=None):
    """(tensors to write, Packed). `matrix_of(name, [N, K], kind)` gives a Matrix or an array,
    `vector_of(name, size)` an array or None, `kind_of(name)` the type wanted."""
    c, packed, tensors = config, Packed(config), {}
    heads = {"self_attn.q_proj": c["num_attention_heads"], "self_attn.k_proj": c["num_key_value_heads"]}
    width = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
    hidden, inner = c["hidden_size"], c["intermediate_size"]
    q, kv = c["num_attention_heads"] * width, c["num_key_value_heads"] * width

    def order(name, rows):
        part = ".".join(name.split(".")[-2:])
        return interleave(rows, heads[part]) if architecture == "llama" and part in heads else rows

    def matrix(name, n, k):
        kind = fallback(kind_of(name), k)
        value = matrix_of(name, (n, k), kind)
        if isinstance(value, Matrix):
            packed.matrices[name] = value
            packed.tensors[f"{name}.weight"] = value.weight()
            raw = order(name, value.data).tobytes()
        else:
            raw, packed.tensors[f"{name}.weight"] = as_bytes(kind, value)
            raw, _ = as_bytes(kind, order(name, value))
        tensors[gguf_name(f"{name}.weight")] = (kind, [n, k], raw)

    def vector(name, size):
        value = vector_of(name, size)
        if value is None:
            return
        raw, packed.tensors[name] = as_bytes("f32", value)
        raw, _ = as_bytes("f32", order(name.rsplit(".", 1)[0], value))
        tensors[gguf_name(name)] = ("f32", [size], raw)

    if divisors is not None:
        tensors["rope_freqs.weight"] = ("f32", [width // 2], as_bytes("f32", divisors)[0])
    matrix("model.embed_tokens", c["vocab_size"], hidden)
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        vector(p + "input_layernorm.weight", hidden)
        vector(p + "post_attention_layernorm.weight", hidden)
        for part, n, k in (("self_attn.q_proj", q, hidden), ("self_attn.k_proj", kv, hidden),
                           ("self_attn.v_proj", kv, hidden), ("self_attn.o_proj", hidden, q),
                           ("mlp.gate_proj", inner, hidden), ("mlp.up_proj", inner, hidden),
                           ("mlp.down_proj", hidden, inner)):
            matrix(p + part, n, k)
            vector(f"{p}{part}.bias", n)
        for part in ("self_attn.q_norm", "self_attn.k_norm"):
            vector(f"{p}{part}.weight", width)
    vector("model.norm.weight", hidden)
    if not c["tie_word_embeddings"]:
        matrix("lm_head", c["vocab_size"], hidden)
    return tensors, packed


def random_model(path, architecture="llama", kind="q8_0", seed=0, tied=False, biases=False, parts=1, divisors=None,
                 hidden=256, inner=512, layers=2, heads=4, kv_heads=2, head_dim=None, vocab=128, context=256,
                 window=None, mixed=None, embedding=None, tokenizer=None, extra=None):
    """Writes a model whose matrices are of `kind`, or as `mixed` maps parts of names to types;
    the path and what it stands for."""
    rng = np.random.default_rng(seed)
    config = {"model_type": architecture, "hidden_size": hidden, "intermediate_size": inner,
              "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
              "vocab_size": vocab, "max_position_embeddings": context, "rms_norm_eps": 2.0**-17,
              "rope_theta": 10000.0, "tie_word_embeddings": tied}
    if head_dim or architecture == "qwen3":
        config["head_dim"] = head_dim or hidden // heads
    if window:
        config["sliding_window"] = window
        if architecture == "llama":
            config["model_type"] = "mistral"

    def kind_of(name):
        if name in ("model.embed_tokens", "lm_head") and embedding:
            return embedding
        for pattern, other in (mixed or {}).items():
            if pattern in name:
                return other
        return kind

    def matrix_of(name, shape, kind):
        size = np.sqrt(shape[1]) if name == "model.embed_tokens" else 0.5 if "down" in name or "o_proj" in name else 1
        if kind in DENSE:
            return rng.normal(size=shape) * size / np.sqrt(shape[1])
        return random_matrix(rng, kind, *shape, size)

    def vector_of(name, size):
        if name.endswith("bias"):
            qkv = any(p in name for p in ("q_proj", "k_proj", "v_proj"))
            return rng.normal(size=size) * 0.3 if qkv and (biases or architecture == "qwen2") else None
        if "q_norm" in name or "k_norm" in name:
            return rng.uniform(0.7, 1.3, size) if architecture == "qwen3" else None
        return rng.uniform(0.7, 1.3, size)

    tensors, packed = pack_model(config, architecture, matrix_of, vector_of, kind_of, divisors)
    metadata = {**metadata_of(config, architecture), "tokenizer.ggml.eos_token_id": 2,
                "tokenizer.ggml.bos_token_id": 1, **(tokenizer or {}), **(extra or {})}
    if parts > 1:
        return write_parts(os.path.splitext(path)[0], metadata, tensors, parts), packed
    return write(path, metadata, tensors), packed


def convert(folder, path, kind, embedding=None, extra=None):
    """Quantizes a dense Llama checkpoint; rows are filled up with zeros to whole blocks of 32."""
    source = Checkpoint(folder)
    config = dict(source.config)
    inner = config["intermediate_size"]
    config["intermediate_size"] = inner + -inner % 32

    def matrix_of(name, shape, kind):
        w = source.dense(f"{name}.weight")
        w = np.pad(w, [(0, shape[0] - w.shape[0]), (0, shape[1] - w.shape[1])])
        return w if kind in DENSE else quantize(kind, w)

    def vector_of(name, size):
        return source.dense(name) if source.has(name) else None

    tensors, packed = pack_model(config, "llama", matrix_of, vector_of,
                                 lambda name: embedding if embedding and "embed" in name else kind)
    metadata = {**metadata_of(config, "llama"), **pieces_metadata(os.path.join(folder, "tokenizer.model")),
                **(extra or {})}
    return write(path, metadata, tensors), packed


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("out", metavar="OUT")
    p.add_argument("--type", choices=TYPES + tuple(DENSE), default="q8_0")
    p.add_argument("--architecture", choices=("llama", "qwen2", "qwen3"), default="llama")
    p.add_argument("--from", dest="source", metavar="FOLDER", help="quantize this dense checkpoint")
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args()
    if a.source:
        convert(a.source, a.out, a.type)
    else:
        random_model(a.out, a.architecture, a.type, a.seed)


if __name__ == "__main__":
    main()
