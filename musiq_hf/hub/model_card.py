# SPDX-License-Identifier: Apache-2.0
"""Model cards, written from a configuration and from measured results: no number in them is typed by hand."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from ..common.markdown import markdown_table
from ..metrics.rendering import render_evaluation
from ..metrics.reports import Report
from ..models import family_of
from ..models.auto import STANDARD_TASK, UPSCALING_TASK
from ..models.calibration import CheckpointCalibration
from .model_index import renew_head
from .publishing import has_pipeline

PERCENTILES = "### Percentiles and stars"  # heading of the last part of the evaluation
SHOWN_PERCENTILES = (5, 20, 40, 60, 80, 95)

_TEMPLATE = """\
---
{head}
---

# {name}

{summary}

## How to use it

{usage}

## The score

{score}

## Intended use

{intended}

**Out of scope.** Decisions about people, proof that a picture is authentic, medical or forensic judgement, and any use
where a wrong score does harm that nobody checks. A score is no measure of the worth of a photographer or of what a
picture shows.

## Preprocessing

{preprocessing}

## Where the weights come from

{source}

## Training data and recipe

{training}

## Evaluation

{evaluation}

## Limits and bias

{limits}

## Check of the files

{check}

## Licence, patents, citation

Licence: {license}.{patents}

```bibtex
{citation}
```
"""

_USAGE_QUALITY = """\
```python
import musiq_hf{remote}
from transformers import pipeline

scorer = pipeline("image-quality-assessment", model="{name}")
print(scorer("photo.jpg"))
```"""

_REMOTE = "  # or, without the package, trust_remote_code=True below"

_USAGE_CLASSIFICATION = """\
```python
import musiq_hf{remote}
from transformers import pipeline

classifier = pipeline("image-classification", model="{name}")
print(classifier("photo.jpg"))
```"""

_USAGE_UPSCALING = """\
```python
import musiq_hf{remote}
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageToImage

processor = AutoImageProcessor.from_pretrained("{name}")
model = AutoModelForImageToImage.from_pretrained("{name}")
picture = Image.open("photo.jpg")
outputs = model.upscale(**processor(picture), scale=2)
processor.post_process(outputs, picture)[0].save("large.png")
```"""

_SNIPPET = re.compile(r'^(\w+ = (?:pipeline\("image-[\w-]+", model=|\w+\.from_pretrained\())"[^"\n]+"', re.MULTILINE)


def name_repository(card: str, repository: str) -> str:
    """Return a card whose snippet loads a repository, its owner named, in place of a folder or another repository."""
    return _SNIPPET.sub(rf'\g<1>"{repository}"', card)


@dataclass(frozen=True, kw_only=True)
class CheckpointCard:
    """Model card of a checkpoint; what is not given here follows from the configuration and its family.

    Attributes:
        name: Name of the checkpoint, a Hub id or directory name.
        config: Configuration of the model; its `architectures` tell a quality head from an ImageNet one.
        source: Sentences that say where the weights come from.
        training_data: Sentences on the data that the checkpoint was trained on.
        recipe: Sentences that say how it was trained.
        source_sha256: Hash of the file that the weights were converted from.
        metrics: Reports by name: those that `finetune` returns by split, those that were measured later by a title.
        calibration: Calibration of the scores; None shows no percentiles.
        largest_difference: Largest absolute difference of the logits in the check of a conversion.
        check: Sentences about the check of a conversion, in place of those about logits.
        notes: Sentences that a user of this checkpoint must know, beside the limits of its whole family.
        license: SPDX identifier, lower case, as the Hub writes it.
        base_model: Hub id of the checkpoint that training started from; None if it has none.
        datasets: Hub ids of the data sets, for the head of the card.
        tags: Tags in addition to those of the family.
    """

    name: str
    config: Any
    source: str
    training_data: str
    recipe: str
    source_sha256: str | None = None
    metrics: Mapping[str, Report] | None = None
    calibration: CheckpointCalibration | None = None
    largest_difference: float | None = None
    check: str | None = None
    notes: Sequence[str] = ()
    license: str = "apache-2.0"
    base_model: str | None = None
    datasets: Sequence[str] = ()
    tags: Sequence[str] = ()

    @property
    def is_classifier(self) -> bool:
        """True if the checkpoint classifies (ImageNet) and predicts no quality."""
        classifier = family_of(self.config).classifier
        return classifier is not None and classifier.__name__ in (self.config.architectures or [])

    @property
    def is_upscaler(self) -> bool:
        """True if the checkpoint upscales pictures and predicts no quality."""
        upscaler = family_of(self.config).upscaler
        return upscaler is not None and upscaler.__name__ in (self.config.architectures or [])

    def render(self) -> str:
        """Render the whole card, as Markdown with a YAML head."""
        family = family_of(self.config)
        text = family.card(self.config)
        head = ModelCardData(
            license=self.license,
            library_name="transformers",
            pipeline_tag=self._find_task(),
            tags=[*text.tags, *self.tags],
            base_model=self.base_model,
            datasets=list(self.datasets) or None,
        )
        card = _TEMPLATE.format(
            head=head.to_yaml().strip(),
            name=self.name,
            summary=text.summary,
            usage=self._render_usage(),
            score=text.score,
            intended=text.intended,
            preprocessing=text.preprocessing,
            source=self._render_source(),
            training=f"{self.training_data}\n\n{self.recipe}",
            evaluation=render_evaluation(self.metrics) + self._render_calibration(),
            limits=self._render_limits(text.limits),
            check=self._render_check(),
            license=self.license,
            patents=text.patents,
            citation=text.citation,
        )
        return renew_head(card, self.name, self.metrics or {})

    def save(self, directory: str | Path) -> Path:
        """Write README.md into the directory of the checkpoint, and return its path."""
        path = Path(directory) / "README.md"
        path.write_text(self.render(), encoding="utf-8")
        return path

    def _find_task(self) -> str | None:
        """Return the task of the Hub; None for a quality head without a pipeline among its files."""
        if self.is_upscaler:
            return UPSCALING_TASK
        return STANDARD_TASK if self.is_classifier or has_pipeline(family_of(self.config)) else None

    def _render_usage(self) -> str:
        if self.is_upscaler:
            return _USAGE_UPSCALING.format(name=self.name, remote=_REMOTE)
        if self.is_classifier:  # the pipeline is one of Transformers
            return _USAGE_CLASSIFICATION.format(name=self.name, remote=_REMOTE)
        remote = _REMOTE if has_pipeline(family_of(self.config)) else ""
        return _USAGE_QUALITY.format(name=self.name, remote=remote)

    def _render_source(self) -> str:
        return self.source if self.source_sha256 is None else f"{self.source}\n\nSHA-256: `{self.source_sha256}`"

    def _render_calibration(self) -> str:
        """Render the part of the evaluation that shows scores by percentile, with their stars."""
        known = self.calibration
        if known is None:
            return ""
        scores = [known.quantiles[percent] for percent in SHOWN_PERCENTILES]
        heads = ["percentile", *(f"{percent} %" for percent in SHOWN_PERCENTILES)]
        rows = [
            ["score", *(f"{score:.4g}" for score in scores)],
            ["stars", *(str(known.stars(score)) for score in scores)],
        ]
        errors, words = [known.find_opposed(score) for score in scores], ""
        if None not in errors:
            shares = zip(*filter(None, errors), strict=True)
            for side, part in zip(("at or above it, rated below", "below it, rated above"), shares, strict=True):
                rows.append([side, *(f"{100 * share:.0f} %" for share in part)])
            words = (
                " The last two rows say how often people are of another opinion than a threshold at this score. They "
                "are the shares of the pictures on one side of it that were rated on the other."
            )
        return (
            f"\n\n{PERCENTILES}\n\nAmong {known.num_pictures:,} pictures ({known.data}). A percentile says how many "
            "percent of these pictures score lower, and each star stands for a fifth of them. Among other pictures "
            f"the same score has another place.{words}\n\n{markdown_table(heads, rows)}"
        )

    def _render_limits(self, common: str) -> str:
        return "\n".join([*(f"- {note}" for note in self.notes), common])

    def _render_check(self) -> str:
        if self.check is not None:
            return self.check
        if self.largest_difference is None:
            return "These weights were not converted from another format."
        return (
            "After the conversion the files were loaded again and compared with a model built directly from the "
            f"source's arrays: largest difference of a logit on a seeded random input {self.largest_difference:.1e}. "
            "Renamed back, the loaded weights equal the source's arrays bit by bit."
        )
