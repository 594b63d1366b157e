# SPDX-License-Identifier: Apache-2.0
"""Rules that configurations and image processors of all families obey: names, types, labels, and the unit of scores.

Each mistake in a JSON file is one sentence.
"""

import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, Literal, Self

import numpy as np
import torch
from huggingface_hub.dataclasses import validate_typed_dict
from PIL import Image
from transformers import PreTrainedConfig
from transformers.image_processing_utils import BatchFeature
from transformers.utils import TensorType

from .checks_classifier import check_types, reading_json, shorten
from .publishing_classifier import FILE_KEYS, PublishedConfig, PublishedProcessor

LARGEST_SCORE = 10**6  # MOS points, of any sign
MOST_LABELS = 2**17  # far above every model that was trained
ROUNDING = 1e-6  # beyond the range of float pixels, which arithmetic leaves behind; it is clipped
_DTYPES = Literal["float32", "float16", "bfloat16", "float64"]
# Types of the fields of a config.json that belong to no family.
_SHARED_TYPES = {
    "model_type": str,
    "architectures": list[str] | None,
    "transformers_version": str | None,
    "dtype": _DTYPES | torch.dtype | None,
    "torch_dtype": _DTYPES | torch.dtype | None,
    "num_labels": int,
    "id2label": dict[str, str] | dict[int, str] | None,
    "label2id": dict[str, int] | dict[str, str] | None,
    "problem_type": Literal["regression", "single_label_classification", "multi_label_classification"] | None,
    "output_attentions": bool | None,
    "output_hidden_states": bool | None,
    "return_dict": bool | None,
    "chunk_size_feed_forward": int,
    "is_encoder_decoder": bool,
    "attn_implementation": str | None,
    "experts_implementation": str | None,
    "name_or_path": str,
    "auto_map": dict[str, str | list[str | None]],
    "custom_pipelines": dict[str, dict[str, Any]],
    "_name_or_path": str | None,
    "_commit_hash": str | None,
    "_attn_implementation_autoset": bool,
}
# Names that Transformers reads from any configuration; they would change the model behind its fields.
_REFUSED = {
    "self",
    "layer_types",
    "mtp_layer_types",
    "quantization_config",
    "rope_parameters",
    "rope_scaling",
    "transformers_weights",
    "_attn_implementation",
    "_attn_implementation_internal",
    "_experts_implementation",
    "_experts_implementation_internal",
    "_heterogeneity_spec",
    "_is_quantized",
    "_output_attentions",
    "_post_init_done",
}


