"""Packs codes and zero points into the int32 words of GPTQ checkpoints.

Word r of 2-, 4- and 8-bit codes holds codes 32/b*r ... lowest bits first. Every
32 codes of 3 bits fill three words, read as one little-endian 96-bit number:

    word 0: codes 0..9, bits 0-1 of code 10
    word 1: bit 2 of code 10, codes 11..20, bit 0 of code 21
    word 2: bits 1-2 of code 21, codes 22..31
"""
import numpy as np

# One in every field: what format "gptq" takes off each word of zero points.
ONES = {2: 0x55555555, 4: 0x11111111, 8: 0x01010101}


def packed_words(count, bits):
    """Number of 32-bit words that `count` codes fill."""
    return -(-count * bits // 32)


def pack_rows(codes, bits):
    """Packs codes [K, N] along K into int32 [ceil(K*bits/32), N]."""
    codes = np.asarray(codes)
    if codes.min(initial=0) < 0 or codes.max(initial=0) >= 1 << bits:
        raise ValueError(f"codes {codes.min()}..{codes.max()} do not fit {bits} bits")
    rows, columns = codes.shape
    per = 32 if bits == 3 else 32 // bits
    u = np.zeros((-(-rows // per), per, columns), np.uint32)
    u.reshape(-1, columns)[:rows] = codes
    if bits != 3:
        words = np.zeros((u.shape[0], columns), np.uint32)
        for j in range(per):
            words |= u[:, j] << np.uint32(bits * j)
    else:
        words = np.zeros((u.shape[0], 3, columns), np.uint32)
        for j in range(32):
            word, shift = divmod(3 * j, 32)
            words[:, word] |= u[:, j] << np.uint32(shift)
            if shift > 29:
                words[:, word + 1] |= u[:, j] >> np.uint32(32 - shift)
        words = words.reshape(-1, columns)
    return words[:packed_words(rows, bits)].view(np.int32)


def unpack_rows(words, bits, rows):
    """Inverse of pack_rows: codes [rows, N]."""
    words = np.asarray(words).view(np.uint32)
    mask, out = np.uint32((1 << bits) - 1), np.empty((rows, words.shape[1]), np.uint32)
    for k in range(rows):
        word, shift = divmod(bits * k, 32)
        code = words[word] >> np.uint32(shift)
        if shift + bits > 32:
            code = code | words[word + 1] << np.uint32(32 - shift)
        out[k] = code & mask
    return out.astype(np.int32)


def pack_zeros(zeros, bits, checkpoint_format):
    """Packs zero points [G, N] along N into int32 [G, ceil(N*bits/32)].

    "gptq" stores z - 1, by taking one off every field of a packed word with one
    subtraction, as published writers do. A zero point of 0 then borrows from the
    field above, and only a reader that adds the same number to the word gets it
    back. Fields of 3 bits straddle words; there one is taken off each field alone.
    """
    if checkpoint_format not in ("gptq", "gptq_v2"):
        raise ValueError(f"unknown checkpoint format {checkpoint_format!r}")
    zeros = np.asarray(zeros).T
    is_less_one = checkpoint_format == "gptq"
    if is_less_one and bits == 3:
        zeros = (zeros.astype(np.int64) - 1) % 8
    words = pack_rows(zeros, bits).T.view(np.uint32)
    if is_less_one and bits != 3:
        words = ((words.astype(np.int64) - ONES[bits]) & 0xFFFFFFFF).astype(np.uint32)
    return np.ascontiguousarray(words.view(np.int32))
