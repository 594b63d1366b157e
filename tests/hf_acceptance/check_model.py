# SPDX-License-Identifier: Apache-2.0
"""Transformers' ModelTesterMixin on our models, and its ConfigTester on our configuration.

A test that has the name of a common one replaces it, and its docstring says why. Common tests that cannot apply are in
`NOT_APPLICABLE`, unless they skip themselves with a reason that fits.
"""

import copy
import tempfile
import unittest
from unittest.mock import patch

import stubs  # noqa: F401  # before transformers_tests, which imports what it stands for
import torch
from torch import nn
from transformers import initialization as init
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES, MODEL_MAPPING_NAMES
from transformers.testing_utils import torch_device
from transformers_tests.test_configuration_common import ConfigTester
from transformers_tests.test_modeling_common import ModelTesterMixin, floats_tensor, ids_tensor

from musiq_hf import (
    MusiqConfig,
    MusiqForImageClassification,
    MusiqForImageQualityAssessment,
    MusiqModel,
    MusiqPreTrainedModel,
)

# By these tables the common tests tell what a class is for; without an entry they would leave tests of heads out.
MODEL_MAPPING_NAMES["musiq"] = "MusiqModel"
MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES["musiq"] = (
    "MusiqForImageQualityAssessment",
    "MusiqForImageClassification",
)

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "patch_encoder_width": 8,
    "patch_encoder_groups": 4,
    "patch_size": 8,
    "hash_grid_size": 4,
    "longer_side_lengths": [16, 24],
}

# Beginnings of test names, and why these tests say nothing about our models.
NOT_APPLICABLE = {
    "test_model_weights_reload_no_missing": "No weights are tied, and a file without the model's weights is refused.",
    "test_resize_tokens": "Patches are no vocabulary: no row can be added to the input layer.",
    "test_resize_embeddings": "Patches are no vocabulary: no row can be added to the input layer.",
    "test_resize_position": "Positions are cells of the hash grid, whatever the size of the picture.",
    "test_model_rope": "There are no rotary positions.",
    "test_vision_axial_rope": "There are no rotary positions.",
    "test_sdpa_can_dispatch_composite": "The models are not made of several models.",
}


class MusiqModelTester:
    """A small configuration and inputs for it, under the names that the common tests read."""

    batch_size = 7  # smaller batches would be filled up with ids that are out of range
    sequence_length = 12  # patches
    seq_length = sequence_length + 1  # tokens: CLS too
    hidden_size = SMALL["hidden_size"]
    num_hidden_layers = SMALL["num_hidden_layers"]
    num_attention_heads = SMALL["num_attention_heads"]
    is_training = True

    def __init__(self, **settings):
        self.settings = SMALL | settings

    def get_config(self):
        return MusiqConfig(**self.settings)

    def prepare_config_and_inputs_for_common(self):
        config = self.get_config()
        shape = (self.batch_size, self.sequence_length)
        # 0 to 2 rows of padding, none in the first picture.
        lengths = self.sequence_length - torch.arange(self.batch_size, device=torch_device) % 3
        mask = torch.arange(self.sequence_length, device=torch_device) < lengths[:, None]
        scales = ids_tensor(shape, config.num_scales)
        scales[:, -1] = config.num_scales - 1  # the last scale of a picture is never missing
        return config, {
            "pixel_values": floats_tensor((*shape, config.patch_size**2 * 3)) * 2 - 1,
            "pixel_attention_mask": mask.long(),
            "spatial_position_ids": ids_tensor(shape, config.num_spatial_positions),
            "scale_position_ids": scales,
        }


initial_weights = MusiqPreTrainedModel._init_weights


def initial_weights_without_zeros(model, module):
    """Our initial weights, with random ones for the zeros that cut the output off from all that comes before."""
    initial_weights(model, module)
    weight = getattr(module, "weight", None)
    if weight is not None and not weight.is_meta and not weight.any():
        init.normal_(weight, std=0.5)


