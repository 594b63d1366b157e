# SPDX-License-Identifier: Apache-2.0
"""Super-resolution by any factor after MSIT."""

from .configuration_msit import MsitConfig
from .family import MSIT
from .image_processing_msit import MsitImageProcessor
from .modeling_msit import MsitForImageSuperResolution, MsitPreTrainedModel

__all__ = ["MSIT", "MsitConfig", "MsitForImageSuperResolution", "MsitImageProcessor", "MsitPreTrainedModel"]
