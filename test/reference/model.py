"""The forward pass of each model family in float64."""
import math

import numpy as np

from reference.checkpoint import Checkpoint


def rotary_frequencies(config, head_dim):
    """Radians per position of each rotated pair."""
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = config.get("rope_theta") or scaling.get("rope_theta") or 10000.0
    f = theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if "rope_divisors" in config:
        return f / config["rope_divisors"]
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


def layer_norm(x, weight, bias, eps):
    deviation = x - x.mean(-1, keepdims=True)
    return deviation / np.sqrt((deviation * deviation).mean(-1, keepdims=True) + eps) * weight + bias


def rotate(x, cos, sin):
    """Rotates the pairs (i, i + R / 2) of the first R elements of each head of x [T, heads, head_dim]."""
    half = cos.shape[-1]
    a, b, rest = x[..., :half], x[..., half:2 * half], x[..., 2 * half:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin, rest], -1)


def erf(x):
    return np.vectorize(math.erf)(x)


ACTIVATIONS = {
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: x * (1 + erf(x / math.sqrt(2))) / 2,
    "gelu_pytorch_tanh": lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    "relu": lambda x: np.maximum(x, 0),
}
ACTIVATIONS["gelu_new"] = ACTIVATIONS["gelu_pytorch_tanh"]


def soft_cap(x, cap):
    return cap * np.tanh(x / cap) if cap else x


def silu(x):
    return x / (1 + np.exp(-x))


