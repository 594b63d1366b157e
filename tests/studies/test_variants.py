# SPDX-License-Identifier: Apache-2.0
"""Every variant is a model of its own, and sees as much of a picture as the others of its study."""

from pathlib import Path

import pytest

from musiq_hf.models import family_of
from musiq_hf.studies import MEMBERS, STUDIES, VARIANTS, Study
from musiq_hf.studies.running import make_settings
from musiq_hf.studies.variants import BASELINE, GRID_SIZES
from musiq_hf.training.starting import load_model, load_processor

STARTS = {"pretrained": "scratch:musiq-tiny", "whitened": "scratch:musiq-tiny"}


def make_study(starts=STARTS, variants=VARIANTS, **changes) -> Study:
    values = {"data": {"data": "x"}, "output_dir": Path("runs"), "recipe": "biq2021", "seeds": [0], "command": "x"}
    budget = ["native_patches=32", "resized_patches=16", "degrade_fraction=0", "fault_pairs=0"]
    return Study(**(values | {"variants": variants, "budget": budget, "epochs": 2, "starts": starts} | changes))


def test_every_variant_is_another_network_that_its_processor_fits():
    seen, study = {}, make_study()
    for name in VARIANTS:
        settings = make_settings(study, name, 0)
        model = load_model(settings.model, architecture=settings.architecture)
        processor = load_processor(settings.model, model.config, architecture=settings.architecture)
        view = settings.training_view(family_of(model.config))
        pixels = sum(view.limits(processor)) * processor.patch_size**2
        assert pixels == pytest.approx(48 * 32**2, rel=0.02), name
        assert settings.fault_pairs == 0 and settings.degrade_fraction == 0
        seen.setdefault((model.config.to_json_string(), settings.localisation_weight), []).append(name)
    # Networks that are the same differ in their start or length, or have a name of their own in two studies.
    twice = [{"native scale only", "(full)"}, {"resized scale only", "(224)"}, {BASELINE, "(full, 224)"}]
    for names in seen.values():
        kinds = {}
        for name in names:
            kinds.setdefault((VARIANTS[name].start, VARIANTS[name].passes), set()).add(name)
        assert all(len(alike) == 1 or alike in twice for alike in kinds.values()), names


def test_studies_name_their_rows():
    assert set(MEMBERS) < STUDIES["scales"].keys() and set(GRID_SIZES) < STUDIES["grids"].keys()
    assert make_settings(make_study(), "(full, 384, 224), three times as long", 0).epochs == 6


def test_a_variant_with_a_start_of_ones_own_needs_it():
    study = make_study()
    assert study.find_start("with stage 1") == "scratch:musiq-tiny"
    chosen = {"whitening in place of stage 1": VARIANTS["whitening in place of stage 1"]}
    with pytest.raises(ValueError, match="starts from a checkpoint of one's own. Give it as `--whitened`"):
        make_study({"pretrained": "faults", "whitened": None}, chosen)
    assert make_study({"whitened": "views"}, chosen).find_start(next(iter(chosen))) == "views"
