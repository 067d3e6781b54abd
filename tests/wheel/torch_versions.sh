#!/usr/bin/env bash
# One binary under several versions of torch: built once, with the pinned one, and then tried with each, in an
# environment of its own that is removed again, and beside a front built for it. TORCH_VERSIONS says which.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
PYTHON=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
pip=(-m pip --quiet --disable-pip-version-check --no-input)
numpy=$(grep -E '^numpy==' requirements-dev.txt)
needs=(hypothesis mpmath pytest pytest-timeout scipy "setuptools>=77.0.3")
source=$PWD

"$PYTHON" -m venv "$work/build"
"$work/build/bin/python" "${pip[@]}" install -r <(grep -E '^(torch|numpy|setuptools)==' requirements-dev.txt)
VAE_FAST_NATIVE=1 VAE_FAST_FRONT=0 "$work/build/bin/python" "${pip[@]}" wheel --no-build-isolation --no-deps --wheel-dir "$work" .
rm -rf -- "$work/build"
cp -r tests pyproject.toml "$work/"
cd "$work"
for version in ${TORCH_VERSIONS:-2.11.0 2.14.1}; do
  echo "== torch $version"
  "$PYTHON" -m venv "$work/env"
  "$work/env/bin/python" "${pip[@]}" install "torch==$version" -r <(echo "$numpy") "${needs[@]}"
  "$work/env/bin/python" "${pip[@]}" install --no-deps --no-index "$work"/vae_fast-*.whl
  package=$(cd / && "$work/env/bin/python" -c 'import vae_fast; print(vae_fast.__path__[0])')
  (cd "$source" && VAE_FAST_FRONT=only "$work/env/bin/python" setup.py -q build_ext \
    --build-temp "$work/temp" --build-lib "$work/front")
  cp "$work"/front/vae_fast/_front_*.so "$package/"
  rm -rf -- "$work/front" "$work/temp"
  "$work/env/bin/python" -c 'import torch, vae_fast as vf; n = vf.backends()["native"]; print(torch.__version__, n.reason or "native", n.front); assert n.available and n.front == "compiled"'
  "$work/env/bin/pytest" -q -k "not reference" tests/backends/test_{native,registration,threads,front,front_nodes}.py \
    tests/operators/test_{rsample_kl,bernoulli_log_prob,gradient_in_forward,layouts,compiled}.py
  rm -rf -- "$work/env"
done
