# SPDX-License-Identifier: Apache-2.0
"""Checkpoint directories for the Hub: cards, remote code, files written whole."""

from .card_updates import check_card_directory, renew_card, update_card
from .checkpoints import save_checkpoint
from .model_card import CheckpointCard
from .publishing import add_remote_code

__all__ = [
    "CheckpointCard",
    "add_remote_code",
    "check_card_directory",
    "renew_card",
    "save_checkpoint",
    "update_card",
]
