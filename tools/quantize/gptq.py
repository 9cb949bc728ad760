"""GPTQ: rounds weights one input feature at a time, mending the error of each
rounding in the features not yet rounded (Frantar et al., 2022).

Weights are held as W [K, N] (input features are rows), the transpose of how
checkpoints store them, so that the loop over K touches whole rows.
"""
import numpy as np

BLOCK = 128
# The smallest normal half: smaller scales would lose bits when stored.
SMALLEST_SCALE = 2.0**-14


class Grid:
    """Rounds weights to codes: w ~ scale * (code - zero), one pair per output feature."""

    def __init__(self, bits, sym=True, search=True, first_zero=0):
        self.levels, self.sym, self.search, self.first_zero = (1 << bits) - 1, sym, search, first_zero

    def fit(self, w, importance):
        """Returns (scale, zero) [N] for the rows w [g, N] of one group.

        Starts from the range of w. With `search`, also tries narrower ranges, which
        clip the largest weights but round the others more finely, and keeps the one
        with the smallest squared error, each row weighed by `importance` [g].
        """
        low, high = np.minimum(w.min(0), 0), np.maximum(w.max(0), 0)
        if self.sym:
            high = np.maximum(-low, high)
            low = -high
        empty = low == high
        low, high = np.where(empty, -1, low), np.where(empty, 1, high)
        best = self._grid(low, high)
        if not self.search:
            return best
        weigh = (importance / max(float(importance.mean()), 1e-30)).astype(np.float32)[:, None]
        best_error = self._error(w, weigh, *best)
        scale, zero = best
        for shrink in np.linspace(0.97, 0.4, 20, dtype=np.float32):
            s, z = self._grid(low * shrink, high * shrink)
            error = self._error(w, weigh, s, z)
            better = error < best_error
            best_error = np.where(better, error, best_error)
            scale, zero = np.where(better, s, scale), np.where(better, z, zero)
        return scale, zero

    def _grid(self, low, high):
        scale = (high - low) / self.levels
        # Rounded to half before use: codes must suit the scale that is stored.
        scale = np.maximum(scale, SMALLEST_SCALE).astype(np.float16).astype(np.float32)
        if self.sym:
            zero = np.full_like(scale, (self.levels + 1) // 2)
        else:
            zero = np.clip(np.rint(-low / scale), self.first_zero, self.levels)
        return scale, zero

    def codes(self, w, scale, zero):
        return np.clip(np.rint(w / scale) + zero, 0, self.levels)

    def _error(self, w, weigh, scale, zero):
        e = self.codes(w, scale, zero)
        e -= zero
        e *= scale
        e -= w
        e *= e
        e *= weigh
        return e.sum(0)


class Result:
    """Codes [K, N], scales and zeros [G, N], g_idx [K], all in checkpoint order."""

    def __init__(self, codes, scales, zeros, g_idx):
        self.codes, self.scales, self.zeros, self.g_idx = codes, scales, zeros, g_idx

    def weight(self):
        """The dequantized W [K, N] in float32."""
        return self.scales[self.g_idx] * (self.codes - self.zeros[self.g_idx])


def group_count(rows, group_size):
    return 1 if group_size == -1 else -(-rows // group_size)


def round_to_nearest(w, grid, group_size):
    rows = w.shape[0]
    size = rows if group_size == -1 else group_size
    pairs = [grid.fit(w[i:i + size], np.ones(len(w[i:i + size]))) for i in range(0, rows, size)]
    scales, zeros = (np.stack(p) for p in zip(*pairs))
    g_idx = np.arange(rows) // size
    return Result(grid.codes(w, scales[g_idx], zeros[g_idx]), scales, zeros, g_idx)


def inverse_factor(hessian):
    """Returns upper triangular U with inverse(hessian) = U^T U.

    With the rows and columns of H reversed, its Cholesky factor turns around into
    an upper triangular R with H = R R^T, so U is the inverse of R.
    """
    r = np.linalg.cholesky(hessian[::-1, ::-1])[::-1, ::-1]
    return np.linalg.inv(r)


def gptq(w, hessian, grid, group_size, damping=0.01, act_order=False, static_groups=False):
    """Quantizes W [K, N] so that X W changes least, where hessian = X^T X.

    `act_order` rounds the features with the largest activations first, while many
    are left to mend their error, and forms groups in that order; `static_groups`
    keeps the groups of neighbours all the same.
    """
    rows = w.shape[0]
    size = rows if group_size == -1 else group_size
    w = w.astype(np.float32).copy()
    h = hessian.astype(np.float64)
    diagonal = np.diag(h).copy()
    # Features that are always zero: any weight does, zero is the safest.
    dead = diagonal <= 0
    h[dead, dead] = 1
    w[dead] = 0

    order = np.argsort(-diagonal, kind="stable") if act_order else np.arange(rows)
    fixed = None
    if static_groups:
        fixed = [grid.fit(w[i:i + size], diagonal[i:i + size]) for i in range(0, rows, size)]
    w, h, diagonal, dead = w[order], h[np.ix_(order, order)], diagonal[order], dead[order]
    live = diagonal[~dead]
    h[np.arange(rows), np.arange(rows)] += damping * (live.mean() if live.size else 1)
    u = inverse_factor(h).astype(np.float32)

    # Blocks end where groups end, so that a group is fitted to weights that have
    # received all errors of earlier blocks.
    span = size if size > BLOCK else BLOCK // size * size
    codes = np.empty_like(w)
    scales, zeros = [], []
    for start in range(0, rows, span):
        stop = min(start + span, rows)
        for begin in range(start, stop, BLOCK):
            end = min(begin + BLOCK, stop)
            errors = np.empty((end - begin, w.shape[1]), np.float32)
            for k in range(begin, end):
                if fixed is not None:
                    scale, zero = fixed[order[k] // size]
                elif k % size == 0:
                    scale, zero = grid.fit(w[k:k + size], diagonal[k:k + size])
                    scales.append(scale)
                    zeros.append(zero)
                codes[k] = grid.codes(w[k], scale, zero)
                error = errors[k - begin]
                np.subtract(w[k], scale * (codes[k] - zero), out=error)
                error /= u[k, k]
                w[k + 1:end] -= u[k, k + 1:end, None] * error
            w[end:] -= u[begin:end, end:].T @ errors
    if fixed is not None:
        scales, zeros = zip(*fixed)
        g_idx = np.arange(rows) // size
    else:
        g_idx = np.empty(rows, np.int64)
        g_idx[order] = np.arange(rows) // size
    unordered = np.empty_like(codes)
    unordered[order] = codes
    return Result(unordered, np.stack(scales), np.stack(zeros), g_idx)
