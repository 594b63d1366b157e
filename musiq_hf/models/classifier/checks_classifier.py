# SPDX-License-Identifier: Apache-2.0
"""Checks of what a checkpoint holds: fields of its JSON files, headers of its weights, and hashes of what is loaded.

Fields have types and largest sizes, and each mistake is one sentence. Weights are compared with those of a model by
the headers of their files. Transformers fills missing weights with random numbers, drops unexpected ones and converts
whole numbers. The scores of such a model look like scores. Here each of these is an error.

Hashes name what scores were made with, for every family.
"""

import hashlib
import json
import math
import os
import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import torch
from huggingface_hub.dataclasses import type_validator
from transformers import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel, load_state_dict
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, logging

_NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    type(None): "null",
    list: "a list",
    tuple: "a list",
    dict: "an object",
}
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 2, 60, 60
AUTO_KEYWORDS = {"adapter_kwargs", "trust_remote_code"}  # an Auto class gives both, always, and the configuration
SHOWN = 5  # names of weights that a message lists, of each kind
DIGITS = 8  # digits of a hash: that two of a hundred checkpoints share one has a probability of one in a million
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def shorten(value: Any) -> str:
    """Return a value as Python writes it, cut if it is long or deep."""
    return _SHORT.repr(value)


def _describe(kind: Any) -> str:
    """Describe a type in the words of a JSON file."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(map(repr, parts))
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_describe(part) for part in parts if part is not int or float not in parts))
    return _NAMES.get(origin or kind, str(kind))


def check_types(values: Mapping[str, Any], types: Mapping[str, Any]) -> None:
    """Raise a ValueError for the first value whose type is not that of its field.

    Args:
        values: Values by the names of their fields; names without a type are passed over.
        types: Types by the names of fields.
    """
    for name, kind in types.items():
        if name not in values:
            continue
        value = values[name]
        try:
            type_validator(name, value, kind)
        except TypeError as error:
            raise ValueError(f"`{name}` must be {_describe(kind)}, got {shorten(value)}.") from error
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"`{name}` must be finite, got {value}.")


@contextmanager
def reading_json(source: Any) -> Iterator[None]:
    """Turn what Transformers raises over a JSON file of a checkpoint that holds no object into a ValueError."""
    try:
        yield
    except (TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{source} is damaged: each of its JSON files must hold one object ({error}).") from error


def read_headers(files: Iterable[str | os.PathLike[str]]) -> dict[str, torch.Tensor]:
    """Read names, shapes and types of the weights in some files, as tensors without memory.

    Raises:
        ValueError: If a file cannot be read.
    """
    headers: dict[str, torch.Tensor] = {}
    for file in files:
        try:
            headers |= load_state_dict(file, map_location="meta")
        except Exception as error:  # a damaged file raises whatever its reader comes upon
            reason = str(error).strip().split("\n")[0]
            raise ValueError(
                f"{file} holds no weights that can be read: it is damaged or not complete ({reason}). Copy or "
                "download it again."
            ) from error
    return headers


def check_index(index: Any, source: str | os.PathLike[str]) -> list[str]:
    """Check the index of weights that are spread over several files, and return the names of these files.

    Args:
        index: Content of the index.
        source: Name of the index, for the message.

    Raises:
        ValueError: If it is no index, or names a file outside of its folder.
    """
    types = {"weight_map": dict[str, str], "metadata": dict[str, Any]}
    if not isinstance(index, dict) or not types.keys() <= index.keys():
        raise ValueError(f"{source} is no index of weights: it must hold {' and '.join(types)}. Download it again.")
    check_types(index, types)
    names = sorted(set(index["weight_map"].values()))
    if not names:
        raise ValueError(f"{source} names no file of weights. Download it again.")
    for name in names:
        if not name.endswith(".safetensors") or {"/", "\\", "\0"} & set(name):
            raise ValueError(f"{source} names {shorten(name)}, which is no .safetensors file in its own folder.")
    return names


def _align(names: Iterable[str], model: PreTrainedModel) -> dict[str, str]:
    """Return the model's names for the names in a checkpoint, of which one may be a backbone and the other not."""
    prefix = f"{model.base_model_prefix}."
    names = list(names)
    has_prefix, needs_prefix = any(name.startswith(prefix) for name in names), hasattr(model, prefix[:-1])
    if has_prefix and not needs_prefix:  # what the checkpoint has besides its backbone is its head, and left over
        return {name: name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    return {name: prefix + name if needs_prefix and not has_prefix else name for name in names}


def _list(kind: str, names: Iterable[str]) -> list[str]:
    """Return a part of a sentence about some weights; none without weights."""
    names = sorted(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return [f"{kind} {', '.join(names[:SHOWN])}{more}"] if names else []


def check_weights(
    model: PreTrainedModel,
    found: Mapping[str, Any],
    *,
    source: str,
    may_lack_head: bool = False,
    may_differ: bool = False,
) -> None:
    """Raise a ValueError unless the weights of a checkpoint are those of a model, by name, shape and type.

    Args:
        model: Model, whose own weights are not read.
        found: Weights of the checkpoint by name, of which values are not read; see `read_headers`.
        source: Name of the checkpoint, for the message.
        may_lack_head: Whether the head may be missing, because it will be trained.
        may_differ: Whether names and shapes may differ, because what does not fit will be trained.
    """
    known = {name: tensor for name, tensor in found.items() if isinstance(tensor, torch.Tensor)}
    expected, names = model.state_dict(), _align(found, model)
    counts = {name for name, own in names.items() if own in expected and not expected[own].is_floating_point()}
    problems = _list("no tensors", found.keys() - known.keys())
    problems += _list(
        "not of a floating-point type",
        (
            f"{name} ({str(tensor.dtype)[6:]})"
            for name, tensor in known.items()
            if tensor.dtype not in DTYPES and name not in counts  # batch norms count their steps
        ),
    )
    if not may_differ:
        ours = {names[name]: tensor for name, tensor in known.items() if name in names}
        base = f"{model.base_model_prefix}."
        missing = {name for name in expected.keys() - ours.keys() if name.startswith(base) or not may_lack_head}
        problems += _list("missing", missing)
        problems += _list("unexpected", (name for name, own in names.items() if own not in expected))
        problems += _list(
            "of a wrong shape",
            (
                f"{name} {tuple(tensor.shape)} in place of {tuple(expected[name].shape)}"
                for name, tensor in ours.items()
                if name in expected and tensor.shape != expected[name].shape
            ),
        )
    if problems:
        raise ValueError(
            f"The weights of {source} are not those of the {type(model).__name__} that its configuration describes: "
            f"{'; '.join(problems)}. If you changed its configuration, leave that out; else download or convert the "
            "checkpoint again."
        )


def _normalize(value: Any) -> Any:
    """Return a value in the form that Python and JSON share: tuples become lists, whole floats integers."""
    if isinstance(value, list | tuple):
        return [_normalize(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _encode(settings: Mapping[str, Any]) -> bytes:
    return json.dumps({name: _normalize(value) for name, value in settings.items()}, sort_keys=True).encode()


def _list_parts(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the tensors of a value in a `state_dict`, by name; a quantised weight has several, and settings too.

    What is no tensor, such as these settings, is a part of a name; its tensor is empty.
    """
    if isinstance(value, torch.Tensor) and hasattr(value, "__tensor_flatten__"):
        names, settings = value.__tensor_flatten__()
        yield from _list_parts(f"{name} {type(value).__name__}", settings)
        for part in names:
            yield from _list_parts(f"{name}.{part}", getattr(value, part))
    elif isinstance(value, torch.Tensor) and value.is_quantized:
        yield f"{name} {value.dtype} {value.qscheme()}", value.dequantize()
    elif isinstance(value, torch.Tensor):
        yield name, value if value.layout is torch.strided else value.to_dense()
    elif isinstance(value, list | tuple) and any(isinstance(item, torch.Tensor) for item in value):
        for index, item in enumerate(value):
            yield from _list_parts(f"{name}.{index}", item)
    else:
        yield f"{name} {re.sub(' at 0x[0-9a-f]+', '', repr(value))}", torch.empty(0)  # the same in every process


def _read_values(name: str, tensor: torch.Tensor) -> Any:
    """Return the values of a tensor as float32, or the bytes of a type that has no way to it, as of four bits."""
    if tensor.is_meta:
        raise ValueError(f"The weights {name} are not in memory, so the model has no signature. Load them first.")
    try:
        stored = tensor.detach().cpu().as_subclass(torch.Tensor).contiguous()
        try:
            values = stored.to(torch.float32)
        except NotImplementedError:
            values = stored.view(torch.uint8)
        return values.numpy().astype("<f4" if values.is_floating_point() else "u1", copy=False).reshape(-1)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"The weights {name} are a {type(tensor).__name__}, whose values cannot be read ({error}), so the model "
            "has no signature. Give a model with weights of its own."
        ) from error


def hash_weights(model: Any) -> str:
    """Return the hexadecimal SHA-256 of names, shapes and values of all weights, as float32.

    The hash covers also the fields of the configuration that shape no weight but change a score. Examples are the
    number of attention heads and the scale of the scores. It is computed anew each time. A compiled model has the hash
    of the model itself.

    Raises:
        ValueError: If weights are not in memory, or have no values that can be read.
    """
    digest = hashlib.sha256(_encode(model.config.signature_fields()))
    weights = {name.replace("_orig_mod.", ""): value for name, value in model.state_dict().items()}
    for name in sorted(weights):
        for part, tensor in _list_parts(name, weights[name]):
            values = _read_values(part, tensor)
            digest.update(f"\n{part} {tuple(tensor.shape)}\n".encode())
            digest.update(values.data)
    return digest.hexdigest()


def hash_preprocessing(processor: Any, *, shorter_side: int | None = None) -> str:
    """Return the hexadecimal SHA-256 of the settings that decide what a model sees of a picture.

    Args:
        processor: Processor of the model.
        shorter_side: Shorter side to which pictures were shrunk first, in pixels; None if they were not.
    """
    settings = processor.signature_fields()
    settings["shorter_side" if "shorter_side" not in settings else "first_shorter_side"] = shorter_side
    return hashlib.sha256(_encode(settings)).hexdigest()


def identify_scores(
    model: Any, processor: Any, *, shorter_side: int | None = None, preset: str = "default"
) -> dict[str, str]:
    """Name all that decides the scores of a checkpoint, as parts of a signature.

    Args:
        model: Model with its weights, on any device.
        processor: Processor of the model.
        shorter_side: Shorter side to which pictures are shrunk first, in pixels; None if they are not.
        preset: Way in which files become pixels.

    Returns:
        Hash of the weights, preset, and hash of the preprocessing, by name.

    Raises:
        ValueError: If weights are not in memory.
    """
    return {
        "weights": hash_weights(model)[:DIGITS],
        "preset": preset,
        "preprocessing": hash_preprocessing(processor, shorter_side=shorter_side)[:DIGITS],
    }


@contextmanager
def _without_bar() -> Iterator[None]:
    """Hide bars of progress for a moment: of files that are here, weights are read and written in a second."""
    is_shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if is_shown:
            logging.enable_progress_bar()


class CheckedPreTrainedModel(PreTrainedModel):
    """Base of models whose `from_pretrained` refuses weights that are missing, unexpected or not floating-point.

    `ignore_mismatched_sizes=True` says that what does not fit is made anew, to be trained. Without it, a class with a
    head still loads the checkpoint of a backbone, with a fresh head. An Auto class or a pipeline does not.
    """

    @classmethod
    def _is_of_another_class(cls, config: Any) -> bool:
        """Return whether a checkpoint is, by its configuration, one of another class of the same family."""
        ancestors: list[Any] = cls.mro()
        bases = [kind for kind in ancestors if CheckedPreTrainedModel in kind.__bases__]
        siblings = {kind.__name__ for base in bases for kind in base.__subclasses__()}
        named = siblings & set(config.architectures or [])
        return bool(named) and named.isdisjoint(kind.__name__ for kind in ancestors)

    @classmethod
    def _check_class(cls, config: Any, source: Any) -> None:
        if cls._is_of_another_class(config):
            raise ValueError(
                f"{source} holds a {config.architectures[0]}, not a {cls.__name__}. Give another checkpoint, or say "
                "with `ignore_mismatched_sizes=True` that you are going to train this one."
            )

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str] | None, *args: Any, **kwargs: Any
    ) -> Any:
        """Load a model, as the base class does.

        Raises:
            ValueError: If the weights are not those of the model, or the checkpoint is one of another class.
        """
        folder = os.path.join(pretrained_model_name_or_path or "", kwargs.get("subfolder") or "")
        index = os.path.join(folder, SAFE_WEIGHTS_INDEX_NAME)
        if os.path.isfile(index) and not os.path.isfile(os.path.join(folder, SAFE_WEIGHTS_NAME)):
            with reading_json(folder), open(index, encoding="utf-8") as file:
                check_index(json.load(file), index)
        config = kwargs.get("config")
        is_from_auto = isinstance(config, PreTrainedConfig) and kwargs.keys() >= AUTO_KEYWORDS
        if is_from_auto and not kwargs.get("ignore_mismatched_sizes"):
            cls._check_class(config, pretrained_model_name_or_path)
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """Save the model as the base class does, with files of weights that may be read by whom config.json may."""
        # A part from Transformers would be saved under the names of its old files, which are not those of the model.
        with _without_bar():
            super().save_pretrained(save_directory, *args, **{"save_original_format": False} | kwargs)
        config = Path(save_directory) / CONFIG_NAME
        if config.is_file():
            for file in config.parent.glob("*.safetensors"):  # safetensors writes them for their owner alone
                file.chmod(config.stat().st_mode)

    def _check_found(self, found: Mapping[str, Any], load_config: Any) -> None:
        """Raise a ValueError unless weights are those of this model, or such as it may be trained from."""
        source, is_anew = load_config.pretrained_model_name_or_path, load_config.ignore_mismatched_sizes
        prefix = self.base_model_prefix
        has_head, is_backbone = hasattr(self, prefix), not any(name.startswith(f"{prefix}.") for name in found)
        if has_head and not is_backbone and not is_anew:
            self._check_class(self.config, source)
        may_lack_head = is_backbone and self._is_of_another_class(self.config)
        check_weights(self, found, source=str(source), may_lack_head=may_lack_head, may_differ=is_anew)

    @staticmethod
    def _load_pretrained_model(
        model: Any, state_dict: Any, checkpoint_files: Any, load_config: Any, *args: Any, **kwargs: Any
    ) -> Any:
        # Here the files are known, and the model has no memory yet.
        found = read_headers(checkpoint_files or []) if state_dict is None else state_dict
        is_initial = not found and load_config.pretrained_model_name_or_path is None
        is_adapter = model._hf_peft_config_loaded  # what peft adds to the weights, by `load_adapter`
        if not (is_initial or is_adapter):
            model._check_found(found, load_config)
        with _without_bar():
            return PreTrainedModel._load_pretrained_model(
                model, state_dict, checkpoint_files, load_config, *args, **kwargs
            )


__all__ = [
    "CheckedPreTrainedModel",
    "check_index",
    "check_types",
    "check_weights",
    "hash_preprocessing",
    "hash_weights",
    "identify_scores",
    "read_headers",
    "reading_json",
    "shorten",
]
