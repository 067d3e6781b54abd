#!/usr/bin/env bash
# An sdist, a manylinux wheel of it in dist/, its audits, one that must fail, and a try where there is no compiler.
# PYTHON is the interpreter to make environments with. With SOURCE_DATE_EPOCH the bytes are a function of the sources and
# of the tools. Everything but dist/ is removed again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
PYTHON=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
pip=(-m pip --quiet --disable-pip-version-check --no-input)

"$PYTHON" -m venv "$work/build"
python=$work/build/bin/python
grep -E '^(torch|numpy|setuptools)==' requirements-dev.txt >"$work/pins.txt"
"$python" "${pip[@]}" install -r "$work/pins.txt" -r requirements-wheel.txt
PATH=$work/build/bin:$PATH

rm -rf dist
tests/wheel/sdist.sh "$python" "$work/sdist"
VAE_FAST_NATIVE=1 VAE_FAST_CUDA=0 VAE_FAST_FRONT=0 "$python" "${pip[@]}" wheel --no-build-isolation --no-deps --wheel-dir "$work/raw" "$work"/sdist/*.tar.gz
# torch brings its own libraries; the wheel must not.
repair=(auditwheel repair --exclude 'libtorch*' --exclude 'libc10*' --exclude 'libgomp*' --plat "manylinux_2_34_$(uname -m)")
"${repair[@]}" --wheel-dir "$work/abi3" "$work"/raw/*.whl
wheel=$(echo "$work"/abi3/vae_fast-*.whl)
[[ $wheel == *-cp310-abi3-manylinux_2_*.whl ]] || { echo "not an abi3 manylinux wheel: $wheel" >&2; exit 1; }
abi3audit --strict --verbose "$wheel"

# Nor may a library name the folder that it was built in: it would have other bytes elsewhere.
names_no_folder() {
  "$python" - "$1" "$PWD" "$(dirname "$work")/tmp." <<'END'
import sys, zipfile
wheel, *folders = sys.argv[1:]
with zipfile.ZipFile(wheel) as found:
    named = [name for name in found.namelist() if any(f.encode() in found.read(name) for f in folders)]
assert not named, f"these name the folder of the build: {named}"
END
}
names_no_folder "$wheel"

# The audit has to be able to fail: a copy of the library that asks for a symbol outside the stable ABI.
"$python" - "$wheel" "$work" <<'END'
import pathlib, subprocess, sys, zipfile
wheel, work = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
source = work / "planted.c"
source.write_text("extern void *_PyObject_GetDictPtr(void *); void *planted(void *o) { return _PyObject_GetDictPtr(o); }")
subprocess.run(["cc", "-shared", "-fPIC", "-o", work / "planted.so", source], check=True)
(work / "planted").mkdir()
with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(work / "planted" / wheel.name, "w") as new:
    for name in old.namelist():
        new.writestr(name, (work / "planted.so").read_bytes() if name.endswith(".so") else old.read(name))
END
if abi3audit --strict --verbose "$work"/planted/*.whl >"$work/planted.log" 2>&1; then
  echo "abi3audit did not find the planted symbol" >&2
  exit 1
fi
grep -q _PyObject_GetDictPtr "$work/planted.log" || { cat "$work/planted.log" >&2; exit 1; }
echo "abi3audit found the planted symbol"

# The fronts are for one Python each, and so come after that audit. auditwheel makes the list of files anew.
tests/wheel/fronts.sh "$work/fronts"
"$python" - "$work"/raw/*.whl "$work/fronts" <<'END'
import pathlib, sys, zipfile
with zipfile.ZipFile(sys.argv[1], "a", zipfile.ZIP_DEFLATED) as wheel:
    for front in sorted(pathlib.Path(sys.argv[2]).iterdir()):
        wheel.write(front, f"vae_fast/{front.name}")
END
"${repair[@]}" --wheel-dir dist "$work"/raw/*.whl
wheel=$(echo dist/vae_fast-*.whl)
names_no_folder "$wheel"
auditwheel show "$wheel"
cp "$work"/sdist/*.tar.gz dist/
check-wheel-contents "$wheel"
twine check --strict dist/*

# Torch and numpy alone, and no compiler.
"$PYTHON" -m venv "$work/user"
"$work/user/bin/python" "${pip[@]}" install -r <(grep -v '^setuptools' "$work/pins.txt")
"$work/user/bin/python" "${pip[@]}" install --no-deps --no-index "$PWD/$wheel"
cd "$work"
env PATH=/nonexistent "$work/user/bin/python" - <<'END'
import torch
import vae_fast as vf
native = vf.backends()["native"]
assert native.available, native.reason
assert native.front == "compiled", native.front
mu = torch.randn(7, 5, requires_grad=True)
z, kl = vf.rsample_kl(mu, 0.0, seed=1, backend="native")
(z.sum() + kl.sum()).backward()
assert mu.grad is not None
expected = vf.rsample(mu.detach(), 0.0, seed=1, backend="reference")
torch.testing.assert_close(z.detach(), expected)
END
env PATH=/nonexistent "$work/user/bin/python" -m vae_fast info
echo "the wheel works: $(basename "$wheel")"
