# SPDX-License-Identifier: Apache-2.0
"""Names and layouts of MUSIQ weights: the original's npz, pyiqa's pth, and ours, in one table of pure transforms.

Original: flax 0.3.3 names under `opt/target/` (google-research/musiq). pyiqa: its PyTorch state dict, layouts as ours
but for the leading axis of its position table.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

ORIGINAL_PREFIX = "opt/target/"

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Layout:
    """How one kind of array is stored by the original and by us."""

    to_ours: Callable[[Array], Array]
    to_original: Callable[[Array, int], Array]  # second argument: number of attention heads


LAYOUTS = {
    "same": Layout(lambda a: a, lambda a, heads: a),
    # (rows, columns, in, out) <-> (out, in, rows, columns)
    "conv": Layout(lambda a: a.transpose(3, 2, 0, 1), lambda a, heads: a.transpose(2, 3, 1, 0)),
    # (1, 1, 1, channels) <-> (channels,)
    "group_norm": Layout(lambda a: a.reshape(-1), lambda a, heads: a.reshape(1, 1, 1, -1)),
    # (in, out) <-> (out, in)
    "dense": Layout(lambda a: a.T, lambda a, heads: a.T),
    # (D, heads, head_dim) <-> (heads * head_dim, D)
    "heads_out": Layout(
        lambda a: a.reshape(a.shape[0], -1).T, lambda a, heads: a.T.reshape(a.shape[1], heads, a.shape[0] // heads)
    ),
    # (heads, head_dim) <-> (heads * head_dim,)
    "heads_bias": Layout(lambda a: a.reshape(-1), lambda a, heads: a.reshape(heads, -1)),
    # (heads, head_dim, D) <-> (D, heads * head_dim)
    "heads_in": Layout(
        lambda a: a.reshape(-1, a.shape[-1]).T, lambda a, heads: a.T.reshape(heads, a.shape[1] // heads, a.shape[0])
    ),
    # (1, positions, D) <-> (positions, D)
    "table": Layout(lambda a: a.reshape(-1, a.shape[-1]), lambda a, heads: a[None]),
}


def _norm(original: str, pyiqa: str, ours: str, layout: str = "same") -> list[tuple[str, str, str, str]]:
    pairs = (("scale", "weight"), ("bias", "bias"))
    return [(f"{original}/{a}", f"{pyiqa}.{b}", f"{ours}.{b}", layout) for a, b in pairs]


def _dense(
    original: str, pyiqa: str, ours: str, kernel: str = "dense", bias: str = "same"
) -> list[tuple[str, str, str, str]]:
    rows = (("kernel", "weight", kernel), ("bias", "bias", bias))
    return [(f"{original}/{a}", f"{pyiqa}.{b}", f"{ours}.{b}", layout) for a, b, layout in rows]


def _rename_table() -> list[tuple[str, str, str, str]]:
    """Rows (original, pyiqa, ours, layout); {i} counts blocks from 0, {stage} counts encoder stages from 1."""
    embeddings, layer = "musiq.embeddings", "musiq.encoder.layers.{i}"
    stem, unit = f"{embeddings}.patch_encoder", f"{embeddings}.patch_encoder.stages.{{i}}"
    rows = [("conv_root/kernel", "conv_root.weight", f"{stem}.stem_conv.weight", "conv")]
    rows += _norm("gn_root", "gn_root", f"{stem}.stem_norm", "group_norm")
    for name, norm in (("conv1", "1"), ("conv2", "2"), ("conv3", "3"), ("conv_proj", "_proj")):
        rows.append((f"block{{stage}}/unit1/{name}/kernel", f"block{{stage}}.{name}.weight", f"{unit}.{name}.weight", "conv"))
        rows += _norm(f"block{{stage}}/unit1/gn{norm}", f"block{{stage}}.gn{norm}", f"{unit}.norm{norm}", "group_norm")
    rows += _dense("embedding", "embedding", f"{embeddings}.patch_projection")
    rows += [
        ("Transformer/cls", "transformer_encoder.cls", f"{embeddings}.cls_token", "same"),
        (
            "Transformer/posembed_input/pos_embedding",
            "transformer_encoder.posembed_input.position_emb",
            f"{embeddings}.spatial_embedding.weight",
            "table",
        ),
        (
            "Transformer/scaleembed_input/scale_embedding",
            "transformer_encoder.scaleembed_input.scale_emb",
            f"{embeddings}.scale_embedding.weight",
            "table",
        ),
    ]
    block, pyiqa_block = "Transformer/encoderblock_{i}", "transformer_encoder.transformer.encoderblock_{i}"
    attention = f"{block}/MultiHeadDotProductAttention_1"
    rows += _norm(f"{block}/LayerNorm_0", f"{pyiqa_block}.norm1", f"{layer}.layernorm_before")
    for name in ("query", "key", "value"):
        ours = f"{layer}.attention.{name[0]}_proj"
        rows += _dense(f"{attention}/{name}", f"{pyiqa_block}.attention.{name}", ours, "heads_out", "heads_bias")
    rows += _dense(f"{attention}/out", f"{pyiqa_block}.attention.out", f"{layer}.attention.o_proj", "heads_in")
    rows += _norm(f"{block}/LayerNorm_2", f"{pyiqa_block}.norm2", f"{layer}.layernorm_after")
    rows += _dense(f"{block}/MlpBlock_3/Dense_0", f"{pyiqa_block}.mlp.fc1", f"{layer}.mlp.fc1")
    rows += _dense(f"{block}/MlpBlock_3/Dense_1", f"{pyiqa_block}.mlp.fc2", f"{layer}.mlp.fc2")
    rows += _norm("Transformer/encoder_norm", "transformer_encoder.encoder_norm", "musiq.layernorm")
    rows += _dense("pre_logits", "pre_logits", "head.pre_logits")
    return rows + _dense("head", "head", "head.classifier")


RENAMES = _rename_table()
ORIGINAL, PYIQA, OURS = 0, 1, 2  # columns of the table


def _pattern(template: str) -> re.Pattern[str]:
    escaped = re.escape(template).replace(re.escape("{i}"), r"(?P<i>\d+)")
    return re.compile(escaped.replace(re.escape("{stage}"), r"(?P<stage>\d+)"))


_PATTERNS = {column: [_pattern(row[column]) for row in RENAMES] for column in (ORIGINAL, PYIQA, OURS)}


def rename(name: str, *, source: int, target: int) -> tuple[str, str] | None:
    """Translate one name.

    Args:
        name: A name in the source column, without the prefix `opt/target/`.
        source: `ORIGINAL`, `PYIQA` or `OURS`.
        target: Likewise.

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


