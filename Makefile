# Two commands: `make train` and `make test`. Each makes .venv first where it is not there.
PYTHON ?= python3
CONFIG ?= configs/gpt.py:tiny
# configs/gpt.py:tiny -> runs/gpt-tiny
WORKDIR ?= runs/$(subst :,-,$(subst $(comma),-,$(notdir $(subst .py,,$(CONFIG)))))
comma := ,

.PHONY: train test test-peers lint

train: .venv/.installed
	.venv/bin/python -m pretrain.train --config=$(CONFIG) --workdir=$(WORKDIR) $(FLAGS)

test: .venv/.installed-test
	.venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not peers" $(FLAGS)

# The same numbers from torch and transformers.
test-peers: .venv/.installed-peers
	.venv/bin/python -m pytest -m peers $(FLAGS)

lint: .venv/.installed-test
	.venv/bin/ruff check .

.venv/.installed: setup.cfg pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'error: Python 3.11 or newer is needed, this is ' + sys.version.split()[0] + ': make PYTHON=python3.11')"
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --upgrade pip
	.venv/bin/python -m pip install --quiet --editable .
	touch $@

.venv/.installed-test: .venv/.installed
	.venv/bin/python -m pip install --quiet --editable .[test]
	touch $@

.venv/.installed-peers: .venv/.installed-test
	.venv/bin/python -m pip install --quiet --editable .[test,peers]
	touch $@
