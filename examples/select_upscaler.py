# SPDX-License-Identifier: Apache-2.0
"""Choice of an upscaler: systems compared within classes of content, on clips that this script makes.

python examples/select_upscaler.py --report page.html
python examples/select_upscaler.py --data mine --report page.html

Clips of three kinds and two speeds are halved by area averaging and enlarged by three filters of Pillow. Nobody has
voted on them, so the tables show the form and rank nothing. Another upscaler, a learned one say, is a folder beside
those three with its files: run the script again.

FOLDER of --data has a folder `reference`, one for each system, and perhaps groups.csv with the columns key and group.
"""

import argparse
import html
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from musiq_hf.assessment import ComparisonSettings, SystemsReport, compare_systems, write_systems_report
from musiq_hf.common.arguments import CommandParser, parse_arguments, run_command
from musiq_hf.common.extras import require
from musiq_hf.common.files import replace_file, write_text
from musiq_hf.common.outputs import check_page_path
from musiq_hf.common.pages import embed_png, make_page, render_markdown
from musiq_hf.explain import escape_formula
from musiq_hf.pictures import degrade, has_picture_suffix, has_video_suffix, make_picture, open_picture, open_video

# The package comes first: from there on Ctrl-C is a sentence.
# isort: split
from transformers.utils import logging

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, HEIGHT, NUM_FRAMES, RATE = 320, 180, 24, 24
SPEEDS = {"slow": 1, "fast": 6}  # pixels a frame
CLIPS_OF_A_KIND = 2
UPSCALERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}
SHOWN = {"psnr_y": "PSNR of luma (dB)", "ssim_y": "SSIM of luma", "vmaf": "VMAF", "score": "MUSIQ (MOS points)"}
NUM_CROPS, CROP, ENLARGED = 3, (80, 60), 3
NOTE = (
    "The clips are made by a program, and nobody has voted on them: this shows the form, and ranks nothing. MUSIQ's "
    "scores of upscaled pictures are unproven. VMAF's model was made for 1080 lines."
)
STYLE = (
    ".row{display:flex;flex-wrap:wrap;gap:.6em;margin:1em 0}figure{margin:0}figcaption{color:var(--faint)}"
    "figure img{width:240px;image-rendering:pixelated}@media(max-width:40em){figure img{width:160px}}"
    ".plot{max-height:none}.plot img{min-width:40em;max-width:60em;width:100%}"
)


def draw_graphics(seed: int, size: tuple[int, int]) -> Image.Image:
    """Draw flat colours with sharp edges and text."""
    generator, image = np.random.default_rng(seed), Image.new("RGB", size, (235, 238, 242))
    draw = ImageDraw.Draw(image)
    for _ in range(60):
        x, y = int(generator.integers(size[0])), int(generator.integers(size[1]))
        box = (x, y, x + int(generator.integers(10, 60)), y + int(generator.integers(10, 40)))
        red, green, blue = generator.integers(0, 256, 3).tolist()
        draw.rectangle(box, fill=(red, green, blue))
        draw.text((x, y + 4), "Quality", fill=(20, 20, 20), font=ImageFont.load_default(size=11))
    return image


def draw_texture(seed: int, size: tuple[int, int]) -> Image.Image:
    """Draw shapes and a texture with the spectrum of natural scenes."""
    return make_picture(seed=seed, width=size[0], height=size[1])


# Each kind of content: its drawing, and the blur and noise of a camera.
CONTENTS: dict[str, tuple[Callable[[int, tuple[int, int]], Image.Image], float, float]] = {
    "camera": (draw_texture, 0.7, 4.0),
    "graphics": (draw_graphics, 0.0, 0.0),
    "texture": (draw_texture, 0.0, 0.0),
}


def make_frames(content: str, speed: int, seed: int) -> Iterator[Image.Image]:
    """Yield the frames of a clip: a window that moves over a picture."""
    draw, blur, noise = CONTENTS[content]
    scene = draw(seed, (WIDTH + speed * NUM_FRAMES, HEIGHT))
    for number in range(NUM_FRAMES):
        frame = scene.crop((speed * number, 0, speed * number + WIDTH, HEIGHT))
        yield degrade(frame, blur_sigma=blur, noise_sigma=noise, seed=1000 * seed + number)


def upscale(frame: Image.Image, method: Image.Resampling) -> Image.Image:
    """Halve a frame by area averaging, and enlarge it again."""
    return frame.reduce(2).resize(frame.size, method)


