# SPDX-License-Identifier: Apache-2.0
"""Model families, a folder for each."""
