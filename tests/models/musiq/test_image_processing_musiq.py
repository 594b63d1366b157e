# SPDX-License-Identifier: Apache-2.0
import inspect
import pydoc

import golden
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image
from transformers import AutoImageProcessor
from transformers.image_processing_utils import BatchFeature

from musiq_hf import MusiqConfig, MusiqImageProcessor
from musiq_hf.models.musiq.patching_musiq import arp_size, extract_patches, gaussian_resize, hash_positions, shrink

NAMES = MusiqImageProcessor.model_input_names
SMALL = {"patch_size": 8, "hash_grid_size": 4, "longer_side_lengths": [16, 24]}
SLOTS = 2 * 2 + 3 * 3  # of the two resized copies


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def assert_equal(first, second, tolerance=0.0):
    assert set(first) == set(second) == set(NAMES)
    for name in NAMES:
        torch.testing.assert_close(first[name], second[name], atol=tolerance, rtol=0)


@pytest.fixture(scope="module")
def processor():
    return MusiqImageProcessor(**SMALL)


# The sequence


def test_batch_has_the_named_tensors_and_zeros_behind_each_picture(processor, pictures):
    features = processor(pictures)
    assert isinstance(features, BatchFeature) and list(features) == NAMES
    length = features["pixel_attention_mask"].sum(dim=1).max()
    assert features["pixel_values"].shape == (len(pictures), length, 8 * 8 * 3)
    assert features["pixel_values"].dtype == torch.float32
    for name in NAMES[1:]:
        assert features[name].shape == (len(pictures), length)
        assert features[name].dtype == torch.int64
    padding = features["pixel_attention_mask"] == 0
    assert padding.any() and not padding.all(dim=1).any()
    for name in NAMES:
        assert (features[name][padding] == 0).all()
    assert (features["pixel_attention_mask"].diff(dim=1) <= 0).all()  # padding only at the end


