"""The reference against itself, against published text, and against hand-made cases."""
import math
import os

import numpy as np
import pytest

from reference.checkpoint import Checkpoint
from reference.make_checkpoint import FAMILIES, make_layer, make_model
from reference.model import Model, mean_nll, rotary_frequencies, running_windows, windows_with_bos

# Greedy text of this checkpoint published in karpathy/llama2.c (test_all.py).
PUBLISHED = ("Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "
             "One day, she saw a big, red ball. She wanted to play with it, but it was too high.\nLily's mom said, "
             "\"Lily, let's go to the park.\" Lily was sad and didn't know what to do.")


@pytest.mark.parametrize("family", FAMILIES)
def test_cache_changes_nothing(tmp_path, family):
    model = Model(make_model(str(tmp_path), family, head_dim=24 if family == "qwen3" else None, biases=True))
    tokens = np.random.default_rng(0).integers(0, 128, 60)
    whole, cache = model(tokens), []
    parts = [model(tokens[a:b], cache) for a, b in ((0, 1), (1, 30), (30, 31), (31, 60))]
    assert np.abs(np.concatenate(parts) - whole).max() < 1e-12 * np.abs(whole).max()
    greedy = model.greedy(list(tokens), 5)
    ids = list(tokens)
    for expected in greedy:
        assert int(model(ids)[-1].argmax()) == expected
        ids.append(expected)


def test_no_token_sees_the_future(tmp_path):
    model = Model(make_model(str(tmp_path)))
    a = list(range(40))
    b = a[:25] + [99] * 15
    assert np.array_equal(model(a)[:25], model(b)[:25]) and not np.allclose(model(a)[25:], model(b)[25:])


def test_sliding_window_ends_where_it_should(tmp_path):
    """One layer: position t sees t - 23 ... t with a window of 24, and not t - 24."""
    model = Model(make_model(str(tmp_path), "mistral", layers=1))
    tokens = list(range(60))
    base = model(tokens)
    for where, changes in ((40 - 24, False), (40 - 23, True)):
        other = list(tokens)
        other[where] = 127
        assert (not np.array_equal(model(other)[40], base[40])) == changes


def test_llama3_frequencies():
    config = {"rope_theta": 500000.0, "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192}}
    f, plain = rotary_frequencies(config, 128), rotary_frequencies({"rope_theta": 500000.0}, 128)
    wave = 2 * math.pi / plain
    assert np.array_equal(f[wave < 2048], plain[wave < 2048])
    assert np.allclose(f[wave > 8192], plain[wave > 8192] / 8)
    middle = (wave >= 2048) & (wave <= 8192)
    assert middle.sum() > 3 and (f[middle] <= plain[middle]).all() and (f[middle] >= plain[middle] / 8).all()
    assert (np.diff(f) < 0).all()


@pytest.mark.parametrize("variant", (
    dict(bits=4), dict(bits=8, shards=3), dict(bits=2, group_size=-1), dict(bits=3, sym=False),
    dict(act_order=True), dict(checkpoint_format="gptq_v2", sym=False), dict(g_idx="negative"),
    dict(g_idx="absent"), dict(tied=True, dense_dtype="BF16"), dict(bits=None, dense_dtype="F32"),
    dict(hidden=60, intermediate=97, heads=3, kv_heads=1, vocab=101)), ids=str)
def test_generated_models_run(tmp_path, variant):
    model = Model(make_model(str(tmp_path), **variant))
    y = model(list(range(30)))
    assert y.shape == (30, variant.get("vocab", 128)) and np.isfinite(y).all() and 0.05 < y.std() < 50


def test_layer_by_hand(tmp_path):
    """Element by element, in Python integers, straight from the words."""
    folder = make_layer(str(tmp_path), 37, 11, bits=4, group_size=16, sym=False, act_order=True, g_idx="negative")
    c = Checkpoint(folder)
    w = c.layer("layer").weight()
    words, zeros = c.tensors["layer.qweight"][1], c.tensors["layer.qzeros"][1]
    for k in range(37):
        g = int(c.tensors["layer.g_idx"][1][k]) % 3
        for n in range(11):
            code = (int(words[k // 8, n]) >> 4 * (k % 8)) & 15
            zero = (((int(zeros[g, n // 8]) & 0xFFFFFFFF) + 0x11111111) >> 4 * (n % 8)) & 15
            assert w[k, n] == float(c.tensors["layer.scales"][1][g, n]) * (code - zero)


@pytest.mark.parametrize("rows", (37, 300))
@pytest.mark.parametrize("fold", (False, True))
def test_error_bound(tmp_path, rows, fold):
    """float32 arithmetic keeps the bound, with and without folded zero points; an
    off-by-one in a zero point, a swapped group or half-precision sums break it."""
    folder = make_layer(str(tmp_path), rows, 23, bits=4, group_size=32, sym=False, act_order=True, bias=True)
    layer = Checkpoint(folder).layer("layer")
    x = np.random.default_rng(1).normal(size=(5, rows)).astype(np.float32)
    want, bound = layer.apply(x), layer.error_bound(x)

    def float32(zeros, scales, dtype=np.float32):
        total = np.zeros((5, 23), dtype)
        for k in range(rows):
            if fold:
                total += (x[:, k:k + 1] * (scales[k] * layer.codes[k]).astype(dtype)).astype(dtype)
                total -= (x[:, k:k + 1] * (scales[k] * zeros[k]).astype(dtype)).astype(dtype)
            else:
                total += (x[:, k:k + 1] * (scales[k] * (layer.codes[k] - zeros[k])).astype(dtype)).astype(dtype)
        return total.astype(np.float64) + layer.bias

    scales = layer.scales.astype(np.float32)
    assert (np.abs(float32(layer.zeros, scales) - want) <= bound).all()
    assert (np.abs(float32(layer.zeros + 1, scales) - want) > bound).mean() > 0.9
    assert (np.abs(float32(layer.zeros, np.roll(scales, 1, 0)) - want) > bound).mean() > 0.9
    assert (np.abs(float32(layer.zeros, scales, np.float16) - want) > bound).mean() > 0.5


def test_published_text(shared_data, tokenizer):
    model = Model(os.path.join(shared_data, "stories260K-hf"))
    prompt = [1] + tokenizer.encode("Once upon a time")
    assert prompt == [1, 403, 407, 261, 378]
    assert tokenizer.decode(prompt + model.greedy(prompt, 150)).startswith(PUBLISHED)


def test_tokenizer_round_trips(texts, tokenizer):
    for text in (texts["tinystories_sample"][:200000], "caf\u00e9 \u2014 \u65e5\u672c", " two  spaces", "\n\ttab"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_published_losses(shared_data, texts, tokenizer):
    text = texts["tinyshakespeare"]
    small = Model(os.path.join(shared_data, "stories260K-hf"))
    assert abs(mean_nll(small, windows_with_bos(tokenizer.encode(text), 1, 512, 64)) - 4.73621) < 2e-5
    middle = Model(os.path.join(shared_data, "mid18M-hf"))
    held_out = tokenizer.encode(text[int(len(text) * 0.95):])
    assert abs(mean_nll(middle, running_windows(held_out, 1, 512, 8)) - 2.0487) < 5e-5
