# SPDX-License-Identifier: Apache-2.0
"""Measured results in the head of a model card, which the Hub reads as `model-index`."""

import math
import re
from collections.abc import Mapping

from huggingface_hub import EvalResult, ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index
from huggingface_hub.utils import yaml_dump

from ..metrics.reports import QualityReport, Report
from ..models.auto import STANDARD_TASK

# Metrics of a report: names of the libraries that define them, and names for people.
METRICS = {
    "srcc": ("spearmanr", "SRCC"),
    "plcc": ("pearsonr", "PLCC"),
    "krcc": ("kendalltau", "KRCC"),
    "rmse": ("rmse", "RMSE (MOS points)"),
}
TASK_NAME = "Image quality assessment"
DIGITS = 4  # of a figure, as in the tables of a card


def list_results(reports: Mapping[str, Report]) -> list[EvalResult]:
    """List the figures over all pictures of each report on scored pictures; what is not known is left out.

    Args:
        reports: Reports by their names in metrics.json, which stand for the data sets: none of these has an id on the
            Hub.
    """
    results = []
    for title, report in reports.items():
        if not isinstance(report, QualityReport):
            continue
        for name, (kind, shown) in METRICS.items():
            value = getattr(report.overall, name)
            if value is not None and math.isfinite(value):
                results.append(
                    EvalResult(
                        task_type=STANDARD_TASK,
                        task_name=TASK_NAME,
                        dataset_type=re.sub(r"\W+", "-", title.lower()).strip("-"),
                        dataset_name=title,
                        metric_type=kind,
                        metric_name=shown,
                        metric_value=round(value, DIGITS),
                    )
                )
    return results


def renew_head(card: str, name: str, reports: Mapping[str, Report]) -> str:
    """Return a card whose head holds the results of some reports; results of other data sets, and the rest, stay.

    A card without a head, or with one that cannot be read, stays as it is.

    Args:
        card: Card as Markdown with a YAML head.
        name: Name of the model, unless the head has one.
        reports: Reports by their names in metrics.json.
    """
    head, mark, text = card.partition("\n---")
    results = list_results(reports)
    if not (card.startswith("---\n") and mark and results):
        return card
    try:
        data = ModelCard(card, ignore_metadata_errors=False).data
    except Exception:  # whatever the parser makes of damage
        return card
    kept = [result for result in data.eval_results or [] if result.dataset_name not in reports]
    kinds = dict.fromkeys([*(data.metrics or []), *(result.metric_type for result in results)])
    for key in ("metrics", "model-index"):
        head = re.sub(rf"^{key}:.*(?:\n[ -].*)*\n?", "", f"{head}\n", flags=re.MULTILINE).rstrip("\n")
    index = eval_results_to_model_index(data.model_name or name, [*kept, *results])
    block = yaml_dump({"metrics": list(kinds), "model-index": index}, sort_keys=False)
    return f"{head}\n{block.rstrip()}{mark}{text}"
