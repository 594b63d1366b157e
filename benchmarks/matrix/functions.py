# SPDX-License-Identifier: Apache-2.0
"""Times and errors of matrix roots and of batched_eigh, printed, and written into docs/matrix_functions.md.

python -m benchmarks.matrix.functions

What stands outside of the two comments in the document is written by hand and kept. It takes three minutes at most.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from benchmarks.matrix import DOCUMENT
from benchmarks.measure import describe_machine, interleave
from musiq_hf.common.arguments import CommandParser, parse_arguments, run_command
from musiq_hf.common.markdown import markdown_table, update_document
from musiq_hf.models.musiq import matrix_sqrt
from musiq_hf.training import batched_eigh

PLACE = "measured"
EXAMPLE = "python -m benchmarks.matrix.functions"
Root = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Settings:
    """Grid of the measurements.

    Attributes:
        sizes: Sides d of the matrices.
        batches: Numbers of matrices at a time.
        conditions: Condition numbers at which errors are measured.
        eigenvalue_points: Sides and batches at which `batched_eigh` is measured.
        repeats: Largest number of rounds of a measurement.
        budget: Seconds after which a measurement begins no further round.
        device: Device of the matrices.
    """

    sizes: Sequence[int] = (4, 8, 16, 32, 48, 64)
    batches: Sequence[int] = (1, 8, 64, 512)
    conditions: Sequence[float] = (3, 30, 300, 15000)
    eigenvalue_points: Sequence[tuple[int, int]] = (
        *((4, 1), (4, 64), (4, 512), (4, 4096), (8, 1), (8, 64), (8, 512), (16, 1), (16, 64), (16, 512)),
        *((32, 1), (32, 64), (32, 512), (64, 1), (64, 64)),
    )
    repeats: int = 21
    budget: float = 2.5
    device: str = "cpu"


def sqrt_by_autograd(matrices: torch.Tensor) -> torch.Tensor:
    """Compute roots by `torch.linalg.eigh` and its own gradient, which divides by differences of eigenvalues."""
    values, vectors = torch.linalg.eigh(matrices)
    return (vectors * values.clamp(min=0).sqrt()[..., None, :]) @ vectors.mT


TIMED: Mapping[str, Root] = {
    "eigh": matrix_sqrt,
    "torch.linalg.eigh, its gradient": sqrt_by_autograd,
    "newton_schulz": partial(matrix_sqrt, method="newton_schulz"),
    "taylor": partial(matrix_sqrt, method="taylor"),
    "pade": partial(matrix_sqrt, method="pade"),
}
COMPARED: Mapping[str, Root] = {
    **TIMED,
    "newton_schulz, 7 iterations": partial(matrix_sqrt, method="newton_schulz", newton_schulz_iterations=7),
    "newton_schulz, 10": partial(matrix_sqrt, method="newton_schulz", newton_schulz_iterations=10),
}


def make_covariances(batch: int, size: int, condition: float) -> torch.Tensor:
    """Make matrices (batch, size, size) in float64, with eigenvalues spread evenly in their logarithm up to 1."""
    generator = torch.Generator().manual_seed(size)
    noise = torch.randn(batch, size, size, generator=generator, dtype=torch.float64)
    values = torch.logspace(0, 1, size, base=1 / condition, dtype=torch.float64)
    directions = torch.linalg.qr(noise).Q
    return directions * values @ directions.mT


def run_both_ways(root: Root, matrices: torch.Tensor) -> None:
    """Compute roots and the gradient of their sum."""
    leaf = matrices.detach().requires_grad_()
    torch.autograd.grad(root(leaf).sum(), leaf)


def run_forward(root: Root, matrices: torch.Tensor) -> None:
    """Compute roots without a gradient."""
    with torch.no_grad():
        root(matrices)


def format_time(seconds: float) -> str:
    """Write milliseconds with two digits, or whole ones from 10 on."""
    milliseconds = 1000 * seconds
    return f"{milliseconds:.0f}" if milliseconds >= 10 else f"{milliseconds:.2g}"


def mark_fastest(times: Sequence[float]) -> list[str]:
    """Write times in milliseconds, the smallest in bold."""
    return [f"**{format_time(value)}**" if value == min(times) else format_time(value) for value in times]


def time_roots(settings: Settings) -> str:
    """Measure the table of times: forward and backward, and forward alone."""
    rows = []
    for size in settings.sizes:
        for batch in settings.batches:
            matrices = make_covariances(batch, size, 100).float().to(settings.device)
            contenders = {f"both ways {name}": partial(run_both_ways, root, matrices) for name, root in TIMED.items()}
            contenders |= {f"forward {name}": partial(run_forward, root, matrices) for name, root in TIMED.items()}
            measured = interleave(contenders, repeats=settings.repeats, device=settings.device, budget=settings.budget)
            ways = ("both ways", "forward")
            cells = [mark_fastest([measured[f"{way} {name}"]["median"] for name in TIMED]) for way in ways]
            rows.append([f"{size} x {batch}", *(" / ".join(pair) for pair in zip(*cells, strict=True))])
    return markdown_table(["d x batch", *TIMED], rows)


def measure_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest relative Frobenius error over a batch of matrices."""
    errors = torch.linalg.matrix_norm(found.cpu().double() - expected) / torch.linalg.matrix_norm(expected)
    return errors.max().item()


