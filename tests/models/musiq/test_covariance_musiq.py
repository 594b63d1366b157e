# SPDX-License-Identifier: Apache-2.0
"""Matrix roots and covariances against published code, exact computations and their definitions."""

import golden_training_methods as golden
import pytest
import torch

from musiq_hf import MusiqConfig, MusiqForImageClassification, MusiqForImageQualityAssessment
from musiq_hf.models.musiq.checks_musiq import hash_weights
from musiq_hf.models.musiq.covariance_musiq import (
    MusiqCovariancePooling,
    masked_covariance,
    matrix_inverse_sqrt,
    matrix_sqrt,
    upper_triangle,
)
from musiq_hf.training.starting import add_lora, freeze, load_model

FUNCTIONS = {"sqrt": matrix_sqrt, "inverse_sqrt": matrix_inverse_sqrt}
PAIRS = [("sqrt", method) for method in ("eigh", "taylor", "pade", "newton_schulz")]
PAIRS += [("inverse_sqrt", method) for method in ("eigh", "pade", "newton_schulz")]
# Relative errors of value and gradient in float32. Those of "eigh" grow with the condition number.
FLOAT32 = {
    ("sqrt", "pade"): (3e-4, 6e-4),
    ("sqrt", "taylor"): (1e-6, 3e-6),
    ("sqrt", "newton_schulz"): (3e-6, 4e-6),
    ("inverse_sqrt", "pade"): (6e-4, 2e-3),
    ("inverse_sqrt", "newton_schulz"): (3e-6, 6e-6),
}
CASES = golden.read("matrix_functions")
IN_FLOAT64 = golden.read("matrix_functions", torch.float64)


def limits(root, method, case):
    condition = float(case.partition("_c")[2])
    if method != "eigh":
        return FLOAT32[root, method]
    return (2e-6 * condition**0.5, 1e-5 * condition**0.5) if root == "sqrt" else (1e-6 * condition, 2e-6 * condition)


def value_and_gradient(arrays, root, method):
    matrix = arrays["matrix"].clone().requires_grad_()
    value = FUNCTIONS[root](matrix, method=method)
    (value * arrays["weight"]).sum().backward()
    return value.detach(), (matrix.grad + matrix.grad.mT) / 2


