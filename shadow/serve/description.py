"""The OpenAPI description: what FastAPI finds in the routes, with the refusals that each can meet."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from shadow.config import ServeSettings
from shadow.serve.limits import UNCOUNTED
from shadow.serve.problems import KINDS, MEDIA_TYPE, PASSING
from shadow.serve.schemas import ProblemDocument

__all__ = ["describe"]

COMPONENT = "ProblemDocument"
# The server below says this, before there is a request to speak of.
NOT_HTTP = {
    "description": "What came is not HTTP, or its head is larger than 64 kB.",
    "content": {"text/plain": {"schema": {"type": "string"}}},
}


def describe(app: FastAPI, *, dimension: int, settings: ServeSettings) -> None:
    """Let the application tell every refusal as a problem document, under its own status, and the limits
    of this proxy: the vectors' dimension, the largest k and the largest batch."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _described(app)
            _limit(app.openapi_schema["components"]["schemas"], dimension, settings)
        return app.openapi_schema

    # As FastAPI's documentation has it for a description of one's own.
    app.openapi = openapi  # type: ignore[method-assign]


def _described(app: FastAPI) -> dict[str, Any]:
    found = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    schemas = found.setdefault("components", {}).setdefault("schemas", {})
    schemas[COMPONENT] = ProblemDocument.model_json_schema()
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for path, operations in found["paths"].items():
        for operation in operations.values():
            responses = operation["responses"]
            responses.pop("422", None)
            responses["400"] = NOT_HTTP
            for status in sorted(set(_refusals(path, operation))):
                responses[str(status)] = _refusal(status)
    return found


def _limit(schemas: dict[str, Any], dimension: int, settings: ServeSettings) -> None:
    # Four bytes a number, three of them in four letters.
    letters = 4 * math.ceil(4 * dimension / 3)
    for name in ("SearchRequest", "RecordIn"):
        fields = schemas[name]["properties"]
        fields["vector"]["anyOf"][0].update(minItems=dimension, maxItems=dimension)
        fields["vector_base64"]["anyOf"][0].update(minLength=letters, maxLength=letters)
    schemas["SearchRequest"]["properties"]["k"]["maximum"] = settings.k_max
    for name, items in (
        ("BatchRequest", "queries"),
        ("UpsertRequest", "records"),
        ("DeleteRequest", "ids"),
        ("GetRequest", "ids"),
    ):
        schemas[name]["properties"][items]["maxItems"] = settings.batch_max


def _refusals(path: str, operation: Mapping[str, Any]) -> Iterator[int]:
    """Statuses that an operation may refuse with."""
    # Another host's name, another origin's page, a fault of ours.
    yield from (421, 403, 500)
    if path not in UNCOUNTED:
        # A body is bounded whether or not it is wanted.
        yield from (408, 413, 415, 429, 503)
    if path in ("/readyz", "/v1/events"):
        yield from (429, 503)
    if "{" in path:
        yield 404
    if "parameters" in operation or "requestBody" in operation:
        yield 422
    if "security" in operation:
        yield 401
    if path.startswith("/v1/control/"):
        yield 409


def _refusal(status: int) -> dict[str, Any]:
    kinds = [kind for kind, (of_kind, _) in KINDS.items() if of_kind == status]
    told: dict[str, Any] = {
        "description": "; ".join(f"`{kind}`: {KINDS[kind][1]}" for kind in kinds),
        "content": {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{COMPONENT}"}}},
    }
    if status in PASSING:
        told["headers"] = {
            "Retry-After": {
                "description": "Seconds after which it is worth coming back.",
                "schema": {"type": "string"},
                "required": True,
            }
        }
    return told
