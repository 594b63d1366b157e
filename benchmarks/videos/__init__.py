# SPDX-License-Identifier: Apache-2.0
"""Time and memory of measures of videos, which `python -m benchmarks.videos` measures."""
