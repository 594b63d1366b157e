# SPDX-License-Identifier: Apache-2.0
"""Results of finished runs as a table: agreement over the seeds, and costs; and the mean of several checkpoints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..common.files import read_json, write_json
from ..common.markdown import markdown_table
from ..evaluation.checkpoints import EvaluationSettings, evaluate_checkpoints
from ..metrics.correlation import MEAN_OF_GROUPS
from ..metrics.reports import QualityReport
from .costs import Costs, read_costs
from .running import SPLIT, find_runs, name_folder, read_report

NOT_KNOWN = "-"


@dataclass(frozen=True, kw_only=True)
class Result:
    """Figures of the finished runs of a variant.

    Attributes:
        name: Name of the variant.
        srcc: Rank correlation of each run on the validation pictures.
        group_srcc: Mean of the rank correlations within groups, of each run; empty without groups.
        costs: Costs of a picture, of the first run.
    """

    name: str
    srcc: Sequence[float]
    group_srcc: Sequence[float]
    costs: Costs


def _list_srcc(reports: Sequence[QualityReport]) -> dict[str, list[float]]:
    groups = [report.groups[MEAN_OF_GROUPS].srcc for report in reports if report.groups]
    return {"srcc": [report.overall.srcc for report in reports], "group_srcc": groups}


def collect_results(output_dir: Path, names: Sequence[str]) -> list[Result]:
    """Collect the figures of every finished run of these variants; costs that are not known are measured."""
    found = find_runs(output_dir, names)
    return [
        Result(name=name, costs=read_costs(folders[0]), **_list_srcc([read_report(folder) for folder in folders]))
        for name, folders in found.items()
    ]


def _measure_mean(folders: Sequence[Path], data: Mapping[str, str | None], stored: Path) -> QualityReport:
    """Measure the mean score of checkpoints on the validation pictures, or read it where it is stored."""
    if not stored.is_file():
        given = {key: value for key, value in data.items() if key != "data"}
        settings = EvaluationSettings(
            models=[str(folder) for folder in folders],
            data=[str(data["data"])],
            split=SPLIT,
            ensemble=True,
            num_resamples=1,
            **given,  # type: ignore[arg-type]
        )
        write_json(stored, evaluate_checkpoints(settings).results[-1].to_json())
    return QualityReport.from_json(read_json(stored))


def measure_ensembles(
    output_dir: Path, data: Mapping[str, str | None], *, name: str, members: Sequence[str]
) -> Result | None:
    """Measure the mean score of several variants, seed by seed.

    Args:
        output_dir: Folder of the runs.
        data: Arguments of training that name the data.
        name: Name of the row.
        members: Names of the variants whose scores are averaged.

    Returns:
        Its figures and costs; None if no seed has a run of every member.
    """
    found = find_runs(output_dir, members)
    seeds = [{folder.name.rpartition("-")[2] for folder in found.get(member, ())} for member in members]
    reports = []
    for seed in sorted(set.intersection(*seeds), key=int):
        folders = [name_folder(output_dir, member, int(seed)) for member in members]
        reports.append(
            _measure_mean(folders, data, output_dir / f"{name_folder(output_dir, name, int(seed)).name}.json")
        )
    if not reports:
        return None
    costs = [read_costs(found[member][0]) for member in members]
    whole = Costs(
        tokens=sum(own.tokens for own in costs), milliseconds=sum(own.milliseconds for own in costs), sharing=None
    )
    return Result(name=name, costs=whole, **_list_srcc(reports))


def render_range(values: Sequence[float]) -> str:
    """Write mean [least..largest], the value alone if there is one, or a dash if there is none."""
    if len(values) < 2:
        return f"{values[0]:.3f}" if values else NOT_KNOWN
    return f"{np.mean(values):.3f} [{min(values):.3f}..{max(values):.3f}]"


def render_results(results: Sequence[Result]) -> str:
    """Render a Markdown table with a row for each variant."""
    heads = ("variant", "seeds", "SRCC", "mean SRCC of groups", "tokens", "ms a picture", "patches that share a cell")
    rows = [
        (
            result.name,
            str(len(result.srcc)),
            render_range(result.srcc),
            render_range(result.group_srcc),
            str(result.costs.tokens),
            f"{result.costs.milliseconds:.0f}",
            NOT_KNOWN if result.costs.sharing is None else f"{result.costs.sharing:.0%}",
        )
        for result in results
    ]
    return markdown_table(heads, rows)
