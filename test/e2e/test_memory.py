"""No floating-point copy of a quantized weight exists: not in the IR, not in the process that runs, not in the one that compiles."""
import json
import math
import os
import re
import shutil
import subprocess
import sys
import threading
import time

import pytest

import harness
from reference.make_checkpoint import make_layer, make_model

MB = 1 << 20

# Shaped types of floats: `tensor<?x64xf16>`, `memref<4x8xf32, strided<…>>`, `vector<8xbf16>`; the LLVM dialect's
# `!llvm.array<4 x vector<8xf32>>`; and LLVM IR's `[4 x <8 x float>]`.
SHAPED = (
    re.compile(r"\b(?:tensor|memref|vector)<((?:(?:\?|\d+)x)+)(?:f16|bf16|f32|f64)\b"),
    re.compile(r"!llvm\.array<((?:\d+ x (?:array<)?)+(?:vector<(?:\d+x)+)?)(?:f16|bf16|f32|f64)\b"),
    re.compile(r"((?:[\[<]\d+ x )+)(?:half|bfloat|float|double)\b"),
)


def float_types(line):
    """(elements, type) of every shaped float type that a line of IR names. Sizes that are not known, the rows of a call, count as one."""
    for pattern in SHAPED:
        for found in pattern.finditer(line):
            yield math.prod(map(int, re.findall(r"\d+", found.group(1)))), found.group(0)


def large_floats(text, elements):
    """Lines of IR that name a float type of at least `elements` elements."""
    for number, line in enumerate(text.splitlines(), 1):
        for size, name in float_types(line):
            if size >= elements:
                yield f"line {number}: {name} has {size} elements: {line.strip()[:200]}"


def quantized_sizes(imported):
    """K x N of every layer of quantized codes, from the form the IR is imported in."""
    return [int(k) * int(n) for k, n in re.findall(r"gptq\.weight @\S+codes : tensor<(\d+)x(\d+)xi\d+>", imported)]


def check_forms(folder):
    """Checks every form of the IR that --dump-ir wrote; returns the number of types seen."""
    forms = sorted(os.listdir(folder), key=lambda name: int(name.split("-")[0]))
    texts = {name: open(os.path.join(folder, name), encoding="utf-8").read() for name in forms if not name.endswith(".s")}
    sizes = quantized_sizes(texts["0-imported.mlir"])
    assert sizes and {"7-target.mlir", "8-kernels.ll"} <= set(texts)
    seen = 0
    for name, text in texts.items():
        assert "gptq.dequantize" not in text, f"{name} makes a whole weight of floats"
        assert "dense_resource" not in text and "dense<\"0x" not in text, f"{name} holds a weight as a constant"
        found = list(large_floats(text, min(sizes)))
        assert not found, f"{name}: " + "\n".join(found[:5])
        # Workgroup memory is bytes: it could not hold the layer in half precision either.
        scratch = [int(b) for b in re.findall(r"gptq\.scratch_bytes = (\d+)", text)]
        assert max(scratch, default=0) < 2 * min(sizes), f"{name}: {max(scratch)} bytes of workgroup memory"
        seen += sum(1 for line in text.splitlines() for _ in float_types(line))
    return seen


LAYERS = {
    "4bit": dict(group_size=32),
    "4bit-asym-act-order": dict(group_size=32, sym=False, act_order=True),
    "8bit": dict(bits=8, group_size=64),
    "one-group": dict(group_size=-1),
}
SWITCHES = ((), ("--no-vectorize",), ("--no-promote",), ("--no-hoist-scales", "--no-fold-zeros"))


@pytest.mark.parametrize("switches", SWITCHES, ids=lambda s: "+".join(s) or "all-on")
@pytest.mark.parametrize("variant", LAYERS)
def test_no_form_of_a_layer_holds_its_floats(variant, switches, tmp_path):
    # More weights than any tile of activations, 512 rows of 320, has elements.
    source = make_layer(str(tmp_path / "layer"), 320, 1024, **LAYERS[variant])
    harness.compile_model(source, str(tmp_path / "layer.gptqm"), "--layer", "layer", "--dump-ir", tmp_path / "ir", *switches)
    assert check_forms(tmp_path / "ir") > 100


@pytest.mark.parametrize("switches", SWITCHES[:1] + (("--no-fuse",),), ids=lambda s: "+".join(s) or "all-on")
def test_no_form_of_a_model_holds_its_floats(switches, tmp_path):
    # All sizes that do not belong to a quantized layer stay below its smallest: vocabulary x hidden, context x head.
    source = make_model(str(tmp_path / "model"), hidden=128, intermediate=192, heads=4, kv_heads=4, vocab=96, group_size=32)
    harness.compile_model(source, str(tmp_path / "model.gptqm"), "--max-context", 64, "--dump-ir", tmp_path / "ir", *switches,
                          target="cpu:x86-64-v3")  # Wider panels pad the head to more than the smallest layer.
    assert check_forms(tmp_path / "ir") > 1000


