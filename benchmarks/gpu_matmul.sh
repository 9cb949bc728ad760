#!/usr/bin/env bash
# Measures and checks generated matmuls on a GPU that the compiler never sees.
#
#   benchmarks/gpu_matmul.sh FOLDER [speed] [check]    compiles, on this machine
#   FOLDER/measure.sh [gptq-bench's options]           measures, on that one
#
# FOLDER then holds all that is needed there: layers, programs and their
# libraries. It is large, but its codes repeat: `zstd --long=27` or `xz` make it
# small. Results go to FOLDER/results, a table and a JSON file for each folder
# of layers. `speed` (the default) is the shapes of known models, 4 bits in
# groups of 128; `check` every kind of quantization on shapes that divide
# nothing. Compiled for GPTQ_TARGET, by default nvvm:sm_90a, by the build in
# GPTQ_BUILD, by default build.
set -euo pipefail

if [ "$(basename "$0")" = measure.sh ]; then
  cd "$(dirname "$0")"
  mkdir -p results
  failed=0
  for layers in layers/*; do
    name=$(basename "$layers")
    echo "== $name"
    case $name in
      speed*) rows=1,2,4,8,16,32,64; samples=(--samples 21) ;;
      *) rows=1,2,3,7,8,9,16,17,32,33,64,100; samples=(--samples 11 --seconds 0) ;;
    esac
    bin/gptq-bench matmul --read "$layers" --m "$rows" "${samples[@]}" \
      --json "results/$name.json" "$@" 2>&1 | tee "results/$name.txt" || failed=1
  done
  exit $failed
fi

folder=${1:?where to}
shift
[ $# -gt 0 ] || set -- speed
build=$(realpath "${GPTQ_BUILD:-$(dirname "$0")/../build}")
target=${GPTQ_TARGET:-nvvm:sm_90a}
mkdir -p "$folder"
cmake --install "$build" --component runtime --prefix "$folder" --strip >/dev/null
cp "$0" "$folder/measure.sh"

compile() {
  echo "compiling $1"
  "$build/bin/gptq-bench" matmul --target "$target" --write "$folder/layers/$1" "${@:2}"
}

for kind in "$@"; do
  case $kind in
    speed)
      compile speed --bits 4 --group 128 \
        --shape 4096x4096,11008x4096,4096x11008,12288x4096,8192x8192,28672x8192,8192x28672 ;;
    check)
      for bits in 4 8; do
        for group in -1 32 64 128; do
          for zero in "" --asym; do
            for order in "" --act-order; do
              compile "check-w$bits-g$group$zero$order" --bits "$bits" --group "$group" $zero $order \
                --shape 512x4096,4095x512,172x4097,256x10944,4096x172
            done
          done
        done
      done ;;
    *) echo "gpu_matmul.sh: expected speed or check, found '$kind'" >&2; exit 1 ;;
  esac
done
echo "now run $folder/measure.sh where the GPU is"
