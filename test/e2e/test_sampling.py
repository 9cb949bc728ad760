"""Drawing tokens: the ops that draw, compiled for the processor, and the host's sampler."""
import importlib.util
import os
import sys

import pytest

import harness
from runtime import runtime

SCRIPT = os.path.join(harness.REPOSITORY, "test", "gpu", "sampling.py")
spec = importlib.util.spec_from_file_location("gpu_sampling", SCRIPT)
sampling = importlib.util.module_from_spec(spec)
sys.modules["gpu_sampling"] = sampling
spec.loader.exec_module(sampling)


@pytest.mark.parametrize("vocab, k, dtype", [(33, 64, "f32"), (5003, 64, "bf16"), (50257, 16, "f32"), (20003, 128, "f16")])
def test_ops_draw_what_the_host_does(tmp_path, vocab, k, dtype):
    path = sampling.prepare_kernel(str(tmp_path), vocab, k, dtype, "cpu")
    assert not sampling.check_kernel(runtime(), path, vocab, k, dtype, 40)


def test_the_vocabulary_may_be_all_of_it():
    """top-k 0 is the host's alone."""
    for seed in range(12):
        logits = sampling.some_logits(3000, "f32", seed)
        sampler = sampling.Sampler(runtime(), 1.2, 0, (1.0, 0.5)[seed % 2], seed)
        assert sampler.pick(logits, 7 * seed) == sampling.reference.pick(logits, 7 * seed, **sampler.settings)


def test_the_script_for_gpus_finds_what_is_wrong(tmp_path):
    """The whole model beside itself; then beside one that draws another token now and then."""
    path = harness.compile_model(sampling.STORIES, str(tmp_path / "cpu.gptqm"))

    class Device(sampling.Session):
        every = 0

        def sample(self, sampler, token):
            logits = self.eval([token])
            self.library.gptq_session_position.restype = sampling.ctypes.c_int64
            position = self.library.gptq_session_position(self.session)
            chosen = sampler.pick(logits, position)
            return chosen ^ 1 if self.every and position % self.every == 0 else chosen

    device, cpu = Device(runtime(), path), sampling.Session(runtime(), path)
    assert not sampling.check_stories(runtime(), device, cpu)
    device.every = 150
    wrong = sampling.check_stories(runtime(), device, cpu)
    assert len(wrong) == 2 * len(sampling.DRAWS) and all("token 150 is" in sentence for sentence in wrong)
