# SPDX-License-Identifier: Apache-2.0
"""Original MUSIQ checkpoints to Hugging Face and back; see `convert_musiq_checkpoint`."""
