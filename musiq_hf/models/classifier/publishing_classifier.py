# SPDX-License-Identifier: Apache-2.0
"""Saving and uploading of configuration, image processor and model with all that belongs to them.

A saved directory loads without the package: the family's code goes with it, and its two JSON files name the classes.
A model takes card and measured results along, as far as they hold. Every family has this file under its own name.
"""

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard
from transformers.modeling_utils import load_state_dict
from transformers.utils import cached_file, logging
from transformers.utils.hub import extract_commit_hash

logger = logging.get_logger(__name__)

FAMILY = __name__.rpartition("publishing_")[2]
CONFIG, PROCESSOR, CARD, HANDLER = "config.json", "preprocessor_config.json", "README.md", "handler.py"
RESULTS = ("self_test.json", "metrics.json", "calibration.json")  # they hold for the weights beside them alone
COMPANIONS = (CARD, *RESULTS, PROCESSOR, *([HANDLER] if __name__.startswith("transformers_modules") else []))
WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
WEIGHTS_FILE = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
HUB_CHOICES = {"repo_id", "tags", "private", "token", "revision", "commit_message", "commit_description", "create_pr"}
PIPELINES = {  # tasks and their classes, for a model with a quality head
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
SNIPPET = re.compile(r'^(\w+ = (?:pipeline\("image-[\w-]+", model=|\w+\.from_pretrained\())"[^"\n]+"', re.MULTILINE)
IMPORTED = re.compile(rf"^\s*from\s+\.(\w+_{FAMILY})\s+import", re.MULTILINE)
MODEL_INDEX = re.compile(r"\nmodel-index:.*?(?=\n[^\s-]|\Z)", re.DOTALL)
# Sections of a card that hold no longer after a change, and what they say then.
REPLACED = dict.fromkeys(("## Evaluation", "## Check of the files"), "Nothing was measured after the last change.")
REPLACED |= dict.fromkeys(("## The score", "## Preprocessing"), f"Settings that hold are in {CONFIG} and {PROCESSOR}.")
CHANGED = (
    "> Weights or settings were changed after this card was written. What it says about source, data and recipe is "
    "where they started from. Its numbers were measured before the change."
)
BLANK, MOST_BLANKS = "[More Information Needed]", 20  # a card by Transformers that nobody has filled in has more
PLAIN_HEAD = f"---\nlibrary_name: transformers\ntags:\n- {FAMILY}\n---\n\n"
PLAIN_CARD = """\
# {name}

A checkpoint of the family `{family}`. It is not noted where it comes from.

```python
from transformers import {autos}

{lines}
```
"""


def list_code() -> list[Path]:
    """List the files that go with a checkpoint of the family, sorted by name; the handler is that of all families."""
    here = Path(__file__).parent
    return sorted([*here.glob(f"*_{FAMILY}.py"), *here.parent.glob(HANDLER)], key=lambda path: path.name)


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
    """Name the classes as config.json does: `auto_map`, and `custom_pipelines` where the family has pipelines."""
    pipelines = {task: _find_class(name) for task, name in PIPELINES.items()}
    has_pipelines = model.endswith("ForImageQualityAssessment") and all(pipelines.values())
    # For a quality head without them, Transformers' own pipeline would show logits as those of classes.
    is_shown = has_pipelines or model.endswith("ForImageClassification")
    autos = ["AutoModel", *(["AutoModelForImageClassification"] if is_shown else [])]
    autos += ["AutoModelForImageToImage"] if model.endswith("ForImageSuperResolution") else []
    names: dict[str, Any] = {"auto_map": {"AutoConfig": config} | dict.fromkeys(autos, model)}
    if has_pipelines:
        # Transformers looks the class under "pt" up among its own, so it cannot be ours.
        common = {"pt": ["AutoModelForImageClassification"], "type": "image"}
        names["custom_pipelines"] = {task: {"impl": impl, **common} for task, impl in pipelines.items()}
    return names


def _decode(content: bytes) -> str:
    """Decode a card that somebody may have written in an old encoding; line ends are those of Unix afterwards."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    return text.replace("\r\n", "\n")


def _mark_changed(card: str) -> str:
    """Return a card that says that weights or settings were changed, without the sections that hold no longer."""
    head, mark, text = card.partition("\n---") if card.startswith("---") else ("", "", card)
    lines: list[str] = []
    start, is_fenced, is_replaced = 0, False, False
    for line in text.split("\n"):
        is_fenced ^= line.lstrip().startswith(("```", "~~~"))
        heading = line.rstrip() if line.startswith(("# ", "## ")) and not is_fenced else ""
        if heading:
            is_replaced = heading in REPLACED
        if heading or not is_replaced:
            lines.append(line)
        if heading in REPLACED:
            lines += ["", REPLACED[heading], ""]
        elif heading.startswith("# "):
            start = start or len(lines)
    if CHANGED not in card:
        lines.insert(start or bool(mark), f"\n{CHANGED}" + "\n" * (start == 0))
    return MODEL_INDEX.sub("", head) + mark + "\n".join(lines).rstrip() + "\n"  # not parsed: it may be damaged


def _complete_head(card: str, tags: Sequence[str]) -> str:
    """Return a card with a head that the Hub can read, and tags added to it; a damaged head stays as text."""
    try:
        is_readable = card.startswith("---") and bool(ModelCard(card, ignore_metadata_errors=False).data.to_dict())
    except Exception:  # whatever the parser makes of damage
        is_readable = False
    card = card if is_readable else PLAIN_HEAD + card
    parsed = ModelCard(card)
    present = parsed.data.tags or []
    parsed.data.tags = [*present, *(tag for tag in tags if tag not in present)]
    return card if parsed.data.tags == present else str(parsed)


def _render_plain_card(name: str, files: Iterable[str]) -> str:
    """Return the card, without its head, of a repository of which nothing is known but its files."""
    has_model = any(WEIGHTS_FILE.fullmatch(file) for file in files)
    found = {"model": "AutoModel"} if has_model else {"config": "AutoConfig"} if CONFIG in files else {}
    found |= {"processor": "AutoImageProcessor"} if PROCESSOR in files else {}
    lines = (f'{key} = {auto}.from_pretrained("{name}", trust_remote_code=True)' for key, auto in found.items())
    autos = ", ".join(sorted(found.values()))
    return PLAIN_CARD.format(family=FAMILY, name=name, autos=autos, lines="\n".join(lines))


def _remove_results(directory: Path) -> None:
    """Remove the results of other weights or settings from a directory."""
    if found := [name for name in RESULTS if (directory / name).is_file()]:
        logger.warning("%s: removed %s, which held results from before a change.", directory, " and ".join(found))
    for name in found:
        (directory / name).unlink()


def _stage(api: HfApi, repository: str, revision: str | None, directory: Path) -> None:
    """Copy what a repository holds into an empty directory: small files of a checkpoint, empty files for weights."""
    for name in api.list_repo_files(repository, revision=revision):
        if WEIGHTS_FILE.fullmatch(name):
            (directory / name).touch()
        elif name in (CONFIG, WEIGHTS_INDEX, *COMPANIONS) or ("/" not in name and name.endswith(f"_{FAMILY}.py")):
            path = api.hf_hub_download(repository, name, revision=revision)
            (directory / name).write_bytes(Path(path).read_bytes())


def _choose_card(directory: Path, name: str, given: str, results: Mapping[str, bytes]) -> str:
    """Choose the card to upload: that of the repository, if it says anything, goes before the one that was saved."""
    saved = _decode((directory / CARD).read_bytes()) if (directory / CARD).is_file() else ""
    if not given:
        return SNIPPET.sub(rf'\g<1>"{name}"', saved) or _render_plain_card(name, os.listdir(directory))
    is_old = _Origin(directory).read(results) != results if results else CHANGED in saved
    return _mark_changed(given) if is_old else given


class Uploaded:
    """Base of what is uploaded as it is saved."""

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> Any:
        """Upload to the Hub, with the keywords of the base class."""
        this: Any = self
        hub = {key: kwargs.pop(key) for key in HUB_CHOICES & kwargs.keys()}
        return self._push(lambda directory: this.save_pretrained(directory, **kwargs), repo_id, **hub)

    def _push(
        self,
        save: Callable[[Path], Any],
        repo_id: str,
        *,
        tags: Sequence[str] | str | None = None,
        private: bool | None = None,
        token: bool | str | None = None,
        revision: str | None = None,
        **commit: Any,
    ) -> Any:
        """Save into a copy of a repository, and upload what has changed: what saving removes is removed there too."""
        api = HfApi(token=token)
        repository = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None and not revision.startswith("refs/pr"):
            api.create_branch(repository, branch=revision, exist_ok=True)
        with tempfile.TemporaryDirectory() as name:
            directory, card = Path(name), Path(name) / CARD
            _stage(api, repository, revision, directory)
            before = {path.name: path.read_bytes() for path in directory.iterdir()}
            results = {name: before[name] for name in RESULTS if name in before}
            given = _decode(before.get(CARD, b""))
            plain = _render_plain_card(repository, before)
            if given.count(BLANK) > MOST_BLANKS or given.rstrip().endswith(plain.rstrip()):
                card.unlink()
                given = ""
            save(directory)
            text = _choose_card(directory, repository, given, results)
            tags = [*(getattr(self, "model_tags", None) or []), *([tags] if isinstance(tags, str) else tags or [])]
            _write(card, _complete_head(text, tags).encode())
            after = {path.name: path for path in sorted(directory.iterdir())}
            operations: list[Any] = [CommitOperationDelete(name) for name in sorted(before.keys() - after.keys())]
            for name, path in after.items():
                if name not in before or path.read_bytes() != before[name]:
                    operations.append(CommitOperationAdd(name, path))
            message = commit.pop("commit_message", None) or "Upload checkpoint"
            return api.create_commit(repository, operations, commit_message=message, revision=revision, **commit)


class _PublishedSettings(Uploaded):
    """Base of what is one JSON file with settings, saved with the code of its family."""

    def save_pretrained(self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any) -> Any:
        """Save the settings, and the code of their family; results that were measured with others are removed."""
        directory, this = Path(save_directory), self  # type: Path, Any
        before = _read_settings(directory / this.settings_file, this)
        hub = {key: kwargs.pop(key) for key in HUB_CHOICES & kwargs.keys()}
        files = super().save_pretrained(save_directory, **kwargs)  # type: ignore[misc]
        this.publish(save_directory)
        if before not in (None, _read_settings(directory / this.settings_file, this)):
            card = directory / CARD
            if card.is_file():
                _write(card, _mark_changed(_decode(card.read_bytes())).encode())
            _remove_results(directory)
        if push_to_hub:
            self.push_to_hub(**{"repo_id": directory.name} | hub)
        return files


class PublishedConfig(_PublishedSettings):
    """Base of configurations that are saved with the code of their family."""

    settings_file = CONFIG

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


class PublishedProcessor(_PublishedSettings):
    """Base of image processors that are saved with the code of their family."""

    settings_file = PROCESSOR

    @classmethod
    def publish(cls, directory: str | os.PathLike[str]) -> None:
        """Add code files and `auto_map` to a directory with a preprocessor_config.json, or renew them."""
        path, processor = Path(directory) / PROCESSOR, _find_class(cls.__name__)
        if processor is not None:
            _write_code(Path(directory))
            _write_json(path, _read_json(path) | {"auto_map": {"AutoImageProcessor": processor}})


def _read_settings(path: Path | None, part: Any = None) -> Any:
    """Return the settings in a file of an image processor, or `part`, a configuration; the bytes of a damaged file."""
    if path is None or not path.is_file():
        return None
    try:
        content = _read_json(path)
        if path.name == CONFIG:
            return part.from_dict(content).signature_fields()
        return {key: value for key, value in content.items() if key not in FILE_KEYS and value is not None}
    except Exception:  # a damaged file raises whatever its reader comes upon
        return path.read_bytes()


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


def _list_shards(index: Path | None) -> list[str]:
    """List the files of weights that an index names; none if it is damaged."""
    try:
        return [] if index is None else sorted(set(_read_json(index)["weight_map"].values()))
    except Exception:
        return []


@dataclass(frozen=True)
class _Origin:
    """Checkpoint whose card and results a model may take along."""

    directory: Path
    weights: Sequence[Path] = ()  # files that were loaded
    repository: str | None = None  # id, if they were downloaded: other files may have to be downloaded still
    choices: Mapping[str, Any] = field(default_factory=dict)  # keywords that they were downloaded with

    def find(self, file: str) -> Path | None:
        """Find a file; None if there is none, or it cannot be reached."""
        found = self.directory / file if (self.directory / file).is_file() else None
        if found is not None or self.repository is None:
            return found
        try:
            path = cached_file(self.repository, file, **self.choices)
            return Path(path) if path else None
        except OSError as error:
            if error.__cause__ is not None:  # without a cause, the Hub says that there is none
                reason = str(error).partition("\n")[0]
                logger.warning("%s of %s cannot be fetched, and is not saved: %s", file, self.repository, reason)
            return None

    def find_weights(self) -> list[Path]:
        """Find the files of weights: those that were loaded, or those that would be; none if one is missing."""
        if self.weights and all(path.is_file() for path in self.weights):
            return list(self.weights)
        if whole := self.find(WEIGHTS):
            return [whole]
        names = _list_shards(self.find(WEIGHTS_INDEX))
        found = [path for name in names if (path := self.find(name))]
        return found if len(found) == len(names) else []

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """Read those of some files that there are."""
        return {name: path.read_bytes() for name in names if (path := self.find(name))}

    def is_same(self, config: Any, state: Mapping[str, torch.Tensor], processor: Path) -> bool:
        """Return whether this checkpoint scores as a model with the processor beside it, if there is one already."""
        same_config = _read_settings(self.find(CONFIG), config) == config.signature_fields()
        if not same_config or _read_settings(processor) not in (None, _read_settings(self.find(PROCESSOR))):
            return False
        try:
            return _holds_weights(self.find_weights(), state)
        except Exception:  # a damaged file raises whatever its reader comes upon
            return False


def _find_companions(
    loaded: _Origin | None, config: Any, state: Mapping[str, torch.Tensor], directory: Path
) -> dict[str, bytes | None]:
    """Find what to save besides a model, before any file in the directory is overwritten.

    What is in the directory stays, save card and results of other weights there. Each file that is missing comes from
    where the model was loaded; if the model was changed since, only its card does. None stands for a file to remove.
    """
    here, processor = _Origin(directory), directory / PROCESSOR
    if loaded is not None and loaded.directory.resolve() == directory.resolve():
        here = loaded
    weights = [*directory.glob("model*.safetensors"), *directory.glob("pytorch_model*.bin")]
    is_here = here.is_same(config, state, processor)
    is_old = bool(weights) and not is_here
    origin = here if loaded is None or (is_old and loaded.find(CARD) is None) else loaded
    is_same = is_here if origin is here else origin.is_same(config, state, processor)  # it reads all weights
    found = origin.read(COMPANIONS if is_same else {CARD, HANDLER} & {*COMPANIONS})
    if CARD in found and not is_same:
        found[CARD] = _mark_changed(_decode(found[CARD])).encode()
    replaced = {CARD, *RESULTS} if is_old else set()
    missing = {name: found[name] for name in found if name in replaced or not (directory / name).is_file()}
    return dict.fromkeys(replaced & set(RESULTS)) | missing


def _remove_other_layout(directory: Path) -> None:
    """Remove whole weights where shards were saved over them, and the index of shards that were replaced."""
    names = _list_shards(directory / WEIGHTS_INDEX)
    is_sharded = bool(names) and all((directory / name).is_file() for name in names)
    (directory / (WEIGHTS if is_sharded else WEIGHTS_INDEX)).unlink(missing_ok=True)


class PublishedModel(Uploaded):
    """Base of models that are saved with the code of their family, and with what their checkpoint says of itself.

    Card, self-test, metrics and image processor come from where the model was loaded. If its weights or settings were
    changed since, only the card is taken along; it says so.
    """

    _origin: _Origin | None = None

    @classmethod
    def _load_pretrained_model(
        cls, model: Any, state_dict: Any, checkpoint_files: Any, load_config: Any, *args: Any, **kwargs: Any
    ) -> Any:
        # Only here is it known where the weights come from. An adapter brings others, and no card of the whole.
        if checkpoint_files and not getattr(model, "_hf_peft_config_loaded", False):
            files = [Path(os.path.abspath(file)) for file in checkpoint_files]
            name, choices = str(load_config.pretrained_model_name_or_path), dict(load_config.download_kwargs or {})
            choices["revision"] = extract_commit_hash(str(files[0]), None) or choices.get("revision")
            model._origin = _Origin(files[0].parent, files, None if os.path.exists(name) else name, choices)
        base: Any = super()
        return base._load_pretrained_model(model, state_dict, checkpoint_files, load_config, *args, **kwargs)

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: dict[str, Any] | None = None,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """Save the model as the base class does, with the code of its family, its card and its results."""
        hub = {key: kwargs.pop(key) for key in HUB_CHOICES & kwargs.keys()}
        rest = kwargs | {"is_main_process": is_main_process, "state_dict": state_dict}
        directory, this = Path(save_directory), self  # type: Path, Any
        self._save(directory, self._origin, **rest)
        if push_to_hub and this.should_save_on_this_rank(is_main_process) and not directory.is_file():
            self._push(lambda copy: self._save(copy, _Origin(directory), **rest), **{"repo_id": directory.name} | hub)

    def _save(self, directory: Path, origin: _Origin | None, **kwargs: Any) -> None:
        this, base, given = self, super(), kwargs["state_dict"]  # type: Any, Any, Any
        if directory.is_file() or not this.should_save_on_this_rank(kwargs["is_main_process"]):
            base.save_pretrained(directory, **kwargs)
            return
        files = _find_companions(origin, this.config, this.state_dict() if given is None else given, directory)
        kwargs["state_dict"] = given and dict(given)  # the base class empties it
        base.save_pretrained(directory, **kwargs)
        _remove_other_layout(directory)
        if None in files.values():
            _remove_results(directory)
        for name, content in files.items():
            if content is not None:
                _write(directory / name, content)


__all__ = ["PublishedConfig", "PublishedModel", "PublishedProcessor", "Uploaded", "list_code"]
