# SPDX-License-Identifier: Apache-2.0
"""Saving and uploading of configuration, image processor and model with all that belongs to them.

A saved directory loads without the package: the files of the family go with it, and its two JSON files name their
classes. A model takes card and measured results of its checkpoint along, as far as they hold for it. Nothing here
knows the family except the name of this file: every family has the same file under its own name.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard
from transformers.modeling_utils import load_state_dict
from transformers.utils import cached_file, logging

logger = logging.get_logger(__name__)

FAMILY = __name__.rpartition("publishing_")[2]
CONFIG, PROCESSOR, CARD = "config.json", "preprocessor_config.json", "README.md"
RESULTS = ("self_test.json", "metrics.json")  # numbers that hold for the weights beside them alone
WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
# Tasks and their classes, for a model with a quality head.
PIPELINES = {
    "image-quality-assessment": "ImageQualityAssessmentPipeline",
    "image-classification": "QualityClassificationPipeline",
}
# Keys of a preprocessor_config.json that describe the file, not the preprocessing, and their types.
FILE_KEYS = {
    "image_processor_type": str,
    "processor_class": str | None,
    "auto_map": dict[str, str | list[str | None]],
    "backend": str | None,
    "_commit_hash": str | None,
    "name_or_path": str,
}

IMPORTED = re.compile(rf"^\s*from\s+\.(\w+_{FAMILY})\s+import", re.MULTILINE)
MEASURED = re.compile(r"^(## (?:Evaluation|Check of the files)\n).*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
MODEL_INDEX = re.compile(r"\nmodel-index:.*?(?=\n[^\s-]|\Z)", re.DOTALL)
TITLE = re.compile(r"^# .*\n", re.MULTILINE)
CHANGED = (
    "> Weights or settings were changed after this card was written. What it says about source, data and recipe is "
    "where they started from. Results from before the change are left out."
)
BLANK = "This model card has been automatically generated"  # in the card by Transformers that says nothing
PLAIN_CARD = """\
---
library_name: transformers
tags:
- {family}
---

# {name}

A checkpoint of the family `{family}`. It is not noted where it comes from.

