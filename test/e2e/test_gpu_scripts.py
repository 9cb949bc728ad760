"""What is carried to a machine with a GPU, on the tests' own driver."""
import json
import os
import subprocess

import fake_gpu
import harness

EXAMPLE = os.path.join(harness.REPOSITORY, "examples", "stories260K-gptq-4bit-g32")


def test_gpu_model(tmp_path):
    """Prepared here for a processor, turned into a model for the fake GPU, measured there."""
    folder = tmp_path / "travel"
    build = os.path.dirname(os.path.dirname(os.path.realpath(harness.binary("gptq-run"))))
    environment = dict(os.environ, GPTQ_BUILD=build, GPTQ_TARGET="cpu:x86-64-v3", GPTQ_CONTEXTS="4,16,4096")
    script = os.path.join(harness.REPOSITORY, "benchmarks", "gpu_model.sh")
    subprocess.run([script, folder, EXAMPLE, "--", "--max-context", "200"], check=True, env=environment)
    fake_gpu.move_to_gpu(str(folder / "models" / (os.path.basename(EXAMPLE) + ".gptqm")))
    done = subprocess.run([folder / "measure.sh", "--samples", "1"], capture_output=True, text=True,
                          env={**environment, **fake_gpu.environment()})
    assert done.returncode == 0, done.stderr
    name = os.path.basename(EXAMPLE)
    joined = json.loads((folder / "results" / f"{name}.json").read_text())
    # What the model cannot hold is left out.
    assert joined["contexts"] == [4, 16] and joined["device"]["name"] == "Fake GPU"
    assert [r["prompt_tokens"] for r in joined["results"]] == [4, 16]
    table = (folder / "results" / "table.md").read_text()
    assert table.count(f"| {name} | ") == 2 and table in done.stdout
    done = subprocess.run([script, folder], capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and "gpu_model.sh: error: expected a checkpoint to compile" in done.stderr
