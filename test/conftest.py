"""What every Python test shares: import paths, the shared data and the options."""
import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
REPOSITORY = os.path.dirname(HERE)
sys.path[:0] = [os.path.join(REPOSITORY, "tools"), HERE]


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="run the whole correctness matrix")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--full"):
        chosen = [i for i in items if "full" not in i.keywords]
        config.hook.pytest_deselected(items=[i for i in items if "full" in i.keywords])
        items[:] = chosen


@pytest.fixture(scope="session")
def shared_data():
    """The folder of trained models and texts, which is not part of the repository."""
    folder = os.environ.get("GPTQ_SHARED_DATA", os.path.join(REPOSITORY, "..", "shared", "data"))
    if not os.path.exists(os.path.join(folder, "stories260K-hf", "config.json")):
        pytest.skip(f"no trained models in {folder}; set GPTQ_SHARED_DATA")
    return folder


@pytest.fixture(scope="session")
def texts(shared_data):
    """{name: text} of the two texts."""
    out = {}
    for name in ("tinyshakespeare", "tinystories_sample"):
        with open(os.path.join(shared_data, f"{name}.txt"), encoding="utf-8") as f:
            out[name] = f.read()
    return out


@pytest.fixture(scope="session")
def tokenizer(shared_data):
    from quantize.tokenizer import Tokenizer
    return Tokenizer(os.path.join(shared_data, "stories260K-hf"))
