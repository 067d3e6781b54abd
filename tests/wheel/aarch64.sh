#!/usr/bin/env bash
# The manylinux wheel for aarch64 Linux, cross-compiled on another processor from an sdist, into dist/; its audits; and a
# try of it under qemu's emulation, where qemu and Debian's packages are there. The headers and libraries are those of
# torch's wheel for aarch64, whose dependencies the try needs too: gigabytes, where pip's index has no torch for CPUs.
# PYTHON is the interpreter to build with, CXX and CC the cross compiler.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
PYTHON=${PYTHON:-python3}
export CXX=${CXX:-aarch64-linux-gnu-g++} CC=${CC:-aarch64-linux-gnu-gcc}
for compiler in "$CXX" "$CC"; do
  command -v "$compiler" >/dev/null ||
    { echo "there is no $compiler: install g++-aarch64-linux-gnu, as Debian names it, or set CXX and CC" >&2; exit 1; }
done
untried=
for program in apt-get dpkg qemu-aarch64; do
  command -v "$program" >/dev/null || [[ $program == qemu* && -n $(command -v qemu-aarch64-static) ]] || untried=$program
done
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
pip=(-m pip --quiet --disable-pip-version-check --no-input)

"$PYTHON" -m venv "$work/build"
python=$work/build/bin/python
grep -E '^(torch|numpy)==' requirements-dev.txt >"$work/pins.txt"
"$python" "${pip[@]}" install -r <(grep -E '^setuptools==' requirements-dev.txt) -r requirements-wheel.txt
PATH=$work/build/bin:$PATH

# pip asks for wheels of the tags that are named, and takes no older one for them.
target=("${pip[@]}" install --target "$work/target" --no-compile --only-binary :all: --platform manylinux2014_aarch64)
for minor in $(seq 17 34); do target+=(--platform "manylinux_2_${minor}_aarch64"); done
if [[ -z $untried ]]; then
  tests/wheel/aarch64_root.sh "$work/root"
  version=$("$work/root/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  "$python" "${target[@]}" --python-version "$version" -r "$work/pins.txt"
else
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  "$python" "${target[@]}" --python-version "$version" --no-deps -r <(grep '^torch' "$work/pins.txt")
fi

# A torch that this Python can import, with what the build asks of one: its version, headers and libraries.
mkdir -p "$work/stand_in/torch"
cp "$work/target/torch/version.py" "$work/stand_in/torch/__init__.py"
ln -s "$work"/target/torch/{include,lib} "$work/stand_in/torch/"
ln -s "$work"/target/torch-*.dist-info "$work/stand_in/"
export VAE_FAST_NATIVE=1 VAE_FAST_CUDA=0 _PYTHON_HOST_PLATFORM=linux-aarch64

# Kernels that were compiled before are taken from where they are kept.
tests/wheel/sdist.sh "$python" "$work/sdist"
mkdir -p build/kernels "$work/source/build"
ln -s "$PWD/build/kernels" "$work/source/build/kernels"
tar -xf "$work"/sdist/*.tar.gz -C "$work/source" --strip-components 1
PYTHONPATH=$work/stand_in VAE_FAST_FRONT=0 \
  "$python" "${pip[@]}" wheel --no-build-isolation --no-deps --wheel-dir "$work" "$work/source"
raw=$(echo "$work"/vae_fast-*-cp310-abi3-linux_aarch64.whl)
abi3audit --strict --verbose "$raw"

# The front for the Python that it is tried with: of its headers one is in a folder of the processor's.
if [[ -z $untried ]]; then
  include="-I$work/root/usr/include/python$version -idirafter $work/root/usr/include"
  suffix=$("$work/root/python" -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')
  (cd "$work/source" && CPPFLAGS=$include SETUPTOOLS_EXT_SUFFIX=$suffix PYTHONPATH=$work/stand_in \
    VAE_FAST_FRONT=only "$python" setup.py -q build_ext --build-temp "$work/temp" --build-lib "$work/front")
  "$python" - "$raw" "$work"/front/vae_fast/_front_*.so <<'END'
import pathlib, sys, zipfile
with zipfile.ZipFile(sys.argv[1], "a", zipfile.ZIP_DEFLATED) as wheel:
    wheel.write(sys.argv[2], f"vae_fast/{pathlib.Path(sys.argv[2]).name}")
END
fi
rm -f dist/vae_fast-*_aarch64.whl
# torch brings its own libraries; the wheel must not. auditwheel names no platform of another processor's, and finds it.
auditwheel repair --exclude 'libtorch*' --exclude 'libc10*' --exclude 'libgomp*' --plat auto --wheel-dir dist "$raw"
wheel=$(echo dist/vae_fast-*_aarch64.whl)
[[ $wheel == *-cp310-abi3-manylinux_2_*_aarch64.whl ]] || { echo "not a manylinux wheel for aarch64: $wheel" >&2; exit 1; }
auditwheel show "$wheel"
check-wheel-contents "$wheel"
twine check --strict "$wheel"

if [[ -n $untried ]]; then
  echo "the wheel was built and NOT tried: there is no $untried; $(basename "$wheel")"
  exit
fi
"$python" "${target[@]}" --python-version "$version" --no-deps --no-index "$PWD/$wheel"
tried=(env "PYTHONPATH=$work/target" OMP_NUM_THREADS=1 "$work/root/python")
cp tests/wheel/aarch64_try.py "$work/"
cd "$work"
"${tried[@]}" aarch64_try.py
"${tried[@]}" -m vae_fast info
"${tried[@]}" -m vae_fast check --backend native --dtype float32 --layout contiguous --inputs ordinary
echo "the wheel works under emulation: $(basename "$wheel")"
