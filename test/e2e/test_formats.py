"""Checkpoint formats, bit by bit: what is imported against what was packed."""
import itertools
import json
import os
import re

import numpy as np
import pytest

import harness
from reference import formats
from reference.checkpoint import read_safetensors
from reference.make_checkpoint import make_model, random_layer, write_json, write_layer, write_safetensors
from reference.model import Model

SHAPES = ((96, 32), (64, 96), (7392, 128), (768, 2048), (10944, 64))


class Imported:
    """The codes, zero points, scales and groups of one imported layer, and what was said about them."""

    def __init__(self, folder, where, name="layer"):
        out = os.path.join(where, "weights.safetensors")
        done = harness.call("gptq-translate", "--import-hf", folder, "--layer", name, "--write-weights", out,
                            "-o", os.path.join(where, "layer.mlir"))
        assert done.returncode == 0, done.stderr.decode()
        self.warnings = done.stderr.decode().splitlines()
        with open(os.path.join(where, "layer.mlir"), encoding="utf-8") as f:
            self.ir = f.read()
        tensors = read_safetensors(out)
        label = name.removeprefix("model.")
        get = lambda part: tensors[f"{label}.{part}"][1] if f"{label}.{part}" in tensors else None
        self.codes, self.scale_kind = get("codes"), tensors[f"{label}.scales"][0]
        self.scales, self.index, self.bias = get("scales"), get("g_idx"), get("bias")
        point = re.search(r"zero_point = (\d+)", self.ir)
        self.zeros = np.full(self.scales.shape, int(point[1])) if point else get("zeros")


