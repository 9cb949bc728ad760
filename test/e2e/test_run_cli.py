"""The command line of gptq-run, on the shipped example."""
import json
import os
import re
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest

import harness
from reference.make_checkpoint import make_layer

EXAMPLE = os.path.join(harness.REPOSITORY, "examples", "stories260K-gptq-4bit-g32")
PROMPT = "Once upon a time"
TOKENS = [1, 403, 407, 261, 378]
TEMPLATE = ("{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
            "{% if add_generation_prompt %}[assistant]{% endif %}")


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return harness.compile_model(EXAMPLE, str(tmp_path_factory.mktemp("cli") / "stories.gptqm"))


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory):
    """The example with a chat template."""
    folder = tmp_path_factory.mktemp("chat")
    source = folder / "checkpoint"
    shutil.copytree(EXAMPLE, source)
    config = json.loads((source / "tokenizer_config.json").read_text())
    config["chat_template"] = TEMPLATE
    (source / "tokenizer_config.json").write_text(json.dumps(config))
    return harness.compile_model(str(source), str(folder / "chat.gptqm"))


def run(model, *arguments):
    return harness.succeed("gptq-run", model, *arguments)


def refusal(model, *arguments):
    """The sentence of a call that must fail."""
    done = harness.call("gptq-run", model, *arguments)
    text = done.stderr.decode()
    assert done.returncode == 1, text
    assert re.fullmatch(r"gptq-run: error: [^\n]+\n", text), text
    return text


