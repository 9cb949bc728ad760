#!/usr/bin/env bash
# Installs everything the project needs on a bare Debian 12: system packages
# through apt, and a Python environment with pinned packages in build/venv.
# Does nothing, quickly, where all of it is there.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(
  ca-certificates git cmake ninja-build ccache
  clang-22 lld-22 clang-format-22 libclang-rt-22-dev
  llvm-22-dev llvm-22-tools libmlir-22-dev mlir-22-tools liblld-22-dev
  nlohmann-json3-dev libxxhash-dev libcli11-dev libsentencepiece-dev
  libpcre2-dev libutf8proc-dev libgtest-dev zlib1g-dev libzstd-dev
  python3 python3-dev python3-venv
)

missing=()
for p in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing+=("$p")
done
if [ ${#missing[@]} -gt 0 ]; then
  sudo=''
  [ "$(id -u)" -eq 0 ] || sudo='sudo'
  $sudo apt-get update -qq
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

# The environment is made again when the list of pinned packages changes.
stamp=build/venv/requirements.stamp
if ! cmp -s scripts/requirements.txt "$stamp"; then
  mkdir -p build
  /usr/bin/python3 -m venv --clear build/venv
  build/venv/bin/pip install --quiet --disable-pip-version-check -r scripts/requirements.txt
  cp scripts/requirements.txt "$stamp"
fi
