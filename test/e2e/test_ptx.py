"""Generated PTX run without a GPU: attention against its formula, and rings whose order nothing leaves open."""
import os
import re

import numpy as np
import pytest

import harness
import ptx

EXAMPLE = os.path.join(harness.REPOSITORY, "examples", "stories260K-gptq-4bit-g32")


def compile_kernels(folder, source, *arguments):
    harness.succeed("gptq-compile", source, "--quiet", "--target=nvvm:sm_90a", "--ptxas=none", f"--dump-ir={folder}",
                    "-o", os.path.join(folder, "model.gptqm"), *arguments)
    with open(os.path.join(folder, "8-kernels.s"), encoding="utf-8") as f:
        return f.read()


def entries(text, pattern):
    return [name for name in re.findall(r"\.visible \.entry (\w+)\(", text) if re.fullmatch(pattern, name)]


# Attention of one row, in parts: 8 query heads on 4 heads of 8 elements (stories260K).
HEADS, KV_HEADS, D, CONTEXT = 8, 4, 8, 512


@pytest.fixture(scope="module")
def attention(tmp_path_factory):
    text = compile_kernels(tmp_path_factory.mktemp("attention"), EXAMPLE)
    kernels = [ptx.Kernel(text, name) for name in entries(text, r"attention_\d+_m1")]
    # Rows of q, k and v; angles; keys; values; sums and statistics of parts; dimensions.
    kernel, = (k for k in kernels if k.parameters == 7)
    return kernel


def rotate(vector, angles):
    low, high = vector[:D // 2], vector[D // 2:]
    return np.concatenate([low * np.cos(angles) - high * np.sin(angles), high * np.cos(angles) + low * np.sin(angles)])


@pytest.mark.parametrize("position", [0, 1, 127, 128, 300, 511])
def test_attention_of_one_row_in_parts(attention, position):
    rng = np.random.default_rng(position)
    keys, values = (rng.standard_normal((KV_HEADS, CONTEXT, D)).astype(np.float16) for _ in range(2))
    row = rng.standard_normal((HEADS + 2 * KV_HEADS, D)).astype(np.float32)
    row[:HEADS] *= 3
    angles = np.arange(CONTEXT)[:, None] * 10000.0 ** (-np.arange(D // 2) / (D // 2))
    table = np.concatenate([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    # What is behind the position must not matter.
    keys[:, position:], values[:, position:] = 7, 9
    parts = 8
    memory = ptx.Memory()
    arguments = [memory.add(a) for a in (
        row, table, keys, values, np.full((parts, HEADS * D), np.nan, np.float32), np.full((parts, HEADS, 2), np.nan, np.float32),
        np.array([1, position], np.int64))]
    for block in range(KV_HEADS * parts):
        ptx.Workgroup(attention, arguments, memory, block, seed=block).run()

    new_keys, new_values = (memory.arrays[i].view(np.float16).reshape(KV_HEADS, CONTEXT, D) for i in (2, 3))
    sums = memory.arrays[4].view(np.float32).reshape(parts, HEADS, D).astype(np.float64)
    highest, totals = np.moveaxis(memory.arrays[5].view(np.float32).reshape(parts, HEADS, 2).astype(np.float64), 2, 0)
    others = np.arange(CONTEXT) != position
    assert (new_keys[:, others] == keys[:, others]).all() and (new_values[:, others] == values[:, others]).all()
    for head in range(KV_HEADS):
        np.testing.assert_allclose(new_keys[head, position], rotate(row[HEADS + head].astype(np.float64), angles[position]), atol=4e-3)
        assert (new_values[head, position] == row[HEADS + KV_HEADS + head].astype(np.float16)).all()
    for head in range(HEADS):
        k, v = (a[head * KV_HEADS // HEADS, :position + 1].astype(np.float64) for a in (new_keys, new_values))
        scores = k @ rotate(row[head].astype(np.float64), angles[position]) / np.sqrt(D)
        weights = np.exp(scores - scores.max())
        expected = weights @ v / weights.sum()
        # Parts without positions have written statistics only.
        shares = np.exp(highest[:, head] - highest[:, head].max())
        some = shares > 0
        found = shares[some] @ sums[some, head] / (shares[some] @ totals[some, head])
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


# Rings: [N, K], kernels of 33 to 64 rows; and whether sums of several turns meet where the ring was, behind barriers of their own.
@pytest.fixture(scope="module", params=[(17920, 1024, False), (2112, 2048, True)], ids=["one-turn", "turns"])
def ring(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ring")
    n, k, meet = request.param
    layer = folder / "layer.mlir"
    harness.succeed("gptq-translate", "--emit-kernel", f"{n},{k},4,128", "-o", layer)
    text = compile_kernels(folder, layer, "--no-clusters")
    name = entries(text, r"dequant_matmul_\d+_m\d+")[-1]
    kernel = ptx.Kernel(text, name)
    assert kernel.lines_of("wgmma.mma_async") and kernel.lines_of("stmatrix")
    assert len(kernel.lines_of("bar.sync")) == (3 if meet else 1)
    rng = np.random.default_rng(0)

    def run(kernel, rows, seed):
        memory = ptx.Memory()
        arguments = [memory.add(a) for a in (
            rng.standard_normal((rows, k)).astype(np.float16), np.zeros(n * k // 2, np.uint8), np.ones((n, k // 128), np.float16),
            np.zeros((rows, n), np.float32), np.array([rows, 0], np.int64))]
        ptx.Workgroup(kernel, arguments, memory, block=seed, seed=seed).run()

    return kernel, run


@pytest.mark.parametrize("rows", [64, 33])
def test_nothing_leaves_the_order_in_a_ring_open(ring, rows):
    kernel, run = ring
    for seed in range(3):
        run(kernel, rows, seed)


def test_every_barrier_of_a_ring_is_needed(ring):
    """So is the fence; and the check above can fail."""
    kernel, run = ring
    lines = kernel.lines_of("mbarrier.try_wait") + kernel.lines_of("fence.proxy") + kernel.lines_of("bar.sync")
    assert len(lines) >= 7
    for line in lines:
        with pytest.raises(ptx.Race):
            for seed in range(8):
                run(kernel.without(line), 64, seed)
