"""Runs gptq-compile and gptq-run, and says what they promise when they fail."""
import os
import re
import subprocess

import numpy as np

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TIMEOUT = 300


def binary(name):
    folder = os.environ.get("GPTQ_BIN_DIR", os.path.join(REPOSITORY, "build", "bin"))
    path = os.path.join(folder, name)
    assert os.access(path, os.X_OK), f"no {name} in {folder}; build it, or set GPTQ_BIN_DIR"
    return path


def call(name, *arguments, timeout=TIMEOUT):
    return subprocess.run([binary(name), *map(str, arguments)], capture_output=True, timeout=timeout)


def succeed(name, *arguments, timeout=TIMEOUT):
    done = call(name, *arguments, timeout=timeout)
    assert done.returncode == 0, f"{name} {' '.join(map(str, arguments))[:300]}\n{done.stderr.decode(errors='replace')}"
    return done.stdout.decode()


def compile_model(source, out, *arguments, target="cpu"):
    succeed("gptq-compile", source, f"--target={target}", "-o", out, *arguments)
    return out


def run_function(model, name, x, folder, *arguments):
    """Output [M, N] of a lone function for input [M, K]."""
    source, result = os.path.join(folder, "x.npy"), os.path.join(folder, "y.npy")
    np.save(source, np.ascontiguousarray(x, np.float32))
    if os.path.exists(result):
        os.remove(result)
    succeed("gptq-run", model, "--function", name, "--input", source, "--output", result, *arguments)
    return np.load(result)


def spell(tokens):
    return ",".join(str(int(t)) for t in tokens)


def run_logits(model, tokens, folder, *arguments):
    """Logits [T, vocab] of every position of `tokens`."""
    result = os.path.join(folder, "logits.npy")
    if os.path.exists(result):
        os.remove(result)
    succeed("gptq-run", model, "--tokens", spell(tokens), "--max-tokens", 0, "--logits", result, *arguments)
    return np.load(result)


def run_greedy(model, tokens, count, *arguments):
    """The `count` tokens that greedy decoding adds."""
    out = succeed("gptq-run", model, "--tokens", spell(tokens), "--max-tokens", count, "--print-tokens",
                  "--ignore-eos", *arguments)
    lines = [line for line in out.splitlines() if re.fullmatch(r"\s*\d+(?:[\s,]+\d+)*\s*", line)]
    assert lines, f"no line of token ids in {out!r}"
    return [int(t) for t in re.findall(r"\d+", lines[-1])]


def run_perplexity(model, text_file, *arguments):
    """Mean -log p in nats, from the line that names it: `... 4.7362 nats per token`."""
    out = succeed("gptq-run", model, "--perplexity", text_file, *arguments)
    found = re.search(r"([0-9.]+) nats", out)
    assert found, f"no '<number> nats' in {out!r}"
    return float(found.group(1))


def error_of(done, name, folder_before, folder_after):
    """What is wrong with how a tool refused its input; empty when nothing is.

    A refusal is exactly one line on standard error that starts with the tool's name,
    an exit status of 1 to 125 (126 and up are the shell's and signals), and leaves
    no file behind, whole or temporary.
    """
    text = done.stderr.decode("utf-8", errors="replace")
    wrong = []
    if not 1 <= done.returncode <= 125:
        wrong.append(f"exit status {done.returncode}")
    lines = text.splitlines()
    if len(lines) != 1 or not text.endswith("\n"):
        wrong.append(f"{len(lines)} lines on standard error")
    if not text.startswith(f"{name}: error: ") or not text[len(f"{name}: error: "):].strip():
        wrong.append(f"standard error does not start with '{name}: error: ' and a reason")
    if any(ord(c) < 32 and c != "\n" for c in text) or "\ufffd" in text:
        wrong.append("control characters or invalid UTF-8 on standard error")
    if folder_before != folder_after:
        wrong.append(f"left behind {sorted(set(folder_after) - set(folder_before))}")
    return "; ".join(wrong) + (f"\n{text[:2000]}" if wrong else "")