def test_the_check_finds_what_it_is_for():
    crafted = {
        "%0 = gptq.dequantize %q, %s : tensor<64x32xi4>, tensor<2x32xf16> -> tensor<64x32xf16>": 1,
        "%0 = tensor.empty() : tensor<64x32xf32>": 1,
        "%alloc = memref.alloc() : memref<64x32xf16, #gpu.address_space<workgroup>>": 1,
        "%alloca = memref.alloca() {alignment = 64 : i64} : memref<1x2048xbf16>": 1,
        "%v = vector.broadcast %x : f32 to vector<64x32xf32>": 1,
        "%1 = bufferization.alloc_tensor() : tensor<2x64x32xf64>": 1,
        "%2 = llvm.alloca %c x !llvm.array<64 x vector<32xf32>> : (i64) -> !llvm.ptr": 1,
        "%a = alloca [2048 x float], align 4": 1,
        "%b = alloca [64 x <32 x half>], align 4": 1,
        "%c = alloca [64 x [32 x bfloat]]": 1,
        "%3 = memref.alloc() : memref<64x31xf32>": 0,
        "%4 = tensor.empty(%m) : tensor<?x64xf32>": 0,
        "%w = gptq.load_weight @q : tensor<64x32xi4>": 0,
        "%s = memref.alloc() : memref<64x32xi32>": 0,
    }
    for line, count in crafted.items():
        assert len(list(large_floats(line, 64 * 32))) == count, line
    assert quantized_sizes("gptq.weight @a.codes : tensor<64x32xi4> = #gptq.codes<") == [2048]


#===----------------------------------------------------------------------===//
# Processes
#===----------------------------------------------------------------------===//

LAYER_COUNT = 12


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A checkpoint of TinyLlama's shape with fewer layers: 270 MB of codes, which would be 1.1 GB in half precision."""
    folder = tmp_path_factory.mktemp("large")
    script = os.path.join(harness.REPOSITORY, "benchmarks", "make_checkpoint.py")
    subprocess.run([sys.executable, script, "--shape", "tinyllama-1.1b", "--layers", str(LAYER_COUNT), "--out", str(folder / "checkpoint")],
                   check=True, capture_output=True)
    yield folder
    shutil.rmtree(folder)


def memory_of(process):
    """{name: bytes} of a process's memory by kind: RssAnon is its own, RssFile is pages of files, which the kernel can drop."""
    try:
        with open(f"/proc/{process.pid}/status", encoding="ascii") as f:
            return {m[0]: int(m[1]) << 10 for m in re.findall(r"^(\w+):\s+(\d+) kB", f.read(), re.M)}
    except OSError:
        return {}


def peaks(name, *arguments):
    """Runs a tool; (its output, the largest of each kind of memory it had)."""
    process = subprocess.Popen([harness.binary(name), *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    result, most = [], {}
    reader = threading.Thread(target=lambda: result.extend(process.communicate(timeout=harness.TIMEOUT)))
    reader.start()
    while reader.is_alive():
        for kind, size in memory_of(process).items():
            most[kind] = max(size, most.get(kind, 0))
        time.sleep(0.002)
    reader.join()
    assert process.returncode == 0, result[1].decode()
    return result[0].decode() + result[1].decode(), most


def test_compiling_needs_one_layer(large):
    model = large / "model.gptqm"
    _, most = peaks("gptq-compile", large / "checkpoint", "--target=cpu", "--quiet", "-o", model)
    # The largest layer in the file is the dense head, 32000 x 2048 in half precision. Pages of the checkpoint and of the
    # compiled model, which are mapped, are RssFile and belong to the system.
    limit = 32000 * 2048 * 2 + 300 * MB
    assert most["RssAnon"] <= limit, f"{most['RssAnon'] / MB:.0f} MB, {limit / MB:.0f} allowed"
    assert os.path.getsize(model) < 1.1 * sum(e.stat().st_size for e in os.scandir(large / "checkpoint"))


def test_running_needs_the_packed_weights(large):
    model = large / "model.gptqm"
    if not model.exists():
        harness.compile_model(str(large / "checkpoint"), str(model), "--quiet")
    info = json.loads(harness.succeed("gptq-run", model, "--inspect", "--json"))
    packed, state = info["weight_bytes"], info["state_bytes"]
    codes = LAYER_COUNT * (2048 * 2048 * 2 + 2048 * 256 * 2 + 3 * 2048 * 5632)  # weights
    assert packed > 250 * MB
    limit = packed + state + 200 * MB
    # A copy in half precision would not fit: the limit proves that there is none.
    assert packed + 2 * codes > limit
    tokens = ",".join(str(3 + 7 * i % 31000) for i in range(80))
    text, most = peaks("gptq-run", model, "--tokens", tokens, "--max-tokens", 4, "--ignore-eos", "--print-tokens", "--stats")
    assert most["VmHWM"] <= limit, f"{most['VmHWM'] / MB:.0f} MB, {limit / MB:.0f} allowed"
    # Packed weights are pages of the file: what the process owns is the rest.
    assert most["RssAnon"] <= state + 200 * MB
    assert "memory:" in text