@given(st.integers(1, 90), st.integers(1, 90))
def test_mask_counts_the_patches_and_positions_are_in_range(height, width):
    if min(min(arp_size(height, width, length)) for length in (16, 24)) == 0:
        return
    features = MusiqImageProcessor(**SMALL)(picture(height, width))
    scales, positions = features["scale_position_ids"][0], features["spatial_position_ids"][0]
    sizes = [arp_size(height, width, 16), arp_size(height, width, 24), (height, width)]
    counts = [-(-rows // 8) * -(-cols // 8) for rows, cols in sizes]
    assert int(features["pixel_attention_mask"].sum()) == len(scales) == sum(counts)
    assert torch.bincount(scales, minlength=3).tolist() == counts
    assert (scales.diff() >= 0).all()
    assert 0 <= int(positions.min()) and int(positions.max()) < 16
    assert features["pixel_values"].abs().max() <= 1 + 1e-6


def test_sequence_is_the_resized_copies_and_the_picture_cut_into_patches(processor):
    pixels = -1 + torch.from_numpy(picture(20, 33)).float() / 255 * 2
    scaled = [gaussian_resize(pixels, *arp_size(20, 33, length)) for length in (16, 24)] + [pixels]
    features = processor(picture(20, 33))
    expected = torch.cat([extract_patches(image, 8) for image in scaled])
    values, resized = features["pixel_values"][0], features["scale_position_ids"][0] < 2
    assert torch.equal(values[~resized], expected[~resized])
    # Bytes are resized before they are scaled to [-1, 1], which rounds differently from scaling them first.
    torch.testing.assert_close(values[resized], expected[resized], atol=5e-7, rtol=0)
    grids = [(-(-image.shape[0] // 8), -(-image.shape[1] // 8)) for image in scaled]
    assert torch.equal(features["spatial_position_ids"][0], torch.cat([hash_positions(*grid, 4) for grid in grids]))


def test_batch_partners_change_nothing(processor, pictures):
    together = processor(pictures)
    for row, image in enumerate(pictures):
        alone = processor(image)
        length = alone["pixel_attention_mask"].shape[1]
        assert_equal(alone, {name: together[name][row : row + 1, :length] for name in NAMES})


def test_native_patches_beyond_the_limit_are_dropped_in_raster_order(processor):
    image = picture(40, 70)
    whole, cut = processor(image), processor(image, max_native_patches=7)
    resized = int((whole["scale_position_ids"] < 2).sum())
    assert cut["pixel_attention_mask"].shape == (1, resized + 7)
    assert_equal(cut, {name: whole[name][:, : resized + 7] for name in NAMES})
    assert_equal(processor(image, max_native_patches=1000), whole)


def test_a_picture_above_the_bound_is_read_as_its_shrunk_copy(processor):
    image = picture(40, 70)
    bounded = processor(image, max_native_side=35)
    native = bounded["scale_position_ids"][0] == 2
    expected = extract_patches(shrink(torch.from_numpy(image), 20, 35).div(127.5).sub(1), 8)
    torch.testing.assert_close(bounded["pixel_values"][0][native], expected, atol=1e-6, rtol=0)
    whole = processor(image)
    resized = whole["scale_position_ids"][0] < 2
    assert torch.equal(bounded["pixel_values"][0][~native], whole["pixel_values"][0][resized])
    assert_equal(processor(image, max_native_side=70), whole)
    bound = MusiqImageProcessor(**SMALL, max_native_side=35)
    assert bound.count_tokens(40, 70) == len(native)
    floats = torch.from_numpy(image).float().div(255).requires_grad_()
    values = bound(floats, input_data_format="channels_last")["pixel_values"]
    torch.testing.assert_close(values, bounded["pixel_values"], atol=1e-5, rtol=0)
    assert torch.autograd.grad(values.sum(), floats)[0].ne(0).all()


def test_a_chosen_patch_of_a_bounded_picture_is_that_of_the_whole():
    bound = MusiqImageProcessor(**SMALL, max_native_side=35)
    pixels = torch.from_numpy(picture(40, 70))
    chosen = bound.cut(pixels, choose=lambda scale, count: torch.tensor([count - 1]))
    ends = torch.tensor(bound.count_patches(40, 70)).cumsum(0) - 1
    assert torch.equal(chosen["pixel_values"], bound.cut(pixels)["pixel_values"][ends])


def test_the_bound_of_the_native_side_is_signed_where_there_is_one():
    assert "max_native_side" not in MusiqImageProcessor(**SMALL).signature_fields()
    assert MusiqImageProcessor(**SMALL, max_native_side=35).signature_fields()["max_native_side"] == 35


def test_dropped_patches_keep_no_memory(processor):
    values = processor(picture(40, 70), max_native_patches=7)["pixel_values"]
    assert values.untyped_storage().nbytes() == values.nbytes


def test_lengths_in_any_order_give_one_sequence():
    first = MusiqImageProcessor(**{**SMALL, "longer_side_lengths": [24, 16]})
    assert first.longer_side_lengths == [16, 24]
    assert_equal(first(picture(9, 30)), MusiqImageProcessor(**SMALL)(picture(9, 30)))


def test_square_mode_resizes_without_keeping_the_ratio(processor):
    image = picture(10, 40)
    features = processor(image, resize_mode="square")
    pixels = -1 + torch.from_numpy(image).float() / 255 * 2
    expected = extract_patches(gaussian_resize(pixels, 16, 16), 8)
    torch.testing.assert_close(features["pixel_values"][0, :4], expected, atol=5e-7, rtol=0)
    assert torch.bincount(features["scale_position_ids"][0]).tolist() == [4, 9, 10]


def test_fixed_positions_are_the_slots_of_the_padded_sequence(processor):
    settings = {"spatial_embedding": "fixed", "max_native_patches": 6}
    features = processor(picture(20, 33), **settings)  # copies of 10x16 and 15x24: 2x2 and 2x3 patches
    assert features["spatial_position_ids"][0].tolist() == [*range(4), *range(4, 10), *range(SLOTS, SLOTS + 6)]
    small = processor(picture(8, 30), **settings)  # 4x16 and 6x24: the slots of the native picture stay
    assert small["spatial_position_ids"][0].tolist() == [0, 1, 4, 5, 6, *range(SLOTS, SLOTS + 4)]
    config = MusiqConfig(**SMALL, **settings)
    assert int(features["spatial_position_ids"].max()) == config.num_spatial_positions - 1


@pytest.mark.parametrize("kind", ["sinusoid", "none"])
def test_other_embeddings_get_hashed_positions(processor, kind):
    assert_equal(processor(picture(20, 33), spatial_embedding=kind), processor(picture(20, 33)))


# What holds the picture


def test_file_pil_array_and_tensor_of_one_picture_give_equal_tensors(processor, tmp_path):
    image = picture(20, 33)
    path = tmp_path / "picture.png"
    Image.fromarray(image).save(path)
    expected = processor(image)
    chw = torch.from_numpy(image).permute(2, 0, 1)
    for source in (str(path), path, Image.open(path), chw, chw.numpy(), torch.from_numpy(image)):
        assert_equal(processor(source), expected)
    for source in (image / 255, (image / 255).astype(np.float32), chw.double() / 255):
        assert_equal(processor(source), expected, tolerance=1e-6)


def test_exif_file_equals_the_upright_picture(processor, tmp_path):
    image = picture(20, 33)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    path = tmp_path / "turned.png"
    Image.fromarray(image).save(path, exif=exif)
    upright = np.rot90(image, -1)
    assert_equal(processor(path), processor(upright))
    assert_equal(processor(Image.open(path)), processor(upright))


def test_gray_equals_rgb_and_can_be_refused(processor):
    gray = picture(20, 33)[..., 0]
    assert_equal(processor(gray), processor(gray[..., None].repeat(3, axis=2)))
    with pytest.raises(ValueError, match="an RGB picture was expected, got 1 channels"):
        processor(gray, do_convert_rgb=False)


def test_layout_can_be_told(processor):
    pixels = picture(3, 8)  # 3 rows or 3 channels
    assert_equal(processor(pixels, input_data_format="channels_first"), processor(torch.from_numpy(pixels)))
    assert_equal(processor(pixels), processor(torch.from_numpy(pixels), input_data_format="channels_last"))


def test_lists_nested_lists_and_batch_arrays_are_single_pictures(processor):
    images = [picture(20, 33, seed) for seed in range(3)]
    expected = processor(images)
    assert_equal(processor(tuple(images)), expected)
    assert_equal(processor([images[:1], images[1:]]), expected)
    assert_equal(processor(np.stack(images)), expected)
    assert_equal(processor(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)), expected)


# Errors


def test_extreme_ratio_names_picture_and_size(tmp_path):
    image = Image.fromarray(np.zeros((5, 3000, 3), np.uint8))
    processor = MusiqImageProcessor()
    with pytest.raises(ValueError, match=r"Picture 1 \(3000x5 pixels\): its aspect ratio is too extreme"):
        processor([picture(20, 33), image])
    path = tmp_path / "panorama.png"
    image.save(path)
    with pytest.raises(ValueError, match=r"Picture \(.*panorama.png, 3000x5 pixels\): its aspect ratio"):
        processor(path)
    with pytest.raises(ValueError, match=r"Picture \(array of shape \(5, 3000, 3\)\): its aspect ratio"):
        processor(np.asarray(image))
    single = MusiqImageProcessor(longer_side_lengths=[])
    assert single(image)["pixel_attention_mask"].sum() == 94


@pytest.mark.parametrize(
    ("pixels", "sentence"),
    [
        (np.zeros((0, 5, 3), np.uint8), "the picture is empty"),
        (np.full((5, 5, 3), np.nan), "float pixels must be finite"),
        (np.full((5, 5, 3), 2.0), r"float pixels must lie in 0..1, got 2..2"),
        (np.zeros((5, 5, 3), np.int64), "got int64"),
    ],
)
def test_unusable_arrays_name_their_place_and_shape(processor, pixels, sentence):
    place = rf"Picture 1 \(array of shape \({pixels.shape[0]}, 5, 3\)\): "
    with pytest.raises(ValueError, match=f"{place}.*{sentence}"):
        processor([picture(9, 9), pixels])


def test_damaged_file_names_its_place_and_path(processor, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("no picture")
    with pytest.raises(ValueError, match=r"Picture \(.*notes.txt\): .*notes.txt: not a picture"):
        processor([path])
    with pytest.raises(FileNotFoundError, match="absent.png: no such file"):
        processor(tmp_path / "absent.png")


def test_no_picture_raises(processor):
    with pytest.raises(ValueError, match="At least one picture is needed, got an empty list"):
        processor([])


def test_other_objects_raise(processor):
    with pytest.raises(TypeError, match="must be a path, URL, base64 text, bytes, binary file or PIL image, got int"):
        processor(3)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"patch_size": 0}, "`patch_size` must be at least 1, got 0"),
        ({"hash_grid_size": -1}, "`hash_grid_size` must be at least 1, got -1"),
        ({"max_native_patches": 0}, "`max_native_patches` must be at least 1, got 0"),
        ({"longer_side_lengths": [0, 5]}, r"must be positive, in pixels, got \[0, 5\]"),
        ({"longer_side_lengths": [5, 5]}, r"must differ from each other, got \[5, 5\]"),
        ({"longer_side_lengths": [], "use_native_resolution": False}, "No scale is left: give `longer_side_lengths`"),
        ({"padding": "max_length"}, "need a bounded sequence. Set `max_native_patches`"),
        ({"spatial_embedding": "fixed"}, "need a bounded sequence. Set `max_native_patches`"),
        ({"return_tensors": "tf"}, '`return_tensors` must be "pt", "np" or None, got \'tf\''),
    ],
)
def test_contradictory_settings_raise_at_construction_and_per_call(processor, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        MusiqImageProcessor(**settings)
    with pytest.raises(ValueError, match=sentence):
        processor(picture(9, 9), **settings)


@pytest.mark.parametrize("settings", [{"do_resize": True}, {"size": 224}, {"longer_side_length": [5]}])
def test_unknown_settings_raise_at_construction_and_per_call(processor, settings):
    with pytest.raises(TypeError, match=rf"Unknown settings \['{next(iter(settings))}'\]; known are"):
        MusiqImageProcessor(**settings)
    with pytest.raises(TypeError, match=next(iter(settings))):
        processor(picture(9, 9), **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"resize_mode": "stretch"},
        {"padding": "left"},
        {"spatial_embedding": "rotary"},
        {"patch_size": "8"},
        {"longer_side_lengths": 224},
        {"use_native_resolution": "no"},
        {"max_native_patches": 2.5},
        {"input_data_format": "hwc"},
    ],
)
def test_values_of_a_wrong_kind_raise_at_construction_and_per_call(processor, settings):
    with pytest.raises(Exception, match=next(iter(settings))):
        MusiqImageProcessor(**settings)
    with pytest.raises(Exception, match=next(iter(settings))):
        processor(picture(9, 9), **settings)


