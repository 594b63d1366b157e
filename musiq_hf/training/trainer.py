# SPDX-License-Identifier: Apache-2.0
"""The Transformers Trainer for pictures of any size, with its arguments, its losses and the files of a run.

Evaluation has a collator of its own, and tokens are counted, because steps on large pictures do more work.
"""

import copy
import json
import time
from collections.abc import Callable, Mapping, Sized
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import send_to_device
from safetensors.torch import load_file, save_file
from transformers import (
    DataCollator,
    EarlyStoppingCallback,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_callback import TrainerState
from transformers.utils import logging

from ..common.devices import without_accelerator
from ..common.extras import require
from ..common.files import read_json, write_json
from ..metrics.report_files import METRICS_FILE
from ..metrics.training_curves import CURVES_FILE, write_training_curves
from ..models.protocol import QualityProcessor, TrainingView
from ..scoring.loading import resolve_model
from .averaging import MovingAverage
from .callbacks import Progress, Saving, ShelteredCollator, WorkerSeeds
from .self_supervised.localisation import LOCALISATION_LOSS, TASK, LocalisedModel, weight_at
from .settings import LocalisationSettings, RunSettings
from .starting import flatten_settings

logger = logging.get_logger(__name__)
LOGGING_STEPS = 20
SETTINGS_FILE = "run_settings.json"
TRAINING_WEIGHTS = "training_weights.safetensors"  # in a checkpoint whose model has the averaged weights
# Settings that may change when a run is resumed: where files lie, and how the computer runs it.
FREE = {
    "data",
    "image_root",
    "encoder_weights",
    "output_dir",
    "data_description",
    "resume",
    "num_workers",
    "report_to",
}
FREE |= {"eval_batch_size", "save_dtype", "save_steps", "push_to_hub"}


class _OwnRandomNumbers(TrainerCallback):
    """Callback that gives every process flips, subsets and made faults of its own, although all start with one seed.

    It acts only when training begins, because initial weights and order of the pictures must be the same everywhere.
    A resumed run restores the random numbers of its checkpoint afterwards.
    """

    def on_train_begin(self, args: TrainingArguments, *unused: Any, **also_unused: Any) -> None:
        if args.process_index > 0:
            torch.manual_seed(args.seed + args.process_index)


class QualityTrainer(Trainer):
    """Trainer with one collator for training (flips, subsets) and another for evaluation (whole pictures).

    Args:
        *args: Positional arguments of `Trainer`.
        eval_collator: Collator for evaluation.
        extra_loss: Further loss from outputs and labels, added to the model's own while training; None adds nothing.
        pair_losses: Further losses by the entry of the batch that they are computed on: from its scores, shape
            (2 * num_pairs,), added while training.
        localisation_weight: Largest weight of the loss that a `LocalisedModel` computes.
        average: Moving average of the weights, which is evaluated and saved; None evaluates and saves the weights.
        saving: Callback that saves within epochs, and before a signal ends the run; None saves no more than Trainer.
        rates: Factors of the learning rate by the names of parameters; those that are left out have the full rate.
        **kwargs: Keyword arguments of `Trainer`.
    """

    def __init__(
        self,
        *args: Any,
        eval_collator: DataCollator,
        extra_loss: Callable[[Any, torch.Tensor], torch.Tensor] | None = None,
        pair_losses: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] | None = None,
        localisation_weight: float = 0.0,
        average: MovingAverage | None = None,
        saving: Saving | None = None,
        rates: Mapping[str, float] | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.saving = saving
        if saving is not None:
            self.add_callback(saving)
        self.average = average
        if average is not None:
            if self.is_fsdp_enabled or self.is_deepspeed_enabled:
                raise ValueError("`ema_decay` needs all weights in every process. Train without FSDP and DeepSpeed.")
            self.add_callback(average)
        self.eval_collator = ShelteredCollator(eval_collator)
        arguments: TrainingArguments = self.args  # type: ignore[has-type]
        if arguments.dataloader_persistent_workers:
            sheltered = ShelteredCollator(self.data_collator)  # type: ignore[has-type]
            seeds: Any = WorkerSeeds(sheltered, seed=arguments.seed, rank=arguments.process_index)
            self.data_collator = seeds
            self.add_callback(seeds)
        self.extra_loss = extra_loss
        self.pair_losses = dict(pair_losses or {})
        self.rates = rates or {}
        self.localisation_weight = localisation_weight
        self.localisation_losses: list[torch.Tensor] = []  # since the last entry of the log
        self.tokens: int | torch.Tensor = 0
        self.token_clock = time.perf_counter()

    def _make_evaluation_loader(self, make_loader: Any, *args: Any) -> Any:
        """Make a loader with the collator for evaluation, of every picture, in the order of the rows."""
        train_collator, train_args = self.data_collator, self.args  # type: ignore[has-type]
        self.data_collator, self.args = self.eval_collator, copy.copy(train_args)
        self.args.dataloader_drop_last, self.args.train_sampling_strategy = False, "sequential"
        # Kept workers know one data set alone, that of the epochs.
        self.args.dataloader_persistent_workers &= args[0] is None or args[0] is self.eval_dataset
        try:
            return make_loader(*args)
        finally:
            self.data_collator, self.args = train_collator, train_args

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        return self._make_evaluation_loader(super().get_eval_dataloader, eval_dataset)

    def get_test_dataloader(self, test_dataset: Any) -> Any:
        return self._make_evaluation_loader(super().get_test_dataloader, test_dataset)

    def _prepare_inputs(self, inputs: Any) -> Any:
        """Copy a batch to the device while it computes; the base class would wait before it copies the pairs."""
        moved = send_to_device(dict(inputs), self.args.device, non_blocking=self.args.accelerator_config.non_blocking)
        return super()._prepare_inputs(moved)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        num_tokens = inputs.pop("num_tokens")
        if not model.training:
            return super().compute_loss(model, inputs, *args, **kwargs)
        copies = {name: inputs.pop(name) for name in self.pair_losses if name in inputs}
        self.tokens += num_tokens.sum()  # tokens of this process and device only
        for made in copies.values():
            self.tokens += made.pop("num_tokens").sum()
        kwargs["return_outputs"] = True
        loss, outputs = super().compute_loss(model, inputs, *args, **kwargs)
        if self.extra_loss is not None:
            loss = loss + self.extra_loss(outputs, inputs["labels"])
        for name, made in copies.items():
            loss = loss + self.pair_losses[name](model(**made)["scores"])
        if LOCALISATION_LOSS in outputs:
            loss = loss + self._weigh_localisation(outputs[LOCALISATION_LOSS])
        return loss

    def _weigh_localisation(self, loss: torch.Tensor) -> torch.Tensor:
        """Note the loss on relative locations for the log, and give it the weight of this step."""
        self.localisation_losses.append(loss.detach().mean())
        return weight_at(self.state.global_step, self.state.max_steps, self.localisation_weight) * loss

    def prediction_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Predict as the base class does, but without labels let the predictions stand for them.

        The base class would compute no metrics then.
        """
        if "labels" in inputs:
            return super().prediction_step(model, inputs, *args, **kwargs)
        inputs = {name: value for name, value in inputs.items() if name != "num_tokens"}
        loss, logits, _ = super().prediction_step(model, inputs, *args, **kwargs)
        return loss, logits, logits

    def create_optimizer(self, model: Any = None) -> Any:
        """Create the optimizer of the base class, with a group of parameters for each factor of the learning rate."""
        if self.optimizer is None and self.rates:
            kind, options = self.optimizer_cls_and_kwargs  # type: ignore[has-type]
            groups = self._group_parameters(self.model if model is None else model, options["lr"])
            self.optimizer_cls_and_kwargs = kind, options | {"params": groups}
        return super().create_optimizer(model)

    def _group_parameters(self, model: Any, rate: float) -> list[dict[str, Any]]:
        """Group the trained parameters by learning rate and weight decay; those of the full rate come first."""
        decayed = set(self.get_decay_parameter_names(model))
        groups: dict[tuple[float, bool], list[Any]] = {(1.0, True): [], (1.0, False): []}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                groups.setdefault((self.rates.get(name, 1.0), name in decayed), []).append(parameter)
        if self.rates.keys() - dict(model.named_parameters()).keys():
            raise ValueError("`rates` needs the names of the weights, which FSDP 1 changes. Set `fsdp_version: 2`.")
        return [
            {"params": held, "lr": rate * factor, "weight_decay": self.args.weight_decay if decays else 0.0}
            for (factor, decays), held in groups.items()
        ]

    def create_scheduler(self, num_training_steps: int, *args: Any, **kwargs: Any) -> Any:
        """Create the scheduler of the base class, but with the number of warm-up steps rounded down.

        The first step of the warm-up has the rate 0: rounded up, a run of a single step would train nothing.
        """
        fraction = self.args.warmup_steps
        self.args.warmup_steps = int(fraction * num_training_steps)
        try:
            return super().create_scheduler(num_training_steps, *args, **kwargs)
        finally:
            self.args.warmup_steps = fraction

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """Get the names of the weights that decay, without normalisation layers.

        The base class misses the group normalisation of the patch encoder (`norm1`, ...).
        """
        return [name for name in super().get_decay_parameter_names(model) if "norm" not in name]

    def train(self, *args: Any, **kwargs: Any) -> Any:
        with nullcontext() if self.saving is None else self.saving.catch_signals():
            output = super().train(*args, **kwargs)
        if self.average is not None and self.state.best_model_checkpoint is None:
            self.average.copy_to(self.model)  # no epoch was better than others, so that none was loaded
        if self.is_world_process_zero():
            self._draw_curves()
        return output

    def _draw_curves(self) -> None:
        """Draw loss and metric of the run so far, if matplotlib is there."""
        path, metric = Path(self.args.output_dir) / CURVES_FILE, str(self.args.metric_for_best_model)
        try:
            write_training_curves(path, self.state.log_history, metric=metric)
        except ImportError as error:
            logger.warning("%s is not drawn: %s", path, error)

    def _use_average(self) -> Any:
        """Return a context in which the model has the averaged weights; after training it has them anyway."""
        if self.average is None or not self.is_in_train:
            return nullcontext()
        return self.average.in_place(self.model)

    def save_model(self, output_dir: str | None = None, **kwargs: Any) -> None:
        """Save the model as the base class does; with an average that one, and the weights for training beside it."""
        with self._use_average() as own:
            super().save_model(output_dir, **kwargs)
        if own is not None and self.args.should_save:
            weights = {name: weight.cpu().contiguous() for name, weight in own.items()}
            save_file(weights, Path(output_dir or self.args.output_dir) / TRAINING_WEIGHTS, metadata={"format": "pt"})

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.average is not None:
            self.average.start(self.model)
            self.model.load_state_dict(load_file(Path(resume_from_checkpoint) / TRAINING_WEIGHTS), strict=False)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        begun = time.perf_counter()
        with self._use_average():
            measured: dict[str, float] = super().evaluate(*args, **kwargs)
        self.token_clock += time.perf_counter() - begun  # tokens per second count the time of training alone
        return measured

    def save_state(self) -> None:
        """Save the state as the base class does, but without paths of this machine: the file may be published."""
        best = self.state.best_model_checkpoint
        self.state.best_model_checkpoint = None if best is None else Path(best).name
        super().save_state()
        self.state.best_model_checkpoint = best

    def trained_weights(self, prefix: str = "") -> dict[str, torch.Tensor]:
        """Return the weights whose names begin with `prefix`, and remove it from the names.

        Of a `LocalisedModel` they are those of the model within.
        All processes must call it, because FSDP gathers the weights from all of them.
        """
        weights = self.accelerator.get_state_dict(self.model)
        if isinstance(self.accelerator.unwrap_model(self.model), LocalisedModel):
            prefix = TASK + prefix
        return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the rate of tokens since the last entry, and the mean of a further loss, to the entries of training."""
        if "loss" in logs:
            if self.localisation_losses:
                logs[LOCALISATION_LOSS] = round(float(torch.stack(self.localisation_losses).mean()), 6)
                self.localisation_losses.clear()
            now = time.perf_counter()
            logs["tokens_per_second"] = round(int(self.tokens) / (now - self.token_clock), 1)
            self.tokens, self.token_clock = 0, now
        super().log(logs, *args, **kwargs)


def _make_arguments(settings: RunSettings, *, best_metric: str, full_batches: bool) -> TrainingArguments:
    """Make the arguments of the Trainer, which keeps the checkpoint with the best `best_metric`.

    The highest value is the best one, but the lowest of a metric that ends in "loss".
    """
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
        torch_compile=settings.compile,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        restore_callback_states_from_checkpoint=True,  # early stopping of a resumed run goes on counting
        metric_for_best_model=best_metric,
        logging_steps=LOGGING_STEPS,
        logging_nan_inf_filter=False,  # it waits for the accelerator in every step, and hides what is no number
        accelerator_config={"non_blocking": torch.cuda.is_available()},
        dataloader_num_workers=settings.num_workers,
        dataloader_persistent_workers=settings.num_workers > 0,  # to start them again takes seconds in every epoch
        dataloader_pin_memory=torch.cuda.is_available(),
        dataloader_drop_last=settings.fixed_shapes or full_batches,
        train_sampling_strategy="group_by_length" if getattr(settings, "group_by_length", False) else "random",
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=settings.report_to,
        seed=settings.seed,
        # Without it several processes on a CPU would not find each other and train apart.
        use_cpu=without_accelerator(),
    )


