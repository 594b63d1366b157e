# SPDX-License-Identifier: Apache-2.0
"""Model cards, written from a configuration and from measured results: no number in them is typed by hand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from ..metrics.rendering import render_card_metrics
from ..models.musiq.configuration_musiq import MusiqConfig

_BASE_TAGS = ("musiq", "image-quality-assessment", "arxiv:2108.05997")

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

Licence: {license}. The method is covered by Google patents US11887270B2 and US12217382B2; this is information, not
legal advice.

```bibtex
@inproceedings{{ke2021musiq,
  title     = {{{{MUSIQ}}: Multi-scale Image Quality Transformer}},
  author    = {{Ke, Junjie and Wang, Qifei and Wang, Yilin and Milanfar, Peyman and Yang, Feng}},
  booktitle = {{Proceedings of the IEEE/CVF International Conference on Computer Vision (ICCV)}},
  pages     = {{5148--5157}},
  year      = {{2021}},
  note      = {{arXiv:2108.05997}}
}}
```
"""

_USAGE_QUALITY = """\
```python
import musiq_hf  # or, without the package, trust_remote_code=True below
from transformers import pipeline

scorer = pipeline("image-quality-assessment", model="{name}")
print(scorer("photo.jpg"))
```"""

_USAGE_CLASSIFICATION = """\
```python
import musiq_hf  # or, without the package, trust_remote_code=True below
from transformers import pipeline

classifier = pipeline("image-classification", model="{name}")
print(classifier("photo.jpg"))
```"""

_LIMITS_OPINIONS = """\
- Opinion scores are averages over particular observers, displays and instructions. They carry the taste of those
  people and of those who chose the pictures: subjects, places, cameras and styles that are rare in the training data
  are scored less reliably, and a systematic like or dislike of a subject ends up in the score.
- Content and quality are not separated: pictures of one quality but of different subjects get different scores.
- Scores of one checkpoint compare pictures with each other. They are not calibrated across checkpoints, and a small
  difference between two pictures may be noise.
- Screenshots, drawings, medical and synthetic pictures, and pictures much larger or smaller than those of the training
  data, are outside of what was learned."""

_LIMITS_CLASSIFICATION = """\
- The classes and the bias of ImageNet: its photographs, its labels, and the places they come from.
- It was made as a start for fine-tuning on opinion scores, not for use as a classifier."""


