# SPDX-License-Identifier: Apache-2.0
"""Optional dependencies: imported where they are used, and named with their pip line where they are missing."""

import importlib
from types import ModuleType


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional module.

    Args:
        module: Import name of the module, such as "scipy.stats".
        extra: Extra of `musiq_hf` that installs the module.

    Returns:
        The module.

    Raises:
        ImportError: If the module is not installed; the message holds the pip line.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise ImportError(f'{package} is needed here. Install it with: pip install "musiq_hf[{extra}]"') from error
