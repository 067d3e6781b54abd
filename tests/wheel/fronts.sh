#!/usr/bin/env bash
# The compiled front for each pair of Python and torch, into FOLDER: a wheel carries all of them, and an import takes the
# one that fits. Argument: FOLDER. PYTHONS are interpreters, TORCH_VERSIONS what to build against, which has to be
# downloaded.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
mkdir -p "$1"
folder=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
pip=(-m pip --quiet --disable-pip-version-check --no-input)
for python in ${PYTHONS:-${PYTHON:-python3}}; do
  for version in ${TORCH_VERSIONS:-2.11.0 2.12.1 2.13.0 2.14.1}; do
    "$python" -m venv "$work/env"
    "$work/env/bin/python" "${pip[@]}" install "torch==$version" "setuptools>=77.0.3" numpy
    VAE_FAST_CUDA=0 VAE_FAST_FRONT=only "$work/env/bin/python" setup.py -q build_ext --build-temp "$work/temp" --build-lib "$work/lib"
    cp "$work"/lib/vae_fast/_front_*.so "$folder/"
    rm -rf -- "$work/env" "$work/temp" "$work/lib"
  done
done
ls "$folder"
