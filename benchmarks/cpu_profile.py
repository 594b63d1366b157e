# SPDX-License-Identifier: Apache-2.0
"""Section of `benchmarks.cpu` about the kinds of work on which the time of one picture is spent."""

from collections import defaultdict
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.cpu_batches import both_precisions
from benchmarks.cpu_sizes import SIZES, Settings
from benchmarks.inputs import make_features, make_model
from musiq_hf import MusiqConfig

# Kinds of work by the operator that does it; every other operator is an elementwise one or moves data.
KINDS = {
    "mkldnn::_linear_pointwise": "matrix products",
    "aten::bmm": "matrix products",
    "aten::addmm": "matrix products",
    "aten::mm": "matrix products",
    "aten::_scaled_dot_product_flash_attention_for_cpu": "fused attention",
    "aten::mkldnn_convolution": "convolutions",
    "aten::_softmax": "softmax",
    "aten::copy_": "copies and conversions",
    "aten::cat": "copies and conversions",
    "aten::fill_": "copies and conversions",
}
OTHER = "sums, norms, additions, pooling"
NUM_PROFILED = 3  # sizes that are profiled


def shares(events: list[tuple[str, float]]) -> dict[str, float]:
    """Compute the share of each kind of work in the time.

    Args:
        events: Name and own time of operators, in any unit.

    Returns:
        Shares by kind, largest first; they add up to 1.
    """
    times: dict[str, float] = defaultdict(float)
    for name, time in events:
        times[KINDS.get(name, OTHER)] += time
    total = sum(times.values())
    return {kind: time / total for kind, time in sorted(times.items(), key=lambda item: -item[1])}


def measure_profile(settings: Settings) -> dict[str, Any]:
    """Measure the shares of the kinds of work of our model, in both precisions, at several sizes."""
    config = MusiqConfig(**settings.config)
    models, rows = both_precisions(make_model(config)), []
    for width, height in settings.pick(SIZES)[:NUM_PROFILED]:
        features = make_features(config, width, height)
        for dtype, model in models.items():
            with torch.inference_mode():
                model(**features)
                with profile(activities=[ProfilerActivity.CPU]) as profiled:
                    model(**features)
            events = [(event.key, float(event.self_cpu_time_total)) for event in profiled.key_averages()]
            rows.append({"width": width, "height": height, "dtype": dtype, "shares": shares(events)})
            print(rows[-1], flush=True)
    return {"rows": rows}