# Padding and return types


def test_longest_pads_to_the_longest_and_max_length_to_all_slots(processor, pictures):
    settings = {"max_native_patches": 20}
    longest = max(processor(image, **settings)["pixel_values"].shape[1] for image in pictures[1:3])
    assert processor(pictures[1:3], **settings)["pixel_values"].shape[1] == longest < SLOTS + 20
    features = processor(pictures[1], padding="max_length", **settings)
    assert features["pixel_values"].shape == (1, SLOTS + 20, 192)
    shorter = processor(pictures[1], **settings)
    length = shorter["pixel_values"].shape[1]
    assert_equal(shorter, {name: features[name][:, :length] for name in NAMES})
    assert int(features["pixel_attention_mask"][:, length:].sum()) == 0
    only_resized = processor(pictures[1], padding="max_length", use_native_resolution=False)
    assert only_resized["pixel_values"].shape[1] == SLOTS


def test_unpadded_lists_can_be_padded_later(processor, pictures):
    lists = processor(pictures, padding="do_not_pad")
    assert all(isinstance(lists[name], list) and len(lists[name]) == len(pictures) for name in NAMES)
    assert all(bool(mask.all()) for mask in lists["pixel_attention_mask"])
    features = [{name: lists[name][row] for name in NAMES} for row in range(len(pictures))]
    assert_equal(processor.pad(features), processor(pictures))
    bounded = MusiqImageProcessor(**SMALL, max_native_patches=40)
    assert bounded.pad(features, padding="max_length")["pixel_values"].shape[1] == SLOTS + 40
    with pytest.raises(ValueError, match="need a bounded sequence"):
        processor.pad(features, padding="max_length")


