# SPDX-License-Identifier: Apache-2.0
"""Numbers of the embedded checkpoints in README, docs and MODEL_CARD.md, written again from scores and metrics.

python examples/update_documents.py
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from musiq_hf import DEFAULT_CHECKPOINT, TINY_CHECKPOINT
from musiq_hf.common.arguments import CommandParser, parse_arguments, run_command
from musiq_hf.common.files import write_text
from musiq_hf.common.markdown import markdown_table, put_into
from musiq_hf.metrics import MEAN_OF_GROUPS, QualityReport, Report, RobustnessReport, SpeedReport, read_metrics
from musiq_hf.scoring import CheckpointCalibration

# The package comes first: from there on Ctrl-C is a sentence.
# isort: split
from transformers import pipeline
from transformers.utils import logging

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "examples" / "pictures"
DOCUMENTS = ("README.md", "MODEL_CARD.md", "docs/usage.md", "docs/checkpoints.md", "docs/finetuning.md")
VALIDATION, SECOND_LOOK = "validation", "Second look, at pictures that chose nothing"  # titles in metrics.json
NUMBER = r"(-?\d+\.\d+)"

Reports = Mapping[str, Report]
Scores = Mapping[str, float]  # of the sample pictures, by their names


def replace_numbers(text: str, pattern: str, numbers: Sequence[str]) -> str:
    """Put numbers into the groups of all matches of a pattern; those after two blanks end where the old ones did.

    Raises:
        ValueError: If the text has more or fewer groups than there are numbers.
    """
    matches = list(re.finditer(pattern, text, re.MULTILINE))
    spans = [match.span(group) for match in matches for group in range(1, match.re.groups + 1)]
    if len(spans) != len(numbers):
        raise ValueError(f"{len(numbers)} places for numbers were expected, got {len(spans)}. Look for: {pattern}")
    for (begin, end), number in reversed(list(zip(spans, numbers, strict=True))):
        if text[:begin].endswith("  "):
            begin = len(text[:begin].rstrip(" ")) + 1
            number = number.rjust(end - begin)
        text = text[:begin] + number + text[end:]
    return text


def update_readme(text: str, scores: Scores, reports: Reports) -> str:
    """Write the scores below the pictures and in the example, and SRCC on the validation pictures."""
    shown = [f"{scores[name]:.1f}" for name in re.findall(r'src="examples/pictures/(\S+\.jpg)"', text)]
    text = replace_numbers(text, rf"\*\*{NUMBER}\*\*", shown)
    names = re.findall(r'scorer\("examples/pictures/(\S+\.jpg)"\)', text)
    text = replace_numbers(text, rf"# {NUMBER} of 100", [f"{scores[name]:.1f}" for name in names])
    overall, mean, _ = read_srcc(read_quality(reports, VALIDATION))
    return replace_numbers(text, rf"SRCC\s+{NUMBER}\s+overall\s+and\s+{NUMBER}\s+on\s+average", [overall, mean])


def update_usage(text: str, scores: Scores) -> str:
    """Write what the demo, the pipeline and the command print."""
    names = re.findall(r"^examples/pictures/(\S+) +\d+x\d+ ", text, re.MULTILINE)
    shown = [f"{scores[name]:.1f}" for name in names]
    text = replace_numbers(text, rf"^examples/pictures/\S+ +\d+x\d+ +{NUMBER}$", shown)
    printed = "\n".join(re.findall(r"^print\(.*pipeline.*|^print\(scorer.*", text, re.MULTILINE))
    names = re.findall(r'"examples/pictures/(\S+\.jpg)"', printed)
    text = replace_numbers(text, rf"'score': {NUMBER}", [str(scores[name]) for name in names])
    calibration = CheckpointCalibration.read(DEFAULT_CHECKPOINT / "calibration.json")
    placed = [scores[name] for name in re.findall(r'percentile=True\)\("examples/pictures/(\S+\.jpg)"', text)]
    shown = [
        part for score in placed for part in (f"{calibration.percentile(score):.1f}", str(calibration.stars(score)))
    ]
    text = replace_numbers(text, rf"'percentile': {NUMBER}, 'stars': (\d)", shown)
    names = re.findall(r"\d+x\d+  examples/pictures/(\S+)$", text, re.MULTILINE)
    places = {name: min(max(score / 100, 0.0), 1.0) for name, score in scores.items()}
    shown = [number for name in names for number in (f"{scores[name]:.2f}", f"{places[name]:.2f}")]
    return replace_numbers(text, rf"^ +{NUMBER} +{NUMBER} +\d+x\d+  examples/pictures/", shown)


def read_quality(reports: Reports, title: str) -> QualityReport:
    """Return a report on scored pictures, or raise a ValueError that says how to make it."""
    report = reports.get(title)
    if not isinstance(report, QualityReport):
        raise ValueError(f"metrics.json of the default checkpoint lacks {title!r}. Run `make default-numbers` first.")
    return report


def read_srcc(report: QualityReport) -> tuple[str, str, str]:
    """Return SRCC over all pictures, the mean of the subsets, and that of each subset."""
    within = {name: f"{metrics.srcc:.3f}" for name, metrics in sorted((report.groups or {}).items())}
    mean = within.pop(MEAN_OF_GROUPS, "")
    return f"{report.overall.srcc:.3f}", mean, " / ".join(within.values())


def update_finetuning(text: str, reports: Reports) -> str:
    """Write SRCC and PLCC into the table of recipes."""
    overall = read_quality(reports, VALIDATION).overall
    return replace_numbers(
        text, rf"{NUMBER} / {NUMBER}, the default checkpoint", [f"{overall.srcc:.3f}", f"{overall.plcc:.3f}"]
    )


def describe_quality(reports: Reports, title: str) -> str:
    """Write SRCC over all pictures, the mean of the subsets and each of them; nothing where it was not measured."""
    report = reports.get(title)
    return "{}; {} ({})".format(*read_srcc(report)) if isinstance(report, QualityReport) else ""


def describe_copies(reports: Reports) -> str:
    """Write how often pristine pictures score above their copies; nothing where it was not measured."""
    found = [report for report in reports.values() if isinstance(report, RobustnessReport)]
    return f"{found[0].overall.pristine_above:.1%}" if found else ""


def describe_speed(reports: Reports) -> str:
    """Write speed, processor and number of threads; nothing where it was not measured."""
    found = [report for report in reports.values() if isinstance(report, SpeedReport)]
    return (
        f"{found[0].pictures_per_second:.1f} ({found[0].processor}, threads: {found[0].num_threads})" if found else ""
    )


def render_table(checkpoints: Mapping[str, Reports]) -> str:
    """Write the table that compares the embedded checkpoints."""
    titles = {VALIDATION: "SRCC on 1,000 pictures", SECOND_LOOK: "SRCC on 542 others"}
    rows = [
        [f"{said}: all; mean of subsets (ss01 / ss02 / ss03)"]
        + [describe_quality(reports, title) for reports in checkpoints.values()]
        for title, said in titles.items()
    ]
    rows.append(["512x512 JPEG files a second, `musiq score`", *map(describe_speed, checkpoints.values())])
    rows.append(["pristine above copies with blur, noise or JPEG faults", *map(describe_copies, checkpoints.values())])
    return markdown_table(["", *(f"`{name}`" for name in checkpoints)], rows)


def update_checkpoints(text: str, checkpoints: Mapping[str, Reports]) -> str:
    """Write the table that compares the embedded checkpoints between its marks."""
    return put_into(text, "numbers", render_table(checkpoints))


def update_documents(documents: Mapping[str, str], scores: Scores) -> dict[str, str]:
    """Write the numbers of all documents.

    Args:
        documents: Texts by path, of `DOCUMENTS`.
        scores: Scores of the sample pictures, by their names.

    Returns:
        The new texts by path.

    Raises:
        ValueError: If metrics.json lacks a report, or a document has no place for a number.
    """
    checkpoints = {path.name: read_metrics(path).reports for path in (DEFAULT_CHECKPOINT, TINY_CHECKPOINT)}
    reports = checkpoints[DEFAULT_CHECKPOINT.name]
    return {
        "README.md": update_readme(documents["README.md"], scores, reports),
        "MODEL_CARD.md": (DEFAULT_CHECKPOINT / "README.md").read_text(encoding="utf-8"),
        "docs/usage.md": update_usage(documents["docs/usage.md"], scores),
        "docs/checkpoints.md": update_checkpoints(documents["docs/checkpoints.md"], checkpoints),
        "docs/finetuning.md": update_finetuning(documents["docs/finetuning.md"], reports),
    }


def run() -> None:
    """Score the sample pictures, write the documents that change, and print their names."""
    scorer = pipeline("image-quality-assessment", model=str(DEFAULT_CHECKPOINT))
    scores = {path.name: scorer(str(path))["score"] for path in PICTURES.glob("*.jpg")}
    documents = {name: (ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS}
    for name, text in update_documents(documents, scores).items():
        if text != documents[name]:
            write_text(ROOT / name, text)
            print(name)


def main() -> int:
    """Write the documents; return 2 if a number or its place is missing."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse_arguments(parser)  # none but --help: whatever else is given is refused
    logging.disable_progress_bar()
    return run_command("update_documents", run)


if __name__ == "__main__":
    sys.exit(main())
