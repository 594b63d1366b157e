# SPDX-License-Identifier: Apache-2.0
"""Signatures: equal for equal checkpoints wherever they lie, other for whatever changes a score."""

import copy
import os
import re
import shutil

import pytest
import torch
from peft import LoraConfig
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModel

from musiq_hf import MusiqForImageQualityAssessment, MusiqImageProcessor
from musiq_hf.models.musiq import image_processing_musiq
from musiq_hf.models.musiq.checks_musiq import hash_preprocessing, hash_weights
from musiq_hf.pictures import opening
from musiq_hf.scoring import signature
from musiq_hf.scoring.signature import make_signature


@pytest.fixture(scope="module")
def model(tiny_model):
    return tiny_model()


@pytest.fixture(scope="module")
def processor(model):
    return MusiqImageProcessor.from_config(model.config)


def sign(model, processor, checkpoint="musiq-mine", **kwargs):
    return make_signature(model, processor, checkpoint=checkpoint, **kwargs)


def changed_parts(first, second):
    pairs = zip(first.split("|"), second.split("|"), strict=True)
    return [old.partition(":")[0] for old, new in pairs if old != new]


def test_signature_is_one_line_with_every_part(model, processor):
    pattern = (
        r"musiq-mine\|weights:[0-9a-f]{8}\|preset:default\|preprocessing:[0-9a-f]{8}\|decoder:Pillow-[\d.]+"
        r"\|dtype:float32\|musiq_hf:[\w.]+\|torch:[\w.+]+"
    )
    assert re.fullmatch(pattern, sign(model, processor))


def test_names_that_are_not_unicode_have_backslashes(model, processor):
    assert sign(model, processor, os.fsdecode(b"mine\xff")).startswith(r"mine\udcff|weights:")


def test_one_changed_weight_changes_the_weights(model, processor):
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.head.classifier.bias[0] += 1e-3
    assert changed_parts(sign(model, processor), sign(changed, processor)) == ["weights"]


def test_swapped_weights_of_one_shape_change_the_weights(model, processor):
    changed = copy.deepcopy(model)
    attention = changed.musiq.encoder.layers[0].attention
    attention.q_proj, attention.k_proj = attention.k_proj, attention.q_proj
    assert changed_parts(sign(model, processor), sign(changed, processor)) == ["weights"]


@pytest.mark.parametrize(
    "change",
    [
        lambda name, tensor: (f"{name}x", tensor),
        lambda name, tensor: (name, tensor.reshape(1, -1)),
    ],
    ids=["names", "shapes"],
)
def test_names_and_shapes_are_part_of_the_weights(model, processor, monkeypatch, change):
    before = sign(model, processor)
    state = dict(change(*item) for item in model.state_dict().items())
    monkeypatch.setattr(model, "state_dict", lambda: state)
    assert changed_parts(before, sign(model, processor)) == ["weights"]


@pytest.mark.parametrize(
    ("field", "value"), [("num_attention_heads", 4), ("score_scale", 2.0), ("layer_norm_eps", 1e-5)]
)
def test_a_field_without_weights_of_its_own_changes_the_weights(model, processor, field, value):
    changed = copy.deepcopy(model)
    setattr(changed.config, field, value)
    assert changed_parts(sign(model, processor), sign(changed, processor)) == ["weights"]


@pytest.mark.parametrize(
    ("field", "value"), [("drop_path_rate", 0.5), ("score_range", [0, 100]), ("initializer_range", 0.5)]
)
def test_a_field_that_no_score_sees_changes_nothing(model, processor, field, value):
    changed = copy.deepcopy(model)
    setattr(changed.config, field, value)
    assert sign(model, processor) == sign(changed, processor)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("patch_size", 16),
        ("hash_grid_size", 5),
        ("spatial_embedding", "sinusoid"),
        ("longer_side_lengths", [16, 32]),
        ("use_native_resolution", False),
        ("max_native_patches", 9),
        ("resize_mode", "square"),
        ("do_convert_rgb", False),
        ("input_data_format", "channels_last"),
    ],
)
def test_every_setting_of_the_processor_changes_the_preprocessing(model, processor, field, value):
    changed = copy.deepcopy(processor)
    assert getattr(changed, field) != value
    setattr(changed, field, value)
    assert changed_parts(sign(model, processor), sign(model, changed)) == ["preprocessing"]


def test_every_setting_of_the_processor_is_looked_at_or_packing(processor, monkeypatch):
    monkeypatch.setattr(image_processing_musiq, "PACKING_FIELDS", frozenset())
    names = set(processor.valid_kwargs.__annotations__)
    seen = {name for name in names if hash_preprocessing(_with(processor, name)) != hash_preprocessing(processor)}
    assert seen == names


