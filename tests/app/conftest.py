# SPDX-License-Identifier: Apache-2.0
"""A server, and pictures of every kind, for all tests of the page and the route."""

from app_server import expected, kinds, server

__all__ = ["expected", "kinds", "server"]
