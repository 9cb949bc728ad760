"""The default correctness matrix shows every pair of values of any two axes."""
import inspect
import itertools
import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "e2e"))

import matrix
from reference.make_checkpoint import make_layer, random_layer


@pytest.mark.parametrize("axes", (matrix.AXES, matrix.KERNEL_AXES), ids=("checkpoints", "kernels"))
def test_every_pair_is_covered(axes):
    chosen = matrix.covering_cases(axes)
    for (a, values_a), (b, values_b) in itertools.combinations(axes.items(), 2):
        for va, vb in itertools.product(values_a, values_b):
            assert any(c[a] == va and c[b] == vb for c in chosen), (a, va, b, vb)
    assert len(chosen) < 80


def test_no_property_of_a_layer_rides_along_unseen():
    """What a case does not name cannot be paired: chosen by a hash, biases once met
    neither 8 bits, nor act-order, nor the older target."""
    passed = set(inspect.signature(make_layer).parameters) | set(inspect.signature(random_layer).parameters)
    fixed = {"folder", "rows", "columns", "seed", "name", "variant", "rng", "zeros", "g_idx", "scale_dtype", "size"}
    assert passed - fixed == set(matrix.AXES) - {"shape", "target"}


def test_the_full_matrix_holds_every_weight_format():
    cases = list(matrix.full_cases())
    assert len(cases) == 4 * 2 * 2 * len(matrix.AXES["group_size"]) * 2 * 2
