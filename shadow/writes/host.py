"""Which machine this is: SQLite's WAL needs every process of a journal on one machine."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Host"]


@dataclass(frozen=True, slots=True)
class Host:
    """What tells two machines apart. An empty field is unknown and never matches.

    ``boot_id`` names the running kernel, which the containers of one machine share. ``machine_id``
    outlives a reboot. ``name`` is all there is elsewhere than on Linux.
    """

    boot_id: str
    machine_id: str
    name: str

    @classmethod
    def this(cls) -> Host:
        """The identity of the machine that this process runs on."""
        return cls(
            boot_id=_line(Path("/proc/sys/kernel/random/boot_id")),
            machine_id=_line(Path("/etc/machine-id")),
            name=platform.node(),
        )

    def is_same(self, other: Host) -> bool:
        """One kernel is one machine; else the machine ids decide; without them the names do."""
        if self.boot_id and self.boot_id == other.boot_id:
            return True
        if self.machine_id and other.machine_id:
            return self.machine_id == other.machine_id
        return bool(self.name) and self.name == other.name


def _line(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
