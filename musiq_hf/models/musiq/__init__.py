# SPDX-License-Identifier: Apache-2.0
"""MUSIQ, the multi-scale image quality Transformer (Ke et al., ICCV 2021)."""
