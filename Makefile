# Two commands do everything: `make demo` and `make test`. Both create .venv and install into it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow faults lint benchmark clean

demo: $(VENV)/.installed
	$(BIN)/meliuscli search --budget 5e8

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow

# A campaign of faults: MINUTES=60 SEED=1 make faults writes reports/faults/faults.json, ONLY=redis KILLS=300 make faults redis.json.
MINUTES ?= 10
SEED ?= 0
faults: $(VENV)/.installed-dev
	$(BIN)/python tests/faults/campaign.py --minutes $(MINUTES) --seed $(SEED) $(if $(ONLY),--only $(ONLY)) $(if $(KILLS),--kills $(KILLS))

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

benchmark: $(VENV)/.installed-dev
	$(BIN)/python tests/benchmarks/bench_training.py
	$(BIN)/python tests/benchmarks/bench_count.py
	$(BIN)/python tests/benchmarks/bench_workers.py

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev,docs]"
	touch $@

clean:
	rm -rf $(VENV)
