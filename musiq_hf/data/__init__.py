# SPDX-License-Identifier: Apache-2.0
"""Pictures with opinion scores: one's own tables, shards and folders, data of the Hub, and the public data sets."""

from .batches import open_row
from .columns import TableOptions
from .loading import load_data, load_pictures, load_scored_images
from .public_sets import (
    DATA_SETS,
    load_ava,
    load_biq2021,
    load_kadid10k,
    load_koniq,
    load_paq2piq,
    load_spaq,
    load_tid2013,
)
from .splits import SPLITS, draw_strata, read_listed_parts, split_at_random

__all__ = [
    "DATA_SETS",
    "SPLITS",
    "TableOptions",
    "draw_strata",
    "load_ava",
    "load_biq2021",
    "load_data",
    "load_kadid10k",
    "load_koniq",
    "load_paq2piq",
    "load_pictures",
    "load_scored_images",
    "load_spaq",
    "load_tid2013",
    "open_row",
    "read_listed_parts",
    "split_at_random",
]
