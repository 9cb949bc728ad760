"""The axes of the correctness matrix, and a small set of layers that covers all pairs.

Layers are checkpoints of the published format, or, of any width, IR (`KERNEL_AXES`)."""
import itertools
import random

AXES = {
    "bits": (2, 3, 4, 8),
    "checkpoint_format": ("gptq", "gptq_v2"),
    "sym": (True, False),
    # 20 and 5 do not fill whole packed words.
    "group_size": (-1, 16, 32, 64, 128, 48, 20, 5),
    "act_order": (False, True),
    "bias": (False, True),
    # K x N: multiples of everything, odd, K below and above a group of 128, N below one vector.
    "shape": ((384, 96), (77, 45), (301, 131), (129, 257), (513, 7)),
    "target": ("cpu:native", "cpu:x86-64-v3"),
}
# Layers that no checkpoint holds: every width, every element type of scales, groups that start inside a packed word.
KERNEL_AXES = {
    "bits": (2, 3, 4, 5, 6, 7, 8),
    "sym": (True, False),
    "group_size": (-1, 16, 20, 32, 48, 128),
    "act_order": (False, True),
    "bias": (False, True),
    "scale_dtype": ("F16", "BF16", "F32"),
    "shape": AXES["shape"],
    "target": AXES["target"],
    "switch": ("", "--no-vectorize", "--no-promote", "--no-fold-zeros", "--no-hoist-scales", "--no-buffer-partials"),
}
# One row, the sizes around small tiles, a prefill, and more than one chunk of it.
ROWS = (1, 2, 3, 5, 8, 17, 64, 300)


def pairs(case):
    """Every ((axis, value), (axis, value)) that a case shows."""
    return itertools.combinations(sorted(case.items(), key=lambda item: item[0]), 2)


def every_case():
    for values in itertools.product(*AXES.values()):
        yield dict(zip(AXES, values))


def covering_cases(axes=None, tries=60):
    """A greedy choice of cases that shows every pair of values of any two axes: of `tries` random
    ones, the same every time, that show a pair that is missing, the one that shows most of them."""
    axes, chance, chosen = axes or AXES, random.Random(1), []
    missing = {((a, va), (b, vb)): None for a, b in itertools.combinations(sorted(axes), 2)
               for va, vb in itertools.product(axes[a], axes[b])}
    while missing:
        shown = dict(next(iter(missing)))
        cases = [{axis: shown.get(axis, chance.choice(values)) for axis, values in axes.items()} for _ in range(tries)]
        chosen.append(max(cases, key=lambda c: sum(pair in missing for pair in pairs(c))))
        for pair in pairs(chosen[-1]):
            missing.pop(pair, None)
    return chosen


def full_cases():
    """Every weight format on an even shape without and on an odd shape with a bias;
    the other shapes and the targets are in the covering cases."""
    for case in every_case():
        if (case["shape"], case["bias"]) in (((384, 96), False), ((301, 131), True)) and case["target"] == "cpu:native":
            yield case


def kernel_name(case):
    k, n = case["shape"]
    return (f"b{case['bits']}-{'sym' if case['sym'] else 'asym'}-g{case['group_size']}-{'act' if case['act_order'] else 'plain'}-"
            f"{'bias-' if case['bias'] else ''}{case['scale_dtype']}-{k}x{n}-{case['target'].split(':')[1]}{case['switch'][1:]}")


def name(case):
    k, n = case["shape"]
    return (f"b{case['bits']}-{case['checkpoint_format']}-{'sym' if case['sym'] else 'asym'}-g{case['group_size']}-"
            f"{'act' if case['act_order'] else 'plain'}-{'bias-' if case['bias'] else ''}{k}x{n}-{case['target'].split(':')[1]}")