def test_numpy_and_torch_hold_the_same_numbers(processor, pictures):
    tensors, arrays = processor(pictures, return_tensors="pt"), processor(pictures, return_tensors="np")
    for name in NAMES:
        assert isinstance(arrays[name], np.ndarray)
        np.testing.assert_array_equal(arrays[name], tensors[name].numpy())
    lists = processor(pictures, padding="do_not_pad", return_tensors="np")
    np.testing.assert_array_equal(lists["pixel_values"][1], processor(pictures[1])["pixel_values"][0].numpy())
    assert isinstance(lists["pixel_values"][1], np.ndarray)


# Settings


def test_defaults_are_the_published_preprocessing():
    processor, config = MusiqImageProcessor(), MusiqConfig()
    processor.check_config(config)
    assert (processor.resize_mode, processor.padding, processor.do_convert_rgb) == ("arp", "longest", True)
    assert_equal(processor(golden.pixels("p03_31x33")), golden.features("p03_31x33"))


def test_processor_of_a_configuration_agrees_with_it(tiny_config):
    config = tiny_config(max_native_patches=5, spatial_embedding="fixed", longer_side_lengths=[24, 16])
    processor = MusiqImageProcessor.from_config(config, padding="max_length")
    processor.check_config(config)
    assert (processor.max_native_patches, processor.padding, processor.patch_size) == (5, "max_length", 8)


