"""Plan files: what the planner wrote gives the same model back; edits are honoured, or refused by name."""
import os
import re

import numpy as np
import pytest

import harness
from reference.checkpoint import Checkpoint
from reference.make_checkpoint import make_layer, make_model

EXAMPLE = os.path.join(harness.REPOSITORY, "examples", "stories260K-gptq-4bit-g32")
TARGETS = ("cpu:x86-64-v3", "nvvm:sm_90a")


def compile_with(source, out, target, *arguments):
    return harness.succeed("gptq-compile", source, f"--target={target}", "--ptxas=none", "-o", out, *arguments)


@pytest.mark.parametrize("target", TARGETS)
def test_written_plans_give_the_same_model(target, tmp_path):
    compile_with(EXAMPLE, tmp_path / "a", target, "--write-plan", tmp_path / "a.plan")
    said = compile_with(EXAMPLE, tmp_path / "b", target, "--plan", tmp_path / "a.plan", "--write-plan", tmp_path / "b.plan")
    assert "warning" not in said
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a.plan").read_text() == (tmp_path / "b.plan").read_text()


@pytest.mark.parametrize("target", TARGETS)
def test_matmuls_of_one_shape_of_which_one_normalizes(target, tmp_path):
    # Query, key and value together have 2 x 16 + 2 x 16 columns, as many as the two products that read no norm.
    source = make_model(str(tmp_path / "model"), hidden=64, intermediate=64, heads=2, kv_heads=1, head_dim=16, group_size=16)
    compile_with(source, tmp_path / "a", target, "--write-plan", tmp_path / "a.plan")
    text = (tmp_path / "a.plan").read_text()
    assert ("normalized = true" in text) == target.startswith("nvvm") and "normalized = false" in text
    compile_with(source, tmp_path / "b", target, "--plan", tmp_path / "a.plan")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_explain_names_the_file(tmp_path):
    compile_with(EXAMPLE, tmp_path / "a", "cpu:x86-64-v3", "--write-plan", tmp_path / "a.plan")
    said = compile_with(EXAMPLE, tmp_path / "a", "cpu:x86-64-v3", "--explain", "--plan", tmp_path / "a.plan")
    assert re.search(rf"^    plan: given by {re.escape(str(tmp_path / 'a.plan'))}:\d+$", said, re.M)
    assert "tileN:" not in said


def edited(text, first, **fields):
    """`text` with other fields in the matmuls' plans that start at `first` rows."""
    def edit(found):
        plan = found.group()
        for name, value in fields.items():
            value = f'"{value}"' if isinstance(value, str) else value
            plan, count = re.subn(rf"\b{name} = [^,>]+", f"{name} = {value}", plan)
            if not count:
                plan = plan[:-1] + f", {name} = {value}>"
        return plan
    entries = text.split("\n\n")
    return "\n\n".join(re.sub(rf"#gptq\.plan<mMin = {first},[^>]*>", edit, entry) if 'op = "dequant_matmul"' in entry else entry
                       for entry in entries)


def fields_of(text):
    """The fields of every plan in `text` that are not what they are by themselves."""
    usual = {("occupancy", "1"), ("cluster", "1"), ("firstBytes", "0"), ("aheadBytes", "0"), ("stages", "1"), ("loadBits", "128")}
    return [set(re.findall(r"(\w+) = ([^,>]+)", plan)) - usual for plan in re.findall(r"#gptq\.plan<([^>]*)>", text)]


#: Fields of a plan and what a user may set them to: any of these gives right results.
EDITS = {
    "rows": (1, 2, 5), "columns": (8, 32), "tileM": (1, 7, 64), "tileN": (32, 96), "tileK": (0, 32, 96),
    "path": ("direct", "promote"), "partials": ("global", "shared"), "scale": ("weight", "accumulator"), "zero": ("weight", "accumulator"),
}


@pytest.fixture(scope="module")
def layer(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("plans") / "layer")
    return make_layer(folder, 172, 200, seed=3, bits=4, sym=False, group_size=32, act_order=True)


@pytest.fixture(scope="module")
def written(layer, tmp_path_factory):
    """The text of the plans for a target."""
    known, folder = {}, tmp_path_factory.mktemp("written")

    def plans(target):
        if target not in known:
            compile_with(layer, folder / "m.gptqm", target, "--layer", "layer", "--write-plan", folder / "p.plan")
            known[target] = (folder / "p.plan").read_text()
        return known[target]
    return plans


