#!/usr/bin/env python3
"""Makes examples/stories260K-gptq-4bit-g32 from the stories260K checkpoint folder.

The calibration text is drawn from the model itself (the float64 reference, seeded),
so it is in the model's own domain and belongs to nobody.

    make_stories260K.py --model DIR
"""
import argparse
import os
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "tools"), os.path.join(HERE, "..", "test")]

import numpy as np

from quantize.quantize import main as quantize
from reference.model import Model

BOS, WINDOWS, LENGTH = 1, 64, 256


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--model", required=True, metavar="DIR", help="the dense checkpoint folder")
    p.add_argument("--out", default=os.path.join(HERE, "stories260K-gptq-4bit-g32"), metavar="DIR")
    args = p.parse_args()
    model, rng = Model(args.model), np.random.default_rng(260)
    stories = [[BOS] + model.sample([BOS], LENGTH - 1, rng) for _ in range(WINDOWS)]
    with tempfile.TemporaryDirectory() as folder:
        ids = os.path.join(folder, "stories.npy")
        np.save(ids, np.array(stories, np.int32))
        return quantize(["--model", args.model, "--out", args.out, "--bits", "4", "--group-size", "32",
                         "--pad-intermediate", "192", "--calibration", ids, "--samples", str(WINDOWS),
                         "--length", str(LENGTH)])


if __name__ == "__main__":
    sys.exit(main())