def make_covariances(*shape, condition=3.0, seed=0, dtype=torch.float64):
    """Symmetric matrices whose eigenvalues are spread evenly from 1 to the condition number."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.linalg.qr(torch.randn(*shape, shape[-1], generator=generator, dtype=torch.float64))[0]
    return (directions * torch.linspace(1, condition, shape[-1], dtype=torch.float64) @ directions.mT).to(dtype)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("root", "method"), PAIRS)
def test_roots_are_those_of_the_published_code_and_of_exact_computations(root, method, case):
    value, gradient = value_and_gradient(CASES[case], root, method)
    largest_of_value, largest_of_gradient = limits(root, method, case)
    assert value.dtype == torch.float32
    assert golden.errors(value, CASES[case][f"{root}/{method}/value"]) < largest_of_value
    assert golden.errors(gradient, CASES[case][f"{root}/{method}/gradient"]) < largest_of_gradient
    value, gradient = value_and_gradient(IN_FLOAT64[case], root, method)
    assert golden.errors(value, CASES[case][f"{root}/{method}/value"]) < 1e-6
    assert golden.errors(gradient, CASES[case][f"{root}/{method}/gradient"]) < 1e-6


@pytest.mark.parametrize(("root", "method"), PAIRS)
def test_a_matrix_alone_has_the_root_that_it_has_in_a_batch(root, method):
    matrices = CASES["d8_c100"]["matrix"]
    alone = torch.stack([FUNCTIONS[root](matrix, method=method) for matrix in matrices])
    torch.testing.assert_close(FUNCTIONS[root](matrices, method=method), alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 7, 32])
def test_roots_are_roots(size):
    matrices = make_covariances(2, 3, size, condition=50)
    root, inverse = matrix_sqrt(matrices), matrix_inverse_sqrt(matrices)
    torch.testing.assert_close(root @ root, matrices)
    identity = torch.eye(size, dtype=torch.float64).expand_as(matrices)
    torch.testing.assert_close(inverse @ matrices @ inverse, identity)
    torch.testing.assert_close(root @ inverse, identity)


@pytest.mark.parametrize(("root", "method"), PAIRS)
def test_gradients_are_derivatives(root, method):
    """Close to a multiple of the identity the approximations are exact, and so are their gradients."""
    matrices = make_covariances(2, 2, condition=1.2).requires_grad_()
    precise = {"newton_schulz_iterations": 9, "lyapunov_iterations": 12}
    assert torch.autograd.gradcheck(lambda a: FUNCTIONS[root](a, method=method, eps=0.1, **precise), (matrices,))


@pytest.mark.parametrize("root", FUNCTIONS)
def test_the_exact_gradient_is_the_derivative_also_for_equal_eigenvalues(root):
    matrices = torch.stack([2 * torch.eye(4), torch.diag(torch.tensor([1.0, 1.0, 3.0, 30.0]))]).double()
    assert torch.autograd.gradcheck(FUNCTIONS[root], (matrices.requires_grad_(),))


@pytest.mark.parametrize("method", ["eigh", "taylor", "pade", "newton_schulz"])
@pytest.mark.parametrize("rank", [0, 2])
def test_gradients_of_singular_matrices_are_finite(method, rank):
    matrix = torch.diag(torch.tensor([2.0, 1.0, 0.0, 0.0])) * (rank > 0)
    matrix.requires_grad_()
    value = matrix_sqrt(matrix, method=method)
    (gradient,) = torch.autograd.grad(value.sum(), matrix)
    assert value.isfinite().all() and gradient.isfinite().all()


def test_eps_is_added_to_the_diagonal_first():
    matrices = make_covariances(3, 5)
    expected = matrix_sqrt(matrices + 0.25 * torch.eye(5))
    torch.testing.assert_close(matrix_sqrt(matrices, eps=0.25), expected)


def test_more_iterations_come_closer():
    matrices = make_covariances(2, 8, condition=1000)
    exact = matrix_sqrt(matrices)
    roots = (matrix_sqrt(matrices, method="newton_schulz", newton_schulz_iterations=count) for count in (3, 6, 14))
    found = [golden.errors(root, exact) for root in roots]
    assert found == sorted(found, reverse=True) and found[-1] < 1e-9 < found[0]
    gradients = []
    for iterations in (2, 5, 20):
        leaf = matrices.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(matrix_sqrt(leaf, method="pade", lyapunov_iterations=iterations).sum(), leaf)
        root = matrix_sqrt(matrices, method="pade")
        gradients.append(golden.errors(root @ gradient + gradient @ root, torch.ones_like(root)))
    assert gradients == sorted(gradients, reverse=True) and gradients[-1] < 1e-9 < gradients[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("root", "method"), PAIRS)
def test_half_precision_is_computed_in_float32(root, method, dtype):
    matrices = make_covariances(2, 8, dtype=dtype).requires_grad_()
    wide = matrices.detach().float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, expected = FUNCTIONS[root](matrices, method=method), FUNCTIONS[root](wide, method=method)
    assert value.dtype == dtype and expected.dtype == torch.float32
    assert torch.equal(value, expected.to(dtype))
    torch.testing.assert_close(expected, FUNCTIONS[root](wide, method=method))
    assert torch.autograd.grad(value.sum(), matrices)[0].dtype == dtype


@pytest.mark.parametrize("root", FUNCTIONS)
@pytest.mark.parametrize(
    ("matrices", "options", "message"),
    [
        (torch.zeros(2, 3), {}, r"shape \(\.\.\., d, d\), were expected, got shape \(2, 3\)"),
        (torch.zeros(3), {}, r"got shape \(3,\)"),
        (torch.ones(3, 3, dtype=torch.int64), {}, "floating point numbers.*of torch.int64"),
        (torch.eye(3), {"method": "cholesky"}, "`method` must be 'eigh' or .*got 'cholesky'"),
        (torch.eye(3), {"newton_schulz_iterations": 0}, "Iterations must be at least 1, got 0 and 8"),
    ],
)
def test_mistakes_are_one_sentence(root, matrices, options, message):
    with pytest.raises(ValueError, match=message):
        FUNCTIONS[root](matrices, **options)


def test_the_inverse_has_no_taylor_polynomial():
    with pytest.raises(ValueError, match="must be 'eigh' or 'pade' or 'newton_schulz', got 'taylor'"):
        matrix_inverse_sqrt(torch.eye(3), method="taylor")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["newton_schulz", "taylor"])
def test_roots_by_products_go_into_onnx_files(method, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")

    class Pooling(torch.nn.Module):
        def forward(self, tokens):
            return upper_triangle(matrix_sqrt(masked_covariance(tokens, eps=1e-3), method=method))

    sizes = {"tokens": {0: torch.export.Dim("pictures"), 1: torch.export.Dim("length")}}
    program = torch.onnx.export(Pooling(), (torch.randn(2, 30, 8),), dynamo=True, dynamic_shapes=sizes)
    program.save(tmp_path / "roots.onnx")
    session, tokens = onnxruntime.InferenceSession(tmp_path / "roots.onnx"), torch.randn(3, 50, 8)
    (found,) = session.run(None, {"tokens": tokens.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), Pooling()(tokens), atol=1e-5, rtol=1e-5)


# -- covariances


@pytest.mark.parametrize(
    ("method", "eps", "of_vector", "of_gradient"), [("pade", 0.0, 1e-4, 2e-4), ("eigh", None, 4e-6, 1e-5)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pooled_covariances_are_those_of_the_published_code(method, eps, of_vector, of_gradient, dtype):
    case = golden.read("covariance_pooling", dtype)["d8"]
    name = "pade" if method == "pade" else "eigh_eps"
    tokens = case["tokens"].requires_grad_()
    covariances = masked_covariance(tokens, case["mask"])
    eps = float(case["eigh_eps/eps"]) if eps is None else eps
    vector = upper_triangle(matrix_sqrt(covariances, method=method, eps=eps))
    (vector * case["weight"]).sum().backward()
    exact = dtype == torch.float64
    assert golden.errors(covariances, case["covariance"]) < (1e-6 if exact else 3e-6)
    assert golden.errors(vector[:, None], case[f"{name}/vector"][:, None]) < (1e-6 if exact else of_vector)
    assert golden.errors(tokens.grad, case[f"{name}/gradient"]) < (1e-6 if exact else of_gradient)


def test_padding_and_partners_change_nothing():
    tokens = torch.randn(3, 9, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask = torch.arange(9) < torch.tensor([[9], [4], [1]])
    alone = torch.cat([masked_covariance(tokens[i : i + 1, : mask[i].sum()]) for i in range(3)])
    hostile = torch.where(mask[..., None], tokens, torch.nan).requires_grad_()
    together = masked_covariance(hostile, mask)
    torch.testing.assert_close(together, alone)
    (gradient,) = torch.autograd.grad(together.square().sum(), hostile)
    assert gradient.isfinite().all() and not gradient[~mask].any()


def test_covariance_is_that_of_numpy():
    tokens = torch.randn(2, 20, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.stack([torch.cov(part.T, correction=0) for part in tokens])
    torch.testing.assert_close(masked_covariance(tokens), expected)


@pytest.mark.parametrize("num_real", [0, 1])
def test_one_token_and_none_give_the_identity(num_real):
    tokens = torch.randn(2, 4, 3).requires_grad_()
    covariances = masked_covariance(tokens, (torch.arange(4) < num_real).expand(2, 4), eps=0.5)
    assert torch.equal(covariances, 0.5 * torch.eye(3).expand(2, 3, 3))
    root = matrix_sqrt(covariances)
    assert torch.autograd.grad(root.sum(), tokens)[0].isfinite().all()


def test_gradients_of_covariances_are_derivatives():
    tokens = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 1, 0]])
    assert torch.autograd.gradcheck(lambda x: upper_triangle(masked_covariance(x, mask, eps=0.1)), (tokens,))


def test_covariance_of_half_precision_is_computed_in_float32():
    tokens = (torch.randn(2, 50, 4, generator=torch.Generator().manual_seed(0)) + 30).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = masked_covariance(tokens)
    assert found.dtype == torch.bfloat16 and torch.equal(found, masked_covariance(tokens.float()).bfloat16())


def test_upper_triangle_goes_row_by_row():
    matrix = torch.tensor([[1.0, 2.0, 3.0], [0.0, 4.0, 5.0], [0.0, 0.0, 6.0]])
    assert upper_triangle(matrix).tolist() == [1, 2, 3, 4, 5, 6]
    assert upper_triangle(torch.zeros(2, 5, 4, 4)).shape == (2, 5, 10)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: masked_covariance(torch.zeros(3, 4)), r"must be floating and have shape \(batch_size, N, D\), got"),
        (lambda: masked_covariance(torch.zeros(2, 3, 4).long()), "must be floating.*got shape .* of torch.int64"),
        (lambda: masked_covariance(torch.zeros(2, 3, 4), torch.ones(2, 4)), r"must have shape \(2, 3\), got \(2, 4\)"),
        (lambda: upper_triangle(torch.zeros(2, 3)), r"were expected, got shape \(2, 3\)"),
    ],
)
def test_mistakes_with_tokens_are_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# -- models that pool covariances

POOLED = {"pooling": "cls+covariance", "covariance_size": 6}
METHODS = ("eigh", "taylor", "pade", "newton_schulz")


def make_batch(config, lengths, *, seed=0):
    """A padded batch of random patches, with large values on the padding."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths))
    mask = (torch.arange(shape[1]) < torch.tensor(lengths)[:, None]).long()
    pixels = torch.rand((*shape, config.patch_size**2 * 3), generator=generator) * 2 - 1
    return {
        "pixel_values": torch.where(mask[..., None].bool(), pixels, 1e4),
        "pixel_attention_mask": mask,
        "spatial_position_ids": torch.randint(config.num_spatial_positions, shape, generator=generator),
        "scale_position_ids": torch.randint(config.num_scales, shape, generator=generator),
    }


