"""GGUF files: what is imported against what was packed, logits, tokenizers, and what is refused."""
import json
import os
import re
import shutil
import struct
import subprocess

import numpy as np
import pytest

import harness
from reference import gguf
from reference.checkpoint import Checkpoint, read_safetensors
from reference.make_checkpoint import make_model
from reference.model import Model

# Of the range of all logits, as for other models.
TOLERANCE = 1e-3
LAYER = "model.layers.0.mlp.up_proj"


def imported(path, folder, layer, *arguments):
    """(IR, tensors) of one layer."""
    out = os.path.join(folder, "weights.safetensors")
    ir = harness.succeed("gptq-translate", "--import-hf", path, "--layer", layer, "--write-weights", out, *arguments)
    return ir, read_safetensors(out)


def check_logits(packed, model, folder, count=80):
    tokens = np.random.default_rng(0).integers(3, packed.config["vocab_size"], count)
    want, got = Model(packed)(tokens), harness.run_logits(model, tokens, folder)
    error = np.abs(got - want).max(-1) / (want.max() - want.min())
    assert error.max() <= TOLERANCE, f"position {error.argmax()}: {error.max():.3g} of the logits' range"
    assert error.max() > 0


@pytest.mark.parametrize("layer", (LAYER, "model.layers.1.self_attn.q_proj"))
@pytest.mark.parametrize("kind", gguf.TYPES)
def test_codes_scales_and_offsets_are_exact(kind, layer, tmp_path):
    """Bit by bit; rows of queries come out in the order that other checkpoints have them in."""
    path, packed = gguf.random_model(str(tmp_path / "m.gguf"), kind=kind)
    ir, tensors = imported(path, str(tmp_path), layer)
    want, label = packed.matrices[layer], layer.removeprefix("model.")
    assert np.array_equal(tensors[f"{label}.codes"][1], want.codes.T)
    form, scales = tensors[f"{label}.scales"]
    # Products of a half and a small whole number are exact in f32, as here in float64.
    assert form == ("F32" if gguf.LAYOUTS[kind].is_super else "F16")
    assert np.array_equal(scales.astype(np.float64), want.scales.T)
    assert int(re.search(r"zero_point = (\d+)", ir)[1]) == want.zero
    assert (f"{label}.offsets" in tensors) == (want.offsets is not None)
    if want.offsets is not None:
        form, offsets = tensors[f"{label}.offsets"]
        assert form == ("F32" if gguf.LAYOUTS[kind].is_super else "F16")
        assert np.array_equal(offsets.astype(np.float64), want.offsets.T)


@pytest.mark.parametrize("kind", gguf.TYPES)
def test_tables_are_what_their_blocks_stand_for(kind, tmp_path):
    path, packed = gguf.random_model(str(tmp_path / "m.gguf"), kind=kind)
    out = str(tmp_path / "weights.safetensors")
    harness.succeed("gptq-translate", "--import-hf", path, "--write-weights", out, "-o", str(tmp_path / "m.mlir"))
    form, table = read_safetensors(out)["embed_tokens.weight"]
    want = packed.tensors["model.embed_tokens.weight"]
    assert form == "F32"
    # Two products and a sum, each rounded once.
    assert np.abs(table - want).max() <= 2.0**-23 * np.abs(want).max()


@pytest.mark.parametrize("kind", ("f32", "f16", "bf16"))
def test_dense_tensors_are_exact(kind, tmp_path):
    path, packed = gguf.random_model(str(tmp_path / "m.gguf"), kind=kind)
    for layer in (LAYER, "model.layers.0.self_attn.k_proj"):
        _, tensors = imported(path, str(tmp_path), layer)
        form, weight = tensors[layer.removeprefix("model.") + ".weight"]
        if kind == "bf16":
            weight = (weight.astype(np.uint32) << 16).view(np.float32)
        assert form == kind.upper()
        assert np.array_equal(weight.astype(np.float64), packed.tensors[f"{layer}.weight"])


