"""Machine code beside the PTX: with an assembler of the tests' own, and with NVIDIA's where it is there."""
import json
import os
import re
import stat

import pytest

import fake_gpu
import harness
from gpu import assemble

SAYS = """ptxas info    : (C7510) Potential Performance Loss: products are serialized due to insufficient registers in the function 'dequant_matmul_0_m1'
ptxas warning : Registers are spilled to local memory in function 'dequant_matmul_4_m512', 24 bytes spill stores, 20 bytes spill loads
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'dequant_matmul_4_m512' for 'sm_90a'
ptxas info    : Function properties for dequant_matmul_4_m512
    40 bytes stack frame, 24 bytes spill stores, 20 bytes spill loads
ptxas info    : Used 128 registers, used 1 barriers, 24 bytes cumulative stack size, 8192 bytes smem
ptxas info    : Compile time = 95.143 ms
ptxas info    : Compiling entry function 'dequant_matmul_0_m1' for 'sm_90a'
ptxas info    : Function properties for dequant_matmul_0_m1
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 105 registers, 400 bytes cmem[0]
"""

#: What the fake driver takes for a cubin is an ELF header and the text of the PTX.
FAKE_PTXAS = """#!/bin/sh
PATH=/usr/bin:/bin
while [ $# -gt 1 ]; do [ "$1" = -o ] && out=$2; case $1 in *.ptx) in=$1 ;; esac; shift; done
[ "$1" = "${1%.cubin}" ] || out=$1
cat {folder}/says >&2
{ printf '\\177ELF\\002\\001\\001'; head -c 9 /dev/zero; printf '\\002\\000\\276\\000'; head -c 44 /dev/zero; cat "$in"; } > "$out"
exit {status}
"""


def make_ptxas(folder, says=SAYS, status=0):
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "ptxas")
    with open(path, "w", encoding="utf-8") as f:
        f.write(FAKE_PTXAS.replace("{folder}", str(folder)).replace("{status}", str(status)))
    os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)
    with open(os.path.join(folder, "says"), "w", encoding="utf-8") as f:
        f.write(says)
    return path


def emit_layer(n, k, path):
    harness.succeed("gptq-translate", "--emit-kernel", f"{n},{k},4,128", "-o", path)
    return path


@pytest.fixture(scope="module")
def layer(tmp_path_factory):
    return emit_layer(64, 256, tmp_path_factory.mktemp("ptxas") / "layer.mlir")


def compile_gpu(source, out, *arguments):
    return harness.succeed("gptq-compile", source, "--target=nvvm:sm_90a", "-o", out, *arguments)


def codes_of(model):
    listed = json.loads(harness.succeed("gptq-run", model, "--inspect", "--json"))
    return sorted(s["tensor"] for s in listed["sections"] if s["tensor"].startswith("code."))


def test_where_the_assembler_is_found(layer, tmp_path, monkeypatch):
    model = tmp_path / "m.gptqm"
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    compile_gpu(layer, model)
    assert codes_of(model) == ["code.ptx"]
    given = make_ptxas(tmp_path / "given")
    compile_gpu(layer, model, f"--ptxas={given}")
    assert codes_of(model) == ["code.cubin", "code.ptx"]
    assert "code.ptx" in harness.succeed("gptq-run", model, "--inspect")
    make_ptxas(tmp_path / "cuda" / "bin")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    compile_gpu(layer, model)
    assert codes_of(model) == ["code.cubin", "code.ptx"]
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "other"))
    compile_gpu(layer, model)
    assert codes_of(model) == ["code.ptx"]
    monkeypatch.setenv("PATH", str(tmp_path / "given"))
    compile_gpu(layer, model)
    assert codes_of(model) == ["code.cubin", "code.ptx"]
    compile_gpu(layer, model, "--ptxas=none")
    assert codes_of(model) == ["code.ptx"]
    # A processor's model needs none.
    make_ptxas(tmp_path / "given", status=1)
    harness.succeed("gptq-compile", layer, "--target=cpu:x86-64-v3", "-o", model)


def test_explain_says_what_kernels_take(layer, tmp_path):
    out = compile_gpu(layer, tmp_path / "m.gptqm", "--explain", f"--ptxas={make_ptxas(tmp_path / 'cuda')}")
    assert re.search(r"^ +kernel +registers +stack +spilled +layers$", out, re.M)
    assert re.search(r"^ +dequant_matmul_0_m1 +105 +0 +0 +layer$", out, re.M)
    assert re.search(r"^ +dequant_matmul_4_m512 +128 +40 +44 +layer$", out, re.M)
    undone = out[out.index("not done"):]
    assert re.search(r"dequant_matmul_0_m1: ptxas: \(C7510\) .* are serialized due to insufficient registers$", undone, re.M)
    assert ("dequant_matmul_4_m512: ptxas: Registers are spilled to local memory, 24 bytes spill stores, "
            "20 bytes spill loads\n") in undone