def _choose_optimizer(settings: RunSettings) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    """Choose class and arguments of the optimizer, for `Trainer(optimizer_cls_and_kwargs=...)`."""
    rate = {"lr": settings.learning_rate}
    if settings.optimizer == "sgd":
        return torch.optim.SGD, rate | {"momentum": settings.momentum}
    return (torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW), rate | {"betas": (0.9, 0.999)}


def make_trainer(
    settings: RunSettings, *, best_metric: str, full_batches: bool = False, **parts: Any
) -> QualityTrainer:
    """Make the trainer of a run, and write the settings that a resumed run must keep.

    Args:
        settings: Settings of the run.
        best_metric: Name of a metric; the checkpoint with its highest value is kept, or the lowest of a loss.
        full_batches: Whether a smaller last batch is left out of training, as `fixed_shapes` does.
        **parts: Model, data, collators and metrics, as for `QualityTrainer`.
    """
    callbacks: list[TrainerCallback] = [_OwnRandomNumbers(), Progress()]
    if settings.early_stopping is not None:
        callbacks.append(EarlyStoppingCallback(settings.early_stopping))
    trainer = QualityTrainer(
        args=_make_arguments(settings, best_metric=best_metric, full_batches=full_batches),
        callbacks=callbacks,
        optimizer_cls_and_kwargs=_choose_optimizer(settings),
        localisation_weight=settings.localisation_weight if isinstance(settings, LocalisationSettings) else 0.0,
        average=None if settings.ema_decay is None else MovingAverage(settings.ema_decay),
        saving=Saving(settings.save_steps),
        **parts,
    )
    for kind in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(kind)
    if trainer.is_world_process_zero():
        write_json(Path(settings.output_dir) / SETTINGS_FILE, _collect_fixed_settings(settings))
    return trainer


