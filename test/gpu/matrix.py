#!/usr/bin/env python3
"""Lone layers of every weight format on a GPU, at every number of rows, against float64.

    matrix.py prepare FOLDER [--target nvvm:sm_90a]     where the compiler is; needs no GPU
    matrix.py run FOLDER                                where the GPU is; needs no compiler

`run` needs gptq-run's folder in GPTQ_BIN_DIR (for the runtime library) and numpy. Every
result is checked against a bound of float32 accumulation, of a few steps in half precision
where the unit multiplies pairs of halves, twice: two runs must agree in every bit. Its last
line is 'N passed, N failed'.
"""
import json
import os
import shutil
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(HERE), os.path.join(os.path.dirname(HERE), "e2e")]

import numpy as np

import harness
from gpu import steps
import matrix as cpu_matrix
from reference.checkpoint import Checkpoint
from reference.make_checkpoint import make_layer
from runtime import Model, runtime

AXES = {
    "unit": ("matrix", "fma_f16x2", "fma_f32"),
    "bits": (2, 4, 8),
    "sym": (True, False),
    "activations": ("f16", "bf16"),
    "group_size": (-1, 32, 64, 128, 20),
    "act_order": (False, True),
    "bias": (False, True),
    # K x N: whole tiles, odd, K that ends inside a load, N below one tile, N wide enough for rings, K long enough for clusters.
    "shape": ((512, 256), (172, 4095), (4097, 172), (10944, 172), (172, 7), (192, 17001), (4096, 1030)),
}
ROWS = (1, 2, 3, 7, 8, 9, 16, 17, 32, 33, 64, 100, 1000)


def covering(axes):
    """A greedy choice of cases that shows every pair of values of any two axes."""
    saved, cpu_matrix.AXES = cpu_matrix.AXES, axes
    try:
        return cpu_matrix.covering_cases()
    finally:
        cpu_matrix.AXES = saved


def name(case):
    k, n = case["shape"]
    return (f"{case['unit']}-b{case['bits']}-{'sym' if case['sym'] else 'asym'}-{case['activations']}-g{case['group_size']}"
            f"{'-act' if case['act_order'] else ''}{'-bias' if case['bias'] else ''}-{k}x{n}")


def make(folder, case):
    """The checkpoint of a case, a folder: the same weights wherever it is made."""
    k, n = case["shape"]
    variant = {key: case[key] for key in ("bits", "sym", "group_size", "act_order", "bias")}
    return make_layer(os.path.join(folder, name(case)), k, n, seed=len(name(case)), zeros="extremes", **variant)


def prepare(folder, target):
    os.makedirs(folder, exist_ok=True)
    cases = covering(AXES)
    for case in cases:
        source = make(folder, case)
        unit = [] if case["unit"] == "matrix" else [f"--unit={case['unit']}"]
        harness.compile_model(source, os.path.join(folder, name(case) + ".gptqm"), "--layer", "layer",
                              f"--activations={case['activations']}", *unit, target=target)
        shutil.rmtree(source)
    with open(os.path.join(folder, "cases.json"), "w", encoding="utf-8") as f:
        json.dump(cases, f)
    print(f"{len(cases)} layers in {folder}")


def rounded(x, kind):
    """x with values that the type holds exactly."""
    if kind == "f16":
        return x.astype(np.float16).astype(np.float32)
    bits = x.astype(np.float32).view(np.uint32)
    return ((bits + 0x8000) & np.uint32(0xffff0000)).view(np.float32)


def half_bound(case, layer, x):
    """How far sums in half precision may land from the exact ones: a product takes part in
    m = 7 roundings of f16 (32 rows), 4 of bf16 (8 rows), the last additions being in float32;
    each is off by at most u, and all by m*u / (1 - m*u) of the sum of magnitudes."""
    if case["unit"] != "fma_f16x2":
        return 0
    m_u = 7 * 2.0**-11 if case["activations"] == "f16" else 4 * 2.0**-8
    return m_u / (1 - m_u) * (np.abs(x.astype(np.float64)) @ np.abs(layer.weight()))


def run(folder):
    with open(os.path.join(folder, "cases.json"), encoding="utf-8") as f:
        cases = json.load(f)
    library, passed, failed = runtime(), 0, 0
    for case in cases:
        k, n = case["shape"]
        layer = Checkpoint(make(folder, case)).layer("layer")
        rng = np.random.default_rng(k + n)
        try:
            model = Model(library, os.path.join(folder, name(case) + ".gptqm"))
        except RuntimeError as error:
            print(f"{name(case)}: {error}")
            failed += len(ROWS)
            continue
        for rows in ROWS:
            x = rounded(rng.normal(size=(rows, k)) + 0.25, case["activations"])
            results = []
            for _ in range(2):
                y = np.full((rows, n), np.nan, np.float32)
                model.run("layer", x, y)
                results.append(y)
            exact = layer.apply(x)
            error, largest = np.abs(results[0] - exact), np.abs(exact).max()
            beyond, worst = (error - half_bound(case, layer, x)).max() / largest, error.max() / largest
            same = np.array_equal(results[0], results[1])
            # Unpacked codes are 1024 too large until the group is corrected, which
            # costs float32 up to 7 of its 24 bits, 9 where codes have only 2.
            if same and beyond <= 4e-4:
                passed += 1
            else:
                failed += 1
                print(f"{name(case)}, {rows} rows: off by {worst:.3g} of the largest result"
                      f"{'' if same else ', and two runs differ'}")
        print(f"{name(case)}: last error {worst:.2g}", flush=True)
    return steps.report(passed, failed)


if __name__ == "__main__":
    steps.main(__doc__, lambda a: prepare(a.folder, a.target), run)
