"""The forward pass of one decoder layer, opened at its linear layers.

`run_layer` walks calibration activations through a layer. Before each group of
linear layers that share an input it hands that input to `visit`, which may change
their weights: so every layer is calibrated on the outputs of layers that are
quantized already.
"""
import math

import numpy as np

from quantize.checkpoint import to_float

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
ATTENTION_INPUT = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
ATTENTION_OUTPUT = ("self_attn.o_proj",)
MLP_INPUT = ("mlp.gate_proj", "mlp.up_proj")
MLP_OUTPUT = ("mlp.down_proj",)
LINEAR = ATTENTION_INPUT + ATTENTION_OUTPUT + MLP_INPUT + MLP_OUTPUT


class Shape:
    """What the forward pass needs to know from config.json."""

    def __init__(self, config):
        if config.get("model_type") not in FAMILIES:
            raise ValueError(f"model_type {config.get('model_type')!r}, expected one of {', '.join(FAMILIES)}")
        self.layers = config["num_hidden_layers"]
        self.heads = config["num_attention_heads"]
        self.kv_heads = config.get("num_key_value_heads") or self.heads
        self.head_dim = config.get("head_dim") or config["hidden_size"] // self.heads
        self.eps = config.get("rms_norm_eps", 1e-6)
        self.context = config.get("max_position_embeddings", 2048)
        scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
        theta = config.get("rope_theta") or scaling.get("rope_theta") or 10000.0
        f = theta ** (-np.arange(0, self.head_dim, 2) / self.head_dim)
        kind = scaling.get("rope_type", scaling.get("type", "default"))
        if kind == "linear":
            f = f / scaling["factor"]
        elif kind == "llama3":
            turns = scaling["original_max_position_embeddings"] * f / (2 * math.pi)
            low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
            keep = np.clip((turns - low) / (high - low), 0, 1)
            f = f * (keep + (1 - keep) / scaling["factor"])
        elif kind != "default":
            raise ValueError(f"rope type {kind!r}, expected default, linear or llama3")
        self.frequencies = f

    def rotary(self, length):
        angle = np.outer(np.arange(length), self.frequencies)
        return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


class Layer:
    """One decoder layer's tensors: W [K, N] in float32, biases and norms."""

    def __init__(self, tensors, index):
        prefix = f"model.layers.{index}."
        self.prefix = prefix
        self.weight = {n: np.ascontiguousarray(to_float(tensors[f"{prefix}{n}.weight"]).T) for n in LINEAR}
        optional = lambda name: to_float(tensors[prefix + name]) if prefix + name in tensors else None
        self.bias = {n: optional(f"{n}.bias") for n in LINEAR}
        self.norm = {n: optional(f"{n}.weight") for n in (
            "input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm")}

    def apply(self, name, x):
        y = x @ self.weight[name]
        return y if self.bias[name] is None else y + self.bias[name]


def rms_norm(x, weight, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(eps)) * weight


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def attention(shape, layer, h):
    """Causal attention of h [T, hidden], before the output projection.

    Sliding windows are left out: calibration texts are shorter than any of them.
    """
    T, hd = h.shape[0], shape.head_dim
    q = layer.apply("self_attn.q_proj", h).reshape(T, -1, hd)
    k = layer.apply("self_attn.k_proj", h).reshape(T, -1, hd)
    v = layer.apply("self_attn.v_proj", h).reshape(T, -1, hd)
    if layer.norm["self_attn.q_norm"] is not None:
        q = rms_norm(q, layer.norm["self_attn.q_norm"], shape.eps)
        k = rms_norm(k, layer.norm["self_attn.k_norm"], shape.eps)
    cos, sin = (t[:, None] for t in shape.rotary(T))
    q, k = rotate(q, cos, sin), rotate(k, cos, sin)
    share = shape.heads // shape.kv_heads
    q = q.transpose(1, 0, 2).reshape(shape.kv_heads, share * T, hd)
    s = q @ k.transpose(1, 2, 0) / np.float32(math.sqrt(hd))
    s = s.reshape(shape.heads, T, T) + np.triu(np.full((T, T), -np.inf, np.float32), 1)
    s = np.exp(s - s.max(-1, keepdims=True))
    s /= s.sum(-1, keepdims=True)
    out = s.reshape(shape.kv_heads, share * T, T) @ v.transpose(1, 0, 2)
    return out.reshape(shape.heads, T, hd).transpose(1, 0, 2).reshape(T, -1)


def run_layer(shape, layer, x, visit):
    """Walks the samples x [S, T, hidden] through `layer`, in place."""
    h = [rms_norm(s, layer.norm["input_layernorm"], shape.eps) for s in x]
    visit(ATTENTION_INPUT, h)
    h = [attention(shape, layer, s) for s in h]
    visit(ATTENTION_OUTPUT, h)
    for s, value in zip(x, h):
        s += layer.apply("self_attn.o_proj", value)
    h = [rms_norm(s, layer.norm["post_attention_layernorm"], shape.eps) for s in x]
    visit(MLP_INPUT, h)
    for i, value in enumerate(h):
        gate = layer.apply("mlp.gate_proj", value)
        h[i] = gate / (1 + np.exp(-gate)) * layer.apply("mlp.up_proj", value)
    visit(MLP_OUTPUT, h)
    for s, value in zip(x, h):
        s += layer.apply("mlp.down_proj", value)
