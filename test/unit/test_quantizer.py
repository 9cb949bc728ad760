"""Properties of the quantizer on small layers, and one whole run."""
import json
import os

import numpy as np
import pytest

from quantize import checkpoint, gptq
from quantize.quantize import main
from reference.checkpoint import Checkpoint
from reference.make_checkpoint import make_model
from reference.model import Model


@pytest.fixture(scope="module")
def problem():
    """Weights and correlated activations: where GPTQ has something to gain."""
    rng = np.random.default_rng(3)
    rows, columns = 200, 48
    mix = rng.normal(size=(rows, rows)) * np.geomspace(1, 0.02, rows)
    x = (rng.normal(size=(4000, rows)) @ mix).astype(np.float32)
    x[:, 17] = 0
    return rng.normal(size=(rows, columns)).astype(np.float32), x.T.astype(np.float64) @ x


def output_error(result, problem):
    w, h = problem
    d = result.weight() - w
    return float((d * (h @ d)).sum())


@pytest.mark.parametrize("sym", (True, False))
@pytest.mark.parametrize("group_size", (-1, 32, 48, 150))
@pytest.mark.parametrize("act_order,static", ((False, False), (True, False), (True, True)))
def test_gptq_beats_rounding(problem, sym, group_size, act_order, static):
    w, h = problem
    grid = gptq.Grid(4, sym)
    plain = gptq.round_to_nearest(w, gptq.Grid(4, sym, search=False), group_size)
    ours = gptq.gptq(w, h, grid, group_size, act_order=act_order, static_groups=static)
    assert output_error(ours, problem) < 0.7 * output_error(plain, problem)
    groups = gptq.group_count(200, group_size)
    assert ours.scales.shape == ours.zeros.shape == (groups, 48)
    size = 200 if group_size == -1 else group_size
    assert np.array_equal(np.bincount(ours.g_idx), np.bincount(np.arange(200) // size))
    trivial = np.array_equal(ours.g_idx, np.arange(200) // size)
    assert trivial == (not act_order or static or groups == 1)


def test_no_calibration_is_rounding(problem):
    """With uncorrelated inputs there is nothing to mend: the codes are the nearest."""
    w, _ = problem
    grid = gptq.Grid(4, search=False)
    ours = gptq.gptq(w, np.eye(200), grid, 32)
    assert np.array_equal(ours.codes, gptq.round_to_nearest(w, grid, 32).codes)


def test_inverse_factor(problem):
    h = problem[1] + 5 * np.eye(200)
    u = gptq.inverse_factor(h)
    assert np.allclose(np.tril(u, -1), 0) and np.allclose(u.T @ u @ h, np.eye(200), atol=1e-8)


def test_rounding_error_is_at_most_half_a_step(problem):
    w, _ = problem
    for sym in (True, False):
        r = gptq.round_to_nearest(w, gptq.Grid(4, sym, search=False), 32)
        # Symmetric codes reach down to -8 but up only to +7, so the largest positive
        # weight of a group may be off by a whole step. Half scales add their rounding.
        limit = (1.0 if sym else 0.5) + 0.02
        assert (np.abs(r.weight() - w) <= limit * r.scales[r.g_idx]).all()


def test_range_search_reduces_the_weighed_error(problem):
    w, h = problem
    importance = np.diag(h)
    errors = []
    for search in (False, True):
        grid = gptq.Grid(2, search=search)
        r = grid.fit(w[:32], importance[:32])
        errors.append((importance[:32, None] * (r[0] * (grid.codes(w[:32], *r) - r[1]) - w[:32])**2).sum(0))
    assert (errors[1] <= errors[0] * (1 + 1e-6)).all() and errors[1].sum() < 0.9 * errors[0].sum()


def test_features_without_signal_become_zero(problem):
    w, h = problem
    for act_order in (False, True):
        assert not gptq.gptq(w, h, gptq.Grid(4), 32, act_order=act_order).weight()[17].any()


def test_scales_are_halves_and_never_zero():
    r = gptq.round_to_nearest(np.zeros((8, 3), np.float32), gptq.Grid(4), -1)
    assert (r.scales > 0).all() and not r.weight().any()
    r = gptq.round_to_nearest(np.full((8, 3), 1e-9, np.float32), gptq.Grid(8), -1)
    assert np.array_equal(r.scales.astype(np.float16).astype(np.float32), r.scales) and (r.scales > 0).all()


def calibration(tmp_path, vocabulary):
    path = str(tmp_path / "ids.npy")
    np.save(path, np.random.default_rng(1).integers(0, vocabulary, 3000))
    return path


@pytest.mark.parametrize("family", ("llama", "llama3", "mistral", "qwen2", "qwen3"))
def test_whole_model(tmp_path, family):
    """A quantized folder is near the dense one in the reference, for each family."""
    dense = make_model(str(tmp_path / "dense"), family, bits=None, dense_dtype="BF16", shards=2,
                       intermediate=90, window=512 if family == "mistral" else None)
    tokens = np.random.default_rng(2).integers(0, 128, 40)
    want = Model(dense)(tokens)
    arguments = ["--model", dense, "--calibration", calibration(tmp_path, 128), "--samples", "16", "--length", "64"]
    previous = None
    for bits in ("2", "4", "8"):
        out = str(tmp_path / f"q{bits}")
        assert main([*arguments, "--out", out, "--bits", bits, "--group-size", "32", "--asym",
                     "--act-order", "--shard-size", "1"]) == 0
        error = np.sqrt(((Model(out)(tokens) - want)**2).mean()) / want.std()
        assert error < {"2": 1.0, "4": 0.2, "8": 0.012}[bits]
        assert previous is None or error < previous / 2
        previous = error


def test_padding_changes_nothing(tmp_path):
    dense = make_model(str(tmp_path / "dense"), bits=None, intermediate=90, biases=True)
    arguments = ["--model", dense, "--method", "rtn", "--bits", "8", "--group-size", "32"]
    assert main([*arguments, "--out", str(tmp_path / "a")]) == 0
    assert main([*arguments, "--out", str(tmp_path / "b"), "--pad-intermediate", "128"]) == 0
    a, b = Model(str(tmp_path / "a")), Model(str(tmp_path / "b"))
    assert b.config["intermediate_size"] == 128
    tokens = list(range(20))
    assert np.abs(a(tokens) - b(tokens)).max() < 1e-12


@pytest.mark.parametrize("checkpoint_format", ("gptq", "gptq_v2"))
@pytest.mark.parametrize("bits", (2, 3, 4, 8))
def test_folder_holds_what_was_rounded(tmp_path, bits, checkpoint_format):
    """The reference reads from the folder the weights that the quantizer meant."""
    dense = make_model(str(tmp_path / "dense"), bits=None, intermediate=77)
    out = str(tmp_path / "out")
    assert main(["--model", dense, "--out", out, "--method", "rtn", "--bits", str(bits), "--group-size", "24",
                 "--asym", "--format", checkpoint_format]) == 0
    first_zero = 1 if checkpoint_format == "gptq" else 0
    for name in ("model.layers.0.mlp.down_proj", "model.layers.1.self_attn.k_proj"):
        w = checkpoint.to_float(checkpoint.read_checkpoint(dense)[f"{name}.weight"]).T
        meant = gptq.round_to_nearest(w, gptq.Grid(bits, False, False, first_zero), 24)
        got, bias = Checkpoint(out).linear(name)
        assert bias is None and np.array_equal(got.astype(np.float32), meant.weight())


def test_config_and_files(tmp_path):
    dense = make_model(str(tmp_path / "dense"), bits=None)
    (tmp_path / "dense" / "tokenizer_config.json").write_text("{}")
    out = str(tmp_path / "out")
    assert main(["--model", dense, "--out", out, "--method", "rtn", "--bits", "4", "--group-size", "-1"]) == 0
    config = json.load(open(os.path.join(out, "config.json")))
    settings = config["quantization_config"]
    assert settings == json.load(open(os.path.join(out, "quantize_config.json")))
    assert {k: settings[k] for k in ("bits", "group_size", "sym", "desc_act", "quant_method", "checkpoint_format")} == {
        "bits": 4, "group_size": -1, "sym": True, "desc_act": False, "quant_method": "gptq", "checkpoint_format": "gptq"}
    assert sorted(os.listdir(out)) == ["config.json", "model.safetensors", "quantize_config.json", "tokenizer_config.json"]
    tensors = checkpoint.read_checkpoint(out)
    part = "model.layers.0.mlp.up_proj."
    kinds = {n: (tensors[part + n].dtype, tensors[part + n].array.shape) for n in ("qweight", "qzeros", "scales", "g_idx")}
    assert kinds == {"qweight": ("I32", (8, 96)), "qzeros": ("I32", (1, 12)), "scales": ("F16", (1, 96)), "g_idx": ("I32", (64,))}


@pytest.mark.parametrize("dtype", ("F16", "BF16", "F32"))
def test_floats_survive_the_file(tmp_path, dtype):
    values = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    path = str(tmp_path / "x.safetensors")
    checkpoint.write_safetensors(path, {"x": checkpoint.from_float(values, dtype)})
    back = checkpoint.to_float(checkpoint.read_safetensors(path)["x"])
    steps = {"F16": 2.0**-11, "BF16": 2.0**-8, "F32": 0}
    assert (np.abs(back - values) <= steps[dtype] * np.abs(values)).all()


def test_mistakes_are_one_line(tmp_path, capsys):
    dense = make_model(str(tmp_path / "dense"), "llama", bits=None)
    config = json.load(open(os.path.join(dense, "config.json")))
    for change, message in (({"model_type": "gpt2"}, "model_type 'gpt2'"), ({"num_hidden_layers": 3}, "missing"),
                            ({"quantization_config": {}}, "quantized already")):
        json.dump({**config, **change}, open(os.path.join(dense, "config.json"), "w"))
        assert main(["--model", dense, "--out", str(tmp_path / "out"), "--method", "rtn"]) == 1
        error = capsys.readouterr().err
        assert error.startswith("quantize: error: ") and message in error and error.count("\n") == 1
