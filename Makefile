# The steps of .ci/run one by one, in the environment that is active. `make install` comes first; `make check` runs all.
SHELL := bash
.PHONY: install lint example test64 test docs dist check

install:
	python -m pip install -e ".[dev,docs]"

lint:
	ruff check
	ruff format --check
	mypy

example:
	python examples/random_slopes.py

test64:
	JAX_ENABLE_X64=1 python -m pytest -q -m "not slow and not own_width" tests/{numerics,transforms,runtime,models} tests/test_{functional,result}.py tests/{inference/test_prediction,many/test_lanes}.py

test:
	python -m pytest

docs:
	sphinx-build -W --keep-going -q -b html docs build/site

dist:
	python -m build
	python -m twine check --strict dist/*

check:
	.ci/run