class Experts:
    """The mixture of experts of one block."""

    def __init__(self, checkpoint, prefix, config):
        self.per_token = config["num_experts_per_tok"]
        if config["model_type"] == "mixtral":
            # Softmax over the logits of the chosen: the same as choosing first and dividing by the sum.
            self.normalizes = True
            block, count, names = "block_sparse_moe.", config["num_local_experts"], ("w1", "w3", "w2")
        else:
            self.normalizes = config.get("norm_topk_prob", False)
            block, count, names = "mlp.", config["num_experts"], ("gate_proj", "up_proj", "down_proj")
        self.router = checkpoint.linear(f"{prefix}{block}gate")[0]
        self.experts = [[checkpoint.linear(f"{prefix}{block}experts.{e}.{n}")[0] for n in names] for e in range(count)]
        self.shared = None
        if config["model_type"] == "qwen2_moe":
            self.shared = [checkpoint.linear(f"{prefix}mlp.shared_expert.{n}")[0] for n in names]
            self.shared_gate = checkpoint.linear(f"{prefix}mlp.shared_expert_gate")[0]

    @staticmethod
    def mlp(x, weights):
        gate, up, down = weights
        return (silu(x @ gate) * (x @ up)) @ down

    def __call__(self, x):
        logits = x @ self.router
        ordered = -np.sort(-logits, -1)
        # By how much the last chosen is ahead of the first that is left out: nothing where all are chosen.
        self.gaps = ordered[:, self.per_token - 1] - ordered[:, self.per_token] if self.per_token < ordered.shape[1] else None
        p = np.exp(logits - logits.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        y = np.zeros_like(x)
        for t, row in enumerate(p):
            chosen = np.argsort(-row, kind="stable")[:self.per_token]
            weights = row[chosen] / (row[chosen].sum() if self.normalizes else 1)
            for e, weight in zip(chosen, weights):
                y[t] += weight * self.mlp(x[t:t + 1], self.experts[e])[0]
        if self.shared:
            y += self.mlp(x, self.shared) / (1 + np.exp(-(x @ self.shared_gate)))
        return y


class Model:
    """Llama, Mistral, Qwen2 and Qwen3. What others do differently, their classes say.

    `context` is how many positions a session has, where that changes the model.
    """
    PREFIX, EMBEDDING, FINAL_NORM, HEAD, TIED = "model.", "embed_tokens", "norm", "lm_head", False
    ACTIVATION = ("hidden_act", "silu")
    NORMS = ("input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm")
    LINEARS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
               "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")

    def __new__(cls, folder, context=None):
        checkpoint = folder if isinstance(folder, Checkpoint) else Checkpoint(folder)
        return object.__new__(FAMILIES.get(checkpoint.config["model_type"], Model))

    def __init__(self, folder, context=None):
        self.checkpoint = checkpoint = folder if isinstance(folder, Checkpoint) else Checkpoint(folder)
        c = self.config = checkpoint.config
        self.heads = c["num_attention_heads"]
        self.kv_heads = c.get("num_key_value_heads") or self.heads
        self.head_dim = c.get("head_dim") or c["hidden_size"] // self.heads
        self.eps = c.get("rms_norm_eps", 1e-6)
        self.context = context or c["max_position_embeddings"]
        self.scale = 1 / math.sqrt(self.head_dim)
        self.score_cap = self.logit_cap = None
        self.activation = ACTIVATIONS[c.get(*self.ACTIVATION)]
        self.embedding = checkpoint.dense(f"{self.PREFIX}{self.EMBEDDING}.weight")
        # A quantized head is one of its own.
        tied = c.get("tie_word_embeddings", self.TIED) and not checkpoint.has(f"{self.HEAD}.qweight")
        self.head = (self.embedding.T, None) if tied else checkpoint.linear(self.HEAD)
        self.final_norm = self.read_norm(f"{self.PREFIX}{self.FINAL_NORM}")
        self.layers = []
        for i in range(c["num_hidden_layers"]):
            p = f"{self.PREFIX}layers.{i}."
            has_experts = self._has_experts(i)
            layer = {n: checkpoint.linear(p + n) for n in self.LINEARS if not (has_experts and n.startswith("mlp."))}
            layer["experts"] = Experts(checkpoint, p, c) if has_experts else None
            for n in self.NORMS:
                layer[n] = self.read_norm(p + n) if checkpoint.has(f"{p}{n}.weight") else None
            layer["window"] = self._window(i)
            layer["rotary"] = self.rotary(i)
            self.layers.append(layer)

    def _has_experts(self, i):
        c = self.config
        if c["model_type"] == "mixtral":
            return True
        return (c["model_type"] in ("qwen2_moe", "qwen3_moe") and i not in (c.get("mlp_only_layers") or [])
                and (i + 1) % c.get("decoder_sparse_step", 1) == 0)

    def _window(self, i):
        """How many positions layer i may look back on, itself included, or None."""
        c = self.config
        if c.get("sliding_window") is None:
            return None
        if "layer_types" in c:
            return c["sliding_window"] if c["layer_types"][i] == "sliding_attention" else None
        if c["model_type"] in ("mistral", "mixtral", "phi3"):
            return c["sliding_window"]
        if c["model_type"] in ("qwen2", "qwen3", "qwen2_moe", "qwen3_moe") and c.get("use_sliding_window", False):
            return c["sliding_window"] if i >= c.get("max_window_layers", 28) else None
        return None

    def rotary(self, i):
        """Radians per position of each rotated pair of layer i, and a factor of every cosine and sine."""
        return rotary_frequencies(self.config, self.head_dim), 1.0

    def read_norm(self, name):
        return self.checkpoint.dense(f"{name}.weight")

    def norm(self, x, weight):
        return rms_norm(x, weight, self.eps)

    def smallest_gap(self):
        """Of all choices of experts in the last call: how close one was to another, in logits of the router."""
        gaps = [layer["experts"].gaps for layer in self.layers if layer["experts"]]
        return min((g.min() for g in gaps if g is not None), default=np.inf)

    def embed(self, tokens, positions):
        return self.embedding[np.asarray(tokens)]

    @staticmethod
    def linear(layer, name, x):
        w, bias = layer[name]
        return x @ w if bias is None else x @ w + bias

    def project(self, layer, x):
        """Queries, keys and values [T, heads, head_dim] of x."""
        return [self.linear(layer, f"self_attn.{part}_proj", x).reshape(len(x), -1, self.head_dim) for part in "qkv"]

    def combine(self, layer, x):
        return self.linear(layer, "self_attn.o_proj", x)

    def mlp(self, layer, x):
        if layer["experts"]:
            return layer["experts"](x)
        gate = self.activation(self.linear(layer, "mlp.gate_proj", x))
        return self.linear(layer, "mlp.down_proj", gate * self.linear(layer, "mlp.up_proj", x))

    def block(self, layer, x, attend):
        x = x + attend(self.norm(x, layer["input_layernorm"]))
        return x + self.mlp(layer, self.norm(x, layer["post_attention_layernorm"]))

    def attend(self, i, x, positions, cache):
        """Attention of layer i over x and what came before."""
        layer, T = self.layers[i], len(x)
        q, k, v = self.project(layer, x)
        if layer.get("self_attn.q_norm") is not None:
            q = self.norm(q, layer["self_attn.q_norm"])
            k = self.norm(k, layer["self_attn.k_norm"])
        if layer["rotary"] is not None:
            frequencies, size = layer["rotary"]
            angle = np.outer(positions, frequencies)[:, None, :]
            cos, sin = size * np.cos(angle), size * np.sin(angle)
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if cache is not None:
            if len(cache) > i:
                k = np.concatenate([cache[i][0], k])
                v = np.concatenate([cache[i][1], v])
                cache[i] = (k, v)
            else:
                cache.append((k, v))
        keys = np.arange(len(k))
        hidden = keys[None] > positions[:, None]
        if layer["window"] is not None:
            hidden |= keys[None] <= positions[:, None] - layer["window"]
        mixed = np.empty(q.shape)
        for head in range(q.shape[1]):
            kv = head // (q.shape[1] // k.shape[1])
            s = soft_cap(q[:, head] @ k[:, kv].T * self.scale, self.score_cap)
            s[hidden] = -np.inf
            s = np.exp(s - s.max(-1, keepdims=True))
            mixed[:, head] = s / s.sum(-1, keepdims=True) @ v[:, kv]
        return self.combine(layer, mixed.reshape(T, -1))

    def __call__(self, tokens, cache=None, last_only=False):
        """Logits [T, vocab] of `tokens`, which follow the tokens of `cache`."""
        past = cache[0][0].shape[0] if cache else 0
        positions = np.arange(past, past + len(tokens))
        x = self.embed(tokens, positions)
        for i, layer in enumerate(self.layers):
            x = self.block(layer, x, lambda h: self.attend(i, h, positions, cache))
        w, bias = self.head
        y = self.norm(x[-1:] if last_only else x, self.final_norm) @ w
        return soft_cap(y if bias is None else y + bias, self.logit_cap)

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