def interrupt(arguments, ready):
    """Sends Ctrl-C once `ready(process)` returns; returns status and outputs."""
    process = subprocess.Popen([harness.binary("gptq-run"), *map(str, arguments)], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        ready(process)
        process.send_signal(signal.SIGINT)
        # Standard input stays open: nothing but the signal ends the program.
        process.wait(60)
        return process.returncode, process.stdout.read(), process.stderr.read()
    finally:
        process.kill()
        process.wait()


def test_prompt_is_continued(model):
    first, second = (run(model, "--prompt", PROMPT, "--max-tokens", 40) for _ in range(2))
    assert first == second
    assert first.startswith(PROMPT) and first.endswith("\n") and len(first) > 60
    assert run(model, "--prompt", PROMPT, "--max-tokens", 40, "--no-echo") == first[len(PROMPT):]
    assert run(model, "--prompt", PROMPT, "--max-tokens", 0) == PROMPT + "\n"


def test_prompt_file(model, tmp_path):
    (tmp_path / "prompt").write_text(PROMPT)
    assert (run(model, "--prompt-file", tmp_path / "prompt", "--max-tokens", 20)
            == run(model, "--prompt", PROMPT, "--max-tokens", 20))


def test_tokens_are_the_prompt(model):
    made = run(model, "--tokens", harness.spell(TOKENS), "--max-tokens", 12, "--print-tokens")
    assert re.fullmatch(r"\d+(,\d+){11}\n", made)
    assert made == run(model, "--prompt", PROMPT, "--max-tokens", 12, "--print-tokens")
    assert (run(model, "--tokens", harness.spell(TOKENS), "--max-tokens", 12)
            == run(model, "--prompt", PROMPT, "--max-tokens", 12))


def test_seeds(model):
    def sample(seed, *more):
        return run(model, "--prompt", PROMPT, "--max-tokens", 60, "--temperature", 1.2, "--seed", seed, *more)
    texts = [sample(seed) for seed in (1, 1, 2, 3)]
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1
    greedy = run(model, "--prompt", PROMPT, "--max-tokens", 60)
    # The likeliest token alone is left.
    assert sample(7, "--top-k", 1) == greedy


def test_stop(model):
    whole = run(model, "--prompt", PROMPT, "--max-tokens", 60)
    answer = whole[len(PROMPT):]
    assert "little girl" in answer
    before = answer[:answer.index("little girl")]
    for stops in (["little girl"], ["no such text", "little girl"]):
        got = run(model, "--prompt", PROMPT, "--max-tokens", 60, *[a for s in stops for a in ("--stop", s)])
        assert got == PROMPT + before + "\n"
    assert run(model, "--prompt", PROMPT, "--max-tokens", 60, "--stop", "no such text") == whole


def test_logits(model, tmp_path):
    for tokens in (TOKENS, TOKENS * 40):
        logits = harness.run_logits(model, tokens, str(tmp_path))
        assert logits.shape == (len(tokens), 512) and logits.dtype == np.float32
        assert np.isfinite(logits).all()
    made = run(model, "--tokens", harness.spell(TOKENS), "--max-tokens", 1, "--print-tokens")
    assert int(made) == harness.run_logits(model, TOKENS, str(tmp_path))[-1].argmax()


def test_perplexity(model, tmp_path):
    (tmp_path / "text").write_text("Once upon a time there was a little girl. " * 60)
    out = run(model, "--perplexity", tmp_path / "text", "--window", 128)
    fields = dict(re.findall(r"^(\w+): +(.*)$", out, re.M))
    assert list(fields) == ["text", "method", "predicted", "loss", "perplexity"]
    assert "windows of 128 tokens" in fields["method"]
    loss = float(re.fullmatch(r"([0-9.]+) nats/token", fields["loss"]).group(1))
    assert abs(np.exp(loss) - float(fields["perplexity"])) < 1e-4 * float(fields["perplexity"])
    few = run(model, "--perplexity", tmp_path / "text", "--window", 128, "--max-windows", 1)
    assert "1 windows" in few and "predicted:  127 tokens" in few
    assert "too few tokens" in refusal(model, "--perplexity", os.devnull)


def test_inspect(model):
    out = run(model, "--inspect")
    for word in ("target", "stories260K", "context        512 tokens", "entry generate", "entry score", "kernels"):
        assert word in out
    found = json.loads(run(model, "--inspect", "--json"))
    assert found["file_bytes"] == os.path.getsize(model)
    assert found["model"]["vocab_size"] == 512
    assert {e["name"] for e in found["entries"]} == {"generate", "score"}
    assert found["weight_bytes"] == sum(s["bytes"] for s in found["sections"] if s["tensor"].startswith("w."))


def chat(model, text, *arguments):
    done = subprocess.run([harness.binary("gptq-run"), model, "--interactive", "--max-tokens", "20", *arguments],
                          input=text.encode(), capture_output=True, timeout=harness.TIMEOUT)
    assert done.returncode == 0 and done.stderr == b"", done.stderr
    return done.stdout.decode()


def test_chat_with_a_template(chat_model):
    assert "chat template  yes" in run(chat_model, "--inspect")
    answer = chat(chat_model, "Tell me a story\n")
    # The template writes the start token itself, and this one writes none.
    written = "[user] Tell me a story\n[assistant]"
    rendered = run(chat_model, "--prompt", written, "--max-tokens", 0)
    assert rendered == written + "\n"
    assert answer.endswith("\n") and len(answer) > 10
    assert chat(chat_model, "Tell me a story\n") == answer
    assert chat(chat_model, "Tell me a story\n", "--system", "Be brief") != answer
    two = chat(chat_model, "Tell me a story\nAnd then?\n")
    assert two.startswith(answer) and len(two) > len(answer)
    # An empty line ends the chat.
    assert chat(chat_model, "Tell me a story\n\nAnd then?\n") == answer
    assert chat(chat_model, "") == ""


def test_chat_without_a_template(model):
    assert chat(model, PROMPT + "\n") == run(model, "--prompt", PROMPT, "--max-tokens", 20, "--no-echo")


def test_stats(model):
    done = harness.call("gptq-run", model, "--prompt", PROMPT, "--max-tokens", 10, "--stats", "--threads", 2)
    assert done.returncode == 0
    number = r"\d+(\.\d+)?"
    assert re.fullmatch(rf"load:    {number} ms\n"
                        rf"prefill: 5 tokens, {number} ms, {number} tokens/s\n"
                        rf"decode:  9 tokens, {number} ms, {number} tokens/s\n"
                        rf"memory:  {number} \w+ resident, {number} \w+ at most\n"
                        rf"threads: 2\n", done.stderr.decode())


def test_threads_change_nothing(model):
    a, b, c = (run(model, "--prompt", PROMPT, "--max-tokens", 50, "--threads", n) for n in (0, 1, 3))
    assert a == b == c


def test_function(tmp_path):
    source = make_layer(str(tmp_path / "layer"), 64, 32, group_size=32)
    layer = harness.compile_model(source, str(tmp_path / "layer.gptqm"), "--layer", "layer")
    x = np.random.default_rng(0).standard_normal((5, 64), np.float32)
    y = harness.run_function(layer, "layer", x, str(tmp_path))
    assert y.shape == (5, 32) and y.dtype == np.float32 and np.abs(y).max() > 0
    assert "holds lone functions" in refusal(layer, "--prompt", PROMPT)
    assert "entry layer" in run(layer, "--inspect")


def test_interrupted_at_the_chat_prompt(model):
    status, out, error = interrupt([model, "--interactive"], lambda process: time.sleep(1))
    assert (status, out, error) == (130, b"", b"")


def test_interrupted_while_it_generates(model):
    def ready(process):
        process.stdin.write(PROMPT.encode() + b"\n")
        process.stdin.flush()
        assert process.stdout.read(1)
        # The answer ends by itself, or with this; then the prompt is reached.
        process.send_signal(signal.SIGINT)
        time.sleep(1)
    status, out, error = interrupt([model, "--interactive", "--max-tokens", 400, "--ignore-eos"], ready)
    assert (status, error) == (130, b"") and out.endswith(b"\n")


def test_interrupted_perplexity(model, tmp_path):
    (tmp_path / "text").write_text("Once upon a time there was a little girl. " * 50000)
    status, _, error = interrupt([model, "--perplexity", tmp_path / "text"], lambda process: time.sleep(1))
    assert (status, error) == (130, b"")


@pytest.mark.parametrize("arguments, reason", [
    ([], "nothing to do"),
    (["--prompt"], "--prompt"),
    (["--prompt", "a", "--temperature", "-1"], "temperature"),
    (["--prompt", "a", "--top-p", "2"], "top"),
    (["--prompt", "a", "--top-k", "-1"], "top"),
    (["--prompt", "a", "--temperature", "hot"], "hot"),
    (["--prompt", "a", "--wrong"], "--wrong"),
    (["--prompt-file", "absent"], "absent"),
    (["--perplexity", "absent"], "absent"),
    (["--perplexity", os.devnull, "--window", "1"], "window of 2 to 512"),
    (["--perplexity", os.devnull, "--perplexity-from", "2"], "2"),
    (["--perplexity", os.devnull, "--perplexity-bos", "often"], "often"),
    (["--function", "absent"], "absent"),
])
def test_mistakes(model, arguments, reason):
    assert reason in refusal(model, *arguments)


def test_version_and_help():
    assert re.fullmatch(r"gptq-run \d+\.\d+\.\d+\n", harness.succeed("gptq-run", "--version"))
    out = harness.succeed("gptq-run", "--help")
    assert "--perplexity" in out and "--interactive" in out
