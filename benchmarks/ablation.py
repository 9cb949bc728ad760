#!/usr/bin/env python3
"""Compiles the same layers with each rewrite off, and prints what that changes.

    ablation.py [--repeat 15] [--target cpu:native] [--threads 1]

For each switch of gptq-compile, on a layer where it matters: the largest difference
of the results from those with everything on, relative to the largest result, and how
many times as long a call takes, for one row of activations and for 64.

Two layers: GATED, a whole model of one block (for what joins layers), and ORDERED, one
4-bit layer with act-order and zero points, its K so large that the sum over it is split.
Calls of all variants are timed in turn, round after round, so that a slow moment of the
machine meets all of them; the table shows ratios of medians. Each switch must change the
IR (the forms that --dump-ir writes are compared), or the script fails.
"""
import argparse
import ctypes
import os
import re
import statistics
import sys
import tempfile
import time

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.join(REPOSITORY, "test"), os.path.join(REPOSITORY, "test", "e2e")]

import numpy as np

import harness
from runtime import Model, runtime
from reference.checkpoint import Checkpoint
from reference.make_checkpoint import make_layer, make_model

ROWS = (1, 64)
# What each switch acts on: the paper's name for it, and the form where the IR must differ first.
SWITCHES = {
    "--no-vectorize": ("ordered", "vector"),
    "--no-promote": ("ordered", "planned"),
    "--no-fold-zeros": ("ordered", "planned"),
    "--no-hoist-scales": ("ordered", "planned"),
    "--no-buffer-partials": ("ordered", "planned"),
    "--no-fuse": ("gated", "normalized"),
}


def forms(folder):
    """{form: text} of the IR, without the names of weights' views, which do not matter."""
    return {re.sub(r"^\d+-|\.mlir$", "", name): open(os.path.join(folder, name), encoding="utf-8").read()
            for name in os.listdir(folder) if name.endswith(".mlir")}


def changed_forms(base, other):
    return [form for form in ("normalized", "planned", "packed", "dispatched", "tiled", "vector", "target") if base[form] != other[form]]


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--repeat", type=int, default=15, help="rounds of calls")
    p.add_argument("--target", default="cpu:native")
    p.add_argument("--threads", type=int, default=1)
    args = p.parse_args()
    library, rng = runtime(), np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        sources = {
            "ordered": (make_layer(os.path.join(folder, "ordered"), 4096, 1024, bits=4, group_size=128, sym=False, act_order=True,
                                   zeros="random"), ("--layer", "layer")),
            "gated": (make_model(os.path.join(folder, "gated"), hidden=512, intermediate=1408, heads=8, kv_heads=2, layers=2, vocab=64,
                                 group_size=64), ()),
        }
        layer = Checkpoint(sources["ordered"][0]).layer("layer")
        models, changes = {}, {}
        for kind, (source, what) in sources.items():
            for switch in ("", *(s for s, (k, _) in SWITCHES.items() if k == kind)):
                path, dump = os.path.join(folder, f"{kind}{switch}.gptqm"), os.path.join(folder, f"{kind}{switch}-ir")
                harness.compile_model(source, path, *what, "--dump-ir", dump, *([switch] if switch else []), target=args.target)
                models[kind, switch], changes[kind, switch] = Model(library, path, args.threads), forms(dump)

        # Results first, then times.
        results, times = {}, {key: {rows: [] for rows in ROWS} for key in models}
        inputs = {("ordered", rows): rng.normal(size=(rows, 4096)).astype(np.float32) + np.float32(0.25) for rows in ROWS}
        inputs.update({("gated", rows): rng.integers(3, 64, rows).astype(np.int32) for rows in ROWS})

        def call(key, rows):
            x, y = inputs[key[0], rows], np.zeros((rows, 1024 if key[0] == "ordered" else 64), np.float32)
            seconds = models[key].run("layer", x, y) if key[0] == "ordered" else models[key].score(x, y)
            return seconds, y

        for key in models:
            for rows in ROWS:
                results[key, rows] = call(key, rows)[1]
        for _ in range(args.repeat):
            for rows in ROWS:
                for key in models:
                    times[key][rows].append(call(key, rows)[0])

        for rows in ROWS:
            x = inputs["ordered", rows]
            for key in models:
                if key[0] == "ordered":
                    ratio = (np.abs(results[key, rows] - layer.apply(x)) / layer.error_bound(x)).max()
                    assert ratio <= 1, f"{key[1] or 'all on'}, {rows} rows: {ratio:.3g} times the bound of float32 sums"
        print(f"{args.target}, {args.threads} threads, medians of {args.repeat} calls in turn")
        print("ordered: one layer, K 4096, N 1024, 4 bits, groups of 128, zero points, act-order")
        print("gated: two blocks of a model, hidden 512, MLP 1408, 4 bits, groups of 64")
        print(f"{'':22}{'layer':9}{'changes IR from':>16}{'differs by':>12}" + "".join(f"{f'M {r}: ms':>12}{'ratio':>7}" for r in ROWS))
        failed = []
        for kind in sources:
            base = (kind, "")
            for key in (k for k in models if k[0] == kind):
                differs = max(np.abs(results[key, r] - results[base, r]).max() / np.abs(results[base, r]).max() for r in ROWS)
                at = changed_forms(changes[base], changes[key])
                line = f"{key[1] or 'all on':22}{kind:9}{at[0] if at else '-':>16}{differs:12.1e}"
                for rows in ROWS:
                    middle = statistics.median(times[key][rows])
                    line += f"{middle * 1e3:12.3f}{middle / statistics.median(times[base][rows]):7.2f}"
                print(line, flush=True)
                if key[1]:
                    # A plan alone computes nothing: the kernels must differ too.
                    if not at or at[0] != SWITCHES[key[1]][1] or "target" not in at:
                        failed.append(f"{key[1]}: the IR differs in {at or 'no form'}")
                    if not 0 <= differs < 1e-4:
                        failed.append(f"{key[1]}: results differ by {differs:.2e}")
        if failed:
            sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
