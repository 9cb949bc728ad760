"""gptq-bench: small runs of both commands, and that their numbers agree."""
import json
import os
import re
import statistics

import pytest

import damage
import harness
from reference.make_checkpoint import make_model

EXAMPLE = os.path.join(harness.REPOSITORY, "examples", "stories260K-gptq-4bit-g32")


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return harness.compile_model(EXAMPLE, str(tmp_path_factory.mktemp("bench") / "stories.gptqm"))


def bin_dir():
    return os.path.dirname(harness.binary("gptq-compile"))


def read(path):
    return json.loads(path.read_text())


def near(a, b):
    return abs(a - b) <= 1e-6 * abs(b)


def check_machine(report, threads):
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", report["date"])
    assert report["processor"] and report["processors"] >= 1
    assert report["threads"] == threads == [limit["threads"] for limit in report["limits"]]
    for limit in report["limits"]:
        assert limit["read_gb_per_s"] > 0 and limit["f32_gflops"] > 0
        assert limit["read_bytes"] > 4 * report["cache_bytes"] or limit["read_bytes"] >= 1 << 30
    return {limit["threads"]: limit for limit in report["limits"]}


@pytest.mark.parametrize("flags", [[], ["--asym"], ["--act-order"]], ids=["symmetric", "asymmetric", "act-order"])
def test_matmul(tmp_path, monkeypatch, flags):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    out = harness.succeed("gptq-bench", "matmul", "--bin-dir", bin_dir(), "--shape", "64x128,96x64", "--m", "1,5",
                          "--bits", "3,4", "--group", 64, "--threads", "1,2", "--samples", 11, "--json",
                          tmp_path / "out.json", *flags)
    report = read(tmp_path / "out.json")
    limits = check_machine(report, [1, 2])
    assert report["kind"] == "matmul"
    assert [(r["shape"], r["bits"], r["m"], r["threads"]) for r in report["results"]] == [
        (s, b, m, t) for s in ("64x128", "96x64") for b in (3, 4) for m in (1, 5) for t in (1, 2)]
    for r in report["results"]:
        n, k = map(int, r["shape"].split("x"))
        assert (r["n"], r["k"], r["group"]) == (n, k, 64)
        # Codes take their own width; panels are filled up.
        columns = -(-n // 64) * 64
        assert n * k * r["bits"] // 8 <= r["weight_bytes"] <= columns * (k * r["bits"] // 8 + k // 64 * (3 if "--asym" in flags else 2)) + 4 * k
        assert len(r["samples_us"]) >= 11
        assert near(r["median_us"], statistics.median(r["samples_us"]))
        assert near(r["best_us"], min(r["samples_us"]))
        assert near(r["gb_per_s"], r["weight_bytes"] / r["median_us"] / 1e3)
        assert near(r["flops"], 2 * r["m"] * n * k)
        assert near(r["gflops"], r["flops"] / r["median_us"] / 1e3)
        assert near(r["read_share"], r["gb_per_s"] / limits[r["threads"]]["read_gb_per_s"])
        assert near(r["flop_share"], r["gflops"] / limits[r["threads"]]["f32_gflops"])
        assert r["rotation_bytes"] == r["copies"] * r["weight_bytes"]
        assert (r["weights_from"] == "memory") == (r["rotation_bytes"] >= 4 * report["cache_bytes"])
    assert "64x128, 4-bit, group 64" in out and "GFLOP/s" in out
    assert all(r["asym"] == ("--asym" in flags) and r["act_order"] == ("--act-order" in flags)
               for r in report["results"])
    assert os.listdir(tmp_path / "tmp") == []


def test_model(model, tmp_path):
    out = harness.succeed("gptq-bench", "model", model, "--prompt-tokens", 64, "--new-tokens", 16, "--threads", "1,2",
                          "--samples", 3, "--json", tmp_path / "out.json")
    report = read(tmp_path / "out.json")
    limits = check_machine(report, [1, 2])
    assert report["kind"] == "model"
    assert (report["prompt_tokens"], report["new_tokens"]) == (64, 16)
    inside = json.loads(harness.succeed("gptq-run", model, "--inspect", "--json"))
    assert 0 < report["weight_bytes_per_token"] <= inside["weight_bytes"]
    assert [r["threads"] for r in report["results"]] == [1, 2]
    for r in report["results"]:
        assert r["load_ms"] > 0 and r["resident_bytes"] > 1 << 20
        assert len(r["prefill_samples_ms"]) == len(r["decode_samples_ms"]) == 3
        assert near(r["prefill_tokens_per_s"], 64e3 / statistics.median(r["prefill_samples_ms"]))
        assert near(r["decode_tokens_per_s"], 16e3 / statistics.median(r["decode_samples_ms"]))
        assert near(r["decode_gb_per_s"], report["weight_bytes_per_token"] * r["decode_tokens_per_s"] / 1e9)
        assert near(r["read_share"], r["decode_gb_per_s"] / limits[r["threads"]]["read_gb_per_s"])
    assert "prefill tok/s" in out


def test_model_of_experts_reads_those_it_uses(tmp_path):
    """Of eight experts a token uses two: more experts make the file larger, and what a token reads hardly."""
    reads = {}
    for experts in (4, 8):
        source = make_model(str(tmp_path / f"m{experts}"), family="mixtral", hidden=64, intermediate=96, experts=experts, experts_per_token=2)
        model = harness.compile_model(source, str(tmp_path / f"m{experts}.gptqm"))
        out = harness.succeed("gptq-bench", "model", model, "--prompt-tokens", 4, "--new-tokens", 4, "--threads", 1, "--samples", 1,
                              "--json", tmp_path / "out.json")
        report = read(tmp_path / "out.json")
        assert (report["experts_used"], report["experts"]) == (2, experts)
        assert f"read for each token, 2 of {experts} experts of a layer among them, from " in out
        manifest = json.loads(damage.Container(model).get("manifest.json"))
        weights = {s["tensor"]: s["bytes"] for s in manifest["sections"]}
        [generate] = [e for e in manifest["entries"] if e["name"] == "generate"]
        stacks = {a["weight"] for d in generate["dispatches"] for a in d["args"] if a.get("experts") == [2, experts]}
        assert stacks
        plain = {a["weight"] for d in generate["dispatches"] for a in d["args"] if "weight" in a
                 if not re.match("embedding|rotary", d["variants"][0]["symbol"])} - stacks
        assert report["weight_bytes_per_token"] == (sum(weights[f"w.{i}"] for i in plain) +
                                                    sum(weights[f"w.{i}"] * 2 // experts for i in stacks))
        reads[experts] = report["weight_bytes_per_token"]
    # The router has a row for each expert, but may be padded.
    assert reads[4] <= reads[8] < 1.05 * reads[4]


def test_model_fits_its_context(model, tmp_path):
    harness.succeed("gptq-bench", "model", model, "--threads", 1, "--samples", 1, "--json", tmp_path / "out.json")
    report = read(tmp_path / "out.json")
    assert report["prompt_tokens"] + report["new_tokens"] == 512


MISTAKES = {
    "no-command": ([], "subcommand"),
    "shape-is-a-word": (["matmul", "--shape", "large"], "large"),
    "shape-has-no-k": (["matmul", "--shape", "64x"], "64x"),
    "shape-zero": (["matmul", "--shape", "0x64"], "0x64"),
    "rows-zero": (["matmul", "--m", "0"], "--m"),
    "rows-too-many": (["matmul", "--shape", "64x64", "--group", "64", "--m", "100000"], "--m"),
    "bits-unknown": (["matmul", "--bits", "9"], "--bits"),
    "threads-zero": (["matmul", "--threads", "0"], "--threads"),
    "samples-too-few": (["matmul", "--samples", "3"], "--samples"),
    "rest-negative": (["matmul", "--rest", "-1"], "--rest"),
    "target-unknown": (["matmul", "--shape", "64x64", "--group", "64", "--target", "cpu:z80"], "gptq-compile failed"),
    "group-zero": (["matmul", "--shape", "64x64", "--group", "0"], "gptq-translate failed"),
    "model-absent": (["model", "absent.gptqm"], "absent.gptqm"),
    "prompt-zero": (["model", "{model}", "--prompt-tokens", "0"], "--prompt-tokens"),
    "prompt-too-long": (["model", "{model}", "--prompt-tokens", "500", "--new-tokens", "13"], "512 tokens"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(model, tmp_path, monkeypatch, name):
    arguments, reason = MISTAKES[name]
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    arguments = [a.format(model=model) for a in arguments]
    if arguments:
        arguments += ["--json", str(tmp_path / "out.json")]
    if arguments[:1] == ["matmul"]:
        arguments += ["--bin-dir", bin_dir()]
    done = harness.call("gptq-bench", *arguments)
    wrong = harness.error_of(done, "gptq-bench", [], os.listdir(tmp_path))
    assert not wrong and done.returncode == 1, wrong
    assert reason in done.stderr.decode()


def test_compiler_is_elsewhere(tmp_path):
    done = harness.call("gptq-bench", "matmul", "--shape", "64x64", "--bin-dir", tmp_path)
    assert not harness.error_of(done, "gptq-bench", [], os.listdir(tmp_path))
    assert b"--bin-dir" in done.stderr
