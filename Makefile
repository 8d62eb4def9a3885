## make reproduce   set up, then the report's comparison and its page   (BUDGET=quick|hour|full DATA=... OUT=runs)
## make test        set up, then lint, types and tests
## make lint        set up, then lint and types alone
## make oldest      set up, then the layers' tests with the oldest torch, torchvision and timm that pyproject.toml admits
## make tensorflow  set up, then the Keras layer's tests on TensorFlow, which is installed beside .venv, not into it
## make sanitize    set up, then the kernels' tests under AddressSanitizer and UndefinedBehaviorSanitizer
## make zoo         set up, then convert every model of torchvision and timm: docs/zoo.md   (MINUTES=... to stop early)
## make kills       set up, then every test of kill -9; a sweep is killed at KILLS=50 random moments
## make figures     set up, then write the figures of README and docs from the records in results/
## make gpu         tests and benchmarks on a GPU into one file, without the environment   (OUT=gpu.json FOR=9m EACH=4m ONLY="tests bench" COMMIT=...)
## make campaign    set up, then the runs that the published answer still needs   (DATA=... OUT=campaign FOR=9m to stop after that time)
## make clean       remove the environment and every cache
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BUDGET ?= quick
OUT ?= runs
KILLS ?= 50

.PHONY: reproduce test lint figures campaign gpu oldest tensorflow sanitize zoo kills clean setup
.DEFAULT_GOAL := help

.PHONY: help
help:
	@sed -n 's/^## //p' Makefile

setup: build/kernels.ready

# Made anew only when the requirements change.
$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'evonorm needs Python 3.11 or newer; try make PYTHON=python3.12')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# Made anew when their sources change, and tried again as long as they could not be built: a build that failed leaves no
# kernels.ready, and no library of older sources. Without a compiler everything works, slower.
build/kernels.ready: CMakeLists.txt $(wildcard src/evonorm/layers/kernels/cpu/csrc/*) $(VENV)/ready
	@if $(call build,build/kernels) && $(BIN)/cmake --install build/kernels --prefix src; then touch $@; else \
	  rm -rf build/kernels $@ src/evonorm/layers/kernels/cpu/evonorm_kernels.*; \
	  echo "evonorm: the kernels could not be built (above is why); the layers are composed of tensor operations," \
	    "and the next make tries again"; fi

build = PATH="$(CURDIR)/$(BIN):$$PATH" cmake -S . -B $(1) -G Ninja --log-level=WARNING $(2) && $(BIN)/cmake --build $(1)

reproduce: setup
	$(BIN)/evonorm reproduce --budget $(BUDGET) --out "$(OUT)" $(if $(DATA),--data "$(DATA)")

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Keras has one backend a process: torch in the first, JAX in the second.
test: lint
	$(BIN)/pytest -n auto --dist worksteal
	KERAS_BACKEND=jax $(BIN)/pytest tests/keras/test_layer.py tests/keras/test_models.py

# Tests that need something newer skip themselves, with the reason. That Triton's interpreter takes scalars out of arrays in a way
# that NumPy warns of, and since 2.4 refuses. $(PYTHON) must be one that this torch was built for.
oldest: build/oldest/ready build/kernels.ready
	PYTHONPATH=src build/oldest/bin/python -m pytest tests/layers -W "ignore:Conversion of an array with ndim"

OLDEST = import tomllib, pathlib; p = tomllib.loads(pathlib.Path('pyproject.toml').read_text())['project']; \
  print(*(r.replace('>=', '==') for r in p['dependencies'] + p['optional-dependencies']['lab'] + p['optional-dependencies']['timm'] \
  if r.startswith(('torch', 'timm'))))

build/oldest/ready: pyproject.toml
	$(PYTHON) -m venv --clear build/oldest
	build/oldest/bin/python -m pip install --quiet $$($(PYTHON) -c "$(OLDEST)") 'numpy<2.4' pytest hypothesis
	touch $@

# Beside .venv, since TensorBoard and others behave differently where TensorFlow is. What stands without its dependencies
# asks for the package `tensorflow`.
tensorflow: build/tensorflow/ready build/kernels.ready
	KERAS_BACKEND=tensorflow build/tensorflow/bin/python -m pytest tests/keras

build/tensorflow/ready: constraints.txt $(VENV)/ready
	$(PYTHON) -m venv --clear --without-pip build/tensorflow
	$(BIN)/python -c "import sysconfig; print(f'import site; site.addsitedir({sysconfig.get_path(\"purelib\")!r})')" \
	  > "$$(build/tensorflow/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/beside.pth"
	$(BIN)/python -m pip --python build/tensorflow/bin/python install --quiet --constraint constraints.txt tensorflow-cpu
	$(BIN)/python -m pip --python build/tensorflow/bin/python install --quiet --constraint constraints.txt --no-deps \
	  tf_keras keras-cv-attention-models
	touch $@

# Python itself is not built with sanitizers, so they are loaded before it, and leaks of its own are not looked for.
sanitize: setup
	$(call build,build/sanitize,-DEVONORM_SANITIZE=address$(comma)undefined)
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0 \
	  UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 EVONORM_KERNELS=build/sanitize/evonorm_kernels.so \
	  $(BIN)/pytest -n auto tests/layers/test_kernels.py -k "not compiled"

# Goes on where it was stopped.
zoo: setup
	$(BIN)/python -m tests.layers.conversion.zoo $(if $(MINUTES),--minutes $(MINUTES))

campaign: setup
	$(BIN)/python -m benchmarks.campaign $(if $(DATA),--data "$(DATA)") $(if $(filter-out runs,$(OUT)),--out "$(OUT)") $(if $(FOR),--for $(FOR))

# Of the machine as it is: no environment is made, nothing is fetched.
gpu:
	@$(PYTHON) -c "import torch" 2>/dev/null || \
	  { echo "make gpu: $(PYTHON) has no torch; name one that has, as in: make gpu PYTHON=.venv/bin/python"; exit 2; }
	PYTHONPATH=src $(PYTHON) -m benchmarks.gpu $(if $(filter-out runs,$(OUT)),--out "$(OUT)") $(if $(FOR),--for $(FOR)) \
	  $(if $(EACH),--each $(EACH)) $(if $(ONLY),--only $(ONLY)) $(if $(COMMIT),--commit $(COMMIT))

figures: setup
	$(BIN)/python -m benchmarks.figures

kills: setup
	EVONORM_TEST_KILLS=$(KILLS) $(BIN)/pytest -m "" -k "kill_9 or the_death_of" tests/lab

comma := ,

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
