#!/usr/bin/env python3
"""Prints the generated part of docs/Lowering.md: one quantized matmul in every form, on a CPU and a GPU.

The IR is what gptq-compile --dump-ir writes, shortened by rule: an attribute or a type that is longer than a few
words is cut to its beginning and an ellipsis, of a long run of lines the first and the last are kept, and names of values stay. Programs are looked
for in GPTQ_BIN_DIR, by default build/bin.
"""
import os
import re
import subprocess
import sys
import tempfile

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BIN = os.environ.get("GPTQ_BIN_DIR", os.path.join(REPOSITORY, "build", "bin"))
N, K, BITS, GROUP = 64, 256, 4, 128
WIDTH = 150

#: Form, what to read in it, and the sentence that says what happened.
FORMS = (
    ("imported", r"func\.func", "As published: the codes of the checkpoint are a view of its file, the matmul is one op on tensors."),
    ("normalized", r"func\.func", "Zero points are the true ones. This layer is symmetric and alone, so nothing is permuted or fused."),
    ("planned", r"gptq\.dequant_matmul", "The op carries one plan for each range of M. From here on targets differ."),
    ("packed", r"gptq\.weight .*packed|gptq\.dequant_matmul", "The weight is read in the layout that the plan's unit wants; no byte has moved."),
    ("dispatched", r"gptq\.dispatch|func\.func @dequant_matmul_0", "The op is a dispatch of kernels, one for each plan; the kernel holds the op."),
    ("tiled", r"func\.func @dequant_matmul_0", "The kernel is a loop over workgroups, each with its tile."),
    ("vector", r"func\.func @dequant_matmul_0", "Buffers and register tiles: `gptq.group_dot` is the product of a tile with one group of packed weights; "
                                                "its scale and zero point have moved to the sum."),
    ("target", r"llvm\.func .*@dequant_matmul_0_m1\.body\(", "LLVM's dialect: the beginning of the kernel, and where it multiplies."),
)
#: What to show of a long function: lines of these, with what is around them.
MARKS = {
    "vector": r"gptq\.group_(dot|sum)|scf\.for|gpu\.barrier|gptq\.scale",
    "target": r"nvvm\.mma|intr\.fm|inline_asm|llvm\.(and|or|lshr) .*i32|barrier",
}


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"lowering_doc.py: error: {done.stderr.strip() or command[0] + ' failed'}")


def shorten(line, most=3):
    """A line of IR, wrapped behind commas; what does not fit into `most` lines is left out."""
    if len(line) <= WIDTH:
        return [line]
    indent = re.match(r" *", line).group() + "    "
    # A function's parameters and attributes are less than what is in it.
    opens = line.rstrip().endswith("{")
    if re.search(r"func @", line):
        most = 1
    out, rest = [], line
    while rest and len(out) < most:
        if len(rest) <= WIDTH:
            return out + [rest]
        # Plans and layouts begin on lines of their own.
        cut = rest.find(", #gptq.", len(indent) + 1, WIDTH)
        cut = rest.rfind(", ", len(indent) + 1, WIDTH) if cut < 0 else cut
        cut = WIDTH if cut < 0 else cut + 2
        out.append(rest[:cut].rstrip())
        rest = indent + rest[cut:].lstrip()
    out[-1] += " … {" if opens else " …"
    return out


def function_at(lines, first):
    """The lines of the function that starts at number `first`."""
    depth = 0
    for i in range(first, len(lines)):
        depth += lines[i].count("{") - lines[i].count("}")
        if depth <= 0:
            return lines[first:i + 1]
    return lines[first:]


