#!/usr/bin/env bash
# What a release uploads, into dist/: the sdist and the wheel for CPUs, built and audited twice from clones of this commit
# (tests/wheel/run.sh), the same bytes both times; where there is nvcc, the wheel with CUDA kernels too, once, since that
# takes longest; then each wheel in environments of its own, in which it trains, judges and checks itself. PYTHON is the
# interpreter to make environments with; PYTHONS, those that the wheel has a front for and is tried with; TORCHES, the
# versions of torch that the wheel for CPUs is tried with. TRY=1 does the same of a commit that is no release.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
PYTHON=$("${PYTHON:-python3}" -c 'import sys; print(sys.executable)')
export PYTHON PYTHONS=${PYTHONS:-$PYTHON}
"$PYTHON" tests/release/ready.py . || [[ ${TRY:-0} == 1 ]] || exit 1
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT

SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
for build in first second; do
  echo "== the $build build"
  git clone --quiet . "$work/$build"
  "$work/$build/tests/wheel/run.sh"
done
"$PYTHON" tests/release/same.py "$work/first/dist" "$work/second/dist"
for python in $PYTHONS; do
  for torch in ${TORCHES:-2.11.0 2.13.0 2.14.1}; do
    PYTHON=$python tests/release/smoke.sh "$work"/first/dist/vae_fast-*.whl "$torch"
  done
done
if command -v nvcc >/dev/null; then
  echo "== the CUDA kernels"
  "$work/first/tests/cuda_build/run.sh" "$PYTHON" "$work/cuda" "$work/with-cuda"
  tests/release/smoke.sh "$work"/with-cuda/vae_fast-*.whl "$(sed -n 's/^torch==//p' requirements-cuda.txt)"
  cp "$work"/with-cuda/vae_fast-*.whl "$work/first/dist/"
else
  echo "there is no nvcc: no wheel with CUDA kernels"
fi
rm -rf dist
cp -r "$work/first/dist" dist
(cd dist && sha256sum -- *)
