# Every target does its own set-up in .venv; Python >= 3.11 and pip are all that a machine needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# An extra package index, for PyTorch's CPU wheels say; unset by default.
TORCH_INDEX ?=
CONSTRAINTS := constraints.txt
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
# Tests start many processes: what they import is compiled once.
export PYTHONDONTWRITEBYTECODE :=
MANIFEST := pyproject.toml $(CONSTRAINTS)

.PHONY: demo test test-slow test-oldest test-ray test-web test-hf space figure-serve bench bench-check quality style clean \
	release default default-numbers \
	numbers-validation numbers-second numbers-robustness numbers-speed numbers-documents
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

# Each worker has one half, so that what a file or a folder shares is made once, and takes from the other at the end.
test: $(VENV)/.test
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not hub"

# The tests on the lower bounds of pyproject.toml, in an environment of their own; Python 3.11 has wheels of all of them.
test-oldest:
	$(MAKE) test VENV=.venv-oldest CONSTRAINTS=constraints-oldest.txt

$(VENV)/.ray: $(VENV)/.test
	$(PIP_INSTALL) -e '.[ray]' 'ray[data]' pyspark s3fs 'moto[server]' boto3
	@touch $@

# The tests on a Ray cluster, in Spark and against an S3 server, all on this machine; without Java that of Spark is skipped.
test-ray: $(VENV)/.ray
	$(BIN)/python -m pytest -q -m "not hub" tests/scoring/clusters tests/pictures/sources/test_s3.py

test-hf: $(VENV)/.test
	$(BIN)/python tests/hf_acceptance/run.py

# gradio does not go with the Pillow of constraints.txt, so the page has an environment and constraints of its own.
SERVE := .venv-serve
SERVE_INSTALL = $(SERVE)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-serve.txt \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

$(SERVE)/.created: pyproject.toml constraints-serve.txt
	$(PYTHON) -m venv $(SERVE)
	$(SERVE_INSTALL) -e '.[web]'
	@touch $@

# The page in Chromium, its route, its tool and its limits; screenshots go to runs/screenshots.
test-web: $(SERVE)/.created
	@test -x /usr/bin/chromium -a -x /usr/bin/chromedriver || \
		{ echo "make test-web needs Chromium and its driver: apt-get install chromium chromium-driver"; exit 2; }
	$(SERVE)/bin/python -m pytest -q tests/app tests/cli/test_serve.py

# The folder of a Space of the Hub, in runs/space.
space: $(VENV)/.core
	$(BIN)/python examples/page/make_space.py --output runs/space

# The picture of the page in the documents.
figure-serve: $(SERVE)/.created
	$(SERVE)/bin/python examples/page/draw_page.py --output docs/figures/serve.png

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

$(VENV)/.encoders: $(VENV)/.test
	$(PIP_INSTALL) -e '.[encoders]'
	@touch $@

# What a target needs is said before it begins: $(call need,NAME of a folder).
need = @test -d "$($(1))" || { echo "make $@ $(1)=FOLDER: $(1) must name a folder."; exit 2; }

# Trains the default checkpoint on DATA, the folder of BIQ2021's official files. FLAGS="--bf16 --num_workers 15" suits a
# GPU, and FLAGS=--resume continues.
default:
	$(call need,DATA)
	$(MAKE) $(VENV)/.encoders
	$(BIN)/accelerate launch examples/finetune.py --recipe biq2021_lite --data "$(DATA)" --model scratch:musiq-lite \
		--encoder_weights package --output_dir runs/musiq-lite-biq2021 $(FLAGS)

# The numbers in the card of MODEL, its calibration, and the numbers in the documents. PRISTINE names a folder of pictures without faults, LARGE one of
# large pictures. Each part replaces its own numbers and can be made alone.
MODEL ?= musiq_hf/checkpoints/musiq-lite-biq2021
default-numbers: $(VENV)/.test
	$(call need,DATA)
	$(call need,PRISTINE)
	$(call need,LARGE)
	$(MAKE) -j1 numbers-validation numbers-second numbers-robustness numbers-speed numbers-documents

numbers-validation: $(VENV)/.test
	$(call need,DATA)
	$(BIN)/python examples/evaluate.py --model $(MODEL) --dataset biq2021 --data "$(DATA)" --split validation \
		--update_card --card_title validation --write_calibration

numbers-second: $(VENV)/.test
	$(call need,DATA)
	$(BIN)/python examples/evaluate.py --model $(MODEL) --dataset biq2021_second --data "$(DATA)" --split validation \
		--update_card --card_title "Second look, at pictures that chose nothing"

numbers-robustness: $(VENV)/.test
	$(call need,PRISTINE)
	$(call need,LARGE)
	$(BIN)/python examples/evaluate_robustness.py --model $(MODEL) --pictures "$(PRISTINE)" --half_size "$(LARGE)" \
		--update_card --output runs/robustness.json

numbers-speed: $(VENV)/.test
	$(BIN)/python examples/measure_speed.py --model $(MODEL) --update_card

numbers-documents: $(VENV)/.test
	$(BIN)/python examples/update_documents.py
	$(BIN)/python examples/make_figures.py

quality: $(VENV)/.quality
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Files that every family has under its own name are copied from MUSIQ, because a published checkpoint holds its family.
# A family with networks of others within copies how they are read and described from LoDa.
style: $(VENV)/.quality
	for folder in $(filter-out %/musiq,$(patsubst %/family.py,%,$(wildcard musiq_hf/models/*/family.py))); do \
		for name in checks publishing settings; do \
			sed "s/_musiq/_$${folder##*/}/g" musiq_hf/models/musiq/$${name}_musiq.py > $$folder/$${name}_$${folder##*/}.py; \
		done; \
	done
	for name in parts reading timm; do \
		sed "s/_loda/_classifier/g" musiq_hf/models/loda/$${name}_loda.py > musiq_hf/models/classifier/$${name}_classifier.py; \
	done
	$(BIN)/python -m musiq_hf.cli.recording
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.release: $(VENV)/.core
	$(PIP_INSTALL) -e '.[release]'
	@touch $@

# Builds wheel and sdist, installs them in an empty environment and runs README's commands there.
release: $(VENV)/.release
	rm -rf dist
	$(BIN)/python -m hatchling build -d dist
	$(if $(TORCH_INDEX),PIP_EXTRA_INDEX_URL="$(TORCH_INDEX)") $(BIN)/python tests/release/run.py dist

clean:
	rm -rf $(VENV) .venv-oldest $(SERVE) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
