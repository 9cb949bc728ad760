"""Products with the weights of several experts, and models made of them."""
import json
import os
import shutil

import numpy as np
import pytest

import damage
import harness
from reference.checkpoint import Checkpoint
from reference.make_checkpoint import make_model
from reference.make_kernel import make_experts
from reference.model import Model

# One row, fewer rows than experts, several tiles of rows for an expert, more than a call's rows.
ROWS = (1, 2, 5, 17, 64, 300)
KERNELS = {
    "4bit": dict(experts=8, slots=2, rows=96, columns=80, bits=4, group_size=32),
    "4bit-asym-act-order-bias": dict(experts=5, slots=3, rows=77, columns=45, bits=4, group_size=16, sym=False,
                                     act_order=True, bias=True),
    "3bit-split-activations": dict(experts=4, slots=2, rows=96, columns=40, bits=3, group_size=32, sym=False),
    "2bit-act-order": dict(experts=4, slots=1, rows=128, columns=33, bits=2, group_size=64, act_order=True),
    "8bit-one-group": dict(experts=16, slots=4, rows=129, columns=257, bits=8),
    "all-experts": dict(experts=3, slots=3, rows=64, columns=48, bits=4, group_size=32, normalizes=False),
    "one-expert": dict(experts=1, slots=1, rows=64, columns=48, bits=4, group_size=32),
    "sums-over-parts-of-k": dict(experts=2, slots=2, rows=6144, columns=32, bits=4, group_size=128),
}


