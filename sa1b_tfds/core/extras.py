"""Libraries that only some users need: an import that fails says which extra brings them."""

from __future__ import annotations

import importlib
from types import ModuleType


def load(module: str, extra: str) -> ModuleType:
    """Imports an optional library.

    Raises:
      ImportError: naming the extra to install, if it is not there.
    """
    try:
        return importlib.import_module(module)
    except ImportError as e:
        raise ImportError(
            f"This needs {module.partition('.')[0]}, which is not installed ({e}):"
            f" pip install 'sa1b_tfds[{extra}]'"
        ) from e
