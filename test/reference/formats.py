"""Packs layers as each checkpoint format is described to, for tests.

Written from the descriptions in docs/Formats.md, in plain integer arithmetic on
whole streams and index tables, so that no field arithmetic is shared with the
reader under test. All formats hold the same codes, zero points and scales.
"""
import dataclasses

import numpy as np

STREAM_BITS, PLANAR_BITS = (2, 3, 4, 8), (2, 3, 4, 5, 6, 7, 8)
# Nibble i of a word of AWQ's gemm holds column AWQ_ORDER[i] of its eight.
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
# What format "gptq" took off the three words of 3-bit zero points in old versions of
# one writer: the first and the last are swapped.
SWAPPED_ONES = (0x24924924, 0x92492492, 0x49249249)


@dataclasses.dataclass
class Layer:
    """codes [K, N] and zeros [G, N] as integers, scales [G, N] as (dtype, array)."""
    bits: int
    group_size: int
    sym: bool
    codes: np.ndarray
    zeros: np.ndarray
    scales: tuple
    index: np.ndarray  # the group of each row as stored, or None
    act_order: bool = False
    bias: tuple = None

    def scale_bits(self):
        """Scales as the integers that spell them."""
        return self.scales[1].view({2: np.uint16, 4: np.uint32}[self.scales[1].itemsize])


def round_to(array, dtype):
    """(dtype, array) in the storage of a safetensors float type."""
    if dtype == "BF16":
        word = np.asarray(array, np.float32).view(np.uint32)
        return "BF16", (word >> 16).astype("<u2")  # truncates; any bfloat16 will do
    return dtype, np.asarray(array).astype({"F16": "<f2", "F32": "<f4"}[dtype])


def pack_stream(codes, bits):
    """Packs codes [count, columns] down each column, lowest bits first; ends with zeros."""
    codes = np.asarray(codes, np.int64)
    stream = ((codes[:, None] >> np.arange(bits)[None, :, None]) & 1).reshape(-1, codes.shape[1])
    stream = np.pad(stream, ((0, -len(stream) % 32), (0, 0))).reshape(-1, 32, codes.shape[1])
    return (stream << np.arange(32)[None, :, None]).sum(1).astype(np.uint32)