def excerpt(body, form, most=22):
    """A function, or where it is long its first lines and those around what matters."""
    if len(body) <= most:
        return body
    mark, chosen, kinds = re.compile(MARKS.get(form, r"gptq\.")), set(range(3)), {}
    for i, line in enumerate(body):
        # Two of a kind show how it is done; the others have other operands.
        kind = re.search(r'(llvm|nvvm|gptq|scf|gpu|vector)\.[\w.]+( has_side_effects "[\w.:]+)?', line)
        if mark.search(line) and kinds.setdefault(kind and kind.group(), 0) < 2 and len(chosen) < most:
            kinds[kind and kind.group()] += 1
            chosen.add(i)
    result, before = [], -1
    for i in sorted(chosen):
        if i != before + 1:
            indent = re.match(r" *", body[i]).group()
            result.append(indent + "…")
        result.append(body[i])
        before = i
    end = re.match(r" *", body[-1]).group()
    return result + [end + "  …", body[-1]]


def show(text, form, pattern):
    """What FORMS asks for, in the order of the file; of several functions of one kernel the first."""
    lines, out, functions = text.splitlines(), [], 0
    for i, line in enumerate(lines):
        if not re.search(pattern, line) or (out and line in out):
            continue
        if re.search(r"func\.func|llvm\.func", line):
            if line.rstrip().endswith("{") and not functions:
                functions += 1
                out += excerpt(function_at(lines, i), form)
        elif form != "dispatched" or "gptq.dispatch" in line:
            out.append(line)
    indent = min((len(re.match(r" *", line).group()) for line in out if line.strip()), default=0)
    # Where plans and layouts are what there is to see, all of them.
    most = 24 if form in ("planned", "packed") else 3
    return [short for line in out for short in shorten(line[indent:], most)]


def ptx_excerpt(text, most=26):
    """The loop of the first kernel: from its first wide load on, what unpacks and multiplies."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if ".entry dequant_matmul_0" in line)
    # An instruction a line.
    body = re.sub(r"\n\t\t(?=[{%])", " ", "\n".join(lines[start:])).splitlines()
    wanted = re.compile(r"ld\.global\.nc|and\.b32|or\.b32|shr\.u32|mma\.sync|fma\.rn|griddepcontrol|bar\.sync")
    kinds, out = {}, [body[0]]
    for line in body[1:]:
        found = wanted.search(line)
        if line.startswith("}") or len(out) >= most:
            break
        # Two of a kind show how it is done; the rest is the same with other registers.
        if found and kinds.setdefault(found.group(), 0) < 2:
            kinds[found.group()] += 1
            out.append(line.replace("\t", "  ").rstrip())
    return out


def main():
    with tempfile.TemporaryDirectory() as folder:
        layer = os.path.join(folder, "layer.mlir")
        run(f"{BIN}/gptq-translate", "--emit-kernel", f"{N},{K},{BITS},{GROUP}", "-o", layer)
        dumps = {}
        for name, target in (("cpu", "cpu:x86-64-v4"), ("gpu", "nvvm:sm_90a")):
            dumps[name] = os.path.join(folder, name)
            run(f"{BIN}/gptq-compile", layer, f"--target={target}", "--ptxas=none", "--quiet", "--dump-ir", dumps[name], "-o",
                os.path.join(folder, "m.gptqm"))

        def form_text(target, number, form):
            with open(os.path.join(dumps[target], f"{number}-{form}.mlir"), encoding="utf-8") as f:
                return f.read().replace(folder, "")

        for number, (form, pattern, says) in enumerate(FORMS):
            print(f"### {form}\n\n{says}\n")
            cpu, gpu = form_text("cpu", number, form), form_text("gpu", number, form)
            for title, text in (("", cpu),) if cpu == gpu else (("x86-64-v4", cpu), ("sm_90a", gpu)):
                print((f"{title}:\n\n" if title else "") + "```mlir")
                print("\n".join(show(text, form, pattern)))
                print("```\n")
        print("### PTX\n\nsm_90a, the kernel for one row: the loads, two of each kind of what unpacks and multiplies.\n\n```")
        with open(os.path.join(dumps["gpu"], f"{len(FORMS)}-kernels.s"), encoding="utf-8") as f:
            print("\n".join(ptx_excerpt(f.read())))
        print("```")


if __name__ == "__main__":
    main()
