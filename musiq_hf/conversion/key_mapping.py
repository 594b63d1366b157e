# SPDX-License-Identifier: Apache-2.0
"""Names and layouts of MUSIQ weights in the original's npz, in pyiqa's pth and here, in one table of pure functions.

The original has the names of flax 0.3.3 under `opt/target/` (google-research/musiq). pyiqa has those of its PyTorch
state dict. Its layouts are ours but for the leading axis of its position table.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from .protocol import Array

ORIGINAL_PREFIX = "opt/target/"


@dataclass(frozen=True)
class Layout:
    """Layout of one kind of array in a foreign file, and its relation to our layout.

    Attributes:
        num_dimensions: Number of dimensions of the foreign array; None = any.
        to_ours: Function from the foreign array to ours.
        to_source: Function from our array and the number of attention heads to the foreign array.
    """

    num_dimensions: int | None
    to_ours: Callable[[Array], Array]
    to_source: Callable[[Array, int], Array]


_SAME = Layout(None, lambda a: a, lambda a, heads: a)
# (1, positions, D) <-> (positions, D)
_TABLE = Layout(3, lambda a: a.reshape(-1, a.shape[-1]), lambda a, heads: a[None])

ORIGINAL_LAYOUTS = {
    "same": _SAME,
    # (rows, columns, in, out) <-> (out, in, rows, columns)
    "conv": Layout(4, lambda a: a.transpose(3, 2, 0, 1), lambda a, heads: a.transpose(2, 3, 1, 0)),
    # (1, 1, 1, channels) <-> (channels,)
    "group_norm": Layout(4, lambda a: a.reshape(-1), lambda a, heads: a.reshape(1, 1, 1, -1)),
    # (in, out) <-> (out, in)
    "dense": Layout(2, lambda a: a.T, lambda a, heads: a.T),
    # (D, heads, head_dim) <-> (heads * head_dim, D)
    "heads_out": Layout(
        3, lambda a: a.reshape(a.shape[0], -1).T, lambda a, heads: a.T.reshape(a.shape[1], heads, a.shape[0] // heads)
    ),
    # (heads, head_dim) <-> (heads * head_dim,)
    "heads_bias": Layout(2, lambda a: a.reshape(-1), lambda a, heads: a.reshape(heads, -1)),
    # (heads, head_dim, D) <-> (D, heads * head_dim)
    "heads_in": Layout(
        3, lambda a: a.reshape(-1, a.shape[-1]).T, lambda a, heads: a.T.reshape(heads, a.shape[1] // heads, a.shape[0])
    ),
    "position_table": _TABLE,
    "scale_table": _TABLE,
}
# pyiqa keeps PyTorch's layouts. Of its two tables only the position table has a leading axis.
_PYTORCH_DIMENSIONS = {"conv": 4, "group_norm": 1, "dense": 2, "heads_out": 2, "heads_bias": 1, "heads_in": 2}
_PYTORCH_DIMENSIONS |= {"scale_table": 2}
PYIQA_LAYOUTS = {kind: replace(_SAME, num_dimensions=count) for kind, count in _PYTORCH_DIMENSIONS.items()}
PYIQA_LAYOUTS |= {"same": _SAME, "position_table": _TABLE}


def _make_norm_rows(original: str, pyiqa: str, ours: str, layout: str = "same") -> list[tuple[str, str, str, str]]:
    pairs = (("scale", "weight"), ("bias", "bias"))
    return [(f"{original}/{a}", f"{pyiqa}.{b}", f"{ours}.{b}", layout) for a, b in pairs]


def _make_dense_rows(
    original: str, pyiqa: str, ours: str, kernel: str = "dense", bias: str = "same"
) -> list[tuple[str, str, str, str]]:
    rows = (("kernel", "weight", kernel), ("bias", "bias", bias))
    return [(f"{original}/{a}", f"{pyiqa}.{b}", f"{ours}.{b}", layout) for a, b, layout in rows]


def _make_rename_table() -> list[tuple[str, str, str, str]]:
    """Make rows (original, pyiqa, ours, layout); {i} numbers blocks from 0, and {stage} encoder stages from 1."""
    embeddings, layer = "musiq.embeddings", "musiq.encoder.layers.{i}"
    stem, unit = f"{embeddings}.patch_encoder", f"{embeddings}.patch_encoder.stages.{{i}}"
    rows = [("conv_root/kernel", "conv_root.weight", f"{stem}.stem_conv.weight", "conv")]
    rows += _make_norm_rows("gn_root", "gn_root", f"{stem}.stem_norm", "group_norm")
    for name, norm in (("conv1", "1"), ("conv2", "2"), ("conv3", "3"), ("conv_proj", "_proj")):
        rows.append(
            (f"block{{stage}}/unit1/{name}/kernel", f"block{{stage}}.{name}.weight", f"{unit}.{name}.weight", "conv")
        )
        rows += _make_norm_rows(
            f"block{{stage}}/unit1/gn{norm}", f"block{{stage}}.gn{norm}", f"{unit}.norm{norm}", "group_norm"
        )
    rows += _make_dense_rows("embedding", "embedding", f"{embeddings}.patch_projection")
    rows += [
        ("Transformer/cls", "transformer_encoder.cls", f"{embeddings}.cls_token", "same"),
        (
            "Transformer/posembed_input/pos_embedding",
            "transformer_encoder.posembed_input.position_emb",
            f"{embeddings}.spatial_embedding.weight",
            "position_table",
        ),
        (
            "Transformer/scaleembed_input/scale_embedding",
            "transformer_encoder.scaleembed_input.scale_emb",
            f"{embeddings}.scale_embedding.weight",
            "scale_table",
        ),
    ]
    block, pyiqa_block = "Transformer/encoderblock_{i}", "transformer_encoder.transformer.encoderblock_{i}"
    attention = f"{block}/MultiHeadDotProductAttention_1"
    rows += _make_norm_rows(f"{block}/LayerNorm_0", f"{pyiqa_block}.norm1", f"{layer}.layernorm_before")
    for name in ("query", "key", "value"):
        ours = f"{layer}.attention.{name[0]}_proj"
        rows += _make_dense_rows(
            f"{attention}/{name}", f"{pyiqa_block}.attention.{name}", ours, "heads_out", "heads_bias"
        )
    rows += _make_dense_rows(
        f"{attention}/out", f"{pyiqa_block}.attention.out", f"{layer}.attention.o_proj", "heads_in"
    )
    rows += _make_norm_rows(f"{block}/LayerNorm_2", f"{pyiqa_block}.norm2", f"{layer}.layernorm_after")
    rows += _make_dense_rows(f"{block}/MlpBlock_3/Dense_0", f"{pyiqa_block}.mlp.fc1", f"{layer}.mlp.fc1")
    rows += _make_dense_rows(f"{block}/MlpBlock_3/Dense_1", f"{pyiqa_block}.mlp.fc2", f"{layer}.mlp.fc2")
    rows += _make_norm_rows("Transformer/encoder_norm", "transformer_encoder.encoder_norm", "musiq.layernorm")
    rows += _make_dense_rows("pre_logits", "pre_logits", "head.pre_logits")
    return rows + _make_dense_rows("head", "head", "head.classifier")


RENAMES = _make_rename_table()
ORIGINAL, PYIQA, OURS = 0, 1, 2  # columns of the table
_LAYOUTS = {ORIGINAL: ORIGINAL_LAYOUTS, PYIQA: PYIQA_LAYOUTS}


def _compile_pattern(template: str, column: int) -> re.Pattern[str]:
    # Leading zeros and stage 0 do not match, because two foreign names must never become one of ours.
    escaped = re.escape(template).replace(re.escape("{i}"), r"(?P<i>0|[1-9]\d*)")
    escaped = escaped.replace(re.escape("{stage}"), r"(?P<stage>[1-9]\d*)")
    if column == PYIQA and template.startswith("head."):
        escaped = escaped.replace("head", r"head(?:\.0)?", 1)  # with several labels pyiqa's head also holds a softmax
    return re.compile(escaped)


_PATTERNS = {column: [_compile_pattern(row[column], column) for row in RENAMES] for column in (ORIGINAL, PYIQA, OURS)}


def rename(name: str, *, source: int, target: int) -> tuple[str, str] | None:
    """Translate one name.

    Args:
        name: Name in the source column, without the prefix `opt/target/`.
        source: Column of the name: `ORIGINAL`, `PYIQA` or `OURS`.
        target: Column to translate to, one of the same three.

    Returns:
        The name in the target column and its layout, or None if the table does not know it.
    """
    for pattern, row in zip(_PATTERNS[source], RENAMES, strict=True):
        match = pattern.fullmatch(name)
        if match:
            numbers = {key: int(value) for key, value in match.groupdict().items()}
            index = numbers.get("i", numbers.get("stage", 1) - 1)
            return row[target].format(i=index, stage=index + 1), row[3]
    return None


def to_ours(arrays: Mapping[str, Array], *, source: int) -> tuple[dict[str, Array], list[str]]:
    """Translate foreign arrays to our names and layouts.

    Args:
        arrays: Arrays by their names in the source column, without prefix and without optimizer state.
        source: Column of the names, `ORIGINAL` or `PYIQA`.

    Returns:
        Our arrays, as views where possible, and the sorted names of arrays that were not translated. The table does
        not know these names, or their arrays have a wrong number of dimensions.
    """
    ours, unfit = {}, []
    for name, array in arrays.items():
        found = rename(name, source=source, target=OURS)
        if found is None or _LAYOUTS[source][found[1]].num_dimensions not in (None, array.ndim):
            unfit.append(name)
        else:
            ours[found[0]] = _LAYOUTS[source][found[1]].to_ours(array)
    return ours, sorted(unfit)


def from_ours(
    arrays: Mapping[str, Array], *, target: int, num_attention_heads: int
) -> tuple[dict[str, Array], list[str]]:
    """Translate our arrays to foreign names, without prefix, and layouts.

    Args:
        arrays: Arrays by our names.
        target: Column to translate to, `ORIGINAL` or `PYIQA`.
        num_attention_heads: Number of heads by which the original splits attention kernels.

    Returns:
        Foreign arrays, as views where possible, and the sorted names that the table does not know.
    """
    outside, unknown = {}, []
    for name, array in arrays.items():
        found = rename(name, source=OURS, target=target)
        if found is None:
            unknown.append(name)
        else:
            outside[found[0]] = _LAYOUTS[target][found[1]].to_source(array, num_attention_heads)
    return outside, sorted(unknown)


def account(
    arrays: Mapping[str, Array], *, source: int, expected: Mapping[str, tuple[int, ...]], num_attention_heads: int
) -> list[str]:
    """Compare foreign arrays with those that a model needs, by their foreign names and layouts.

    Args:
        arrays: Arrays by their names in the source column.
        source: Column of the names, `ORIGINAL` or `PYIQA`.
        expected: Shapes of the model's parameters, by our names.
        num_attention_heads: Number of attention heads of the model.

    Returns:
        One line for each array that is missing, unknown, or of a wrong shape or type; no line if all is well.
    """
    wanted: dict[str, tuple[str, tuple[int, ...]]] = {}  # our name: foreign name and shape
    for name, shape in expected.items():
        placeholder = np.broadcast_to(np.float32(0), shape)
        outside, _ = from_ours({name: placeholder}, target=source, num_attention_heads=num_attention_heads)
        for other, array in outside.items():
            wanted[name] = (other, array.shape)
    lines, seen = [], set()
    for name, array in sorted(arrays.items()):
        found = rename(name, source=source, target=OURS)
        if found is None or found[0] not in wanted or found[0] in seen:
            lines.append(f"unknown: {name} {array.shape}")
            continue
        seen.add(found[0])
        if array.shape != wanted[found[0]][1]:
            lines.append(f"wrong shape: {name} {array.shape}, expected {wanted[found[0]][1]}")
        elif array.dtype != np.float32:
            lines.append(f"wrong type: {name} {array.dtype}, expected float32")
    return lines + [f"missing: {other} {shape}" for name, (other, shape) in wanted.items() if name not in seen]


def ours_to_original(arrays: Mapping[str, Array], *, num_attention_heads: int) -> tuple[dict[str, Array], list[str]]:
    """Translate our arrays for an npz file of the original, by `from_ours`.

    Args:
        arrays: Arrays by our names.
        num_attention_heads: Number of heads by which the original splits attention kernels.

    Returns:
        Contiguous arrays under names with the prefix `opt/target/`, and the sorted names that the table does not know.
    """
    original, unknown = from_ours(arrays, target=ORIGINAL, num_attention_heads=num_attention_heads)
    return {ORIGINAL_PREFIX + name: np.ascontiguousarray(array) for name, array in original.items()}, unknown