MODELS = {
    **{f"{a}-{kind}": dict(architecture=a, kind=kind) for a in ("llama", "qwen2") for kind in
       gguf.TYPES + ("f16", "bf16", "f32")},
    **{f"qwen3-{kind}": dict(architecture="qwen3", kind=kind) for kind in ("q4_0", "q8_0", "q4_k", "q6_k")},
    "llama-tied-q6_k": dict(kind="q4_k", tied=True, embedding="q6_k"),
    "qwen2-tied-f16": dict(architecture="qwen2", kind="q4_0", tied=True, embedding="f16"),
    "llama-biases": dict(kind="q4_1", biases=True),
    "llama-stretched": dict(kind="q8_0", divisors=np.linspace(1, 8, 32)),
    "mistral-window": dict(kind="q4_0", window=24),
    "mixed": dict(kind="q4_k", mixed={"v_proj": "q6_k", "layers.0.mlp.down": "q6_k", "lm_head": "q8_0"}),
    "three-parts": dict(kind="q4_k", parts=3),
    "wide-heads": dict(architecture="qwen3", kind="q8_0", head_dim=96, hidden=128, inner=160),
    "linear-rope": dict(kind="q8_0", extra={"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.0}),
    "aligned-to-4096": dict(kind="q8_0", extra={"general.alignment": 4096}),
}


@pytest.mark.parametrize("name", MODELS)
def test_logits(name, tmp_path):
    path, packed = gguf.random_model(str(tmp_path / "m.gguf"), **MODELS[name])
    if "stretched" in name:
        packed.config["rope_divisors"] = np.float32(MODELS[name]["divisors"]).astype(np.float64)
    if "linear" in name:
        packed.config["rope_scaling"] = {"type": "linear", "factor": 2.0}
    check_logits(packed, harness.compile_model(path, str(tmp_path / "m.gptqm")), str(tmp_path))


@pytest.mark.parametrize("flags", (["--no-fold-zeros"], ["--no-fold-zeros", "--no-hoist-scales"], ["--no-fuse"],
                                   ["--no-vectorize"], ["--no-buffer-partials"]))
def test_offsets_without_a_pass(flags, tmp_path):
    path, packed = gguf.random_model(str(tmp_path / "m.gguf"), kind="q4_k")
    check_logits(packed, harness.compile_model(path, str(tmp_path / "m.gptqm"), *flags), str(tmp_path), 20)


@pytest.mark.parametrize("kind", ("q5_0", "q6_k"))
def test_codes_of_5_and_6_bits_are_refused_for_gpus(kind, tmp_path):
    path, _ = gguf.random_model(str(tmp_path / "m.gguf"), kind=kind)
    done = harness.call("gptq-compile", path, "--target=nvvm:sm_90a", "-o", tmp_path / "m.gptqm")
    assert not harness.error_of(done, "gptq-compile", ["m.gguf"], os.listdir(tmp_path))
    assert f"expects codes of 2, 4 or 8 bits for unit mma_m16n8k16, but found {kind[1]}" in done.stderr.decode()


@pytest.mark.parametrize("kind", ("q4_0", "q4_k", "q8_0", "f16"))
def test_other_types_compile_for_gpus(kind, tmp_path):
    path, _ = gguf.random_model(str(tmp_path / "m.gguf"), kind=kind)
    harness.compile_model(path, str(tmp_path / "m.gptqm"), "--max-context", "64", target="nvvm:sm_90a")


def test_a_folder_of_one_file(tmp_path):
    path, packed = gguf.random_model(str(tmp_path / "m.gguf"), kind="q4_0", parts=2)
    assert len(os.listdir(tmp_path)) == 2
    check_logits(packed, harness.compile_model(str(tmp_path), str(tmp_path / "m.gptqm")), str(tmp_path), 10)
    shutil.copyfile(path, tmp_path / "other.gguf")
    done = harness.call("gptq-compile", tmp_path, "-o", tmp_path / "n.gptqm")
    assert done.returncode == 1 and "holds 2 GGUF models, expected one" in done.stderr.decode()


# ---------------------------------------------------------------- trained
@pytest.mark.parametrize("kind", gguf.TYPES[:5] + ("f16",))
def test_stories(kind, shared_data, tokenizer, tmp_path):
    """A trained model tells a story from its own tokenizer, token by token that of float64."""
    source = os.path.join(shared_data, "stories260K-hf")
    path, packed = gguf.convert(source, str(tmp_path / "stories.gguf"), kind)
    model = harness.compile_model(path, str(tmp_path / "m.gptqm"))
    prompt = [1] + tokenizer.encode("Once upon a time")
    want = Model(packed).greedy(prompt, 200)
    assert harness.run_greedy(model, prompt, 200) == want
    text = harness.succeed("gptq-run", model, "--prompt", "Once upon a time", "--max-tokens", 200, "--temperature", 0,
                           "--ignore-eos")
    assert text.strip().endswith(tokenizer.decode(want)[-80:].strip())
    check_logits(packed, model, str(tmp_path))


@pytest.mark.parametrize("kind", ("q4_k", "q5_k", "q6_k"))
def test_larger_trained_model(kind, shared_data, tmp_path):
    """Rows of 1408 are no whole super-blocks: those layers are q8_0, as writers do it."""
    path, packed = gguf.convert(os.path.join(shared_data, "mid18M-hf"), str(tmp_path / "mid.gguf"), kind)
    model = harness.compile_model(path, str(tmp_path / "m.gptqm"))
    check_logits(packed, model, str(tmp_path))
    prompt = [1, 403, 407, 261, 378]
    assert harness.run_greedy(model, prompt, 50) == Model(packed).greedy(prompt, 50)


def carried(model, name):
    """The bytes of a file that a compiled model carries."""
    from damage import Container
    return Container(model).get(f"file.{name}")


def test_the_tokenizer_is_what_other_checkpoints_bring(shared_data, texts, tmp_path):
    """The same text becomes the same tokens, through pieces and through byte pairs."""
    source = os.path.join(shared_data, "stories260K-hf")
    path, _ = gguf.convert(source, str(tmp_path / "m.gguf"), "q8_0")
    text = texts["tinyshakespeare"][:3000] + "  two  spaces, \u00e9\u4f60 and \U0001f600\n\n"
    (tmp_path / "t.txt").write_text(text)
    losses = [harness.run_perplexity(harness.compile_model(m, str(tmp_path / "m.gptqm")), tmp_path / "t.txt")
              for m in (path, source)]
    # Another number of tokens would be another loss by far; the weights are of 8 bits.
    assert abs(losses[0] - losses[1]) < 0.02


LETTERS = "abcdefghijklmnopqrstuvwxyz"


def byte_pairs(folder, pre="gpt-2"):
    """Metadata of a byte-level tokenizer of all bytes and a few merges."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = [b for b in range(256) if b not in keep]
    names = {**{b: chr(b) for b in keep}, **{b: chr(256 + i) for i, b in enumerate(other)}}
    tokens = [names[b] for b in range(256)] + ["th", "the", "\u0120the", "1", "<|end|>", "[PAD261]"]
    tokens[259] = "ing"
    kinds = [1] * 260 + [3, 5]
    return {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre, "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": ("i32", kinds),
            "tokenizer.ggml.merges": ["t h", "th e", "\u0120 the"], "tokenizer.ggml.bos_token_id": 260,
            "tokenizer.ggml.eos_token_id": 260, "tokenizer.chat_template": "{{ messages[0].content }}<|end|>"}


@pytest.mark.parametrize("pre", ("gpt-2", "smollm", "starcoder", "dbrx", "llama-bpe", "qwen2", "deepseek-r1-qwen",
                                 "tekken"))
def test_byte_pairs(pre, tmp_path):
    """Each way to cut words is read by the runtime, and the text comes back."""
    metadata = byte_pairs(str(tmp_path), pre)
    path, _ = gguf.random_model(str(tmp_path / "m.gguf"), "qwen2", "q8_0", vocab=262, hidden=64, inner=64,
                                tokenizer=metadata)
    model = harness.compile_model(path, str(tmp_path / "m.gptqm"))
    out = harness.succeed("gptq-run", model, "--prompt", "the 12 things", "--max-tokens", 1, "--print-tokens",
                          "--stats")
    document = json.loads(carried(model, "tokenizer.json"))
    assert document["model"]["vocab"]["the"] == 257 and "[PAD261]" not in document["model"]["vocab"]
    assert document["added_tokens"] == [{"id": 260, "content": "<|end|>", "special": True, "normalized": False}]
    assert out


# ---------------------------------------------------------------- another reader
def test_blocks_stand_for_what_another_reader_says(tmp_path):
    """The library of the format's authors reads the file and agrees about every weight."""
    library = pytest.importorskip("gguf")
    from gguf.quants import dequantize
    for kind in gguf.TYPES:
        path, packed = gguf.random_model(str(tmp_path / f"{kind}.gguf"), kind=kind, tied=True, seed=3)
        reader = library.GGUFReader(path)
        tensors = {t.name: t for t in reader.tensors}
        for name in (LAYER, "model.layers.1.mlp.down_proj", "model.embed_tokens"):
            tensor = tensors[gguf.gguf_name(f"{name}.weight")]
            assert np.array_equal(dequantize(tensor.data, tensor.tensor_type).astype(np.float64),
                                  packed.tensors[f"{name}.weight"].astype(np.float32).astype(np.float64))


@pytest.mark.parametrize("kind", ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0"))
def test_files_of_another_writer(kind, tmp_path):
    """What the library of the format's authors quantizes and writes."""
    library = pytest.importorskip("gguf")
    from gguf.quants import dequantize, quantize
    path, packed = gguf.random_model(str(tmp_path / "f.gguf"), kind="f32", tied=True, architecture="qwen2")
    which = library.GGMLQuantizationType[kind.upper()]
    writer = library.GGUFWriter(str(tmp_path / "m.gguf"), "qwen2")
    reader = library.GGUFReader(path)
    for key, field in reader.fields.items():
        if key.startswith("qwen2.") or key.endswith("token_id"):
            writer.add_key_value(key, field.contents(), field.types[0])
    for tensor in reader.tensors:
        name, data = tensor.name, np.array(tensor.data)
        if data.ndim == 2:
            blocks = quantize(data, which)
            writer.add_tensor(name, blocks, raw_dtype=which)
            data = dequantize(blocks, which)
        else:
            writer.add_tensor(name, data)
        own = next(n for n in packed.tensors if gguf.gguf_name(n) == name)
        packed.tensors[own] = data.astype(np.float64)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    check_logits(packed, harness.compile_model(str(tmp_path / "m.gguf"), str(tmp_path / "m.gptqm")), str(tmp_path))


# ---------------------------------------------------------------- as GPTQ
@pytest.mark.parametrize("kind", ("q4_0", "q8_0"))
def test_leaves_as_gptq(kind, tmp_path):
    """Symmetric types are GPTQ's: the same codes and scales, and the same logits."""
    path, packed = gguf.random_model(str(tmp_path / "m.gguf"), kind=kind)
    out = str(tmp_path / "gptq")
    harness.succeed("gptq-translate", "--import-hf", path, "--export-gptq", out)
    written = Checkpoint(out)
    layer = written.layer("model.layers.0.self_attn.q_proj")
    want = packed.matrices["model.layers.0.self_attn.q_proj"]
    assert np.array_equal(layer.codes, want.codes.T)
    assert np.array_equal(layer.weight(), want.weight().T)
    tokens = np.arange(3, 40)
    same = Model(written)(tokens)
    assert np.abs(same - Model(packed)(tokens)).max() < 1e-4 * np.abs(same).max()


@pytest.mark.parametrize("kind,why", (("q4_1", "offsets"), ("q4_k", "offsets"), ("q5_0", "bits"), ("q6_k", "bits")))
def test_what_cannot_leave_as_gptq(kind, why, tmp_path):
    path, _ = gguf.random_model(str(tmp_path / "m.gguf"), kind=kind)
    done = harness.call("gptq-translate", "--import-hf", path, "--export-gptq", tmp_path / "out")
    text = done.stderr.decode()
    assert done.returncode == 1 and len(text.splitlines()) == 1 and why in text, text
    assert os.listdir(tmp_path) == ["m.gguf"]


# ---------------------------------------------------------------- what it is
@pytest.mark.parametrize("kind", gguf.TYPES + ("f16",))
def test_inspect(kind, tmp_path):
    path, packed = gguf.random_model(str(tmp_path / "m.gguf"), kind=kind)
    done = harness.call("gptq-translate", "--inspect", path, "--json", "--verify")
    report = json.loads(done.stdout)
    assert done.returncode == 0 and report["problems"] == [] and report["warnings"] == []
    assert report["declared"]["method"] == "gguf" and report["declared"]["format"] == kind
    assert [f["name"] for f in report["files"]] == ["m.gguf"] and len(report["files"][0]["xxh3"]) == 16
    modules = {m["name"]: m for m in report["modules"]}
    layer = modules[LAYER]
    assert (layer["k"], layer["n"]) == (256, 512)
    if kind in gguf.LAYOUTS:
        layout = gguf.LAYOUTS[kind]
        assert (layer["kind"], layer["bits"], layer["group_size"]) == ("quantized", layout.bits, layout.group)
        assert abs(layer["saturated_codes"] - 2 / (1 << layout.bits)) < 0.05
        assert layer["bytes"] == packed.matrices[LAYER].data.size
        assert layer.get("offsets", False) == layout.has_offsets
    else:
        assert layer["kind"] == "dense"
    text = harness.succeed("gptq-translate", "--inspect", path)
    assert "gguf" in text and "at least" in text and "llama" in text


# ---------------------------------------------------------------- damaged
def small(**variant):
    """(metadata, tensors) of a small model, to be changed and written."""
    kept = {}
    write = gguf.write
    try:
        gguf.write = lambda path, metadata, tensors: kept.update(metadata=metadata, tensors=tensors)
        gguf.random_model("", **{**dict(kind="q4_0", hidden=64, inner=64, layers=1, heads=2, kv_heads=1, vocab=262),
                                 **variant})
    finally:
        gguf.write = write
    return kept["metadata"], kept["tensors"]


def change(key, value):
    """Damage that sets a metadata entry, or takes it out."""
    def damage(metadata, tensors):
        metadata.pop(key, None)
        if value is not None:
            metadata[key] = value
    return damage


def reshape(name, kind=None, shape=None, raw=None):
    def damage(metadata, tensors):
        old = tensors[name]
        tensors[name] = tuple(new if new is not None else was for new, was in zip((kind, shape, raw), old))
    return damage


def drop(name):
    return lambda metadata, tensors: tensors.pop(name)


def add(name, tensor):
    return lambda metadata, tensors: tensors.update({name: tensor})


def tokens(edit):
    def damage(metadata, tensors):
        metadata.update(byte_pairs(""))
        edit(metadata)
    return damage


def pieces(**changes):
    """A SentencePiece vocabulary of 262 pieces with something wrong."""
    def damage(metadata, tensors):
        metadata.update({"tokenizer.ggml.model": "llama",
                         "tokenizer.ggml.tokens": ["<unk>", *[f"<0x{b:02X}>" for b in range(256)], *"abcde"],
                         "tokenizer.ggml.scores": [0.0] * 262,
                         "tokenizer.ggml.token_type": ("i32", [2] + [6] * 256 + [1] * 5)})
        metadata.update({f"tokenizer.ggml.{k}": v for k, v in changes.items()})
    return damage


UP = "blk.0.ffn_up.weight"
# What is changed, and words of the sentence that says so.
DAMAGE = {
    "type-not-read": (reshape(UP, kind=gguf.IDS["q2_k"]), "'blk.0.ffn_up.weight': the type Q2_K is not supported"),
    "type-of-a-table": (reshape(UP, kind=gguf.IDS["iq4_nl"]), "the type IQ4_NL is not supported"),
    "type-unknown": (reshape(UP, kind=77), "the type of number 77 is not supported"),
    "rank-zero": (reshape(UP, shape=[]), "expected 1 to 4 dimensions, found 0"),
    "rank-five": (reshape(UP, shape=[1, 1, 1, 1, 32]), "expected 1 to 4 dimensions, found 5"),
    "rank-three": (reshape(UP, shape=[1, 64, 64]), "blk.0.ffn_up"),
    "dimension-zero": (reshape(UP, shape=[64, 0]), "found 0"),
    "dimension-giant": (reshape(UP, shape=[1 << 40, 64]), "found 1099511627776"),
    "dimensions-overflow": (reshape(UP, shape=[1 << 31, 1 << 31, 1 << 31, 1 << 31]), "expected a size that fits"),
    "rows-beyond-the-file": (reshape(UP, shape=[1 << 20, 64]), "inside the file"),
    "rows-of-no-whole-blocks": (reshape(UP, shape=[64, 63]), "expected rows in whole blocks of 32, found 63"),
    "wrong-shape": (reshape(UP, shape=[32, 64]), "'blk.0.ffn_up.weight' in 'm.gguf': expected U8 [64, 36], found U8 [32, 36]"),
    "norm-of-blocks": (reshape("output_norm.weight", kind="q8_0", shape=[32], raw=bytes(34)), "output_norm.weight"),
    "tensor-missing": (drop(UP), "mlp.up_proj"),
    "no-table": (drop("token_embd.weight"), "expected a matrix 'token_embd.weight', found none"),
    "tensor-of-no-use": (add("blk.0.ffn_gate_exps.weight", ("f32", [4], bytes(16))), "ffn_gate_exps"),
    "layer-of-no-use": (add("blk.1.ffn_norm.weight", ("f32", [64], bytes(256))), "has no place in a llama model"),
    "layer-number-with-zeros": (add("blk.00.ffn_norm.weight", ("f32", [64], bytes(256))), "has no place"),
    "architecture-unknown": (change("general.architecture", "mamba"), "'mamba' is not supported, expected 'llama'"),
    "architecture-missing": (change("general.architecture", None), "general.architecture"),
    "architecture-a-number": (change("general.architecture", 3), "expected a string, found number"),
    "experts": (change("llama.expert_count", 8), "llama.expert_count: '8' is not supported"),
    "layers-missing": (change("llama.block_count", None), "key 'llama.block_count' is missing"),
    "layers-zero": (change("llama.block_count", 0), "num_hidden_layers: expected"),
    "layers-giant": (change("llama.block_count", 4000000000), "num_hidden_layers: expected"),
    "layers-a-word": (change("llama.block_count", "two"), "expected an integer"),
    "heads-do-not-divide": (change("llama.attention.head_count", 3), "the width of a head"),
    "heads-of-each-layer": (change("llama.attention.head_count", [2, 2]), "llama.attention.head_count: expected an integer"),
    "epsilon-negative": (change("llama.attention.layer_norm_rms_epsilon", -1.0), "rms_norm_eps"),
    "epsilon-no-number": (change("llama.attention.layer_norm_rms_epsilon", float("nan")), "expected a finite number"),
    "half-turned": (change("llama.rope.dimension_count", 16), "'16' is not supported, expected 32, the width of a head"),
    "rope-yarn": (change("llama.rope.scaling.type", "yarn"), "llama.rope.scaling.type: 'yarn' is not supported"),
    "alignment-zero": (change("general.alignment", 0), "expected a power of two"),
    "alignment-odd": (change("general.alignment", 24), "expected a power of two"),
    "alignment-a-word": (change("general.alignment", "much"), "expected a power of two"),
    "divisors-of-another-width": (add("rope_freqs.weight", ("f32", [3], bytes(12))), "'rope_freqs.weight'"),
    "part-missing": (change("split.count", ("u16", 2)), "expected the first of 2 parts"),
    "end-beyond-the-vocabulary": (change("tokenizer.ggml.eos_token_id", 262), "eos_token_id"),
    "tokenizer-unknown": (change("tokenizer.ggml.model", "rwkv"), "tokenizer.ggml.model: 'rwkv' is not supported"),
    "tokenizer-without-tokens": (change("tokenizer.ggml.model", "llama"), "expected tokens in 'tokenizer.ggml.tokens', found none"),
    "words-cut-in-unknown-ways": (tokens(lambda m: m.update({"tokenizer.ggml.pre": "poro-chat"})),
                                  "tokenizer.ggml.pre: 'poro-chat' is not supported"),
    "token-twice": (tokens(lambda m: m["tokenizer.ggml.tokens"].__setitem__(5, "the")), "token 'the' is there twice"),
    "kinds-too-few": (tokens(lambda m: m.update({"tokenizer.ggml.token_type": ("i32", [1] * 200)})),
                      "expected an element for each of 262 tokens, found 200"),
    "kind-unknown": (tokens(lambda m: m["tokenizer.ggml.token_type"][1].__setitem__(7, 9)), "token_type"),
    "merge-of-unknown-tokens": (tokens(lambda m: m["tokenizer.ggml.merges"].append("x yz")), "is not in the vocabulary"),
    "merge-of-three": (tokens(lambda m: m["tokenizer.ggml.merges"].append("a b c")), "expected two pieces"),
    "scores-missing": (pieces(scores="none"), "tokenizer.ggml.scores: expected an array"),
    "scores-too-few": (pieces(scores=[0.0] * 5), "expected an element for each of 262 tokens, found 5"),
    "score-infinite": (pieces(scores=[float("inf")] + [0.0] * 261), "finite"),
    "piece-twice": (pieces(tokens=["<unk>", *[f"<0x{b:02X}>" for b in range(256)], *"abcdd"]), "is there twice"),
    "bytes-missing": (pieces(token_type=("i32", [2] + [6] * 200 + [1] * 61)), "byte"),
    "unknown-beyond": (pieces(unknown_token_id=999), "unknown_token_id"),
}


def refused(path, words, folder):
    before = os.listdir(folder)
    done = harness.call("gptq-compile", path, "-o", os.path.join(folder, "out.gptqm"), timeout=60)
    wrong = harness.error_of(done, "gptq-compile", before, os.listdir(folder))
    assert not wrong, wrong
    assert words in done.stderr.decode(), done.stderr.decode()


def test_the_undamaged_small_model_compiles(tmp_path):
    for i, damage in enumerate((lambda m, t: None, tokens(lambda m: None), pieces())):
        metadata, tensors = small()
        damage(metadata, tensors)
        path = gguf.write(str(tmp_path / f"{i}.gguf"), metadata, tensors)
        harness.compile_model(path, str(tmp_path / "m.gptqm"))


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged(name, tmp_path):
    damage, words = DAMAGE[name]
    metadata, tensors = small()
    damage(metadata, tensors)
    # Where the alignment itself is wrong, it lies as usual.
    usual = metadata.get("general.alignment")
    if usual is not None:
        real = gguf.header_bytes
        blob = real(metadata, [(n, k, s, 0) for n, (k, s, _) in tensors.items()], 32)
        (tmp_path / "m.gguf").write_bytes(blob + b"".join(r for _, _, r in tensors.values()))
        path = str(tmp_path / "m.gguf")
    else:
        path = gguf.write(str(tmp_path / "m.gguf"), metadata, tensors)
    refused(path, words, str(tmp_path))


def patched(at, content):
    return lambda raw: raw[:at] + content + raw[at + len(content):]


def after(text, content, skip=0):
    """Overwrites what follows the first `text`."""
    def edit(raw):
        at = raw.index(text) + len(text) + skip
        return raw[:at] + content + raw[at + len(content):]
    return edit


def twice(text):
    """The second of two names made the first."""
    def edit(raw):
        one, two = text
        at = raw.index(two)
        return raw[:at] + one + raw[at + len(one):]
    return edit


BYTES = {
    "empty": (lambda raw: b"", "expected 4 bytes"),
    "another-mark": (patched(0, b"GGML"), "expected a GGUF file to start with"),
    "version-1": (patched(4, struct.pack("<I", 1)), "expected a GGUF file of version 2 or 3, found 1"),
    "version-9": (patched(4, struct.pack("<I", 9)), "found 9"),
    "big-endian": (patched(4, struct.pack(">I", 3)), "big-endian GGUF files are not supported"),
    "tensors-giant": (patched(8, struct.pack("<Q", 1 << 60)), "expected at most"),
    "tensors-one-more": (lambda raw: raw[:8] + struct.pack("<Q", struct.unpack_from("<Q", raw, 8)[0] + 1) + raw[16:],
                         "'m.gguf'"),
    "entries-giant": (patched(16, struct.pack("<Q", 1 << 63)), "expected at most"),
    "key-giant": (patched(24, struct.pack("<Q", 1 << 62)), "expected a key of at most 65535 bytes"),
    "key-beyond-the-end": (patched(24, struct.pack("<Q", 65000)), "bytes of a key"),
    "key-of-no-text": (patched(32, b"\xff\xfe"), "expected UTF-8"),
    "value-of-no-type": (after(b"general.architecture", struct.pack("<I", 13)), "expected a value of type 0 to 12"),
    "string-giant": (after(b"general.architecture", struct.pack("<Q", (1 << 64) - 1), 4), "bytes of a string"),
    "array-in-an-array": (after(b"tokenizer.ggml.tokens", struct.pack("<I", 9), 4), "arrays inside arrays"),
    "array-giant": (after(b"tokenizer.ggml.tokens", struct.pack("<Q", 1 << 60), 8), "tokenizer.ggml.tokens"),
    "truth-of-two": (after(b"tokenizer.ggml.add_bos_token", b"\x02", 4), "expected a truth value of 0 or 1, found 2"),
    "key-twice": (twice((b"llama.context_length", b"general.architecture")), "'llama.context_length': it is there twice"),
    "tensor-twice": (twice((b"blk.0.attn_v.weight", b"blk.0.attn_k.weight")), "'blk.0.attn_v.weight': it is there twice"),
    "offset-between": (after(b"blk.0.ffn_up.weight", struct.pack("<Q", 8), 24), "at a multiple of 32"),
    "offset-giant": (after(b"blk.0.ffn_up.weight", struct.pack("<Q", (1 << 64) - 32), 24), "inside the file"),
    "last-byte-missing": (lambda raw: raw[:-33], "inside the file"),
}


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The bytes of a small model with a tokenizer."""
    metadata, tensors = small()
    metadata.update(byte_pairs(""))
    metadata["tokenizer.ggml.add_bos_token"] = False
    path = gguf.write(str(tmp_path_factory.mktemp("gguf") / "m.gguf"), metadata, tensors)
    with open(path, "rb") as f:
        return f.read()


@pytest.mark.parametrize("name", BYTES)
def test_damaged_bytes(name, whole, tmp_path):
    edit, words = BYTES[name]
    raw = edit(whole)
    assert raw != whole
    (tmp_path / "m.gguf").write_bytes(raw)
    refused(str(tmp_path / "m.gguf"), words, str(tmp_path))
    done = harness.call("gptq-translate", "--inspect", tmp_path / "m.gguf")
    assert done.returncode == 1 and words in (done.stderr + done.stdout).decode()


@pytest.mark.parametrize("part", range(24))
def test_cut_short(part, whole, tmp_path):
    size = len(whole) * part // 24 if part % 2 else (part + 1) * 60
    (tmp_path / "m.gguf").write_bytes(whole[:size])
    refused(str(tmp_path / "m.gguf"), "m.gguf", str(tmp_path))


def test_parts_that_do_not_fit(tmp_path):
    path, _ = gguf.random_model(str(tmp_path / "m.gguf"), kind="q8_0", parts=3, hidden=64, inner=64)
    second = str(tmp_path / "m-00002-of-00003.gguf")
    refused(second, "'m-00002-of-00003.gguf': expected the first of 3 parts", str(tmp_path))
    shutil.copyfile(str(tmp_path / "m-00003-of-00003.gguf"), second)
    refused(path, "expected part number 1 in split.no, found 2", str(tmp_path))
    os.remove(second)
    refused(path, "m-00002-of-00003.gguf", str(tmp_path))