def write_clip(path: Path, frames: list[Image.Image]) -> None:
    """Write a clip without loss: FFV1, 4:2:0."""
    av = require("av", extra="video")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(path) as temporary, av.open(str(temporary), "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame).reformat(format="yuv420p")))
        container.mux(stream.encode(None))


def make_clips(folder: Path) -> None:
    """Write references and what three upscalers make of them, and the table of their groups."""
    lines, seed = ["key,content,motion"], 0
    for content in CONTENTS:
        for motion, speed in SPEEDS.items():
            for number in range(1, CLIPS_OF_A_KIND + 1):
                name, seed = f"{content}_{motion}_{number}.mkv", seed + 1
                frames = list(make_frames(content, speed, seed))
                write_clip(folder / "reference" / name, frames)
                for system, method in UPSCALERS.items():
                    write_clip(folder / system / name, [upscale(frame, method) for frame in frames])
                lines.append(f"{name},{content},{motion}")
    write_text(folder / "groups.csv", "\n".join(lines) + "\n")


def find_systems(data: Path) -> list[Path]:
    """Return the folders of the systems, by name."""
    folders = sorted(path for path in data.glob("*") if path.is_dir() and not path.name.startswith("."))
    systems = [path for path in folders if path.name != "reference"]
    if len(systems) == len(folders) or len(systems) < 2:
        found = ", ".join(path.name for path in folders) or "no folder"
        raise ValueError(
            f"{data} must have a folder `reference` and those of two systems or more, got {found}. Add them."
        )
    return systems


def plot_differences(report: SystemsReport) -> "Figure":
    """Plot how systems differ from the first one in each group, with intervals; filled marks have p below 0.05."""
    figures = require("matplotlib.figure", extra="explain")
    metrics, baseline = [name for name in SHOWN if name in report.metrics], report.systems[0]
    groups = [group for names in report.tables.values() for group in names]
    labels = [escape_formula(group) for group in groups]
    figure = figures.Figure(figsize=(9, 1.6 + 0.5 * len(groups) * -(-len(metrics) // 2)), layout="constrained")
    for metric, axes in zip(metrics, figure.subplots(-(-len(metrics) // 2), 2, squeeze=False).flat, strict=False):
        for place, system in enumerate(report.systems[1:]):
            color, shift = f"C{place}", (place + 1) / len(report.systems) - 0.5
            pairs = [p for p in report.pairs if (p.first, p.second, p.metric) == (baseline, system, metric)]
            for pair in pairs:
                own, y = pair.difference, groups.index(pair.group) + shift
                axes.plot([own.low, own.high], [y, y], color=color, linewidth=2)
                filled = color if own.p_value < 0.05 else "white"
                axes.plot(own.mean, y, "o", color=color, markerfacecolor=filled)
            axes.plot([], [], "o-", color=color, label=escape_formula(system))
        axes.axvline(0, color="0.5", linewidth=0.8)
        axes.set(title=SHOWN[metric], yticks=range(len(groups)), yticklabels=labels, ylim=(len(groups) - 0.5, -0.5))
        axes.grid(axis="x", alpha=0.3)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(report.systems))
    figure.suptitle(f"Difference from {escape_formula(baseline)} on the same files, 95 % interval; filled: p < 0.05")
    return figure


def read_frame(path: Path) -> np.ndarray:
    """Return a picture, or a frame of a clip half a second from its begin, as RGB."""
    if not has_video_suffix(path.name):
        return np.asarray(open_picture(path).convert("RGB"))
    with open_video(path) as video:
        *_, frame = islice(video.frames(), NUM_FRAMES // 2)
        return frame.to_rgb()


def find_crop(frames: list[np.ndarray]) -> tuple[int, int, int, int]:
    """Return the box (left, top, right, bottom) in which frames differ most."""
    spread = np.stack(frames).astype(float).std(axis=0).mean(axis=2)
    height, width = (min(side, whole) for side, whole in zip(CROP[::-1], spread.shape, strict=True))
    places = [
        (left, top)
        for top in range(0, spread.shape[0] - height + 1, 10)
        for left in range(0, spread.shape[1] - width + 1, 10)
    ]
    left, top = max(places, key=lambda place: spread[place[1] : place[1] + height, place[0] : place[0] + width].sum())
    return left, top, left + width, top + height


def list_files(folder: Path) -> list[Path]:
    """Return the pictures and videos of a folder and those below it, by name."""
    return sorted(path for path in folder.rglob("*") if has_picture_suffix(path.name) or has_video_suffix(path.name))


def show_crops(data: Path, systems: list[Path]) -> Iterator[str]:
    """Yield the HTML of rows of crops of one frame, side by side and enlarged pixel by pixel."""
    references = list_files(data / "reference")
    for reference in references[:: -(-len(references) // NUM_CROPS)]:
        key = reference.relative_to(data / "reference")
        wanted = [(system / key).with_suffix("") for system in systems]
        beside = [path for system in systems for path in list_files(system) if path.with_suffix("") in wanted]
        try:
            frames = [read_frame(path) for path in (reference, *beside)]
        except (ValueError, OSError):
            continue  # the tables name it as a row with an error, as they do files of other sizes
        if len({frame.shape for frame in frames}) > 1 or len(beside) < len(systems):
            continue
        box = find_crop(frames)
        cells = []
        for name, frame in zip(["reference", *(system.name for system in systems)], frames, strict=True):
            crop, buffer = Image.fromarray(np.ascontiguousarray(frame)).crop(box), BytesIO()
            crop.resize((ENLARGED * crop.width, ENLARGED * crop.height), Image.Resampling.NEAREST).save(buffer, "PNG")
            picture, caption = embed_png(buffer.getvalue(), name), html.escape(name)
            cells.append(f"<figure>{picture}<figcaption>{caption}</figcaption></figure>")
        yield f'<h3>{html.escape(str(key))}</h3>\n<div class="row">{"".join(cells)}</div>'


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, metavar="FOLDER", help="reference and systems (default: clips are made)")
    add("--report", type=Path, metavar="PAGE", help=".html file with pictures, figure and tables")
    add("--model", help="checkpoint that scores (default: the embedded one)")
    add("--output_dir", type=Path, default=Path("runs/select_upscaler"), help="folder of all else (%(default)s)")
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Make the clips, compare, and write rows, report, figure and page."""
    if arguments.report is not None:
        check_page_path(arguments.report)
    # 1. Write clips of each class, and what the upscalers make of them.
    data, output = arguments.data or arguments.output_dir / "clips", arguments.output_dir
    if arguments.data is None:
        make_clips(data)
    systems, groups = find_systems(data), data / "groups.csv"
    has_videos = any(has_video_suffix(path.name) for path in list_files(data / "reference"))
    # 2. Compare them: a row for each clip and system, means by class, and differences on the same clips.
    output.mkdir(parents=True, exist_ok=True)
    settings = ComparisonSettings(
        str(data / "reference"),
        [str(system) for system in systems],
        metrics=("psnr", "ssim", *(["vmaf"] if has_videos else []), "musiq"),
        groups=groups if groups.is_file() else None,
        model=arguments.model,
        output=output / "rows.csv",
        overwrite=True,
    )
    report = compare_systems(settings)
    write_systems_report(output / "report.json", report)
    # 3. Draw the differences, and make the page.
    buffer = BytesIO()
    plot_differences(report).savefig(buffer, format="png", dpi=110)
    with replace_file(output / "differences.png") as temporary:
        temporary.write_bytes(buffer.getvalue())
    text = (output / "report.md").read_text().partition("\n\n")[2]  # without its title
    note = NOTE if arguments.data is None else "MUSIQ's scores of upscaled pictures are unproven."
    print(note, text.partition("\n\n## Differences")[0], f"Rows, report and figure: {output}", sep="\n\n")
    if arguments.report is not None:
        figure = f'<div class="wide plot">{embed_png(buffer.getvalue(), "Differences by group and metric")}</div>'
        crops = "\n".join(show_crops(data, systems))
        body = (
            f"<p>{note}</p>\n<h2>Where systems differ most</h2>\n{crops}\n<h2>Differences at a glance</h2>\n{figure}"
        )
        page = make_page("Choice of an upscaler", f"{body}\n{render_markdown(text)}", style=STYLE)
        write_text(arguments.report, page)
        print(f"Page: {arguments.report}")


def main() -> int:
    """Compare; return 2 for a mistake in the arguments or the data."""
    arguments = parse_arguments(build_parser())
    logging.disable_progress_bar()
    return run_command("select_upscaler", lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