def _with(processor, name):
    changed = copy.deepcopy(processor)
    setattr(changed, name, "something else")
    return changed


def test_packing_changes_nothing(model, processor):
    changed = copy.deepcopy(processor)
    changed.padding, changed.return_tensors = "do_not_pad", "np"
    assert sign(model, processor) == sign(model, changed)


def test_shorter_side_changes_the_preprocessing(model, processor):
    signatures = [sign(model, processor, shorter_side=side) for side in (None, 512, 513)]
    assert len(set(signatures)) == 3
    assert changed_parts(signatures[0], signatures[1]) == ["preprocessing"]


def test_the_preset_is_named_and_what_decodes_by_it(model, processor, monkeypatch):
    published = sign(model, processor, preset="google")
    assert changed_parts(sign(model, processor), published) == ["preset", "decoder"]
    assert re.search(r"\|preset:google\|.*\|decoder:simplejpeg-[\d.]+\+Pillow-[\d.]+\|", published)
    monkeypatch.setattr(opening, "has_fast_decoder", lambda: False)
    assert changed_parts(sign(model, processor), sign(model, processor, preset="google")) == ["preset"]


def test_type_of_the_weights_is_named(model, processor):
    half = copy.deepcopy(model).half()
    assert "|dtype:float16|" in sign(half, processor)
    half.head.float()
    assert "|dtype:float16+float32|" in sign(half, processor)


def test_wider_copies_of_the_same_values_have_the_same_weights(model, processor):
    half = copy.deepcopy(model).half()
    assert changed_parts(sign(half, processor), sign(copy.deepcopy(half).float(), processor)) == ["dtype"]


@pytest.mark.parametrize(
    ("owner", "attribute", "part"),
    [
        (signature, "__version__", "musiq_hf"),
        (signature.torch, "__version__", "torch"),
        (opening.PIL, "__version__", "decoder"),
    ],
)
def test_versions_are_part_of_it(model, processor, monkeypatch, owner, attribute, part):
    before = sign(model, processor)
    monkeypatch.setattr(owner, attribute, "99.0")
    assert changed_parts(before, sign(model, processor)) == [part]


def test_saving_and_copying_change_nothing(model, processor, tmp_path):
    first, shards = tmp_path / "a" / "musiq-mine", tmp_path / "b" / "musiq-mine"
    model.save_pretrained(first)
    processor.save_pretrained(first)
    copied = shutil.copytree(first, tmp_path / "c" / "musiq-mine")
    model.save_pretrained(shards, max_shard_size="8KB")
    processor.save_pretrained(shards)
    assert len(list(shards.glob("*.safetensors"))) > 1
    signatures = {
        sign(AutoModel.from_pretrained(folder), MusiqImageProcessor.from_pretrained(folder), str(folder))
        for folder in (first, shards, copied)
    }
    assert signatures == {sign(model, processor)}


def test_the_name_of_a_checkpoint_is_part_of_it(model, processor, tmp_path):
    assert changed_parts(sign(model, processor), sign(model, processor, "musiq-yours")) == ["musiq-mine"]
    assert sign(model, processor, "you/musiq-mine").startswith("you/musiq-mine|")
    (tmp_path / "two words|odd").mkdir()
    signed = sign(model, processor, str(tmp_path / "two words|odd"))
    assert signed.startswith("two_words_odd|") and signed.count("|") == 7


def test_weights_that_are_not_in_memory_are_refused(tiny_config):
    with torch.device("meta"):
        model = MusiqForImageQualityAssessment(tiny_config())
    with pytest.raises(ValueError, match="are not in memory, so the model has no signature. Load them first"):
        hash_weights(model)


class Settings:
    """Settings of a quantised weight, whose text differs from process to process."""

    def __init__(self, activations):
        self.activations = activations

    def __repr__(self):
        return f"Settings({self.activations}, <function at {hex(id(self))}>)"


class EightBits(torch.Tensor):
    """Weight of two tensors and settings, such as torchao makes."""

    @staticmethod
    def __new__(cls, values, activations="float"):
        return torch.Tensor._make_wrapper_subclass(cls, values.shape, dtype=values.dtype)

    def __init__(self, values, activations="float"):
        self.scale = values.abs().max() / 127
        self.whole = (values / self.scale).round().to(torch.int8)
        self.settings = Settings(activations)

    def __tensor_flatten__(self):
        return ["whole", "scale"], self.settings

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        assert function is torch.ops.aten.detach.default
        return copy.copy(args[0])


@pytest.fixture
def head(model):
    """A model of its own, and its last layer."""
    changed = copy.deepcopy(model)
    return changed, changed.head.classifier


