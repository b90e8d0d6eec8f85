"""Short texts that repeat in the metadata of many records, held once: names of documents, kinds."""

from __future__ import annotations

from typing import Any

__all__ = ["SharedValues"]

_KNOWN_MAX = 10_000
_LENGTH_MAX = 100


class SharedValues:
    """The texts met so far, up to ten thousand of at most a hundred characters."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def shared(self, metadata: dict[str, Any]) -> dict[str, Any]:
        """The same object, with values that were met before in place of equal ones."""
        known = self._known
        for key, value in metadata.items():
            if type(value) is str and len(value) <= _LENGTH_MAX:
                found = known.get(value)
                if found is not None:
                    metadata[key] = found
                elif len(known) < _KNOWN_MAX:
                    known[value] = value
        return metadata