def differentiate(root: Root, matrices: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return roots, and the symmetric gradient of their sum with weights."""
    leaf = matrices.requires_grad_()
    value = root(leaf)
    (gradient,) = torch.autograd.grad((value * weight).sum(), leaf)
    return value.detach(), (gradient + gradient.mT) / 2


def compare_roots(settings: Settings) -> str:
    """Measure the table of errors of value and gradient in float32, against exact ones in float64."""
    rows = []
    for size in (settings.sizes[0], settings.sizes[-1]):
        for condition in settings.conditions:
            matrices = make_covariances(8, size, condition)
            weight = torch.randn(size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
            expected = differentiate(matrix_sqrt, matrices.clone(), weight)
            cells = []
            for root in COMPARED.values():
                narrow = (part.float().to(settings.device) for part in (matrices, weight))
                errors = map(measure_error, differentiate(root, *narrow), expected)
                cells.append(" / ".join(f"{error:.0e}" for error in errors))
            rows.append([f"{size}", f"{condition:g}", *cells])
    return markdown_table(["d", "condition", *COMPARED], rows)


def compare_eigenvalues(settings: Settings) -> str:
    """Measure the table of `batched_eigh`: times, and errors of the largest eigenvalues and of rebuilt matrices."""
    functions = {"torch.linalg.eigh": torch.linalg.eigh, "batched_eigh": batched_eigh}
    rows = []
    for size, batch in settings.eigenvalue_points:
        exact = make_covariances(batch, size, 100)
        matrices = exact.float().to(settings.device)
        contenders = {name: partial(function, matrices) for name, function in functions.items()}
        measured = interleave(contenders, repeats=settings.repeats, device=settings.device, budget=settings.budget)
        errors = []
        for function in functions.values():
            values, vectors = (part.cpu().double() for part in function(matrices))
            wrong = (values - torch.linalg.eigvalsh(exact)).abs().max().item()  # the largest is 1
            errors.append(f"{wrong:.0e} / {measure_error(vectors * values[:, None] @ vectors.mT, exact):.0e}")
        rows.append([f"{size} x {batch}", *mark_fastest([measured[name]["median"] for name in functions]), *errors])
    heads = [f"{name}, {what}" for what in ("ms", "error") for name in functions]
    return markdown_table(["d x batch", *heads], rows)


def measure(settings: Settings) -> str:
    """Measure all tables, and return them as Markdown."""
    machine = describe_machine(settings.device)
    device = machine.get("gpu") or f"{machine['processor']}, threads: {machine['threads']}"
    busy = ": other work ran beside it, and single times may be off by half" if (machine["load"] or 0) >= 1 else ""
    return "\n\n".join(
        (
            f"Measured on {device}, PyTorch {machine['torch']}, {machine['date']}. The load of the machine was "
            f"{machine['load']} when it began{busy}. Times are medians of runs in turns.",
            "Roots, milliseconds, forward and backward / forward alone, float32, the fastest in bold:",
            time_roots(settings),
            "Errors of roots, value / gradient, relative to the Frobenius norm, float32 against exact roots:",
            compare_roots(settings),
            "Eigenvalues and eigenvectors, forward, float32. Errors are those of eigenvalues / of matrices rebuilt "
            "from both, relative:",
            compare_eigenvalues(settings),
        )
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the tables; return 2 if the document has no place for them."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=DOCUMENT, help="the document")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    arguments = parse_arguments(parser, argv)
    torch.set_num_threads(arguments.threads)
    settings = Settings(device=arguments.device)
    return run_command(
        "benchmarks.matrix.functions",
        lambda: update_document(arguments.output, PLACE, lambda: measure(settings)),
        example=EXAMPLE,
    )


if __name__ == "__main__":
    sys.exit(main())
