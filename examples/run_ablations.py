# SPDX-License-Identifier: Apache-2.0
"""Ablations: MUSIQ trained with and without its parts, on an equal small budget, several seeds each, as a table.

python examples/run_ablations.py --data biq2021/labels.csv --image_root biq2021/images --pretrained runs/pretrained
"""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from musiq_hf.common.arguments import CommandParser, parse_arguments, run_command
from musiq_hf.common.files import read_json, replace_file, write_json
from musiq_hf.data import load_data
from musiq_hf.metrics import MEAN_OF_GROUPS, QualityReport, read_metrics
from musiq_hf.pictures import open_picture
from musiq_hf.training import FinetuneSettings, finetune, load_settings, read_recipe

# The package comes first: from there on Ctrl-C is a sentence.
# isort: split
import datasets
import numpy as np

EXAMPLE = "python examples/run_ablations.py --data labels.csv --image_root images --pretrained runs/pretrained"
# The budget beside the epochs: two thirds of the recipe's tokens, no made faults, few pictures to choose the epoch.
BUDGET = ["native_patches=32", "resized_patches=16", "holdout_fraction=0.04", "num_workers=0"]
BUDGET += ["degrade_fraction=0", "fault_pairs=0"]
# Overrides by variant. All but the first start from scratch. Those of one scale read as many tokens as the others.
VARIANTS = {
    "with stage 1": [],
    "full model, without stage 1": [],
    "no spatial embedding": ["spatial_embedding=none"],
    "no scale embedding": ["use_scale_embedding=false"],
    "native scale only": ["longer_side_lengths=[]", "native_patches=48"],
    "resized scale only": ["use_native_resolution=false", "resized_patches=48"],
    "linear patch encoder": ["patch_encoder=linear"],
}
# Training methods: what is added to the first two variants, and stage 1 by whitening in place of made faults.
LOCALISATION = "localisation_weight=0.6"
METHOD_VARIANTS = {
    "covariance beside CLS": ["pooling=cls+covariance"],
    "covariance alone": ["pooling=covariance"],
    "localisation": [LOCALISATION],
    "no spatial embedding, localisation": ["spatial_embedding=none", LOCALISATION],
    "covariance and localisation": ["pooling=cls+covariance", LOCALISATION],
    "with stage 1, covariance beside CLS": ["pooling=cls+covariance"],
    "with stage 1, localisation": [LOCALISATION],
    "whitening in place of stage 1": [],
    "whitening, covariance and localisation": ["pooling=cls+covariance", LOCALISATION],
}
# Pictures of BIQ2021 are square. Windows of other shapes, with the scores of the whole, show what squaring costs.
WINDOW_VARIANTS = {
    "windows of 1:2 to 2:1, aspect ratio kept": VARIANTS["resized scale only"],
    "windows of 1:2 to 2:1, squared": [*VARIANTS["resized scale only"], "resize_mode=square"],
}
ALL_VARIANTS = VARIANTS | METHOD_VARIANTS | WINDOW_VARIANTS
FIGURES = ("SRCC", "mean SRCC of groups")


def choose_window(name: str, width: int, height: int) -> list[int]:
    """Choose the largest box at the middle of a picture, of an aspect of 1:2..2:1 that its name draws.

    Returns:
        Left, top, right and bottom, in pixels.
    """
    aspect = 2 ** np.random.default_rng(list(name.encode())).uniform(-1, 1)
    wide, high = min(width, round(height * aspect)), min(height, round(width / aspect))
    left, top = (width - wide) // 2, (height - high) // 2
    return [left, top, left + wide, top + high]


def write_windows(path: Path, *, data: str, image_root: str | None) -> None:
    """Write the data as parquet, with a box for every picture."""
    parts = load_data(data, dataset="biq2021", image_root=image_root)
    tables = []
    for split, rows in parts.items():
        names = [cell["path"] for cell in rows["image"]]
        boxes = [choose_window(Path(name).name, *open_picture(name).size) for name in names]
        columns = {"image": [str(Path(name).resolve()) for name in names], "split": [split] * len(names), "box": boxes}
        columns |= {name: rows[name] for name in ("mos", "group")}
        tables.append(datasets.Dataset.from_dict(columns))
    with replace_file(path) as temporary:
        datasets.concatenate_datasets(tables).to_parquet(temporary)