@dataclass(frozen=True, kw_only=True)
class MusiqModelCard:
    """What a card says; everything else follows from the configuration.

    Attributes:
        name: Of the checkpoint, a Hub id or directory name.
        config: Of the model; `architectures` tells a quality head from an ImageNet one.
        source: Where the weights come from, in sentences.
        training_data: What it was trained on, in sentences.
        recipe: How it was trained, in sentences.
        source_sha256: Hash of the file that the weights were converted from.
        metrics: As `finetune` returns them: {split: {"num_pictures", "overall", "groups"}}; an entry may also be a
            report of `measure_robustness`, or hold the "summary" of `repeat_runs`.
        largest_difference: Largest absolute difference of the logits in the check of a conversion.
        notes: What a user of this checkpoint must know beside the limits of all.
        license: SPDX identifier, lower case, as the Hub writes it.
        datasets: Hub ids of the data sets, for the head of the card.
        tags: Further tags.
    """

    name: str
    config: MusiqConfig
    source: str
    training_data: str
    recipe: str
    source_sha256: str | None = None
    metrics: Mapping[str, Any] | None = None
    largest_difference: float | None = None
    notes: Sequence[str] = ()
    license: str = "apache-2.0"
    datasets: Sequence[str] = ()
    tags: Sequence[str] = ()

    @property
    def is_classifier(self) -> bool:
        """Whether the checkpoint classifies (ImageNet) and predicts no quality."""
        return "MusiqForImageClassification" in (self.config.architectures or [])

    def render(self) -> str:
        """The whole card, Markdown with a YAML head."""
        head = ModelCardData(
            license=self.license,
            library_name="transformers",
            pipeline_tag="image-classification",
            tags=[*_BASE_TAGS, *self.tags],
            datasets=list(self.datasets) or None,
        )
        return _TEMPLATE.format(
            head=head.to_yaml().strip(),
            name=self.name,
            summary=self._summary(),
            usage=(_USAGE_CLASSIFICATION if self.is_classifier else _USAGE_QUALITY).format(name=self.name),
            score=self._score(),
            intended=self._intended(),
            preprocessing=self._preprocessing(),
            source=self._source(),
            training=f"{self.training_data}\n\n{self.recipe}",
            evaluation=render_card_metrics(self.metrics),
            limits=self._limits(),
            check=self._check(),
            license=self.license,
        )

    def save(self, directory: str | Path) -> Path:
        """Write README.md into the directory of the checkpoint; returns its path."""
        path = Path(directory) / "README.md"
        path.write_text(self.render(), encoding="utf-8")
        return path

    def _summary(self) -> str:
        what = "an ImageNet classifier" if self.is_classifier else "a no-reference model of image quality"
        return (
            f"MUSIQ, the multi-scale image quality Transformer (Ke et al., ICCV 2021, arXiv:2108.05997): {what} that "
            "reads pictures at their own size and aspect ratio. For Hugging Face Transformers, with `musiq_hf`."
        )

    def _score(self) -> str:
        config = self.config
        if self.is_classifier:
            return (
                f"None: the head gives logits of {config.num_labels} classes. Fine-tune it before you score pictures."
            )
        if config.num_labels > 1:
            return (
                f"The head predicts a distribution over the score values 1 to {config.num_labels}; the score is its "
                f"expectation, so it lies between 1 and {config.num_labels}. Higher is better."
            )
        mapping = ""
        if (config.score_offset, config.score_scale) != (0, 1):
            mapping = f" It is {config.score_offset:.6g} + {config.score_scale:.6g} times the logit."
        if config.score_range is None:
            meaning = "The unit and the range are those of the opinion scores that it was trained on."
        else:
            low, high = config.score_range
            meaning = (
                f"Opinion scores lie between {low:g} and {high:g}; predictions are not clipped and can leave them."
            )
        what = "One number per picture, an estimate of its mean opinion score (MOS). Higher is better."
        return f"{what}{mapping} {meaning}"

    def _intended(self) -> str:
        if self.is_classifier:
            return "A start for fine-tuning on opinion scores."
        return (
            "Ranking and filtering photographs by perceived quality, watching the quality of a camera, codec or "
            "generator, and research on image quality. Scores that matter should be checked against human ratings of "
            "your own pictures first."
        )

    def _preprocessing(self) -> str:
        config = self.config
        scales = [f"resized to a longer side of {length} pixels" for length in config.longer_side_lengths]
        if config.use_native_resolution:
            limit = "" if config.max_native_patches is None else f" (the first {config.max_native_patches} patches)"
            scales.append(f"at its own resolution{limit}")
        grid = f"hashed to a grid of {config.hash_grid_size} x {config.hash_grid_size} cells"
        positions = {
            "hash": grid,
            "sinusoid": f"{grid}, fixed sinusoids",
            "fixed": "one learned vector per slot of the padded sequence",
            "none": "not used",
        }[config.spatial_embedding]
        return (
            f"By `MusiqImageProcessor`, from preprocessor_config.json: RGB values to [-1, 1]; the picture "
            f"{', and '.join(scales)}, always with its aspect ratio (Gaussian resize as in the published code, not "
            f"antialiased); patches of {config.patch_size} x {config.patch_size} pixels, the last ones zero-padded; "
            f"positions {positions}. EXIF orientation is applied, gray repeated, alpha composited on white."
        )

    def _source(self) -> str:
        return self.source if self.source_sha256 is None else f"{self.source}\n\nSHA-256: `{self.source_sha256}`"

    def _limits(self) -> str:
        common = _LIMITS_CLASSIFICATION if self.is_classifier else _LIMITS_OPINIONS
        return "\n".join([*(f"- {note}" for note in self.notes), common])

    def _check(self) -> str:
        if self.largest_difference is None:
            return "These weights were not converted from another format."
        return (
            "After the conversion the files were loaded again and compared with a model built directly from the "
            f"source's arrays: largest difference of a logit on a seeded random input {self.largest_difference:.1e}. "
            "Renamed back, the loaded weights equal the source's arrays bit by bit."
        )
