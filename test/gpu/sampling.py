#!/usr/bin/env python3
"""Tokens that a device draws, against those that the host draws from the same logits.

    sampling.py prepare FOLDER [--target nvvm:sm_90a]    where the compiler is; needs no GPU
    sampling.py run FOLDER                               where the GPU is; needs no compiler

`run` needs gptq-run's folder in GPTQ_BIN_DIR (for the runtime library) and numpy.

Kernels: the ops that draw, as functions of logits of several sizes and types, at many temperatures, k, p and seeds. Each
token has to be the host sampler's and that of test/reference/sampling.py; with equal logits, infinities and NaNs among them.

A whole model, stories260K: 200 tokens that the device draws by itself are those that the host draws from the device's
logits. Beside the model for the processor they may differ where logits do, so every position of its text is drawn again
from the device's logits: where that gives another token, the logits' difference has to explain it.
Its last line is 'N passed, N failed'.
"""
import ctypes
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(HERE), os.path.join(os.path.dirname(HERE), "e2e")]

import numpy as np

import harness
from gpu import steps
from reference import sampling as reference
from runtime import Model, Tensor, runtime

#: Tokens, candidates at most, type of the logits. 1024 is what is sorted at a time.
KERNELS = [(33, 64, "f32"), (512, 128, "f32"), (4096, 128, "f16"), (5003, 64, "bf16"), (50257, 16, "f32"), (128256, 128, "f32"),
           (262147, 128, "f16"), (100003, 512, "f32")]
STORIES = os.path.join(harness.REPOSITORY, "examples", "stories260K-gptq-4bit-g32")
PROMPT = [1, 403, 407, 261]
LENGTH = 200
#: temperature, top-k, top-p
DRAWS = [(0.8, 40, 1.0), (1.0, 128, 0.9), (1.5, 100, 1.0), (0.3, 5, 0.95)]

