"""Encodes text with the BPE model of a `tokenizer.json`.

Two kinds are known: SentencePiece-like (byte fallback) and byte-level. The word
splitting of the byte-level kind is close to, but not exactly, what the file
asks for: enough to make calibration tokens.
"""
import heapq
import os
import re

from quantize.checkpoint import read_json

SPACE = "\u2581"
# The splitter of GPT-2's descendants, written without \p classes.
WORDS = re.compile(r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\w]?[^\W\d_]+|\d{1,3}| ?[^\s\w]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+|_+")


def byte_alphabet():
    """The printable character that stands for each byte in byte-level models."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = [b for b in range(256) if b not in keep]
    return {**{b: chr(b) for b in keep}, **{b: chr(256 + i) for i, b in enumerate(other)}}


class Tokenizer:
    def __init__(self, folder):
        file = read_json(folder, "tokenizer.json")
        model = file["model"]
        if model.get("type", "BPE") != "BPE":
            raise ValueError(f"tokenizer.json holds a {model['type']} model, expected BPE")
        self.vocab = model["vocab"]
        pairs = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
        self.ranks = {pair: i for i, pair in enumerate(pairs)}
        self.fallback = model.get("byte_fallback", False)
        self.alphabet = None if self.fallback else byte_alphabet()
        self.unknown = self.vocab.get(model.get("unk_token") or "<unk>", 0)
        self.bos = None
        if os.path.exists(os.path.join(folder, "tokenizer_config.json")):
            config = read_json(folder, "tokenizer_config.json")
            bos = config.get("bos_token")
            bos = bos["content"] if isinstance(bos, dict) else bos
            added = {t["content"]: t["id"] for t in file.get("added_tokens", [])}
            if config.get("add_bos_token", True) and bos is not None:
                self.bos = added.get(bos, self.vocab.get(bos))
        self.pieces = {i: p for p, i in self.vocab.items()}
        self.special = {t["id"] for t in file.get("added_tokens", [])}
        self.cache = {}

    def encode(self, text):
        """Ids of `text`, without a beginning-of-text token."""
        ids = []
        if not text:
            return ids
        if self.fallback:
            # A run of spaces stays with the word after it, so that runs may merge.
            words = re.findall(f"{SPACE}+[^{SPACE}]*|[^{SPACE}]+", SPACE + text.replace(" ", SPACE))
        else:
            words = ["".join(self.alphabet[b] for b in w.encode()) for w in WORDS.findall(text)]
        for word in words:
            if word not in self.cache:
                self.cache[word] = [i for piece in self._merge(list(word)) for i in self._ids(piece)]
            ids += self.cache[word]
        return ids

    def _merge(self, parts):
        """Joins the pair of lowest rank, leftmost first, until none is left."""
        after = list(range(1, len(parts))) + [-1]
        before = [-1] + list(range(len(parts) - 1))
        heap = []

        def offer(i):
            j = after[i]
            if j >= 0 and (parts[i], parts[j]) in self.ranks:
                heapq.heappush(heap, (self.ranks[parts[i], parts[j]], i, parts[i], parts[j]))

        for i in range(len(parts) - 1):
            offer(i)
        while heap:
            _, i, left, right = heapq.heappop(heap)
            j = after[i]
            if parts[i] != left or j < 0 or parts[j] != right:
                continue
            parts[i], parts[j] = left + right, None
            after[i] = after[j]
            if after[j] >= 0:
                before[after[j]] = i
            offer(i)
            if before[i] >= 0:
                offer(before[i])
        return [p for p in parts if p is not None]

    def _ids(self, piece):
        if piece in self.vocab:
            return [self.vocab[piece]]
        if self.fallback:
            return [self.vocab.get(f"<0x{b:02X}>", self.unknown) for b in piece.encode()]
        return [self.unknown]

    def decode(self, ids):
        raw, bytes_of = b"", {c: b for b, c in (self.alphabet or {}).items()}
        for i in ids:
            piece = self.pieces[i]
            if i in self.special:
                continue
            if self.alphabet:
                raw += bytes(bytes_of[c] for c in piece)
            elif re.fullmatch("<0x[0-9A-F]{2}>", piece):
                raw += bytes([int(piece[3:5], 16)])
            else:
                raw += piece.replace(SPACE, " ").encode()
        text = raw.decode("utf-8", "replace")
        return text[1:] if self.fallback and text.startswith(" ") else text
