"""Columns that the cyclic garbage collector passes by.

A full collection looks at every entry of every list, with the interpreter held and so with every thread
standing still: with millions of rows each reader feels it, over and over while a process lives. What is
held here (texts, numbers and JSON objects) can lie in no cycle.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any, TypeVar

__all__ = ["untracked"]

Column = TypeVar("Column", list[Any], dict[Any, Any])

_untrack: Any = None
if sys.implementation.name == "cpython":
    # Of CPython's stable interface ("Supporting Cyclic Garbage Collection"); twice does no harm.
    _untrack = ctypes.pythonapi.PyObject_GC_UnTrack
    _untrack.argtypes, _untrack.restype = [ctypes.py_object], None


def untracked(column: Column) -> Column:
    """The same column, which nothing may be put in that leads back to it."""
    if _untrack is not None:
        _untrack(column)
    return column
