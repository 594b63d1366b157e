# SPDX-License-Identifier: Apache-2.0
"""Data only: configurations of the published variants, and settings for training and launching."""
