# SPDX-License-Identifier: Apache-2.0
"""Ladders of encodings: files of several codecs and qualities, their sizes, losses and scores."""
