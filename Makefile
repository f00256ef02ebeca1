PYTHON ?= python3
BIN := .venv/bin
# Each process would else compile every module anew, where the environment says so.
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test lint docs bench

# What the demo needs; what the tests need besides is several times as much.
.venv/package: pyproject.toml
	@echo "Installing TensorFlow and the rest into .venv: 2.8 GB, some minutes."
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/ready: .venv/package
	$(BIN)/pip install --quiet --editable '.[test]'
	touch $@

# What the benchmarks compare with. Two loaders cannot be installed beside ours (pyproject.toml).
.venv/bench: .venv/ready
	$(BIN)/pip install --quiet --editable '.[test,bench]'
	$(PYTHON) -m venv .venv/apart
	.venv/apart/bin/pip install --quiet litdata mosaicml-streaming torch==2.13.0 \
	  pycocotools pillow orjson psutil
	touch $@

demo: .venv/package
	$(BIN)/python examples/demo.py

test: .venv/ready
	$(BIN)/python -m pytest -n auto

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: .venv/bench
	$(BIN)/python benchmarks/run_all.py
	$(BIN)/python benchmarks/scale_out.py
