# SPDX-License-Identifier: Apache-2.0
"""Variants of MUSIQ that are trained alike, one part changed at a time, and the studies that they belong to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

ARCHITECTURE = "scratch:musiq-tiny"
SIDE = 32  # pixels of a patch of that architecture
# Patches of a training step: native and of each resized copy, or of the only scale.
NATIVE_PATCHES, RESIZED_PATCHES = 32, 16
ALL_PATCHES = NATIVE_PATCHES + RESIZED_PATCHES


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Training that differs from the others of its study in one part.

    Attributes:
        changes: Settings that differ, as `--set` and recipes name them.
        start: Checkpoint or configuration that it starts from, or the name of an argument that holds one.
        passes: Factor of the epochs of the study.
    """

    changes: tuple[str, ...] = ()
    start: str = ARCHITECTURE
    passes: float = 1.0


def _vary(*changes: str, start: str = ARCHITECTURE) -> Variant:
    return Variant(changes=changes, start=start)


def _change_patches(side: int) -> Variant:
    """Return a variant with another patch size, which sees as many pixels in a step, rounded."""
    factor = (SIDE / side) ** 2
    native, resized = round(NATIVE_PATCHES * factor), round(RESIZED_PATCHES * factor)
    return _vary(f"patch_size={side}", f"native_patches={native}", f"resized_patches={resized}")


def _choose_scales(*sides: int, native: bool) -> Variant:
    """Return a variant that reads these scales alone, and as many patches in a step whatever they are."""
    share = (RESIZED_PATCHES if native else ALL_PATCHES) // max(len(sides), 1)
    return _vary(
        f"longer_side_lengths=[{','.join(map(str, sides))}]",
        f"use_native_resolution={str(native).lower()}",
        f"resized_patches={share}",
        *([f"native_patches={ALL_PATCHES - len(sides) * share}"] if native else []),
    )


BASELINE = "full model, without stage 1"
WITH_STAGE_1 = "with stage 1"
NO_POSITIONS = "no spatial embedding"
LOCALISATION = "localisation_weight=0.6"
COVARIANCE = "pooling=cls+covariance"

# Table 7, 8 and 9, and the two ends of Table 6.
PARTS: Mapping[str, Variant] = {
    WITH_STAGE_1: Variant(start="pretrained"),
    BASELINE: Variant(),
    NO_POSITIONS: _vary("spatial_embedding=none"),
    "no scale embedding": _vary("use_scale_embedding=false"),
    "native scale only": _choose_scales(native=True),
    "resized scale only": _choose_scales(224, native=False),
    "linear patch encoder": _vary("patch_encoder=linear"),
    "stem of the ResNet alone": _vary("patch_encoder=conv"),
}
# Covariance pooling, relative locations and whitening, which the paper has not.
METHODS: Mapping[str, Variant] = {
    WITH_STAGE_1: PARTS[WITH_STAGE_1],
    BASELINE: PARTS[BASELINE],
    "covariance beside CLS": _vary(COVARIANCE),
    "covariance alone": _vary("pooling=covariance"),
    "localisation": _vary(LOCALISATION),
    "no spatial embedding, localisation": _vary("spatial_embedding=none", LOCALISATION),
    "covariance and localisation": _vary(COVARIANCE, LOCALISATION),
    "with stage 1, covariance beside CLS": _vary(COVARIANCE, start="pretrained"),
    "with stage 1, localisation": _vary(LOCALISATION, start="pretrained"),
    "whitening in place of stage 1": Variant(start="whitened"),
    "whitening, covariance and localisation": _vary(COVARIANCE, LOCALISATION, start="whitened"),
}
# Appendix B.3: the number of cells G x G to which positions are hashed. One vector a slot is row 2 of Table 7.
GRIDS: Mapping[str, Variant] = {
    NO_POSITIONS: PARTS[NO_POSITIONS],
    "a vector for each slot": _vary("spatial_embedding=fixed", "max_native_patches=256"),
    "grid of 5": _vary("hash_grid_size=5"),
    BASELINE: PARTS[BASELINE],
    "grid of 20": _vary("hash_grid_size=20"),
}
GRID_SIZES: Sequence[str] = ("grid of 5", BASELINE, "grid of 20")
PATCH_SIZES: Mapping[str, Variant] = {
    "patches of 16": _change_patches(16),
    BASELINE: PARTS[BASELINE],
    "patches of 48": _change_patches(48),
    "patches of 64": _change_patches(64),
}
# Table 6. The mean of the three single scales is measured too, see `ENSEMBLE`.
SCALES: Mapping[str, Variant] = {
    "(224)": _choose_scales(224, native=False),
    "(384)": _choose_scales(384, native=False),
    "(full)": _choose_scales(native=True),
    "(full, 224)": _choose_scales(224, native=True),
    "(full, 384, 224)": _choose_scales(224, 384, native=True),
    "(full, 384, 224), three times as long": replace(_choose_scales(224, 384, native=True), passes=3.0),
}
ENSEMBLE = "mean of (full), (224), (384)"
MEMBERS: Sequence[str] = ("(full)", "(224)", "(384)")

STUDIES: Mapping[str, Mapping[str, Variant]] = {
    "parts": PARTS,
    "methods": METHODS,
    "grids": GRIDS,
    "patch_sizes": PATCH_SIZES,
    "scales": SCALES,
}
VARIANTS: Mapping[str, Variant] = {name: variant for study in STUDIES.values() for name, variant in study.items()}