def pack_planes(codes, bits):
    """Every 32 codes down a column are `bits` words: the lowest bits of all of them first,
    in planes of 4, 2 and 1 bits (8 is one plane), widest first."""
    codes = np.asarray(codes, np.int64)
    codes = np.pad(codes, ((0, -len(codes) % 32), (0, 0))).reshape(-1, 32, codes.shape[1])
    words, low = [], 0
    for width in (8, 4, 2, 1):
        if bits & width:
            plane = codes >> low & (1 << width) - 1
            words += [pack_stream(block, width) for block in plane.swapaxes(0, 1).reshape(width, 32 // width, -1)]
            low += width
    columns = codes.shape[2]
    return np.stack([w.reshape(-1, columns) for w in words], 1).reshape(-1, columns)


def pack_padded(codes, bits):
    """32 // bits whole codes in each word down a column; the highest bits stay 0."""
    per = 32 // bits
    codes = np.asarray(codes, np.int64)
    codes = np.pad(codes, ((0, -len(codes) % per), (0, 0))).reshape(-1, per, codes.shape[1])
    return (codes << bits * np.arange(per)[None, :, None]).sum(1).astype(np.uint32)


def words(array):
    return "I32", np.ascontiguousarray(array.astype(np.uint32)).view(np.int32)


def stored_zeros(zeros, bits, checkpoint_format):
    """qzeros of zero points [G, N]. "gptq" takes one off every field: of 3 bits off each
    alone, otherwise with one subtraction for each word, so that a 0 borrows upwards."""
    if checkpoint_format == "gptq" and bits == 3:
        zeros = (zeros - 1) % 8
    packed = pack_stream(zeros.T, bits).T.astype(np.int64)
    if checkpoint_format == "gptq" and bits != 3:
        packed = packed - sum(1 << i for i in range(0, 32, bits)) & 0xFFFFFFFF
    return words(packed)[1]


def swapped_zeros(zeros):
    """3-bit qzeros of format "gptq" by the writer that subtracted swapped words."""
    packed = pack_stream(zeros.T, 3).T.astype(np.int64)
    return words(packed - np.resize(SWAPPED_ONES, packed.shape[1]) & 0xFFFFFFFF)[1]


def overwritten_zeros(zeros, bits):
    """qzeros of an old packer: z - 1 of a zero point of 0 is 32 ones, over its field and all above."""
    out = np.zeros((zeros.shape[0], -(-zeros.shape[1] * bits // 32)), np.uint32)
    for g, row in enumerate(zeros):
        for n, z in enumerate(row):
            word, shift = divmod(n * bits, 32)
            value = int(z) - 1 & 0xFFFFFFFF
            out[g, word] |= value << shift & 0xFFFFFFFF
            if shift + bits > 32:
                out[g, word + 1] |= value >> 32 - shift & (1 << shift + bits - 32) - 1
    return out.view(np.int32)


def gptq(layer, checkpoint_format):
    if checkpoint_format == "gptq_p":
        packed = {"qweight": words(pack_planes(layer.codes, layer.bits)),
                  "qzeros": words(pack_planes(layer.zeros.T, layer.bits).T)}
    else:
        packed = {"qweight": words(pack_stream(layer.codes, layer.bits)),
                  "qzeros": ("I32", stored_zeros(layer.zeros, layer.bits, checkpoint_format))}
    packed["scales"] = layer.scales
    if layer.index is not None:
        packed["g_idx"] = ("I32", layer.index)
    return packed


def awq_gemm(layer):
    def interleave(codes):
        columns = codes.reshape(codes.shape[0], -1, 8)[:, :, AWQ_ORDER]
        return words((columns.astype(np.int64) << 4 * np.arange(8)).sum(2))
    return {"qweight": interleave(layer.codes), "qzeros": interleave(layer.zeros), "scales": layer.scales}


def awq_zeros_width(rows, group_size):
    """Words of zero points per column, of 8 groups each."""
    if group_size == -1:
        group_size = rows
    multiple = 1 if group_size >= 128 else {64: 2, 32: 4}[group_size]
    return -(-(-(-(rows // group_size) // 8)) // multiple) * multiple


def awq_gemv(layer):
    width = awq_zeros_width(len(layer.codes), layer.group_size)
    groups = len(layer.zeros)
    kind, scales = layer.scales
    wide = np.zeros((scales.shape[1], 8 * width), scales.dtype)
    wide[:, :groups] = scales.T
    zeros = np.zeros((8 * width, scales.shape[1]), np.int64)
    zeros[:groups] = layer.zeros
    return {"qweight": words(pack_stream(layer.codes, 4).T), "qzeros": words(pack_stream(zeros, 4).T),
            "scales": (kind, wide)}


def awq_gemv_fast(layer):
    """Of every 32 rows, pairs are dealt out to four runs of 8; each run has its even rows
    first. Four columns take turns by 64 rows, and four codes make one 16-bit word."""
    rows, columns = layer.codes.shape
    table = np.arange(32).reshape(4, 4, 2).transpose(1, 0, 2).reshape(4, 4, 2).transpose(0, 2, 1).reshape(32)
    shuffled = layer.codes.T.reshape(columns, rows // 32, 32)[:, :, table].reshape(columns, rows)
    turns = shuffled.reshape(columns // 4, 4, rows // 64, 64).transpose(0, 2, 1, 3).reshape(columns // 4, rows, 4)
    packed = (turns.astype(np.int64) << 4 * np.arange(4)).sum(2).astype(np.uint16).view(np.int16)
    height = 8 * awq_zeros_width(rows, layer.group_size)
    groups = len(layer.zeros)
    scales = np.zeros((height, columns), np.float16)
    scales[:groups] = layer.scales[1]
    zeros = np.zeros((height, columns), np.float16)
    zeros[:groups] = -(scales[:groups].astype(np.float32) * layer.zeros.astype(np.float32))
    return {"qweight": ("I16", np.ascontiguousarray(packed)), "scales": ("F16", scales),
            "scaled_zeros": ("F16", zeros)}


def compressed_tensors(layer, is_dense=True):
    pack_codes = pack_stream if is_dense else pack_padded
    kind, scales = layer.scales
    packed = {"weight_packed": words(pack_codes(layer.codes, layer.bits).T),
              "weight_scale": (kind, np.ascontiguousarray(scales.T)),
              "weight_shape": ("I64", np.array(layer.codes.shape[::-1], np.int64))}
    if not layer.sym:
        packed["weight_zero_point"] = words(pack_codes(layer.zeros.T, layer.bits))
    if layer.act_order:
        packed["weight_g_idx"] = ("I32", layer.index)
    return packed


def marlin_table():
    """Where the 1024 codes of 16 rows and 4 tiles of 16 columns come from, counted tile by
    tile and row by row."""
    table = []
    for lane in range(32):
        column = lane // 4
        own = [16 * row + column + 8 * block for block in (0, 1)
               for row in (2 * (lane % 4), 2 * (lane % 4) + 1, 2 * (lane % 4 + 4), 2 * (lane % 4 + 4) + 1)]
        for tile in range(4):
            eight = [place + 256 * tile for place in own]
            table += [eight[i] for i in AWQ_ORDER]
    return table


def marlin(layer):
    rows, columns = layer.codes.shape
    tiles = layer.codes.reshape(rows // 16, 16, columns // 16, 16).swapaxes(1, 2).reshape(rows // 16, -1)
    shuffled = tiles.reshape(-1, 1024)[:, marlin_table()].reshape(rows // 16, -1, 8)
    packed = (shuffled.astype(np.int64) << 4 * np.arange(8)).sum(2)
    kind, scales = layer.scales
    if len(scales) == 1:
        order = [2 * i + j for i in range(4) for j in (0, 1, 8, 9, 16, 17, 24, 25)]
    else:
        order = [i + 8 * j for i in range(8) for j in range(8)]
    permuted = scales.reshape(-1, len(order))[:, order].reshape(scales.shape)
    return {"B": words(packed), "s": (kind, np.ascontiguousarray(permuted))}


PACKERS = {
    "gptq": lambda layer: gptq(layer, "gptq"),
    "gptq_v2": lambda layer: gptq(layer, "gptq_v2"),
    "gptq_p": lambda layer: gptq(layer, "gptq_p"),
    "awq-gemm": awq_gemm, "awq-gemv": awq_gemv, "awq-gemv_fast": awq_gemv_fast,
    "compressed-tensors": compressed_tensors,
    "compressed-tensors-padded": lambda layer: compressed_tensors(layer, is_dense=False),
    "marlin": marlin,
}
NAMES = tuple(PACKERS)


def can_hold(layer, name):
    """Whether a format can express a layer."""
    rows, columns = layer.codes.shape
    group = layer.group_size if layer.group_size > 0 else rows
    if name.startswith("gptq"):
        whole = rows % 32 == 0 and columns % 32 == 0 or name != "gptq_p"
        return whole and layer.bits in (PLANAR_BITS if name == "gptq_p" else STREAM_BITS)
    if name.startswith("compressed"):
        return layer.index is None or (layer.index >= 0).all()
    if layer.bits != 4 or layer.act_order or rows % group:
        return False
    if name == "marlin":
        return layer.sym and rows % 128 == 0 and columns % 256 == 0 and layer.scales[0] == "F16"
    if name == "awq-gemm":
        return columns % 8 == 0
    usual = group >= 128 or group in (32, 64)
    if name == "awq-gemv":
        return usual and rows % 8 == 0
    return usual and rows % 64 == 0 and columns % 4 == 0 and layer.scales[0] == "F16"


def pack(layer, name):
    parts = PACKERS[name](layer)
    if layer.bias is not None:
        parts["bias"] = layer.bias
    return parts


def settings(layer, name, overrides=None):
    """quantization_config of a checkpoint whose usual layer is `layer`."""
    if name.startswith("compressed"):
        def group(bits, size, sym, targets):
            return {"targets": targets, "input_activations": None, "output_activations": None, "weights": {
                "num_bits": bits, "type": "int", "symmetric": sym, "strategy": "channel" if size == -1 else "group",
                "group_size": None if size == -1 else size, "actorder": "group" if layer.act_order else None,
                "dynamic": False, "observer": "minmax"}}
        groups = {"group_0": group(layer.bits, layer.group_size, layer.sym, ["Linear"])}
        ignored = []
        for i, (pattern, changes) in enumerate((overrides or {}).items()):
            if pattern.startswith("-:"):
                ignored.append("re:" + pattern[2:])
            else:
                groups[f"group_{i + 1}"] = group(
                    changes.get("bits", layer.bits), changes.get("group_size", layer.group_size),
                    changes.get("sym", layer.sym), ["re:" + pattern.removeprefix("+:")])
        return {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": groups,
                "ignore": ignored, "kv_cache_scheme": None, "quantization_status": "compressed"}
    if name.startswith("awq"):
        return {"quant_method": "awq", "bits": 4, "group_size": layer.group_size, "zero_point": not layer.sym,
                "version": name.removeprefix("awq-"), "modules_to_not_convert": None}
    common = {"bits": layer.bits, "group_size": layer.group_size, "sym": layer.sym, "desc_act": layer.act_order,
              "quant_method": "gptq"}
    if name == "marlin":
        return {**common, "checkpoint_format": "marlin", "is_marlin_format": True}
    return {**common, "checkpoint_format": name, **({"dynamic": overrides} if overrides else {})}
