# SPDX-License-Identifier: Apache-2.0
"""Export of a MUSIQ checkpoint to ONNX or to the archive of torch.export, for batches and pictures of any size.

Before the file gets its name it is run on several batches, and its scores are compared with the model's. It reads the
outputs of the checkpoint's image processor.
"""

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from ..common.extras import require
from ..common.files import check_output_file
from ..models.musiq import MusiqConfig, MusiqForImageQualityAssessment, MusiqImageProcessor
from ..scoring.loading import load_quality

# The first version with attention and group norm as one operator each, for which runtimes have kernels.
OPSET = 23
OUTPUTS = ["logits", "scores"]
AXES = {0: Dim("batch", min=1), 1: Dim("sequence", min=1)}
DYNAMIC_SHAPES = dict.fromkeys(MusiqImageProcessor.model_input_names, AXES)
# Pairs (batch_size, sequence_length). A 1 in the example would become a constant of the graph.
EXAMPLE_SHAPE = (3, 7)
CHECKED_SHAPES = ((1, 1), (1, 53), (2, 20), (5, 91))
ONNX_ROOTS = ("newton_schulz", "taylor")  # ONNX has neither eigenvalues nor linear systems
TOLERANCE = 1e-4  # part of the range of scores

Batch = dict[str, torch.Tensor]
Runner = Callable[[Batch], torch.Tensor]  # from a batch to its scores


class DeviationError(Exception):
    """Error of an exported file whose scores are not the model's."""


class NamedOutputs(nn.Module):
    """Model with the inputs and outputs of the exported graph."""

    def __init__(self, model: MusiqForImageQualityAssessment):
        super().__init__()
        self.model = model

    def forward(
        self,
        pixel_values: torch.Tensor,
        pixel_attention_mask: torch.Tensor,
        spatial_position_ids: torch.Tensor,
        scale_position_ids: torch.Tensor,
    ) -> Batch:
        outputs = self.model(pixel_values, pixel_attention_mask, spatial_position_ids, scale_position_ids)
        return {name: outputs[name] for name in OUTPUTS}


def make_random_batch(config: MusiqConfig, *, batch_size: int, length: int) -> Batch:
    """Make an output of the image processor from random patches; the first row is full, the last has one patch."""
    generator = torch.Generator().manual_seed(batch_size + length)
    shape = (batch_size, length)
    lengths = torch.linspace(length, 1, batch_size).long()
    scales = torch.randint(config.num_scales, shape, generator=generator)
    scales[:, -1] = config.num_scales - 1  # the last scale of a picture is never missing
    return {
        "pixel_values": torch.rand((*shape, config.patch_size**2 * 3), generator=generator) * 2 - 1,
        "pixel_attention_mask": (torch.arange(length) < lengths[:, None]).long(),
        "spatial_position_ids": torch.randint(config.num_spatial_positions, shape, generator=generator),
        "scale_position_ids": scales,
    }


@contextmanager
def keep_contiguous(model: nn.Module) -> Iterator[None]:
    """Let every convolution read (num_images, channels, height, width) in this order of memory.

    Patches are channels last, and the graph would hold views that only this layout allows. Other runtimes, and the
    step to ONNX, do not keep the layout.
    """
    convolutions = (module for module in model.modules() if isinstance(module, nn.Conv2d))
    hooks = [module.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),)) for module in convolutions]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def export_program(model: MusiqForImageQualityAssessment) -> ExportedProgram:
    """Export the graph of a model in evaluation mode, on the CPU, for every batch size and length from 1 on.

    Its inputs are those of `make_random_batch`, even where the configuration does not need one. Its output is a
    dictionary of `logits` (batch_size, num_labels) and `scores` (batch_size,).
    """
    batch_size, length = EXAMPLE_SHAPE
    inputs = make_random_batch(model.config, batch_size=batch_size, length=length)
    with torch.no_grad(), keep_contiguous(model):
        return torch.export.export(NamedOutputs(model), (), inputs, dynamic_shapes=DYNAMIC_SHAPES)


def save_onnx(program: ExportedProgram, path: Path) -> None:
    """Write a program as ONNX; inputs and outputs keep their names, and the axes are named `batch` and `sequence`."""
    logging.getLogger("torch.onnx").setLevel(
        logging.ERROR
    )  # it would tell which operators of torchvision it leaves out
    with warnings.catch_warnings():
        # The first warning is about torch's own code, the second about inputs that share axes, as they should.
        warnings.filterwarnings("ignore", message=".*treespec", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*shares the same shape constraints with another axis")
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            output_names=OUTPUTS,
            dynamic_shapes=DYNAMIC_SHAPES,
            verbose=False,
        )
    assert exported is not None  # it is None without `dynamo` only
    exported.save(path)


