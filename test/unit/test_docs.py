"""The documentation names tests that exist."""
import os
import re

ROOT = os.path.join(os.path.dirname(__file__), "..", "..")


def contents(folder, ends):
    for where, _, files in os.walk(os.path.join(ROOT, folder)):
        for name in files:
            if name.endswith(ends):
                with open(os.path.join(where, name), encoding="utf-8") as f:
                    yield f.read()


def test_every_named_test_exists():
    known = set()
    for text in contents("test", (".py", ".cpp")):
        known.update(re.findall(r"^def (test_\w+)\(", text, re.M))
        known.update(re.findall(r"^TEST(?:_[FP])?\(\w+, (\w+)\)", text, re.M))
    named = set()
    for text in contents("docs", ".md"):
        named.update(re.findall(r"`(test_\w+)`", text))
    with open(os.path.join(ROOT, "docs", "Formats.md"), encoding="utf-8") as f:
        text = f.read()
    traps = text[text.index("| trap | test |"):].splitlines()[2:]
    assert len(traps) > 15
    for row in traps:
        tests = re.findall(r"`(\w+)`", row.split("|")[2])
        assert tests, row
        named.update(tests)
    assert named - known == set()
