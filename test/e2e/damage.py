"""Damages checkpoints and compiled models, one thing at a time.

CHECKPOINTS and ARTIFACTS are {name: function}. A function of the first changes a
checkpoint folder in place, one of the second a .gptqm file. Container damage is
shared, because both are safetensors files.

Where only the meaning is to be wrong, checksums are made right again: a reader
must not rely on them to find a bad offset.
"""
import ctypes
import ctypes.util
import json
import os
import shutil
import struct

import numpy as np

INDEX = "model.safetensors.index.json"


# ------------------------------------------------------------- safetensors, taken apart
class Container:
    """A safetensors file as its header's entries in file order, and its data."""

    def __init__(self, path):
        with open(path, "rb") as f:
            raw = f.read()
        self.path, size = path, struct.unpack_from("<Q", raw)[0]
        self.header = json.loads(raw[8:8 + size])
        self.data = bytearray(raw[8 + size:])

    def header_bytes(self):
        blob = json.dumps(self.header, separators=(",", ":")).encode()
        return blob + b" " * (-(len(blob) + 8) % 64)

    def write(self, header=None, length=None, tail=b""):
        header = self.header_bytes() if header is None else header
        with open(self.path, "wb") as f:
            f.write(struct.pack("<Q", len(header) if length is None else length) + header + self.data + tail)

    def names(self):
        return [n for n in self.header if n != "__metadata__"]

    def some(self):
        """A tensor in the middle of the file."""
        order = sorted(self.names(), key=lambda n: self.header[n]["data_offsets"])
        order = [n for n in order if self.header[n]["data_offsets"][1] - self.header[n]["data_offsets"][0] >= 64]
        return self.header[order[len(order) // 2]]

    def get(self, name):
        begin, end = self.header[name]["data_offsets"]
        return bytes(self.data[begin:end])

    def tensors(self):
        return {n: (self.header[n]["dtype"], list(self.header[n]["shape"]), self.get(n)) for n in self.names()}

    def rebuild(self, tensors):
        """Lays {name: (dtype, shape, bytes)} out again, without holes."""
        meta = self.header.get("__metadata__")
        self.header, self.data = ({"__metadata__": meta} if meta else {}), bytearray()
        for name, (dtype, shape, content) in tensors.items():
            self.header[name] = {"dtype": dtype, "shape": list(shape),
                                 "data_offsets": [len(self.data), len(self.data) + len(content)]}
            self.data += content
        self.write()


def edit_entry(change):
    """Damage that changes one tensor's header entry."""
    def damage(path):
        c = Container(path)
        change(c.some(), c)
        c.write()
    return damage


def raw_bytes(change):
    def damage(path):
        with open(path, "rb") as f:
            raw = bytearray(f.read())
        with open(path, "wb") as f:
            f.write(change(raw))
    return damage


def header_text(change):
    def damage(path):
        c = Container(path)
        c.write(header=change(c.header_bytes()))
    return damage


def header_length(length):
    def damage(path):
        Container(path).write(length=length)
    return damage


def duplicate_name(text):
    name = next(n for n in json.loads(text) if n != "__metadata__")
    entry = json.dumps(json.loads(text)[name])
    return text.rstrip()[:-1] + f",{json.dumps(name)}:{entry}}}".encode()


def set_offsets(begin, end):
    def change(entry, container):
        a, b = entry["data_offsets"]
        entry["data_offsets"] = [begin(a, b, len(container.data)), end(a, b, len(container.data))]
    return edit_entry(change)


def hole(path):
    c = Container(path)
    cut = c.some()["data_offsets"][0]
    c.data[cut:cut] = bytes(64)
    for name in c.names():
        offsets = c.header[name]["data_offsets"]
        if offsets[0] >= cut:
            c.header[name]["data_offsets"] = [offsets[0] + 64, offsets[1] + 64]
    c.write()


CONTAINER = {
    "empty-file": raw_bytes(lambda raw: b""),
    "five-bytes": raw_bytes(lambda raw: raw[:5]),
    "only-the-header-length": raw_bytes(lambda raw: raw[:8]),
    "cut-in-the-header": raw_bytes(lambda raw: raw[:60]),
    "cut-in-the-data": raw_bytes(lambda raw: raw[:len(raw) // 2]),
    "last-byte-missing": raw_bytes(lambda raw: raw[:-1]),
    "trailing-bytes": lambda path: Container(path).write(tail=b"more"),
    "header-length-zero": header_length(0),
    "header-length-2^63": header_length(1 << 63),
    "header-length-2^64-1": header_length((1 << 64) - 1),
    "header-longer-than-the-file": header_length(1 << 30),
    "header-length-too-short": lambda path: Container(path).write(length=len(Container(path).header_bytes()) - 40),
    "header-is-not-json": header_text(lambda text: b"x" * len(text)),
    "header-is-a-list": header_text(lambda text: b"[1,2]"),
    "header-is-a-number": header_text(lambda text: b"12345678"),
    "header-is-not-utf8": header_text(lambda text: text.replace(b'"', b'"\xff\xfe', 1)),
    "header-holds-a-zero-byte": header_text(lambda text: text.replace(b'{"', b'{"\x00', 1)),
    "header-is-deep": header_text(lambda text: b'{"a":' + b"[" * 200000 + b"]" * 200000 + b"}"),
    "header-is-deep-and-open": header_text(lambda text: b'{"a":' * 200000),
    "duplicate-tensor": header_text(duplicate_name),
    "offsets-behind-the-end": set_offsets(lambda a, b, n: a + n, lambda a, b, n: b + n),
    "offsets-reversed": set_offsets(lambda a, b, n: b, lambda a, b, n: a),
    "offsets-overlap": set_offsets(lambda a, b, n: a - 32, lambda a, b, n: b - 32),
    "offset-negative": set_offsets(lambda a, b, n: -64, lambda a, b, n: b),
    "offset-wraps-around": set_offsets(lambda a, b, n: (1 << 64) - 32, lambda a, b, n: b),
    "offset-is-a-fraction": set_offsets(lambda a, b, n: a + 0.5, lambda a, b, n: b + 0.5),
    "offset-is-a-string": set_offsets(lambda a, b, n: str(a), lambda a, b, n: str(b)),
    "hole-in-the-data": hole,
    "offsets-missing": edit_entry(lambda e, c: e.pop("data_offsets")),
    "three-offsets": edit_entry(lambda e, c: e["data_offsets"].append(0)),
    "dtype-unknown": edit_entry(lambda e, c: e.update(dtype="F12")),
    "dtype-is-a-number": edit_entry(lambda e, c: e.update(dtype=7)),
    "dtype-too-wide": edit_entry(lambda e, c: e.update(dtype="F64")),
    "shape-missing": edit_entry(lambda e, c: e.pop("shape")),
    "shape-does-not-fit": edit_entry(lambda e, c: e["shape"].append(3)),
    "shape-negative": edit_entry(lambda e, c: e.update(shape=[-1] + e["shape"])),
    "shape-overflows-to-the-right-size": edit_entry(lambda e, c: e.update(shape=[1 << 62, 4] + e["shape"])),
    "shape-is-huge": edit_entry(lambda e, c: e.update(shape=[1 << 40, 1 << 40])),
}


# ------------------------------------------------------------------------- checkpoints
def weights(damage):
    """Container damage, applied to a checkpoint's only weight file."""
    return lambda folder: damage(os.path.join(folder, "model.safetensors"))


def tensors(change):
    """Damage to the dictionary {name: (dtype, shape, bytes)} of a checkpoint."""
    def damage(folder):
        c = Container(os.path.join(folder, "model.safetensors"))
        content = c.tensors()
        change(content)
        c.rebuild(content)
    return damage


UP = "model.layers.1.mlp.up_proj."


def drop(name):
    return tensors(lambda t: t.pop(name))


def array(name, change, dtype=None):
    """Damage to one tensor's values or shape, in the file's layout."""
    kinds = {"I32": "<i4", "F16": "<f2"}

    def apply(content):
        kind, shape, raw = content[name]
        new = change(np.frombuffer(raw, kinds[kind]).reshape(shape).copy())
        content[name] = (dtype or kind, new.shape, np.ascontiguousarray(new).tobytes())
    return tensors(apply)


def put(value, where=0):
    def change(a):
        a.reshape(-1)[where] = value
        return a
    return change


def json_file(name, change):
    def damage(folder):
        path = os.path.join(folder, name)
        with open(path, encoding="utf-8") as f:
            content = json.load(f)
        change(content)
        with open(path, "w", encoding="utf-8") as f:
            json.dump(content, f)
    return damage


def config(**changes):
    return json_file("config.json", lambda c: c.update(changes))


def quantization(**changes):
    """Changes to both places that say how a checkpoint is quantized."""
    def damage(folder):
        json_file("config.json", lambda c: c["quantization_config"].update(changes))(folder)
        json_file("quantize_config.json", lambda c: c.update(changes))(folder)
    return damage


def file_bytes(name, content):
    def damage(folder):
        with open(os.path.join(folder, name), "wb") as f:
            f.write(content)
    return damage


def file_change(name, change):
    return lambda folder: raw_bytes(change)(os.path.join(folder, name))


def remove(*names):
    def damage(folder):
        for name in names:
            os.remove(os.path.join(folder, name))
    return damage


def index(change):
    """An index over the only weight file, then damaged."""
    def damage(folder):
        names = Container(os.path.join(folder, "model.safetensors")).names()
        os.rename(os.path.join(folder, "model.safetensors"), os.path.join(folder, "model-00001-of-00001.safetensors"))
        content = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(names, "model-00001-of-00001.safetensors")}
        content = change(content, folder) or content
        with open(os.path.join(folder, INDEX), "wb") as f:
            f.write(content if isinstance(content, bytes) else json.dumps(content).encode())
    return damage


def point_at(target):
    def change(content, folder):
        content["weight_map"][UP + "qweight"] = target(folder)
    return index(change)


def outside(folder):
    """Path of a file that is whole, but not in the checkpoint's folder."""
    path = os.path.join(os.path.dirname(folder), "outside.safetensors")
    shutil.copyfile(os.path.join(folder, "model-00001-of-00001.safetensors"), path)
    return path


def without_sentencepiece(damage):
    """Damage to tokenizer.json where nothing else says how to tokenize."""
    def both(folder):
        os.remove(os.path.join(folder, "tokenizer.model"))
        damage(folder)
    return both


def change_merges(change):
    return without_sentencepiece(json_file("tokenizer.json", lambda t: change(t["model"])))


CHECKPOINTS = {
    **{f"weights-{name}": weights(damage) for name, damage in CONTAINER.items()},
    # config.json
    "config-missing": remove("config.json"),
    "config-empty": file_bytes("config.json", b""),
    "config-cut": file_change("config.json", lambda raw: raw[:100]),
    "config-not-utf8": file_change("config.json", lambda raw: raw.replace(b"llama", b"ll\xffma", 1)),
    "config-is-a-list": file_bytes("config.json", b"[]"),
    "config-deep": file_bytes("config.json", b'{"a":' * 100000 + b"1" + b"}" * 100000),
    "config-duplicate-key": file_change("config.json", lambda raw: b'{"hidden_size": 64,' + raw[1:]),
    "model-type-unknown": config(model_type="gpt2", architectures=["GPT2LMHeadModel"]),
    "model-type-is-a-number": config(model_type=3),
    "activation-unknown": config(hidden_act="mish"),
    "rope-type-unknown": config(rope_scaling={"rope_type": "yarn", "factor": 4.0}),
    "rope-factor-zero": config(rope_scaling={"rope_type": "linear", "factor": 0.0}),
    "rope-theta-negative": config(rope_theta=-1.0),
    "rope-theta-is-a-string": config(rope_theta="10000"),
    "epsilon-negative": config(rms_norm_eps=-1e-5),
    "hidden-size-is-a-string": config(hidden_size="64"),
    "hidden-size-is-a-fraction": config(hidden_size=64.5),
    "hidden-size-zero": config(hidden_size=0),
    "hidden-size-wrong": config(hidden_size=128),
    "layers-negative": config(num_hidden_layers=-1),
    "layers-zero": config(num_hidden_layers=0),
    "layers-giant": config(num_hidden_layers=1 << 60),
    "layers-too-many": config(num_hidden_layers=3),
    "heads-zero": config(num_attention_heads=0),
    "heads-giant": config(num_attention_heads=1 << 62),
    "heads-do-not-divide": config(num_key_value_heads=3),
    "head-dim-odd": config(head_dim=15),
    "head-dim-negative": config(head_dim=-16),
    "vocabulary-giant": config(vocab_size=1 << 40),
    "vocabulary-wrong": config(vocab_size=600),
    "intermediate-wrong": config(intermediate_size=128),
    "intermediate-is-null": config(intermediate_size=None),
    "context-zero": config(max_position_embeddings=0),
    "context-beyond-64-bits": file_change(
        "config.json", lambda raw: raw.replace(b'"max_position_embeddings": 256', b'"max_position_embeddings": 1' + b"0" * 30)),
    # how it is quantized
    "method-unsupported": quantization(quant_method="awq"),
    "method-is-a-list": quantization(quant_method=["gptq"]),
    "bits-5": quantization(bits=5),
    "bits-zero": quantization(bits=0),
    "bits-negative": quantization(bits=-4),
    "bits-is-a-string": quantization(bits="four"),
    "bits-wrong": quantization(bits=8),
    "group-size-zero": quantization(group_size=0),
    "group-size-negative": quantization(group_size=-7),
    "group-size-giant": quantization(group_size=1 << 62),
    "group-size-wrong": quantization(group_size=16),
    "format-unknown": quantization(checkpoint_format="gptq_v9"),
    "sym-is-a-string": quantization(sym="maybe"),
    "quantization-is-a-string": config(quantization_config="gptq"),
    # tensors
    "qweight-missing": drop(UP + "qweight"),
    "qzeros-missing": drop(UP + "qzeros"),
    "scales-missing": drop(UP + "scales"),
    "norm-missing": drop("model.layers.0.input_layernorm.weight"),
    "embedding-missing": drop("model.embed_tokens.weight"),
    "head-missing": drop("lm_head.weight"),
    "qweight-is-float": array(UP + "qweight", lambda a: a, "F32"),
    "qweight-too-short": array(UP + "qweight", lambda a: a[:-1]),
    "qweight-too-narrow": array(UP + "qweight", lambda a: a[:, :-1]),
    "qweight-flat": array(UP + "qweight", lambda a: a.reshape(-1)),
    "qweight-empty": array(UP + "qweight", lambda a: a[:0]),
    "qzeros-too-narrow": array(UP + "qzeros", lambda a: a[:, :-1]),
    "qzeros-too-few-groups": array(UP + "qzeros", lambda a: a[:-1]),
    "scales-too-few-groups": array(UP + "scales", lambda a: a[:-1]),
    "scales-too-narrow": array(UP + "scales", lambda a: a[:, :-1]),
    "scales-are-integers": array(UP + "scales", lambda a: a, "I16"),
    "scale-is-nan": array(UP + "scales", put(np.nan, 5)),
    "scale-is-infinite": array(UP + "scales", put(np.inf, 5)),
    "scale-is-minus-infinity": array(UP + "scales", put(-np.inf, -1)),
    "g_idx-too-large": array(UP + "g_idx", put(2, 3)),
    "g_idx-too-negative": array(UP + "g_idx", put(-3, 3)),
    "g_idx-smallest-integer": array(UP + "g_idx", put(-(1 << 31), 3)),
    "g_idx-largest-integer": array(UP + "g_idx", put((1 << 31) - 1, -1)),
    "g_idx-too-short": array(UP + "g_idx", lambda a: a[:-1]),
    "g_idx-is-float": array(UP + "g_idx", lambda a: a, "F32"),
    "norm-too-short": array("model.norm.weight", lambda a: a[:-1]),
    "norm-has-two-dimensions": array("model.norm.weight", lambda a: a.reshape(2, -1)),
    "embedding-too-narrow": array("model.embed_tokens.weight", lambda a: a[:, :-2]),
    "head-too-few-rows": array("lm_head.weight", lambda a: a[:-1]),
    "keys-narrower-than-values": array("model.layers.0.self_attn.k_proj.qweight", lambda a: a[:, :16]),
    "queries-of-another-width": array("model.layers.0.self_attn.q_proj.qweight", lambda a: np.concatenate([a, a], 1)),
    # index
    "index-not-json": index(lambda c, folder: b"{"),
    "index-without-map": index(lambda c, folder: {"metadata": {}}),
    "index-map-is-a-list": index(lambda c, folder: {"weight_map": ["a"]}),
    "index-shard-is-a-number": point_at(lambda folder: 3),
    "index-shard-missing": point_at(lambda folder: "model-00002-of-00002.safetensors"),
    "index-shard-is-the-folder": point_at(lambda folder: "."),
    "index-shard-empty-name": point_at(lambda folder: ""),
    "index-shard-in-the-parent": point_at(lambda folder: os.path.relpath(outside(folder), folder)),
    "index-shard-absolute": point_at(outside),
    "index-names-an-absent-tensor": index(
        lambda c, folder: {"weight_map": {n.replace("up_proj.qweight", "up_proj.qqweight"): s
                                          for n, s in c["weight_map"].items()}}),
    # tokenizer
    "tokenizer-model-cut": file_change("tokenizer.model", lambda raw: raw[:len(raw) // 2]),
    "tokenizer-model-is-noise": file_bytes("tokenizer.model", bytes(range(256)) * 8),
    "tokenizer-model-empty": file_bytes("tokenizer.model", b""),
    "tokenizer-json-cut": without_sentencepiece(file_change("tokenizer.json", lambda raw: raw[:500])),
    "tokenizer-json-deep": without_sentencepiece(file_bytes("tokenizer.json", b"[" * 300000)),
    "tokenizer-json-not-utf8": without_sentencepiece(
        file_change("tokenizer.json", lambda raw: raw.replace(b"Lily", b"L\xffly", 1).replace(b"<unk>", b"<\xffnk>", 1))),
    "tokenizer-type-unknown": change_merges(lambda m: m.update(type="Unigram")),
    "tokenizer-without-vocabulary": change_merges(lambda m: m.pop("vocab")),
    "tokenizer-id-negative": change_merges(lambda m: m["vocab"].update({"the": -1})),
    "tokenizer-id-giant": change_merges(lambda m: m["vocab"].update({"the": 1 << 40})),
    "tokenizer-merge-of-unknown-pieces": change_merges(lambda m: m["merges"].insert(0, "qqq zzz")),
    "tokenizer-merge-of-three": change_merges(lambda m: m["merges"].insert(0, ["a", "b", "c"])),
}


# ----------------------------------------------------------------------- compiled models
def xxh3_64(data):
    name = ctypes.util.find_library("xxhash") or "libxxhash.so.0"
    function = ctypes.CDLL(name).XXH3_64bits
    function.restype, function.argtypes = ctypes.c_uint64, [ctypes.c_char_p, ctypes.c_size_t]
    return "%016x" % function(bytes(data), len(data))


def lay_out(c, contents):
    """Writes a compiled model's tensors again, each at a multiple of 64 bytes."""
    meta = c.header["__metadata__"]
    c.header, c.data, pads = {"__metadata__": meta}, bytearray(), 0
    for name, content in contents.items():
        if len(c.data) % 64:
            filler = -len(c.data) % 64
            c.header[f"pad.{pads}"] = {"dtype": "U8", "shape": [filler],
                                       "data_offsets": [len(c.data), len(c.data) + filler]}
            c.data += bytes(filler)
            pads += 1
        c.header[name] = {"dtype": "U8", "shape": [len(content)],
                          "data_offsets": [len(c.data), len(c.data) + len(content)]}
        c.data += content
    c.write()


def contents_of(c):
    order = sorted(c.names(), key=lambda n: c.header[n]["data_offsets"])
    return {n: c.get(n) for n in order if not n.startswith("pad.")}


def manifest(change):
    """Changes the manifest, and makes its checksum right again."""
    def damage(path):
        c = Container(path)
        contents = contents_of(c)
        content = json.loads(contents["manifest.json"])
        new = change(content)
        blob = new if isinstance(new, bytes) else json.dumps(content).encode()
        contents["manifest.json"] = blob
        c.header["__metadata__"]["manifest_checksum"] = xxh3_64(blob)
        lay_out(c, contents)
    return damage


def section(pick, change):
    """Changes one section's bytes, and makes size and checksum right again."""
    def damage(path):
        c = Container(path)
        contents = contents_of(c)
        content = json.loads(contents["manifest.json"])
        name = pick(contents)
        contents[name] = change(contents[name])
        for entry in content["sections"]:
            if entry["tensor"] == name:
                entry.update(bytes=len(contents[name]), checksum=xxh3_64(contents[name]))
        contents["manifest.json"] = json.dumps(content).encode()
        c.header["__metadata__"]["manifest_checksum"] = xxh3_64(contents["manifest.json"])
        lay_out(c, contents)
    return damage


def flip(pick):
    """Flips one bit in the middle of a tensor; no checksum is mended."""
    def damage(path):
        c = Container(path)
        begin, end = c.header[pick(c.names())]["data_offsets"]
        c.data[(begin + end) // 2] ^= 16
        c.write()
    return damage


def metadata(change):
    def damage(path):
        c = Container(path)
        change(c.header["__metadata__"], c.header)
        c.write()
    return damage


def entry(change):
    """Changes the entry `generate`."""
    return manifest(lambda m: change(next(e for e in m["entries"] if e["name"] == "generate")))


def dispatch(change):
    return entry(lambda e: change(e["dispatches"][len(e["dispatches"]) // 2]))


def last_variant(change):
    return dispatch(lambda d: change(d["variants"][-1]))


def argument(kind, change):
    """Changes the first argument of a kind in the entry `generate`."""
    def find(e):
        for d in e["dispatches"]:
            for a in d["args"]:
                if kind in a:
                    return change(a)
        raise KeyError(kind)
    return entry(find)


def set_to(**values):
    return lambda target: target.update(values)


def first_weight(names):
    return next(n for n in names if n.startswith("w."))


ARTIFACTS = {
    **{f"file-{name}": damage for name, damage in CONTAINER.items()},
    # bytes
    "flipped-in-code": flip(lambda names: "code.elf"),
    "flipped-in-a-weight": flip(first_weight),
    "flipped-in-the-manifest": flip(lambda names: "manifest.json"),
    "flipped-in-the-tokenizer": flip(lambda names: next(n for n in names if n.startswith("file.tokenizer"))),
    "code-is-text": section(lambda names: "code.elf", lambda b: b"not an object" * 100),
    "code-is-empty": section(lambda names: "code.elf", lambda b: b""),
    "code-is-cut": section(lambda names: "code.elf", lambda b: b[:len(b) // 2]),
    "code-of-another-machine": section(lambda names: "code.elf", lambda b: b[:18] + b"\xb7\x00" + b[20:]),
    # The table of program headers. That of sections, 8 bytes further on, is not read to load code.
    "code-programs-overflow": section(lambda names: "code.elf", lambda b: b[:32] + b"\xf0" + b"\xff" * 7 + b[40:]),
    # header
    "version-2": metadata(lambda m, h: m.update(version="2")),
    "version-missing": metadata(lambda m, h: m.pop("version")),
    "format-other": metadata(lambda m, h: m.update(format="pt")),
    "metadata-missing": metadata(lambda m, h: h.pop("__metadata__")),
    "manifest-checksum-wrong": metadata(lambda m, h: m.update(manifest_checksum="0" * 16)),
    "manifest-checksum-missing": metadata(lambda m, h: m.pop("manifest_checksum")),
    "manifest-renamed": metadata(lambda m, h: h.update({"manifest.jsom": h.pop("manifest.json")})),
    # manifest
    "manifest-not-json": manifest(lambda m: b"{"),
    "manifest-is-a-list": manifest(lambda m: b"[]"),
    "manifest-deep": manifest(lambda m: b"[" * 300000),
    "manifest-not-utf8": manifest(lambda m: json.dumps(m).encode().replace(b"gptq", b"gp\xffq", 1)),
    "manifest-version-2": manifest(set_to(version=2)),
    "manifest-version-is-a-string": manifest(set_to(version="1")),
    "target-unknown": manifest(lambda m: m["target"].update(kind="abacus")),
    "feature-unknown": manifest(lambda m: m["target"]["features"].append("avx9000")),
    "features-missing": manifest(lambda m: m["target"].pop("features")),
    "vocabulary-zero": manifest(lambda m: m["model"].update(vocab_size=0)),
    "vocabulary-giant": manifest(lambda m: m["model"].update(vocab_size=1 << 60)),
    "vocabulary-negative": manifest(lambda m: m["model"].update(vocab_size=-512)),
    "context-zero": manifest(lambda m: m["model"].update(max_context=0)),
    "context-giant": manifest(lambda m: m["model"].update(max_context=1 << 62)),
    "bos-outside-the-vocabulary": manifest(lambda m: m["model"].update(bos_ids=[1 << 20])),
    "tokenizer-kind-unknown": manifest(lambda m: m["tokenizer"].update(kind="morse")),
    "tokenizer-file-missing": manifest(lambda m: m["tokenizer"].update(files=["absent.model"])),
    "tokenizer-is-noise": section(lambda names: next(n for n in names if n.startswith("file.tokenizer")),
                                  lambda b: bytes(range(256)) * 4),
    "section-unlisted": manifest(lambda m: m["sections"].pop()),
    "section-absent": manifest(lambda m: m["sections"].append({"tensor": "w.999999", "bytes": 1, "checksum": "0" * 16})),
    "section-size-wrong": manifest(lambda m: m["sections"][0].update(bytes=m["sections"][0]["bytes"] + 1)),
    "section-checksum-wrong": manifest(lambda m: m["sections"][-1].update(checksum="0123456789abcdef")),
    "section-checksum-not-hex": manifest(lambda m: m["sections"][-1].update(checksum="z" * 16)),
    "checksum-kind-unknown": manifest(set_to(checksum="crc8")),
    "state-giant": manifest(lambda m: m["state"][0].update(bytes=1 << 62)),
    "state-negative": manifest(lambda m: m["state"][0].update(bytes=-1)),
    "state-empty": manifest(lambda m: m["state"].clear()),
    # program
    "entries-empty": manifest(lambda m: m["entries"].clear()),
    "entries-missing": manifest(lambda m: m.pop("entries")),
    "entry-twice": manifest(lambda m: m["entries"].append(m["entries"][0])),
    "rows-zero": entry(set_to(max_m=0)),
    "rows-giant": entry(set_to(max_m=1 << 62)),
    "arena-too-small": entry(set_to(arena_bytes=64)),
    "arena-giant": entry(set_to(arena_bytes=1 << 62)),
    "arena-offset-behind-the-end": argument("arena", lambda a: a.update(arena=1 << 40)),
    "arena-offset-unaligned": argument("arena", lambda a: a.update(arena=a["arena"] + 4)),
    "arena-offset-negative": argument("arena", lambda a: a.update(arena=-64)),
    "arena-size-overflows": argument("arena", lambda a: a.update(size=[(1 << 63) - 1, (1 << 63) - 1])),
    "arena-without-size": argument("arena", lambda a: a.pop("size")),
    "weight-absent": argument("weight", set_to(weight=1 << 30)),
    "weight-negative": argument("weight", set_to(weight=-1)),
    "more-experts-used-than-there-are": argument("weight", set_to(experts=[3, 2])),
    "no-experts-used": argument("weight", set_to(experts=[0, 2])),
    "experts-of-one-number": argument("weight", set_to(experts=[2])),
    "state-absent": argument("state", set_to(state=999)),
    "input-absent": argument("input", set_to(input=7)),
    "output-absent": argument("output", set_to(output=7)),
    "argument-of-no-kind": dispatch(lambda d: d["args"].append({})),
    "arguments-missing": dispatch(lambda d: d.pop("args")),
    "symbol-absent": last_variant(set_to(symbol="no_such_kernel")),
    "symbol-empty": last_variant(set_to(symbol="")),
    "scratch-giant": last_variant(set_to(scratch_bytes=1 << 62)),
    "scratch-negative": last_variant(set_to(scratch_bytes=-64)),
    "grid-divides-by-zero": last_variant(set_to(grid=[[0, 0, 1, 0]])),
    "grid-negative": last_variant(set_to(grid=[[0, 0, -5, 1]])),
    "grid-overflows": last_variant(set_to(grid=[[0, 0, 1 << 40, 1], [0, 0, 1 << 40, 1]])),
    "grid-of-three-numbers": last_variant(set_to(grid=[[0, 0, 1]])),
    "grid-is-a-string": last_variant(set_to(grid="1")),
    "variants-empty": dispatch(lambda d: d["variants"].clear()),
    "variants-end-too-early": last_variant(set_to(m_max=1)),
    "variants-out-of-order": dispatch(lambda d: d["variants"].append(d["variants"][0])),
    "input-dtype-unknown": entry(lambda e: e["inputs"][0].update(dtype="f7")),
    "input-shape-unknown": entry(lambda e: e["inputs"][0].update(shape=["Q"])),
    "output-shape-giant": entry(lambda e: e["outputs"][0].update(shape=[1 << 31, 1 << 31, 1 << 31])),
    "output-shape-other": entry(lambda e: e["outputs"][0].update(shape=[1, 3])),
}
