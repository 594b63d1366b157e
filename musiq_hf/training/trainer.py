# SPDX-License-Identifier: Apache-2.0
"""The Transformers Trainer for pictures of any size: a collator of its own for evaluation, losses, token counts."""

import copy
import json
import time
from collections.abc import Callable, Sized
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import DataCollator, EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerState
from transformers.utils import logging

from ..common.devices import without_accelerator
from ..common.extras import require
from ..common.files import read_json, write_json
from ..models.protocol import QualityProcessor, TrainingView
from ..scoring.loading import resolve_model
from .settings import RunSettings

logger = logging.get_logger(__name__)
LOGGING_STEPS = 20
SETTINGS_FILE = "run_settings.json"
# May change when a run is resumed: where things lie, and how it is run.
FREE = {"data", "image_root", "output_dir", "data_description", "resume", "num_workers", "report_to"}
FREE |= {"eval_batch_size", "save_dtype"}


class _OwnRandomNumbers(TrainerCallback):
    """Other flips, subsets and made faults on every process: the Trainer gives all of them one seed.

    When training begins, since model and order of the pictures must be the same; a resumed run restores its own.
    """

    def on_train_begin(self, args: TrainingArguments, *unused: Any, **also_unused: Any) -> None:
        if args.process_index > 0:
            torch.manual_seed(args.seed + args.process_index)