def rename_all(names: list[str], *, source: int, target: int) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """Translate names; returns {name: (translated, layout)} and the sorted names that the table does not know."""
    known = {name: found for name in names if (found := rename(name, source=source, target=target))}
    return known, sorted(set(names) - set(known))


def original_to_ours(arrays: Mapping[str, Array]) -> tuple[dict[str, Array], list[str]]:
    """Arrays of an npz file, without prefix and optimizer state, to our names and layouts, and the unknown names."""
    known, unknown = rename_all(list(arrays), source=ORIGINAL, target=OURS)
    ours = {new: np.ascontiguousarray(LAYOUTS[layout].to_ours(arrays[old])) for old, (new, layout) in known.items()}
    return ours, unknown


def pyiqa_to_ours(arrays: Mapping[str, Array]) -> tuple[dict[str, Array], list[str]]:
    """Arrays of pyiqa's state dict to our names and layouts, and the unknown names."""
    known, unknown = rename_all(list(arrays), source=PYIQA, target=OURS)
    # Only the tables carry an extra axis; all other layouts are PyTorch's on both sides.
    ours = {
        new: arrays[old].reshape(-1, arrays[old].shape[-1]) if layout == "table" else arrays[old]
        for old, (new, layout) in known.items()
    }
    return ours, unknown


def ours_to_original(arrays: Mapping[str, Array], *, num_attention_heads: int) -> tuple[dict[str, Array], list[str]]:
    """Our arrays to the original's names, with its prefix, and layouts, and the unknown names."""
    known, unknown = rename_all(list(arrays), source=OURS, target=ORIGINAL)
    original = {
        ORIGINAL_PREFIX + new: np.ascontiguousarray(LAYOUTS[layout].to_original(arrays[old], num_attention_heads))
        for old, (new, layout) in known.items()
    }
    return original, unknown
