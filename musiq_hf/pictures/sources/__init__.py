# SPDX-License-Identifier: Apache-2.0
"""Sources of pictures: paths of all kinds, read as a stream of keys and pictures."""
