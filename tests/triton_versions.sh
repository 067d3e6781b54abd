#!/usr/bin/env bash
# The oldest Triton that the kernels are for: interpreted, and compiled ahead of time. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=build/triton-venv
trap 'rm -rf -- "$venv"' EXIT
"${PYTHON:-python3}" -m venv "$venv"
pip() { "$venv/bin/python" -m pip --quiet --disable-pip-version-check --no-input "$@"; }
pip install -r requirements-dev.txt
pip install triton==3.6.0
export PYTHONPATH=.:tests
echo "== triton 3.6.0"
# Its interpreter rounds a fused multiply-add twice: what that costs is not the kernels'.
"$venv/bin/python" -m pytest -q tests/test_triton_compiled.py "$@"
TRITON_INTERPRET=1 "$venv/bin/python" -m pytest -q tests/interpreted "$@"
