# SPDX-License-Identifier: Apache-2.0
"""Scripts that run the converters of `musiq_hf.conversion`."""
