"""Errors as problem details (RFC 9457), one kind for each thing that a client can do about it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import Response

from shadow.errors import CutoverRefused, JournalFull, RouteConflict
from vectorstore.errors import (
    ConfigurationError,
    DeadlineExceeded,
    InvalidInput,
    StoreUnavailable,
    Unsupported,
    VectorStoreError,
)

__all__ = ["KINDS", "MEDIA_TYPE", "PASSING", "Problem", "problem_of", "problem_response"]

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1

KINDS: Mapping[str, tuple[int, str]] = {
    "invalid-input": (422, "The request says something that no store may accept"),
    "unsupported": (422, "The stores cannot do what was asked"),
    "too-large": (413, "The request's body is larger than is allowed"),
    "unsupported-media-type": (415, "The body's type is not one that is read here"),
    "timeout": (408, "The request's body did not arrive in time"),
    "unauthorized": (401, "The right token is missing"),
    "forbidden": (403, "This is not allowed here"),
    "not-found": (404, "There is nothing at this address"),
    "method-not-allowed": (405, "This address does not take this method"),
    "misdirected": (421, "The request is addressed to another host"),
    "route-conflict": (409, "Somebody else changed the route first"),
    "cutover-refused": (409, "The migration may not do this now"),
    "overloaded": (429, "More requests are under way than are allowed at a time"),
    "draining": (503, "The proxy is stopping and takes nothing new"),
    "unavailable": (503, "No store could do this now"),
    "journal-full": (503, "The journal has reached its limit and takes no write"),
    "deadline-exceeded": (503, "No store answered in the time allowed"),
    "misconfigured": (503, "A setting keeps this from working"),
    "internal": (500, "A fault of the proxy's own"),
}
# What passes by itself: these responses say when to come back.
PASSING = frozenset({429, 503})
OF_ERRORS: Sequence[tuple[type[VectorStoreError], str]] = (
    (InvalidInput, "invalid-input"),
    (Unsupported, "unsupported"),
    (RouteConflict, "route-conflict"),
    (CutoverRefused, "cutover-refused"),
    (JournalFull, "journal-full"),
    (DeadlineExceeded, "deadline-exceeded"),
    (StoreUnavailable, "unavailable"),
    (ConfigurationError, "misconfigured"),
)


@dataclass(slots=True, eq=False)
class Problem(Exception):
    """A refusal in words; ``kind`` is one of ``KINDS``."""

    kind: str
    detail: str
    more: Mapping[str, Any] = field(default_factory=dict)


def problem_of(error: Exception) -> Problem:
    """What an error of the project's means to a client; a fault of our own keeps its words to itself."""
    if isinstance(error, Problem):
        return error
    for kind_of_error, kind in OF_ERRORS:
        if isinstance(error, kind_of_error):
            return Problem(kind, str(error))
    return Problem("internal", "The proxy failed; its log says where. Nothing of it is told here.")


def problem_response(problem: Problem) -> Response:
    """The problem as a response, with Retry-After where coming back makes sense."""
    status, title = KINDS[problem.kind]
    body = {
        "type": f"/problems/{problem.kind}",
        "title": title,
        "status": status,
        "detail": problem.detail,
        **problem.more,
    }
    headers = {}
    if status in PASSING:
        headers["retry-after"] = str(RETRY_AFTER_S)
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    # In ASCII, so that a lone surrogate which somebody sent cannot fail its own refusal.
    return Response(json.dumps(body), status, headers, MEDIA_TYPE)