class QualityTrainer(Trainer):
    """Trainer with one collator for training (flips, subsets) and another for evaluation (whole pictures).

    Args:
        *args: As for `Trainer`.
        eval_collator: Makes batches for evaluation.
        extra_loss: Further loss from outputs and labels, added to the model's own while training; None adds nothing.
        pair_loss: Likewise from the scores of the batch's `pairs`, shape (2 * num_pairs,), if there are any.
        **kwargs: As for `Trainer`.
    """

    def __init__(
        self,
        *args: Any,
        eval_collator: DataCollator,
        extra_loss: Callable[[Any, torch.Tensor], torch.Tensor] | None = None,
        pair_loss: Callable[[torch.Tensor], torch.Tensor] | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.eval_collator = eval_collator
        self.extra_loss = extra_loss
        self.pair_loss = pair_loss
        self.tokens: int | torch.Tensor = 0
        self.token_clock = time.perf_counter()

    def _for_evaluation(self, make_loader: Any, *args: Any) -> Any:
        """Make a loader with the collator for evaluation, of every picture, in the order of the rows."""
        train_collator, train_args = self.data_collator, self.args  # type: ignore[has-type]
        self.data_collator, self.args = self.eval_collator, copy.copy(train_args)
        self.args.dataloader_drop_last, self.args.train_sampling_strategy = False, "sequential"
        try:
            return make_loader(*args)
        finally:
            self.data_collator, self.args = train_collator, train_args

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        return self._for_evaluation(super().get_eval_dataloader, eval_dataset)

    def get_test_dataloader(self, test_dataset: Any) -> Any:
        return self._for_evaluation(super().get_test_dataloader, test_dataset)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        num_tokens = inputs.pop("num_tokens")
        if not model.training:
            return super().compute_loss(model, inputs, *args, **kwargs)
        pairs = inputs.pop("pairs", None)
        self.tokens += num_tokens.sum()  # of this process and device
        if pairs is not None:
            self.tokens += pairs.pop("num_tokens").sum()
        kwargs["return_outputs"] = True
        loss, outputs = super().compute_loss(model, inputs, *args, **kwargs)
        if self.extra_loss is not None:
            loss = loss + self.extra_loss(outputs, inputs["labels"])
        if pairs is not None and self.pair_loss is not None:
            loss = loss + self.pair_loss(model(**pairs)["scores"])
        return loss

    def create_scheduler(self, num_training_steps: int, *args: Any, **kwargs: Any) -> Any:
        """As in the base class, but with the warm-up rounded down.

        Its first step has the rate 0: rounded up, a run of a single step would train nothing.
        """
        fraction = self.args.warmup_steps
        self.args.warmup_steps = int(fraction * num_training_steps)
        try:
            return super().create_scheduler(num_training_steps, *args, **kwargs)
        finally:
            self.args.warmup_steps = fraction

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """As in the base class, which misses the group normalisation of the patch encoder (`norm1`, ...)."""
        return [name for name in super().get_decay_parameter_names(model) if "norm" not in name]

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        begun = time.perf_counter()
        measured: dict[str, float] = super().evaluate(*args, **kwargs)
        self.token_clock += time.perf_counter() - begun  # tokens per second are those of training
        return measured

    def save_state(self) -> None:
        """As in the base class, but the file, which may be published, names no folder of this machine."""
        best = self.state.best_model_checkpoint
        self.state.best_model_checkpoint = None if best is None else Path(best).name
        super().save_state()
        self.state.best_model_checkpoint = best

    def trained_weights(self, prefix: str = "") -> dict[str, torch.Tensor]:
        """The weights whose names begin with `prefix`, without it; to be called by all processes (FSDP gathers)."""
        weights = self.accelerator.get_state_dict(self.model)
        return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the rate of tokens since the last entry to the entries of training."""
        if "loss" in logs:
            now = time.perf_counter()
            logs["tokens_per_second"] = round(int(self.tokens) / (now - self.token_clock), 1)
            self.tokens, self.token_clock = 0, now
        super().log(logs, *args, **kwargs)


def _training_arguments(settings: RunSettings, *, best_metric: str) -> TrainingArguments:
    """The Trainer's arguments; the checkpoint with the highest `best_metric` is kept."""
    if settings.report_to != "none":
        require(settings.report_to, extra="trackio" if settings.report_to == "trackio" else "train")
    return TrainingArguments(
        output_dir=settings.output_dir,
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.eval_batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup_steps=settings.warmup_fraction,  # below 1: a fraction of all steps
        max_grad_norm=settings.max_grad_norm,
        lr_scheduler_type="cosine",
        bf16=settings.bf16,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        restore_callback_states_from_checkpoint=True,  # early stopping goes on counting
        metric_for_best_model=best_metric,
        greater_is_better=True,
        logging_steps=LOGGING_STEPS,
        dataloader_num_workers=settings.num_workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        dataloader_drop_last=settings.fixed_shapes,
        train_sampling_strategy="group_by_length" if getattr(settings, "group_by_length", False) else "random",
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=settings.report_to,
        seed=settings.seed,
        # Without it several processes on a CPU would not find each other and train apart.
        use_cpu=without_accelerator(),
    )


def _optimizer_choice(settings: RunSettings) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """Class and arguments of the optimizer, for `Trainer(optimizer_cls_and_kwargs=...)`."""
    rate = {"lr": settings.learning_rate}
    if settings.optimizer == "sgd":
        return torch.optim.SGD, rate | {"momentum": settings.momentum}
    return (torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW), rate | {"betas": (0.9, 0.999)}


def make_trainer(settings: RunSettings, *, best_metric: str, **parts: Any) -> QualityTrainer:
    """The trainer of a run.

    Args:
        settings: Of the run.
        best_metric: The checkpoint with the highest one is kept.
        **parts: Model, data, collators and metrics, as for `QualityTrainer`.
    """
    callbacks: list[TrainerCallback] = [_OwnRandomNumbers()]
    if settings.early_stopping is not None:
        callbacks.append(EarlyStoppingCallback(settings.early_stopping))
    trainer = QualityTrainer(
        args=_training_arguments(settings, best_metric=best_metric),
        callbacks=callbacks,
        optimizer_cls_and_kwargs=_optimizer_choice(settings),
        **parts,
    )
    if trainer.is_world_process_zero():
        write_json(Path(settings.output_dir) / SETTINGS_FILE, _fixed_settings(settings))
    return trainer


def num_processes() -> int:
    """Processes that train together, which the first question for them ties to the CPU if there is nothing else."""
    return int(PartialState(cpu=without_accelerator()).num_processes)


def _fixed_settings(settings: RunSettings) -> dict[str, Any]:
    """What a resumed run must have in common with its beginning, as JSON gives it back."""
    values = asdict(settings) | {"num_processes": num_processes()}
    values["model"] = Path(resolve_model(settings.model)).name  # the file may be published: no private paths
    return {name: value for name, value in json.loads(json.dumps(values)).items() if name not in FREE}


def fixed_length(settings: RunSettings, processor: QualityProcessor, view: TrainingView, rows: Sized) -> int | None:
    """Return the tokens to which every training batch is padded; None if batches may differ.

    Raises:
        ValueError: If the view does not fit the processor, or batches of one length are asked for and cannot be made
            from these training pictures.
    """
    view.check(processor)
    if not settings.fixed_shapes:
        return None
    length = view.max_tokens(processor)
    needed = settings.batch_size * num_processes()
    if len(rows) < needed:
        raise ValueError(f"`fixed_shapes` needs a full batch of {needed} pictures, got {len(rows)}.")
    return length


def _finished_checkpoint(output: Path) -> Path | None:
    """The newest checkpoint that was written to its end: its state, the last file, can be read."""
    found = {int(path.name.rpartition("-")[2]): path for path in output.glob("checkpoint-*[0-9]") if path.is_dir()}
    for _, path in sorted(found.items(), reverse=True):
        try:
            TrainerState.load_from_json(str(path / "trainer_state.json"))
        except (OSError, ValueError, TypeError):
            logger.warning("%s was not written to its end and is passed over.", path)
        else:
            return path
    return None


def find_last_checkpoint(settings: RunSettings) -> str | None:
    """Where to continue; starting anew in the directory of another run would mix the two.

    Raises:
        ValueError: If there is nothing to resume, a run that is not to be resumed, or one with other settings.
    """
    output = Path(settings.output_dir)
    checkpoint = _finished_checkpoint(output) if settings.resume else next(output.glob("checkpoint-*"), None)
    if settings.resume and checkpoint is None:
        raise ValueError(f"`--resume`: {output} holds no checkpoint yet. Start without it.")
    if settings.resume and (output / SETTINGS_FILE).exists():
        begun, asked = read_json(output / SETTINGS_FILE), _fixed_settings(settings)
        for name in asked:
            if asked[name] != begun.get(name):
                raise ValueError(
                    f"`--resume` continues with the settings of the beginning, but `{name}` was {begun.get(name)!r} "
                    f"and is {asked[name]!r} now. Give the old one, or choose a new `output_dir`."
                )
    if checkpoint is not None and not settings.resume:
        raise ValueError(f"{output} holds the checkpoints of another run. Add `--resume`, or choose a new directory.")
    return None if checkpoint is None else str(checkpoint)
