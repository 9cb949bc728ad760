"""Drawing a token, written from its description (docs/ModelFormat.md) with numpy's own exponential."""
import numpy as np


def philox4x32(counter, key):
    """Philox4x32-10 (Salmon, Moraes, Dror, Shaw, SC 2011)."""
    c, k, mask = list(counter), list(key), 0xffffffff
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & mask, (a >> 32) ^ c[3] ^ k[1], a & mask]
        k = [(k[0] + 0x9E3779B9) & mask, (k[1] + 0xBB67AE85) & mask]
    return c


def random_bits(seed, position):
    words = philox4x32([position & 0xffffffff, position >> 32, 0, 0], [seed & 0xffffffff, seed >> 32])
    return words[1] << 32 | words[0]


def sums(logits, temperature, top_k, top_p):
    """Candidates, the sums of their weights up to each, and the sum of those that are kept."""
    logits = np.asarray(logits, np.float32)
    ids = np.flatnonzero(~np.isnan(logits))
    if not len(ids):
        return np.zeros(1, np.int64), [1], 1
    # Stable: of equal ones the lower id.
    ids = ids[np.argsort(-(logits[ids] + np.float32(0)), kind="stable")][:top_k or None]
    x = logits[ids].astype(np.float64)
    with np.errstate(invalid="ignore"):
        weights = np.exp((x - x[0]) / np.float64(np.float32(temperature)))
    weights = np.floor(np.nan_to_num(weights, nan=0.0) * 2.0**32 + 0.5).astype(np.uint64)
    weights[0] = 2**32
    total = [int(s) for s in np.cumsum(weights)]
    limit = float(total[-1]) * float(np.float32(top_p))
    return ids, total, next(s for s in total if float(s) >= limit)


def pick(logits, position, temperature, top_k=0, top_p=1.0, seed=0):
    ids, total, kept = sums(logits, temperature, top_k, top_p)
    target = random_bits(seed, position) * kept >> 64
    return int(ids[next(i for i, s in enumerate(total) if s > target)])


def unexplained(logits, token, error, position, temperature, top_k=0, top_p=1.0, seed=0):
    """How far the random number is from where `token` may be drawn, by logits that are off by at most `error`; 0 if that is possible.

    Every weight may be off by a factor of exp(2 error / temperature), so the sums of weights, and those of what is kept. Besides,
    candidates whose logits are closer than 2 error may be in another order, or one instead of the other.
    """
    logits = np.asarray(logits, np.float32)
    ids, total, kept = sums(logits, temperature, top_k, top_p)
    u = random_bits(seed, position) / 2.0**64
    shares = np.diff([0] + total) / kept
    close = np.abs(logits[ids].astype(np.float64) - float(logits[token])) <= 2 * error
    if not close.any():
        return np.inf
    # Wherever it is among those, and whatever of them is kept.
    first, last = np.flatnonzero(close)[[0, -1]]
    slack = np.expm1(4 * error / temperature)
    low, high = shares[:first].sum(), shares[:last + 1].sum()
    return max(0.0, low - slack - u, u - high - slack)