@pytest.mark.parametrize(
    "field",
    [
        {"patch_size": 16},
        {"hash_grid_size": 7},
        {"spatial_embedding": "sinusoid"},
        {"longer_side_lengths": [16]},
        {"use_native_resolution": False},
        {"max_native_patches": 9},
    ],
    ids=lambda field: next(iter(field)),
)
def test_disagreement_with_a_model_is_named(tiny_config, field):
    processor = MusiqImageProcessor.from_config(tiny_config())
    with pytest.raises(
        ValueError, match=f"must agree on `{next(iter(field))}`, got .*MusiqImageProcessor.from_config"
    ):
        processor.check_config(tiny_config(**field))


def test_saved_settings_come_back(tmp_path):
    settings = {**SMALL, "max_native_patches": 12, "resize_mode": "square", "padding": "max_length"}
    processor = MusiqImageProcessor(**settings, do_convert_rgb=False, use_native_resolution=True)
    processor.save_pretrained(tmp_path)
    for loaded in (MusiqImageProcessor.from_pretrained(tmp_path), AutoImageProcessor.from_pretrained(tmp_path)):
        assert type(loaded) is MusiqImageProcessor
        assert loaded.to_dict() == processor.to_dict()
        assert_equal(loaded(picture(20, 33)), processor(picture(20, 33)))
    other = MusiqImageProcessor.from_pretrained(tmp_path, max_native_patches=3)
    assert other.max_native_patches == 3


