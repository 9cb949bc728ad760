"""Reads checkpoint folders and dequantizes GPTQ layers, in plain integer arithmetic.

Codes are read as one little-endian bit stream along the packed axis, whatever
their width, so that no field arithmetic is shared with the writers under test.
"""
import json
import os
import re
import struct

import numpy as np


def read_safetensors(path):
    """Returns {name: (dtype name, array)}; BF16 comes as uint16."""
    kinds = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "U8": "|u1"}
    with open(path, "rb") as f:
        raw = f.read()
    length = struct.unpack_from("<Q", raw)[0]
    header = json.loads(raw[8:8 + length])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        first, last = entry["data_offsets"]
        tensors[name] = (entry["dtype"], np.frombuffer(
            raw[8 + length + first:8 + length + last], kinds[entry["dtype"]]).reshape(entry["shape"]))
    return tensors


def as_float64(kind, array):
    if kind == "BF16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    assert kind in ("F16", "BF16", "F32", "F64"), kind
    return array.astype(np.float64)


def unpack_stream(words, bits, count):
    """Codes [count, columns] of the bit streams that run down each column of `words`."""
    w = words.astype(np.int64) & 0xFFFFFFFF
    stream = (w[:, None, :] >> np.arange(32)[None, :, None]) & 1
    stream = stream.reshape(-1, words.shape[1])[:count * bits].reshape(count, bits, -1)
    return (stream << np.arange(bits)[None, :, None]).sum(1)


def zeros_of_v1(words, bits, columns):
    """Zero points [G, columns] of what format "gptq" stores [G, words].

    Its writers took 1 off every field: with one subtraction for each word, which is
    undone by one addition for each, or, of 3 bits, off each field alone.
    """
    if bits == 3:
        return (unpack_stream(words.T, bits, columns).T + 1) % 8
    one = sum(1 << i for i in range(0, 32, bits))
    whole = (words.astype(np.int64) + one & 0xFFFFFFFF).astype(np.uint32).view(np.int32)
    return unpack_stream(whole.T, bits, columns).T


def module_settings(settings, name):
    """What `dynamic` changes for a module: the first pattern that matches from its start."""
    for pattern, changes in (settings.get("dynamic") or {}).items():
        if re.match(re.sub(r"^[+-]:", "", pattern), name):
            assert not pattern.startswith("-:"), f"{name} is not quantized"
            return changes
    return {}


class QuantizedLayer:
    """The codes, zero points and scales of one GPTQ layer, per weight."""

    def __init__(self, tensors, name, settings):
        get = lambda part: tensors[f"{name}.{part}"]
        settings = {**settings, **module_settings(settings, name)}
        bits, group_size = settings["bits"], settings["group_size"]
        qweight, scales = get("qweight")[1], as_float64(*get("scales"))
        groups, self.out_features = scales.shape
        g_idx = tensors.get(f"{name}.g_idx")
        self.in_features = len(g_idx[1]) if g_idx else qweight.shape[0] * 32 // bits
        if g_idx:
            self.group = g_idx[1].astype(np.int64)
        else:
            size = self.in_features if group_size == -1 else group_size
            self.group = np.arange(self.in_features) // size
        self.group = np.where(self.group < 0, self.group + groups, self.group)
        assert self.group.min() >= 0 and self.group.max() < groups, f"{name}: g_idx out of range"

        self.codes = unpack_stream(qweight, bits, self.in_features)
        if settings.get("sym", True):
            zeros = np.full(scales.shape, 1 << (bits - 1))
        else:
            words = get("qzeros")[1]
            if settings.get("checkpoint_format", "gptq") == "gptq":
                zeros = zeros_of_v1(words, bits, self.out_features)
            else:
                zeros = unpack_stream(words.T, bits, self.out_features).T
        self.zeros = zeros[self.group]
        self.scales = scales[self.group]
        bias = tensors.get(f"{name}.bias")
        self.bias = as_float64(*bias) if bias else None

    def weight(self):
        """W [K, N] as float64; exact, because s has 11 bits and q - z at most 9."""
        return self.scales * (self.codes - self.zeros)

    def apply(self, x):
        y = np.asarray(x, np.float64) @ self.weight()
        return y if self.bias is None else y + self.bias

    def error_bound(self, x, bias_terms=2):
        """How far float32 arithmetic may land from `apply(x)`, per output element.

        Each of the n = K terms s*(q - z)*x, or s*q*x and s*z*x when the zero point
        is folded out of the loop, is a product of exact float32 values, then takes
        part in a sum. With unit roundoff u = 2^-24 and in any order of summation,
        a term is touched by at most K - 1 additions, one per folded group, and the
        roundings of its own products and of the bias, so its relative error is at
        most gamma_m = m*u / (1 - m*u) with m = K + G + 4 (Higham, 3.1 and 3.5).
        """
        groups = int(self.group.max()) + 1
        m = self.in_features + groups + 2 + bias_terms
        gamma = m * 2.0**-24 / (1 - m * 2.0**-24)
        size = np.abs(np.asarray(x, np.float64)) @ (np.abs(self.scales) * (self.codes + self.zeros))
        return gamma * (size if self.bias is None else size + np.abs(self.bias))


class Checkpoint:
    def __init__(self, folder):
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as f:
            self.config = json.load(f)
        index = os.path.join(folder, "model.safetensors.index.json")
        files = ["model.safetensors"]
        if os.path.exists(index):
            with open(index, encoding="utf-8") as f:
                files = sorted(set(json.load(f)["weight_map"].values()))
        self.tensors = {}
        for name in files:
            self.tensors.update(read_safetensors(os.path.join(folder, name)))
        self.settings = self.config.get("quantization_config")
        alone = os.path.join(folder, "quantize_config.json")
        if self.settings is None and os.path.exists(alone):
            with open(alone, encoding="utf-8") as f:
                self.settings = json.load(f)

    def has(self, name):
        return name in self.tensors

    def dense(self, name):
        return as_float64(*self.tensors[name])

    def layer(self, name):
        return QuantizedLayer(self.tensors, name, self.settings)

    def linear(self, name):
        """Returns (W [K, N], bias [N] or None) of a quantized or dense layer."""
        if self.has(f"{name}.qweight"):
            layer = self.layer(name)
            return layer.weight(), layer.bias
        bias = self.dense(f"{name}.bias") if self.has(f"{name}.bias") else None
        return self.dense(f"{name}.weight").T, bias
