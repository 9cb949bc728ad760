#!/usr/bin/env python3
"""What packed halves, wide loads and buffers in shared memory bring, each alone and together, on a GPU.

    gpu_ablation.py prepare FOLDER [--model CHECKPOINT]     where the compiler is; needs no GPU
    gpu_ablation.py measure FOLDER                          where the GPU is; needs no compiler

Three rewrites of the inner loop, after Opt4GPTQ (arXiv 2511.19438), which uses them on a vector unit:

    SMB   the warps' partial sums meet in shared memory, one thread writes each; without: atomic additions to the result
    VML   a thread loads 16 bytes of codes or activations at a time; without: 4
    ILA   pairs of halves are added and multiplied; without: each code is converted and multiplied in f32

`prepare` compiles lone layers (4 bits, groups of 128) and, if given one, a whole model for {baseline, +SMB, +VML, +ILA, all} on
the vector unit, for what of that there is on the matrix unit, and for the f32 unit with plans of its own. It also writes
what can be told without a GPU: instructions per packed word, registers and spills on the first shape (sass_counts.py, needs nvdisasm),
and how many atomic additions a call makes. `measure` needs python3 alone. It prints tables in Markdown and
writes ablation.json, and what gptq-bench wrote of each variant in results, for benchmarks/plot.py.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys

import sass_counts

HERE = os.path.dirname(os.path.abspath(__file__))
SHAPES = ("4096x4096", "11008x4096", "4096x11008", "28672x8192")
ROWS = (1, 2, 4, 8, 16)
# Half precision sums of 32 rows are off by 5e-4 of a result in the mean (NVVMLowerVectorDot.cpp); this is four times as much.
TOLERANCE = 2e-3

NO_SMB, NO_VML, NO_ILA = "--no-buffer-partials", "--load-bits=32", "--no-half-math"
# The same as options of gptq-opt's pipelines.
OPTIONS = {NO_SMB: "buffer-partials=false", NO_VML: "load-bits=32", NO_ILA: "half-math=false"}
VECTOR, SCALAR, MATRIX = "fma_f16x2", "fma_f32", "mma_m16n8k16"
# Flags of gptq-compile by unit and variant, baseline first.
VARIANTS = {
    VECTOR: {"baseline": (NO_SMB, NO_VML, NO_ILA), "+SMB": (NO_VML, NO_ILA), "+VML": (NO_SMB, NO_ILA), "+ILA": (NO_SMB, NO_VML), "all": ()},
    MATRIX: {"baseline": (NO_SMB, NO_VML), "+SMB": (NO_VML,), "+VML": (NO_SMB,), "all": ()},
    SCALAR: {"all": ()},
}


def runs():
    return [(unit, variant, flags) for unit, variants in VARIANTS.items() for variant, flags in variants.items()]


def folder_of(unit, variant):
    return f"{unit}-{variant.replace('+', 'only-')}"


#===----------------------------------------------------------------------===#
# Where the compiler is
#===----------------------------------------------------------------------===#


def call(*command):
    done = subprocess.run(list(command), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"gpu_ablation.py: {' '.join(command)} failed: {(done.stderr or done.stdout).strip()}")


def atomics(planned, n, rows):
    """Atomic additions of one call with `rows` rows: each warp but the first adds all it has."""
    plan = next(fields for most, fields in sorted(sass_counts.plans(planned).items()) if most >= rows)
    across = -(-int(plan["tileN"]) // int(plan["columns"]))
    warps = int(plan["threads"]) // int(plan["lanes"]) // across
    return (warps - 1) * n * rows if plan["partials"] == "global" else 0


def prepare(a):
    tools, folder = os.path.join(a.build, "bin"), a.folder
    os.makedirs(folder, exist_ok=True)
    call("cmake", "--install", a.build, "--component", "runtime", "--prefix", folder, "--strip")
    for script in (os.path.abspath(__file__), sass_counts.__file__):
        shutil.copy(script, folder)
    static = {"target": a.target, "shapes": a.shapes, "atomics": [], "instructions": []}
    for unit, variant, flags in runs():
        name = folder_of(unit, variant)
        print(f"compiling {name}", flush=True)
        call(os.path.join(tools, "gptq-bench"), "matmul", "--target", a.target, "--bits", "4", "--group", "128", "--shape", ",".join(a.shapes),
             "--write", os.path.join(folder, "layers", name), "--compile", f"--unit={unit}", *(x for flag in flags for x in ("--compile", flag)))
        options = [f"target={a.target.partition(':')[2]}", f"unit={unit}", *(OPTIONS[flag] for flag in flags)]
        for shape in a.shapes:
            n, k = shape.split("x")
            source, dump = os.path.join(folder, "ir", shape + ".mlir"), os.path.join(folder, "ir", shape, name)
            os.makedirs(dump, exist_ok=True)
            if not os.path.exists(source):
                call(os.path.join(tools, "gptq-translate"), "--emit-kernel", f"{n},{k},4,128", "-o", source)
            planned = os.path.join(dump, "planned.mlir")
            call(os.path.join(tools, "gptq-opt"), source, "-o", planned, "--pass-pipeline=builtin.module(" + ",".join(
                f"gptq-to-{form}{{{' '.join(options)}}}" for form in ("normalized", "planned")) + ")")
            for rows in ROWS:
                static["atomics"].append({"unit": unit, "variant": variant, "shape": shape, "m": rows,
                                          "atomics": atomics(planned, int(n), rows)})
            if shape == a.shapes[0]:
                call(os.path.join(tools, "gptq-compile"), source, "--quiet", "--target", a.target, f"--unit={unit}", *flags, "-o",
                     os.path.join(folder, "ir", "layer.gptqm"), "--dump-ir", dump)
                for row in sass_counts.count(dump):
                    del row["dump"]
                    static["instructions"].append({"unit": unit, "variant": variant, "shape": shape, **row})
        if a.model:
            os.makedirs(os.path.join(folder, "models"), exist_ok=True)
            call(os.path.join(tools, "gptq-compile"), a.model, "--quiet", "--target", a.target, f"--unit={unit}", *flags, "--max-context", "1024",
                 "-o", os.path.join(folder, "models", name + ".gptqm"))
    shutil.rmtree(os.path.join(folder, "ir"))
    with open(os.path.join(folder, "static.json"), "w", encoding="utf-8") as f:
        json.dump(static, f, indent=1)
    print(f"now run gpu_ablation.py measure in {folder} where the GPU is")


#===----------------------------------------------------------------------===#
# Where the GPU is
#===----------------------------------------------------------------------===#


def bench(folder, name, what, target, *options):
    """The JSON that gptq-bench writes; it fails where results differ from run to run, as those of atomics do."""
    os.makedirs(os.path.join(folder, "results"), exist_ok=True)
    path = os.path.join(folder, "results", f"{name}-{what}.json")
    done = subprocess.run([os.path.join(folder, "bin", "gptq-bench"), what, *target, "--json", path, *options], capture_output=True, text=True)
    if not os.path.exists(path) or not os.path.getsize(path):
        sys.exit(f"gpu_ablation.py: gptq-bench failed: {done.stderr.strip()}")
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def measure(a):
    folder = a.folder
    with open(os.path.join(folder, "static.json"), encoding="utf-8") as f:
        result = json.load(f)
    result.update(matmul=[], model=[])
    wrong = []
    for unit, variant, _ in runs():
        name = folder_of(unit, variant)
        report = bench(folder, name, "matmul", ["--read", os.path.join(folder, "layers", name)], "--m", ",".join(map(str, ROWS)), "--tolerance",
                       str(TOLERANCE), "--samples", str(a.samples), "--seconds", "0")
        result.setdefault("device", {key: value for key, value in report.items() if key != "results"})
        for row in report["results"]:
            row.pop("samples_us", None)
            result["matmul"].append({"unit": unit, "variant": variant, **row})
            if row["error"] is None or row["error"] > TOLERANCE:
                wrong.append(f"{name}, {row['shape']}, {row['m']} rows: off by {row['error']} of the largest result")
        model = os.path.join(folder, "models", name + ".gptqm")
        if os.path.exists(model):
            report = bench(folder, name, "model", [model], "--prompt-tokens", "16", "--new-tokens", "128", "--samples", "3")
            result["model"].append({"unit": unit, "variant": variant, **report["results"][0]})
        print(f"measured {name}", file=sys.stderr, flush=True)
    with open(os.path.join(folder, "ablation.json"), "w", encoding="utf-8") as f:
        json.dump(result, f, indent=1)
    show(result)
    if wrong:
        sys.exit("\n".join(wrong))


def show(result):
    """Prints the tables of a result."""
    print(f"{json.dumps(result.get('device', {}))[:400]}\n")
    times = {(r["unit"], r["variant"], r["shape"], r["m"]): r for r in result["matmul"]}
    adds = {(r["unit"], r["variant"], r["shape"], r["m"]): r["atomics"] for r in result["atomics"]}
    for shape in result["shapes"]:
        floor = statistics.median(r["floor_us"] for key, r in times.items() if key[2] == shape)
        print(f"{shape}: reading alone {floor:.1f} µs; µs (times as fast as the unit's baseline); atomic additions at M = 1; largest error\n")
        print("| unit | variant | " + " | ".join(f"M = {m}" for m in ROWS) + " | atomics | error |")
        print("| --- " * (len(ROWS) + 4) + "|")
        for unit, variant, _ in runs():
            cells = []
            for m in ROWS:
                own, base = times[unit, variant, shape, m]["median_us"], times[unit, next(iter(VARIANTS[unit])), shape, m]["median_us"]
                cells.append(f"{own:.1f} ({base / own:.2f})")
            error = max(times[unit, variant, shape, m]["error"] for m in ROWS)
            print(f"| {unit} | {variant} | " + " | ".join(cells) + f" | {adds[unit, variant, shape, 1]:,} | {error:.1e} |")
        print()
    print(f"Instructions of the inner loop for a word of packed weights, {result['shapes'][0]}\n")
    print(sass_counts.table([{"dump": r["variant"], **r} for r in result["instructions"]]) + "\n")
    if result["model"]:
        print("| unit | variant | decode, tokens/s | times the unit's baseline |\n| --- | --- | --- | --- |")
        base = {}
        for r in result["model"]:
            rate = r["decode_tokens_per_s"]
            base.setdefault(r["unit"], rate)
            print(f"| {r['unit']} | {r['variant']} | {rate:.1f} | {rate / base[r['unit']]:.2f} |")


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("step", choices=("prepare", "measure"))
    p.add_argument("folder")
    p.add_argument("--build", default=os.path.join(os.path.dirname(HERE), "build"))
    p.add_argument("--target", default="nvvm:sm_90a")
    p.add_argument("--shapes", type=lambda text: text.split(","), default=list(SHAPES), help="NxK,NxK…")
    p.add_argument("--model", metavar="CHECKPOINT", help="also compile this checkpoint, whole")
    p.add_argument("--samples", type=int, default=15)
    a = p.parse_args()
    prepare(a) if a.step == "prepare" else measure(a)


if __name__ == "__main__":
    main()