```python
from transformers import AutoImageProcessor, AutoModel

model = AutoModel.from_pretrained("{name}", trust_remote_code=True).eval()
processor = AutoImageProcessor.from_pretrained("{name}", trust_remote_code=True)
```
"""


def list_code() -> list[Path]:
    """List the files of the family that go with a checkpoint, sorted by name."""
    return sorted(Path(__file__).parent.glob(f"*_{FAMILY}.py"))


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; one that is right already stays."""
    if path.is_file() and path.read_bytes() == content:
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        with open(temporary, "xb") as file:
            file.write(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    _write(path, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())


def _find_class(name: str | None) -> str | None:
    """Return the entry of a class in an `auto_map`, file and name; None if no file of the family has it."""
    files = [path for path in list_code() if f"\nclass {name}(" in path.read_text(encoding="utf-8")]
    return f"{files[0].stem}.{name}" if files else None


def _list_imported(directory: Path, names: Iterable[str]) -> set[str]:
    """List the files of the family that some files of a directory import, and those that these import in turn."""
    imported: set[str] = set()
    unread = set(names)
    while unread:
        path = directory / unread.pop()
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        found = {f"{module}.py" for module in IMPORTED.findall(text)}
        unread |= found - imported
        imported |= found
    return imported


def _write_code(directory: Path) -> None:
    """Write the code of the family in place of an earlier version, of which no file stays behind."""
    code = {source.name: source.read_bytes() for source in list_code()}
    earlier = _list_imported(directory, code)
    for name, content in code.items():
        _write(directory / name, content)
    for name in earlier - code.keys():
        (directory / name).unlink(missing_ok=True)


def _name_classes(config: str, model: str) -> dict[str, Any]:
    """Name the classes as config.json does: `auto_map`, and `custom_pipelines` for a model with a quality head."""
    is_quality = model.endswith("ForImageQualityAssessment")
    has_head = is_quality or model.endswith("ForImageClassification")
    autos = ["AutoModel", *(["AutoModelForImageClassification"] if has_head else [])]
    names: dict[str, Any] = {"auto_map": {"AutoConfig": config} | dict.fromkeys(autos, model)}
    pipelines = {task: _find_class(name) for task, name in PIPELINES.items()}
    if is_quality and all(pipelines.values()):
        # Transformers looks the class under "pt" up among its own, so it cannot be ours.
        common = {"pt": ["AutoModelForImageClassification"], "type": "image"}
        names["custom_pipelines"] = {task: {"impl": impl, **common} for task, impl in pipelines.items()}
    return names


def _mark_changed(card: str) -> str:
    """Return a card without the results that were measured, which says that they are left out."""
    head, mark, text = card.partition("\n---")
    card = MODEL_INDEX.sub("", head) + mark + text  # not parsed: damage in a card must not cost the weights
    card = MEASURED.sub(r"\1\nNothing was measured after the last change.\n\n", card).rstrip() + "\n"
    if CHANGED in card:
        return card
    title = TITLE.search(card)
    start = 0 if title is None else title.end()
    return f"{card[:start]}\n{CHANGED}\n{card[start:]}"


def _add_tags(card: str, other: str) -> str:
    """Return a card with the tags of another one added."""
    parsed, tags = ModelCard(card), ModelCard(other).data.tags or []
    missing = [tag for tag in tags if tag not in (parsed.data.tags or [])]
    if not missing:
        return card
    parsed.data.tags = [*(parsed.data.tags or []), *missing]
    return str(parsed)


def _remove_results(directory: Path) -> None:
    """Remove the results of other weights or settings from a directory."""
    found = [name for name in RESULTS if (directory / name).is_file()]
    for name in found:
        (directory / name).unlink()
    if found:
        logger.warning("%s: removed %s, which held results from before a change.", directory, " and ".join(found))


class _Uploaded:
    """Base of what is saved and uploaded; whichever way it came there, Transformers uploads in one place."""

    own_files: tuple[str, ...] = ()  # besides the code

    def complete(self, directory: Path, card: str | None) -> str | None:
        """Complete a directory that is about to be uploaded.

        Args:
            directory: Directory, to which Transformers may have added a card.
            card: That card, or one that was there; None without one.

        Returns:
            The card to upload in its place.
        """
        return card

    def _upload_modified_files(
        self, working_dir: str | os.PathLike[str], repo_id: str, files_timestamps: dict[str, float], **kwargs: Any
    ) -> Any:
        directory, path = Path(working_dir), Path(working_dir) / CARD
        written = path.read_text(encoding="utf-8") if path.is_file() else None
        card = self.complete(directory, written)
        if card is not None and BLANK in card:
            card = _add_tags(PLAIN_CARD.format(family=FAMILY, name=repo_id), card)
        if card is not None:
            _write(path, card.encode())
        # What was right already is uploaded too: the repository may not have it.
        ours = {*self.own_files, *(source.name for source in list_code())}
        others = {name: time for name, time in files_timestamps.items() if name not in ours}
        return super()._upload_modified_files(working_dir, repo_id, others, **kwargs)  # type: ignore[misc]


class PublishedConfig(_Uploaded):
    """Base of configurations that are saved with the code of their family."""

    own_files = (CONFIG,)

    @staticmethod
    def list_code() -> list[Path]:
        """List the files of the family that go with a checkpoint, sorted by name."""
        return list_code()

    @classmethod
    def publish(cls, directory: str | os.PathLike[str]) -> None:
        """Add code files, `auto_map` and `custom_pipelines` to a directory with a config.json, or renew them.

        Nothing is added for a class that is not of the family, such as one that a user derives.
        """
        path = Path(directory) / CONFIG
        content = _read_json(path)
        config, model = _find_class(cls.__name__), _find_class((content.get("architectures") or [None])[0])
        if config is None or model is None:
            return
        _write_code(Path(directory))  # first: a directory that names files which are not there does not load at all
        content.pop("custom_pipelines", None)
        _write_json(path, content | _name_classes(config, model))

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Save the configuration as the base class does, and the code of its family."""
        super().save_pretrained(save_directory, **kwargs)  # type: ignore[misc]
        self.publish(save_directory)

    def complete(self, directory: Path, card: str | None) -> str | None:
        self.publish(directory)
        return card


class PublishedProcessor(_Uploaded):
    """Base of image processors that are saved with the code of their family."""

    own_files = (PROCESSOR,)

    @classmethod
    def publish(cls, directory: str | os.PathLike[str]) -> None:
        """Add code files and `auto_map` to a directory with a preprocessor_config.json, or renew them."""
        path, processor = Path(directory) / PROCESSOR, _find_class(cls.__name__)
        if processor is not None:
            _write_code(Path(directory))
            _write_json(path, _read_json(path) | {"auto_map": {"AutoImageProcessor": processor}})

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> Any:
        """Save the image processor as the base class does, and the code of its family.

        Where it takes the place of one with other settings, results that were measured with that one are removed.
        """
        path = Path(save_directory) / PROCESSOR
        before = _read_settings(path)
        files = super().save_pretrained(save_directory, **kwargs)  # type: ignore[misc]
        self.publish(save_directory)
        if before is not None and before != _read_settings(path):
            card = path.with_name(CARD)
            if card.is_file():
                _write(card, _mark_changed(card.read_text(encoding="utf-8", errors="replace")).encode())
            _remove_results(path.parent)
        return files

    def complete(self, directory: Path, card: str | None) -> str | None:
        self.publish(directory)
        return card


def _read_settings(path: Path | None) -> dict[str, Any] | None:
    """Return the settings in a preprocessor_config.json; None without one."""
    if path is None or not path.is_file():
        return None
    return {key: value for key, value in _read_json(path).items() if key not in FILE_KEYS and value is not None}


def _holds_weights(files: Iterable[Path], state: Mapping[str, torch.Tensor]) -> bool:
    """Return whether files hold exactly some weights, in whatever precision."""
    seen = set()
    for file in files:
        for name, stored in load_state_dict(file, map_location="cpu").items():
            own = state.get(name)
            if own is None or own.is_meta or hasattr(own, "full_tensor") or own.shape != stored.shape:
                return False
            if not torch.equal(own.detach().cpu().double(), stored.double()):
                return False
            seen.add(name)
    return seen == set(state)


class _Origin:
    """Checkpoint whose card and results a model may take along.

    Args:
        directory: Folder of its weights.
        repository: Id, if they were downloaded: other files may have to be downloaded still.
    """

    def __init__(self, directory: Path, repository: str | None = None):
        self.directory, self.repository = directory.absolute(), repository

    def find(self, file: str) -> Path | None:
        """Find a file; None if there is none, or it cannot be reached."""
        path = self.directory / file
        if path.is_file() or self.repository is None or self.directory.parent.name != "snapshots":
            return path if path.is_file() else None
        try:  # the cache names a folder by the commit
            found = cached_file(self.repository, file, revision=self.directory.name)
        except OSError:
            return None
        return None if found is None else Path(found)

    def find_weights(self) -> list[Path]:
        """Find the files of weights; none if one of them is missing."""
        index = self.find(WEIGHTS_INDEX)
        names = [WEIGHTS] if index is None else sorted(set(_read_json(index)["weight_map"].values()))
        found = [path for name in names if (path := self.find(name))]
        return found if len(found) == len(names) else []

    def read_companions(self) -> dict[str, bytes]:
        """Read what stands beside the weights, by name."""
        found = {name: self.find(name) for name in (CARD, *RESULTS, PROCESSOR)}
        return {name: path.read_bytes() for name, path in found.items() if path is not None}

    def is_same(self, config: Any, state: Mapping[str, torch.Tensor], processor: Path) -> bool:
        """Return whether this checkpoint scores as a model with the processor beside it, if there is one already."""
        stored, settings = self.find(CONFIG), _read_settings(processor)
        if stored is None or settings not in (None, _read_settings(self.find(PROCESSOR))):
            return False
        try:
            theirs = type(config).from_dict(_read_json(stored))
            same_config = theirs.signature_fields() == config.signature_fields()
            return same_config and _holds_weights(self.find_weights(), state)
        except Exception:  # a damaged checkpoint raises whatever its reader comes upon
            return False


@dataclass(frozen=True)
class _Companions:
    """Files that a model is saved with besides its own, and what becomes of those that are there.

    Attributes:
        files: Contents by name; an image processor that is there already stays.
        are_results_old: Whether results in the directory hold no longer.
    """

    files: Mapping[str, bytes] = field(default_factory=dict)
    are_results_old: bool = False

    def write(self, directory: Path) -> None:
        """Write the files into the directory of the model."""
        if self.are_results_old:
            _remove_results(directory)
        for name, content in self.files.items():
            if name != PROCESSOR or not (directory / name).exists():
                _write(directory / name, content)


def _find_companions(
    loaded: _Origin | None, config: Any, state: Mapping[str, torch.Tensor], directory: Path
) -> _Companions:
    """Find what to save besides a model, before any file in the directory is overwritten.

    Files that are in the directory already go before those that the model was loaded with.
    """
    is_there = any((directory / name).is_file() for name in (CARD, *RESULTS))
    origin = _Origin(directory) if is_there else loaded
    if origin is None:
        return _Companions()
    files = origin.read_companions()
    has_weights = any(origin.find(name) for name in (WEIGHTS, WEIGHTS_INDEX))
    is_ahead = is_there and not has_weights  # written for the weights that are saved now
    if is_ahead or origin.is_same(config, state, directory / PROCESSOR):
        return _Companions(files)
    card = {CARD: _mark_changed(files[CARD].decode(errors="replace")).encode()} if CARD in files else {}
    return _Companions(card, are_results_old=is_there)


class PublishedModel(_Uploaded):
    """Base of models that are saved with the code of their family, and with what their checkpoint says of itself.

    Card, self-test, metrics and image processor come from where the model was loaded. If its weights or settings were
    changed since, only the card is taken along, without results; it says so.
    """

    own_files = (CONFIG, PROCESSOR, CARD, *RESULTS)
    _origin: _Origin | None = None
    _companions = _Companions()  # of the last save

    @classmethod
    def _load_pretrained_model(
        cls, model: Any, state_dict: Any, checkpoint_files: Any, load_config: Any, *args: Any, **kwargs: Any
    ) -> Any:
        if checkpoint_files:  # only here is it known where the weights come from
            name = str(load_config.pretrained_model_name_or_path)
            model._origin = _Origin(Path(checkpoint_files[0]).parent, None if os.path.exists(name) else name)
        base: Any = super()
        return base._load_pretrained_model(model, state_dict, checkpoint_files, load_config, *args, **kwargs)

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Save the model as the base class does, with the code of its family, its card and its results."""
        base: Any = super()
        directory, rest = Path(save_directory), kwargs | {"is_main_process": is_main_process, "state_dict": state_dict}
        if directory.is_file() or not self.should_save_on_this_rank(is_main_process):  # type: ignore[attr-defined]
            base.save_pretrained(save_directory, **rest)
            return
        this: Any = self
        self._companions = _find_companions(
            self._origin, this.config, this.state_dict() if state_dict is None else state_dict, directory
        )
        base.save_pretrained(save_directory, **rest)
        self._companions.write(directory)

    def complete(self, directory: Path, card: str | None) -> str | None:
        this: Any = self
        this.config.publish(directory)
        self._companions.write(directory)
        own = self._companions.files.get(CARD)
        if own is not None:  # Transformers has written another one over it
            return own.decode() if card is None else _add_tags(own.decode(), card)
        return _mark_changed(card) if card is not None and MEASURED.search(card) else card


__all__ = ["PublishedConfig", "PublishedModel", "PublishedProcessor", "list_code"]
