"""Escaped markup: the one way by which text from data reaches HTML or SVG."""

from __future__ import annotations

import re

__all__ = ["Markup", "element", "join", "plain"]

# What XML 1.0 forbids even when escaped (production [2] Char), and the controls that would turn the
# direction of the words after them.
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff\u202a-\u202e\u2066-\u2069]"
)
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"}
_VOID = frozenset({"br", "circle", "hr", "line", "link", "meta", "path", "polyline", "rect"})


class Markup(str):
    """Text that is already markup; anything else is escaped on its way in."""

    __slots__ = ()


def plain(value: str) -> Markup:
    """``value`` as character data, safe in element content and in a quoted attribute."""
    if isinstance(value, Markup):
        return value
    clean = _FORBIDDEN.sub("\ufffd", value)
    return Markup("".join(_ESCAPES.get(character, character) for character in clean))


def element(name: str, /, *children: str, **attributes: str | float | None) -> Markup:
    """One element, well-formed as XML and as HTML.

    A trailing underscore of an attribute's name is dropped and others become hyphens (``class_``,
    ``aria_label``); None leaves the attribute out.
    """
    parts = [f"<{name}"]
    for key, value in attributes.items():
        if value is not None:
            shown = f"{value:g}" if isinstance(value, float) else str(value)
            parts.append(f' {key.rstrip("_").replace("_", "-")}="{plain(shown)}"')
    if name in _VOID and not children:
        return Markup("".join((*parts, "/>")))
    return Markup("".join((*parts, ">", *map(plain, children), f"</{name}>")))


def join(*pieces: str) -> Markup:
    """The pieces one after the other, each escaped unless it is markup."""
    return Markup("".join(map(plain, pieces)))
