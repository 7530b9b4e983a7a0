# Two commands: `make sweep` shows what this is, `make test` checks it. Both set up what they need in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SWEEP_OUTPUT ?= runs/first

.PHONY: sweep test lint docs-commands clean

sweep: $(STAMP)
	$(BIN)/adallava sweep --model tiny --task scenes --output $(SWEEP_OUTPUT)

test: $(STAMP)
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) runs

# torch comes first and on its own: a dependency that asks for it would fetch its CUDA build.
$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet -e '.[dev]'
	touch $(STAMP)
