#!/usr/bin/env bash
# The conda recipe, rendered as rattler-build would build it, in an environment of its own that is removed again. Nothing
# is built: no channel is asked for the packages that it names. PYTHON is the interpreter to make the environment with.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/env"
"$work/env/bin/python" -m pip --quiet --disable-pip-version-check --no-input install -r requirements-conda.txt
"$work/env/bin/python" tests/conda/render.py conda
