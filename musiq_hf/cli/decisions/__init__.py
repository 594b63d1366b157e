# SPDX-License-Identifier: Apache-2.0
"""Subcommands that decide by scores, one module for each."""
