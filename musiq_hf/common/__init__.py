# SPDX-License-Identifier: Apache-2.0
"""Small tools that know no picture and no model."""
