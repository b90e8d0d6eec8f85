"""FAISS itself, as ``Any``: the stubs that it ships leave out half of what it can do.

The only module that imports FAISS, so that what blocks it or delays it is in one place.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["faiss"]

faiss: Any = importlib.import_module("faiss")
