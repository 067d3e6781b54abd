#!/usr/bin/env bash
# Builds the extension with its CUDA kernels in an environment of its own, which it removes, and looks at what came out
# (check.py). No GPU is needed. Arguments: the Python to make the environment from, the folder to build in.
set -euo pipefail
python=$1 build=$2
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
mkdir -p "$build"
trap 'rm -rf -- "$build"' EXIT
echo "== the environment"
"$python" -m venv "$build/venv"
"$build/venv/bin/python" -m pip --quiet --disable-pip-version-check --no-input install -r requirements-cuda.txt
echo "== the build"
start=$SECONDS
# What ptxas says of registers and spills comes with the build's output.
export VAE_FAST_NATIVE=1 VAE_FAST_CUDA=1 VAE_FAST_WERROR=1 NVCC_APPEND_FLAGS="-Xptxas=-v"
if ! "$build/venv/bin/python" setup.py build --build-base "$build/made" >"$build/log" 2>&1; then
  tail -n 40 "$build/log"
  exit 1
fi
echo "built in $((SECONDS - start)) s"
lib=$(dirname "$(dirname "$(find "$build/made" -name '_cuda.abi3.so' -path '*/lib*' -print -quit)")")
PYTHONPATH="$lib" "$build/venv/bin/python" -P tests/cuda_build/check.py "$build/log" 2>&1
