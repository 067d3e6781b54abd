#!/usr/bin/env bash
# A wheel as a user has it: installed with its extra [train], the pinned versions and a torch into an environment of its
# own, far from the sources and without a compiler. Arguments: WHEEL TORCH. PYTHON is the interpreter to make the
# environment with.
set -euo pipefail
wheel=$(realpath "$1") torch=$2
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
# What a torch needs itself, it says: its own Triton, and an older setuptools.
sed "s/^torch==.*/torch==$torch/; /^triton==/d; /^setuptools==/d" requirements-dev.txt >"$work/pins.txt"
cd "$work"
"${PYTHON:-python3}" -m venv env
env/bin/python -m pip --quiet --disable-pip-version-check --no-input install --constraint pins.txt "vae_fast[train] @ file://$wheel"
vae_fast() { PATH=/nonexistent env/bin/python -W error::DeprecationWarning:vae_fast -m vae_fast "$@"; }
vae_fast info
vae_fast info --json | env/bin/python -c '
import json, sys
content = json.load(sys.stdin)
assert content["backends"]["native"]["available"], content
assert set(content["front"].split("; on CUDA: ")) == {"compiled"}, content
assert None not in content["train_extra"].values(), content'
vae_fast train --data digits --epochs 2 --threads 1 --out run
vae_fast train --config run/config.toml --out again --no-plots
cmp run/checkpoint-*.safetensors again/checkpoint-*.safetensors
vae_fast train --resume --epochs 3 --out run
vae_fast evaluate run --n-samples 50 --elbo-samples 5 --gap-steps 5
vae_fast check --dtype float32 --layout contiguous --inputs ordinary
echo "the wheel trains, judges and checks itself beside torch $torch: $(basename "$wheel")"
