# SPDX-License-Identifier: Apache-2.0
"""Doors to the converters of `musiq_hf.conversion`."""
