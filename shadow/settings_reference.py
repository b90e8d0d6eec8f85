"""The settings written out: as the commented TOML file and as the reference page."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from shadow.config import Settings

__all__ = ["as_markdown", "as_toml"]

TOML_HEAD = """\
# Every setting of the router with its default. Uncomment what you change. The environment goes over
# this file: SHADOW_ and the names joined by two underscores, as in SHADOW_GATE__RECALL_MIN=0.98; a list
# is written there with commas, or as here where a text has one.
# Two go by plain names: DATABASE_URL (postgresql.dsn) and PRIMARY (primary). Keep passwords out of
# here: put them into the environment. Made by `shadow settings --toml`; a test keeps it true.
"""
WIDTH = 98


def as_toml() -> str:
    """All settings as a TOML file in which every value is commented out."""
    parts = [TOML_HEAD, *_toml_values(Settings)]
    for name, section in _sections():
        parts += ["", f"[{name}]", f"# {section.__doc__}", "", *_toml_values(section)]
    return "\n".join(parts).rstrip() + "\n"


def as_markdown() -> str:
    """All settings as tables."""
    parts = [
        "# Configuration",
        "",
        "Settings come, the later over the earlier, from the defaults, a TOML file (`--config`, else "
        "`$SHADOW_CONFIG`, else `config/shadow.toml` where it exists) and the environment: `SHADOW_` and "
        "the names joined by two underscores; a list is written there with commas, or as in JSON where a "
        "text has one. `DATABASE_URL` and `PRIMARY` are honoured by these plain "
        "names. An unknown key or a bad value is an error that names it. This page is made by "
        "`shadow settings --markdown`.",
    ]
    sections: list[tuple[str, type[BaseModel]]] = [("", Settings), *_sections()]
    for name, section in sections:
        parts += [
            "",
            f"## {name or 'General'}",
            "",
            "| setting | default | meaning |",
            "|---|---|---|",
        ]
        for key, field in _values(section):
            bounds = _bounds(field)
            meaning = f"{field.description}{f' ({bounds})' if bounds else ''}".replace("|", "\\|")
            parts.append(f"| `{f'{name}.' if name else ''}{key}` | `{_shown(field)}` | {meaning} |")
    return "\n".join(parts) + "\n"


def _sections() -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield name, field.annotation


def _values(section: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in section.model_fields.items():
        if not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            yield name, field


def _toml_values(section: type[BaseModel]) -> list[str]:
    lines: list[str] = []
    for name, field in _values(section):
        bounds = _bounds(field)
        text = f"{field.description}{f' ({bounds})' if bounds else ''}"
        lines += textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# ")
        lines += [f"# {name} = {_shown(field)}", ""]
    return lines


def _shown(field: FieldInfo) -> str:
    value: Any = field.get_default(call_default_factory=True)
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value is None:
        return '""'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple | list):
        return "[" + ", ".join(f'"{item}"' for item in value) + "]"
    return f'"{value}"'


def _bounds(field: FieldInfo) -> str:
    """The bounds or the values allowed, in words."""
    choices = [
        value for arg in (field.annotation, *get_args(field.annotation)) for value in get_args(arg)
    ]
    if choices and all(isinstance(value, str) for value in choices):
        return " | ".join(choices)
    words: list[str] = []
    for name, word in (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below")):
        found = [getattr(item, name) for item in field.metadata if hasattr(item, name)]
        words += [f"{word} {_number(value)}" for value in found if value is not None]
    return ", ".join(words)


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else repr(value)
