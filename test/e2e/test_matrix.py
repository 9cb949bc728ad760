"""Lone layers of every weight format, at every number of rows, against float64."""
import os

import numpy as np
import pytest

import harness
import matrix
from reference.checkpoint import Checkpoint
from reference.make_checkpoint import make_layer
from reference.make_kernel import make_kernel


def check_layer(case, folder, name, make):
    """Compiles what `make(folder, k, n, **variant)` makes, with its arguments, and runs it at every number of rows."""
    k, n = case["shape"]
    variant = {key: value for key, value in case.items() if key not in ("shape", "target", "switch")}
    seed = sum(ord(c) for c in name)
    source = os.path.join(folder, "layer")
    # A quarter of the zero points is 0, another quarter the largest there is.
    what = make(source, k, n, seed=seed, zeros="extremes", **variant)
    model = harness.compile_model(what[0], os.path.join(folder, "layer.gptqm"), *what[1:], *filter(None, [case.get("switch")]),
                                  target=case["target"])
    layer = Checkpoint(source).layer("layer")
    rng, worst = np.random.default_rng(seed), 0
    for rows in matrix.ROWS:
        # Distinct values with a mean, so that a wrong zero point shows in every output.
        x = (rng.normal(size=(rows, k)) + 0.25).astype(np.float32)
        y = harness.run_function(model, "layer", x, folder)
        assert y.shape == (rows, n) and y.dtype == np.float32
        ratio = np.abs(y - layer.apply(x)) / layer.error_bound(x)
        assert not np.isnan(ratio).any() and ratio.max() <= 1, f"{rows} rows: {ratio.max():.3g} times the bound"
        worst = max(worst, ratio.max())
    # float32 never is exact on sums this long: a run that is compared with itself would be.
    assert worst > 0


def check(case, folder):
    check_layer(case, folder, matrix.name(case), lambda *a, **variant: (make_layer(*a, **variant), "--layer", "layer"))


@pytest.mark.parametrize("case", matrix.covering_cases(), ids=matrix.name)
def test_pairs(case, tmp_path):
    check(case, str(tmp_path))


@pytest.mark.parametrize("case", matrix.covering_cases(matrix.KERNEL_AXES), ids=matrix.kernel_name)
def test_kernels_of_every_width(case, tmp_path):
    check_layer(case, str(tmp_path), matrix.kernel_name(case), lambda *a, **variant: (make_kernel(*a, **variant),))


def test_narrow_last_panel_of_permuted_rows(tmp_path):
    """Sums over parts of K of permuted activations, in tiles of one panel whose last is narrower."""
    check({"bits": 4, "checkpoint_format": "gptq", "sym": False, "group_size": 128, "act_order": True, "bias": False,
           "shape": (4096, 200), "target": "cpu:x86-64-v3"}, str(tmp_path))


@pytest.mark.full
@pytest.mark.parametrize("case", matrix.full_cases(), ids=matrix.name)
def test_full(case, tmp_path):
    check(case, str(tmp_path))


@pytest.mark.parametrize("variant", (
    dict(g_idx="negative", group_size=16), dict(g_idx="absent", group_size=32),
    dict(scale_dtype="BF16", group_size=32), dict(scale_dtype="F32", group_size=32)), ids=str)
def test_rarer_formats(variant, tmp_path):
    source = make_layer(str(tmp_path / "layer"), 96, 40, seed=5, **variant)
    model = harness.compile_model(source, str(tmp_path / "layer.gptqm"), "--layer", "layer")
    layer = Checkpoint(source).layer("layer")
    x = np.random.default_rng(0).normal(size=(9, 96)).astype(np.float32)
    y = harness.run_function(model, "layer", x, str(tmp_path))
    assert (np.abs(y - layer.apply(x)) <= layer.error_bound(x)).all()


def test_one_and_several_threads_agree(tmp_path):
    source = make_layer(str(tmp_path / "layer"), 300, 131, group_size=32)
    model = harness.compile_model(source, str(tmp_path / "layer.gptqm"), "--layer", "layer")
    x = np.random.default_rng(0).normal(size=(17, 300)).astype(np.float32)
    a, b = (harness.run_function(model, "layer", x, str(tmp_path), "--threads", t) for t in (1, 2))
    assert np.array_equal(a, b)


SWITCHES = ("--no-vectorize", "--no-promote", "--no-fold-zeros", "--no-hoist-scales")


@pytest.mark.parametrize("switch", SWITCHES)
def test_each_rewrite_may_be_off(switch, tmp_path):
    source = make_layer(str(tmp_path / "layer"), 257, 70, group_size=32, sym=False, act_order=True)
    model = harness.compile_model(source, str(tmp_path / "layer.gptqm"), "--layer", "layer", switch)
    layer = Checkpoint(source).layer("layer")
    for rows in (1, 9):
        x = np.random.default_rng(rows).normal(size=(rows, 257)).astype(np.float32)
        y = harness.run_function(model, "layer", x, str(tmp_path))
        assert (np.abs(y - layer.apply(x)) <= layer.error_bound(x)).all()


def test_what_is_not_finite_stays_so(tmp_path):
    """Activations split into bytes have no infinities; their units do."""
    ir = make_kernel(str(tmp_path / "layer"), 96, 40, 3, group_size=32)
    model = harness.compile_model(ir, str(tmp_path / "layer.gptqm"))
    for value in (np.nan, np.inf, -np.inf):
        x = np.ones((1, 96), np.float32)
        x[0, 40] = value
        assert not np.isfinite(harness.run_function(model, "layer", x, str(tmp_path))).any()


@pytest.mark.parametrize("scale", (0, 1e-38, 1e-25, 1e25))
def test_activations_of_any_size(scale, tmp_path):
    ir = make_kernel(str(tmp_path / "layer"), 96, 40, 3, group_size=32, sym=False)
    model = harness.compile_model(ir, str(tmp_path / "layer.gptqm"))
    layer = Checkpoint(str(tmp_path / "layer")).layer("layer")
    x = (np.random.default_rng(1).normal(size=(1, 96)) * scale).astype(np.float32)
    y = harness.run_function(model, "layer", x, str(tmp_path))
    # Products below 2^-100 may vanish.
    assert (np.abs(y - layer.apply(x)) <= layer.error_bound(x) + 2.0**-100 * layer.in_features).all()
