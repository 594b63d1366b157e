# SPDX-License-Identifier: Apache-2.0
"""Ablations: MUSIQ trained with and without its parts, on an equal small budget, several seeds each, as a table.

python examples/run_ablations.py --data biq2021/labels.csv --image_root biq2021/images --pretrained runs/pretrained

The studies are the parts (Tables 7 to 9 of the paper), the grid of the spatial embedding, the size of a patch, the
scales with the mean of three single ones (Table 6), and the training methods. Runs that are finished are kept, and
several calls with other seeds or studies may share one output directory.
"""

import argparse
import sys
from pathlib import Path

from musiq_hf.common.arguments import CommandParser, parse_arguments, positive, run_command
from musiq_hf.common.files import replace_file
from musiq_hf.explain import plot_hash_similarity
from musiq_hf.scoring import load_quality
from musiq_hf.studies import (
    ENSEMBLE,
    GRID_SIZES,
    MEMBERS,
    STUDIES,
    VARIANTS,
    Study,
    collect_results,
    draw_rows,
    find_runs,
    measure_ensembles,
    render_results,
    train_variants,
    write_pictures,
)

EXAMPLE = "python examples/run_ablations.py --data labels.csv --image_root images --pretrained runs/pretrained"
# The budget beside the epochs: two thirds of the recipe's tokens, no made faults, few pictures to choose the epoch.
BUDGET = ["native_patches=32", "resized_patches=16", "holdout_fraction=0.04", "num_workers=0"]
BUDGET += ["degrade_fraction=0", "fault_pairs=0"]


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", required=True, help="labels of BIQ2021")
    add("--image_root", help="folder of its pictures")
    add("--pretrained", help="result of stage 1, examples/pretrain_quality.py, for variants that start from it")
    add("--whitened", help="result of the same script with `--objective whitening`")
    add("--studies", nargs="+", choices=STUDIES, default=["parts"], help="studies to run (default: parts)")
    add("--variants", nargs="+", choices=VARIANTS, metavar="NAME", help="variants of them (default: all)")
    add("--output_dir", type=Path, default=Path("runs/ablations"), help="folder of the runs (default: %(default)s)")
    add("--figure", type=Path, help="PNG file for the similarities of positions, of the study grids")
    add("--num_train", type=positive, help="training pictures, drawn at random (default: all)")
    add("--num_validation", type=positive, help="validation pictures, drawn at random (default: all)")
    add("--epochs", type=float, default=2, help="passes over the training pictures (default: %(default)s)")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of each variant (default: 0 1 2)")
    return parser


def draw_grids(output_dir: Path, path: Path) -> None:
    """Draw the similarities of positions for each size of the grid that has a finished run."""
    found = find_runs(output_dir, GRID_SIZES)
    if not found:
        raise ValueError(f"{output_dir} holds no runs of {', '.join(GRID_SIZES)}. Add the study grids.")
    models = [load_quality(str(folders[0]))[0] for folders in found.values()]
    with replace_file(path) as temporary:
        plot_hash_similarity(*models).savefig(temporary, dpi=60, format="png")


def draw_data(arguments: argparse.Namespace) -> dict[str, str | None]:
    """Return the arguments of training that name the data, of which a part may have to be drawn first."""
    data = {"data": arguments.data, "image_root": arguments.image_root, "dataset": "biq2021"}
    counts = {"num_train": arguments.num_train, "num_validation": arguments.num_validation}
    if set(counts.values()) == {None}:
        return data
    path = arguments.output_dir / f"drawn_{counts['num_train'] or 'all'}_{counts['num_validation'] or 'all'}.parquet"
    if not path.exists():
        arguments.output_dir.mkdir(parents=True, exist_ok=True)
        write_pictures(path, draw_rows(data, **counts), in_windows=False)
    return {"data": str(path), "dataset": "scores"}


def run(arguments: argparse.Namespace) -> None:
    """Train every variant with every seed, and print a table for each study."""
    data = draw_data(arguments)
    chosen = {name: variant for study in arguments.studies for name, variant in STUDIES[study].items()}
    if unknown := set(arguments.variants or ()) - chosen.keys():
        raise ValueError(f"The studies {', '.join(arguments.studies)} have no {', '.join(sorted(unknown))}.")
    train_variants(
        Study(
            variants={name: chosen[name] for name in arguments.variants or chosen},
            data=data,
            output_dir=arguments.output_dir,
            recipe="biq2021",
            budget=BUDGET,
            epochs=arguments.epochs,
            seeds=arguments.seeds,
            starts={"pretrained": arguments.pretrained, "whitened": arguments.whitened},
            command="examples/run_ablations.py",
        )
    )
    for study in arguments.studies:
        results = collect_results(arguments.output_dir, list(STUDIES[study]))
        if study == "scales":
            mean = measure_ensembles(arguments.output_dir, data, name=ENSEMBLE, members=MEMBERS)
            results += [] if mean is None else [mean]
        print(f"\n{study}\n\n{render_results(results)}")
    if arguments.figure is not None:
        draw_grids(arguments.output_dir, arguments.figure)


def main() -> int:
    """Run the studies; return 2 for a mistake in the arguments or the data."""
    arguments = parse_arguments(make_parser())
    return run_command("run_ablations", lambda: run(arguments), example=EXAMPLE)


if __name__ == "__main__":
    sys.exit(main())
