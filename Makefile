# Two commands: `make sweep` shows what this is, `make test` checks it. Both set up what they need in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SWEEP_OUTPUT ?= runs/first
SWEEP_METHODS ?= random uniform pool divprune visionzip budget-token question none

.PHONY: sweep test lint wheel clean

sweep: $(STAMP)
	$(BIN)/adallava sweep --model tiny --task scenes --method $(SWEEP_METHODS) --output $(SWEEP_OUTPUT)

test: $(STAMP)
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The package as a user installs it, used from another folder: the bundled model must be inside.
wheel: $(STAMP)
	rm -rf build/wheel && mkdir -p build/wheel
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir build/wheel .
	$(BIN)/pip install --quiet --no-deps --target build/wheel/site build/wheel/*.whl
	cd build/wheel/site && PYTHONPATH=. $(CURDIR)/$(BIN)/python -c "import adallava; \
	  assert adallava.__path__[0].startswith('$(CURDIR)/build'), adallava.__path__; \
	  print(adallava.AdaLlava.from_pretrained('tiny', method='question').name_or_path, 'loads from the wheel')"

clean:
	rm -rf $(VENV) runs build

# torch comes first, at one version: asked for by a dependency, pip would take the newest with all of its CUDA parts.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $(STAMP)
