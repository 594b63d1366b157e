# SPDX-License-Identifier: Apache-2.0
"""Model cards of trained super-resolution checkpoints."""

from collections.abc import Mapping

from accelerate import PartialState

from ...common.devices import count_cores, name_processor
from ...common.files import hide_path
from ...hub.model_card import CheckpointCard
from ...metrics.fidelity import FidelityReport
from .settings import SuperResolutionSettings
from .steps import MSIT


def _describe_length(settings: SuperResolutionSettings, num_steps: int) -> str:
    minutes, _ = settings.length
    return f"{num_steps:,} steps" if minutes is None else f"{minutes:g} minutes ({num_steps:,} steps)"


def _describe_machine() -> str:
    state = PartialState()
    processes = f"{state.num_processes} processes" if state.num_processes > 1 else "one process"
    kind = state.device.type
    return f"{processes} on {f'{count_cores()} cores of {name_processor()}' if kind == 'cpu' else kind}"


def write_card(
    settings: SuperResolutionSettings,
    num_photographs: int,
    num_steps: int,
    *,
    command: str,
    reports: Mapping[str, FidelityReport],
) -> None:
    """Write the model card of a checkpoint.

    Args:
        settings: Settings of the training.
        num_photographs: Photographs that were trained on.
        num_steps: Steps of the training.
        command: Command line of the training.
        reports: Tables by their titles.
    """
    output, plan = settings.output_dir, settings.plan
    begin = "random weights" if settings.rim_from is None else f"the first stage `{hide_path(settings.rim_from)}`"
    data = settings.data_description or f"the folder `{settings.pictures.name}`"
    CheckpointCard(
        name=output.name,
        config=MSIT.config.from_pretrained(output),
        source=f"Trained from {begin} by `{command}`.",
        training_data=(
            f"{num_photographs:,} photographs ({data}), shrunk {settings.shrunk_by:g} times first. The seed is "
            f"{settings.seed}. Held-out photographs were not trained on."
        ),
        recipe=(
            f"{_describe_length(settings, num_steps)} of Adam in {_describe_machine()}. A step has {plan.batch_size} "
            f"crops of {plan.source_size} x {plan.source_size} pixels per process, and {plan.num_positions} pixels of "
            f"each original, which is 1 to {settings.max_scale:g} times as large. The loss is L1, and the highest "
            f"learning rate {plan.learning_rate:g}."
        ),
        metrics=reports,
    ).save(output)
