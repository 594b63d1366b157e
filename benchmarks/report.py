# SPDX-License-Identifier: Apache-2.0
"""Results as docs/performance.md and docs/performance.png.

python -m benchmarks.report runs/bench.json --output docs/performance.md

What stands between the two comments in the document is written by hand and kept.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.check import TARGETS
from benchmarks.measure import DTYPES
from benchmarks.results import read_all, section_rows
from musiq_hf.common.arguments import CommandParser, parse_arguments, run_command
from musiq_hf.common.extras import require
from musiq_hf.common.files import write_text
from musiq_hf.common.markdown import markdown_table

Results = dict[str, Any]
BEGIN, END = "<!-- written by hand: begin -->", "<!-- written by hand: end -->"
EXAMPLE = "python -m benchmarks.report runs/bench.json --output docs/performance.md"
COLORS = {"ours float32": "tab:blue", "ours bfloat16": "tab:green", "pyiqa float32": "tab:red"}
COMMANDS = """```
make bench PICTURES=photos    # measures into runs/bench.json and writes this page
make bench-check              # compares runs/bench.json with the targets
python -m benchmarks.cpu --output runs/bench.json --huge bfloat16 float32    # 12000x9000, an hour
python -m benchmarks.gpu --output runs/gpu.json    # on a CUDA machine, 8 minutes at most
python -m benchmarks.report runs/bench.json runs/gpu.json --output docs/performance.md
```"""
METHOD = """What is compared ran in turns in one process, and the figures are medians and ratios of medians; only
pyiqa on more than 5,000 patches ran once, in a process of its own, between two halves of our runs.
Models have 27M parameters and random weights, the same ones in pyiqa's network; times are of the model alone, on
sequences made before. Operations are those of convolutions and matrix products that were executed; the rate beside
them is that of the fastest square matrix product found (sides of 2048 to 4096, through torch.mm and oneDNN), run in
turns with the model. Memory is the peak of resident memory above the loaded model, sequence included, in a process of
its own per point."""


def _format_size(row: dict[str, Any]) -> str:
    return f"{row['width']}x{row['height']}"


def _format_number(value: float | None, style: str = "{:.2f}") -> str:
    return "" if value is None else style.format(value)


def _describe_machine(section: dict[str, Any]) -> str:
    machine = section.get("machine", {})
    device = machine.get("gpu") or f"{machine.get('processor')}, {machine.get('threads')} threads"
    quick = "; a quick run, not for conclusions" if section.get("settings", {}).get("quick") else ""
    return f"{device}, PyTorch {machine.get('torch')}, {machine.get('date')}{quick}"


def _render_sizes(results: Results) -> str:
    rows = []
    for row in section_rows(results, "sizes"):
        timings, ratios, shares = row["timings"], row.get("ratios", {}), row["shares"]
        seconds = [timings.get(name, {}).get("median") for name in COLORS]
        rows.append(
            [_format_size(row), str(row["tokens"]), f"{row['operations'] / 1e9:.0f}"]
            + [_format_number(value, "{:.3f}") for value in seconds]
            + [_format_number(ratios.get(dtype), "{:.1f}x") for dtype in DTYPES]
            + [f"{row['rates'][dtype] / 1e9:.0f} ({_format_number(shares.get(dtype), '{:.0%}')})" for dtype in DTYPES]
        )
    heads = ["size", "patches", "GFLOP", "float32, s", "bfloat16, s", "pyiqa, s", "float32 to pyiqa"]
    heads += ["bfloat16 to pyiqa", "float32, GFLOP/s (of a product)", "bfloat16, GFLOP/s (of a product)"]
    products = results["sections"]["sizes"].get("products", {})
    lines = [
        f"{dtype}: " + ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in found.items())
        for dtype, found in products.items()
    ]
    return f"{markdown_table(heads, rows)}\n\nMatrix products, GFLOP/s: {'; '.join(lines)}."


def _render_memory(results: Results, name: str) -> str:
    rows = [
        [
            _format_size(row),
            f"{row['who']}, {row['dtype']}",
            str(row.get("tokens", "")),
            _format_number(row.get("seconds"), "{:.2f}"),
            _format_number(row["peak_bytes"] / 1e6 if "peak_bytes" in row else None, "{:.0f}"),
            row.get("error", ""),
        ]
        for row in section_rows(results, name)
    ]
    return markdown_table(["size", "what", "patches", "s", "peak, MB", ""], rows)


def _render_mixed(results: Results) -> str:
    rows, measured = [], section_rows(results, "mixed")
    for row in measured:
        best = max(rate for name, rate in row["rates"].items() if name != "batch")
        rows.append(
            [row["dtype"], str(row["num_pictures"]), f"{row['rates']['batch'] / 1e9:.0f}", f"{best / 1e9:.0f}"]
            + [f"{row['share_of_best_single']:.2f}", f"{row['default']['largest_change']:.1e}"]
            + [f"{row['random_weights']['largest_change']:.1e} ({row['random_weights']['spread']:.1e})"]
        )
    heads = ["type", "pictures", "batch, GFLOP/s", "best single size, GFLOP/s", "ratio"]
    heads += [f"largest change of a score, {measured[0]['checkpoint']} (range 100)", "27M, random weights (spread)"]
    return markdown_table(heads, rows)


def _render_folder(results: Results) -> str:
    rows = [
        [row["dtype"], str(row["num_pictures"])]
        + [f"{row['timings'][name]['median']:.2f}" for name in ("end to end", "model alone")]
        + [f"{row['share_of_model_alone']:.2f}", f"{row['preprocessing_share']:.1%}", f"{row['decoding_share']:.1%}"]
        for row in section_rows(results, "folder")
    ]
    heads = ["type", "files", "end to end, s", "model alone, s", "ratio", "preprocessing alone", "decoding alone"]
    return f"{markdown_table(heads, rows)}\n\nThe last two are parts of the time of the model alone."


def _render_precision(results: Results) -> str:
    row = section_rows(results, "precision")[0]
    return (
        f"{row['num_pictures']} photographs, {row['checkpoint']} (range 0..100, these scores spread over "
        f"{row['spread']:.1f}): bfloat16 against float32 SRCC {row['srcc']:.5f}, median deviation "
        f"{row['median_deviation']:.3f}, largest {row['largest_deviation']:.3f} points."
    )


def _render_profile(results: Results) -> str:
    rows = section_rows(results, "profile")
    kinds = sorted({kind for row in rows for kind in row["shares"]})
    cells = [
        [_format_size(row), row["dtype"], *(f"{row['shares'].get(kind, 0):.0%}" for kind in kinds)] for row in rows
    ]
    return markdown_table(["size", "type", *kinds], cells)


def _render_training(results: Results, name: str) -> str:
    rows = [
        [
            row["variant"],
            f"{row['batch_size']} x {row['width']}x{row['height']}" if "batch_size" in row else "",
            _format_number(row.get("tokens_per_second"), "{:.0f}"),
            _format_number(row["peak_bytes"] / 1e6 if "peak_bytes" in row else None, "{:.0f}"),
            _format_number(row["operations_per_second"] / 1e9 if "operations_per_second" in row else None, "{:.0f}"),
            _format_number(row.get("share"), "{:.0%}"),
            row.get("error", ""),
        ]
        for row in section_rows(results, name)
    ]
    heads = ["variant", "batch", "patches/s", "peak, MB", "useful GFLOP/s", "of a product", ""]
    return markdown_table(heads, rows)


def _render_plain_rows(results: Results, name: str) -> str:
    """Render the rows of a section of the GPU with their numbers as they are."""
    rows = section_rows(results, name)
    heads = [key for key in rows[0] if not isinstance(rows[0][key], dict | list)]
    cells = [[f"{v:.4g}" if isinstance(v := row.get(key, ""), float) else str(v) for key in heads] for row in rows]
    return markdown_table(heads, cells)


# Heading and rendering function of each section, in the order of the page.
PARTS: dict[str, tuple[str, Callable[[Results], str]]] = {
    "sizes": ("Single pictures", _render_sizes),
    "profile": ("Where the time goes", _render_profile),
    "memory": ("Memory", lambda results: _render_memory(results, "memory")),
    "huge bfloat16": ("108 megapixels, bfloat16", lambda results: _render_memory(results, "huge bfloat16")),
    "huge float32": ("108 megapixels, float32", lambda results: _render_memory(results, "huge float32")),
    "mixed": ("A batch of mixed sizes", _render_mixed),
    "folder": ("A folder of JPEG files", _render_folder),
    "precision": ("Precision of bfloat16", _render_precision),
    "training": ("Fine-tuning step", lambda results: _render_training(results, "training")),
    "gpu agreement": ("GPU: agreement with the CPU", lambda results: _render_plain_rows(results, "gpu agreement")),
    "gpu rates": ("GPU: matrix products", lambda results: _render_plain_rows(results, "gpu rates")),
    "gpu mixed": ("GPU: mixed sizes", lambda results: _render_plain_rows(results, "gpu mixed")),
    "gpu against pyiqa": ("GPU: against pyiqa", lambda results: _render_plain_rows(results, "gpu against pyiqa")),
    "gpu end to end": ("GPU: end to end", lambda results: _render_plain_rows(results, "gpu end to end")),
    "gpu training": ("GPU: fine-tuning step", lambda results: _render_training(results, "gpu training")),
    "gpu training compiled": (
        "GPU: fine-tuning step under torch.compile",
        lambda results: _render_training(results, "gpu training compiled"),
    ),
}


def handwritten(document: str) -> str:
    """Return the text between the two comments of an earlier document, "" if they are not there."""
    _, found, rest = document.partition(BEGIN)
    text, ended, _ = rest.partition(END)
    return text.strip() if found and ended else ""


def render(results: Results, *, kept: str = "", plot: str | None = None) -> str:
    """Render the page.

    Args:
        results: Sections by name; one that was not measured does not appear.
        kept: Text that was written by hand.
        plot: File name of the plot; None = there is none.

    Returns:
        Markdown.
    """
    table = markdown_table(["target", "goal", "measured", ""], [target.cells(results) for target in TARGETS])
    parts = ["# Speed and memory", METHOD, COMMANDS, "## Targets", table, f"{BEGIN}\n{kept}\n{END}"]
    if plot is not None:
        parts.append(f"![Time and memory against the number of pixels]({plot})")
    for name, (heading, write) in PARTS.items():
        section = results["sections"].get(name)
        if section is None:
            continue
        body = f"Not measured: {section['error']}." if "error" in section else write(results)
        parts += [f"## {heading}", f"{_describe_machine(section)}.", body]
    return "\n\n".join(parts) + "\n"


def growth_lines(results: Results) -> dict[str, list[tuple[float, float, float]]]:
    """Return points (megapixels, seconds, gigabytes) by contender, smallest picture first."""
    lines: dict[str, list[tuple[float, float, float]]] = {}
    for row in section_rows(results, "growth"):
        if "error" not in row:
            point = (row["width"] * row["height"] / 1e6, row["seconds"], row["peak_bytes"] / 1e9)
            lines.setdefault(f"{row['who']} {row['dtype']}", []).append(point)
    return {name: sorted(points) for name, points in lines.items()}


def draw_growth(results: Results, path: Path) -> None:
    """Draw two panels, time and memory against the number of pixels, with logarithmic axes.

    Raises:
        ImportError: If Matplotlib is not installed; the message holds the pip line.
    """
    require("matplotlib", extra="bench")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, 2)
    for column, (axes, label) in enumerate(zip(panels, ("time, s", "peak memory, GB"), strict=True), start=1):
        for name, points in growth_lines(results).items():
            values = [point[column] for point in points]
            axes.loglog([point[0] for point in points], values, marker="o", label=name, color=COLORS.get(name))
        axes.set_xlabel("megapixels")
        axes.set_ylabel(label)
        axes.grid(visible=True, which="both", alpha=0.3)
        axes.legend()
    temporary = path.with_name(f".{path.name}.tmp.png")
    figure.savefig(temporary, dpi=110)
    temporary.replace(path)


def write_report(results: Results, output: Path) -> None:
    """Write the page and, if growth was measured, the plot beside it."""
    output.parent.mkdir(parents=True, exist_ok=True)
    kept = handwritten(output.read_text(encoding="utf-8")) if output.exists() else ""
    plot = output.with_suffix(".png")
    if growth_lines(results):
        draw_growth(results, plot)
    write_text(output, render(results, kept=kept, plot=plot.name if plot.exists() else None))


def main(argv: Sequence[str] | None = None) -> int:
    """Write the report."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", help="JSON files of benchmarks.cpu and benchmarks.gpu")
    parser.add_argument("--output", type=Path, default=Path("docs/performance.md"), help="the page; .png beside it")
    arguments = parse_arguments(parser, argv)
    return run_command(
        "benchmarks.report", lambda: write_report(read_all(arguments.results), arguments.output), example=EXAMPLE
    )


if __name__ == "__main__":
    sys.exit(main())
