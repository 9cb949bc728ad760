#!/usr/bin/env python3
"""Counts the machine instructions of each matmul kernel's inner loop, by kind and per packed word.

    sass_counts.py DUMP [DUMP ...] [--json FILE]

DUMP is what `gptq-compile --dump-ir` wrote for an NVIDIA GPU. Its PTX goes through ptxas, which also
tells registers and spills, and nvdisasm; both are looked for on PATH, in CUDA_HOME/bin and
/usr/local/cuda/bin. The inner loop is the one that multiplies most and has no other inside. A word is 32 bits of packed
weights in one thread; how many an iteration takes is what the kernel's plan says. Instructions are counted
as they are issued, by a whole warp; one on a pair of halves counts once.
"""
import argparse
import collections
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

# Kinds of instructions, by the start of their names; the first that fits.
KINDS = (
    ("HMMA", ("HMMA", "HGMMA", "QGMMA", "IMMA")),
    ("HFMA2", ("HFMA2", "HMUL2")),
    ("HADD2", ("HADD2",)),
    ("FFMA", ("FFMA", "FMUL", "FADD")),
    ("I2F", ("I2F",)),
    ("F2F", ("F2F", "F2I")),
    ("LOP3", ("LOP3", "LOP")),
    ("SHF", ("SHF", "SHL", "SHR", "BFE", "SGXT", "BMSK")),
    ("PRMT", ("PRMT",)),
    ("IADD", ("IADD", "IMAD", "LEA", "IMNMX", "VIADD", "VIMNMX", "UIADD", "UIMAD", "ULEA")),
    ("LDG", ("LDG", "LD.")),
    ("LDS", ("LDS", "STS", "LDSM")),
    ("RED", ("RED", "ATOM")),
)
MULTIPLIES = ("HMMA", "HGMMA", "QGMMA", "IMMA", "HFMA2", "FFMA")
COLUMNS = [name for name, _ in KINDS] + ["other"]


def tool(name):
    """Path of one of CUDA's programs."""
    for folder in (None, os.path.join(os.environ.get("CUDA_HOME", "/nonexistent"), "bin"), "/usr/local/cuda/bin"):
        found = shutil.which(name, path=folder)
        if found:
            return found
    sys.exit(f"sass_counts.py: {name} is neither on PATH nor in CUDA_HOME/bin")


def assemble(ptx, folder):
    """(cubin, {kernel: registers, spill_bytes}) of a PTX file."""
    with open(ptx, encoding="utf-8") as f:
        chip = re.search(r"^\.target (\w+)", f.read(), re.M).group(1)
    cubin = os.path.join(folder, "kernels.cubin")
    log = subprocess.run([tool("ptxas"), f"-arch={chip}", "-v", ptx, "-o", cubin], check=True, capture_output=True, text=True)
    usage = {}
    for part in re.split(r"Compiling entry function ", log.stdout + log.stderr)[1:]:
        name = re.match(r"'(\w+)'", part).group(1)
        spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", part)
        usage[name] = {"registers": int(re.search(r"Used (\d+) registers", part).group(1)),
                       "spill_bytes": sum(map(int, spills.groups())) if spills else 0}
    return cubin, usage


def listing(cubin):
    """{kernel: [label or (name, operands)]} of the machine code."""
    text = subprocess.run([tool("nvdisasm"), "-c", cubin], check=True, capture_output=True, text=True).stdout
    kernels, lines = {}, None
    for line in text.splitlines():
        if section := re.match(r"\s*\.section\s+\.text\.(\w+)", line):
            lines = kernels.setdefault(section.group(1), [])
        elif label := re.match(r"(\.L\w+):", line):
            lines.append(label.group(1))
        elif code := re.match(r"\s*/\*[0-9a-f]+\*/\s+(?:@!?\w+\s+)?([A-Z][\w.]*)\s*(.*?);", line):
            lines.append(code.groups())
    return kernels


