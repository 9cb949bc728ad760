"""Damaged input gets one sentence, a small exit status, and leaves nothing behind."""
import os
import shutil

import numpy as np
import pytest

import damage
import harness
from reference.make_checkpoint import make_layer, make_model

TOKENIZER = os.path.join(harness.REPOSITORY, "examples", "stories260K-gptq-4bit-g32")
PROMPT = ("--tokens", "1,403,407", "--max-tokens", "2", "--print-tokens")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    return make_model(str(tmp_path_factory.mktemp("whole") / "checkpoint"), vocab=512, tokenizer=TOKENIZER)


@pytest.fixture(scope="session")
def artifact(checkpoint, tmp_path_factory):
    return harness.compile_model(checkpoint, str(tmp_path_factory.mktemp("compiled") / "whole.gptqm"))


def refuses(name, folder, *arguments):
    before = os.listdir(folder)
    done = harness.call(name, *arguments, timeout=60)
    wrong = harness.error_of(done, name, before, os.listdir(folder))
    assert not wrong, wrong


def contents(folder):
    """{relative path: bytes} of all files of a folder."""
    out = {}
    for parent, _, names in os.walk(folder):
        for n in names:
            with open(os.path.join(parent, n), "rb") as f:
                out[os.path.relpath(os.path.join(parent, n), folder)] = f.read()
    return out


def test_undamaged_input_is_accepted(checkpoint, artifact, tmp_path):
    """Otherwise every test below would pass for the wrong reason."""
    assert os.path.getsize(artifact) > 0
    harness.succeed("gptq-run", artifact, *PROMPT)
    # The same, taken apart and put together again by the tools of damage.py.
    path = str(tmp_path / "same.gptqm")
    shutil.copyfile(artifact, path)
    damage.manifest(lambda m: None)(path)
    harness.succeed("gptq-run", path, *PROMPT)
    folder = str(tmp_path / "checkpoint")
    shutil.copytree(checkpoint, folder)
    damage.tensors(lambda t: None)(folder)
    damage.index(lambda c, f: None)(folder)
    damage.without_sentencepiece(lambda f: None)(folder)
    harness.compile_model(folder, str(tmp_path / "out.gptqm"))


@pytest.mark.parametrize("name", damage.CHECKPOINTS)
def test_damaged_checkpoint(checkpoint, tmp_path, name):
    folder, out = tmp_path / "checkpoint", tmp_path / "out"
    shutil.copytree(checkpoint, folder)
    out.mkdir()
    before = contents(folder)
    damage.CHECKPOINTS[name](str(folder))
    assert contents(folder) != before, "the damage did nothing"
    refuses("gptq-compile", out, folder, "-o", out / "model.gptqm")


@pytest.mark.parametrize("name", damage.ARTIFACTS)
def test_damaged_artifact(artifact, tmp_path, name):
    path = tmp_path / "model.gptqm"
    shutil.copyfile(artifact, path)
    damage.ARTIFACTS[name](str(path))
    assert path.read_bytes() != open(artifact, "rb").read(), "the damage did nothing"
    refuses("gptq-run", tmp_path, path, *PROMPT)


@pytest.mark.parametrize("part", range(16))
def test_no_flipped_bit_goes_unnoticed(artifact, tmp_path, part):
    """One flipped bit in each sixteenth of the file."""
    raw = bytearray(open(artifact, "rb").read())
    where = (2 * part + 1) * len(raw) // 32
    pads = [e["data_offsets"] for n, e in damage.Container(artifact).header.items() if n.startswith("pad.")]
    start = len(raw) - len(damage.Container(artifact).data)
    while any(start + a <= where < start + b for a, b in pads):
        where += 1
    raw[where] ^= 4
    (tmp_path / "model.gptqm").write_bytes(raw)
    refuses("gptq-run", tmp_path, tmp_path / "model.gptqm", *PROMPT)


COMPILE_MISTAKES = {
    "no-such-folder": lambda c, out: [out / "absent", "-o", out / "m.gptqm"],
    "no-output-folder": lambda c, out: [c, "-o", out / "absent" / "m.gptqm"],
    "output-is-a-folder": lambda c, out: [c, "-o", out],
    "no-output": lambda c, out: [c],
    "no-input": lambda c, out: ["-o", out / "m.gptqm"],
    "target-unknown": lambda c, out: [c, "--target=abacus", "-o", out / "m.gptqm"],
    "chip-unknown": lambda c, out: [c, "--target=cpu:z80", "-o", out / "m.gptqm"],
    "layer-absent": lambda c, out: [c, "--layer", "model.layers.9.mlp.up_proj", "-o", out / "m.gptqm"],
    "option-unknown": lambda c, out: [c, "--no-such-option", "-o", out / "m.gptqm"],
    "context-zero": lambda c, out: [c, "--max-context", "0", "-o", out / "m.gptqm"],
    "context-negative": lambda c, out: [c, "--max-context", "-5", "-o", out / "m.gptqm"],
    "context-is-a-word": lambda c, out: [c, "--max-context", "many", "-o", out / "m.gptqm"],
    "input-is-a-text-file": lambda c, out: [os.path.join(c, "tokenizer_config.json"), "-o", out / "m.gptqm"],
}


