"""`gptq-translate --inspect`, `--verify` and `--export-gptq`: what a folder is, and the same in another format."""
import json
import os
import re
import shutil

import numpy as np
import pytest

import harness
from reference.checkpoint import Checkpoint, read_safetensors
from reference.make_checkpoint import make_model, write_safetensors
from test_formats import WHOLE, Imported
from reference.model import Model


def inspect(folder, *arguments):
    """(report, exit status)"""
    done = harness.call("gptq-translate", "--inspect", folder, "--json", *arguments)
    assert not done.stderr, done.stderr
    return json.loads(done.stdout), done.returncode


@pytest.mark.parametrize("name", WHOLE)
def test_every_format_is_described(name, tmp_path):
    variant = WHOLE[name]
    source = make_model(str(tmp_path / "checkpoint"), **variant)
    report, status = inspect(source, "--verify")
    assert status == 0 and report["problems"] == [] and report["warnings"] == []
    method = variant["checkpoint_format"].split("_")[0].split("-")[0]
    assert report["declared"]["method"] == {"compressed": "compressed-tensors"}.get(method, method)
    modules = {m["name"]: m for m in report["modules"]}
    layer = modules["model.layers.0.mlp.up_proj"]
    assert (layer["k"], layer["n"]) == (variant["hidden"], variant["intermediate"])
    if "overrides" not in variant:
        assert layer["bits"] == variant.get("bits", 4)
        assert layer["act_order"] == variant.get("act_order", False)
        assert layer["zero_point"] == (1 << layer["bits"] - 1 if variant.get("sym", True) else "per group")
        # Random codes: two of 2^b values are at the ends.
        assert abs(layer["saturated_codes"] - 2 / (1 << layer["bits"])) < 0.1
    assert modules["model.embed_tokens"]["kind"] == "dense"
    quantized = sum(m["bytes"] for m in report["modules"] if m["name"] != "model.embed_tokens")
    assert report["bytes"]["per_token"] == quantized
    floor = report["decode_floor_ms"]["x86-64-v3"]
    assert floor > 0 and all(f > 0 for f in report["decode_floor_ms"].values())
    sums = {f["name"]: f["xxh3"] for f in report["files"]}
    assert set(sums) == set(os.listdir(source)) and all(len(s) == 16 for s in sums.values())
    text = harness.succeed("gptq-translate", "--inspect", source)
    declared, found = report["declared"], report["modules"]
    form = {"compressed": "pack-quantized"}.get(method, variant["checkpoint_format"].removeprefix("awq-"))
    assert re.search(rf"^  declared     {declared['method']} \({form}\), {variant.get('bits', 4)} bits, ", text, re.M)
    size = variant.get("group_size", 32)
    kind = (f"{layer['bits']} bits, {'one group' if size == -1 else f'groups of {size}'}, " +
            ("zero points per group" if layer["zero_point"] == "per group" else f"zero point {layer['zero_point']}") +
            ", act-order" * layer["act_order"] + ", scales f16")
    if "overrides" not in variant:
        assert re.search(rf"^ +(?:found +)?{variant.get('layers', 2)} x model\.layers\.\*\.mlp\.up_proj: {kind}$", text, re.M), text
    # How it is known what stored zero points mean.
    if form in ("gptq", "gptq_v2") and variant.get("sym", True):
        assert re.search(rf"x qzeros repeats [0-9A-F]{{8}}, symmetric as stored in {form}$", text, re.M), text
    assert {m["kind"] for m in found} >= {"quantized", "dense"}
    assert "  at least " in text and "problem" not in text


def test_layers_that_will_be_joined_and_why_others_are_not(tmp_path):
    plain, _ = inspect(make_model(str(tmp_path / "plain"), act_order=True))
    assert "layers.0.self_attn.q_proj+k_proj+v_proj" in plain["joined"]
    # Orders differ in every other block.
    assert {"layer": "layers.1.self_attn.k_proj", "reason":
            "is not joined to the other matmuls of its input: their permutations differ"} in plain["apart"]
    mixed, _ = inspect(make_model(str(tmp_path / "mixed"), **WHOLE["dynamic"]))
    assert any("their bits differ" in note["reason"] for note in mixed["apart"])
    assert any("their kinds of weights differ" in note["reason"] for note in mixed["apart"])


