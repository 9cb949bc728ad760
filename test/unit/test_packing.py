"""The quantizer's packing against plain Python integers and the reference's reader."""
import numpy as np
import pytest

from quantize import packing
from reference.checkpoint import unpack_stream, zeros_of_v1
from reference.formats import pack_stream, stored_zeros

BITS = (2, 3, 4, 8)
SIZES = (1, 7, 10, 11, 21, 22, 31, 32, 33, 64, 77, 96)


def number_of(codes, bits):
    """The little-endian number that a sequence of codes spells."""
    return sum(int(c) << bits * i for i, c in enumerate(codes))


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("count", SIZES)
def test_rows_are_one_little_endian_number(bits, count):
    codes = np.random.default_rng(count).integers(0, 1 << bits, (count, 5))
    words = packing.pack_rows(codes, bits)
    assert words.shape == (-(-count * bits // 32), 5) and words.dtype == np.int32
    for column in range(5):
        packed = sum((int(w) & 0xFFFFFFFF) << 32 * i for i, w in enumerate(words[:, column]))
        assert packed == number_of(codes[:, column], bits)
    assert np.array_equal(packing.unpack_rows(words, bits, count), codes)
    assert np.array_equal(unpack_stream(words, bits, count), codes)
    assert np.array_equal(pack_stream(codes, bits).view(np.int32), words)


# The words of symmetric files, over and over, as published files hold them.
FINGERPRINTS = {
    ("gptq", 2): (0x55555555,), ("gptq", 4): (0x77777777,), ("gptq", 8): (0x7F7F7F7F,),
    ("gptq", 3): (0xDB6DB6DB, 0xB6DB6DB6, 0x6DB6DB6D),
    ("gptq_v2", 2): (0xAAAAAAAA,), ("gptq_v2", 4): (0x88888888,), ("gptq_v2", 8): (0x80808080,),
    ("gptq_v2", 3): (0x24924924, 0x49249249, 0x92492492),
}


@pytest.mark.parametrize("checkpoint_format,bits", FINGERPRINTS)
def test_symmetric_zeros_have_their_fingerprint(checkpoint_format, bits):
    zeros = np.full((2, 64), 1 << (bits - 1))
    expected = FINGERPRINTS[checkpoint_format, bits] * (2 * bits // len(FINGERPRINTS[checkpoint_format, bits]))
    for words in (packing.pack_zeros(zeros, bits, checkpoint_format), stored_zeros(zeros, bits, checkpoint_format)):
        assert [int(w) & 0xFFFFFFFF for w in words[1]] == list(expected)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("columns", (32, 64, 96))
def test_every_zero_point_survives_format_gptq(bits, columns):
    zeros = np.random.default_rng(bits).integers(0, 1 << bits, (50, columns))
    zeros[:, ::5] = 0
    words = packing.pack_zeros(zeros, bits, "gptq")
    assert np.array_equal(words, stored_zeros(zeros, bits, "gptq"))
    assert np.array_equal(zeros_of_v1(words, bits, columns), zeros)


def test_a_zero_point_of_zero_borrows_from_its_neighbour():
    """The case that one more per field gets wrong, so the test above is no tautology."""
    words = packing.pack_zeros(np.array([[0, 5, 9, 9, 9, 9, 9, 9]]), 4, "gptq")
    fields = unpack_stream(words.T, 4, 8).T
    assert list((fields + 1)[0] & 15)[:2] == [0, 4]
    assert list(zeros_of_v1(words, 4, 8)[0, :2]) == [0, 5]


@pytest.mark.parametrize("bits", BITS)
def test_without_zero_every_field_holds_one_less(bits):
    zeros = np.random.default_rng(bits).integers(1, 1 << bits, (9, 64))
    words = packing.pack_zeros(zeros, bits, "gptq")
    assert np.array_equal(unpack_stream(words.T, bits, 64).T, zeros - 1)


def test_codes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit 3 bits"):
        packing.pack_rows(np.array([[8]]), 3)
