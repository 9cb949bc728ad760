#!/usr/bin/env python3
"""Assembles what is compiled for every NVIDIA architecture, and tells registers and spills.

    assemble.py [--targets sm_75,sm_90a] [--layers 4096x4096,28672x8192] [--units matrix,fma_f32] [--ptxas PATH] [--out TABLE.md]

Needs no GPU: ptxas, which is looked for in $CUDA_HOME/bin and PATH, knows more chips than any machine has. Whole
models (the example, and one layer of Llama 3 8B) and lone layers (N x K, 4 bits, groups of 128) are compiled for each unit; a row of the
table is one of them on one chip: the most registers of any kernel of one call of M rows, and the bytes that kernels spill. An architecture
this ptxas does not know is named and left out. The last line is 'N passed, N failed, N not known to ptxas'.
"""
import argparse
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
REPOSITORY = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [os.path.join(os.path.dirname(HERE), "e2e")]

import harness

TARGETS = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90a", "sm_100a", "sm_120a")
#: Matmuls of known models; the shapes of benchmarks/gpu_matmul.sh.
LAYERS = ("4096x4096", "11008x4096", "4096x11008", "12288x4096", "8192x8192", "28672x8192", "8192x28672")
#: Names of units; None is the matrix unit, whose name depends on the chip.
UNITS = {"matrix": None, "fma_f16x2": "fma_f16x2", "fma_f32": "fma_f32"}
#: One layer of it is made up, with a shorter head.
MODEL, VOCABULARY = "llama3-8b", 8192
EXAMPLE = os.path.join(REPOSITORY, "examples", "stories260K-gptq-4bit-g32")


def find_ptxas():
    """The assembler that gptq-compile would take, or None."""
    beside = os.path.join(os.environ.get("CUDA_HOME", "/nowhere"), "bin", "ptxas")
    return beside if os.access(beside, os.X_OK) else shutil.which("ptxas")


def knows(ptxas, target):
    """Whether `ptxas` has heard of an architecture: it says which on --help."""
    done = subprocess.run([ptxas, "--help"], capture_output=True, text=True)
    return re.search(rf"'{target}'", done.stdout) is not None


def kernels_of(explained):
    """{kernel: (registers, bytes of stack, bytes spilled)} of --explain's table."""
    rows = re.findall(r"^ +(\w+_m\d+) +(\d+) +(\d+) +(\d+)", explained[explained.index("\nkernels: "):], re.M)
    return {name: tuple(map(int, figures)) for name, *figures in rows}


def make_source(source, folder):
    """The file or folder to compile for `source`: a checkpoint, MODEL or N x K."""
    if os.path.exists(source):
        return source
    path = os.path.join(folder, source)
    if source == MODEL:
        if not os.path.exists(path):
            subprocess.run([sys.executable, os.path.join(REPOSITORY, "benchmarks", "make_checkpoint.py"), "--shape", MODEL, "--layers", "1",
                            "--pool", "3072", "--vocab", str(VOCABULARY), "--out", path], check=True, stdout=subprocess.DEVNULL)
        return path
    path += ".mlir"
    if not os.path.exists(path):
        n, k = source.split("x")
        harness.succeed("gptq-translate", "--emit-kernel", f"{n},{k},4,128", "-o", path)
    return path


def assemble(source, target, ptxas, folder, unit="matrix"):
    """The kernels of `source`, as `make_source` knows it, assembled for `target`."""
    return kernels_of(harness.succeed("gptq-compile", make_source(source, folder), f"--target=nvvm:{target}", "--quiet", "--explain",
                                      *([f"--unit={UNITS[unit]}"] if UNITS[unit] else []), f"--ptxas={ptxas}", "-o",
                                      os.path.join(folder, "m.gptqm")))


def row_of(name, target, unit, kernels):
    most = {}
    for kernel, (registers, _, _) in kernels.items():
        rows = int(re.search(r"_m(\d+)$", kernel).group(1))
        most[rows] = max(most.get(rows, 0), registers)
    spilled = {kernel: spill for kernel, (_, _, spill) in kernels.items() if spill}
    return (f"| {name} | {target} | {unit} | {len(kernels)} | " + ", ".join(f"{most[m]} (M {m})" for m in sorted(most)) + " | " +
            (", ".join(f"{kernel}: {spill}" for kernel, spill in spilled.items()) or "none") + " |")


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--targets", default=",".join(TARGETS))
    p.add_argument("--layers", default=",".join(LAYERS))
    p.add_argument("--units", default=",".join(UNITS))
    p.add_argument("--ptxas", default=find_ptxas())
    p.add_argument("--out", metavar="TABLE.md")
    a = p.parse_args()
    if not a.ptxas:
        sys.exit("assemble.py: error: no ptxas in $CUDA_HOME/bin or PATH; name one with --ptxas")
    table = ["| what | target | unit | kernels | most registers | bytes spilled |", "| --- | --- | --- | --- | --- | --- |"]
    passed = failed = unknown = 0
    with tempfile.TemporaryDirectory() as folder:
        for target in a.targets.split(","):
            if not knows(a.ptxas, target):
                print(f"{target}: not known to {a.ptxas}")
                unknown += 1
                continue
            for source, unit in itertools.product((EXAMPLE, MODEL, *filter(None, a.layers.split(","))), a.units.split(",")):
                name = os.path.basename(source)
                try:
                    table.append(row_of(name, target, unit, assemble(source, target, a.ptxas, folder, unit)))
                    passed += 1
                except AssertionError as error:
                    table.append(f"| {name} | {target} | {unit} | failed | | |")
                    print(error)
                    failed += 1
                print(table[-1], flush=True)
    if a.out:
        with open(a.out, "w", encoding="utf-8") as f:
            f.write("\n".join(table) + "\n")
    print(f"{passed} passed, {failed} failed, {unknown} not known to ptxas")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
