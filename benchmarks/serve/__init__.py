# SPDX-License-Identifier: Apache-2.0
"""Load test of `musiq serve`, which `python -m benchmarks.serve` runs."""
