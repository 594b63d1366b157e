# SPDX-License-Identifier: Apache-2.0
"""Super-resolution by any factor after MSIT."""

from .configuration_msit import MsitConfig
from .modeling_msit import MsitForImageSuperResolution, MsitPreTrainedModel

__all__ = ["MsitConfig", "MsitForImageSuperResolution", "MsitPreTrainedModel"]
