"""One dictionary out of a file that holds the text of a Python dictionary of dictionaries.

Python's own parser makes a syntax tree of the whole text, which takes some fifty times its size. Here
the file is mapped and read pair by pair, and only what is asked for is kept. Nothing in it is run.
"""

from __future__ import annotations

import ast
import mmap
import re
from pathlib import Path

__all__ = ["dictionary_in"]

_SCALAR = rb"""-?\d{1,19}|'(?:[^'\\\n]|\\.)*+'|"(?:[^"\\\n]|\\.)*+\""""
_OPEN = re.compile(rb"\s*\{")
_NAME = re.compile(rb"\s*(" + _SCALAR + rb")\s*:")
_PAIR = re.compile(rb"\s*(" + _SCALAR + rb")\s*:\s*(" + _SCALAR + rb")\s*(?:,|(?=\}))")
_CLOSE = re.compile(rb"\s*\}")
_NEXT = re.compile(rb"\s*(?:,|(?=\}))")
_END = re.compile(rb"\s*\Z")


def dictionary_in(path: Path, name: str) -> dict[int | str, int | str] | None:
    """The dictionary under ``name``; None if there is none.

    Dictionaries hold texts and integers alone. Raises ValueError where the file holds anything else.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        found = None
        at = _after(_OPEN, text, 0)
        while not (closed := _CLOSE.match(text, at)):
            key, at = _key(text, at)
            held, at = _dictionary(text, at, keep=key == name)
            if key == name:
                found = held
            at = _after(_NEXT, text, at)
        _after(_END, text, closed.end())
    return found


def _dictionary(text: mmap.mmap, at: int, *, keep: bool) -> tuple[dict[int | str, int | str], int]:
    held: dict[int | str, int | str] = {}
    at = _after(_OPEN, text, at)
    while pair := _PAIR.match(text, at):
        if keep:
            held[_value(pair[1])] = _value(pair[2])
        at = pair.end()
    return held, _after(_CLOSE, text, at)


def _key(text: mmap.mmap, at: int) -> tuple[int | str, int]:
    found = _NAME.match(text, at)
    if found is None:
        raise ValueError(f"no name at byte {at:,}")
    return _value(found[1]), found.end()


def _after(pattern: re.Pattern[bytes], text: mmap.mmap, at: int) -> int:
    found = pattern.match(text, at)
    if found is None:
        raise ValueError(f"something else than a dictionary at byte {at:,}")
    return found.end()


def _value(token: bytes) -> int | str:
    if token[:1] not in (b"'", b'"'):
        return int(token)
    if b"\\" in token:
        try:
            found: str = ast.literal_eval(token.decode())
        except SyntaxError as error:
            raise ValueError(f"{token[:40]!r} is no text") from error
        return found
    return token[1:-1].decode()