@pytest.mark.parametrize("says, message", [
    ("ptxas folder/x.ptx, line 30; error   : Not a name of any known instruction: 'mox'\n"
     "ptxas fatal   : Ptx assembly aborted due to errors\n",
     "line 30 of the PTX: Not a name of any known instruction: 'mox' (--ptxas=none compiles without it)"),
    ("ptxas fatal   : Value 'sm_90a' is not defined for option 'gpu-name'\n",
     "Value 'sm_90a' is not defined for option 'gpu-name' ("),
    ("Segmentation fault\n", "Segmentation fault ("),
    ("", "it says nothing ("),
], ids=["error", "fatal", "other", "silent"])
def test_an_assembler_that_fails(layer, tmp_path, says, message):
    os.mkdir(tmp_path / "out")
    path = make_ptxas(tmp_path / "cuda", says, status=1)
    done = harness.call("gptq-compile", layer, "--target=nvvm:sm_90a", f"--ptxas={path}", "-o", tmp_path / "out" / "m.gptqm")
    assert not harness.error_of(done, "gptq-compile", [], os.listdir(tmp_path / "out"))
    assert f"'{path}' cannot assemble the kernels for sm_90a: {message}" in done.stderr.decode()


def test_no_assembler_where_one_is_named(layer, tmp_path):
    done = harness.call("gptq-compile", layer, "--target=nvvm:sm_90a", "--ptxas=/no/ptxas", "-o", tmp_path / "m.gptqm")
    assert not harness.error_of(done, "gptq-compile", [], os.listdir(tmp_path))
    assert b"--ptxas: expected the path of ptxas or 'none', but '/no/ptxas' is no program" in done.stderr


def test_the_cubin_runs(layer, tmp_path, monkeypatch):
    """The driver gets what the assembler made, and --stats says so."""
    for name, value in fake_gpu.environment().items():
        monkeypatch.setenv(name, value)
    model = str(tmp_path / "m.gptqm")
    harness.compile_model(os.path.join(harness.REPOSITORY, "examples", "stories260K-gptq-4bit-g32"), model)
    fake_gpu.move_to_gpu(model, cubin=True)
    done = harness.call("gptq-run", model, "--tokens", "1,2", "--max-tokens", 2, "--print-tokens", "--stats")
    assert done.returncode == 0 and b"Fake GPU, code.cubin\n" in done.stderr, done.stderr


# NVIDIA's own.

PTXAS = assemble.find_ptxas()
with_ptxas = pytest.mark.skipif(PTXAS is None, reason="no ptxas in $CUDA_HOME/bin or PATH")


@with_ptxas
def test_the_same_file_twice(layer, tmp_path):
    for name in "ab":
        compile_gpu(layer, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert codes_of(tmp_path / "a") == ["code.cubin", "code.ptx"]


def known_target(target):
    if not assemble.knows(PTXAS, target):
        pytest.skip(f"this ptxas does not know {target}")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return str(tmp_path_factory.mktemp("sources"))


@with_ptxas
@pytest.mark.parametrize("source", (assemble.EXAMPLE, assemble.MODEL, *assemble.LAYERS), ids=os.path.basename)
@pytest.mark.parametrize("target", assemble.TARGETS)
def test_no_shipped_plan_spills(target, source, sources):
    """Of no architecture, for any number of rows."""
    known_target(target)
    kernels = assemble.assemble(source, target, PTXAS, sources)
    assert len(kernels) >= 2 and all(0 < registers <= 255 for registers, _, _ in kernels.values())
    assert not {name: use for name, use in kernels.items() if use[1] or use[2]}


@with_ptxas
@pytest.mark.parametrize("shape", ("11008,4096", "12288,4096", "8192,8192", "28672,8192", "8192,28672"))
def test_no_plan_of_8_bits_spills(shape, tmp_path):
    """A thread's share of a part of K is twice that of 4 bits."""
    source = tmp_path / "layer.mlir"
    harness.succeed("gptq-translate", "--emit-kernel", f"{shape},8,128", "-o", source)
    said = harness.succeed("gptq-compile", source, "--target=nvvm:sm_90a", "--explain", f"--ptxas={PTXAS}", "-o", tmp_path / "m.gptqm")
    kernels = assemble.kernels_of(said)
    assert len(kernels) >= 2
    assert not {name: use for name, use in kernels.items() if use[1] or use[2]}


@with_ptxas
@pytest.mark.parametrize("unit", ("fma_f16x2", "fma_f32"))
@pytest.mark.parametrize("target", assemble.TARGETS)
def test_no_plan_for_vector_units_spills(target, unit, sources):
    """With the most tiles for a warp."""
    known_target(target)
    kernels = assemble.assemble("28672x8192", target, PTXAS, sources, unit)
    assert len(kernels) >= 2
    assert not {name: use for name, use in kernels.items() if use[1] or use[2]}


@with_ptxas
@pytest.mark.parametrize("activations", ("f16", "bf16"))
@pytest.mark.parametrize("shape", ("28672,512", "4096,4096"))
def test_rings_of_many_rows_keep_the_unit_busy(shape, activations, tmp_path):
    """One workgroup for all of K, and two: products follow each other, and nothing is spilled."""
    source = emit_layer(*shape.split(","), tmp_path / "layer.mlir")
    said = harness.succeed("gptq-compile", source, "--target=nvvm:sm_90a", f"--activations={activations}", "--explain", f"--ptxas={PTXAS}",
                           "-o", tmp_path / "m.gptqm")
    assert "ring" in said and "serialized" not in said
    assert not [use for use in assemble.kernels_of(said).values() if use[1] or use[2]]
