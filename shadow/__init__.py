"""The routing layer: dual writes, shadow reads, evidence, a gate, and a flip that can be taken back.

It is wrapped around two stores while a migration lasts, and can be deleted when it is over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shadow.config import Settings
    from shadow.config_sources import load_settings
    from shadow.router import Router
    from shadow.service import open_router

__all__ = ["Router", "Settings", "load_settings", "open_router"]

# Looked up when asked for, so that `import shadow` costs next to nothing.
_HOMES = {
    "Router": "shadow.router",
    "Settings": "shadow.config",
    "load_settings": "shadow.config_sources",
    "open_router": "shadow.service",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'shadow' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
