#!/usr/bin/env bash
# The package beside the libraries that its users have, in an environment of its own that is removed again. PYTHON is
# the interpreter to make it with; arguments go to pytest. What is not installed here is not fetched later.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
venv=build/integrations-venv
trap 'rm -rf -- "$venv"' EXIT
"${PYTHON:-python3}" -m venv "$venv"
pip() { "$venv/bin/python" -m pip --quiet --disable-pip-version-check --no-input "$@"; }
pip install -r requirements-integrations.txt
VAE_FAST_NATIVE=1 VAE_FAST_CUDA=0 pip install --no-build-isolation --no-deps .
export HF_HUB_OFFLINE=1 WANDB_MODE=offline
# pytest, and not python -m pytest: that would import the package from this folder.
"$venv/bin/pytest" -q tests/integrations "$@"