def check_same(imported, layer):
    assert np.array_equal(imported.codes, layer.codes)
    assert imported.zeros.shape == layer.zeros.shape and np.array_equal(imported.zeros, layer.zeros)
    assert imported.scale_kind == layer.scales[0]
    assert np.array_equal(imported.scales.view(layer.scale_bits().dtype), layer.scale_bits())
    if imported.index is not None:
        assert np.array_equal(imported.index, layer.index)
    else:
        size = layer.group_size if layer.group_size > 0 else len(layer.codes)
        groups = len(layer.zeros)
        # Rows in order, or in one group.
        assert layer.index is None or np.array_equal(layer.index % groups, np.arange(len(layer.codes)) // size)


def gptq_cases():
    """Every width, version and symmetry with every group; indexes and shapes take turns."""
    indexes, shapes = itertools.cycle(("absent", "written", "act", "negative")), itertools.cycle(SHAPES)
    for bits, version, sym, group in itertools.product(
            formats.STREAM_BITS, ("gptq", "gptq_v2"), (True, False), (-1, 32, 64, 128, "third")):
        yield bits, version, sym, group, next(indexes), next(shapes)
    for bits, group, index in itertools.product(formats.STREAM_BITS, (32, -1), ("absent", "written", "act", "negative")):
        yield bits, "gptq", False, group, index, (96, 32)


@pytest.mark.parametrize("case", list(gptq_cases()), ids=lambda c: "-".join(map(str, c)).replace(" ", ""))
def test_gptq_codes_are_exact(case, tmp_path):
    bits, version, sym, group, index, (rows, columns) = case
    if group == "third":  # ragged
        group = rows // 3 + 1
    layer = random_layer(np.random.default_rng(bits), rows, columns, bits, group, sym, act_order=index == "act",
                         g_idx="written" if index == "act" else index)
    source = write_layer(str(tmp_path / "layer"), layer, version)
    check_same(Imported(source, str(tmp_path)), layer)


def format_cases():
    shapes = itertools.cycle(((128, 256), (256, 512), (384, 256)))
    for name in formats.NAMES:
        for bits, sym, group, act in itertools.product(range(2, 9), (True, False), (-1, 32, 128), (False, True)):
            rows, columns = next(shapes)
            layer = (rows, columns, bits, group, sym, act)
            if formats.can_hold(random_layer(np.random.default_rng(bits), *layer), name):
                yield pytest.param(name, layer, id=f"{name}-b{bits}-{'sym' if sym else 'asym'}-g{group}-"
                                                   f"{'act' if act else 'plain'}-{rows}x{columns}")


@pytest.mark.parametrize("name,layer", list(format_cases()))
def test_every_format_holds_the_same_codes(name, layer, tmp_path):
    layer = random_layer(np.random.default_rng(layer[2]), *layer)
    check_same(Imported(write_layer(str(tmp_path / "layer"), layer, name), str(tmp_path)), layer)


@pytest.mark.parametrize("name", [n for n in formats.NAMES if n not in ("marlin", "gptq_p")])
def test_sizes_that_fill_no_whole_words(name, tmp_path):
    """K and N as far from a multiple of 32 as each format allows."""
    rows, columns, group = {"gptq": (77, 45, 20), "gptq_v2": (77, 45, 20), "compressed-tensors": (77, 45, 20),
                            "compressed-tensors-padded": (77, 45, 20), "awq-gemm": (60, 40, 20),
                            "awq-gemv": (96, 45, 32), "awq-gemv_fast": (320, 44, 64)}[name]
    for bits in (4,) if name.startswith("awq") else (2, 3, 4, 8):
        layer = random_layer(np.random.default_rng(1), rows, columns, bits, group, sym=False)
        assert formats.can_hold(layer, name)
        folder = tmp_path / str(bits)
        check_same(Imported(write_layer(str(folder), layer, name), str(tmp_path)), layer)


@pytest.mark.parametrize("name", [n for n in formats.NAMES if n not in ("marlin", "awq-gemv_fast")])
@pytest.mark.parametrize("dtype", ("BF16", "F32"))
def test_scales_of_other_types(name, dtype, tmp_path):
    layer = random_layer(np.random.default_rng(2), 128, 64, 4, 32, sym=False, scale_dtype=dtype)
    check_same(Imported(write_layer(str(tmp_path / "layer"), layer, name), str(tmp_path)), layer)


# Whole models: the twin in format gptq_v2 holds the same weights, which the reference reads.

SMALL = dict(hidden=64, intermediate=96)
LARGE = dict(hidden=256, intermediate=256, heads=4, kv_heads=4, layers=1)  # what Marlin can hold
WHOLE = {
    "gptq-2bit": dict(SMALL, checkpoint_format="gptq", bits=2), "gptq-8bit": dict(SMALL, checkpoint_format="gptq", bits=8),
    "gptq_p-2bit": dict(SMALL, checkpoint_format="gptq_p", bits=2), "gptq_p-4bit": dict(SMALL, checkpoint_format="gptq_p"),
    "gptq-3bit": dict(SMALL, checkpoint_format="gptq", bits=3, sym=False, zeros="extremes"),
    "gptq-3bit-act-order": dict(SMALL, checkpoint_format="gptq", bits=3, act_order=True),
    **{f"gptq_p-{bits}bit": dict(SMALL, checkpoint_format="gptq_p", bits=bits, sym=bits % 2 == 0) for bits in (3, 5, 6, 7)},
    **{f"compressed-tensors-{bits}bit": dict(SMALL, checkpoint_format="compressed-tensors", bits=bits, sym=bits % 2 == 1)
       for bits in (2, 3, 5, 6, 7)},
    **{f"compressed-tensors-padded-{bits}bit": dict(SMALL, checkpoint_format="compressed-tensors-padded", bits=bits, sym=False)
       for bits in (3, 5)},
    "gptq_p-8bit-act-order": dict(SMALL, checkpoint_format="gptq_p", bits=8, act_order=True),
    "awq-gemm": dict(SMALL, checkpoint_format="awq-gemm", sym=False),
    "awq-gemm-extremes": dict(SMALL, checkpoint_format="awq-gemm", sym=False, zeros="extremes"),
    "awq-gemv": dict(SMALL, checkpoint_format="awq-gemv", sym=False),
    "awq-gemv_fast": dict(LARGE, checkpoint_format="awq-gemv_fast", sym=False, group_size=64),
    "compressed-tensors": dict(SMALL, checkpoint_format="compressed-tensors"),
    "compressed-tensors-channel": dict(SMALL, checkpoint_format="compressed-tensors", group_size=-1, bits=8),
    "compressed-tensors-asym": dict(SMALL, checkpoint_format="compressed-tensors", sym=False, zeros="extremes"),
    "compressed-tensors-act-order": dict(SMALL, checkpoint_format="compressed-tensors", act_order=True),
    "marlin": dict(LARGE, checkpoint_format="marlin", group_size=128),
    "marlin-one-group": dict(LARGE, checkpoint_format="marlin", group_size=-1),
    "quantized-head": dict(SMALL, checkpoint_format="gptq", quantized_head=True),
    "quantized-head-of-a-tied-model": dict(SMALL, checkpoint_format="compressed-tensors", quantized_head=True, tied=True),
    "dynamic": dict(SMALL, checkpoint_format="gptq", sym=False, layers=3, overrides={
        r"-:model\.layers\.2\..*(k_proj|down_proj)": {}, r"+:.*\.1\..*(q_proj|up_proj)": {"bits": 8, "group_size": 16},
        r".*\.o_proj": {"bits": 2, "sym": True}, r"model\.layers\.0": {"group_size": 64}}),
    "groups-of-compressed-tensors": dict(SMALL, checkpoint_format="compressed-tensors", overrides={
        r"-:.*v_proj": {}, r".*\.1\..*gate_proj": {"bits": 8, "group_size": 16, "sym": False}}),
}


@pytest.mark.parametrize("name", WHOLE)
def test_logits_of_every_format(name, tmp_path):
    variant = WHOLE[name]
    source = make_model(str(tmp_path / "checkpoint"), **variant)
    twin = make_model(str(tmp_path / "twin"), **{**variant, "checkpoint_format": "gptq_v2"})
    model = harness.compile_model(source, str(tmp_path / "model.gptqm"))
    tokens = np.random.default_rng(0).integers(3, 128, 40)
    want, got = Model(twin)(tokens), harness.run_logits(model, tokens, str(tmp_path))
    assert np.abs(want - got).max() <= 1e-5 * (want.max() - want.min())


def test_layers_that_differ_are_not_joined(tmp_path):
    source = make_model(str(tmp_path / "checkpoint"), **WHOLE["dynamic"])
    done = harness.call("gptq-compile", source, "-o", tmp_path / "model.gptqm", "--explain")
    assert done.returncode == 0
    text = done.stdout.decode() + done.stderr.decode()
    assert "their bits differ" in text and "their kinds of weights differ" in text


# Traps, each by its name.

def changed_layer(folder, layer, name="gptq", settings=None, **tensors):
    """A folder whose layer has other tensors or settings than the packer gives it."""
    write_layer(folder, layer, name)
    parts = {**formats.pack(layer, name), **tensors}
    write_safetensors(os.path.join(folder, "model.safetensors"),
                      {f"layer.{part}": value for part, value in parts.items() if value is not None})
    write_json(folder, "config.json", {"quantization_config": {**formats.settings(layer, name), **(settings or {})}})
    return folder


def refused(folder, where):
    """Why the layer is refused."""
    before = sorted(os.listdir(where))
    done = harness.call("gptq-translate", "--import-hf", folder, "--layer", "layer")
    problem = harness.error_of(done, "gptq-translate", before, sorted(os.listdir(where)))
    assert not problem, problem
    return done.stderr.decode()


@pytest.mark.parametrize("bits", formats.STREAM_BITS)
@pytest.mark.parametrize("stored,declared", (("gptq_v2", "gptq"), ("gptq", "gptq_v2")))
def test_mislabelled_zero_points_are_recognised(bits, stored, declared, tmp_path):
    layer = random_layer(np.random.default_rng(0), 96, 64, bits, 32)
    source = changed_layer(str(tmp_path / "layer"), layer, stored, {"checkpoint_format": declared})
    imported = Imported(source, str(tmp_path))
    check_same(imported, layer)
    assert any(f"stored as in {stored}, which is used" in line for line in imported.warnings)


def test_swapped_words_of_3_bit_zero_points_are_repaired(tmp_path):
    layer = random_layer(np.random.default_rng(0), 96, 64, 3, 32)
    words = formats.swapped_zeros(layer.zeros)
    assert [int(w) & 0xFFFFFFFF for w in words[0, :3]] == [0x00000000, 0xB6DB6DB7, 0x49249249]
    imported = Imported(changed_layer(str(tmp_path / "layer"), layer, qzeros=("I32", words)), str(tmp_path))
    check_same(imported, layer)
    assert "swapped words" in imported.warnings[0]


def test_swapped_words_of_asymmetric_3_bit_zero_points_are_refused(tmp_path):
    layer = random_layer(np.random.default_rng(0), 96, 64, 3, 32)
    source = changed_layer(str(tmp_path / "a"), layer, settings={"sym": False},
                           qzeros=("I32", formats.swapped_zeros(layer.zeros)))
    assert "faulty writer that swapped words" in refused(source, str(tmp_path))
    # Where they differ there is no fingerprint, only the name of the writer.
    layer = random_layer(np.random.default_rng(0), 96, 64, 3, 32, sym=False)
    source = changed_layer(str(tmp_path / "b"), layer, settings={"meta": {"quantizer": ["gptqmodel:4.0.0"]}},
                           qzeros=("I32", formats.swapped_zeros(layer.zeros)))
    assert "faulty version of their writer" in refused(source, str(tmp_path))


@pytest.mark.parametrize("bits", (2, 4, 8))
def test_a_zero_point_of_zero_that_borrowed_is_restored(bits, tmp_path):
    layer = random_layer(np.random.default_rng(3), 96, 64, bits, 32, sym=False)
    layer.zeros[:, ::3] = 0
    layer.zeros[:, 1::3] = (1 << bits) - 1
    check_same(Imported(write_layer(str(tmp_path / "layer"), layer, "gptq"), str(tmp_path)), layer)


@pytest.mark.parametrize("bits", formats.STREAM_BITS)
def test_zero_points_overwritten_with_ones_are_refused(bits, tmp_path):
    layer = random_layer(np.random.default_rng(4), 128, 96, bits, 16, sym=False)
    words = formats.overwritten_zeros(layer.zeros, bits)
    source = changed_layer(str(tmp_path / "layer"), layer, qzeros=("I32", words))
    assert "cannot be recovered" in refused(source, str(tmp_path))
    # Without a zero point of 0 the same packer is sound.
    layer.zeros = np.maximum(layer.zeros, 1)
    source = changed_layer(str(tmp_path / "sound"), layer, qzeros=("I32", formats.overwritten_zeros(layer.zeros, bits)))
    check_same(Imported(source, str(tmp_path)), layer)


@pytest.mark.parametrize("wrong", (3, -4, 2**31 - 1, -2**31))
@pytest.mark.parametrize("name,part", (("gptq", "g_idx"), ("compressed-tensors", "weight_g_idx")))
def test_groups_out_of_range_are_refused(name, part, wrong, tmp_path):
    layer = random_layer(np.random.default_rng(0), 96, 64, 4, 32, act_order=True)
    index = layer.index.copy()
    index[50] = wrong
    source = changed_layer(str(tmp_path / "layer"), layer, name, **{part: ("I32", index)})
    assert "row 50 is in group" in refused(source, str(tmp_path))


def test_unset_groups_of_compressed_tensors_are_rows_in_order(tmp_path):
    layer = random_layer(np.random.default_rng(0), 96, 64, 4, 32)
    source = changed_layer(str(tmp_path / "layer"), layer, "compressed-tensors",
                           weight_g_idx=("I32", np.full(96, -1, np.int32)))
    check_same(Imported(source, str(tmp_path)), layer)


@pytest.mark.parametrize("bits", (3, 5, 6, 7))
def test_both_packings_of_compressed_tensors_are_told_apart(bits, tmp_path):
    layer = random_layer(np.random.default_rng(0), 96, 64, bits, 32, sym=False)
    old, new = (formats.pack(layer, n)["weight_packed"][1] for n in ("compressed-tensors-padded", "compressed-tensors"))
    assert old.shape != new.shape
    source = changed_layer(str(tmp_path / "layer"), layer, "compressed-tensors",
                           weight_packed=("I32", np.ascontiguousarray(new[:, :-1])))
    assert "or %d without codes across words" % old.shape[1] in refused(source, str(tmp_path))


def test_the_order_of_gemm_is_that_of_its_own_reader(tmp_path):
    """Nibbles taken in order, as one published tool does, are another weight."""
    layer = random_layer(np.random.default_rng(0), 32, 8, 4, 32, sym=False)
    packed = formats.awq_gemm(layer)["qweight"][1]
    plain = (packed.astype(np.int64)[:, :, None] >> 4 * np.arange(8) & 15).reshape(32, 8)
    assert not np.array_equal(plain, layer.codes)
    assert np.array_equal(plain[:, [0, 4, 1, 5, 2, 6, 3, 7]], layer.codes)
    check_same(Imported(write_layer(str(tmp_path / "layer"), layer, "awq-gemm"), str(tmp_path)), layer)


def test_planes_of_3_bits_are_no_stream(tmp_path):
    layer = random_layer(np.random.default_rng(0), 96, 64, 3, 32)
    streams, planes = (formats.pack(layer, n)["qweight"][1] for n in ("gptq_v2", "gptq_p"))
    assert streams.shape == planes.shape and not np.array_equal(streams, planes)
    for bits in (2, 4, 8):
        layer = random_layer(np.random.default_rng(0), 96, 64, bits, 32)
        assert np.array_equal(*(formats.pack(layer, n)["qweight"][1] for n in ("gptq_v2", "gptq_p")))


TENSORS = {"gptq": ("qweight", "qzeros", "scales", "g_idx"), "gptq_p": ("qweight", "qzeros", "scales", "g_idx"),
           "awq-gemm": ("qweight", "qzeros", "scales"), "awq-gemv": ("qweight", "qzeros", "scales"),
           "awq-gemv_fast": ("qweight", "scaled_zeros", "scales"),
           "compressed-tensors": ("weight_packed", "weight_scale", "weight_zero_point", "weight_shape"),
           "marlin": ("B", "s")}


@pytest.mark.parametrize("name,part", [(n, p) for n, parts in TENSORS.items() for p in parts])
def test_tensors_of_the_wrong_shape_are_refused(name, part, tmp_path):
    layer = random_layer(np.random.default_rng(0), 256, 256, 4, 128, sym=name == "marlin")
    remove = 1 if part in ("weight_shape", "weight_scale", "scales", "qzeros", "scaled_zeros", "s") else 9
    kind, array = formats.pack(layer, name)[part]
    for i, wrong in enumerate((array[:-remove], array[..., :-remove], array[None], array.repeat(2, 0))):
        # A lone layer of other sizes, or padding that nobody reads, is none of the reader's business.
        if (name, part, i) in (("marlin", "B", 0), ("gptq_p", "g_idx", 0), ("gptq_p", "g_idx", 1)) or (
                name == "awq-gemv_fast" and part != "qweight" and i in (0, 3)):
            continue
        source = changed_layer(str(tmp_path / str(i)), layer, name, **{part: (kind, np.ascontiguousarray(wrong))})
        assert "expected" in refused(source, str(tmp_path))
    source = changed_layer(str(tmp_path / "type"), layer, name, **{part: ("U8", np.ones(array.shape, np.uint8))})
    assert "found U8" in refused(source, str(tmp_path))
    if part != "g_idx":
        source = changed_layer(str(tmp_path / "missing"), layer, name, **{part: None})
        assert "missing" in refused(source, str(tmp_path))


@pytest.mark.parametrize("name,part", (("gptq", "scales"), ("awq-gemm", "scales"), ("awq-gemv", "scales"),
                                       ("awq-gemv_fast", "scales"), ("awq-gemv_fast", "scaled_zeros"),
                                       ("compressed-tensors", "weight_scale"), ("marlin", "s")))
def test_scales_that_are_no_numbers_are_refused(name, part, tmp_path):
    layer = random_layer(np.random.default_rng(0), 256, 256, 4, 128, sym=name == "marlin")
    for wrong in (np.inf, -np.inf, np.nan):
        kind, array = formats.pack(layer, name)[part]
        array = array.copy()
        array[1, 1] = wrong
        source = changed_layer(str(tmp_path / str(wrong)), layer, name, **{part: (kind, array)})
        assert "is infinite or not a number" in refused(source, str(tmp_path))


def test_scaled_zero_points_must_be_multiples_of_scales(tmp_path):
    layer = random_layer(np.random.default_rng(0), 256, 64, 4, 128, sym=False)
    parts = formats.pack(layer, "awq-gemv_fast")
    zeros = parts["scaled_zeros"][1].copy()
    zeros[1, 2] = -17 * parts["scales"][1][1, 2]
    source = changed_layer(str(tmp_path / "layer"), layer, "awq-gemv_fast", scaled_zeros=("F16", zeros))
    done = harness.call("gptq-translate", "--import-hf", source, "--layer", "layer", "--write-weights",
                        tmp_path / "out.safetensors", "-o", tmp_path / "out.mlir")
    assert done.returncode == 1 and "expected quotients from 0 to 15, found 16.9" in done.stderr.decode()
    assert not (tmp_path / "out.safetensors").exists()


def test_marlin_flag_of_old_files(tmp_path):
    layer = random_layer(np.random.default_rng(0), 128, 256, 4, 128)
    source = changed_layer(str(tmp_path / "layer"), layer, "marlin", {"checkpoint_format": None})
    check_same(Imported(source, str(tmp_path)), layer)


def test_settings_are_found_under_their_other_names(tmp_path):
    layer = random_layer(np.random.default_rng(0), 128, 64, 4, 32, sym=False)
    source = write_layer(str(tmp_path / "layer"), layer, "awq-gemm")
    os.remove(os.path.join(source, "config.json"))
    write_json(source, "quant_config.json", {"method": "awq", "w_bit": 4, "q_group_size": 32, "zero_point": True,
                                             "version": "GEMM"})
    check_same(Imported(source, str(tmp_path)), layer)
    with open(os.path.join(source, "quant_config.json"), encoding="utf-8") as f:
        assert "bits" not in json.load(f)
