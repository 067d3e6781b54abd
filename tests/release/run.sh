#!/usr/bin/env bash
# What a release uploads, into dist/: the sdist and the wheel for CPUs, built and audited twice from clones of this commit
# (tests/wheel/run.sh), the same bytes both times; then the wheel with its extras in an environment of its own, in which
# it trains, judges and checks itself. PYTHON is the interpreter to make environments with; PYTHONS, those that the wheel
# has a front for. TRY=1 does the same of a commit that is no release.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
PYTHON=$("${PYTHON:-python3}" -c 'import sys; print(sys.executable)')
export PYTHON
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
tests/release/smoke.sh "$work"/first/dist/vae_fast-*.whl
rm -rf dist
cp -r "$work/first/dist" dist
echo "in dist/: $(cd dist && echo *)"
