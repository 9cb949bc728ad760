"""Drawing tokens: the ops that draw, compiled for the processor, and the host's sampler."""
import ctypes

import numpy as np
import pytest

import harness
from gpu import sampling
from runtime import runtime


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
    """The whole model beside itself, with other roundings; then drawing another token than it should."""
    path = harness.compile_model(sampling.STORIES, str(tmp_path / "cpu.gptqm"))

    class Device(sampling.Session):
        noise, wrong_at = 0.0, None

        def eval(self, tokens, vocab=512):
            logits = super().eval(tokens, vocab)
            return logits + self.noise * np.sin(np.arange(vocab) * 7919.0 + int(tokens[-1])).astype(np.float32)

        def sample(self, sampler, token):
            logits = self.eval([token])
            self.library.gptq_session_position.restype = ctypes.c_int64
            position = self.library.gptq_session_position(self.session)
            return sampler.pick(logits, position) ^ (position == self.wrong_at)

    device, cpu = Device(runtime(), path), sampling.Session(runtime(), path)
    for device.noise in (0.0, 0.05):
        assert not sampling.check_stories(runtime(), device, cpu)
    device.wrong_at = 150
    wrong = sampling.check_stories(runtime(), device, cpu)
    assert len(wrong) == 2 * len(sampling.DRAWS) and all("token 150 is" in sentence for sentence in wrong)


def test_other_logits_do_not_explain_any_token():
    logits = np.array([5, 3, 3.001, 0, -20], np.float32)
    settings = dict(temperature=1.0, top_k=4, top_p=1.0, seed=0)
    # Shares 0.783, 0.106, 0.106, 0.005; the random number of seed 0 at position 0 is 0.88, in the first of the two that are close.
    assert sampling.reference.pick(logits, 0, **settings) == 2
    apart = [sampling.reference.unexplained(logits, token, 0.001, 0, **settings) for token in range(5)]
    assert apart[1] == apart[2] == 0 and apart[0] > 0.05 and apart[3] > 0.05 and apart[4] == np.inf
