# SPDX-License-Identifier: Apache-2.0
"""Speed and memory of `musiq_hf`, beside pyiqa and beside what the machine can do; see docs/performance.md."""
