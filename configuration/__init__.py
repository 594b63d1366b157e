# SPDX-License-Identifier: Apache-2.0
"""Data only: model and image processor configurations of the published variants, and what trains and launches with them."""
