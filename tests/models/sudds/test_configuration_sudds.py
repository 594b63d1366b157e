# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from musiq_hf.models.sudds import LABELS, SUDDS, UpscalingDetectorConfig


def test_a_file_names_the_labels_and_gives_the_configuration_back(tmp_path):
    for fields in (
        {},
        {"id2label": {0: "native", 1: "upscaled"}, "hidden_sizes": (8, 8, 8, 16), "backbone": "resnet18"},
    ):
        config = UpscalingDetectorConfig(**fields)
        config.save_pretrained(tmp_path)
        names = json.loads((tmp_path / "config.json").read_text())["id2label"]
        again = UpscalingDetectorConfig.from_pretrained(tmp_path)
        assert list(names.values()) == list(again.id2label.values()) == list(config.id2label.values())
        assert again.to_dict() == config.to_dict() | {"transformers_version": again.transformers_version}
        assert again.architectures == ["UpscalingDetectorForImageClassification"]
    assert UpscalingDetectorConfig().id2label == dict(enumerate(LABELS))
    assert UpscalingDetectorConfig(num_labels=3).num_labels == 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_sizes": [4, 8, 12]}, "`hidden_sizes` must be four multiples of 4, got .4, 8, 12"),
        ({"hidden_sizes": [4, 8, 12, 18]}, "four multiples of 4"),
        ({"dropout": 1}, "`dropout` must lie in"),
        ({"spectrum_dropout": -0.1}, "`spectrum_dropout` must lie in"),
        ({"id2label": {"0": "native"}}, "at least two labels, native and another, so `num_labels` must not be 1"),
        ({"num_head_layers": 0}, "`num_head_layers` must be at least 1"),
        ({"backbone": "resnet50"}, "`backbone` must be 'small' or 'resnet18', got 'resnet50'"),
        ({"use_staircases": True}, "Is it `use_staircase`"),
    ],
)
def test_fields_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        UpscalingDetectorConfig.from_dict(fields)


def test_card_and_facts_say_what_a_configuration_means():
    config = UpscalingDetectorConfig(patch_size=240, crop_size=224, vote="majority", use_spectrum=False)
    text, facts = SUDDS.card(config), SUDDS.facts(config)
    assert (
        "240 x 240" in text.preprocessing
        and "224 x 224" in text.preprocessing
        and "spectrum" not in text.preprocessing
    )
    assert "by majority" in text.score and "native, nearest" in text.score
    assert facts["reads"] == "12 patches of 240 pixels, of which the centre of 224 is read"
    for limit in ("No verdict is evidence by itself", "Downscaling after upscaling hides the traces", "blurred"):
        assert limit in text.limits
    assert "US 9734409" in text.patents
