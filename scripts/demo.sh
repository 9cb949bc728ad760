#!/usr/bin/env bash
# From nothing to a story: installs what is missing, builds the compiler and the
# runtime, compiles the small checkpoint that comes with the project and lets it
# tell. What is already there is not made again.
set -euo pipefail
cd "$(dirname "$0")/.."

checkpoint=examples/stories260K-gptq-4bit-g32
model=build/stories260K.gptqm

bash scripts/setup.sh
# Without this ccache keeps nothing that uses a precompiled header.
export CCACHE_SLOPPINESS=pch_defines,time_macros
[ -f build/build.ninja ] || cmake --preset release >/dev/null
cmake --build --preset release --target gptq-compile gptq-run

if [ ! -f "$model" ] || [ -n "$(find "$checkpoint" build/bin/gptq-compile -newer "$model" -print -quit)" ]; then
  build/bin/gptq-compile "$checkpoint" --target=cpu:native -o "$model"
fi
echo
build/bin/gptq-run "$model" --prompt "Once upon a time" --max-tokens 300 --temperature 0.3 --top-p 0.9 --seed 21