@pytest.mark.parametrize("seed", range(6))
def test_edited_plans_are_honoured(layer, written, tmp_path, seed):
    """Every value of every field, several at a time."""
    rng = np.random.default_rng(seed)
    plan, model = tmp_path / "p.plan", str(tmp_path / "m.gptqm")
    text = written("cpu:x86-64-v3")
    for rows in (1, 2):
        chosen = {name: values[(seed + int(rng.integers(len(values)))) % len(values)] for name, values in EDITS.items()}
        text = edited(text, rows, **chosen)
    plan.write_text(text)
    said = compile_with(layer, model, "cpu:x86-64-v3", "--layer", "layer", "--plan", plan)
    assert "warning" not in said
    reference = Checkpoint(layer).layer("layer")
    for rows in (1, 9):
        x = rng.normal(size=(rows, 172)).astype(np.float32)
        y = harness.run_function(model, "layer", x, str(tmp_path))
        exact = reference.apply(x)
        assert np.abs(y - exact).max() <= 1e-5 * np.abs(exact).max(), text


@pytest.mark.parametrize("target, fields, message", [
    ("cpu:x86-64-v3", {"unit": "fma_f64"}, "x86-64-v3 has no unit \"fma_f64\", expected \"fma_f32\""),
    ("cpu:x86-64-v3", {"threads": 64}, "expects threads = 1, but found 64"),
    ("cpu:x86-64-v3", {"stages": 2}, "expects stages = 1, but found 2"),
    ("cpu:x86-64-v3", {"columns": 12}, "expects columns = a multiple of 8 that divides a panel of 32, but found 12"),
    ("cpu:x86-64-v3", {"rows": 1000}, "expects rows = at most 32 beside 32 columns, but found 1000"),
    ("cpu:x86-64-v3", {"tileN": 48}, "expects tileN = a multiple of 32 from 32 to 65536, but found 48"),
    ("cpu:x86-64-v3", {"path": "split"}, "expects path = direct or promote: "),
    ("cpu:x86-64-v3", {"path": "fast"}, "expects path to be one of direct, promote, split, normalize, ring, but found \"fast\""),
    ("cpu:x86-64-v3", {"lanes": 16}, "expects lanes = 8, but found 16"),
    ("cpu:x86-64-v3", {"mMax": 3}, "expects plans without gaps, the next from mMin = 4, but found 2"),
    ("cpu:x86-64-v3", {"partials": "cluster"}, "expects partials to be one of global, shared, but found \"cluster\""),
    ("cpu:x86-64-v3", {"partials": "shared", "cluster": 2}, "expects cluster = 1, but found 2"),
    ("cpu:x86-64-v3", {"partials": "global", "cluster": 2}, "expects cluster to be 1, or more with partials = shared, but found 2 with \"global\""),
    ("cpu:x86-64-v3", {"firstBytes": 64}, "expects firstBytes = 0, but found 64"),
    ("nvvm:sm_90a", {"cluster": 2}, "expects cluster = 1, but found 2"),
    ("nvvm:sm_90a", {"firstBytes": 2000}, "expects firstBytes = 0 to 1020, but found 2000"),
    ("nvvm:sm_90a", {"path": "promote"}, "expects path = direct of mma_m16n8k16, but found promote"),
    ("nvvm:sm_90a", {"path": "ring"}, "expects path = direct of mma_m16n8k16, but found ring"),
    ("nvvm:sm_90a", {"unit": "wgmma_m64k16"}, "expects path = ring of wgmma_m64k16, but found direct"),
    ("nvvm:sm_90a", {"unit": "fma_f32"}, "expects unit = mma_m16n8k16, or one that reads its layout, but found fma_f32"),
    ("nvvm:sm_90a", {"tileK": 128}, "expects tileK = 0, but found 128"),
    ("nvvm:sm_90a", {"rows": 12}, "expects rows = a multiple of 8 from 8 to 64, but found 12"),
    ("nvvm:sm_90a", {"tileM": 64}, "expects tileM = 8, the rows of a warp's tile, but found 64"),
    ("nvvm:sm_90a", {"columns": 8}, "expects columns = a multiple of 16 from 16 to 512, but found 8"),
    ("nvvm:sm_90a", {"threads": 100}, "expects threads = a multiple of 32 from 32 to 1024, but found 100"),
    ("nvvm:sm_90a", {"tileN": 48, "columns": 16, "threads": 128}, "expects threads = a multiple of 96, 3 warps for 48 columns, but found 128"),
    ("nvvm:sm_75", {"tileN": 512, "columns": 256, "threads": 1024}, "bytes of shared memory, of which sm_75 has 65536, but found 1024"),
], ids=lambda value: " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else None)
def test_plans_that_cannot_be_honoured(layer, written, tmp_path, target, fields, message):
    plan, out = tmp_path / "p.plan", tmp_path / "out"
    os.mkdir(out)
    plan.write_text(edited(written(target), 1, **fields))
    done = harness.call("gptq-compile", layer, f"--target={target}", "--layer", "layer", "--ptxas=none", "--plan", plan, "-o", out / "m.gptqm")
    assert not harness.error_of(done, "gptq-compile", [], os.listdir(out)), done.stderr
    assert message in done.stderr.decode() and f"{plan}:" in done.stderr.decode(), done.stderr


#: A ring of two tiles for each of four workgroups, and what of it can be changed. 512 rows are four groups of 128; a place of 64 rows of
#: activations takes 16 KB, of weights 2176 bytes.
RING = {"unit": "wgmma_m64k16", "path": "ring", "tileM": 64, "rows": 64, "tileN": 32, "columns": 16, "threads": 256, "stepK": 128, "stages": 4,
        "scale": "weight", "zero": "weight", "partials": "shared", "occupancy": 1, "cluster": 1, "firstBytes": 0, "aheadBytes": 0}


@pytest.fixture(scope="module")
def ring_layer(tmp_path_factory):
    path = tmp_path_factory.mktemp("rings") / "layer.mlir"
    harness.succeed("gptq-translate", "--emit-kernel", "128,512,4,128", "-o", path)
    return path


@pytest.fixture(scope="module")
def ring_plans(ring_layer, tmp_path_factory):
    """Plans as they are without rings, and another range of rows to change."""
    folder = tmp_path_factory.mktemp("ring-plans")
    compile_with(ring_layer, folder / "m.gptqm", "nvvm:sm_90a", "--no-ring", "--write-plan", folder / "p.plan")
    return (folder / "p.plan").read_text()


@pytest.mark.parametrize("fields", [
    {}, {"stepK": 64, "stages": 8}, {"cluster": 2}, {"cluster": 4, "stages": 2}, {"threads": 128, "stages": 1}, {"threads": 512, "stages": 4},
    {"rows": 16, "tileM": 16, "scale": "accumulator"}, {"rows": 48, "tileM": 48}, {"tileN": 128, "threads": 256}, {"partials": "global"},
], ids=lambda fields: " ".join(f"{k}={v}" for k, v in fields.items()) or "as-it-is")
def test_rings_as_a_file_asks_for_them(ring_layer, ring_plans, tmp_path, fields):
    """What is read is what is compiled, and its kernel has that ring."""
    plan = tmp_path / "p.plan"
    plan.write_text(edited(ring_plans, 17, **{**RING, **fields}))
    compile_with(ring_layer, tmp_path / "m.gptqm", "nvvm:sm_90a", "--plan", plan, "--write-plan", tmp_path / "q.plan", "--dump-ir", tmp_path / "ir")
    assert fields_of(plan.read_text()) == fields_of((tmp_path / "q.plan").read_text())
    wanted = {**RING, **fields}
    target = next(p for p in (tmp_path / "ir").iterdir() if "target" in p.name).read_text()
    kernel = re.search(r"llvm\.func @\S+_m512\(.*?\n  \}|llvm\.func internal @\S+_m512.body\(.*?\n    \}\n", target, re.S).group()
    # Activations have landed, a place is full, a place is empty.
    assert "wgmma" in kernel and kernel.count("nvvm.mbarrier.init ") == 3 * wanted["stages"]


@pytest.mark.parametrize("fields, message", [
    ({"rows": 24, "tileM": 24}, "expects rows = a multiple of 16 from 16 to 64, but found 24"),
    ({"tileM": 32}, "expects tileM = 64, the rows of a tile, but found 32"),
    ({"columns": 32}, "expects columns = 16, but found 32"),
    ({"tileN": 512}, "expects tileN = a multiple of 16 from 16 to 256, but found 512"),
    ({"threads": 192}, "expects threads = a multiple of 128 from 128 to 512, but found 192"),
    ({"zero": "accumulator"}, "expects zero = weight: sums of a ring are not corrected, but found accumulator"),
    ({"stepK": 96}, "expects stepK = a multiple of 64 up to 256 that divides groups of 128 and 512 rows of K, but found 96"),
    ({"stepK": 256}, "expects stepK = a multiple of 64 up to 256 that divides groups of 128 and 512 rows of K, but found 256"),
    ({"cluster": 3}, "expects cluster = a divisor of the 4 parts of 128 rows of K, but found 3"),
    ({"cluster": 16}, "expects cluster = 1 to 8, but found 16"),
    ({"stages": 3}, "expects stages = a multiple of 2 from 2 to 12, but found 3"),
    ({"stages": 14}, "expects stages = a multiple of 2 from 2 to 12, but found 14"),
    ({"occupancy": 2}, "expects occupancy = 1, but found 2"),
    ({"firstBytes": 64}, "expects firstBytes = 0, but found 64"),
    ({"tileK": 128}, "expects tileK = 0, but found 128"),
    ({"unit": "mma_m16n8k16"}, "expects path = direct of mma_m16n8k16, but found ring"),
], ids=lambda value: " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else None)
def test_rings_that_cannot_be_honoured(ring_layer, ring_plans, tmp_path, fields, message):
    plan, out = tmp_path / "p.plan", tmp_path / "out"
    os.mkdir(out)
    plan.write_text(edited(ring_plans, 17, **{**RING, **fields}))
    done = harness.call("gptq-compile", ring_layer, "--target=nvvm:sm_90a", "--ptxas=none", "--plan", plan, "-o", out / "m.gptqm")
    assert not harness.error_of(done, "gptq-compile", [], os.listdir(out)), done.stderr
    assert message in done.stderr.decode() and f"{plan}:" in done.stderr.decode(), done.stderr


@pytest.mark.parametrize("flags", ("--no-ring", "--no-clusters", "--no-prefetch", "--load-bits=64", ""))
def test_a_file_needs_no_flags_it_was_written_with(flags, tmp_path):
    """Plans say what the flags of the planner made of them."""
    source = tmp_path / "layer.mlir"
    harness.succeed("gptq-translate", "--emit-kernel", "2048,4096,4,128", "-o", source)
    flags = [flags] if flags else []
    compile_with(source, tmp_path / "a", "nvvm:sm_90a", *flags, "--write-plan", tmp_path / "a.plan")
    for other in ([], ["--no-ring"], ["--no-clusters"]):
        compile_with(source, tmp_path / "b", "nvvm:sm_90a", *other, "--plan", tmp_path / "a.plan", "--write-plan", tmp_path / "b.plan")
        assert (tmp_path / "a.plan").read_text() == (tmp_path / "b.plan").read_text(), other
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes(), other


@pytest.mark.parametrize("text, message", [
    ("", "warning"),
    ("nothing", ":1:1: expected attribute value"),
    ("// A comment\n  [1]", ":2:3: expects entries {op = …, plans = […]} in a plan file"),
    ("{plans = []}", ":1:1: expects op to be an op's name"),
    ('{op = "dequant_matmul"}', ":1:1: expects plans to be a list of #gptq.plan"),
    ('{op = "dequant_matmul", plans = [1]}', ":1:1: expects plans to be a list of #gptq.plan"),
    ('{op = "dequant_matmul",\n plans = [#gptq.plan<mMin = 1, mMix = 2>]}', ":2:"),
    ('{op = "dequant_matmul", plans = [PLAN]}\n\n{op = "matmul", target = 90, plans = [PLAN]}', ":3:1: expects target to be a target's name"),
    ('{op = "dequant_matmul", grp = 32, plans = [PLAN]}', ":1:1: names 'grp', but what \"dequant_matmul\" has is act_order, "),
    ('{op = "dequant_matmul", plans = [PLAN]}', ":1:1: expects plans for M = 1 to 512, all rows of 'layer', but found none for 9"),
], ids=range(10))
def test_files_that_are_none(layer, tmp_path, text, message):
    plan = tmp_path / "p.plan"
    plan.write_text(text.replace("PLAN", '#gptq.plan<mMin = 1, mMax = 8, unit = "fma_f32", tileM = 0, tileN = 32, tileK = 0, rows = 1, '
                                 'columns = 8, lanes = 8, path = "direct", partials = "global", scale = "weight", zero = "weight">'))
    done = harness.call("gptq-compile", layer, "--target=cpu:x86-64-v3", "--layer", "layer", "--plan", plan, "-o", tmp_path / "m.gptqm")
    if not text:
        # Nothing to replace is no mistake.
        assert done.returncode == 0
        return
    assert not harness.error_of(done, "gptq-compile", ["p.plan"], os.listdir(tmp_path)), done.stderr
    assert f"{plan}{message}" in done.stderr.decode(), done.stderr


def test_no_file(layer, tmp_path):
    done = harness.call("gptq-compile", layer, "--layer", "layer", "--plan", "/no/plan", "-o", tmp_path / "m.gptqm")
    assert b"cannot read the plan file '/no/plan': No such file or directory" in done.stderr
    done = harness.call("gptq-compile", layer, "--layer", "layer", "--write-plan", "/no/plan", "-o", tmp_path / "m.gptqm")
    assert not harness.error_of(done, "gptq-compile", [], os.listdir(tmp_path))
    assert b"cannot write '/no/plan': No such file or directory" in done.stderr


def test_unused_entries_are_reported(layer, written, tmp_path):
    plan = tmp_path / "p.plan"
    text = written("cpu:x86-64-v3")
    plan.write_text(text + text.replace("k = 172", "k = 173"))
    said = compile_with(layer, tmp_path / "m.gptqm", "cpu:x86-64-v3", "--layer", "layer", "--plan", plan)
    line = 1 + len(text.splitlines()) + [i for i, l in enumerate(text.splitlines()) if l.startswith("{")][0]
    assert f"warning: {plan}:{line}:1: plans for no op of this model" in said
