#!/usr/bin/env bash
# Measures whole models on a GPU that the compiler never sees.
#
#   benchmarks/gpu_model.sh FOLDER CHECKPOINT... [-- gptq-compile's options]    compiles, on this machine
#   FOLDER/measure.sh [gptq-bench's options]                                    measures, on that one
#
# FOLDER then holds all that is needed there: models, programs and their libraries. A model made by
# make_checkpoint.py with --pool compresses well (`zstd --long=27` or `xz`). For each model and each of
# GPTQ_CONTEXTS tokens of context (by default 16,512,1024,2048,4096, those the model can hold)
# FOLDER/results gets a JSON file of gptq-bench, and one that joins those of a model, which
# plot.py takes; table.md is the table: tokens a second, memory, load time. Compiled for GPTQ_TARGET, by
# default nvvm:sm_90a, by the build in GPTQ_BUILD, by default build.
set -euo pipefail

if [ "$(basename "$0")" = measure.sh ]; then
  cd "$(dirname "$0")"
  mkdir -p results
  failed=0
  for model in models/*.gptqm; do
    name=$(basename "$model" .gptqm)
    echo "== $name"
    most=$(bin/gptq-run "$model" --inspect | sed -n 's/^context *\([0-9]*\) tokens$/\1/p')
    for context in $(tr , ' ' <<<"${GPTQ_CONTEXTS:-16,512,1024,2048,4096}"); do
      new=64
      [ $((context + new)) -le "$most" ] || continue
      bin/gptq-bench model "$model" --prompt-tokens "$context" --new-tokens $new \
        --json "results/$name-$context.json" "$@" || failed=1
    done
  done
  # What is one line in a table or a plot.
  python3 - <<'PYTHON' || failed=1
import glob, json, os, re

rows = []
for model in sorted(glob.glob("models/*.gptqm")):
    name = os.path.basename(model)[:-len(".gptqm")]
    found = [p for p in glob.glob(f"results/{glob.escape(name)}-*.json") if re.fullmatch(re.escape(name) + r"-\d+\.json", os.path.basename(p))]
    reports = sorted((json.load(open(p)) for p in found), key=lambda r: r["prompt_tokens"])
    if not reports:
        continue
    with open(f"results/{name}.json", "w") as f:
        json.dump({"contexts": [r["prompt_tokens"] for r in reports], "device": reports[0].get("device"), "results": reports}, f, indent=1)
    for report in reports:
        for r in report["results"]:
            memory = r.get("device_bytes", r["resident_bytes"])
            rows.append(f"| {name} | {report['prompt_tokens']} | {r['decode_tokens_per_s']:.1f} | {r['prefill_tokens_per_s']:.0f} | "
                        f"{r['decode_gb_per_s']:.0f} | {r['read_share']:.0%} | {memory / 2**30:.2f} | {r['load_ms'] / 1e3:.2f} | {r.get('code', '')} |")
table = "\n".join(["| model | context | decode, tokens/s | prefill, tokens/s | GB/s | of reading | memory, GiB | load, s | code |",
                   "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"] + rows)
with open("results/table.md", "w") as f:
    f.write(table + "\n")
print(table)
PYTHON
  exit $failed
fi

folder=${1:?where to}
shift
checkpoints=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  checkpoints+=("$1")
  shift
done
[ $# -eq 0 ] || shift
[ ${#checkpoints[@]} -gt 0 ] || { echo "gpu_model.sh: error: expected a checkpoint to compile" >&2; exit 1; }
build=$(realpath "${GPTQ_BUILD:-$(dirname "$0")/../build}")
mkdir -p "$folder/models"
cmake --install "$build" --component runtime --prefix "$folder" --strip >/dev/null
cp "$0" "$folder/measure.sh"
for checkpoint in "${checkpoints[@]}"; do
  name=$(basename "$(realpath "$checkpoint")")
  echo "compiling $name"
  "$build/bin/gptq-compile" "$checkpoint" "--target=${GPTQ_TARGET:-nvvm:sm_90a}" --quiet \
    -o "$folder/models/$name.gptqm" "$@"
done
echo "now run $folder/measure.sh where the GPU is"
