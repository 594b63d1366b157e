# SPDX-License-Identifier: Apache-2.0
"""Measured shares of groups in which the score picks the better picture, for help and warnings."""

NOTE = "TODO"
WARNING = "TODO"