@pytest.mark.parametrize("name", COMPILE_MISTAKES)
def test_compiler_mistakes(checkpoint, tmp_path, name):
    refuses("gptq-compile", tmp_path, *COMPILE_MISTAKES[name](checkpoint, tmp_path))


RUN_MISTAKES = {
    "no-model": [],
    "token-outside-the-vocabulary": ["--tokens", "1,512"],
    "token-negative": ["--tokens", "1,-3"],
    "token-giant": ["--tokens", "99999999999999999999"],
    "token-is-a-word": ["--tokens", "1,x,2"],
    "tokens-empty": ["--tokens", ""],
    "more-tokens-than-the-context": ["--tokens", ",".join(["5"] * 300)],
    "max-tokens-negative": ["--tokens", "1,5", "--max-tokens", "-1"],
    "threads-negative": ["--tokens", "1,5", "--threads", "-2"],
    "threads-is-a-word": ["--tokens", "1,5", "--threads", "all"],
    "function-absent": ["--function", "absent", "--input", "{x}", "--output", "{out}/y.npy"],
    "perplexity-file-absent": ["--perplexity", "{out}/absent.txt"],
    "logits-folder-absent": ["--tokens", "1,5", "--logits", "{out}/absent/logits.npy"],
    "option-unknown": ["--tokens", "1,5", "--no-such-option"],
}


@pytest.mark.parametrize("name", RUN_MISTAKES)
def test_runtime_mistakes(artifact, tmp_path, name):
    x = tmp_path / "x.npy"
    np.save(x, np.zeros((1, 64), np.float32))
    arguments = [a.format(x=x, out=tmp_path) for a in RUN_MISTAKES[name]]
    refuses("gptq-run", tmp_path, *([] if name == "no-model" else [artifact]), *arguments)


@pytest.fixture(scope="session")
def function(tmp_path_factory):
    folder = tmp_path_factory.mktemp("function")
    source = make_layer(str(folder / "layer"), 64, 32, group_size=32)
    return harness.compile_model(source, str(folder / "layer.gptqm"), "--layer", "layer")


def save(array):
    return lambda path: np.save(path, array)


def shaped(text):
    """Says another shape in the header, whose length stays the same."""
    def change(raw):
        header = raw[10:128].replace(b"(2, 64)", text).rstrip()
        return raw[:10] + header.ljust(117) + b"\n" + raw[128:]
    return rewrite(change)


def rewrite(change):
    def write(path):
        np.save(path, np.zeros((2, 64), np.float32))
        with open(path, "rb") as f:
            raw = f.read()
        with open(path, "wb") as f:
            f.write(change(raw))
    return write


ARRAYS = {
    "too-narrow": save(np.zeros((2, 63), np.float32)),
    "three-dimensions": save(np.zeros((1, 2, 64), np.float32)),
    "no-rows": save(np.zeros((0, 64), np.float32)),
    "complex": save(np.zeros((2, 64), np.complex64)),
    "big-endian": save(np.zeros((2, 64), ">f4")),
    "fortran-order": save(np.asfortranarray(np.ones((2, 64), np.float32))),
    "objects": lambda path: np.save(path, np.array([[None] * 64]), allow_pickle=True),
    "empty": rewrite(lambda raw: b""),
    "cut-in-the-header": rewrite(lambda raw: raw[:40]),
    "cut-in-the-data": rewrite(lambda raw: raw[:-1]),
    "not-an-array": rewrite(lambda raw: b"hello" * 100),
    "shape-giant": shaped(b"(4611686018427387904, 64)"),
    "shape-negative": shaped(b"(-2, 64)"),
    "header-length-wrong": rewrite(lambda raw: raw[:8] + b"\xff\xff" + raw[10:]),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_damaged_arrays(function, tmp_path, name):
    x = tmp_path / "x.npy"
    ARRAYS[name](x)
    refuses("gptq-run", tmp_path, function, "--function", "layer", "--input", x, "--output", tmp_path / "y.npy")
