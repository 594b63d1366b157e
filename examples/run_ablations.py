# SPDX-License-Identifier: Apache-2.0
"""Train MUSIQ with and without its parts at an equal small budget, several seeds each, and print a table.

python examples/run_ablations.py --data biq2021/labels.csv --image_root biq2021/images --pretrained runs/pretrained
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from musiq_hf.arguments import parse_arguments, run_command
from musiq_hf.metrics import MEAN_OF_GROUPS
from musiq_hf.publishing import read_json, write_json
from musiq_hf.recipes import load_settings
from musiq_hf.settings import FinetuneSettings
from musiq_hf.training import finetune

EXAMPLE = "python examples/run_ablations.py --data labels.csv --image_root images --pretrained runs/pretrained"
# From scratch, but for the first. Pictures of BIQ2021 are square, so ARP against square resizing has nothing to show.
VARIANTS = {
    "with stage 1": [],
    "full model, without stage 1": [],
    "no spatial embedding": ["spatial_embedding=none"],
    "no scale embedding": ["use_scale_embedding=false"],
    "native scale only": ["longer_side_lengths=[]"],
    "resized scale only": ["use_native_resolution=false"],
    "linear patch encoder": ["patch_encoder=linear"],
}
FIGURES = ("SRCC", "mean SRCC of groups")


def read_figures(directory: Path) -> tuple[float, float]:
    """Overall SRCC and mean SRCC within groups on the validation split."""
    report = read_json(directory / "metrics.json")["validation"]
    return report["overall"]["srcc"], report["groups"][MEAN_OF_GROUPS]["srcc"]


def render(results: dict[str, list[tuple[float, float]]]) -> str:
    """Markdown table: mean [min..max] over the seeds."""
    lines = ["| variant | seeds | " + " | ".join(FIGURES) + " |", "|---|---|---|---|"]
    for variant, figures in results.items():
        columns = np.array(figures).T
        cells = (f"{column.mean():.3f} [{column.min():.3f}..{column.max():.3f}]" for column in columns)
        lines.append(f"| {variant} | {len(figures)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """Train what is not trained yet, one seed of every variant after the other; print and store the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="labels of BIQ2021")
    parser.add_argument("--image_root", help="folder of its pictures")
    parser.add_argument("--pretrained", required=True, help="result of stage 1, examples/pretrain_quality.py")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--epochs", type=float, default=3, help="default: %(default)s")
    parser.add_argument("--seeds", type=int, default=3, help="default: %(default)s")
    arguments = parse_arguments(parser)
    code = run_command("run_ablations", lambda: run(arguments), example=EXAMPLE)
    if code == 0:
        print(render(read_json(arguments.output_dir / "ablations.json")))
    return code


def run(arguments: argparse.Namespace) -> dict[str, list[tuple[float, float]]]:
    """Figures of every variant, one pair per seed; those of an earlier call with the same arguments are kept."""
    asked = {name: str(value) for name, value in vars(arguments).items() if name not in ("output_dir", "seeds")}
    stored = arguments.output_dir / "settings.json"
    if stored.exists() and read_json(stored) != asked:
        raise ValueError(f"{arguments.output_dir} holds runs with other arguments. Choose a new `--output_dir`.")
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    write_json(stored, asked)
    results: dict[str, list[tuple[float, float]]] = {}
    for seed in range(arguments.seeds):
        for variant, overrides in VARIANTS.items():
            directory = arguments.output_dir / f"{variant.replace(' ', '_').replace(',', '')}-{seed}"
            if not (directory / "metrics.json").exists():
                given = {"data": arguments.data, "image_root": arguments.image_root, "epochs": arguments.epochs}
                start = arguments.pretrained if variant == "with stage 1" else "scratch:musiq-tiny"
                given |= {"model": start, "output_dir": str(directory), "seed": seed}
                given["resume"] = any(directory.glob("checkpoint-*"))
                finetune(load_settings(FinetuneSettings, recipe="biq2021", overrides=overrides, arguments=given))
            results.setdefault(variant, []).append(read_figures(directory))
            write_json(arguments.output_dir / "ablations.json", results)
    return results


if __name__ == "__main__":
    sys.exit(main())
