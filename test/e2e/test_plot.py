"""benchmarks/plot.py draws what gptq-bench writes, and says what it cannot read."""
import json
import os
import subprocess
import sys

import pytest

import harness

pytest.importorskip("matplotlib", reason="no matplotlib; run scripts/setup.sh")
PLOT = os.path.join(harness.REPOSITORY, "benchmarks", "plot.py")


def plot(*arguments):
    return subprocess.run([sys.executable, PLOT, *map(str, arguments)], capture_output=True, text=True)


def written(path, report):
    path.write_text(json.dumps(report))
    return path


@pytest.fixture
def matmul(tmp_path):
    rows = [{"shape": shape, "bits": 4, "group": 128, "asym": False, "act_order": False, "m": m, "median_us": m + 3, "floor_us": 3.5}
            for shape in ("64x32", "96x32") for m in (1, 8, 16)]
    return written(tmp_path / "speed.json", {"device": {"name": "A GPU"}, "results": rows})


def test_time_against_rows(matmul, tmp_path):
    peers = tmp_path / "peers.csv"
    peers.write_text("peer,M,N,K,us,rel_err\nfloor,0,64,32,1.5,\nsomebody,1,64,32,9.5,\nsomebody,8,64,32,9.6,\nother,1,7,7,1,\nslow,64,64,32,99,\n")
    for out in ("a.svg", "b.svg"):
        done = plot("matmul", f"ours={matmul}", "--peers", peers, "--out", tmp_path / out)
        assert done.returncode == 0, done.stderr
    svg = (tmp_path / "a.svg").read_text()
    for text in ("64x32 (N x K)", "96x32 (N x K)", ">ours<", ">somebody<", "floor: reading", "A GPU"):
        assert text in svg
    # Of another shape, or beyond the rows that were measured.
    assert ">other<" not in svg and ">slow<" not in svg
    assert svg == (tmp_path / "b.svg").read_text()
    assert plot("matmul", matmul, "--out", tmp_path / "c.png").returncode == 0
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_tokens_against_context(tmp_path):
    def report(context, rate):
        return {"prompt_tokens": context, "new_tokens": 64, "results": [{"decode_tokens_per_s": rate, "read_share": 0.5}]}
    joined = written(tmp_path / "model.json", {"contexts": [16, 512], "results": [report(16, 300), report(512, 200)]})
    lone = written(tmp_path / "lone.json", report(1024, 100))
    done = plot("model", joined, f"other={lone}", "--out", tmp_path / "m.svg")
    assert done.returncode == 0, done.stderr
    svg = (tmp_path / "m.svg").read_text()
    assert ">model<" in svg and ">other<" in svg and ">50%<" in svg


def test_what_each_rewrite_brings(tmp_path):
    rows = [{"unit": unit, "variant": variant, "shape": "64x64", "m": 1, "median_us": us}
            for unit, variant, us in (("vector", "baseline", 8.0), ("vector", "+wide", 3.5), ("lone", "all", 1.0))]
    rates = [{"unit": r["unit"], "variant": r["variant"], "decode_tokens_per_s": 1 / r["median_us"]} for r in rows]
    path = written(tmp_path / "ablation.json", {"shapes": ["64x64"], "matmul": rows, "model": rates, "device": {"device": {"name": "a GPU"}}})
    done = plot("ablation", path, "--out", tmp_path / "a.svg")
    assert done.returncode == 0, done.stderr
    svg = (tmp_path / "a.svg").read_text()
    # A unit of one variant has nothing to be compared with.
    assert ">vector<" in svg and ">+wide<" in svg and ">lone<" not in svg and "a GPU" in svg
    # Of the matmul and of the model.
    assert svg.count(">2.29<") == 2
    assert plot("ablation", path, path, "--out", tmp_path / "b.svg").returncode == 1


@pytest.mark.parametrize("content, message", [
    (None, "cannot read"), ("{", "cannot read"), ("[]", "has no results"), ('{"results": []}', "has no results"),
    ('{"results": [{"m": 1}]}', "is it one of gptq-bench matmul?"),
], ids=range(5))
def test_files_that_are_none(tmp_path, content, message):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_text(content)
    done = plot("matmul", path, "--out", tmp_path / "x.svg")
    assert done.returncode == 1 and done.stderr.startswith("plot.py: error: ") and message in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "x.svg").exists()


def test_peers_without_the_columns(matmul, tmp_path):
    (tmp_path / "p.csv").write_text("name,time\na,1\n")
    done = plot("matmul", matmul, "--peers", tmp_path / "p.csv", "--out", tmp_path / "x.svg")
    assert "does not have the columns peer, M, N, K and us" in done.stderr
