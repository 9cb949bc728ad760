"""The axes of the correctness matrix, and a small set of layers that covers all pairs."""
import itertools

AXES = {
    "bits": (4, 8),
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
# One row, the sizes around small tiles, a prefill, and more than one chunk of it.
ROWS = (1, 2, 3, 5, 8, 17, 64, 300)


def pairs(case):
    """Every (axis, value, axis, value) that a case shows."""
    return set(itertools.combinations(sorted(case.items(), key=lambda item: item[0]), 2))


def every_case():
    for values in itertools.product(*AXES.values()):
        yield dict(zip(AXES, values))


def covering_cases():
    """A greedy choice of cases that shows every pair of values of any two axes."""
    cases = list(every_case())
    missing = set().union(*(pairs(c) for c in cases))
    chosen = []
    while missing:
        best = max(cases, key=lambda c: len(pairs(c) & missing))
        chosen.append(best)
        missing -= pairs(best)
    return chosen


def full_cases():
    """Every weight format on an even shape without and on an odd shape with a bias;
    the other shapes and the targets are in the covering cases."""
    for case in every_case():
        if (case["shape"], case["bias"]) in (((384, 96), False), ((301, 131), True)) and case["target"] == "cpu:native":
            yield case


def name(case):
    k, n = case["shape"]
    return (f"b{case['bits']}-{case['checkpoint_format']}-{'sym' if case['sym'] else 'asym'}-g{case['group_size']}-"
            f"{'act' if case['act_order'] else 'plain'}-{'bias-' if case['bias'] else ''}{k}x{n}-{case['target'].split(':')[1]}")
