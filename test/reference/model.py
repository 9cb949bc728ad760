"""The forward pass of Llama, Mistral, Qwen2 and Qwen3 in float64."""
import math

import numpy as np

from reference.checkpoint import Checkpoint


def rotary_frequencies(config, head_dim):
    """Radians per position of each rotated pair."""
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = config.get("rope_theta") or scaling.get("rope_theta") or 10000.0
    f = theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return f
    if kind == "linear":
        return f / scaling["factor"]
    assert kind == "llama3", kind
    # Llama 3.1: long waves are stretched, short ones kept, those between blended.
    original = scaling["original_max_position_embeddings"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    wave = 2 * math.pi / f
    blend = (original / wave - low) / (high - low)
    middle = (1 - blend) * f / scaling["factor"] + blend * f
    return np.where(wave < original / high, f, np.where(wave > original / low, f / scaling["factor"], middle))


def rms_norm(x, weight, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def rotate(x, cos, sin):
    """Rotates the pairs (i, i + head_dim / 2) of x [T, heads, head_dim]."""
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


class Model:
    def __init__(self, folder):
        checkpoint = folder if isinstance(folder, Checkpoint) else Checkpoint(folder)
        c = self.config = checkpoint.config
        self.heads = c["num_attention_heads"]
        self.kv_heads = c.get("num_key_value_heads") or self.heads
        self.head_dim = c.get("head_dim") or c["hidden_size"] // self.heads
        self.eps = c.get("rms_norm_eps", 1e-6)
        self.frequencies = rotary_frequencies(c, self.head_dim)
        self.context = c["max_position_embeddings"]
        assert c.get("hidden_act", "silu") == "silu"
        self.embedding = checkpoint.dense("model.embed_tokens.weight")
        self.norm = checkpoint.dense("model.norm.weight")
        # A quantized head is one of its own.
        tied = c.get("tie_word_embeddings", False) and not checkpoint.has("lm_head.qweight")
        self.head = (self.embedding.T, None) if tied else checkpoint.linear("lm_head")
        self.layers = []
        for i in range(c["num_hidden_layers"]):
            p = f"model.layers.{i}."
            layer = {n: checkpoint.linear(p + n) for n in (
                "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")}
            for n in ("input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm"):
                layer[n] = checkpoint.dense(f"{p}{n}.weight") if checkpoint.has(f"{p}{n}.weight") else None
            layer["window"] = self._window(i)
            self.layers.append(layer)

    def _window(self, i):
        """How many positions layer i may look back on, itself included, or None."""
        c = self.config
        if c.get("sliding_window") is None:
            return None
        if "layer_types" in c:
            return c["sliding_window"] if c["layer_types"][i] == "sliding_attention" else None
        if c["model_type"] == "mistral":
            return c["sliding_window"]
        if c["model_type"] in ("qwen2", "qwen3") and c.get("use_sliding_window", False):
            return c["sliding_window"] if i >= c.get("max_window_layers", 28) else None
        return None

    def __call__(self, tokens, cache=None, last_only=False):
        """Logits [T, vocab] of `tokens`, which follow the tokens of `cache`."""
        past = cache[0][0].shape[0] if cache else 0
        T, nh, nk, hd = len(tokens), self.heads, self.kv_heads, self.head_dim
        positions = np.arange(past, past + T)
        angle = np.outer(positions, self.frequencies)[:, None, :]
        cos, sin = np.cos(angle), np.sin(angle)
        keys = np.arange(past + T)
        x = self.embedding[np.asarray(tokens)]
        for i, layer in enumerate(self.layers):
            def linear(name, value):
                w, bias = layer[name]
                return value @ w if bias is None else value @ w + bias

            h = rms_norm(x, layer["input_layernorm"], self.eps)
            q = linear("self_attn.q_proj", h).reshape(T, nh, hd)
            k = linear("self_attn.k_proj", h).reshape(T, nk, hd)
            v = linear("self_attn.v_proj", h).reshape(T, nk, hd)
            if layer["self_attn.q_norm"] is not None:
                q = rms_norm(q, layer["self_attn.q_norm"], self.eps)
                k = rms_norm(k, layer["self_attn.k_norm"], self.eps)
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
            if cache is not None:
                if len(cache) > i:
                    k = np.concatenate([cache[i][0], k])
                    v = np.concatenate([cache[i][1], v])
                    cache[i] = (k, v)
                else:
                    cache.append((k, v))
            hidden = keys[None] > positions[:, None]
            if layer["window"] is not None:
                hidden |= keys[None] <= positions[:, None] - layer["window"]
            mixed = np.empty((T, nh, hd))
            for head in range(nh):
                kv = head // (nh // nk)
                s = q[:, head] @ k[:, kv].T / math.sqrt(hd)
                s[hidden] = -np.inf
                s = np.exp(s - s.max(-1, keepdims=True))
                mixed[:, head] = s / s.sum(-1, keepdims=True) @ v[:, kv]
            x = x + linear("self_attn.o_proj", mixed.reshape(T, nh * hd))
            h = rms_norm(x, layer["post_attention_layernorm"], self.eps)
            gate = linear("mlp.gate_proj", h)
            x = x + linear("mlp.down_proj", gate / (1 + np.exp(-gate)) * linear("mlp.up_proj", h))
        w, bias = self.head
        y = rms_norm(x[-1:] if last_only else x, self.norm, self.eps) @ w
        return y if bias is None else y + bias

    def logits(self, tokens):
        return self(tokens)

    def greedy(self, tokens, count, stop=()):
        """The next `count` most likely tokens, one after the other."""
        cache, out = [], []
        y = self(tokens, cache, last_only=True)
        while len(out) < count:
            out.append(int(y[-1].argmax()))
            if out[-1] in stop:
                break
            y = self(out[-1:], cache, last_only=True)
        return out

    def sample(self, tokens, count, rng, stop=()):
        """Like `greedy`, but draws from the model's own distribution."""
        cache, out = [], []
        y = self(tokens, cache, last_only=True)[-1]
        while len(out) < count:
            p = np.exp(y - y.max())
            out.append(int(rng.choice(len(p), p=p / p.sum())))
            if out[-1] in stop:
                break
            y = self(out[-1:], cache, last_only=True)[-1]
        return out


def negative_log_likelihood(logits, targets):
    """-log p of each target."""
    top = logits.max(-1)
    return np.log(np.exp(logits - top[:, None]).sum(-1)) + top - logits[np.arange(len(targets)), targets]


def mean_nll(model, windows):
    """Mean -log p over windows of tokens, each of which predicts all but its first."""
    losses = [negative_log_likelihood(model(w[:-1]), np.asarray(w[1:])) for w in windows]
    return float(np.concatenate(losses).mean())


def windows_with_bos(ids, bos, length, count):
    """`count` windows of `length` tokens that each start with `bos`."""
    step = length - 1
    return [[bos] + ids[i:i + step] for i in range(0, len(ids), step)][:count]


def running_windows(ids, bos, length, count):
    """`count` windows of `length` tokens of one text that starts with `bos` once."""
    ids = [bos] + ids
    return [ids[i * length:(i + 1) * length] for i in range(count)]