def test_pooling_is_its_equation():
    torch.manual_seed(0)
    pooling = MusiqCovariancePooling(5, size=3, method="eigh", eps=0.01).double()
    tokens = torch.randn(2, 7, 5, dtype=torch.float64)
    reduced = torch.nn.functional.layer_norm(tokens @ pooling.reduction.weight.T, (3,)).clamp(min=0)
    expected = []
    for part in reduced:
        values, vectors = torch.linalg.eigh(torch.cov(part.T, correction=0) + 0.01 * torch.eye(3))
        root = vectors @ values.sqrt().diag() @ vectors.T
        expected.append(root[torch.triu_indices(3, 3).unbind()])
    torch.testing.assert_close(pooling(tokens), torch.stack(expected))
    assert pooling.output_size == 6


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pooling", ["covariance", "cls+covariance"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_partners_and_padding_change_no_score(tiny_model, pooling, method, attention):
    model = tiny_model(**POOLED | {"pooling": pooling, "covariance_method": method})
    model.set_attn_implementation(attention)
    lengths = (40, 1, 13)
    batch = make_batch(model.config, lengths)
    with torch.no_grad():
        together = model(**batch).logits
        alone = [model(**{name: value[i : i + 1, :n] for name, value in batch.items()}) for i, n in enumerate(lengths)]
        unmasked = {name: value for name, value in batch.items() if name != "pixel_attention_mask"}
        assert not torch.allclose(model(**unmasked).logits[1], together[1])
    torch.testing.assert_close(together, torch.cat([output.logits for output in alone]), rtol=2e-5, atol=1e-5)


