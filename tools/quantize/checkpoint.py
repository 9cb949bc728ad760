"""Reads and writes safetensors files and checkpoint folders.

A tensor travels as `Tensor`: its safetensors dtype and an array of the same
item size. numpy has no bfloat16, so BF16 bytes travel as uint16.
"""
import json
import mmap
import os
import struct
from collections import namedtuple

import numpy as np

Tensor = namedtuple("Tensor", "dtype array")

STORAGE = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4",
           "I16": "<i2", "I8": "|i1", "U8": "|u1", "BOOL": "|b1"}
NAMES = {np.dtype(v).str: k for k, v in STORAGE.items() if k != "BF16"}

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


def to_float(tensor, dtype=np.float32):
    """Returns the values of a floating-point tensor as an array of `dtype`."""
    if tensor.dtype == "BF16":
        # bfloat16 is the upper half of a float32.
        return (tensor.array.astype(np.uint32) << 16).view(np.float32).astype(dtype)
    if tensor.dtype not in ("F16", "F32", "F64"):
        raise ValueError(f"expected a floating-point tensor, found {tensor.dtype}")
    return tensor.array.astype(dtype)


def from_float(array, dtype):
    """Returns `array` rounded to the nearest, ties to even, as a tensor of `dtype`."""
    if dtype != "BF16":
        return Tensor(dtype, np.asarray(array).astype(STORAGE[dtype]))
    word = np.asarray(array, np.float32).view(np.uint32).astype(np.uint64)
    return Tensor("BF16", ((word + 0x7FFF + ((word >> 16) & 1)) >> 16).astype("<u2"))


def read_safetensors(path):
    """Returns {name: Tensor}. The arrays are views of the mapped file."""
    with open(path, "rb") as f:
        data = np.frombuffer(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    if data.size < 8:
        raise ValueError(f"{path}: {data.size} bytes, a safetensors file has at least 8")
    size = struct.unpack("<Q", data[:8].tobytes())[0]
    if size > data.size - 8:
        raise ValueError(f"{path}: the header claims {size} bytes, the file has {data.size - 8}")
    header = json.loads(data[8:8 + size].tobytes())
    header.pop("__metadata__", None)
    body, out = data[8 + size:], {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        dtype = np.dtype(STORAGE[entry["dtype"]])
        count = int(np.prod(entry["shape"], dtype=np.int64))
        if not 0 <= begin <= end <= body.size or end - begin != count * dtype.itemsize:
            raise ValueError(f"{path}: {name} {entry['shape']} does not fit bytes {begin}..{end}")
        out[name] = Tensor(entry["dtype"], body[begin:end].view(dtype).reshape(entry["shape"]))
    return out


def write_safetensors(path, tensors):
    """Writes {name: Tensor or array} under a temporary name, then renames it."""
    header, position, order = {"__metadata__": {"format": "pt"}}, 0, []
    for name in sorted(tensors):
        tensor = tensors[name]
        if not isinstance(tensor, Tensor):
            tensor = Tensor(NAMES[np.asarray(tensor).dtype.str], np.asarray(tensor))
        order.append(tensor)
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.array.shape),
                        "data_offsets": [position, position + tensor.array.nbytes]}
        position += tensor.array.nbytes
    blob = json.dumps(header, separators=(",", ":")).encode()
    blob += b" " * (-len(blob) % 8)
    temporary = f"{path}.tmp"
    with open(temporary, "wb") as f:
        f.write(struct.pack("<Q", len(blob)))
        f.write(blob)
        for tensor in order:
            f.write(np.ascontiguousarray(tensor.array).data)
    os.replace(temporary, path)


def read_json(folder, name):
    with open(os.path.join(folder, name), encoding="utf-8") as f:
        return json.load(f)


def write_json(folder, name, value):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
        json.dump(value, f, indent=2, ensure_ascii=False)
        f.write("\n")


def read_checkpoint(folder):
    """Returns {name: Tensor} over all shards of a checkpoint folder."""
    if not os.path.exists(os.path.join(folder, INDEX)):
        return read_safetensors(os.path.join(folder, SINGLE))
    weight_map = read_json(folder, INDEX)["weight_map"]
    shards = {s: read_safetensors(os.path.join(folder, s)) for s in sorted(set(weight_map.values()))}
    return {name: shards[shard][name] for name, shard in weight_map.items()}


class CheckpointWriter:
    """Collects tensors into shards of at most `shard_bytes` as they come."""

    def __init__(self, folder, shard_bytes=4 << 30):
        self.folder, self.shard_bytes = folder, shard_bytes
        self.pending, self.pending_bytes, self.shards, self.total = {}, 0, [], 0
        os.makedirs(folder, exist_ok=True)

    def add(self, name, tensor):
        size = (tensor.array if isinstance(tensor, Tensor) else tensor).nbytes
        if self.pending and self.pending_bytes + size > self.shard_bytes:
            self._flush()
        self.pending[name] = tensor
        self.pending_bytes += size
        self.total += size

    def _flush(self):
        write_safetensors(os.path.join(self.folder, f"shard-{len(self.shards) + 1:05d}.part"), self.pending)
        self.shards.append(sorted(self.pending))
        self.pending, self.pending_bytes = {}, 0

    def close(self):
        """Gives the shards their final names, which hold their number."""
        self._flush()
        parts = [os.path.join(self.folder, f"shard-{i + 1:05d}.part") for i in range(len(self.shards))]
        if len(parts) == 1:
            os.replace(parts[0], os.path.join(self.folder, SINGLE))
            return
        weight_map = {}
        for i, (part, names) in enumerate(zip(parts, self.shards)):
            final = f"model-{i + 1:05d}-of-{len(parts):05d}.safetensors"
            os.replace(part, os.path.join(self.folder, final))
            weight_map.update(dict.fromkeys(names, final))
        write_json(self.folder, INDEX, {"metadata": {"total_size": self.total},
                                        "weight_map": dict(sorted(weight_map.items()))})
