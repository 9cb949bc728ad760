#!/usr/bin/env bash
# Installs, builds and tests everything, under build/. The last line of the
# output is 'N passed, N failed'; the exit status is 0 when nothing failed.
#
#   GPTQ_SHARED_DATA    trained models and texts; tests that need them are
#                       skipped where there are none. Default: ../shared/data
#   GPTQ_FUZZ_SECONDS   how long each fuzzer runs. Default: 60
set -uo pipefail
cd "$(dirname "$0")/.."

# In braces, so that bash reads all of it first: a test run outlives edits.
{
data=$(realpath -m "${GPTQ_SHARED_DATA:-../shared/data}")
fuzz_seconds=${GPTQ_FUZZ_SECONDS:-60}
reports=build/reports
python=build/venv/bin/python

step() { printf '\n== %s\n' "$*"; }

# A suite that cannot even be built is one failure.
give_up() {
  echo "$1 failed"
  echo "0 passed, 1 failed"
  exit 1
}

step "Installing"
bash scripts/setup.sh || give_up "scripts/setup.sh"

step "Building"
# Without this ccache keeps nothing that uses a precompiled header.
export CCACHE_SLOPPINESS=pch_defines,time_macros
if [ -d "$data" ]; then
  echo "trained models: $data"
  export GPTQ_SHARED_DATA=$data
  cmake_data=$data
else
  echo "trained models: none in $data, tests that need them are skipped"
  unset GPTQ_SHARED_DATA
  cmake_data=
fi
cmake --preset release -DGPTQ_TEST_DATA="$cmake_data" >/dev/null &&
  cmake --build --preset release || give_up "the build"
cmake --preset fuzz >/dev/null &&
  cmake --build --preset fuzz --target gptq-fuzzers || give_up "the build of the fuzzers"

rm -rf "$reports"
mkdir -p "$reports"

# Runs one fuzzer on a copy of its seeds; its log ends with libFuzzer's
# statistics, and next to it stands the input that made it fail, if one did.
fuzz() {
  local subject=${1#gptq-fuzz-} seeds maker
  local folder=build/fuzz/runs/$subject
  rm -rf "$folder"
  mkdir -p "$folder/corpus"
  for seeds in test/fuzz/corpus/"$subject" runtime/test/fuzz/corpus/"$subject"; do
    [ -d "$seeds" ] && cp "$seeds"/* "$folder/corpus/"
  done
  for maker in test/fuzz/make_"${subject//-/_}"_corpus.py; do
    [ -f "$maker" ] && { "$python" "$maker" "$folder/corpus" || return; }
  done
  build/fuzz/bin/"$1" -max_total_time="$fuzz_seconds" -timeout=30 -print_final_stats=1 \
    -artifact_prefix="$folder/" "$folder/corpus" >"$folder/log" 2>&1
}

# Runs all fuzzers, two at a time, and notes which of them found something.
fuzz_all() {
  local name
  for name in $(cd build/fuzz/bin && ls -d gptq-fuzz-*); do
    while [ "$(jobs -rp | wc -l)" -ge 2 ]; do wait -n; done
    { fuzz "$name"; echo $? >"$reports/$name.status"; } &
  done
  wait
}

# The fuzzers run beside the tests: two processes, for as long as they may.
fuzz_all &
fuzzing=$!

step "lit"
/usr/lib/llvm-22/bin/lit -v --xunit-xml-output="$reports/lit.xml" build/test

step "GoogleTest"
ctest --test-dir build -j2 --output-on-failure --no-tests=error -E '^(lit|python-package)$' \
  --output-junit "$PWD/$reports/ctest.xml" | tail -n 40

step "pytest"
export GPTQ_BIN_DIR=$PWD/build/bin
# Two at a time: most tests compile a model.
"$python" -m pytest -n 2 -q -rs --tb=short -p no:cacheprovider -c test/pytest.ini test/unit test/e2e \
  --junitxml="$reports/pytest.xml"
PYTHONPATH=$PWD/build/python GPTQ_RUNTIME_TESTS=$PWD/build/bin/gptq-runtime-tests \
  "$python" -m pytest -q -rs --tb=short -p no:cacheprovider python-bindings/test \
  --junitxml="$reports/python-package.xml"

step "Fuzzers, ${fuzz_seconds} s each"
wait "$fuzzing"
"$python" scripts/sum_reports.py "$reports" build/fuzz/runs lit ctest pytest python-package
exit
}
