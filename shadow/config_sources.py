"""Where settings come from, and how a process hands them to its child.

They come, the later over the earlier, from their defaults, a TOML file (``--config``, else
``$SHADOW_CONFIG``, else ``config/shadow.toml`` where it exists), and the environment: ``SHADOW_`` and
the names joined by two underscores (``SHADOW_GATE__RECALL_MIN=0.98``). A list is written there with
commas, or as in JSON where its texts have commas themselves; empty, it is none. Two go by plain names:
``DATABASE_URL`` is ``postgresql.dsn`` and ``PRIMARY`` is a request made when a process starts.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from shadow.config import Settings
from vectorstore.errors import ConfigurationError

__all__ = ["CONFIG_DEFAULT", "config_file", "environment_of", "load_settings"]

ENVIRONMENT_PREFIX = "SHADOW_"
CONFIG_VARIABLE = "SHADOW_CONFIG"
CONFIG_DEFAULT = Path("config/shadow.toml")
LISTS = frozenset({"hosts_allowed", "quarantine", "strata"})
PLAIN_NAMES = {"PRIMARY": ("primary",), "DATABASE_URL": ("postgresql", "dsn")}


def load_settings(path: Path | None = None, environment: dict[str, str] | None = None) -> Settings:
    """Read the settings, or raise ConfigurationError naming the key and the values allowed."""
    variables = dict(os.environ) if environment is None else environment
    values: dict[str, Any] = {}
    source = config_file(path, variables)
    if source is not None:
        values = _read_toml(source)
    for name, target in _environment_keys(variables).items():
        _put(values, target, variables[name], name)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigurationError(_explain(error, source)) from None


def environment_of(settings: Settings, base: Mapping[str, str]) -> dict[str, str]:
    """An environment in which a command of this program has these settings and reads no file.

    ``PRIMARY`` is left out: the command asks for nothing.
    """
    kept = {
        name: value
        for name, value in base.items()
        if not name.startswith(ENVIRONMENT_PREFIX) and name not in PLAIN_NAMES
    }
    return {**kept, CONFIG_VARIABLE: os.devnull, **_variables(settings, ENVIRONMENT_PREFIX)}


def config_file(path: Path | None, variables: Mapping[str, str]) -> Path | None:
    """The file that settings come from: ``path`` if it is given; None where there is none."""
    if path is not None:
        return path
    if variables.get(CONFIG_VARIABLE):
        return Path(variables[CONFIG_VARIABLE])
    return CONFIG_DEFAULT if CONFIG_DEFAULT.is_file() else None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the configuration {path}: {error.strerror}"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(f"the configuration {path} is not valid TOML: {error}") from error


def _environment_keys(variables: dict[str, str]) -> dict[str, tuple[str, ...]]:
    keys = {name: target for name, target in PLAIN_NAMES.items() if name in variables}
    for name in sorted(variables):
        if name.startswith(ENVIRONMENT_PREFIX) and name != CONFIG_VARIABLE:
            keys[name] = tuple(name[len(ENVIRONMENT_PREFIX) :].lower().split("__"))
    return keys


def _put(values: dict[str, Any], target: tuple[str, ...], value: str, name: str) -> None:
    place = values
    for part in target[:-1]:
        place = place.setdefault(part, {})
        if not isinstance(place, dict):
            raise ConfigurationError(f"{name}: {part!r} is a setting, not a section")
    place[target[-1]] = _listed(value) if target[-1] in LISTS else value


def _listed(value: str) -> Any:
    """The texts of a list in the environment; what is not understood is left for the check of settings."""
    if value.startswith("["):
        with suppress(ValueError, RecursionError):
            return json.loads(value)
    return value.split(",") if value else []


def _explain(error: ValidationError, source: Path | None) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    # Of what stands in a list, the list is named.
    where = [part for part in problem["loc"] if isinstance(part, str)]
    name = ".".join(where)
    origin = f" (from {source} or the environment)" if source else " (from the environment)"
    if problem["type"] == "extra_forbidden":
        allowed = ", ".join(sorted(_section(where[:-1]).model_fields))
        return f"unknown setting {name!r}{origin}; known here: {allowed}"
    return f"setting {name!r}{origin}: {_in_words(problem, where)}"


def _in_words(problem: ErrorDetails, where: list[str]) -> str:
    """What is wrong with a value, and the right form of it, without the names of Python's types."""
    kind, key = problem["type"], where[-1]
    if kind == "model_type":
        return (
            f"it is a section and no value: write [{key}] on a line of its own, and its settings "
            f"({', '.join(_section(where).model_fields)}) on the lines below"
        )
    examples = _section(where[:-1]).model_fields[key].examples or []
    if kind == "tuple_type" or len(where) < len(problem["loc"]):
        variable = f"{ENVIRONMENT_PREFIX}{'__'.join(where).upper()}"
        return (
            f"it must be a list of texts, as in {key} = {json.dumps(examples)}, or in the environment "
            f"{variable}={','.join(examples)}"
        )
    if kind in ("path_type", "string_type"):
        return f'it must be a text in quotes, as in {key} = "..."'
    if kind == "value_error":
        return str(problem["ctx"]["error"])
    example = f", as in {key} = {json.dumps(examples[0])}" if examples else ""
    return f"{problem['msg'][0].lower()}{problem['msg'][1:]}{example}"


def _section(names: list[str]) -> type[BaseModel]:
    section: Any = Settings
    for name in names:
        section = section.model_fields[name].annotation
    found: type[BaseModel] = section
    return found


def _variables(section: BaseModel, prefix: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in type(section).model_fields:
        value: Any = getattr(section, name)
        key = f"{prefix}{name.upper()}"
        if isinstance(value, BaseModel):
            found |= _variables(value, f"{key}__")
        elif name == "state_directory":
            found[key] = str(value.absolute())
        elif isinstance(value, SecretStr):
            found[key] = value.get_secret_value()
        elif isinstance(value, tuple | list):
            # Not with commas: an id or a label may have one.
            found[key] = json.dumps(value)
        elif value is not None and name != "primary":
            found[key] = str(value)
    return found
