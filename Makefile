# `make train` and `make test` work on a machine that has Python 3.11 to 3.13 and make, nothing else:
# each makes .venv, installs what it needs, and does its job.
PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
# Neighbours share fixtures and compiled shapes: each process takes a stretch, and steals at the end.
# Compiled modules are kept, whatever the environment says: subprocesses and the second backend start sooner.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -q -n 2 --dist worksteal
# The files that have tests of every backend: the others would only be imported.
EVERY_BACKEND = $(shell grep --recursive --files-with-matches --include='test_*.py' every_backend tests)
# XLA need not optimise what runs once.
XLA_FAST_COMPILATION := --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true
# JAX compiles each shape once for all processes and all tests.
JAX_CACHE := JAX_COMPILATION_CACHE_DIR="$(CURDIR)/.venv/jax_cache" \
	JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1

.PHONY: train test test-fast wheel-test notebooks lint docs clean

train: .venv/installed
	$(BIN)/python scripts/train_cifar10.py $(ARGS)

test: .venv/installed-test
	$(JAX_CACHE) XLA_FLAGS="$(XLA_FAST_COMPILATION)" $(PYTEST)
	@# The tests marked `every_backend` once more on each other backend that is installed.
	@for backend in jax torch; do \
		if $(BIN)/python -c "import $$backend" 2>/dev/null; then \
			echo "the tests of every backend on $$backend:"; \
			KERAS_BACKEND=$$backend $(JAX_CACHE) XLA_FLAGS="$(XLA_FAST_COMPILATION)" $(PYTEST) \
				-m "every_backend and not parity and not exhaustive" $(EVERY_BACKEND) || exit 1; \
		fi; \
	done

# Builds the wheel, installs it into a venv of its own with all that it requires, and uses it elsewhere.
wheel-test: | .venv/bin/python
	rm -rf build
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir build/wheel .
	test -x .venv-wheel/bin/python || $(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python -m pip install --quiet build/wheel/*.whl
	.venv-wheel/bin/python -m pip install --quiet --no-deps --force-reinstall build/wheel/*.whl
	tools/wheel_test.sh .venv-wheel/bin

# A first verdict on every module: without what is marked `slow`, on TensorFlow alone.
test-fast: .venv/installed-test
	XLA_FLAGS="$(XLA_FAST_COMPILATION)" $(PYTEST) -m "not slow and not parity and not exhaustive"

# Runs the notebooks, and keeps in them what they show.
notebooks: .venv/installed-test
	$(BIN)/python notebooks/run.py

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation as a site in site/. A broken link is an error.
docs: .venv/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

clean:
	rm -rf .venv .venv-wheel build site *.egg-info

.venv/bin/python:
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info < (3, 14); \
		sys.exit(not ok and "vit_tf needs Python 3.11 to 3.13, and $(PYTHON) is " + sys.version.split()[0] \
		+ ": say which to use, for example `make test PYTHON=python3.12`")'
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml | .venv/bin/python
	@echo "installing into .venv: TensorFlow is a download of some 600 MB the first time"
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

.venv/installed-test: pyproject.toml | .venv/bin/python
	@echo "installing into .venv: TensorFlow is a download of some 600 MB the first time"
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@ .venv/installed

# Only the documentation tools: the reference is made from the source, without TensorFlow.
.venv/installed-docs: pyproject.toml | .venv/bin/python
	$(BIN)/python -c 'import tomllib; extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]; \
		print(*extras["docs"], sep="\n")' > .venv/docs.txt
	$(BIN)/python -m pip install --quiet --requirement .venv/docs.txt
	@touch $@