def test_pooled_scores_read_the_patches_and_not_only_cls(tiny_model):
    """Covariance alone ignores CLS of the last block; with both, each moves the score."""
    for pooling, changed in (("cls", (True, False)), ("covariance", (False, True)), ("cls+covariance", (True, True))):
        model = tiny_model(**(POOLED if pooling != "cls" else {}) | {"pooling": pooling})
        states = torch.randn(1, 9, model.config.hidden_size)
        pooled = model.musiq.pool(states)
        for part, moves in zip((slice(0, 1), slice(1, None)), changed, strict=True):
            others = states.clone()
            others[:, part] = torch.randn_like(others[:, part])
            assert torch.equal(model.musiq.pool(others), pooled) != moves


def test_covariance_beside_cls_changes_no_score_of_a_checkpoint(blank, tmp_path, tiny_model):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    richer = load_model(str(tmp_path), architecture=POOLED).eval()
    batch = make_batch(model.config, (30, 4))
    with torch.no_grad():
        torch.testing.assert_close(richer(**batch).scores, model(**batch).scores, rtol=1e-6, atol=1e-5)
    assert richer.musiq.covariance.pooling.reduction.weight.abs().sum() > 0
    with pytest.raises(ValueError, match="missing musiq.covariance"):
        MusiqForImageQualityAssessment.from_pretrained(tmp_path, **POOLED)


