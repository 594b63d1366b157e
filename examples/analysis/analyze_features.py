# SPDX-License-Identifier: Apache-2.0
"""Classes of degraded pictures in the feature maps of a checkpoint: an index for each layer, a map, and frequencies.

python examples/analysis/analyze_features.py --pictures photos --degradations bicubic blur jpeg noise --output analysis

Each picture is taken as it is and once for each degradation; `--strength` says how strong that is. "bicubic" is shrunk
and enlarged again. FOLDER of --output gets index.md, map.png, frequencies.png and spectra.png. The map needs the extra
`analysis`, the figures need `explain`. Figures show one network or scale, `--part`; frequencies are of 32 pictures.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from musiq_hf import DEFAULT_CHECKPOINT
from musiq_hf.common.arguments import CommandParser, parse_arguments, positive, run_command
from musiq_hf.common.extras import require
from musiq_hf.common.files import replace_file, write_text
from musiq_hf.common.markdown import markdown_table
from musiq_hf.evaluation import (
    calinski_harabasz,
    collect_feature_maps,
    fourier_spectrum,
    map_features,
    measure_log_amplitudes,
    measure_maps,
    pooled_features,
)
from musiq_hf.explain import plot_clusters, plot_log_amplitudes, plot_spectra
from musiq_hf.pictures import DEGRADATIONS, apply_degradations, degrade, find_pictures, open_picture
from musiq_hf.scoring import load_with_head

# The package comes first: from there on Ctrl-C is a sentence.
# isort: split
import torch
from transformers.utils import logging

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BICUBIC, PRISTINE = "bicubic", "as it is"
MAX_SHRINKING = 4  # of "bicubic" at the strength 1
NUM_CURVES = 32  # pictures whose frequencies are measured


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the analysis, by the names of the flags."""

    pictures: list[Path]
    degradations: list[str]
    model: str
    output: Path
    strength: float
    limit: int | None
    part: str | None
    without_map: bool


def enlarge_again(image: Image.Image, strength: float) -> Image.Image:
    """Shrink a picture, and enlarge it again to its size, both bicubic."""
    factor = 1 + (MAX_SHRINKING - 1) * strength
    small = (max(1, round(image.width / factor)), max(1, round(image.height / factor)))
    return image.resize(small, Image.Resampling.BICUBIC).resize(image.size, Image.Resampling.BICUBIC)


def read_copies(files: list[Path], kind: str, strength: float) -> Iterator[Image.Image]:
    """Read pictures and degrade them; the seed of each is its place."""
    for seed, file in enumerate(files):
        image = degrade(open_picture(file), blur_sigma=0, noise_sigma=0, seed=seed)  # to RGB
        if kind == BICUBIC:
            yield enlarge_again(image, strength)
        else:
            yield image if kind == PRISTINE else apply_degradations(image, {kind: strength}, seed=seed)


def choose_part(parts: list[str], wanted: str | None) -> str:
    """Return the network or scale that the figures show: the wanted one, or the last."""
    if wanted is not None and wanted not in parts:
        raise ValueError(f"`--part` must be one of {', '.join(parts)}, got {wanted!r}.")
    return wanted or parts[-1]


def list_indices(features: dict[str, list[np.ndarray]], labels: list[str]) -> str:
    """Write the table of the index of every layer, beside that of shuffled labels."""
    shuffled = np.random.default_rng(0).permutation(labels)
    rows = [
        [part, str(number), f"{calinski_harabasz(layer, labels):.2f}", f"{calinski_harabasz(layer, shuffled):.2f}"]
        for part, layers in features.items()
        for number, layer in enumerate(layers, start=1)
    ]
    return markdown_table(["part", "map", "Calinski-Harabasz", "of shuffled labels"], rows)


def measure_spectrum(collect: Callable[[Any], Any], images: Iterator[Image.Image], part: str) -> torch.Tensor:
    """Return the mean spectrum of the last maps of those pictures whose maps are as large as the first one's."""
    maps = [collect(image)[part][-1] for image in images]
    return fourier_spectrum(torch.cat([item for item in maps if item.shape[-2:] == maps[0].shape[-2:]]))


