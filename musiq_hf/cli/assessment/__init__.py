# SPDX-License-Identifier: Apache-2.0
"""Commands of `assessment`: descriptions, comparisons and ladders, with the tables and exit codes of `musiq score`."""
