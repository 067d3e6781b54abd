#!/usr/bin/env bash
# The oldest Triton that the kernels are for: interpreted, compiled ahead of time, and launched. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=build/triton-venv
trap 'rm -rf -- "$venv"' EXIT
"${PYTHON:-python3}" -m venv "$venv"
pip() { "$venv/bin/python" -m pip --quiet --disable-pip-version-check --no-input "$@"; }
pip install -r requirements-dev.txt
# Its interpreter takes scalars from arrays of one element, which newer versions of numpy refuse.
pip install triton==3.6.0 numpy==2.2.6
export PYTHONPATH=.:tests
echo "== triton 3.6.0"
tests() { "$venv/bin/python" -m pytest -q -p no:benchmark -n "${JOBS:-2}" --dist worksteal "$@"; }
tests tests/backends/test_triton_compiled.py tests/backends/test_triton_launch.py "$@"
TRITON_INTERPRET=1 tests -W ignore::DeprecationWarning tests/interpreted "$@"