def save(figure: "Figure", path: Path, title: str) -> None:
    """Save a figure with a title, under a temporary name first, and print its path."""
    figure.suptitle(title, fontsize=11)
    with replace_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100, bbox_inches="tight")
    print(path)


def run(settings: Settings) -> None:
    """Measure, print the table, and write it and the figures."""
    # 1. Say what cannot work before a checkpoint is loaded.
    unknown = [kind for kind in settings.degradations if kind not in (BICUBIC, *DEGRADATIONS)]
    if unknown:
        raise ValueError(f"Unknown degradation {unknown[0]!r}. Choose from {', '.join((BICUBIC, *DEGRADATIONS))}.")
    if not 0 < settings.strength <= 1:
        raise ValueError(f"`--strength` must lie in (0, 1], got {settings.strength}.")
    require("matplotlib.figure", extra="explain")
    if not settings.without_map:
        require("umap", extra="analysis")
    found = [file for path in settings.pictures for file in (find_pictures(path) if path.is_dir() else [path])]
    files = found[: settings.limit]
    if not files:
        raise ValueError("At least one picture is needed, got none. Give `--pictures` a folder with pictures.")
    # 2. Average the maps of every copy; each kind is a class.
    logging.disable_progress_bar()
    model, processor = load_with_head(settings.model)
    collect = partial(collect_feature_maps, model, processor)
    part = choose_part(list(collect(open_picture(files[0]))), settings.part)
    kinds = [PRISTINE, *dict.fromkeys(settings.degradations)]
    copies = {kind: partial(read_copies, files, kind, settings.strength) for kind in kinds}
    pooled = [pooled_features(model, processor, read()) for read in copies.values()]
    features = {
        name: [np.concatenate(layer) for layer in zip(*(own[name] for own in pooled), strict=True)]
        for name in pooled[0]
    }
    labels = [kind for kind in kinds for _ in files]
    text = list_indices(features, labels)
    # 3. Draw one part: the map of its last layer, and its frequencies.
    settings.output.mkdir(parents=True, exist_ok=True)
    if not settings.without_map:
        index = measure_maps(features[part][-1], labels)
        text += f"\n\nMaps of {part}, 5 seeds: {index.mean:.1f} ({index.low:.1f} to {index.high:.1f})"
        points = map_features(features[part][-1])
        save(plot_clusters(points, labels), settings.output / "map.png", f"{part}: last feature map, by UMAP")
    curves = {
        kind: measure_log_amplitudes(model, processor, islice(read(), NUM_CURVES))[part]
        for kind, read in copies.items()
    }
    save(plot_log_amplitudes(curves), settings.output / "frequencies.png", f"{part}: frequencies of all feature maps")
    spectra = {kind: measure_spectrum(collect, islice(read(), NUM_CURVES), part) for kind, read in copies.items()}
    save(plot_spectra(spectra), settings.output / "spectra.png", f"{part}: spectra of the last feature map")
    write_text(settings.output / "index.md", text + "\n")
    print(settings.output / "index.md", text, sep="\n\n")


def main() -> int:
    """Analyse, and print table and paths; return 2 for a mistake in the arguments or a picture."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--pictures", nargs="+", type=Path, required=True, help="pictures, or folders of pictures")
    add("--degradations", nargs="+", default=["bicubic", "blur", "jpeg", "noise"], help="kinds of copies")
    add("--model", default=DEFAULT_CHECKPOINT.name, help="checkpoint (default: %(default)s)")
    add("--output", type=Path, required=True, help="folder for the table and the figures; its files are replaced")
    add("--strength", type=float, default=0.5, help="strength of the degradations, above 0 and up to 1")
    add("--limit", type=positive, help="only the first pictures")
    add("--part", help="network or scale that figures show (default: the last)")
    add("--without_map", action="store_true", help="leave out the map, and the extra `analysis`")
    settings = Settings(**vars(parse_arguments(parser)))
    return run_command("analyze_features", lambda: run(settings))


if __name__ == "__main__":
    sys.exit(main())