def test_settings_of_one_call_do_not_stay(processor):
    before = processor.to_dict()
    processor(picture(20, 33), longer_side_lengths=[40], max_native_patches=2, padding="max_length")
    assert processor.to_dict() == before
    assert MusiqImageProcessor().longer_side_lengths == [224, 384]


def test_settings_of_one_call_equal_those_of_construction(processor):
    settings = {"longer_side_lengths": [40, 8], "max_native_patches": 4, "hash_grid_size": 9, "patch_size": 4}
    expected = MusiqImageProcessor(**{**SMALL, **settings})(picture(20, 33))
    assert_equal(processor(picture(20, 33), **settings), expected)


def test_sequences_are_the_same_each_time(processor, pictures):
    assert_equal(processor(pictures), processor(pictures))


# Gradients


def test_gradient_reaches_the_pixels_through_processor_and_model(tiny_model):
    model = tiny_model().double()
    processor = MusiqImageProcessor.from_config(model.config)
    pixels = torch.from_numpy(picture(20, 33)).permute(2, 0, 1).float() * (0.8 / 255) + 0.1

    def score(image):
        features = processor(image)
        return model(**{**features, "pixel_values": features["pixel_values"].double()}).logits.sum()

    image = pixels.clone().requires_grad_()
    score(image).backward()
    assert image.grad.abs().min() > 0  # every pixel counts
    place = np.unravel_index(int(image.grad.abs().argmax()), image.shape)
    step = torch.zeros_like(pixels)
    step[place] = 1e-2
    with torch.no_grad():
        slope = (score(pixels + step) - score(pixels - step)) / 2e-2
    assert slope.item() == pytest.approx(image.grad[place].item(), rel=0.02)
    batch = processor([image, image])
    assert batch["pixel_values"].requires_grad


def test_features_longer_than_the_bound_are_refused():
    processor = MusiqImageProcessor(patch_size=8, hash_grid_size=4, longer_side_lengths=[16], max_native_patches=2)
    lists = processor(np.zeros((40, 40, 3), dtype=np.uint8), padding="do_not_pad", max_native_patches=9)
    features = [{name: values[0] for name, values in lists.items()}]
    with pytest.raises(ValueError, match="pads to 6 patches, got a sequence of 13. Make the features with the same"):
        processor.pad(features, padding="max_length")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("overrides", [{}, {"num_labels": 5}, {"spatial_embedding": "sinusoid"}])
def test_torchs_default_dtype_changes_nothing(tiny_model, dtype, overrides):
    model = tiny_model(**overrides)
    processor = MusiqImageProcessor.from_config(model.config)
    picture = np.random.default_rng(0).integers(0, 256, (70, 50, 3), dtype=np.uint8)
    pictures = [picture, picture / np.float32(255), np.concatenate([picture, picture[..., :1]], axis=2)]
    with torch.no_grad():
        expected = [(processor(one), model(**processor(one)).scores) for one in pictures]
        torch.set_default_dtype(dtype)
        try:
            found = [(processor(one), model(**processor(one)).scores) for one in pictures]
        finally:
            torch.set_default_dtype(torch.float32)
    for (inputs, scores), (other_inputs, other_scores) in zip(expected, found, strict=True):
        assert {name: value.dtype for name, value in inputs.items()} == {
            name: value.dtype for name, value in other_inputs.items()
        }
        assert all(torch.equal(inputs[name], other_inputs[name]) for name in inputs)
        assert scores.dtype == other_scores.dtype and torch.equal(scores, other_scores)


def test_help_names_the_settings_that_the_processor_takes_and_no_others():
    assert "MusiqImageProcessorKwargs" in str(inspect.signature(MusiqImageProcessor))
    for method in (MusiqImageProcessor.preprocess, MusiqImageProcessor.__call__):
        text = pydoc.render_doc(method, renderer=pydoc.plaintext)
        assert "MusiqImageProcessorKwargs" in text and "the sequences that the model reads" in text
        assert not [
            name for name in ("do_resize", "do_rescale", "crop_size", "image_mean", "resample") if name in text
        ]