def module(vocab, k, dtype):
    """A function that draws, in the steps that gptq-add-next makes."""
    lines, rows, columns, source, count = [], vocab, 1024, f"%logits part %c0 : tensor<1x{vocab}x{dtype}>", 0
    while True:
        parts = -(-rows // columns)
        types = f"tensor<{parts}x{k}xf32>, tensor<{parts}x{k}xi32>"
        lines += [f"  %v{count} = tensor.empty() : tensor<{parts}x{k}xf32>", f"  %i{count} = tensor.empty() : tensor<{parts}x{k}xi32>",
                  f"  %top{count}:2 = gptq.top_k ins({source}) outs(%v{count}, %i{count} : {types}) {{columns = {columns}}} -> {types}"]
        if parts * k <= 2048:
            break
        source = f"%top{count}#0 indices %top{count}#1 part %c0 : tensor<{parts}x{k}xf32> indices tensor<{parts}x{k}xi32>"
        rows, columns, count = parts * k, 2048, count + 1
    return "\n".join([
        'func.func @draw(%tokens: tensor<1xi32> {gptq.name = "tokens"},',
        f'                %logits: tensor<1x{vocab}x{dtype}> {{gptq.name = "logits"}}, %sampling: tensor<6xi32> {{gptq.name = "sampling"}}, %p: index)',
        '    -> (tensor<1xi32> {gptq.name = "token"}) attributes {gptq.max_m = 1 : i64} {',
        "  %c0 = arith.constant 0 : index", "  %t = tensor.empty() : tensor<1xi32>", *lines,
        f"  %r:2 = gptq.sample_token ins(%top{count}#0, %top{count}#1, %sampling at %p : {types}, tensor<6xi32>)",
        "    outs(%t, %tokens : tensor<1xi32>, tensor<1xi32>) -> tensor<1xi32>, tensor<1xi32>", "  return %r#0 : tensor<1xi32>", "}", ""])


class Sampling(ctypes.Structure):
    """gptq_sampling of include/gptq/runtime.h."""
    _fields_ = [("temperature", ctypes.c_float), ("top_k", ctypes.c_int32), ("top_p", ctypes.c_float), ("seed", ctypes.c_uint64)]


class Sampler:
    """The host's."""

    def __init__(self, library, temperature, top_k, top_p, seed):
        self.library, self.sampler = library, ctypes.c_void_p()
        self.settings = dict(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
        error = ctypes.create_string_buffer(1024)
        if library.gptq_sampler_create(ctypes.byref(Sampling(temperature, top_k, top_p, seed)), ctypes.byref(self.sampler), error):
            raise RuntimeError(error.value.decode())

    def pick(self, logits, position):
        logits = np.ascontiguousarray(logits, np.float32)
        return self.library.gptq_sampler_pick(self.sampler, ctypes.c_void_p(logits.ctypes.data), ctypes.c_int64(logits.size),
                                              ctypes.c_int64(position))

    def words(self):
        """What a device reads about how to draw."""
        s = self.settings
        scale = np.float64(1.4426950408889634) / np.float64(np.float32(s["temperature"]))
        return np.concatenate([np.array([s["top_k"]], np.int32), np.array([s["top_p"]], np.float32).view(np.int32),
                               np.array([scale]).view(np.int32), np.array([s["seed"]], np.uint64).view(np.int32)])


class Session(Model):
    def draw(self, logits, words):
        """Runs the lone function."""
        inputs = [np.zeros(1, np.int32), np.ascontiguousarray(logits, np.float32).reshape(1, -1), words]
        token = np.full(1, -1, np.int32)
        tensors = (Tensor * 3)(*map(Tensor.of, inputs))
        self.check(self.library.gptq_session_run(self.session, b"draw", tensors, ctypes.c_size_t(3),
                                                 ctypes.byref(Tensor.of(token)), ctypes.c_size_t(1), self.error))
        return int(token[0])

    def rewind(self):
        self.check(self.library.gptq_session_rewind(self.session, 0, self.error))

    def eval(self, tokens, vocab=512):
        tokens = np.ascontiguousarray(tokens, np.int32)
        self.check(self.library.gptq_session_eval(self.session, ctypes.c_void_p(tokens.ctypes.data), ctypes.c_int64(len(tokens)),
                                                  self.error))
        self.library.gptq_session_logits.restype = ctypes.POINTER(ctypes.c_float)
        return np.ctypeslib.as_array(self.library.gptq_session_logits(self.session), (vocab,)).copy()

    def sample(self, sampler, token):
        chosen = ctypes.c_int32(-1)
        self.check(self.library.gptq_session_sample(self.session, sampler.sampler, ctypes.c_int32(int(token)), ctypes.byref(chosen),
                                                    self.error))
        return chosen.value


def kernel_name(vocab, k, dtype):
    return f"draw-{vocab}-{k}-{dtype}"


def prepare_kernel(folder, vocab, k, dtype, target):
    source = os.path.join(folder, kernel_name(vocab, k, dtype) + ".mlir")
    with open(source, "w", encoding="utf-8") as f:
        f.write(module(vocab, k, dtype))
    return harness.compile_model(source, source[:-len(".mlir")] + ".gptqm", target=target)


def prepare(folder, target):
    os.makedirs(folder, exist_ok=True)
    for kernel in KERNELS:
        prepare_kernel(folder, *kernel, target)
    harness.compile_model(STORIES, os.path.join(folder, "device.gptqm"), target=target)
    harness.compile_model(STORIES, os.path.join(folder, "cpu.gptqm"))
    print(f"{len(KERNELS)} functions and a model in {folder}")


def some_logits(vocab, dtype, seed):
    """Logits of different kinds: spread, with many equal ones, with infinities and NaNs. Values that the type holds."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 3, vocab).astype(np.float32)
    kind = seed % 4
    if kind == 1:
        logits = np.round(logits)
    elif kind == 2:
        logits[random.integers(0, vocab, vocab // 3)] = np.nan
        logits[random.integers(0, vocab, vocab // 3)] = -np.inf
    elif kind == 3:
        logits *= np.float32(0.01)
        logits[random.integers(0, vocab, vocab // 2)] *= np.float32(-0.0)
    if dtype != "f32":
        # Steps of 1/16 below 8 are exact in every type.
        finite = np.isfinite(logits)
        logits[finite] = np.clip(np.round(logits[finite] * 16) / 16, -7.9375, 7.9375)
    return logits


def check_kernel(library, path, vocab, k, dtype, count):
    """What is wrong with one function: sentences."""
    session, wrong, different = Session(library, path), [], set()
    special = [np.full(vocab, np.nan), np.full(vocab, -np.inf), np.where(np.arange(vocab) % 7 == 3, np.inf, 0.0),
               np.where(np.arange(vocab) == vocab - 1, 1.0, np.nan), np.zeros(vocab)]
    tries = [(logits, (0.7, k, 1.0, seed)) for seed, logits in enumerate(special)]
    for seed in range(count):
        temperature = (0.05, 0.8, 1.0, 2.5, 100.0)[seed % 5]
        top_k = (1, 2, min(40, k), k)[seed // 2 % 4]
        top_p = (1.0, 0.9, 0.3, 0.999, 1e-6)[seed // 3 % 5]
        # Seeds of all 64 bits.
        tries.append((some_logits(vocab, dtype, seed), (temperature, top_k, top_p, seed * 0x9E3779B97F4A7C15 % 2**64)))
    for logits, settings in tries:
        sampler = Sampler(library, *settings)
        # A lone function has position 0: the token in question is number 1.
        tokens = {"device": session.draw(logits, sampler.words()), "host": sampler.pick(logits, 1),
                  "reference": reference.pick(logits, 1, **sampler.settings)}
        different.add(tokens["host"])
        if len(set(tokens.values())) != 1:
            wrong.append(f"{sampler.settings}: {tokens}")
    print(f"{os.path.basename(path)}: {len(tries)} draws, {len(different)} different tokens", flush=True)
    return wrong


def check_stories(library, device, cpu):
    """What is wrong with the whole model, in a session on each: sentences."""
    wrong = []
    for number, (temperature, top_k, top_p) in enumerate(DRAWS):
        for seed in (number, 2**63 + number):
            sampler = Sampler(library, temperature, top_k, top_p, seed)

            def text(session, by_device):
                session.rewind()
                tokens = PROMPT + [sampler.pick(session.eval(PROMPT), len(PROMPT))]
                while len(tokens) < LENGTH:
                    tokens.append(session.sample(sampler, tokens[-1]) if by_device
                                  else sampler.pick(session.eval(tokens[-1:]), len(tokens)))
                return tokens

            own, by_host, on_cpu = text(device, True), text(device, False), text(cpu, False)
            name = f"temperature {temperature}, top-k {top_k}, top-p {top_p}, seed {seed}"
            if own != by_host:
                at = next(i for i in range(LENGTH) if own[i] != by_host[i])
                wrong.append(f"{name}: token {at} is {own[at]}, the host draws {by_host[at]} from the same logits")
            # Logits of the processor's text on both.
            logits = []
            for session in (device, cpu):
                session.rewind()
                logits.append([session.eval(PROMPT)] + [session.eval([token]) for token in on_cpu[len(PROMPT):-1]])
            others, largest = 0, 0.0
            for position, (a, b) in enumerate(zip(*logits), len(PROMPT)):
                error = float(np.abs(a - b).max())
                largest = max(largest, error)
                token = sampler.pick(a, position)
                if token == on_cpu[position]:
                    continue
                others += 1
                away = reference.unexplained(b, token, error, position, **sampler.settings)
                if away > 0:
                    wrong.append(f"{name}: token {position} is {token}, {on_cpu[position]} on the processor: the random number is {away:.2g} "
                                 f"from where logits {error:.2g} apart might draw it")
            same = next((i for i in range(LENGTH) if own[i] != on_cpu[i]), LENGTH)
            print(f"stories260K, {name}: the processor's text up to token {same} of {LENGTH}; from its text {others} other tokens, "
                  f"logits at most {largest:.2g} apart", flush=True)
    return wrong


def run(folder, count=120):
    library = runtime()
    checks = [(kernel_name(*kernel), lambda kernel=kernel: check_kernel(
        library, os.path.join(folder, kernel_name(*kernel) + ".gptqm"), *kernel, count)) for kernel in KERNELS]
    checks.append(("stories260K", lambda: check_stories(
        library, *(Session(library, os.path.join(folder, name + ".gptqm")) for name in ("device", "cpu")))))
    return steps.tally(checks)


if __name__ == "__main__":
    steps.main(__doc__, lambda a: prepare(a.folder, a.target), run)
