# SPDX-License-Identifier: Apache-2.0
"""Page and HTTP route of `musiq serve`; the modules with gradio in them need the extra `serve`."""
