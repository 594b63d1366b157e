# SPDX-License-Identifier: Apache-2.0
"""MUSIQ, the multi-scale image quality Transformer (Ke et al., ICCV 2021), for the Hugging Face stack.

Importing registers the classes, so that `AutoModel`, `AutoImageProcessor` and `pipeline("image-quality-assessment")`
know them.
"""

import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common.interrupts import report_interrupts
from .version import __version__


def _is_command() -> bool:
    """Return whether this process is the `musiq` command.

    Transformers and PyTorch take seconds to import. That is too long for the help of the command, and for a word that
    it refuses. So in the command alone, importing the package registers nothing: the command registers the classes
    itself, once it knows what to do. A process is the command if its program is the script that pip has installed, or
    if Python was started with `-m musiq_hf` or `-m musiq_hf.cli`. While Python looks for that module, `sys.argv[0]` is
    "-m".
    """
    if sys.argv[:1] == ["-m"]:
        return sys.orig_argv[-len(sys.argv) :][:1] in (["musiq_hf"], ["musiq_hf.cli"])  # the word after `-m`
    program = Path(*sys.argv[:1])
    if program.name not in ("musiq", "musiq.exe", "musiq-script.py"):
        return False
    schemes = (sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user"))
    folders = {Path(sysconfig.get_path("scripts", scheme)).resolve() for scheme in schemes}
    return program.resolve().parent in folders  # a link to it from elsewhere is the same script


def _is_program() -> bool:
    """Return whether this process is a program of ours: the command, the converter or an example of the clone."""
    clone = Path(__file__).resolve().parents[1]
    folder = Path(*sys.argv[:1]).resolve().parent
    return _is_command() or folder in (clone / "conversion", clone / "examples")


if _is_program():
    report_interrupts()

if TYPE_CHECKING or not _is_command():
    from .models.auto import DEFAULT_CHECKPOINT, TINY_CHECKPOINT, AutoModelForImageQualityAssessment, register
    from .models.musiq import (
        ImageQualityAssessmentPipeline,
        MusiqConfig,
        MusiqForImageClassification,
        MusiqForImageQualityAssessment,
        MusiqImageProcessor,
        MusiqImageQualityOutput,
        MusiqModel,
        MusiqPreTrainedModel,
    )
    from .scoring.loading import load_quality

    register()
else:

    def __getattr__(name: str) -> Any:
        """Return one of the names of the package, and register the classes, as importing does elsewhere."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from .models import auto, musiq
        from .scoring import loading

        auto.register()
        return next(getattr(module, name) for module in (auto, musiq, loading) if hasattr(module, name))


__all__ = [
    "DEFAULT_CHECKPOINT",
    "TINY_CHECKPOINT",
    "AutoModelForImageQualityAssessment",
    "ImageQualityAssessmentPipeline",
    "MusiqConfig",
    "MusiqForImageClassification",
    "MusiqForImageQualityAssessment",
    "MusiqImageProcessor",
    "MusiqImageQualityOutput",
    "MusiqModel",
    "MusiqPreTrainedModel",
    "__version__",
    "load_quality",
]