def num_processes() -> int:
    """Count the processes that train together.

    The first call decides for the whole process that the CPU is used if there is no accelerator.
    """
    return int(PartialState(cpu=without_accelerator()).num_processes)


def _collect_fixed_settings(settings: RunSettings) -> dict[str, Any]:
    """Collect the settings that a resumed run must share with its beginning, as JSON gives them back."""
    values = flatten_settings(settings) | {"num_processes": num_processes()}
    for name in {"model", "teacher"} & values.keys():
        values[name] = Path(resolve_model(values[name])).name  # the file may be published: no private paths
    return {name: value for name, value in json.loads(json.dumps(values)).items() if name not in FREE}


def fixed_length(settings: RunSettings, processor: QualityProcessor, view: TrainingView, rows: Sized) -> int | None:
    """Return the number of tokens to which every training batch is padded; None if batches may differ.

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


def _find_finished_checkpoint(output: Path) -> Path | None:
    """Find the newest checkpoint that was written to its end: its state, which is written last, can be read."""
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
    """Find the checkpoint to continue from; None starts anew, with `resume` too where there is none yet.

    Raises:
        ValueError: If the run to resume had other settings, or a new run would mix its files with those of another.
    """
    output = Path(settings.output_dir)
    checkpoint = _find_finished_checkpoint(output) if settings.resume else next(output.glob("checkpoint-*"), None)
    if settings.resume and checkpoint is not None and (output / SETTINGS_FILE).exists():
        begun, asked = read_json(output / SETTINGS_FILE), _collect_fixed_settings(settings)
        for name in asked:
            if asked[name] != begun.get(name):
                raise ValueError(
                    f"`--resume` continues with the settings of the beginning, but `{name}` was {begun.get(name)!r} "
                    f"and is {asked[name]!r} now. Give the old one, or choose a new `output_dir`."
                )
    if checkpoint is not None and not settings.resume:
        state, use = "not finished", "continues that run"
        if (output / METRICS_FILE).exists():
            state, use = "finished", "only measures that run again"
        raise ValueError(
            f"{output} holds the checkpoints of another run, which is {state}. For a new run give another "
            f"`--output_dir`, or delete this one; `--resume` {use}."
        )
    return None if checkpoint is None else str(checkpoint)
