# Two commands for a new user: `make demo` and `make test`. Both set up .venv by themselves and reuse it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Two test processes with one thread each are faster on two cores than one process with two threads.
JOBS ?= 2

.PHONY: demo test lint types wheel bench notebooks clean

demo: $(VENV)/.installed
	@start=$$(date +%s); \
	$(BIN)/pipelines forecast; code=$$?; \
	echo "make demo took $$(( $$(date +%s) - start )) s"; exit $$code

test: $(VENV)/.dev
	@start=$$(date +%s); \
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(JOBS) --dist loadfile tests; code=$$?; \
	echo "make test took $$(( $$(date +%s) - start )) s"; exit $$code

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/pyright

wheel: $(VENV)/.dev
	rm -rf build dist
	$(BIN)/python -m build --wheel --outdir dist .
	$(BIN)/python tools/check_wheel.py dist/*.whl

bench: $(VENV)/.dev
	$(BIN)/pipelines bench kernels
	@for script in tests/performance/bench_*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

notebooks: $(VENV)/.dev
	$(BIN)/python tools/run_notebooks.py

clean:
	rm -rf build dist .hypothesis .ruff_cache

# The stamps depend on what is installed: nothing is done again while pyproject.toml stays the same.
$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q -e .
	touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(PIP) install -q -e '.[dev]'
	touch $@
