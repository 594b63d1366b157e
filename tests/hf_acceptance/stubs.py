# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for what Transformers' test files import and its source distribution lacks. Import this before them."""

import sys
import types

import numpy as np
from PIL import Image
from run import PACKAGE


class ExportTesterMixin:
    """Base class of `ModelTesterMixin`, without its tests of exporters."""


class GenerationTesterMixin:
    """For models that generate text; `ModelTesterMixin` checks that ours is none."""


# Arguments that every configuration takes, with values that are no defaults.
CONFIG_COMMON_KWARGS = {
    "return_dict": False,
    "output_hidden_states": True,
    "output_attentions": True,
    "dtype": "float16",
    "chunk_size_feed_forward": 5,
    "architectures": ["SomeModel"],
    "id2label": {0: "bad", 1: "fair", 2: "good"},
    "label2id": {"bad": 0, "fair": 1, "good": 2},
    "problem_type": "multi_label_classification",
}


def sample_picture(url: str) -> Image.Image:
    """A picture of fixed noise in place of the one behind `url`, whose content no test looks at."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8))


for name, contents in {
    f"{PACKAGE}.exporters.test_export": {"ExportTesterMixin": ExportTesterMixin},
    f"{PACKAGE}.generation.test_utils": {"GenerationTesterMixin": GenerationTesterMixin},
    f"{PACKAGE}.utils.test_configuration_utils": {"config_common_kwargs": CONFIG_COMMON_KWARGS},
    # Its caller opens the "path" with a function that takes pictures as well.
    "fetch_hub_objects_for_ci": {"url_to_local_path": sample_picture},
}.items():
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(contents)
