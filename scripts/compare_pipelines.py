#!/usr/bin/env python3
"""Prints in which passes two targets differ, form by form.

    scripts/compare_pipelines.py cpu:x86-64-v4 nvvm:sm_90a

Passes that both run are counted; a line with - is run for the first target only, one
with + for the second only, one with ~ for both with other options. Asks gptq-opt, which
is looked for in GPTQ_BIN_DIR, by default build/bin.
"""
import argparse
import difflib
import os
import re
import subprocess
import sys

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
#: The forms of docs/Design.md; what lies before one of them makes it.
FORMS = ("normalized", "planned", "packed", "dispatched", "tiled", "vector", "target")


def passes(form, target):
    """[(name, options)] of the passes that make `form` for `target`, nested ones behind what they are nested in."""
    program = os.path.join(os.environ.get("GPTQ_BIN_DIR", os.path.join(REPOSITORY, "build", "bin")), "gptq-opt")
    done = subprocess.run([program, "-", f"-pass-pipeline=builtin.module(gptq-to-{form}{{target={target}}})", "--dump-pass-pipeline"],
                          input="module {}", capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"compare_pipelines.py: error: {done.stderr.strip().splitlines()[0]}")
    # A pass a line; the outermost module is the model, kernels are in the one inside.
    found, nest = [], []
    for line in done.stderr.splitlines():
        text = line.strip().rstrip(",")
        if text.endswith("("):
            nest.append(text[:-1])
        elif text == ")":
            nest.pop()
        elif nest:
            name, _, options = text.partition("{")
            where = "".join({"builtin.module": "kernels: ", "func.func": "each: "}.get(op, op + ": ") for op in nest[1:])
            found.append((where + name, " ".join(options.rstrip("}").split())))
    return found


def name_of(target):
    """The name gptq-opt knows, of `kind:name`."""
    found = re.fullmatch(r"(cpu|nvvm):([\w-]+)", target)
    if not found:
        sys.exit(f"compare_pipelines.py: error: expected two of kind:name, as in nvvm:sm_90a, but found '{target}'")
    return found.group(2)


def compare(form, first, second):
    """Lines about one form, and how many passes both run alike."""
    a, b = passes(form, first), passes(form, second)
    lines, same = [], 0
    matcher = difflib.SequenceMatcher(None, [p[0] for p in a], [p[0] for p in b], autojunk=False)
    for kind, a0, a1, b0, b1 in matcher.get_opcodes():
        if kind == "equal":
            for (name, left), (_, right) in zip(a[a0:a1], b[b0:b1]):
                if left == right:
                    same += 1
                    continue
                differ = sorted(set(left.split()) ^ set(right.split()))
                lines.append(f"  ~ {name}: {' '.join(o for o in left.split() if o in differ)} | "
                             f"{' '.join(o for o in right.split() if o in differ)}")
            continue
        lines += [f"  - {name}" for name, _ in a[a0:a1]]
        lines += [f"  + {name}" for name, _ in b[b0:b1]]
    return lines, same


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("targets", nargs=2, metavar="kind:name")
    first, second = p.parse_args().targets
    print(f"- {first} only, + {second} only, ~ other options")
    for form in FORMS:
        lines, same = compare(form, name_of(first), name_of(second))
        print(f"{form}: {same} passes alike" + ("" if lines else ", none differ"))
        print("".join(line + "\n" for line in lines), end="")


if __name__ == "__main__":
    main()
