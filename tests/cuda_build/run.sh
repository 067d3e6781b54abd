#!/usr/bin/env bash
# Builds the extension with its CUDA kernels in an environment of its own, which it removes: a wheel whose local version
# says which CUDA it is for. The wheel is audited and installed, what came out is looked at (check.py), and its
# instructions are counted (budget.py). No GPU is needed. Arguments: the Python to make the environment from, the folder
# to build in, and a folder for the wheel, which is otherwise removed too.
set -euo pipefail
python=$1 build=$2
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
keep=${3:+$(mkdir -p "$3" && cd "$3" && pwd)}
mkdir -p "$build"
build=$(cd "$build" && pwd)
trap 'rm -rf -- "$build"' EXIT
echo "== the environment"
"$python" -m venv "$build/venv"
PATH=$build/venv/bin:$PATH
pip=(python -m pip --quiet --disable-pip-version-check --no-input)
"${pip[@]}" install -r requirements-cuda.txt -r requirements-wheel.txt
variant=$(python -c 'import torch; print("cu" + torch.version.cuda.replace(".", ""))')
echo "== the build: +$variant"
start=$SECONDS
# What ptxas says of registers and spills comes with the build's output.
export VAE_FAST_NATIVE=1 VAE_FAST_CUDA=1 VAE_FAST_WERROR=1 NVCC_APPEND_FLAGS="-Xptxas=-v"
if ! python setup.py egg_info --egg-base "$build" --tag-build "+$variant" build --build-base "$build/made" \
  bdist_wheel --skip-build --bdist-dir "$build/bdist" --dist-dir "$build/raw" >"$build/log" 2>&1; then
  tail -n 40 "$build/log"
  exit 1
fi
echo "built in $((SECONDS - start)) s"
# torch brings its own libraries and CUDA's; the wheel must not.
auditwheel repair --exclude 'libtorch*' --exclude 'libc10*' --exclude 'libgomp*' --exclude 'libcudart*' \
  --plat "manylinux_2_34_$(uname -m)" --wheel-dir "$build/dist" "$build"/raw/*.whl
wheel=$(echo "$build"/dist/vae_fast-*.whl)
[[ $wheel == *+"$variant"-cp310-abi3-manylinux_2_*.whl ]] || { echo "not a wheel for $variant: $wheel" >&2; exit 1; }
check-wheel-contents "$wheel"
twine check --strict "$wheel"
"${pip[@]}" install --no-deps --no-index "$wheel"
# The fronts are for one Python each; the kernels are for all.
installed=$(cd "$build" && python -P -c 'import vae_fast; print(*vae_fast.__path__)')
abi3audit --strict --assume-minimum-abi3 3.10 "$installed"/_cpu.abi3.so "$installed"/_cuda.abi3.so
checks=$PWD/tests/cuda_build
(cd "$build" && python "$checks/check.py" log 2>&1 && python "$checks/budget.py" "$installed/_cuda.abi3.so")
[[ -z $keep ]] || cp "$wheel" "$keep/"
