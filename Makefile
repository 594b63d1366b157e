# Every target does its own set-up in .venv; Python >= 3.11 and pip are all that a machine needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# An extra package index, for PyTorch's CPU wheels say; unset by default.
TORCH_INDEX ?=
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
MANIFEST := pyproject.toml constraints.txt

.PHONY: demo test test-slow test-hf quality style clean
.DELETE_ON_ERROR:

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed, found {sys.version.split()[0]}: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.core: $(VENV)/.created $(MANIFEST)
	$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/.test: $(VENV)/.core
	$(PIP_INSTALL) -e '.[train,test]'
	@touch $@

$(VENV)/.quality: $(VENV)/.core
	$(PIP_INSTALL) -e '.[quality]'
	@touch $@

demo: $(VENV)/.core
	@$(BIN)/python examples/score_images.py examples/pictures

test: $(VENV)/.test
	$(BIN)/python -m pytest -q -n 2

test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -q -n 2 -m "not hub"

test-hf: $(VENV)/.test
	$(BIN)/python tests/hf_acceptance/run.py

quality: $(VENV)/.quality
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

style: $(VENV)/.quality
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
