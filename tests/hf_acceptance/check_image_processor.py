# SPDX-License-Identifier: Apache-2.0
"""Transformers' ImageProcessingTestMixin on our image processor.

A test that has the name of a common one replaces it, and its docstring says why.
"""

import subprocess
import sys
import tempfile
import unittest

import numpy as np
import stubs  # noqa: F401  # before transformers_tests, which imports what it stands for
import torch
from PIL import Image
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING
from transformers_tests.test_image_processing_common import ImageProcessingTester, ImageProcessingTestMixin

from musiq_hf import MusiqConfig, MusiqImageProcessor

WITHOUT_TORCHVISION = """
import sys
sys.modules["torchvision"] = None  # importing it raises
import torch
import musiq_hf
from transformers import AutoImageProcessor
folder = sys.argv[1]
processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
assert type(processor) is musiq_hf.MusiqImageProcessor, type(processor)
torch.save(dict(processor(torch.load(folder + "/pictures.pt"))), folder + "/outputs.pt")
"""


class MusiqImageProcessingTester(ImageProcessingTester):
    """Settings that are no defaults, and the shape that they lead to."""

    def __init__(self, parent):
        super().__init__(parent, longer_side_lengths=[96, 160], hash_grid_size=8, max_native_patches=100)

    def _get_image_processing_classes(self):
        """What is registered, since the common way looks into Transformers only."""
        return dict(IMAGE_PROCESSOR_MAPPING[MusiqConfig])

    def expected_output_image_shape(self, images):
        """(sequence_length, 32 * 32 * 3), padded to the longest sequence; sizes in exact integers."""
        lengths = []
        for image in images:
            if isinstance(image, Image.Image):
                width, height = image.size
            else:
                height, width = image.shape[:2] if isinstance(image, np.ndarray) else image.shape[1:]
            length = min(-(-height // 32) * -(-width // 32), self.max_native_patches)
            for longer in self.longer_side_lengths:
                shorter = round(longer * min(height, width) / max(height, width))
                length += (longer // 32) * -(-shorter // 32)
            lengths.append(length)
        return max(lengths), 32 * 32 * 3


class MusiqImageProcessingTest(ImageProcessingTestMixin, unittest.TestCase):
    image_processor_tester_class = MusiqImageProcessingTester
    test_cast_dtype = True

    def setUp(self):
        super().setUp()
        np.random.seed(0)  # sizes and pixels of the common tests' pictures
        self.image_processor = MusiqImageProcessor(**self.image_processor_dict)

    def test_call_numpy_4_channels(self):
        """Replaces the common test, because our fourth channel is alpha, not a further channel of the patches."""
        self.image_processor_tester.num_channels = 4
        images = self.image_processor_tester.prepare_image_inputs(numpify=True)
        patches = self.image_processor(images).pixel_values
        expected_shape = self.image_processor_tester.expected_output_image_shape(images)
        self.assertEqual(tuple(patches.shape), (len(images), *expected_shape))
        opaque = [np.concatenate([image[..., :3], np.full_like(image[..., 3:], 255)], axis=-1) for image in images]
        colours = [image[..., :3] for image in images]
        torch.testing.assert_close(
            self.image_processor(opaque).pixel_values, self.image_processor(colours).pixel_values
        )
        with self.assertRaisesRegex(ValueError, "do_convert_rgb"):
            self.image_processor(images, do_convert_rgb=False)

    def test_image_processor_preprocess_arguments(self):
        """Replaces the common test, because that covers two older ways of checking arguments; ours raises."""
        image = self.image_processor_tester.prepare_image_inputs()[0]
        with self.assertRaises(TypeError):
            self.image_processor(image, extra_argument=True)
        with self.assertRaises(TypeError):
            MusiqImageProcessor(extra_argument=True)

    def test_override_instance_attributes_does_not_affect_other_instances(self):
        """Replaces the common test, because the setting of ours that can be changed in place is another one."""
        first, second = MusiqImageProcessor(), MusiqImageProcessor()
        before = list(second.longer_side_lengths)
        first.longer_side_lengths[0] = 1
        self.assertEqual(second.longer_side_lengths, before)
        self.assertEqual(MusiqImageProcessor().longer_side_lengths, before)

    def test_pil_can_run_without_torchvision(self):
        """Replaces the common test, because its Python would have to import musiq_hf; and ours is not slow."""
        images = self.image_processor_tester.prepare_image_inputs(torchify=True)
        with tempfile.TemporaryDirectory() as folder:
            self.image_processor.save_pretrained(folder)
            torch.save(images, f"{folder}/pictures.pt")
            command = [sys.executable, "-c", WITHOUT_TORCHVISION, folder]
            result = subprocess.run(command, capture_output=True, text=True)
            self.assertEqual(result.returncode, 0, result.stderr)
            outputs = torch.load(f"{folder}/outputs.pt")
        torch.testing.assert_close(outputs, dict(self.image_processor(images)), rtol=0, atol=0)