def test_quantised_weights_are_named_and_hashed_with_their_settings(model, processor, head):
    changed, layer = head
    values, signatures = layer.weight.detach(), [sign(model, processor)]
    for weight in (EightBits(values), EightBits(values, "int8"), EightBits(1.5 * values)):
        layer.weight = nn.Parameter(weight, requires_grad=False)
        signatures.append(sign(changed, processor))
        assert f"|dtype:float32|quantization:{__name__}.EightBits|musiq_hf:" in signatures[-1]
    assert len({signature.split("|")[1] for signature in signatures}) == 4
    layer.weight = nn.Parameter(EightBits(1.5 * values), requires_grad=False)
    assert sign(changed, processor) == signatures[-1]  # whatever the address of its settings


def test_weights_of_a_library_and_its_layers_are_named(processor, head):
    changed, layer = head

    class Packed(nn.Parameter):
        __module__ = "bits.nn"

    class Layer(nn.Identity):
        __module__ = "library.quantized.linear"

    layer.weight = Packed((10 * layer.weight).to(torch.int8), requires_grad=False)
    layer.extra = Layer()
    assert "|dtype:float32+int8|quantization:bits.nn.Packed+library.quantized.linear.Layer|" in sign(
        changed, processor
    )


def test_states_that_are_no_tensors_are_hashed(model, processor, head):
    changed, layer = head

    class Packed(nn.Module):
        def get_extra_state(self):
            return state

    layer.packed = Packed()
    states = [
        (torch.zeros(2), None),
        (torch.ones(2), None),
        (torch.ones(2), torch.ones(1)),
        torch.qint8,
        torch.float16,
    ]
    signatures = {sign(model, processor)}
    for state in states:  # noqa: B007
        signatures.add(sign(changed, processor))
    assert len(signatures) == 1 + len(states)


@pytest.mark.filterwarnings("ignore")  # torch means to remove these types
def test_types_of_torch_for_quantised_weights_are_told_apart(processor, head):
    changed, layer = head
    values, signatures = layer.weight.detach(), []
    for scale in (0.01, 0.02):
        layer.weight = nn.Parameter(torch.quantize_per_tensor(values, scale, 0, torch.qint8), requires_grad=False)
        signatures.append(sign(changed, processor))
        assert "|dtype:float32+qint8|" in signatures[-1]
    assert changed_parts(*signatures) == ["weights"]


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e8m0fnu, torch.uint4, torch.float4_e2m1fn_x2])
def test_types_of_few_bits_are_named_and_hashed(processor, head, dtype):
    changed, layer = head
    signatures = []
    for first in (17, 35):
        stored = torch.tensor([first, 0, 0, 0], dtype=torch.uint8).view(dtype)
        layer.weight = nn.Parameter(stored, requires_grad=False)
        signatures.append(sign(changed, processor))
        assert f"+{str(dtype)[6:]}|" in signatures[-1]
    assert changed_parts(*signatures) == ["weights"]


def test_sparse_weights_are_those_that_they_stand_for(model, processor, head):
    changed, layer = head
    layer.weight = nn.Parameter(layer.weight.detach().to_sparse())
    assert sign(changed, processor) == sign(model, processor)


def test_weights_without_values_are_refused(processor, head):
    changed, layer = head
    fake = FakeTensorMode().from_tensor(layer.weight.detach())
    layer.weight = nn.Parameter(fake)
    with pytest.raises(ValueError, match=r"head.classifier.weight are a FakeTensor, whose values cannot be read"):
        sign(changed, processor)


def test_a_compiled_model_or_part_has_the_signature_of_the_model(model, processor):
    assert sign(torch.compile(model, backend="eager"), processor) == sign(model, processor)
    changed = copy.deepcopy(model)
    changed.musiq = torch.compile(changed.musiq, backend="eager")
    assert sign(changed, processor) == sign(model, processor)


def test_adapters_are_named_while_they_take_part(model, processor):
    changed = copy.deepcopy(model)
    settings = LoraConfig(target_modules=["q_proj"], r=2, lora_alpha=4, init_lora_weights=False)
    changed.add_adapter(settings, adapter_name="mine")
    active = sign(changed, processor)
    assert "|dtype:float32|adapters:mine*2|" in active
    layer = changed.musiq.encoder.layers[0].attention.q_proj
    layer.scaling["mine"] = 3.0
    assert changed_parts(sign(changed, processor), active) == ["adapters"]
    changed.disable_adapters()
    assert "adapters:" not in sign(changed, processor)
    changed.enable_adapters()
    for part in changed.modules():
        if hasattr(part, "merge"):
            part.merge()
    assert "adapters:" not in sign(changed, processor) and sign(changed, processor) != sign(model, processor)
