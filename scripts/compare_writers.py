#!/usr/bin/env python3
"""Reads checkpoints that the public libraries of the formats write: the same codes?

    python -m venv writers && writers/bin/pip install torch transformers pytest safetensors
    writers/bin/pip install compressed-tensors
    writers/bin/pip install --no-deps auto-gptq autoawq gptqmodel      # setuptools, wheel and torch first
    writers/bin/python scripts/compare_writers.py

Random codes, zero points and scales become weights, which each library packs as it
packs what it has quantized; the importer must give back the same integers and the same
bits of every scale. Libraries that cannot be imported are named and left out. Run by
hand: the libraries need torch, which nothing else here does.
"""
import importlib.metadata
import importlib.util
import os
import sys
import tempfile
import traceback
import warnings

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.join(ROOT, "test"), os.path.join(ROOT, "test", "e2e")]
warnings.simplefilter("ignore")

import numpy as np
import torch

from reference import formats
from reference.make_checkpoint import random_layer, write_json, write_safetensors
from test_formats import Imported, check_same

ROWS, COLUMNS = 256, 256


def load(package, path):
    """A module by its file: what else its package imports needs GPUs or other versions."""
    folder = os.path.dirname(importlib.util.find_spec(package).origin)
    spec = importlib.util.spec_from_file_location(f"{package}_{os.path.basename(path)}", os.path.join(folder, path + ".py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def linear(layer):
    """W[n, k] in f32, where it is exact, as a torch layer."""
    span = ROWS if layer.group_size == -1 else layer.group_size
    index = np.arange(ROWS) // span if layer.index is None else layer.index % len(layer.zeros)
    scales = layer.scales[1].astype(np.float32)
    result = torch.nn.Linear(ROWS, COLUMNS, bias=False)
    result.weight.data = torch.from_numpy((scales[index] * (layer.codes - layer.zeros[index])).T.astype(np.float32).copy())
    return result


def of(layer):
    """scales and zero points [N, G], and the groups of rows."""
    return (torch.from_numpy(layer.scales[1].astype(np.float32).T.copy()),
            torch.from_numpy(layer.zeros.T.astype(np.float32).copy()),
            torch.from_numpy((layer.index % len(layer.zeros)).astype(np.int32)))


def stored(module, *names):
    """{name: (dtype, array)} of buffers; floats of a library that keeps f32 become the halves they stand for."""
    result = {}
    for name in names:
        array = getattr(module, name).detach().numpy()
        if array.dtype == np.float32:
            assert np.array_equal(array.astype(np.float16).astype(np.float32), array)
            array = array.astype(np.float16)
        result[name] = {"int32": "I32", "int16": "I16", "float16": "F16", "int64": "I64"}[array.dtype.name], array
    return result


def auto_gptq(layer):
    module = load("auto_gptq", "nn_modules/qlinear/qlinear_cuda").QuantLinear(layer.bits, layer.group_size, ROWS, COLUMNS, False)
    module.pack(linear(layer), *of(layer))
    return "gptq", stored(module, "qweight", "qzeros", "scales", "g_idx")


def auto_gptq_marlin(layer):
    marlin = load("auto_gptq", "nn_modules/qlinear/qlinear_marlin")
    # It asks what the GPU can do that only its product needs.
    torch.cuda.get_device_capability = lambda *_: (8, 0)
    module = marlin.QuantLinear(4, ROWS if layer.group_size == -1 else layer.group_size, ROWS, COLUMNS, False)
    module.pack(linear(layer).half(), of(layer)[0].half())
    return "marlin", stored(module, "B", "s")


def gptqmodel(checkpoint_format):
    def pack(layer):
        from gptqmodel.nn_modules.qlinear.torch import TorchLinear
        from gptqmodel.quantization import FORMAT
        module = TorchLinear(bits=layer.bits, group_size=layer.group_size, sym=layer.sym, desc_act=layer.act_order,
                             in_features=ROWS, out_features=COLUMNS, bias=False, pack_dtype=torch.int32,
                             register_buffers=True, format=FORMAT(checkpoint_format))
        module.pack(linear(layer), *of(layer))
        if checkpoint_format == "gptq":
            from gptqmodel.utils.model import convert_gptq_v2_to_v1_format_module
            convert_gptq_v2_to_v1_format_module(module, module)
        return checkpoint_format, stored(module, "qweight", "qzeros", "scales", "g_idx")
    return pack


def awq(version, name):
    def pack(layer):
        kind = getattr(load("awq", "modules/linear/" + version), name)
        scales, zeros, _ = of(layer)
        if version == "gemm":
            scales, zeros = scales.T.contiguous(), zeros.T.contiguous()
        module = kind.from_linear(linear(layer), 4, layer.group_size, scales=scales, zeros=zeros)
        return "awq-" + version, stored(module, "qweight", "qzeros", "scales")
    return pack


def compressed_tensors(layer):
    from compressed_tensors.compressors.pack_quantized import PackedQuantizationCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    arguments = dict(num_bits=layer.bits, type="int", symmetric=layer.sym)
    arguments.update(strategy="channel") if layer.group_size == -1 else \
        arguments.update(strategy="group", group_size=layer.group_size)
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**arguments))
    scales, zeros, _ = of(layer)
    state = {"weight": linear(layer).weight.data, "weight_scale": scales,
             "weight_zero_point": (zeros - (1 << layer.bits - 1)).to(torch.int8)}
    state = PackedQuantizationCompressor.compress(state, scheme)
    holder = type("", (), state)
    return "compressed-tensors", stored(holder, *state)


