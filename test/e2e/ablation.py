#!/usr/bin/env python3
"""Compiles one layer with each rewrite off, and prints what that costs.

    ablation.py [--rows 2048] [--columns 2048] [--group-size 128]

For each switch: the largest error against float64 in units of the error bound of
float32 sums, the largest difference from the output with everything on, and the
time per row of activations.
"""
import argparse
import os
import resource
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]

import numpy as np

import harness
from reference.checkpoint import Checkpoint
from reference.make_checkpoint import make_layer

VARIANTS = {"everything on": (), **{f"--no-{s}": (f"--no-{s}",)
            for s in ("vectorize", "promote", "fold-zeros", "hoist-scales")}}


def seconds(model, x, folder):
    """Processor seconds of the whole command: (least, spread) of seven runs.

    Not wall-clock time, which on a busy machine says more about its other work.
    """
    source, result, taken = os.path.join(folder, "x.npy"), os.path.join(folder, "y.npy"), []
    np.save(source, x)
    for _ in range(7):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        harness.succeed("gptq-run", model, "--function", "layer", "--input", source, "--output", result, "--threads", 1)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    # The middle of the runs above the least is how far the least may be off.
    return min(taken), float(np.median(taken)) - min(taken)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--rows", type=int, default=2048, help="K, input features")
    p.add_argument("--columns", type=int, default=2048, help="N, output features")
    p.add_argument("--bits", type=int, choices=(4, 8), default=4)
    p.add_argument("--group-size", type=int, default=128)
    p.add_argument("--sym", action="store_true", help="without zero points to fold")
    p.add_argument("--target", default="cpu:native")
    args = p.parse_args()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(512, args.rows)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        source = make_layer(os.path.join(folder, "layer"), args.rows, args.columns, bits=args.bits,
                            group_size=args.group_size, sym=args.sym, zeros="random")
        layer = Checkpoint(source).layer("layer")
        few = x[:17]
        want, bound = layer.apply(few), layer.error_bound(few)
        print(f"K {args.rows}, N {args.columns}, {args.bits} bits, groups of {args.group_size}, {args.target}, one thread")
        print(f"{'':20}{'error / bound':>15}{'differs by':>12}{'µs per row':>12}{'time ratio':>12}")
        base = base_time = None
        for name, switches in VARIANTS.items():
            model = harness.compile_model(source, os.path.join(folder, "layer.gptqm"), "--layer", "layer", *switches,
                                          target=args.target)
            y = harness.run_function(model, "layer", few, folder)
            # The difference of two lengths leaves out starting, loading and writing.
            (many, many_off), (some, some_off) = seconds(model, x, folder), seconds(model, x[:64], folder)
            taken, off = (many - some) / (len(x) - 64), (many_off + some_off) / (len(x) - 64)
            if base is None:
                base, base_time = y, taken if off < taken / 4 else None
            shown = f"{taken * 1e6:12.1f}" if off < taken / 4 else f"{'too noisy':>12}"
            ratio = f"{taken / base_time:12.2f}" if base_time and off < taken / 4 else f"{'-':>12}"
            print(f"{name:20}{(np.abs(y - want) / bound).max():15.4f}{np.abs(y - base).max():12.2e}{shown}{ratio}", flush=True)


if __name__ == "__main__":
    main()