def test_evidence_for_zero_points(tmp_path):
    source = make_model(str(tmp_path / "checkpoint"), checkpoint_format="gptq_v2")
    for name in ("config.json", "quantize_config.json"):
        path = os.path.join(source, name)
        with open(path, encoding="utf-8") as f:
            text = f.read().replace("gptq_v2", "gptq")
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
    report, status = inspect(source)
    assert status == 0
    modules = {m["name"]: m for m in report["modules"]}
    assert modules[Q]["evidence"] == "qzeros repeats 88888888, symmetric as stored in gptq_v2"
    assert report["declared"]["format"] == "gptq"
    assert any("stored as in gptq_v2, which is used" in w for w in report["warnings"])


def change_json(folder, name, change):
    path = os.path.join(folder, name)
    with open(path, encoding="utf-8") as f:
        value = json.load(f)
    change(value)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f)


def change_tensors(folder, change):
    path = os.path.join(folder, "model.safetensors")
    tensors = read_safetensors(path)
    change(tensors)
    write_safetensors(path, tensors)


Q = "model.layers.0.self_attn.q_proj"
DAMAGE = {
    "no config.json": (lambda d: os.remove(os.path.join(d, "config.json")), "holds no config.json"),
    "an unknown family": (lambda d: change_json(d, "config.json", lambda c: c.update(model_type="bert")), "'bert'"),
    "no tensors": (lambda d: os.remove(os.path.join(d, "model.safetensors")), "holds no safetensors and no GGUF file"),
    "a cut file": (lambda d: os.truncate(os.path.join(d, "model.safetensors"), 5000), "model.safetensors"),
    "a missing layer": (lambda d: change_tensors(d, lambda t: [t.pop(n) for n in list(t) if n.startswith(Q)]), Q),
    "a missing part": (lambda d: change_tensors(d, lambda t: t.pop(Q + ".scales")), "q_proj.scales' is missing"),
    "an unknown tensor": (lambda d: change_tensors(d, lambda t: t.update({"x.y": t[Q + ".scales"]})), "has no place"),
    "another method": (lambda d: [change_json(d, n, lambda c: c.get("quantization_config", c).update(
        quant_method="hqq")) for n in ("config.json", "quantize_config.json")], "'hqq' is not supported"),
    "a scale that is no number": (lambda d: change_tensors(d, lambda t: t.update({Q + ".scales": (
        "F16", np.full_like(t[Q + ".scales"][1], np.nan))})), "is infinite or not a number"),
    "groups out of range": (lambda d: change_tensors(d, lambda t: t.update({Q + ".g_idx": (
        "I32", t[Q + ".g_idx"][1] + 7)})), "is in group 7"),
    "a broken tokenizer": (lambda d: open(os.path.join(d, "tokenizer.model"), "wb").write(b"\x00" * 9),
                           "expected a SentencePiece model"),
    "JSON cut short": (lambda d: os.truncate(os.path.join(d, "config.json"), 40), "JSON is not valid"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_wrong_with_a_damaged_folder(damage, tmp_path):
    source = make_model(str(tmp_path / "checkpoint"))
    do, message = DAMAGE[damage]
    do(source)
    report, status = inspect(source)
    assert status == 1 and any(message in problem for problem in report["problems"]), report["problems"]
    assert len(set(report["problems"])) == len(report["problems"])
    text = harness.call("gptq-translate", "--inspect", source)
    assert text.returncode == 1 and message in text.stdout.decode()


def test_values_that_are_no_numbers_in_dense_layers(tmp_path):
    source = make_model(str(tmp_path / "checkpoint"), bits=None)
    def spoil(tensors):
        kind, array = tensors[Q + ".weight"]
        array = array.copy()
        array[3, 5] = np.inf
        tensors[Q + ".weight"] = kind, array
    change_tensors(source, spoil)
    assert inspect(source)[1] == 0
    report, status = inspect(source, "--verify")
    assert status == 1 and "element 197 is infinite" in report["problems"][0]


def test_no_such_folder(tmp_path):
    done = harness.call("gptq-translate", "--inspect", tmp_path / "none")
    assert not harness.error_of(done, "gptq-translate", [], os.listdir(tmp_path))


# GPTQ streams codes of these widths.
STREAMED = (2, 3, 4, 8)


@pytest.mark.parametrize("name", [name for name, variant in WHOLE.items() if variant.get("bits", 4) not in STREAMED])
def test_other_widths_do_not_leave_as_gptq(name, tmp_path):
    source = make_model(str(tmp_path / "checkpoint"), **WHOLE[name])
    before = os.listdir(tmp_path)
    done = harness.call("gptq-translate", "--import-hf", source, "--export-gptq", tmp_path / "out")
    assert not harness.error_of(done, "gptq-translate", before, os.listdir(tmp_path))
    assert b"expected codes of 2, 3, 4 or 8 bits" in done.stderr


@pytest.mark.parametrize("to", ("gptq", "gptq_v2"))
@pytest.mark.parametrize("name", [name for name, variant in WHOLE.items() if variant.get("bits", 4) in STREAMED])
def test_every_format_leaves_as_gptq(name, to, tmp_path):
    """The exported folder holds the same layers, for the reference and for the importer."""
    variant = WHOLE[name]
    source = make_model(str(tmp_path / "checkpoint"), **variant)
    twin = Checkpoint(make_model(str(tmp_path / "twin"), **{**variant, "checkpoint_format": "gptq_v2"}))
    out = str(tmp_path / "out")
    harness.succeed("gptq-translate", "--import-hf", source, "--export-gptq", out, "--gptq-format", to)
    exported = Checkpoint(out)
    assert exported.settings["checkpoint_format"] == to and exported.settings["quant_method"] == "gptq"
    for tensor in twin.tensors:
        module, part = tensor.rsplit(".", 1)
        if part == "qweight":
            a, b = twin.layer(module), exported.layer(module)
            assert np.array_equal(a.codes, b.codes) and np.array_equal(a.zeros, b.zeros)
            assert np.array_equal(a.scales, b.scales) and np.array_equal(a.group, b.group)
        elif part in ("weight", "bias"):
            assert np.array_equal(twin.tensors[tensor][1], exported.tensors[tensor][1])
    report, status = inspect(out)
    assert status == 0 and report["warnings"] == []
    tokens = np.arange(3, 20)
    assert np.array_equal(Model(twin)(tokens), Model(exported)(tokens))


@pytest.mark.parametrize("bits", (3, 8))
def test_exported_odd_sizes(bits, tmp_path):
    source = make_model(str(tmp_path / "checkpoint"), checkpoint_format="compressed-tensors", bits=bits, sym=False,
                        hidden=60, intermediate=97, heads=3, kv_heads=1, vocab=101, group_size=24, zeros="extremes",
                        act_order=True)
    out = str(tmp_path / "out")
    harness.succeed("gptq-translate", "--import-hf", source, "--export-gptq", out, "--gptq-format", "gptq")
    for name in ("model.layers.1.mlp.down_proj", "model.layers.0.self_attn.k_proj"):
        a, b = (Imported(folder, str(tmp_path), name) for folder in (source, out))
        assert np.array_equal(a.codes, b.codes) and np.array_equal(a.zeros, b.zeros)
        assert np.array_equal(a.scales, b.scales) and np.array_equal(a.index, b.index)


def test_export_refuses_and_leaves_nothing(tmp_path):
    source = make_model(str(tmp_path / "planar"), checkpoint_format="gptq_p", bits=5)
    before = sorted(os.listdir(tmp_path))
    for arguments in ((source, "--export-gptq", tmp_path / "out"), (source, "--export-gptq", source),
                      (tmp_path / "none", "--export-gptq", tmp_path / "out"),
                      (source, "--export-gptq", tmp_path / "no" / "out")):
        done = harness.call("gptq-translate", "--import-hf", *arguments)
        assert not harness.error_of(done, "gptq-translate", before, sorted(os.listdir(tmp_path)))
    dense = make_model(str(tmp_path / "dense"), bits=None)
    shutil.rmtree(source)
    done = harness.call("gptq-translate", "--import-hf", dense, "--export-gptq", tmp_path / "out")
    assert b"holds no quantized layer" in done.stderr and os.listdir(tmp_path) == ["dense"]