class Gemma(Model):
    """Gemma 2, and Gemma 3 for text."""
    TIED, ACTIVATION = True, ("hidden_activation", "gelu_pytorch_tanh")
    NORMS = Model.NORMS + ("pre_feedforward_layernorm", "post_feedforward_layernorm")

    def __init__(self, folder, context=None):
        super().__init__(folder, context)
        c = self.config
        self.scale = 1 / math.sqrt(c["query_pre_attn_scalar"])
        self.score_cap, self.logit_cap = c["attn_logit_softcapping"], c["final_logit_softcapping"]

    def read_norm(self, name):
        return 1 + super().read_norm(name)

    def embed(self, tokens, positions):
        # The factor is a number of the type that the embeddings have.
        kind = self.checkpoint.tensors["model.embed_tokens.weight"][0]
        root = np.float32(math.sqrt(self.config["hidden_size"]))
        if kind == "BF16":
            bits = int(root.view(np.uint32))
            root = np.uint32(bits + 0x7FFF + (bits >> 16 & 1) & 0xFFFF0000).view(np.float32)
        elif kind == "F16":
            root = np.float16(root)
        return super().embed(tokens, positions) * float(root)

    def _window(self, i):
        c = self.config
        if "layer_types" in c:
            return super()._window(i)
        pattern = 2 if c["model_type"] == "gemma2" else c["sliding_window_pattern"]
        return c["sliding_window"] if (i + 1) % pattern else None

    def rotary(self, i):
        c = self.config
        if c["model_type"] == "gemma3_text" and self._window(i) is not None:
            return rotary_frequencies({"rope_theta": c["rope_local_base_freq"]}, self.head_dim), 1.0
        return super().rotary(i)

    def block(self, layer, x, attend):
        h = attend(self.norm(x, layer["input_layernorm"]))
        x = x + self.norm(h, layer["post_attention_layernorm"])
        h = self.mlp(layer, self.norm(x, layer["pre_feedforward_layernorm"]))
        return x + self.norm(h, layer["post_feedforward_layernorm"])