def make_program_runner(program: ExportedProgram) -> Runner:
    """Return the function that runs a program with PyTorch."""
    module = program.module()
    return lambda batch: module(**batch)["scores"]


def make_onnx_runner(path: Path) -> Runner:
    """Return the function that runs an ONNX file with onnxruntime on the CPU."""
    session = require("onnxruntime", extra="export").InferenceSession(path, providers=["CPUExecutionProvider"])

    def run_session(batch: Batch) -> torch.Tensor:
        (scores,) = session.run(["scores"], {name: tensor.numpy() for name, tensor in batch.items()})
        return torch.from_numpy(scores)

    return run_session


def write_file(program: ExportedProgram, path: Path) -> dict[str, Runner]:
    """Write a program in the format of the suffix, and return the functions that run it, by runtime."""
    if path.suffix == ".pt2":
        torch.export.save(program, path)
        return {"torch.export": make_program_runner(torch.export.load(path))}
    save_onnx(program, path)
    runners = {"torch.export": make_program_runner(program)}
    with suppress(ImportError):  # without it the graph alone is run
        runners["onnxruntime"] = make_onnx_runner(path)
    return runners


@torch.no_grad()
def measure_deviations(model: MusiqForImageQualityAssessment, runners: dict[str, Runner]) -> dict[str, float]:
    """Return the largest deviation from the model's scores over several batches, in MOS points, by runtime."""
    shapes = CHECKED_SHAPES
    batches = [make_random_batch(model.config, batch_size=batch_size, length=length) for batch_size, length in shapes]
    wanted = torch.cat([model(**batch).scores for batch in batches])
    found = {name: torch.cat([run(batch) for batch in batches]) for name, run in runners.items()}
    return {name: float((scores - wanted).abs().max()) for name, scores in found.items()}


def export(model: MusiqForImageQualityAssessment, output: Path) -> dict[str, Any]:
    """Export a model to a file, which gets its name once its scores are found right.

    Args:
        model: Model in evaluation mode, float32, on the CPU.
        output: File that ends in .onnx or .pt2. Its folder is made if missing, and an old file is replaced.

    Returns:
        The path, and the largest deviation of a score in MOS points by runtime. "onnxruntime" is missing where it is
        not installed, as an ONNX file cannot be run then.

    Raises:
        DeviationError: If a score is off by more than 1e-4 of the range of scores. Without a range, the unit of the
            logit stands in its place.
    """
    low, high = model.config.score_range or (0, abs(model.config.score_scale))
    program = export_program(model)
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.stem}.{os.getpid()}{output.suffix}")
    try:
        deviations = measure_deviations(model, write_file(program, partial))
        for name, deviation in deviations.items():
            if not deviation <= TOLERANCE * (high - low):  # a NaN is no such deviation
                raise DeviationError(
                    f"{output} was not written: scores of {name} are off by up to {deviation:.2g} MOS points, more "
                    f"than {TOLERANCE:g} of their range {low}..{high}."
                )
        os.replace(partial, output)
    finally:
        partial.unlink(missing_ok=True)
    return {"output": str(output), "largest_deviation": deviations}


def export_checkpoint(checkpoint: str, output: Path) -> dict[str, Any]:
    """Check that the libraries of the format are installed, then export a checkpoint, as `export` does its model.

    Raises:
        ValueError: If there is no such checkpoint, it predicts no quality, or the format cannot express it.
        ImportError: If a library is missing.
        DeviationError: If the scores are not the model's.
    """
    check_output_file(output)
    if output.suffix == ".onnx":
        for module in ("onnx", "onnxscript"):
            require(module, extra="export")
    model, _ = load_quality(checkpoint)
    if not isinstance(model, MusiqForImageQualityAssessment):
        raise ValueError(f"A MUSIQ checkpoint can be exported, got {type(model).__name__}. Choose another one.")
    root = model.config.covariance_method
    if output.suffix == ".onnx" and model.config.pools_covariance and root not in ONNX_ROOTS:
        raise ValueError(
            f'ONNX cannot express `covariance_method="{root}"`, only {" and ".join(ONNX_ROOTS)}. '
            "Choose a name that ends in .pt2."
        )
    return export(model, output)