@pytest.mark.parametrize(
    ("before", "after", "is_kept"),
    [
        ("cls", "cls+covariance", True),
        ("cls+covariance", "cls+covariance", True),
        ("cls", "covariance", False),
        ("covariance", "cls+covariance", False),
        ("cls+covariance", "cls", False),
    ],
)
def test_a_head_that_will_read_other_features_is_made_anew(tmp_path, tiny_model, caplog, before, after, is_kept):
    size = {"covariance_size": 6}
    tiny_model(pooling=before, score_offset=50, score_scale=20, **size if before != "cls" else {}).save_pretrained(
        tmp_path
    )
    model = load_model(str(tmp_path), architecture={"pooling": after} | (size if after != "cls" else {}))
    assert model.head.classifier.weight.any() == is_kept
    assert (model.config.score_offset, model.config.score_scale) == ((50, 20) if is_kept else (0, 1))
    assert any("is made anew, because it will read other features" in text for text in caplog.messages) != is_kept


@pytest.mark.parametrize("kind", [MusiqForImageQualityAssessment, MusiqForImageClassification])
@pytest.mark.parametrize("pooling", ["covariance", "cls+covariance"])
def test_every_weight_of_the_pooling_learns(tiny_config, kind, pooling):
    torch.manual_seed(0)
    config = tiny_config(**POOLED | {"pooling": pooling})
    model = kind(config)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    before = {name: weight.detach().clone() for name, weight in model.musiq.covariance.named_parameters()}
    labels = torch.tensor([0, 0]) if kind is MusiqForImageClassification else torch.tensor([3.0, 2.0])
    for _ in range(3):  # head, projection and reduction wait for each other
        optimizer.zero_grad()
        model(**make_batch(config, (9, 1)), labels=labels).loss.backward()
        optimizer.step()
    for name, weight in model.musiq.covariance.named_parameters():
        assert weight.isfinite().all()
        if kind is MusiqForImageQualityAssessment:  # a single class has no gradient
            assert not torch.equal(weight, before[name]), name


def test_pooled_checkpoints_are_stored_with_all_they_need(tmp_path, tiny_model):
    model = tiny_model(**POOLED)
    model.save_pretrained(tmp_path)
    again = MusiqForImageQualityAssessment.from_pretrained(tmp_path)
    batch = make_batch(model.config, (12, 5))
    with torch.no_grad():
        assert torch.equal(again(**batch).scores, model(**batch).scores)
    half = MusiqForImageQualityAssessment.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {weight.dtype for weight in half.musiq.covariance.parameters()} == {torch.float32}
    with torch.no_grad():
        torch.testing.assert_close(half(**batch).scores, model(**batch).scores, rtol=0.1, atol=0.2)
    config = MusiqConfig.from_pretrained(tmp_path, pooling="cls")
    assert (config.pooling, config.covariance_size) == ("cls", 64)


def test_a_signature_tells_how_covariances_are_pooled(tiny_model):
    changes = [{}, {"pooling": "covariance"}, {"covariance_method": "taylor"}, {"covariance_eps": 0.1}]
    assert len({hash_weights(tiny_model(**POOLED | change)) for change in changes}) == len(changes)
    assert "pooling" not in MusiqConfig().signature_fields()


@pytest.mark.parametrize("part", ["encoder", "lora"])
def test_pooled_covariances_train_with_the_head(tiny_model, part):
    model = tiny_model(**POOLED)
    if part == "lora":
        pytest.importorskip("peft")
        model = add_lora(model, 2)
    else:
        freeze(model, part)
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad and "covariance" in name]
    assert len(trained) == len(list(tiny_model(**POOLED).musiq.covariance.parameters()))
