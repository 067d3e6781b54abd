#!/usr/bin/env bash
# An sdist of this folder into FOLDER, with a Python that has build and setuptools. With SOURCE_DATE_EPOCH its bytes are
# a function of the sources alone. Arguments: PYTHON FOLDER.
set -euo pipefail
folder=$(mkdir -p "$2" && cd "$2" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
"$1" -m build --no-isolation --sdist --outdir "$folder" .
[[ -z ${SOURCE_DATE_EPOCH:-} ]] || "$1" tests/wheel/even_sdist.py "$folder"/vae_fast-*.tar.gz
