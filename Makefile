# `make` alone lists the targets.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.stamp
RUN    ?= runs/demo
WORKERS ?= 2
# Test processes share the cores; more threads in each only get in each other's way.
THREADS := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 NUMBA_NUM_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help setup demo test quick check docs bench torture release audit gpu-bundle clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP)  ## install everything into .venv (PYTHON=python3.12, TORCH=cpu or TORCH=usual choose)

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "no $(PYTHON) found; install Python 3.11 or newer, or run make with PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("selfseg needs Python 3.11 or newer, but $(PYTHON) is %d.%d; run make with PYTHON=/path/to/a/newer/python3" % v[:2])'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) can't make environments; install its venv module (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python tools/cpu_torch.py constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,demo]'
	@touch $@

demo: $(STAMP)  ## train, cluster and picture in minutes on a CPU (IMAGES=folder, RUN=runs/demo)
	$(BIN)/python examples/demo.py $(if $(IMAGES),--images "$(IMAGES)") --out "$(RUN)"

test: $(STAMP)  ## the tests (WORKERS=2 processes)
	$(THREADS) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

quick: $(STAMP)  ## the tests that take less than half a second each, in a minute; the others are marked slow
	$(THREADS) $(BIN)/python -m pytest -n $(WORKERS) -m 'not slow' -o addopts='-q --import-mode=importlib' tests

check: $(STAMP)  ## lint, format, types, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/typos

docs: $(STAMP)  ## this documentation as a site, in build/site; a broken link is an error
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "open build/site/index.html"

bench: $(STAMP)  ## every benchmark, one after the other, into benchmarks/results/
	$(BIN)/python benchmarks/run.py

torture: $(STAMP)  ## attempts to break it, see docs/trust.md (PART=name for one of them, QUICK=1 for the quick half)
	$(THREADS) $(BIN)/python torture/run.py $(if $(PART),--part $(PART)) $(if $(QUICK),--quick)

release: $(STAMP)  ## sdist, wheel, bill of materials and their sums, in dist/; built twice and compared, nothing is uploaded
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[release]'
	$(BIN)/python tools/release.py

audit: $(STAMP)  ## known vulnerabilities of the pinned versions (asks PyPI, or OSV), and licences of what is installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[release]'
	$(BIN)/python tools/licences.py
	$(BIN)/python tools/audit.py

gpu-bundle: $(STAMP)  ## what benchmarks/gpu.py needs on a machine without a network, into build/ (DATA=folder of images)
	$(BIN)/python benchmarks/gpu_bundle.py $(if $(DATA),--data "$(DATA)")

clean:  ## remove the environment, builds and caches (never runs/)
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
	find src tests benchmarks examples torture -name __pycache__ -type d -prune -exec rm -rf {} +
