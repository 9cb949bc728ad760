"""The damaged inputs are many, distinct, and each is damaged in the way its name says."""
import hashlib
import json
import os
import shutil
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "e2e"))

import damage
import harness
from reference.make_checkpoint import make_model

TOKENIZER = os.path.join(os.path.dirname(os.path.dirname(HERE)), "examples", "stories260K-gptq-4bit-g32")


def digest(folder):
    h = hashlib.sha256()
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as f:
            h.update(name.encode() + b"\0" + f.read())
    return h.digest()


def small_artifact(path):
    """A file laid out like a compiled model, as docs/ModelFormat.md says."""
    contents = {"code.elf": b"\x7fELF" + bytes(range(256)) * 2, "w.0": bytes(200), "file.tokenizer.model": b"pieces" * 20}
    manifest = {
        "version": 1, "producer": "gptq-mlir", "target": {"kind": "cpu", "name": "x86-64-v3", "features": ["avx2"]},
        "model": {"family": "llama", "vocab_size": 512, "max_context": 64, "bos_ids": [1], "eos_ids": [2]},
        "tokenizer": {"kind": "sentencepiece", "files": ["tokenizer.model"]}, "checksum": "xxh3_64",
        "sections": [{"tensor": n, "bytes": len(b), "checksum": damage.xxh3_64(b)} for n, b in contents.items()],
        "state": [{"name": "layers.0.k", "bytes": 64}],
        "entries": [{"name": "generate", "max_m": 4, "arena_bytes": 128, "inputs": [{"name": "tokens", "dtype": "i32", "shape": ["M"]}],
                     "outputs": [{"name": "logits", "dtype": "f32", "shape": [1, 512]}],
                     "dispatches": [{"name": "k", "args": [{"arena": 0, "size": [64, 16]}, {"weight": 0}, {"state": 0}, {"input": 0},
                                                           {"output": 0}],
                                     "variants": [{"m_max": 2, "symbol": "a", "grid": [[0, 0, 1, 1]], "scratch_bytes": 0},
                                                  {"m_max": 4, "symbol": "b", "grid": [[1, 0, 0, 2]], "scratch_bytes": 0}]}]}]}
    c = damage.Container.__new__(damage.Container)
    c.path, c.data = path, bytearray()
    blob = json.dumps(manifest).encode()
    c.header = {"__metadata__": {"format": "gptqm", "version": "1", "manifest_checksum": damage.xxh3_64(blob)}}
    damage.lay_out(c, {"manifest.json": blob, **contents})
    return path


def test_damaged_checkpoints_are_distinct(tmp_path):
    whole = make_model(str(tmp_path / "whole"), vocab=512, tokenizer=TOKENIZER)
    seen = {digest(whole): "the undamaged one"}
    for name, change in damage.CHECKPOINTS.items():
        folder = str(tmp_path / "damaged" / "checkpoint")
        shutil.copytree(whole, folder)
        change(folder)
        d = digest(folder)
        assert d not in seen, f"{name} is the same as {seen.get(d)}"
        seen[d] = name
        shutil.rmtree(tmp_path / "damaged")
    assert len(seen) > 100


def test_damaged_artifacts_are_distinct(tmp_path):
    path = small_artifact(str(tmp_path / "model.gptqm"))
    whole = open(path, "rb").read()
    seen = {whole: "the undamaged one"}
    for name, change in damage.ARTIFACTS.items():
        with open(path, "wb") as f:
            f.write(whole)
        change(path)
        d = open(path, "rb").read()
        assert d not in seen, f"{name} is the same as {seen.get(d)}"
        seen[d] = name
    assert len(seen) > 100


def test_checksum_is_xxh3():
    """The value that xxhsum -H3 prints for an empty input."""
    assert damage.xxh3_64(b"") == "2d06800538d394c2"


class Done:
    def __init__(self, returncode, stderr):
        self.returncode, self.stderr = returncode, stderr


@pytest.mark.parametrize("done,after,wrong", (
    (Done(1, b"tool: error: no\n"), [], False), (Done(0, b"tool: error: no\n"), [], True),
    (Done(-11, b"tool: error: no\n"), [], True), (Done(139, b"tool: error: no\n"), [], True),
    (Done(1, b""), [], True), (Done(1, b"tool: error: a\ntool: error: b\n"), [], True),
    (Done(1, b"tool: error: no"), [], True), (Done(1, b"tool: error: \n"), [], True),
    (Done(1, b"other: error: no\n"), [], True), (Done(1, b"tool: error: no\n"), ["x.tmp"], True),
    (Done(1, b"tool: error: \xff\n"), [], True), (Done(1, b"tool: error: a\x1b[0m\n"), [], True)))
def test_what_counts_as_a_refusal(done, after, wrong):
    assert bool(harness.error_of(done, "tool", [], after)) == wrong