def read_figures(directory: Path) -> tuple[float, float]:
    """Read the overall SRCC and the mean SRCC within groups, on the validation split."""
    report = read_metrics(directory).reports["validation"]
    assert isinstance(report, QualityReport) and report.groups  # training on BIQ2021 wrote them
    return report.overall.srcc, report.groups[MEAN_OF_GROUPS].srcc


def render(results: dict[str, list[tuple[float, float]]]) -> str:
    """Render a Markdown table with mean [min..max] over the seeds."""
    lines = ["| variant | seeds | " + " | ".join(FIGURES) + " |", "|---|---|---|---|"]
    for variant, figures in results.items():
        columns = np.array(figures).T
        cells = (f"{column.mean():.3f} [{column.min():.3f}..{column.max():.3f}]" for column in columns)
        lines.append(f"| {variant} | {len(figures)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """Train every variant that is not trained yet, one seed after the other; print and store the table."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="labels of BIQ2021")
    parser.add_argument("--image_root", help="folder of its pictures")
    parser.add_argument("--pretrained", required=True, help="result of stage 1, examples/pretrain_quality.py")
    parser.add_argument("--whitened", help="result of the same script with `--objective whitening`")
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=ALL_VARIANTS,
        default=[*VARIANTS, *WINDOW_VARIANTS],
        metavar="NAME",
        help="variants to train (default: those without training methods)",
    )
    parser.add_argument("--output_dir", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--epochs", type=float, default=2, help="default: %(default)s")
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=[0, 1, 2],
        help="several calls with other seeds may share one output directory (default: 0 1 2)",
    )
    arguments = parse_arguments(parser)
    code = run_command("run_ablations", lambda: run(arguments), example=EXAMPLE)
    if code == 0:
        print(render(read_json(arguments.output_dir / "ablations.json")))
    return code


def name_runs(variant: str) -> str:
    """Name the directory of a variant's runs, without the seed."""
    return re.sub(r"\W+", "_", variant)


def collect(output_dir: Path) -> dict[str, list[tuple[float, float]]]:
    """Collect the figures of every finished run below a directory, by variant."""
    found = {variant: sorted(output_dir.glob(f"{name_runs(variant)}-*/metrics.json")) for variant in ALL_VARIANTS}
    return {variant: [read_figures(path.parent) for path in paths] for variant, paths in found.items() if paths}


def find_start(arguments: argparse.Namespace, variant: str) -> str:
    """Find the checkpoint or the configuration that a variant starts from."""
    if variant.startswith("whitening"):
        if arguments.whitened is None:
            raise ValueError(f'"{variant}" starts from a result of `--objective whitening`. Give it as `--whitened`.')
        return str(arguments.whitened)
    return str(arguments.pretrained) if variant.startswith("with stage 1") else "scratch:musiq-tiny"


def run(arguments: argparse.Namespace) -> None:
    """Train every variant with every seed; runs that are finished in the directory are kept."""
    asked: dict[str, Any] = {
        name: str(value) for name, value in vars(arguments).items() if name not in ("output_dir", "seeds", "variants")
    }
    asked |= {"budget": BUDGET, "variants": ALL_VARIANTS, "recipe": read_recipe("biq2021")}
    stored = arguments.output_dir / "settings.json"
    if stored.exists() and read_json(stored) != asked:
        raise ValueError(f"{arguments.output_dir} holds runs with other settings. Choose a new `--output_dir`.")
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    write_json(stored, asked)
    windows = arguments.output_dir / "windows.parquet"
    if not windows.exists() and WINDOW_VARIANTS.keys() & set(arguments.variants):
        write_windows(windows, data=arguments.data, image_root=arguments.image_root)
    for seed in arguments.seeds:
        for variant in arguments.variants:
            directory = arguments.output_dir / f"{name_runs(variant)}-{seed}"
            if not (directory / "metrics.json").exists():
                given = {"data": arguments.data, "image_root": arguments.image_root, "epochs": arguments.epochs}
                if variant in WINDOW_VARIANTS:
                    given |= {"data": str(windows), "dataset": "scores", "image_root": None}
                given |= {"model": find_start(arguments, variant), "output_dir": str(directory), "seed": seed}
                given["resume"] = any(directory.glob("checkpoint-*"))
                changes = [*BUDGET, *ALL_VARIANTS[variant]]
                settings = load_settings(FinetuneSettings, recipe="biq2021", overrides=changes, arguments=given)
                finetune(settings, command="examples/run_ablations.py")
            write_json(arguments.output_dir / "ablations.json", collect(arguments.output_dir))


if __name__ == "__main__":
    sys.exit(main())
