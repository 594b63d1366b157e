# SPDX-License-Identifier: Apache-2.0
"""Command `musiq export`: writes a checkpoint as ONNX, or as an archive of torch.export."""

import argparse
import sys
from pathlib import Path
from typing import Any

from transformers.utils import logging

from ..common.arguments import print_report
from ..common.terminal import print_text
from ..conversion.exporting import DeviationError, export_checkpoint

DESCRIPTION = """\
Write a checkpoint as ONNX, or as an archive of torch.export, for batches and pictures of any size.

musiq export musiq-koniq musiq-koniq.onnx
musiq export musiq-koniq musiq-koniq.pt2

Before the file gets its name it is run on several batches, and its scores are compared with the model's. It reads the
outputs of the checkpoint's image processor. With onnxruntime:

  inputs = AutoImageProcessor.from_pretrained("musiq-koniq")(["photo.jpg", "scan.png"], return_tensors="np")
  session = onnxruntime.InferenceSession("musiq-koniq.onnx")
  logits, scores = session.run(["logits", "scores"], dict(inputs))

With PyTorch, and return_tensors="pt": torch.export.load("musiq-koniq.pt2").module()(**inputs)["scores"].

exit code: 0 written, 1 not written, as its scores are not the model's, 2 a mistake
"""


def add_arguments(parser: Any) -> None:
    """Add the arguments."""
    parser.add_argument("model", metavar="MODEL", help="checkpoint, a folder or an id on the Hub")
    parser.add_argument("output", metavar="OUT", type=Path, help=".onnx file, or .pt2 file of torch.export; replaced")


def run(arguments: argparse.Namespace) -> int:
    """Export and print the report; return 1 if the scores are not the model's.

    Raises:
        ValueError: If there is no such checkpoint, or it predicts no quality.
        ImportError: If a library is missing.
    """
    logging.disable_progress_bar()
    try:
        report = export_checkpoint(arguments.model, arguments.output)
    except DeviationError as error:
        print_text(f"musiq export: {error}", file=sys.stderr)
        return 1
    if arguments.output.suffix == ".onnx" and "onnxruntime" not in report["largest_deviation"]:
        print_text("onnxruntime is not installed: the graph was run, the file was not.", file=sys.stderr)
    print_report(report)
    return 0
