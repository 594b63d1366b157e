# Every target does its own set-up in .venv; Python >= 3.11 and pip are all that a machine needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# An extra package index, for PyTorch's CPU wheels say; unset by default.
TORCH_INDEX ?=
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
MANIFEST := pyproject.toml constraints.txt

.PHONY: demo test test-slow test-hf bench bench-check quality style default default-numbers clean
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

# pyiqa is what we compare with: installed without its many dependencies, of which its MUSIQ needs none.
$(VENV)/.bench: $(VENV)/.core
	$(PIP_INSTALL) -e '.[bench]'
	$(PIP_INSTALL) --no-deps pyiqa==0.1.16
	@touch $@

# 40 minutes on two idle cores; PICTURES names a folder of photographs, on which bfloat16 is compared with float32.
bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks.cpu --output runs/bench.json $(if $(PICTURES),--pictures $(PICTURES))
	$(BIN)/python -m benchmarks.report runs/bench.json

bench-check: $(VENV)/.core
	$(BIN)/python -m benchmarks.check runs/bench.json

# Trains the embedded checkpoint: BIQ2021 names a folder with labels.csv (image,mos,split) and images/.
BIQ2021_DATA = --data $(BIQ2021)/labels.csv --image_root $(BIQ2021)/images
default: $(VENV)/.test
	@test -d "$(BIQ2021)/images" || { echo "make default BIQ2021=FOLDER: a folder with labels.csv and images/ is needed."; exit 2; }
	$(BIN)/python examples/pretrain_quality.py --recipe quality_pretrain $(BIQ2021_DATA) --output_dir runs/pretrained
	OMP_NUM_THREADS=1 $(BIN)/torchrun --nproc_per_node 2 examples/finetune.py \
		--recipe biq2021 $(BIQ2021_DATA) --model runs/pretrained --output_dir runs/musiq-tiny-biq2021 \
		--batch_size 8 --fault_pairs 1

# The numbers in its card, from the files: PRISTINE names a folder of pictures without faults, LARGE one of large pictures.
default-numbers: $(VENV)/.test
	@test -d "$(BIQ2021)/images" -a -d "$(PRISTINE)" -a -d "$(LARGE)" || { \
		echo "make default-numbers BIQ2021=FOLDER PRISTINE=FOLDER LARGE=FOLDER: three folders are needed."; exit 2; }
	$(BIN)/python examples/evaluate.py --dataset biq2021 $(BIQ2021_DATA) --split validation --update_card \
		--card_title validation
	$(BIN)/python examples/evaluate_robustness.py --pictures $(PRISTINE) --half_size $(LARGE) --update_card

quality: $(VENV)/.quality
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

style: $(VENV)/.quality
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
