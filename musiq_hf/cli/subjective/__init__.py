# SPDX-License-Identifier: Apache-2.0
"""Commands for viewing tests: plans, opinion scores and paired comparisons."""