class Phi3(Model):
    LINEARS = ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")

    def rotary(self, i):
        c = self.config
        dim = int(self.head_dim * c.get("partial_rotary_factor", 1.0))
        scaling = c.get("rope_scaling")
        if not scaling:
            return rotary_frequencies(c, dim), 1.0
        assert scaling["type"] in ("longrope", "su")
        original = c["original_max_position_embeddings"]
        factors = scaling["short_factor" if self.context <= original else "long_factor"]
        ratio = c["max_position_embeddings"] / original
        size = math.sqrt(1 + math.log(ratio) / math.log(original)) if ratio > 1 else 1.0
        return rotary_frequencies({"rope_theta": c["rope_theta"]}, dim) / factors, size

    def project(self, layer, x):
        n, m, d = self.heads, self.kv_heads, self.head_dim
        qkv = self.linear(layer, "self_attn.qkv_proj", x).reshape(len(x), n + 2 * m, d)
        return qkv[:, :n], qkv[:, n:n + m], qkv[:, n + m:]

    def mlp(self, layer, x):
        gate, up = np.split(self.linear(layer, "mlp.gate_up_proj", x), 2, -1)
        return self.linear(layer, "mlp.down_proj", self.activation(gate) * up)


class LayerNormModel(Model):
    def read_norm(self, name):
        return self.checkpoint.dense(f"{name}.weight"), self.checkpoint.dense(f"{name}.bias")

    def norm(self, x, parts):
        return layer_norm(x, *parts, self.eps)


class OPT(LayerNormModel):
    PREFIX, FINAL_NORM, TIED = "model.decoder.", "final_layer_norm", True
    ACTIVATION = ("activation_function", "relu")
    NORMS = ("self_attn_layer_norm", "final_layer_norm")
    LINEARS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "fc1", "fc2")

    def __init__(self, folder, context=None):
        super().__init__(folder, context)
        self.eps = 1e-5
        assert self.config["do_layer_norm_before"] and self.config["word_embed_proj_dim"] == self.config["hidden_size"]
        self.places = self.checkpoint.dense("model.decoder.embed_positions.weight")

    def rotary(self, i):
        return None

    def embed(self, tokens, positions):
        return super().embed(tokens, positions) + self.places[positions + 2]

    def combine(self, layer, x):
        return self.linear(layer, "self_attn.out_proj", x)

    def block(self, layer, x, attend):
        x = x + attend(self.norm(x, layer["self_attn_layer_norm"]))
        h = self.activation(self.linear(layer, "fc1", self.norm(x, layer["final_layer_norm"])))
        return x + self.linear(layer, "fc2", h)


class GPTNeoX(LayerNormModel):
    PREFIX, EMBEDDING, FINAL_NORM, HEAD = "gpt_neox.", "embed_in", "final_layer_norm", "embed_out"
    ACTIVATION = ("hidden_act", "gelu")
    NORMS = ("input_layernorm", "post_attention_layernorm")
    LINEARS = ("attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h")

    def __init__(self, folder, context=None):
        super().__init__(folder, context)
        self.eps = self.config["layer_norm_eps"]

    def rotary(self, i):
        c = self.config
        return rotary_frequencies({"rope_theta": c["rotary_emb_base"]}, int(self.head_dim * c["rotary_pct"])), 1.0

    def project(self, layer, x):
        qkv = self.linear(layer, "attention.query_key_value", x).reshape(len(x), self.heads, 3, self.head_dim)
        return qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]

    def combine(self, layer, x):
        return self.linear(layer, "attention.dense", x)

    def mlp(self, layer, x):
        return self.linear(layer, "mlp.dense_4h_to_h", self.activation(self.linear(layer, "mlp.dense_h_to_4h", x)))

    def block(self, layer, x, attend):
        y = x + attend(self.norm(x, layer["input_layernorm"]))
        h = x if self.config["use_parallel_residual"] else y
        return y + self.mlp(layer, self.norm(h, layer["post_attention_layernorm"]))


FAMILIES = {"gemma2": Gemma, "gemma3_text": Gemma, "phi3": Phi3, "opt": OPT, "gpt_neox": GPTNeoX}


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
