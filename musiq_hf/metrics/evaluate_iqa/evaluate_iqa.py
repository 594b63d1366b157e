# SPDX-License-Identifier: Apache-2.0
"""The metrics of `musiq_hf` as a module of the `evaluate` library, which copies this file before it imports it."""
# A type checker that reads the whole repository takes examples/evaluate.py for the library of this name.
# mypy: disable-error-code="name-defined,attr-defined,misc"

import datasets
import evaluate

from musiq_hf.metrics import quality_metrics

_DESCRIPTION = """\
Agreement of predicted image quality with mean opinion scores: SRCC, PLCC of the raw predictions and after the
4-parameter logistic curve, KRCC (tau-b) and RMSE.
"""

_INPUTS = """\
Args:
    predictions: Predicted scores, at least 3, finite.
    references: Mean opinion scores, as many.

Returns:
    "srcc", "plcc", "plcc_logistic", "krcc" in [-1, 1], 0 if a side is constant, and "rmse" in MOS points.

Example:
    >>> import evaluate
    >>> from musiq_hf.metrics import evaluate_module_path
    >>> metric = evaluate.load(evaluate_module_path())
    >>> metric.compute(predictions=[20.0, 40.0, 70.0], references=[10.0, 50.0, 60.0])["srcc"]
    1.0
"""

_CITATION = """\
@inproceedings{ke2021musiq,
  title = {{MUSIQ}: Multi-scale Image Quality Transformer},
  author = {Ke, Junjie and Wang, Qifei and Wang, Yilin and Milanfar, Peyman and Yang, Feng},
  booktitle = {ICCV},
  year = {2021}
}
"""


class EvaluateIqa(evaluate.Metric):
    """A metric that collects scores, also over several processes, for `musiq_hf.metrics.quality_metrics`."""

    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("float64")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": number, "references": number}),
        )

    def _compute(self, *, predictions: list[float], references: list[float]) -> dict[str, float]:
        return quality_metrics(predictions, references)
