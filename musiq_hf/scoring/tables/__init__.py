# SPDX-License-Identifier: Apache-2.0
"""Tables of any rows: their forms, and the jobs that measure pictures or videos into them."""
