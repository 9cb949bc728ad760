# Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Runs the toy model that the runtime's tests write."""

import os
import subprocess

import numpy as np
import pytest

import gptq


@pytest.fixture(scope="session")
def model_path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    subprocess.run(
        [os.environ["GPTQ_RUNTIME_TESTS"], "--gtest_filter=Runtime.ScoreGivesEveryRow"],
        env={**os.environ, "TEST_TMPDIR": str(folder)}, check=True, stdout=subprocess.DEVNULL)
    return folder / "score.gptqm"


@pytest.fixture(scope="session")
def model(model_path):
    return gptq.Model(model_path, threads=2)


def test_logits_are_the_toys(model):
    # The toy model averages embeddings and projects the mean.
    i = np.arange(33 * 8)
    embedding = (i * 37 % 101 / 16 - 3).reshape(33, 8)
    head = (i * 53 % 97 / 32 - 1).reshape(33, 8)
    tokens = [5, 24, 10, 29, 15, 1, 20, 6, 25]
    mean = embedding[tokens].cumsum(0) / np.arange(1, 10)[:, None]
    logits = model.logits(tokens)
    assert logits.dtype == np.float32 and logits.shape == (9, 33)
    # float32 sums of 8 products below 16: 8 * 16 * 2**-23 rounds up to 2e-5.
    np.testing.assert_allclose(logits, mean @ head.T, atol=2e-5)


def test_generate_follows_the_logits(model):
    tokens = [5, 24, 10]
    expected = []
    for _ in range(6):
        expected.append(int(model.logits(tokens + expected)[-1].argmax()))
    assert model.generate(tokens, max_tokens=6, ignore_eos=True) == expected
    assert model.generate(tokens, max_tokens=6, temperature=1.0, seed=1, ignore_eos=True) == \
        model.generate(tokens, max_tokens=6, temperature=1.0, seed=1, ignore_eos=True)


def test_generate_stops_at_the_context(model):
    assert len(model.generate([5] * 48, max_tokens=20, ignore_eos=True)) == 3


def test_runs_functions(model):
    assert model.functions == ["add", "negate"]
    a, b = np.arange(12.0).reshape(3, 4), np.array([1, 2, 3, 4], "f2")
    np.testing.assert_array_equal(model.run("add", a, b), a + b)
    np.testing.assert_array_equal(model.run("add", b=b, a=a), a + b)
    with pytest.raises(TypeError, match="'b' is missing"):
        model.run("add", a)
    with pytest.raises(TypeError, match="unexpected c"):
        model.run("add", a, b, c=b)
    with pytest.raises(ValueError, match=r"expected f32\[4\]"):
        model.run("add", a, a)


def test_errors_are_exceptions(model, tmp_path):
    with pytest.raises(FileNotFoundError, match="cannot open"):
        gptq.Model(tmp_path / "none.gptqm")
    (tmp_path / "bad.gptqm").write_bytes(b"not a model at all")
    with pytest.raises(RuntimeError, match="longer than the format's limit"):
        gptq.Model(tmp_path / "bad.gptqm")
    with pytest.raises(ValueError, match="expected an id of 0 to 32, found 99"):
        model.logits([99])
    with pytest.raises(RuntimeError, match="no tokenizer"):
        model.encode("text")


def test_objects_outlive_their_model(model_path):
    stream = gptq.Model(model_path).stream([5, 24], max_tokens=3, ignore_eos=True)
    assert len(list(stream)) == 3
