"""Whole models over the back end for GPUs, on the tests' own driver."""
import json
import os
import re
import shutil
import subprocess

import numpy as np
import pytest

import damage
import fake_gpu
import harness

EXAMPLE = os.path.join(harness.REPOSITORY, "examples", "stories260K-gptq-4bit-g32")
PROMPT = [1, 403, 407, 261]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The same model for the processor and for the fake GPU."""
    folder = tmp_path_factory.mktemp("gpu")
    on_cpu, on_gpu = str(folder / "cpu.gptqm"), str(folder / "gpu.gptqm")
    harness.compile_model(EXAMPLE, on_cpu)
    shutil.copy(on_cpu, on_gpu)
    fake_gpu.move_to_gpu(on_gpu)
    return on_cpu, on_gpu


@pytest.fixture
def driver(monkeypatch):
    for name, value in fake_gpu.environment().items():
        monkeypatch.setenv(name, value)


def test_tokens_and_logits_are_the_processors(models, driver, tmp_path):
    on_cpu, on_gpu = models
    tokens = harness.run_greedy(on_cpu, PROMPT, 200)
    assert len(tokens) == 200 and harness.run_greedy(on_gpu, PROMPT, 200) == tokens
    logits = [harness.run_logits(model, PROMPT + tokens[:60], str(tmp_path)) for model in models]
    assert np.array_equal(logits[0], logits[1])


def test_stats_name_the_device(models, driver):
    done = harness.call("gptq-run", models[1], "--tokens", harness.spell(PROMPT), "--max-tokens", 3, "--stats")
    text = done.stderr.decode()
    assert "device:  Fake GPU, code.ptx, compiled by the driver" in text
    assert "for the model" in text and "free" in text and "threads" not in text
    # It was compiled for a processor.
    assert text.endswith("tokens:  chosen by the host: the model was compiled without the entry that does\n")


def test_inspect_shows_the_code(models):
    text = harness.succeed("gptq-run", models[1], "--inspect")
    assert "target         nvvm sm_90a\n" in text
    assert "code           code.ptx, " in text and "scratch" not in text


def test_one_sentence_where_there_is_no_gpu(models, monkeypatch):
    monkeypatch.setenv("GPTQ_CUDA_DRIVER", "/no/such/driver.so")
    done = harness.call("gptq-run", models[1], "--tokens", "1")
    assert not harness.error_of(done, "gptq-run", [], [])
    assert b"the model needs an NVIDIA GPU, but its driver cannot be opened" in done.stderr


def test_devices_that_do_not_exist(models, driver):
    done = harness.call("gptq-run", models[1], "--tokens", "1", "--device", 3)
    assert not harness.error_of(done, "gptq-run", [], [])
    assert b"expected a device of 0 to 0, found 3" in done.stderr
    done = harness.call("gptq-run", models[0], "--tokens", "1", "--device", 1)
    assert b"cannot run on device 1" in done.stderr


def test_bench_model(models, driver, tmp_path):
    out = harness.succeed("gptq-bench", "model", models[1], "--prompt-tokens", 20, "--new-tokens", 5, "--samples", 2,
                          "--json", tmp_path / "out.json")
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["device"]["name"] == "Fake GPU" and report["device"]["read_gb_per_s"] > 0
    result, = report["results"]
    assert result["code"].startswith("code.ptx") and not result["device_chooses"]
    assert result["device_bytes"] > 100000 and len(result["decode_samples_ms"]) == 2
    assert "on device" in out


@pytest.fixture(scope="module")
def layers(tmp_path_factory):
    """Matmuls written by gptq-bench, moved to the fake GPU."""
    folder = tmp_path_factory.mktemp("layers")
    harness.succeed("gptq-bench", "matmul", "--shape", "96x256,172x520", "--asym", "--act-order", "--group", 64,
                    "--compile=--no-promote", "--write", folder)
    for layer in json.loads((folder / "layers.json").read_text()):
        fake_gpu.move_to_gpu(str(folder / layer["model"]))
    return folder


def test_bench_matmul_checks_results(layers, driver, tmp_path):
    out = harness.succeed("gptq-bench", "matmul", "--read", layers, "--m", "1,5", "--samples", 11, "--json",
                          tmp_path / "out.json")
    results = json.loads((tmp_path / "out.json").read_text())["results"]
    assert [(r["shape"], r["m"]) for r in results] == [(s, m) for s in ("96x256", "172x520") for m in (1, 5)]
    for r in results:
        assert r["right"] and r["repeatable"] and 0 <= r["error"] < 1e-5
        assert r["asym"] and r["act_order"] and r["group"] == 64
        assert r["rotation_bytes"] > 6 * 65536 and r["calls_per_replay"] >= r["copies"]
        # The driver says half a millisecond for each replay.
        assert r["median_us"] == pytest.approx(500 / r["calls_per_replay"])
        assert r["kernels"][0]["threads"] == 1
    assert "WRONG" not in out and "floor" in out


def test_bench_matmul_finds_wrong_results(layers, driver, tmp_path):
    folder = tmp_path / "layers"
    shutil.copytree(layers, folder)
    listed = json.loads((folder / "layers.json").read_text())
    # Whoever takes these weights for symmetric ones expects other results.
    listed[0]["asym"] = False
    (folder / "layers.json").write_text(json.dumps(listed))
    done = harness.call("gptq-bench", "matmul", "--read", folder, "--m", 1, "--samples", 11, "--json",
                        tmp_path / "out.json")
    assert done.returncode == 1 and b"1 results are wrong" in done.stderr and b"WRONG" in done.stdout
    assert [r["right"] for r in json.loads((tmp_path / "out.json").read_text())["results"]] == [False, True]


def test_bench_matmul_measures_each_dispatch(layers, driver, tmp_path):
    folder = tmp_path / "layers"
    shutil.copytree(layers, folder)

    def twice(manifest):
        manifest["entries"][0]["dispatches"] *= 2

    for layer in json.loads((folder / "layers.json").read_text()):
        damage.manifest(twice)(str(folder / layer["model"]))
    harness.succeed("gptq-bench", "matmul", "--read", folder, "--m", 3, "--samples", 11, "--json", tmp_path / "out.json")
    for r in json.loads((tmp_path / "out.json").read_text())["results"]:
        assert r["right"] and len(r["kernels"]) == 2
        assert all(k["median_us"] == pytest.approx(500 / r["calls_per_replay"]) for k in r["kernels"])


def test_bench_matmul_reads_what_it_wrote(tmp_path):
    """On the processor, too."""
    harness.succeed("gptq-bench", "matmul", "--shape", "64x64", "--group", 32, "--write", tmp_path / "w")
    out = harness.succeed("gptq-bench", "matmul", "--read", tmp_path / "w", "--m", 1, "--threads", 1, "--samples", 11)
    assert "64x64, 4-bit, group 32" in out


@pytest.mark.parametrize("change, message", [
    (lambda l: l.clear(), "lists no layers"),
    (lambda l: l[0].pop("n"), "'n' is missing"),
    (lambda l: l[0].update(group=0), "expected a group of at least 1"),
    (lambda l: l[0].update(k=128), "expected one function of [M, 128] to [M, 96]"),
    (lambda l: l[0].update(model="../../gone.gptqm"), "gone.gptqm"),
], ids=["empty", "missing", "group", "shape", "model"])
def test_bench_matmul_refuses(layers, driver, tmp_path, change, message):
    folder = tmp_path / "layers"
    shutil.copytree(layers, folder)
    listed = json.loads((folder / "layers.json").read_text())
    change(listed)
    (folder / "layers.json").write_text(json.dumps(listed))
    done = harness.call("gptq-bench", "matmul", "--read", folder, "--m", 1)
    assert not harness.error_of(done, "gptq-bench", [], []), done.stderr
    assert message in done.stderr.decode()


def test_installed_tools_bring_their_libraries(models, driver, tmp_path):
    build = os.path.dirname(os.path.dirname(os.path.realpath(harness.binary("gptq-run"))))
    subprocess.run(["cmake", "--install", build, "--component", "runtime", "--prefix", tmp_path, "--strip"],
                   check=True, stdout=subprocess.DEVNULL)
    for name in ("gptq-run", "gptq-bench"):
        needed = subprocess.run(["ldd", tmp_path / "bin" / name], check=True, capture_output=True, text=True).stdout
        paths = re.findall(r"(\S+) => (\S+)", needed)
        elsewhere = [soname for soname, path in paths if not os.path.realpath(path).startswith(str(tmp_path))]
        assert paths and set(elsewhere) <= {"libc.so.6", "libm.so.6"}, needed
    made = subprocess.run([tmp_path / "bin" / "gptq-run", models[1], "--tokens", "1", "--max-tokens", "3",
                           "--print-tokens"], check=True, capture_output=True)
    assert made.stdout.count(b",") == 2
