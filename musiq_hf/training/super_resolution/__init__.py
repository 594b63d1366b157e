# SPDX-License-Identifier: Apache-2.0
"""Training of super-resolution on photographs alone."""