class MusiqModelTest(ModelTesterMixin, unittest.TestCase):
    """All classes, with the ResNet patch encoder and hashed positions; heads for three labels."""

    all_model_classes = (MusiqModel, MusiqForImageQualityAssessment, MusiqForImageClassification)
    additional_model_inputs = ["pixel_attention_mask", "spatial_position_ids", "scale_position_ids"]
    test_can_init_all_missing_weights_before_2023 = True  # the year is looked for in a line that our files do not have
    settings = {"num_labels": 3}

    def setUp(self):
        for beginning, reason in NOT_APPLICABLE.items():
            if self._testMethodName.startswith(beginning):
                self.skipTest(reason)
        self.model_tester = MusiqModelTester(**self.settings)
        # A fresh head answers 0 whatever it is shown: then all comparisons of outputs and gradients would hold.
        if not self._testMethodName.startswith(("test_can_init", "test_init")):
            patcher = patch.object(MusiqPreTrainedModel, "_init_weights", initial_weights_without_zeros)
            patcher.start()
            self.addCleanup(patcher.stop)

    @property
    def head_classes(self):
        return [model_class for model_class in self.all_model_classes if model_class is not MusiqModel]

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        """Labels of the quality model are MOS or counts per score value, not class indices."""
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels=return_labels)
        if "labels" in inputs and model_class is MusiqForImageQualityAssessment:
            num_labels = self.model_tester.get_config().num_labels
            counts = torch.arange(1.0, self.model_tester.batch_size * num_labels + 1, device=torch_device)
            inputs["labels"] = counts if num_labels == 1 else counts.view(-1, num_labels)
        return inputs

    def test_model_get_set_embeddings(self):
        """Replaces the common test, because our input layer is linear where that expects a table."""
        config = self.model_tester.get_config()
        for model_class in self.all_model_classes:
            model = model_class(config)
            self.assertIsInstance(model.get_input_embeddings(), nn.Linear)
            layer = nn.Linear(10, 10)
            model.set_input_embeddings(layer)
            self.assertIs(model.get_input_embeddings(), layer)
            self.assertIsNone(model.get_output_embeddings())

    def test_problem_types(self):
        """Replaces the common test, because class and number of labels choose our losses, `problem_type` does not."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        batch_size = self.model_tester.batch_size
        counts = floats_tensor((batch_size, 5))
        for model_class, num_labels, labels in (
            (MusiqForImageQualityAssessment, 1, floats_tensor((batch_size,))),
            (MusiqForImageQualityAssessment, 5, counts),
            (MusiqForImageClassification, 5, ids_tensor((batch_size,), 5)),
            (MusiqForImageClassification, 5, counts.softmax(dim=-1)),
        ):
            with self.subTest(f"{model_class.__name__}, {num_labels} labels of shape {tuple(labels.shape)}"):
                config = self.model_tester.get_config()
                config.num_labels = num_labels
                model = model_class(config).to(torch_device).train()
                model(**inputs, labels=labels).loss.backward()
                self.assertGreater(model.get_input_embeddings().weight.grad.abs().sum().item(), 0)

    def test_can_load_ignoring_mismatched_shapes(self):
        """Replaces the common test, because that finds the layer to compare by names that we do not use."""
        config = self.model_tester.get_config()
        config.num_labels = 5
        for model_class in self.head_classes:
            with self.subTest(model_class.__name__), tempfile.TemporaryDirectory() as folder:
                old = model_class(config)
                old.save_pretrained(folder)
                with self.assertRaisesRegex(ValueError, "of a wrong shape"):
                    model_class.from_pretrained(folder, num_labels=42)
                new = model_class.from_pretrained(folder, num_labels=42, ignore_mismatched_sizes=True)
                self.assertEqual(new.head.classifier.weight.shape[0], 42)
                self.assertTrue(new.head.classifier.weight.isfinite().all())
                kept = {name: value for name, value in old.state_dict().items() if "classifier" not in name}
                torch.testing.assert_close({name: new.state_dict()[name] for name in kept}, kept)

    def test_flex_attention_matches_eager(self):
        """Ours: the common test of flex attention needs a GPU, and compares nothing."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        # Uncompiled, so that no C++ compiler is needed.
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            for model_class in self.all_model_classes:
                model = model_class(copy.deepcopy(config)).to(torch_device).eval()
                outputs = []
                for implementation in ("eager", "flex_attention"):
                    model.set_attn_implementation(implementation)
                    outputs.append(model(**inputs)[0][:, 0])  # of CLS, or the first logit
                torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)

    def test_compiles_to_one_graph(self):
        """Ours: the common tests of `torch.compile` need a GPU."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        for model_class in self.all_model_classes:
            torch.compiler.reset()
            model = model_class(copy.deepcopy(config)).to(torch_device).eval()
            compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=True)
            with torch.no_grad():
                for length in (self.model_tester.sequence_length, 5):
                    cut = {name: value[:, :length] for name, value in inputs.items()}
                    one_graph, plain = compiled(**cut)[0], model(**cut)[0]
                    if plain.ndim == 3:  # hidden states, of which those of padding say nothing
                        real = torch.nn.functional.pad(cut["pixel_attention_mask"], (1, 0), value=1).bool()
                        one_graph, plain = one_graph[real], plain[real]
                    torch.testing.assert_close(one_graph, plain)


class MusiqOpinionScoreTest(MusiqModelTest):
    """One label, and the other side of every choice of architecture: stem only, fixed sines, tanh layer, no scales."""

    all_model_classes = (MusiqForImageQualityAssessment,)
    settings = {
        "num_labels": 1,
        "patch_encoder": "conv",
        "spatial_embedding": "sinusoid",
        "use_scale_embedding": False,
        "pre_logits_size": 16,
    }


class MusiqEfficientNetTest(MusiqModelTest):
    """One label, and an EfficientNet-Lite as patch encoder."""

    all_model_classes = (MusiqForImageQualityAssessment,)
    settings = {
        "num_labels": 1,
        "patch_encoder": "efficientnet_lite0",
        "patch_encoder_stages": 3,
        "patch_encoder_width": 64,
        "patch_encoder_groups": 32,
    }


class MusiqConfigTest(unittest.TestCase):
    def test_config(self):
        ConfigTester(self, config_class=MusiqConfig, has_text_modality=False, **SMALL).run_common_tests()
