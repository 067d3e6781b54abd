#!/usr/bin/env bash
# Random calls of every GPU backend under compute-sanitizer: accesses, races in shared memory, uninitialised memory,
# barriers. Arguments: the Python to run; what follows goes to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
if ! command -v compute-sanitizer >/dev/null; then
  echo "compute-sanitizer, which the CUDA toolkit has, is not on the path" >&2
  exit 1
fi
# Each tensor its own allocation, so that an access beside one is seen.
export PYTORCH_NO_CUDA_MEMORY_CACHING=1 VAE_FAST_TEST_CASES="${VAE_FAST_TEST_CASES:-40}"
for tool in memcheck racecheck initcheck synccheck; do
  echo "== $tool"
  compute-sanitizer --tool "$tool" --error-exitcode 9 --target-processes all \
    "$1" -m pytest -q -p no:cacheprovider -m gpu --timeout 3000 tests/backends/test_gpu.py -k "definition or Noise" "${@:2}"
done