def variants():
    """(library, what it packs, how, the layer's properties)"""
    usual = dict(group_size=32, sym=False, zeros="middle")
    for bits in (2, 3, 4, 8):
        for order in (False, True):
            yield "auto_gptq", f"GPTQ, {bits} bits{', act-order' * order}", auto_gptq, {**usual, "bits": bits, "act_order": order}
    for size in (128, -1):
        yield "auto_gptq", f"Marlin, groups of {size}", auto_gptq_marlin, dict(bits=4, group_size=size, sym=True)
    for stored_as in ("gptq", "gptq_v2", "gptq_p"):
        for bits in formats.PLANAR_BITS if stored_as == "gptq_p" else formats.STREAM_BITS:
            yield ("gptqmodel", f"{stored_as}, {bits} bits, act-order", gptqmodel(stored_as),
                   {**usual, "bits": bits, "act_order": True, "zeros": "middle" if stored_as == "gptq" and bits == 3 else "extremes"})
    for version, name in (("gemm", "WQLinear_GEMM"), ("gemv", "WQLinear_GEMV"), ("gemv_fast", "WQLinear_GEMVFast")):
        for size in (64, 128):
            yield "autoawq", f"{version}, groups of {size}", awq(version, name), {**usual, "bits": 4, "group_size": size, "zeros": "extremes"}
    for bits in range(2, 9):
        for sym in (True, False):
            for size in (32, -1):
                yield ("compressed-tensors", f"{bits} bits, {'symmetric' if sym else 'zero points'}, groups of {size}",
                       compressed_tensors, dict(bits=bits, group_size=size, sym=sym, zeros="extremes"))


def compare(pack, properties):
    layer = random_layer(np.random.default_rng(7), ROWS, COLUMNS, **properties)
    name, parts = pack(layer)
    with tempfile.TemporaryDirectory() as folder:
        write_safetensors(os.path.join(folder, "model.safetensors"), {f"layer.{k}": v for k, v in parts.items()})
        write_json(folder, "config.json", {"quantization_config": formats.settings(layer, name)})
        check_same(Imported(folder, folder), layer)


def main():
    failed, absent = 0, {}
    for library, title, pack, properties in variants():
        if library in absent:
            continue
        version = importlib.metadata.version(library) if importlib.util.find_spec(
            {"autoawq": "awq"}.get(library, library.replace("-", "_"))) else None
        try:
            if not version:
                raise ImportError("it is not installed")
            compare(pack, properties)
            print(f"{library} {version}: {title}: the same", flush=True)
        except ImportError as error:
            absent[library] = error
        except Exception:
            failed += 1
            print(f"{library} {version}: {title}: NOT the same\n{traceback.format_exc()}", flush=True)
    for library, error in absent.items():
        print(f"{library}: left out: {error}")
    return 1 if failed or absent else 0


if __name__ == "__main__":
    sys.exit(main())
