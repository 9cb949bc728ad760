# Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Runs models that gptq-compile has compiled.

    model = gptq.Model("stories.gptqm")
    print(model.generate("Once upon a time", max_tokens=60))
"""

import json

import numpy as np

from . import _gptq

__version__ = _gptq.version()


class Model:
    """A compiled model, mapped into memory.

    path: the `.gptqm` file. threads: threads that compute, 0 for one a core.
    verify: compare every tensor with its checksum. device: which of several GPUs,
    for models that are compiled for one.
    """

    def __init__(self, path, threads=0, verify=True, device=0):
        self._model = _gptq.Model(str(path), threads, device, verify)
        self.manifest = json.loads(self._model.manifest)

    @property
    def threads(self):
        return self._model.threads

    @property
    def functions(self):
        """Names of the entries that `run` takes."""
        names = [entry["name"] for entry in self.manifest["entries"]]
        if self.manifest["model"] is not None:
            names = [n for n in names if n not in ("generate", "score", "next", "sample")]
        return names

    def encode(self, text, add_bos=True, parse_special=True):
        """Token ids of a text, behind the start token if the model wants one."""
        return self._model.encode(text, add_bos, parse_special)

    def decode(self, tokens):
        """The text of tokens; special tokens give none."""
        decoder = _gptq.Decoder(self._model)
        return "".join(decoder.push(t) for t in tokens) + decoder.finish()

    def chat(self, messages, add_generation_prompt=True):
        """The prompt that the model's template makes of messages, which are
        mappings with the keys `role` and `content`."""
        pairs = [[m["role"], m["content"]] for m in messages]
        return self._model.chat(pairs, add_generation_prompt)

    def logits(self, tokens):
        """Logits behind every token, float32 [tokens, vocab]."""
        return _gptq.Session(self._model).score(list(tokens))

    def stream(self, prompt, max_tokens=128, temperature=0.0, top_k=0, top_p=1.0, seed=0,
               ignore_eos=False):
        """Yields the ids of new tokens behind a prompt: text or token ids."""
        tokens = self.encode(prompt) if isinstance(prompt, str) else list(prompt)
        sampler = _gptq.Sampler(temperature, top_k, top_p, seed)
        session = _gptq.Session(self._model)
        limit = self.manifest["model"]["max_context"]
        stop = set() if ignore_eos else set(self._model.eos_ids)
        on_device = sampler.is_on_device(self._model)
        for i in range(max_tokens):
            if on_device and i > 0:
                token = sampler.sample(session, token)
            else:
                logits = session.eval(tokens)
                token = sampler.pick(logits, session.position)
            if token in stop:
                return
            yield token
            if session.position == limit:
                return
            tokens = [token]

    def generate(self, prompt, **options):
        """Continues a prompt. Text gives text, token ids give token ids, both
        without the prompt. Options are those of `stream`."""
        if not isinstance(prompt, str):
            return list(self.stream(prompt, **options))
        tokens = self.encode(prompt)
        new = list(self.stream(tokens, **options))
        # Whether the new text starts with a space depends on what it follows.
        decoder = _gptq.Decoder(self._model)
        for token in tokens:
            decoder.push(token)
        return "".join(decoder.push(t) for t in new) + decoder.finish()

    def run(self, function, *args, **inputs):
        """Runs a lone function on arrays, in order or by name, and returns its
        output, or a tuple of several. Arrays are converted to the function's
        element types."""
        ports = self._model.ports(function, False)
        args = list(args)
        for name, _, _ in ports[len(args):]:
            if name not in inputs:
                raise TypeError(f"function '{function}': the input '{name}' is missing")
            args.append(inputs.pop(name))
        if inputs or len(args) > len(ports):
            extra = ", ".join(inputs) or f"{len(args)} arrays for {len(ports)} inputs"
            raise TypeError(f"function '{function}': unexpected {extra}")
        arrays = [np.ascontiguousarray(a, dtype) for a, (_, dtype, _) in zip(args, ports)]
        results = _gptq.Session(self._model).run(function, arrays)
        return results[0] if len(results) == 1 else tuple(results)