def softmax(x):
    p = np.exp(x - x.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def check_experts(folder, *arguments, calls=ROWS, **shape):
    source = str(folder / "layer")
    model = harness.compile_model(make_experts(source, **shape), str(folder / "layer.gptqm"), *arguments)
    checkpoint = Checkpoint(source)
    layers = [checkpoint.layer(f"layer.{e}") for e in range(shape["experts"])]
    router, rng, worst = checkpoint.dense("router.weight").T, np.random.default_rng(1), 0
    for m in calls:
        x = (rng.normal(size=(m, shape["rows"])) + 0.25).astype(np.float32)
        y = harness.run_function(model, "layer", x, source)
        p = softmax(x.astype(np.float64) @ router)
        want, bound = np.zeros((m, shape["columns"])), np.zeros((m, shape["columns"]))
        for t in range(m):
            chosen = np.argsort(-p[t], kind="stable")[:shape["slots"]]
            share = p[t, chosen] / (p[t, chosen].sum() if shape.get("normalizes", True) else 1)
            for e, weight in zip(chosen, share):
                part = layers[e].apply(x[t:t + 1])[0]
                want[t] += weight * part
                # Weights are exponentials of sums of K products, a few units of 2^-24 of their size off each.
                off = 2.0**-24 * (np.abs(x[t]) @ np.abs(router)).max() * 64 + 2.0**-20
                bound[t] += weight * (layers[e].error_bound(x[t:t + 1])[0] + off * np.abs(part))
        ratio = np.abs(y - want) / bound
        assert not np.isnan(ratio).any() and ratio.max() <= 1, f"{m} rows: {ratio.max():.3g} times the bound"
        worst = max(worst, ratio.max())
    assert worst > 0


@pytest.mark.parametrize("name", KERNELS)
def test_grouped_products(tmp_path, name):
    check_experts(tmp_path, **KERNELS[name])


@pytest.mark.parametrize("switch", ("--no-vectorize", "--no-promote", "--no-fold-zeros", "--no-hoist-scales",
                                    "--no-buffer-partials", "--no-fuse"))
def test_each_rewrite_may_be_off(tmp_path, switch):
    check_experts(tmp_path, switch, calls=(1, 9), **KERNELS["4bit-asym-act-order-bias"])


def test_one_and_several_threads_agree(tmp_path):
    source = str(tmp_path / "layer")
    model = harness.compile_model(make_experts(source, **KERNELS["4bit"]), str(tmp_path / "layer.gptqm"))
    x = np.random.default_rng(0).normal(size=(17, 96)).astype(np.float32)
    a, b = (harness.run_function(model, "layer", x, source, "--threads", t) for t in (1, 2))
    assert np.array_equal(a, b)


MIXTURES = {
    "mixtral": dict(family="mixtral"),
    "mixtral-asym-act-order": dict(family="mixtral", sym=False, act_order=True, seed=1),
    "mixtral-dense": dict(family="mixtral", bits=None),
    "qwen3": dict(family="qwen3_moe", experts=16, experts_per_token=4, expert_width=48),
    "qwen3-not-normalized": dict(family="qwen3_moe", normalizes=False, act_order=True),
    "qwen3-dense-between": dict(family="qwen3_moe", layers=4, sparse_step=2, dense_layers=(3,)),
    "qwen3-awq": dict(family="qwen3_moe", checkpoint_format="awq-gemm", sym=False),
    "qwen2-shared": dict(family="qwen2_moe", normalizes=False, expert_width=32),
}


@pytest.mark.parametrize("name", MIXTURES)
def test_prompt_and_decoding_agree_with_float64(tmp_path, name):
    """Logits of a prompt, and of the same tokens one by one."""
    source = make_model(str(tmp_path / "checkpoint"), **MIXTURES[name])
    model = harness.compile_model(source, str(tmp_path / "model.gptqm"))
    if "checkpoint_format" in MIXTURES[name]:
        # The same weights in the format that the reference reads.
        source = make_model(str(tmp_path / "read"), **{**MIXTURES[name], "checkpoint_format": "gptq_v2"})
    tokens = np.random.default_rng(0).integers(3, 128, 60)
    want = Model(source)(tokens)
    got = harness.run_logits(model, tokens, str(tmp_path))
    assert np.abs(got - want).max() <= 1e-3 * (want.max() - want.min())
    assert harness.run_greedy(model, tokens[:8], 30) == Model(source).greedy(tokens[:8], 30)


EXPERT = "model.layers.1.mlp.experts.3."


def make_dense(content):
    """One layer of one expert as a dense weight."""
    n = content.pop(EXPERT + "up_proj.scales")[1][1]
    for part in ("qweight", "qzeros", "g_idx"):
        content.pop(f"{EXPERT}up_proj.{part}")
    content[EXPERT + "up_proj.weight"] = ("F16", [n, 64], bytes(2 * 64 * n))


# What is done to a Qwen3 checkpoint of 8 experts, and what is said about it.
DAMAGE = {
    "expert-is-missing": (damage.drop(EXPERT + "up_proj.qweight"), f"'{EXPERT}up_proj"),
    "router-is-missing": (damage.drop("model.layers.1.mlp.gate.weight"), "tensor 'model.layers.1.mlp.gate.weight' is missing"),
    "router-knows-fewer": (damage.array("model.layers.0.mlp.gate.weight", lambda a: a[:7]), "'model.layers.0.mlp.gate.weight'"),
    "expert-is-narrower": (damage.array(EXPERT + "up_proj.scales", lambda a: a[:, :40]), f"'{EXPERT}up_proj.scales'"),
    "expert-is-dense": (damage.tensors(make_dense), "expected 4-bit codes in groups of 32 with scales of f16, as in module "
                        "'model.layers.1.mlp.experts.0.up_proj' of another expert, found a dense weight of f16"),
    "expert-has-other-bits": (damage.quantization(dynamic={r"+:.*experts\.3\.down_proj": {"group_size": 16}}),
                              "model.layers.0.mlp.experts.3.down_proj"),
    "more-chosen-than-there-are": (damage.config(num_experts_per_tok=9),
                                   "config.json.num_experts_per_tok: expected an integer from 1 to 8, found 9"),
    "none-chosen": (damage.config(num_experts_per_tok=0), "expected an integer from 1 to 8, found 0"),
    "no-experts": (damage.config(num_experts=0), "config.json.num_experts"),
    "more-experts-than-tensors": (damage.config(num_experts=9), "model.layers.0.mlp.gate.weight"),
    "fewer-experts-than-tensors": (damage.config(num_experts=7), "model.layers.0.mlp.gate.weight"),
    "experts-are-wider": (damage.config(moe_intermediate_size=128), "experts.0.gate_proj"),
    "dense-layer-that-does-not-exist": (damage.config(mlp_only_layers=[2]), "config.json.mlp_only_layers"),
    "step-zero": (damage.config(decoder_sparse_step=0), "config.json.decoder_sparse_step"),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_model(str(tmp_path_factory.mktemp("experts") / "checkpoint"), "qwen3_moe")


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_experts(checkpoint, tmp_path, name):
    folder, out = tmp_path / "checkpoint", tmp_path / "out"
    shutil.copytree(checkpoint, folder)
    out.mkdir()
    change, sentence = DAMAGE[name]
    change(str(folder))
    done = harness.call("gptq-compile", folder, "-o", out / "model.gptqm", timeout=60)
    wrong = harness.error_of(done, "gptq-compile", [], os.listdir(out))
    assert not wrong, wrong
    assert sentence in done.stderr.decode()


def test_router_and_experts_are_inspected(checkpoint):
    text = harness.succeed("gptq-translate", "--inspect", checkpoint)
    assert "2 of 8 for a token, width 96, in 2 layers" in text
    report = json.loads(harness.succeed("gptq-translate", "--inspect", checkpoint, "--json"))
    experts = [m["bytes"] for m in report["modules"] if ".experts." in m["name"]]
    others = [m["bytes"] for m in report["modules"] if ".experts." not in m["name"] and not m["name"].endswith("embed_tokens")]
    assert report["bytes"]["per_token"] == sum(others) + sum(experts) // 8 * 2


def test_zero_points_and_orders_that_one_expert_lacks(tmp_path):
    """Experts are stacked, though one has a single zero point and rows in order."""
    source = make_model(str(tmp_path / "checkpoint"), "qwen3_moe", sym=False, act_order=True, checkpoint_format="gptq_v2")
    name = "model.layers.0.mlp.experts.2.down_proj."
    damage.array(name + "qzeros", lambda a: a * 0 + 0x77777777)(source)
    damage.array(name + "g_idx", lambda a: np.sort(a))(source)
    model = harness.compile_model(source, str(tmp_path / "model.gptqm"))
    tokens = np.random.default_rng(0).integers(3, 128, 40)
    want, got = Model(source)(tokens), harness.run_logits(model, tokens, str(tmp_path))
    assert np.abs(got - want).max() <= 1e-3 * (want.max() - want.min())


def test_quantized_router(tmp_path):
    source = make_model(str(tmp_path / "checkpoint"), "mixtral", quantized_router=True)
    model = harness.compile_model(source, str(tmp_path / "model.gptqm"))
    tokens = np.random.default_rng(0).integers(3, 128, 40)
    want, got = Model(source)(tokens), harness.run_logits(model, tokens, str(tmp_path))
    assert np.abs(got - want).max() <= 1e-3 * (want.max() - want.min())
