#!/usr/bin/env python3
"""Whole small models on a GPU, of every family and file format and with every kind of attention, against float64.

    models.py prepare FOLDER [--target nvvm:sm_90a] [--only CASE] [-- OPTIONS of gptq-compile]    where the compiler is; needs no GPU
    models.py run FOLDER    where the GPU is; needs no compiler

`run` needs gptq-run's folder in GPTQ_BIN_DIR (for the runtime library) and numpy. Logits of prompts of several lengths,
and of one token at a time behind them, are compared with the reference; the token that the device chooses has to be that
of the largest logit; two runs must agree in every bit. Its last line is 'N passed, N failed'.
"""
import ctypes
import itertools
import os
import shutil
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(HERE), os.path.join(os.path.dirname(HERE), "e2e")]

import numpy as np

import harness
from gpu import steps
from reference.gguf import random_model
from reference.make_checkpoint import make_model
from reference.model import Model as Reference
from runtime import Model, runtime

CONTEXT = 640
LENGTH = 600
# Of the range of the logits: caches, activations and exponentials are rounded to the type.
BOUNDS = {"f16": 4e-3, "bf16": 3e-2}
# In logits of a router: roundings of f16 change them by up to a third of that.
LEAST_GAP = 1.5e-3
CASES = {
    "heads-of-8": dict(heads=8, kv_heads=4, head_dim=8),
    "heads-of-64": dict(heads=4, kv_heads=2, head_dim=64),
    "heads-of-80": dict(heads=2, kv_heads=1, head_dim=80),
    "heads-of-96-window": dict(family="mistral", heads=6, kv_heads=2, head_dim=96, window=100),
    "heads-of-128": dict(heads=4, kv_heads=1, head_dim=128, tied=True),
    "heads-of-128-bf16": dict(heads=4, kv_heads=2, head_dim=128, dense_dtype="BF16"),
    "heads-of-256": dict(heads=2, kv_heads=1, head_dim=256),
    "head-norms": dict(family="qwen3", heads=4, kv_heads=2, head_dim=128),
    "seven-queries": dict(family="qwen2", heads=7, kv_heads=1, head_dim=64, hidden=448),
    "ten-queries": dict(heads=10, kv_heads=1, head_dim=32),
    "no-groups-window": dict(family="mistral", heads=3, kv_heads=3, head_dim=32, window=24, hidden=96),
    "many-tokens": dict(heads=4, kv_heads=2, head_dim=16, vocab=5003, group_size=-1),
    **{family: dict(family=family, hidden=128, heads=4, kv_heads=2, act_order=True, group_size=64)
       for family in ("gemma2", "gemma3", "phi3", "opt", "gpt_neox")},
    **{family: dict(family=family, hidden=128, intermediate=128, heads=4, kv_heads=2)
       for family in ("mixtral", "qwen2_moe", "qwen3_moe")},
    "mixtral-act-order": dict(family="mixtral", hidden=128, intermediate=192, act_order=True, sym=False, group_size=64),
    # Roundings of bf16 change which experts are chosen, unless all are.
    "mixtral-8bit-bf16": dict(family="mixtral", hidden=128, intermediate=128, bits=8, dense_dtype="BF16", experts=4,
                              experts_per_token=4),
    "mixtral-dense": dict(family="mixtral", hidden=128, intermediate=128, bits=None, experts=5, experts_per_token=3),
    **{f"gguf-{kind}": dict(gguf=kind) for kind in ("f16", "q4_0", "q4_1", "q8_0", "q4_k")},
    "gguf-qwen3": dict(gguf="q4_k", architecture="qwen3", embedding="q8_0"),
}


def kind(case):
    return "bf16" if case.get("dense_dtype") == "BF16" else "f16"


def make(path, seed, gguf=None, **case):
    """The checkpoint at `path`, a folder or a GGUF file, and what it computes."""
    if gguf:
        source, packed = random_model(path + ".gguf", kind=gguf, seed=seed, context=CONTEXT, **case)
        return source, Reference(packed)
    source = make_model(path, seed=seed, context=CONTEXT, **case)
    return source, Reference(source)


