# SPDX-License-Identifier: Apache-2.0
import golden_training_methods as golden
import pytest
import torch

from musiq_hf.training.self_supervised.eigenvalues import batched_eigh

CASES = golden.read("batched_eigh")


def sizes_of(matrices):
    return torch.linalg.norm(matrices.double().flatten(-2), dim=-1)


@pytest.mark.parametrize("case", CASES)
def test_eigenvalues_are_those_of_lapack(case):
    """Also of the identity, of a matrix of half rank and of pairs of equal eigenvalues."""
    matrix, expected = CASES[case]["matrix"], CASES[case]["eigenvalues"].double()
    values, vectors = batched_eigh(matrix)
    assert values.dtype == vectors.dtype == torch.float32
    assert ((values - expected).abs().amax(dim=-1) / expected.abs().amax(dim=-1)).max() < 1e-5
    rebuilt = vectors.double() * values.double()[:, None] @ vectors.double().mT
    assert (sizes_of(rebuilt - matrix) / sizes_of(matrix)).max() < 2e-5
    identity = torch.eye(matrix.shape[-1])
    assert (vectors.mT @ vectors - identity).abs().max() < 2e-5


@pytest.mark.parametrize("size", [1, 2, 3, 5, 16])
def test_the_result_in_float64_is_exact(size):
    matrix = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix = matrix + matrix.mT  # with negative eigenvalues
    values, vectors = batched_eigh(matrix)
    torch.testing.assert_close(values, torch.linalg.eigvalsh(matrix), atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(matrix @ vectors, vectors * values[..., None, :], atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_gradient_is_that_of_lapack(case):
    arrays = golden.read("batched_eigh", torch.float64)[case]
    matrix, weight = arrays["matrix"][3:], arrays["weight"][3:]  # those before have equal eigenvalues
    gradients = []
    for decompose in (batched_eigh, torch.linalg.eigh):
        leaf = matrix.clone().requires_grad_()
        values, vectors = decompose((leaf + leaf.mT) / 2)
        # The sign of a vector is free, so that a gradient may read it only with its mirror image.
        projected = vectors * values.cos()[:, None] @ vectors.mT
        ((projected * weight).sum() + values.sin().sum()).backward()
        gradients.append(leaf.grad)
    assert golden.errors(*gradients) < 1e-6


def test_gradient_is_the_derivative():
    matrix = torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()

    def function(matrices):
        values, vectors = batched_eigh(matrices)
        return values, vectors * values.exp()[:, None] @ vectors.mT

    assert torch.autograd.gradcheck(function, (matrix,))


@pytest.mark.parametrize("matrix", [torch.eye(4), torch.zeros(4, 4), torch.diag(torch.tensor([1e3, 1e3, 0.0, 0.0]))])
def test_gradient_of_equal_eigenvalues_is_finite(matrix):
    matrix.requires_grad_()
    values, vectors = batched_eigh(matrix)
    (gradient,) = torch.autograd.grad(values.sum() + vectors.sum(), matrix)
    assert gradient.isfinite().all()


def test_a_batch_changes_no_matrix_in_it():
    matrices = CASES["d8"]["matrix"]
    together = batched_eigh(matrices)[0]
    torch.testing.assert_close(torch.cat([batched_eigh(part)[0] for part in matrices.split(1)]), together)
    assert batched_eigh(matrices[:0])[1].shape == (0, 8, 8)


def test_half_precision_is_computed_in_float32():
    matrix = CASES["d4"]["matrix"].bfloat16()
    values, vectors = batched_eigh(matrix)
    assert values.dtype == vectors.dtype == torch.bfloat16
    assert torch.equal(values, batched_eigh(matrix.float())[0].bfloat16())


@pytest.mark.parametrize(
    ("matrix", "options", "message"),
    [
        (torch.zeros(2, 3), {}, r"Square matrices .*got shape \(2, 3\)"),
        (torch.full((3, 3), torch.nan), {}, "15 sweeps were not enough.*Give finite ones"),
        (torch.tensor([[1.0, 2.0], [2.0, 1.0]]), {"max_sweeps": 0}, "0 sweeps were not enough.*larger `max_sweeps`"),
    ],
)
def test_mistakes_are_one_sentence(matrix, options, message):
    with pytest.raises(ValueError, match=message):
        batched_eigh(matrix, **options)