def inner_loop(lines):
    """The instructions of the loop that multiplies most, with no other inside; none where K is so short that there is no loop."""
    at = {line: i for i, line in enumerate(lines) if isinstance(line, str)}
    loops = []
    for i, line in enumerate(lines):
        if isinstance(line, tuple) and line[0].startswith("BRA"):
            target = re.search(r"\.L\w+", line[1])
            if target and at.get(target.group(0), i) < i:
                loops.append((at[target.group(0)], i))
    inner = [a for a in loops if not any(b != a and a[0] <= b[0] and b[1] <= a[1] for b in loops)]
    bodies = [[line[0] for line in lines[first:last + 1] if isinstance(line, tuple)] for first, last in inner]
    multiplications = lambda body: sum(op.startswith(MULTIPLIES) for op in body)
    body = max(bodies, key=multiplications, default=[])
    return body if multiplications(body) else []


def plans(path):
    """{largest M: fields} of the plans of the one matmul in a planned form of the IR."""
    with open(path, encoding="utf-8") as f:
        text = f.read()
    result = {}
    bits = re.search(r"\bbits = (\d+)", text)
    for plan in re.findall(r"#gptq\.plan<(.*?)>", text):
        fields = dict(re.findall(r"(\w+) = \"?([\w.]+)\"?", plan))
        if int(fields.get("stepK", 0)) > 0:
            result[int(fields["mMax"])] = fields | {"bits": int(bits.group(1)) if bits else 16}
    return result


def count(folder):
    """One row for each kernel of a matmul in a dump."""
    planned, rows = plans(os.path.join(folder, "2-planned.mlir")), []
    ptx = next(os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name.endswith("-kernels.s"))
    with tempfile.TemporaryDirectory() as work:
        cubin, usage = assemble(ptx, work)
        kernels = listing(cubin)
    for name, lines in kernels.items():
        rows_of = re.search(r"matmul_\d+_m(\d+)$", name)
        plan = planned.get(int(rows_of.group(1))) if rows_of else None
        if not plan:
            continue
        words = int(plan["columns"]) * int(plan["stepK"]) * plan["bits"] / 32 / int(plan["lanes"])
        body = inner_loop(lines)
        if not body:
            continue
        kinds = collections.Counter(next((kind for kind, starts in KINDS if op.startswith(starts)), "other") for op in body)
        rows.append({"dump": folder, "kernel": name, "unit": plan["unit"], "m": int(plan["mMax"]), "rows": int(plan["rows"]), "words": words,
                     "instructions": sum(kinds.values()), "per_word": {kind: kinds[kind] / words for kind in COLUMNS if kinds[kind]},
                     **usage[name]})
    return sorted(rows, key=lambda row: row["m"])


def table(rows):
    """`rows` as a table in Markdown."""
    used = [kind for kind in COLUMNS if any(kind in row["per_word"] for row in rows)]
    lines = ["| of | unit | M up to | words | " + " | ".join(used) + " | all | registers | spilled |",
             "| --- " * (len(used) + 7) + "|"]
    for row in rows:
        cells = [f"{row['per_word'][kind]:.2f}" if kind in row["per_word"] else "" for kind in used]
        lines.append("| " + " | ".join([os.path.basename(os.path.normpath(row["dump"])), row["unit"], str(row["m"]), f"{row['words']:g}", *cells,
                                        f"{row['instructions'] / row['words']:.2f}", str(row["registers"]), str(row["spill_bytes"])]) + " |")
    return "\n".join(lines)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("dump", nargs="+", metavar="DUMP")
    p.add_argument("--json", metavar="FILE")
    a = p.parse_args()
    rows = [row for folder in a.dump for row in count(folder)]
    if not rows:
        sys.exit("sass_counts.py: no kernel of a planned matmul in " + ", ".join(a.dump))
    print(table(rows))
    if a.json:
        with open(a.json, "w", encoding="utf-8") as f:
            json.dump(rows, f, indent=1)


if __name__ == "__main__":
    main()