def prepare(folder, target, names, options):
    os.makedirs(folder, exist_ok=True)
    for name in names:
        case = CASES[name]
        tokens = np.random.default_rng(len(name)).integers(0, case.get("vocab", 128), LENGTH).astype(np.int32)
        for seed in itertools.count(len(name)):
            source, reference = make(os.path.join(folder, name), seed=seed, **case)
            logits = reference(tokens)
            # Where two experts are as good as each other, either may be chosen, and nothing can be compared.
            if reference.smallest_gap() >= LEAST_GAP:
                break
        harness.compile_model(source, os.path.join(folder, name + ".gptqm"), *options, target=target)
        # Large vocabularies travel as parts.
        np.savez_compressed(os.path.join(folder, name + ".npz"), tokens=tokens, logits=logits[:, :600].astype(np.float32),
                            range=np.ptp(logits))
        # What runs needs the compiled model alone.
        shutil.rmtree(source) if os.path.isdir(source) else os.remove(source)
        print(name, flush=True)


class Session(Model):
    def __init__(self, library, path, vocab):
        super().__init__(library, path)
        self.vocab = vocab

    def rewind(self, count):
        self.check(self.library.gptq_session_rewind(self.session, ctypes.c_int64(count), self.error))

    def eval(self, tokens):
        tokens = np.ascontiguousarray(tokens, np.int32)
        self.check(self.library.gptq_session_eval(self.session, ctypes.c_void_p(tokens.ctypes.data), ctypes.c_int64(len(tokens)),
                                                  self.error))
        self.library.gptq_session_logits.restype = ctypes.POINTER(ctypes.c_float)
        return np.ctypeslib.as_array(self.library.gptq_session_logits(self.session), (self.vocab,)).copy()

    def next(self, token):
        chosen = ctypes.c_int32(-1)
        self.check(self.library.gptq_session_next(self.session, ctypes.c_int32(int(token)), ctypes.byref(chosen), self.error))
        return chosen.value


def check(library, folder, name, case):
    """What is wrong with one model: sentences."""
    vocab, wrong = case.get("vocab", 128), []
    with np.load(os.path.join(folder, name + ".npz")) as data:
        tokens, expected, span = data["tokens"], data["logits"], float(data["range"])
    bound = BOUNDS[kind(case)]
    session = Session(library, os.path.join(folder, name + ".gptqm"), vocab)
    worst = {"score": 0.0, "one token": 0.0}

    def compare(what, got, rows):
        error = np.abs(got[..., :expected.shape[1]] - expected[rows]).max() / span
        worst[what] = max(worst[what], error)
        if not error <= bound:
            wrong.append(f"{what}, rows {rows}: off by {error:.2g} of the range, expected at most {bound}")

    for count in (LENGTH, 1, 2, 15, 17, 64, 65, 257):
        runs = []
        for _ in range(2):
            logits = np.full((count, vocab), np.nan, np.float32)
            session.score(np.ascontiguousarray(tokens[:count]), logits)
            runs.append(logits)
        compare("score", runs[0], slice(0, count))
        if not np.array_equal(*runs):
            wrong.append(f"score of {count} tokens: two runs differ")
    for start in (0, 1, 5, 31, 60, 127, 255, 510, 580):
        runs = []
        for _ in range(2):
            session.rewind(0)
            if start:
                session.eval(tokens[:start])
            runs.append([session.eval(tokens[at:at + 1]) for at in range(start, start + 12)])
        compare("one token", np.array(runs[0]), slice(start, start + 12))
        if not np.array_equal(*runs):
            wrong.append(f"tokens from {start} on: two runs differ")
        session.rewind(start)
        for at in range(12):
            chosen = session.next(tokens[start + at])
            if chosen != int(np.argmax(runs[0][at])):
                wrong.append(f"token {start + at}: {chosen} was chosen, expected {int(np.argmax(runs[0][at]))}")
        # What the device goes on with by itself.
        session.rewind(start)
        token, own = tokens[start], []
        for _ in range(20):
            own.append(token)
            token = session.next(token)
        session.rewind(start)
        for at, token in enumerate(own[1:]):
            most = int(np.argmax(session.eval([own[at]])))
            if most != token:
                wrong.append(f"token {start + at}: the device went on with {token}, expected {most}")
    print(f"{name}: " + ", ".join(f"{what} {error:.2g}" for what, error in worst.items()), flush=True)
    return wrong


def run(folder):
    library = runtime()
    return steps.tally((name, lambda name=name, case=case: check(library, folder, name, case)) for name, case in CASES.items()
                       if os.path.exists(os.path.join(folder, name + ".npz")))


if __name__ == "__main__":
    steps.main(__doc__, lambda a: prepare(a.folder, a.target, a.only or CASES, a.options), run, lambda p: p.add_argument(
        "--only", action="append", choices=CASES, help="prepare this case, not all"))
