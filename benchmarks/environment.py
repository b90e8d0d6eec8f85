"""Where figures were measured: without this they mean nothing."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psycopg

__all__ = ["environment"]

PACKAGES = ("shadow-cutover", "faiss-cpu", "numpy", "pgvector", "psycopg", "psycopg-pool")
SERVER_SETTINGS = ("shared_buffers", "fsync", "synchronous_commit", "wal_level", "max_wal_size")


def environment(dsn: str, seeds: str, run: str) -> Mapping[str, Any]:
    """Machine, versions, server settings, the load before the run, and the origin of the seeds."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        server = connection.info.parameter_status("server_version")
        vector = connection.execute(
            "SELECT default_version FROM pg_available_extensions WHERE name = 'vector'"
        ).fetchone()
        settings = {
            name: connection.execute("SELECT current_setting(%s)", (name,)).fetchone()[0]  # type: ignore[index]
            for name in SERVER_SETTINGS
        }
    return {
        "run": run,
        "at": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "python": sys.version.split()[0],
        "packages": {name: _version(name) for name in PACKAGES},
        "postgresql": server,
        "pgvector": vector[0] if vector else None,
        "server_settings": settings,
        "load_1min_at_start": round(os.getloadavg()[0], 2),
        "seeds": seeds,
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
