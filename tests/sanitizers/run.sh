#!/usr/bin/env bash
# The suite under AddressSanitizer and UndefinedBehaviorSanitizer, the kernels' threads under ThreadSanitizer, and a
# race that must be found. Arguments: the environment's bin folder, the folder to build in.
set -euo pipefail
bin=$1 build=$2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$here"
CXX=${CXX:-g++}
rm -rf -- "$build"
mkdir -p "$build"

echo "== ThreadSanitizer"
flags=(-std=c++17 -O1 -g -fsanitize=thread -ffp-contract=off -Wno-psabi -pthread)
objects=()
for set in "baseline" "v3 -march=x86-64-v3" "v4 -march=x86-64-v4"; do
  read -r name march <<<"$set"
  [[ $name == baseline || $(uname -m) == x86_64 ]] || continue
  for source in csrc/cpu/*.cpp; do
    object="$build/$name-$(basename "$source" .cpp).o"
    objects+=("$object")
    # shellcheck disable=SC2086
    echo "$CXX" "${flags[@]}" -DVF_ISA="$name" ${march:-} -c "$source" -o "$object"
  done
done >"$build/compile.txt"
xargs -P "${JOBS:-2}" -I {} sh -c {} <"$build/compile.txt"
"$CXX" "${flags[@]}" tests/sanitizers/threads.cpp csrc/isa.cpp "${objects[@]}" -o "$build/threads"
for isa in baseline v3 v4; do
  VAE_FAST_CPU_ISA=$isa TSAN_OPTIONS=halt_on_error=1 "$build/threads"
done
if TSAN_OPTIONS=halt_on_error=1 "$build/threads" twice >"$build/race.log" 2>&1; then
  echo "the planted race was not found" >&2
  exit 1
fi
grep -q "WARNING: ThreadSanitizer: data race" "$build/race.log"
echo "the planted race was found"

echo "== AddressSanitizer and UndefinedBehaviorSanitizer"
VAE_FAST_NATIVE=1 VAE_FAST_SANITIZE=address,undefined "$bin/python" setup.py -q build --build-base "$build/asan"
# Ten times as many hostile calls as `make test` makes.
export VAE_FAST_HOSTILE_CALLS=20000
lib=$(dirname "$(dirname "$(find "$build/asan" -name '_cpu.abi3.so' -print -quit)")")
# The suite's own options come from pyproject.toml. pytest, and not python -m pytest: that would import the package
# from this folder.
LD_PRELOAD="$("$CXX" -print-file-name=libasan.so) $("$CXX" -print-file-name=libubsan.so)" \
  ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 \
  PYTHONPATH="$here/$lib" VAE_FAST_SANITIZED="$here/$lib" \
  "$bin/pytest" -q -p no:cacheprovider -p no:benchmark -n "${JOBS:-2}" --dist worksteal --timeout 1200 -k "not reference and not ompiled and not xported and not forward_mode" \
  tests/operators/test_{bernoulli_log_prob,gaussian_kl,gaussian_log_prob,negative_binomial_log_prob,rsample,rsample_kl}.py \
  tests/operators/test_{agreement,derivatives,dtypes,layouts,options,weights,gradient_in_forward,noise_bits,refusals}.py \
  tests/operators/test_{given_noise,passing_bounds,pos_weight,prior_forms,rsample_kl_prior,rsample_log_prob,streams,temperature}.py \
  tests/operators/test_{gaussian_mixture_log_prob,logistic_mixture_log_prob,mmd}.py \
  tests/backends/test_{native,threads,front,front_nodes,hostile_calls,hostile_pairs,storage_dtypes}.py "${@:3}"
rm -rf -- "$build"
