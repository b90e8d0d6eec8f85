"""The bot's settings written out: as the commented TOML file and as the table of the bot's page."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from farming_guide.settings import (
    DATABASE_BACKENDS,
    ENVIRONMENT_PREFIX,
    PLAIN_NAMES,
    BotSettings,
)

__all__ = ["as_markdown", "as_toml"]

TOML_HEAD = """\
# Every setting of the bot with its default. Uncomment what you change, and name this file in
# FARMING_GUIDE_CONFIG; the environment goes over it. Keep keys, tokens and passwords out of here: put
# them into the environment. Made by `farming-guide settings --toml`; a test keeps it true.
"""
BACKENDS_HEAD = """\
# The backends by name: the class, the module that it is in, and what it is opened with. A backend of
# your own joins them in the same way; to change one that comes along, write all of its lines.
"""
WIDTH = 98


def as_toml() -> str:
    """All settings as a TOML file in which every value is commented out."""
    lines = [TOML_HEAD]
    for name, field in _values():
        text = f"{field.description} Environment: {_variable(name)}."
        lines += textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# ")
        # TOML has no word for "unset".
        value = _toml(_default(field))
        lines += [f"# {name} = {value}" if value else f"# {name} = (unset)", ""]
    lines.append(BACKENDS_HEAD.rstrip())
    for name, backend in DATABASE_BACKENDS.items():
        lines += [
            "",
            f"# [database_backends.{name}]",
            f'# class = "{backend.class_}"',
            f'# module = "{backend.module}"',
        ]
        if backend.settings:
            pairs = ", ".join(f"{key} = {_toml(value)}" for key, value in backend.settings.items())
            lines.append(f"# settings = {{ {pairs} }}")
    return "\n".join(lines) + "\n"


def as_markdown() -> str:
    """All settings as a table."""
    rows = ["| setting | environment | default | meaning |", "|---|---|---|---|"]
    for name, field in _values():
        shown = _toml(_default(field))
        rows.append(
            f"| `{name}` | `{_variable(name)}` | {f'`{shown}`' if shown else 'unset'} "
            f"| {str(field.description).replace('|', chr(92) + '|')} |"
        )
    return "\n".join(rows) + "\n"


def _values() -> Iterator[tuple[str, FieldInfo]]:
    for name, field in BotSettings.model_fields.items():
        if name != "database_backends":
            yield name, field


def _variable(name: str) -> str:
    plain = {setting: variable for variable, setting in PLAIN_NAMES.items()}
    return plain.get(name, f"{ENVIRONMENT_PREFIX}{name.upper()}")


def _default(field: FieldInfo) -> Any:
    value: Any = field.get_default(call_default_factory=True)
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Path):
        # It comes along with the package, wherever that lies.
        return f"farming_guide/{value.relative_to(Path(__file__).parent).as_posix()}"
    return value


def _toml(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, int | float) else f'"{value}"'