def _read_object(read: Callable[..., Any], source: Any, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a JSON file by a method of Transformers, or raise a ValueError if it holds no object."""
    with reading_json(source):
        values, rest = read(source, **kwargs)
        return values | {}, rest  # a TypeError for anything but an object


def check_scores(config: Any) -> None:
    """Raise a ValueError if offset, scale and range of the scores contradict each other, or are no usable numbers."""
    offset, scale, bounds = config.score_offset, config.score_scale, config.score_range
    numbers = (offset, scale, *(bounds or ()))
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"`score_offset`, `score_scale` and `score_range` must be finite, got {numbers}.")
    if any(abs(number) > LARGEST_SCORE for number in numbers):
        raise ValueError(
            f"`score_offset`, `score_scale` and `score_range` must be at most {LARGEST_SCORE:,}, got "
            f"{shorten(numbers)}."
        )
    if scale == 0:
        raise ValueError("`score_scale` must not be 0: every picture would get the same score.")
    if config.num_labels != 1 and (offset != 0 or scale != 1):
        raise ValueError(
            "`score_offset` and `score_scale` belong to models with one label; a score distribution over 1..n has its "
            f"own scale. Remove them, got {offset} and {scale} with {config.num_labels} labels."
        )
    if bounds is not None and (len(bounds) != 2 or bounds[0] >= bounds[1]):
        raise ValueError(f"`score_range` must be (lowest, highest), got {bounds}.")


def check_sizes(sizes: Mapping[str, Any], largest: Mapping[str, int], *, name: str = "{}") -> None:
    """Raise a ValueError unless sizes lie between 1 and their largest values; None and other names are passed over.

    Args:
        sizes: Numbers, or lists of numbers, by name.
        largest: Largest values by name, far above every model that was trained.
        name: Text that names a size in the message, with its own name in place of the braces.
    """
    for size, most in largest.items():
        value = sizes.get(size)
        for number in value if isinstance(value, list | tuple) else (value,):
            if number is None:
                continue
            if number < 1:
                raise ValueError(f"`{name.format(size)}` must be at least 1, got {shorten(number)}.")
            if number > most:
                raise ValueError(f"`{name.format(size)}` must be at most {most}, got {shorten(number)}.")


class CheckedConfig(PublishedConfig):
    """Base of the configurations of all families; `PreTrainedConfig` comes after it among the bases.

    A family adds its fields, among them `score_offset`, `score_scale` and `score_range`, and `validate_architecture`.
    One without scores says so by its `default_head`, and checks its fields without the method of this class.
    """

    default_head = "ForImageQualityAssessment"  # end of the name of the class, where a file names none
    score_range: Sequence[float | int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        this: Any = self
        if this.id2label is None:
            kwargs.setdefault("num_labels", 1)
        # A registered class needs neither of these, and a checkpoint that keeps them would demand
        # `trust_remote_code` although the package is installed. Remote code lives in `transformers_modules`.
        if not __name__.startswith("transformers_modules"):
            kwargs.pop("auto_map", None)
            kwargs.pop("custom_pipelines", None)
        if self.score_range is not None:
            self.score_range = list(self.score_range)
        super().__post_init__(**kwargs)  # type: ignore[misc]
        if this.architectures is None:
            # An Auto class that can choose between several classes crashes on None.
            this.architectures = [f"{type(self).__name__.removesuffix('Config')}{self.default_head}"]
        if this.num_labels == 1 and this.problem_type is None:
            # Otherwise the image-classification pipeline of Transformers puts a sigmoid on the MOS.
            this.problem_type = "regression"
        # `@strict` validates too, but its error is no ValueError and hides our sentence.
        self.validate_architecture()

    def validate_architecture(self) -> None:
        """Raise a ValueError for the first rule that the fields break."""
        this: Any = self
        check_sizes({"num_labels": this.num_labels}, {"num_labels": MOST_LABELS})
        check_scores(self)

    @property
    def answer_range(self) -> tuple[float, float] | None:
        """Lowest and highest score in MOS points; None if it is not noted.

        A distribution has the range of its score values; for one label it is `score_range`.
        """
        this: Any = self
        if this.num_labels > 1:
            return 1, this.num_labels
        return None if self.score_range is None else (self.score_range[0], self.score_range[1])

    @classmethod
    def own_types(cls) -> dict[str, Any]:
        """Return the types of the fields of the family by name, without those of all configurations."""
        kinds = [kind for kind in reversed(cls.mro()) if issubclass(kind, PreTrainedConfig) and kind not in _COMMON]
        return {name: kind for owner in kinds for name, kind in vars(owner).get("__annotations__", {}).items()}

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read the fields of a checkpoint, as the base class does.

        Raises:
            ValueError: If config.json holds no object.
            OSError: If there is no such file, or it is no JSON.
        """
        base: Any = super()
        return _read_object(base.get_config_dict, pretrained_model_name_or_path, **kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Self:
        """Make a configuration from a dictionary, as the base class does.

        The base class sets overrides only after the fields have been checked and sorted. Here they come before.

        Raises:
            ValueError: If a value has a wrong type or size, fields contradict each other, or a name is none that a
                configuration may have.
        """
        base, this = super(), cls  # type: Any, Any
        names = {field.name for field in fields(this)}
        given = {name: value for name, value in kwargs.items() if name in names}
        if given.get("dtype") == "auto":  # a pipeline loads so, and it means the type that the file has
            del given["dtype"]
        given = config_dict | given
        rest = {name: value for name, value in kwargs.items() if name not in names}
        values = {name: value for name, value in given.items() if value is not None or name not in _REFUSED}
        cls._check_names(values)
        check_types(values, _SHARED_TYPES | {"model_type": Literal[this.model_type]} | cls.own_types())
        labels = values.get("id2label")
        cls._check_labels(labels, values.get("num_labels", 1 if labels is None else len(labels)))
        return base.from_dict(values, **rest)

    @classmethod
    def _check_names(cls, names: Collection[str]) -> None:
        """Raise a ValueError for a name that is a method, changes a model behind its fields, or is misspelt.

        Other programs write notes of their own to a config.json, also with dots, hyphens and underscores.
        """
        this: Any = cls
        known = {field.name for field in fields(this)} | _SHARED_TYPES.keys()
        for name in names:
            if name in known:
                continue
            if name.startswith("__") or name in _REFUSED or hasattr(cls, name):
                raise ValueError(f"{shorten(name)} is no field of a {cls.__name__}. Remove it.")
            close = get_close_matches(name, cls.own_types(), n=1, cutoff=0.9)
            if close and close[0] not in names:  # the default would be taken in its place
                raise ValueError(f"{shorten(name)} is no field of a {cls.__name__}. Is it `{close[0]}`?")

    @staticmethod
    def _check_labels(labels: Mapping[Any, str] | None, num_labels: int) -> None:
        """Raise a ValueError unless the labels of a file are numbered from 0, as many as it says."""
        check_sizes({"num_labels": num_labels}, {"num_labels": MOST_LABELS})
        if labels is not None and {str(label) for label in labels} != set(map(str, range(num_labels))):
            raise ValueError(
                f"`id2label` must number its labels from 0 to {num_labels - 1}, got {shorten(list(labels))}."
            )


class CheckedProcessor(PublishedProcessor):
    """Base of the image processors of all families; `BaseImageProcessor` comes after it among the bases.

    A family names its settings and their types in `valid_kwargs`, a `TypedDict`.
    """

    valid_kwargs: Any

    @classmethod
    def check_given(cls, settings: Mapping[str, Any]) -> None:
        """Raise a TypeError if a setting is unknown, or another error if its value has a wrong type."""
        known = cls.valid_kwargs.__annotations__
        if unknown := sorted(settings.keys() - known.keys() - FILE_KEYS.keys()):
            raise TypeError(f"Unknown settings {unknown}; known are {sorted(known)}.")
        validate_typed_dict(cls.valid_kwargs, {name: settings[name] for name in settings if name not in FILE_KEYS})

    @classmethod
    def list_pictures(cls, images: Any) -> Iterator[Any]:
        """Yield the single pictures of a picture, a batch array, or lists of them."""
        if isinstance(images, list | tuple):
            for image in images:
                yield from cls.list_pictures(image)
        elif isinstance(images, np.ndarray | torch.Tensor) and images.ndim == 4:
            yield from images
        else:
            yield images

    @classmethod
    def get_image_processor_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read the settings of a checkpoint, as the base class does.

        Raises:
            ValueError: If a JSON file holds no object.
            OSError: If there is no such file, or it is no JSON.
        """
        base: Any = super()
        return _read_object(base.get_image_processor_dict, pretrained_model_name_or_path, **kwargs)

    @classmethod
    def from_dict(cls, image_processor_dict: dict[str, Any], **kwargs: Any) -> Self:
        """Make a processor from a dictionary, as the base class does.

        Raises:
            ValueError: If a setting is unknown, has a wrong type or size, or contradicts another one.
        """
        base: Any = super()
        types = cls.valid_kwargs.__annotations__ | FILE_KEYS
        if unknown := image_processor_dict.keys() - types.keys():
            raise ValueError(
                f"{shorten(sorted(unknown))} are no settings of a {cls.__name__}. Known are "
                f"{', '.join(sorted(cls.valid_kwargs.__annotations__))}."
            )
        known = {name: value for name, value in kwargs.items() if name in types}
        check_types(image_processor_dict | known, types)
        return base.from_dict(image_processor_dict, **kwargs)


class PixelProcessor(CheckedProcessor):
    """Base of image processors that read pixels, and RGB and gray pictures as Transformers opens them.

    The openers of `musiq_hf` bring all other pictures to that form. A family has the methods `cut` and `pad`, and the
    defaults of its settings as attributes of the class. It checks those of a processor in `check_settings`.
    """

    do_convert_rgb: bool
    input_data_format: str | None

    def __init__(self, **kwargs: Any):
        self.check_given(kwargs)
        known = self.valid_kwargs.__annotations__.keys()
        settings = {name: kwargs.pop(name) for name in known & kwargs.keys()}
        if not __name__.startswith("transformers_modules"):
            kwargs.pop("auto_map", None)  # it names files that this class is not of
        super().__init__(**kwargs)
        for name in known:
            value = settings.get(name, getattr(type(self), name))
            setattr(self, name, list(value) if isinstance(value, tuple) else value)
        self.check_settings()

    def check_settings(self) -> None:
        """Raise a ValueError for the first rule that the settings break."""

    def to_pixels(self, picture: Any) -> torch.Tensor:
        """Bring one picture to (height, width, 3), uint8 or float.

        Raises:
            ValueError: If it is of another kind, colour mode, type, shape or range.
        """
        if isinstance(picture, Image.Image):
            if picture.mode not in ("RGB", "L"):
                raise ValueError(
                    f"RGB and gray pictures are read, got mode {picture.mode}. Convert it, or score it with the "
                    "pipeline or `musiq score`."
                )
            picture = np.array(picture)
        if not isinstance(picture, np.ndarray | torch.Tensor):
            raise ValueError(f"A PIL image, an array or a tensor was expected, got {type(picture).__name__}.")
        pixels = torch.as_tensor(picture)
        if pixels.dim() == 2:
            pixels = pixels[..., None]
        elif pixels.dim() == 3 and self._is_channels_first(pixels, is_tensor=isinstance(picture, torch.Tensor)):
            pixels = pixels.permute(1, 2, 0)
        self.check_pixels(pixels)
        return pixels.expand(-1, -1, 3)

    def _is_channels_first(self, pixels: torch.Tensor, *, is_tensor: bool) -> bool:
        """Return whether channels come first; where both fit, as in tensors and not as in arrays."""
        if self.input_data_format is not None:
            return self.input_data_format == "channels_first"
        may_be_first, may_be_last = pixels.shape[0] in (1, 3), pixels.shape[-1] in (1, 3)
        return may_be_first and (is_tensor or not may_be_last)

    def check_pixels(self, pixels: torch.Tensor) -> None:
        """Raise a ValueError unless pixels are of a type, a shape and a range that are read."""
        is_float = pixels.is_floating_point()
        if pixels.dim() != 3 or pixels.shape[-1] not in (1, 3) or not (is_float or pixels.dtype == torch.uint8):
            raise ValueError(
                "uint8 or float pixels with 1 or 3 channels are read, (height, width, channels) or (channels, height, "
                f"width), got {tuple(pixels.shape)} of {pixels.dtype}."
            )
        if pixels.shape[-1] == 1 and not self.do_convert_rgb:
            raise ValueError("A gray picture was given, which `do_convert_rgb=False` does not convert.")
        if is_float and pixels.numel():
            low, high = (float(bound) for bound in pixels.aminmax())
            if not -ROUNDING <= low <= high <= 1 + ROUNDING:
                raise ValueError(f"Float pixels must lie in [0, 1], got {low:.7g} to {high:.7g}.")

    def check_colour(self, pixels: torch.Tensor) -> None:
        """Raise a ValueError unless pixels are those of `cut`: as `check_pixels` says, and with three channels."""
        self.check_pixels(pixels)
        if pixels.shape[-1] != 3:
            raise ValueError(f"Pixels of shape (height, width, 3) were expected, got {tuple(pixels.shape)}.")

    def cut_and_pad(
        self, images: Any, *, return_tensors: str | TensorType | None, padding: str | None = None, **options: Any
    ) -> BatchFeature:
        """Turn one picture or many into a batch.

        Args:
            images: Picture, batch array, or lists of them; the docstring of the class says of which kinds.
            return_tensors: "pt" or "np"; None = "pt".
            padding: That of `pad`.
            **options: Those of `cut`.

        Raises:
            ValueError: If a picture cannot be used.
        """
        if return_tensors not in (None, "pt", "np", TensorType.PYTORCH, TensorType.NUMPY):
            raise ValueError(f'`return_tensors` must be "pt", "np" or None, got {return_tensors!r}.')
        this: Any = self
        features, pictures = [], list(self.list_pictures(images))
        for index, picture in enumerate(pictures):
            try:
                features.append(this.cut(self.to_pixels(picture), **options))
            except ValueError as error:
                raise ValueError(f"Picture {index}: {error}" if len(pictures) > 1 else str(error)) from error
        if not features:
            raise ValueError("At least one picture is needed, got an empty list.")
        batch: BatchFeature = this.pad(features, padding=padding)
        if return_tensors in ("np", TensorType.NUMPY):
            return BatchFeature(data={name: values.cpu().numpy() for name, values in batch.items()})
        return batch


_COMMON = (PreTrainedConfig, CheckedConfig)

__all__ = ["CheckedConfig", "CheckedProcessor", "PixelProcessor", "check_scores", "check_sizes"]
