# SPDX-License-Identifier: Apache-2.0
"""What frozen tokens of a MUSIQ model know of quality: CLS, covariances of the patches, and both, by ridge regression.

python -m benchmarks.matrix.probe --data biq2021 --dataset biq2021 --image_root biq2021/Images

Features of 1,000 training pictures fit the regressions, and their strength is chosen by cross-validation within the
1,000. SRCC is measured on 400 others: of the validation pictures, or where there are none, of training pictures that
are held out. No test picture is opened. The table is printed and written into docs/matrix_functions.md.

The first run takes minutes. It stores the features, so that the next one takes one at most.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from benchmarks.matrix import DOCUMENT
from musiq_hf import DEFAULT_CHECKPOINT, MusiqForImageQualityAssessment
from musiq_hf.common.arguments import CommandParser, parse_arguments, run_command
from musiq_hf.common.files import replace_file
from musiq_hf.common.markdown import markdown_table, update_document
from musiq_hf.data import DATA_SETS, load_data, open_row, split_at_random
from musiq_hf.metrics import bootstrap_differences, quality_metrics
from musiq_hf.models.musiq import masked_covariance, matrix_sqrt, upper_triangle
from musiq_hf.scoring import load_quality, make_signature

PLACE = "probe"
EXAMPLE = "python -m benchmarks.matrix.probe --data biq2021 --dataset biq2021 --image_root biq2021/Images"
ROOTS = ("newton_schulz", "pade", "eigh")
EPS = 1e-3  # multiple of the identity that is added to a covariance
STRENGTHS = torch.logspace(-5, 2, 29, dtype=torch.float64)  # of the regression, beside a mean eigenvalue of 1
FOLDS = 5
PAIRS = ("covariance, no root", "covariance, root by eigh"), ("CLS", "CLS + covariance, root by eigh")


@dataclass(frozen=True)
class Settings:
    """Pictures, model and features of a probe.

    Attributes:
        data: Data that `load_data` reads.
        dataset: Kind of the data: "scores", or the name of a public data set.
        image_root: Folder that the names of pictures start from; None takes the usual one.
        model: Checkpoint of MUSIQ.
        features: File of the features (.safetensors), which is read if it is there, and written if not.
        size: Number of dimensions to which tokens are reduced before their covariance.
        projections: Number of random reductions.
        num_train: Number of pictures that fit the regressions.
        num_others: Number of pictures that SRCC is measured on.
        seed: Seed of pictures, reductions and folds.
    """

    data: str
    dataset: str
    image_root: str | None
    model: str
    features: Path
    size: int = 64
    projections: int = 3
    num_train: int = 1000
    num_others: int = 400
    seed: int = 0


@dataclass(frozen=True)
class Features:
    """Frozen features of pictures.

    Attributes:
        cls: CLS tokens, shape (num_pictures, hidden_size).
        covariances: Covariances of patch tokens, shape (projections, num_pictures, size, size).
    """

    cls: torch.Tensor
    covariances: torch.Tensor


def draw_pictures(settings: Settings) -> Any:
    """Draw the rows of the pictures that fit, and behind them those that are measured.

    Raises:
        ValueError: If there are too few, or none for training.
    """
    import datasets

    splits = load_data(settings.data, dataset=settings.dataset, image_root=settings.image_root)
    if "train" not in splits:
        raise ValueError(f"A `train` split is needed, got {sorted(splits)}. Name it in the `split` column.")
    if "validation" not in splits:
        by = "reference" if "reference" in splits["train"].column_names else None
        fractions = {"train": 0.9, "validation": 0.1}
        splits = split_at_random(splits["train"], fractions=fractions, seed=settings.seed, by=by)
    parts = splits["train"], splits["validation"]
    wanted = settings.num_train, settings.num_others
    if any(len(part) < count for part, count in zip(parts, wanted, strict=True)):
        raise ValueError(
            f"{wanted[0]} training pictures and {wanted[1]} others are needed, {settings.data} has "
            f"{len(parts[0])} and {len(parts[1])}. Give more data."
        )
    return datasets.concatenate_datasets(
        [part.shuffle(seed=settings.seed).select(range(count)) for part, count in zip(parts, wanted, strict=True)]
    )


def make_projections(settings: Settings, width: int) -> torch.Tensor:
    """Make random orthonormal reductions of tokens, shape (projections, width, size)."""
    generator = torch.Generator().manual_seed(settings.seed)
    return torch.linalg.qr(torch.randn(settings.projections, width, settings.size, generator=generator)).Q


@torch.inference_mode()
def compute_features(model: Any, processor: Any, rows: Any, projections: torch.Tensor) -> Features:
    """Compute the features of each picture, alone: no picture is padded."""
    cls, covariances = [], []
    for row in rows:
        (tokens,) = model.base_model(**processor(open_row(row), return_tensors="pt")).last_hidden_state
        cls.append(tokens[0])
        covariances.append(masked_covariance(tokens[1:] @ projections, eps=EPS))
    return Features(torch.stack(cls), torch.stack(covariances, dim=1))


def get_features(settings: Settings, rows: Any) -> Features:
    """Read the features from their file, or compute and store them.

    Raises:
        ValueError: If the file has those of other pictures or of another model, or the model is not of MUSIQ or has
            tokens that are too narrow.
    """
    model, processor = load_quality(settings.model)
    if not isinstance(model, MusiqForImageQualityAssessment):
        raise ValueError(f"{settings.model} is a {type(model).__name__}. Give a checkpoint of MUSIQ.")
    width = model.config.hidden_size
    if width < settings.size:
        raise ValueError(f"{settings.model} has tokens of {width} numbers, at least {settings.size} are needed.")
    made_of = [
        make_signature(model, processor, checkpoint=settings.model),
        settings.size,
        settings.projections,
        settings.seed,
        *([cell["path"], mos] for cell, mos in zip(rows["image"], rows["mos"], strict=True)),
    ]
    key = json.dumps(made_of)
    if not settings.features.exists():
        computed = compute_features(model, processor, rows, make_projections(settings, width))
        settings.features.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(settings.features) as temporary:
            save_file({name: part.contiguous() for name, part in vars(computed).items()}, temporary, {"key": key})
    with safe_open(settings.features, framework="pt") as file:
        if (file.metadata() or {}).get("key") != key:
            raise ValueError(
                f"{settings.features} has features of other pictures, or of another model. Remove it, or name "
                "another file with `--features`."
            )
        return Features(file.get_tensor("cls"), file.get_tensor("covariances"))


def regress(
    blocks: Sequence[torch.Tensor], targets: torch.Tensor, num_train: int, strengths: torch.Tensor
) -> torch.Tensor:
    """Predict by ridge regression, fitted to the first pictures.

    Every feature is brought to mean 0 and deviation 1 over these, and every block to the same weight.

    Args:
        blocks: Features of all pictures, each of shape (num_pictures, num_features).
        targets: Scores of the first pictures, shape (num_train,).
        num_train: Number of pictures that fit.
        strengths: Strengths of the regression, shape (num_strengths,).

    Returns:
        Predictions for the other pictures, shape (num_strengths, num_pictures - num_train).
    """
    kernel = torch.zeros(len(blocks[0]), num_train, dtype=torch.float64)
    for block in blocks:
        deviation, mean = torch.std_mean(block[:num_train].double(), dim=0, correction=0)
        scaled = (block.double() - mean) / deviation.clamp(min=1e-12)
        kernel += scaled @ scaled[:num_train].T / (scaled.shape[1] * len(blocks))
    values, vectors = torch.linalg.eigh(kernel[:num_train])
    projected = vectors.T @ (targets.double() - targets.double().mean())
    weights = vectors @ (projected / (values + strengths[:, None])).T  # -> (num_train, num_strengths)
    return (kernel[num_train:] @ weights).T + targets.double().mean()


def predict(blocks: Sequence[torch.Tensor], targets: torch.Tensor, seed: int) -> np.ndarray:
    """Predict the pictures behind those with targets, at the strength with the least squared error over the folds.

    Args:
        blocks: Features of all pictures, each of shape (num_pictures, num_features).
        targets: Scores of the first pictures, shape (num_train,). Nothing else chooses the strength.
        seed: Seed of the folds.
    """
    count = len(targets)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    errors = torch.zeros(len(STRENGTHS), dtype=torch.float64)
    for fold in order.chunk(FOLDS):
        kept = order[~torch.isin(order, fold)]
        arranged = [block[torch.cat((kept, fold))] for block in blocks]
        errors += (regress(arranged, targets[kept], len(kept), STRENGTHS) - targets[fold]).square().sum(dim=1)
    return regress(blocks, targets, count, STRENGTHS[errors.argmin()][None])[0].numpy()


def make_blocks(cls: torch.Tensor, covariances: torch.Tensor) -> dict[str, list[torch.Tensor]]:
    """Make the features of each row of the table, from CLS and covariances (num_pictures, size, size)."""
    seconds = {"no root": upper_triangle(covariances)}
    seconds |= {f"root by {name}": upper_triangle(matrix_sqrt(covariances, method=name)) for name in ROOTS}
    alone = {f"covariance, {name}": [block] for name, block in seconds.items()}
    return {"CLS": [cls], **alone, **{f"CLS + covariance, {name}": [cls, block] for name, block in seconds.items()}}


def compare(features: Features, targets: torch.Tensor, settings: Settings) -> str:
    """Compare the features on the pictures that are measured, and return the table and two differences as Markdown."""
    labels = targets[settings.num_train :].numpy()
    found: dict[str, list[np.ndarray]] = {}
    for covariances in features.covariances:
        for name, blocks in make_blocks(features.cls, covariances).items():
            found.setdefault(name, []).append(predict(blocks, targets[: settings.num_train], settings.seed))
    rows = []
    for name, predictions in found.items():
        values = [quality_metrics(predicted, labels)["srcc"] for predicted in predictions]
        spread = "" if name == "CLS" else f" [{min(values):.3f}..{max(values):.3f}]"
        rows.append([name, f"{np.mean(values):.3f}{spread}"])
    lines = [markdown_table(["features", "SRCC"], rows)]
    for first, second in PAIRS:
        pair = [found[first][0], found[second][0]]
        low, high = bootstrap_differences(pair, labels)[0, 1]
        before, after = (quality_metrics(predicted, labels)["srcc"] for predicted in pair)
        lines.append(f'From "{first}" to "{second}": {after - before:+.3f} [{low:+.3f}..{high:+.3f}].')
    return "\n\n".join(lines)


def measure(settings: Settings) -> str:
    """Measure the probe, and return it as Markdown."""
    rows = draw_pictures(settings)
    features = get_features(settings, rows)
    table = compare(features, torch.tensor(rows["mos"][:], dtype=torch.float64), settings)
    return (
        f"Frozen tokens of `{Path(settings.model).name}`, {settings.num_train} pictures to fit and "
        f"{settings.num_others} to measure, seed {settings.seed}. Tokens of {features.cls.shape[1]} numbers are "
        f"reduced to {settings.size} by {settings.projections} random orthonormal projections: mean "
        "[lowest..highest]. The differences below are those of the first projection, with 95 % intervals of draws of "
        "the pictures.\n\n"
        f"{table}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the table; return 2 after a mistake in the arguments or the data."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="labels: a table, or the annotations of a public data set")
    parser.add_argument("--dataset", default="scores", choices=["scores", *DATA_SETS], help="kind of the data")
    parser.add_argument("--image_root", help="folder of the pictures")
    parser.add_argument("--model", default=str(DEFAULT_CHECKPOINT), help="checkpoint of MUSIQ")
    parser.add_argument("--features", type=Path, default=Path("runs/probe.safetensors"), help="file of the features")
    parser.add_argument("--output", type=Path, default=DOCUMENT, help="the document")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    arguments = vars(parse_arguments(parser, argv))
    torch.set_num_threads(arguments.pop("threads"))
    output = arguments.pop("output")
    return run_command(
        "benchmarks.matrix.probe",
        lambda: update_document(output, PLACE, partial(measure, Settings(**arguments))),
        example=EXAMPLE,
    )


if __name__ == "__main__":
    sys.exit(main())
