#!/usr/bin/env bash
# The kernels of csrc/cuda on this processor, under AddressSanitizer and UndefinedBehaviorSanitizer: all tests of the
# operators, and again under several schedules of their threads. Arguments: the environment's bin folder, the folder to
# build in; what follows goes to pytest.
set -euo pipefail
bin=$1 build=$2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$here"
CXX=${CXX:-g++}
rm -rf -- "$build"
"$bin/python" tests/cuda_host/build.py "$build/asan" address,undefined
"$bin/python" tests/cuda_host/build.py "$build/plain"
chosen="not reference and not ompiled and not xported and not forward_mode"

# pytest, and not python -m pytest: that would import the package from this folder.
suite() { "$bin/pytest" -q -p no:cacheprovider -p no:benchmark -n "${JOBS:-2}" --dist worksteal --timeout 3000 -k "$chosen" "$@"; }

echo "== all tests of the operators, under the sanitizers"
LD_PRELOAD="$("$CXX" -print-file-name=libasan.so) $("$CXX" -print-file-name=libubsan.so)" \
  ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0 UBSAN_OPTIONS=print_stacktrace=1 \
  PYTHONPATH="$here/$build/asan" VAE_FAST_TEST_CASES="${VAE_FAST_TEST_CASES:-2000}" \
  suite tests/backends/test_native.py tests/operators/test_{bernoulli_log_prob,gaussian_kl,gaussian_log_prob,negative_binomial_log_prob}.py \
  tests/operators/test_{rsample,rsample_kl,gradient_in_forward,kept_gradients,noise_bits,scale_range}.py \
  tests/operators/test_{agreement,derivatives,dtypes,layouts,options,weights}.py \
  tests/operators/test_{given_noise,passing_bounds,pos_weight,prior_forms,rsample_kl_prior,rsample_log_prob,streams,temperature}.py \
  tests/operators/test_{gaussian_mixture_log_prob,logistic_mixture_log_prob,mmd}.py tests/backends/test_hostile_pairs.py "${@:3}"

for schedule in reverse 1 2; do
  echo "== schedule $schedule"
  PYTHONPATH="$here/$build/plain" VF_HOST_SCHEDULE=$schedule VAE_FAST_TEST_CASES="${VAE_FAST_TEST_CASES:-2000}" \
    suite tests/backends/test_native.py "${@:3}"
done
echo "== more pieces of work than blocks"
PYTHONPATH="$here/$build/plain" "$bin/python" tests/cuda_host/splits.py large
echo "== every split, the same bits under every schedule, and planted faults"
VAE_FAST_CUDA_HOST="$here/$build/plain" "$bin/python" -m pytest -q -m "slow or not slow" tests/backends/test_cuda_host.py "${@:3}"
rm -rf -- "$build"
